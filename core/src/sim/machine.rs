//! What the state machines of the core have in common, for whoever drives any of them.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::net::SocketAddr;

use crate::event::Key;
use crate::map::Map;
use crate::swim::Swim;
use crate::{Event, Instant, Node, NodeId, PacketError, Transmit};

/// The verbs of a driver, and what to look at to see whether the core's promises are kept.
///
/// [`Node`], [`Swim`] and [`Map`] have them. Implement it for a composition of your own, a [`Swim`] with
/// another store, say, and [`Checked`](super::Checked) watches over that too.
pub trait Machine: Debug {
    /// Takes a datagram that arrived from `from`.
    ///
    /// # Errors
    ///
    /// [`PacketError`] if it is not a correct one of this cluster; the state is then untouched.
    fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError>;

    /// Fires the timers that are due.
    fn handle_timeout(&mut self, now: Instant);

    /// Writes the next datagram that is owed into `buf`; `None` when none is.
    ///
    /// # Panics
    ///
    /// If `buf` is shorter than [`MIN_DATAGRAM`](crate::MIN_DATAGRAM).
    fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>>;

    /// The next event, in order.
    fn poll_event(&mut self) -> Option<Event>;

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if never.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The membership inside, if there is one and its events come out of here.
    fn membership(&self) -> Option<&Swim>;

    /// The replica of the map inside, if there is one and its events come out of here.
    fn contents(&self) -> Option<&Map>;

    /// The keys that it tracks and owns, as it was told.
    fn mine(&self) -> BTreeSet<Key> {
        BTreeSet::new()
    }

    /// Who owns keys, with weights, in order: as it was brought there by events, and as follows from the members.
    #[allow(clippy::type_complexity)] // twice the same
    fn shares(&self) -> Option<[Vec<(NodeId, u32)>; 2]> {
        None
    }

    /// How many datagrams it has applied, and how many it has refused, if it counts them.
    fn counts(&self) -> Option<(u64, u64)> {
        None
    }
}

/// The verbs are those of the type itself.
macro_rules! verbs {
    () => {
        fn handle_packet(
            &mut self,
            now: Instant,
            from: SocketAddr,
            packet: &mut [u8],
        ) -> Result<(), PacketError> {
            self.handle_packet(now, from, packet)
        }

        fn handle_timeout(&mut self, now: Instant) {
            self.handle_timeout(now);
        }

        fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
            self.poll_transmit(buf)
        }

        fn poll_event(&mut self) -> Option<Event> {
            self.poll_event()
        }

        fn poll_timeout(&self) -> Option<Instant> {
            self.poll_timeout()
        }
    };
}
pub(super) use verbs;

impl Machine for Node {
    verbs!();

    fn membership(&self) -> Option<&Swim> {
        Some(self.swim())
    }

    fn contents(&self) -> Option<&Map> {
        Some(self.map())
    }

    fn shares(&self) -> Option<[Vec<(NodeId, u32)>; 2]> {
        Some(Self::shares(self))
    }

    fn mine(&self) -> BTreeSet<Key> {
        self.mine().map(Key::new).collect()
    }

    fn counts(&self) -> Option<(u64, u64)> {
        let stats = self.stats();
        Some((stats.datagrams_received, stats.refused.total()))
    }
}

impl Machine for Swim {
    verbs!();

    fn membership(&self) -> Option<&Swim> {
        Some(self)
    }

    fn contents(&self) -> Option<&Map> {
        None
    }
}

impl Machine for Map {
    verbs!();

    fn membership(&self) -> Option<&Swim> {
        None
    }

    fn contents(&self) -> Option<&Map> {
        Some(self)
    }
}
