//! Full syncs while what is synced changes: nothing comes back, nothing goes that was not removed.

#![allow(clippy::unwrap_used)]

mod amid;
mod common;

use std::time::Duration;

use common::frame_of;
use common::maps::{NOW, deliver, drain, replica};

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
