//! Replicas that reflect the same writes and show other values, and how they become equal again.
//!
//! The values of a key are a function of the writes that are reflected, so two digests of the context that are equal,
//! beside two of the content that are not, are a bug or damaged memory; no peer of this library can tell. Which of the
//! two is right nobody knows. A value that only one of them has may be one that the other lost, or one that it
//! failed to remove; only a mark of what superseded it decides. So each takes a full sync from the other, and joins it
//! by marks alone: what no mark speaks against stays, or comes back. Rather may something removed return than
//! something written be lost. Both end with the same, and so do others that take part, in any order: it is a union.

use super::Map;
use super::replica::Replicas;
use super::store::{Store, Told};
use crate::event::Event;
use crate::time::Instant;

impl Map {
    /// The peer in `slot` has an equal context and another content.
    pub(super) fn diverged(&mut self, now: Instant, slot: u32) {
        self.stats.diverged += 1;
        let Some(id) = self.peers.get(slot).map(|peer| peer.id) else { return };
        if now < self.repair_after
            || self.pulling.is_some()
            || self.staging.is_some()
            || !self.shares.is_idle()
        {
            return;
        }
        // If it does not help, no network is kept busy with it.
        self.repair_after = now + self.config.keep_for;
        self.events.push(Event::Diverged { id });
        self.page = None;
        self.start_pull(now, slot);
        if let Some(pulling) = &mut self.pulling {
            pulling.set_repairs();
        }
    }
}

impl Store {
    /// Adds the values of an entry that are told and neither here nor superseded by a mark here, though their writes
    /// are known.
    pub(super) fn bring_back(&mut self, replicas: &Replicas, slot: u32, told: Told<'_>) {
        let lacks = |store: &Self, dot| {
            let entry = store.entry(slot);
            entry.siblings().all(|own| own.dot != dot) && !entry.supersedes(dot)
        };
        for &(dot, value) in told.siblings {
            let nobody = replicas.is_nobody(dot.replica());
            if replicas.contains(dot) && lacks(self, dot) && !nobody {
                self.add_sibling(replicas, slot, dot, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
