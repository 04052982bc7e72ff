//! Making a replica of a [snapshot](super::snapshot).

use core::fmt;

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::Map;
use super::dot::{MAX_COUNTER, Packed};
use super::replica::{Bounds, Replicas};
use super::snapshot::{CHECKSUM, MAGIC};
use super::store::{Sibling, Store};
use super::wire;
use crate::time::Instant;
use crate::wire::{PacketError, Reader};

/// Longest value that is read; what a map takes is another matter.
const MAX_LEN: usize = wire::MAX_BYTES;

/// Why no replica was made of a snapshot. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The map has peers, or knows of writes.
    NotEmpty,
    /// The snapshot is of another cluster.
    WrongCluster,
    /// This chunk, counted from zero, is damaged, or none of a snapshot.
    Corrupt {
        /// Its number.
        chunk: u64,
    },
    /// This chunk, counted from zero, is of another snapshot, or out of its place.
    Misplaced {
        /// Its number.
        chunk: u64,
    },
    /// The last chunks are missing.
    Incomplete,
    /// The snapshot has more than the configuration allows.
    TooLarge {
        /// The name of the setting.
        limit: &'static str,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty => f.write_str("the map is not empty"),
            Self::WrongCluster => f.write_str("the snapshot is of another cluster"),
            Self::Corrupt { chunk } => write!(f, "chunk {chunk} of the snapshot is damaged"),
            Self::Misplaced { chunk } => {
                write!(f, "chunk {chunk} is of another snapshot, or out of its place")
            }
            Self::Incomplete => f.write_str("the end of the snapshot is missing"),
            Self::TooLarge { limit } => write!(f, "the snapshot has more than {limit} allows"),
        }
    }
}

impl core::error::Error for RestoreError {}

/// A replica in the making.
struct Restoring {
    replicas: Replicas,
    store: Store,
    /// By number in the snapshot, the interned number here.
    numbers: Vec<u16>,
    /// By interned number, whether it was told of.
    told: Vec<bool>,
    entries: u32,
    cluster: u32,
    id: Option<u64>,
    chunk: u64,
    /// The kind of the last chunk.
    kind: u8,
    done: bool,
}

impl Restoring {
    fn take(&mut self, bytes: &[u8], limits: &super::Config) -> Result<(), RestoreError> {
        let chunk = self.chunk;
        let (corrupt, misplaced) =
            (RestoreError::Corrupt { chunk }, RestoreError::Misplaced { chunk });
        let body = bytes.len().checked_sub(CHECKSUM).and_then(|len| bytes.split_at_checked(len));
        let (body, checksum) = body.ok_or(corrupt)?;
        if xxhash_rust::xxh3::xxh3_64(body).to_le_bytes() != *checksum {
            return Err(corrupt);
        }
        let mut r = Reader::new(body);
        let head = |r: &mut Reader<'_>| {
            Ok::<_, PacketError>((r.u32()?, r.u32()?, r.u64()?, r.varint()?, r.u8()?))
        };
        let (magic, cluster, id, number, kind) = head(&mut r).map_err(|_| corrupt)?;
        if magic != MAGIC {
            return Err(corrupt);
        }
        if cluster != self.cluster {
            return Err(RestoreError::WrongCluster);
        }
        if *self.id.get_or_insert(id) != id || number != chunk || kind < self.kind || self.done {
            return Err(misplaced);
        }
        self.kind = kind;
        self.chunk += 1;
        let mut ended = false;
        while !r.is_empty() {
            let unit = match kind {
                0 => self.replica(&mut r),
                1 => self.entry(&mut r),
                2 => self.log(&mut r),
                3 if !ended => {
                    ended = true;
                    self.end(&mut r)
                }
                _ => Err(Refused::Malformed),
            };
            unit.map_err(|refused| match refused {
                Refused::Malformed => corrupt,
                Refused::Limit(limit) => RestoreError::TooLarge { limit },
            })?;
        }
        if self.store.keys() > limits.max_keys {
            return Err(RestoreError::TooLarge { limit: "max_keys" });
        }
        if self.store.bytes() > limits.max_bytes {
            return Err(RestoreError::TooLarge { limit: "max_bytes" });
        }
        Ok(())
    }

    fn replica(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let id = wire::replica(r)?;
        let (base, floor) = (wire::counter(r, 0)?, wire::counter(r, 0)?);
        let logged = wire::counter(r, 0)?;
        let number = self.replicas.intern(id).ok_or(Refused::Limit("max_replicas"))?;
        let place = usize::from(number);
        self.told.resize(self.told.len().max(place + 1), false);
        let again = core::mem::replace(&mut self.told[place], true);
        if floor > base || logged < floor || again {
            return Err(Refused::Malformed);
        }
        self.numbers.push(number);
        self.replicas.set_bounds(number, Bounds { base, floor, logged });
        Ok(())
    }

    fn dot(&self, r: &mut Reader<'_>) -> Result<Packed, Refused> {
        let number = usize::try_from(r.varint()?).map_err(|_| Refused::Malformed)?;
        let replica = self.numbers.get(number).ok_or(Refused::Malformed)?;
        Ok(Packed::new(*replica, wire::counter(r, 1)?))
    }

    fn entry(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let key = r.bytes(MAX_LEN)?;
        let mut siblings = SmallVec::new();
        // Each takes three bytes at least, and a mark two.
        for _ in 0..r.count(r.remaining() / 3)? {
            let dot = self.dot(r)?;
            siblings.push(Sibling { dot, value: r.bytes(MAX_LEN)?.into() });
        }
        let mut superseded = SmallVec::new();
        for _ in 0..r.count(r.remaining() / 2)? {
            superseded.push(self.dot(r)?);
        }
        if siblings.is_empty() && superseded.is_empty() || self.store.slot(key).is_some() {
            return Err(Refused::Malformed);
        }
        let slot = self.store.slot_or_insert(key);
        self.store.fill(&self.replicas, slot, siblings, superseded);
        self.entries += 1;
        Ok(())
    }

    fn log(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let first = self.dot(r)?;
        let dots = u64::from(r.u8()?);
        if dots == 0 || first.counter() + dots > MAX_COUNTER {
            return Err(Refused::Malformed);
        }
        for counter in first.counter()..first.counter() + dots {
            let number = r.varint32()?;
            let slot = (number > 0).then(|| number - 1);
            let exists = slot.is_none_or(|slot| slot < self.entries);
            let dot = Packed::new(first.replica(), counter);
            if !exists || !self.replicas.record(dot, slot) {
                return Err(Refused::Malformed);
            }
        }
        Ok(())
    }

    fn end(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let entries = r.varint()?;
        let digests = (r.u64()?, r.u64()?);
        let right = entries == u64::from(self.entries)
            && digests == (self.replicas.digest(), self.store.digest())
            && self.replicas.is_logged_whole();
        self.done = true;
        if right { Ok(()) } else { Err(Refused::Malformed) }
    }
}

/// Why a unit is not taken.
enum Refused {
    Malformed,
    Limit(&'static str),
}

impl From<PacketError> for Refused {
    fn from(_: PacketError) -> Self {
        Self::Malformed
    }
}

/// Restoring.
impl Map {
    /// Makes this empty map the replica that a snapshot was taken of, or, if it was made for another one, a replica
    /// that knows all that that knew. Tells no [`Event::Changed`](crate::Event::Changed): all of it is new.
    ///
    /// Nothing is dropped for [`Config::keep_for`](super::Config::keep_for), so that the peers of before have time to
    /// come.
    ///
    /// A replica never uses the name of a write twice. So make the map under the
    /// [`ReplicaId`](super::ReplicaId) of before only if *every* write whose name may have left the node since the
    /// snapshot was taken is in it; otherwise, and whenever in doubt, take an epoch that was never used.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] says which chunk is damaged, out of place or missing, or which limit is too low; the map is
    /// as empty as before.
    pub fn restore<C: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        chunks: impl IntoIterator<Item = C>,
    ) -> Result<(), RestoreError> {
        if self.peers.len() > 0 || self.replicas.len() > 1 || self.replicas.base(0) > 0 {
            return Err(RestoreError::NotEmpty);
        }
        let (me, config) = (self.replicas.id(0), &self.config);
        let mut restoring = Restoring {
            replicas: Replicas::new(me, config.max_replicas, config.max_gap_dots),
            store: self.store.empty(),
            numbers: Vec::new(),
            told: Vec::new(),
            entries: 0,
            cluster: self.cluster,
            id: None,
            chunk: 0,
            kind: 0,
            done: false,
        };
        for chunk in chunks {
            restoring.take(chunk.as_ref(), config)?;
        }
        if !restoring.done {
            return Err(RestoreError::Incomplete);
        }
        (self.replicas, self.store) = (restoring.replicas, restoring.store);
        self.hold(now);
        Ok(())
    }
}
