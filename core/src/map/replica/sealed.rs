//! What becomes of the context when a life is over: of it by a [seal](crate::map::seal), and of this replica by another
//! life.

use super::{Replicas, UNLOGGED};
use crate::hash;
use crate::map::dot::{Packed, ReplicaId, Runs};
use crate::map::seal::{Gone, Seal};

/// Most void names before the last that counts that a life can have when its seals are merged. Those of honest peers
/// never have as many.
const MAX_MERGED: u64 = 1 << 20;

impl Replicas {
    /// Makes this replica another life of its node, so many epochs after the last one known. Returns whether there is
    /// room.
    pub(in crate::map) fn renew(&mut self, after: u64) -> bool {
        let node = self.id(self.me).node;
        let lives = self.order.range(ReplicaId::new(node, 0)..=ReplicaId::new(node, u64::MAX));
        let last = lives.last().and_then(|(id, _)| id.epoch.checked_add(after));
        let number = last.and_then(|epoch| self.intern(ReplicaId::new(node, epoch)));
        self.me = number.unwrap_or(self.me);
        number.is_some()
    }

    /// Whether a later life of the same node is known.
    pub(in crate::map) fn is_followed(&self, replica: u16) -> bool {
        let id = self.id(replica);
        let last = ReplicaId::new(id.node, u64::MAX);
        self.order.range(id..=last).nth(1).is_some()
    }

    /// Whether the dot is known to name no write.
    pub(in crate::map) fn is_void(&self, dot: Packed) -> bool {
        self.known[usize::from(dot.replica())].is_void(dot.counter())
    }

    pub(in crate::map) fn seal(&self, replica: u16) -> Option<&Seal> {
        self.known[usize::from(replica)].seal.as_ref()
    }

    /// A sum over all seals: equal ones have equal sums.
    pub(in crate::map) const fn seals(&self) -> u64 {
        self.seals
    }

    /// Gives the replica this seal, in the place of any before.
    pub(in crate::map) fn set_seal(&mut self, replica: u16, seal: Seal) {
        let known = &mut self.known[usize::from(replica)];
        let before = known.seal.as_ref().map_or(0, |seal| seal.hash(known.hash));
        let change = seal.hash(known.hash).wrapping_sub(before);
        known.seal = Some(seal);
        self.seals = self.seals.wrapping_add(change);
        self.digest = self.digest.wrapping_add(change);
    }

    /// Takes a seal in: what it says is void counts as known from now on. Returns which of that was known as a
    /// write, or nothing if the seal says nothing new, or far too much.
    pub(in crate::map) fn take_seal(
        &mut self,
        replica: u16,
        end: u64,
        void: &Runs,
    ) -> Option<Gone> {
        let before = self.seal(replica).cloned();
        let seal = Seal::merge(before.as_ref(), end, void);
        if before.as_ref() == Some(&seal) || seal.void.counters_len() > MAX_MERGED {
            return None;
        }
        let was_void = |counter| before.as_ref().is_some_and(|seal| seal.is_void(counter));
        let (served, base) = (self.served_from(replica), self.base(replica));
        let mut gone = Gone::default();
        // Which key it was about is known of those that the log tells of.
        let ahead = self.known[usize::from(replica)].ahead.range(base.max(seal.end) + 1..);
        let beyond = (seal.end.max(served) + 1..=base).chain(ahead.map(|(counter, _)| *counter));
        let new = |counter: &u64| !was_void(*counter);
        for counter in seal.void.counters().chain(beyond).filter(new) {
            let dot = Packed::new(replica, counter);
            if counter <= base || self.known[usize::from(replica)].ahead.contains_key(&counter) {
                let slot = self.slot(dot).filter(|_| counter > served);
                gone.unlogged |= slot.is_none();
                gone.logged.extend(slot.map(|slot| (counter, slot)));
            }
        }
        gone.unlogged |= base.min(served) > seal.end;
        self.cut_at(replica, seal.end);
        let share = self.known[usize::from(replica)].digest();
        for counter in seal.void.counters().filter(new) {
            let known = &mut self.known[usize::from(replica)];
            if counter > known.base {
                if known.ahead.insert(counter, UNLOGGED).is_none() {
                    self.digest = self.digest.wrapping_add(hash::mix_with(known.of_dots, counter));
                }
            } else if let Ok(back) = usize::try_from(known.base - counter)
                && let Some(at) = known.log.len().checked_sub(back + 1)
            {
                known.log[at] = UNLOGGED;
            }
        }
        self.set_seal(replica, seal);
        self.close_gap(replica, share);
        Some(gone)
    }

    /// Forgets the dots of a replica beyond `end`.
    fn cut_at(&mut self, replica: u16, end: u64) {
        let known = &mut self.known[usize::from(replica)];
        let share = known.digest();
        if let Some(beyond) = known.base.checked_sub(end).and_then(|n| usize::try_from(n).ok()) {
            known.log.truncate(known.log.len().saturating_sub(beyond));
            known.base = end;
        }
        let mut digest = self.digest.wrapping_sub(share).wrapping_add(known.digest());
        for counter in known.ahead.split_off(&(end + 1)).into_keys() {
            digest = digest.wrapping_sub(hash::mix_with(known.of_dots, counter));
        }
        known.logged = known.logged.min(end);
        known.floor = known.floor.min(end);
        self.digest = digest;
    }
}
