//! Counters of a node.

use crate::map;
use crate::swim;
use crate::wire::PacketError;

/// Counters of a node since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams handed out.
    pub datagrams_sent: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_sent: u64,
    /// Datagrams taken in and applied.
    pub datagrams_received: u64,
    /// Bytes of all datagrams that arrived, refused ones included.
    pub bytes_received: u64,
    /// Datagrams refused, by cause.
    pub refused: Refused,
    /// Counters of membership.
    pub swim: swim::Stats,
    /// Counters of the map.
    pub map: map::Stats,
}

/// Refused datagrams by cause; see [`PacketError`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// [`PacketError::Truncated`].
    pub truncated: u64,
    /// [`PacketError::BadMagic`].
    pub bad_magic: u64,
    /// [`PacketError::UnsupportedVersion`].
    pub unsupported_version: u64,
    /// [`PacketError::Sealed`].
    pub sealed: u64,
    /// [`PacketError::WrongCluster`].
    pub wrong_cluster: u64,
    /// [`PacketError::BadChecksum`].
    pub bad_checksum: u64,
    /// [`PacketError::UnknownFrame`].
    pub unknown_frame: u64,
    /// [`PacketError::Malformed`].
    pub malformed: u64,
    /// [`PacketError::LimitExceeded`].
    pub limit_exceeded: u64,
    /// [`PacketError::OwnPacket`].
    pub own_packet: u64,
}

impl Refused {
    pub(crate) const fn count(&mut self, error: PacketError) {
        let counter = match error {
            PacketError::Truncated => &mut self.truncated,
            PacketError::BadMagic => &mut self.bad_magic,
            PacketError::UnsupportedVersion => &mut self.unsupported_version,
            PacketError::Sealed => &mut self.sealed,
            PacketError::WrongCluster => &mut self.wrong_cluster,
            PacketError::BadChecksum => &mut self.bad_checksum,
            PacketError::UnknownFrame => &mut self.unknown_frame,
            PacketError::Malformed => &mut self.malformed,
            PacketError::LimitExceeded => &mut self.limit_exceeded,
            PacketError::OwnPacket => &mut self.own_packet,
        };
        *counter += 1;
    }

    /// All of them together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.truncated
            + self.bad_magic
            + self.unsupported_version
            + self.sealed
            + self.wrong_cluster
            + self.bad_checksum
            + self.unknown_frame
            + self.malformed
            + self.limit_exceeded
            + self.own_packet
    }
}
