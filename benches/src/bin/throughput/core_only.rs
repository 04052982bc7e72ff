//! Two nodes and no socket: what the state machines take.

use std::time::{Duration, Instant as Clock};

use brickwork_bench::alloc;
use brickwork_bench::wire::{CLUSTER, Paper};
use brickwork_core::{Config, Identity, Instant, Node};

/// Times whole probes between two nodes under virtual time: the timer, the ping written and handled,
/// the ack written and handled. Prints the median round.
pub(crate) fn pairs(rounds: usize, pairs: u64) -> String {
    let mut duel = Duel::new();
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
    format!(
        "Core alone, two nodes on one thread: {:.2} M ping-ack pairs/s with their timers, {} allocations in {pairs}.",
        rates[rates.len() / 2] / 1e6,
        alloc::count() - before,
    )
}

struct Duel {
    nodes: [Node; 2],
    now: Instant,
    buf: [u8; 1_400],
    /// Datagrams carried.
    carried: u64,
}

impl Duel {
    fn new() -> Self {
        let nodes = [0, 1].map(|number| {
            let mut config = Config::lan();
            config.cluster = CLUSTER.to_owned();
            let identity = Identity::new(Paper(number).name(), Paper(number).addr());
            Node::new(Instant::ZERO, identity, config, [number as u8; 32]).expect("accepted")
        });
        let mut duel = Self { nodes, now: Instant::ZERO, buf: [0; 1_400], carried: 0 };
        duel.nodes[1].join(Instant::ZERO, &[Paper(0).addr()]);
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
                while let Some(sent) = self.nodes[from].poll_transmit(&mut self.buf) {
                    let len = sent.payload.len();
                    let packet = &mut self.buf[..len];
                    let source = Paper(from as u32).addr();
                    self.nodes[1 - from].handle_packet(self.now, source, packet).expect("correct");
                    self.carried += 1;
                }
                while self.nodes[from].poll_event().is_some() {}
            }
            let due = self.nodes.iter().filter_map(Node::poll_timeout).min();
            let due = due.expect("each probes the other");
            self.now = self.now.max(due);
            for node in &mut self.nodes {
                if node.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.handle_timeout(self.now);
                }
            }
        }
    }
}
