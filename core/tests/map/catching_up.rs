//! A replica that missed much catches up: how long that takes, and what it costs, in virtual time.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::bare::{millis, varint};
use crate::common::maps::{NOW, addr, drain};
use crate::common::played::{CHUNK, OWN, PULL, chunk_to, state, tell};
use crate::common::{Dice, frame_of};
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

const TAKER: u64 = 9;

/// Lives that wrote, and how many writes each of them made.
const WRITERS: u64 = 16;
const EACH: u64 = 3_125;

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

fn source(id: u64, writers: u64, each: u64, config: &Config) -> Map {
    let life = ReplicaId::new(NodeId(id), 1);
    let mut map = Map::new(NOW, life, "test", config.clone(), 1_400, [id as u8; 32]).unwrap();
    map.peer_up(NOW, NodeId(100), 1, addr(100));
    for writer in 0..writers {
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

/// What a replica has to catch up with, and how.
struct Case {
    ways: [Way; 3],
    neck: Option<Bottleneck>,
    writers: u64,
    each: u64,
    /// Whether the first source is heard of before the others, and so asked first.
    first: bool,
    budget: usize,
}

impl Case {
    fn over(ways: [Way; 3]) -> Self {
        let budget = Config::lan().pull_budget;
        Self { ways, neck: None, writers: WRITERS, each: EACH, first: false, budget }
    }
}

fn catch_up(case: &Case, seed: u8) -> Outcome {
    let (ways, neck) = (case.ways, case.neck);
    let mut config = Config::lan();
    config.pull_budget = case.budget;
    let mut maps: BTreeMap<u64, Map> = BTreeMap::new();
    let life = ReplicaId::new(NodeId(TAKER), 1);
    let mut taker = Map::new(NOW, life, "test", config.clone(), 1_400, [seed; 32]).unwrap();
    for id in 1..=ways.len() as u64 {
        maps.insert(id, source(id, case.writers, case.each, &config));
        taker.peer_up(NOW, NodeId(id), 1, addr(id));
    }
    let all = maps[&1].digest();
    if case.first {
        tell(&mut taker, NOW, 1, &state(all.0));
    }
    maps.insert(TAKER, taker);
    let mut dice = Dice(u64::from(seed));
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

/// What one run or the median of several comes to.
fn outcome(case: &Case, seeds: u8) -> Outcome {
    let outcomes: Vec<Outcome> = (0..seeds).map(|seed| catch_up(case, 1 + seed)).collect();
    let median = |of: &dyn Fn(&Outcome) -> u128| {
        let mut all: Vec<u128> = outcomes.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Outcome {
        time: millis(median(&|outcome| outcome.time.as_millis()) as u64),
        arrived: median(&|outcome| outcome.arrived as u128) as usize,
        sent: median(&|outcome| outcome.sent as u128) as usize,
        pulls: median(&|outcome| outcome.pulls as u128) as usize,
        timeouts: median(&|outcome| u128::from(outcome.timeouts)) as u64,
    }
}

/// Goal: what is told twice is little, whatever the way does; what the end of a queue does not take is not sent again
/// and again; and one slow source among others does not set the pace, even if it is asked first. Method: 50,000
/// writes of 16 replicas or of one, from three who have them, 20 ms or more to and fro; without loss, with loss by
/// luck, and with queues shorter than the longest answer. `BRICKWORK_CATCHING_SEEDS` says of how many seeds the median
/// is taken.
#[test]
fn a_replica_that_missed_much_is_told_it_about_once() {
    let seeds = std::env::var("BRICKWORK_CATCHING_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    let necked =
        |rate, queue| Case { neck: Some(Bottleneck { rate, queue }), ..Case::over(ways(0)) };
    let by = |delay, loss| Way { delay: millis(delay), loss };
    let slow =
        |loss| Case { first: true, ..Case::over([by(100, loss), by(10, loss), by(10, loss)]) };
    let one = |case| Case { writers: 1, each: 50_000, ..case };
    let cases = [
        ("no loss", Case::over(ways(0)), 400),
        ("5 % loss", Case::over(ways(5)), 2_600),
        ("200 ms", Case::over([by(100, 0); 3]), 3_800),
        ("one slow, asked first", slow(0), 800),
        ("the same, 5 % loss", slow(5), 4_000),
        ("one slow, one writer", one(slow(0)), 800),
        ("one writer, 5 % loss", one(Case::over(ways(5))), 3_600),
        ("10 MB/s, 50 KB queued", necked(10_000_000, 50_000), 1_300),
        ("1 MB/s, 50 KB queued", necked(1_000_000, 50_000), 4_200),
        ("1 MB/s, 20 KB queued", necked(1_000_000, 20_000), 5_600),
    ];
    let mut least = usize::MAX;
    for (name, case, most) in cases {
        let outcome = outcome(&case, seeds);
        println!("{name:22} {outcome:?}");
        least = least.min(outcome.arrived);
        assert!(outcome.sent * 10 <= least * 11, "{name}: {outcome:?}");
        assert!(outcome.arrived * 20 <= least * 21, "{name}: {outcome:?}");
        assert!(outcome.time < millis(most), "{name}: {outcome:?}");
        assert!(outcome.pulls * 20 < outcome.arrived, "{name}: {outcome:?}");
        let lossy = name.contains("5 %") || name.contains("queued");
        assert!(lossy || outcome.timeouts == 0, "{name}: {outcome:?}");
    }
}
