//! Seals: which writes of a life that is over count.
//!
//! A write may die with its writer: some have its fifth, nobody has its fourth. All that is kept to tell of the
//! fifth would wait for the fourth for ever. So, once every member has been heard to have exactly the same writes
//! of such a life, whoever notices *seals* it: the names of its writes that nobody has, the gaps and all after
//! the last, are *void*. They count as known, everywhere and for good, so the rest is forgotten as ever.
//!
//! Nobody is asked, and not everybody is a member: a replica that was away may come back with the fourth write,
//! or somebody else may have sealed the same life with another set. So seals merge: what either calls void is
//! void, which is the intersection of the sets that count. Whoever takes a seal in and *has* what becomes void
//! writes that anew, under a name of its own, before anything else:
//!
//! * a value that is read, with the value, over the old name;
//! * what had only an effect, as a write to its key that neither reads nor brings a value: with it goes the whole
//!   entry, and in that the effect;
//! * what is of a key that no log knows any more, as a write of its own to no key that can be told by a full sync
//!   alone, below its floor and beyond its log: others join the whole map, and in that the effect.
//!
//! So a void name is the name of no write anywhere, and to claim it says nothing; whatever had an effect
//! anywhere is told under a name that is not void. With that all is as it was before (the argument in
//! [`store`](super::store) speaks of writes by their names): an entry is a function of the set of writes with
//! names that count. What is not void in time, because its datagram was under way, is refused on arrival as known.
//!
//! Two replicas tell each other of writes, and believe what the other has, only under equal seals: whom a chunk is
//! addressed to is a hash with the sum of the sender's. Otherwise an entry might bring the effect of a write whose
//! name is void here, with no name by which others could be told of it. A pull from one with other
//! seals is answered with the seals here.
//!
//! Several may hold a value that becomes void. The one that ranks first for the life writes it at once, the
//! others one after the other, unless its write arrives meanwhile. Until then they show what is void, tell a
//! digest of the context that is nobody else's, and tell nobody of that entry: who took what the value supersedes,
//! and not the value, would show neither, and if nobody lived to write it anew, for ever.
//!
//! What superseded a void value may be gone: a replica that was away has the value, another had its removal alone,
//! which counts and was forgotten. Nothing tells that from a value that nobody else ever had. So it is written anew,
//! too: rather may something removed return than something written be lost. That goes as well for one that some had set
//! aside as overwritten ([`replica`](super::replica)), when what overwrote it died with its writer on the way to them.
//!
//! A seal outlives what it counts: whoever came last may have been told of it by one who died before it told the
//! writes. Then they are a gap as well, and the life is sealed again, by what there is.
//!
//! A life is over when its node is known to have begun another, or when the node has been no peer for
//! [`keep_for`](super::Config::keep_for). The second may be wrong. A replica whose own life is sealed begins
//! another one, and writes what became void anew in that; one without peers seals nothing, for it is more likely that
//! it is itself cut off.
//!
//! Sources: the causality of whole nodes that has gaps at all is that of DottedDB (Gonçalves et al. 2017). Seals, their
//! intersection and writing anew are this project's.

mod waiting;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Map;
use super::dot::{Dot, MAX_COUNTER, Packed, ReplicaId, Runs};
use super::seal_wire::{self, FLAG_MERGED, Told};
use super::stage::Staging;
use super::wire::{self, FLAG_LAST};
use crate::event::{Event, Key};
use crate::hash;
use crate::hrw;
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::Writer;

use waiting::Waiting;

/// Most void names before the last that counts, of one life. One with more is never sealed …
const MAX_VOID: u64 = 65_536;
/// … and most that it can have when the seals of several are merged. Those of honest peers never have as many.
pub(super) const MAX_MERGED: u64 = 1 << 20;
/// How many epochs after a life the next one of the same map begins, at most.
const EPOCHS: u64 = 1 << 20;

/// Which names of writes of a life are void.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seal {
    /// All after this one,
    pub(super) end: u64,
    /// and these before it.
    pub(super) void: Runs,
}

impl Seal {
    pub(super) fn is_void(&self, counter: u64) -> bool {
        counter > self.end || self.void.contains(counter)
    }

    /// What either calls void.
    pub(super) fn merge(one: Option<&Self>, end: u64, void: &Runs) -> Self {
        if sabotaged!("seals-merged-the-other-way")
            && let Some(one) = one
        {
            let mut both = Self { end: one.end.max(end), void: Runs::default() };
            let common = void.counters().filter(|counter| one.void.contains(*counter));
            common.for_each(|counter| both.void.add_uncut(counter, counter));
            return both;
        }
        let end = one.map_or(end, |one| one.end.min(end));
        let mut merged = Self { end, void: Runs::default() };
        for (from, to) in one.into_iter().flat_map(|one| one.void.all()).chain(void.all()) {
            if from <= end {
                merged.void.add_uncut(from, to.min(end));
            }
        }
        merged
    }

    /// Its share of the digest of the context, for the life of this hash.
    pub(super) fn hash(&self, life: u64) -> u64 {
        let end = hash::mix2(hash::mix(!life), self.end);
        self.void.all().fold(end, |sum, (from, to)| hash::mix2(hash::mix2(sum, from), to))
    }
}

/// Writes that were known when their names became void.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Counter and slot of those that the log tells of.
    pub(super) logged: Vec<(u64, u32)>,
    /// Whether there are others.
    pub(super) unlogged: bool,
}

/// What this replica has to do about seals.
#[derive(Debug, Default)]
pub(super) struct Seals {
    /// When it is looked for lives to seal.
    look: Option<Instant>,
    waiting: Waiting,
    /// The lives of this map before the present one, and how many writes each had made.
    former: Vec<(u16, u64)>,
    /// Lives whose nodes are no peers, and since when that is known.
    lone: BTreeMap<u16, Instant>,
}

impl Seals {
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.waiting.first().into_iter().chain(self.look).min()
    }

    /// A life has given up its number.
    pub(super) fn forget(&mut self, replica: u16) {
        self.lone.remove(&replica);
        self.former.retain(|(life, _)| *life != replica);
    }

    /// Whether no value waits to be written anew. Then nothing here tells of slots.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Map {
    /// Whether this is a write of this map: of its present life, which may be one that it [resumed](Self::resume), or of
    /// one before that it had to give up; and its name is not [void](Self::is_void).
    /// Which lives it gave up is forgotten by a crash, and when they are retired.
    #[must_use]
    pub fn is_own(&self, dot: Dot) -> bool {
        let Some(number) = self.replicas.number(dot.replica) else { return false };
        let lives = self.seals.former.iter().copied();
        let mut lives = lives.chain([(self.replicas.me(), self.replicas.made())]);
        lives.any(|(life, made)| life == number && dot.counter <= made) && self.reflects(dot)
    }

    /// The digest of the context, or one that nobody else has, while values wait to be written anew or more counts as known
    /// than is.
    pub(super) fn context_digest(&self) -> u64 {
        let me = self.replicas.own();
        let whole = self.seals.is_idle() && !self.retiring.is_behind();
        let salt = if whole { 0 } else { hash::mix2(!me.node.0, me.epoch) };
        self.replicas.digest().wrapping_add(salt)
    }

    /// The context changed: there may be gaps.
    pub(super) fn expect_gaps(&mut self, now: Instant) {
        let pause = self.config.collect_interval.max(self.config.sync_interval);
        self.seals.look.get_or_insert(now + pause);
    }

    pub(super) fn fire_seals(&mut self, now: Instant) {
        self.write_waiting(now);
        if self.seals.look.take_if(|at| *at <= now).is_some() {
            let over = self.lives_over(now);
            self.seal_gaps(now, &over);
            self.consider_census(now);
        }
    }

    /// The lives of others that are over, as far as is known here.
    pub(super) fn lives_over(&mut self, now: Instant) -> Vec<u16> {
        if self.peers.len() == 0 {
            self.seals.lone.clear();
        }
        // Most often there is none, and nothing is allocated.
        let (me, mut over) = (self.replicas.me(), Vec::new());
        for life in 0..=u16::MAX {
            if usize::from(life) >= self.replicas.len() {
                break;
            }
            if life != me && self.replicas.is_in_use(life) && self.is_over(now, life) {
                over.push(life);
            }
        }
        over
    }

    /// Whether writes of others are unknown below some that are known, or though a seal counts them.
    pub(crate) fn has_gaps(&self) -> bool {
        let me = self.replicas.me();
        self.replicas.numbers().any(|life| life != me && self.may_seal(life))
    }

    /// Whether a life, once it is over, is to be sealed by what is known of it.
    fn may_seal(&self, life: u16) -> bool {
        self.replicas.has_gap(life) || self.replicas.is_short_of_seal(life)
    }

    /// Seals those of the lives that are over that have gaps, if all have the same of them.
    fn seal_gaps(&mut self, now: Instant, over: &[u16]) {
        if !self.has_gaps() {
            return;
        }
        self.expect_gaps(now);
        let over: Vec<u16> = over.iter().copied().filter(|life| self.may_seal(*life)).collect();
        if over.is_empty() || !self.is_unanimous(now) {
            return;
        }
        let mut seals = Vec::new();
        for life in over {
            let known = core::iter::once((1, self.replicas.base(life)));
            let known = known.chain(self.replicas.runs_ahead(life));
            let (mut end, mut void) = (0, Runs::default());
            for (from, to) in known.filter(|(from, to)| from <= to) {
                if from > end + 1 {
                    void.add_uncut(end + 1, from - 1);
                }
                end = to;
            }
            if void.counters_len() <= MAX_VOID {
                reached!("map: life sealed");
                seals.push((life, Seal { end, void }));
            }
        }
        self.take_seals(now, seals);
    }

    /// Whether a life of another is over, as far as is known here.
    fn is_over(&mut self, now: Instant, life: u16) -> bool {
        let id = self.replicas.id(life);
        let peer = self.peers.slot(id.node).and_then(|slot| self.peers.get(slot));
        if let Some(peer) = peer {
            self.seals.lone.remove(&life);
            // Until it tells, its life is a guess.
            let told = peer.state != 0;
            return told && peer.epoch != id.epoch && self.replicas.is_followed(life)
                || told && peer.epoch > id.epoch;
        }
        if self.replicas.is_followed(life) {
            self.seals.lone.remove(&life);
            return true;
        }
        if self.peers.len() == 0 {
            return false;
        }
        let since = *self.seals.lone.entry(life).or_insert(now);
        now >= since + self.config.keep_for
    }

    /// Takes seals of lives in, and writes anew what they make void of what is here.
    pub(super) fn take_seals(&mut self, now: Instant, seals: Vec<(u16, Seal)>) {
        let mut gone = Vec::new();
        for (life, Seal { end, void }) in seals {
            if life == self.replicas.me() && !sabotaged!("sealed-life-kept") && !self.begin_life() {
                continue;
            }
            gone.extend(self.replicas.take_seal(life, end, &void).map(|gone| (life, gone)));
        }
        if gone.is_empty() {
            return;
        }
        reached!("map: seal taken");
        if !sabotaged!("sealed-without-writing-anew") {
            self.replace(now, gone);
        }
        self.under_other_seals(now);
        self.write_waiting(now);
    }

    /// The seals here are others now.
    pub(super) fn under_other_seals(&mut self, now: Instant) {
        // No record tells of a seal.
        if let Some(log) = &mut self.log {
            log.restart();
        }
        // What came in parts was told under the seals of before.
        if let Some(giver) = self.staging.as_ref().map(Staging::peer) {
            self.abandon_staging(now, giver);
        }
        self.assemblies.clear();
        self.peers.stop_serving_all();
        self.drop_sessions(now);
        self.restart_round(now);
        self.page = None;
        self.sync_soon(now);
        self.count_news(now, 1);
    }

    /// Sees to it that what became void of some lives is told under other names.
    pub(super) fn replace(&mut self, now: Instant, gone: Vec<(u16, Gone)>) {
        let mut touched = BTreeMap::new();
        let mut nowhere = None;
        for (life, gone) in gone {
            let at = now + self.config.pull_interval * 2 * self.rank(self.replicas.id(life));
            nowhere = nowhere.max(gone.unlogged.then_some(at));
            for (counter, slot) in gone.logged {
                let dot = Packed::new(life, counter);
                if self.store.entry(slot).siblings().any(|sibling| sibling.dot == dot) {
                    self.seals.waiting.add(slot, at);
                } else if self.may_write() {
                    let key = Vec::from(self.store.entry(slot).key);
                    let write = || self.write(now, (slot, &key), None, |_| false);
                    let new = *touched.entry(slot).or_insert_with(write);
                    self.tell_written_anew(&key, dot, new);
                }
            }
        }
        // This looks at all entries: once, however many seals came.
        if let Some(at) = nowhere {
            self.write_nowhere(now, at);
        }
    }

    /// How many peers write values of a life anew before this replica does.
    pub(super) fn rank(&self, life: ReplicaId) -> u32 {
        let (key, me) = (hash::mix2(life.node.0, life.epoch), self.replicas.own().node);
        if life.node == me {
            return 0;
        }
        let peers = self.peers.slots().filter_map(|slot| self.peers.get(slot));
        let before = peers.filter(|peer| hrw::score(key, peer.id) > hrw::score(key, me));
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }

    /// Writes the values anew whose time has come.
    fn write_waiting(&mut self, now: Instant) {
        while let Some(slot) = self.seals.waiting.pop(now) {
            self.write_anew(now, slot);
        }
    }

    /// Writes all of them: a full sync is about to say that they are superseded, or to tell of them.
    pub(super) fn write_all_waiting(&mut self, now: Instant) {
        for slot in self.seals.waiting.take() {
            self.write_anew(now, slot);
        }
    }

    fn write_anew(&mut self, now: Instant, slot: u32) {
        let Some(entry) = self.store.get(slot) else { return };
        let void = entry.siblings().filter(|own| self.replicas.is_void(own.dot));
        let void: Vec<_> = void.map(|own| (own.dot, Vec::from(own.value))).collect();
        let key = Vec::from(entry.key);
        for (dot, stored) in void {
            if self.may_write() {
                let new = self.write_again(now, (slot, &key), &stored, |other| other == dot);
                self.tell_written_anew(&key, dot, new);
            }
        }
    }

    /// An entry changed: it may be that it waits no more.
    pub(super) fn stop_waiting(&mut self, slot: u32) {
        if !self.seals.is_idle() && !self.store.entry(slot).waits(&self.replicas) {
            self.seals.waiting.remove(slot);
        }
    }

    /// Whether this life has a name left for a write, or can be followed by one that has.
    pub(super) fn may_write(&mut self) -> bool {
        self.replicas.made() < MAX_COUNTER || self.begin_life()
    }

    pub(super) fn tell_written_anew(&mut self, key: &[u8], old: Packed, new: Dot) {
        let key = Key::new(key);
        self.events.push(Event::WrittenAnew { key, old: self.replicas.dot(old), new });
    }

    /// Something became void of which the key is not known: a write to no key makes others take all that is here.
    pub(super) fn write_nowhere(&mut self, now: Instant, at: Instant) {
        self.find_waiting(at);
        if self.may_write() {
            let (me, next) = (self.replicas.me(), self.replicas.made() + 1);
            self.stats.writes += 1;
            self.replicas.adopt(me, next, next);
            self.replicas.raise_floor(me, next);
        }
        self.note_untidy();
        self.judge_members(now);
    }

    /// This replica was taken for dead: it goes on as another life of its node. Returns whether it can.
    pub(super) fn begin_life(&mut self) -> bool {
        self.begin_life_from(0)
    }

    /// The same, with an epoch that is not before this one.
    pub(super) fn begin_life_from(&mut self, first: u64) -> bool {
        let former = (self.replicas.me(), self.replicas.made());
        // Whoever counts the epochs of a node is not to count to this one soon.
        let after = EPOCHS / 2 + self.rng.u64() % (EPOCHS / 2);
        let after = after.saturating_add(first.saturating_sub(self.replicas.own().epoch));
        if !self.replicas.renew(after) {
            return false;
        }
        self.seals.former.push(former);
        self.resumed = None;
        if let Some(log) = &mut self.log {
            log.begin_life();
        }
        (self.pulling, self.late) = (None, None);
        self.shares.clear();
        let slots: Vec<u32> = self.peers.slots().collect();
        for slot in slots {
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.pushed = 0;
            }
            self.owe_state(slot);
        }
        true
    }

    /// Values that were void when a snapshot was taken are written anew, and this life ends if it was sealed.
    pub(super) fn resume_seals(&mut self, now: Instant) {
        if self.replicas.seals() == 0 {
            return;
        }
        if self.replicas.seal(self.replicas.me()).is_some() {
            self.begin_life();
        }
        self.find_waiting(now);
    }

    /// Looks at all entries for those with void values.
    fn find_waiting(&mut self, at: Instant) {
        for slot in 0..self.store.slots() {
            if self.store.entry(slot).waits(&self.replicas) {
                self.seals.waiting.add(slot, at);
            }
        }
    }

    /// The hash that names whom something is told, and the seals under which it is told.
    pub(super) fn under_seals(&self, addressee: u64) -> u64 {
        let seals = self.replicas.seals();
        if seals == 0 { addressee } else { hash::mix2(addressee, seals) }
    }

    /// Whether the peer in `slot`, which has seals of that sum, has those of this replica. If not, it is told them.
    pub(super) fn has_seals(&mut self, slot: u32, sum: u64) -> bool {
        if sum == self.replicas.seals() || sabotaged!("seals-not-compared") {
            return true;
        }
        reached!("map: other seals");
        self.owe_seals(slot);
        false
    }

    pub(super) fn owe_seals(&mut self, slot: u32) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.owes_seals = Some(0);
            self.peers.wake(slot);
        }
    }

    /// Writes the seals that the peer in `slot` is to be told, and after them what is left of merged lives. What does not
    /// fit, another datagram has.
    pub(super) fn write_seals(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(first) = peer.owes_seals.take() else { return };
        let (replicas, fresh) = (&self.replicas, w.is_fresh());
        let (units, merged) = (seal_wire::units(replicas).count(), replicas.merged().count());
        let start = usize::try_from(first).unwrap_or(usize::MAX);
        let seals = start < units || merged == 0;
        let mut next = start;
        let written = w.frame(wire::SEALS, |w| {
            let flags_at = w.len();
            w.u8(0)?;
            let written = if seals {
                seal_wire::write_all(w, seal_wire::units(replicas).skip(start), &mut next)
            } else {
                seal_wire::write_merged(w, replicas.merged().skip(start - units), &mut next)
            };
            if written.is_err() && next == start {
                return written;
            }
            let last = next >= units + merged;
            let merged = if seals { 0 } else { FLAG_MERGED };
            w.set(flags_at, &[merged | if last { FLAG_LAST } else { 0 }]);
            Ok(())
        });
        if written.is_err() {
            // One that fits no datagram would be tried for ever; there is none such.
            next = if fresh { usize::MAX } else { start };
        }
        if next < units + merged {
            peer.owes_seals = Some(next as u64);
            self.peers.wake(slot);
        }
    }

    /// The peer in `slot` tells its seals, in place of an answer.
    pub(super) fn on_seals(&mut self, now: Instant, slot: u32, mut told: Told<'_>) {
        let (mut seals, mut unlogged) = (Vec::new(), false);
        while let Ok(Some((id, end, void))) = told.next() {
            if void.counters_len() > MAX_MERGED {
                continue;
            }
            if self.replicas.fate(id).is_some() {
                unlogged |= self.replicas.take_retired_seal(id, end, &void);
            } else {
                seals.extend(self.replicas.intern(id).map(|life| (life, Seal { end, void })));
            }
        }
        self.take_seals(now, seals);
        if unlogged {
            // What these lives had an effect on no log tells.
            self.write_nowhere(now, now);
            self.under_other_seals(now);
            self.write_waiting(now);
        }
        let mut merged = Vec::new();
        while let Ok(Some(past)) = told.next_merged() {
            merged.push(past);
        }
        self.hear_pasts(now, &merged);
        if told.is_last {
            self.ask_again(now, slot);
        }
    }
}

#[cfg(test)]
mod tests;
