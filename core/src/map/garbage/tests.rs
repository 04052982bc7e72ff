#![allow(clippy::unwrap_used)]

use super::*;
use crate::map::{Config, ReplicaId, wire};

const NOW: Instant = Instant::ZERO;

/// A map of which every fifth key was removed, and nobody lacks anything.
fn emptied() -> Map {
    let life = ReplicaId::new(NodeId(1), 1);
    let mut map = Map::new(NOW, life, "test", Config::lan(), 1_400, [7; 32]).unwrap();
    let key = |number: u32| number.to_le_bytes();
    for number in 0..4_000 {
        map.insert(NOW, &key(number), &[7; 100]).unwrap();
    }
    for number in (0..4_000).filter(|number| number % 5 == 0) {
        map.remove(NOW, &key(number)).unwrap();
    }
    let me = map.replicas.me();
    map.replicas.raise_floor(me, u64::MAX);
    while let Some(slot) = map.replicas.unlog_one(me) {
        map.store.tidy(&map.replicas, slot);
    }
    map.garbage.seen = map.replicas.digest();
    assert!(map.is_clean());
    map
}

/// Lets it rest until it is done. Returns how many steps that took.
fn rest(map: &mut Map) -> usize {
    let mut steps = 0;
    while let Some(at) = map.garbage.resting {
        assert!(steps < 1_000, "it comes to an end");
        map.fire_garbage(at);
        steps += 1;
    }
    steps
}

/// Goal: pages are cleared one by one, and when all are nothing is waited for.
#[test]
fn room_is_given_back_in_steps() {
    let mut map = emptied();
    map.rest(NOW);
    assert_eq!(map.garbage.resting, Some(NOW + REST));
    assert!(rest(&mut map) > 3);
    assert!(!map.store.rest());
    assert_eq!(map.len(), 3_200);
}

/// Goal: what keeps slots as they are holds it up, and no more. Method: a walk through the entries.
#[test]
fn room_is_given_back_after_what_was_in_the_way() {
    let mut map = emptied();
    map.retiring.begin_walk(NOW);
    map.rest(NOW);
    assert_eq!(map.garbage.resting, Some(NOW + PIN));
    map.retiring.end_walk();
    assert!(rest(&mut map) > 3);
    assert!(!map.store.rest());
}

/// Goal: it ends with news, and begins with the next rest.
#[test]
fn news_are_first() {
    let mut map = emptied();
    map.rest(NOW);
    map.insert(NOW, b"new", b"value").unwrap();
    map.fire_garbage(NOW + REST);
    assert_eq!(map.garbage.resting, None);
}

/// Goal: slots stay as they are while a full sync is given.
#[test]
fn room_is_kept_under_a_session() {
    let mut map = emptied();
    map.peer_up(NOW, NodeId(2), 1, ([10, 0, 0, 1], 2).into());
    let slot = map.peers.slots().next().unwrap();
    // Its nonce, a budget, the replica epoch; a full sync is wanted.
    let body = [&[7, 100][..], &1_u64.to_le_bytes(), &[8]].concat();
    map.apply_frame(NOW, slot, wire::parse(wire::PULL, &body).unwrap());
    assert!(map.is_pinned());
    let slots = map.store.slots();
    map.rest(NOW);
    assert_eq!((map.garbage.resting, map.store.slots()), (Some(NOW + PIN), slots));
}
