//! Full sync, on the side that takes.
//!
//! What comes is put aside until all of it is there, and then taken in at once: an entry may lack marks of
//! writes that only the whole context explains, so a part of it would show what was removed. With the whole
//! context it is a plain join of two observed-remove sets (Bieniusa et al. 2012): a value that the giver has
//! not, though it knows the write, was superseded; a key that it does not name at all, likewise.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::Map;
use super::aside::{self, Aside};
use super::dot::{Packed, Runs};
use super::fetch::Asking;
use super::full_wire::{ContextUnit, Range, Stage, Unit};
use super::introduced::Introduced;
use super::replica::{MAX_SPAN, Replicas};
use super::store::{Look, Told};
use super::wire;
use crate::event::Key;
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// Pieces that what came may be in: more than an answer has datagrams.
const MAX_PIECES: usize = 4_096;

/// So many lives may have as many dots ahead of gaps as one may: each dot takes room of its own, and a run of them a few bytes
/// of what comes.
const LIVES_WITH_GAPS: u64 = 4;

/// Entries whose homes in the index are fetched together.
const AT_ONCE: usize = 32;

/// What became of some units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// They are put aside, or were so before.
    Aside,
    /// There is no room for them.
    NoRoom,
    /// They tell of writes of this replica that it never made.
    Forged,
}

/// A full sync being taken.
#[derive(Debug)]
pub(super) struct Staging {
    peer: u32,
    session: u64,
    /// Units that tell of the context, and all of them.
    contexts: u64,
    total: u64,
    /// Units that are here, counted from one.
    got: Runs,
    /// The giver's context when it began, by replica.
    context: Vec<Runs>,
    floors: Vec<u64>,
    /// Dots of all of them ahead of gaps.
    ahead: u64,
    /// The replicas that it told of.
    told: BTreeSet<u16>,
    entries: Aside,
    pub(super) asking: Asking,
    /// Whether it mends what is not as it should be.
    repairs: bool,
}

impl Staging {
    pub(super) const fn deadline(&self) -> Instant {
        self.asking.deadline()
    }

    pub(super) const fn peer(&self) -> u32 {
        self.peer
    }

    pub(super) const fn session(&self) -> u64 {
        self.session
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Whether the giver reflected the dot when it began.
    fn reflects(&self, dot: Packed) -> bool {
        let runs = self.context.get(usize::from(dot.replica()));
        runs.is_some_and(|runs| runs.contains(dot.counter()))
    }

    fn runs_mut(&mut self, replica: u16) -> &mut Runs {
        let at = usize::from(replica);
        if self.context.len() <= at {
            self.context.resize_with(at + 1, Runs::default);
        }
        &mut self.context[at]
    }

    /// The units that are missing.
    pub(super) fn missing(&self) -> impl Iterator<Item = Range> {
        let starts = core::iter::once(self.got.base).chain(self.got.runs.iter().map(|run| run.1));
        let ends = self.got.runs.iter().map(|run| run.0 - 1).chain([self.total]);
        starts.zip(ends).filter(|(from, to)| from < to)
    }
}

impl Map {
    /// Whether this replica is about to take what others have, or the peer in `slot` in particular, and so gives nothing.
    /// Of two that need each other's, the one with the lower id gives.
    pub(super) fn yields_to(&self, slot: u32) -> bool {
        if self.retiring.is_behind() {
            return true;
        }
        let Some(staging) = &self.staging else { return false };
        let peer = self.peers.get(slot).map(|peer| peer.id);
        staging.peer != slot || peer.is_none_or(|peer| peer < self.replicas.own().node)
    }

    /// Some of what is missing here came from the peer in `slot`.
    pub(super) fn on_stage(&mut self, now: Instant, slot: u32, stage: &Stage<'_>) {
        let head = stage.head;
        if !self.is_mine(head.addressee) {
            self.stats.misaddressed += 1;
            return;
        }
        let answers = self.pulling.as_ref().is_some_and(|pulling| pulling.is(slot, head.nonce));
        if answers {
            self.begin_staging(now, slot, stage);
        }
        let same = |staging: &mut Staging| {
            staging.peer == slot && staging.session == head.session && staging.total == head.total
        };
        let Some(mut staging) = self.staging.take_if(same) else {
            // Nobody waits for it: its giver need not either.
            self.over = Some((slot, head.session));
            self.peers.wake(slot);
            return;
        };
        self.taken.left(now);
        self.taken.spend(stage.units.bytes());
        let before = (staging.got.base, staging.got.runs.clone());
        let put = self.put_aside(&mut staging, stage);
        match put {
            Put::Aside if self.has_room_for(&staging) => {}
            Put::Aside | Put::NoRoom => {
                self.refuse(now, slot);
                // All of it would be sent again, for nothing.
                self.pull_after = self.pull_after.max(now + self.config.keep_for);
                self.abandon(now, &staging);
                return;
            }
            Put::Forged => {
                self.abandon(now, &staging);
                if !self.hear_of_unmade(now) {
                    self.pull_after = now + self.config.pull_interval * 32;
                }
                return;
            }
        }
        if before != (staging.got.base, staging.got.runs.clone()) {
            staging.asking.put_off(now + self.pull_patience());
        }
        if staging.got.base >= staging.total {
            self.adopt(now, staging);
            return;
        }
        self.note_answer(&mut staging, stage);
        self.staging = Some(staging);
        self.peers.wake(slot);
    }

    /// Whether what was put aside fits beside what is here, once all of it is there.
    fn has_room_for(&self, staging: &Staging) -> bool {
        if staging.got.base < staging.total {
            return true;
        }
        let (keys, bytes) = self.new_of(&staging.entries);
        self.store.keys() + keys <= self.config.max_keys
            && self.store.bytes() + bytes <= self.config.max_bytes
    }

    /// How many of these keys are not here, and how many bytes are theirs.
    fn new_of(&self, entries: &Aside) -> (usize, usize) {
        if self.store.keys() == 0 {
            return (entries.len(), entries.bytes());
        }
        let is_new =
            |entry: &aside::Entry<'_>| self.store.look_by(entry.hash, entry.key).slot.is_none();
        let new = entries.iter().filter(is_new);
        new.fold((0, 0), |(keys, bytes), entry| (keys + 1, bytes + entry.len()))
    }

    fn begin_staging(&mut self, now: Instant, slot: u32, stage: &Stage<'_>) {
        reached!("map: full sync comes");
        let (mut repairs, mut budget) = (false, 0);
        if let Some(pulling) = self.pulling.take() {
            (repairs, budget) = (pulling.repairs(), pulling.budget);
            self.measure_pull(slot, now - pulling.started());
        }
        if let Some(before) = self.staging.take() {
            self.abandon(now, &before);
        }
        // What was begun of entries that come with it is begun anew.
        self.assemblies.clear();
        self.over.take_if(|over| *over == (slot, stage.head.session));
        self.staging = Some(Staging {
            peer: slot,
            session: stage.head.session,
            contexts: stage.head.contexts,
            total: stage.head.total,
            got: Runs::default(),
            context: Vec::new(),
            floors: Vec::new(),
            ahead: 0,
            told: BTreeSet::new(),
            entries: Aside::default(),
            asking: Asking::new(now, stage.head.nonce, budget),
            repairs,
        });
    }

    /// Puts the units of a frame aside, unless they are there already.
    fn put_aside(&mut self, staging: &mut Staging, stage: &Stage<'_>) -> Put {
        let (first, covered) = (stage.head.first, u64::from(stage.head.covered));
        let known = staging.got.contains(first + 1) || staging.got.contains(first + covered);
        if covered == 0 || known || staging.got.runs.len() > MAX_PIECES {
            reached!("map: units known");
            return Put::Aside;
        }
        let mut introduced = Introduced::default();
        let mut units = stage.units;
        while let Ok(Some(unit)) = units.next() {
            let put = match unit {
                Unit::Context(unit) => {
                    let most = self.config.max_gap_dots as u64 + MAX_SPAN;
                    let replica = self.replicas.intern(unit.id);
                    replica
                        .filter(|&replica| {
                            // What was retired here is all known.
                            let nobody = self.replicas.is_nobody(replica);
                            nobody || staging.put_context(replica, &unit, most)
                        })
                        .map(drop)
                }
                Unit::Lone { replica, counter, key, value } => {
                    introduced.resolve(&mut self.replicas, replica).map(|replica| {
                        let sibling = (Packed::new(replica, counter), value);
                        staging.entries.put_lone(self.store.hash(key), key, sibling);
                    })
                }
                Unit::Entry { key, entry } => self
                    .intern(entry, &mut introduced)
                    .map(|object| staging.entries.put(self.store.hash(key), key, &object)),
            };
            let room = staging.entries.len() <= self.config.max_keys
                && staging.entries.bytes() <= self.config.max_bytes;
            if staging.forged(self.replicas.me(), self.replicas.made()) {
                return Put::Forged;
            }
            if put.is_none() || !room {
                return Put::NoRoom;
            }
        }
        staging.got.add_uncut(first + 1, first + covered);
        Put::Aside
    }

    /// A fragment of a unit comes from the peer in `slot`. Returns whether it is of the full sync that is taken.
    pub(super) fn stages_in_fragments(&mut self, slot: u32, session: u64, unit: u64) -> bool {
        let staging = self.staging.as_mut();
        let staging = staging.filter(|it| it.peer == slot && it.session == session);
        if staging.is_none() && self.pulling.as_ref().is_some_and(|it| it.peer() == slot) {
            // It may have overtaken the frame that begins it.
            return false;
        }
        let Some(staging) = staging else {
            // Nobody waits for it: its giver need not either.
            self.over = Some((slot, session));
            self.peers.wake(slot);
            return false;
        };
        let entries = staging.contexts..staging.total;
        if !entries.contains(&unit) || staging.got.contains(unit + 1) {
            return false;
        }
        true
    }

    /// Something new of a full sync came from the peer in `slot`.
    pub(super) fn note_staged(&mut self, now: Instant, slot: u32) {
        let patience = self.pull_patience();
        if let Some(staging) = self.staging.as_mut().filter(|staging| staging.peer == slot) {
            staging.asking.put_off(now + patience);
        }
    }

    /// The full sync from the peer in `slot` finds no room.
    pub(super) fn abandon_staging(&mut self, now: Instant, slot: u32) {
        if let Some(staging) = self.staging.take_if(|staging| staging.peer == slot) {
            self.abandon(now, &staging);
        }
    }

    /// How many units the full sync has that is taken, and of which answer its fragments are.
    pub(super) fn staged(&self) -> (u64, u64) {
        self.staging
            .as_ref()
            .map_or((0, 0), |staging| (staging.total, staging.asking.of_fragments()))
    }

    /// The giver has ended the session, or gives none.
    pub(super) fn on_gone(&mut self, now: Instant, slot: u32, addressee: u64, number: u64) {
        if addressee != self.addressee() {
            self.stats.misaddressed += 1;
            return;
        }
        let of_session = |staging: &mut Staging| staging.peer == slot && staging.session == number;
        self.drop_share(now, |pulling| pulling.is(slot, number));
        if self.pulling.take_if(|pulling| pulling.is(slot, number)).is_some()
            || self.staging.take_if(of_session).is_some()
        {
            reached!("map: no full sync from there");
            self.unanswered = 0;
            self.wanted = self.candidate();
            self.pull_after = now + self.config.pull_interval;
        }
    }

    /// The peer in `slot` is no more.
    pub(super) fn forget_staging(&mut self, slot: u32) {
        self.staging.take_if(|staging| staging.peer == slot);
    }

    pub(super) fn abandon(&mut self, now: Instant, staging: &Staging) {
        self.pull_after = self.pull_after.max(now + self.config.pull_interval);
        self.over = Some((staging.peer, staging.session));
        self.peers.wake(staging.peer);
    }

    /// All of it is there: takes it in.
    fn adopt(&mut self, now: Instant, mut staging: Staging) {
        reached!("map: full sync taken");
        self.write_all_waiting(now);
        staging.add_retired(&self.replicas);
        self.stats.full_syncs += 1;
        let digest = self.replicas.digest();
        let mut named = alloc::vec![false; self.store.slots() as usize];
        let slots = self.adopt_entries(&staging, &mut named);
        for (slot, _) in (0..).zip(&named).filter(|(_, named)| !**named) {
            if !self.store.entry(slot).is_empty() {
                self.adopt_entry(slot, Told { siblings: &[], superseded: &[] }, &staging);
            }
        }
        for (replica, runs) in (0..).zip(&staging.context) {
            let base = (runs.base > 0).then_some((1, runs.base));
            for (from, to) in base.into_iter().chain(runs.runs.iter().copied()) {
                self.replicas.adopt(replica, from, to);
            }
        }
        // What an entry reflects beyond the context is claimed by name.
        for (entry, slot) in staging.entries.iter().zip(slots) {
            for dot in entry.dots() {
                self.claim(dot, slot);
            }
        }
        for (replica, &floor) in (0..).zip(&staging.floors) {
            self.replicas.raise_floor(replica, floor);
        }
        if let Some(log) = self.log.as_mut().filter(|_| !sabotaged!("log-goes-on-after-full-sync"))
        {
            log.restart();
        }
        self.page = None;
        self.retiring.caught_up();
        self.retiring.stop_counting();
        self.drop_sessions(now);
        self.note_untidy();
        self.peers.stop_serving_all();
        self.over = Some((staging.peer, staging.session));
        self.peers.wake(staging.peer);
        self.judge_members(now);
        self.sync_soon(now);
        if self.replicas.digest() == digest {
            // Nothing in it was new.
            if let Some(peer) = self.peers.get_mut(staging.peer) {
                peer.exhausted = Some(peer.state);
            }
        } else {
            self.catching = Some(staging.peer);
            self.start_pull(now, staging.peer);
        }
    }

    /// Takes in the entries that were told, and notes which slots they have. Returns those in their order.
    fn adopt_entries(&mut self, staging: &Staging, named: &mut [bool]) -> Vec<u32> {
        let entries = &staging.entries;
        self.store.reserve(self.new_of(entries).0);
        let mut slots = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            if number % AT_ONCE == 0 {
                self.store.near(entries.hashes(number).take(AT_ONCE));
            }
            let look = self.store.look_by(entry.hash, entry.key);
            let slot = match (look.slot, entry.lone()) {
                (None, Some((dot, value))) if !self.replicas.contains(dot) => {
                    reached!("map: full sync brings a new key");
                    self.adopt_lone(look, entry.key, dot, value)
                }
                _ => None,
            };
            let slot = slot.unwrap_or_else(|| {
                let slot = look.slot.unwrap_or_else(|| self.store.insert(look, entry.key));
                let (siblings, superseded) = (&*entry.siblings, entry.superseded);
                self.adopt_entry(slot, Told { siblings, superseded }, staging);
                slot
            });
            if let Some(named) = named.get_mut(slot as usize) {
                *named = true;
            }
            slots.push(slot);
        }
        slots
    }

    /// Takes in a lone value of a key that is new, if it is short: a join comes to the same, at thrice the cost.
    fn adopt_lone(&mut self, look: Look, key: &[u8], dot: Packed, value: &[u8]) -> Option<u32> {
        let slot = self.store.insert_lone(&self.replicas, look, key, dot, value, false)?;
        self.note_change(slot, key, None, Some(dot));
        Some(slot)
    }

    fn adopt_entry(&mut self, slot: u32, told: Told<'_>, staging: &Staging) {
        let context = !staging.repairs && !sabotaged!("absence-ignored");
        let before = self.store.entry(slot).winner(&self.replicas).map(|winner| winner.dot);
        if staging.repairs {
            self.store.bring_back(&self.replicas, slot, told);
        }
        let reflects = |dot: Packed| context && staging.reflects(dot) || told.reflects(dot);
        let joined = self.store.join(&self.replicas, slot, told, reflects);
        let key = Key::new(self.store.entry(slot).key);
        self.note_change(slot, &key, before, joined.after);
    }

    /// Whether a frame is addressed to this life of this replica, by one with the same seals.
    pub(super) fn is_mine(&self, addressee: u64) -> bool {
        addressee == self.under_seals(self.addressee()) || sabotaged!("seals-not-compared")
    }

    /// The hash that names this life of this replica.
    fn addressee(&self) -> u64 {
        let me = self.replicas.own();
        wire::addressee(me.node, self.boot, me.epoch)
    }
}

impl Staging {
    /// The giver, who has the same seals, has retired the lives that it did not tell of, so it has all of them.
    fn add_retired(&mut self, replicas: &Replicas) {
        for (number, end) in replicas.ends(None, None) {
            if !self.told.contains(&number) && !sabotaged!("untold-not-reflected") {
                let id = replicas.id(number);
                let unit =
                    ContextUnit { id, base: end, floor: end, after: end, runs: SmallVec::new() };
                self.put_context(number, &unit, 0);
            }
        }
    }

    /// Returns whether there is room for its runs, beside those of the others.
    fn put_context(&mut self, replica: u16, unit: &ContextUnit, most: u64) -> bool {
        let at = usize::from(replica);
        if self.floors.len() <= at {
            self.floors.resize(at + 1, 0);
        }
        self.told.insert(replica);
        let had = self.runs_mut(replica).ahead();
        self.floors[at] = self.floors[at].max(unit.floor);
        let runs = self.runs_mut(replica);
        runs.add_uncut(1, unit.base);
        unit.runs.iter().for_each(|&(from, to)| runs.add_uncut(from, to));
        let now = runs.ahead();
        self.ahead = (self.ahead + now).saturating_sub(had);
        now <= most && self.ahead <= most * LIVES_WITH_GAPS
    }

    /// Whether what came last tells of more writes of this replica than it has made.
    fn forged(&self, me: u16, made: u64) -> bool {
        let own = self.context.get(usize::from(me));
        let own = own.map_or(0, |own| own.runs.last().map_or(own.base, |run| run.1));
        let last = self.entries.last();
        let mut dots = last.iter().flat_map(aside::Entry::dots);
        own > made || dots.any(|dot| dot.replica() == me && dot.counter() > made)
    }
}
