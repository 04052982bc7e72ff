//! A whole run as data: who takes part, what goes wrong when, and what is written meanwhile.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;

use super::draw::{CLASSES, Dice, fault};
use super::fault::{Fault, Trouble};
use super::judge::Violation;
use super::net::{Luck, Traffic};
use super::run::Run;
use super::setting::{scale, with_small_keys};
use crate::Config;
use crate::time::Instant;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// A fault begins, and ends after this long.
    Fault(Fault, Duration),
    /// A node writes a key over what it has seen.
    Put(usize, u8),
    /// A node removes what it has seen of a key.
    Remove(usize, u8),
    /// A node joins through another one, whether or not it has members already.
    Join(usize, usize),
    /// A node writes a key with the context that it read at its last act on it, however old.
    PutOver(usize, u8),
}

/// What happens when, counted from the beginning of the trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// When.
    pub at: Duration,
    /// What.
    pub act: Act,
    /// What its luck belongs to, so that it does not change when other steps are left out.
    pub luck: u64,
}

/// A run that is about to happen, or to happen again.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// Decides all that is left to chance.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Their settings …
    pub config: Config,
    /// … unless these are not empty: then each place has its own.
    pub configs: Vec<Config>,
    /// What their clocks show at the beginning, by place: zero where none is said.
    pub origins: Vec<Instant>,
    /// Bytes of metadata that each tells of itself.
    pub meta: usize,
    /// The even and the odd places are clusters of their own, which write other keys, until one of them
    /// joins through one of the others: at an [`Act::Join`], or at the latest when all faults are over.
    pub two_clusters: bool,
    /// What goes wrong, and what is written, in order.
    pub steps: Vec<Step>,
    /// After this long all faults are over.
    pub trouble: Duration,
    /// Within this time after that everybody must agree.
    pub calm: Duration,
}

/// What a run that held was like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Hash of everything that happened.
    pub trace: u64,
    /// True time that passed.
    pub time: Duration,
    /// How long it took after the faults until all agreed.
    pub healed: Duration,
    /// Inputs that nodes handled.
    pub inputs: u64,
    /// What became of datagrams.
    pub traffic: Traffic,
    /// Classes of faults, states of members and steps between them, branches of the map: how often
    /// each was met.
    pub met: BTreeMap<&'static str, u64>,
    /// Writes that were acknowledged.
    pub writes: u64,
}

/// Oracles that speak by panicking, from [`Checked`](super::Checked) and [`Sim`](super::Sim).
const ASSERTED: [&str; 5] = ["OM8", "OM10", "OM11", "OM12", "OM13"];
/// Keys in use.
pub(super) const KEYS: u8 = 6;

impl Plan {
    /// A random plan: some nodes, some classes of faults, each several times, and some writes. Few
    /// classes at a time find more than all at once (Groce et al. 2012, swarm testing).
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let nodes = scale(&mut Dice(Luck::new(seed, 1, 0)));
        Self::swarm_of(seed, nodes)
    }

    /// The same with that many nodes.
    #[must_use]
    pub fn swarm_of(seed: u64, nodes: usize) -> Self {
        let mut dice = Dice(Luck::new(seed, 0, 0));
        let trouble = Duration::from_secs(10 + dice.below(30) as u64);
        let mut steps = Vec::new();
        let classes: Vec<usize> = (0..=dice.below(5)).map(|_| dice.below(CLASSES)).collect();
        for class in classes {
            for _ in 0..=dice.below(4) {
                let at = dice.time(trouble);
                let lasts = dice.time(trouble - at);
                let fault = fault(&mut dice, class, nodes);
                if let Fault::Node(nodes, Trouble::Replay(_)) = &fault {
                    // What was said to another life is what is worth saying again.
                    let act = Act::Fault(Fault::Node(nodes.clone(), Trouble::Crash), lasts / 4);
                    steps.push(Step { at: at + dice.time(lasts / 2), act, luck: dice.0.next() });
                }
                let act = Act::Fault(fault, lasts);
                steps.push(Step { at, act, luck: dice.0.next() });
            }
        }
        for _ in 0..dice.below(40) {
            let (at, place) = (dice.time(trouble), dice.below(nodes));
            let key = dice.below(usize::from(KEYS)) as u8;
            let act = match dice.below(8) {
                0 | 1 => Act::Remove(place, key),
                2 => Act::PutOver(place, key),
                _ => Act::Put(place, key),
            };
            steps.push(Step { at, act, luck: 0 });
        }
        let calm = Duration::from_secs(120);
        let mut plan = Self {
            seed,
            nodes,
            config: with_small_keys(),
            configs: Vec::new(),
            origins: Vec::new(),
            meta: 0,
            two_clusters: false,
            steps,
            trouble,
            calm,
        };
        plan.draw_setting(&mut Dice(Luck::new(seed, 2, 0)));
        plan.steps.sort_by_key(|step| step.at);
        plan
    }

    /// The plan with only these of its steps.
    #[must_use]
    pub fn only(&self, steps: &[usize]) -> Self {
        let steps = steps.iter().filter_map(|&at| self.steps.get(at).cloned()).collect();
        Self { steps, ..self.clone() }
    }

    /// Runs it. The same plan always ends the same.
    ///
    /// # Errors
    ///
    /// The first [`Violation`]. A panic that does not name the oracle that it belongs to is one of `OX8`.
    /// What is violated only because clocks have run for long is one of `OX6`.
    pub fn run(&self) -> Result<Report, Violation> {
        let violation = match self.attempt() {
            Err(violation) if !self.origins.is_empty() => violation,
            other => return other,
        };
        let young = Self { origins: Vec::new(), ..self.clone() };
        Err(match young.attempt() {
            Ok(_) => Violation { oracle: "OX6", ..violation },
            Err(_) => violation,
        })
    }

    fn attempt(&self) -> Result<Report, Violation> {
        let run = AssertUnwindSafe(|| Run::new(self).run());
        catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let text = text.unwrap_or_default();
            let names = |oracle: &&&str| text.contains(&format!("{oracle}: "));
            let oracle = ASSERTED.iter().find(names).copied().unwrap_or("OX8");
            Err(Violation { oracle, at: Instant::ZERO, text })
        })
    }
}
