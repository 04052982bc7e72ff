//! Replicas of the map against each other, with every datagram in the test's own hands.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::map::{Config, InsertError, Map, ReplicaId};
use brickwork_core::{Event, Instant, NodeId, PacketError, hrw};
use proptest::prelude::*;

const NOW: Instant = Instant::ZERO;

fn addr(id: u64) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(id).unwrap()).into()
}

fn config() -> Config {
    Config::lan()
}

/// A replica of node `id`, with the others as peers.
fn replica(id: u64, others: &[u64]) -> Map {
    let mut map =
        Map::new(NOW, ReplicaId::new(NodeId(id), 1), "test", config(), 1400, [7; 32]).unwrap();
    for &other in others {
        map.peer_up(NOW, NodeId(other), 1, addr(other));
    }
    map
}

/// Everything that a replica has to send now, as (receiver, bytes).
fn drain(map: &mut Map) -> Vec<(u64, Vec<u8>)> {
    let mut buf = [0; 1400];
    let mut sent = Vec::new();
    while let Some(datagram) = map.poll_transmit(&mut buf) {
        sent.push((u64::from(datagram.to.port()), datagram.payload.to_vec()));
    }
    sent
}

fn deliver(map: &mut Map, now: Instant, from: u64, bytes: &[u8]) {
    map.handle_packet(now, addr(from), &mut bytes.to_vec()).unwrap();
}

/// Carries all datagrams to and fro, and fires timers, until nothing moves for two seconds.
fn settle(maps: &mut [Map], mut now: Instant) -> Instant {
    let end = now + Duration::from_secs(5);
    while now < end {
        let mut quiet = true;
        for at in 0..maps.len() {
            let from = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                quiet = false;
                let receiver = maps.iter_mut().find(|map| map.replica().node.0 == to);
                if let Some(receiver) = receiver {
                    deliver(receiver, now, from, &bytes);
                }
            }
        }
        if quiet {
            now += Duration::from_millis(10);
            maps.iter_mut().for_each(|map| map.handle_timeout(now));
        }
    }
    now
}

/// Whole orders of three things.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The counterexample to "one record per key, rendezvous between concurrent ones": r1 by S1, r2 by S2
/// having seen r1, r3 by S3 having seen neither, and the scores S1 > S3 > S2. Every observer must end
/// with the same two siblings and read r3, whatever the order of arrival.
#[test]
fn the_order_of_arrival_does_not_decide_between_r1_r2_and_r3() {
    let key = b"contested";
    let hash = hrw::key_hash(key);
    let mut by_score: Vec<u64> = (1..=3).collect();
    by_score.sort_by_key(|&id| std::cmp::Reverse(hrw::score(hash, NodeId(id))));
    let [s1, s3, s2] = [by_score[0], by_score[1], by_score[2]];

    let observers: Vec<u64> = (11..17).collect();
    let everyone: Vec<u64> = [s1, s2, s3].iter().chain(&observers).copied().collect();
    let mut maps: Vec<Map> = everyone.iter().map(|&id| replica(id, &everyone)).collect();
    let now = settle(&mut maps, NOW);

    // The three writes, each as the datagrams that its writer pushes.
    maps[0].insert(now, key, b"r1").unwrap();
    let r1 = drain(&mut maps[0]);
    let to_s2 = r1.iter().find(|(to, _)| *to == s2).unwrap();
    deliver(&mut maps[1], now, s1, &to_s2.1);
    maps[1].insert(now, key, b"r2").unwrap();
    let r2 = drain(&mut maps[1]);
    maps[2].insert(now, key, b"r3").unwrap();
    let r3 = drain(&mut maps[2]);

    let writes = [(s1, r1), (s2, r2), (s3, r3)];
    let mut digests = BTreeSet::new();
    for (order, &observer) in ORDERS.iter().zip(&observers) {
        let map = maps.iter_mut().find(|map| map.replica().node.0 == observer).unwrap();
        for &write in order {
            let (from, datagrams) = &writes[write];
            for (_, bytes) in datagrams.iter().filter(|(to, _)| *to == observer) {
                deliver(map, now, *from, bytes);
                deliver(map, now, *from, bytes);
            }
        }
        let values: BTreeSet<&[u8]> = map.siblings(key).map(|sibling| sibling.value).collect();
        assert_eq!(values, BTreeSet::from([&b"r2"[..], &b"r3"[..]]), "order {order:?}");
        assert_eq!(map.get(key), Some(&b"r3"[..]), "order {order:?}");
        digests.insert(map.digest());
    }
    assert_eq!(digests.len(), 1, "equal writes make equal digests");
}

/// A chunk carries exactly the dots that it explains: losing any one of many loses no key for good.
#[test]
fn whichever_datagram_is_lost_its_keys_are_pulled() {
    for lost in 0..8 {
        let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
        let now = settle(&mut maps, NOW);
        for key in 0..100_u8 {
            maps[0].insert(now, &[key], &[key; 60]).unwrap();
        }
        let now = now + Duration::from_secs(1);
        maps[0].handle_timeout(now);
        let pushed = drain(&mut maps[0]);
        assert!(pushed.len() > 4, "several datagrams: {}", pushed.len());
        for (at, (_, bytes)) in pushed.iter().enumerate() {
            if at != lost {
                deliver(&mut maps[1], now, 1, bytes);
            }
        }
        settle(&mut maps, now);
        assert_eq!(maps[1].len(), 100, "without datagram {lost}");
        assert_eq!(maps[0].digest(), maps[1].digest());
    }
}

#[test]
fn a_removed_key_stays_removed_when_its_old_value_comes_late_and_twice() {
    let mut maps = vec![replica(1, &[2, 3]), replica(2, &[1, 3]), replica(3, &[1, 2])];
    let now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"old").unwrap();
    let old = drain(&mut maps[0]);
    let to = |id: u64| &old.iter().find(|(to, _)| *to == id).unwrap().1;
    deliver(&mut maps[1], now, 1, to(2));
    assert!(maps[1].remove(now, b"k").unwrap());
    assert!(!maps[1].remove(now, b"k").unwrap(), "there is nothing left to remove");
    let now = settle(&mut maps, now);
    assert_eq!(maps[2].get(b"k"), None);
    deliver(&mut maps[2], now, 1, to(3));
    deliver(&mut maps[1], now, 1, to(2));
    settle(&mut maps, now);
    assert!(maps.iter().all(|map| map.get(b"k").is_none() && map.is_empty()));
}

#[test]
fn a_concurrent_write_survives_a_removal() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let mut now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"first").unwrap();
    now = settle(&mut maps, now);
    maps[0].remove(now, b"k").unwrap();
    maps[1].insert(now, b"k", b"second").unwrap();
    settle(&mut maps, now);
    for map in &maps {
        assert_eq!(map.get(b"k"), Some(&b"second"[..]));
        assert_eq!(map.siblings(b"k").count(), 1);
    }
}

#[test]
fn resolving_with_an_old_context_keeps_what_came_since() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"a").unwrap();
    maps[1].insert(now, b"k", b"b").unwrap();
    let now = settle(&mut maps, now);
    let context = maps[0].context(b"k");
    assert_eq!(maps[0].siblings(b"k").count(), 2);
    let both = maps[1].context(b"k");
    maps[1].resolve(now, b"k", &both, Some(b"ab")).unwrap();
    let now = settle(&mut maps, now);
    // The context names a and b, which are gone; "ab" came since and is kept.
    maps[0].resolve(now, b"k", &context, Some(b"ba")).unwrap();
    settle(&mut maps, now);
    for map in &maps {
        let values: BTreeSet<&[u8]> = map.siblings(b"k").map(|sibling| sibling.value).collect();
        assert_eq!(values, BTreeSet::from([&b"ab"[..], &b"ba"[..]]));
    }
}

#[test]
fn local_limits_are_errors_that_name_them() {
    let mut limits = config();
    (limits.max_key, limits.max_value, limits.max_keys, limits.max_bytes) = (4, 4, 2, 14);
    let mut map =
        Map::new(NOW, ReplicaId::new(NodeId(1), 1), "test", limits, 1400, [7; 32]).unwrap();
    let mut insert = |key: &[u8], value: &[u8]| map.insert(NOW, key, value).map(drop);
    assert_eq!(insert(b"12345", b""), Err(InsertError::KeyTooLong { len: 5, max: 4 }));
    assert_eq!(insert(b"1", b"12345"), Err(InsertError::ValueTooLong { len: 5, max: 4 }));
    assert_eq!(insert(b"1234", b"1234"), Ok(()));
    assert_eq!(insert(b"abcd", b"1234"), Err(InsertError::TooManyBytes { max: 14 }));
    assert_eq!(insert(b"b", b"1"), Ok(()));
    assert_eq!(insert(b"c", b"1"), Err(InsertError::TooManyKeys { max: 2 }));
    assert_eq!(map.len(), 2);
}

/// A replica at its limit refuses what would break it, says so once, loses nothing, and takes the
/// data when there is room: here, when the other side shrinks its value.
#[test]
fn a_full_replica_refuses_whole_chunks_and_recovers() {
    let mut limits = config();
    limits.max_bytes = 100;
    let mut small =
        Map::new(NOW, ReplicaId::new(NodeId(2), 1), "test", limits, 1400, [7; 32]).unwrap();
    small.peer_up(NOW, NodeId(1), 1, addr(1));
    let mut maps = vec![replica(1, &[2]), small];
    let now = settle(&mut maps, NOW);
    maps[1].insert(now, b"mine", b"kept").unwrap();
    maps[0].insert(now, b"large", &[7; 300]).unwrap();
    let now = settle(&mut maps, now);
    assert_eq!((maps[1].get(b"large"), maps[1].get(b"mine")), (None, Some(&b"kept"[..])));
    assert!(maps[1].stats().chunks_refused > 0);
    let full = std::iter::from_fn(|| maps[1].poll_event()).filter(|event| *event == Event::Full);
    assert_eq!(full.count(), 1);
    maps[0].insert(now, b"large", &[7; 30]).unwrap();
    let now = settle(&mut maps, now);
    settle(&mut maps, now + Duration::from_secs(10));
    assert_eq!(maps[1].get(b"large"), Some(&[7; 30][..]));
    assert_eq!(maps[0].digest(), maps[1].digest());
}

#[test]
fn a_chunk_for_another_boot_of_this_node_is_counted_and_skipped() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"v").unwrap();
    let pushed = drain(&mut maps[0]);
    let mut reborn =
        Map::new(NOW, ReplicaId::new(NodeId(2), 2), "test", config(), 1400, [7; 32]).unwrap();
    reborn.peer_up(NOW, NodeId(1), 1, addr(1));
    deliver(&mut reborn, now, 1, &pushed[0].1);
    assert_eq!((reborn.stats().misaddressed, reborn.get(b"k")), (1, None));
}

/// In a mass start the first digests meet replicas that do not know their sender yet. Pushes must not
/// wait for a later digest.
#[test]
fn a_push_reaches_a_peer_that_never_spoke() {
    let mut a = replica(1, &[2]);
    let mut b = replica(2, &[1]);
    drain(&mut b); // its digest is lost
    a.insert(NOW, b"k", b"v").unwrap();
    for (_, bytes) in drain(&mut a) {
        deliver(&mut b, NOW, 1, &bytes);
    }
    assert_eq!(b.get(b"k"), Some(&b"v"[..]));
}

#[test]
fn changes_are_told_once_each() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let mut now = settle(&mut maps, NOW);
    for value in [b"a", b"b"] {
        maps[0].insert(now, b"k", value).unwrap();
        now = settle(&mut maps, now);
    }
    maps[0].remove(now, b"k").unwrap();
    settle(&mut maps, now);
    let writers: Vec<_> = std::iter::from_fn(|| maps[1].poll_event())
        .map(|event| match event {
            Event::Changed { key, writer } if &*key == b"k" => writer,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(writers, [Some(NodeId(1)), Some(NodeId(1)), None]);
}

/// Every life of a node that writes a key leaves a mark on it. Without room for one more the write is
/// an error; it must not succeed here and reach nobody.
#[test]
fn an_entry_that_would_fit_no_datagram_is_refused_at_the_writer() {
    let mut refused = None;
    let mut maps = vec![replica(1, &[])];
    for life in 2..100 {
        let mut next = replica(life, &[1]);
        maps[0].peer_up(NOW, NodeId(life), 1, addr(life));
        std::mem::swap(&mut maps[0], &mut next);
        maps[0].peer_up(NOW, NodeId(life - 1), 1, addr(life - 1));
        next.peer_up(NOW, NodeId(life), 1, addr(life));
        maps.insert(1, next);
        maps.truncate(2);
        let now = settle(&mut maps, NOW);
        if let Err(error) = maps[0].insert(now, b"k", &[7; 100]) {
            refused = Some((life, error));
            break;
        }
        settle(&mut maps, now);
        assert_eq!(maps[0].digest(), maps[1].digest(), "life {life}");
        assert_eq!(maps[0].stats().oversize, 0);
    }
    let (life, error) = refused.expect("a limit is met");
    assert!(matches!(error, InsertError::EntryTooLarge { max: 1400, .. }), "{error}");
    assert!(life > 40, "no sooner than need be: {life}");
}

#[test]
fn known_replicas_still_sync_when_no_new_one_is_admitted() {
    let mut limits = config();
    limits.max_replicas = 2;
    let mut small =
        Map::new(NOW, ReplicaId::new(NodeId(2), 1), "test", limits, 1400, [7; 32]).unwrap();
    small.peer_up(NOW, NodeId(1), 1, addr(1));
    let mut maps = vec![replica(1, &[2]), small];
    let now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"v").unwrap();
    settle(&mut maps, now);
    assert_eq!(maps[1].get(b"k"), Some(&b"v"[..]));
}

#[test]
fn overwriting_needs_no_more_room_than_there_was() {
    let mut limits = config();
    limits.max_bytes = 5;
    let mut map =
        Map::new(NOW, ReplicaId::new(NodeId(1), 1), "test", limits, 1400, [7; 32]).unwrap();
    map.insert(NOW, b"k", b"1234").unwrap();
    map.insert(NOW, b"k", b"5678").unwrap();
    assert_eq!(map.insert(NOW, b"k", b"56789"), Err(InsertError::TooManyBytes { max: 5 }));
    assert_eq!(map.get(b"k"), Some(&b"5678"[..]));
}

/// Answers that take longer than pulls used to wait are waited for in the end, and a cluster that is
/// in step stops asking.
#[test]
fn pulls_adapt_when_answers_become_slow() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let mut now = settle(&mut maps, NOW);
    for key in 0..50_u8 {
        maps[0].insert(now, &[key], &[7; 60]).unwrap();
        now = settle(&mut maps, now);
    }
    // From here on every datagram takes 80 ms, and all pushes are lost.
    let mut flights: Vec<(Instant, u64, Vec<u8>)> = Vec::new();
    for key in 100..130_u8 {
        maps[0].insert(now, &[key], &[7; 60]).unwrap();
    }
    drain(&mut maps[0]);
    let end = now + Duration::from_secs(60);
    let mut pulls = 0;
    while now < end {
        for map in &mut maps {
            for (to, bytes) in drain(map) {
                flights.push((now + Duration::from_millis(80), to, bytes));
            }
        }
        now += Duration::from_millis(5);
        let due: Vec<_> = flights.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, to, bytes) in due {
            let receiver = usize::try_from(to).unwrap() - 1;
            deliver(&mut maps[receiver], now, 3 - to, &bytes);
        }
        maps.iter_mut().for_each(|map| map.handle_timeout(now));
        if now + Duration::from_secs(30) < end {
            pulls = maps[1].stats().pulls_sent;
        }
    }
    assert_eq!(maps[1].len(), 80);
    assert!(maps[1].stats().pulls_sent - pulls <= 2, "quiet once in step");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damaged datagrams, with the checksum made good again, never panic, and never keep the replica
    /// from agreeing with the sender in the end when they only claim what it can be asked again.
    #[test]
    fn damaged_frames_are_refused_or_harmless(seed in any::<u64>(), flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4)) {
        let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
        let now = settle(&mut maps, NOW);
        for key in 0..20_u64 {
            maps[0].insert(now, &(seed ^ key).to_be_bytes(), b"value").unwrap();
        }
        let later = now + Duration::from_secs(1);
        maps[0].handle_timeout(later);
        for (_, mut bytes) in drain(&mut maps[0]) {
            let end = bytes.len() - 4;
            for (at, bit) in &flips {
                let at = 24 + at.index(end - 24);
                bytes[at] ^= 1 << bit;
            }
            let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&crc);
            let before = maps[1].digest();
            let result = maps[1].handle_packet(later, addr(1), &mut bytes);
            if result.is_err() {
                prop_assert_ne!(result, Err(PacketError::BadChecksum));
                prop_assert_eq!(maps[1].digest(), before, "a refused packet leaves no trace");
            }
        }
    }
}
