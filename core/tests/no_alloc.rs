//! Promise 4: in steady state a packet allocates nothing.

#![allow(clippy::unwrap_used)]

mod counted;

use std::time::Duration;

use brickwork_core::{Config, Identity, Instant, Node};
use counted::allocations;

const NODES: usize = 4;

/// A cluster without a harness, whose own allocations would count: datagrams go from buffer to node.
struct Cluster {
    nodes: [Node; NODES],
    now: Instant,
    buf: [u8; 1400],
}

fn addr(place: usize) -> std::net::SocketAddr {
    ([10, 0, 0, 1], 1000 + u16::try_from(place).unwrap()).into()
}

impl Cluster {
    fn new() -> Self {
        let node = |place: usize| {
            let identity = Identity::new(format!("node-{place}"), addr(place));
            let entropy = [u8::try_from(place).unwrap(); 32];
            Node::new(Instant::ZERO, identity, Config::lan(), entropy).unwrap()
        };
        let mut nodes = std::array::from_fn(node);
        for node in nodes.iter_mut().skip(1) {
            node.join(Instant::ZERO, &[addr(0)]);
        }
        Self { nodes, now: Instant::ZERO, buf: [0; 1400] }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for from in 0..NODES {
                while let Some(sent) = self.nodes[from].poll_transmit(&mut self.buf) {
                    let (to, len) = (sent.to, sent.payload.len());
                    let place = usize::from(to.port() - 1000);
                    let packet = &mut self.buf[..len];
                    self.nodes[place].handle_packet(self.now, addr(from), packet).unwrap();
                }
                while self.nodes[from].poll_event().is_some() {}
            }
            let next = self.nodes.iter().filter_map(Node::poll_timeout).min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.nodes.iter_mut().for_each(|node| node.handle_timeout(self.now));
        }
    }
}

#[test]
fn probing_and_answering_allocate_nothing() {
    let mut cluster = Cluster::new();
    cluster.run(Duration::from_secs(120));
    assert!(cluster.nodes.iter().all(|node| node.members().count() == NODES));
    let before = (allocations(), cluster.nodes[0].stats().datagrams_sent);
    cluster.run(Duration::from_secs(600));
    assert!(cluster.nodes[0].stats().datagrams_sent > before.1 + 1_000);
    assert_eq!(allocations() - before.0, 0);
}

#[test]
fn overwriting_a_value_allocates_only_for_the_growth_of_the_logs() {
    let mut cluster = Cluster::new();
    cluster.run(Duration::from_secs(120));
    let write = |cluster: &mut Cluster, value: u32| {
        let now = cluster.now;
        cluster.nodes[1].insert(now, b"origin-17", &value.to_be_bytes()).unwrap();
        cluster.run(Duration::from_millis(50));
    };
    (0..100).for_each(|value| write(&mut cluster, value));
    let before = allocations();
    (100..1100).for_each(|value| write(&mut cluster, value));
    assert!(
        cluster
            .nodes
            .iter()
            .all(|node| node.get(b"origin-17") == Some(&1099_u32.to_be_bytes()[..]))
    );
    // Each of the four logs of dots grows past 128, 256, 512 and 1,024; and one node notes for the
    // first time what a peer knows, and answers a pull for the first time: a place for that, and one for
    // the place when it is free again.
    let allocations = allocations() - before;
    assert!(allocations <= 4 * 4 + 3, "{allocations} allocations for 1,000 writes at four nodes");
}
