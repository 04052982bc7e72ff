//! When an application is told that the map is full: once each time that it becomes so.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::frame_of;
use crate::common::maps::{NOW, addr, config, deliver, drain, replica, settle};
use brickwork_core::map::{Map, ReplicaId};
use brickwork_core::{Event, NodeId};

/// Replica 2 with room for `max_bytes`, and replica 1 as its peer.
fn small(max_bytes: usize) -> Map {
    let mut limits = config();
    limits.max_bytes = max_bytes;
    let mut map =
        Map::new(NOW, ReplicaId::new(NodeId(2), 1), "test", limits, 1400, [7; 32]).unwrap();
    map.peer_up(NOW, NodeId(1), 1, addr(1));
    map
}

fn times_full(map: &mut Map) -> usize {
    std::iter::from_fn(|| map.poll_event()).filter(|event| *event == Event::Full).count()
}

/// Goal: an application hears of each time that the map is full once, not of each refused write.
/// Method: two rounds of many refused writes, with room for all of them in between.
#[test]
fn full_is_told_once_each_time_that_the_map_becomes_so() {
    let mut maps = vec![replica(1, &[2]), small(100)];
    let mut now = settle(&mut maps, NOW);
    for round in 1..=2 {
        let before = maps[1].stats().chunks_refused;
        for key in 0..10_u8 {
            maps[0].insert(now, &[key], &[7; 300]).unwrap();
            now = settle(&mut maps, now);
        }
        assert!(maps[1].stats().chunks_refused - before >= 10, "each write was refused");
        assert_eq!(times_full(&mut maps[1]), 1, "round {round}");
        for key in 0..10_u8 {
            maps[0].remove(now, &[key]).unwrap();
        }
        now = settle(&mut maps, now);
        now = settle(&mut maps, now);
        assert_eq!(maps[0].digest(), maps[1].digest());
        assert_eq!(times_full(&mut maps[1]), 0, "room is no event");
    }
}

/// Goal: as long as what was refused is still refused, the map has not stopped being full.
/// Method: peers whose data fits come and are pulled from while another one's data does not fit.
#[test]
fn whole_answers_of_other_peers_do_not_end_a_full_time() {
    let mut maps = vec![replica(1, &[2]), small(100)];
    let mut now = settle(&mut maps, NOW);
    maps[0].insert(now, b"large", &[7; 300]).unwrap();
    now = settle(&mut maps, now);
    for id in 3..7_u8 {
        let mut other = replica(u64::from(id), &[2]);
        other.insert(now, &[id], b"fits").unwrap();
        drain(&mut other); // left to the pulls of whoever comes later
        maps.push(other);
        maps[1].peer_up(now, NodeId(u64::from(id)), 1, addr(u64::from(id)));
        for _ in 0..4 {
            now = settle(&mut maps, now);
        }
        assert_eq!(maps[1].get(&[id]), Some(&b"fits"[..]));
    }
    assert!(maps[1].stats().chunks_refused > 4, "it is offered again and again");
    assert_eq!(times_full(&mut maps[1]), 1);
    maps[0].remove(now, b"large").unwrap();
    // One that was waited for in vain asks for all of it now and then.
    for _ in 0..20 {
        if maps[0].digest() != maps[1].digest() {
            now = settle(&mut maps, now);
        }
    }
    maps[0].insert(now, b"large", &[7; 300]).unwrap();
    settle(&mut maps, now);
    assert_eq!(times_full(&mut maps[1]), 1, "another time");
}

/// Goal: one that is full keeps others from forgetting no longer than one that is down does, does not ask for all that
/// is there again and again, and has all of it once there is room. Method: ten minutes of keys that come and go beside
/// one that does not fit.
#[test]
fn others_do_not_keep_everything_for_one_that_is_full() {
    let limits = config();
    let mut maps = vec![replica(1, &[2, 3]), small(100), replica(3, &[1, 2])];
    maps[1].peer_up(NOW, NodeId(3), 1, addr(3));
    let mut now = settle(&mut maps, NOW);
    maps[0].insert(now, b"large", &[7; 300]).unwrap();
    let (start, mut most) = (now, 0);
    while now < start + Duration::from_secs(600) {
        maps[0].insert(now, b"comes", b"v").unwrap();
        maps[2].remove(now, b"comes").unwrap();
        now = settle(&mut maps, now);
        if now > start + limits.keep_for * 2 {
            most = most.max(maps[0].metadata().1).max(maps[2].metadata().1);
        }
    }
    assert!(most < 20, "{most} dots are kept for it");
    assert!(maps[0].stats().stragglers > 0 && maps[0].digest() == maps[2].digest());
    assert_eq!(times_full(&mut maps[1]), 1);
    let refused = maps[1].stats().chunks_refused;
    assert!(refused < 40, "{refused} times");
    maps[0].remove(now, b"large").unwrap();
    maps[0].insert(now, b"small", b"v").unwrap();
    let end = now + limits.keep_for * 2;
    while now < end {
        now = settle(&mut maps, now);
    }
    assert_eq!(maps[1].get(b"small"), Some(&b"v"[..]));
    assert!(maps.iter().all(|map| map.digest() == maps[0].digest()));
}

/// Goal: the time in which the map is full ends with what was refused, however that comes in.
/// Method: room is made here, and the network delivers a second copy of the refused push.
#[test]
fn a_second_copy_that_fits_ends_a_full_time() {
    let mut maps = vec![replica(1, &[2]), small(320)];
    maps[1].insert(NOW, b"mine", &[1; 100]).unwrap();
    let mut now = settle(&mut maps, NOW);
    for key in [b"a", b"b"] {
        maps[0].insert(now, key, &[7; 300]).unwrap();
        let pushed = drain(&mut maps[0]);
        pushed.iter().for_each(|(_, bytes)| deliver(&mut maps[1], now, 1, bytes));
        assert_eq!(times_full(&mut maps[1]), 1, "{key:?}");
        maps[1].remove(now, b"mine").unwrap();
        pushed.iter().for_each(|(_, bytes)| deliver(&mut maps[1], now, 1, bytes));
        assert_eq!(maps[1].get(key), Some(&[7; 300][..]));
        now = settle(&mut maps, now);
        maps[0].remove(now, key).unwrap();
        now = settle(&mut maps, now);
        maps[1].insert(now, b"mine", &[1; 100]).unwrap();
        now = settle(&mut maps, now);
        times_full(&mut maps[1]);
    }
}

/// Goal: the time in which the map is full ends with a whole answer of the peer whose data was refused,
/// also when the two never come to equal states, and not with an answer of which a part was lost.
/// Method: a peer that has room for no other replica's writes; the refused chunk of its second answer is
/// lost, that of the third is refused again, the fourth is whole.
#[test]
fn a_full_time_ends_with_a_whole_answer() {
    let (mut narrow, mut limits) = (config(), config());
    (narrow.max_replicas, limits.max_bytes) = (1, 700);
    let new = |id, config| {
        Map::new(NOW, ReplicaId::new(NodeId(id), 1), "test", config, 1400, [7; 32]).unwrap()
    };
    let (mut a, mut b) = (new(1, narrow), new(2, limits));
    b.insert(NOW, b"mine", b"v").unwrap();
    for (key, len) in [(b"a", 512), (b"b", 512), (b"c", 400)] {
        a.insert(NOW, key, &[7; 512][..len]).unwrap();
    }
    a.peer_up(NOW, NodeId(2), 1, addr(2));
    b.peer_up(NOW, NodeId(1), 1, addr(1));
    // Lets b ask after a told its state, and returns the chunks of the answer.
    let mut now = NOW;
    let mut ask = |a: &mut Map, b: &mut Map| {
        now += Duration::from_secs(10);
        drain(a);
        drain(b);
        a.handle_timeout(now);
        drain(a).iter().for_each(|(_, bytes)| deliver(b, now, 1, bytes));
        drain(b).iter().for_each(|(_, bytes)| deliver(a, now, 2, bytes));
        let sent = drain(a).into_iter().map(|(_, bytes)| bytes);
        let chunks: Vec<_> = sent.filter(|bytes| frame_of(bytes, 0xa3).is_some()).collect();
        (now, chunks)
    };
    let (now, answer) = ask(&mut a, &mut b);
    assert_eq!(answer.len(), 2, "two large entries, and the third");
    deliver(&mut b, now, 1, &answer[0]);
    assert_eq!((times_full(&mut b), b.len()), (1, 1));
    let (now, answer) = ask(&mut a, &mut b);
    deliver(&mut b, now, 1, &answer[1]);
    assert_eq!((times_full(&mut b), b.len()), (0, 2), "the large ones were lost this time");
    let (now, answer) = ask(&mut a, &mut b);
    answer.iter().for_each(|bytes| deliver(&mut b, now, 1, bytes));
    assert_eq!(
        (times_full(&mut b), b.stats().chunks_refused),
        (0, 2),
        "it is still the first time"
    );

    a.remove(now, b"a").unwrap();
    a.remove(now, b"b").unwrap();
    let (now, answer) = ask(&mut a, &mut b);
    answer.iter().for_each(|bytes| deliver(&mut b, now, 1, bytes));
    assert_ne!(a.digest(), b.digest());
    drain(&mut a);
    let now = now + Duration::from_secs(1);
    a.insert(now, b"a", &[7; 512]).unwrap();
    drain(&mut a).iter().for_each(|(_, bytes)| deliver(&mut b, now, 1, bytes));
    assert_eq!((times_full(&mut b), b.stats().chunks_refused), (1, 3), "it is the second time");
}
