//! Which dots this replica reflects, and which key each of them is about.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::dot::{Dot, Packed, ReplicaId, Runs};
use crate::hash;
use crate::reached::reached;
use crate::sabotage::sabotaged;

/// The dots known of one replica: all up to the log's length, and some ahead of gaps.
#[derive(Debug)]
struct Known {
    id: ReplicaId,
    hash: u64,
    /// The slot of the key that dot n is about, at n - 1. Its length is the context's base.
    log: Vec<u32>,
    /// The same for dots ahead of a gap.
    ahead: BTreeMap<u64, u32>,
}

/// The causal context with the dot logs: exact sets of dots, grouped by replica. `d` in the context
/// means that the entry of d's key reflects d.
#[derive(Debug)]
pub(super) struct Replicas {
    known: Vec<Known>,
    /// Interned number of each replica, in the order that all nodes share.
    order: BTreeMap<ReplicaId, u16>,
    /// Sum of a hash of every dot: equal contexts have equal sums.
    digest: u64,
    max: usize,
    max_ahead: usize,
}

impl Replicas {
    /// A context of no dots, with `me` interned as number 0.
    pub(super) fn new(me: ReplicaId, max: usize, max_ahead: usize) -> Self {
        let mut replicas =
            Self { known: Vec::new(), order: BTreeMap::new(), digest: 0, max, max_ahead };
        replicas.intern(me);
        replicas
    }

    /// The number of `id`, new if need be; `None` if there are too many.
    #[allow(clippy::cast_possible_truncation)] // at most 65,535
    pub(super) fn intern(&mut self, id: ReplicaId) -> Option<u16> {
        if let Some(&number) = self.order.get(&id) {
            return Some(number);
        }
        if self.known.len() >= self.max {
            return None;
        }
        let number = self.known.len() as u16;
        let hash = hash::mix2(id.node.0, id.epoch);
        self.known.push(Known { id, hash, log: Vec::new(), ahead: BTreeMap::new() });
        self.order.insert(id, number);
        Some(number)
    }

    pub(super) fn number(&self, id: ReplicaId) -> Option<u16> {
        self.order.get(&id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn id(&self, replica: u16) -> ReplicaId {
        self.known[usize::from(replica)].id
    }

    pub(super) fn dot(&self, dot: Packed) -> Dot {
        Dot { replica: self.id(dot.replica()), counter: dot.counter() }
    }

    /// The hash of a dot, the same on every node.
    pub(super) fn hash(&self, dot: Packed) -> u64 {
        hash::mix2(self.known[usize::from(dot.replica())].hash, dot.counter())
    }

    pub(super) fn base(&self, replica: u16) -> u64 {
        self.known[usize::from(replica)].log.len() as u64
    }

    /// Whether dots of the replica are known ahead of a gap.
    pub(super) fn has_gap(&self, replica: u16) -> bool {
        !self.known[usize::from(replica)].ahead.is_empty()
    }

    pub(super) fn contains(&self, dot: Packed) -> bool {
        let known = &self.known[usize::from(dot.replica())];
        dot.counter() <= known.log.len() as u64 || known.ahead.contains_key(&dot.counter())
    }

    /// The slot of the key that a known dot is about.
    pub(super) fn slot(&self, dot: Packed) -> Option<u32> {
        let known = &self.known[usize::from(dot.replica())];
        let at = usize::try_from(dot.counter().checked_sub(1)?).ok()?;
        known.log.get(at).or_else(|| known.ahead.get(&dot.counter())).copied()
    }

    /// Whether there is room to claim the dot.
    pub(super) fn has_room(&self, dot: Packed) -> bool {
        let known = &self.known[usize::from(dot.replica())];
        dot.counter() <= known.log.len() as u64 + 1 || known.ahead.len() < self.max_ahead
    }

    /// Adds a dot about the key in `slot`. Returns whether it is new.
    pub(super) fn claim(&mut self, dot: Packed, slot: u32) -> bool {
        if self.contains(dot) {
            reached!("map: dot known");
            return false;
        }
        self.digest = self.digest.wrapping_add(self.hash(dot));
        let known = &mut self.known[usize::from(dot.replica())];
        while sabotaged!("gap-claimed") && known.log.len() as u64 + 1 < dot.counter() {
            known.log.push(slot);
        }
        if dot.counter() != known.log.len() as u64 + 1 {
            reached!("map: dot ahead of a gap");
            known.ahead.insert(dot.counter(), slot);
            return true;
        }
        reached!("map: dot next in order");
        known.log.push(slot);
        while let Some(entry) = known.ahead.first_entry() {
            if *entry.key() != known.log.len() as u64 + 1 {
                break;
            }
            reached!("map: dot closes a gap");
            let slot = entry.remove();
            if sabotaged!("ahead-forgotten") {
                break;
            }
            known.log.push(slot);
        }
        true
    }

    /// The first dot of `replica` from `counter` on that is known here and not in `theirs`.
    pub(super) fn next_missing(&self, replica: u16, theirs: &Runs, counter: u64) -> Option<u64> {
        let known = &self.known[usize::from(replica)];
        let mut next = theirs.next_absent(counter);
        loop {
            if next <= known.log.len() as u64 {
                return Some(next);
            }
            let (&ahead, _) = known.ahead.range(next..).next()?;
            if ahead == next {
                return Some(next);
            }
            next = theirs.next_absent(ahead);
        }
    }

    /// The runs of dots known ahead of gaps, ascending.
    pub(super) fn runs_ahead(&self, replica: u16) -> impl Iterator<Item = (u64, u64)> {
        let mut counters = self.known[usize::from(replica)].ahead.keys().copied().peekable();
        core::iter::from_fn(move || {
            let from = counters.next()?;
            let mut to = from;
            while counters.next_if_eq(&(to + 1)).is_some() {
                to += 1;
            }
            Some((from, to))
        })
    }

    /// The replicas after `after` and up to `upto`, in the shared order.
    pub(super) fn range(
        &self,
        after: Option<ReplicaId>,
        upto: Option<ReplicaId>,
    ) -> impl Iterator<Item = (ReplicaId, u16)> {
        use core::ops::Bound::{Excluded, Included, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let to = upto.map_or(Unbounded, Included);
        // A peer may send bounds that cross; `BTreeMap::range` would panic on them.
        let crossed = matches!((after, upto), (Some(after), Some(upto)) if after >= upto);
        let range = (!crossed).then(|| self.order.range((from, to)));
        range.into_iter().flatten().map(|(&id, &number)| (id, number))
    }

    /// The sum over all known dots.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::NodeId;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn claims_in_any_order_make_the_same_context(mut order in Just((1..40_u64).collect::<Vec<_>>()).prop_shuffle(), keep in 1..40_usize, theirs in proptest::collection::vec((1..40_u64, 0..4_u64), 0..5)) {
            order.truncate(keep);
            let id = ReplicaId::new(NodeId(1), 1);
            let mut replicas = Replicas::new(id, 10, 100);
            let mut sum = 0_u64;
            for &n in &order {
                let dot = Packed::new(0, n);
                sum = sum.wrapping_add(replicas.hash(dot));
                prop_assert!(replicas.claim(dot, u32::try_from(n).unwrap()));
                prop_assert!(!replicas.claim(dot, 0));
            }
            prop_assert_eq!(replicas.digest(), sum);
            let set: BTreeSet<u64> = order.iter().copied().collect();
            let mut runs = Runs::default();
            for (from, len) in theirs { runs.add(from, from + len); }
            for n in 1..45 {
                let dot = Packed::new(0, n);
                prop_assert_eq!(replicas.contains(dot), set.contains(&n));
                prop_assert_eq!(replicas.slot(dot).map(u64::from), set.get(&n).copied());
                let missing = set.range(n..).copied().find(|&m| !runs.contains(m));
                prop_assert_eq!(replicas.next_missing(0, &runs, n), missing);
            }
            let ahead: BTreeSet<u64> = replicas.runs_ahead(0).flat_map(|(from, to)| from..=to).collect();
            let mut all: BTreeSet<u64> = (1..=replicas.base(0)).collect();
            all.extend(ahead);
            prop_assert_eq!(all, set);
        }
    }
}
