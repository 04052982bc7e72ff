//! The table exchange: two who know different members come to know all of them, and tell no more than what differs.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::bare::{PING, UPDATES, alive, alive_at, frame, id, packet};
use crate::common::{addr, frame_of, name};
use brickwork_core::swim::{Config, Swim};
use brickwork_core::{Identity, Instant, NodeId};
use proptest::prelude::*;

const BUCKETS: u8 = 0x0e;
const LISTED: u8 = 0x0f;
const OFFERED: u8 = 0x10;
const WANTED: u8 = 0x11;
const ROW: usize = 45;

/// Nodes whose clock is a test's, with no gossip: what one learns, it learns by the exchange.
struct Nodes {
    nodes: Vec<Swim>,
    now: Instant,
    /// Bytes of frames that were told, by tag.
    bytes: [usize; 256],
}

impl Nodes {
    fn new(count: usize, max_datagram: usize) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut config = Config::lan();
        config.gossip_nodes = 0;
        // Those that are made up answer no probe.
        config.suspicion_min = 1_000;
        let node = |place: usize| {
            let identity = Identity::new(name(place), addr(place)).with_boot_epoch(1);
            let entropy = [u8::try_from(place).unwrap() + 1; 32];
            Swim::new(now, identity, "test", config.clone(), max_datagram, entropy).unwrap()
        };
        let mut nodes = Self { nodes: (0..count).map(node).collect(), now, bytes: [0; 256] };
        for at in 0..count {
            (0..count).filter(|other| *other != at).for_each(|other| nodes.know(at, other));
        }
        nodes
    }

    /// The node is told of a member by that itself, so that nothing is asked for.
    fn know(&mut self, at: usize, place: usize) {
        let mut bytes = packet("test", id(place), 1, &frame(UPDATES, &alive(place, 1, 0)));
        self.nodes[at].handle_packet(self.now, addr(place), &mut bytes).unwrap();
    }

    /// Each asks each whether it is there; the answer tells a digest.
    fn ping_all(&mut self) {
        let all = 0..self.nodes.len();
        for (at, from) in all.clone().flat_map(|at| all.clone().map(move |from| (at, from))) {
            if at != from {
                let ping = [vec![1], id(at).0.to_le_bytes().to_vec()].concat();
                let mut bytes = packet("test", id(from), 1, &frame(PING, &ping));
                self.nodes[at].handle_packet(self.now, addr(from), &mut bytes).unwrap();
            }
        }
    }

    fn members(&self, at: usize) -> BTreeSet<NodeId> {
        self.nodes[at].members().map(|member| member.id()).collect()
    }

    /// Lets time pass; of what is sent to the nodes so much is lost.
    fn run(&mut self, time: Duration, mut lost: impl FnMut() -> bool) {
        let end = self.now + time;
        let mut buf = [0; 65_000];
        while self.now < end {
            self.now += Duration::from_millis(1);
            // Their own probes go to members that were made up, most often.
            if self.now.as_nanos().is_multiple_of(300_000_000) {
                self.ping_all();
            }
            for at in 0..self.nodes.len() {
                self.nodes[at].handle_timeout(self.now);
                let mut sent = Vec::new();
                while let Some(datagram) = self.nodes[at].poll_transmit(&mut buf) {
                    sent.push((datagram.to, datagram.payload.to_vec()));
                }
                for (to, mut bytes) in sent {
                    for tag in [UPDATES, BUCKETS, LISTED, OFFERED, WANTED] {
                        self.bytes[usize::from(tag)] +=
                            frame_of(&bytes, tag).map_or(0, <[u8]>::len);
                    }
                    let to = (0..self.nodes.len()).find(|place| addr(*place) == to);
                    if let Some(to) = to.filter(|_| !lost()) {
                        self.nodes[to].handle_packet(self.now, addr(at), &mut bytes).unwrap();
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Goal: whoever knows whatever, all come to know all. Method: two or three nodes with any members of their own,
    /// datagrams of any length, any loss.
    #[test]
    fn all_come_to_know_all(
        known in proptest::collection::vec(0..8_u8, 0..250),
        count in 2..4_usize,
        max_datagram in prop_oneof![Just(512), 512..1_500_usize, Just(40_000)],
        loss in 0..50_u64,
    ) {
        let mut nodes = Nodes::new(count, max_datagram);
        for (place, by) in (100..).zip(&known) {
            (0..count).filter(|at| by >> at & 1 == 1).for_each(|at| nodes.know(at, place));
        }
        let all: BTreeSet<NodeId> = (0..count).flat_map(|at| nodes.members(at)).collect();
        let mut dice = 1_u64;
        // An exchange takes five datagrams that arrive, and another one begins after a second: with half of them lost one
        // in thirty is whole.
        let most = if loss > 0 { 100 } else { 1 };
        for _ in 0..most {
            nodes.run(Duration::from_secs(4), || {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (dice >> 33) % 100 < loss
            });
            if (0..count).all(|at| nodes.members(at).len() == all.len()) {
                break;
            }
        }
        for at in 0..count {
            prop_assert_eq!(nodes.members(at).len(), all.len(), "{}", at);
        }
    }
}

/// Goal: what both know costs four bytes a member at most, and only that which one lacks is told in full, once. Method:
/// two with 2,000 members in common and a few of their own.
#[test]
fn what_both_know_is_not_told() {
    let mut nodes = Nodes::new(2, 1400);
    (1_000..3_000).for_each(|place| (0..2).for_each(|at| nodes.know(at, place)));
    (3_000..3_005).for_each(|place| nodes.know(0, place));
    (3_005..3_020).for_each(|place| nodes.know(1, place));
    nodes.bytes = [0; 256];
    nodes.run(Duration::from_secs(2), || false);
    assert_eq!([nodes.members(0).len(), nodes.members(1).len()], [2_022; 2]);
    let bytes = |tag: u8| nodes.bytes[usize::from(tag)];
    let told = bytes(UPDATES) / ROW;
    assert!((20..40).contains(&told), "{told} rows");
    // At most two exchanges, each of at most 20 of 64 buckets.
    let lists = bytes(LISTED) + bytes(OFFERED) + bytes(WANTED);
    assert!(lists < 2 * 20 * (2_000 / 64 + 40) * 4, "{lists} bytes of lists");
}

/// Goal: a peer that tells of another address of a member, in a newer version, is asked for it, and only one of two who
/// offer the same at once is. Method: node 0 lacks 300 members that both others have.
#[test]
fn the_same_is_asked_of_one_alone() {
    let mut nodes = Nodes::new(3, 1400);
    for place in 1_000..1_300 {
        [1, 2].into_iter().for_each(|at| nodes.know(at, place));
    }
    let moved = frame(UPDATES, &alive_at(1_000, 1, 0, 7, 9));
    let mut bytes = packet("test", id(1_000), 1, &moved);
    nodes.nodes[1].handle_packet(nodes.now, addr(1_000), &mut bytes).unwrap();
    nodes.bytes = [0; 256];
    nodes.run(Duration::from_secs(3), || false);
    assert!((0..3).all(|at| nodes.members(at).len() == 303));
    for node in &nodes.nodes {
        assert_eq!(node.member(id(1_000)).unwrap().addr().port(), 9);
    }
    let told = nodes.bytes[usize::from(UPDATES)] / ROW;
    assert!((300..360).contains(&told), "{told} rows");
}
