//! How an [`Inquiry`] looks on the wire: the rows of kind 4, whose format stands with the others in `row_wire.rs`.

#![warn(clippy::indexing_slicing)]

use core::time::Duration;

use super::inquiry::{Inquiry, MAX_OBSERVERS, MAX_TIMES, WELL, age};
use super::member::Row;
use super::row_wire;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// The kind of these rows.
pub(super) const KIND: u8 = 4;

/// What a peer tells of an inquiry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'p> {
    pub(super) id: NodeId,
    pub(super) boot: u64,
    pub(super) times: u8,
    pub(super) quorum: u8,
    /// How long ago it was opened.
    pub(super) opened: Duration,
    poor: u8,
    count: u8,
    found: Reader<'p>,
}

impl Told<'_> {
    fn found(&self) -> impl Iterator<Item = (NodeId, Duration)> {
        let mut found = self.found;
        (0..self.count).map_while(move |_| finding(&mut found).ok())
    }

    /// Who found that it answers poorly, and how long ago.
    pub(super) fn poor(&self) -> impl Iterator<Item = (NodeId, Duration)> {
        self.found().take(usize::from(self.poor))
    }

    /// Who found that it answers well.
    pub(super) fn well(&self) -> impl Iterator<Item = (NodeId, Duration)> {
        self.found().skip(usize::from(self.poor))
    }
}

fn ago(r: &mut Reader<'_>) -> Result<Duration, PacketError> {
    Ok(Duration::from_millis(u64::from(r.varint32()?)))
}

fn finding(r: &mut Reader<'_>) -> Result<(NodeId, Duration), PacketError> {
    Ok((r.node()?, ago(r)?))
}

/// Reads what follows the numbers of a row.
pub(super) fn read<'p>(r: &mut Reader<'p>, id: NodeId, boot: u64) -> Result<Told<'p>, PacketError> {
    let (times, quorum, opened) = (r.u8()?, r.u8()?, ago(r)?);
    let (poor, well) = (r.u8()?, r.u8()?);
    let some = 1..=MAX_OBSERVERS;
    let fits = some.contains(&usize::from(poor)) && usize::from(well) <= WELL;
    if !fits || times > MAX_TIMES || !some.contains(&usize::from(quorum)) || quorum < 2 {
        return Err(PacketError::LimitExceeded);
    }
    let (found, count) = (*r, poor + well);
    for _ in 0..count {
        finding(r)?;
    }
    Ok(Told { id, boot, times, quorum, opened, poor, count, found })
}

/// Writes a row.
pub(super) fn write(
    w: &mut Writer<'_>,
    row: &Row,
    inquiry: &Inquiry,
    now: Instant,
) -> Result<(), NoRoom> {
    w.attempt(|w| {
        w.u8(KIND)?;
        row_wire::write_numbers(w, row)?;
        write_found(w, inquiry, now)
    })
}

fn write_found(w: &mut Writer<'_>, inquiry: &Inquiry, now: Instant) -> Result<(), NoRoom> {
    // Rounded up, so that it ends however often it is passed on, and by little: whoever tells others how old it is makes it
    // older, and of two openings the older counts.
    let ago = |w: &mut Writer<'_>, at: Instant| {
        let millis = age(now, at).as_nanos().div_ceil(1_000_000);
        w.varint(u64::from(u32::try_from(millis).unwrap_or(u32::MAX)))
    };
    w.u8(inquiry.times())?;
    w.u8(inquiry.quorum())?;
    ago(w, inquiry.opened())?;
    let (poor, well) = (inquiry.poor(), inquiry.well());
    #[allow(clippy::cast_possible_truncation)] // at most MAX_OBSERVERS and WELL
    [poor.len() as u8, well.len() as u8].into_iter().try_for_each(|count| w.u8(count))?;
    for (id, at) in poor.iter().chain(well) {
        w.node(*id)?;
        ago(w, *at)?;
    }
    Ok(())
}
