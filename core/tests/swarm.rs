//! Random plans of faults and writes on whole clusters, with every oracle.
//!
//! `BRICKWORK_SIM_SEEDS` and `BRICKWORK_SIM_FROM` choose the seeds; `BRICKWORK_SIM_SEED`, with or without
//! `BRICKWORK_SIM_STEPS`, runs one plan, or some steps of it (none, if it is empty), again, and fails if it does.
//! `BRICKWORK_SIM_NODES` makes clusters as large as campaigns want them, 64 or 512 say.
//!
//! `BRICKWORK_SIM_TRACE=any` does not ask of runs that they end as they did when the code was written, only that
//! they end the same twice. For cargo-mutants: any change of timing is noticed by the former, whether or not an
//! oracle cares.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use brickwork_core::sim::{Fault, Plan, Violation};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The plan of a seed, with as many nodes as `BRICKWORK_SIM_NODES` says.
fn swarm(seed: u64) -> Plan {
    let nodes = number("BRICKWORK_SIM_NODES").map(|nodes| usize::try_from(nodes).unwrap());
    nodes.map_or_else(|| Plan::swarm(seed), |nodes| Plan::swarm_of(seed, nodes))
}

/// Seeds of an ordinary test run.
const SEEDS: u64 = 300;

#[test]
fn clusters_survive_everything_and_come_to_agree() {
    let from = number("BRICKWORK_SIM_FROM").unwrap_or(0);
    let seeds = number("BRICKWORK_SIM_SEEDS").unwrap_or(SEEDS);
    let mut met: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in from..from + seeds {
        let plan = swarm(seed);
        let report = plan.run().unwrap_or_else(|violation| panic!("{}", explain(&plan, violation)));
        for (name, count) in report.met {
            *met.entry(name).or_default() += count;
        }
    }
    println!("{met:#?}");
    if seeds < SEEDS {
        println!("coverage is not asked of fewer than {SEEDS} plans");
        return;
    }
    if number("BRICKWORK_SIM_NODES").is_some() {
        println!("coverage is not asked of plans of one size");
        return;
    }
    let wanted = [
        Plan::SCALES,
        Fault::CLASSES,
        Plan::CLASSES,
        Plan::EFFECTS,
        Plan::STEPS,
        Plan::COUNTERS,
        Plan::BRANCHES,
    ];
    let met = |name: &&&str| met.get(*name).is_some_and(|count| *count > 0);
    let missing: Vec<_> = wanted.into_iter().flatten().filter(|name| !met(name)).collect();
    assert!(missing.is_empty(), "what no plan had: {missing:?}");
}

/// The seed, what broke, the few steps that break it, and how to see it again.
fn explain(plan: &Plan, violation: Violation) -> String {
    let shrunk = plan.shrink(200).expect("it fails again");
    let nodes = number("BRICKWORK_SIM_NODES").map(|nodes| format!("BRICKWORK_SIM_NODES={nodes} "));
    let steps: Vec<String> =
        shrunk.steps.iter().map(|&step| format!("{step}: {:?}", plan.steps[step])).collect();
    format!(
        "seed {}: {violation:?}\n{} of {} steps are enough:\n{}\n{:?}\nto see it again:\n{}{}",
        plan.seed,
        shrunk.steps.len(),
        shrunk.of,
        steps.join("\n"),
        shrunk.violation,
        nodes.unwrap_or_default(),
        shrunk.command(plan.seed)
    )
}

/// The same plan always ends the same, here and on every other machine.
#[test]
fn a_run_is_a_pure_function_of_its_plan() {
    let traces =
        || -> Vec<u64> { (0..10).map(|seed| Plan::swarm(seed).run().unwrap().trace).collect() };
    let first = traces();
    assert_eq!(first, traces());
    let all = first.iter().fold(0_u64, |sum, trace| sum.rotate_left(7) ^ trace);
    if std::env::var("BRICKWORK_SIM_TRACE").is_ok_and(|wanted| wanted == "any") {
        return;
    }
    // A change of the protocol, of its timing or of the simulator changes this; a change of profile, of
    // platform or of dependencies must not.
    assert_eq!(all, 0xa5b4_0c8a_3883_d9a3, "{all:#018x}");
}

#[test]
fn replay() {
    let Some(seed) = number("BRICKWORK_SIM_SEED") else { return };
    let mut plan = swarm(seed);
    if let Ok(steps) = std::env::var("BRICKWORK_SIM_STEPS") {
        plan = plan.only(&numbers(&steps));
    }
    for step in &plan.steps {
        println!("{step:?}");
    }
    let run = plan.run();
    println!("{} nodes, {run:?}", plan.nodes);
    assert!(run.is_ok(), "seed {seed} breaks a rule: {:?}", run.err());
}

/// The steps that `BRICKWORK_SIM_STEPS` names. Empty, as what fails by itself is told, it means none.
fn numbers(steps: &str) -> Vec<usize> {
    steps.split(',').filter(|step| !step.is_empty()).map(|step| step.parse().unwrap()).collect()
}

#[test]
fn steps_are_read_as_they_are_told() {
    assert_eq!(numbers(""), []);
    assert_eq!(numbers("7"), [7]);
    assert_eq!(numbers("3,8,10"), [3, 8, 10]);
}

/// Goal: a plan that fails whatever happens in it is not blamed on one of its steps.
/// Method: settings that the core refuses.
#[test]
fn what_fails_by_itself_is_told_without_steps() {
    let mut plan = Plan::swarm(0);
    plan.configs = Vec::new();
    plan.config.max_datagram = 0;
    assert!(plan.steps.len() > 1);
    let shrunk = plan.shrink(10).unwrap();
    assert_eq!((&shrunk.steps[..], shrunk.of, shrunk.runs), (&[][..], plan.steps.len(), 2));
    assert!(shrunk.command(0).contains(" BRICKWORK_SIM_STEPS= cargo "), "{}", shrunk.command(0));
}
