//! Who a node is.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The id, normally [`NodeId::from_name`] of the name. At most one live node may bear it.
    pub id: NodeId,
    /// New and higher at every start of the node: drivers use microseconds of wall-clock time since
    /// 1970. Evidence about a member is ordered by it first.
    pub boot_epoch: u64,
    /// Where the others reach this node.
    pub addr: SocketAddr,
    /// The human-readable name.
    pub name: String,
    /// The zone (datacenter) that the node is in; empty if zones are not used.
    pub zone: String,
    /// Bytes of the application's own, told to every member.
    pub meta: Vec<u8>,
}

impl Identity {
    /// The identity of the node called `name` at `addr`, of boot epoch 1, without zone and metadata.
    ///
    /// ```
    /// use brickwork_core::{Identity, NodeId};
    ///
    /// let identity = Identity::new("a", ([127, 0, 0, 1], 7000).into());
    /// assert_eq!(identity.id, NodeId::from_name("a"));
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>, addr: SocketAddr) -> Self {
        let name = name.into();
        Self {
            id: NodeId::from_name(&name),
            boot_epoch: 1,
            addr,
            name,
            zone: String::new(),
            meta: Vec::new(),
        }
    }

    /// The same identity at boot epoch `boot_epoch`.
    #[must_use]
    pub fn with_boot_epoch(mut self, boot_epoch: u64) -> Self {
        self.boot_epoch = boot_epoch;
        self
    }

    /// A wire-stable digest of everything that a member's row tells, for comparing tables.
    pub(crate) fn digest(&self) -> u64 {
        let mut text = [0; MAX_NAME + MAX_ZONE + MAX_META + 3];
        let mut at = 0;
        for part in [self.name.as_bytes(), self.zone.as_bytes(), &self.meta] {
            // Lengths are bounded at admission; a longer part would only weaken the digest.
            if let Some(room) = text.get_mut(at..=at + part.len()) {
                room[0] = part.len() as u8;
                room[1..].copy_from_slice(part);
                at += part.len() + 1;
            }
        }
        let addr = match self.addr {
            SocketAddr::V4(v4) => u64::from(u32::from(*v4.ip())),
            SocketAddr::V6(v6) => hash::stable(&v6.ip().octets()),
        };
        let place = hash::mix2(addr, u64::from(self.addr.port()));
        hash::mix2(
            hash::mix2(self.id.0, self.boot_epoch),
            hash::mix2(place, hash::stable(&text[..at])),
        )
    }
}
