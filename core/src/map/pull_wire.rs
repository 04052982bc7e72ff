//! PULL, the frame by which a replica says what it knows and asks for what it lacks; its form is in [`wire`](super::wire).

#![warn(clippy::indexing_slicing)]

use smallvec::SmallVec;

use super::dot::{MAX_RUNS, ReplicaId, Runs};
use super::fragment_wire::{Held, HeldList};
use super::replica::ToldAside;
use super::shares::Share;
use super::wire::{add, counter, replica, write_replica};
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// Added to the number of runs, of a replica of which dots are set aside.
const SET_ASIDE: u8 = 128;

#[derive(Debug, Clone, Copy)]
pub(super) struct Pull<'p> {
    pub(super) nonce: u64,
    pub(super) budget: u64,
    pub(super) epoch: u64,
    pub(super) after: Option<ReplicaId>,
    pub(super) upto: Option<ReplicaId>,
    /// The sum of the puller's seals.
    pub(super) seals: u64,
    /// The buckets whose replicas it lists.
    pub(super) buckets: u64,
    /// What it has already of entries that come in fragments.
    pub(super) held: HeldList<'p>,
    /// The part of what is missing that it wants, if not all.
    pub(super) share: Option<Share>,
    /// Whether it wants all, though it misses nothing.
    pub(super) whole: bool,
    /// Whether it has values to write anew.
    pub(super) waits: bool,
    rest: Reader<'p>,
}

/// What a pull lists of a replica.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The dots that it knows.
    pub(super) known: Runs,
    /// What it has set aside, if anything.
    pub(super) set_aside: Option<ToldAside>,
}

impl Pull<'_> {
    /// The next replica of the digest and its dots.
    pub(super) fn next(&mut self) -> Result<Option<(ReplicaId, Listed)>, PacketError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let r = &mut self.rest;
        let id = replica(r)?;
        let base = counter(r, 0)?;
        let count = r.u8()?;
        let known = read_runs(r, base, count & !SET_ASIDE)?;
        let mut set_aside = None;
        if count & SET_ASIDE != 0 {
            let limit = add(base, r.varint()?, 0)?;
            let near = (add(base, r.varint()?, 0)?, limit);
            let limit = add(limit, r.varint()?, 0)?;
            let upto = add(near.0, r.varint()?, 0)?;
            let count = r.u8()?;
            set_aside = Some(ToldAside { near, all: (read_runs(r, upto, count)?, limit) });
        }
        Ok(Some((id, Listed { known, set_aside })))
    }
}

fn read_runs(r: &mut Reader<'_>, base: u64, count: u8) -> Result<Runs, PacketError> {
    if usize::from(count) > MAX_RUNS {
        return Err(PacketError::LimitExceeded);
    }
    let mut runs = Runs { base, runs: SmallVec::new() };
    let mut end = base;
    for _ in 0..count {
        let from = add(end, r.varint()?, 2)?;
        end = add(from, r.varint()?, 0)?;
        runs.runs.push((from, end));
    }
    Ok(runs)
}

pub(super) fn parse(mut r: Reader<'_>) -> Result<Pull<'_>, PacketError> {
    let (nonce, budget, epoch) = (r.varint()?, r.varint()?, r.u64()?);
    let bounds = r.u8()?;
    if nonce == 0 {
        return Err(PacketError::Malformed);
    }
    let seals = if bounds & 16 == 0 { 0 } else { r.u64()? };
    let buckets = if bounds & 32 == 0 { u64::MAX } else { r.u64()? };
    let share = if bounds & 64 == 0 { None } else { Some(Share::read(&mut r)?) };
    let held = HeldList::read(&mut r, bounds & 4 != 0)?;
    let after = if bounds & 1 == 0 { None } else { Some(replica(&mut r)?) };
    let upto = if bounds & 2 == 0 { None } else { Some(replica(&mut r)?) };
    let (whole, waits) = (bounds & 8 != 0, bounds & 128 != 0);
    let rest = r;
    let pull =
        Pull { nonce, budget, epoch, after, upto, seals, buckets, share, held, whole, waits, rest };
    let (mut check, mut last) = (pull, after);
    while let Some((id, _)) = check.next()? {
        if last.is_some_and(|last| last >= id) || upto.is_some_and(|upto| id > upto) {
            return Err(PacketError::Malformed);
        }
        last = Some(id);
    }
    Ok(pull)
}

/// What a pull says before its digest.
#[derive(Debug)]
pub(super) struct PullHead {
    pub(super) nonce: u64,
    pub(super) budget: u64,
    pub(super) epoch: u64,
    pub(super) after: Option<ReplicaId>,
    pub(super) upto: Option<ReplicaId>,
    pub(super) held: SmallVec<[Held; 1]>,
    pub(super) whole: bool,
    pub(super) seals: u64,
    pub(super) buckets: u64,
    pub(super) share: Option<Share>,
    pub(super) waits: bool,
}

impl PullHead {
    /// Writes it; the upper bound, if there is one, comes last.
    pub(super) fn write(&self, w: &mut Writer<'_>) -> Result<(), NoRoom> {
        w.varint(self.nonce)?;
        w.varint(self.budget)?;
        w.u64(self.epoch)?;
        let bounds = u8::from(self.after.is_some()) | u8::from(self.upto.is_some()) << 1;
        let bounds = bounds | u8::from(!self.held.is_empty()) << 2;
        let some = self.buckets != u64::MAX;
        let bounds = bounds | u8::from(self.whole) << 3 | u8::from(self.seals != 0) << 4;
        let bounds = bounds | u8::from(some) << 5 | u8::from(self.share.is_some()) << 6;
        w.u8(bounds | u8::from(self.waits) << 7)?;
        if self.seals != 0 {
            w.u64(self.seals)?;
        }
        if some {
            w.u64(self.buckets)?;
        }
        if let Some(share) = self.share {
            w.u8(share.to_byte())?;
        }
        if !self.held.is_empty() {
            w.u8(u8::try_from(self.held.len()).map_err(|_| NoRoom)?)?;
        }
        for held in &self.held {
            w.u64(held.id)?;
            w.varint(held.len)?;
        }
        [self.after, self.upto].into_iter().flatten().try_for_each(|id| write_replica(w, id))
    }
}

/// Writes one replica of a digest: its base and as many runs ahead of it as are allowed; and if dots of it are set
/// aside, what is known or set aside.
pub(super) fn write_replica_dots(
    w: &mut Writer<'_>,
    id: ReplicaId,
    base: u64,
    runs: impl Iterator<Item = (u64, u64)>,
    set_aside: Option<ToldAside>,
) -> Result<(), NoRoom> {
    w.attempt(|w| {
        write_replica(w, id)?;
        w.varint(base)?;
        let also = if set_aside.is_some() { SET_ASIDE } else { 0 };
        write_runs(w, base, runs, also)?;
        set_aside.map_or(Ok(()), |ToldAside { near, all: (both, limit) }| {
            w.varint(near.1.saturating_sub(base))?;
            w.varint(near.0.saturating_sub(base))?;
            w.varint(limit.saturating_sub(near.1))?;
            w.varint(both.base.saturating_sub(near.0))?;
            write_runs(w, both.base, both.runs.iter().copied(), 0)
        })
    })
}

/// Writes how many runs there are, that and `also`, and each of them.
fn write_runs(
    w: &mut Writer<'_>,
    base: u64,
    runs: impl Iterator<Item = (u64, u64)>,
    also: u8,
) -> Result<(), NoRoom> {
    let count_at = w.len();
    w.u8(0)?;
    let (mut end, mut count) = (base, 0);
    for (from, to) in runs.take(MAX_RUNS) {
        w.varint(from - end - 2)?;
        w.varint(to - from)?;
        end = to;
        count += 1;
    }
    w.set(count_at, &[count | also]);
    Ok(())
}
