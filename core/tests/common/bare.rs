//! One bare membership whose peers are played by the test: it hears what the test forges, and what it sends
//! is seen with the moment at which it was sent.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::swim::{Config, Swim};
use brickwork_core::{Event, Identity, Instant, NodeId};
use siphasher::sip::SipHasher24;

use super::{addr, frame_of, name};

pub const PING: u8 = 0x01;
pub const ACK: u8 = 0x02;
pub const PING_REQ: u8 = 0x03;
pub const RELAYED_ACK: u8 = 0x04;
pub const NACK: u8 = 0x05;
pub const VERIFY: u8 = 0x06;
pub const UPDATES: u8 = 0x07;
pub const JOIN: u8 = 0x08;
pub const COOKIE: u8 = 0x09;
pub const CONFLICT: u8 = 0x0a;
pub const BOOT_TOO_OLD: u8 = 0x0b;
pub const STRANGER: u8 = 0x0c;
pub const LEFT_ACK: u8 = 0x0d;
pub const BUCKETS: u8 = 0x0e;
pub const LISTED: u8 = 0x0f;
pub const OFFERED: u8 = 0x10;
pub const WANTED: u8 = 0x11;
pub const PUSH_PULL: u8 = 0x12;
pub const TABLE_DIGEST: u8 = 0x81;

pub const ALIVE: u8 = 0;
pub const SUSPECT: u8 = 1;
pub const DEAD: u8 = 2;
pub const LEFT: u8 = 3;
pub const STANDING: u8 = 4;

/// The pings of a probe have so many numbers of their own, from that of the first.
pub const NUMBERS: u64 = 24;

pub fn id(place: usize) -> NodeId {
    NodeId::from_name(&name(place))
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A frame of the wire format.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &varint(body.len() as u64), body].concat()
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// The number at the front of `bytes`.
pub fn read_varint(bytes: &[u8]) -> u64 {
    let len = bytes.iter().position(|byte| *byte < 0x80).unwrap() + 1;
    bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

pub fn ack(seq: u64) -> Vec<u8> {
    frame(ACK, &varint(seq))
}

pub fn ping_req(seq: u64, target: NodeId, millis: u64) -> Vec<u8> {
    frame(PING_REQ, &[varint(seq), target.0.to_le_bytes().to_vec(), varint(millis)].concat())
}

/// The head of a row about boot `boot` of the member at `place`.
fn row(kind: u8, place: usize, boot: u64, incarnation: u32) -> Vec<u8> {
    let (id, boot) = (id(place).0.to_le_bytes(), boot.to_le_bytes());
    [&[kind][..], &id, &boot, &varint(u64::from(incarnation))].concat()
}

/// What the member at `place` tells of itself, at `port` of its host.
pub fn alive_at(place: usize, boot: u64, incarnation: u32, version: u32, port: u16) -> Vec<u8> {
    alive_with(place, boot, incarnation, version, port, &[])
}

/// The same with metadata.
pub fn alive_with(
    place: usize,
    boot: u64,
    incarnation: u32,
    version: u32,
    port: u16,
    meta: &[u8],
) -> Vec<u8> {
    let mut bytes = row(ALIVE, place, boot, incarnation);
    bytes.extend(varint(u64::from(version)));
    bytes.extend([4, 10, 0, 0, 1]);
    bytes.extend(port.to_le_bytes());
    let name = name(place);
    bytes.push(u8::try_from(name.len()).unwrap());
    bytes.extend(name.as_bytes());
    bytes.extend([0, u8::try_from(meta.len()).unwrap()]); // no zone
    bytes.extend(meta);
    bytes.push(1); // weight
    let mut hasher = SipHasher24::new_with_key(&preimage(place));
    hasher.write(b"brickwork left");
    bytes.extend(hasher.finish().to_le_bytes());
    bytes
}

/// What the member at `place` reveals when it leaves.
fn preimage(place: usize) -> [u8; 16] {
    [u8::try_from(place % 256).unwrap(); 16]
}

/// The word of the member at `place` that it leaves.
pub fn left(place: usize) -> Vec<u8> {
    left_in(1, place)
}

pub fn left_in(boot: u64, place: usize) -> Vec<u8> {
    [&row(LEFT, place, boot, 0)[..], &preimage(place)].concat()
}

pub fn alive(place: usize, boot: u64, incarnation: u32) -> Vec<u8> {
    alive_at(place, boot, incarnation, 0, addr(place).port())
}

/// An accusation of boot 1 of the member at `place`, dead or suspect as `kind` says.
pub fn accused(kind: u8, place: usize, incarnation: u32, accusers: &[usize]) -> Vec<u8> {
    accused_in(1, kind, place, incarnation, accusers)
}

pub fn accused_in(
    boot: u64,
    kind: u8,
    place: usize,
    incarnation: u32,
    accusers: &[usize],
) -> Vec<u8> {
    let mut bytes = row(kind, place, boot, incarnation);
    bytes.push(u8::try_from(accusers.len()).unwrap());
    accusers.iter().for_each(|accuser| bytes.extend(id(*accuser).0.to_le_bytes()));
    bytes
}

/// What was found of the member at `place`, of which four are enough: by whom, and how many tenths of a second ago.
pub fn standing(place: usize, times: u8, poor: &[(usize, u64)], well: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = row(STANDING, place, 1, 0);
    let opened = poor.iter().map(|(_, tenths)| *tenths).max().unwrap_or(0);
    bytes.extend([times, 4]);
    bytes.extend(varint(opened * 100));
    bytes.extend([u8::try_from(poor.len()).unwrap(), u8::try_from(well.len()).unwrap()]);
    for (observer, tenths) in poor.iter().chain(well) {
        bytes.extend(id(*observer).0.to_le_bytes());
        bytes.extend(varint(*tenths * 100));
    }
    bytes
}

/// The wish of boot `boot` of the member at `place`, which knows nobody, to be let in at `port`.
pub fn join(cookie: u64, place: usize, boot: u64, port: u16) -> Vec<u8> {
    join_with(cookie, &alive_at(place, boot, 0, 0, port), true)
}

/// The wish of the member with this row to be let in, by which it says whether it knows nobody.
pub fn join_with(cookie: u64, row: &[u8], alone: bool) -> Vec<u8> {
    frame(JOIN, &[&cookie.to_le_bytes()[..], row, &[u8::from(alone)]].concat())
}

/// The cookie in a datagram.
pub fn cookie_in(datagram: &[u8]) -> Option<u64> {
    let cookie = frame_of(datagram, COOKIE)?;
    Some(u64::from_le_bytes(cookie.try_into().unwrap()))
}

/// A member that knows others asks a node to be let in, and proves where it is: `take` hands a datagram of its to the node,
/// and `send` gives what the node sends next. The answers to it are lost.
pub fn introduce<N>(
    node: &mut N,
    (place, row): (usize, &[u8]),
    mut take: impl FnMut(&mut N, Vec<u8>),
    mut send: impl FnMut(&mut N) -> Option<(SocketAddr, Vec<u8>)>,
    cluster: &str,
) -> Vec<(SocketAddr, Vec<u8>)> {
    let boot = u64::from_le_bytes(row[9..17].try_into().unwrap());
    let (mut cookie, mut others) = (0, Vec::new());
    for _ in 0..2 {
        take(node, packet(cluster, id(place), boot, &join_with(cookie, row, false)));
        while let Some((to, bytes)) = send(node) {
            cookie = cookie_in(&bytes).unwrap_or(cookie);
            if to != addr(place) {
                others.push((to, bytes));
            }
        }
    }
    others
}

/// A datagram with these frames.
pub fn packet(cluster: &str, sender: NodeId, boot: u64, frames: &[u8]) -> Vec<u8> {
    let tag = xxhash_rust::xxh3::xxh3_64(cluster.as_bytes()).to_le_bytes();
    let mut bytes = vec![0xb7, 1, 0, 0];
    bytes.extend(&tag[..4]);
    bytes.extend(sender.0.to_le_bytes());
    bytes.extend(boot.to_le_bytes());
    bytes.extend(frames);
    seal(bytes)
}

/// The datagram with the checksum that it should have.
pub fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes).to_le_bytes();
    bytes.extend(crc);
    bytes
}

/// A datagram that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub at: Instant,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn frame(&self, tag: u8) -> Option<&[u8]> {
        frame_of(&self.bytes, tag)
    }

    /// The bodies of all frames of this tag, in order.
    pub fn frames(&self, tag: u8) -> Vec<&[u8]> {
        let (mut rest, mut found) = (&self.bytes[24..self.bytes.len() - 4], Vec::new());
        while let [other, ..] = *rest {
            let len = usize::try_from(read_varint(&rest[1..])).unwrap();
            let start = 1 + varint(len as u64).len();
            if other == tag {
                found.push(&rest[start..start + len]);
            }
            rest = &rest[start + len..];
        }
        found
    }

    /// Whether it carries a frame of this tag to the member at `place`.
    pub fn is(&self, tag: u8, place: usize) -> bool {
        self.to == addr(place) && self.frame(tag).is_some()
    }

    /// The sequence number of its ping, ping request, answer or refusal.
    pub fn seq(&self, tag: u8) -> u64 {
        read_varint(self.frame(tag).unwrap())
    }
}

/// The places to which frames of this tag went, in order.
pub fn places(sent: &[Sent], tag: u8) -> Vec<usize> {
    let mut places: Vec<_> = sent
        .iter()
        .filter(|sent| sent.frame(tag).is_some())
        .map(|sent| usize::from(sent.to.port()) - 1000)
        .collect();
    places.sort_unstable();
    places
}

/// The member at `place` asks a node of the cluster "test" to be let in with this row.
pub fn introduce_to(
    swim: &mut Swim,
    now: Instant,
    place: usize,
    row: &[u8],
) -> Vec<(SocketAddr, Vec<u8>)> {
    let take = |swim: &mut Swim, mut bytes: Vec<u8>| {
        swim.handle_packet(now, addr(place), &mut bytes).unwrap();
    };
    let mut buf = vec![0; 65_000];
    let send =
        |swim: &mut Swim| swim.poll_transmit(&mut buf).map(|sent| (sent.to, sent.payload.to_vec()));
    introduce(swim, (place, row), take, send, "test")
}

/// When frames of this tag went to the member at `place`, in milliseconds after `start`.
pub fn times(sent: &[Sent], tag: u8, place: usize, start: Instant) -> Vec<u128> {
    sent.iter()
        .filter(|sent| sent.is(tag, place))
        .map(|sent| (sent.at - start).as_millis())
        .collect()
}

/// Node 0, in its first boot, as those of the others are unless a test says otherwise.
pub struct Bare {
    pub swim: Swim,
    pub now: Instant,
    /// Members that answer each ping at once.
    pub answering: Vec<usize>,
    pending: VecDeque<Sent>,
}

impl Bare {
    pub fn new(config: Config) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let identity = Identity::new(name(0), addr(0)).with_boot_epoch(1);
        let swim = Swim::new(now, identity, "test", config, 1400, [7; 32]).unwrap();
        Self { swim, now, answering: Vec::new(), pending: VecDeque::new() }
    }

    /// A node that has just met the members at these places.
    pub fn among(config: Config, places: impl IntoIterator<Item = usize>) -> Self {
        let mut bare = Self::new(config);
        places.into_iter().for_each(|place| bare.meet(place));
        bare
    }

    /// The member at `place` asks to be let in.
    pub fn meet(&mut self, place: usize) {
        self.meet_as(place, &alive(place, 1, 0));
    }

    /// The member at `place` asks to be let in with this row.
    pub fn meet_as(&mut self, place: usize, row: &[u8]) {
        self.collect();
        let at = self.now;
        let others = introduce_to(&mut self.swim, at, place, row);
        self.pending.extend(others.into_iter().map(|(to, bytes)| Sent { at, to, bytes }));
    }

    /// Hands in frames of the member at `place`.
    pub fn tell(&mut self, place: usize, frames: &[u8]) {
        self.tell_as(place, 1, addr(place), frames);
    }

    /// Hands in frames of boot `boot` of the member at `place`, from this address.
    pub fn tell_as(&mut self, place: usize, boot: u64, from: SocketAddr, frames: &[u8]) {
        let mut bytes = packet("test", id(place), boot, frames);
        self.swim.handle_packet(self.now, from, &mut bytes).unwrap();
    }

    /// What it sends at this moment.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.collect();
        self.pending.drain(..).collect()
    }

    fn collect(&mut self) {
        let mut buf = [0; 1400];
        while let Some(sent) = self.swim.poll_transmit(&mut buf) {
            let sent = Sent { at: self.now, to: sent.to, bytes: sent.payload.to_vec() };
            let answers = self.answering.iter().find(|place| sent.is(PING, **place)).copied();
            if let Some(place) = answers {
                self.tell(place, &ack(sent.seq(PING)));
            }
            self.pending.push_back(sent);
        }
    }

    /// Fires every timer at its moment until `end`, and returns all that was sent meanwhile.
    pub fn run_to(&mut self, end: Instant) -> Vec<Sent> {
        self.collect();
        while let Some(due) = self.swim.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.swim.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
        self.pending.drain(..).collect()
    }

    pub fn run(&mut self, time: Duration) -> Vec<Sent> {
        self.run_to(self.now + time)
    }

    /// Fires timers until a datagram is sent that is wanted, and forgets those before it.
    pub fn next(&mut self, wanted: impl Fn(&Sent) -> bool) -> Sent {
        let end = self.now + Duration::from_secs(7 * 24 * 3600);
        loop {
            self.collect();
            while let Some(sent) = self.pending.pop_front() {
                if wanted(&sent) {
                    return sent;
                }
            }
            let due = self.swim.poll_timeout().filter(|due| *due <= end);
            self.now = self.now.max(due.expect("it is sent"));
            self.swim.handle_timeout(self.now);
        }
    }

    /// The first datagram of the next probe of the member at `place`.
    pub fn next_probe(&mut self, place: usize) -> Sent {
        self.next(|sent| sent.is(PING, place))
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.swim.poll_event()).collect()
    }

    /// Whether the member at `place` was suspected, or failed, since events were asked for last.
    pub fn suspected(&mut self, place: usize) -> bool {
        let about = |event: &Event| matches!(event, Event::Suspected { id: other, .. } if *other == id(place));
        self.events().iter().any(about)
    }
}
