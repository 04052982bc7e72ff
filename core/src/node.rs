//! The composition: one node of the cluster.

mod views;

#[cfg(feature = "sim")]
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::config::{Config, ConfigError};
use crate::event::{Event, Queue};
use crate::id::{Identity, NodeId};
use crate::map::{self, Context, Dot, InsertError, LogWrite, Map, ReplicaId, RestoreError};
use crate::sabotage::sabotaged;
use crate::stats::Stats;
use crate::swim::{self, Member, Swim};
use crate::time::{Instant, Steady};
use crate::tracked::Tracked;
use crate::wire::{self, MIN_DATAGRAM, PacketError, Sender, Writer};

/// A datagram to send: the first `payload.len()` bytes of the buffer that was polled into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transmit<'b> {
    /// Where to.
    pub to: SocketAddr,
    /// Its bytes.
    pub payload: &'b [u8],
}

/// One node: membership, ownership and the map behind three inputs and three polls.
///
/// Inputs take `now`: [`handle_packet`](Self::handle_packet), [`handle_timeout`](Self::handle_timeout)
/// and the wishes ([`join`](Self::join), [`insert`](Self::insert), …). Outputs take none and may be
/// polled in any order: [`poll_transmit`](Self::poll_transmit), [`poll_event`](Self::poll_event),
/// [`poll_timeout`](Self::poll_timeout). The crate's first page shows a loop that drives one.
#[derive(Debug)]
pub struct Node {
    cluster: u32,
    max_datagram: usize,
    swim: Swim,
    map: Map,
    tracked: Tracked,
    events: Queue,
    stats: Stats,
    /// The datagram that the last poll began with, so that membership and the map take turns.
    map_first: bool,
    clock: Steady,
}

/// What simulations share.
#[cfg(feature = "sim")]
impl Node {
    /// Holds `identity` in common with whoever else has it, if that is what is known here too.
    pub(crate) fn share(&mut self, identity: &Arc<Identity>) {
        self.swim.share(identity);
    }
}

/// Inputs.
impl Node {
    /// A node that knows nobody yet.
    ///
    /// `entropy` seeds all its random choices and secrets: it must be unpredictable in production and
    /// fixed in a simulation.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a setting or a part of the identity is out of range.
    pub fn new(
        now: Instant,
        identity: Identity,
        config: Config,
        entropy: [u8; 32],
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let Config { cluster, max_datagram, max_events, swim, map, ownership } = config;
        // A start without the old map is a new replica, and boot epochs are never used twice.
        let life = if sabotaged!("life-reused") { 1 } else { identity.boot_epoch() };
        let replica = ReplicaId::new(identity.id(), life);
        let swim = Swim::new(now, identity, &cluster, swim, max_datagram, entropy)?;
        let tracked = Tracked::new(swim.me(), ownership)?;
        Ok(Self {
            cluster: wire::cluster_tag(&cluster),
            max_datagram,
            swim,
            map: Map::new(now, replica, &cluster, map, max_datagram, entropy)?,
            tracked,
            events: Queue::new(max_events),
            stats: Stats::default(),
            map_first: false,
            clock: Steady::new(now),
        })
    }

    /// Takes a datagram that arrived from `from`. The packet may be altered in place.
    ///
    /// # Errors
    ///
    /// [`PacketError`] if the packet is not a correct one of this cluster. It is counted in
    /// [`Stats::refused`] and otherwise as if it had never arrived; drivers go on.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        self.stats.bytes_received += packet.len() as u64;
        let result = self.check_and_apply(now, from, packet);
        match result {
            Ok(()) => self.stats.datagrams_received += 1,
            Err(error) => self.stats.refused.count(error),
        }
        result
    }

    /// Fires the timers that are due. Calling it early or again is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.pass(now);
        if self.swim.is_silent() {
            return;
        }
        self.swim.handle_timeout(now);
        // A peer that is gone now may be the one that a pull waits for.
        self.drain_swim(now);
        self.map.handle_timeout(now);
        self.settle(now);
    }

    /// Asks the nodes at `seeds` to let this one in, again and again until one does. Seeds are kept
    /// (at most 64): if all members are lost, this node knocks there.
    pub fn join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        let now = self.clock.pass(now);
        self.swim.join(now, seeds);
        self.settle(now);
    }

    /// Says goodbye: owns nothing from now on, which [`Event::Lost`] tells of each key, answers until [`Event::LeaveFinished`], and is silent
    /// after it.
    pub fn leave(&mut self, now: Instant) {
        let now = self.clock.pass(now);
        self.swim.leave(now);
        self.tracked.leave(self.id());
        self.settle(now);
    }

    /// Tells the members new application metadata.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TooLong`] above [`MAX_META`](crate::MAX_META) bytes.
    pub fn set_meta(&mut self, now: Instant, meta: Vec<u8>) -> Result<(), ConfigError> {
        let now = self.clock.pass(now);
        self.swim.set_meta(now, meta)?;
        self.settle(now);
        Ok(())
    }

    /// Tells the members another weight, and owns as much from now on: see [`Identity::with_weight`]. With weight 0 this node
    /// is drained: it owns nothing any more, and goes on as a member. The others go by the old weight until they hear of it.
    ///
    /// ```
    /// # use brickwork_core::{Config, Event, Identity, Instant, Node};
    /// # let (now, addr) = (Instant::ZERO, ([127, 0, 0, 1], 7000).into());
    /// let mut node = Node::new(now, Identity::new("a", addr), Config::lan(), [7; 32])?;
    /// node.track(now, b"origin-17");
    /// assert!(node.is_mine(b"origin-17"));
    /// node.set_weight(now, 0);
    /// assert_eq!((node.owner(b"origin-17"), node.members().count()), (None, 1));
    /// # Ok::<(), brickwork_core::ConfigError>(())
    /// ```
    pub fn set_weight(&mut self, now: Instant, weight: u16) {
        let now = self.clock.pass(now);
        self.swim.set_weight(now, weight);
        self.tracked.update(self.swim.me());
        self.settle(now);
    }

    /// Follows who owns `key`, whether the map has it or not: [`Event::Gained`] tells when this node does, and [`Event::Lost`] when it
    /// does no more. A member that joins or goes costs a look at each tracked key, and a score of all members for each that
    /// changes hands. Returns whether it was not tracked before. How many are tracked is for the program to
    /// bound.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 keys.
    ///
    /// ```
    /// # use brickwork_core::{Config, Event, Identity, Instant, Node};
    /// # let (now, addr) = (Instant::ZERO, ([127, 0, 0, 1], 7000).into());
    /// let mut node = Node::new(now, Identity::new("a", addr), Config::lan(), [7; 32])?;
    /// assert!(node.track(now, b"origin-17"));
    /// let Some(Event::Gained { key }) = node.poll_event() else { panic!("a lone node owns all") };
    /// assert!(&*key == b"origin-17" && node.is_mine(b"origin-17"));
    /// # Ok::<(), brickwork_core::ConfigError>(())
    /// ```
    pub fn track(&mut self, now: Instant, key: &[u8]) -> bool {
        let now = self.clock.pass(now);
        let is_new = self.tracked.track(key);
        self.settle(now);
        is_new
    }

    /// Follows a key no more; nothing is told of it from now on. Returns whether it was tracked.
    pub fn untrack(&mut self, now: Instant, key: &[u8]) -> bool {
        let now = self.clock.pass(now);
        let was_there = self.tracked.untrack(key);
        self.settle(now);
        was_there
    }

    /// Writes `value` under `key`; see [`Map::insert`].
    ///
    /// # Errors
    ///
    /// [`InsertError`] names the limit that the write would break.
    pub fn insert(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<Dot, InsertError> {
        let now = self.clock.pass(now);
        let result = self.map.insert(now, key, value);
        self.settle(now);
        result
    }

    /// Removes what this node has seen of `key`; see [`Map::remove`].
    ///
    /// # Errors
    ///
    /// [`InsertError`]: a removal is a write, and needs room for its mark.
    pub fn remove(&mut self, now: Instant, key: &[u8]) -> Result<bool, InsertError> {
        let now = self.clock.pass(now);
        let result = self.map.remove(now, key);
        self.settle(now);
        result
    }

    /// Writes `value`, or removes for `None`, superseding exactly the siblings in `context`; see
    /// [`Map::resolve`].
    ///
    /// # Errors
    ///
    /// [`InsertError`] names the limit that the write would break.
    pub fn resolve(
        &mut self,
        now: Instant,
        key: &[u8],
        context: &Context,
        value: Option<&[u8]>,
    ) -> Result<Option<Dot>, InsertError> {
        let now = self.clock.pass(now);
        let result = self.map.resolve(now, key, context, value);
        self.settle(now);
        result
    }
}

/// Inputs and outputs of nodes that keep their map on disk.
impl Node {
    /// Makes the empty map know what a snapshot and the log after it tell; see [`Map::restore`]. To be called before
    /// this node knows anybody.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]; the map is as empty as before.
    pub fn restore<C: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        chunks: impl IntoIterator<Item = C>,
    ) -> Result<(), RestoreError> {
        let now = self.clock.pass(now);
        self.map.restore(now, chunks)
    }

    /// As [`restore`](Self::restore), and the map goes on as the replica that it was; see [`Map::resume`].
    ///
    /// # Errors
    ///
    /// [`RestoreError`]; the map is as empty as before.
    pub fn resume<C: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        chunks: impl IntoIterator<Item = C>,
    ) -> Result<(), RestoreError> {
        let now = self.clock.pass(now);
        self.map.resume(now, chunks)
    }

    /// From now on what this node writes to the map leaves it only when it is durable; see [`Map::start_log`].
    /// Membership does not wait for the disk.
    pub fn start_log(&mut self) {
        self.map.start_log();
    }

    /// What is to be written to disk next; see [`Map::poll_log`].
    pub fn poll_log(&mut self) -> Option<LogWrite> {
        self.map.poll_log()
    }

    /// Everything up to the write of this ticket is durable; see [`Map::log_synced`].
    pub fn log_synced(&mut self, now: Instant, ticket: u64) {
        let now = self.clock.pass(now);
        self.map.log_synced(now, ticket);
        self.settle(now);
    }
}

/// Outputs.
impl Node {
    /// Writes the next datagram that this node owes into `buf`, or returns `None` when it owes nothing.
    ///
    /// The datagram is composed now, not when the need arose, so it carries the newest gossip and map
    /// changes for its destination. Leaving it uncollected costs nothing: what is owed is kept as one
    /// mark per peer, and marks merge.
    ///
    /// # Panics
    ///
    /// If `buf` is shorter than [`MIN_DATAGRAM`].
    ///
    /// ```
    /// # use brickwork_core::{Config, Identity, Instant, Node};
    /// # let addr = ([127, 0, 0, 1], 7000).into();
    /// let mut node = Node::new(Instant::ZERO, Identity::new("a", addr), Config::lan(), [7; 32])?;
    /// let mut buf = [0; 1400];
    /// assert!(node.poll_transmit(&mut buf).is_none(), "a lone node has nobody to talk to");
    /// # Ok::<(), brickwork_core::ConfigError>(())
    /// ```
    pub fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        assert!(buf.len() >= MIN_DATAGRAM, "buffer of {} bytes", buf.len());
        let most = if sabotaged!("datagram-too-large") { usize::MAX } else { self.max_datagram };
        let room = buf.len().min(most);
        // Probes must not wait behind a bulk transfer, nor the transfer behind them: take turns.
        self.map_first = !self.map_first;
        let turns = [self.map_first, !self.map_first];
        let sent = turns.into_iter().find_map(|map| {
            if map {
                self.transmit_map(&mut buf[..room])
            } else {
                self.transmit_swim(&mut buf[..room])
            }
        });
        let (to, len) = sent?;
        self.stats.datagrams_sent += 1;
        self.stats.bytes_sent += len as u64;
        Some(Transmit { to, payload: &buf[..len] })
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // A node that is out of the cluster has no timers at all.
        let swim = self.swim.poll_timeout();
        if self.swim.is_silent() {
            None
        } else {
            let others = self.map.poll_timeout().into_iter().chain(self.tracked.timeout());
            let due = swim.into_iter().chain(others).min();
            due.map(|due| self.clock.when(due))
        }
    }
}

impl Node {
    fn check_and_apply(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &[u8],
    ) -> Result<(), PacketError> {
        let mut skim = map::Skim::default();
        let (sender, frames) = Self::check(packet, self.cluster, &mut skim)?;
        self.swim.check_sender(sender)?;
        // Only now: a refused packet is not even a witness of the time.
        let now = self.clock.pass(now);
        self.swim.apply(now, from, sender, frames);
        // Membership first: what the packet tells about its sender decides whether it is a peer.
        self.drain_swim(now);
        if !self.swim.is_silent() {
            self.map.apply(now, sender, frames, &skim);
        }
        self.settle(now);
        Ok(())
    }

    /// Whether a packet is a correct one of that cluster, to its last byte, and if not, why.
    #[cfg(feature = "sim")]
    pub(crate) fn judge(packet: &[u8], cluster: u32) -> Result<(), PacketError> {
        Self::check(packet, cluster, &mut map::Skim::default()).map(drop)
    }

    /// The same, with what its first chunk names.
    fn check<'p>(
        packet: &'p [u8],
        cluster: u32,
        skim: &mut map::Skim<'p>,
    ) -> Result<(Sender, wire::Frames<'p>), PacketError> {
        let (sender, frames) = wire::open(packet, cluster)?;
        let mut check = frames;
        while let Some((tag, body)) = check.next()? {
            if map::owns(tag) {
                Map::check_frame(tag, body, skim)?;
            } else {
                Swim::check_frame(tag, body)?;
            }
        }
        Ok((sender, frames))
    }

    /// Brings the view and the map's peers in step with membership, and queues all events for the
    /// application: membership's first, so that an owner is known before its values.
    fn settle(&mut self, now: Instant) {
        self.drain_swim(now);
        self.tracked.settle(now, &mut self.events);
        while let Some(event) = self.map.poll_event() {
            self.events.push(event);
        }
    }

    fn drain_swim(&mut self, now: Instant) {
        while let Some(event) = self.swim.poll_event() {
            match &event {
                Event::Joined { identity } | Event::Restarted { identity, .. } => {
                    self.follow(identity.id());
                    self.map.peer_up(now, identity.id(), identity.boot_epoch(), identity.addr());
                }
                Event::Updated { identity } => {
                    self.follow(identity.id());
                    self.map.peer_moved(identity.id(), identity.addr());
                }
                Event::Failed { id } | Event::Left { id } => {
                    if !sabotaged!("view-keeps-the-failed") {
                        self.tracked.leave(*id);
                    }
                    self.map.peer_down(now, *id);
                }
                Event::Missed { .. } => self.rebuild(now),
                Event::Suspected { id, .. } | Event::Recovered { id } => self.follow(*id),
                Event::Conflict { .. }
                | Event::HeldOut { .. }
                | Event::Isolated
                | Event::Rejoined
                | Event::LeaveFinished { .. }
                | Event::Changed { .. }
                | Event::Diverged { .. }
                | Event::Gained { .. }
                | Event::Lost { .. }
                | Event::WrittenAnew { .. }
                | Event::Full => {}
            }
            self.events.push(event);
        }
        let boot = self.swim.me().identity().boot_epoch();
        self.map.set_boot(boot);
    }

    /// Owners are chosen among what members are now: what became of one since an event is told by another event.
    fn follow(&mut self, id: NodeId) {
        if let Some(member) = self.swim.member(id) {
            self.tracked.update(member);
        }
    }

    /// More membership events than the queue holds came at once: start over from the member list.
    fn rebuild(&mut self, now: Instant) {
        let me = self.id();
        let former = self.swim.former_members().map(Member::id);
        let before: Vec<_> = self.view().nodes().iter().copied().chain(former).collect();
        self.tracked.rebuild(&self.swim);
        for id in before {
            let live = self.swim.member(id).is_some_and(Member::is_live);
            if !live {
                self.map.peer_down(now, id);
            }
        }
        for member in self.swim.members().filter(|member| member.id() != me) {
            let identity = member.identity();
            self.map.peer_up(now, identity.id(), identity.boot_epoch(), identity.addr());
        }
    }

    fn transmit_swim(&mut self, buf: &mut [u8]) -> Option<(SocketAddr, usize)> {
        loop {
            let peer = self.swim.next_peer()?;
            let (cluster, me) = (self.cluster, self.swim.sender());
            let len = wire::seal(buf, cluster, me, |w: &mut Writer<'_>| {
                let probing = self.swim.write_frames(&peer, w);
                // Spare room of a datagram that leaves anyway carries the map's news.
                if let Some(id) =
                    peer.id.filter(|_| !w.is_fresh() && !sabotaged!("all-must-answer"))
                {
                    self.map.write_spare(id, probing, w);
                }
            });
            if let Some(len) = len {
                return Some((peer.addr, len));
            }
        }
    }

    fn transmit_map(&mut self, buf: &mut [u8]) -> Option<(SocketAddr, usize)> {
        let suspect = |member: &Member| member.state() == swim::State::Suspect;
        let waits = sabotaged!("all-must-answer") && self.members().any(suspect);
        if self.swim.is_silent() || waits {
            return None;
        }
        loop {
            let (slot, addr) = self.map.next_peer()?;
            let (cluster, me) = (self.cluster, self.swim.sender());
            let len = wire::seal(buf, cluster, me, |w: &mut Writer<'_>| {
                self.map.write_frames(slot, w);
                if w.is_fresh() {
                    return;
                }
                // A newcomer would drop what the map tells if that overtakes the answer to its join, and who was apart from this
                // node holds it dead.
                if self.map.silent(slot).is_some_and(|id| self.swim.may_miss_me(id)) {
                    self.swim.write_self(w);
                }
                self.swim.write_gossip(w);
            });
            if let Some(len) = len {
                return Some((addr, len));
            }
        }
    }
}
