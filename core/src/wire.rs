//! The datagram: a header, tagged frames, and a trailer. Version 1.
//!
//! ```text
//!  offset size
//!   0      1   magic, 0xB7
//!   1      1   major version, 1
//!   2      1   flags: bit 0 = sealed, others 0
//!   3      1   key id; 0 in plaintext
//!   4      4   cluster tag: low half of XXH3-64 of the cluster's name
//!   8      8   sender's node id
//!  16      8   sender's boot epoch
//!  24     14   sealed datagrams only: boot salt (8), packet counter (6)
//!   .      .   frames, one after another (encrypted in sealed datagrams)
//!  -4      4   plaintext: CRC-32 (IEEE) of all bytes before it
//! -16     16   sealed: AEAD tag in its place
//! ```
//!
//! A frame is a tag byte, a length (varint, at most 16,383) and that many bytes. Tags below 128 are
//! mandatory: a packet with an unknown one is refused whole. Tags from 128 on are optional and
//! skipped when unknown. Membership owns the tags 0x01–0x1f, the map 0x20–0x3f, and each the same
//! range plus 0x80 for optional frames. The frames themselves are drawn in `swim/wire.rs` and
//! `map/wire.rs`.
//!
//! Fixed-size integers are little-endian. Varints are LEB128, at most ten bytes, and canonical: an
//! encoding with needless trailing zero groups is refused, so equal content has equal bytes.
//!
//! Plaintext datagrams are protected against accident by the CRC, not against an attacker. Sealed
//! datagrams are reserved here and refused until a key can be configured.

#![warn(clippy::indexing_slicing)]

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::hash;
use crate::id::NodeId;
use crate::sabotage::sabotaged;

/// The smallest buffer that [`Node::poll_transmit`](crate::Node::poll_transmit) accepts, in bytes.
pub const MIN_DATAGRAM: usize = 512;
/// The largest `max_datagram` that a configuration may name, in bytes.
pub const MAX_DATAGRAM: usize = 65_000;

const MAGIC: u8 = 0xb7;
const VERSION: u8 = 1;
const FLAG_SEALED: u8 = 1;
const HEADER: usize = 24;
const TRAILER: usize = 4;
/// Frame lengths are one or two varint bytes.
pub(crate) const MAX_FRAME: usize = (1 << 14) - 1;
const OPTIONAL: u8 = 0x80;

/// Why a packet was refused. The state is as if it had never arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PacketError {
    /// Shorter than a header, or a field runs past the end.
    Truncated,
    /// The first byte is not brickwork's.
    BadMagic,
    /// A major version or flag that this version does not speak.
    UnsupportedVersion,
    /// Sealed with a key, and this node has none.
    Sealed,
    /// The packet belongs to a cluster of another name.
    WrongCluster,
    /// The CRC does not match: damaged on the way.
    BadChecksum,
    /// An unknown mandatory frame.
    UnknownFrame,
    /// A field holds a value that no correct sender writes.
    Malformed,
    /// A count or length above its limit.
    LimitExceeded,
    /// The packet claims to come from this very node.
    OwnPacket,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "packet is truncated",
            Self::BadMagic => "not a brickwork packet",
            Self::UnsupportedVersion => "unsupported protocol version",
            Self::Sealed => "packet is sealed and no key is configured",
            Self::WrongCluster => "packet of another cluster",
            Self::BadChecksum => "checksum mismatch",
            Self::UnknownFrame => "unknown mandatory frame",
            Self::Malformed => "malformed frame",
            Self::LimitExceeded => "a count or length is above its limit",
            Self::OwnPacket => "packet claims to come from this node",
        })
    }
}

impl core::error::Error for PacketError {}

/// Who speaks, from the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) id: NodeId,
    pub(crate) boot_epoch: u64,
}

/// The low half of the hash of the cluster's name.
pub(crate) fn cluster_tag(name: &str) -> u32 {
    (hash::stable(name.as_bytes()) & 0xffff_ffff) as u32
}

/// Checks the envelope, cheapest test first, and yields the sender and the frames.
pub(crate) fn open(packet: &[u8], cluster: u32) -> Result<(Sender, Frames<'_>), PacketError> {
    if packet.len() < HEADER + TRAILER {
        return Err(PacketError::Truncated);
    }
    let mut r = Reader::new(packet);
    if r.u8()? != MAGIC {
        return Err(PacketError::BadMagic);
    }
    if r.u8()? != VERSION {
        return Err(PacketError::UnsupportedVersion);
    }
    let (flags, key) = (r.u8()?, r.u8()?);
    if flags & FLAG_SEALED != 0 || key != 0 {
        return Err(PacketError::Sealed);
    }
    if flags != 0 {
        return Err(PacketError::UnsupportedVersion);
    }
    if r.u32()? != cluster {
        return Err(PacketError::WrongCluster);
    }
    let (covered, trailer) = packet.split_last_chunk::<TRAILER>().ok_or(PacketError::Truncated)?;
    let intact = crc32fast::hash(covered) == u32::from_le_bytes(*trailer);
    if !intact && !sabotaged!("checksum-ignored") {
        return Err(PacketError::BadChecksum);
    }
    let sender = Sender { id: r.node()?, boot_epoch: r.u64()? };
    let frames = covered.get(HEADER..).ok_or(PacketError::Truncated)?;
    Ok((sender, Frames { rest: Reader::new(frames) }))
}

/// The frames of a datagram that is known to be a correct one.
#[cfg(feature = "sim")]
pub(crate) fn frames(packet: &[u8]) -> Frames<'_> {
    let frames = packet.get(HEADER..packet.len().saturating_sub(TRAILER)).unwrap_or_default();
    Frames { rest: Reader::new(frames) }
}

/// Writes one datagram into `buf`: the header, what `body` adds, and the trailer. Returns its length,
/// or `None` if `body` added nothing.
pub(crate) fn seal(
    buf: &mut [u8],
    cluster: u32,
    sender: Sender,
    body: impl FnOnce(&mut Writer<'_>),
) -> Option<usize> {
    let room = buf.len().checked_sub(TRAILER)?;
    let mut w = Writer::new(buf.get_mut(..room)?);
    let header = |w: &mut Writer<'_>| {
        w.u8(MAGIC)?;
        w.u8(VERSION)?;
        w.u8(0)?;
        w.u8(0)?;
        w.u32(cluster)?;
        w.u64(sender.id.0)?;
        w.u64(sender.boot_epoch)
    };
    header(&mut w).ok()?;
    body(&mut w);
    let end = w.len();
    if end == HEADER {
        return None;
    }
    let crc = crc32fast::hash(buf.get(..end)?);
    buf.get_mut(end..end + TRAILER)?.copy_from_slice(&crc.to_le_bytes());
    Some(end + TRAILER)
}

/// The frames of an opened packet, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames<'p> {
    rest: Reader<'p>,
}

impl<'p> Frames<'p> {
    /// The next frame's tag and body; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, &'p [u8])>, PacketError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.rest.u8()?;
        let body = self.rest.bytes(MAX_FRAME)?;
        Ok(Some((tag, body)))
    }
}

/// What to do with a frame whose tag nobody knows.
pub(crate) const fn unknown(tag: u8) -> Result<(), PacketError> {
    if tag & OPTIONAL == 0 { Err(PacketError::UnknownFrame) } else { Ok(()) }
}

/// Reads fields from a byte slice; every read checks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reader<'p> {
    bytes: &'p [u8],
}

impl<'p> Reader<'p> {
    pub(crate) const fn new(bytes: &'p [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Errs if bytes are left: a frame must be used up.
    pub(crate) const fn finish(&self) -> Result<(), PacketError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(PacketError::Malformed) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PacketError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(PacketError::Truncated)?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, PacketError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, PacketError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, PacketError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, PacketError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn secret(&mut self) -> Result<[u8; 16], PacketError> {
        self.array()
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, PacketError> {
        self.u64().map(NodeId)
    }

    /// A canonical LEB128 varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, PacketError> {
        // Most numbers are small.
        match self.bytes.split_first() {
            Some((&byte, rest)) if byte & 0x80 == 0 => {
                self.bytes = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, PacketError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a last byte of zero would be needless.
            if (shift == 63 && group > 1) || (shift > 0 && byte == 0) {
                return Err(PacketError::Malformed);
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(PacketError::Malformed)
    }

    /// A varint that must not exceed `max`.
    #[inline]
    pub(crate) fn count(&mut self, max: usize) -> Result<usize, PacketError> {
        match usize::try_from(self.varint()?) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(PacketError::LimitExceeded),
        }
    }

    /// A varint that fits `u32`.
    pub(crate) fn varint32(&mut self) -> Result<u32, PacketError> {
        u32::try_from(self.varint()?).map_err(|_| PacketError::LimitExceeded)
    }

    /// A length of at most `max` and that many bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'p [u8], PacketError> {
        let len = self.count(max)?;
        self.raw(len)
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn raw(&mut self, len: usize) -> Result<&'p [u8], PacketError> {
        assert!(len <= self.bytes.len() || !sabotaged!("length-unchecked"));
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(PacketError::Truncated)?;
        self.bytes = rest;
        Ok(head)
    }

    /// A length of at most `max` and that many bytes of UTF-8.
    pub(crate) fn text(&mut self, max: usize) -> Result<&'p str, PacketError> {
        core::str::from_utf8(self.bytes(max)?).map_err(|_| PacketError::Malformed)
    }

    /// A family byte (4 or 6), the address and the port. Port 0 and the unspecified address are nobody's.
    pub(crate) fn addr(&mut self) -> Result<SocketAddr, PacketError> {
        let ip = match self.u8()? {
            4 => IpAddr::from(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::from(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(PacketError::Malformed),
        };
        let port = self.u16()?;
        if port == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(PacketError::Malformed);
        }
        Ok(SocketAddr::new(ip, port))
    }
}

/// The datagram has no room for the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Writes fields into the caller's buffer; a field that does not fit writes nothing.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
    /// Where the buffer, or the longest possible frame that is open, ends.
    limit: usize,
}

impl<'b> Writer<'b> {
    pub(crate) const fn new(buf: &'b mut [u8]) -> Self {
        let limit = buf.len();
        Self { buf, at: 0, limit }
    }

    pub(crate) const fn len(&self) -> usize {
        self.at
    }

    /// Runs `write`; if it runs out of room, takes back all that it wrote.
    pub(crate) fn attempt(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let mark = self.at;
        let result = write(self);
        if result.is_err() {
            self.at = mark;
        }
        result
    }

    /// Writes a frame whose body `body` writes. A body that runs out of room takes the frame back.
    pub(crate) fn frame(
        &mut self,
        tag: u8,
        body: impl FnOnce(&mut Self) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        self.attempt(|w| {
            w.u8(tag)?;
            let len_at = w.at;
            w.put(&[0, 0])?;
            let start = w.at;
            let outer = w.limit;
            w.limit = outer.min(start + MAX_FRAME);
            let written = body(w);
            w.limit = outer;
            written?;
            let len = w.at - start;
            // Both casts keep seven bits.
            let (low, high) = ((len & 0x7f) as u8, (len >> 7) as u8);
            if high == 0 {
                w.buf.copy_within(start..w.at, len_at + 1);
                w.at -= 1;
                w.set(len_at, &[low]);
            } else {
                w.set(len_at, &[low | 0x80, high]);
            }
            Ok(())
        })
    }

    /// How many bytes more fit.
    pub(crate) const fn room(&self) -> usize {
        self.limit - self.at
    }

    /// Whether the datagram holds nothing but its header so far.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.at <= HEADER
    }

    /// Goes on writing at `at`, within what was written before.
    pub(crate) fn rewind(&mut self, at: usize) {
        self.at = at;
    }

    /// Overwrites bytes written before.
    pub(crate) fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.buf.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.at + bytes.len();
        if end > self.limit {
            return Err(NoRoom);
        }
        self.buf.get_mut(self.at..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), NoRoom> {
        self.put(&[value])
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> Result<(), NoRoom> {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn node(&mut self, id: NodeId) -> Result<(), NoRoom> {
        self.u64(id.0)
    }

    pub(crate) fn varint(&mut self, mut value: u64) -> Result<(), NoRoom> {
        let mut bytes = [0; 10];
        let mut len = 0;
        for byte in &mut bytes {
            len += 1;
            *byte = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                break;
            }
            *byte |= 0x80;
        }
        self.put(bytes.get(..len).unwrap_or(&bytes))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.varint(bytes.len() as u64)?;
        self.put(bytes)
    }

    pub(crate) fn addr(&mut self, addr: SocketAddr) -> Result<(), NoRoom> {
        match addr.ip() {
            IpAddr::V4(v4) => {
                self.u8(4)?;
                self.put(&v4.octets())?;
            }
            IpAddr::V6(v6) => {
                self.u8(6)?;
                self.put(&v6.octets())?;
            }
        }
        self.put(&addr.port().to_le_bytes())
    }
}

/// How many bytes [`Writer::varint`] takes for `value`.
#[cfg(test)]
const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHO: Sender = Sender { id: NodeId(0x0102_0304_0506_0708), boot_epoch: 9 };

    fn packet(body: impl FnOnce(&mut Writer<'_>)) -> alloc::vec::Vec<u8> {
        let mut buf = [0; 600];
        let len = seal(&mut buf, cluster_tag("test"), WHO, body).unwrap();
        buf[..len].to_vec()
    }

    fn ping() -> alloc::vec::Vec<u8> {
        packet(|w| w.frame(1, |w| w.put(b"hello")).unwrap())
    }

    #[test]
    fn header_has_its_documented_bytes() {
        let bytes = ping();
        assert_eq!(bytes[..4], [0xb7, 1, 0, 0]);
        assert_eq!(bytes[4..8], cluster_tag("test").to_le_bytes());
        assert_eq!(bytes[8..24], [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..31], [1, 5, b'h', b'e', b'l', b'l', b'o']);
        assert_eq!(bytes.len(), 35);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = ping();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, cluster_tag("test")).is_err(), "bit {bit}");
        }
        assert_eq!(open(&good, cluster_tag("other")).unwrap_err(), PacketError::WrongCluster);
        for len in 0..good.len() {
            assert!(open(&good[..len], cluster_tag("test")).is_err(), "length {len}");
        }
    }

    #[test]
    fn long_frames_use_two_length_bytes() {
        let bytes = packet(|w| w.frame(0x81, |w| w.put(&[7; 300])).unwrap());
        let (_, mut frames) = open(&bytes, cluster_tag("test")).unwrap();
        assert_eq!(frames.next().unwrap(), Some((0x81, &[7; 300][..])));
        assert_eq!(frames.next().unwrap(), None);
    }

    #[test]
    fn a_frame_without_room_leaves_no_trace() {
        let mut buf = [0; 10];
        let mut w = Writer::new(&mut buf);
        w.u8(1).unwrap();
        assert_eq!(w.frame(2, |w| w.put(&[0; 20])), Err(NoRoom));
        assert_eq!(w.len(), 1);
    }

    proptest! {
        #[test]
        fn varints_round_trip_in_their_stated_length(value in any::<u64>(), shift in 0..64u32) {
            let value = value >> shift;
            let mut buf = [0; 10];
            let mut w = Writer::new(&mut buf);
            w.varint(value).unwrap();
            let len = w.len();
            prop_assert_eq!(len, varint_len(value));
            let mut r = Reader::new(&buf[..len]);
            prop_assert_eq!(r.varint(), Ok(value));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn reading_arbitrary_bytes_never_panics_and_varints_are_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let mut r = Reader::new(&bytes);
            if let Ok(value) = r.varint() {
                prop_assert_eq!(varint_len(value), bytes.len() - r.remaining());
            }
            let _ = Reader::new(&bytes).addr();
            let _ = Reader::new(&bytes).text(10);
            let _ = open(&bytes, 0);
        }
    }
}
