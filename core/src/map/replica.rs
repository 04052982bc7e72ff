//! Which dots this replica reflects, and which key each of them is about.
//!
//! Per replica three numbers rise: `floor <= base`, and `logged`. All dots up to `base` are known, without a
//! gap. Entries may no longer explain those up to `floor`, for every peer that counts has them; see
//! [`garbage`](super::garbage). Which key a dot is about is known after `logged` alone.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::dot::{Dot, MAX_COUNTER, Packed, ReplicaId, Runs};
use super::policy::Policy;
use crate::hash;
use crate::reached::reached;
use crate::sabotage::sabotaged;

mod buckets;
mod known;
mod overwritten;
mod past;
mod sealed;

pub(super) use buckets::BUCKETS;
pub(super) use known::{About, OVERWRITTEN};
use known::{Known, UNLOGGED};
pub(super) use overwritten::{MAX_SPAN, ToldAside};
use past::Pasts;
pub(super) use past::{Fate, LAST, Merged, Verdict};

/// Dots that a log keeps room for once it had as many.
const ROOM: usize = 256;
/// What is known of a replica, but for single dots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) base: u64,
    pub(super) floor: u64,
    pub(super) logged: u64,
}

/// The causal context with the dot logs: exact sets of dots, grouped by replica. `d` in the context
/// means that the entry of d's key reflects d.
#[derive(Debug)]
pub(super) struct Replicas {
    known: Vec<Known>,
    /// The number of this replica.
    me: u16,
    /// Interned number of each replica, in the order that all nodes share.
    order: BTreeMap<ReplicaId, u16>,
    /// Sum of a hash of every base and of every dot ahead of one: equal contexts have equal sums.
    digest: u64,
    /// The share of the seals in it.
    seals: u64,
    past: Pasts,
    /// Those of which something is [set aside](overwritten), and maybe more.
    waiting: Vec<u16>,
    /// Whether a log was cut, so that entries may have marks to which none leads.
    cut: bool,
    max: usize,
    max_ahead: usize,
    /// Whether there is room for all.
    unbounded: bool,
    policy: Policy,
}

impl Replicas {
    /// A context of no dots, of the replica `me`.
    pub(super) fn new(me: ReplicaId, max: usize, max_ahead: usize) -> Self {
        let (known, order) = (Vec::new(), BTreeMap::new());
        let (past, policy) = (Pasts::default(), Policy::default());
        let (waiting, cut) = (Vec::new(), false);
        let (digest, seals) = (0, 0);
        let unbounded = false;
        let mut replicas = Self {
            known,
            me: 0,
            order,
            digest,
            seals,
            past,
            waiting,
            cut,
            max,
            max_ahead,
            unbounded,
            policy,
        };
        replicas.intern(me);
        replicas
    }

    /// A context of no dots with the same limits, for this life.
    pub(super) fn reborn(&self, me: ReplicaId) -> Self {
        Self::new(me, self.max, self.max_ahead).with_policy(self.policy)
    }

    pub(super) const fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Which of concurrent values is read.
    pub(super) const fn policy(&self) -> Policy {
        self.policy
    }

    /// The number of `id`, new if need be; `None` if there are too many. All [retired](past) lives have the same one.
    #[allow(clippy::cast_possible_truncation)] // at most 65,535
    pub(super) fn intern(&mut self, id: ReplicaId) -> Option<u16> {
        if let Some(&number) = self.order.get(&id) {
            return Some(number);
        }
        if let Some(nobody) = self.past.number(id) {
            return Some(nobody);
        }
        let mine = self.known.get(usize::from(self.me)).is_none_or(|me| me.id.node == id.node);
        let known = Known::new(id, mine);
        let number = if let Some(number) = self.past.take_number() {
            self.known[usize::from(number)] = known;
            number
        } else if self.known.len() < self.max {
            self.known.push(known);
            self.known.len() as u16 - 1
        } else {
            return None;
        };
        self.order.insert(id, number);
        Some(number)
    }

    pub(super) fn number(&self, id: ReplicaId) -> Option<u16> {
        self.order.get(&id).copied().or_else(|| self.past.number(id))
    }

    /// The numbers from zero up to this one are those of replicas, or free.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many of them are not free.
    pub(super) fn in_use(&self) -> usize {
        self.known.len() - self.past.free()
    }

    /// The numbers of replicas.
    #[allow(clippy::cast_possible_truncation)] // at most 65,535
    pub(super) fn numbers(&self) -> impl Iterator<Item = u16> {
        (0..self.known.len() as u16).filter(|number| self.is_in_use(*number))
    }

    /// Whether this is the number of a replica.
    pub(super) fn is_in_use(&self, number: u16) -> bool {
        !self.known[usize::from(number)].vacant
    }

    /// Whether a pull lists what is known of a replica: not if that is nothing, or if it is [whole](Self::is_whole).
    pub(super) fn is_listed(&self, replica: u16) -> bool {
        let known = &self.known[usize::from(replica)];
        known.is_named()
            || replica == self.me
            || !known.ahead.is_empty()
            || !known.overwritten.is_empty()
    }

    /// Whether a replica's life is sealed, and all is known of it that counts. Of two with the same seals it goes without
    /// saying that each knows such lives, unless it says what it knows of them.
    pub(super) fn is_whole(&self, replica: u16) -> bool {
        self.known[usize::from(replica)].is_whole()
    }

    pub(super) fn id(&self, replica: u16) -> ReplicaId {
        self.known[usize::from(replica)].id
    }

    /// The hash of a replica's name, which all nodes share.
    pub(super) fn life_hash(&self, replica: u16) -> u64 {
        self.known[usize::from(replica)].hash
    }

    pub(super) fn dot(&self, dot: Packed) -> Dot {
        Dot { replica: self.id(dot.replica()), counter: dot.counter() }
    }

    /// The hash of a dot, the same on every node.
    pub(super) fn hash(&self, dot: Packed) -> u64 {
        hash::mix_with(self.known[usize::from(dot.replica())].of_dots, dot.counter())
    }

    pub(super) fn base(&self, replica: u16) -> u64 {
        self.known[usize::from(replica)].base
    }

    /// Whether dots of the replica are known ahead of a gap.
    pub(super) fn has_gap(&self, replica: u16) -> bool {
        !self.known[usize::from(replica)].ahead.is_empty()
    }

    /// Whether the seal of the replica counts more than is known.
    pub(super) fn is_short_of_seal(&self, replica: u16) -> bool {
        let known = &self.known[usize::from(replica)];
        known.seal.as_ref().is_some_and(|seal| known.base < seal.end)
    }

    #[inline]
    pub(super) fn contains(&self, dot: Packed) -> bool {
        let known = &self.known[usize::from(dot.replica())];
        let counter = dot.counter();
        counter <= known.base || known.ahead.contains_key(&counter) || known.is_void(counter)
    }

    /// The slot of the key that a known dot is about, unless the log says no more.
    pub(super) fn slot(&self, dot: Packed) -> Option<u32> {
        let known = &self.known[usize::from(dot.replica())];
        let slot = if dot.counter() > known.base {
            known.ahead.get(&dot.counter())
        } else {
            let back = usize::try_from(known.base - dot.counter()).ok()?;
            known.log.get(known.log.len().checked_sub(back + 1)?)
        };
        slot.copied().filter(|slot| *slot < OVERWRITTEN)
    }

    /// From now on there is room for all that comes, or no more than the limits say: a log of one's own is taken in whole.
    pub(super) const fn set_unbounded(&mut self, unbounded: bool) {
        self.unbounded = unbounded;
    }

    /// There was no room to claim a dot of this replica.
    pub(super) fn note_refused(&mut self, replica: u16) {
        self.known[usize::from(replica)].refused = true;
    }

    /// Whether there is room to claim the dot.
    pub(super) fn has_room(&self, dot: Packed) -> bool {
        let known = &self.known[usize::from(dot.replica())];
        let counter = dot.counter();
        let room = counter <= known.base + 1 || known.ahead.len() < self.max_ahead;
        room || known.overwritten.may_await(counter) || self.unbounded
    }

    /// Whether a dot is what most are: the next in order, with none ahead of it, and logged.
    #[inline]
    pub(super) fn is_next(&self, dot: Packed) -> bool {
        let known = &self.known[usize::from(dot.replica())];
        let counter = dot.counter();
        let in_order = counter == known.base + 1 && known.ahead.is_empty();
        in_order && counter > known.logged && known.seal.is_none()
    }

    /// Adds a dot if it [is next](Self::is_next). Returns whether it is.
    #[inline]
    pub(super) fn claim_next(&mut self, dot: Packed, slot: u32) -> bool {
        let next = self.is_next(dot);
        if next {
            self.claim_run(dot.replica(), &[slot]);
        }
        next
    }

    /// Adds as many dots as there are slots, of which the first [is next](Self::is_next).
    #[inline]
    pub(super) fn claim_run(&mut self, replica: u16, slots: &[u32]) {
        reached!("map: dot next in order");
        let known = &mut self.known[usize::from(replica)];
        let before = known.digest();
        known.base += slots.len() as u64;
        known.log.extend(slots);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(known.digest());
    }

    /// Adds a dot about the key in `slot`. Returns whether it is new.
    pub(super) fn claim(&mut self, dot: Packed, slot: u32) -> bool {
        if self.contains(dot) {
            reached!("map: dot known");
            return false;
        }
        let known = &mut self.known[usize::from(dot.replica())];
        let before = known.digest();
        while sabotaged!("gap-claimed") && known.base + 1 < dot.counter() {
            known.push(slot);
        }
        if dot.counter() != known.base + 1 {
            reached!("map: dot ahead of a gap");
            let slot = if dot.counter() > known.logged { slot } else { UNLOGGED };
            known.ahead.insert(dot.counter(), slot);
            known.overwritten.note_known(dot.counter());
            self.digest = self.digest.wrapping_add(self.hash(dot));
            return true;
        }
        reached!("map: dot next in order");
        known.push(slot);
        self.close_gap(dot.replica(), before);
        true
    }

    /// The base rose, and the replica's share of the digest was `before`: takes in what lay ahead.
    fn close_gap(&mut self, replica: u16, before: u64) {
        let known = &mut self.known[usize::from(replica)];
        let mut digest = self.digest.wrapping_sub(before);
        let mut cut = known.pass_void();
        while let Some(entry) = known.ahead.first_entry() {
            if *entry.key() > known.base + 1 {
                break;
            }
            reached!("map: dot closes a gap");
            let (counter, slot) = entry.remove_entry();
            digest = digest.wrapping_sub(hash::mix_with(known.of_dots, counter));
            if sabotaged!("ahead-forgotten") {
                break;
            }
            if counter > known.base {
                known.push(slot);
            }
            cut |= known.pass_void();
        }
        self.cut |= cut;
        self.digest = digest.wrapping_add(known.digest());
    }

    /// Whether a log was cut since this was asked.
    pub(super) const fn was_cut(&mut self) -> bool {
        core::mem::replace(&mut self.cut, false)
    }

    /// Up to where entries may no longer explain the replica's dots.
    pub(super) fn floor(&self, replica: u16) -> u64 {
        self.known[usize::from(replica)].floor
    }

    /// Up to where dots of the replica can only be told by a full sync.
    pub(super) fn served_from(&self, replica: u16) -> u64 {
        let known = &self.known[usize::from(replica)];
        known.floor.max(known.logged)
    }

    /// Whether entries may no longer explain the dot, nor any before it. What is beyond the end of a sealed life names
    /// no write.
    pub(super) fn is_settled(&self, dot: Packed) -> bool {
        let known = &self.known[usize::from(dot.replica())];
        let end = known.seal.as_ref().map_or(MAX_COUNTER, |seal| seal.end);
        dot.counter().min(end) <= known.floor
    }

    /// Raises the truncation vector, to the base at most.
    pub(super) fn raise_floor(&mut self, replica: u16, floor: u64) {
        let known = &mut self.known[usize::from(replica)];
        known.floor = known.floor.max(floor.min(known.base));
    }

    /// Takes the oldest dot of the replica whose key is logged off the log, if the floor has passed it, and those before it.
    /// Returns its slot. Each takes one off `left`; once nothing is left no more is taken.
    pub(super) fn unlog(&mut self, replica: u16, left: &mut usize) -> Option<u32> {
        let known = &mut self.known[usize::from(replica)];
        loop {
            let first = known.base + 1 - known.log.len() as u64;
            if first > known.floor || *left == 0 {
                return None;
            }
            *left -= 1;
            let slot = known.log.pop_front()?;
            known.logged = known.logged.max(first);
            if slot >= OVERWRITTEN {
                known.forget_marks();
            }
            // Room for what a burst left is given back, but not what is filled again and again.
            if known.log.capacity() > ROOM && known.log.len() * 8 < known.log.capacity() {
                known.log.shrink_to(known.log.len() * 2);
            }
            // The key of one that was overwritten has a later dot.
            if slot < OVERWRITTEN {
                return Some(slot);
            }
        }
    }

    /// Takes the oldest dot off the log, whatever is before it.
    #[cfg(test)]
    pub(super) fn unlog_one(&mut self, replica: u16) -> Option<u32> {
        self.unlog(replica, &mut usize::MAX.clone())
    }

    /// Gives the room of empty logs back.
    pub(super) fn shrink(&mut self) {
        self.known.iter_mut().for_each(|known| known.log.shrink_to_fit());
    }

    /// Takes in what another replica knew, all of whose effect is here: a base, or a run after one.
    /// Which keys its dots are about is not known.
    pub(super) fn adopt(&mut self, replica: u16, from: u64, to: u64) {
        let known = &mut self.known[usize::from(replica)];
        let to = known.seal.as_ref().map_or(to, |seal| seal.end.min(to));
        if from > to {
            return;
        }
        let (before, cut_before) = (known.digest(), known.logged);
        // What is logged must be so without a gap from some counter on, and is cut at the last adopted.
        known.logged = known.logged.max(to);
        if from <= known.base + 1 {
            known.base = known.base.max(to);
        } else {
            for counter in from..=to {
                if !known.is_void(counter) && known.ahead.insert(counter, UNLOGGED).is_none() {
                    self.digest = self.digest.wrapping_add(hash::mix_with(known.of_dots, counter));
                }
            }
        }
        let kept = usize::try_from(known.base.saturating_sub(known.logged)).unwrap_or(usize::MAX);
        let cut = known.log.len().saturating_sub(kept);
        known.log.drain(..cut);
        known.forget_marks();
        known.overwritten.look_again();
        if cut_before < known.logged {
            for (_, slot) in known.ahead.range_mut(cut_before + 1..=known.logged) {
                *slot = UNLOGGED;
            }
        }
        self.close_gap(replica, before);
    }

    /// What is known of a replica, but for its log and what is ahead of a gap.
    pub(super) fn bounds(&self, replica: u16) -> Bounds {
        let known = &self.known[usize::from(replica)];
        Bounds { base: known.base, floor: known.floor, logged: self.served_from(replica) }
    }

    /// The same, of a replica that nothing is known of.
    pub(super) fn set_bounds(&mut self, replica: u16, bounds: Bounds) {
        let known = &mut self.known[usize::from(replica)];
        (known.base, known.floor, known.logged) = (bounds.base, bounds.floor, bounds.logged);
        self.digest = self.digest.wrapping_add(known.digest());
    }

    /// The dots of a replica after `after` that the log tells of, or that are ahead of a gap, each with what it is about.
    /// Those are left out that the floor has passed.
    pub(super) fn records(&self, replica: u16, after: u64) -> impl Iterator<Item = (u64, About)> {
        let known = &self.known[usize::from(replica)];
        let first = known.base + 1 - known.log.len() as u64;
        let from = after.max(self.served_from(replica)) + 1;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let log = (first..).zip(known.log.iter().copied()).skip(skip);
        let ahead = known.ahead.range(after + 1..).map(|(counter, slot)| (*counter, *slot));
        log.chain(ahead).map(|(counter, logged)| (counter, About::of(counter, logged)))
    }

    /// Adds a dot that [`records`](Self::records) told. Returns whether it is in its place: the dots of a log one
    /// after the other up to the base, and those beyond it each once.
    pub(super) fn record(&mut self, dot: Packed, about: About) -> bool {
        let known = &mut self.known[usize::from(dot.replica())];
        let counter = dot.counter();
        if counter <= known.base {
            let next = known.logged + 1 + known.log.len() as u64;
            known.log.push_back(about.logged(counter));
            let right = match about {
                About::Key(_) => true,
                About::Overwritten(limit) => {
                    known.mark(counter, limit);
                    limit > counter && limit <= known.base && known.is_plain()
                }
                About::Unknown => known.is_void(counter),
            };
            return counter == next && right;
        }
        let (slot, keyless) = match about {
            About::Key(slot) => (slot, false),
            About::Unknown => (UNLOGGED, true),
            About::Overwritten(_) => return false,
        };
        let unlogged = keyless == (counter <= known.logged);
        let gap = counter > known.base + 1;
        let new = known.ahead.insert(counter, slot).is_none();
        self.digest = self.digest.wrapping_add(self.hash(dot));
        unlogged && gap && new
    }

    /// Whether the logs tell of all dots that they should.
    pub(super) fn is_logged_whole(&self) -> bool {
        let whole =
            |known: &Known| known.log.len() as u64 == known.base.saturating_sub(known.logged);
        self.known.iter().all(whole)
    }

    /// How many dots the logs tell the keys of.
    pub(super) fn logged(&self) -> usize {
        let logged = |known: &Known| known.log.len() + known.ahead.len();
        self.known.iter().map(logged).sum()
    }

    /// The first dot of `replica` from `counter` on that is known here and not in `theirs`.
    pub(super) fn next_missing(&self, replica: u16, theirs: &Runs, counter: u64) -> Option<u64> {
        let known = &self.known[usize::from(replica)];
        let mut next = theirs.next_absent(counter);
        loop {
            if next > known.base {
                let (&ahead, _) = known.ahead.range(next..).next()?;
                if ahead > next {
                    next = theirs.next_absent(ahead);
                    continue;
                }
            }
            match &known.seal {
                // There is nothing to tell of those.
                Some(seal) if seal.void.contains(next) => {
                    next = theirs.next_absent(seal.void.next_absent(next));
                }
                _ => return Some(next),
            }
        }
    }

    /// The runs of dots known ahead of gaps, ascending.
    pub(super) fn runs_ahead(&self, replica: u16) -> impl Iterator<Item = (u64, u64)> {
        let mut counters = self.known[usize::from(replica)].ahead.keys().copied().peekable();
        core::iter::from_fn(move || {
            let from = counters.next()?;
            let mut to = from;
            while counters.next_if_eq(&(to + 1)).is_some() {
                to += 1;
            }
            Some((from, to))
        })
    }

    /// The last replica in the shared order.
    pub(super) fn last(&self) -> Option<ReplicaId> {
        self.order.last_key_value().map(|(id, _)| *id)
    }

    /// The replicas after `after` and up to `upto`, in the shared order.
    pub(super) fn range(
        &self,
        after: Option<ReplicaId>,
        upto: Option<ReplicaId>,
    ) -> impl Iterator<Item = (ReplicaId, u16)> {
        use core::ops::Bound::{Excluded, Included, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let to = upto.map_or(Unbounded, Included);
        // A peer may send bounds that cross; `BTreeMap::range` would panic on them.
        let crossed = matches!((after, upto), (Some(after), Some(upto)) if after >= upto);
        let range = (!crossed).then(|| self.order.range((from, to)));
        range.into_iter().flatten().map(|(&id, &number)| (id, number))
    }

    /// The replicas of which dots up to a base are known, or which are sealed, and the base, in the shared order. Those are
    /// left out that are [whole](Self::is_whole).
    pub(super) fn bases(&self) -> impl Iterator<Item = (u16, u64)> {
        let bases = self.order.values().map(|&number| (number, self.base(number)));
        bases.filter(|(number, _)| self.known[usize::from(*number)].is_named())
    }

    /// The replicas after `after` and up to `upto` whose lives are sealed, and the last write of each that counts.
    pub(super) fn ends(
        &self,
        after: Option<ReplicaId>,
        upto: Option<ReplicaId>,
    ) -> impl Iterator<Item = (u16, u64)> {
        let sealed = self.range(after, upto).filter(|(_, number)| self.seal(*number).is_some());
        sealed.map(|(_, number)| (number, self.seal(number).map_or(0, |seal| seal.end)))
    }

    /// A hash of which replicas the [bases](Self::bases) are of, and of all seals.
    pub(super) fn names(&self) -> u64 {
        let named = self.known.iter().filter(|known| known.is_named());
        named.fold(self.seals, |sum, known| sum.wrapping_add(hash::mix(known.hash)))
    }

    /// This replica.
    pub(super) fn own(&self) -> ReplicaId {
        self.id(self.me)
    }

    /// Makes this replica the one of that number.
    pub(super) const fn set_me(&mut self, replica: u16) {
        self.me = replica;
    }

    /// Whether the dot is one of this replica's node.
    pub(super) fn is_mine(&self, dot: Packed) -> bool {
        self.known[usize::from(dot.replica())].mine
    }

    /// The number of this replica.
    pub(super) const fn me(&self) -> u16 {
        self.me
    }

    /// How many writes this replica has made.
    pub(super) fn made(&self) -> u64 {
        self.base(self.me)
    }

    /// The sum over all known dots.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }
}

#[cfg(test)]
mod tests;
