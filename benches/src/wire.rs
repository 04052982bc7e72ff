//! Datagrams of members that exist only on paper, so that a table can be filled without ten thousand
//! nodes. The format is drawn in the core's `wire.rs` and `swim/wire.rs`; the core's golden datagrams
//! pin it, and a wrong byte here is refused by the nodes that are measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use brickwork_core::NodeId;
use xxhash_rust::xxh3::xxh3_64;

/// The cluster that the measured nodes belong to.
pub const CLUSTER: &str = "bench";

const PING: u8 = 0x01;
const UPDATES: u8 = 0x07;
const JOIN: u8 = 0x08;
const COOKIE: u8 = 0x09;
/// An optional tag that no version uses: receivers skip it.
const PADDING: u8 = 0xff;
const HEADER: usize = 24;
const TRAILER: usize = 4;

/// A member on paper: name, id and address follow from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paper(pub u32);

impl Paper {
    /// Its name, as long as that of a server.
    #[must_use]
    pub fn name(self) -> String {
        format!("cache-{:06}", self.0)
    }

    /// Its id.
    #[must_use]
    pub fn id(self) -> NodeId {
        NodeId::from_name(&self.name())
    }

    /// Its address.
    #[must_use]
    pub fn addr(self) -> SocketAddr {
        (Ipv4Addr::from(0x0a00_0001 + self.0), 7946).into()
    }
}

/// A datagram under construction.
#[derive(Debug, Clone)]
pub struct Datagram {
    bytes: Vec<u8>,
}

impl Datagram {
    /// From `sender` in its first boot.
    #[must_use]
    pub fn from(sender: NodeId, boot: u64) -> Self {
        let cluster = xxh3_64(CLUSTER.as_bytes()) & 0xffff_ffff;
        let mut bytes = vec![0xb7, 1, 0, 0];
        bytes.extend_from_slice(&cluster.to_le_bytes()[..4]);
        bytes.extend_from_slice(&sender.0.to_le_bytes());
        bytes.extend_from_slice(&boot.to_le_bytes());
        debug_assert_eq!(bytes.len(), HEADER);
        Self { bytes }
    }

    /// With a ping for `target`.
    #[must_use]
    pub fn ping(mut self, seq: u32, target: NodeId) -> Self {
        let mut body = Vec::new();
        varint(&mut body, u64::from(seq));
        body.extend_from_slice(&target.0.to_le_bytes());
        self.frame(PING, &body);
        self
    }

    /// With news that these members, of boot 1, live in that incarnation.
    #[must_use]
    pub fn alive(mut self, members: impl Iterator<Item = Paper>, incarnation: u32) -> Self {
        let mut body = Vec::new();
        for member in members {
            alive_row(&mut body, member, member.addr(), incarnation);
        }
        self.frame(UPDATES, &body);
        self
    }

    /// With the wish of `member`, which knows others, to be let in at `addr`.
    #[must_use]
    pub fn join(mut self, member: Paper, addr: SocketAddr, cookie: u64) -> Self {
        let mut body = cookie.to_le_bytes().to_vec();
        alive_row(&mut body, member, addr, 0);
        body.push(0);
        self.frame(JOIN, &body);
        self
    }

    /// With news that these members were confirmed failed, as `accuser` says.
    #[must_use]
    pub fn dead(mut self, members: impl Iterator<Item = Paper>, accuser: NodeId) -> Self {
        let mut body = Vec::new();
        for member in members {
            body.push(2);
            body.extend_from_slice(&member.id().0.to_le_bytes());
            body.extend_from_slice(&1_u64.to_le_bytes());
            varint(&mut body, 0);
            body.push(1);
            body.extend_from_slice(&accuser.0.to_le_bytes());
        }
        self.frame(UPDATES, &body);
        self
    }

    /// Filled up to `len` bytes in all.
    #[must_use]
    pub fn padded(mut self, len: usize) -> Self {
        // A frame of more than 127 bytes has a head of three.
        let room = len.saturating_sub(self.bytes.len() + TRAILER + 3);
        if room > 127 {
            self.frame(PADDING, &vec![0; room]);
        }
        self
    }

    /// The finished bytes.
    #[must_use]
    pub fn seal(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.bytes);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes
    }

    fn frame(&mut self, tag: u8, body: &[u8]) {
        self.bytes.push(tag);
        varint(&mut self.bytes, body.len() as u64);
        self.bytes.extend_from_slice(body);
    }
}

/// The cookie that somebody is given who asked to be let in, which is all that he is told.
#[must_use]
pub fn cookie(datagram: &[u8]) -> Option<u64> {
    let (head, cookie) = datagram.get(HEADER..)?.split_first_chunk::<2>()?;
    (*head == [COOKIE, 8]).then(|| cookie.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)))?
}

/// `member` asks a node to be let in at `addr`: `ask` hands a datagram in and returns what comes back there. Who answers without
/// a cookie is no node.
pub fn introduce(
    member: Paper,
    addr: SocketAddr,
    mut ask: impl FnMut(&mut [u8]) -> Option<Vec<u8>>,
) {
    let mut join =
        |cookie| ask(&mut Datagram::from(member.id(), 1).join(member, addr, cookie).seal());
    if let Some(cookie) = join(0).as_deref().and_then(cookie) {
        let _ = join(cookie);
    }
}

fn alive_row(out: &mut Vec<u8>, member: Paper, addr: SocketAddr, incarnation: u32) {
    out.push(0);
    out.extend_from_slice(&member.id().0.to_le_bytes());
    out.extend_from_slice(&1_u64.to_le_bytes());
    varint(out, u64::from(incarnation));
    varint(out, 0);
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_le_bytes());
    let name = member.name();
    varint(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
    // No zone, no metadata, weight 1, and a commitment that nobody will open.
    out.extend_from_slice(&[0, 0, 1]);
    out.extend_from_slice(&u64::from(member.0).to_le_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
