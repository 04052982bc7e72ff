//! How what is heard changes what is believed.
//!
//! Evidence about a member is ordered by (boot epoch, incarnation, state); the greatest wins,
//! whoever tells it and in whichever order it comes. Only the member itself raises its numbers: an
//! accusation never does, it counts against the incarnation that is known. Others are believed about its numbers in
//! small steps alone, no faster than it can follow, so that no word puts them where it is unable to answer. A newer boot is
//! believed of any member that tells it where it is near and at the known address, and else once the member itself
//! has answered from there ([`claim`](super::claim)). Where two clusters meet that each have a node of one name, the newer one
//! stays; the other learns so in the join handshake. A `Dead` heard from another is one more accusation; the verdict is
//! this node's own.
//!
//! What a peer says against others counts for nothing while it is held dead here, and for as long as a suspicion may
//! last after it came back: it was apart from everybody, and holds all of them dead. Whoever it accuses and is well here
//! is told so, and refutes; nobody else hears of it. Otherwise the end of a split would be the beginning of as many
//! suspicions as there are members, and of verdicts, where a refutation comes too late.

use super::accuse::Accusation;
use super::member::{Case, ME, Member, State};
use super::outbox::Msg;
use super::row_wire::{AliveRow, Row};
use super::suspicion;
use super::{Origin, Swim};
use crate::event::Event;
use crate::hash;
use crate::id::NodeId;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// Boot epochs above are nobody's: adopting the next would exhaust them.
pub(super) const LAST_BOOT: u64 = u64::MAX - (1 << 32);
/// A boot epoch of a year later, if they count microseconds.
pub(super) const FAR_AHEAD: u64 = 1 << 45;
/// Incarnations above are nobody's: a member refutes at most once per shortest retry.
pub(super) const LAST_INCARNATION: u32 = u32::MAX / 2;

/// By how much others may raise what is known of a member's incarnation within the shortest retry, and of the version of its
/// identity at a time. What they say beyond that is taken for this much: the member was at such a number, or will be soon,
/// for by as much it raises its own when it answers.
pub(super) const MAX_STEP: u32 = 8;

/// The most that others are believed of the numbers of one of whom nothing is known: more than a member comes to that is well, or
/// else it would be known by less than it has, and each telling of an old row would be a refutation after it had failed. And no more than
/// it comes to within seconds when it is accused at that number.
pub(super) const FIRST_SIGHT: u32 = 1_024;

/// Most members that are warned per gossip interval.
const MAX_WARNINGS: u32 = 64;

impl Swim {
    pub(super) fn apply_row(&mut self, now: Instant, origin: Origin, row: Row<'_>) {
        if origin.slot.is_none() && !self.may_introduce(origin, row) {
            self.stats.misaddressed += 1;
            return;
        }
        match row {
            Row::Alive(row) => self.apply_alive(now, origin, row),
            Row::Accused { id, boot, incarnation, dead, accusers } => {
                let Some(slot) = self.known(origin, id, boot) else { return };
                if self.is_memberlist() && slot != ME {
                    let from = accusers.iter().last().unwrap_or(origin.sender.id);
                    self.accused_by_rumour(now, slot, incarnation, dead, from);
                    return;
                }
                let member = self.table.member(slot);
                // Whoever still waits for a verdict hears of the one that fell here, unless it knows a
                // newer incarnation: then the two would correct each other for ever.
                let settled = match member.state {
                    State::Left => !sabotaged!("the-left-suspected"),
                    State::Dead => incarnation == member.incarnation,
                    State::Alive | State::Suspect => false,
                };
                if slot == ME && !sabotaged!("own-death-believed") {
                    self.refute(now, origin, incarnation, accusers.iter());
                } else if incarnation < member.incarnation || (!dead && settled) {
                    self.correct(origin, slot);
                } else if self.is_outdated(now, origin) {
                    if self.table.member(slot).state == State::Alive {
                        self.warn(now, slot, origin.sender.id);
                    }
                } else {
                    let why = if dead { Accusation::Verdict } else { Accusation::Word };
                    self.accuse(now, slot, accusers.iter(), origin.sender.id, why);
                    self.heard_of_accusation(origin, slot, incarnation, dead, accusers.len());
                }
            }
            Row::Left { id, boot, preimage } => self.apply_left(now, origin, id, boot, preimage),
            Row::Standing(told) => self.on_standing(now, origin, told),
        }
    }

    /// Whether to believe a row of who is no member: of one that this node asked to be let in. Another one that tells of itself is
    /// asked to join, for it may be nowhere near where it seems to speak from: all members would probe an address that never
    /// asked for that.
    fn may_introduce(&mut self, origin: Origin, row: Row<'_>) -> bool {
        if self.joiner.was_asked(origin.from) {
            return true;
        }
        let by_itself = matches!(row, Row::Alive(row) if row.id == origin.sender.id);
        if !by_itself || self.is_memberlist() {
            return by_itself;
        }
        let room = self.table.len() < self.config.max_members || !self.table.gone().is_empty();
        if room && !self.leave.started() {
            self.outbox.stranger(origin.from, Msg::Stranger);
        }
        false
    }

    /// Whether the sender was held dead until lately, or is, so that it holds others dead who are well: whoever was
    /// apart from them all comes back with a table of what was not so.
    pub(super) fn is_outdated(&self, now: Instant, origin: Origin) -> bool {
        let row = origin.slot.map(|slot| self.table.row(slot));
        row.is_some_and(|row| !row.member.is_live() || now < row.heeded_from())
    }

    /// Tells a member that somebody holds it suspect or dead, for it alone can answer that.
    pub(super) fn warn(&mut self, now: Instant, slot: u32, by: NodeId) {
        if self.warned.0 <= now {
            self.warned = (now + self.config.gossip_interval, 0);
        }
        if self.warned.1 < MAX_WARNINGS {
            self.warned.1 += 1;
            self.stats.warnings += 1;
            let incarnation = self.table.member(slot).incarnation;
            self.outbox.msg(slot, Msg::Accused { by, incarnation });
        }
    }

    /// A peer tells that a member is accused: if that is just what is told here, it is known there.
    fn heard_of_accusation(
        &mut self,
        origin: Origin,
        slot: u32,
        incarnation: u32,
        dead: bool,
        accusers: usize,
    ) {
        let row = self.table.row(slot);
        let same = match row.member.state {
            State::Suspect => {
                let known = row.suspicion().map(|suspicion| suspicion.accusers.len());
                !dead && known == Some(accusers)
            }
            State::Dead => dead,
            State::Alive | State::Left => false,
        };
        if same && row.member.incarnation == incarnation {
            self.heard(origin, slot);
        }
    }

    /// The slot of `id` if it is known in exactly this boot. Whoever tells of an older one is corrected.
    pub(super) fn known(&mut self, origin: Origin, id: NodeId, boot: u64) -> Option<u32> {
        let slot = self.table.slot(id)?;
        let known = self.table.row(slot).boot();
        if boot < known {
            self.correct(origin, slot);
        }
        (boot == known).then_some(slot)
    }

    /// Tells the sender what is known of `about`: its own news were older.
    pub(super) fn correct(&mut self, origin: Origin, about: u32) {
        if let Some(slot) = origin.slot.filter(|_| !self.is_memberlist()) {
            self.outbox.row(slot, about);
        }
    }

    /// A peer tells just what this node tells of a member, unless that is also what was found of it, which the peer may lack.
    fn heard(&mut self, origin: Origin, slot: u32) {
        let more = self.table.found(slot).is_some();
        if let Some(teller) = origin.slot.filter(|_| !more && !self.is_memberlist()) {
            self.gossip.heard(slot, teller);
        }
    }

    pub(super) fn apply_alive(&mut self, now: Instant, origin: Origin, row: AliveRow<'_>) {
        // Numbers so near to the end of their range are nobody's; believing them would leave the
        // member no room to answer.
        if row.boot >= LAST_BOOT || row.incarnation > LAST_INCARNATION {
            self.stats.misaddressed += 1;
            return;
        }
        let known = self.table.slot(row.id);
        if self.wants_proof(origin, known, row) {
            self.claim(now, origin, row);
        } else {
            self.believe_alive(now, origin, known, row);
        }
    }

    /// What needs no proof, or was proven, of the member in that slot, if it is known.
    pub(super) fn believe_alive(
        &mut self,
        now: Instant,
        origin: Origin,
        known: Option<u32>,
        row: AliveRow<'_>,
    ) {
        match known {
            // Somebody else under this node's name is met in the join handshake.
            Some(ME) => {}
            None => {
                let believed = self.as_told(origin, row);
                if let Some(slot) = self.admit(now, origin, believed) {
                    self.note_cut(slot, row, believed);
                }
            }
            Some(slot) => {
                let known = self.table.row(slot);
                if row.boot > known.boot() {
                    if sabotaged!("restart-ignored") {
                        return;
                    }
                    let believed = self.as_told(origin, row);
                    self.restarted(now, slot, believed);
                    self.note_cut(slot, row, believed);
                } else if row.boot < known.boot() {
                    if sabotaged!("older-boot-believed") {
                        return self.restarted(now, slot, row);
                    }
                    self.correct(origin, slot);
                } else {
                    self.refreshed(now, origin, slot, row);
                }
            }
        }
    }

    /// The row with numbers that may be believed of one of whom nothing is known in that boot.
    fn as_told<'r>(&self, origin: Origin, mut row: AliveRow<'r>) -> AliveRow<'r> {
        if !origin.tells_of_itself(row) && !self.is_memberlist() {
            row.incarnation = row.incarnation.min(FIRST_SIGHT);
            row.version = row.version.min(FIRST_SIGHT);
        }
        row
    }

    /// Remembers what was told beyond what is believed.
    fn note_cut(&mut self, slot: u32, told: AliveRow<'_>, believed: AliveRow<'_>) {
        if told.incarnation > believed.incarnation || told.version > believed.version {
            self.stats.jumps_cut += 1;
        }
        if told.version > believed.version {
            self.table.row_mut(slot).hear(told.version);
        }
    }

    fn admit(&mut self, now: Instant, origin: Origin, row: AliveRow<'_>) -> Option<u32> {
        if self.table.len() >= self.config.max_members && !sabotaged!("members-uncapped") {
            // Those who live go before those who are remembered, apart from who says so.
            let Some(gone) = self.table.forget_oldest(origin.slot) else {
                self.stats.members_refused += 1;
                return None;
            };
            self.forgotten(gone);
        }
        let identity = row.identity();
        self.events.push(Event::Joined { identity: Arc::clone(&identity) });
        // Where that one was sought by a node with members, two clusters have met.
        let met = !self.table.live().is_empty() && self.joiner.was_asked(row.addr);
        let slot = self.table.insert(identity, row.incarnation, row.version, row.commitment);
        self.table.row_mut(slot).since = now;
        if met && !self.is_memberlist() {
            self.outbox.msg(slot, Msg::Buckets);
        }
        self.arm_probe(now);
        self.joined(now);
        self.tell(now, slot);
        Some(slot)
    }

    /// A known name with a higher boot epoch: everything known of the old boot is void.
    fn restarted(&mut self, now: Instant, slot: u32, row: AliveRow<'_>) {
        let (was_live, old_epoch) =
            (self.table.member(slot).is_live(), self.table.row(slot).boot());
        let identity = row.identity();
        self.void_probes(slot);
        self.suspicions.clear(slot);
        self.forget_standing(slot);
        self.table.set_identity(slot, Arc::clone(&identity), row.version);
        self.table.row_mut(slot).forget_heard();
        self.turn(now, slot, State::Alive, Case::None, now);
        let known = self.table.row_mut(slot);
        known.member.incarnation = row.incarnation;
        known.member.rtt_us = 0;
        known.member.doubted = false;
        known.commitment = row.commitment;
        self.events.push(if was_live {
            Event::Restarted { old_epoch, identity }
        } else {
            Event::Joined { identity }
        });
        self.arm_probe(now);
        self.joined(now);
        self.tell(now, slot);
    }

    /// News of the boot that is known.
    fn refreshed(&mut self, now: Instant, origin: Origin, slot: u32, row: AliveRow<'_>) {
        let known = self.table.row(slot);
        let state = known.member.state;
        if state == State::Left {
            self.correct(origin, slot);
            return;
        }
        let known_version = known.member.version;
        let row = self.in_steps(now, origin, slot, row);
        let known = self.table.row(slot);
        let newer_identity = row.version > known_version;
        let as_new = row.incarnation == known.member.incarnation;
        let newer = row.incarnation > known.member.incarnation
            && !(sabotaged!("refutation-ignored") && state != State::Alive)
            || as_new && state == State::Dead && sabotaged!("stale-alive");
        if state == State::Dead && newer && self.table.member(slot).held {
            // It is told again when the hold is over, and counts then.
            self.stats.returns_refused += 1;
            // Whoever tells so is told of the hold, and so is the member itself.
            self.outbox.to(slot).gossip |= origin.slot == Some(slot);
            self.correct(origin, slot);
            return;
        }
        if newer || newer_identity {
            self.table.row_mut(slot).member.doubted = false;
        }
        let mut updated = false;
        if newer_identity {
            let identity = row.identity();
            // The version alone may come in steps.
            updated = *self.table.member(slot).identity != *identity;
            self.table.set_identity(slot, Arc::clone(&identity), row.version);
            if updated && state != State::Dead {
                self.events.push(Event::Updated { identity });
            }
        }
        if newer {
            self.table.row_mut(slot).member.incarnation = row.incarnation;
            self.suspicions.clear(slot);
            if state != State::Alive {
                self.turn(now, slot, State::Alive, Case::None, now);
            }
            if state == State::Dead {
                let heeded_from = now + suspicion::longest(&self.config, self.len());
                self.table.row_mut(slot).set_heeded_from(heeded_from);
            }
            let member = self.table.member(slot);
            match state {
                State::Suspect => {
                    self.stats.recoveries += 1;
                    self.events.push(Event::Recovered { id: row.id });
                }
                State::Dead => {
                    self.stats.returns += 1;
                    let identity = Arc::clone(&member.identity);
                    self.events.push(Event::Joined { identity });
                    self.arm_probe(now);
                    self.joined(now);
                }
                State::Alive | State::Left => {}
            }
        } else if state != State::Alive {
            self.correct(origin, slot);
        } else if as_new && row.version == known_version {
            self.heard(origin, slot);
        }
        if newer {
            self.tell_first(now, slot);
        } else if updated {
            self.tell(now, slot);
        }
    }

    /// The row with numbers that may be believed of a member in the boot that is known. Of what was told of its version before
    /// nothing is new, though it was more than could be believed.
    fn in_steps<'r>(
        &mut self,
        now: Instant,
        origin: Origin,
        slot: u32,
        told: AliveRow<'r>,
    ) -> AliveRow<'r> {
        let first_hand = origin.tells_of_itself(told) || self.is_memberlist();
        let window = self.config.retry_min;
        let known = self.table.row_mut(slot);
        let raised_from = known.raised_from(now, window);
        let Member { incarnation, version, .. } = known.member;
        if first_hand {
            // Unless it was on its way for long.
            if told.incarnation > incarnation || told.version > version {
                known.forget_heard();
            }
            return told;
        }
        let (mut row, news) = (told, told.version > known.heard());
        // What is known is never more than that.
        let most = raised_from.saturating_add(MAX_STEP).max(incarnation);
        row.incarnation = row.incarnation.min(most);
        row.version =
            row.version.min(if news { version.saturating_add(MAX_STEP) } else { version });
        self.note_cut(slot, told, row);
        row
    }

    fn apply_left(
        &mut self,
        now: Instant,
        origin: Origin,
        id: NodeId,
        boot: u64,
        preimage: [u8; 16],
    ) {
        let Some(slot) = self.known(origin, id, boot) else { return };
        if slot == ME {
            return;
        }
        let by_itself = origin.sender.id == id;
        let (state, commitment) = (self.table.member(slot).state, self.table.row(slot).commitment);
        if hash::commitment(preimage) != commitment {
            // Not the leaver's word: no more than somebody's claim that it is gone.
            if !self.is_outdated(now, origin) {
                let by = origin.sender.id;
                self.accuse(now, slot, [by].into_iter(), by, Accusation::Leave);
            }
            return;
        }
        if by_itself {
            self.outbox.msg(slot, Msg::LeftAck);
        }
        if state == State::Left {
            if sabotaged!("leave-echo") {
                self.tell(now, slot);
            }
            self.heard(origin, slot);
            return;
        }
        self.void_probes(slot);
        self.suspicions.clear(slot);
        self.forget_standing(slot);
        let forget_at = now + self.config.tombstone_age;
        self.turn(now, slot, State::Left, Case::Left(Box::new(preimage)), forget_at);
        if state != State::Dead {
            self.events.push(Event::Left { id });
            self.lost(now);
        }
        self.arm_join(now);
        self.tell_first(now, slot);
    }
}
