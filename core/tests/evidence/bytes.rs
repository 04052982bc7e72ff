//! Datagrams by hand, from the description of the wire format alone.

use std::hash::Hasher;
use std::net::SocketAddr;

use brickwork_core::NodeId;

use super::{A, Evidence, Item};

pub const CLUSTER: &str = "evidence";

const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const UPDATES: u8 = 0x07;
const JOIN: u8 = 0x08;
const COOKIE: u8 = 0x09;

/// What the subject reveals when it leaves, in each boot another.
fn secret(boot: u64) -> [u8; 16] {
    [u8::try_from(boot).unwrap(); 16]
}

fn commitment(boot: u64) -> u64 {
    let mut hasher = siphasher::sip::SipHasher24::new_with_key(&secret(boot));
    hasher.write(b"brickwork left");
    hasher.finish()
}

pub fn addr(id: NodeId) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(id.0).unwrap()).into()
}

fn datagram(from: NodeId, boot: u64, tag: u8, body: &[u8]) -> Vec<u8> {
    let cluster = xxhash_rust::xxh3::xxh3_64(CLUSTER.as_bytes()).to_le_bytes();
    let mut bytes = vec![0xb7, 1, 0, 0];
    bytes.extend(&cluster[..4]);
    bytes.extend(from.0.to_le_bytes());
    bytes.extend(boot.to_le_bytes());
    assert!(body.len() < 0x80, "a frame of {} bytes", body.len());
    bytes.extend([tag, u8::try_from(body.len()).unwrap()]);
    bytes.extend(body);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn row(kind: u8, about: NodeId, boot: u64, incarnation: u32, rest: &[u8]) -> Vec<u8> {
    let mut row = vec![kind];
    row.extend(about.0.to_le_bytes());
    row.extend(boot.to_le_bytes());
    row.push(u8::try_from(incarnation).unwrap());
    row.extend(rest);
    row
}

fn alive(about: NodeId, boot: u64, incarnation: u32) -> Vec<u8> {
    let mut rest = vec![0, 4, 10, 0, 0, 1];
    rest.extend(addr(about).port().to_le_bytes());
    rest.extend([1, b'n', 0, 0, 1]);
    rest.extend(commitment(boot).to_le_bytes());
    row(0, about, boot, incarnation, &rest)
}

/// What `of`, in its boot `boot`, tells of itself when it asks to be let in, as one that knows others.
pub fn join(of: NodeId, boot: u64, incarnation: u32, cookie: u64) -> Vec<u8> {
    let body = [&cookie.to_le_bytes()[..], &alive(of, boot, incarnation), &[0]].concat();
    datagram(of, boot, JOIN, &body)
}

/// The cookie that somebody is given who asked.
pub fn cookie(datagram: &[u8]) -> Option<u64> {
    let (_, cookie) = frames(datagram).into_iter().find(|(tag, _)| *tag == COOKIE)?;
    Some(u64::from_le_bytes(cookie.try_into().unwrap()))
}

/// The datagram that carries `item`, as `teller` would send it; `None` if it is none.
pub fn of(item: Item, teller: NodeId) -> Option<Vec<u8>> {
    let (boot, row) = match item.what {
        Evidence::Alive { boot, incarnation } => (boot, alive(A, boot, incarnation)),
        Evidence::Accused { boot, incarnation, dead, by } => {
            let mut rest = vec![u8::try_from(by.len()).unwrap()];
            by.iter().for_each(|id| rest.extend(id.0.to_le_bytes()));
            (boot, row(1 + u8::from(dead), A, boot, incarnation, &rest))
        }
        Evidence::Left { boot, proven } => {
            let secret = if proven { secret(boot) } else { [0xee; 16] };
            (boot, row(3, A, boot, 0, &secret))
        }
        Evidence::Time => return None,
    };
    let (from, boot) = if item.by_subject { (A, boot) } else { (teller, 1) };
    Some(datagram(from, boot, UPDATES, &row))
}

pub fn ping(from: NodeId, to: NodeId) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(to.0.to_le_bytes());
    datagram(from, 1, PING, &body)
}

/// The answer of `from`, in its boot `boot`, to what it was sent, if that asked for one.
pub fn answer(from: NodeId, boot: u64, sent: &[u8]) -> Option<Vec<u8>> {
    let ping = frames(sent).into_iter().find(|(tag, _)| *tag == PING)?.1;
    let (seq, _target) = ping.split_at(ping.len() - 8);
    Some(datagram(from, boot, ACK, seq))
}

fn frames(datagram: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = &datagram[24..datagram.len() - 4];
    let mut found = Vec::new();
    while let [tag, low, high, ..] = *rest {
        let (len, at) = match low {
            0..0x80 => (usize::from(low), 2),
            0x80.. => (usize::from(low & 0x7f) | usize::from(high) << 7, 3),
        };
        found.push((tag, &rest[at..at + len]));
        rest = &rest[at + len..];
    }
    found
}

/// A row about the subject as somebody sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub kind: u8,
    pub boot: u64,
    pub incarnation: u32,
    /// In the order of their ids.
    pub accusers: Vec<NodeId>,
}

/// What a datagram says about the subject. All numbers in these tests are one byte long.
pub fn told_of_subject(datagram: &[u8]) -> Option<Told> {
    let number = |at: &[u8]| u64::from_le_bytes(at[..8].try_into().unwrap());
    let updates = frames(datagram).into_iter().find(|(tag, _)| *tag == UPDATES)?.1;
    let mut rest = updates;
    while !rest.is_empty() {
        let (kind, id, boot, incarnation) =
            (rest[0], number(&rest[1..]), number(&rest[9..]), u32::from(rest[17]));
        let body = &rest[18..];
        let (len, accusers) = match kind {
            0 => {
                // Version, address of version 4, three texts of a byte of length each, weight, commitment.
                let texts = 1 + 7;
                let len = (0..3).fold(texts, |at, _| at + 1 + usize::from(body[at]));
                (len + 1 + 8, Vec::new())
            }
            1 | 2 => {
                let ids = &body[1..1 + 8 * usize::from(body[0])];
                let mut ids: Vec<_> = ids.chunks(8).map(|id| NodeId(number(id))).collect();
                ids.sort_unstable();
                (1 + 8 * ids.len(), ids)
            }
            _ => (16, Vec::new()),
        };
        if id == A.0 {
            return Some(Told { kind, boot, incarnation, accusers });
        }
        rest = &body[len..];
    }
    None
}
