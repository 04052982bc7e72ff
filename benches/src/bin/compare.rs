//! Measures rows P1 to P6, H1, H2 and C1 to C4 and prints them as one table.

use std::time::Duration;

use brickwork_bench::map::Met;
use brickwork_bench::measure::{Effort, Entrant, Outcome, compare};
use brickwork_bench::table::{Row, Unit, render};
use brickwork_bench::{hrw, map, peers, swim};
use clap::{CommandFactory as _, Parser};

/// Measures the rows of the table of targets, each contender of a row in turns in this process.
#[derive(Debug, Parser)]
struct Args {
    /// Only the rows whose number begins so, such as `P` or `C2`.
    #[arg(default_value = "")]
    rows: String,
    /// Small sizes and one short round: whether it runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Rounds of which the median is taken.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
}

/// Whether the outcomes of a row, brickwork's first, reach its target.
type Judge = fn(&[Outcome]) -> bool;

/// What to measure, and how thoroughly.
#[derive(Debug)]
struct Plan {
    prefix: String,
    quick: bool,
    effort: Effort,
    rows: Vec<Row>,
}

fn main() {
    let args = Args::parse();
    let effort = match args.quick {
        true => Effort { rounds: 1, turn: Duration::from_micros(1) },
        false => Effort { rounds: args.rounds.into(), turn: Duration::from_millis(40) },
    };
    let mut plan = Plan { prefix: args.rows, quick: args.quick, effort, rows: Vec::new() };
    membership(&mut plan);
    hashing(&mut plan);
    the_map(&mut plan);
    if plan.rows.is_empty() {
        let mut command = Args::command();
        let text = format!(
            "no row begins with {:?}; there are P1 to P6, H1, H2 and C1 to C4",
            plan.prefix
        );
        command.error(clap::error::ErrorKind::InvalidValue, text).exit();
    }
    println!("{}", render(&plan.rows));
    let missed: Vec<_> =
        plan.rows.iter().filter(|row| row.met() == Some(false)).map(Row::title).collect();
    if missed.is_empty() {
        println!("No target of these rows is missed.");
    } else {
        println!("Missed: {}.", missed.join("; "));
    }
}

impl Plan {
    /// `full`, or for a quick run `quick`.
    fn size(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }

    fn timed(
        &mut self,
        id: &'static str,
        work: impl Into<String>,
        entrants: impl FnOnce() -> Vec<Entrant>,
        target: Option<(&'static str, Judge)>,
    ) {
        let work = work.into();
        if !id.starts_with(&*self.prefix) {
            return;
        }
        eprintln!("{id}: {work}");
        let row = Row::new(id, work, Unit::Time, compare(self.effort, entrants()));
        self.rows.push(match target {
            Some((text, bar)) => row.target(text, bar),
            None => row,
        });
    }

    fn counted(
        &mut self,
        id: &'static str,
        work: impl Into<String>,
        outcomes: impl FnOnce() -> Vec<Outcome>,
        target: (&'static str, Judge),
    ) {
        let work = work.into();
        if id.starts_with(&*self.prefix) {
            eprintln!("{id}: {work}");
            let row = Row::new(id, work, Unit::Bytes, outcomes());
            self.rows.push(row.target(target.0, target.1));
        }
    }
}

fn ours(outcomes: &[Outcome]) -> &Outcome {
    &outcomes[0]
}

fn allocates_nothing(outcomes: &[Outcome]) -> bool {
    ours(outcomes).allocations.is_some_and(|count| count < 0.005)
}

/// The best of the outcomes whose name begins with `prefix`.
fn best(outcomes: &[Outcome], prefix: &str) -> Option<f64> {
    let named = outcomes.iter().filter(|outcome| outcome.name.starts_with(prefix));
    named.map(|outcome| outcome.median).min_by(f64::total_cmp)
}

fn membership(plan: &mut Plan) {
    for n in [100, plan.size(10_000, 300), plan.size(100_000, 500)] {
        let entrants = || with(swim::ping(n), peers::swim::ping(n));
        let target: (_, Judge) =
            ("<= 200 ns, 0 allocations", |all| ours(all).median <= 200.0 && allocates_nothing(all));
        plan.timed("P1", format!("ping and its ack, n = {n}"), entrants, Some(target));
    }
    let n = plan.size(10_000, 300);
    plan.timed(
        "P2",
        format!("packet with 20 updates, n = {n}"),
        || with(swim::updates(n), peers::swim::updates(n)),
        Some(("<= 3 us, 0 allocations", |all| ours(all).median <= 3e3 && allocates_nothing(all))),
    );
    plan.timed(
        "P3",
        format!("a timer with its datagrams, full queue, n = {n}"),
        || with(swim::timeouts(n), peers::swim::timeouts(n)),
        Some(("<= 50 us, longest 0.5 ms", |all| {
            ours(all).median <= 50e3 && ours(all).longest <= 500e3
        })),
    );
    for (n, target) in [(10_000, 2e6), (plan.size(100_000, 10_000), 5e6)] {
        let bar: (_, Judge) = match target > 2e6 {
            false => ("<= 2 ms", |all| ours(all).median <= 2e6),
            true => ("<= 5 ms", |all| ours(all).median <= 5e6),
        };
        let entrants = || with(swim::removals(n), peers::swim::removals(n));
        plan.timed("P4", format!("forget 5,000 dead of {n}"), entrants, Some(bar));
    }
    plan.timed(
        "P5",
        format!("fill the table with {n} members"),
        || with(swim::fill(n), peers::swim::fill(n)),
        Some(("<= 3 ms", |all| ours(all).median <= 3e6)),
    );
    for n in [plan.size(1_000, 300), n] {
        plan.counted(
            "P6",
            format!("live heap per member over its name, n = {n}"),
            || [vec![swim::heap(n), swim::heap_of_news(n)], peers::swim::heap(n)].concat(),
            ("<= 200 B", |all| ours(all).median <= 200.0),
        );
    }
    plan.counted(
        "P6",
        format!("live heap of a node with {n} members, names and all"),
        || [swim::whole(n).to_vec(), peers::swim::whole(n)].concat(),
        ("<= 2 MB", |all| ours(all).median <= 2e6),
    );
}

fn hashing(plan: &mut Plan) {
    for n in [64, 1_000] {
        let entrants = || {
            let limits = vec![hrw::argmax64(n), hrw::argmax32(n)];
            with(hrw::owner(n), [limits, peers::hrw::owner(n)].concat_entrants())
        };
        plan.timed(
            "H1",
            format!("owner among {n} nodes"),
            entrants,
            Some(("<= 1.5 x the limit, >= 25 x the best crate", |all| {
                let limit = best(all, "limit").unwrap_or(0.0);
                let crates = best(all, "hrw-hash").into_iter().chain(best(all, "rendezvous_hash"));
                let crates = crates.min_by(f64::total_cmp);
                ours(all).median <= 1.5 * limit
                    && crates.is_none_or(|peer| peer >= 25.0 * ours(all).median)
            })),
        );
    }
    for n in [64, 1_000] {
        plan.timed(
            "H1",
            format!("first three owners among {n} nodes"),
            || with(hrw::owners(n), vec![hrw::top_three(n)]),
            Some(("<= 1.5 x the limit", |all| {
                ours(all).median <= 1.5 * best(all, "limit").unwrap_or(0.0)
            })),
        );
    }
    let keys = plan.size(50_000, 500);
    for (change, what) in [(hrw::Change::Leave, "leaves"), (hrw::Change::Join, "joins")] {
        plan.timed(
            "H2",
            format!("{keys} keys, one of 64 nodes {what}"),
            || {
                let others = vec![hrw::change_limit(keys, change), hrw::recompute(keys)];
                with(hrw::change(keys, change), others)
            },
            Some(("<= 1.5 x the limit", |all| {
                ours(all).median <= 1.5 * best(all, "limit").unwrap_or(0.0)
            })),
        );
    }
}

fn the_map(plan: &mut Plan) {
    for n in [plan.size(50_000, 500), plan.size(100_000, 700), plan.size(1_000_000, 1_000)] {
        let entrants = || {
            let others = vec![map::overwriting(n), map::hash_map_insertion(n)];
            with(map::insertion(n), [others, peers::map::insertion(n)].concat_entrants())
        };
        plan.timed(
            "C1",
            format!("insert, up to {n} keys"),
            entrants,
            Some(("<= 250 ns", |all| ours(all).median <= 250.0)),
        );
    }
    for n in [plan.size(10_000, 300), plan.size(100_000, 500), plan.size(1_000_000, 1_000)] {
        let bar: (_, Judge) =
            ("<= 2 us, 0 allocations", |all| ours(all).median <= 2e3 && allocates_nothing(all));
        let merging = || {
            let limit = vec![map::hash_map_merging(n)];
            let others =
                [Met::Other, Met::Concurrent, Met::Nothing].map(|met| map::merging(n, met));
            let others = others.into_iter().collect();
            let all = [others, limit, peers::map::merging(n)];
            with(map::merging(n, Met::Own), all.concat_entrants())
        };
        plan.timed("C2", format!("merge 10 entries into {n}"), merging, Some(bar));
        let extraction = || vec![map::extraction(n)];
        plan.timed("C2", format!("extract 10 of {n}"), extraction, Some(bar));
    }
    let (n, changed) = (plan.size(50_000, 1_000), plan.size(500, 50) as usize);
    let work = format!("{changed} of {n} keys changed");
    plan.timed(
        "C3",
        format!("{work}: extract and encode"),
        || {
            let limit = vec![map::hash_map_batch(n, changed, map::Side::Encode)];
            let others = [limit, peers::map::encoding(n, changed)].concat_entrants();
            with(map::batch(n, changed, map::Side::Encode), others)
        },
        Some(("<= 100 us", |all| ours(all).median <= 100e3)),
    );
    plan.timed(
        "C3",
        format!("{work}: decode and merge"),
        || {
            let limit = vec![map::hash_map_batch(n, changed, map::Side::Merge)];
            let others = [limit, peers::map::decoding(n, changed)].concat_entrants();
            with(map::batch(n, changed, map::Side::Merge), others)
        },
        Some(("<= 150 us", |all| ours(all).median <= 150e3)),
    );
    plan.counted(
        "C3",
        format!("{work}: bytes"),
        || [vec![map::batch_bytes(n, changed)], peers::map::bytes(n, changed)].concat(),
        ("<= 29,500 B", |all| ours(all).median <= 29_500.0),
    );
    let n = plan.size(1_000_000, 1_000);
    plan.counted(
        "C4",
        format!("live heap per entry over key and value, {n} entries"),
        || [vec![map::heap(n), map::hash_map_heap(n)], peers::map::heap(n)].concat(),
        ("<= 32 B", |all| ours(all).median <= 32.0),
    );
}

fn with(ours: Entrant, others: Vec<Entrant>) -> Vec<Entrant> {
    std::iter::once(ours).chain(others).collect()
}

/// Joins lists of entrants, which cannot be cloned.
trait ConcatEntrants {
    fn concat_entrants(self) -> Vec<Entrant>;
}

impl<const N: usize> ConcatEntrants for [Vec<Entrant>; N] {
    fn concat_entrants(self) -> Vec<Entrant> {
        self.into_iter().flatten().collect()
    }
}
