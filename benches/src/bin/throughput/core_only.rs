//! Two of a kind and no socket: what the state machines take.

use std::time::{Duration, Instant as Clock};

use brickwork_bench::alloc;
use brickwork_bench::wire::{CLUSTER, Paper};
use brickwork_core::sim::Machine;
use brickwork_core::swim::{self, Swim};
use brickwork_core::{Config, Identity, Instant, Node};

const DATAGRAM: usize = 1_400;

/// Times whole probes between two under virtual time: the timer, the ping written and handled, the ack written and
/// handled. Prints the median round, of membership alone and of whole nodes, which compare their maps and owners too.
pub(crate) fn pairs(rounds: usize, pairs: u64) -> String {
    let swims = rate([0, 1].map(lone), rounds, pairs);
    let nodes = rate([0, 1].map(node), rounds, pairs);
    format!(
        "Core alone, two on one thread, M ping-ack pairs/s with their timers: {:.2} of membership, {:.2} of whole nodes; \
         {} and {} allocations in {pairs}.",
        swims.0, nodes.0, swims.1, nodes.1
    )
}

/// Millions of pairs a second, and allocations in a round.
fn rate<M: Machine>(both: [M; 2], rounds: usize, pairs: u64) -> (f64, u64) {
    let mut duel = Duel::new(both);
    duel.probe(1_000);
    let mut rates: Vec<f64> = (0..rounds.max(1))
        .map(|_| {
            let start = Clock::now();
            duel.probe(pairs);
            pairs as f64 / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let before = alloc::count();
    duel.probe(pairs);
    (rates[rates.len() / 2] / 1e6, alloc::count() - before)
}

fn identity(number: u32) -> Identity {
    Identity::new(Paper(number).name(), Paper(number).addr())
}

fn lone(number: u32) -> Swim {
    let (config, entropy) = (swim::Config::lan(), [number as u8; 32]);
    let swim = Swim::new(Instant::ZERO, identity(number), CLUSTER, config, DATAGRAM, entropy);
    let mut swim = swim.expect("accepted");
    if number > 0 {
        swim.join(Instant::ZERO, &[Paper(0).addr()]);
    }
    swim
}

fn node(number: u32) -> Node {
    let mut config = Config::lan();
    config.cluster = CLUSTER.to_owned();
    let node = Node::new(Instant::ZERO, identity(number), config, [number as u8; 32]);
    let mut node = node.expect("accepted");
    if number > 0 {
        node.join(Instant::ZERO, &[Paper(0).addr()]);
    }
    node
}

struct Duel<M> {
    both: [M; 2],
    now: Instant,
    buf: [u8; DATAGRAM],
    /// Datagrams carried.
    carried: u64,
}

impl<M: Machine> Duel<M> {
    fn new(both: [M; 2]) -> Self {
        let mut duel = Self { both, now: Instant::ZERO, buf: [0; DATAGRAM], carried: 0 };
        duel.run(Duration::from_secs(60));
        duel
    }

    /// Runs until `pairs` pings and acks, or a few more, are carried.
    fn probe(&mut self, pairs: u64) {
        let end = self.carried + 2 * pairs;
        while self.carried < end {
            self.run(Duration::from_secs(60));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for from in [0, 1] {
                while let Some(sent) = self.both[from].poll_transmit(&mut self.buf) {
                    let len = sent.payload.len();
                    let (source, packet) = (Paper(from as u32).addr(), &mut self.buf[..len]);
                    self.both[1 - from].handle_packet(self.now, source, packet).expect("correct");
                    self.carried += 1;
                }
                while self.both[from].poll_event().is_some() {}
            }
            let due = self.both.iter().filter_map(M::poll_timeout).min();
            self.now = self.now.max(due.expect("each probes the other"));
            for one in &mut self.both {
                if one.poll_timeout().is_some_and(|at| at <= self.now) {
                    one.handle_timeout(self.now);
                }
            }
        }
    }
}
