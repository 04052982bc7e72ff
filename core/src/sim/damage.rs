//! What damage does to the bytes of a datagram.

use alloc::vec::Vec;

use super::fault::Damage;
use super::net::{FIRST_TAG, Luck};
use crate::Node;

/// Where the cluster's tag is.
const CLUSTER: core::ops::Range<usize> = 4..8;
/// Bytes of the checksum at the end.
const TRAILER: usize = 4;
/// A mandatory frame that nobody knows.
const NOBODYS: u8 = 0x7f;

impl Damage {
    /// What it comes to for these bytes: what is impossible can only be said of a datagram of the core.
    pub(super) fn of(self, bytes: &[u8]) -> Self {
        if matches!(self, Self::Lie) && !is_sound(bytes) { Self::Flip } else { self }
    }

    /// The bytes of a datagram after this; `earlier` is one that went before it.
    pub(super) fn apply(self, bytes: &[u8], luck: &mut Luck, earlier: &[u8]) -> Vec<u8> {
        let mut copy = bytes.to_vec();
        match self {
            Self::Flip if bytes.is_empty() => {}
            Self::Flip => {
                for _ in 0..=luck.below(8) {
                    let at = luck.below(copy.len() as u64) as usize;
                    copy[at] ^= 1 << luck.below(8);
                }
            }
            Self::Cut => copy.truncate(luck.below(bytes.len() as u64) as usize),
            Self::Extend => {
                let more = 1 + luck.below(64);
                copy.extend((0..more).map(|_| luck.next() as u8));
            }
            Self::Splice => {
                let half = copy.len() / 2;
                copy.truncate(half);
                copy.extend_from_slice(&earlier[earlier.len() / 2..]);
            }
            Self::Lie => return lie(bytes, luck),
        }
        copy
    }
}

/// Whether this is a correct datagram of whichever cluster.
fn is_sound(bytes: &[u8]) -> bool {
    let tag = bytes.get(CLUSTER).and_then(|tag| tag.try_into().ok());
    tag.is_some_and(|tag| Node::judge(bytes, u32::from_le_bytes(tag)).is_ok())
}

/// A datagram that says something impossible of itself, in its header, its frames or inside of one, under
/// a checksum that is right. What could be taken for another datagram is a forgery, and no damage.
fn lie(bytes: &[u8], luck: &mut Luck) -> Vec<u8> {
    let mut tag = [0; 4];
    tag.copy_from_slice(&bytes[CLUSTER]);
    let cluster = u32::from_le_bytes(tag);
    let frames = frames(bytes);
    for _ in 0..16 {
        let mut header = bytes[..FIRST_TAG].to_vec();
        let mut frames = frames.clone();
        let chosen = luck.below(frames.len() as u64) as usize;
        let (tag, len, body) = &mut frames[chosen];
        let at = luck.below(body.len().max(1) as u64) as usize;
        match luck.below(6) {
            0 => header[luck.below(CLUSTER.end as u64) as usize] ^= 1 + luck.below(255) as u8,
            1 => *len = luck.below(2 * *len as u64 + 8) as usize,
            2 => *tag = luck.below(0x80) as u8,
            3 => {
                if let Some(byte) = body.get_mut(at) {
                    *byte = [0, 0x80, 0xff, luck.next() as u8][luck.below(4) as usize];
                }
            }
            4 => {
                body.truncate(at);
                *len = at;
            }
            _ => {
                let more = 1 + luck.below(8);
                body.extend((0..more).map(|_| luck.next() as u8));
                *len = body.len();
            }
        }
        let packet = closed(header, &frames);
        if Node::judge(&packet, cluster).is_err() {
            return packet;
        }
    }
    closed(bytes[..FIRST_TAG].to_vec(), &[(NOBODYS, 0, Vec::new())])
}

/// The frames of a whole datagram: tag, length as it is told, body.
pub(super) fn frames(bytes: &[u8]) -> Vec<(u8, usize, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = &bytes[FIRST_TAG..bytes.len() - TRAILER];
    while let [tag, low, tail @ ..] = rest {
        let (len, tail) = match tail {
            [high, tail @ ..] if low & 0x80 != 0 => {
                (usize::from(low & 0x7f) | usize::from(*high) << 7, tail)
            }
            _ => (usize::from(*low), tail),
        };
        let (body, tail) = tail.split_at(len.min(tail.len()));
        frames.push((*tag, len, body.to_vec()));
        rest = tail;
    }
    frames
}

/// The datagram of that header and those frames, under a checksum that is right.
fn closed(header: Vec<u8>, frames: &[(u8, usize, Vec<u8>)]) -> Vec<u8> {
    let mut packet = header;
    for (tag, len, body) in frames {
        packet.push(*tag);
        let (low, high) = ((len & 0x7f) as u8, (len >> 7) as u8);
        if high == 0 {
            packet.push(low);
        } else {
            packet.extend([low | 0x80, high]);
        }
        packet.extend_from_slice(body);
    }
    let crc = crc32fast::hash(&packet);
    packet.extend(crc.to_le_bytes());
    packet
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::format;
    use alloc::string::String;

    use super::*;
    use crate::{Config, Identity, Instant, PacketError};

    /// Goal: a lie is refused at every depth of decoding, and never for its checksum.
    /// Method: ten thousand lies about a join, which has a frame, a row and an address.
    #[test]
    #[cfg_attr(miri, ignore = "ten thousand lies take an interpreter hours")]
    fn lies_are_refused_for_what_they_say() {
        let addr = |port| ([10, 0, 0, 1], port).into();
        let mut node =
            Node::new(Instant::ZERO, Identity::new("a", addr(1)), Config::lan(), [7; 32]).unwrap();
        node.join(Instant::ZERO, &[addr(2)]);
        let mut buf = [0; 1_400];
        let join = node.poll_transmit(&mut buf).unwrap().payload.to_vec();
        let cluster = crate::wire::cluster_tag("brickwork");
        assert!(Node::judge(&join, cluster).is_ok());
        let all = frames(&join);
        assert_eq!(closed(join[..FIRST_TAG].to_vec(), &all), join);
        let mut causes: BTreeSet<String> = BTreeSet::new();
        for number in 0..10_000 {
            let mut luck = Luck::new(1, 2, number);
            let lie = Damage::Lie.apply(&join, &mut luck, &[]);
            let refused = Node::judge(&lie, cluster).unwrap_err();
            assert_ne!(refused, PacketError::BadChecksum);
            causes.insert(format!("{refused:?}"));
        }
        let expected = [
            "BadMagic",
            "LimitExceeded",
            "Malformed",
            "Sealed",
            "Truncated",
            "UnknownFrame",
            "UnsupportedVersion",
            "WrongCluster",
        ];
        assert!(causes.iter().eq(expected), "{causes:?}");
    }
}
