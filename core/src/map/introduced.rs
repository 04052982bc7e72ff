//! How a frame names replicas: in full once, and by a number after that.

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::dot::{Packed, ReplicaId};
use super::replica::Replicas;
use super::store::{Entry, Sibling};
use super::wire::{self, ReplicaRef};
use crate::wire::{NoRoom, Writer};

/// The numbers that a chunk gives to replicas, on the side that writes it.
#[derive(Debug, Default)]
pub(super) struct Introduced {
    numbers: SmallVec<[u16; 16]>,
    /// On the side that reads: which of them stand for retired lives, and for which.
    retired: Vec<(usize, ReplicaId)>,
}

impl Introduced {
    /// Writes a reference to a replica, introducing it if need be.
    pub(super) fn write(
        &mut self,
        w: &mut Writer<'_>,
        replicas: &Replicas,
        replica: u16,
    ) -> Result<(), NoRoom> {
        if let Some(number) = self.number(replica) {
            return w.varint(number as u64 + 1);
        }
        w.varint(0)?;
        wire::write_replica(w, replicas.id(replica))?;
        self.push(replica);
        Ok(())
    }

    /// Writes the siblings and marks of an entry.
    pub(super) fn write_dots(
        &mut self,
        w: &mut Writer<'_>,
        replicas: &Replicas,
        entry: Entry<'_>,
    ) -> Result<(), NoRoom> {
        self.write_those(w, replicas, entry.siblings(), entry.superseded())
    }

    /// The same in the order of the dots, which is that of no replica in particular.
    pub(super) fn write_dots_in_order(
        &mut self,
        w: &mut Writer<'_>,
        replicas: &Replicas,
        entry: Entry<'_>,
    ) -> Result<(), NoRoom> {
        let mut siblings: Vec<Sibling<'_>> = entry.siblings().collect();
        siblings.sort_unstable_by_key(|sibling| replicas.dot(sibling.dot));
        let mut superseded: Vec<Packed> = entry.superseded().collect();
        superseded.sort_unstable_by_key(|dot| replicas.dot(*dot));
        self.write_those(w, replicas, siblings.into_iter(), superseded.into_iter())
    }

    fn write_those<'e>(
        &mut self,
        w: &mut Writer<'_>,
        replicas: &Replicas,
        siblings: impl ExactSizeIterator<Item = Sibling<'e>>,
        superseded: impl ExactSizeIterator<Item = Packed>,
    ) -> Result<(), NoRoom> {
        w.varint(siblings.len() as u64)?;
        for sibling in siblings {
            self.write(w, replicas, sibling.dot.replica())?;
            w.varint(sibling.dot.counter())?;
            w.bytes(sibling.value)?;
        }
        w.varint(superseded.len() as u64)?;
        for dot in superseded {
            self.write(w, replicas, dot.replica())?;
            w.varint(dot.counter())?;
        }
        Ok(())
    }

    pub(super) fn number(&self, replica: u16) -> Option<usize> {
        self.numbers.iter().position(|other| *other == replica)
    }

    pub(super) fn push(&mut self, replica: u16) {
        self.numbers.push(replica);
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.numbers.truncate(len);
    }

    /// On the side that reads: the interned number of a reference.
    pub(super) fn resolve(
        &mut self,
        replicas: &mut Replicas,
        reference: ReplicaRef,
    ) -> Option<u16> {
        match reference {
            ReplicaRef::Known(number) => self.numbers.get(number).copied(),
            ReplicaRef::New(id) => {
                let replica = replicas.intern(id)?;
                if replicas.is_nobody(replica) {
                    self.retired.push((self.numbers.len(), id));
                }
                self.numbers.push(replica);
                Some(replica)
            }
        }
    }

    /// The same of a mark. That of a void write of a retired life is kept, for somebody may wait to write that anew.
    pub(super) fn resolve_mark(
        &mut self,
        replicas: &mut Replicas,
        reference: ReplicaRef,
        counter: u64,
    ) -> Option<u16> {
        let place = match reference {
            ReplicaRef::Known(place) => place,
            ReplicaRef::New(_) => self.numbers.len(),
        };
        let replica = self.resolve(replicas, reference)?;
        if !replicas.is_nobody(replica) {
            return Some(replica);
        }
        let at = self.retired.iter().position(|(retired, _)| *retired == place);
        let revived = at.and_then(|at| replicas.revive(self.retired[at].1, counter));
        if let (Some(at), Some(revived)) = (at, revived) {
            self.retired.swap_remove(at);
            self.numbers[place] = revived;
        }
        Some(revived.unwrap_or(replica))
    }
}
