//! Rendezvous (highest random weight) hashing: who owns a key, agreed without talk.
//!
//! Every node scores every `(key, node)` pair with the same function and the highest score owns the
//! key. When a node leaves, only its keys move; when one joins, it takes only the keys it wins.
//! Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996).
//!
//! The two functions below are wire-stable: all nodes of a cluster, of every version and platform,
//! must agree on them, so their golden vectors are part of the tests.
//!
//! ```
//! use brickwork_core::NodeId;
//! use brickwork_core::hrw::{self, View};
//!
//! let mut view: View = [NodeId(1), NodeId(2), NodeId(3)].into_iter().collect();
//! let key = hrw::key_hash(b"origin-17");
//! let mut order = [NodeId(0); 3];
//! let order = view.owners(key, &mut order);
//! assert_eq!(view.owner(key), Some(order[0]));
//!
//! view.remove(order[0]);
//! assert_eq!(view.owner(key), Some(order[1]), "the next in the order of priorities takes over");
//! ```

mod config;
mod cost;
mod lanes;
mod ownership;
#[cfg(any(test, not(feature = "simd")))]
mod plain;
#[cfg(feature = "simd")]
mod wide;

use alloc::vec::Vec;
use core::num::NonZeroU32;

use cost::Bid;
use lanes::LANES;

use crate::hash;
use crate::id::NodeId;
use crate::room;
use crate::sabotage::sabotaged;

pub use config::Config;
pub use ownership::{Owned, Ownership, Work};

#[cfg(not(feature = "simd"))]
use plain as run;
#[cfg(feature = "simd")]
use wide as run;

/// The hash of a key: XXH3-64 with seed 0.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    hash::stable(key)
}

/// A node id made ready for scoring. Consecutive ids must not give related scores, hence the mixing.
const fn node_seed(node: NodeId) -> u64 {
    hash::mix(node.0.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The score of `node` for a key: its upper half mixes the lower half of the key's hash with that of the mixed id, and its lower
/// half the upper ones.
///
/// The upper half alone decides, but for two nodes whose mixed ids have the same lower half. Processors multiply 32 bits in vectors
/// of 4 to 16, and 64 bits one by one for the most part: an owner among 64 is found in six sevenths of the time that a maximum over
/// mixings of 64 bits takes, and in a sixth of it where vectors are wide (`RESULTS.md`, row H1).
///
/// No two nodes have the same score for a key.
#[must_use]
pub const fn score(key_hash: u64, node: NodeId) -> u64 {
    let word = key_hash ^ node_seed(node);
    (hash::mix32(low(word)) as u64) << 32 | hash::mix32(low(word >> 32)) as u64
}

/// The half of a key's hash, or of a node's seed, that decides.
#[allow(clippy::cast_possible_truncation)] // the lower half
const fn low(word: u64) -> u32 {
    word as u32
}

/// What decides of a score.
#[allow(clippy::cast_possible_truncation)] // the upper half
const fn high(score: u64) -> u32 {
    (score >> 32) as u32
}

/// The nodes among which owners are chosen.
///
/// Ids and their seeds lie in arrays sorted by id, so [`View::owner`] is one pass over contiguous words, with the widest vectors of
/// the processor if the feature `simd` is on. Changing the set costs O(n), asking O(n) without allocation.
///
/// A node has a weight, 1 if nothing is said, and owns that part of the sum of all weights. As long as all weights are equal
/// they cost nothing; else an owner takes a logarithm per node. All nodes that are to agree have to know the same weights.
///
/// ```
/// use brickwork_core::NodeId;
/// use brickwork_core::hrw::{View, key_hash};
/// use core::num::NonZeroU32;
///
/// let mut view: View = (0..4).map(NodeId).collect();
/// view.set_weight(NodeId(3), NonZeroU32::new(3).unwrap());
/// let owners = (0..6_000_u32).filter_map(|key| view.owner(key_hash(&key.to_be_bytes())));
/// let of_three = owners.filter(|owner| *owner == NodeId(3)).count();
/// assert!((2_850..3_150).contains(&of_three), "three of six parts, {of_three}");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    ids: Vec<NodeId>,
    /// What decides of their seeds, and the last again until they fill vectors.
    seeds: Vec<u32>,
    weights: Vec<NonZeroU32>,
    /// Nodes that have another weight than the first.
    uneven: usize,
    /// Nodes of which what decides is that of another node: one among 4,096 in 500 clusters.
    twins: usize,
}

impl View {
    /// Adds a node of weight 1. Returns whether it was new.
    pub fn insert(&mut self, node: NodeId) -> bool {
        self.insert_weighted(node, NonZeroU32::MIN)
    }

    /// Adds a node of that weight. Returns whether it was new; if not, nothing changes.
    pub fn insert_weighted(&mut self, node: NodeId, weight: NonZeroU32) -> bool {
        match self.ids.binary_search(&node) {
            Ok(_) => false,
            Err(at) => {
                room::reserve(&mut self.ids, 1);
                room::reserve(&mut self.seeds, LANES);
                room::reserve(&mut self.weights, 1);
                self.seeds.truncate(self.ids.len());
                let seed = low(node_seed(node));
                self.twins += usize::from(self.seeds.contains(&seed));
                self.ids.insert(at, node);
                self.seeds.insert(at, seed);
                self.weights.insert(at, weight);
                self.changed();
                true
            }
        }
    }

    /// Removes a node. Returns whether it was there.
    pub fn remove(&mut self, node: NodeId) -> bool {
        match self.ids.binary_search(&node) {
            Ok(at) => {
                self.seeds.truncate(self.ids.len());
                self.ids.remove(at);
                let seed = self.seeds.remove(at);
                self.twins -= usize::from(self.seeds.contains(&seed));
                self.weights.remove(at);
                self.changed();
                true
            }
            Err(_) => false,
        }
    }

    /// Gives a node another weight. Returns the one that it had, `None` if it is not there.
    pub fn set_weight(&mut self, node: NodeId, weight: NonZeroU32) -> Option<NonZeroU32> {
        let at = self.ids.binary_search(&node).ok()?;
        let before = core::mem::replace(&mut self.weights[at], weight);
        self.changed();
        Some(before)
    }

    /// The weight of a node, `None` if it is not there.
    #[must_use]
    pub fn weight(&self, node: NodeId) -> Option<NonZeroU32> {
        self.ids.binary_search(&node).ok().map(|at| self.weights[at])
    }

    /// Whether some weights differ.
    pub(crate) const fn is_uneven(&self) -> bool {
        self.uneven > 0
    }

    /// The nodes that have the same deciding half as the one at this place, which is nearly always that one alone.
    fn alike(&self, at: usize) -> impl Iterator<Item = NodeId> {
        let (alone, seed) = (self.twins == 0, self.seeds[at]);
        let others = if alone { &[][..] } else { &self.ids[..] };
        let alike = others.iter().zip(&self.seeds).filter(move |(_, other)| **other == seed);
        let only = if alone { self.ids.get(at) } else { None };
        only.into_iter().chain(alike.map(|(id, _)| id)).copied()
    }

    /// As long as changing the set.
    fn changed(&mut self) {
        let first = self.weights.first().copied();
        self.uneven = self.weights.iter().filter(|weight| Some(**weight) != first).count();
        let last = self.seeds.last().copied().unwrap_or(0);
        self.seeds.resize(self.ids.len().next_multiple_of(LANES), last);
    }

    /// The nodes, in ascending order of their ids.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.ids
    }

    /// The owner of the key, `None` if there is no node.
    #[must_use]
    pub fn owner(&self, key_hash: u64) -> Option<NodeId> {
        if sabotaged!("owner-modulo") {
            return self.ids.iter().cycle().nth((key_hash % 64) as usize).copied();
        }
        if sabotaged!("owner-lowest") {
            return self.ids.iter().copied().min_by_key(|&id| score(key_hash, id));
        }
        if sabotaged!("coarse-scores") {
            return self.ids.iter().copied().max_by_key(|&id| score(key_hash, id) >> 62);
        }
        if self.is_uneven() {
            return self.bids(key_hash).max_by(Bid::prefer).map(|bid| bid.node);
        }
        if self.ids.is_empty() {
            return None;
        }
        let at = run::best(&self.seeds, low(key_hash));
        if self.twins == 0 {
            return self.ids.get(at).copied();
        }
        self.alike(at).max_by_key(|id| score(key_hash, *id))
    }

    /// The first `out.len()` owners of the key, the most preferred first, fewer if there are fewer nodes.
    ///
    /// Costs O(n + n·k) comparisons at worst and O(n) when k is small against n, or O(n·log k·log n) if weights differ; allocates nothing.
    pub fn owners<'o>(&self, key_hash: u64, out: &'o mut [NodeId]) -> &'o [NodeId] {
        if let [first] = out {
            let owner = self.owner(key_hash);
            *first = owner.unwrap_or(*first);
            return &out[..usize::from(owner.is_some())];
        }
        if out.is_empty() || self.ids.is_empty() {
            return &[];
        }
        let mut found = 0;
        if !self.is_uneven() {
            // What the last of those found has.
            let mut floor = 0;
            run::first(&self.seeds, low(key_hash), |at, high| {
                // Of the first 64 nodes each scores less than the one before.
                if self.twins == 0 && found < out.len() && (found == 0 || high < floor) {
                    (out[found], floor) = (self.ids[at], high);
                    found += 1;
                } else {
                    for node in self.alike(at) {
                        // It may have been offered with another one before.
                        if !out[..found].contains(&node) {
                            let own = score(key_hash, node);
                            found = insert(out, found, node, |other| score(key_hash, *other) > own);
                        }
                    }
                    floor = self::high(score(key_hash, out[found - 1]));
                }
                if found < out.len() { 0 } else { floor }
            });
        } else {
            for bid in self.bids(key_hash) {
                let beats = |other: &NodeId| bid.prefer(&self.bid(key_hash, *other)).is_lt();
                found = insert(out, found, bid.node, beats);
            }
        }
        &out[..found]
    }

    /// How many nodes are preferred to this one for the key: 0 for the owner. `None` if it is not there.
    #[must_use]
    pub fn rank(&self, key_hash: u64, node: NodeId) -> Option<usize> {
        let own = self.bids(key_hash).find(|bid| bid.node == node)?;
        Some(self.bids(key_hash).filter(|bid| bid.prefer(&own).is_gt()).count())
    }

    fn bids(&self, key_hash: u64) -> impl Iterator<Item = Bid> {
        let bid = move |(&node, &weight)| Bid { score: score(key_hash, node), weight, node };
        self.ids.iter().zip(&self.weights).map(bid)
    }

    /// What a node that is there bids.
    fn bid(&self, key_hash: u64, node: NodeId) -> Bid {
        let weight = self.weight(node).unwrap_or(NonZeroU32::MIN);
        Bid { score: score(key_hash, node), weight, node }
    }
}

/// Puts a node behind those of the `found` that beat it, and out of the list who falls out of it. Returns how many are found now.
fn insert(
    out: &mut [NodeId],
    found: usize,
    node: NodeId,
    beats: impl FnMut(&NodeId) -> bool,
) -> usize {
    let at = out[..found].partition_point(beats);
    let found = out.len().min(found + 1);
    if at < found {
        out[at..found].rotate_right(1);
        out[at] = node;
    }
    found
}

impl FromIterator<NodeId> for View {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut ids: Vec<_> = nodes.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let seeds: Vec<_> = ids.iter().map(|&id| low(node_seed(id))).collect();
        let mut sorted = seeds.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let weights = alloc::vec![NonZeroU32::MIN; ids.len()];
        let twins = ids.len() - sorted.len();
        let mut view = Self { ids, seeds, weights, uneven: 0, twins };
        view.changed();
        view
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brute_force(nodes: &[NodeId], key: u64) -> Vec<NodeId> {
        let mut order = nodes.to_vec();
        order.sort_by_key(|&id| core::cmp::Reverse((score(key, id), id)));
        order
    }

    proptest! {
        #[test]
        fn owners_equal_a_full_sort(ids in proptest::collection::btree_set(any::<u64>(), 0..40), key in any::<u64>(), k in 0..8usize) {
            let view: View = ids.iter().map(|&id| NodeId(id)).collect();
            let order = brute_force(view.nodes(), key);
            let mut out = [NodeId(0); 8];
            prop_assert_eq!(view.owners(key, &mut out[..k]), &order[..k.min(order.len())]);
            prop_assert_eq!(view.owner(key), order.first().copied());
        }

        #[test]
        fn equal_weights_order_as_none(ids in proptest::collection::btree_set(any::<u64>(), 1..40), weight in 1..=u32::MAX, key in any::<u64>()) {
            let plain: View = ids.iter().map(|&id| NodeId(id)).collect();
            let mut even = View::default();
            let weight = NonZeroU32::new(weight).unwrap();
            for &id in &ids {
                prop_assert!(even.insert_weighted(NodeId(id), weight));
            }
            // By logarithms as well, which is what a node of another weight brings about.
            let mut weighed = even.clone();
            weighed.uneven = 1;
            let ranks = |view: &View| plain.nodes().iter().map(|&id| view.rank(key, id)).collect::<Vec<_>>();
            prop_assert_eq!(ranks(&plain), ranks(&even));
            prop_assert_eq!(plain.owner(key), even.owner(key));
            prop_assert_eq!(plain.owner(key), weighed.owner(key));
        }

        #[test]
        fn a_weight_moves_only_what_it_must(weights in proptest::collection::vec(1..1_000_u32, 2..20), changed in any::<prop::sample::Index>(), to in 1..1_000_u32, keys in proptest::collection::vec(any::<u64>(), 200)) {
            let weight = |weight| NonZeroU32::new(weight).unwrap();
            let mut before = View::default();
            for (id, &of) in (0..).zip(&weights) {
                before.insert_weighted(NodeId(id), weight(of));
            }
            let node = before.nodes()[changed.index(weights.len())];
            let mut after = before.clone();
            let had = after.set_weight(node, weight(to));
            prop_assert_eq!(had, before.weight(node));
            let grows = Some(weight(to)) > had;
            for key in keys {
                let (old, new) = (before.owner(key).unwrap(), after.owner(key).unwrap());
                let gained = if grows { new } else { old };
                prop_assert!(old == new || gained == node);
                let (mut all, mut order) = ([NodeId(0); 20], before.nodes().to_vec());
                let all = before.owners(key, &mut all);
                order.sort_by_key(|&id| before.rank(key, id));
                prop_assert_eq!(all, &order[..]);
                prop_assert_eq!(all[0], old);
            }
        }

        #[test]
        fn a_leaver_moves_only_its_own_keys(ids in proptest::collection::btree_set(any::<u64>(), 2..40), leaver in any::<prop::sample::Index>(), keys in proptest::collection::vec(any::<u64>(), 100)) {
            let before: View = ids.iter().map(|&id| NodeId(id)).collect();
            let leaver = before.nodes()[leaver.index(before.nodes().len())];
            let mut after = before.clone();
            prop_assert!(after.remove(leaver));
            prop_assert!(!after.remove(leaver));
            for key in keys {
                let (old, new) = (before.owner(key).unwrap(), after.owner(key).unwrap());
                prop_assert!(old == new || old == leaver);
            }
            prop_assert!(after.insert(leaver) && !after.insert(leaver));
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn load_is_even_for_adversarially_similar_ids() {
        let view: View = (1..=16).map(NodeId).collect();
        let mut load = [0_u32; 16];
        for key in 0..16_000_u32 {
            let owner = view.owner(key_hash(&key.to_be_bytes())).unwrap();
            load[usize::try_from(owner.0).unwrap() - 1] += 1;
        }
        // Binomial with mean 1000 and sigma 30.6; five sigma on each side.
        assert!(load.iter().all(|n| (847..=1153).contains(n)), "{load:?}");
    }

    #[test]
    fn load_follows_the_weights() {
        let mut view = View::default();
        for node in 1..=8_u32 {
            view.insert_weighted(
                NodeId(u64::from(node)),
                NonZeroU32::new(node * 1_000_000).unwrap(),
            );
        }
        let mut load = [0_u32; 8];
        for key in 0..360_000_u32 {
            let owner = view.owner(key_hash(&key.to_be_bytes())).unwrap();
            load[usize::try_from(owner.0).unwrap() - 1] += 1;
        }
        // Binomial with mean 10,000 per part; five sigma on each side.
        for (node, load) in (1..).zip(load) {
            let mean = f64::from(node) * 10_000.0;
            let sigma = (mean * (1.0 - mean / 360_000.0)).sqrt();
            assert!((f64::from(load) - mean).abs() < 5.0 * sigma, "{load} of {mean}");
        }
    }
}
