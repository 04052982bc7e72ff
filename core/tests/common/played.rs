//! A bare map whose peers are played by the test: it is told frames by hand, and what it sends is seen with the moment
//! at which it was sent.

use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

use super::bare::{frame, packet, varint};
use super::frame_of;
use super::maps::{NOW, addr, drain};

pub const PULL: u8 = 0xa1;
pub const STATE: u8 = 0xa2;
pub const CHUNK: u8 = 0xa3;

pub const OWN: u8 = 1;
pub const BARE: u8 = 2;

/// A map that has just met these peers, and told them its state.
pub fn among(config: &Config, peers: impl IntoIterator<Item = u64>) -> Map {
    among_seeded(config, peers, 7)
}

/// The same with other luck.
pub fn among_seeded(config: &Config, peers: impl IntoIterator<Item = u64>, seed: u8) -> Map {
    let replica = ReplicaId::new(NodeId(1), 1);
    let mut map = Map::new(NOW, replica, "test", config.clone(), 1400, [seed; 32]).unwrap();
    peers.into_iter().for_each(|peer| map.peer_up(NOW, NodeId(peer), 1, addr(peer)));
    drain(&mut map);
    map
}

pub fn tell(map: &mut Map, now: Instant, from: u64, frames: &[u8]) {
    let mut bytes = packet("test", NodeId(from), 1, frames);
    map.handle_packet(now, addr(from), &mut bytes).unwrap();
}

/// The word of a peer that its map has this digest.
pub fn state(digest: u64) -> Vec<u8> {
    frame(STATE, &[digest.to_le_bytes(), digest.to_le_bytes()].concat())
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hash of two words that nodes share.
pub fn mix2(a: u64, b: u64) -> u64 {
    mix(mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b)
}

/// The hash that names life 1 of a node to which something is told.
pub fn addressee(node: u64) -> u64 {
    mix2(mix2(node, 1), 1)
}

/// A chunk for the map: the answer number `number` to a pull, or a push if that is nonce 0.
pub fn chunk(nonce: u64, number: u64, flags: u8, runs: &[u8]) -> Vec<u8> {
    chunk_to(1, nonce, number, flags, runs)
}

pub fn chunk_to(node: u64, nonce: u64, number: u64, flags: u8, runs: &[u8]) -> Vec<u8> {
    let mut body = [addressee(node).to_le_bytes().to_vec(), varint(nonce)].concat();
    if nonce != 0 {
        body.extend(varint(number));
    }
    body.push(flags);
    frame(CHUNK, &[&body, runs].concat())
}

/// A run of one write of life 1 of a node, with a value.
pub fn write(node: u64, counter: u64, kind: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let head = [&[0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    let len = |bytes: &[u8]| varint(bytes.len() as u64);
    [head, varint(counter), vec![1, kind], len(key), key.to_vec(), len(value), value.to_vec()]
        .concat()
}

/// A frame that was sent: when, to whom, and its body.
pub type Frame = (Instant, u64, Vec<u8>);

/// Fires every timer at its moment until `end`, and returns the frames of this tag, those of `now` among them.
pub fn run(map: &mut Map, tag: u8, now: Instant, end: Instant) -> Vec<Frame> {
    let (mut now, mut frames) = (now, Vec::new());
    loop {
        for (to, bytes) in drain(map) {
            frames.extend(frame_of(&bytes, tag).map(|body| (now, to, body.to_vec())));
        }
        let Some(due) = map.poll_timeout().filter(|due| *due <= end) else { return frames };
        now = due.max(now);
        map.handle_timeout(now);
    }
}

pub fn times(frames: &[Frame]) -> Vec<u128> {
    frames.iter().map(|(at, ..)| (*at - NOW).as_millis()).collect()
}
