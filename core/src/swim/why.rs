//! Why a member is held to be what it is.

use alloc::vec::Vec;
use core::time::Duration;

use super::Swim;
use super::member::{Row, State};
use crate::id::NodeId;
use crate::time::Instant;

/// Probes that are remembered, whoever they were of: in a cluster of so many, the last of each member.
const REMEMBERED: usize = 256;

/// A probe that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probed {
    /// When it ended.
    pub at: Instant,
    /// Whether the member answered, itself or through a helper.
    pub answered: bool,
    /// The round trip of the ping that was answered, unless a helper told of it.
    pub rtt: Option<Duration>,
}

/// What was found of how a member answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Until when it is held out, if enough found it so.
    pub until: Option<Instant>,
    /// Who found that it answers far worse than others do.
    pub poor: Vec<NodeId>,
    /// Who found that it answers as others do.
    pub well: Vec<NodeId>,
}

/// What this node holds of a member, and why: [`Swim::why`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// What it is held to be …
    pub state: State,
    /// … and since when.
    pub since: Instant,
    /// Who accuses it, or did until it was held failed: the first in front. Empty if nobody does, and for one that left.
    pub accusers: Vec<NodeId>,
    /// Who told that it has failed.
    pub verdicts: Vec<NodeId>,
    /// Whether a probe of this node's own is part of the evidence.
    pub own_probe: bool,
    /// When a suspect is looked for, or held failed, unless it refutes before or more is told.
    pub due: Option<Instant>,
    /// By whom it is held out, or was found to answer far worse than others do.
    pub held: Option<Held>,
    /// The smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// The last probes of it that ended, the latest first, of the 256 that this node made last.
    pub probes: Vec<Probed>,
}

/// The probes that ended last, in a ring.
#[derive(Debug, Default)]
pub(super) struct History {
    ring: Vec<(NodeId, Probed)>,
    next: usize,
}

impl History {
    pub(super) fn note(&mut self, of: NodeId, probed: Probed) {
        if self.ring.len() < REMEMBERED {
            // All of it with the first probe: the others allocate nothing.
            self.ring.reserve_exact(REMEMBERED - self.ring.len());
            self.ring.push((of, probed));
            return;
        }
        self.ring[self.next] = (of, probed);
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Those of one member, the latest first.
    fn of(&self, id: NodeId) -> impl Iterator<Item = Probed> {
        let (later, earlier) = self.ring.split_at(self.next);
        let latest_first = later.iter().rev().chain(earlier.iter().rev());
        latest_first.filter(move |(of, _)| *of == id).map(|(_, probed)| *probed)
    }
}

impl Swim {
    /// Why the member of that id is held to be what it is: who accuses it, since when, and how it answered lately.
    /// `None` for one that is not known, or is forgotten. For people: it looks through what is remembered of probes.
    ///
    /// ```
    /// use brickwork_core::{Identity, Instant, swim};
    ///
    /// let (now, entropy) = (Instant::ZERO, [7; 32]);
    /// let me = Identity::new("a", ([127, 0, 0, 1], 1).into());
    /// let node = swim::Swim::new(now, me, "docs", swim::Config::lan(), 1400, entropy)?;
    /// let why = node.why(node.me().id()).ok_or("not known")?;
    /// assert_eq!((why.state, why.since), (swim::State::Alive, now));
    /// assert!(why.accusers.is_empty() && why.probes.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn why(&self, id: NodeId) -> Option<Why> {
        let slot = self.table.slot(id)?;
        let row: &Row = self.table.row(slot);
        let suspicion = row.suspicion();
        Some(Why {
            state: row.member.state,
            since: row.since,
            accusers: suspicion.map(|case| case.accusers.to_vec()).unwrap_or_default(),
            verdicts: suspicion.map(|case| case.verdicts().to_vec()).unwrap_or_default(),
            own_probe: suspicion.is_some_and(|case| case.is_own()),
            due: self.suspicions.of(slot),
            held: self.table.found(slot).map(|inquiry| Held {
                until: self.holds.of(slot).filter(|_| row.member.held),
                poor: inquiry.poor().iter().map(|(id, _)| *id).collect(),
                well: inquiry.well().iter().map(|(id, _)| *id).collect(),
            }),
            rtt: row.member.rtt(),
            probes: self.prober.history.of(id).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring keeps the last, and tells the latest first.
    #[test]
    fn the_last_probes_are_remembered() {
        let mut history = History::default();
        let probed = |at| Probed { at: Instant::from_nanos(at), answered: at % 2 == 0, rtt: None };
        for at in 0..1_000 {
            history.note(NodeId(at % 3), probed(at));
            let first = (at + 1).saturating_sub(REMEMBERED as u64);
            let all: Vec<u64> = (first..=at).rev().filter(|at| at % 3 == 1).collect();
            let told: Vec<u64> = history.of(NodeId(1)).map(|probed| probed.at.as_nanos()).collect();
            assert_eq!(told, all);
        }
        assert_eq!(history.of(NodeId(3)).next(), None);
    }
}
