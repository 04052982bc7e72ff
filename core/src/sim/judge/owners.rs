//! Who owns what, by each node's view.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::{Verdict, fail};
use crate::sim::world::Sim;
use crate::{Node, NodeId, hrw};

/// Keys whose owners are followed.
const KEYS: u32 = 16;
/// Keys whose spread is judged in the end.
const MANY: u32 = 2_000;

#[derive(Debug, Clone, Default)]
struct Seen {
    life: usize,
    view: Vec<NodeId>,
    owners: Vec<Option<NodeId>>,
}

#[derive(Debug)]
pub(super) struct Owners {
    keys: Vec<[u8; 8]>,
    seen: Vec<Seen>,
    /// The owners that each view was seen with.
    of_view: BTreeMap<Vec<NodeId>, Vec<Option<NodeId>>>,
}

fn key(seed: u64, number: u32) -> [u8; 8] {
    seed.wrapping_mul(u64::from(u32::MAX)).wrapping_add(u64::from(number)).to_be_bytes()
}

impl Owners {
    pub(super) fn new(sim: &Sim) -> Self {
        let keys = (0..KEYS).map(|number| key(sim.seed, number)).collect();
        let seen = (0..sim.len()).map(|_| Seen::default()).collect();
        Self { keys, seen, of_view: BTreeMap::new() }
    }

    pub(super) fn look(&mut self, sim: &Sim, place: usize, node: &Node) -> Verdict {
        let (view, life) = (node.view().nodes(), sim.lives(place).len());
        let seen = &mut self.seen[place];
        if seen.life == life && seen.view == view && view.len() == node.swim().len() {
            return Ok(());
        }
        let name = &node.identity().name();
        let mut members: Vec<NodeId> = node.members().map(crate::swim::Member::id).collect();
        members.sort_unstable();
        if members != view {
            return fail("OR6", sim, format!("{name} lists {members:?} and asks {view:?}"));
        }
        let owners: Vec<_> = self.keys.iter().map(|key| node.owner(key)).collect();
        let known = self.of_view.entry(view.to_vec()).or_insert_with(|| owners.clone());
        if *known != owners {
            return fail(
                "OR5",
                sim,
                format!("{name}: owners of one view are {owners:?}, {known:?}"),
            );
        }
        if seen.life == life {
            judge_moves(sim, seen, view, &owners)?;
        }
        *seen = Seen { life, view: view.to_vec(), owners };
        Ok(())
    }

    pub(super) fn finish(&self, sim: &Sim) -> Verdict {
        let live: BTreeSet<NodeId> = sim.up().map(|place| sim.id(place)).collect();
        for key in &self.keys {
            let owners: BTreeSet<_> =
                sim.up().filter_map(|place| sim.node(place)?.owner(key)).collect();
            if owners.len() != 1 || !owners.is_subset(&live) {
                return fail("OR5", sim, format!("{owners:?} own {key:?}"));
            }
        }
        let Some(node) = sim.up().find_map(|place| sim.node(place)) else { return Ok(()) };
        judge_balance(sim, node)?;
        for key in &self.keys {
            let ranked = reference(key, node.view().nodes());
            let mut order = [NodeId(0); 3];
            let order = node.owners(key, &mut order);
            if order != &ranked[..order.len()] || node.owner(key) != ranked.first().copied() {
                return fail("OR1", sim, format!("{order:?} own {key:?}, not {ranked:?}"));
            }
        }
        Ok(())
    }
}

/// Keys move only from who went and to who came.
fn judge_moves(sim: &Sim, old: &Seen, view: &[NodeId], owners: &[Option<NodeId>]) -> Verdict {
    for (before, after) in old.owners.iter().zip(owners) {
        let went = before.is_some_and(|before| !view.contains(&before));
        let came = after.is_some_and(|after| !old.view.contains(&after));
        if before != after && !went && !came {
            let text = format!("a key went from {before:?} to {after:?}, who were both there");
            return fail("OR2", sim, text);
        }
    }
    Ok(())
}

/// Chi-square of the keys per owner: its mean is the degrees of freedom, its variance twice that.
fn judge_balance(sim: &Sim, node: &Node) -> Verdict {
    let nodes = node.view().nodes();
    let mut load: BTreeMap<NodeId, u64> = nodes.iter().map(|id| (*id, 0)).collect();
    for number in 0..MANY {
        let owner = node.view().owner(hrw::key_hash(&key(sim.seed ^ 0xba1a, number)));
        if let Some(count) = owner.and_then(|owner| load.get_mut(&owner)) {
            *count += 1;
        }
    }
    let (n, keys) = (nodes.len() as u64, u64::from(MANY));
    // Times keys, to stay with integers: the sum of squares, times n, less keys squared.
    let squares: u64 = load.values().map(|count| count * count).sum();
    let chi = (squares * n).abs_diff(keys * keys) / keys;
    // Beyond six standard deviations and some for the skew of few degrees: less than one in a million.
    let bound = n + 6 * (2 * n).isqrt() + 20;
    if chi > bound {
        return fail("OR4", sim, format!("chi-square of {chi} among {n} nodes: {load:?}"));
    }
    Ok(())
}

/// The published formula, written anew: XXH3-64 of the key and the id as SplitMix64 finalises it, and of their difference each half
/// by the 32-bit finaliser, the lower half in front; the highest first.
fn reference(key: &[u8], nodes: &[NodeId]) -> Vec<NodeId> {
    let mut ranked: Vec<_> = nodes.iter().map(|id| (score(key, *id), *id)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, id)| id).collect()
}

pub(super) fn score(key: &[u8], node: NodeId) -> u64 {
    fn finalise(word: u64) -> u64 {
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    fn finalise_half(word: u64) -> u64 {
        let word = word & 0xffff_ffff;
        let word = ((word ^ (word >> 16)) * 0x7feb_352d) & 0xffff_ffff;
        let word = ((word ^ (word >> 15)) * 0x846c_a68b) & 0xffff_ffff;
        word ^ (word >> 16)
    }
    let seed = finalise(node.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let word = xxhash_rust::xxh3::xxh3_64(key) ^ seed;
    finalise_half(word).rotate_left(32) | finalise_half(word >> 32)
}
