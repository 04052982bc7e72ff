//! What a chunk names, gathered while it is checked.
//!
//! A chunk is judged before any of it is applied: how many keys it names, and whether it brings more replicas than there
//! is room for, or tells of writes of this replica that it never made. All that depends on what is known here is
//! judged then; what it takes to walk for it is walked for once, when the datagram is checked.

use smallvec::SmallVec;

use super::dot::ReplicaId;
use super::replica::Replicas;
use super::wire::{Body, Items, ReplicaRef, Step};
use crate::wire::PacketError;

/// The keys and replicas that a chunk names.
#[derive(Debug, Default)]
pub(crate) struct Skim<'p> {
    /// The body of its frame; empty before there is one.
    of: &'p [u8],
    /// The keys, by their numbers.
    pub(super) keys: SmallVec<[&'p [u8]; 64]>,
    /// The replicas, by their numbers, and the last dot of each that is named.
    replicas: SmallVec<[(ReplicaId, u64); 16]>,
}

impl<'p> Skim<'p> {
    /// Checks the items of a frame with this body. Those of one after the first are checked, and no more.
    pub(super) fn check(&mut self, body: &'p [u8], items: Items<'p>) -> Result<(), PacketError> {
        if self.of.is_empty() {
            self.of = body;
            return self.walk(items);
        }
        let mut check = items;
        while check.next()?.is_some() {}
        Ok(())
    }

    /// That of items that were checked.
    pub(super) fn of(items: Items<'p>) -> Self {
        let mut skim = Self::default();
        // They are right.
        let _ = skim.walk(items);
        skim
    }

    /// Whether it is that of the frame with this body.
    pub(super) fn is_of(&self, body: &[u8]) -> bool {
        core::ptr::eq(self.of, body)
    }

    /// How many of its replicas are not known yet.
    pub(super) fn new_replicas(&self, replicas: &Replicas) -> usize {
        self.replicas.iter().filter(|(id, _)| replicas.number(*id).is_none()).count()
    }

    /// Gives all of its replicas numbers.
    pub(super) fn intern(&self, replicas: &mut Replicas) {
        for (id, _) in &self.replicas {
            replicas.intern(*id);
        }
    }

    /// Whether it tells of writes of this replica that it never made.
    pub(super) fn is_forged(&self, replicas: &Replicas) -> bool {
        let me = replicas.own();
        self.replicas.iter().any(|(id, last)| *id == me && *last > replicas.made())
    }

    fn walk(&mut self, mut items: Items<'p>) -> Result<(), PacketError> {
        let mut run = 0;
        while let Some(step) = items.next()? {
            let item = match step {
                Step::Run(reference) => {
                    run = self.name(reference, 0);
                    continue;
                }
                Step::Overwritten(reference, span) => {
                    self.name(reference, span.limit);
                    continue;
                }
                Step::Item(item) => item,
            };
            self.raise(run, item.counter);
            if let Some(key) = item.body.key() {
                self.keys.push(key);
            }
            let Body::Full { mut entry, .. } = item.body else { continue };
            while let Some((reference, counter, _)) = entry.next_sibling()? {
                self.name(reference, counter);
            }
            while let Some((reference, counter)) = entry.next_superseded()? {
                self.name(reference, counter);
            }
        }
        Ok(())
    }

    /// A dot of this replica is named. Returns the number of the replica.
    fn name(&mut self, reference: ReplicaRef, counter: u64) -> usize {
        match reference {
            ReplicaRef::New(id) => {
                self.replicas.push((id, counter));
                self.replicas.len() - 1
            }
            ReplicaRef::Known(number) => {
                self.raise(number, counter);
                number
            }
        }
    }

    fn raise(&mut self, number: usize, counter: u64) {
        if let Some((_, last)) = self.replicas.get_mut(number) {
            *last = counter.max(*last);
        }
    }
}
