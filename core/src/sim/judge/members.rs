//! What each node believes of each other, and how that may change.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Verdict, fail};
use crate::sim::fault::{Fault, Nodes, Trouble};
use crate::sim::world::Sim;
use crate::swim::State;
use crate::time::Instant;
use crate::{Node, NodeId};

/// In periods of the protocol: after this long without any fault nobody has a reason left to die. It is
/// the longest suspicion among 33 nodes with the longest stretched probes before and after it.
const REASON: u32 = 40;

/// What one node was last seen to believe of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Belief {
    boot: u64,
    incarnation: u32,
    state: State,
}

#[derive(Debug)]
pub(super) struct Members {
    /// By place: the life that was seen last, and its beliefs.
    seen: Vec<(usize, BTreeMap<NodeId, Belief>)>,
    /// Faults that are over, and since when.
    past: Vec<(Fault, Instant)>,
}

impl Members {
    pub(super) fn new(places: usize) -> Self {
        Self { seen: (0..places).map(|_| (0, BTreeMap::new())).collect(), past: Vec::new() }
    }

    pub(super) fn ended(&mut self, fault: Fault, at: Instant) {
        self.past.push((fault, at));
    }

    pub(super) fn look(
        &mut self,
        sim: &Sim,
        places: &BTreeMap<NodeId, usize>,
        place: usize,
        node: &Node,
        met: &mut BTreeMap<&'static str, u64>,
    ) -> Verdict {
        let me = node.swim().me();
        if matches!(me.state(), State::Suspect | State::Dead) || node.member(me.id()).is_none() {
            return fail("OM7", sim, format!("{} holds itself {:?}", me.name(), me.state()));
        }
        let life = sim.lives(place).len();
        // Who is forgotten by now may be met again in any state.
        let mut beliefs = core::mem::take(&mut self.seen[place].1);
        if self.seen[place].0 != life {
            beliefs.clear();
        }
        let mut fresh = BTreeMap::new();
        for member in node.swim().members().chain(node.swim().former_members()) {
            let now = Belief {
                boot: member.identity().boot_epoch(),
                incarnation: member.incarnation(),
                state: member.state(),
            };
            let old = beliefs.remove(&member.id());
            fresh.insert(member.id(), now);
            if old == Some(now) {
                continue;
            }
            *met.entry(step_name(old.map(|old| old.state), now.state)).or_default() += 1;
            let about = || format!("{} about {}: {old:?} to {now:?}", me.name(), member.name());
            judge_truth(sim, places, member.id(), now, &about)?;
            let Some(old) = old else { continue };
            let held = node.swim().is_held_out(member.id());
            judge_step(sim, old, now, held, &about)?;
            if live(old.state) && now.state == State::Dead {
                self.judge_death(sim, place, places[&member.id()], now.boot, &about)?;
            }
        }
        self.seen[place] = (life, fresh);
        Ok(())
    }

    /// Nobody is given up if nothing was wrong for long, except with the one who judges.
    fn judge_death(
        &self,
        sim: &Sim,
        judge: usize,
        place: usize,
        boot: u64,
        about: &impl Fn() -> alloc::string::String,
    ) -> Verdict {
        // Who is held out for long may be so where that is heard of last when the reason is long over.
        let config = &sim.config(judge).swim;
        let held = sim.node(judge).is_some_and(|node| node.swim().is_held_out(sim.id(place)));
        let hold = if held { config.hold_out * 8 } else { Duration::ZERO };
        let reason = config.probe_interval * REASON + hold;
        let lives = sim.node(place).is_some_and(|node| node.identity().boot_epoch() == boot);
        let young = |place: usize| {
            sim.lives(place).last().is_none_or(|life| life.from + reason > sim.now())
        };
        if !lives || young(place) || young(judge) || sim.now() < Instant::ZERO + reason {
            return Ok(());
        }
        let recent = self.past.iter().filter(|(_, end)| *end + reason > sim.now());
        let faults = || {
            sim.net
                .faults
                .values()
                .map(|(fault, _)| fault)
                .chain(recent.clone().map(|(fault, _)| fault))
        };
        let elsewhere = faults().any(|fault| !is_stall_of(fault, judge));
        if elsewhere {
            return Ok(());
        }
        let oracle = if faults().next().is_some() { "OM12" } else { "OM2" };
        fail(oracle, sim, format!("nothing is wrong with the other, {}", about()))
    }
}

/// Whether the fault is that this node alone got no time to run.
fn is_stall_of(fault: &Fault, judge: usize) -> bool {
    match fault {
        Fault::Node(Nodes::Only(places), trouble) => {
            let stall = matches!(trouble, Trouble::Pause | Trouble::ClockLeap(_));
            stall && places.iter().all(|&place| place == judge)
        }
        Fault::Node(..) | Fault::Link(..) => false,
    }
}

/// Nobody believes in numbers that their subject never issued.
fn judge_truth(
    sim: &Sim,
    places: &BTreeMap<NodeId, usize>,
    id: NodeId,
    now: Belief,
    about: &impl Fn() -> alloc::string::String,
) -> Verdict {
    let Some(&place) = places.get(&id) else {
        return fail("OM4", sim, format!("{}, who does not exist", about()));
    };
    // Two lives can have adopted the same boot epoch, if the later one met nobody who knew of that.
    let issued = sim.lives(place).iter().filter_map(|life| life.epochs.get(&now.boot)).max();
    let Some(issued) = issued else {
        return fail("OM4", sim, format!("{}, a boot that never was", about()));
    };
    if now.incarnation > *issued {
        return fail("OM4", sim, format!("{}, and {issued} was the last", about()));
    }
    Ok(())
}

/// Whether evidence may change a belief so.
fn judge_step(
    sim: &Sim,
    old: Belief,
    now: Belief,
    held: bool,
    about: &impl Fn() -> alloc::string::String,
) -> Verdict {
    if now.boot < old.boot {
        return fail("OM3", sim, about());
    }
    if now.boot > old.boot {
        return Ok(());
    }
    if now.incarnation < old.incarnation {
        return fail("OM3", sim, about());
    }
    // A verdict falls at the end of a suspicion, never with its beginning, or at the end of a hearing.
    let at_once = old.state == State::Alive && now.state == State::Dead && !held;
    if (old.state == State::Left && now.state != State::Left) || at_once {
        return fail("OM7", sim, about());
    }
    if !live(old.state) && live(now.state) && now.incarnation == old.incarnation {
        return fail("OM5", sim, about());
    }
    Ok(())
}

const fn live(state: State) -> bool {
    matches!(state, State::Alive | State::Suspect)
}

/// All steps between states, for the check that none of the usual ones was left out.
const fn step_name(old: Option<State>, now: State) -> &'static str {
    match (old, now) {
        (None, State::Alive) => "met alive",
        (None, State::Suspect) => "met suspect",
        (None, State::Dead) => "met dead",
        (None, State::Left) => "met left",
        (Some(State::Alive), State::Alive) => "alive, newer",
        (Some(State::Alive), State::Suspect) => "alive to suspect",
        (Some(State::Alive), State::Dead) => "alive to dead",
        (Some(State::Alive), State::Left) => "alive to left",
        (Some(State::Suspect), State::Alive) => "suspect to alive",
        (Some(State::Suspect), State::Suspect) => "suspect, newer",
        (Some(State::Suspect), State::Dead) => "suspect to dead",
        (Some(State::Suspect), State::Left) => "suspect to left",
        (Some(State::Dead), State::Alive) => "dead to alive",
        (Some(State::Dead), State::Suspect) => "dead to suspect",
        (Some(State::Dead), State::Dead) => "dead, newer",
        (Some(State::Dead), State::Left) => "dead to left",
        (Some(State::Left), State::Alive) => "left to alive",
        (Some(State::Left), State::Suspect) => "left to suspect",
        (Some(State::Left), State::Dead) => "left to dead",
        (Some(State::Left), State::Left) => "left, newer",
    }
}
