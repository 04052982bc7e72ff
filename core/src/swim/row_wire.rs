//! How members look on the wire: the rows of the frames whose format stands in `wire.rs`. Numbers are little-endian.
//!
//! ```text
//! row       kind u8, id u64, boot epoch u64, incarnation varint, then by kind
//!   0 alive     version varint, address, name, zone, metadata (each a length and bytes), weight varint (of a u16),
//!               commitment u64
//!   1 suspect   count u8 (1..=17), accuser ids u64 each
//!   2 dead      as suspect
//!   3 left      preimage, 16 bytes
//!   4 standing  times held out before u8 (0..=3), quorum u8 (2..=8), how long ago the inquiry was opened in
//!               milliseconds, varint, two counts u8 (1..=8, 0..=2), and so many node ids u64, each with how long ago that
//!               was, likewise: who found that the member answers poorly, and well
//! address   family u8 (4 or 6), 4 or 16 bytes, port u16
//! ```

#![warn(clippy::indexing_slicing)]

use alloc::sync::Arc;
use core::net::SocketAddr;

use super::member::{About, Case, Row as TableRow, State};
use super::standing_wire::{self, Told};
use super::suspicion::MAX_ACCUSERS;
use crate::id::{Identity, MAX_META, MAX_NAME, MAX_ZONE, NodeId};
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// What one member is said to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row<'p> {
    Alive(AliveRow<'p>),
    Accused { id: NodeId, boot: u64, incarnation: u32, dead: bool, accusers: Ids<'p> },
    Left { id: NodeId, boot: u64, preimage: [u8; 16] },
    Standing(Told<'p>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct AliveRow<'p> {
    pub(super) id: NodeId,
    pub(super) boot: u64,
    pub(super) incarnation: u32,
    pub(super) version: u32,
    pub(super) addr: SocketAddr,
    name: &'p str,
    zone: &'p str,
    meta: &'p [u8],
    weight: u16,
    pub(super) commitment: u64,
}

impl<'p> AliveRow<'p> {
    /// As it was read, with other numbers.
    pub(super) fn of(
        identity: &'p Identity,
        incarnation: u32,
        version: u32,
        commitment: u64,
    ) -> Self {
        Self {
            id: identity.id(),
            boot: identity.boot_epoch(),
            incarnation,
            version,
            addr: identity.addr(),
            name: identity.name(),
            zone: identity.zone(),
            meta: identity.meta(),
            weight: identity.weight(),
            commitment,
        }
    }

    pub(super) fn identity(&self) -> Arc<Identity> {
        let identity = Identity::of_texts(self.name, self.zone, self.meta).with_weight(self.weight);
        Arc::new(identity.with_addr(self.addr).with_id(self.id).with_boot_epoch(self.boot))
    }
}

/// Node ids in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids<'p>(&'p [u8]);

impl Ids<'_> {
    pub(super) const fn len(&self) -> usize {
        self.0.len() / 8
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.0.as_chunks::<8>().0.iter().map(|bytes| NodeId(u64::from_le_bytes(*bytes)))
    }
}

/// The rows of an `UPDATES` frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'p> {
    pub(super) rest: Reader<'p>,
}

impl<'p> Rows<'p> {
    pub(super) fn next(&mut self) -> Result<Option<Row<'p>>, PacketError> {
        if self.rest.is_empty() { Ok(None) } else { row(&mut self.rest).map(Some) }
    }
}

/// Reads one.
pub(super) fn row<'p>(r: &mut Reader<'p>) -> Result<Row<'p>, PacketError> {
    let kind = r.u8()?;
    let (id, boot, incarnation) = (r.node()?, r.u64()?, r.varint32()?);
    match kind {
        0 => Ok(Row::Alive(AliveRow {
            id,
            boot,
            incarnation,
            version: r.varint32()?,
            addr: r.addr()?,
            name: r.text(MAX_NAME)?,
            zone: r.text(MAX_ZONE)?,
            meta: r.bytes(MAX_META)?,
            weight: u16::try_from(r.varint()?).map_err(|_| PacketError::LimitExceeded)?,
            commitment: r.u64()?,
        })),
        1 | 2 => {
            let count = usize::from(r.u8()?);
            if count == 0 || count > MAX_ACCUSERS {
                return Err(PacketError::LimitExceeded);
            }
            let accusers = Ids(r.raw(count * 8)?);
            Ok(Row::Accused { id, boot, incarnation, dead: kind == 2, accusers })
        }
        3 => Ok(Row::Left { id, boot, preimage: r.secret()? }),
        standing_wire::KIND => Ok(Row::Standing(standing_wire::read(r, id, boot)?)),
        _ => Err(PacketError::Malformed),
    }
}

/// Who tells, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teller {
    /// Stands as the accuser where a row names none.
    pub(super) me: NodeId,
    pub(super) now: Instant,
    /// There is more to tell than room for it: of one that failed no more than that, for with the word of each who tells it
    /// there are soon as many as it takes.
    pub(super) brief: bool,
}

/// Writes what the table says of a member, in its state now, and what was found of how it answers, if that counts; of one
/// that is held out the latter alone, or else it would refute that it has failed.
pub(super) fn write_row(w: &mut Writer<'_>, about: About<'_>, by: Teller) -> Result<(), NoRoom> {
    let row = about.row;
    let Some(inquiry) = about.found else { return write_state(w, row, by) };
    if row.member.held && !sabotaged!("held-told-failed") {
        return standing_wire::write(w, row, inquiry, by.now);
    }
    write_state(w, row, by)?;
    // Told again until it has spread, and one of the times there will be room.
    let _ = standing_wire::write(w, row, inquiry, by.now);
    Ok(())
}

fn write_state(w: &mut Writer<'_>, row: &TableRow, by: Teller) -> Result<(), NoRoom> {
    let member = &row.member;
    if member.state == State::Alive {
        return write_alive(w, row);
    }
    match row.case() {
        Case::Suspicion(_) if member.state == State::Dead && by.brief => {
            write_accused(w, row, &[by.me])
        }
        Case::Suspicion(suspicion) => write_accused(w, row, suspicion.told()),
        Case::Left(preimage) => w.attempt(|w| {
            write_head(w, row, member.state)?;
            w.put(&preimage[..])
        }),
        Case::None => write_accused(w, row, &[by.me]),
    }
}

/// Tells a member that it is accused. It answers the number, whoever accuses it, so one of those is told.
pub(super) fn write_warning(
    w: &mut Writer<'_>,
    about: About<'_>,
    by: Teller,
) -> Result<(), NoRoom> {
    let row = about.row;
    if let Some(inquiry) = about.found.filter(|_| row.member.held) {
        return standing_wire::write(w, row, inquiry, by.now);
    }
    let myself = by.me;
    let by = row.suspicion().and_then(|suspicion| suspicion.told().first());
    write_accused(w, row, &[by.copied().unwrap_or(myself)])
}

fn write_accused(w: &mut Writer<'_>, row: &TableRow, accusers: &[NodeId]) -> Result<(), NoRoom> {
    w.attempt(|w| {
        write_head(w, row, row.member.state)?;
        #[allow(clippy::cast_possible_truncation)] // at most MAX_ACCUSERS
        w.u8(accusers.len() as u8)?;
        accusers.iter().try_for_each(|&id| w.node(id))
    })
}

/// Writes a member for somebody who has never heard of it: who it is, and then, if there is room, of what it is accused.
/// The latter alone says nothing to one who does not know it; the former fits any datagram that is `empty` so far. Of one that
/// is held out both go into one datagram, if both fit any: who it is alone would say that it is there.
pub(super) fn write_whole_row(
    w: &mut Writer<'_>,
    about: About<'_>,
    by: Teller,
    empty: bool,
) -> Result<(), NoRoom> {
    w.attempt(|w| {
        let row = about.row;
        write_alive(w, row)?;
        let rest = match (row.member.state, about.found) {
            (State::Alive, Some(found)) => standing_wire::write(w, row, found, by.now),
            (State::Alive, None) => Ok(()),
            _ => write_row(w, about, by),
        };
        // Whoever misses it hears it by gossip, as everybody does.
        if row.member.held && !empty { rest } else { Ok(()) }
    })
}

fn write_head(w: &mut Writer<'_>, row: &TableRow, state: State) -> Result<(), NoRoom> {
    w.u8(state as u8)?;
    write_numbers(w, row)
}

pub(super) fn write_numbers(w: &mut Writer<'_>, row: &TableRow) -> Result<(), NoRoom> {
    w.node(row.member.id())?;
    w.u64(row.boot())?;
    w.varint(u64::from(row.member.incarnation))
}

pub(super) fn write_alive(w: &mut Writer<'_>, row: &TableRow) -> Result<(), NoRoom> {
    let identity = &row.member.identity;
    w.attempt(|w| {
        write_head(w, row, State::Alive)?;
        w.varint(u64::from(row.member.version))?;
        let (name, zone, meta) = identity.parts();
        w.addr(identity.addr())?;
        w.bytes(name)?;
        w.bytes(zone)?;
        w.bytes(meta)?;
        w.varint(u64::from(identity.weight()))?;
        w.u64(row.commitment)
    })
}
