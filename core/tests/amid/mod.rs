//! Full syncs between bare maps, while what is synced changes.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::Duration;

use brickwork_core::map::{Config, Dot, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

use crate::common::maps::addr;
use crate::common::{Dice, frame_of};

const KEYS: usize = 60;
const STAGE: u8 = 0xa5;
const DATAGRAM: usize = 512;

/// Maps of the nodes 1, 2 and so on, which share a network that loses nothing.
struct World {
    now: Instant,
    maps: Vec<Map>,
    flights: VecDeque<(usize, usize, Vec<u8>)>,
    dice: Dice,
    /// Per key the write of its value, and its removal.
    writes: Vec<(Dot, Option<Dot>)>,
}

fn key(number: usize) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

impl World {
    /// All keys are written by the first map; nobody has a peer.
    fn new(seed: u64, maps: u64) -> Self {
        let mut config = Config::lan();
        (config.max_key, config.max_value) = (16, 64);
        (config.collect_interval, config.keep_for) = (Duration::from_millis(1), Duration::ZERO);
        config.pull_budget = DATAGRAM;
        let now = Instant::from_nanos(1_000_000_000);
        let map = |id: u64| {
            let replica = ReplicaId::new(NodeId(id), 1);
            let entropy = [u8::try_from(seed % 251).unwrap(); 32];
            Map::new(now, replica, "test", config.clone(), DATAGRAM, entropy).unwrap()
        };
        let mut maps: Vec<_> = (1..=maps).map(map).collect();
        let put = |number| maps[0].insert(now, &key(number), &[7; 20]).unwrap();
        let writes = (0..KEYS).map(put).map(|dot| (dot, None)).collect();
        Self { now, maps, flights: VecDeque::new(), dice: Dice(seed), writes }
    }

    fn meet(&mut self, a: usize, b: usize) {
        for (at, peer) in [(a, b), (b, a)] {
            let life = self.maps[peer].replica();
            self.maps[at].peer_up(self.now, life.node, life.epoch, addr(life.node.0));
        }
    }

    fn part(&mut self, a: usize, b: usize) {
        for (at, peer) in [(a, b), (b, a)] {
            let node = self.maps[peer].replica().node;
            self.maps[at].peer_down(self.now, node);
        }
    }

    /// The map at `at` removes a key that is left there.
    fn remove(&mut self, at: usize) {
        let number = self.dice.below(KEYS);
        if self.maps[at].remove(self.now, &key(number)).unwrap() {
            let map = &self.maps[at];
            self.writes[number].1 = Some(Dot::new(map.replica(), map.stats().writes));
        }
    }

    fn fire(&mut self) {
        self.now += Duration::from_millis(2);
        let now = self.now;
        self.maps.iter_mut().for_each(|map| map.handle_timeout(now));
    }

    fn collect(&mut self) {
        let mut buf = [0; DATAGRAM];
        for (at, map) in self.maps.iter_mut().enumerate() {
            while let Some(sent) = map.poll_transmit(&mut buf) {
                let to = usize::from(sent.to.port()) - 1;
                self.flights.push_back((at, to, sent.payload.to_vec()));
            }
        }
    }

    /// Carries one datagram, or lets time pass.
    fn step(&mut self) -> Result<(), String> {
        self.collect();
        let Some((from, to, mut bytes)) = self.flights.pop_front() else {
            self.fire();
            return Ok(());
        };
        let from = self.maps[from].replica().node.0;
        // Who is gone does not count.
        let _ = self.maps[to].handle_packet(self.now, addr(from), &mut bytes);
        self.check(to)
    }

    fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.step()?;
        }
        Ok(())
    }

    /// A key is there if its value has come, and its removal has not.
    fn check(&self, at: usize) -> Result<(), String> {
        let map = &self.maps[at];
        for (number, (put, removal)) in self.writes.iter().enumerate() {
            let removed = removal.is_some_and(|dot| map.reflects(dot));
            let wanted = map.reflects(*put) && !removed;
            if map.get(&key(number)).is_some() != wanted {
                return Err(format!("I1: key {number} at {at}: wanted {wanted}"));
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        let digest = self.maps[0].digest();
        if self.maps.iter().any(|map| map.digest() != digest) {
            return Err("I6: they differ".into());
        }
        let left: Vec<_> = self.maps.iter().map(Map::metadata).collect();
        if left.iter().any(|left| *left != (0, 0)) {
            return Err(format!("I7: they keep {left:?}"));
        }
        Ok(())
    }
}

/// Keys are removed where a newcomer is being told of them.
pub fn removals(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed, 2);
    world.fire();
    world.meet(0, 1);
    while world.maps[1].stats().full_syncs == 0 {
        world.step()?;
        if world.dice.percent(10) {
            world.remove(0);
            world.fire();
        }
    }
    world.run(Duration::from_secs(60))?;
    world.check_end()
}

/// A newcomer falls silent while it is told; who tells it is not kept from collecting for ever.
pub fn silence(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed, 2);
    world.fire();
    world.meet(0, 1);
    while world.flights.iter().all(|(_, _, bytes)| frame_of(bytes, STAGE).is_none()) {
        world.step()?;
        world.collect();
    }
    if world.dice.percent(50) {
        world.step()?;
    }
    (0..KEYS).for_each(|_| world.remove(0));
    let end = world.now + Duration::from_secs(31);
    while world.now < end {
        world.fire();
        let mut buf = [0; DATAGRAM];
        while world.maps[0].poll_transmit(&mut buf).is_some() {}
    }
    let left = world.maps[0].metadata();
    if left == (0, 0) { Ok(()) } else { Err(format!("I7: it keeps {left:?}")) }
}

/// A member that was forgotten has the first value of a key, whose second, known to the others alone, has been
/// forgotten too; then comes a third.
pub fn overwritten(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed, 3);
    [(0, 1), (0, 2), (1, 2)].into_iter().for_each(|(a, b)| world.meet(a, b));
    world.run(Duration::from_secs(20))?;
    world.part(0, 1);
    world.part(0, 2);
    world.maps[1].insert(world.now, &key(0), b"second").unwrap();
    world.run(Duration::from_secs(20))?;
    world.meet(0, 2);
    world.maps[2].insert(world.now, &key(0), b"third").unwrap();
    for _ in 0..500 {
        world.step()?;
        if world.maps[0].siblings(&key(0)).count() != 1 {
            return Err("I1: what was overwritten is back".into());
        }
    }
    world.meet(0, 1);
    world.run(Duration::from_secs(60))?;
    world.check_end()
}

/// Who tells a newcomer of all keys learns, from a third, that most of them are removed.
pub fn another_full_sync(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed, 3);
    world.meet(0, 1);
    world.run(Duration::from_secs(20))?;
    world.part(0, 1);
    (0..KEYS).for_each(|_| world.remove(0));
    world.fire();
    world.meet(1, 2);
    let before = world.dice.below(20);
    for _ in 0..before {
        world.step()?;
    }
    world.meet(0, 1);
    world.run(Duration::from_secs(20))?;
    world.meet(0, 2);
    world.run(Duration::from_secs(60))?;
    let synced: Vec<_> = world.maps.iter().map(|map| map.stats().full_syncs).collect();
    if synced[1] == 0 || synced[2] == 0 {
        return Err(format!("the full syncs are {synced:?}"));
    }
    world.check_end()
}
