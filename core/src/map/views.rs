//! What is read of a map.

use core::time::Duration;

use smallvec::SmallVec;

use super::dot::{Dot, MAX_COUNTER, Packed, ReplicaId};
use super::replica::Fate;
use super::{Context, Map, Sibling, Stats};
use crate::time::Instant;

/// Views.
impl Map {
    /// The value read for `key`, of concurrent ones by [`Config::policy`](super::Config::policy).
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let entry = self.store.entry(self.store.slot(key)?);
        entry.winner(&self.replicas).map(|sibling| self.config.policy.value(sibling.value))
    }

    /// All concurrent values of `key`, in the order of their dots.
    pub fn siblings(&self, key: &[u8]) -> impl Iterator<Item = Sibling<'_>> {
        let entry = self.store.slot(key).map(|slot| self.store.entry(slot));
        let siblings = entry.unwrap_or_default().siblings();
        let mut order: SmallVec<[Sibling<'_>; 2]> = siblings
            .map(|sibling| Sibling {
                dot: self.replicas.dot(sibling.dot),
                value: self.config.policy.value(sibling.value),
            })
            .collect();
        order.sort_unstable_by_key(|sibling| sibling.dot);
        order.into_iter()
    }

    /// The siblings of `key` as a context for [`Map::resolve`].
    #[must_use]
    pub fn context(&self, key: &[u8]) -> Context {
        let entry = self.store.slot(key).map(|slot| self.store.entry(slot));
        let siblings = entry.unwrap_or_default().siblings();
        Context(siblings.map(|sibling| self.replicas.dot(sibling.dot)).collect())
    }

    /// Whether the write or removal `dot` has arrived here: reads of its key show it, or what
    /// superseded it. Once true it stays true, unless the name becomes [void](Self::is_void), or its life is so long
    /// over that it is forgotten: its node has begun more than eight others since. So whoever is handed a
    /// [`Dot`] by a writer can wait, at any replica, until that replica reads no older than the write.
    ///
    /// Of a write that was superseded before it came, this may learn a round of pulls later than of
    /// what superseded it, and never if the writer's life ended before it told anybody. Costs O(log n)
    /// in the replicas and in the writes that came ahead of a gap.
    ///
    /// ```
    /// # use brickwork_core::map::{self, Dot, Map, ReplicaId};
    /// # use brickwork_core::{Instant, NodeId};
    /// # let (now, me) = (Instant::ZERO, ReplicaId::new(NodeId(1), 1));
    /// # let mut map = Map::new(now, me, "docs", map::Config::lan(), 1400, [7; 32])?;
    /// let dot = map.insert(now, b"origin-17", b"up")?;
    /// assert!(map.reflects(dot));
    /// assert!(!map.reflects(Dot::new(dot.replica, dot.counter + 1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn reflects(&self, dot: Dot) -> bool {
        match self.replicas.fate(dot.replica) {
            None => {}
            Some(Fate::Retired(seal)) => return dot.counter > 0 && !seal.is_void(dot.counter),
            Some(Fate::Merged) => return false,
        }
        let number = self.replicas.number(dot.replica);
        let nameable = (1..=MAX_COUNTER).contains(&dot.counter);
        number.is_some_and(|number| {
            let dot = Packed::new(number, dot.counter.min(MAX_COUNTER));
            nameable && self.replicas.contains(dot) && !self.replicas.is_void(dot)
        })
    }

    /// Whether `dot` is known to name no write: its life is over, and no member had it when that life was sealed. If
    /// some replica did have it, the write goes on under another name, which that replica tells by
    /// [`Event::WrittenAnew`](crate::Event::WrittenAnew). While it is true [`reflects`](Self::reflects) is false; both
    /// stay so as long as the seal of that life is kept. Costs O(log n) in the replicas, and in the gaps of that life.
    #[must_use]
    pub fn is_void(&self, dot: Dot) -> bool {
        if let Some(fate) = self.replicas.fate(dot.replica) {
            return dot.counter > 0
                && matches!(fate, Fate::Retired(seal) if seal.is_void(dot.counter));
        }
        let number = self.replicas.number(dot.replica).filter(|_| dot.counter > 0);
        let counter = dot.counter.min(MAX_COUNTER);
        number.is_some_and(|number| self.replicas.is_void(Packed::new(number, counter)))
    }

    /// The keys that begin with `prefix` and have a value, with the value read for each, in the order of the
    /// keys as bytes. With [`Config::ordered`](super::Config::ordered) the first one takes O(log n) comparisons, and
    /// each one after it, or key that was removed and is not forgotten yet, O(1); without, all keys are looked at, and
    /// those that are found are sorted.
    ///
    /// ```
    /// # use brickwork_core::map::{self, Map, ReplicaId};
    /// # use brickwork_core::{Instant, NodeId};
    /// # let (now, me) = (Instant::ZERO, ReplicaId::new(NodeId(1), 1));
    /// let mut config = map::Config::lan();
    /// config.ordered = true;
    /// let mut map = Map::new(now, me, "docs", config, 1400, [7; 32])?;
    /// for key in ["up/b", "down/a", "up/a", "up"] {
    ///     map.insert(now, key.as_bytes(), b"v")?;
    /// }
    /// let keys: Vec<&[u8]> = map.prefix(b"up/").map(|(key, _)| key).collect();
    /// assert_eq!(keys, [b"up/a", b"up/b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefix<'m, 'p>(
        &'m self,
        prefix: &'p [u8],
    ) -> impl Iterator<Item = (&'m [u8], &'m [u8])> + use<'m, 'p> {
        self.store.prefix(prefix).filter_map(|entry| {
            let winner = entry.winner(&self.replicas)?;
            Some((entry.key, self.config.policy.value(winner.value)))
        })
    }

    /// All keys that have a value, with the value read for each, in an order that may differ between replicas;
    /// [`prefix`](Self::prefix) of no bytes goes by the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.store.entries().filter_map(|entry| {
            let winner = entry.winner(&self.replicas)?;
            Some((entry.key, self.config.policy.value(winner.value)))
        })
    }

    /// How many keys have a value.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.store.live()
    }

    /// Whether no key has a value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.store.live() == 0
    }

    /// How many bytes its keys and values have, as counted against `max_bytes`.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// How many values are this node's own, of whichever of its lives, and how many bytes those and their keys have, as
    /// counted against [`Config::max_own_values`](super::Config::max_own_values) and `max_own_bytes`. What a life of
    /// before wrote counts from when it is known here.
    #[must_use]
    pub const fn own_usage(&self) -> (usize, usize) {
        self.store.own()
    }

    /// Digests of the set of writes reflected here and of the values that result. Replicas with equal
    /// first numbers reflect the same writes and therefore have equal second ones.
    #[must_use]
    pub fn digest(&self) -> (u64, u64) {
        (self.context_digest(), self.store.digest())
    }

    /// How much it keeps beside keys and values for peers that may lack writes: marks of superseded
    /// writes, and log records of which key a write is about. Both are none once every peer was heard to
    /// have every write, and [`Config::collect_interval`](super::Config::collect_interval) has passed. Looks at every key.
    #[must_use]
    pub fn metadata(&self) -> (usize, usize) {
        (self.store.marks(), self.replicas.logged())
    }

    /// How old what is read here may be: every write that any peer had so long ago, and for as long before as datagrams
    /// were on their way, is here, but for entries that are too large for anybody or wait to be
    /// [written anew](crate::Event::WrittenAnew). Zero without peers; `None` while there is a peer of which it is not
    /// known yet that all it had is here.
    ///
    /// A bound by what was heard, where the probabilistically bounded staleness of Bailis et al. (VLDB 2012) is an
    /// estimate; a datagram that comes very late, or twice, makes it too small by as much. In quiet times it is about
    /// [`Config::sync_interval`](super::Config::sync_interval) for the peers of a lone map, less where pings carry
    /// digests. It grows while a peer that was not given up yet does not answer, and under steady writes while the context
    /// is longer than a datagram, as pages of it are never compared as a whole. `now` is the time of the map's
    /// inputs; of a [`Node`](crate::Node) ask [`Node::staleness`](crate::Node::staleness).
    /// Costs O(peers).
    ///
    /// ```
    /// # use brickwork_core::map::{self, Map, ReplicaId};
    /// # use brickwork_core::{Instant, NodeId};
    /// # use std::time::Duration;
    /// # let (now, me) = (Instant::ZERO, ReplicaId::new(NodeId(1), 1));
    /// # let mut map = Map::new(now, me, "docs", map::Config::lan(), 1400, [7; 32])?;
    /// assert_eq!(map.staleness(now), Some(Duration::ZERO));
    /// map.peer_up(now, NodeId(2), 1, ([10, 0, 0, 2], 7946).into());
    /// assert_eq!(map.staleness(now), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        let mut peers = self.peers.slots().filter_map(|slot| self.peers.get(slot));
        let first = peers.try_fold(now, |first, peer| Some(first.min(peer.covered?)));
        first.map(|first| now - first)
    }

    /// This replica.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replicas.own()
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}
