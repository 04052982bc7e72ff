//! Are the oracles any good? Every planted bug must be caught, first by an oracle that it is meant for, in a
//! run that holds without it; and every oracle must be the first to catch one.
//!
//! Runs only in a build with the bugs in it:
//! `RUSTFLAGS='--cfg sabotage' cargo test --release -p brickwork-core --features sim --test sabotage`.
//! `.ci/campaign sabotage` runs all of it. `.ci/run` checks such a build with clippy and runs what is quick:
//! `-- every_bug_has some_bugs`. `BRICKWORK_BUG` names one bug to plant alone.

#![cfg(sabotage)]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod amid;
mod common;
mod model;
mod random;

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
    /// In random histories of bare maps, beside the reference model.
    Histories,
    /// In full syncs between bare maps, while what is synced changes.
    Syncs,
    /// In clusters with small tables and one member that makes others up.
    Phantoms,
}

use Search::{Histories, Phantoms, Plans, Syncs, Twice};

/// The oracles that must each be the first to catch a bug: those of the simulator's judge, but OX10, which
/// speaks where none of the others can say what is wrong.
const ORACLES: &[&str] = &[
    "OM1", "OM2", "OM3", "OM4", "OM5", "OM6", "OM7", "OM8", "OM9", "OM10", "OM11", "OM12", "OM13",
    "OR1", "OR2", "OR4", "OR5", "OR6", "OC2", "OC3", "OC4", "OC5", "OC6", "OC7", "OC8", "OC9",
    "OC10", "OC11", "OX1", "OX2", "OX3", "OX4", "OX6", "OX7", "OX8", "OX9",
];

/// A planted bug: its name, where it is looked for, and the oracles one of which must be the first to catch
/// it. There are several where the same damage shows as one thing or another, by what happens next: what a
/// replica claims and lacks, say, as a wrong content, or as two maps that never become equal.
type Bug = (&'static str, Search, &'static [&'static str]);

/// All of them.
const BUGS: &[Bug] = &[
    ("absence-ignored", Histories, &["OC9"]),
    ("accuser-raises-incarnation", Plans, &["OM4"]),
    ("adopts-while-serving", Syncs, &["OC9"]),
    ("ahead-forgotten", Plans, &["OC4", "OC5", "OC10"]),
    ("all-must-answer", Plans, &["OX2"]),
    ("checksum-ignored", Plans, &["OM4", "OC10"]),
    ("coarse-scores", Plans, &["OR4"]),
    ("content-hash-drifts", Plans, &["OC2"]),
    ("context-adopted", Plans, &["OC4", "OC5"]),
    ("cookie-skipped", Plans, &["OM4"]),
    ("datagram-too-large", Plans, &["OM8"]),
    ("digests-for-strangers", Plans, &["OX9"]),
    ("disk-no-member", Histories, &["OC3", "OC9", "OC10"]),
    ("disk-not-awaited", Histories, &["OC6"]),
    ("dot-named-twice", Plans, &["OC6"]),
    ("failure-told-twice", Plans, &["OM10"]),
    ("floor-unconfirmed", Histories, &["OC9", "OC10"]),
    ("fragments-mixed", Histories, &["OC9", "OC10"]),
    ("gap-claimed", Plans, &["OC4", "OC5", "OC10"]),
    ("gaps-unheard", Plans, &["OC10", "OC11"]),
    ("garbage-kept", Histories, &["OC8"]),
    ("gossip-for-ever", Plans, &["OM8"]),
    ("hasty-verdict", Plans, &["OM7"]),
    ("health-sticks", Plans, &["OX4"]),
    ("health-unbounded", Plans, &["OM12"]),
    ("held-told-failed", Plans, &["OM8"]),
    ("hold-for-ever", Plans, &["OM2", "OM6"]),
    ("join-drops-own", Plans, &["OC2", "OC5"]),
    ("join-keeps-superseded", Plans, &["OC4"]),
    ("join-only-when-alone", Plans, &["OX3"]),
    ("join-revives", Plans, &["OC2", "OC4"]),
    ("large-left-out", Histories, &["OC10"]),
    ("latest-wins", Plans, &["OC9"]),
    ("leave-echo", Plans, &["OM8"]),
    ("length-unchecked", Plans, &["OX8"]),
    ("life-reused", Plans, &["OC6", "OC10"]),
    ("log-goes-on-after-full-sync", Histories, &["OC3"]),
    ("luck-from-outside", Twice, &["OX7"]),
    ("mark-ignored", Histories, &["OC9"]),
    ("marks-dropped-one-by-one", Histories, &["OC9"]),
    ("marks-kept", Plans, &["OX8"]),
    ("marks-not-compared", Histories, &["OC9"]),
    ("members-uncapped", Phantoms, &["OM13"]),
    ("merge-loses-value", Plans, &["OC3"]),
    ("nack-is-ack", Plans, &["OM1"]),
    ("names-unchecked", Histories, &["OC3", "OC9", "OC10"]),
    ("object-omitted", Histories, &["OC9", "OC10"]),
    ("older-boot-believed", Plans, &["OM3"]),
    ("overwritten-at-once", Histories, &["OC9"]),
    ("own-death-believed", Plans, &["OM7"]),
    ("other-past-ignored", Histories, &["OC3", "OC10"]),
    ("owner-by-own-scores", Plans, &["OR5"]),
    ("owner-lowest", Plans, &["OR1"]),
    ("owner-modulo", Plans, &["OR1", "OR2"]),
    ("page-never-turns", Plans, &["OC11"]),
    ("pin-ignored", Syncs, &["OC9"]),
    ("probe-anyone", Plans, &["OM9"]),
    ("pushed-below-the-floor", Syncs, &["OC9"]),
    ("push-counts-as-heard", Plans, &["OC4", "OC10"]),
    ("refutation-ignored", Plans, &["OM2", "OM8"]),
    ("refutes-too-low", Plans, &["OM6"]),
    ("removal-unmarked", Plans, &["OC4"]),
    ("removed-key-dropped-early", Histories, &["OC3", "OC9", "OC10"]),
    ("restart-ignored", Plans, &["OM4", "OX1"]),
    ("retired-though-named", Histories, &["OC2", "OC3", "OC4", "OC5", "OC9", "OC10"]),
    ("sealed-life-kept", Histories, &["OC3", "OC4", "OC6", "OC9", "OC10"]),
    ("sealed-without-writing-anew", Histories, &["OC2", "OC4", "OC9"]),
    ("seals-merged-the-other-way", Histories, &["OC2", "OC3", "OC5", "OC9", "OC10"]),
    ("seals-not-compared", Histories, &["OC2", "OC3", "OC9", "OC10"]),
    ("untold-not-reflected", Histories, &["OC2", "OC3", "OC9", "OC10"]),
    ("waiting-told", Histories, &["OC2", "OC4", "OC9"]),
    ("served-below-the-floor", Histories, &["OC9", "OC10"]),
    ("snapshot-loses-marks", Histories, &["OC9"]),
    ("stale-alive", Plans, &["OM5"]),
    ("stall-blames-others", Plans, &["OM12"]),
    ("suspicion-for-ever", Plans, &["OM1"]),
    ("sums-not-compared", Histories, &["OC3", "OC10"]),
    ("sync-not-rearmed", Plans, &["OC7"]),
    ("the-left-suspected", Plans, &["OM10"]),
    ("timer-not-moved", Plans, &["OM11"]),
    ("uptime-wraps", Plans, &["OX6"]),
    ("value-torn", Plans, &["OC3"]),
    ("verdict-timer-early", Plans, &["OM11"]),
    ("view-keeps-the-failed", Plans, &["OR6"]),
    ("wanted-untold", Plans, &["OM2", "OX1"]),
    ("winner-kept-alone", Histories, &["OC9"]),
];

/// Bugs that a few runs each are enough for: one of every search and of every kind of oracle, and each rule of the
/// map without which it does not converge.
const QUICK: &[&str] = &[
    "absence-ignored",
    "adopts-while-serving",
    "content-hash-drifts",
    "context-adopted",
    "failure-told-twice",
    "gap-claimed",
    "hasty-verdict",
    "life-reused",
    "luck-from-outside",
    "mark-ignored",
    "marks-dropped-one-by-one",
    "marks-not-compared",
    "members-uncapped",
    "object-omitted",
    "owner-by-own-scores",
    "pin-ignored",
    "pushed-below-the-floor",
    "refutes-too-low",
    "removed-key-dropped-early",
    "sealed-without-writing-anew",
    "served-below-the-floor",
    "timer-not-moved",
    "value-torn",
    "winner-kept-alone",
];

/// What a seed shows.
fn look(search: Search, seed: u64) -> Option<Violation> {
    match search {
        Plans => Plan::swarm(seed).run().err(),
        Twice => twice(&Plan::swarm(seed)),
        Phantoms => phantoms(seed),
        Histories => told(|| random::world::run(&random::Plan::new(seed)).err()),
        Syncs => told(|| syncs(seed).err()),
    }
}

/// The first seed that shows a bug, and what it shows, if all is as it should be; else what is not.
fn hunt(&(name, search, oracles): &Bug) -> Result<(u64, Violation), String> {
    plant(Some(name));
    let seen = (0..SEEDS).find_map(|seed| Some((seed, look(search, seed)?)));
    plant(None);
    let Some((seed, violation)) = seen else { return Err(format!("not caught by {SEEDS} seeds")) };
    // A seed that fails anyway says nothing of the bug.
    if let Some(alarm) = healthy(search, seed) {
        return Err(format!("seed {seed} shows it, and without it too: {alarm:?}"));
    }
    if oracles.contains(&violation.oracle) {
        Ok((seed, violation))
    } else {
        Err(format!("first caught by another oracle than {oracles:?}: seed {seed}, {violation:?}"))
    }
}

/// What is wrong with the runs of a seed when nothing is planted.
fn healthy(search: Search, seed: u64) -> Option<Violation> {
    let once = if search == Twice { look(Plans, seed) } else { None };
    once.or_else(|| look(search, seed))
}

fn twice(plan: &Plan) -> Option<Violation> {
    let (first, second) = (plan.run().ok()?.trace, plan.run().ok()?.trace);
    (first != second).then(|| Violation::new("OX7", "the same plan ended in another way"))
}

fn syncs(seed: u64) -> Result<(), String> {
    amid::removals(seed)?;
    amid::another_full_sync(seed)?;
    amid::overwritten(seed)
}

/// What a run of bare maps shows; invariants by the names of the oracles that they are.
fn told(run: impl FnOnce() -> Option<String> + panic::UnwindSafe) -> Option<Violation> {
    let said = panic::catch_unwind(run).unwrap_or_else(|_| Some("OX8".into()))?;
    let names = [
        ("I7", "OC8"),
        ("I6", "OC10"),
        ("I1:", "OC9"),
        ("OC2", "OC2"),
        ("OC4", "OC4"),
        ("OC5", "OC5"),
        ("OX8", "OX8"),
        // Its name will be given again.
        ("is lost", "OC6"),
        ("names two writes", "OC6"),
        ("map is restored", "OC9"),
    ];
    // What is shown is not what was written, or what is told of it is not so.
    let shown = [
        "I9:",
        "OC6:",
        "OC10:",
        "a late datagram changed",
        "a mark appears",
        "a peer has other content",
        "a sound datagram is refused",
        "a write was not made",
        "an entry is told to nobody",
        "an honest chunk is called forged",
        "another life is resumed",
        "another number of keys",
        "by whose word?",
        "for a key with a value",
        "far from every limit",
        "has another value",
        "is durable at",
        "is no write of",
        "is not claimed",
        "is refused",
        "is taken",
        "is written anew",
        "of (",
        "the full syncs are",
        "the keys are not in order",
        "the winner of key",
        "void and claimed",
        "Changed",
        "Diverged",
        "Full",
        "Missed",
        "WrittenAnew",
    ];
    let named = names.iter().find(|(part, _)| said.contains(part)).map(|(_, name)| *name);
    let other = shown.iter().any(|part| said.contains(part)).then_some("OC3");
    // No bug is meant for what nobody has thought of.
    let oracle = named.or(other).unwrap_or("unknown");
    Some(Violation::new(oracle, &said))
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
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    let oracle = if text.contains("OM13: ") { "OM13" } else { "OX8" };
    Some(Violation::new(oracle, text))
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

/// Plants the bugs one after the other, on all processors. Returns which oracles were the first to catch one.
fn catch(bugs: &[&Bug]) -> BTreeSet<&'static str> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let worker = || {
        while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let caught = hunt(bug);
            eprintln!("{:28} {caught:.200?}", bug.0);
            found.lock().unwrap().insert(bug.0, caught);
        }
    };
    quietly(|| {
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(worker);
            }
        });
    });
    let found = found.into_inner().unwrap();
    let wrong: Vec<_> = found.iter().filter(|(_, caught)| caught.is_err()).collect();
    assert!(wrong.is_empty(), "not caught as they should be: {wrong:#?}");
    found.values().flatten().map(|(_, violation)| violation.oracle).collect()
}

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("BRICKWORK_BUG").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let bugs: Vec<_> = BUGS.iter().filter(|(name, ..)| wanted(name)).collect();
    assert!(!bugs.is_empty(), "no bug is called {only:?}");
    let first = catch(&bugs);
    let idle: Vec<_> = ORACLES.iter().filter(|oracle| !first.contains(*oracle)).collect();
    assert!(idle.is_empty() || only.is_some(), "never the first to catch a bug: {idle:?}");
    assert!(BUGS.len() >= 40);
}

/// The same of those that are caught at once, for every change.
#[test]
fn some_bugs_are_caught_at_once() {
    let bugs: Vec<_> = BUGS.iter().filter(|(name, ..)| QUICK.contains(name)).collect();
    assert_eq!(bugs.len(), QUICK.len());
    catch(&bugs);
}

/// A bug whose name is misspelt is planted nowhere, and never told apart from one that is caught by chance.
#[test]
fn every_bug_has_its_place_in_the_code_and_every_place_its_bug() {
    let mut places = BTreeSet::new();
    note_places(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut places);
    let bugs: BTreeSet<String> = BUGS.iter().map(|(name, ..)| (*name).to_owned()).collect();
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
const SHRUNK: &[&str] = &["life-reused", "winner-kept-alone", "the-left-suspected"];
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
        shrunk.is_some_and(|(steps, of, _)| steps > 0 && steps * 5 <= of)
    };
    let many: Vec<_> = shares.iter().filter(|(_, shrunk)| !few(*shrunk)).collect();
    assert!(many.is_empty(), "not shrunk to a fifth: {many:?}");
}
