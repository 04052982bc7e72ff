//! Nodes whose own links are bad: whether the others agree to do without them, how soon, and for how long.

use std::time::Duration;

use brickwork_core::Instant;
use hashbrown::HashMap;

use super::figures::Latencies;

/// Since when a node is faulty, and what each other one made of it.
#[derive(Debug)]
struct Faulty {
    since: Instant,
    /// How often each other node changed its mind about it.
    changes: Vec<u16>,
    /// When each first did without it.
    out: Vec<Option<Duration>>,
}

/// All faulty nodes, now or before.
#[derive(Debug, Default)]
pub(super) struct FaultyNodes {
    nodes: usize,
    of: HashMap<usize, Faulty>,
}

/// What the others made of them.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// From the beginning of a fault to each other node that lists the faulty one no more.
    pub(super) out: Latencies,
    /// How often one node changed its mind about one faulty node, the most.
    pub(super) most_changes: Option<u64>,
}

impl FaultyNodes {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes, of: HashMap::new() }
    }

    pub(super) fn begin(&mut self, now: Instant, places: &[usize]) {
        for &place in places {
            let nodes = self.nodes;
            self.of.entry(place).or_insert_with(|| Faulty {
                since: now,
                changes: vec![0; nodes],
                out: vec![None; nodes],
            });
        }
    }

    pub(super) fn has(&self, place: usize) -> bool {
        self.of.contains_key(&place)
    }

    /// The node at `observer` lists the one at `place` from now on, or no more.
    pub(super) fn listed(&mut self, now: Instant, observer: usize, place: usize, on: bool) {
        if let Some(faulty) = self.of.get_mut(&place) {
            faulty.changes[observer] = faulty.changes[observer].saturating_add(1);
            if !on {
                faulty.out[observer].get_or_insert(now - faulty.since);
            }
        }
    }

    /// What those made of them that are up and well.
    pub(super) fn finish(self, is_up: impl Fn(usize) -> bool) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let others: Vec<usize> =
            (0..self.nodes).filter(|&other| is_up(other) && !self.has(other)).collect();
        for faulty in self.of.values() {
            for &other in &others {
                match faulty.out[other] {
                    Some(after) => verdicts.out.push(after),
                    None => verdicts.out.never(1),
                }
                let changes = u64::from(faulty.changes[other]);
                verdicts.most_changes = verdicts.most_changes.max(Some(changes));
            }
        }
        verdicts.out.sort();
        verdicts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_the_others_made_of_it() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut faulty = FaultyNodes::new(4);
        faulty.listed(at(1), 0, 2, false);
        faulty.begin(at(10), &[2]);
        assert!(faulty.has(2) && !faulty.has(1));
        for (time, on) in [(12, false), (20, true), (30, false)] {
            faulty.listed(at(time), 0, 2, on);
        }
        faulty.listed(at(15), 1, 2, false);
        // The third is down, and of the faulty one itself nobody asks.
        let verdicts = faulty.finish(|place| place != 3);
        assert_eq!(verdicts.most_changes, Some(3));
        assert_eq!(verdicts.out.percentile(100), Some(5.0));
        assert_eq!(verdicts.out.count(), 2);
        assert_eq!(FaultyNodes::new(4).finish(|_| true).most_changes, None);
    }
}
