//! Snapshots: a replica that is made of one is what it was, and nothing is made of a damaged one.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::Dice;
use crate::common::maps::{NOW, addr, config, drain, replica, settle};
use brickwork_core::NodeId;
use brickwork_core::map::{Config, Map, ReplicaId, RestoreError};
use proptest::prelude::*;

fn empty(id: u64, epoch: u64) -> Map {
    let life = ReplicaId::new(NodeId(id), epoch);
    Map::new(NOW, life, "test", config(), 1400, [9; 32]).unwrap()
}

/// Two replicas with `keys` keys, siblings, removals, and writes that only one of them has.
fn busy(keys: u64) -> Vec<Map> {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let mut dice = Dice(keys + 1);
    let mut now = NOW;
    for round in 0..3 {
        for key in 0..keys {
            let map = &mut maps[dice.below(2)];
            match dice.below(4) {
                0 => drop(map.remove(now, &key.to_be_bytes()).unwrap()),
                _ => drop(map.insert(now, &key.to_be_bytes(), &[round; 30]).unwrap()),
            }
        }
        if round < 2 {
            now = settle(&mut maps, now);
        }
    }
    maps.iter_mut().for_each(|map| drop(drain(map)));
    maps
}

fn contents(map: &Map) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let keys = map.prefix(b"").map(|(key, _)| key.to_vec());
    let values = |key: &[u8]| map.siblings(key).map(|sibling| sibling.value.to_vec()).collect();
    keys.map(|key| (key.clone(), values(&key))).collect()
}

/// Goal: a snapshot is all of a replica. Method: what was written and lost on the way is pulled from the restored one
/// as it would have been from the other, and its own writes go on where they were.
#[test]
fn a_restored_replica_goes_on_where_it_was() {
    for keys in [0, 1, 50, 5_000] {
        let mut maps = busy(keys);
        let mut again = empty(1, 1);
        again.restore(NOW, maps[0].snapshot()).unwrap();
        assert_eq!(again.digest(), maps[0].digest());
        assert_eq!(contents(&again), contents(&maps[0]));
        assert_eq!((again.bytes(), again.metadata()), (maps[0].bytes(), maps[0].metadata()));
        let next = maps[0].insert(NOW, b"next", b"v").unwrap();
        assert_eq!(again.insert(NOW, b"next", b"v").unwrap(), next);
        again.peer_up(NOW, NodeId(2), 1, addr(2));
        maps[0] = again;
        let mut now = NOW + Duration::from_secs(20);
        maps.iter_mut().for_each(|map| map.handle_timeout(now));
        for _ in 0..20 {
            now = settle(&mut maps, now);
        }
        assert_eq!(maps[0].digest(), maps[1].digest(), "{keys} keys");
        assert_eq!(contents(&maps[0]), contents(&maps[1]));
        assert_eq!((maps[0].metadata(), maps[1].metadata()), ((0, 0), (0, 0)));
        assert_eq!((maps[0].stats().full_syncs, maps[1].stats().full_syncs), (0, 0), "{keys} keys");
    }
}

/// Goal: whoever lost writes comes back as another replica that knows what the snapshot does. Method: the writes
/// after the snapshot are lost here and known to a peer.
#[test]
fn an_old_snapshot_is_restored_under_a_new_epoch() {
    let mut maps = busy(100);
    let mut now = settle(&mut maps, NOW);
    let old: Vec<_> = maps[0].snapshot().collect();
    maps[0].insert(now, b"after", b"1").unwrap();
    maps[0].remove(now, &7_u64.to_be_bytes()).unwrap();
    now = settle(&mut maps, now);
    let mut again = empty(1, 2);
    again.restore(now, &old).unwrap();
    assert_eq!(again.get(b"after"), None);
    again.peer_up(now, NodeId(2), 1, addr(2));
    maps[1].peer_up(now, NodeId(1), 2, addr(1));
    maps[0] = again;
    maps[0].insert(now, b"mine", b"2").unwrap();
    for _ in 0..4 {
        now = settle(&mut maps, now);
    }
    assert_eq!(contents(&maps[0]), contents(&maps[1]));
    assert_eq!(maps[0].get(b"after"), Some(&b"1"[..]));
    assert_eq!(maps[0].get(&7_u64.to_be_bytes()), None);
}

/// Goal: damage is noticed, wherever it is, and leaves an empty map empty. Method: every bit of every byte of a small
/// snapshot, every shorter one, and chunks that are missing, doubled, swapped or another's.
#[test]
fn damage_is_noticed_and_changes_nothing() {
    let maps = busy(20);
    let chunks: Vec<_> = maps[0].snapshot().collect();
    assert_eq!(chunks.len(), 4);
    let mut target = empty(1, 1);
    let mut refused = |chunks: &[Vec<u8>]| {
        let error = target.restore(NOW, chunks).unwrap_err();
        assert_eq!((target.len(), target.bytes(), target.digest()), (0, 0, (0, 0)));
        error
    };
    for (number, chunk) in chunks.iter().enumerate() {
        let corrupt = RestoreError::Corrupt { chunk: number as u64 };
        let mut damaged = chunks.clone();
        for at in 0..chunk.len() {
            for bit in 0..8 {
                damaged[number][at] ^= 1 << bit;
                assert_eq!(refused(&damaged), corrupt);
                damaged[number][at] ^= 1 << bit;
            }
            damaged[number].truncate(at);
            assert_eq!(refused(&damaged), corrupt);
            damaged[number].clone_from(chunk);
        }
        let mut without = chunks.clone();
        without.remove(number);
        let wanted = if number == 3 {
            RestoreError::Incomplete
        } else {
            RestoreError::Misplaced { chunk: number as u64 }
        };
        assert_eq!(refused(&without), wanted);
        let mut doubled = chunks.clone();
        doubled.insert(number, chunk.clone());
        assert_eq!(refused(&doubled), RestoreError::Misplaced { chunk: number as u64 + 1 });
        let mut others = chunks.clone();
        others[number] = maps[1].snapshot().nth(number).unwrap();
        let place = number.max(1) as u64;
        assert_eq!(refused(&others), RestoreError::Misplaced { chunk: place });
    }
    assert_eq!(refused(&[]), RestoreError::Incomplete);
    target.restore(NOW, &chunks).unwrap();
    assert_eq!(target.restore(NOW, &chunks), Err(RestoreError::NotEmpty));
    let mut met = empty(1, 1);
    met.peer_up(NOW, NodeId(2), 1, addr(2));
    assert_eq!(met.restore(NOW, &chunks), Err(RestoreError::NotEmpty));
    let life = ReplicaId::new(NodeId(1), 1);
    let mut other = Map::new(NOW, life, "other", config(), 1400, [9; 32]).unwrap();
    assert_eq!(other.restore(NOW, &chunks), Err(RestoreError::WrongCluster));
}

/// Goal: what the configuration does not allow is refused by its name. Method: limits one below what there is.
#[test]
fn a_snapshot_beyond_the_limits_is_refused() {
    let maps = busy(50);
    let (keys, bytes) = (contents(&maps[0]).len(), maps[0].bytes());
    let limit = |change: &dyn Fn(&mut Config)| {
        let mut limits = config();
        change(&mut limits);
        let life = ReplicaId::new(NodeId(1), 1);
        let mut map = Map::new(NOW, life, "test", limits, 1400, [9; 32]).unwrap();
        map.restore(NOW, maps[0].snapshot())
    };
    let too_large = |limit| Err(RestoreError::TooLarge { limit });
    assert_eq!(limit(&|limits| limits.max_keys = keys / 2), too_large("max_keys"));
    assert_eq!(limit(&|limits| limits.max_bytes = bytes - 1), too_large("max_bytes"));
    assert_eq!(limit(&|limits| limits.max_bytes = bytes), Ok(()));
    assert_eq!(limit(&|limits| limits.max_replicas = 1), too_large("max_replicas"));
}

/// Goal: a value that is longer than a chunk is in it all the same. Method: the longest that a datagram carries, many
/// times, so that chunks end amid everything.
#[test]
fn chunks_are_bounded_and_whole() {
    let mut map = replica(1, &[]);
    for key in 0..2_000_u64 {
        map.insert(NOW, &key.to_be_bytes(), &[7; 500]).unwrap();
    }
    let chunks: Vec<_> = map.snapshot().collect();
    assert!(chunks.len() > 16);
    assert!(chunks.iter().all(|chunk| chunk.len() <= 64 * 1024));
    let mut again = empty(1, 1);
    again.restore(NOW, &chunks).unwrap();
    assert_eq!((again.digest(), again.len()), (map.digest(), 2_000));
}

proptest! {
    /// Goal: no bytes make it panic, though the checksum be right. Method: bytes of chunks replaced, and signed anew.
    #[test]
    fn units_made_up_never_panic(
        changes in proptest::collection::vec((0..4_usize, any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kinds in proptest::collection::vec(0..5_u8, 4),
        keep_kinds: bool,
    ) {
        let maps = busy(5);
        let mut chunks: Vec<_> = maps[0].snapshot().collect();
        for (number, at, byte) in changes {
            let chunk = &mut chunks[number];
            let at = 18 + at.index(chunk.len() - 26);
            chunk[at] = byte;
        }
        for (chunk, kind) in chunks.iter_mut().zip(kinds) {
            if !keep_kinds {
                chunk[17] = kind;
            }
            let len = chunk.len() - 8;
            let checksum = xxhash_rust::xxh3::xxh3_64(&chunk[..len]).to_le_bytes();
            chunk[len..].copy_from_slice(&checksum);
        }
        let mut map = empty(1, 1);
        if map.restore(NOW, &chunks).is_err() {
            prop_assert_eq!((map.len(), map.digest()), (0, (0, 0)));
        }
        map.insert(NOW, b"key", b"value").unwrap();
        map.peer_up(NOW, NodeId(2), 1, addr(2));
        let mut maps = vec![map, replica(2, &[1])];
        settle(&mut maps, NOW);
    }
}
