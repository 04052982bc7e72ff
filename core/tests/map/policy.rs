//! Which of concurrent values is read, by the policy of the map.

#![allow(clippy::unwrap_used)]

use crate::common::maps::{NOW, addr, settle};
use brickwork_core::map::{Config, InsertError, Map, Policy, ReplicaId};
use brickwork_core::{Instant, NodeId};
use proptest::prelude::*;

fn replicas(count: u64, policy: Policy) -> Vec<Map> {
    let mut config = Config::local();
    config.policy = policy;
    let new = |id: u64| {
        let life = ReplicaId::new(NodeId(id), 1);
        Map::new(NOW, life, "test", config.clone(), 1_400, [id as u8; 32]).unwrap()
    };
    let mut maps: Vec<Map> = (1..=count).map(new).collect();
    connect(&mut maps, NOW);
    maps
}

fn connect(maps: &mut [Map], now: Instant) {
    let ids: Vec<NodeId> = maps.iter().map(|map| map.replica().node).collect();
    for map in maps {
        let me = map.replica().node;
        ids.iter().filter(|id| **id != me).for_each(|id| map.peer_up(now, *id, 1, addr(id.0)));
    }
}

fn part(maps: &mut [Map], now: Instant) {
    let ids: Vec<NodeId> = maps.iter().map(|map| map.replica().node).collect();
    maps.iter_mut().for_each(|map| ids.iter().for_each(|id| map.peer_down(now, *id)));
}

/// Goal: whoever had heard of more is read, whoever it is. Method: two sides of a partition write a key at the same
/// time, one of them after other keys.
#[test]
fn by_lamport_the_later_of_two_sides_is_read() {
    let mut by_rendezvous = 0;
    for (key, later) in (0..20_u8).flat_map(|key| [(key, 0), (key, 1)]) {
        let read = |policy| {
            let mut maps = replicas(2, policy);
            part(&mut maps, NOW);
            for n in 0..4_u8 {
                maps[later].insert(NOW, b"another", &[n]).unwrap();
            }
            for (at, map) in maps.iter_mut().enumerate() {
                map.insert(NOW, &[key], if at == later { b"later" } else { b"early" }).unwrap();
            }
            connect(&mut maps, NOW);
            settle(&mut maps, NOW);
            assert_eq!(maps[0].siblings(&[key]).count(), 2);
            assert_eq!(maps[0].get(&[key]), maps[1].get(&[key]));
            maps[0].get(&[key]).unwrap().to_vec()
        };
        assert_eq!(read(Policy::Lamport), b"later", "key {key}");
        by_rendezvous += usize::from(read(Policy::Rendezvous) == b"later");
    }
    assert_eq!(by_rendezvous, 20, "one of two, whichever came later");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Goal: the Lamport order is that of Lamport's clocks, at all replicas. Method: random writes at three replicas
    /// that are all told or not, beside clocks that are kept by hand, and one that starts again in between.
    #[test]
    fn the_order_is_that_of_lamport_clocks(
        acts in proptest::collection::vec((0..3_usize, 0..4_u8, 0..6_u8), 1..40),
    ) {
        let mut maps = replicas(3, Policy::Lamport);
        let mut now = NOW;
        let mut clocks = [0_u64; 3];
        // By key, what is shown at each replica: time, writer, value.
        let mut shown = vec![vec![Vec::<(u64, u64, Vec<u8>)>::new(); 4]; 3];
        part(&mut maps, now);
        for (n, (at, key, act)) in (0_u64..).zip(acts) {
            match act {
                0 => {
                    connect(&mut maps, now);
                    now = settle(&mut maps, now);
                    part(&mut maps, now);
                    // The test of values: all that nothing supersedes.
                    for key in 0..4_u8 {
                        let left: Vec<Vec<u8>> =
                            maps[0].siblings(&[key]).map(|one| one.value.to_vec()).collect();
                        let mut all: Vec<_> =
                            shown.iter().flat_map(|of| of[usize::from(key)].clone()).collect();
                        all.retain(|(.., value)| left.contains(value));
                        all.sort();
                        all.dedup();
                        prop_assert_eq!(all.len(), left.len());
                        shown.iter_mut().for_each(|of| of[usize::from(key)] = all.clone());
                    }
                    for (clock, of) in clocks.iter_mut().zip(&shown) {
                        let heard = of.iter().flatten().map(|(time, ..)| *time).max();
                        *clock = (*clock).max(heard.unwrap_or(0));
                    }
                }
                1 => {
                    let life = maps[at].replica();
                    let mut config = Config::local();
                    config.policy = Policy::Lamport;
                    let mut again = Map::new(now, life, "test", config, 1_400, [9; 32]).unwrap();
                    again.restore(now, maps[at].snapshot()).unwrap();
                    maps[at] = again;
                    // What it knows of the time is what it still shows.
                    let known = shown[at].iter().flatten().map(|(time, ..)| *time).max();
                    clocks[at] = known.unwrap_or(0);
                }
                _ => {
                    let value = n.to_le_bytes().to_vec();
                    clocks[at] += 1;
                    maps[at].insert(now, &[key], &value).unwrap();
                    let id = maps[at].replica().node.0;
                    shown[at][usize::from(key)] = vec![(clocks[at], id, value)];
                }
            }
            for (map, of) in maps.iter().zip(&shown) {
                for (key, of) in (0_u8..).zip(of) {
                    let read = of.iter().max().map(|(.., value)| value.as_slice());
                    prop_assert_eq!(map.get(&[key]), read);
                }
            }
        }
    }
}

#[test]
fn values_by_lamport_are_shown_as_they_were_written() {
    let mut map = replicas(1, Policy::Lamport).pop().unwrap();
    map.insert(NOW, b"empty", b"").unwrap();
    map.insert(NOW, b"full", &[7; 65_528]).unwrap();
    let refused = map.insert(NOW, b"full", &[7; 65_529]);
    assert_eq!(refused, Err(InsertError::ValueTooLong { len: 65_529, max: 65_528 }));
    assert_eq!((map.get(b"empty"), map.get(b"full")), (Some(&[][..]), Some(&[7; 65_528][..])));
    let all: usize = map.prefix(b"").map(|(_, value)| value.len()).sum();
    assert_eq!((all, map.iter().count()), (65_528, 2));
    assert_eq!(map.siblings(b"empty").next().map(|one| one.value), Some(&[][..]));
    assert_eq!(map.bytes(), "emptyfull".len() + 65_528 + 2 * 8);
}
