//! The frame of a fragment, and what a pull says of fragments; see [`wire`](super::wire) for their layout.

#![warn(clippy::indexing_slicing)]

use smallvec::SmallVec;

use super::fragment::{MAX_ENTRY, MAX_HELD};
use crate::wire::{NoRoom, PacketError, Reader, Writer};

pub(super) const UNIT: u8 = 1;
pub(super) const LAST: u8 = 2;

/// How many bytes from the first on somebody has of something that comes in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The name of the whole.
    pub(super) id: u64,
    pub(super) len: u64,
}

/// What a fragment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The only item of the chunk of this number in the answer to a pull.
    Item { nonce: u64, number: u64 },
    /// A unit of a full sync.
    Unit { session: u64, unit: u64 },
}

/// Some of the bytes of what fits no datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment<'p> {
    pub(super) addressee: u64,
    pub(super) of: Of,
    /// Whether it ends the answer.
    pub(super) last: bool,
    /// The name and the length of the whole.
    pub(super) id: u64,
    pub(super) len: usize,
    pub(super) offset: usize,
    pub(super) bytes: &'p [u8],
}

/// What a pull says that its sender has in fragments, already checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldList<'p> {
    count: usize,
    rest: Reader<'p>,
}

impl<'p> HeldList<'p> {
    pub(super) fn read(r: &mut Reader<'p>, any: bool) -> Result<Self, PacketError> {
        let count = if any { usize::from(r.u8()?) } else { 0 };
        if count > MAX_HELD || any && count == 0 {
            return Err(PacketError::LimitExceeded);
        }
        let list = Self { count, rest: *r };
        for _ in 0..count {
            r.u64()?;
            r.varint()?;
        }
        Ok(list)
    }

    pub(super) fn collect(mut self) -> SmallVec<[Held; 1]> {
        let mut next =
            || Ok::<_, PacketError>(Held { id: self.rest.u64()?, len: self.rest.varint()? });
        (0..self.count).map_while(|_| next().ok()).collect()
    }
}

pub(super) fn parse(mut r: Reader<'_>) -> Result<Fragment<'_>, PacketError> {
    let (addressee, flags) = (r.u64()?, r.u8()?);
    let of = match flags & UNIT {
        0 => Of::Item { nonce: r.varint()?, number: r.varint()? },
        _ => Of::Unit { session: r.u64()?, unit: r.varint()? },
    };
    let (id, len, offset) = (r.u64()?, r.count(MAX_ENTRY)?, r.count(MAX_ENTRY)?);
    let bytes = r.raw(r.remaining())?;
    if flags & !(UNIT | LAST) != 0 || bytes.is_empty() {
        return Err(PacketError::Malformed);
    }
    if offset + bytes.len() > len {
        return Err(PacketError::LimitExceeded);
    }
    Ok(Fragment { addressee, of, last: flags & LAST != 0, id, len, offset, bytes })
}

/// Writes what a fragment says before the name of the whole. Returns where its flags are.
pub(super) fn write_head(w: &mut Writer<'_>, addressee: u64, of: Of) -> Result<usize, NoRoom> {
    w.u64(addressee)?;
    let flags_at = w.len();
    match of {
        Of::Item { nonce, number } => {
            w.u8(0)?;
            w.varint(nonce)?;
            w.varint(number)?;
        }
        Of::Unit { session, unit } => {
            w.u8(UNIT)?;
            w.u64(session)?;
            w.varint(unit)?;
        }
    }
    Ok(flags_at)
}
