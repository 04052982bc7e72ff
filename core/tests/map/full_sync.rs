//! Full syncs while what is synced changes: nothing comes back, nothing goes that was not removed.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::amid;
use crate::common::frame_of;
use crate::common::maps::{NOW, addr, deliver, drain, replica, settle};
use brickwork_core::NodeId;

/// Goal: whoever lacks nothing is not given the whole map. Method: a pull that a digest from before caused, and
/// that is the last word that a round of collecting waits for.
#[test]
fn a_member_that_confirms_by_a_pull_is_given_no_full_sync() {
    const STAGE: u8 = 0xa5;
    let (mut a, mut b) = (replica(1, &[2]), replica(2, &[1]));
    let early = drain(&mut a);
    drain(&mut b);
    a.insert(NOW, b"key", b"value").unwrap();
    for (_, bytes) in drain(&mut a) {
        deliver(&mut b, NOW, 1, &bytes);
    }
    let now = NOW + Duration::from_secs(6);
    a.handle_timeout(now);
    drain(&mut a);
    for (_, bytes) in early {
        deliver(&mut b, now, 1, &bytes);
    }
    for (_, bytes) in drain(&mut b) {
        deliver(&mut a, now, 2, &bytes);
    }
    assert_eq!(a.metadata(), (0, 0));
    assert!(drain(&mut a).iter().all(|(_, bytes)| frame_of(bytes, STAGE).is_none()));
}

#[test]
fn keys_that_are_removed_amid_a_full_sync_are_neither_lost_nor_kept() {
    for seed in 0..200 {
        let ended = amid::removals(seed);
        assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    }
}

#[test]
fn a_giver_that_takes_a_full_sync_itself_begins_anew() {
    for seed in 0..200 {
        let ended = amid::another_full_sync(seed);
        assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    }
}

#[test]
fn what_was_overwritten_and_forgotten_does_not_come_back() {
    for seed in 0..20 {
        let ended = amid::overwritten(seed);
        assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    }
}

#[test]
fn a_newcomer_that_falls_silent_is_given_up() {
    for seed in 0..20 {
        let ended = amid::silence(seed);
        assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    }
}

/// Goal: a fragment that comes before the frame that begins its full sync does not end it. Method: an entry of several
/// datagrams among the first, one of which overtakes all others.
#[test]
fn a_fragment_that_comes_first_ends_nothing() {
    const FRAGMENT: u8 = 0xa8;
    const GONE: u8 = 0xa6;
    let mut maps = [replica(1, &[]), replica(2, &[])];
    for key in 0..100_u8 {
        let len = if key == 3 { 9_000 } else { 50 };
        maps[0].insert(NOW, &[key], &vec![7; len]).unwrap();
    }
    let mut now = NOW;
    while maps[0].metadata() != (0, 0) {
        now += Duration::from_millis(100);
        maps[0].handle_timeout(now);
    }
    maps[0].peer_up(now, NodeId(2), 1, addr(2));
    maps[1].peer_up(now, NodeId(1), 1, addr(1));
    for (from, to) in [(0, 1), (1, 0)] {
        for (_, bytes) in drain(&mut maps[from]) {
            deliver(&mut maps[to], now, from as u64 + 1, &bytes);
        }
    }
    let mut first = drain(&mut maps[0]);
    let early = first.iter().position(|(_, bytes)| frame_of(bytes, FRAGMENT).is_some()).unwrap();
    assert!(early > 0);
    first.swap(0, early);
    for (_, bytes) in first {
        deliver(&mut maps[1], now, 1, &bytes);
        for (_, bytes) in drain(&mut maps[1]) {
            deliver(&mut maps[0], now, 2, &bytes);
        }
    }
    let gone = drain(&mut maps[0]).iter().any(|(_, bytes)| frame_of(bytes, GONE).is_some());
    assert!(!gone, "whoever takes it has ended it");
    settle(&mut maps, now);
    assert_eq!((maps[1].digest(), maps[1].stats().full_syncs), (maps[0].digest(), 1));
}
