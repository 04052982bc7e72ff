//! Membership: packets and timers by the size of the cluster.

use brickwork_bench::measure::Entrant;
use brickwork_bench::{peers, run, swim};
use criterion::{Criterion, criterion_group, criterion_main};

fn packets(c: &mut Criterion) {
    for n in [100, 10_000] {
        run(c, &format!("ping and ack, n = {n}"), with(swim::ping(n), peers::swim::ping(n)));
        run(c, &format!("fill, n = {n}"), with(swim::fill(n), peers::swim::fill(n)));
    }
    // The peers need minutes to know so many.
    run(c, "ping and ack, n = 100000", vec![swim::ping(100_000)]);
    for n in [1_000, 10_000] {
        run(c, &format!("20 updates, n = {n}"), with(swim::updates(n), peers::swim::updates(n)));
    }
}

fn timers(c: &mut Criterion) {
    for n in [100, 10_000] {
        run(c, &format!("timer, n = {n}"), with(swim::timeouts(n), peers::swim::timeouts(n)));
    }
}

fn removals(c: &mut Criterion) {
    let n = 10_000;
    run(c, "forget 5,000 of 10,000", with(swim::removals(n), peers::swim::removals(n)));
}

fn with(ours: Entrant, peers: Vec<Entrant>) -> Vec<Entrant> {
    std::iter::once(ours).chain(peers).collect()
}

criterion_group!(benches, packets, timers, removals);
criterion_main!(benches);
