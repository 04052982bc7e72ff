//! Snapshots: the whole state of a replica as a stream of chunks, and a replica made of one.
//!
//! A snapshot is what a full sync would give, and the logs: the replica that is made of it is the one that it was
//! taken of, as if no time had passed. It owes peers what that owed, may forget what that could, and goes on
//! with the counter of its own writes.
//!
//! ```text
//! chunk     "bwm1", cluster u32, snapshot u64, number varint, kind u8, units to the checksum, XXH3 u64
//! kind 0    replicas: node id u64, epoch u64, base varint, floor varint, logged varint. The first is the writer's own
//!      1    entries: key, siblings varint, each (replica varint, counter varint, value),
//!                    superseded varint, each (replica varint, counter varint)
//!      2    logs:    replica varint, first counter varint, dots u8, an entry's number varint for each, counted
//!                    from one; 0: of a dot ahead of a gap of which that is not known
//!      3    the end: entries varint, digest of the context u64, digest of the content u64
//! ```
//!
//! `snapshot` is the same in all chunks of one; replicas and entries are numbered as they come. The checksum tells
//! damage, and is none against those who mean harm: who writes the file can write a checksum.

use alloc::vec::Vec;
use core::fmt;
use core::iter::FusedIterator;

use smallvec::SmallVec;

use super::Map;
use super::dot::{MAX_COUNTER, Packed};
use super::replica::{Bounds, Replicas};
use super::store::{Store, Told};
use super::wire;
use crate::hash;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// Bytes of a chunk, but for one with an entry that is longer.
const CHUNK: usize = 64 * 1024;
const CHECKSUM: usize = 8;
const MAGIC: u32 = u32::from_le_bytes(*b"bwm1");
/// Most dots of a unit of logs.
const RUN: usize = 127;
/// Longest value that is read; what a map takes is another matter.
const MAX_LEN: usize = wire::MAX_BYTES;

/// Where a snapshot goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From this replica on.
    Replicas(u16),
    /// From this slot on.
    Entries(u32),
    /// From the dot of this replica after this counter on.
    Logs(u16, u64),
    End,
    Done,
}

impl Part {
    const fn kind(self) -> u8 {
        match self {
            Self::Replicas(_) => 0,
            Self::Entries(_) => 1,
            Self::Logs(..) => 2,
            Self::End | Self::Done => 3,
        }
    }
}

/// The chunks of a snapshot; see [`Map::snapshot`].
#[derive(Debug)]
pub struct Snapshot<'m> {
    map: &'m Map,
    /// The number of each slot's entry, counted from one; zero if it has none.
    numbers: Vec<u32>,
    entries: u32,
    id: u64,
    number: u64,
    part: Part,
}

impl<'m> Snapshot<'m> {
    fn new(map: &'m Map) -> Self {
        let mut entries = 0;
        let number = |entry: super::store::Entry<'_>| {
            entries += u32::from(!entry.is_empty());
            if entry.is_empty() { 0 } else { entries }
        };
        let numbers = map.store.entries().map(number).collect();
        let (context, content) = map.digest();
        let me = map.replica();
        let id = hash::mix2(hash::mix2(me.node.0, me.epoch), hash::mix2(context, content));
        Self { map, numbers, entries, id, number: 0, part: Part::Replicas(0) }
    }

    /// Writes what fits of the present part; moves on to the next one when all of it is written.
    fn write(&mut self, w: &mut Writer<'_>) -> Result<(), NoRoom> {
        match self.part {
            Part::Replicas(next) => self.write_replicas(w, next),
            Part::Entries(next) => self.write_entries(w, next),
            Part::Logs(replica, after) => self.write_logs(w, replica, after),
            Part::End | Part::Done => {
                let (context, content) = self.map.digest();
                w.varint(u64::from(self.entries))?;
                w.u64(context)?;
                w.u64(content)?;
                self.part = Part::Done;
                Ok(())
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)] // at most 65,535 replicas
    fn write_replicas(&mut self, w: &mut Writer<'_>, next: u16) -> Result<(), NoRoom> {
        let replicas = &self.map.replicas;
        for replica in next..replicas.len() as u16 {
            let bounds = replicas.bounds(replica);
            w.attempt(|w| {
                wire::write_replica(w, replicas.id(replica))?;
                w.varint(bounds.base)?;
                w.varint(bounds.floor)?;
                w.varint(bounds.logged)
            })?;
            self.part = Part::Replicas(replica + 1);
        }
        self.part = Part::Entries(0);
        Ok(())
    }

    fn write_entries(&mut self, w: &mut Writer<'_>, next: u32) -> Result<(), NoRoom> {
        let entries = self.map.store.entries();
        for (slot, entry) in (0_u32..).zip(entries).skip(next as usize) {
            if !entry.is_empty() {
                w.attempt(|w| {
                    w.bytes(entry.key)?;
                    w.varint(entry.siblings().len() as u64)?;
                    for sibling in entry.siblings() {
                        write_dot(w, sibling.dot)?;
                        w.bytes(sibling.value)?;
                    }
                    let lost = sabotaged!("snapshot-loses-marks") && !entry.is_removed();
                    let marks = entry.superseded();
                    let marks = marks.take(if lost { 0 } else { usize::MAX });
                    w.varint(marks.len() as u64)?;
                    marks.into_iter().try_for_each(|dot| write_dot(w, dot))
                })?;
            }
            self.part = Part::Entries(slot + 1);
        }
        self.part = Part::Logs(0, 0);
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)] // at most 65,535 replicas, and 127 dots
    fn write_logs(&mut self, w: &mut Writer<'_>, first: u16, after: u64) -> Result<(), NoRoom> {
        let replicas = &self.map.replicas;
        let mut after = after;
        for replica in first..replicas.len() as u16 {
            let mut dots = replicas.records(replica, after).peekable();
            while let Some(&(from, _)) = dots.peek() {
                let mut run: SmallVec<[u32; RUN]> = SmallVec::new();
                while run.len() < RUN
                    && let Some((_, slot)) = dots.next_if(|dot| dot.0 == from + run.len() as u64)
                {
                    let number = slot.and_then(|slot| self.numbers.get(slot as usize));
                    run.push(number.copied().unwrap_or(0));
                }
                w.attempt(|w| {
                    w.varint(u64::from(replica))?;
                    w.varint(from)?;
                    w.u8(run.len() as u8)?;
                    run.iter().try_for_each(|number| w.varint(u64::from(*number)))
                })?;
                self.part = Part::Logs(replica, from + run.len() as u64 - 1);
            }
            after = 0;
        }
        self.part = Part::End;
        Ok(())
    }
}

fn write_dot(w: &mut Writer<'_>, dot: Packed) -> Result<(), NoRoom> {
    w.varint(u64::from(dot.replica()))?;
    w.varint(dot.counter())
}

impl Iterator for Snapshot<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.part == Part::Done {
            return None;
        }
        let mut room = CHUNK;
        loop {
            let mut chunk = alloc::vec![0; room];
            let mut w = Writer::new(&mut chunk[..room - CHECKSUM]);
            let before = self.part;
            let head = (|| {
                w.u32(MAGIC)?;
                w.u32(self.map.cluster)?;
                w.u64(self.id)?;
                w.varint(self.number)?;
                w.u8(self.part.kind())
            })();
            let written = head.and_then(|()| self.write(&mut w));
            let len = w.len();
            if written.is_err() && self.part == before {
                // One unit is longer than that.
                room *= 2;
                continue;
            }
            self.number += 1;
            let checksum = xxhash_rust::xxh3::xxh3_64(&chunk[..len]);
            chunk.truncate(len);
            chunk.extend(checksum.to_le_bytes());
            return Some(chunk);
        }
    }
}

impl FusedIterator for Snapshot<'_> {}

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
        let mut siblings: SmallVec<[_; 1]> = SmallVec::new();
        // Each takes three bytes at least, and a mark two.
        for _ in 0..r.count(r.remaining() / 3)? {
            let dot = self.dot(r)?;
            siblings.push((dot, r.bytes(MAX_LEN)?));
        }
        let mut superseded: SmallVec<[_; 2]> = SmallVec::new();
        for _ in 0..r.count(r.remaining() / 2)? {
            superseded.push(self.dot(r)?);
        }
        if siblings.is_empty() && superseded.is_empty() || self.store.slot(key).is_some() {
            return Err(Refused::Malformed);
        }
        let slot = self.store.slot_or_insert(key);
        let told = Told { siblings: &siblings, superseded: &superseded };
        self.store.fill(&self.replicas, slot, told);
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

/// Snapshots.
impl Map {
    /// The whole state, in chunks of some 64 KiB, each with a checksum: entries, context and logs. Takes 4 bytes per
    /// key at once, and a chunk at a time.
    ///
    /// ```
    /// # use brickwork_core::map::{self, Map, ReplicaId};
    /// # use brickwork_core::{Instant, NodeId};
    /// # let (now, me) = (Instant::ZERO, ReplicaId::new(NodeId(1), 1));
    /// # let new = || Map::new(now, me, "docs", map::Config::lan(), 1400, [7; 32]);
    /// let mut map = new()?;
    /// map.insert(now, b"origin-17", b"up")?;
    /// let chunks: Vec<Vec<u8>> = map.snapshot().collect();
    ///
    /// let mut again = new()?;
    /// again.restore(now, &chunks)?;
    /// assert_eq!(again.get(b"origin-17"), Some(&b"up"[..]));
    /// assert_eq!(again.digest(), map.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::new(self)
    }

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
