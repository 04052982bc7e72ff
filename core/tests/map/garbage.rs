//! When what is kept for the sake of peers is forgotten: soon, and under steady writes too.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::Dice;
use crate::common::maps::{NOW, addr};
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

/// The first of their ids.
const FIRST: u64 = 1_000;
/// A millisecond.
const STEP: Duration = Duration::from_millis(1);

/// Replicas that are all peers of each other, with a network that takes its time.
struct Mesh {
    maps: Vec<Map>,
    now: Instant,
    latency: Duration,
    /// Percent of the datagrams.
    loss: u32,
    dice: Dice,
    /// When it arrives, where, from whom, and what.
    flights: VecDeque<(Instant, usize, u64, Vec<u8>)>,
}

impl Mesh {
    fn new(replicas: u64, max_datagram: usize, config: &Config) -> Self {
        let ids = FIRST..FIRST + replicas;
        let maps = ids.clone().map(|id| {
            let me = ReplicaId::new(NodeId(id), 1);
            let mut map =
                Map::new(NOW, me, "test", config.clone(), max_datagram, [id as u8; 32]).unwrap();
            let others = ids.clone().filter(|other| *other != id);
            others.for_each(|other| map.peer_up(NOW, NodeId(other), 1, addr(other)));
            map
        });
        Self {
            maps: maps.collect(),
            now: NOW,
            latency: Duration::from_millis(5),
            loss: 0,
            dice: Dice(7),
            flights: VecDeque::new(),
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let (now, mut buf) = (self.now, [0; 1400]);
        while self.flights.front().is_some_and(|next| next.0 <= now) {
            let Some((_, to, from, mut bytes)) = self.flights.pop_front() else { break };
            self.maps[to].handle_packet(now, addr(from), &mut bytes).unwrap();
        }
        for map in &mut self.maps {
            if map.poll_timeout().is_some_and(|at| at <= now) {
                map.handle_timeout(now);
            }
            let from = map.replica().node.0;
            while let Some(sent) = map.poll_transmit(&mut buf) {
                let to = usize::from(sent.to.port()) - FIRST as usize;
                if !self.dice.percent(self.loss) {
                    let at = now + self.latency;
                    self.flights.push_back((at, to, from, sent.payload.to_vec()));
                }
            }
            while map.poll_event().is_some() {}
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Everybody writes once per `pause`, over 100 keys, and removes one in four. Returns the most log records
    /// that a replica had at the end of a second, once `warm` was over.
    fn write(&mut self, time: Duration, pause: Duration, warm: Duration) -> usize {
        let (start, mut most) = (self.now, 0);
        let (mut next, mut look) = (self.now, self.now + warm);
        while self.now < start + time {
            if self.now >= next {
                next += pause;
                for at in 0..self.maps.len() {
                    let key = [self.dice.below(100) as u8];
                    if self.dice.percent(25) {
                        self.maps[at].remove(self.now, &key).unwrap();
                    } else {
                        self.maps[at].insert(self.now, &key, b"value").unwrap();
                    }
                }
            }
            if self.now >= look {
                look += Duration::from_secs(1);
                most = self.maps.iter().map(|map| map.metadata().1).max().unwrap().max(most);
            }
            self.step();
        }
        most
    }

    fn written(&self) -> u64 {
        self.maps.iter().map(|map| map.stats().writes).sum()
    }
}

/// Goal: what is kept for peers is bounded by what is written in a while, and not by what was ever written.
/// Method: no two replicas ever have equal contexts, since everybody writes faster than the network carries.
#[test]
fn logs_are_forgotten_while_everybody_goes_on_writing() {
    for loss in [0, 10] {
        let mut mesh = Mesh::new(8, 1400, &Config::lan());
        mesh.loss = loss;
        mesh.latency = Duration::from_millis(20);
        let seconds = 60;
        let most = mesh.write(
            Duration::from_secs(seconds),
            Duration::from_millis(10),
            Duration::from_secs(20),
        );
        let second = mesh.written() / seconds;
        let kept = most as u64 / second;
        assert!(kept <= 15, "records of {kept} s are kept at {loss} % loss");
        let full_syncs: u64 = mesh.maps.iter().map(|map| map.stats().full_syncs).sum();
        assert_eq!(full_syncs, 0);
    }
}

/// Goal: whatever the number of replicas, their bases get through. Method: those of 600 that are gone and
/// come first take a datagram of 512 bytes and more.
#[test]
fn logs_are_forgotten_when_bases_take_several_datagrams() {
    let mut config = Config::lan();
    (config.max_key, config.max_value) = (16, 64);
    let mut mesh = Mesh::new(3, 512, &config);
    for ghost in 1..600_u64 {
        let me = ReplicaId::new(NodeId(ghost), 1);
        let mut map = Map::new(NOW, me, "test", config.clone(), 512, [3; 32]).unwrap();
        map.peer_up(NOW, NodeId(FIRST), 1, addr(FIRST));
        map.insert(NOW, &ghost.to_be_bytes(), b"past").unwrap();
        mesh.maps[0].peer_up(NOW, NodeId(ghost), 1, addr(ghost));
        let mut buf = [0; 512];
        while let Some(sent) = map.poll_transmit(&mut buf) {
            let mut bytes = sent.payload.to_vec();
            mesh.maps[0].handle_packet(NOW, addr(ghost), &mut bytes).unwrap();
        }
        mesh.maps[0].peer_down(NOW, NodeId(ghost));
    }
    while mesh.maps[0].poll_transmit(&mut [0; 512]).is_some() {}
    // Nothing is dropped for the sake of those that went down.
    mesh.run(config.keep_for + Duration::from_secs(5));
    mesh.latency = Duration::from_millis(20);
    let (time, warm) = (Duration::from_secs(40), Duration::from_secs(20));
    let most = mesh.write(time, Duration::from_millis(5), warm);
    let kept = most as u64 / (mesh.written() / 40);
    assert!(kept <= 15, "records of {kept} s are kept");
}

/// Goal: three gossip rounds after the last of many writes nothing is left of keys that were removed, and soon after
/// them if datagrams are lost. After a few it takes until digests have been told in turn. Method: the last writes are removals, so anything that is left is kept for nobody.
#[test]
fn nothing_is_left_three_gossip_rounds_after_the_last_write() {
    let three_rounds = Duration::from_millis(600);
    for (loss, within) in [(0, three_rounds), (5, three_rounds * 4)] {
        let mut mesh = Mesh::new(16, 1400, &Config::lan());
        mesh.loss = loss;
        mesh.run(Duration::from_secs(2));
        mesh.write(Duration::from_secs(3), Duration::from_millis(50), Duration::ZERO);
        for key in 0..100_u8 {
            mesh.maps.iter_mut().for_each(|map| _ = map.remove(mesh.now, &[key]).unwrap());
        }
        mesh.run(within);
        for map in &mesh.maps {
            assert_eq!((map.metadata(), map.len(), map.bytes()), ((0, 0), 0, 0), "loss {loss} %");
        }
    }
}

/// Goal: a peer that went down and came back in time puts nothing off. Method: it is away while a round waits for
/// it, comes back, and everybody writes on; records are kept for the usual time, far from that for which a peer that is
/// down is waited for.
#[test]
fn a_peer_that_came_back_is_not_waited_for() {
    let config = Config::lan();
    let mut mesh = Mesh::new(3, 1400, &config);
    mesh.run(Duration::from_secs(2));
    mesh.maps[0].insert(mesh.now, b"first", b"v").unwrap();
    mesh.step();
    let away = NodeId(FIRST + 2);
    mesh.maps[0].peer_down(mesh.now, away);
    mesh.run(config.collect_interval * 2);
    assert!(mesh.maps[0].metadata().1 > 0, "it is kept for who is away");
    mesh.maps[0].peer_up(mesh.now, away, 1, addr(FIRST + 2));
    mesh.latency = Duration::from_millis(20);
    let (before, time) = (mesh.written(), Duration::from_secs(40));
    let most = mesh.write(time, Duration::from_millis(10), Duration::from_secs(25));
    let kept = most as u64 / ((mesh.written() - before) / 40);
    assert!(kept <= 15, "records of {kept} s are kept");
}

/// Goal: a timer that fires is due later than before, at any setting. Method: the shortest intervals, while garbage
/// waits for a peer that never speaks.
#[test]
fn the_shortest_intervals_do_not_fire_for_ever() {
    for nanos in 1..9 {
        let mut config = Config::lan();
        (config.sync_interval, config.pull_interval) =
            (Duration::from_nanos(nanos), Duration::from_nanos(nanos));
        config.collect_interval = Duration::from_nanos(nanos);
        let mut mesh = Mesh::new(2, 1400, &config);
        let map = &mut mesh.maps[0];
        map.insert(NOW, b"key", b"value").unwrap();
        for _ in 0..100 {
            let Some(now) = map.poll_timeout() else { break };
            map.handle_timeout(now);
            assert!(map.poll_timeout().is_none_or(|at| at > now), "{nanos} ns");
            while map.poll_transmit(&mut [0; 1400]).is_some() {}
        }
    }
}

/// Goal: digests are told sooner for those who may answer, not while all wait for one that is down. Method: two
/// replicas of which one has written, a third that went, and how many datagrams they send in a minute.
#[test]
fn nobody_hastens_for_one_that_is_down() {
    let mut config = Config::lan();
    config.keep_for = Duration::from_secs(600);
    let mut mesh = Mesh::new(3, 1_400, &config);
    let gone = mesh.maps.pop().unwrap().replica().node;
    let now = mesh.now;
    mesh.maps.iter_mut().for_each(|map| map.peer_down(now, gone));
    mesh.maps[0].insert(now, b"k", b"v").unwrap();
    let mut sent = 0;
    let mut buf = [0; 1_400];
    for step in 0..80_000 {
        mesh.now += STEP;
        for at in 0..2 {
            mesh.maps[at].handle_timeout(mesh.now);
            let from = FIRST + at as u64;
            while let Some(datagram) = mesh.maps[at].poll_transmit(&mut buf) {
                let mut bytes = datagram.payload.to_vec();
                sent += usize::from(step >= 20_000);
                mesh.maps[1 - at].handle_packet(mesh.now, addr(from), &mut bytes).unwrap();
            }
        }
    }
    assert_ne!(mesh.maps[0].metadata(), (0, 0), "it waits");
    assert!(sent <= 2 * 60 / 2 * 5 / 4, "{sent} datagrams");
}
