//! Membership: who is alive, by probing and gossip.
//!
//! The protocol is SWIM (Das, Gupta, Motivala 2002) with the extensions of Lifeguard (Dadgar,
//! Phillips, Currey 2018): every interval a node probes one member, first directly and, while no
//! answer comes, through helpers; a member that stays silent is suspected, and counts as failed when
//! it did not refute in time. News ride on every datagram. Each node also compares a digest of its
//! table with every peer it talks to and exchanges what differs, so a lost update leaves no hole.
//! A member that answers far worse than others do is held out for a time (after Rapid: Suresh et al. 2018),
//! see [`Config::hold_out`].
//!
//! [`Swim`] stands alone; a [`Node`](crate::Node) composes it with the map.
//!
//! ```
//! use brickwork_core::{Event, Identity, Instant, swim};
//!
//! let now = Instant::ZERO;
//! let node = |name, port, seed| {
//!     let identity = Identity::new(name, ([127, 0, 0, 1], port).into());
//!     swim::Swim::new(now, identity, "docs", swim::Config::lan(), 1400, [seed; 32])
//! };
//! let (mut a, mut b) = (node("a", 1, 1)?, node("b", 2, 2)?);
//! b.join(now, &[a.me().addr()]);
//!
//! // Carry datagrams to and fro until nobody has anything to say.
//! let mut buf = [0; 1400];
//! loop {
//!     if let Some(sent) = a.poll_transmit(&mut buf) {
//!         let len = sent.payload.len();
//!         b.handle_packet(now, a.me().addr(), &mut buf[..len])?;
//!     } else if let Some(sent) = b.poll_transmit(&mut buf) {
//!         let len = sent.payload.len();
//!         a.handle_packet(now, b.me().addr(), &mut buf[..len])?;
//!     } else {
//!         break;
//!     }
//! }
//! assert_eq!(a.members().count(), 2);
//! assert!(matches!(a.poll_event(), Some(Event::Joined { identity }) if identity.name() == "b"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accuse;
mod assay;
mod claim;
mod compose;
mod config;
mod evidence;
mod exchange;
mod gossip;
mod inquiry;
mod intake;
mod join;
mod leave;
mod member;
mod memberlist;
mod outbox;
mod probe;
mod rack;
mod refute;
mod relay;
mod row_wire;
mod spread;
mod standing;
mod standing_wire;
mod stats;
mod suspicion;
mod why;
mod wire;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use smallvec::SmallVec;

pub use accuse::Accusation;
pub use config::{Config, Rules};
pub use member::{Member, State};
pub use stats::Stats;
pub use why::{Held, Probed, Why};
#[cfg(feature = "sim")]
pub(crate) use wire::{is_ping, is_stream};

use crate::config::{ConfigError, check_datagram, check_identity};
use crate::event::{Event, Queue};
use crate::hash::{self, Secret};
use crate::id::{Identity, NodeId};
use crate::rng::Rng;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::timer::Deadlines;
use crate::wire::{self as packet, PacketError, Sender, Writer};
use crate::{MIN_DATAGRAM, Transmit};
use assay::Assayer;
use claim::Claims;
use exchange::Compared;
use gossip::Gossip;
use intake::Origin;
use join::Joiner;
use leave::Leave;
use member::{ME, Table};
use outbox::{Msg, Outbox};
use probe::Prober;
use refute::MOST_ANSWERED;

/// No shorter stall makes this node doubt whom it lists.
const A_MINUTE: Duration = Duration::from_secs(60);

/// The membership state machine of one node.
#[derive(Debug)]
pub struct Swim {
    config: Config,
    max_datagram: usize,
    cluster: u32,
    secret: Secret,
    rng: Rng,
    /// What a graceful leave reveals; the rows of this boot carry the commitment to it.
    preimage: [u8; 16],
    table: Table,
    suspicions: Deadlines,
    gossip: Gossip,
    outbox: Outbox,
    prober: Prober,
    joiner: Joiner,
    claims: Claims,
    leave: Leave,
    /// When dedicated gossip is due; armed while there is something to tell.
    gossip_at: Option<Instant>,
    /// Goes into the fingerprints of the table exchange.
    salt: u32,
    /// When the whole table is exchanged with somebody, by the rules of memberlist.
    push_pull_at: Option<Instant>,
    /// Whom the table exchange asks for members, and until when for nobody else.
    asking: Option<(u32, Instant)>,
    /// Whether tables are to be compared at the next tick of gossip.
    behind: bool,
    compared: Compared,
    /// Until then this node does not refute again, so accusations cannot run its numbers up.
    refute_after: Instant,
    /// An accusation waits for that.
    refute_due: bool,
    /// The highest incarnation of this node that was heard of, and that the next one must exceed.
    refute_above: u32,
    /// How many members were warned that others hold them dead, and until when that counts.
    warned: (Instant, u32),
    /// Until then a refutation does not count against its health again.
    blamed_until: Instant,
    /// Who accuses it, and who told so, since it refuted last.
    refute_to: SmallVec<[u32; MOST_ANSWERED]>,
    assayer: Assayer,
    /// When the inquiry into a member comes to something else.
    holds: Deadlines,
    /// When members were held failed of late.
    failed_at: VecDeque<Instant>,
    /// Until when others hold this node out.
    out_until: Instant,
    /// No other member is left.
    isolated: bool,
    /// The moment of the last input, for [`Swim::poll_transmit`] is told none.
    clock: Instant,
    /// Until then no suspicion runs out: this node was stalled and hears the others first.
    verdicts_after: Instant,
    events: Queue,
    stats: Stats,
}

/// Inputs.
impl Swim {
    /// A node that knows nobody yet.
    ///
    /// `cluster` names the cluster, `max_datagram` bounds what is sent, and `entropy` seeds all
    /// random choices and secrets: it must be unpredictable in production and fixed in a simulation.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a setting or a part of the identity is out of range.
    pub fn new(
        now: Instant,
        identity: Identity,
        cluster: &str,
        config: Config,
        max_datagram: usize,
        entropy: [u8; 32],
    ) -> Result<Self, ConfigError> {
        config.check()?;
        check_datagram(max_datagram)?;
        check_identity(&identity)?;
        let mut rng = Rng::fork(&entropy, 1);
        let secret = Secret::new(&mut rng);
        let preimage = (u128::from(rng.u64()) << 64 | u128::from(rng.u64())).to_le_bytes();
        let places = Rng::fork(&entropy, 3);
        let table = Table::new(Arc::new(identity), hash::commitment(preimage), secret, places);
        let mut swim = Self {
            max_datagram,
            cluster: packet::cluster_tag(cluster),
            secret,
            preimage,
            table,
            suspicions: Deadlines::default(),
            gossip: Gossip::new(),
            outbox: Outbox::default(),
            prober: Prober::new(&mut rng),
            joiner: Joiner::default(),
            claims: Claims::default(),
            leave: Leave::default(),
            gossip_at: None,
            salt: rng.u32(),
            push_pull_at: None,
            asking: None,
            behind: false,
            compared: Compared::default(),
            refute_after: now,
            refute_due: false,
            refute_above: 0,
            warned: (now, 0),
            blamed_until: now,
            refute_to: SmallVec::new(),
            isolated: false,
            assayer: Assayer::default(),
            holds: Deadlines::default(),
            failed_at: VecDeque::new(),
            out_until: now,
            clock: now,
            verdicts_after: now,
            events: Queue::new(config.max_events),
            stats: Stats::default(),
            rng,
            config,
        };
        swim.table.row_mut(ME).since = now;
        swim.tell(now, ME);
        Ok(swim)
    }

    /// Takes a datagram that arrived from `from`. The packet may be altered in place.
    ///
    /// # Errors
    ///
    /// [`PacketError`] if the packet is not a correct one of this cluster; the state is untouched.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        let (sender, frames) = packet::open(packet, self.cluster)?;
        self.check_sender(sender)?;
        let mut check = frames;
        while let Some((tag, body)) = check.next()? {
            Self::check_frame(tag, body)?;
        }
        self.apply(now, from, sender, frames);
        Ok(())
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_silent() {
            return;
        }
        self.keep_time(now);
        while let Some(slot) = self.table.expire(now) {
            self.forgotten(slot);
        }
        self.fire_refutation(now);
        self.fire_probe(now);
        self.fire_suspicions(now);
        self.fire_holds(now);
        // A member confirmed failed may have been the one under probe: the schedule goes on at once.
        self.fire_probe(now);
        self.fire_assay(now);
        self.fire_join(now);
        self.fire_claims(now);
        self.fire_leave(now);
        if self.is_silent() {
            return;
        }
        self.fire_gossip(now);
        self.fire_push_pull(now);
    }

    /// Asks the nodes at `seeds` to let this one in, again and again until one does. Seeds are kept:
    /// if all members are lost, this node knocks there.
    ///
    /// At most 64 seeds are kept; its own address and duplicates are dropped.
    pub fn join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        self.start_join(now, seeds);
    }

    /// Says goodbye. The node goes on answering until [`Event::LeaveFinished`]; after it, it is silent.
    pub fn leave(&mut self, now: Instant) {
        self.start_leave(now);
    }

    /// Tells the members new application metadata.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TooLong`] above [`MAX_META`](crate::MAX_META) bytes.
    pub fn set_meta(&mut self, now: Instant, meta: Vec<u8>) -> Result<(), ConfigError> {
        let identity = Identity::clone(&self.table.me().identity).with_meta(meta);
        check_identity(&identity)?;
        self.set_identity(now, identity);
        Ok(())
    }

    /// Tells the members another weight, see [`Identity::with_weight`]. A lone `Swim` has no keys to own: this is for those that choose
    /// owners by what members tell.
    pub fn set_weight(&mut self, now: Instant, weight: u16) {
        let identity = Identity::clone(&self.table.me().identity).with_weight(weight);
        self.set_identity(now, identity);
    }

    fn set_identity(&mut self, now: Instant, identity: Identity) {
        let version = self.table.me().version + 1;
        self.table.set_identity(ME, Arc::new(identity), version);
        self.tell(now, ME);
    }
}

/// Outputs.
impl Swim {
    /// Writes the next datagram that this node owes into `buf`; `None` when it owes nothing.
    ///
    /// # Panics
    ///
    /// If `buf` is shorter than [`MIN_DATAGRAM`].
    pub fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        assert!(buf.len() >= MIN_DATAGRAM, "buffer of {} bytes", buf.len());
        let room = buf.len().min(self.max_datagram);
        let (to, len) = loop {
            let peer = self.next_peer()?;
            let (cluster, me) = (self.cluster, self.sender());
            let body = |w: &mut Writer<'_>| {
                self.write_frames(&peer, w);
            };
            if let Some(len) = packet::seal(&mut buf[..room], cluster, me, body) {
                break (peer.addr, len);
            }
        };
        Some(Transmit { to, payload: &buf[..len] })
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When [`Swim::handle_timeout`] is due; `None` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_silent() {
            return None;
        }
        let mut first = Instant::MAX;
        let mut or = |at: Option<Instant>| first = first.min(at.unwrap_or(Instant::MAX));
        or(self.prober.next());
        or(self.assayer.next());
        or(self.next_hold());
        or(self.suspicions.next().map(|at| match self.verdicts_after {
            _ if sabotaged!("verdict-timer-early") => at,
            after => at.max(after),
        }));
        or(self.joiner.next());
        or(self.claims.next());
        or(self.leave.next());
        or(self.gossip_at);
        or(self.push_pull_at);
        or(self.refute_due.then_some(self.refute_after));
        or(self.table.next_expiry());
        (first < Instant::MAX).then_some(first)
    }
}

/// Views.
impl Swim {
    /// This node itself.
    #[must_use]
    pub fn me(&self) -> &Member {
        self.table.me()
    }

    /// The live members, this node first (unless it left); the others in no particular order.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let me = Some(self.table.me()).filter(|me| me.is_live());
        me.into_iter().chain(self.table.live().iter().map(|&slot| self.table.member(slot)))
    }

    /// The members that failed or left and are still remembered, in no particular order.
    pub fn former_members(&self) -> impl Iterator<Item = &Member> {
        self.table.gone().iter().map(|&slot| self.table.member(slot))
    }

    /// The member of that id, dead and left ones included while they are remembered.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.table.slot(id).map(|slot| self.table.member(slot))
    }

    /// How many live members there are, this node included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.live().len() + usize::from(self.table.me().is_live())
    }

    /// Whether there is no live member at all, which is so only after a leave.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lifeguard's local health score: 0 is healthy, higher means that this node is the slow one.
    #[must_use]
    pub fn local_health(&self) -> u32 {
        self.prober.health
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// What simulations look at, and share.
#[cfg(feature = "sim")]
impl Swim {
    /// Its settings and the longest datagram it sends.
    pub(crate) const fn limits(&self) -> (&Config, usize) {
        (&self.config, self.max_datagram)
    }

    /// Whether it is open of a member how it answers, or remembered.
    #[cfg(feature = "sim")]
    pub(crate) fn inquires(&self) -> bool {
        self.holds.next().is_some()
    }

    /// Whether a member is held out.
    pub(crate) fn is_held_out(&self, id: NodeId) -> bool {
        self.table.slot(id).is_some_and(|slot| self.table.member(slot).held)
    }

    /// Holds `identity` in common with whoever else has it, if that is what is known here too.
    pub(crate) fn share(&mut self, identity: &Arc<Identity>) {
        self.table.share(identity);
    }
}

/// A destination taken from the ready ring.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// The member's id; `None` for an address that is not a member's.
    pub(crate) id: Option<NodeId>,
    slot: Option<u32>,
    msgs: SmallVec<[Msg; 2]>,
}

/// Hooks for composition.
impl Swim {
    pub(crate) fn sender(&self) -> Sender {
        let me = &self.table.me().identity;
        Sender { id: me.id(), boot_epoch: me.boot_epoch() }
    }

    pub(crate) fn check_sender(&self, sender: Sender) -> Result<(), PacketError> {
        if sender == self.sender() { Err(PacketError::OwnPacket) } else { Ok(()) }
    }

    pub(crate) fn check_frame(tag: u8, body: &[u8]) -> Result<(), PacketError> {
        wire::parse(tag, body).map(drop)
    }

    pub(crate) fn next_peer(&mut self) -> Option<Peer> {
        if let Some((addr, msgs)) = self.outbox.next_stranger() {
            return Some(Peer { addr, id: None, slot: None, msgs });
        }
        loop {
            let slot = self.outbox.next()?;
            if let Some(row) = self.table.try_row(slot) {
                let (addr, id) = (row.member.addr(), Some(row.member.id()));
                return Some(Peer { addr, id, slot: Some(slot), msgs: <_>::default() });
            }
        }
    }
}

impl Swim {
    /// Whether this node is out of the cluster for good: it left, or another live node bears its name.
    pub(crate) const fn is_silent(&self) -> bool {
        self.leave.finished || self.joiner.conflicted
    }

    /// Notes the time of an input. Whom a node lists that stood still for longer than the gone are remembered may be long gone,
    /// and who has forgotten that would take them for new: it tells of those alone of whom it has heard since.
    fn keep_time(&mut self, now: Instant) {
        let stood_still = now.since(self.clock);
        self.clock = now;
        if stood_still < A_MINUTE {
            return;
        }
        // A node that probes seldom is not asleep in between.
        let quiet = self.config.probe_interval * 2 * (self.config.max_local_health + 1);
        let long = self.config.tombstone_age.max(quiet);
        if stood_still >= long && !self.is_memberlist() {
            self.table.doubt();
            // Answers of before are in the socket still.
            self.prober.forget_probes();
        }
    }

    /// A slot was freed.
    fn forgotten(&mut self, slot: u32) {
        self.void_probes(slot);
        self.holds.clear(slot);
        self.gossip.remove(slot);
        self.outbox.forget(slot);
    }

    /// A duration of the probe schedule, stretched by the local health score.
    fn stretched(&self, d: Duration) -> Duration {
        d * (self.prober.health + 1)
    }
}
