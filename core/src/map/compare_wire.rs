//! The frames by which two contexts are compared; see [`wire`](super::wire) for their layout.

#![warn(clippy::indexing_slicing)]

use super::replica::{BUCKETS, Replicas};
use super::wire;
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// Fewer sums than there are buckets are told where the datagram is short: each of two of them.
const FEWEST: usize = BUCKETS / 2;

/// The sums of a peer's context.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums<'p> {
    pub(super) nonce: u64,
    pub(super) epoch: u64,
    /// The sum of its seals.
    pub(super) seals: u64,
    sums: Reader<'p>,
}

impl Sums<'_> {
    /// The buckets whose sums are not these, a bit for each.
    pub(super) fn differ(&self, mine: &[u64; BUCKETS]) -> u64 {
        let mut theirs = self.sums;
        let each = BUCKETS / (theirs.remaining() / 8).clamp(1, BUCKETS);
        let parts = mine.chunks(each).zip(0_u32..);
        let differs = |(part, number): (&[u64], u32)| {
            let mine = part.iter().fold(0, |sum: u64, bucket| sum.wrapping_add(*bucket));
            (theirs.u64() != Ok(mine)).then_some((number, part.len()))
        };
        let differing = parts.filter_map(differs);
        differing.fold(0, |mask, (number, len)| {
            let bits = u64::MAX >> (BUCKETS - len);
            mask | bits << (number as usize * each)
        })
    }
}

/// The buckets in which a peer's context differs from one that it was told the sums of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Differ {
    pub(super) addressee: u64,
    pub(super) nonce: u64,
    pub(super) buckets: u64,
}

pub(super) fn parse_buckets(mut r: Reader<'_>) -> Result<Sums<'_>, PacketError> {
    let (nonce, epoch, flags) = (r.varint()?, r.u64()?, r.u8()?);
    if flags > 1 || nonce == 0 {
        return Err(PacketError::Malformed);
    }
    let seals = if flags == 0 { 0 } else { r.u64()? };
    match r.remaining() {
        len if len == 8 * BUCKETS || len == 8 * FEWEST => Ok(Sums { nonce, epoch, seals, sums: r }),
        _ => Err(PacketError::Malformed),
    }
}

/// Writes the sums of the context, as many as there is room for.
pub(super) fn write_buckets(
    w: &mut Writer<'_>,
    replicas: &Replicas,
    nonce: u64,
) -> Result<(), NoRoom> {
    let (sums, seals) = (replicas.sums(), replicas.seals());
    let mut write = |each: usize| {
        w.frame(wire::BUCKETS, |w| {
            w.varint(nonce)?;
            w.u64(replicas.own().epoch)?;
            w.u8(u8::from(seals != 0))?;
            if seals != 0 {
                w.u64(seals)?;
            }
            let sum = |part: &[u64]| part.iter().fold(0_u64, |sum, it| sum.wrapping_add(*it));
            sums.chunks(each).try_for_each(|part| w.u64(sum(part)))
        })
    };
    write(1).or_else(|NoRoom| write(BUCKETS / FEWEST))
}

pub(super) fn parse_differ(mut r: Reader<'_>) -> Result<Differ, PacketError> {
    let differ = Differ { addressee: r.u64()?, nonce: r.varint()?, buckets: r.u64()? };
    r.finish()?;
    Ok(differ)
}

pub(super) fn write_differ(w: &mut Writer<'_>, differ: Differ) -> Result<(), NoRoom> {
    w.frame(wire::DIFFER, |w| {
        w.u64(differ.addressee)?;
        w.varint(differ.nonce)?;
        w.u64(differ.buckets)
    })
}
