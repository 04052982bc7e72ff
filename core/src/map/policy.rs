//! Which of several concurrent values is read.
//!
//! Both orders are laid over the same siblings when they are read, and both are the same everywhere. (Keeping only
//! the highest, as a register does, would not converge beside removals that spare what they have not seen.)
//!
//! For [`Policy::Lamport`] every value is kept with the Lamport time of its write, in the eight bytes before it
//! (Lamport 1978): one more than that of any value that was here. So it says nothing of writes that do not know of each
//! other but which of the writers had heard of the longer chain of writes; of what follows one another the later is
//! read in any case.

use alloc::vec::Vec;

use super::Map;

/// Bytes of the time before a value.
pub(super) const TIME: usize = 8;

/// Which of the concurrent values of a key is read. To be the same at all nodes of a cluster: those with another one
/// read other values, and show or miss the eight bytes that [`Lamport`](Self::Lamport) puts before each.
///
/// ```
/// use brickwork_core::map::{Config, Map, Policy, ReplicaId};
/// use brickwork_core::{Instant, NodeId};
///
/// let mut config = Config::lan();
/// config.policy = Policy::Lamport;
/// let me = ReplicaId::new(NodeId(1), 1);
/// let mut map = Map::new(Instant::ZERO, me, "docs", config, 1400, [7; 32])?;
/// map.insert(Instant::ZERO, b"cart-7", b"tea")?;
/// assert_eq!(map.get(b"cart-7"), Some(&b"tea"[..]));
/// assert_eq!(map.bytes(), 6 + 3 + 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// That of the writer with the highest unweighted rendezvous score for the key: normally its rightful owner's.
    #[default]
    Rendezvous,
    /// That of the highest Lamport time, which is normally the youngest; between equals, of the highest node id.
    /// Values take eight bytes more, and are at most 65,528 bytes.
    Lamport,
}

/// The time in a stored value, and the value. One that is too short to have a time is all value: somebody writes by
/// another policy.
fn parts(stored: &[u8]) -> (u64, &[u8]) {
    stored
        .split_first_chunk()
        .map_or((0, stored), |(time, value)| (u64::from_be_bytes(*time), value))
}

/// The Lamport time of a stored value.
pub(super) fn time(stored: &[u8]) -> u64 {
    parts(stored).0
}

impl Policy {
    /// The value as it was written.
    pub(super) fn value(self, stored: &[u8]) -> &[u8] {
        match self {
            Self::Rendezvous => stored,
            Self::Lamport => parts(stored).1,
        }
    }

    /// Longest value that fits with what is kept before it, if `most` bytes do.
    pub(super) const fn most(self, most: usize) -> usize {
        match self {
            Self::Rendezvous => most,
            Self::Lamport => most.saturating_sub(TIME),
        }
    }

    /// Length of what is stored of a value of this length.
    pub(super) const fn stored(self, len: usize) -> usize {
        match self {
            Self::Rendezvous => len,
            Self::Lamport => len + TIME,
        }
    }
}

impl Map {
    /// What is stored of a value that is written now; `None` if it is stored as it is.
    pub(super) fn stamped(&mut self, value: Option<&[u8]>) -> Option<Vec<u8>> {
        let value = value.filter(|_| self.config.policy == Policy::Lamport)?;
        self.time = self.time.saturating_add(1);
        let mut stored = Vec::with_capacity(TIME + value.len());
        stored.extend(self.time.to_be_bytes());
        stored.extend(value);
        Some(stored)
    }

    /// Hears of the times of the values in `slot`.
    pub(super) fn hear_times(&mut self, slot: u32) {
        if self.config.policy == Policy::Lamport {
            let times = self.store.entry(slot).siblings().map(|sibling| time(sibling.value));
            let last = times.max();
            self.time = self.time.max(last.unwrap_or(0));
        }
    }
}
