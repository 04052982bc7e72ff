//! The map: what everybody knows, merged without coordination.
//!
//! A delta-state CRDT (van der Linde, Leitão, Preguiça 2016; Almeida, Shoker, Baquero 2018) from keys
//! to values. Every write is named by a dot. Concurrent values of a key are kept as siblings, and
//! which of them is read is decided at read time: that of the writer with the highest rendezvous score
//! for the key, so every replica reads the same. A write supersedes exactly what its writer had seen;
//! a removal is a write without a value, and a concurrent value survives it.
//!
//! What travels is always the whole entry of a key, in chunks that claim exactly the dots they explain,
//! so any chunk may be lost, repeated or late. Each replica keeps the exact set of dots that it
//! reflects; telling it to a peer is all it takes to be sent what is missing.
//!
//! Once every peer has a write, what was kept to tell of it is dropped, and removed keys leave nothing
//! behind; a peer that lacks such a write, because it is new or was gone for longer than
//! [`Config::keep_for`], is given the whole map.
//!
//! A replica that starts again knows nothing, under another name, unless what it wrote was on disk before it left:
//! [`Map::start_log`] says what has to be, and [`Map::resume`] makes it what it was.
//!
//! A write may die with its writer while those after it live on. Once that life is over it is *sealed* without the
//! write, so that what is kept to tell of the others can be dropped all the same.
//!
//! And once nothing names a life that is over, it is retired: what is kept grows with the nodes that there ever were, and
//! not with how often they were started.
//!
//! Not built yet: leases.
//!
//! ```
//! use brickwork_core::map::{self, Map, ReplicaId};
//! use brickwork_core::{Instant, NodeId};
//!
//! let now = Instant::ZERO;
//! let addr = |port| ([127, 0, 0, 1], port).into();
//! let replica = |id| Map::new(now, ReplicaId::new(NodeId(id), 1), "docs", map::Config::lan(), 1400, [7; 32]);
//! let (mut a, mut b) = (replica(1)?, replica(2)?);
//! a.peer_up(now, NodeId(2), 1, addr(2));
//! b.peer_up(now, NodeId(1), 1, addr(1));
//!
//! a.insert(now, b"origin-17", b"up")?;
//! let mut buf = [0; 1400];
//! loop {
//!     if let Some(sent) = a.poll_transmit(&mut buf) {
//!         let len = sent.payload.len();
//!         b.handle_packet(now, addr(1), &mut buf[..len])?;
//!     } else if let Some(sent) = b.poll_transmit(&mut buf) {
//!         let len = sent.payload.len();
//!         a.handle_packet(now, addr(2), &mut buf[..len])?;
//!     } else {
//!         break;
//!     }
//! }
//! assert_eq!(b.get(b"origin-17"), Some(&b"up"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allowance;
mod announce;
mod apply;
mod aside;
mod ask;
mod chunk;
mod compare;
mod compare_wire;
mod config;
mod dot;
mod entry_wire;
mod error;
mod fetch;
mod fragment;
mod fragment_wire;
mod full;
mod full_wire;
mod garbage;
mod introduced;
mod log;
mod lost;
mod order;
mod owed;
mod peer;
mod policy;
mod pull_wire;
mod repair;
mod replica;
mod restore;
mod retire;
mod seal;
mod seal_wire;
mod serve;
mod shares;
mod skim;
mod snapshot;
mod stage;
mod store;
mod streak;
mod sync;
mod views;
mod whom;
mod window;
mod wire;
mod write;

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use smallvec::SmallVec;

pub use config::Config;
pub use dot::{Dot, ReplicaId};
pub use error::InsertError;
pub use log::{LogKind, LogWrite};
pub use policy::Policy;
pub use restore::RestoreError;
pub use snapshot::Snapshot;
pub(crate) use wire::owns;

use crate::config::{ConfigError, check_datagram};
use crate::event::{Event, Queue};
use crate::hash::Secret;
use crate::id::NodeId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::{self as packet, PacketError, Sender, Writer};
use crate::{MIN_DATAGRAM, Transmit};
use allowance::Allowance;
use announce::Announcements;
use ask::Pulling;
use chunk::Marks;
use fragment::{Assembly, MAX_ENTRY};
use full::Sessions;
use garbage::Garbage;
use log::Log;
use peer::Peers;
use replica::Replicas;
use retire::Retiring;
use seal::Seals;
use shares::Shares;
pub(crate) use skim::Skim;
use stage::Staging;
use store::Store;

/// Counters of the map since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Local writes and removals.
    pub writes: u64,
    /// Dots learned from peers.
    pub dots_received: u64,
    /// Those of them that came without their keys, for their writers had overwritten them.
    pub dots_overwritten: u64,
    /// How often what was told of such dots was forgotten before it was complete, because no peer went on with it.
    pub windows_forgotten: u64,
    /// Dots that were not claimed for lack of room ahead of a gap.
    pub dots_refused: u64,
    /// Pulls sent.
    pub pulls_sent: u64,
    /// Pulls that were given up without an answer.
    pub pulls_timed_out: u64,
    /// Chunks refused because the map is full.
    pub chunks_refused: u64,
    /// Peers that nothing is kept for any more, because they did not take in what this map has for
    /// [`keep_for`](Config::keep_for), as one that is full does not. They are sent the whole map when they ask.
    pub stragglers: u64,
    /// Chunks refused because they tell of writes of this replica that it never made.
    pub chunks_forged: u64,
    /// Times that peers knew of own writes that the log had lost: this life ended, and another began.
    pub lives_lost: u64,
    /// Entries that were not sent because they have more than 32 mebibytes, 4,096 concurrent values or 8,192 marks.
    pub oversize: u64,
    /// Frames from unknown peers, or meant for another boot: skipped.
    pub misaddressed: u64,
    /// Full syncs taken: what was missing here could not be told write by write.
    pub full_syncs: u64,
    /// Lives that were retired: they are over, and nothing but their names is left.
    pub retired: u64,
    /// Digests of peers with an equal context and unequal content, which is corruption or a bug; see
    /// [`Event::Diverged`].
    pub diverged: u64,
}

/// One of the concurrent values of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sibling<'m> {
    /// The write that it comes from.
    pub dot: Dot,
    /// The value.
    pub value: &'m [u8],
}

/// Which siblings of a key were read, for [`Map::resolve`]. It means the same to every replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(SmallVec<[Dot; 1]>);

/// One replica of the map.
#[derive(Debug)]
pub struct Map {
    config: Config,
    max_datagram: usize,
    cluster: u32,
    /// This node's boot epoch, which chunks to it name.
    boot: u64,
    rng: Rng,
    /// This one has the number [`Replicas::me`].
    replicas: Replicas,
    store: Store,
    peers: Peers,
    marks: Marks,
    /// Room to look through what an answer tells next.
    seen: Marks,
    pulling: Option<Pulling>,
    /// Those for shares, while there is none for all.
    shares: Shares,
    /// The last pull that was given up, in case its answer is only late.
    late: Option<Pulling>,
    /// A peer to pull from when the pull under way and the interval are over.
    wanted: Option<u32>,
    pull_after: Instant,
    /// How long answers to pulls usually take, once measured.
    pull_time: Option<Duration>,
    /// How many bytes the next pull asks for.
    window: u64,
    /// What may be asked for, and what may be sent to those who ask.
    taken: Allowance,
    given: Allowance,
    /// Pulls in a row that nobody answered.
    unanswered: u32,
    /// Where the next page of the digest begins, if it does not fit one datagram.
    page: Option<ReplicaId>,
    push_at: Option<Instant>,
    pushed_at: Option<Instant>,
    sync_at: Option<Instant>,
    /// Whether the map changed since a peer was told the digest last.
    news: bool,
    /// The peer whose chunk was refused last for its size, until nothing of it is missing here.
    full: Option<u32>,
    garbage: Garbage,
    seals: Seals,
    retiring: Retiring,
    announcements: Announcements,
    sessions: Sessions,
    staging: Option<Staging>,
    /// What came so far of entries that fit no datagram. Of peers that do not have them nothing is learned about
    /// that, so they stay until others come, or until nothing is missing anywhere.
    assemblies: Vec<Assembly>,
    /// Who gave the full sync that was taken last, until the rest of what it has is here too: others may
    /// have dropped already what came to it meanwhile.
    catching: Option<u32>,
    /// The peer that spoke last.
    heard: Option<u32>,
    /// Who is to be told that a full sync from it is over, and which.
    over: Option<(u32, u64)>,
    /// How many dots that were overwritten the datagram under way may still complete, or have looked at for it.
    may_settle: u64,
    /// What is to be on disk before it leaves, if anything is.
    log: Option<Log>,
    /// How many own writes the log told of that this life was taken up from; see [`lost`].
    resumed: Option<u64>,
    /// When the next repair may begin.
    repair_after: Instant,
    /// The highest Lamport time that was heard of.
    time: u64,
    events: Queue,
    stats: Stats,
}

/// Inputs.
impl Map {
    /// An empty replica of the cluster called `cluster`, without peers.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a setting is out of range.
    pub fn new(
        now: Instant,
        replica: ReplicaId,
        cluster: &str,
        config: Config,
        max_datagram: usize,
        entropy: [u8; 32],
    ) -> Result<Self, ConfigError> {
        check_datagram(max_datagram)?;
        config.check(max_datagram)?;
        let mut rng = Rng::fork(&entropy, 2);
        let secret = Secret::new(&mut rng);
        let store = Store::new(secret, MAX_ENTRY);
        Ok(Self {
            max_datagram,
            cluster: packet::cluster_tag(cluster),
            boot: replica.epoch,
            replicas: Replicas::new(replica, config.max_replicas, config.max_gap_dots)
                .with_policy(config.policy),
            store: if config.ordered { store.ordered() } else { store },
            peers: Peers::new(secret),
            marks: Marks::default(),
            seen: Marks::default(),
            pulling: None,
            shares: Shares::default(),
            late: None,
            wanted: None,
            pull_after: now,
            pull_time: None,
            window: config.pull_budget as u64,
            taken: Allowance::new(now, config.pull_rate),
            given: Allowance::new(now, config.pull_rate),
            unanswered: 0,
            page: None,
            push_at: None,
            pushed_at: None,
            sync_at: None,
            news: false,
            full: None,
            garbage: Garbage::default(),
            seals: Seals::default(),
            retiring: Retiring::default(),
            announcements: Announcements::default(),
            sessions: Sessions::default(),
            staging: None,
            assemblies: Vec::new(),
            catching: None,
            heard: None,
            over: None,
            may_settle: 0,
            log: None,
            resumed: None,
            repair_after: now,
            time: 0,
            events: Queue::new(config.max_events),
            stats: Stats::default(),
            rng,
            config,
        })
    }

    /// Takes a datagram that arrived from `from`. The packet may be altered in place.
    ///
    /// # Errors
    ///
    /// [`PacketError`] if the packet is not a correct one of this cluster; the state is untouched.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        _from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        let (sender, frames) = packet::open(packet, self.cluster)?;
        if sender == self.sender() {
            return Err(PacketError::OwnPacket);
        }
        let (mut check, mut skim) = (frames, Skim::default());
        while let Some((tag, body)) = check.next()? {
            wire::check(tag, body, &mut skim)?;
        }
        self.apply(now, sender, frames, &skim);
        Ok(())
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fire_push(now);
        self.fire_pull(now);
        self.fire_sync(now);
        self.fire_staging(now);
        self.fire_sessions(now);
        self.fire_announcements(now);
        self.fire_seals(now);
        self.fire_retiring(now);
        self.fire_garbage(now);
    }

    /// Says that the boot `boot_epoch` of node `id` is a peer, living at `addr`. Replaces a peer of
    /// that id; beyond `max_peers` it is ignored and counted as misaddressed when it speaks.
    pub fn peer_up(&mut self, now: Instant, id: NodeId, boot_epoch: u64, addr: SocketAddr) {
        self.forget(now, id);
        if id == self.replicas.own().node || self.peers.len() >= self.config.max_peers {
            return;
        }
        // What was written before it came is left to its pulls.
        let slot = self.peers.insert(id, boot_epoch, addr, self.replicas.made());
        self.meet_member(now, slot);
        self.owe_state(slot);
        self.arm_sync(now, self.config.sync_interval);
    }

    /// Says that a peer moved to `addr`.
    pub fn peer_moved(&mut self, id: NodeId, addr: SocketAddr) {
        if let Some(peer) = self.peers.slot(id).and_then(|slot| self.peers.get_mut(slot)) {
            peer.addr = addr;
        }
    }

    /// Says that node `id` is no peer any more.
    pub fn peer_down(&mut self, now: Instant, id: NodeId) {
        self.forget(now, id);
        if self.peers.len() == 0 {
            self.sync_at = None;
        }
    }
}

/// Outputs.
impl Map {
    /// Writes the next datagram that this replica owes into `buf`; `None` when it owes nothing.
    ///
    /// # Panics
    ///
    /// If `buf` is shorter than [`MIN_DATAGRAM`].
    pub fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        assert!(buf.len() >= MIN_DATAGRAM, "buffer of {} bytes", buf.len());
        let room = buf.len().min(self.max_datagram);
        let (to, len) = loop {
            let (slot, addr) = self.next_peer()?;
            let (cluster, me) = (self.cluster, self.sender());
            let body = |w: &mut Writer<'_>| self.write_frames(slot, w);
            if let Some(len) = packet::seal(&mut buf[..room], cluster, me, body) {
                break (addr, len);
            }
        };
        Some(Transmit { to, payload: &buf[..len] })
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When [`Map::handle_timeout`] is due; `None` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pull = match &self.pulling {
            Some(pulling) => Some(pulling.deadline()),
            None if self.staging.is_some() => None,
            None if !self.shares.is_idle() => self.shares.timeout(),
            None => self.wanted.map(|_| self.pull_after),
        };
        let staging = self.staging.as_ref().map(Staging::deadline);
        let (full, garbage) = (self.sessions.timeout(), self.garbage.timeout());
        let (seals, retiring) = (self.seals.timeout(), self.retiring.timeout());
        let calm = self.announcements.timeout();
        [self.push_at, pull, self.sync_at, staging, full, calm, garbage, seals, retiring]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What [`Checked`](crate::sim::Checked) looks at.
#[cfg(feature = "sim")]
impl Map {
    /// Its settings and the longest datagram it sends.
    pub(crate) const fn limits(&self) -> (&Config, usize) {
        (&self.config, self.max_datagram)
    }

    /// All keys that have a value, with the write whose value is read.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (&[u8], Dot)> {
        self.store.entries().filter_map(|entry| {
            let winner = entry.winner(&self.replicas)?;
            Some((entry.key, self.replicas.dot(winner.dot)))
        })
    }
}

/// Hooks for composition.
impl Map {
    /// Whether the digest of the context takes several datagrams.
    #[cfg(feature = "sim")]
    pub(crate) fn pages(&self) -> bool {
        // Some 100 bytes of headers, and some 18 for each replica.
        self.replicas.in_use() * 18 + 100 > self.max_datagram
    }

    /// This node took another boot epoch; its writes stay.
    pub(crate) fn set_boot(&mut self, boot: u64) {
        self.boot = boot;
    }

    /// Checks a frame, and gathers what the first chunk of a packet names.
    pub(crate) fn check_frame<'p>(
        tag: u8,
        body: &'p [u8],
        skim: &mut Skim<'p>,
    ) -> Result<(), PacketError> {
        wire::check(tag, body, skim)
    }

    /// Applies the map's frames of a packet that was checked.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        sender: Sender,
        mut frames: packet::Frames<'_>,
        skim: &Skim<'_>,
    ) {
        // What a datagram completes of dots that were overwritten costs its sender a few bytes.
        self.may_settle = replica::MAX_SPAN;
        let slot = self.peers.slot(sender.id);
        let of_boot =
            |slot: &u32| self.peers.get(*slot).is_some_and(|peer| peer.boot == sender.boot_epoch);
        let slot = slot.filter(of_boot);
        while let Ok(Some((tag, body))) = frames.next() {
            if !owns(tag) {
                continue;
            }
            if let Some(peer) = slot.and_then(|slot| self.peers.get_mut(slot)) {
                peer.speaks();
                self.heard = slot;
            }
            match (slot, wire::parse(tag, body)) {
                (Some(slot), Ok(wire::Frame::Chunk(chunk))) if skim.is_of(body) => {
                    self.on_chunk(now, slot, &chunk, skim);
                }
                (Some(slot), Ok(frame)) => self.apply_frame(now, slot, frame),
                _ => self.stats.misaddressed += 1,
            }
        }
    }

    pub(crate) fn next_peer(&mut self) -> Option<(u32, SocketAddr)> {
        if self.awaits_disk() {
            return None;
        }
        loop {
            let slot = self.peers.next()?;
            if let Some(peer) = self.peers.get(slot) {
                return Some((slot, peer.addr));
            }
        }
    }

    /// Writes what the peer in `slot` is owed. What does not fit stays owed.
    pub(crate) fn write_frames(&mut self, slot: u32, w: &mut Writer<'_>) {
        self.write_owed(slot, w);
    }

    /// Fills spare room of a datagram to node `id`: the state digest if `state`, and fresh changes.
    pub(crate) fn write_spare(&mut self, id: NodeId, state: bool, w: &mut Writer<'_>) {
        let Some(slot) = self.peers.slot(id).filter(|_| !self.awaits_disk()) else { return };
        if state {
            self.write_state(w);
        }
        self.write_push(slot, w);
    }
}

impl Map {
    fn sender(&self) -> Sender {
        Sender { id: self.replicas.own().node, boot_epoch: self.boot }
    }

    fn forget(&mut self, now: Instant, id: NodeId) {
        let Some(slot) = self.peers.slot(id) else { return };
        self.lose_member(Some(now), slot);
        self.peers.remove(id);
        self.forget_staging(slot);
        self.over.take_if(|(peer, _)| *peer == slot);
        self.sessions.forget(slot);
        self.unpinned(now);
        self.pulling.take_if(|pulling| pulling.peer() == slot);
        self.forget_share(now, slot);
        self.late.take_if(|late| late.peer() == slot);
        self.wanted.take_if(|wanted| *wanted == slot);
        self.catching.take_if(|giver| *giver == slot);
        self.heard.take_if(|heard| *heard == slot);
        self.full.take_if(|full| *full == slot);
    }
}
