//! Entries with values that became void, until those are written anew.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// Their slots, by number and by time.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    times: BTreeMap<u32, Instant>,
    order: BTreeSet<(Instant, u32)>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// When the first of them has waited for long enough.
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// One that waits already goes on waiting until the time of before.
    pub(super) fn add(&mut self, slot: u32, at: Instant) {
        let at = *self.times.entry(slot).or_insert(at);
        self.order.insert((at, slot));
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(at) = self.times.remove(&slot) {
            self.order.remove(&(at, slot));
        }
    }

    /// Takes out one that has waited for long enough.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        let (_, slot) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.remove(slot);
        Some(slot)
    }

    /// Takes all out, by their numbers.
    pub(super) fn take(&mut self) -> impl Iterator<Item = u32> + use<> {
        core::mem::take(self).times.into_keys()
    }
}
