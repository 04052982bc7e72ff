//! Limits, refusals and events of the map, with every datagram in the test's own hands.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::maps::{NOW, addr, config, deliver, drain, replica, settle};
use crate::common::{Net, frame_of};
use brickwork_core::map::{Dot, InsertError, Map, ReplicaId};
use brickwork_core::{Config, Event, Instant, NodeId, PacketError};
use proptest::prelude::*;

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

/// Goal: the quota of a node holds for what is its own, and only for that. Method: others write over what it wrote, and
/// it starts again.
#[test]
fn quotas_are_of_what_is_a_nodes_own() {
    let mut limits = config();
    (limits.max_own_values, limits.max_own_bytes) = (2, 12);
    let small = |epoch, limits| {
        let life = ReplicaId::new(NodeId(1), epoch);
        let mut map = Map::new(NOW, life, "test", limits, 1400, [7; 32]).unwrap();
        map.peer_up(NOW, NodeId(2), 1, addr(2));
        map
    };
    let mut maps = vec![small(1, limits.clone()), replica(2, &[1])];
    let now = settle(&mut maps, NOW);
    let mut insert = |key: &[u8], value: &[u8]| maps[0].insert(now, key, value).map(drop);
    assert_eq!(insert(b"a", b"12345"), Ok(()));
    assert_eq!(insert(b"b", b"123456"), Err(InsertError::TooManyOwnBytes { max: 12 }));
    assert_eq!(insert(b"b", b"12345"), Ok(()));
    assert_eq!(insert(b"c", b""), Err(InsertError::TooManyOwnValues { max: 2 }));
    assert_eq!(insert(b"a", b"54321"), Ok(()), "it takes no more room");
    assert_eq!(maps[0].own_usage(), (2, 12));
    let now = settle(&mut maps, now);
    maps[1].insert(now, b"a", b"by another").unwrap();
    let now = settle(&mut maps, now);
    assert_eq!((maps[0].own_usage(), maps[1].own_usage()), ((1, 6), (1, 11)));
    maps[0].insert(now, b"c", b"1234").unwrap();
    assert!(maps[0].remove(now, b"b").unwrap());
    assert_eq!(maps[0].own_usage(), (1, 5));
    maps[0].insert(now, b"b", b"12345").unwrap();
    let now = settle(&mut maps, now);
    // What its life of before wrote is its own, even if that is more than it may have now.
    (limits.max_own_values, limits.max_own_bytes) = (1, 6);
    maps[0] = small(2, limits);
    maps[1].peer_up(now, NodeId(1), 2, addr(1));
    let now = settle(&mut maps, now);
    assert_eq!(maps[0].own_usage(), (2, 11));
    assert_eq!(maps[0].insert(now, b"d", b""), Err(InsertError::TooManyOwnValues { max: 1 }));
    assert!(maps[0].insert(now, b"b", b"1").is_ok(), "it becomes less");
    assert_eq!(maps[0].own_usage(), (2, 7));
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

/// Goal: a peer that starts again takes its own place, also when there is no other.
/// Method: a table of two peers that is full; one of the two comes back, a third one does not get in.
#[test]
fn a_restarted_peer_keeps_its_place_in_a_full_table() {
    let mut limits = config();
    limits.max_peers = 2;
    let mut map =
        Map::new(NOW, ReplicaId::new(NodeId(1), 1), "test", limits, 1400, [7; 32]).unwrap();
    for peer in [2, 3, 4] {
        map.peer_up(NOW, NodeId(peer), 1, addr(peer));
    }
    let mut write = |peer, boot, key: &[u8]| {
        let mut other =
            Map::new(NOW, ReplicaId::new(NodeId(peer), boot), "test", config(), 1400, [7; 32])
                .unwrap();
        other.peer_up(NOW, NodeId(1), 1, addr(1));
        drain(&mut other); // its state
        other.insert(NOW, key, b"v").unwrap();
        for (_, bytes) in drain(&mut other) {
            deliver(&mut map, NOW, peer, &bytes);
        }
        map.peer_up(NOW, NodeId(2), 2, addr(2));
        (map.get(key).is_some(), map.stats().misaddressed)
    };
    assert_eq!(write(4, 1, b"x"), (false, 1), "there is no third place");
    assert_eq!(write(2, 2, b"y"), (true, 1), "the new life has the place of the old one");
    assert_eq!(write(2, 1, b"z"), (false, 2), "which is over");
    assert_eq!(write(3, 1, b"w"), (true, 2));
    drain(&mut map);
    map.insert(NOW, b"k", b"v").unwrap();
    let told: BTreeSet<_> = drain(&mut map).into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, BTreeSet::from([2, 3]));
}

/// Goal: the same through membership, whether the restart is seen as one or as a death and a join.
/// Method: nodes with room for exactly the others, one of which starts again at once or after a while.
#[test]
fn nodes_with_no_peer_to_spare_agree_after_a_restart() {
    for pause in [Duration::ZERO, Duration::from_secs(30)] {
        let mut limits = Config::local();
        limits.map.max_peers = 2;
        let mut net = Net::cluster(1, limits, 3);
        net.crash(2);
        net.run(pause);
        net.start(2, &[0]);
        net.run(Duration::from_secs(2));
        net.with(2, |node, now| node.insert(now, b"k", b"v")).unwrap().unwrap();
        let keys = [b"k".to_vec()];
        let limit = Duration::from_secs(30);
        let agreed = net.run_until(limit, |net| net.differences(&keys).is_empty());
        assert!(agreed, "after {pause:?}: {:?}", net.differences(&keys));
        assert_eq!(net.node(0).get(b"k"), Some(&b"v"[..]));
    }
}

/// Goal: an answer of which a chunk was lost does not prove that its peer has nothing new.
/// Method: the answer's last chunk brings what came from elsewhere meanwhile; the one before it is lost.
/// The peer then tells the same state as before, and must be asked again.
#[test]
fn a_peer_whose_chunk_was_lost_is_asked_again() {
    const PULL: u8 = 0xa1;
    const CHUNK: u8 = 0xa3;
    let to = |wanted: u64, sent: Vec<(u64, Vec<u8>)>| -> Vec<Vec<u8>> {
        sent.into_iter().filter(|(to, _)| *to == wanted).map(|(_, bytes)| bytes).collect()
    };
    let (mut a, mut b, mut c) = (replica(1, &[3]), replica(2, &[1, 3]), replica(3, &[1, 2]));
    for key in [b"a", b"b"] {
        a.insert(NOW, key, &[7; 512]).unwrap();
    }
    drain(&mut b);
    drain(&mut a);
    c.insert(NOW, b"c", &[7; 512]).unwrap();
    let pushed = drain(&mut c);
    to(1, pushed.clone()).iter().for_each(|bytes| deliver(&mut a, NOW, 3, bytes));
    a.peer_down(NOW, NodeId(3));
    drain(&mut a);

    a.peer_up(NOW, NodeId(2), 1, addr(2));
    to(2, drain(&mut a)).iter().for_each(|bytes| deliver(&mut b, NOW, 1, bytes));
    to(1, drain(&mut b)).iter().for_each(|bytes| deliver(&mut a, NOW, 2, bytes));
    let answer: Vec<_> =
        to(2, drain(&mut a)).into_iter().filter(|bytes| frame_of(bytes, CHUNK).is_some()).collect();
    assert_eq!(answer.len(), 2, "a's own entries, and c's");
    to(2, pushed).iter().for_each(|bytes| deliver(&mut b, NOW, 3, bytes));
    b.peer_down(NOW, NodeId(3));
    deliver(&mut b, NOW, 1, &answer[1]);
    assert_eq!(
        (b.len(), b.stats().pulls_timed_out),
        (1, 0),
        "the answer is over, its first chunk lost"
    );
    drain(&mut b);

    let later = NOW + Duration::from_secs(3);
    a.handle_timeout(later);
    to(2, drain(&mut a)).iter().for_each(|bytes| deliver(&mut b, later, 1, bytes));
    let asked = to(1, drain(&mut b));
    assert!(asked.iter().any(|bytes| frame_of(bytes, PULL).is_some()), "it asks again");
    asked.iter().for_each(|bytes| deliver(&mut a, later, 2, bytes));
    to(2, drain(&mut a)).iter().for_each(|bytes| deliver(&mut b, later, 1, bytes));
    assert_eq!(b.len(), 3);
    assert_eq!(a.digest(), b.digest());
}

/// Values that are concurrent with those of a known key are new, however long those are.
#[test]
fn concurrent_values_of_a_known_key_count_against_the_limit() {
    let mut limits = config();
    limits.max_bytes = 100;
    let mut small =
        Map::new(NOW, ReplicaId::new(NodeId(2), 1), "test", limits, 1400, [7; 32]).unwrap();
    small.peer_up(NOW, NodeId(1), 1, addr(1));
    let mut maps = vec![replica(1, &[2]), small];
    let now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", &[1; 60]).unwrap();
    maps[1].insert(now, b"k", &[2; 60]).unwrap();
    let now = settle(&mut maps, now);
    assert_eq!(maps[1].siblings(b"k").count(), 1, "there is room for one of them");
    assert!(maps[1].stats().chunks_refused > 0);
    // The other side has seen both and overwrites them: that makes room.
    maps[0].insert(now, b"k", &[3; 90]).unwrap();
    settle(&mut maps, now + Duration::from_secs(10));
    assert_eq!(maps[1].get(b"k"), Some(&[3; 90][..]));
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

/// Any number of lives may write a key, if all that know it are heard to have their writes.
#[test]
#[cfg_attr(miri, ignore = "a hundred lives of a node take an interpreter minutes")]
fn a_key_that_many_lives_write_keeps_no_mark_of_them() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let mut now = settle(&mut maps, NOW);
    for life in 2..100 {
        maps[1].insert(now, b"k", &[7; 100]).unwrap();
        now = settle(&mut maps, now);
        maps[1] = Map::new(now, ReplicaId::new(NodeId(2), life), "test", config(), 1400, [7; 32])
            .unwrap();
        maps[1].peer_up(now, NodeId(1), 1, addr(1));
        maps[0].peer_up(now, NodeId(2), life, addr(2));
        now = settle(&mut maps, now);
        if maps[0].digest() != maps[1].digest() {
            // Lives may just have been sealed at one of them.
            now = settle(&mut maps, now);
        }
        assert_eq!(maps[0].digest(), maps[1].digest(), "life {life}");
    }
    now = settle(&mut maps, now + config().keep_for);
    settle(&mut maps, now);
    assert_eq!((maps[0].metadata(), maps[1].metadata()), ((0, 0), (0, 0)));
    assert_eq!(maps[1].get(b"k"), Some(&[7; 100][..]));
}

/// A push asks for nothing unless it shows that one before it is missing.
#[test]
fn a_push_after_a_lost_one_is_followed_by_a_pull() {
    let mut a = replica(1, &[2]);
    let mut b = replica(2, &[1]);
    drain(&mut a);
    drain(&mut b);
    let (mut now, mut pushes) = (NOW, Vec::new());
    for key in [b"j", b"k", b"l"] {
        a.insert(now, key, b"v").unwrap();
        pushes.push(drain(&mut a).remove(0).1);
        now += config().push_interval;
    }
    deliver(&mut b, now, 1, &pushes[0]);
    assert_eq!(b.stats().pulls_sent, 0);
    deliver(&mut b, now, 1, &pushes[2]);
    assert_eq!(b.stats().pulls_sent, 1);
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
    let told: Vec<_> = std::iter::from_fn(|| maps[1].poll_event())
        .map(|event| match event {
            Event::Changed { key, old, new } if &*key == b"k" => (old, new),
            other => panic!("{other:?}"),
        })
        .collect();
    let dot = |counter| Some(Dot::new(ReplicaId::new(NodeId(1), 1), counter));
    assert_eq!(told, [(None, dot(1)), (dot(1), dot(2)), (dot(2), None)]);
}

/// Goal: a write is refused that nobody could be told. Method: concurrent values of the longest that there are, as
/// many as fit the longest entry, and one more.
#[test]
fn an_entry_that_is_too_large_for_anybody_is_refused_at_the_writer() {
    let mut limits = config();
    limits.max_value = 65_536;
    let me = ReplicaId::new(NodeId(1), 1);
    let mut map = Map::new(NOW, me, "test", limits, 1400, [7; 32]).unwrap();
    let (nothing, value) = (map.context(b"another"), vec![7; 65_536]);
    let refused = (0..100).find_map(|n| {
        let done = map.resolve(NOW, b"k", &nothing, Some(&value));
        done.err().map(|error| (n, error))
    });
    let (values, error) = refused.expect("a limit is met");
    assert_eq!(values, 63, "and its marks have room too");
    assert!(matches!(error, InsertError::EntryTooLarge { max: 4_194_304, .. }), "{error}");
    assert_eq!(map.siblings(b"k").count(), values);
    map.insert(NOW, b"k", &value).unwrap();
    assert_eq!(map.siblings(b"k").count(), 1, "what supersedes them all makes room");
}

/// Goal: concurrent values that nobody resolves end somewhere. Method: writes that supersede nothing.
#[test]
fn a_key_has_at_most_so_many_concurrent_values() {
    for max in [1, 3, 1_024] {
        let mut limits = config();
        limits.max_siblings = max;
        let me = ReplicaId::new(NodeId(1), 1);
        let mut map = Map::new(NOW, me, "test", limits, 1400, [7; 32]).unwrap();
        let nothing = map.context(b"another");
        for _ in 0..max {
            map.resolve(NOW, b"k", &nothing, Some(b"v")).unwrap();
        }
        let refused = map.resolve(NOW, b"k", &nothing, Some(b"v"));
        assert_eq!(refused, Err(InsertError::TooManySiblings { max }));
        map.insert(NOW, b"k", b"w").unwrap();
        assert_eq!(map.siblings(b"k").count(), 1);
    }
}

/// Goal: what fits a datagram is pushed in one. Method: values of each length beside another one, up to the first that
/// is left to pulls.
#[test]
fn an_entry_that_fits_a_datagram_is_pushed_in_one() {
    let nothing = replica(1, &[]).context(b"another");
    let mut longest = 0;
    for len in 0..1_400 {
        let mut map = replica(1, &[2]);
        map.insert(NOW, b"k", &[7; 400]).unwrap();
        drain(&mut map);
        let now = NOW + Duration::from_secs(1);
        map.resolve(now, b"k", &nothing, Some(&vec![7; len])).unwrap();
        map.handle_timeout(now);
        let sent = drain(&mut map);
        let chunk = sent.iter().find(|(_, bytes)| frame_of(bytes, 0xa3).is_some());
        match chunk {
            Some((_, bytes)) => longest = bytes.len(),
            None => {
                let state = sent.iter().find(|(_, bytes)| frame_of(bytes, 0xa2).is_some());
                assert!(state.is_some(), "the peer is told that there is something");
                break;
            }
        }
    }
    assert_eq!(longest, 1_400);
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

/// A writer hands its dot to somebody else, who can tell whether a replica reads no older than that.
#[test]
fn a_replica_tells_which_writes_have_arrived() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let now = settle(&mut maps, NOW);
    let first = maps[0].insert(now, b"k", b"a").unwrap();
    let second = maps[0].insert(now, b"k", b"b").unwrap();
    assert!(maps[0].reflects(first) && maps[0].reflects(second));
    assert!(!maps[1].reflects(first) && !maps[1].reflects(second));
    settle(&mut maps, now);
    assert!(maps[1].reflects(first), "superseded, and so reflected");
    assert!(maps[1].reflects(second));
    let me = maps[0].replica();
    for counter in [0, second.counter + 1, 1 << 48, u64::MAX] {
        assert!(!maps[0].reflects(Dot::new(me, counter)), "no write has the number {counter}");
    }
    let nobody = ReplicaId::new(NodeId(9), 1);
    assert!(!maps[0].reflects(Dot::new(nobody, 1)));
}
