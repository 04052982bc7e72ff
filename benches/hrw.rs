//! Rendezvous hashing: the owner of a key, and the first three.

use brickwork_bench::{hrw, peers, run};
use criterion::{Criterion, criterion_group, criterion_main};

fn owners(c: &mut Criterion) {
    for n in [16, 64, 1_000] {
        let mut entrants = vec![hrw::owner(n), hrw::argmax64(n), hrw::argmax32(n)];
        entrants.extend(peers::hrw::owner(n));
        run(c, &format!("hrw, {n} nodes"), entrants);
        run(c, &format!("hrw, the first three of {n}"), vec![hrw::owners(n), hrw::top_three(n)]);
    }
}

criterion_group!(benches, owners);
criterion_main!(benches);
