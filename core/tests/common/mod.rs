//! Whole nodes, each checked on every call, on the virtual network, with loss, duplication, delay and
//! partitions that a test sets as it goes.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

pub mod bare;
pub mod maps;
pub mod played;
pub mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::sim::{Checked, Condition, Delay, Fault, Input, Links, Network, Nodes};
use brickwork_core::{Config, Event, Identity, Instant, Node, NodeId};

/// A small generator for the network's own choices (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub fn percent(&mut self, percent: u32) -> bool {
        self.next() % 100 < u64::from(percent)
    }
}

/// What the network does to datagrams.
#[derive(Clone, Copy, PartialEq)]
pub struct Weather {
    pub loss: u32,
    pub duplication: u32,
    /// Delays are drawn evenly up to this: datagrams within it overtake each other.
    pub delay: Duration,
}

impl Weather {
    pub const CALM: Self = Self { loss: 0, duplication: 0, delay: Duration::from_micros(500) };
}

pub struct Net {
    pub now: Instant,
    pub weather: Weather,
    pub nodes: Vec<Option<Checked>>,
    /// Which side of the partition each place is on; equal sides talk.
    pub side: Vec<u8>,
    pub datagrams: u64,
    pub bytes: u64,
    /// Records every datagram sent, as (sender, receiver's address, bytes), while it is there.
    pub tap: Option<Vec<(usize, SocketAddr, Vec<u8>)>>,
    config: Config,
    network: Network,
    /// Weather and sides as the network has them, by which faults.
    applied: Option<(Weather, Vec<u8>)>,
    faults: Vec<usize>,
    dice: Dice,
    epochs: u64,
    /// All events of each place since its start.
    pub events: Vec<Vec<Event>>,
}

pub fn addr(place: usize) -> SocketAddr {
    ([10, 0, 0, 1], 1000 + u16::try_from(place).unwrap()).into()
}

pub fn name(place: usize) -> String {
    format!("node-{place}")
}

/// The body of the first frame with this tag in a datagram.
pub fn frame_of(datagram: &[u8], tag: u8) -> Option<&[u8]> {
    let mut rest = &datagram[24..datagram.len() - 4];
    while let [found, low, ..] = *rest {
        let (len, body) = match low {
            short @ 0..0x80 => (usize::from(short), 2),
            low => (usize::from(low & 0x7f) | usize::from(rest[2]) << 7, 3),
        };
        if found == tag {
            return Some(&rest[body..body + len]);
        }
        rest = &rest[body + len..];
    }
    None
}

impl Net {
    pub fn new(seed: u64, config: Config) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut network = Network::new(seed);
        assert_eq!(network.next(now), None, "nothing happens before");
        Self {
            now,
            weather: Weather::CALM,
            nodes: Vec::new(),
            side: Vec::new(),
            datagrams: 0,
            bytes: 0,
            tap: None,
            config,
            network,
            applied: None,
            faults: Vec::new(),
            dice: Dice(seed),
            epochs: 1_000,
            events: Vec::new(),
        }
    }

    /// `n` nodes that join through the first, and time for them to meet.
    pub fn cluster(seed: u64, config: Config, n: usize) -> Self {
        let mut net = Self::new(seed, config);
        for place in 0..n {
            net.start(place, &[0]);
        }
        net.run(Duration::from_secs(2));
        net
    }

    /// Starts a node without memory at `place`, under the name and address of that place.
    pub fn start(&mut self, place: usize, seeds: &[usize]) {
        self.start_as(place, &name(place), seeds);
    }

    pub fn start_as(&mut self, place: usize, name: &str, seeds: &[usize]) {
        while self.nodes.len() <= place {
            self.nodes.push(None);
            self.side.push(0);
            self.events.push(Vec::new());
            self.network.bind(addr(self.nodes.len() - 1));
        }
        self.crash(place);
        self.network.open(place);
        self.epochs += 1;
        let identity = Identity::new(name, addr(place)).with_boot_epoch(self.epochs);
        let mut entropy = [0; 32];
        for chunk in entropy.chunks_mut(8) {
            chunk.copy_from_slice(&self.dice.next().to_le_bytes());
        }
        let mut node = Checked::new(self.now, identity, self.config.clone(), entropy).unwrap();
        self.events[place].clear();
        let seeds: Vec<_> = seeds.iter().map(|&seed| addr(seed)).collect();
        node.join(self.now, &seeds);
        self.nodes[place] = Some(node);
        self.after_input(place);
    }

    /// Sets the wall clock that boot epochs are taken from back.
    pub fn rewind_epochs(&mut self, by: u64) {
        self.epochs -= by;
    }

    pub fn crash(&mut self, place: usize) {
        self.nodes[place] = None;
        self.network.close(place);
    }

    pub fn node(&self, place: usize) -> &Node {
        self.nodes[place].as_ref().unwrap().node()
    }

    /// Gives a wish to the node at `place`, if it is up.
    pub fn with<R>(
        &mut self,
        place: usize,
        wish: impl FnOnce(&mut Node, Instant) -> R,
    ) -> Option<R> {
        let now = self.now;
        let node = self.nodes[place].as_mut();
        let result = node.map(|node| node.with(|node| wish(node, now)));
        self.after_input(place);
        result
    }

    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&place| self.nodes[place].is_some()).collect()
    }

    /// Lets `time` pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done`, at most `limit`. Returns whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        self.apply();
        for (place, node) in self.nodes.iter().enumerate() {
            // A test may have put one aside and back meanwhile.
            self.network.arm(place, node.as_ref().and_then(Checked::poll_timeout));
        }
        let end = self.now + limit;
        while !done(self) {
            let Some(input) = self.network.next(end) else {
                self.now = end;
                return done(self);
            };
            self.take(input);
        }
        true
    }

    fn take(&mut self, input: Input) {
        let place = input.place;
        self.now = self.network.now();
        if let Some(node) = &mut self.nodes[place] {
            input.hand_to(node).expect("nobody sends bad packets");
            self.after_input(place);
        }
    }

    fn after_input(&mut self, place: usize) {
        self.apply();
        let Some(node) = &mut self.nodes[place] else { return };
        let mut buf = [0; 1400];
        while let Some(sent) = node.poll_transmit(&mut buf) {
            self.datagrams += 1;
            self.bytes += sent.payload.len() as u64;
            if let Some(tap) = &mut self.tap {
                tap.push((place, sent.to, sent.payload.to_vec()));
            }
            self.network.send(place, sent.to, sent.payload);
        }
        while let Some(event) = node.poll_event() {
            self.events[place].push(event);
        }
        self.network.arm(place, node.poll_timeout());
    }

    /// Makes the faults of the network those that the test has set by now.
    fn apply(&mut self) {
        let wanted = (self.weather, self.side.clone());
        if self.applied.as_ref() == Some(&wanted) {
            return;
        }
        let Weather { loss, duplication, delay } = self.weather;
        let everywhere = |condition| Fault::Link(Links::all(), condition);
        let mut faults = vec![
            everywhere(Condition::Delay(Delay::Uniform(Duration::from_nanos(1), delay))),
            everywhere(Condition::Loss(loss * 10)),
            everywhere(Condition::Duplicate { permille: duplication * 10, within: delay }),
        ];
        let sides: BTreeSet<u8> = self.side.iter().copied().collect();
        for side in sides {
            let places = (0..self.side.len()).filter(|&place| self.side[place] == side);
            let links = Links::around(&Nodes::Only(places.collect()));
            faults.push(Fault::Link(links, Condition::Cut));
        }
        for fault in self.faults.drain(..) {
            self.network.end(fault);
        }
        self.faults = faults.into_iter().map(|fault| self.network.begin(fault)).collect();
        self.applied = Some(wanted);
    }

    /// What differs between the live nodes, for messages; empty if all agree on everything.
    pub fn differences(&self, keys: &[Vec<u8>]) -> Vec<String> {
        let up = self.up();
        let live: BTreeSet<NodeId> = up.iter().map(|&place| self.node(place).id()).collect();
        let mut found = Vec::new();
        let reference = &up[0];
        for place in &up {
            let node = self.node(*place);
            let members: BTreeSet<_> = node.members().map(|member| member.id()).collect();
            if members != live {
                found.push(format!("{place} lists {} members of {}", members.len(), live.len()));
            }
            let first = self.node(*reference);
            if node.map().digest() != first.map().digest() {
                found.push(format!("{place} and {reference} differ in their maps"));
            }
            for key in keys {
                if node.owner(key) != first.owner(key) {
                    found.push(format!("{place} and {reference} name two owners of {key:?}"));
                }
                if node.get(key) != first.get(key) {
                    found.push(format!("{place} and {reference} read {key:?} differently"));
                }
            }
        }
        found
    }

    /// The siblings of a key at one place, as (writer, counter).
    pub fn dots(&self, place: usize, key: &[u8]) -> BTreeSet<(NodeId, u64, u64)> {
        let siblings = self.node(place).siblings(key);
        siblings.map(|s| (s.dot.replica.node, s.dot.replica.epoch, s.dot.counter)).collect()
    }
}

/// All that was written, as sets: which dot is a value of which key, and what superseded it.
#[derive(Default)]
pub struct History {
    puts: BTreeMap<Vec<u8>, BTreeSet<(NodeId, u64, u64)>>,
    superseded: BTreeSet<(NodeId, u64, u64)>,
}

impl History {
    /// Writes through the net and notes what the writer had seen.
    pub fn put(&mut self, net: &mut Net, place: usize, key: &[u8], value: &[u8]) {
        if net.nodes[place].is_none() {
            return;
        }
        let seen = net.dots(place, key);
        let dot = net.with(place, |node, now| node.insert(now, key, value)).unwrap().unwrap();
        self.superseded.extend(seen);
        let dot = (dot.replica.node, dot.replica.epoch, dot.counter);
        self.puts.entry(key.to_vec()).or_default().insert(dot);
    }

    pub fn remove(&mut self, net: &mut Net, place: usize, key: &[u8]) {
        if net.nodes[place].is_none() {
            return;
        }
        self.superseded.extend(net.dots(place, key));
        net.with(place, |node, now| node.remove(now, key)).unwrap().unwrap();
    }

    /// The siblings that every replica must end with: all values that nobody superseded.
    pub fn survivors(&self, key: &[u8]) -> BTreeSet<(NodeId, u64, u64)> {
        let puts = self.puts.get(key).cloned().unwrap_or_default();
        puts.difference(&self.superseded).copied().collect()
    }
}
