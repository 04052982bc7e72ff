//! Two of a kind and no socket: what the state machines take.

use std::net::SocketAddr;
use std::time::{Duration, Instant as Clock};

use brickwork_bench::alloc;
use brickwork_bench::wire::{CLUSTER, Paper};
use brickwork_core::swim::{self, Swim};
use brickwork_core::{Config, Identity, Instant, Node, PacketError};

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
    let config = swim::Config::lan();
    let entropy = [number as u8; 32];
    Swim::new(Instant::ZERO, identity(number), CLUSTER, config, DATAGRAM, entropy)
        .expect("accepted")
}

fn node(number: u32) -> Node {
    let mut config = Config::lan();
    config.cluster = CLUSTER.to_owned();
    Node::new(Instant::ZERO, identity(number), config, [number as u8; 32]).expect("accepted")
}

/// What both have in common.
trait Machine {
    fn join(&mut self, seed: SocketAddr);
    fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError>;
    fn fire(&mut self, now: Instant);
    fn due(&self) -> Option<Instant>;
    /// The length of the next datagram.
    fn send(&mut self, buf: &mut [u8]) -> Option<usize>;
    fn has_event(&mut self) -> bool;
}

macro_rules! machine {
    ($type:ty) => {
        impl Machine for $type {
            fn join(&mut self, seed: SocketAddr) {
                self.join(Instant::ZERO, &[seed]);
            }
            fn take(
                &mut self,
                now: Instant,
                from: SocketAddr,
                packet: &mut [u8],
            ) -> Result<(), PacketError> {
                self.handle_packet(now, from, packet)
            }
            fn fire(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn due(&self) -> Option<Instant> {
                self.poll_timeout()
            }
            fn send(&mut self, buf: &mut [u8]) -> Option<usize> {
                self.poll_transmit(buf).map(|sent| sent.payload.len())
            }
            fn has_event(&mut self) -> bool {
                self.poll_event().is_some()
            }
        }
    };
}

machine!(Swim);
machine!(Node);

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
        duel.both[1].join(Paper(0).addr());
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
                while let Some(len) = self.both[from].send(&mut self.buf) {
                    let source = Paper(from as u32).addr();
                    let packet = &mut self.buf[..len];
                    self.both[1 - from].take(self.now, source, packet).expect("correct");
                    self.carried += 1;
                }
                while self.both[from].has_event() {}
            }
            let due = self.both.iter().filter_map(M::due).min();
            self.now = self.now.max(due.expect("each probes the other"));
            for one in &mut self.both {
                if one.due().is_some_and(|at| at <= self.now) {
                    one.fire(self.now);
                }
            }
        }
    }
}
