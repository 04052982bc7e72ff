//! The write-ahead log: what must be on disk before it may leave.
//!
//! A replica that starts again under its old name must know every write of its own that others may have heard of, or
//! it would use the name of one twice. So its own writes are *durable* first: while one is not, the map sends
//! nothing. That is all that depends on the disk; what came from others is written now and then, many at a time,
//! for whoever lost it is sent it again.
//!
//! The disk is treated as one more member, of which is known exactly what it was handed: all but the dots that
//! came since. A record is a chunk as peers are sent them: those dots and the whole entries that they are about. So
//! what is proved of chunks holds of records, and a replica made of a snapshot and any number of the records
//! after it, in their order, is the one that it was when the last of them was made. As for every member, nothing is
//! collected that the disk was not handed (see [`garbage`](super::garbage)). What a full sync brings has no log of its
//! dots and cannot be told in chunks: after it the log begins anew, with a snapshot.
//!
//! Nothing here waits for the disk, or knows what a file is: [`Map::poll_log`] says what is to be written, and
//! [`Map::log_synced`] takes note that it was.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Map;
use super::chunk::ChunkWriter;
use super::dot::{Dot, Packed};
use super::peer::{Context, Theirs};
use super::snapshot;
use super::wire::Span;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};

/// Most dots of one record: items refer to at most twice as many objects.
const MAX_FRESH: usize = 32_768;
/// So many dots of others are worth a record.
const WORTH: u64 = 4_096;

/// What is to be done with the chunks of a [`LogWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogKind {
    /// They are a log by themselves, and what follows goes after them: to be written to a new file, which is put in
    /// the place of the old one as soon as it is durable. What is appended to the old one is lost by that.
    Begin,
    /// To be appended to the log.
    Append,
    /// As for [`Begin`](Self::Begin), but there is no hurry: they hold nothing that is not in the old log. If the new
    /// file is written in the background, what is to be appended meanwhile goes to both. If it cannot be written,
    /// nothing is lost: the old log is good until the next one comes.
    Compact,
}

/// Something that is to be written to disk; see [`Map::poll_log`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogWrite {
    /// What is done with the chunks.
    pub kind: LogKind,
    /// To be told [`Map::log_synced`] when this and all before it are durable.
    pub ticket: u64,
    /// The chunks, in order. How they are told from one another is the matter of who writes them.
    pub chunks: Vec<Vec<u8>>,
}

/// What the disk has, and what it is still to be handed.
#[derive(Debug)]
pub(super) struct Log {
    /// The records that continue one snapshot have this in common.
    chain: u64,
    /// Number of the next record.
    next: u64,
    /// Dots that the disk was not handed, each with the slot of its key,
    fresh: Vec<(Packed, u32)>,
    /// and those whose keys are not known, for they were overwritten.
    overwritten: Vec<(u16, Span)>,
    /// How many of those there are.
    overwritten_dots: u64,
    /// Whether what comes continues nothing that is on disk.
    begin: bool,
    /// Whether garbage waits for the disk.
    awaited: bool,
    /// Bytes of the snapshot that was handed out last, and of the records after it.
    compacted: usize,
    appended: usize,
    tickets: u64,
    /// What is on its way to the disk: tickets, and the last own write that is in it.
    in_flight: VecDeque<(u64, u64)>,
    /// The last own write that was handed out, and that is durable.
    handed: u64,
    durable: u64,
    /// If this is not the first life of the map, and what it wrote before is not on disk: the ticket of the snapshot
    /// that has it.
    renewed: Option<u64>,
}

impl Log {
    /// By what a snapshot says which records continue it.
    pub(super) const fn place(&self) -> (u64, u64) {
        (self.chain, self.next)
    }

    /// The dot is new, and about the key in this slot.
    pub(super) fn note(&mut self, dot: Packed, slot: u32) {
        if self.begin {
            return;
        }
        self.fresh.push((dot, slot));
        if self.fresh.len() > MAX_FRESH {
            self.restart();
        }
    }

    /// Dots of a replica are known that were overwritten.
    pub(super) fn note_overwritten(&mut self, replica: u16, span: Span) {
        if self.begin {
            return;
        }
        self.overwritten.push((replica, span));
        self.overwritten_dots += span.to - span.from + 1;
        if self.overwritten.len() > MAX_FRESH {
            self.restart();
        }
    }

    /// Whether the disk was handed all.
    const fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.overwritten.is_empty()
    }

    /// A number goes to another life, and all members have what the one of before wrote, the disk too.
    pub(super) fn forget(&mut self, replica: u16) {
        self.fresh.retain(|(dot, _)| dot.replica() != replica);
        self.overwritten.retain(|(of, _)| *of != replica);
    }

    /// What is on disk is not what the next record continues.
    pub(super) fn restart(&mut self) {
        self.begin = true;
        (self.fresh, self.overwritten, self.overwritten_dots) = (Vec::new(), Vec::new(), 0);
    }

    /// Whether the disk was not handed one of the dots up to these bases. If so it is to be handed them now.
    pub(super) fn lacks(&mut self, bases: &[u64]) -> bool {
        let below = |dot: Packed| {
            bases.get(usize::from(dot.replica())).is_some_and(|base| dot.counter() <= *base)
        };
        // Looked through once, and not again for each word of a peer until it was handed them.
        let mut spans = self.overwritten.iter();
        self.awaited |= self.begin
            || self.fresh.iter().any(|(dot, _)| below(*dot))
            || spans.any(|(replica, span)| below(Packed::new(*replica, span.from)));
        self.awaited
    }

    /// The replica goes on as another life, which has written nothing yet.
    pub(super) fn begin_life(&mut self) {
        self.restart();
        (self.handed, self.durable) = (0, 0);
        self.in_flight.iter_mut().for_each(|flight| flight.1 = 0);
        self.renewed = Some(u64::MAX);
    }

    fn ticket(&mut self, last: u64) -> u64 {
        self.tickets += 1;
        self.handed = last;
        self.in_flight.push_back((self.tickets, last));
        self.tickets
    }
}

/// The write-ahead log.
impl Map {
    /// From now on what this replica writes leaves it only when it is durable. To be called at the start, after
    /// [`resume`](Self::resume) or [`restore`](Self::restore) if there is something to restore; again it does nothing.
    ///
    /// The map then has to be asked [`poll_log`](Self::poll_log) after every input, before
    /// [`poll_transmit`](Self::poll_transmit); the first write is a [`LogKind::Begin`] of all that it knows. Until
    /// [`log_synced`](Self::log_synced) says that own writes are durable nothing is sent, so whoever writes without
    /// a pause had better wait for the disk now and then.
    ///
    /// ```
    /// # use brickwork_core::map::{self, LogKind, Map, ReplicaId};
    /// # use brickwork_core::{Instant, NodeId};
    /// # let now = Instant::ZERO;
    /// # let new = |epoch| Map::new(now, ReplicaId::new(NodeId(1), epoch), "docs", map::Config::lan(), 1400, [7; 32]);
    /// let mut map = new(1)?;
    /// map.start_log();
    /// let mut file: Vec<Vec<u8>> = Vec::new();
    /// for n in 0..3_u8 {
    ///     let dot = map.insert(now, b"origin-17", &[n])?;
    ///     while let Some(write) = map.poll_log() {
    ///         if write.kind != LogKind::Append {
    ///             file.clear();
    ///         }
    ///         file.extend(write.chunks); // and fsync
    ///         map.log_synced(now, write.ticket);
    ///     }
    ///     assert!(map.is_durable(dot));
    /// }
    ///
    /// let mut again = new(2)?; // a crash later
    /// again.resume(now, &file)?;
    /// assert_eq!(again.replica(), map.replica(), "it goes on under its old name");
    /// assert_eq!((again.get(b"origin-17"), again.digest()), (Some(&[2][..]), map.digest()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_log(&mut self) {
        if self.log.is_none() {
            self.log = Some(Log {
                chain: 0,
                next: 0,
                fresh: Vec::new(),
                overwritten: Vec::new(),
                overwritten_dots: 0,
                begin: true,
                awaited: false,
                compacted: 0,
                appended: 0,
                tickets: 0,
                in_flight: VecDeque::new(),
                handed: 0,
                durable: 0,
                renewed: None,
            });
        }
    }

    /// What is to be written to disk next, if it is time: own writes always, those of others when they are many or
    /// garbage waits for them. To be written in order; one that is lost or repeated makes those after it useless. A
    /// snapshot is copied at once: it takes as much memory as the map, and the time to write it.
    pub fn poll_log(&mut self) -> Option<LogWrite> {
        let last = self.replicas.made();
        // What no record can tell a snapshot can.
        let large = self.store.large() > 0;
        let chain = self.log.as_ref().filter(|log| log.begin).map(|_| self.rng.u64() | 1);
        let log = self.log.as_mut()?;
        let many = log.fresh.len() as u64 + log.overwritten_dots >= WORTH;
        let waits = log.handed < last || log.awaited || many;
        if let Some(chain) = chain {
            (log.chain, log.next, log.begin, log.awaited) = (chain, 0, false, false);
            log.renewed = log.renewed.map(|_| log.tickets + 1);
            return self.log_snapshot(LogKind::Begin);
        }
        if waits && !log.is_idle() {
            log.awaited = false;
            if large {
                log.restart();
                return self.poll_log();
            }
            let chunk = self.log_record();
            let log = self.log.as_mut()?;
            log.appended += chunk.len();
            let (kind, ticket) = (LogKind::Append, log.ticket(last));
            return Some(LogWrite { kind, ticket, chunks: alloc::vec![chunk] });
        }
        if log.is_idle() && log.appended > self.config.compact_log_from.max(log.compacted) {
            return self.log_snapshot(LogKind::Compact);
        }
        None
    }

    /// Everything up to the write of this ticket is durable.
    pub fn log_synced(&mut self, now: Instant, ticket: u64) {
        let Some(log) = &mut self.log else { return };
        while let Some(&(_, last)) = log.in_flight.front().filter(|flight| flight.0 <= ticket) {
            log.in_flight.pop_front();
            log.durable = log.durable.max(last);
        }
        log.renewed = log.renewed.filter(|snapshot| *snapshot > ticket);
        self.try_to_collect(now);
    }

    /// Whether this is a write of [this map's own](Self::is_own) that is on disk: it survives a crash, and may be told
    /// to others. Without a log none is.
    #[must_use]
    pub fn is_durable(&self, dot: Dot) -> bool {
        let Some(log) = &self.log else { return false };
        if dot.replica == self.replica() {
            return (1..=log.durable).contains(&dot.counter);
        }
        log.renewed.is_none() && self.is_own(dot)
    }

    /// The dot is new, and about the key in this slot.
    pub(super) fn note_for_log(&mut self, dot: Packed, slot: u32) {
        if let Some(log) = &mut self.log {
            log.note(dot, slot);
        }
    }

    /// Whether nothing leaves, because an own write is not durable.
    #[must_use]
    pub fn awaits_disk(&self) -> bool {
        let last = self.replicas.made();
        // Nor does a life speak before it is on disk that it is another one.
        let waits = |log: &Log| log.durable < last || log.renewed.is_some();
        self.log.as_ref().is_some_and(waits) && !sabotaged!("disk-not-awaited")
    }

    fn log_snapshot(&mut self, kind: LogKind) -> Option<LogWrite> {
        let chunks: Vec<_> = self.snapshot().collect();
        let last = self.replicas.made();
        let log = self.log.as_mut()?;
        log.compacted = chunks.iter().map(Vec::len).sum();
        log.appended = 0;
        Some(LogWrite { kind, ticket: log.ticket(last), chunks })
    }

    /// The record of all that the disk was not handed.
    fn log_record(&mut self) -> Vec<u8> {
        let Some(log) = &mut self.log else { return Vec::new() };
        let mut fresh = core::mem::take(&mut log.fresh);
        let overwritten = core::mem::take(&mut log.overwritten);
        log.overwritten_dots = 0;
        fresh.sort_unstable_by_key(|(dot, _)| *dot);
        let (chain, number) = (log.chain, log.next);
        log.next += 1;
        let context = self.replicas.digest();
        let nothing = Context::default();
        let theirs = Theirs::certain(&nothing);
        let mut items = ChunkWriter::new(&self.replicas, &self.store, &mut self.marks, theirs);
        let mut bytes = alloc::vec![0; 256];
        let mut len = 0;
        grow(&mut bytes, &mut len, |w| {
            snapshot::write_head(w, self.cluster, chain, number, snapshot::RECORD)?;
            w.u64(context)
        });
        for (dot, slot) in fresh {
            grow(&mut bytes, &mut len, |w| items.item(w, dot, slot));
        }
        for (replica, span) in overwritten {
            grow(&mut bytes, &mut len, |w| items.span(w, replica, span));
        }
        bytes.truncate(len);
        snapshot::add_checksum(&mut bytes);
        bytes
    }
}

/// Writes after the first `len` bytes, with as much room as it takes.
fn grow(
    bytes: &mut Vec<u8>,
    len: &mut usize,
    mut write: impl FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
) {
    loop {
        let mut w = Writer::new(bytes);
        w.rewind(*len);
        if w.attempt(&mut write).is_ok() {
            *len = w.len();
            return;
        }
        let room = bytes.len() * 2;
        bytes.resize(room, 0);
    }
}
