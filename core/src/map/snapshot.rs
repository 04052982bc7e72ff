//! Snapshots: the whole state of a replica as a stream of chunks, and a replica made of one.
//!
//! A snapshot is what a full sync would give, and the logs: the replica that is made of it is the one that it was
//! taken of, as if no time had passed. It owes peers what that owed, may forget what that could, and goes on
//! with the counter of its own writes. Records of the [write-ahead log](super::log) may follow it.
//!
//! ```text
//! chunk     "bwm1", cluster u32, snapshot or chain u64, number varint, kind u8, units to the checksum, XXH3 u64
//! kind 0    replicas: node id u64, epoch u64, base varint, floor varint, logged varint, seal: 0 if there is none, 1
//!                    if it is the writer's own, or end varint, more by four, runs varint, per run: gap varint,
//!                    length varint. The first is the writer's own. Or, in the place of a seal, 2: of all lives
//!                    of the node before the epoch this is left, the sum of their seals u64, that of their shares
//!                    in the digest of the context u64; or 3: it is retired, and its seal follows as above. Such have
//!                    no number
//!      1    entries: key, siblings varint, each (replica varint, counter varint, value),
//!                    superseded varint, each (replica varint, counter varint)
//!      2    logs:    replica varint, first counter varint, dots u8, an entry's number varint for each, counted
//!                    from one; 0: of a dot ahead of a gap of which that is not known; more than 2^31: of one that
//!                    its replica overwrote by a dot not more than so many, less 2^31, later
//!      3    the end: entries varint, digest of the context u64, digest of the content u64,
//!                    chain u64 and number varint of the first record that goes on from here; 0 and 0 if none does,
//!                    u8: 1 if others know of writes that count as known here (see retire.rs), or 0
//!      4    a record: digest of the context after it u64, and the runs and items of a CHUNK (see wire.rs)
//! ```
//!
//! `snapshot` is the same in all chunks of one, and `chain` in all records that continue the same; replicas and entries
//! are numbered as they come. The checksum tells damage, and is none against those who mean harm: who writes the file
//! can write a checksum.

use alloc::vec::Vec;
use core::iter::FusedIterator;

use smallvec::SmallVec;

use super::Map;
use super::dot::{Packed, ReplicaId};
use super::log::Log;
use super::replica::{About, Bounds, Merged, OVERWRITTEN, Replicas};
use super::seal::Seal;
use super::wire;
use crate::hash;
use crate::id::NodeId;
use crate::sabotage::sabotaged;
use crate::wire::{NoRoom, Writer};

/// Bytes of a chunk, but for one with an entry that is longer.
const CHUNK: usize = 64 * 1024;
pub(super) const CHECKSUM: usize = 8;
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"bwm1");
/// The kind of chunk that is a record of the log.
pub(super) const RECORD: u8 = 4;
/// Most dots of a unit of logs.
const RUN: usize = 127;

/// Where a snapshot goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From so many told of on.
    Replicas(usize),
    /// From this slot on.
    Entries(u32),
    /// From the dot of the replica of this number after this counter on.
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
    /// The replicas by their numbers in the snapshot, and those numbers.
    replicas: Vec<u16>,
    places: Vec<u16>,
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
        let own = map.replicas.me();
        let others = map.replicas.numbers().filter(|replica| *replica != own);
        let replicas: Vec<u16> = core::iter::once(own).chain(others).collect();
        let mut places = alloc::vec![0; map.replicas.len()];
        for (place, replica) in (0..).zip(&replicas) {
            places[usize::from(*replica)] = place;
        }
        let part = Part::Replicas(0);
        Self { map, numbers, entries, replicas, places, id, number: 0, part }
    }

    /// Writes what fits of the present part; moves on to the next one when all of it is written.
    fn write(&mut self, w: &mut Writer<'_>) -> Result<(), NoRoom> {
        match self.part {
            Part::Replicas(next) => self.write_replicas(w, next),
            Part::Entries(next) => self.write_entries(w, next),
            Part::Logs(replica, after) => self.write_logs(w, replica, after),
            Part::End | Part::Done => {
                let (context, content) = (self.map.replicas.digest(), self.map.store.digest());
                w.varint(u64::from(self.entries))?;
                w.u64(context)?;
                w.u64(content)?;
                let (chain, next) = self.map.log.as_ref().map_or((0, 0), Log::place);
                w.u64(chain)?;
                w.varint(next)?;
                w.u8(u8::from(self.map.retiring.is_behind()))?;
                self.part = Part::Done;
                Ok(())
            }
        }
    }

    fn write_replicas(&mut self, w: &mut Writer<'_>, next: usize) -> Result<(), NoRoom> {
        let replicas = &self.map.replicas;
        let open = self.replicas.iter().map(|replica| Left::Open(*replica));
        let retired = replicas.retired().map(|(id, seal)| Left::Retired(id, seal));
        let merged = replicas.merged().map(|(node, merged)| Left::Merged(node, merged));
        for left in open.chain(retired).chain(merged).skip(next) {
            w.attempt(|w| left.write(w, replicas))?;
            let Part::Replicas(told) = &mut self.part else { break };
            *told += 1;
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
                        self.write_dot(w, sibling.dot)?;
                        w.bytes(sibling.value)?;
                    }
                    let lost = sabotaged!("snapshot-loses-marks") && !entry.is_removed();
                    let marks = entry.superseded();
                    let marks = marks.take(if lost { 0 } else { usize::MAX });
                    w.varint(marks.len() as u64)?;
                    marks.into_iter().try_for_each(|dot| self.write_dot(w, dot))
                })?;
            }
            self.part = Part::Entries(slot + 1);
        }
        self.part = Part::Logs(0, 0);
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)] // at most 127 dots; limits are near
    fn write_logs(&mut self, w: &mut Writer<'_>, first: u16, after: u64) -> Result<(), NoRoom> {
        let replicas = &self.map.replicas;
        let mut after = after;
        for (place, &replica) in (0..).zip(&self.replicas).skip(usize::from(first)) {
            let mut dots = replicas.records(replica, after).peekable();
            while let Some(&(from, _)) = dots.peek() {
                let mut run: SmallVec<[u32; RUN]> = SmallVec::new();
                while run.len() < RUN
                    && let Some((counter, about)) =
                        dots.next_if(|dot| dot.0 == from + run.len() as u64)
                {
                    run.push(match about {
                        About::Key(slot) => self.numbers.get(slot as usize).copied().unwrap_or(0),
                        About::Overwritten(limit) => OVERWRITTEN + (limit - counter) as u32,
                        About::Unknown => 0,
                    });
                }
                w.attempt(|w| {
                    w.varint(u64::from(place))?;
                    w.varint(from)?;
                    w.u8(run.len() as u8)?;
                    run.iter().try_for_each(|number| w.varint(u64::from(*number)))
                })?;
                self.part = Part::Logs(place, from + run.len() as u64 - 1);
            }
            after = 0;
        }
        self.part = Part::End;
        Ok(())
    }

    fn write_dot(&self, w: &mut Writer<'_>, dot: Packed) -> Result<(), NoRoom> {
        w.varint(u64::from(self.places[usize::from(dot.replica())]))?;
        w.varint(dot.counter())
    }
}

/// What is told of lives.
enum Left<'m> {
    Open(u16),
    Retired(ReplicaId, &'m Seal),
    Merged(NodeId, Merged),
}

impl Left<'_> {
    fn write(&self, w: &mut Writer<'_>, replicas: &Replicas) -> Result<(), NoRoom> {
        let told = |w: &mut Writer<'_>, id, bounds: [u64; 3]| {
            wire::write_replica(w, id)?;
            bounds.into_iter().try_for_each(|bound| w.varint(bound))
        };
        match *self {
            Self::Open(replica) => {
                let Bounds { base, floor, logged } = replicas.bounds(replica);
                told(w, replicas.id(replica), [base, floor, logged])?;
                if replica == replicas.me() {
                    w.varint(OWN)
                } else {
                    write_seal(w, replicas.seal(replica))
                }
            }
            Self::Retired(id, seal) => {
                told(w, id, [seal.end; 3])?;
                w.varint(RETIRED)?;
                write_seal(w, Some(seal))
            }
            Self::Merged(node, merged) => {
                told(w, ReplicaId::new(node, merged.below), [0; 3])?;
                w.varint(MERGED)?;
                w.u64(merged.seals)?;
                w.u64(merged.bases)
            }
        }
    }
}

/// What every chunk begins with.
pub(super) fn write_head(
    w: &mut Writer<'_>,
    cluster: u32,
    id: u64,
    number: u64,
    kind: u8,
) -> Result<(), NoRoom> {
    w.u32(MAGIC)?;
    w.u32(cluster)?;
    w.u64(id)?;
    w.varint(number)?;
    w.u8(kind)
}

pub(super) fn add_checksum(chunk: &mut Vec<u8>) {
    let checksum = xxhash_rust::xxh3::xxh3_64(chunk);
    chunk.extend(checksum.to_le_bytes());
}

/// What is said in place of a seal by the life that the replica is in; no seal is told by zero.
pub(super) const OWN: u64 = 1;
/// What is said in place of a seal of the merged lives of a node.
pub(super) const MERGED: u64 = 2;
/// What is said before the seal of a retired life.
pub(super) const RETIRED: u64 = 3;

fn write_seal(w: &mut Writer<'_>, seal: Option<&Seal>) -> Result<(), NoRoom> {
    let Some(seal) = seal else { return w.varint(0) };
    w.varint(seal.end + RETIRED + 1)?;
    w.varint(seal.void.all().count() as u64)?;
    let mut last = 0;
    for (from, to) in seal.void.all() {
        w.varint(from - last - 1)?;
        w.varint(to - from)?;
        last = to;
    }
    Ok(())
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
            let head = write_head(&mut w, self.map.cluster, self.id, self.number, self.part.kind());
            let written = head.and_then(|()| self.write(&mut w));
            let len = w.len();
            if written.is_err() && self.part == before {
                // One unit is longer than that.
                room *= 2;
                continue;
            }
            self.number += 1;
            chunk.truncate(len);
            add_checksum(&mut chunk);
            return Some(chunk);
        }
    }
}

impl FusedIterator for Snapshot<'_> {}

/// Snapshots.
impl Map {
    /// The whole state, in chunks of some 64 KiB, each with a checksum: entries, context, what is left of retired lives,
    /// and logs. Takes 4 bytes per key at once, and a chunk at a time.
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
}
