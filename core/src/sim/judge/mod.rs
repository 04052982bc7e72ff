//! Oracles: what must hold after every step, judged by one who knows the truth.
//!
//! | oracle | what must hold | where |
//! |---|---|---|
//! | OM1 | who died is listed by nobody | [`calm`] |
//! | OM2 | who lives is believed alive; nobody dies for anothers' faults alone | [`calm`], [`members`] |
//! | OM3 | numbers of a member only rise | [`members`] |
//! | OM4 | only a member issues its numbers | [`members`] |
//! | OM5 | the dead return by a higher number alone | [`members`] |
//! | OM6 | the accused learns of it and refutes | [`calm`] |
//! | OM7 | only legal steps between states; the own row is there, and alive | [`members`] |
//! | OM8 | without news there is no traffic but probes and digests; answers do not multiply without end; datagrams keep to their size | [`pace`], [`Checked`] |
//! | OM9 | every member is probed within 2n - 1 periods | [`pace`] |
//! | OM10 | events add up to the list | [`Checked`] |
//! | OM11 | a fired timer is over, and nobody wakes for nothing | [`Checked`], [`Sim`] |
//! | OM12 | local health has its bounds; who was stalled blames nobody else | [`Checked`], [`members`] |
//! | OM13 | tables and the map keep to their sizes | [`Checked`] |
//! | OR1 | owners are those of the published formula | [`owners`] |
//! | OR2 | a change of the view moves only the keys of who came or went | [`owners`] |
//! | OR4 | keys are spread evenly | [`owners`] |
//! | OR5 | equal views have equal owners, and in the end there is one, alive | [`owners`] |
//! | OR6 | the view is the list of live members | [`owners`] |
//! | OC2 | equal sets of writes make equal contents | [`data`] |
//! | OC3 | no acknowledged write is lost | [`data`] |
//! | OC4 | nothing superseded comes back | [`data`] |
//! | OC5 | what is known stays known, and is claimed with its effect alone | [`data`] |
//! | OC6 | no dot names two writes | [`data`] |
//! | OC7 | whoever has peers has a digest or a pull scheduled: lost pushes are made good | [`data`] |
//! | OC9 | values and the value read are those of the plain model | [`data`] |
//! | OC10 | once all list each other, their maps become equal soon | [`calm`] |
//! | OC11 | so they do if a digest needs several datagrams | [`calm`] |
//! | OX1 | nothing is left of an earlier life | [`calm`] |
//! | OX2 | one sick node does not keep the others from agreeing | [`Plan`](super::Plan) |
//! | OX3 | two clusters that meet become one, and keep what both wrote | [`calm`] |
//! | OX4 | overload leaves nothing behind: probes are answered, health recovers | [`pace`] |
//! | OX6 | it does not matter how long clocks have run | [`Plan`](super::Plan) |
//! | OX7 | the same plan ends the same | [`Plan`](super::Plan) |
//! | OX8 | nothing panics | [`Plan`](super::Plan) |
//! | OX9 | who has not proved its address is sent at most three times what it sent | here |
//! | OX10 | once all faults are over they agree, where no other rule says why they do not | [`calm`] |
//!
//! What is asked once trouble is over waits for as long as that may take: how long it does take is a figure,
//! with a budget in a scenario of the benchmarks (OM1, OM2: crash, mass-crash, split-and-heal; OM6, OM8: loss;
//! OC10: updates). No run here lasts as long as a tombstone, so OM5 is not asked beyond its end, nor OM8 how
//! often one piece of news is sent: both belong to the work on membership. That maps become equal at a cost of
//! what differs (OC10) belongs to the work on the map.
//!
//! OC8, that nothing is collected which somebody lacks and that nothing is left in the end, is asked of lone maps
//! beside the reference model, in `tests/model_random.rs` and `tests/map/full_sync.rs`.
//! OC1, the laws of the join, is asked of lone maps, where all orders of the same chunks can be tried:
//! `tests/exhaustive.rs`. Not asked yet: OR3 until nodes have weights,
//! OX5 until there are two versions of the protocol, and the rest of OX9 until datagrams are sealed.
//!
//! [`Checked`]: super::Checked
//! [`Sim`]: super::Sim

mod calm;
mod data;
mod members;
mod owners;
mod pace;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use core::net::SocketAddr;

pub(super) use data::Write;

use super::fault::Fault;
use super::world::Sim;
use crate::NodeId;
use crate::time::Instant;
use data::Data;
use members::Members;
use owners::Owners;
use pace::{Bursts, Pace};

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The oracle that saw it: its number in the list of oracles.
    pub oracle: &'static str,
    /// When, in true time.
    pub at: Instant,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// A rule that was seen broken in a test of one's own, at no time in particular.
    #[must_use]
    pub fn new(oracle: &'static str, text: &str) -> Self {
        Self { oracle, at: Instant::ZERO, text: text.into() }
    }
}

pub(super) type Verdict = Result<(), Violation>;

pub(super) fn fail(oracle: &'static str, sim: &Sim, text: String) -> Verdict {
    Err(Violation { oracle, at: sim.now(), text })
}

/// Watches a simulation.
#[derive(Debug)]
pub(super) struct Judge {
    /// Place of each node.
    places: BTreeMap<NodeId, usize>,
    members: Members,
    data: Data,
    owners: Owners,
    pace: Option<Pace>,
    bursts: Bursts,
    /// How often each state and each step between states was met.
    pub(super) met: BTreeMap<&'static str, u64>,
}

impl Judge {
    pub(super) fn new(sim: &Sim) -> Self {
        Self {
            places: (0..sim.len()).map(|place| (sim.id(place), place)).collect(),
            members: Members::new(sim.len()),
            data: Data::new(sim.len()),
            owners: Owners::new(sim),
            pace: None,
            bursts: Bursts::default(),
            met: BTreeMap::new(),
        }
    }

    /// Notes a write that was acknowledged just now.
    pub(super) fn wrote(&mut self, sim: &Sim, write: Write) -> Verdict {
        self.data.wrote(sim, write)
    }

    /// Notes that a fault is over by now.
    pub(super) fn ended(&mut self, sim: &Sim, fault: Fault) {
        self.members.ended(fault, sim.now());
    }

    /// Numbers of the writes of `key` that the node at `place` reflects.
    pub(super) fn known(&self, sim: &Sim, place: usize, key: &[u8]) -> BTreeSet<usize> {
        self.data.known(sim, place, key)
    }

    /// Looks at the place that the last step touched.
    pub(super) fn look(&mut self, sim: &Sim, place: usize) -> Verdict {
        self.bursts.look(sim)?;
        let Some(node) = sim.node(place) else { return Ok(()) };
        self.members.look(sim, &self.places, place, node, &mut self.met)?;
        self.owners.look(sim, place, node)?;
        judge_strangers(sim, place)?;
        self.data.look(sim, place, node)
    }

    /// From here on nothing happens but what always happens.
    pub(super) fn begin_pace(&mut self, sim: &mut Sim) {
        self.pace = Some(Pace::new(sim));
    }

    /// What must hold after some time of that.
    pub(super) fn finish_pace(&mut self, sim: &mut Sim) -> Verdict {
        self.pace.take().map_or(Ok(()), |pace| pace.finish(sim))
    }

    /// What must hold when all faults are over and everybody had time to agree.
    pub(super) fn finish(&self, sim: &Sim) -> Verdict {
        self.finish_members(sim)?;
        self.owners.finish(sim)?;
        self.data.finish(sim)
    }
}

/// Where nobody can have proved an address no more than three times what came from it is sent.
fn judge_strangers(sim: &Sim, place: usize) -> Verdict {
    let from = (place, SocketAddr::from(([0, 0, 0, 0], 0)));
    let here = sim.strangers().range(from..).take_while(|((at, _), _)| *at == place);
    for ((_, addr), exchange) in here {
        if exchange.sent > 3 * exchange.received {
            return fail("OX9", sim, format!("node-{place} and {addr}: {exchange:?}"));
        }
    }
    Ok(())
}
