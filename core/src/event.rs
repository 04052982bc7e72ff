//! What the application is told.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::SocketAddr;
use core::ops::Deref;
use core::time::Duration;

use smallvec::SmallVec;

use crate::id::{Identity, NodeId};
use crate::map::Dot;
use crate::swim::Accusation;

/// A key of the map, as events carry it. Keys of up to 40 bytes are stored in place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(SmallVec<[u8; 40]>);

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Something that happened, in order and without gaps.
///
/// Applying `Joined`, `Updated`, `Restarted`, `Failed` and `Left` to the member list at the start
/// gives the member list now. If the application is slow and the queue overflows, the oldest events
/// are dropped and [`Event::Missed`] says how many; the views of the node are then the truth to
/// resume from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member is there that was not before: new, or back after it had failed or left.
    Joined {
        /// Who.
        identity: Arc<Identity>,
    },
    /// A live member changed its address, zone, name, weight or metadata.
    Updated {
        /// What it says of itself now.
        identity: Arc<Identity>,
    },
    /// A live member was started anew under its old name.
    Restarted {
        /// The boot epoch that it replaces.
        old_epoch: u64,
        /// What it says of itself now.
        identity: Arc<Identity>,
    },
    /// A member does not answer. It stays in the list until it is confirmed failed or refutes.
    Suspected {
        /// Who.
        id: NodeId,
        /// The accuser from whom the suspicion started.
        by: NodeId,
        /// How this node came to it. [`Swim::why`](crate::swim::Swim::why) tells what came since.
        why: Accusation,
    },
    /// A suspected member showed that it is alive.
    Recovered {
        /// Who.
        id: NodeId,
    },
    /// A member was confirmed failed and is out of the list.
    Failed {
        /// Who.
        id: NodeId,
    },
    /// No other member is left: all failed or left, or this node is cut off from them. It goes on looking for them, and for its
    /// seeds. Comes after the event that tells of the last one.
    Isolated,
    /// Somebody is there again after [`Event::Isolated`]. Comes after the event that tells who.
    Rejoined,
    /// Others hold this node out for so long: it answers far worse than they do, or does not hear them, as some of them
    /// found and hardly any denied. They have told `Failed` of it, and take no word of it until then; what it says of them counts for nothing.
    /// It may go on, or be looked after: the fault is between it and all others.
    HeldOut {
        /// How long it lasts from now on, if the fault is gone by then.
        remaining: Duration,
    },
    /// A member left gracefully and is out of the list.
    Left {
        /// Who.
        id: NodeId,
    },
    /// Two live nodes claim one id. If `id` is this node's own and `newcomer` its own address, it
    /// stays out of the cluster until it is started under another name.
    Conflict {
        /// The contested id.
        id: NodeId,
        /// Where the node that keeps the id lives.
        holder: SocketAddr,
        /// Where the node that stays out lives.
        newcomer: SocketAddr,
    },
    /// This node's own leave is over; it can be dropped now.
    LeaveFinished {
        /// How many members acknowledged the leave; zero if all were unreachable.
        acknowledged: usize,
    },
    /// The value read for a key is another one, or gone. Applied in order, `new` in the place of `old`, these
    /// events give the write that [`Map::get`](crate::map::Map::get) reads for each key. Siblings that are
    /// not read come and go without one.
    Changed {
        /// The key.
        key: Key,
        /// The write whose value was read before; `None` if there was no value.
        old: Option<Dot>,
        /// The write whose value is read now, and in its `replica` who wrote it; `None` if there is no value.
        new: Option<Dot>,
    },
    /// This node is among the owners of a key that it tracks, and was not before; see [`Node::track`](crate::Node::track).
    Gained {
        /// The key.
        key: Key,
    },
    /// It is no more: another one joined or came back, or this node leaves.
    Lost {
        /// The key.
        key: Key,
    },
    /// The life of a write was declared over without it, while this node's map had it; so it was written again, or
    /// its effect was, as a write of this node. The old name names no write any more, here or elsewhere; see
    /// [`Map::is_void`](crate::map::Map::is_void). Or the life is over, and its last values are written again so that it
    /// can be forgotten; see [`Config::max_past_lives`](crate::map::Config::max_past_lives).
    WrittenAnew {
        /// The key.
        key: Key,
        /// Its name of before.
        old: Dot,
        /// Its name from now on.
        new: Dot,
    },
    /// The map is at its configured size and refuses data from peers; see `map::Config`. Told once,
    /// and again only after the peer that was refused had nothing left that is missing here.
    Full,
    /// A peer reflects the same writes of the map as this node, and shows other values: a bug, or memory that is not
    /// what it was. What each of the two lacks is taken from the other; see [`map::Stats`](crate::map::Stats).
    /// Told once per [`keep_for`](crate::map::Config::keep_for) while it lasts.
    Diverged {
        /// The peer.
        id: NodeId,
    },
    /// The queue overflowed and this many events before the next one were dropped.
    Missed {
        /// How many.
        events: u64,
    },
}

/// A bounded queue of events that drops the oldest.
#[derive(Debug)]
pub(crate) struct Queue {
    events: VecDeque<Event>,
    max: usize,
    missed: u64,
    /// The most that waited since there were none.
    most: usize,
    /// How often lately there were none, and had been few before.
    calm: u32,
}

/// Events for which room is kept once there are none.
const KEPT: usize = 64;
/// So often there must have been few before more room is given back: a burst is often one of many.
const CALM: u32 = 16;

impl Queue {
    pub(crate) const fn new(max: usize) -> Self {
        Self { events: VecDeque::new(), max, missed: 0, most: 0, calm: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() >= self.max {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back(event);
        self.most = self.most.max(self.events.len());
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        if self.missed > 0 {
            let events = core::mem::take(&mut self.missed);
            return Some(Event::Missed { events });
        }
        let event = self.events.pop_front();
        if self.events.is_empty() {
            // Begins anew at the front of the room: who is always told soon has it in the cache. The room that a burst
            // needed is given back.
            self.events.clear();
            self.calm = if self.most > KEPT { 0 } else { self.calm.saturating_add(1) };
            self.most = 0;
            if self.calm >= CALM && self.events.capacity() > KEPT {
                self.events.shrink_to(KEPT);
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_burst_is_given_back() {
        let mut queue = Queue::new(10_000);
        for _ in 0..2 {
            for at in 0..10_000 {
                queue.push(Event::Recovered { id: NodeId(at) });
            }
            assert!(queue.events.capacity() >= 10_000);
            while queue.pop().is_some() {}
            assert!(queue.events.capacity() >= 10_000, "another one may follow");
            for _ in 0..CALM {
                queue.push(Event::Full);
                while queue.pop().is_some() {}
            }
            assert!(queue.events.capacity() <= 2 * KEPT, "{}", queue.events.capacity());
        }
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_says_so() {
        let mut queue = Queue::new(2);
        for id in 1..=5 {
            queue.push(Event::Failed { id: NodeId(id) });
        }
        assert_eq!(queue.pop(), Some(Event::Missed { events: 3 }));
        assert_eq!(queue.pop(), Some(Event::Failed { id: NodeId(4) }));
        assert_eq!(queue.pop(), Some(Event::Failed { id: NodeId(5) }));
        assert_eq!(queue.pop(), None);
    }
}
