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

use alloc::vec::Vec;

use crate::hash;
use crate::id::NodeId;
use crate::room;
use crate::sabotage::sabotaged;

/// The hash of a key: XXH3-64 with seed 0.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    hash::stable(key)
}

/// A node id made ready for scoring. Consecutive ids must not give related scores, hence the mixing.
const fn node_seed(node: NodeId) -> u64 {
    hash::mix(node.0.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The score of `node` for a key: the finaliser of SplitMix64 over the key's hash and the mixed id.
#[must_use]
pub const fn score(key_hash: u64, node: NodeId) -> u64 {
    seed_score(key_hash, node_seed(node))
}

#[inline]
const fn seed_score(key_hash: u64, seed: u64) -> u64 {
    hash::mix(key_hash ^ seed)
}

/// The nodes among which owners are chosen.
///
/// Ids and their seeds lie in two arrays sorted by id, so [`View::owner`] is one pass over
/// contiguous words and the larger id wins ties. Changing the set costs O(n), asking O(n) without
/// allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    ids: Vec<NodeId>,
    seeds: Vec<u64>,
}

impl View {
    /// Adds a node. Returns whether it was new.
    pub fn insert(&mut self, node: NodeId) -> bool {
        match self.ids.binary_search(&node) {
            Ok(_) => false,
            Err(at) => {
                room::reserve(&mut self.ids, 1);
                room::reserve(&mut self.seeds, 1);
                self.ids.insert(at, node);
                self.seeds.insert(at, node_seed(node));
                true
            }
        }
    }

    /// Removes a node. Returns whether it was there.
    pub fn remove(&mut self, node: NodeId) -> bool {
        match self.ids.binary_search(&node) {
            Ok(at) => {
                self.ids.remove(at);
                self.seeds.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// The nodes, in ascending order of their ids.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.ids
    }

    /// The owner of the key, `None` if there is no node.
    #[must_use]
    pub fn owner(&self, key_hash: u64) -> Option<NodeId> {
        let mut best = (0, *self.ids.first()?);
        if sabotaged!("owner-modulo") {
            return self.ids.iter().cycle().nth((key_hash % 64) as usize).copied();
        }
        for (&seed, &id) in self.seeds.iter().zip(&self.ids) {
            let score = match seed_score(key_hash, seed) {
                score if sabotaged!("owner-lowest") => !score,
                score if sabotaged!("coarse-scores") => score >> 62,
                score => score,
            };
            if score >= best.0 {
                best = (score, id);
            }
        }
        Some(best.1)
    }

    /// The first `out.len()` owners of the key by descending score, fewer if there are fewer nodes.
    ///
    /// Costs O(n + n·k) comparisons at worst and O(n) when k is small against n; allocates nothing.
    pub fn owners<'o>(&self, key_hash: u64, out: &'o mut [NodeId]) -> &'o [NodeId] {
        let mut found = 0;
        for &id in &self.ids {
            let rank = (score(key_hash, id), id);
            let beats = |other: &NodeId| rank > (score(key_hash, *other), *other);
            if found == out.len() && !out.last().is_some_and(beats) {
                continue;
            }
            let at = out[..found].partition_point(|other| !beats(other));
            if found < out.len() {
                found += 1;
            }
            out[at..found].rotate_right(1);
            out[at] = id;
        }
        &out[..found]
    }
}

impl FromIterator<NodeId> for View {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut ids: Vec<_> = nodes.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let seeds = ids.iter().map(|&id| node_seed(id)).collect();
        Self { ids, seeds }
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
}
