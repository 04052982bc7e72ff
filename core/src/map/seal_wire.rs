//! The frame that tells the [seals](super::seal).

use alloc::vec::Vec;

use super::dot::{ReplicaId, Runs};
use super::replica::Replicas;
use super::wire::{self, FLAG_LAST};
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// Runs of void names that are told together, so that they fit the shortest datagram.
const UNIT_RUNS: usize = 16;

/// The seals in units that fit any datagram: each is a seal by itself.
pub(super) fn units(
    replicas: &Replicas,
) -> impl Iterator<Item = (ReplicaId, u64, Vec<(u64, u64)>)> {
    replicas
        .range(None, None)
        .filter_map(|(id, number)| Some((id, replicas.seal(number)?)))
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

/// The seals that a peer tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'p> {
    /// Whether no more of them follow.
    pub(super) last: bool,
    rest: Reader<'p>,
}

impl Told<'_> {
    pub(super) fn next(&mut self) -> Result<Option<(ReplicaId, u64, Runs)>, PacketError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let r = &mut self.rest;
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
    if flags & !FLAG_LAST != 0 {
        return Err(PacketError::Malformed);
    }
    let told = Told { last: flags != 0, rest: r };
    let mut check = told;
    while check.next()?.is_some() {}
    Ok(told)
}
