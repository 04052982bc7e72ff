//! A node whose promises are asserted on every call.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::map::{Context, Dot, InsertError};
use crate::{Config, ConfigError, Event, Identity, Instant, Node, NodeId, PacketError, Transmit};

/// How many members a list may have to be compared with its events after every input; with more, the
/// comparison is made once in as many inputs as keeps its cost per input the same.
const SMALL: usize = 32;

/// A [`Node`] that asserts, on every call, what the core promises its embedder: use it in place of the
/// node in tests of your own loop.
///
/// Asserted are progress, purity, bounds, whole refusals, and that the events, applied to the first
/// list of members, give the present one.
///
/// # Panics
///
/// Every method, if the node breaks a promise.
///
/// ```
/// use brickwork_core::sim::Checked;
/// use brickwork_core::{Config, Identity, Instant};
///
/// let addr = ([127, 0, 0, 1], 7000).into();
/// let mut node = Checked::new(Instant::ZERO, Identity::new("a", addr), Config::lan(), [7; 32])?;
/// node.insert(Instant::ZERO, b"origin-17", b"up").unwrap();
/// assert_eq!(node.node().get(b"origin-17"), Some(&b"up"[..]));
/// # Ok::<(), brickwork_core::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Checked {
    node: Node,
    config: Config,
    /// The members as the events tell them, with their boot epochs.
    folded: BTreeMap<NodeId, u64>,
    /// The application did not take events in time: nothing is known until it has looked at the list.
    lagging: bool,
    inputs: usize,
}

/// What a refused datagram must leave as it was.
#[derive(Debug, PartialEq, Eq)]
struct Print {
    deadline: Option<Instant>,
    members: usize,
    map: (u64, u64),
    keys: usize,
    applied: u64,
}

impl Checked {
    /// As [`Node::new`].
    ///
    /// # Errors
    ///
    /// Those of [`Node::new`].
    pub fn new(
        now: Instant,
        identity: Identity,
        config: Config,
        entropy: [u8; 32],
    ) -> Result<Self, ConfigError> {
        let node = Node::new(now, identity, config.clone(), entropy)?;
        let folded = BTreeMap::from([(node.id(), node.identity().boot_epoch)]);
        Ok(Self { node, config, folded, lagging: false, inputs: 0 })
    }

    /// The node, to look at.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// As [`Node::handle_packet`]; a refused datagram leaves no trace but its counter.
    ///
    /// # Errors
    ///
    /// Those of [`Node::handle_packet`].
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        let before = self.print();
        let refused = self.node.stats().refused.total();
        let result = self.node.handle_packet(now, from, packet);
        let counted = self.node.stats().refused.total() - refused;
        assert_eq!(counted, u64::from(result.is_err()), "a refusal is counted once: {result:?}");
        if result.is_err() {
            assert_eq!(self.print(), before, "{result:?} left a trace");
        }
        self.after_input();
        result
    }

    /// As [`Node::handle_timeout`]; the next deadline is later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
        let next = self.node.poll_timeout();
        assert!(next.is_none_or(|next| next > now), "no progress: {next:?} after {now:?}");
        self.after_input();
    }

    /// As [`Node::join`].
    pub fn join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        self.node.join(now, seeds);
        self.after_input();
    }

    /// As [`Node::leave`].
    pub fn leave(&mut self, now: Instant) {
        self.node.leave(now);
        self.after_input();
    }

    /// As [`Node::insert`].
    ///
    /// # Errors
    ///
    /// Those of [`Node::insert`].
    pub fn insert(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<Dot, InsertError> {
        let before = self.node.map().digest();
        let result = self.node.insert(now, key, value);
        match &result {
            Ok(_) => assert_eq!(self.node.get(key), Some(value), "a write is read back"),
            Err(error) => assert_eq!(self.node.map().digest(), before, "{error} left a trace"),
        }
        self.after_input();
        result
    }

    /// As [`Node::remove`].
    ///
    /// # Errors
    ///
    /// Those of [`Node::remove`].
    pub fn remove(&mut self, now: Instant, key: &[u8]) -> Result<bool, InsertError> {
        let before = self.node.siblings(key).count();
        let result = self.node.remove(now, key);
        if let Ok(removed) = result {
            assert_eq!(removed, before > 0, "whether there was a value");
            assert_eq!(self.node.get(key), None, "what was removed is gone");
        }
        self.after_input();
        result
    }

    /// As [`Node::resolve`].
    ///
    /// # Errors
    ///
    /// Those of [`Node::resolve`].
    pub fn resolve(
        &mut self,
        now: Instant,
        key: &[u8],
        context: &Context,
        value: Option<&[u8]>,
    ) -> Result<Option<Dot>, InsertError> {
        let result = self.node.resolve(now, key, context, value);
        self.after_input();
        result
    }

    /// As [`Node::poll_transmit`]; it moves no deadline and keeps to buffer and configuration.
    pub fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        let due = self.node.poll_timeout();
        let room = buf.len().min(self.config.max_datagram);
        let sent = self.node.poll_transmit(buf);
        assert_eq!(self.node.poll_timeout(), due, "sending moves no deadline");
        if let Some(sent) = &sent {
            assert!(sent.payload.len() <= room, "{} bytes into {room}", sent.payload.len());
        }
        sent
    }

    /// As [`Node::poll_event`].
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.node.poll_event();
        match &event {
            Some(event) => self.fold(event),
            None if self.lagging => {
                // The queue is empty: from here on the list as it is now is what events apply to.
                self.folded = list(&self.node).collect();
                self.lagging = false;
            }
            None => self.compare(),
        }
        event
    }

    /// As [`Node::poll_timeout`]; asking twice gives the same.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.node.poll_timeout();
        assert_eq!(self.node.poll_timeout(), due, "asking changes nothing");
        due
    }

    fn after_input(&mut self) {
        self.inputs += 1;
        if !self.node.swim().me().is_live() {
            // A leaver is out of its own list at once, without an event to itself.
            self.folded.remove(&self.node.id());
        } else if let Some(boot) = self.folded.get_mut(&self.node.id()) {
            // Nor is there one when it adopts a higher boot epoch in the join handshake.
            *boot = self.node.identity().boot_epoch;
        }
        let (swim, map) = (&self.config.swim, &self.config.map);
        let health = self.node.swim().local_health();
        assert!(health <= swim.max_local_health, "local health of {health}");
        assert!(self.node.map().len() <= map.max_keys, "{} keys", self.node.map().len());
        assert!(self.node.map().bytes() <= map.max_bytes, "{} bytes", self.node.map().bytes());
        if self.is_turn() {
            let known = self.node.members().count() + self.node.former_members().count();
            assert!(known <= swim.max_members.max(1), "{known} members are known");
        }
    }

    /// Whether something that costs as much as the list is long is due.
    fn is_turn(&self) -> bool {
        let every = self.folded.len() / SMALL + 1;
        self.inputs.is_multiple_of(every)
    }

    fn fold(&mut self, event: &Event) {
        if let Event::Missed { .. } = event {
            self.lagging = true;
        }
        if self.lagging {
            return;
        }
        let list = &mut self.folded;
        match event {
            Event::Joined { identity } => {
                let old = list.insert(identity.id, identity.boot_epoch);
                assert_eq!(old, None, "{} joined twice", identity.name);
            }
            Event::Restarted { old_epoch, identity } => {
                let old = list.insert(identity.id, identity.boot_epoch);
                assert_eq!(old, Some(*old_epoch), "{} restarted from nowhere", identity.name);
            }
            Event::Updated { identity } => {
                assert!(
                    list.contains_key(&identity.id),
                    "{} is updated and no member",
                    identity.name
                );
            }
            Event::Failed { id } | Event::Left { id } => {
                assert!(list.remove(id).is_some(), "{id} is gone twice");
            }
            Event::Suspected { id, .. } | Event::Recovered { id } => {
                assert!(list.contains_key(id), "{id} is suspected or cleared and no member");
            }
            Event::Conflict { .. }
            | Event::LeaveFinished { .. }
            | Event::Changed { .. }
            | Event::Full
            | Event::Missed { .. } => {}
        }
    }

    /// All events are taken: they must add up to the list.
    fn compare(&self) {
        if self.is_turn() {
            let now: Vec<_> = {
                let mut now: Vec<_> = list(&self.node).collect();
                now.sort_unstable();
                now
            };
            let folded: Vec<_> = self.folded.iter().map(|(id, boot)| (*id, *boot)).collect();
            assert_eq!(folded, now, "the events do not add up to the list");
        }
    }

    fn print(&self) -> Print {
        let stats = self.node.stats();
        Print {
            deadline: self.node.poll_timeout(),
            members: self.node.swim().len(),
            map: self.node.map().digest(),
            keys: self.node.map().len(),
            applied: stats.datagrams_received,
        }
    }
}

/// The live members with their boot epochs.
fn list(node: &Node) -> impl Iterator<Item = (NodeId, u64)> {
    node.members().map(|member| (member.id(), member.identity().boot_epoch))
}
