//! A whole node in a datacenter of 64 with a map of origins: what a packet and a health result cost.

use std::hint::black_box;
use std::time::Duration;

use brickwork_core::{Config, Identity, Instant, Node};

use crate::map::{KEY, key, value};
use crate::measure::Entrant;
use crate::swim::{MAX_DATAGRAM, TELLER, introductions};
use crate::wire::{CLUSTER, Datagram, Paper, introduce};

/// Nodes of a datacenter.
pub const NODES: u32 = 64;

/// A node among members on paper, with `keys` results in its map.
fn settled(keys: u32) -> Node {
    let mut config = Config::lan();
    config.cluster = CLUSTER.to_owned();
    config.max_datagram = MAX_DATAGRAM;
    let me = Identity::new(Paper(0).name(), Paper(0).addr());
    let mut node = Node::new(Instant::ZERO, me, config, [7; 32]).expect("the preset is accepted");
    introduce(TELLER, TELLER.addr(), |datagram| {
        node.handle_packet(Instant::ZERO, TELLER.addr(), datagram).expect("correct");
        let mut buf = [0; MAX_DATAGRAM];
        node.poll_transmit(&mut buf).map(|sent| sent.payload.to_vec())
    });
    for mut packet in introductions(NODES) {
        node.handle_packet(Instant::ZERO, TELLER.addr(), &mut packet).expect("correct");
    }
    assert_eq!(node.members().count(), NODES as usize);
    for at in 0..keys {
        node.insert(Instant::ZERO, &key::<KEY>(at), &value(at, 0)).expect("within the limits");
    }
    // The first pushes go to members that will never answer.
    let mut ping = Datagram::from(TELLER.id(), 1).ping(1, Paper(0).id()).seal();
    for _ in 0..100 {
        node.handle_packet(Instant::ZERO, TELLER.addr(), &mut ping).expect("correct");
        drain(&mut node);
    }
    node
}

/// Sends all datagrams and takes all events. Returns how many datagrams.
fn drain(node: &mut Node) -> u64 {
    let mut buf = [0; MAX_DATAGRAM];
    while node.poll_event().is_some() {}
    std::iter::from_fn(|| node.poll_transmit(&mut buf).map(|_| ())).count() as u64
}

/// A ping handled and its ack written, digests of table and map on it.
#[must_use]
pub fn ping(keys: u32) -> Entrant {
    const BATCH: u64 = 1_000;
    let mut node = settled(keys);
    let mut packet = Datagram::from(TELLER.id(), 1).ping(77, Paper(0).id()).seal();
    Entrant::new(format!("ping and ack, {keys} keys"), move |watch| {
        let mut buf = [0; MAX_DATAGRAM];
        watch.time(BATCH, || {
            for _ in 0..BATCH {
                node.handle_packet(Instant::ZERO, TELLER.addr(), &mut packet).expect("correct");
                assert!(node.poll_transmit(&mut buf).is_some(), "a ping is answered");
            }
        });
    })
}

/// A health result written and pushed to the 63 others, a datagram each.
#[must_use]
pub fn publishing(keys: u32) -> Entrant {
    let (mut node, mut now, mut version) = (settled(keys), Instant::ZERO, 0);
    Entrant::new(format!("insert and 63 pushes, {keys} keys"), move |watch| {
        now += Duration::from_millis(100);
        version += 1;
        let at = version * 7_919 % keys;
        let sent = watch.time(1, || {
            node.insert(now, &key::<KEY>(at), &value(at, version)).expect("within the limits");
            drain(&mut node)
        });
        assert_eq!(sent, u64::from(NODES) - 1);
    })
}

/// Asking for the owner of a key, hashing included.
#[must_use]
pub fn owning(keys: u32) -> Entrant {
    let node = settled(keys);
    Entrant::new("owner of a key", move |watch| {
        watch.time(u64::from(keys), || {
            for at in 0..keys {
                black_box(node.owner(black_box(&key::<KEY>(at))));
            }
        });
    })
}

/// Reading a key from the node's own copy.
#[must_use]
pub fn reading(keys: u32) -> Entrant {
    let node = settled(keys);
    Entrant::new(format!("get, {keys} keys"), move |watch| {
        watch.time(u64::from(keys), || {
            for at in 0..keys {
                black_box(node.get(black_box(&key::<KEY>(at))));
            }
        });
    })
}
