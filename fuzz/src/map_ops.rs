//! Replicas of the map under loss, repetition, disorder and restarts; after calm they are equal.

use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::map::{Config, Context, Dot, Map, ReplicaId};
use brickwork_core::{Instant, NodeId, hrw};

use crate::checks::{fire, send};
use crate::history::History;
use crate::input::Input;

const REPLICAS: usize = 4;
const KEYS: usize = 12;
const NAMES: [&[u8]; KEYS] = [
    b"a", b"b", b"c", b"d", b"e", b"f", b"key-g", b"key-h", b"key-i", b"key-j", b"key-k", b"key-l",
];
/// Lengths of values: up to this …
const MAX_VALUE: usize = 40;
/// … or so many times as long, which fits no datagram.
const LARGE: usize = 50;
const MAX_OPS: usize = 400;
/// Datagrams under way; more push out the oldest, which are lost.
const MAX_FLIGHTS: usize = 96;
/// Every life costs some bytes for ever.
const MAX_RESTARTS: usize = 8;
/// Virtual time within which a calm network must make all replicas equal.
const HEAL: Duration = Duration::from_secs(60);

/// Runs replicas as the input says, then checks that they converge on what a plain reference expects.
///
/// # Panics
///
/// If they do not, or if an invariant breaks on the way.
pub fn map_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..MAX_OPS {
        let Some(op) = input.next() else { break };
        world.act(op, &mut input);
    }
    world.calm_down();
}

struct Flight {
    from: usize,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct World {
    now: Instant,
    maps: Vec<Map>,
    flights: Vec<Flight>,
    history: History,
    /// A context that was read some time ago: of which key, at which replica.
    read: Option<(usize, usize, Context, Vec<Dot>)>,
    restarts: usize,
}

impl World {
    fn new() -> Self {
        let maps = (0..REPLICAS).map(|at| replica(at, 1)).collect();
        let mut world = Self {
            now: Instant::ZERO,
            maps,
            flights: Vec::new(),
            history: History::default(),
            read: None,
            restarts: 0,
        };
        world.introduce_all();
        world
    }

    fn act(&mut self, op: u8, input: &mut Input<'_>) {
        let choice = input.byte();
        let (at, key) = (usize::from(choice) % REPLICAS, usize::from(choice >> 2) % KEYS);
        match op % 16 {
            0..=3 => self.insert(at, key, input.byte()),
            4 => self.remove(at, key),
            5 => self.read_context(at, key),
            6 => self.resolve(input.byte()),
            7 | 8 => self.deliver(usize::from(choice)),
            // In order, as on most days.
            9 => (0..choice % 16).for_each(|_| self.deliver(0)),
            10 => drop(self.take_flight(usize::from(choice))),
            11 => self.repeat(usize::from(choice)),
            12 => self.restart(at),
            13 => self.introduce(at, usize::from(choice >> 2) % REPLICAS),
            14 => self.maps[at].peer_down(self.now, id(usize::from(choice >> 2) % REPLICAS)),
            _ => self.pass(Duration::from_millis(2) * u32::from(choice)),
        }
        self.collect(at);
    }

    fn insert(&mut self, at: usize, key: usize, choice: u8) {
        let value = self.value(choice);
        let seen = self.dots(at, key);
        let written = self.maps[at].insert(self.now, NAMES[key], &value);
        let dot = written.unwrap_or_else(|error| panic!("far from every limit: {error}"));
        self.history.put(key, self.maps[at].replica(), dot, value, seen);
    }

    fn remove(&mut self, at: usize, key: usize) {
        let seen = self.dots(at, key);
        let removed = self.maps[at].remove(self.now, NAMES[key]);
        let removed = removed.unwrap_or_else(|error| panic!("far from every limit: {error}"));
        assert_eq!(removed, !seen.is_empty(), "whether there was a value of {key}");
        assert_eq!(self.maps[at].get(NAMES[key]), None, "{key} was removed");
        self.history.remove(self.maps[at].replica(), seen);
    }

    fn read_context(&mut self, at: usize, key: usize) {
        let context = self.maps[at].context(NAMES[key]);
        self.read = Some((at, key, context, self.dots(at, key)));
    }

    /// Merges what was read, which may be stale by now.
    fn resolve(&mut self, choice: u8) {
        let Some((at, key, context, seen)) = self.read.take() else { return };
        let value = (choice >= 64).then(|| self.value(choice));
        let before = self.dots(at, key);
        let map = &mut self.maps[at];
        let resolved = map.resolve(self.now, NAMES[key], &context, value.as_deref());
        let resolved = resolved.unwrap_or_else(|error| panic!("far from every limit: {error}"));
        let me = map.replica();
        let after = self.dots(at, key);
        for dot in before.iter().filter(|dot| !seen.contains(dot)) {
            assert!(after.contains(dot), "{dot:?} came after the context was read, and is gone");
        }
        match (resolved, value) {
            (Some(dot), Some(value)) => self.history.put(key, me, dot, value, seen),
            (Some(_), None) => self.history.remove(me, seen),
            (None, value) => assert_eq!(value, None, "a write has a dot"),
        }
    }

    /// A value that tells its write, or an empty one.
    fn value(&self, choice: u8) -> Vec<u8> {
        let tag = u16::try_from(self.history.len()).unwrap_or(u16::MAX).to_le_bytes();
        let times = if choice % 8 == 7 { LARGE } else { 1 };
        tag.into_iter().cycle().take(usize::from(choice) % MAX_VALUE * times).collect()
    }

    fn take_flight(&mut self, choice: usize) -> Option<Flight> {
        let at = choice.checked_rem(self.flights.len())?;
        Some(self.flights.remove(at))
    }

    fn deliver(&mut self, choice: usize) {
        if let Some(mut flight) = self.take_flight(choice) {
            self.hand_in(&mut flight);
        }
    }

    fn repeat(&mut self, choice: usize) {
        let at = choice.checked_rem(self.flights.len());
        if let Some(Flight { from, to, bytes }) = at.map(|at| &self.flights[at]) {
            let copy = Flight { from: *from, to: *to, bytes: bytes.clone() };
            self.flights.push(copy);
        }
    }

    fn hand_in(&mut self, flight: &mut Flight) {
        let Some(to) = (0..REPLICAS).find(|&to| addr(to) == flight.to) else { return };
        let taken = self.maps[to].handle_packet(self.now, addr(flight.from), &mut flight.bytes);
        assert_eq!(taken, Ok(()), "a sound datagram is refused");
        self.collect(to);
    }

    /// A replica starts over without its state. The others hear of it as the input says.
    fn restart(&mut self, at: usize) {
        if self.restarts < MAX_RESTARTS {
            self.restarts += 1;
            let epoch = self.maps[at].replica().epoch + 1;
            self.maps[at] = replica(at, epoch);
            self.read.take_if(|(reader, ..)| *reader == at);
        }
    }

    /// Tells one replica of the present life of another.
    fn introduce(&mut self, at: usize, peer: usize) {
        let life = self.maps[peer].replica();
        self.maps[at].peer_up(self.now, life.node, life.epoch, addr(peer));
    }

    fn introduce_all(&mut self) {
        for at in 0..REPLICAS {
            (0..REPLICAS).for_each(|peer| self.introduce(at, peer));
            self.collect(at);
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = (0..REPLICAS).min_by_key(|&at| self.due(at))
            && self.due(at) <= end
        {
            self.now = self.now.max(self.due(at));
            fire(&mut self.maps[at], self.now);
            self.collect(at);
        }
        self.now = end;
    }

    fn due(&self, at: usize) -> Instant {
        self.maps[at].poll_timeout().unwrap_or(Instant::MAX)
    }

    /// Puts what a replica owes under way, and checks its views.
    fn collect(&mut self, at: usize) {
        let (map, flights) = (&mut self.maps[at], &mut self.flights);
        send(map, 1400, |to, bytes| {
            if flights.len() >= MAX_FLIGHTS {
                flights.remove(0);
            }
            flights.push(Flight { from: at, to, bytes: bytes.to_vec() });
        });
        while map.poll_event().is_some() {}
        let mut values = 0;
        for (key, name) in NAMES.into_iter().enumerate() {
            let hash = hrw::key_hash(name);
            let score = |node| hrw::score(hash, node);
            let read = map.get(name);
            let best = map.siblings(name).map(|sibling| score(sibling.dot.replica.node));
            let best = best.max();
            let winners = map.siblings(name).filter(|sibling| {
                Some(score(sibling.dot.replica.node)) == best && Some(sibling.value) == read
            });
            let read_from_winner = winners.count() > 0;
            assert_eq!(read_from_winner, read.is_some(), "{key} is not read from the winner");
            values += usize::from(read.is_some());
        }
        assert_eq!(map.len(), values, "keys with a value");
        assert_eq!(map.iter().count(), values, "keys that are listed");
    }

    fn dots(&self, at: usize, key: usize) -> Vec<Dot> {
        self.maps[at].siblings(NAMES[key]).map(|sibling| sibling.dot).collect()
    }

    /// Ends all trouble, waits until all are equal, and compares them with the reference.
    fn calm_down(&mut self) {
        self.flights.clear();
        for (key, name) in NAMES.into_iter().enumerate() {
            let held = self.maps.iter().flat_map(|map| map.siblings(name));
            self.history.hold(key, held.map(|sibling| sibling.dot));
        }
        let living: Vec<ReplicaId> = self.maps.iter().map(Map::replica).collect();
        self.introduce_all();
        let end = self.now + HEAL;
        while self.now < end && !self.all_equal() {
            while !self.flights.is_empty() {
                self.deliver(0);
            }
            let due = (0..REPLICAS).map(|at| self.due(at)).min().unwrap_or(end);
            self.pass((due - self.now).max(Duration::from_millis(1)));
        }
        let told: Vec<_> = self.maps.iter().map(|map| (map.digest(), *map.stats())).collect();
        assert!(self.all_equal(), "contexts and contents differ: {told:x?}");
        for (key, name) in NAMES.into_iter().enumerate() {
            for map in &self.maps {
                let siblings = map.siblings(name);
                let found = siblings.map(|sibling| (sibling.dot, sibling.value.to_vec())).collect();
                self.history.check(key, &living, &found);
                assert_eq!(map.get(name), self.maps[0].get(name), "reads of {key}");
            }
        }
        for map in &self.maps {
            let stats = map.stats();
            assert_eq!((stats.diverged, stats.chunks_forged, stats.oversize), (0, 0, 0));
        }
    }

    fn all_equal(&self) -> bool {
        let first = self.maps[0].digest();
        let equal = self.maps.iter().all(|map| map.digest().0 == first.0);
        if equal {
            let contents = self.maps.iter().all(|map| map.digest().1 == first.1);
            assert!(contents, "equal contexts with unequal contents");
        }
        equal
    }
}

fn id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

fn addr(at: usize) -> SocketAddr {
    crate::net::addr(at)
}

fn replica(at: usize, epoch: u64) -> Map {
    let mut entropy = [u8::try_from(at).unwrap_or(0); 32];
    entropy[..8].copy_from_slice(&epoch.to_le_bytes());
    let life = ReplicaId::new(id(at), epoch);
    Map::new(Instant::ZERO, life, "fuzz", Config::local(), 1400, entropy)
        .unwrap_or_else(|error| panic!("a sound configuration: {error}"))
}
