//! A state machine whose promises are asserted on every call.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::net::SocketAddr;

use super::machine::{Machine, verbs};
use crate::event::Key;
use crate::map::{self, Context, Dot, InsertError, Map};
use crate::swim::{self, Swim};
use crate::{Config, ConfigError, Event, Identity, Instant, Node, NodeId, PacketError, Transmit};

/// How many members or keys a list may have to be compared with its events after every input.
const SMALL: usize = 32;
/// With more, the comparison is made so seldom that it costs as much per input as this many members do:
/// little next to what a node itself does with an input.
const SHARE: usize = 4;

/// A [`Node`], a lone [`Swim`] or [`Map`], or another [`Machine`], that asserts on every call what the
/// core promises its embedder: use it in place of the machine in tests of your own loop.
///
/// Asserted are progress, purity, bounds, whole refusals, and that the events, applied to the first
/// list of members and of keys, give the present ones.
///
/// # Panics
///
/// Every method, if the machine breaks a promise.
///
/// ```
/// use brickwork_core::sim::Checked;
/// use brickwork_core::swim::{self, Swim};
/// use brickwork_core::{Config, Identity, Instant};
///
/// let identity = Identity::new("a", ([127, 0, 0, 1], 7000).into());
/// let mut node = Checked::new(Instant::ZERO, identity.clone(), Config::lan(), [7; 32])?;
/// node.insert(Instant::ZERO, b"origin-17", b"up").unwrap();
/// assert_eq!(node.node().get(b"origin-17"), Some(&b"up"[..]));
///
/// let swim = Swim::new(Instant::ZERO, identity, "docs", swim::Config::lan(), 1400, [7; 32])?;
/// let mut swim = Checked::of(swim);
/// swim.with(|swim| swim.join(Instant::ZERO, &[([127, 0, 0, 1], 7001).into()]));
/// assert!(swim.poll_transmit(&mut [0; 1400]).is_some());
/// # Ok::<(), brickwork_core::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Checked<M = Node> {
    machine: M,
    /// The members as the events tell them, with their boot epochs.
    members: BTreeMap<NodeId, u64>,
    /// The keys with values as the events tell them, with the writes whose values are read.
    keys: BTreeMap<Key, Dot>,
    /// The keys that are tracked and owned as the events tell them.
    mine: BTreeSet<Key>,
    /// The application did not take events in time: nothing is known until it has looked at the lists.
    lagging: bool,
    inputs: usize,
}

/// What a refused datagram must leave as it was.
#[derive(Debug, PartialEq, Eq)]
struct Print {
    deadline: Option<Instant>,
    members: Option<(usize, usize, u32, swim::Stats)>,
    map: Option<((u64, u64), usize, usize, map::Stats)>,
    applied: Option<u64>,
}

impl Checked<Node> {
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
        Node::new(now, identity, config, entropy).map(Self::of)
    }

    /// The node, to look at.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.machine
    }

    /// Holds `identity` in common with whoever else has it, if that is what is known here too.
    pub(super) fn share(&mut self, identity: &Arc<Identity>) {
        self.machine.share(identity);
    }

    /// As [`Node::join`].
    pub fn join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        self.with(|node| node.join(now, seeds));
    }

    /// As [`Node::leave`].
    pub fn leave(&mut self, now: Instant) {
        self.with(|node| node.leave(now));
    }

    /// As [`Node::set_weight`].
    pub fn set_weight(&mut self, now: Instant, weight: u16) {
        self.with(|node| node.set_weight(now, weight));
    }

    /// As [`Node::track`].
    pub fn track(&mut self, now: Instant, key: &[u8]) -> bool {
        self.with(|node| node.track(now, key))
    }

    /// As [`Node::untrack`].
    pub fn untrack(&mut self, now: Instant, key: &[u8]) -> bool {
        self.mine.remove(&Key::new(key));
        self.with(|node| node.untrack(now, key))
    }

    /// As [`Node::insert`]; the value is read back at once.
    ///
    /// # Errors
    ///
    /// Those of [`Node::insert`].
    pub fn insert(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<Dot, InsertError> {
        self.inserted(key, value, |node| node.insert(now, key, value))
    }

    /// As [`Node::remove`]; there is no value then.
    ///
    /// # Errors
    ///
    /// Those of [`Node::remove`].
    pub fn remove(&mut self, now: Instant, key: &[u8]) -> Result<bool, InsertError> {
        self.removed(key, |node| node.remove(now, key))
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
        self.with(|node| node.resolve(now, key, context, value))
    }
}

impl Checked<Map> {
    /// As [`Map::insert`]; the value is read back at once.
    ///
    /// # Errors
    ///
    /// Those of [`Map::insert`].
    pub fn insert(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<Dot, InsertError> {
        self.inserted(key, value, |map| map.insert(now, key, value))
    }

    /// As [`Map::remove`]; there is no value then.
    ///
    /// # Errors
    ///
    /// Those of [`Map::remove`].
    pub fn remove(&mut self, now: Instant, key: &[u8]) -> Result<bool, InsertError> {
        self.removed(key, |map| map.remove(now, key))
    }
}

impl<M: Machine> Checked<M> {
    /// Watches over `machine` from now on. Its events must have been taken, those of its start too.
    #[must_use]
    pub fn of(machine: M) -> Self {
        let mut checked = Self {
            machine,
            members: BTreeMap::new(),
            keys: BTreeMap::new(),
            mine: BTreeSet::new(),
            lagging: false,
            inputs: 0,
        };
        checked.catch_up();
        checked
    }

    /// The machine, to look at.
    #[must_use]
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// Gives a wish to the machine: whatever it has besides the verbs that all have.
    pub fn with<R>(&mut self, wish: impl FnOnce(&mut M) -> R) -> R {
        let result = wish(&mut self.machine);
        self.after_input();
        result
    }

    /// As [`Machine::handle_packet`]; a refused datagram leaves no trace but its counter.
    ///
    /// # Errors
    ///
    /// Those of [`Machine::handle_packet`].
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        let before = self.print();
        let refused = |machine: &M| machine.counts().map(|(_, refused)| refused);
        let refused_before = refused(&self.machine);
        let result = self.machine.handle_packet(now, from, packet);
        let expected = refused_before.map(|count| count + u64::from(result.is_err()));
        assert_eq!(refused(&self.machine), expected, "a refusal is counted once: {result:?}");
        if result.is_err() {
            assert_eq!(self.print(), before, "{result:?} left a trace");
        }
        self.after_input();
        result
    }

    /// As [`Machine::handle_timeout`]; the next deadline is later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        let next = self.machine.poll_timeout();
        assert!(next.is_none_or(|next| next > now), "OM11: no progress: {next:?} after {now:?}");
        self.after_input();
    }

    /// As [`Machine::poll_transmit`]; it moves no deadline and keeps to buffer and configuration.
    pub fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        let due = self.machine.poll_timeout();
        let most = self.machine.membership().map(|swim| swim.limits().1);
        let most = most.into_iter().chain(self.machine.contents().map(|map| map.limits().1)).max();
        let room = buf.len().min(most.unwrap_or(usize::MAX));
        let sent = self.machine.poll_transmit(buf);
        assert_eq!(self.machine.poll_timeout(), due, "sending moves no deadline");
        if let Some(sent) = &sent {
            assert!(sent.payload.len() <= room, "OM8: {} bytes into {room}", sent.payload.len());
        }
        sent
    }

    /// As [`Machine::poll_event`].
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.machine.poll_event();
        match &event {
            Some(event) => self.fold(event),
            // The queue is empty: from here on the lists as they are now are what events apply to.
            None if self.lagging => self.catch_up(),
            None => self.compare(),
        }
        event
    }

    /// As [`Machine::poll_timeout`]; asking twice gives the same.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.machine.poll_timeout();
        assert_eq!(self.machine.poll_timeout(), due, "asking changes nothing");
        due
    }

    fn inserted(
        &mut self,
        key: &[u8],
        value: &[u8],
        insert: impl FnOnce(&mut M) -> Result<Dot, InsertError>,
    ) -> Result<Dot, InsertError> {
        let before = self.machine.contents().map(Map::digest);
        let result = insert(&mut self.machine);
        let map = self.machine.contents();
        match &result {
            Ok(_) => assert_eq!(map.and_then(|map| map.get(key)), Some(value), "is read back"),
            Err(error) => assert_eq!(map.map(Map::digest), before, "{error} left a trace"),
        }
        self.after_input();
        result
    }

    fn removed(
        &mut self,
        key: &[u8],
        remove: impl FnOnce(&mut M) -> Result<bool, InsertError>,
    ) -> Result<bool, InsertError> {
        let read = |machine: &M| machine.contents().is_some_and(|map| map.get(key).is_some());
        let before = read(&self.machine);
        let result = remove(&mut self.machine);
        if let Ok(removed) = result {
            assert_eq!(removed, before, "whether there was a value");
            assert!(!read(&self.machine), "what was removed is gone");
        }
        self.after_input();
        result
    }

    fn after_input(&mut self) {
        self.inputs += 1;
        if let Some(swim) = self.machine.membership() {
            // Of itself a node tells no events: neither that it leaves nor that it takes another boot.
            let me = swim.me();
            if me.is_live() {
                self.members.insert(me.id(), me.identity().boot_epoch());
            } else {
                self.members.remove(&me.id());
            }
            let (config, _) = swim.limits();
            let health = swim.local_health();
            assert!(health <= config.max_local_health, "OM12: local health of {health}");
            if self.is_turn(self.members.len()) {
                let known = swim.members().count() + swim.former_members().count();
                assert!(known <= config.max_members, "OM13: {known} members are known");
            }
        }
        if let Some(map) = self.machine.contents() {
            let (config, _) = map.limits();
            assert!(map.len() <= config.max_keys, "OM13: {} keys", map.len());
            assert!(map.bytes() <= config.max_bytes, "OM13: {} bytes", map.bytes());
        }
    }

    /// Whether something that costs as much as a list of this length is due.
    const fn is_turn(&self, len: usize) -> bool {
        len <= SMALL || self.inputs.is_multiple_of(len / SHARE)
    }

    fn fold(&mut self, event: &Event) {
        if let Event::Missed { .. } = event {
            self.lagging = true;
        }
        if self.lagging {
            return;
        }
        let me = self.machine.membership().map(|swim| swim.me().id());
        let list = &mut self.members;
        // A node that leaves is not in its own list.
        let others =
            |list: &BTreeMap<NodeId, u64>| list.keys().filter(|id| Some(**id) != me).count();
        match event {
            Event::Joined { identity } => {
                let old = list.insert(identity.id(), identity.boot_epoch());
                assert_eq!(old, None, "OM10: {} joined twice", identity.name());
            }
            Event::Restarted { old_epoch, identity } => {
                let old = list.insert(identity.id(), identity.boot_epoch());
                assert_eq!(
                    old,
                    Some(*old_epoch),
                    "OM10: {} restarted from nowhere",
                    identity.name()
                );
            }
            Event::Updated { identity } => {
                let name = identity.name();
                assert!(list.contains_key(&identity.id()), "OM10: {name} is updated and no member");
            }
            Event::Failed { id } | Event::Left { id } => {
                assert!(list.remove(id).is_some(), "OM10: {id} is gone twice");
            }
            Event::Suspected { id, .. } | Event::Recovered { id } => {
                assert!(list.contains_key(id), "OM10: {id} is suspected or cleared and no member");
            }
            Event::Changed { key, old, new } => {
                let before = match new {
                    Some(new) => self.keys.insert(key.clone(), *new),
                    None => self.keys.remove(key),
                };
                assert_eq!(before, *old, "OM10: another write was read for {key:?} before");
                assert_ne!(before, *new, "OM10: {key:?} did not change");
            }
            Event::Gained { key } => {
                assert!(self.mine.insert(key.clone()), "OM10: {key:?} is gained twice");
            }
            Event::Lost { key } => {
                assert!(self.mine.remove(key), "OM10: {key:?} is lost, and was not gained");
            }
            Event::Isolated => {
                assert_eq!(others(list), 0, "OM10: isolated among others");
            }
            Event::Rejoined => assert!(others(list) > 0, "OM10: nobody is there again"),
            Event::Conflict { .. }
            | Event::HeldOut { .. }
            | Event::WrittenAnew { .. }
            | Event::LeaveFinished { .. }
            | Event::Diverged { .. }
            | Event::Full
            | Event::Missed { .. } => {}
        }
    }

    /// Takes the lists as they are now.
    fn catch_up(&mut self) {
        self.lagging = false;
        self.members = self.machine.membership().map(members).unwrap_or_default();
        self.keys = self.machine.contents().map(keys).unwrap_or_default();
        self.mine = self.machine.mine();
    }

    /// All events are taken: they must add up to the lists.
    fn compare(&self) {
        if self.is_turn(self.members.len())
            && let Some(swim) = self.machine.membership()
        {
            assert_eq!(self.members, members(swim), "OM10: the events do not add up to the list");
            if let Some([shares, follows]) = self.machine.shares() {
                assert_eq!(shares, follows, "OM10: the owners are not those that the list says");
            }
        }
        if self.is_turn(self.keys.len())
            && let Some(map) = self.machine.contents()
        {
            assert_eq!(self.keys, keys(map), "OM10: the events do not add up to the keys");
        }
        if self.is_turn(self.mine.len()) {
            let mine = self.machine.mine();
            assert_eq!(self.mine, mine, "OM10: the events do not add up to what is owned");
        }
    }

    fn print(&self) -> Print {
        let of_swim = |swim: &Swim| {
            let gone = swim.former_members().count();
            (swim.len(), gone, swim.me().incarnation(), *swim.stats())
        };
        let of_map = |map: &Map| (map.digest(), map.len(), map.bytes(), *map.stats());
        Print {
            deadline: self.machine.poll_timeout(),
            members: self.machine.membership().map(of_swim),
            map: self.machine.contents().map(of_map),
            applied: self.machine.counts().map(|(applied, _)| applied),
        }
    }
}

impl<M: Machine> Machine for Checked<M> {
    verbs!();

    fn membership(&self) -> Option<&Swim> {
        self.machine.membership()
    }

    fn contents(&self) -> Option<&Map> {
        self.machine.contents()
    }

    fn counts(&self) -> Option<(u64, u64)> {
        self.machine.counts()
    }
}

/// The live members with their boot epochs.
fn members(swim: &Swim) -> BTreeMap<NodeId, u64> {
    swim.members().map(|member| (member.id(), member.identity().boot_epoch())).collect()
}

/// The keys that have a value, with the write whose value is read.
fn keys(map: &Map) -> BTreeMap<Key, Dot> {
    map.winners().map(|(key, winner)| (Key::new(key), winner)).collect()
}
