//! Benchmarks of brickwork, next to its peers and to physical limits in the same run.
//!
//! Machines are noisy, so no figure stands alone: everything that is compared is measured in
//! interleaved rounds of one process, and what counts is the ratio. The rows are those of the table
//! in `RESULTS.md`.
//!
//! - [`swim`], [`hrw`] and [`map`] set up one brick each at the sizes of the rows, and [`node`] the
//!   whole, for the criterion benches and for the binary `compare`;
//! - [`peers`] does the same work with other published crates (feature `peers`);
//! - [`measure`] and [`table`] time and print;
//! - [`scenario`] runs whole clusters on the simulator, for the binary `simulate`.

// A panic here means that a set-up is broken, and nothing else: there is no caller to tell.
#![allow(clippy::missing_panics_doc)]

pub mod alloc;
pub mod hrw;
pub mod map;
pub mod measure;
pub mod node;
pub mod peers;
pub mod scenario;
pub mod swim;
pub mod table;
pub mod wire;

use criterion::Criterion;

/// Hands the entrants of one group to criterion.
pub fn run(c: &mut Criterion, group: &str, entrants: Vec<measure::Entrant>) {
    let mut group = c.benchmark_group(group);
    for mut entrant in entrants {
        let name = entrant.name().to_owned();
        group.bench_function(name, |bencher| bencher.iter_custom(|ops| entrant.take(ops)));
    }
    group.finish();
}
