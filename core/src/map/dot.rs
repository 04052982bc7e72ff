//! Dots, and sets of them.

use core::fmt;

use smallvec::SmallVec;

use crate::id::NodeId;

/// One life of one node's map: a node that starts without its old state is a new replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ReplicaId {
    /// The node.
    pub node: NodeId,
    /// Never used twice by one node, and best higher for every life, as a clock or a counter of boots is. A map that has to
    /// go on as another life takes one half a million to a million higher. Of lives with epochs from 2^63 on that are
    /// over, each costs some 60 bytes for ever; once as many are kept as there may be replicas, none is
    /// retired any more. One that is lower than many before it, because a clock was set back, is
    /// followed by another as soon as others are met who know; what it wrote beside ones who do not know either may
    /// be lost if it ends before.
    pub epoch: u64,
}

impl ReplicaId {
    /// Life `epoch` of `node`.
    #[must_use]
    pub const fn new(node: NodeId, epoch: u64) -> Self {
        Self { node, epoch }
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.node, self.epoch)
    }
}

/// The name of one write: the `counter`-th of `replica`, counting from one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Dot {
    /// Who wrote.
    pub replica: ReplicaId,
    /// Which of its writes.
    pub counter: u64,
}

impl Dot {
    /// The `counter`-th write of `replica`, say as another node told of it.
    #[must_use]
    pub const fn new(replica: ReplicaId, counter: u64) -> Self {
        Self { replica, counter }
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.replica, self.counter)
    }
}

/// Greatest counter of a dot: 2^48 - 1, enough for a million writes a second for nine years.
pub(super) const MAX_COUNTER: u64 = (1 << 48) - 1;

/// A dot with its replica interned: 16 bits of replica, 48 of counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Packed(u64);

impl Packed {
    pub(super) const fn new(replica: u16, counter: u64) -> Self {
        Self((replica as u64) << 48 | counter)
    }

    #[allow(clippy::cast_possible_truncation)] // the high 16 bits
    pub(super) const fn replica(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(super) const fn counter(self) -> u64 {
        self.0 & MAX_COUNTER
    }

    /// The word that [`from_bits`](Self::from_bits) makes a dot of again.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The dot after this one, which must not be the last.
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The counter before this one; dots count from one.
    pub(super) const fn counter_before(self) -> u64 {
        self.counter().saturating_sub(1)
    }
}

/// Most runs beyond the base that a peer's context is remembered or told with. Dropping runs makes it
/// a smaller set, which costs a repetition and never a loss.
pub(super) const MAX_RUNS: usize = 32;

/// A set of counters of one replica: all up to `base`, and runs beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) base: u64,
    /// First and last of each, ascending, with gaps between them and after the base.
    pub(super) runs: SmallVec<[(u64, u64); 2]>,
}

impl Runs {
    pub(super) fn contains(&self, counter: u64) -> bool {
        let at = self.runs.partition_point(|run| run.1 < counter);
        counter <= self.base || self.runs.get(at).is_some_and(|run| run.0 <= counter)
    }

    /// First and last of each run, that up to the base included.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        let base = (self.base > 0).then_some((1, self.base));
        base.into_iter().chain(self.runs.iter().copied())
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = u64> {
        self.all().flat_map(|(from, to)| from..=to)
    }

    /// How many there are after the first gap.
    pub(super) fn ahead(&self) -> u64 {
        self.runs.iter().fold(0_u64, |sum, (from, to)| sum.saturating_add(to - from + 1))
    }

    /// How many there are.
    pub(super) fn counters_len(&self) -> u64 {
        self.all().fold(0_u64, |sum, (from, to)| sum.saturating_add(to - from + 1))
    }

    /// The first counter from `counter` on that is not in the set.
    pub(super) fn next_absent(&self, counter: u64) -> u64 {
        // Between two runs there is a gap.
        let next = counter.max(self.base + 1);
        let at = self.runs.partition_point(|run| run.1 < next);
        self.runs.get(at).filter(|run| run.0 <= next).map_or(next, |run| run.1 + 1)
    }

    /// Adds the run `from..=to`; may drop the last runs if there are too many.
    pub(super) fn add(&mut self, from: u64, to: u64) {
        self.add_uncut(from, to);
        self.runs.truncate(MAX_RUNS);
    }

    /// Adds the run `from..=to`, however many there are.
    pub(super) fn add_uncut(&mut self, mut from: u64, mut to: u64) {
        if to <= self.base {
            return;
        }
        if from <= self.base + 1 {
            self.base = to;
        } else {
            // Merge with every run that touches it.
            let at = self.runs.partition_point(|run| run.1 + 1 < from);
            while let Some(&run) = self.runs.get(at) {
                if run.0 > to + 1 {
                    break;
                }
                self.runs.remove(at);
                (from, to) = (from.min(run.0), to.max(run.1));
            }
            self.runs.insert(at, (from, to));
        }
        while let Some(&(from, to)) = self.runs.first() {
            if from > self.base + 1 {
                break;
            }
            self.base = self.base.max(to);
            self.runs.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_behave_like_a_set(adds in proptest::collection::vec((1..60_u64, 0..5_u64), 0..20)) {
            let mut runs = Runs::default();
            let mut set = BTreeSet::new();
            for (from, len) in adds {
                runs.add(from, from + len);
                set.extend(from..=from + len);
                for counter in 1..70 {
                    prop_assert_eq!(runs.contains(counter), set.contains(&counter), "{} in {:?}", counter, runs);
                    let absent = (counter..).find(|n| !set.contains(n));
                    prop_assert_eq!(Some(runs.next_absent(counter)), absent);
                }
                let gaps: Vec<_> = runs.runs.windows(2).map(|w| w[1].0 > w[0].1 + 1).collect();
                prop_assert!(gaps.iter().all(|gap| *gap), "runs stay apart: {:?}", runs);
                let first = runs.runs.first();
                prop_assert!(first.is_none_or(|run| run.0 > runs.base + 1), "the base is the greatest: {:?}", runs);
            }
        }
    }

    #[test]
    fn packing_keeps_both_halves() {
        let dot = Packed::new(65_535, MAX_COUNTER);
        assert_eq!((dot.replica(), dot.counter()), (65_535, MAX_COUNTER));
    }
}
