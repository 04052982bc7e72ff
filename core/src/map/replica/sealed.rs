//! What becomes of the context when a life is over: of it by a [seal](crate::map::seal), and of this replica by another
//! life.

use alloc::vec::Vec;

use super::{About, OVERWRITTEN, Replicas, UNLOGGED};
use crate::hash;
use crate::map::dot::{Packed, ReplicaId, Runs};
use crate::map::seal::{Gone, MAX_MERGED, Seal};

impl Replicas {
    /// Makes this replica another life of its node, so many epochs or a few more after the present one. Returns whether
    /// there is room.
    pub(in crate::map) fn renew(&mut self, after: u64) -> bool {
        let ReplicaId { node, epoch } = self.own();
        let epochs = epoch.saturating_add(after).max(self.first_epoch(node))..u64::MAX;
        let mut lives = epochs.map(|epoch| ReplicaId::new(node, epoch));
        let unheard_of = lives.find(|id| self.number(*id).is_none());
        let number = unheard_of.and_then(|id| self.intern(id));
        self.me = number.unwrap_or(self.me);
        number.is_some()
    }

    /// Whether a later life of the same node is known.
    pub(in crate::map) fn is_followed(&self, replica: u16) -> bool {
        let id = self.id(replica);
        let last = ReplicaId::new(id.node, u64::MAX);
        self.order.range(id..=last).nth(1).is_some() || self.is_followed_by_retired(id)
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
        let next_new = |counter| before.as_ref().map_or(counter, |it| it.void.next_absent(counter));
        let (served, base) = (self.served_from(replica), self.base(replica));
        let known = &mut self.known[usize::from(replica)];
        // Which key it was about is known of those that the log tells of.
        let mut gone = Gone { logged: Vec::new(), unlogged: core::mem::take(&mut known.refused) };
        let last = known.ahead.last_key_value().map_or(base, |(counter, _)| *counter);
        let beyond = (last > seal.end).then_some((seal.end + 1, last));
        for (from, to) in seal.void.all().chain(beyond) {
            let first = next_new(from);
            gone.unlogged |= first <= to.min(served).min(base) && !was_void(first);
            let logged = from.max(served + 1)..=to.min(base);
            for counter in logged.filter(|counter| !was_void(*counter)) {
                match self.about(Packed::new(replica, counter)) {
                    About::Key(slot) => gone.logged.push((counter, slot)),
                    // Nothing of it is here but what came later.
                    About::Overwritten(_) => {}
                    About::Unknown => gone.unlogged = true,
                }
            }
            let known = &self.known[usize::from(replica)];
            let ahead = known.ahead.range(from.max(base + 1)..=to.max(base + 1));
            for (&counter, &slot) in ahead.take_while(|(counter, _)| **counter <= to) {
                gone.unlogged |= slot == UNLOGGED;
                gone.logged.extend((slot != UNLOGGED).then_some((counter, slot)));
            }
        }
        self.cut_at(replica, seal.end);
        let known = &mut self.known[usize::from(replica)];
        let share = known.digest();
        for (from, to) in seal.void.all() {
            let ahead: Vec<u64> =
                known.ahead.range(from..=to).map(|(counter, _)| *counter).collect();
            for counter in ahead {
                known.ahead.remove(&counter);
                self.digest = self.digest.wrapping_sub(hash::mix_with(known.of_dots, counter));
            }
            let first = known.base + 1 - known.log.len() as u64;
            for counter in from.max(first)..=to.min(known.base) {
                if let Ok(at) = usize::try_from(counter - first) {
                    known.log[at] = UNLOGGED;
                }
            }
        }
        self.set_seal(replica, seal);
        self.untell_overwritten(replica, base);
        self.close_gap(replica, share);
        // Marks beyond the new end are settled now, and no log need lead to them.
        self.cut |= before.is_some();
        Some(gone)
    }

    /// What a replica's life is sealed with may be without that by which a dot was overwritten: then who lacks such a one
    /// is given a full sync. So it is left out of the log, with all before it.
    fn untell_overwritten(&mut self, replica: u16, base: u64) {
        let known = &mut self.known[usize::from(replica)];
        known.overwritten.clear();
        if known.is_plain() && known.base >= base {
            return;
        }
        let overwritten = |logged: &u32| (OVERWRITTEN..UNLOGGED).contains(logged);
        known.marked.clear();
        if let Some(at) = known.log.iter().rposition(overwritten) {
            known.log.drain(..=at);
            known.logged = known.logged.max(known.base - known.log.len() as u64);
            self.cut = true;
        }
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
