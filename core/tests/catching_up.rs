//! A replica that missed much catches up: how long that takes, and what it costs, in virtual time.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};
use common::bare::{millis, varint};
use common::maps::{NOW, addr, drain};
use common::played::{CHUNK, OWN, PULL, chunk_to, tell};
use common::{Dice, frame_of};

const TAKER: u64 = 9;

/// Lives that wrote, and how many writes each of them made.
const WRITERS: u64 = 16;

/// What the way to and from a source is like.
#[derive(Clone, Copy)]
struct Way {
    delay: Duration,
    loss: u32,
}

/// All datagrams share the last piece of the way to the taker: so many bytes a second, and so many that wait.
#[derive(Clone, Copy)]
struct Bottleneck {
    rate: u64,
    queue: u64,
}

#[derive(Debug)]
struct Outcome {
    time: Duration,
    /// Bytes of chunks that arrived and that were sent, and of pulls.
    arrived: usize,
    sent: usize,
    pulls: usize,
    timeouts: u64,
}

fn source(id: u64, each: u64, config: &Config) -> Map {
    let life = ReplicaId::new(NodeId(id), 1);
    let mut map = Map::new(NOW, life, "test", config.clone(), 1_400, [id as u8; 32]).unwrap();
    map.peer_up(NOW, NodeId(100), 1, addr(100));
    for writer in 0..WRITERS {
        let node = 1_000 + writer;
        for first in (1..=each).step_by(25) {
            let count = 25.min(each + 1 - first);
            let mut run = [&[0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
            run.extend([varint(first), vec![count as u8]].concat());
            for counter in first..first + count {
                run.extend([OWN, 16]);
                run.extend([node.to_le_bytes(), counter.to_le_bytes()].concat());
                run.push(32);
                run.extend([7; 32]);
            }
            tell(&mut map, NOW, 100, &chunk_to(id, 0, 0, 0, &run));
        }
    }
    map.peer_down(NOW, NodeId(100));
    map.peer_up(NOW, NodeId(TAKER), 1, addr(TAKER));
    drain(&mut map);
    map
}

fn catch_up(config: &Config, each: u64, ways: &[Way], neck: Option<Bottleneck>) -> Outcome {
    let mut maps: BTreeMap<u64, Map> = BTreeMap::new();
    let life = ReplicaId::new(NodeId(TAKER), 1);
    let mut taker = Map::new(NOW, life, "test", config.clone(), 1_400, [9; 32]).unwrap();
    for id in 1..=ways.len() as u64 {
        maps.insert(id, source(id, each, config));
        taker.peer_up(NOW, NodeId(id), 1, addr(id));
    }
    maps.insert(TAKER, taker);
    let all = maps[&1].digest();
    let mut dice = Dice(7);
    let mut flights: BTreeMap<(Instant, u64), (u64, u64, Vec<u8>)> = BTreeMap::new();
    let (mut now, mut number, mut free) = (NOW, 0, NOW);
    let (mut arrived, mut sent, mut pulls) = (0, 0, 0);
    while maps[&TAKER].digest() != all {
        assert!(now < NOW + millis(600_000), "it ends");
        let out = maps.iter_mut().map(|(&id, map)| (id, drain(map)));
        let out: Vec<_> = out.collect();
        for (id, datagrams) in out {
            for (to, bytes) in datagrams {
                let chunk = frame_of(&bytes, CHUNK).is_some();
                sent += if chunk { bytes.len() } else { 0 };
                pulls += frame_of(&bytes, PULL).map_or(0, <[u8]>::len);
                let way = ways[usize::try_from(to.min(id) - 1).unwrap()];
                if dice.percent(way.loss) || !maps.contains_key(&to) {
                    continue;
                }
                let mut at = now + way.delay;
                if let Some(neck) = neck.filter(|_| to == TAKER) {
                    let start = free.max(at);
                    let waiting = (start - at).as_micros() as u64 * neck.rate / 1_000_000;
                    if waiting > neck.queue {
                        continue;
                    }
                    let takes =
                        Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / neck.rate);
                    free = start + takes;
                    at = free;
                }
                arrived += if chunk { bytes.len() } else { 0 };
                number += 1;
                flights.insert((at, number), (id, to, bytes));
            }
        }
        let next = flights.first_key_value().map(|((at, _), _)| *at);
        let due = maps.values().filter_map(Map::poll_timeout).min();
        now = next.into_iter().chain(due).min().unwrap().max(now);
        for map in maps.values_mut() {
            if map.poll_timeout().is_some_and(|due| due <= now) {
                map.handle_timeout(now);
            }
        }
        while let Some(entry) = flights.first_entry().filter(|entry| entry.key().0 <= now) {
            let (from, to, mut bytes) = entry.remove();
            maps.get_mut(&to).unwrap().handle_packet(now, addr(from), &mut bytes).unwrap();
        }
    }
    let timeouts = maps[&TAKER].stats().pulls_timed_out;
    Outcome { time: now - NOW, arrived, sent, pulls, timeouts }
}

fn ways(loss: u32) -> [Way; 3] {
    [Way { delay: millis(10), loss }; 3]
}

/// Goal: what is told twice is little, whatever the way does, and what the end of a queue does not take is not sent
/// again and again. Method: 50,000 writes of 16 replicas from three who have them, 20 ms to and fro; without loss, with
/// loss by luck, and with queues shorter than the longest answer.
#[test]
fn a_replica_that_missed_much_is_told_it_about_once() {
    let config = Config::lan();
    let neck = |rate, queue| Some(Bottleneck { rate, queue });
    let cases = [
        ("no loss", 0, None, 900),
        ("5 % loss", 5, None, 2_200),
        ("10 MB/s, 50 KB queued", 0, neck(10_000_000, 50_000), 2_600),
        ("1 MB/s, 50 KB queued", 0, neck(1_000_000, 50_000), 5_500),
        ("1 MB/s, 20 KB queued", 0, neck(1_000_000, 20_000), 9_500),
    ];
    let mut least = usize::MAX;
    for (name, loss, neck, most) in cases {
        let outcome = catch_up(&config, 3_125, &ways(loss), neck);
        println!("{name:22} {outcome:?}");
        least = least.min(outcome.arrived);
        assert!(outcome.sent * 10 <= least * 11, "{name}: {outcome:?}");
        assert!(outcome.arrived * 20 <= least * 21, "{name}: {outcome:?}");
        assert!(outcome.time < millis(most), "{name}: {outcome:?}");
        assert!(outcome.pulls * 20 < outcome.arrived, "{name}: {outcome:?}");
        assert_eq!(outcome.timeouts > 0, name != "no loss", "{name}: {outcome:?}");
    }
}
