//! Frames of pulls, full syncs and fragments, made and read by hand.

use std::time::Duration;

use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

use super::bare::{frame, packet, varint};
use super::frame_of;
use super::maps::{NOW, addr, drain};

pub const PULL: u8 = 0xa1;
pub const STATE: u8 = 0xa2;
pub const FETCH: u8 = 0xa4;
pub const STAGE: u8 = 0xa5;
pub const GONE: u8 = 0xa6;
pub const FRAGMENT: u8 = 0xa8;

pub fn tell(map: &mut Map, now: Instant, from: u64, frames: &[u8]) {
    let mut bytes = packet("test", NodeId(from), 1, frames);
    map.handle_packet(now, addr(from), &mut bytes).unwrap();
}

/// The bodies of the frames of this tag that the map sends to this peer now.
pub fn sent(map: &mut Map, tag: u8, to: u64) -> Vec<Vec<u8>> {
    let sent = drain(map).into_iter().filter(|(peer, _)| *peer == to);
    sent.filter_map(|(_, bytes)| frame_of(&bytes, tag).map(<[u8]>::to_vec)).collect()
}

/// Reads the parts of a frame one by one.
pub struct Parts<'b>(pub &'b [u8]);

impl Parts<'_> {
    pub fn varint(&mut self) -> u64 {
        let value = super::bare::read_varint(self.0);
        self.0 = &self.0[varint(value).len()..];
        value
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        *head
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

/// The head of a STAGE frame, but for the addressee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub session: u64,
    pub nonce: u64,
    pub contexts: u64,
    pub total: u64,
    pub first: u64,
    pub covered: u32,
    pub last: bool,
}

impl Head {
    pub fn read(body: &[u8]) -> Self {
        let mut parts = Parts(body);
        parts.u64();
        Self {
            session: parts.u64(),
            nonce: parts.varint(),
            contexts: parts.varint(),
            total: parts.varint(),
            first: parts.varint(),
            covered: u32::from_le_bytes(parts.bytes()),
            last: parts.bytes() == [1],
        }
    }

    /// A STAGE frame to boot 1 of node `to` with these units.
    pub fn frame(self, to: u64, units: &[u8]) -> Vec<u8> {
        let mut body = addressee(to, 1, 1).to_le_bytes().to_vec();
        body.extend(self.session.to_le_bytes());
        let numbers = [self.nonce, self.contexts, self.total, self.first];
        numbers.into_iter().for_each(|number| body.extend(varint(number)));
        body.extend(self.covered.to_le_bytes());
        body.push(u8::from(self.last));
        frame(STAGE, &[&body, units].concat())
    }
}

pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whom frames about missing data are meant for: a published hash.
pub fn addressee(node: u64, boot: u64, epoch: u64) -> u64 {
    let mix2 = |a: u64, b: u64| mix(mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b);
    mix2(mix2(node, boot), epoch)
}

/// A FETCH with this number, which may ask ahead.
pub fn fetch(
    session: u64,
    (number, ahead): (u64, bool),
    budget: u64,
    ranges: &[(u64, u64)],
) -> Vec<u8> {
    // Nothing is held of a unit in fragments.
    let flags = vec![u8::from(ahead)];
    let head = [session.to_le_bytes().to_vec(), varint(number), flags, varint(budget), varint(0)];
    let (mut body, mut end) = (head.concat(), 0);
    for &(from, to) in ranges {
        body.extend([varint(from - end), varint(to - from)].concat());
        end = to;
    }
    frame(FETCH, &body)
}

/// The session and the ranges of a FETCH.
pub fn asked(body: &[u8]) -> (u64, Vec<(u64, u64)>) {
    (Parts(body).u64(), numbered_ask(body).2)
}

/// The number of a FETCH, whether it asks ahead, and its ranges.
pub fn numbered_ask(body: &[u8]) -> (u64, bool, Vec<(u64, u64)>) {
    let mut parts = Parts(body);
    let (_, number, flags) = (parts.u64(), parts.varint(), parts.bytes());
    let (_, held) = (parts.varint(), parts.varint());
    assert_eq!(held, 0);
    let (mut ranges, mut end) = (Vec::new(), 0);
    while !parts.0.is_empty() {
        let from = end + parts.varint();
        end = from + parts.varint();
        ranges.push((from, end));
    }
    (number, flags == [1], ranges)
}

pub fn numbered(number: u64) -> Vec<u8> {
    [addressee(1, 1, 1).to_le_bytes(), number.to_le_bytes()].concat()
}

pub fn map(id: u64, config: &Config) -> Map {
    Map::new(NOW, ReplicaId::new(NodeId(id), 1), "test", config.clone(), 1400, [7; 32]).unwrap()
}

pub const KEYS: u64 = 300;

/// A map of 300 keys that cannot tell what happened to them one by one any more, with these peers.
pub fn giver(id: u64, config: &Config, peers: impl IntoIterator<Item = u64>) -> Map {
    let mut map = map(id, config);
    for key in 0..KEYS {
        map.insert(NOW, format!("key-{key:03}").as_bytes(), &[7; 20]).unwrap();
    }
    let mut now = NOW;
    while map.metadata() != (0, 0) {
        now += Duration::from_millis(100);
        map.handle_timeout(now);
    }
    peers.into_iter().for_each(|peer| map.peer_up(NOW, NodeId(peer), 1, addr(peer)));
    drain(&mut map);
    map
}

/// The wish of a peer that has nothing for all that there is.
pub fn pull(nonce: u64, budget: u64) -> Vec<u8> {
    frame(PULL, &[varint(nonce), varint(budget), 1_u64.to_le_bytes().to_vec(), vec![0]].concat())
}

/// The nonce of the pull that the map sends to peer 2 now.
pub fn pulled(map: &mut Map, now: Instant) -> u64 {
    let state = [7_u64.to_le_bytes(), 7_u64.to_le_bytes()].concat();
    tell(map, now, 2, &frame(STATE, &state));
    let sent = drain(map);
    let body = sent.iter().find_map(|(_, bytes)| frame_of(bytes, PULL)).expect("a pull");
    super::bare::read_varint(body)
}

/// What a fragment says that it is of, in an answer to a pull.
pub fn of_pull(nonce: u64) -> Vec<u8> {
    [vec![0], varint(nonce), varint(0)].concat()
}

/// A fragment for map 1 of what `of` says, with a name, a length and an offset.
pub fn fragment(of: &[u8], id: u64, len: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let to = addressee(1, 1, 1).to_le_bytes();
    let parts = [&to, of, &id.to_le_bytes(), &varint(len), &varint(offset), bytes];
    packet("test", NodeId(2), 1, &frame(FRAGMENT, &parts.concat()))
}

/// A run of one dot of node 2 with a whole entry of one value.
pub fn item(counter: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let replica = [2_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    let text = |bytes: &[u8]| [varint(bytes.len() as u64), bytes.to_vec()].concat();
    // A new replica, its dot, one dot, a whole entry: one value of that replica and dot, no marks.
    let head = [vec![0], replica, varint(counter), vec![1, 3], text(key), vec![1, 1]];
    [head.concat(), varint(counter), text(value), vec![0]].concat()
}
