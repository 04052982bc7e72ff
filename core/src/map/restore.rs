//! Making a replica of a [snapshot](super::snapshot).

use core::fmt;

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::chunk::Marks;
use super::dot::{MAX_COUNTER, Packed, ReplicaId, Runs};
use super::garbage::Garbage;
use super::replica::{About, Bounds, Merged, OVERWRITTEN, Replicas};
use super::retire::Retiring;
use super::seal::{Seal, Seals};
use super::snapshot::{CHECKSUM, MAGIC, MERGED, OWN, RECORD, RETIRED};
use super::store::{Guesses, Store, Told};
use super::wire::{self, Chunk, Items};
use super::{Map, Stats};
use crate::event::Queue;
use crate::id::NodeId;
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
    /// The snapshot is of another node: its writes are not those of this one.
    OtherNode,
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
            Self::OtherNode => f.write_str("the snapshot is of another node"),
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
    /// Whether it takes up the life that the snapshot was taken of.
    resumes: bool,
    /// Whether it was told which life that is.
    own: bool,
    /// Chain and number of the first record that continues the snapshot.
    records: (u64, u64),
    /// Whether others know of writes that count as known.
    behind: bool,
}

impl Restoring {
    fn take(&mut self, bytes: &[u8], limits: &super::Config) -> Result<(), RestoreError> {
        let chunk = self.chunk;
        let (corrupt, misplaced) =
            (RestoreError::Corrupt { chunk }, RestoreError::Misplaced { chunk });
        let (head, mut r) = Head::read(bytes).ok_or(corrupt)?;
        let Head { cluster, id, number, kind } = head;
        if cluster != self.cluster {
            return Err(RestoreError::WrongCluster);
        }
        if *self.id.get_or_insert(id) != id || number != chunk || kind < self.kind {
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
                Refused::OtherNode => RestoreError::OtherNode,
            })?;
        }
        check_size(&self.store, limits)
    }

    fn replica(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let id = wire::replica(r)?;
        if self.resumes && self.numbers.is_empty() {
            if id.node != self.replicas.own().node {
                return Err(Refused::OtherNode);
            }
            self.replicas = self.replicas.reborn(id);
        }
        let (base, floor) = (wire::counter(r, 0)?, wire::counter(r, 0)?);
        let logged = wire::counter(r, 0)?;
        let life = read_life(r)?;
        if let Life::Merged(seals, bases) = life {
            let right = id.epoch > 0 && (base, floor, logged) == (0, 0, 0);
            let merged = Merged { below: id.epoch, seals, bases };
            return if right { self.past(id.node, merged) } else { Err(Refused::Malformed) };
        }
        let life = match life {
            Life::Retired(seal) if (base, floor, logged) != (seal.end, seal.end, seal.end) => {
                return Err(Refused::Malformed);
            }
            // This life was never used, and is over as soon as it is made.
            Life::Retired(seal) if id == self.replicas.own() => Life::Sealed(seal),
            Life::Retired(seal) => return self.retired(id, seal),
            other @ (Life::Open | Life::Own | Life::Sealed(_) | Life::Merged(..)) => other,
        };
        let number = self.replicas.intern(id).ok_or(Refused::Limit("max_replicas"))?;
        let place = usize::from(number);
        self.told.resize(self.told.len().max(place + 1), false);
        let again = core::mem::replace(&mut self.told[place], true);
        if floor > base || logged < floor || again || self.replicas.is_nobody(number) {
            return Err(Refused::Malformed);
        }
        self.numbers.push(number);
        self.replicas.set_bounds(number, Bounds { base, floor, logged });
        match life {
            Life::Own => {
                let foreign = self.resumes && id.node != self.replicas.own().node;
                if core::mem::replace(&mut self.own, true) || foreign {
                    return Err(Refused::Malformed);
                }
                if self.resumes {
                    self.replicas.set_me(number);
                }
            }
            Life::Sealed(seal) => self.replicas.set_seal(number, seal),
            Life::Open | Life::Retired(_) | Life::Merged(..) => {}
        }
        Ok(())
    }

    /// A life that nothing names. It takes no number, as it took none where the snapshot was taken.
    fn retired(&mut self, id: ReplicaId, seal: Seal) -> Result<(), Refused> {
        if self.replicas.number(id).is_some() {
            return Err(Refused::Malformed);
        }
        let room = self.replicas.has_room_for_past(id.node);
        room.then(|| self.replicas.take_retired(id, seal)).ok_or(Refused::Limit("max_replicas"))
    }

    /// What is left of the lives of a node before some epoch.
    fn past(&mut self, node: NodeId, merged: Merged) -> Result<(), Refused> {
        let own = self.replicas.own();
        if own.node == node && own.epoch < merged.below {
            // This life was never used, and may not be.
            if self.told.first() == Some(&true) || !self.replicas.renew(merged.below - own.epoch) {
                return Err(Refused::Malformed);
            }
        }
        let told = |life: u16| self.told.get(usize::from(life)).copied().unwrap_or(false);
        let again = self.replicas.merged().any(|(other, _)| other == node);
        if again || self.replicas.lives_before(node, merged.below).any(told) {
            return Err(Refused::Malformed);
        }
        self.replicas.take_past(node, merged);
        Ok(())
    }

    fn dot(&self, r: &mut Reader<'_>) -> Result<Packed, Refused> {
        let number = usize::try_from(r.varint()?).map_err(|_| Refused::Malformed)?;
        let replica = self.numbers.get(number).ok_or(Refused::Malformed)?;
        Ok(Packed::new(*replica, wire::counter(r, 1)?))
    }

    fn entry(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let key = r.bytes(wire::MAX_KEY)?;
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
            let about = match number {
                0 => About::Unknown,
                1..=OVERWRITTEN => About::Key(number - 1),
                later => About::Overwritten(counter + u64::from(later - OVERWRITTEN)),
            };
            let exists = !matches!(about, About::Key(slot) if slot >= self.entries);
            let dot = Packed::new(first.replica(), counter);
            if !exists || !self.replicas.record(dot, about) {
                return Err(Refused::Malformed);
            }
        }
        Ok(())
    }

    fn end(&mut self, r: &mut Reader<'_>) -> Result<(), Refused> {
        let entries = r.varint()?;
        let digests = (r.u64()?, r.u64()?);
        let right = self.own
            && entries == u64::from(self.entries)
            && digests == (self.replicas.digest(), self.store.digest())
            && self.replicas.is_logged_whole();
        self.records = (r.u64()?, r.varint()?);
        let behind = r.u8()?;
        self.behind = behind == 1;
        self.done = true;
        if right && behind <= 1 { Ok(()) } else { Err(Refused::Malformed) }
    }
}

/// What becomes of a life.
enum Life {
    Open,
    /// It is the writer's own.
    Own,
    Sealed(Seal),
    /// It has no number.
    Retired(Seal),
    /// It stands for all those of its node before it, with the sums of their seals and shares.
    Merged(u64, u64),
}

fn read_life(r: &mut Reader<'_>) -> Result<Life, Refused> {
    match r.varint()? {
        0 => Ok(Life::Open),
        OWN => Ok(Life::Own),
        MERGED => Ok(Life::Merged(r.u64()?, r.u64()?)),
        RETIRED => {
            let end = r.varint()?;
            read_seal(r, end).map(Life::Retired)
        }
        end => read_seal(r, end).map(Life::Sealed),
    }
}

/// Reads a seal, of whose end this is told.
fn read_seal(r: &mut Reader<'_>, end: u64) -> Result<Seal, Refused> {
    let end = end.checked_sub(RETIRED + 1).ok_or(Refused::Malformed)?;
    let mut seal = Seal { end, void: Runs::default() };
    let mut last = 0;
    // Each takes two bytes at least.
    for _ in 0..r.count(r.remaining() / 2)? {
        let from = wire::add(last, r.varint()?, 1)?;
        last = wire::add(from, r.varint()?, 0)?;
        seal.void.add_uncut(from, last);
    }
    if last > end || end > MAX_COUNTER { Err(Refused::Malformed) } else { Ok(seal) }
}

/// Why a unit is not taken.
enum Refused {
    Malformed,
    OtherNode,
    Limit(&'static str),
}

impl From<PacketError> for Refused {
    fn from(_: PacketError) -> Self {
        Self::Malformed
    }
}

/// What a chunk says before its units.
struct Head {
    cluster: u32,
    id: u64,
    number: u64,
    kind: u8,
}

impl Head {
    /// Reads it, and what is left up to the checksum; `None` if the chunk is damaged, or none.
    fn read(bytes: &[u8]) -> Option<(Self, Reader<'_>)> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        let intact = xxhash_rust::xxh3::xxh3_64(body).to_le_bytes() == *checksum;
        let mut r = Reader::new(body);
        if !intact || r.u32().ok()? != MAGIC {
            return None;
        }
        let (cluster, id) = (r.u32().ok()?, r.u64().ok()?);
        let (number, kind) = (r.varint().ok()?, r.u8().ok()?);
        Some((Self { cluster, id, number, kind }, r))
    }
}

fn check_size(store: &Store, limits: &super::Config) -> Result<(), RestoreError> {
    if store.keys() > limits.max_keys {
        return Err(RestoreError::TooLarge { limit: "max_keys" });
    }
    if store.bytes() > limits.max_bytes {
        return Err(RestoreError::TooLarge { limit: "max_bytes" });
    }
    Ok(())
}

/// Restoring.
impl Map {
    /// Makes this empty map, of a life that was never used, a replica that knows all that is told by a snapshot
    /// and the records of the [log](Map::start_log) that follow it, if any do. The snapshot may be that of another
    /// node. Tells no [`Event::Changed`](crate::Event::Changed): all of it is new.
    ///
    /// Nothing is dropped for [`Config::keep_for`](super::Config::keep_for), so that the peers of before have time to
    /// come.
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
        self.restore_life(now, chunks, false)
    }

    /// As [`restore`](Self::restore), but takes up the very life that the snapshot was taken of, whichever this
    /// empty map was made for: its own writes are counted on from there.
    ///
    /// A replica never uses the name of a write twice. So do this only if *every* write whose name may have left the
    /// node is told; that is what the [log](Self::start_log) is for. Otherwise, and whenever in doubt, restore into
    /// a life that was never used.
    ///
    /// # Errors
    ///
    /// Those of [`restore`](Self::restore), and [`RestoreError::OtherNode`].
    pub fn resume<C: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        chunks: impl IntoIterator<Item = C>,
    ) -> Result<(), RestoreError> {
        self.restore_life(now, chunks, true)
    }

    fn restore_life<C: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        chunks: impl IntoIterator<Item = C>,
        resumes: bool,
    ) -> Result<(), RestoreError> {
        if self.peers.len() > 0 || self.replicas.len() > 1 || self.replicas.made() > 0 {
            return Err(RestoreError::NotEmpty);
        }
        let me = self.replicas.own();
        let done = self.read_chunks(now, chunks, resumes);
        // What was told on the way is not news, and what was counted no doing of this life.
        self.events = Queue::new(self.config.max_events);
        self.stats = Stats::default();
        match done {
            Ok(()) => {
                self.resumed = resumes.then(|| self.replicas.made());
                self.resume_seals(now);
                self.hold(now);
            }
            Err(_) => {
                self.replicas = self.replicas.reborn(me);
                self.store = self.store.empty();
                self.garbage = Garbage::default();
                self.marks = Marks::default();
                self.seals = Seals::default();
                self.retiring = Retiring::default();
            }
        }
        done
    }

    fn read_chunks<C: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        chunks: impl IntoIterator<Item = C>,
        resumes: bool,
    ) -> Result<(), RestoreError> {
        let mut restoring = Restoring {
            replicas: self.replicas.reborn(self.replicas.own()),
            store: self.store.empty(),
            numbers: Vec::new(),
            told: Vec::new(),
            entries: 0,
            cluster: self.cluster,
            id: None,
            chunk: 0,
            kind: 0,
            done: false,
            resumes,
            own: false,
            records: (0, 0),
            behind: false,
        };
        let mut chunks = chunks.into_iter();
        while !restoring.done {
            let chunk = chunks.next().ok_or(RestoreError::Incomplete)?;
            restoring.take(chunk.as_ref(), &self.config)?;
        }
        let (mut number, (chain, mut next)) = (restoring.chunk, restoring.records);
        (self.replicas, self.store) = (restoring.replicas, restoring.store);
        if restoring.behind {
            self.fall_behind(now);
        }
        (0..self.store.slots()).for_each(|slot| self.hear_times(slot));
        for chunk in chunks {
            self.replay(chunk.as_ref(), number, chain, next)?;
            (number, next) = (number + 1, next + 1);
        }
        Ok(())
    }

    /// Takes in the record of this number of its chain, the chunk of that number in all.
    fn replay(
        &mut self,
        bytes: &[u8],
        chunk: u64,
        chain: u64,
        number: u64,
    ) -> Result<(), RestoreError> {
        let corrupt = RestoreError::Corrupt { chunk };
        let (head, mut r) = Head::read(bytes).ok_or(corrupt)?;
        if head.cluster != self.cluster {
            return Err(RestoreError::WrongCluster);
        }
        if (head.kind, head.id, head.number) != (RECORD, chain, number) || chain == 0 {
            return Err(RestoreError::Misplaced { chunk });
        }
        let context = r.u64().map_err(|_| corrupt)?;
        let items = Items::whole(r).map_err(|_| corrupt)?;
        let told = Chunk { items, ..Chunk::default() };
        // What it waited for before the crash is not on disk: it takes its own word for what it knew.
        self.replicas.set_unbounded(true);
        let taken = self.take_items(None, &told, Guesses::new());
        self.replicas.set_unbounded(false);
        if taken.is_none() {
            return Err(RestoreError::TooLarge { limit: "max_replicas" });
        }
        check_size(&self.store, &self.config)?;
        // A record that says less than it should would have this replica name a write twice.
        if self.replicas.digest() == context { Ok(()) } else { Err(corrupt) }
    }
}
