//! The map: writing, extracting what a peer misses, and merging it.

use brickwork_bench::map::{self, Side};
use brickwork_bench::{peers, run};
use criterion::{Criterion, criterion_group, criterion_main};

fn writing(c: &mut Criterion) {
    let n = 50_000;
    let mut entrants = vec![map::insertion(n), map::overwriting(n), map::hash_map_insertion(n)];
    entrants.extend(peers::map::insertion(n));
    run(c, &format!("insert, {n} keys"), entrants);
}

fn deltas(c: &mut Criterion) {
    for n in [1_000, 100_000] {
        run(c, &format!("extract 10 of {n}"), vec![map::extraction(n)]);
        let mut entrants = vec![map::merging(n, map::Met::Own)];
        entrants.extend(peers::map::merging(n));
        run(c, &format!("merge 10 into {n}"), entrants);
    }
}

fn batches(c: &mut Criterion) {
    let (n, changed) = (50_000, 500);
    let mut entrants = vec![map::batch(n, changed, Side::Encode)];
    entrants.extend(peers::map::encoding(n, changed));
    run(c, &format!("extract {changed} of {n}"), entrants);
    let mut entrants = vec![map::batch(n, changed, Side::Merge)];
    entrants.extend(peers::map::decoding(n, changed));
    run(c, &format!("merge {changed} of {n}"), entrants);
}

criterion_group!(benches, writing, deltas, batches);
criterion_main!(benches);
