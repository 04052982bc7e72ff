//! The frame that tells the [seals](super::seal).

use alloc::vec::Vec;

use super::dot::{ReplicaId, Runs};
use super::replica::{Merged, Replicas};
use super::wire::{self, FLAG_LAST};
use crate::id::NodeId;
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// Runs of void names that are told together, so that they fit the shortest datagram.
const UNIT_RUNS: usize = 16;

/// The frame tells of merged lives, not of seals.
pub(super) const FLAG_MERGED: u8 = 2;

/// The seals in units that fit any datagram: each is a seal by itself.
pub(super) fn units(
    replicas: &Replicas,
) -> impl Iterator<Item = (ReplicaId, u64, Vec<(u64, u64)>)> {
    replicas
        .range(None, None)
        .filter_map(|(id, number)| Some((id, replicas.seal(number)?)))
        .chain(replicas.retired())
        .flat_map(|(id, seal)| {
            let runs: Vec<(u64, u64)> = seal.void.all().collect();
            let mut units: Vec<_> =
                runs.chunks(UNIT_RUNS).map(|runs| (id, seal.end, runs.to_vec())).collect();
            if units.is_empty() {
                units.push((id, seal.end, Vec::new()));
            }
            units
        })
}

pub(super) fn write_unit(
    w: &mut Writer<'_>,
    id: ReplicaId,
    end: u64,
    runs: &[(u64, u64)],
) -> Result<(), NoRoom> {
    w.attempt(|w| {
        wire::write_replica(w, id)?;
        w.varint(end)?;
        w.u8(u8::try_from(runs.len()).map_err(|_| NoRoom)?)?;
        let mut last = 0;
        for &(from, to) in runs {
            w.varint(from - last - 1)?;
            w.varint(to - from)?;
            last = to;
        }
        Ok(())
    })
}

/// Writes as many units as fit, and counts them.
pub(super) fn write_all(
    w: &mut Writer<'_>,
    mut units: impl Iterator<Item = (ReplicaId, u64, Vec<(u64, u64)>)>,
    written: &mut usize,
) -> Result<(), NoRoom> {
    units.try_for_each(|(id, end, runs)| {
        write_unit(w, id, end, &runs)?;
        *written += 1;
        Ok(())
    })
}

/// The same of what is left of merged lives.
pub(super) fn write_merged(
    w: &mut Writer<'_>,
    mut pasts: impl Iterator<Item = (NodeId, Merged)>,
    written: &mut usize,
) -> Result<(), NoRoom> {
    pasts.try_for_each(|(node, merged)| {
        w.attempt(|w| {
            w.node(node)?;
            w.u64(merged.below)?;
            w.u64(merged.seals)?;
            w.u64(merged.bases)
        })?;
        *written += 1;
        Ok(())
    })
}

/// The seals that a peer tells, or what is left of merged lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'p> {
    /// Whether no more of them follow.
    pub(super) is_last: bool,
    seals: Reader<'p>,
    merged: Reader<'p>,
    /// The node whose merged lives came last.
    last: Option<NodeId>,
}

impl Told<'_> {
    /// The next node with merged lives, and what is left of those.
    pub(super) fn next_merged(&mut self) -> Result<Option<(NodeId, Merged)>, PacketError> {
        if self.merged.is_empty() {
            return Ok(None);
        }
        let r = &mut self.merged;
        let (node, below) = (r.node()?, r.u64()?);
        let merged = Merged { below, seals: r.u64()?, bases: r.u64()? };
        // Each node once, in their order.
        let again = self.last.replace(node).is_some_and(|last| last >= node);
        if below == 0 || again { Err(PacketError::Malformed) } else { Ok(Some((node, merged))) }
    }

    /// The next seal: of which life, its end, and the void names before that.
    pub(super) fn next(&mut self) -> Result<Option<(ReplicaId, u64, Runs)>, PacketError> {
        if self.seals.is_empty() {
            return Ok(None);
        }
        let r = &mut self.seals;
        let (id, end) = (wire::replica(r)?, wire::counter(r, 0)?);
        let count = usize::from(r.u8()?);
        if count > UNIT_RUNS {
            return Err(PacketError::LimitExceeded);
        }
        let (mut void, mut last) = (Runs::default(), 0);
        for _ in 0..count {
            let from = wire::add(last, r.varint()?, 1)?;
            last = wire::add(from, r.varint()?, 0)?;
            void.add_uncut(from, last);
        }
        if last > end { Err(PacketError::Malformed) } else { Ok(Some((id, end, void))) }
    }
}

pub(super) fn parse(mut r: Reader<'_>) -> Result<Told<'_>, PacketError> {
    let flags = r.u8()?;
    if flags & !(FLAG_LAST | FLAG_MERGED) != 0 {
        return Err(PacketError::Malformed);
    }
    let (none, merged) = (Reader::new(&[]), flags & FLAG_MERGED != 0);
    let (seals, merged) = if merged { (none, r) } else { (r, none) };
    let told = Told { is_last: flags & FLAG_LAST != 0, seals, merged, last: None };
    let mut check = told;
    while check.next()?.is_some() {}
    while check.next_merged()?.is_some() {}
    Ok(told)
}
