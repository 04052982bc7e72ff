//! Who a node is.

use alloc::boxed::Box;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::hash;

/// A node's name as a number: what rendezvous hashing scores and what the wire carries.
///
/// Ids are equal on every platform and for ever: [`NodeId::from_name`] is the XXH3-64 hash of the
/// name's UTF-8 bytes.
///
/// ```
/// use brickwork_core::NodeId;
///
/// assert_eq!(NodeId::from_name("cache-sjc-3101"), NodeId(0x41a2_496d_0aee_0567));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id of the node called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self(hash::stable(name.as_bytes()))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Longest name, in bytes.
pub const MAX_NAME: usize = 128;
/// Longest zone, in bytes.
pub const MAX_ZONE: usize = 32;
/// Longest application metadata, in bytes.
pub const MAX_META: usize = 160;

/// What one boot of a node tells the others about itself.
///
/// The limits ([`MAX_NAME`], [`MAX_ZONE`], [`MAX_META`]) make sure that a member's whole row fits the
/// smallest datagram; [`Node::new`](crate::Node::new) refuses an identity that breaks them.
///
/// Every node holds one of these for every member, so it is kept small: 56 bytes and its texts, which are a
/// single allocation. Of the address the IP address and the port are kept, for that is what others are told.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    id: NodeId,
    boot_epoch: u64,
    /// The name, the zone and the metadata, one after the other.
    text: Box<[u8]>,
    /// Where the name ends, and how long the zone is.
    name_len: u16,
    zone_len: u8,
    weight: u16,
    port: u16,
    ip: Ip,
}

/// An IP address in 17 bytes without alignment; the enum of `core` with a port takes 32.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ip {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Identity {
    /// The identity of the node called `name` at `addr`, of boot epoch 1 and weight 1, without zone and metadata. Its id is
    /// [`NodeId::from_name`] of the name.
    ///
    /// ```
    /// use brickwork_core::{Identity, NodeId};
    ///
    /// let identity = Identity::new("a", ([127, 0, 0, 1], 7000).into())
    ///     .with_boot_epoch(1_782_000_000_000_000)
    ///     .with_zone("sjc")
    ///     .with_weight(8)
    ///     .with_meta(b"8 cores");
    /// assert_eq!(identity.id(), NodeId::from_name("a"));
    /// assert_eq!((identity.name(), identity.zone(), identity.meta()), ("a", "sjc", &b"8 cores"[..]));
    /// assert_eq!(identity.weight(), 8);
    /// ```
    #[must_use]
    pub fn new(name: impl AsRef<str>, addr: SocketAddr) -> Self {
        let name = name.as_ref();
        Self::of_texts(name, "", &[]).with_id(NodeId::from_name(name)).with_addr(addr)
    }

    /// With one allocation, and of nobody yet. Names and zones that are longer than a `u16` and a `u8` count are cut, and still
    /// refused for their length.
    #[allow(clippy::cast_possible_truncation)] // cut
    pub(crate) fn of_texts(name: &str, zone: &str, meta: &[u8]) -> Self {
        let (name, zone) = (cut(name, u16::MAX.into()), cut(zone, u8::MAX.into()));
        let (id, ip, text) = (NodeId(0), Ip::V4([0; 4]), [name, zone, meta].concat().into());
        let (name_len, zone_len) = (name.len() as u16, zone.len() as u8);
        Self { id, boot_epoch: 1, text, name_len, zone_len, weight: 1, port: 0, ip }
    }

    /// The same identity with another id than follows from its name. At most one live node may bear it.
    #[must_use]
    pub const fn with_id(mut self, id: NodeId) -> Self {
        self.id = id;
        self
    }

    /// The same identity at boot epoch `boot_epoch`.
    #[must_use]
    pub const fn with_boot_epoch(mut self, boot_epoch: u64) -> Self {
        self.boot_epoch = boot_epoch;
        self
    }

    /// The same identity at another address. Flow label and scope of an IPv6 address are not kept.
    #[must_use]
    pub const fn with_addr(mut self, addr: SocketAddr) -> Self {
        self.port = addr.port();
        self.ip = match addr.ip() {
            IpAddr::V4(ip) => Ip::V4(ip.octets()),
            IpAddr::V6(ip) => Ip::V6(ip.octets()),
        };
        self
    }

    /// The same identity in zone `zone`; empty means none.
    #[must_use]
    pub fn with_zone(self, zone: impl AsRef<str>) -> Self {
        self.with_texts(Self::of_texts(self.name(), zone.as_ref(), self.meta()))
    }

    /// The same identity with another weight, of 0 to 65,535: a node owns `weight` parts of the keys, of as many as all weights of
    /// its cluster add up to. One of weight 0 owns none and serves on, which drains it. Where all have the same weight it
    /// costs nothing; else to find an owner takes a logarithm per node ([`hrw::View`](crate::hrw::View)).
    #[must_use]
    pub const fn with_weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// The same identity with other metadata of the application.
    #[must_use]
    pub fn with_meta(self, meta: impl AsRef<[u8]>) -> Self {
        self.with_texts(Self::of_texts(self.name(), self.zone(), meta.as_ref()))
    }

    /// The same identity with the texts of another.
    fn with_texts(&self, other: Self) -> Self {
        let Self { id, boot_epoch, weight, ip, port, .. } = *self;
        Self { id, boot_epoch, weight, ip, port, ..other }
    }

    /// The id, normally [`NodeId::from_name`] of the name. At most one live node may bear it.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// New and higher at every start of the node: drivers use microseconds of wall-clock time since
    /// 1970. Evidence about a member is ordered by it first.
    #[must_use]
    pub const fn boot_epoch(&self) -> u64 {
        self.boot_epoch
    }

    /// Where the others reach this node.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        let ip = match self.ip {
            Ip::V4(octets) => IpAddr::from(octets),
            Ip::V6(octets) => IpAddr::from(octets),
        };
        SocketAddr::new(ip, self.port)
    }

    /// The human-readable name.
    #[must_use]
    pub fn name(&self) -> &str {
        str_of(self.parts().0)
    }

    /// The zone (datacenter) that the node is in; empty if zones are not used.
    #[must_use]
    pub fn zone(&self) -> &str {
        str_of(self.parts().1)
    }

    /// How many parts of all keys the node owns; 0 if it owns none.
    #[must_use]
    pub const fn weight(&self) -> u16 {
        self.weight
    }

    /// Bytes of the application's own, told to every member.
    #[must_use]
    pub fn meta(&self) -> &[u8] {
        self.parts().2
    }

    /// Name, zone and metadata.
    pub(crate) fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (name, rest) = self.text.split_at(self.name_len.into());
        let (zone, meta) = rest.split_at(self.zone_len.into());
        (name, zone, meta)
    }

    /// A wire-stable digest of everything that a member's row tells, for comparing tables.
    pub(crate) fn digest(&self) -> u64 {
        let mut text = [0; MAX_NAME + MAX_ZONE + MAX_META + 3];
        let mut at = 0;
        let (name, zone, meta) = self.parts();
        for part in [name, zone, meta] {
            // Lengths are bounded at admission; a longer part would only weaken the digest.
            if let Some(room) = text.get_mut(at..=at + part.len()) {
                room[0] = part.len() as u8;
                room[1..].copy_from_slice(part);
                at += part.len() + 1;
            }
        }
        let addr = match self.ip {
            Ip::V4(octets) => u64::from(u32::from_be_bytes(octets)),
            Ip::V6(octets) => hash::stable(&octets),
        };
        let place = hash::mix2(addr, u64::from(self.port) << 16 | u64::from(self.weight));
        hash::mix2(
            hash::mix2(self.id.0, self.boot_epoch),
            hash::mix2(place, hash::stable(&text[..at])),
        )
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("boot_epoch", &self.boot_epoch)
            .field("addr", &self.addr())
            .field("name", &self.name())
            .field("zone", &self.zone())
            .field("weight", &self.weight)
            .field("meta", &self.meta())
            .finish()
    }
}

/// As much of a text as so many bytes hold.
fn cut(text: &str, most: usize) -> &[u8] {
    let end = (0..=text.len().min(most)).rev().find(|&end| text.is_char_boundary(end));
    &text.as_bytes()[..end.unwrap_or(0)]
}

/// A part of the text that was made of a `str`.
fn str_of(part: &[u8]) -> &str {
    str::from_utf8(part).expect("it was text when it was put there")
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_identity_is_small() {
        assert_eq!(size_of::<Identity>(), 56);
    }

    proptest! {
        #[test]
        fn parts_stay_what_they_were_whatever_changes(
            name in ".{0,20}",
            zone in ".{0,8}",
            meta in proptest::collection::vec(any::<u8>(), 0..20),
            (ip, port) in any::<(IpAddr, u16)>(),
            weight in any::<u16>(),
            zone_first in any::<bool>(),
        ) {
            let addr = SocketAddr::new(ip, port);
            let identity = Identity::new(&name, addr).with_id(NodeId(5)).with_boot_epoch(9);
            let identity = identity.with_weight(weight);
            let identity = match zone_first {
                true => identity.with_zone("old").with_zone(&zone).with_meta(&meta),
                false => identity.with_meta(b"old").with_meta(&meta).with_zone(&zone),
            };
            prop_assert_eq!(identity.name(), name);
            prop_assert_eq!(identity.zone(), zone);
            prop_assert_eq!(identity.meta(), meta);
            prop_assert_eq!((identity.id(), identity.boot_epoch()), (NodeId(5), 9));
            prop_assert_eq!(identity.addr(), addr);
            prop_assert_eq!(identity.weight(), weight);
            let other = identity.clone().with_weight(weight ^ 1);
            prop_assert_ne!(identity.digest(), other.digest());
        }

        #[test]
        fn an_endless_name_is_cut_and_still_too_long(start in 0_usize..4) {
            let name = "x".repeat(start) + &"ß€𐍈".repeat(10_000);
            let identity = Identity::new(&name, ([10, 0, 0, 1], 1).into()).with_zone(&name);
            prop_assert!(name.starts_with(identity.name()) && name.starts_with(identity.zone()));
            prop_assert!(identity.name().len() > 60_000 && identity.zone().len() > MAX_ZONE);
            prop_assert_eq!(identity.meta(), Vec::<u8>::new());
            prop_assert_eq!(identity.name().len().max(u16::MAX.into()), usize::from(u16::MAX));
        }
    }
}
