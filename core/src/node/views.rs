//! What a node shows.

use alloc::sync::Arc;
use core::time::Duration;

use super::Node;
use crate::hrw::{self, View};
use crate::id::{Identity, NodeId};
use crate::map::{Context, Map, Sibling};
use crate::sabotage::sabotaged;
use crate::stats::Stats;
use crate::swim::{Member, Swim};
use crate::time::Instant;

/// Views.
impl Node {
    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.swim.me().id()
    }

    /// What this node tells of itself.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        self.swim.me().identity()
    }

    /// The live members, this node first (unless it left); the others in no particular order.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.swim.members()
    }

    /// The members that failed or left and are still remembered, in no particular order.
    pub fn former_members(&self) -> impl Iterator<Item = &Member> {
        self.swim.former_members()
    }

    /// The member of that id, dead and left ones included while they are remembered.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.swim.member(id)
    }

    /// The value read for `key`; see [`Map::get`].
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.map.get(key)
    }

    /// All concurrent values of `key`, in the order of their dots.
    pub fn siblings(&self, key: &[u8]) -> impl Iterator<Item = Sibling<'_>> {
        self.map.siblings(key)
    }

    /// The siblings of `key` as a context for [`resolve`](Self::resolve).
    #[must_use]
    pub fn context(&self, key: &[u8]) -> Context {
        self.map.context(key)
    }

    /// How old what is read here may be at `now`, by the driver's clock; see [`Map::staleness`].
    #[must_use]
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        self.map.staleness(self.clock.at(now))
    }

    /// The keys that begin with `prefix` and have a value, in the order of the keys; see [`Map::prefix`].
    pub fn prefix<'n, 'p>(
        &'n self,
        prefix: &'p [u8],
    ) -> impl Iterator<Item = (&'n [u8], &'n [u8])> + use<'n, 'p> {
        self.map.prefix(prefix)
    }

    /// All keys that have a value, with the value read for each.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.map.iter()
    }

    /// The map itself, for its further views.
    #[must_use]
    pub const fn map(&self) -> &Map {
        &self.map
    }

    /// The membership itself, for its further views.
    #[must_use]
    pub const fn swim(&self) -> &Swim {
        &self.swim
    }

    /// The member that owns `key` now: the highest rendezvous score among the live, by their weights. A suspected
    /// member stays owner until it is confirmed failed, if [`hrw::Config`] says nothing else; one that leaves owns nothing.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> Option<NodeId> {
        let salt = if sabotaged!("owner-by-own-scores") { self.id().0 } else { 0 };
        self.view().owner(hrw::key_hash(key) ^ salt)
    }

    /// The first `out.len()` members in the order of priorities for `key`, the owner in front.
    pub fn owners<'o>(&self, key: &[u8], out: &'o mut [NodeId]) -> &'o [NodeId] {
        self.view().owners(hrw::key_hash(key), out)
    }

    /// The members among which owners are chosen.
    #[must_use]
    pub const fn view(&self) -> &View {
        self.tracked.view()
    }

    /// Who owns keys, with weights: as events brought it about, and as follows from who are members.
    #[cfg(feature = "sim")]
    pub(crate) fn shares(&self) -> [alloc::vec::Vec<(NodeId, u32)>; 2] {
        self.tracked.shares(&self.swim)
    }

    /// Whether this node is among the owners of a key that it tracks, as it was told by events. Costs O(log keys).
    #[must_use]
    pub fn is_mine(&self, key: &[u8]) -> bool {
        self.tracked.is_mine(key)
    }

    /// The keys that this node tracks and is among the owners of, as it was told by events, in the order of the keys.
    pub fn mine(&self) -> impl Iterator<Item = &[u8]> {
        self.tracked.mine()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { swim: *self.swim.stats(), map: *self.map.stats(), ..self.stats }
    }
}
