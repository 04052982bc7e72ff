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
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use brickwork_core::Config;
use brickwork_core::sabotage::plant;
use brickwork_core::sim::{Betrayal, Fault, Nodes, Plan, Sim, Trouble, Violation};

/// Within so many seeds a bug must be caught.
const SEEDS: u64 = 2_000;

/// Where a bug is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// In random plans, judged by every oracle.
    Plans,
    /// In random plans that are run twice.
    Twice,
    /// In clusters with small tables and one member that makes others up.
    Phantoms,
}

use Search::{Phantoms, Plans, Twice};

/// The oracles that must each be the first to catch a bug: those of the simulator's judge.
const ORACLES: &[&str] = &[
    "OM1", "OM2", "OM3", "OM4", "OM5", "OM6", "OM7", "OM8", "OM9", "OM10", "OM11", "OM12", "OM13",
    "OR1", "OR2", "OR4", "OR5", "OR6", "OC2", "OC3", "OC4", "OC5", "OC6", "OC7", "OC9", "OC10",
    "OC11", "OX1", "OX2", "OX3", "OX4", "OX6", "OX7", "OX8", "OX9",
];

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
    ("digests-for-strangers", Plans),
    ("dot-named-twice", Plans),
    ("failure-told-twice", Plans),
    ("gap-claimed", Plans),
    ("gaps-unheard", Plans),
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
    ("life-reused", Plans),
    ("luck-from-outside", Twice),
    ("marks-kept", Plans),
    ("members-uncapped", Phantoms),
    ("merge-loses-value", Plans),
    ("nack-is-ack", Plans),
    ("older-boot-believed", Plans),
    ("own-death-believed", Plans),
    ("owner-by-own-scores", Plans),
    ("owner-lowest", Plans),
    ("owner-modulo", Plans),
    ("page-never-turns", Plans),
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
        let seen = match search {
            Plans => Plan::swarm(seed).run().err(),
            Twice => twice(&Plan::swarm(seed)),
            Phantoms => phantoms(seed),
        };
        seen.map(|violation| (seed, violation.oracle.to_owned(), violation.text))
    })
}

fn twice(plan: &Plan) -> Option<Violation> {
    let (first, second) = (plan.run().ok()?.trace, plan.run().ok()?.trace);
    (first != second).then(|| Violation::new("OX7", "the same plan ended in another way"))
}

fn phantoms(seed: u64) -> Option<Violation> {
    let run = || {
        let mut config = Config::local();
        config.swim.max_members = 8;
        let mut sim = Sim::new(seed, config);
        (0..4).for_each(|place| sim.start(place, &[0]));
        sim.run(Duration::from_secs(5));
        sim.begin(Fault::Node(Nodes::one(1), Trouble::Insider(Betrayal::Members, 50)));
        sim.run(Duration::from_secs(20));
    };
    let panic = panic::catch_unwind(run).err()?;
    let text = panic.downcast_ref::<String>().filter(|text| text.contains("OM13: "))?;
    Some(Violation::new("OM13", text))
}

/// Does what panics again and again on purpose without a word of that. Those who want that take turns, as
/// there is one hook for all.
fn quietly<R>(act: impl FnOnce() -> R) -> R {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock();
    panic::set_hook(Box::new(|_| {}));
    let result = act();
    drop((panic::take_hook(), turn));
    result
}

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("BRICKWORK_BUG").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let bugs: Vec<_> = BUGS.iter().filter(|(name, _)| wanted(name)).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    quietly(|| {
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((name, search)) = bugs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        plant(Some(name));
                        let caught = find(*search);
                        plant(None);
                        eprintln!("{name:28} {caught:.200?}");
                        found.lock().unwrap().insert(*name, caught);
                    }
                });
            }
        });
    });
    let found = found.into_inner().unwrap();
    let missed: Vec<_> = found.iter().filter(|(_, caught)| caught.is_none()).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
    let first: BTreeSet<_> = found.values().flatten().map(|(_, oracle, _)| &**oracle).collect();
    let idle: Vec<_> = ORACLES.iter().filter(|oracle| !first.contains(*oracle)).collect();
    assert!(idle.is_empty() || only.is_some(), "never the first to catch a bug: {idle:?}");
    assert!(BUGS.len() >= 40);
}

/// A bug whose name is misspelt is planted nowhere, and never told apart from one that is caught by chance.
#[test]
fn every_bug_has_its_place_in_the_code_and_every_place_its_bug() {
    let mut places = BTreeSet::new();
    note_places(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut places);
    let bugs: BTreeSet<String> = BUGS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(bugs, places);
}

fn note_places(folder: &Path, places: &mut BTreeSet<String>) {
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            note_places(&path, places);
        } else if path.file_name().is_some_and(|name| name != "sabotage.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("sabotaged!(\"").skip(1);
            places.extend(names.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
    }
}

/// Bugs that show in large clusters, and only if something goes wrong there or is written.
const SHRUNK: &[&str] = &["stale-alive", "value-torn", "join-drops-own", "the-left-suspected"];
/// Nodes and, at least, steps of the plans that are shrunk.
const LARGE: (usize, usize) = (32, 15);

/// Goal: what fails in a large cluster is told with few of the steps that led to it. Method: the first plan
/// of many steps that each of some bugs fails in.
#[test]
fn a_failing_plan_of_many_nodes_shrinks_to_a_fifth() {
    let mut shares = Vec::new();
    for name in SHRUNK {
        plant(Some(name));
        let plans = (0..SEEDS).map(|seed| Plan::swarm_of(seed, LARGE.0));
        let mut large = plans.filter(|plan| plan.steps.len() >= LARGE.1);
        let shrunk = quietly(|| large.find_map(|plan| plan.shrink(100)));
        plant(None);
        let shrunk = shrunk.map(|shrunk| (shrunk.steps.len(), shrunk.of, shrunk.runs));
        eprintln!("{name:28} (steps, of, runs) {shrunk:?}");
        shares.push((name, shrunk));
    }
    let few = |shrunk: Option<(usize, usize, usize)>| {
        shrunk.is_some_and(|(steps, of, _)| steps * 5 <= of)
    };
    let many: Vec<_> = shares.iter().filter(|(_, shrunk)| !few(*shrunk)).collect();
    assert!(many.is_empty(), "not shrunk to a fifth: {many:?}");
}
