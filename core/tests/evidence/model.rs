//! What to believe, as plain as it can be said: the greatest of all evidence that was admitted.

use std::collections::{BTreeMap, BTreeSet};

use brickwork_core::NodeId;
use brickwork_core::swim::State;

use super::{B, Belief, Evidence, Item};

/// Admitted evidence. The derived order is the order of evidence: a boot outdoes all before it, and
/// having left a boot outdoes all else of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    boot: u64,
    left: bool,
    incarnation: u32,
    rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Alive,
    Suspect,
    Dead,
}

/// One observer's evidence, with the accusers at each entry.
#[derive(Debug, Default)]
pub struct Model {
    admitted: BTreeMap<Entry, BTreeSet<NodeId>>,
}

impl Model {
    pub fn belief(&self) -> Option<Belief> {
        let (top, _) = self.admitted.last_key_value()?;
        let state = match top.rank {
            _ if top.left => State::Left,
            Rank::Alive => State::Alive,
            Rank::Suspect => State::Suspect,
            Rank::Dead => State::Dead,
        };
        Some(Belief { boot: top.boot, incarnation: top.incarnation, state })
    }

    /// Who accuses the subject at the numbers that count.
    pub fn accusers(&self) -> Vec<NodeId> {
        self.admitted.last_key_value().iter().flat_map(|(_, by)| by.iter().copied()).collect()
    }

    /// Admits what may be admitted: the subject's own numbers always, at first sight and later;
    /// all else only about the boot that is known and at the numbers that are known.
    pub fn hear(&mut self, item: Item, teller: NodeId) {
        let top = self.admitted.last_key_value().map(|(top, _)| *top);
        match (item.what, top) {
            (Evidence::Alive { boot, incarnation }, _) => {
                self.admit(Entry { boot, left: false, incarnation, rank: Rank::Alive }, &[]);
            }
            (Evidence::Accused { boot, incarnation, by, .. }, Some(top)) => {
                if boot == top.boot && incarnation >= top.incarnation {
                    self.suspect(top, by);
                }
            }
            (Evidence::Left { boot, proven }, Some(top)) if boot == top.boot => {
                if proven {
                    self.admit(Entry { left: true, rank: Rank::Dead, ..top }, &[]);
                } else {
                    self.suspect(top, &[teller]);
                }
            }
            (Evidence::Time, Some(top)) if top.rank == Rank::Suspect => {
                // The verdict is this node's own, and stands on what it heard, from one alone, and saw.
                let mut by = self.accusers();
                by.push(B);
                self.admit(Entry { rank: Rank::Dead, ..top }, &by);
            }
            (Evidence::Accused { .. } | Evidence::Left { .. } | Evidence::Time, _) => {}
        }
    }

    /// Accusations raise no numbers and do not outdo a verdict.
    fn suspect(&mut self, top: Entry, by: &[NodeId]) {
        if top.rank < Rank::Dead {
            self.admit(Entry { rank: Rank::Suspect, ..top }, by);
        }
    }

    fn admit(&mut self, entry: Entry, by: &[NodeId]) {
        self.admitted.entry(entry).or_default().extend(by);
    }
}

/// What everybody believes after this evidence in whatever order, as far as the order does not matter.
#[derive(Debug, Default)]
pub struct Anyhow {
    alive: Vec<(u64, u32)>,
    accused: Vec<(u64, u32)>,
    left: Vec<u64>,
    /// Whether nothing was said before its time: each accusation after the numbers that it accuses,
    /// each leave after its boot, and no verdict, for a verdict is when it falls.
    pub in_time: bool,
}

impl Anyhow {
    pub fn new() -> Self {
        Self { in_time: true, ..Self::default() }
    }

    pub fn hear(&mut self, item: Item) {
        match item.what {
            Evidence::Alive { boot, incarnation } => self.alive.push((boot, incarnation)),
            Evidence::Accused { boot, incarnation, .. } => {
                self.in_time &= self.alive.iter().any(|known| *known >= (boot, incarnation));
                self.accused.push((boot, incarnation));
            }
            Evidence::Left { boot, proven: true } => {
                self.in_time &= self.alive.iter().any(|known| known.0 >= boot);
                self.left.push(boot);
            }
            // Without its proof a leave accuses whatever incarnation it finds.
            Evidence::Left { proven: false, .. } | Evidence::Time => self.in_time = false,
        }
    }

    /// The numbers, which no order changes, unless the subject left.
    pub fn numbers(&self) -> Option<(u64, u32)> {
        self.alive.iter().copied().max()
    }

    /// All of it, for orders in which nothing came before its time.
    pub fn belief(&self) -> Option<Belief> {
        let (boot, incarnation) = self.numbers()?;
        let state = if self.left.contains(&boot) {
            State::Left
        } else if self.accused.contains(&(boot, incarnation)) {
            State::Suspect
        } else {
            State::Alive
        };
        Some(Belief { boot, incarnation, state })
    }
}
