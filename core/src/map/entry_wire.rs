//! Whole entries, as items and units tell them.

#![warn(clippy::indexing_slicing)]

use super::fragment::{MAX_MARKS, MAX_SIBLINGS};
use super::wire::{MAX_BYTES, ReplicaRef, checked_ref, counter, replica_ref};
use crate::wire::{PacketError, Reader};

/// A sibling of a full item: replica, counter, value.
type ToldSibling<'p> = (ReplicaRef, u64, &'p [u8]);

/// Siblings and superseded dots of a full item, already checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct FullEntry<'p> {
    siblings: (usize, Reader<'p>),
    superseded: (usize, Reader<'p>),
}

impl<'p> FullEntry<'p> {
    /// Reads and checks one, after `replicas` replicas were introduced.
    pub(super) fn read(r: &mut Reader<'p>, replicas: &mut usize) -> Result<Self, PacketError> {
        // Each sibling takes three bytes at least, each superseded dot two.
        let count = r.count(MAX_SIBLINGS.min(r.remaining() / 3))?;
        let siblings = (count, *r);
        for _ in 0..count {
            checked_ref(r, replicas)?;
            counter(r, 1)?;
            r.bytes(MAX_BYTES)?;
        }
        let count = r.count(MAX_MARKS.min(r.remaining() / 2))?;
        let superseded = (count, *r);
        for _ in 0..count {
            checked_ref(r, replicas)?;
            counter(r, 1)?;
        }
        Ok(Self { siblings, superseded })
    }

    pub(super) fn next_sibling(&mut self) -> Result<Option<ToldSibling<'p>>, PacketError> {
        let (left, r) = &mut self.siblings;
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        Ok(Some((replica_ref(r)?, counter(r, 1)?, r.bytes(MAX_BYTES)?)))
    }

    pub(super) fn next_superseded(&mut self) -> Result<Option<(ReplicaRef, u64)>, PacketError> {
        let (left, r) = &mut self.superseded;
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        Ok(Some((replica_ref(r)?, counter(r, 1)?)))
    }
}
