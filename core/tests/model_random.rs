//! Goal: whatever happens, every replica shows what the plain model shows.
//! Method: random histories of real replicas beside the model, compared after every step; then calm.
//!
//! `BRICKWORK_MAP_SEEDS` and `BRICKWORK_MAP_FROM` choose how many seeds are run, and from which on; with
//! `BRICKWORK_MAP_EVERY` those that are so far apart, 10 from 8 on for those of lives that are retired, 200 from 21 on
//! for those of many replicas.
//! A failing seed is shrunk and printed with the command that runs it again.
//!
//! R, what a replica reflects of a key, is *defined* here as what it claims through `Map::reflects`, closed
//! under what the writers had seen. So I2 of the proof (what is claimed is reflected) and I3 (R is closed)
//! hold by definition, and are asked of an R that is built from what was delivered in `exhaustive.rs`.
//!
//! *Asserted* on the way are I1 (siblings = value(R)), which a claim without its effect breaks; that R grows
//! by nothing but writes of one's own and what the sender of a datagram reflected when it sent it; that what
//! is claimed stays claimed; and I9. From the first and the third follows I8, that nothing superseded comes
//! back. I6 and I7 are asserted in the calm at the end. Every fifth history is one of full syncs, another fifth
//! are ones of seals, and one in 200 is one of sixteen replicas. I4 and I5 speak of what no user sees:
//! `replica.rs` asserts them.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod common;
mod model;
mod random;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use random::Plan;
use random::world::{self, Coverage, Outcome};

/// Seeds that are run when nothing else is said.
const SEEDS: u64 = 10_000;

/// What the histories must have met. With few seeds the rare ones may be missing.
const WANTED: [&str; 42] = [
    "another life",
    "answer with news",
    "arrived superseded",
    "chunk from an older life",
    "chunk split",
    "chunk to an older life",
    "chunk without news",
    "concurrent siblings",
    "contexts compared",
    "crash",
    "crash that takes back a life",
    "crash that loses what was on its way",
    "effect told by a write to no key",
    "effect written anew",
    "entry of several datagrams",
    "full sync amid writes",
    "full sync of several datagrams",
    "insert",
    "late timer",
    "log begun",
    "log compacted",
    "lost chunk",
    "many replicas",
    "member that is waited for no longer",
    "nothing left to collect",
    "overwritten dots",
    "paged digest",
    "peer down",
    "pull for a share",
    "pull timed out",
    "push that shows a gap",
    "push with news",
    "removal beside a concurrent value",
    "repeated chunk",
    "restart",
    "restore",
    "stale resolve beside a newer value",
    "superseded by what arrived",
    "unit of several datagrams",
    "value written anew",
    "winner that is not the latest",
    "write that died with its writer",
];

#[test]
fn random_histories_show_what_the_model_shows() {
    let (from, seeds) = (setting("BRICKWORK_MAP_FROM", 0), setting("BRICKWORK_MAP_SEEDS", SEEDS));
    let every = setting("BRICKWORK_MAP_EVERY", 1);
    let next = AtomicU64::new(0);
    let worker = || -> Result<Coverage, (u64, String)> {
        let mut coverage = Coverage::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= seeds {
                return Ok(coverage);
            }
            let seed = from + run * every;
            let met = attempt(&Plan::new(seed)).map_err(|said| {
                next.store(seeds, Ordering::Relaxed);
                (seed, said)
            })?;
            add(&mut coverage, met);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<_> = thread::scope(|scope| {
        #[allow(clippy::needless_collect)] // all are started before one is waited for
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut coverage = Coverage::new();
    for outcome in outcomes {
        match outcome {
            Ok(met) => add(&mut coverage, met),
            Err((seed, said)) => panic!("{}", report(seed, &said, (seed - from) / every)),
        }
    }
    println!("{seeds} seeds from {from} on: {coverage:#?}");
    for what in WANTED {
        let met = coverage.get(what).copied().unwrap_or(0);
        assert!(met > 0 || seeds < 1000 || every > 1, "no history met: {what}");
    }
}

fn add(coverage: &mut Coverage, met: Coverage) {
    for (what, count) in met {
        *coverage.entry(what).or_default() += count;
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Runs a plan; a panic of the crate is a failure like any other.
fn attempt(plan: &Plan) -> Outcome<Coverage> {
    panic::catch_unwind(AssertUnwindSafe(|| world::run(plan))).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("of another type")))
    })
}

/// Leaves out steps, many at a time and then fewer, as long as the rest still fails.
fn shrink(mut plan: Plan) -> Plan {
    let mut size = plan.steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < plan.steps.len() {
            let mut fewer = plan.clone();
            fewer.steps.drain(at..(at + size).min(plan.steps.len()));
            if attempt(&fewer).is_err() {
                plan = fewer;
            } else {
                at += size;
            }
        }
        if size == 1 {
            return plan;
        }
        size = size.div_ceil(2);
    }
}

fn report(seed: u64, said: &str, after: u64) -> String {
    panic::set_hook(Box::new(|_| {}));
    let small = shrink(Plan::new(seed));
    drop(panic::take_hook());
    let now_said = attempt(&small).err().unwrap_or_default();
    let steps: Vec<String> = small.steps.iter().map(|(step, _)| format!("  {step:?}\n")).collect();
    format!(
        "seed {seed} fails after {after} good ones: {said}\n\
         {} replicas, {} keys, datagrams of {} bytes, {} % loss, {:?} lives kept, epochs that {:?}; of {} steps these \
         are left: {now_said}\n{}\
         run it again: BRICKWORK_MAP_FROM={seed} BRICKWORK_MAP_SEEDS=1 \
         cargo test -p brickwork-core --test model_random",
        small.replicas,
        small.keys,
        small.max_datagram,
        small.loss,
        small.past,
        small.epochs,
        Plan::new(seed).steps.len(),
        steps.concat(),
    )
}
