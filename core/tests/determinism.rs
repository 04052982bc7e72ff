//! Promise 5: the same entropy and the same inputs give the same bytes and events on every platform
//! and in every build. The digests below are part of the contract of one version; a change of the
//! protocol changes them on purpose.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use brickwork_core::Config;
use common::{Dice, Net, Weather};

/// A hash over every datagram sent and every event told in a troubled run.
fn trace(seed: u64) -> u64 {
    let mut net = Net::new(seed, Config::local());
    net.tap = Some(Vec::new());
    for place in 0..5 {
        net.start(place, &[0]);
    }
    net.weather = Weather { loss: 20, duplication: 10, delay: Duration::from_millis(20) };
    let mut dice = Dice(seed);
    for step in 0..60_u8 {
        let place = dice.below(5);
        net.with(place, |node, now| node.insert(now, &[step % 7], &[step; 30]));
        net.run(Duration::from_millis(dice.next() % 200));
        match step {
            20 => net.crash(4),
            35 => net.start(4, &[1]),
            _ => {}
        }
    }
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for (from, to, bytes) in net.tap.take().unwrap() {
        hash.update(&u64::try_from(from).unwrap().to_le_bytes());
        hash.update(&to.port().to_le_bytes());
        hash.update(&bytes);
    }
    for events in &net.events {
        hash.update(format!("{events:?}").as_bytes());
    }
    hash.digest()
}

#[test]
fn a_run_repeats_to_the_byte() {
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
#[test]
fn the_trace_is_the_same_in_every_build() {
    assert_eq!(format!("{:016x}", trace(1)), "ad53748de0ea1a14");
}
