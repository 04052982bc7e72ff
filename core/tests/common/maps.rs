//! Bare replicas of the map, with every datagram in the test's own hands.

use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

/// When everything begins.
pub const NOW: Instant = Instant::ZERO;

pub fn addr(id: u64) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(id).unwrap()).into()
}

pub fn config() -> Config {
    Config::lan()
}

/// A replica of node `id`, with the others as peers.
pub fn replica(id: u64, others: &[u64]) -> Map {
    let mut map =
        Map::new(NOW, ReplicaId::new(NodeId(id), 1), "test", config(), 1400, [7; 32]).unwrap();
    for &other in others {
        map.peer_up(NOW, NodeId(other), 1, addr(other));
    }
    map
}

/// Everything that a replica has to send now, as (receiver, bytes).
pub fn drain(map: &mut Map) -> Vec<(u64, Vec<u8>)> {
    let mut buf = [0; 1400];
    let mut sent = Vec::new();
    while let Some(datagram) = map.poll_transmit(&mut buf) {
        sent.push((u64::from(datagram.to.port()), datagram.payload.to_vec()));
    }
    sent
}

pub fn deliver(map: &mut Map, now: Instant, from: u64, bytes: &[u8]) {
    map.handle_packet(now, addr(from), &mut bytes.to_vec()).unwrap();
}

/// Carries all datagrams to and fro, and fires timers, until nothing moves for two seconds.
pub fn settle(maps: &mut [Map], mut now: Instant) -> Instant {
    let end = now + Duration::from_secs(5);
    while now < end {
        let mut quiet = true;
        for at in 0..maps.len() {
            let from = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                quiet = false;
                let receiver = maps.iter_mut().find(|map| map.replica().node.0 == to);
                if let Some(receiver) = receiver {
                    deliver(receiver, now, from, &bytes);
                }
            }
        }
        if quiet {
            now += Duration::from_millis(10);
            maps.iter_mut().for_each(|map| map.handle_timeout(now));
        }
    }
    now
}
