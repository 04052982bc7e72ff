//! An in-memory network of whole nodes under virtual time, with loss, duplication, delay and
//! partitions, all drawn from one seed.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

pub mod maps;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

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
#[derive(Clone, Copy)]
pub struct Weather {
    pub loss: u32,
    pub duplication: u32,
    /// Delays are drawn evenly up to this: datagrams within it overtake each other.
    pub delay: Duration,
}

impl Weather {
    pub const CALM: Self = Self { loss: 0, duplication: 0, delay: Duration::from_micros(500) };
}

/// Arrival, serial number, receiver, sender's address, bytes.
type Flight = Reverse<(Instant, u64, usize, SocketAddr, Vec<u8>)>;

pub struct Net {
    pub now: Instant,
    pub weather: Weather,
    pub nodes: Vec<Option<Node>>,
    /// Which side of the partition each place is on; equal sides talk.
    pub side: Vec<u8>,
    pub datagrams: u64,
    pub bytes: u64,
    /// Records every datagram sent, as (sender, receiver's address, bytes), while it is there.
    pub tap: Option<Vec<(usize, SocketAddr, Vec<u8>)>>,
    config: Config,
    flights: BinaryHeap<Flight>,
    dice: Dice,
    serial: u64,
    epochs: u64,
    /// The member list as folded from events alone, per place.
    folded: Vec<BTreeSet<NodeId>>,
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
        Self {
            now: Instant::from_nanos(1_000_000_000),
            weather: Weather::CALM,
            nodes: Vec::new(),
            side: Vec::new(),
            datagrams: 0,
            bytes: 0,
            tap: None,
            config,
            flights: BinaryHeap::new(),
            dice: Dice(seed),
            serial: 0,
            epochs: 1_000,
            folded: Vec::new(),
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
            self.folded.push(BTreeSet::new());
            self.events.push(Vec::new());
        }
        self.epochs += 1;
        let identity = Identity::new(name, addr(place)).with_boot_epoch(self.epochs);
        let mut entropy = [0; 32];
        for chunk in entropy.chunks_mut(8) {
            chunk.copy_from_slice(&self.dice.next().to_le_bytes());
        }
        let mut node = Node::new(self.now, identity, self.config.clone(), entropy).unwrap();
        self.folded[place] = BTreeSet::from([node.id()]);
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
    }

    pub fn node(&self, place: usize) -> &Node {
        self.nodes[place].as_ref().unwrap()
    }

    /// Gives a wish to the node at `place`, if it is up.
    pub fn with<R>(
        &mut self,
        place: usize,
        wish: impl FnOnce(&mut Node, Instant) -> R,
    ) -> Option<R> {
        let now = self.now;
        let result = self.nodes[place].as_mut().map(|node| wish(node, now));
        self.after_input(place);
        result
    }

    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&place| self.nodes[place].is_some()).collect()
    }

    /// Lets `time` pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, at most `limit`. Returns whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    /// The next arrival or timer, if it is not after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.flights.peek().map(|Reverse((at, ..))| *at);
        let timer = (0..self.nodes.len())
            .filter_map(|place| Some((self.nodes[place].as_ref()?.poll_timeout()?, place)))
            .min();
        match (arrival, timer) {
            (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                let Reverse((_, _, place, from, mut bytes)) = self.flights.pop().unwrap();
                if let Some(node) = &mut self.nodes[place] {
                    node.handle_packet(self.now, from, &mut bytes)
                        .expect("nobody sends bad packets");
                    self.after_input(place);
                }
                true
            }
            (_, Some((due, place))) if due <= end => {
                self.now = self.now.max(due);
                let node = self.nodes[place].as_mut().unwrap();
                node.handle_timeout(self.now);
                let next = node.poll_timeout();
                assert!(next.is_none_or(|next| next > self.now), "no progress at {place}");
                self.after_input(place);
                true
            }
            _ => false,
        }
    }

    fn after_input(&mut self, place: usize) {
        let mut buf = [0; 1400];
        while let Some(node) = &mut self.nodes[place] {
            let due = node.poll_timeout();
            let Some(sent) = node.poll_transmit(&mut buf) else { break };
            let (to, bytes) = (sent.to, sent.payload.to_vec());
            assert_eq!(node.poll_timeout(), due, "sending moves no timer");
            self.post(place, to, bytes);
        }
        while let Some(node) = &mut self.nodes[place] {
            let Some(event) = node.poll_event() else { break };
            self.fold(place, event);
        }
        self.fold_own_leave(place);
        if let Some(node) = &self.nodes[place] {
            let members: BTreeSet<_> = node.members().map(|member| member.id()).collect();
            assert_eq!(members, self.folded[place], "events of {place} do not add up");
        }
    }

    fn fold(&mut self, place: usize, event: Event) {
        let list = &mut self.folded[place];
        match &event {
            Event::Joined { identity } => assert!(list.insert(identity.id), "joined twice"),
            Event::Restarted { identity, .. } => assert!(list.contains(&identity.id)),
            Event::Failed { id } | Event::Left { id } => assert!(list.remove(id), "gone twice"),
            Event::Suspected { id, .. } | Event::Recovered { id } => assert!(list.contains(id)),
            _ => {}
        }
        self.events[place].push(event);
    }

    /// A leaving node is out of its own list at once, without an event about itself.
    fn fold_own_leave(&mut self, place: usize) {
        if let Some(node) = &self.nodes[place]
            && !node.swim().me().is_live()
        {
            let me = node.id();
            self.folded[place].remove(&me);
        }
    }

    fn post(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.datagrams += 1;
        self.bytes += bytes.len() as u64;
        if let Some(tap) = &mut self.tap {
            tap.push((from, to, bytes.clone()));
        }
        let Some(place) = (0..self.nodes.len()).find(|&place| addr(place) == to) else { return };
        let copies = 1 + usize::from(self.dice.percent(self.weather.duplication));
        for _ in 0..copies {
            if self.dice.percent(self.weather.loss) || self.side[from] != self.side[place] {
                continue;
            }
            let delay = u64::try_from(self.weather.delay.as_nanos()).unwrap();
            let at = self.now + Duration::from_nanos(1 + self.dice.next() % delay);
            self.serial += 1;
            self.flights.push(Reverse((at, self.serial, place, addr(from), bytes.clone())));
        }
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
