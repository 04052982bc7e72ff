//! A whole node among 64: what a packet, a health result and a question cost.

use brickwork_bench::{node, run};
use criterion::{Criterion, criterion_group, criterion_main};

fn packets(c: &mut Criterion) {
    for keys in [1_000, 50_000] {
        let entrants = vec![node::ping(keys), node::publishing(keys), node::reading(keys)];
        run(c, &format!("node, {keys} keys"), entrants);
    }
    run(c, "node", vec![node::owning(10_000)]);
}

criterion_group!(benches, packets);
criterion_main!(benches);
