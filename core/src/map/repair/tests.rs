#![allow(clippy::unwrap_used)]

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use crate::event::Event;
use crate::id::NodeId;
use crate::map::dot::Packed;
use crate::map::{Config, Map, ReplicaId};
use crate::time::Instant;

fn addr(id: u64) -> core::net::SocketAddr {
    ([10, 0, 0, 1], u16::try_from(id).unwrap()).into()
}

fn replicas(count: u64) -> Vec<Map> {
    let new = |id: u64| {
        let life = ReplicaId::new(NodeId(id), 1);
        let entropy = [u8::try_from(id).unwrap(); 32];
        let mut map =
            Map::new(Instant::ZERO, life, "test", Config::local(), 1_400, entropy).unwrap();
        for other in (1..=count).filter(|other| *other != id) {
            map.peer_up(Instant::ZERO, NodeId(other), 1, addr(other));
        }
        map
    };
    (1..=count).map(new).collect()
}

/// Lets time pass. Returns the time, and who was told of whom.
fn run(maps: &mut [Map], mut now: Instant, time: Duration) -> (Instant, Vec<(u64, NodeId)>) {
    let end = now + time;
    let (mut buf, mut told) = ([0; 1_400], Vec::new());
    while now < end {
        let mut quiet = true;
        for at in 0..maps.len() {
            while let Some(sent) = maps[at].poll_transmit(&mut buf) {
                quiet = false;
                let (to, mut bytes) = (usize::from(sent.to.port()) - 1, sent.payload.to_vec());
                maps[to].handle_packet(now, addr(at as u64 + 1), &mut bytes).unwrap();
            }
            while let Some(event) = maps[at].poll_event() {
                if let Event::Diverged { id } = event {
                    told.push((at as u64 + 1, id));
                }
            }
        }
        if quiet {
            now += Duration::from_millis(5);
            maps.iter_mut().for_each(|map| map.handle_timeout(now));
        }
    }
    (now, told)
}

type Contents = BTreeMap<Vec<u8>, Vec<(u64, u64)>>;

fn contents(map: &Map) -> Contents {
    let dots = |key: &[u8]| {
        map.siblings(key).map(|one| (one.dot.replica.node.0, one.dot.counter)).collect()
    };
    map.iter().map(|(key, _)| (key.to_vec(), dots(key))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Goal: whatever values replicas lose or fail to remove, they become equal again, and nothing that one of them
    /// shows is lost. Method: damage in memory after all were equal, with marks there still or collected.
    #[test]
    fn replicas_that_differ_become_equal_again(
        count in 2..4_u64,
        writes in proptest::collection::vec((0..3_usize, 0..8_u8, any::<bool>()), 1..25),
        damage in proptest::collection::vec((0..3_usize, 0..8_u8, any::<bool>()), 1..5),
        collected in any::<bool>(),
    ) {
        let mut maps = replicas(count);
        let mut now = Instant::ZERO;
        for (at, key, put) in writes {
            let at = at % maps.len();
            if put {
                maps[at].insert(now, &[key], b"value").unwrap();
            } else {
                maps[at].remove(now, &[key]).unwrap();
            }
        }
        let calm = if collected { 20 } else { 1 };
        (now, _) = run(&mut maps, now, Duration::from_secs(calm));
        let before = contents(&maps[0]);
        prop_assert!(maps.iter().all(|map| contents(map) == before));
        for (at, key, lose) in damage {
            let at = at % maps.len();
            let map = &mut maps[at];
            let Some(slot) = map.store.slot(&[key]) else { continue };
            let dot = map.store.entry(slot).siblings().next().map(|sibling| sibling.dot);
            match dot {
                Some(dot) if lose => map.store.lose_sibling(&map.replicas, slot, dot),
                // One that should have gone, of the first write that there ever was.
                _ => {
                    let dot = Packed::new(0, 1);
                    if map.replicas.contains(dot)
                        && map.store.entry(slot).siblings().all(|own| own.dot != dot)
                    {
                        map.store.add_sibling(&map.replicas, slot, dot, b"back");
                    }
                }
            }
        }
        let damaged: Vec<Contents> = maps.iter().map(contents).collect();
        let equal = damaged.iter().all(|one| *one == damaged[0]);
        let (_, told) = run(&mut maps, now, Duration::from_secs(100));
        prop_assert_eq!(told.is_empty(), equal, "{:?}", told);
        let after = contents(&maps[0]);
        for map in &maps {
            prop_assert_eq!(&contents(map), &after);
            prop_assert_eq!(map.digest(), maps[0].digest());
        }
        // What is in all of them stays, and what one kept of the right ones too.
        for (key, dots) in &before {
            for dot in dots.iter().filter(|dot| {
                damaged.iter().any(|one| one.get(key).is_some_and(|dots| dots.contains(dot)))
            }) {
                let kept = after.get(key).is_some_and(|dots| dots.contains(dot));
                prop_assert!(kept, "{:?} of {:?} is lost", dot, key);
            }
        }
    }
}

#[test]
fn what_a_mark_speaks_against_does_not_come_back() {
    for damaged in 0..2 {
        let mut maps = replicas(3);
        maps[0].insert(Instant::ZERO, b"key", b"old").unwrap();
        let (now, _) = run(&mut maps, Instant::ZERO, Duration::from_secs(5));
        // Marks are kept for the third.
        maps.truncate(2);
        maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(3)));
        maps[1].insert(now, b"key", b"new").unwrap();
        let (now, _) = run(&mut maps, now, Duration::from_millis(200));
        assert!(maps.iter().all(|map| map.metadata().0 > 0), "the mark is there");
        let map = &mut maps[damaged];
        let slot = map.store.slot(b"key").unwrap();
        let first = map.replicas.number(ReplicaId::new(NodeId(1), 1)).unwrap();
        map.store.add_sibling(&map.replicas, slot, Packed::new(first, 1), b"old");
        let (_, told) = run(&mut maps, now, Duration::from_secs(10));
        assert!(!told.is_empty());
        for map in &maps {
            let values: Vec<&[u8]> = map.siblings(b"key").map(|sibling| sibling.value).collect();
            assert_eq!(values, [b"new"]);
        }
    }
}

#[test]
fn what_cannot_be_mended_is_told_now_and_then() {
    let mut maps = replicas(2);
    maps[0].insert(Instant::ZERO, b"key", b"value").unwrap();
    let (now, told) = run(&mut maps, Instant::ZERO, Duration::from_secs(5));
    assert_eq!(told, []);
    // As a sum that went wrong would have it.
    maps[0].store.spoil_digest();
    let (_, told) = run(&mut maps, now, Duration::from_secs(40));
    let mine = told.iter().filter(|(at, id)| (*at, *id) == (1, NodeId(2))).count();
    assert!((2..=4).contains(&mine), "{told:?}");
    assert!(maps[0].stats().diverged > 4);
    assert_eq!(contents(&maps[0]), contents(&maps[1]));
}
