//! Oracles: what must hold after every step, judged by one who knows the truth.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::world::Sim;
use crate::map::Dot;
use crate::swim::State;
use crate::time::Instant;
use crate::{Node, NodeId};

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

/// A write, as the writer saw it.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) key: Vec<u8>,
    pub(super) dot: Dot,
    /// Whether it wrote a value; otherwise it removed.
    pub(super) put: bool,
    /// What it superseded.
    pub(super) over: Vec<Dot>,
    /// Numbers of the writes of the key that its writer reflected.
    pub(super) seen: BTreeSet<usize>,
    /// Place and life of the writer.
    pub(super) by: (usize, usize),
}

/// What one node was last seen to believe of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Belief {
    boot: u64,
    incarnation: u32,
    state: State,
}

/// What was seen at one place in its present life.
#[derive(Debug, Default)]
struct Seen {
    life: usize,
    beliefs: BTreeMap<NodeId, Belief>,
    /// Writes reflected there.
    reflected: BTreeSet<usize>,
    map: (u64, u64),
    writes: usize,
}

/// Watches a simulation.
#[derive(Debug, Default)]
pub(super) struct Judge {
    seen: Vec<Seen>,
    writes: Vec<Write>,
    dots: BTreeSet<(u64, u64, u64)>,
    /// Place of each node.
    places: BTreeMap<NodeId, usize>,
    /// How often each state and each step between states was met.
    pub(super) met: BTreeMap<&'static str, u64>,
}

type Verdict = Result<(), Violation>;

impl Judge {
    pub(super) fn new(sim: &Sim) -> Self {
        let places = (0..sim.len()).map(|place| (sim.id(place), place)).collect();
        let seen = (0..sim.len()).map(|_| Seen::default()).collect();
        Self { seen, places, ..Self::default() }
    }

    /// Notes a write that was acknowledged just now.
    pub(super) fn wrote(&mut self, sim: &Sim, mut write: Write) -> Verdict {
        if let Some(node) = sim.node(write.by.0) {
            write.seen = self.closure(&self.reflected(node), &write.key);
        }
        let replica = write.dot.replica;
        let name = (replica.node.0, replica.epoch, write.dot.counter);
        if !self.dots.insert(name) {
            return fail("OC6", sim, format!("the dot {:?} names two writes", write.dot));
        }
        self.writes.push(write);
        Ok(())
    }

    /// Looks at the place that the last step touched.
    pub(super) fn look(&mut self, sim: &Sim, place: usize) -> Verdict {
        let Some(node) = sim.node(place) else { return Ok(()) };
        let life = sim.lives(place).len();
        let seen = &mut self.seen[place];
        if seen.life != life {
            *seen = Seen { life, ..Seen::default() };
        }
        self.look_at_members(sim, place, node)?;
        self.look_at_map(sim, place, node)
    }

    fn look_at_members(&mut self, sim: &Sim, place: usize, node: &Node) -> Verdict {
        let me = node.swim().me();
        if matches!(me.state(), State::Suspect | State::Dead) {
            return fail("OM7", sim, format!("{} holds itself {:?}", me.name(), me.state()));
        }
        // Who is forgotten by now may be met again in any state.
        let mut beliefs = core::mem::take(&mut self.seen[place].beliefs);
        for member in node.swim().members().chain(node.swim().former_members()) {
            let now = Belief {
                boot: member.identity().boot_epoch,
                incarnation: member.incarnation(),
                state: member.state(),
            };
            let old = beliefs.remove(&member.id());
            self.seen[place].beliefs.insert(member.id(), now);
            if old == Some(now) {
                continue;
            }
            *self.met.entry(step_name(old.map(|old| old.state), now.state)).or_default() += 1;
            let about = || format!("{} about {}: {old:?} to {now:?}", me.name(), member.name());
            self.judge_truth(sim, member.id(), now, &about)?;
            if let Some(old) = old {
                judge_step(sim, old, now, &about)?;
            }
        }
        Ok(())
    }

    /// Nobody believes in numbers that their subject never issued.
    fn judge_truth(
        &self,
        sim: &Sim,
        id: NodeId,
        now: Belief,
        about: &impl Fn() -> String,
    ) -> Verdict {
        let Some(&place) = self.places.get(&id) else {
            return fail("OM4", sim, format!("{}, who does not exist", about()));
        };
        let life = sim.lives(place).iter().find(|life| life.epochs.contains(&now.boot));
        let Some(life) = life else {
            return fail("OM4", sim, format!("{}, a boot that never was", about()));
        };
        let last = life.epochs.last() == Some(&now.boot);
        if last && now.incarnation > life.incarnation {
            return fail("OM4", sim, format!("{}, and {} was the last", about(), life.incarnation));
        }
        Ok(())
    }

    /// Numbers of the writes whose dots the node knows.
    fn reflected(&self, node: &Node) -> BTreeSet<usize> {
        (0..self.writes.len()).filter(|&at| node.map().reflects(self.writes[at].dot)).collect()
    }

    /// These writes of a key with all that their writers had seen of it, which comes with them: a dot that
    /// was superseded before it arrived is told of later, its effect is there.
    fn closure(&self, reflected: &BTreeSet<usize>, key: &[u8]) -> BTreeSet<usize> {
        let of_key = reflected.iter().copied().filter(|&at| self.writes[at].key == key);
        of_key.flat_map(|at| self.writes[at].seen.iter().copied().chain([at])).collect()
    }

    /// The value of a key after these writes: those values that none of them superseded. That every
    /// replica shows exactly this is the map's correctness (its proof calls it value(R)).
    fn value(&self, reflected: &BTreeSet<usize>, key: &[u8]) -> BTreeSet<Dot> {
        let writes: Vec<&Write> =
            self.closure(reflected, key).into_iter().map(|at| &self.writes[at]).collect();
        let over: BTreeSet<Dot> =
            writes.iter().flat_map(|write| write.over.iter().copied()).collect();
        let puts = writes.iter().filter(|write| write.put).map(|write| write.dot);
        puts.filter(|dot| !over.contains(dot)).collect()
    }

    fn look_at_map(&mut self, sim: &Sim, place: usize, node: &Node) -> Verdict {
        let (digest, writes) = (node.map().digest(), self.writes.len());
        let seen = &mut self.seen[place];
        if seen.map == digest && seen.writes == writes {
            return Ok(());
        }
        (seen.map, seen.writes) = (digest, writes);
        let name = &node.identity().name;
        let reflected = self.reflected(node);
        let seen = &mut self.seen[place];
        if let Some(&lost) = seen.reflected.difference(&reflected).next() {
            let dot = self.writes[lost].dot;
            return fail("OC5", sim, format!("{name} has forgotten {dot:?}"));
        }
        let news: BTreeSet<&[u8]> =
            reflected.difference(&seen.reflected).map(|&at| &*self.writes[at].key).collect();
        for key in news {
            let expected = self.value(&reflected, key);
            let siblings: BTreeSet<Dot> = node.siblings(key).map(|sibling| sibling.dot).collect();
            if siblings != expected {
                let (more, less) = (siblings.len(), expected.len());
                let oracle = if more > less { "OC4" } else { "OC3" };
                let text = format!("{name} holds {siblings:?} of {key:?}, not {expected:?}");
                return fail(oracle, sim, text);
            }
        }
        self.seen[place].reflected = reflected;
        Ok(())
    }

    /// What must hold when all faults are over and everybody had time to agree.
    pub(super) fn finish(&self, sim: &Sim) -> Verdict {
        let live: Vec<usize> = sim.up().collect();
        for &place in &live {
            let Some(node) = sim.node(place) else { continue };
            self.finish_members(sim, node, &live)?;
            self.finish_map(sim, node, &live)?;
        }
        for write in &self.writes {
            let owners: BTreeSet<_> =
                live.iter().filter_map(|&at| sim.node(at)?.owner(&write.key)).collect();
            let places: Vec<_> = owners.iter().filter_map(|id| self.places.get(id)).collect();
            if owners.len() > 1 || places.iter().any(|place| !live.contains(place)) {
                return fail("OR5", sim, format!("{owners:?} own {:?}", write.key));
            }
        }
        Ok(())
    }

    fn finish_members(&self, sim: &Sim, node: &Node, live: &[usize]) -> Verdict {
        let name = &node.identity().name;
        for (id, &place) in &self.places {
            let member = node.member(*id);
            let boot = sim.node(place).map(|node| node.identity().boot_epoch);
            let belief = member.map(|member| (member.state(), Some(member.identity().boot_epoch)));
            if live.contains(&place) {
                if belief != Some((State::Alive, boot)) {
                    let text = format!("{name} believes {belief:?} of node-{place}, which lives");
                    return fail("OM2", sim, text);
                }
            } else if matches!(belief, Some((State::Alive | State::Suspect, _))) {
                return fail("OM1", sim, format!("{name} still lists node-{place}, which is gone"));
            }
        }
        Ok(())
    }

    fn finish_map(&self, sim: &Sim, node: &Node, live: &[usize]) -> Verdict {
        let name = &node.identity().name;
        let reflects = |at: usize, place: &usize| {
            sim.node(*place).is_some_and(|node| node.map().reflects(self.writes[at].dot))
        };
        let all: BTreeSet<usize> = (0..self.writes.len())
            .filter(|&at| live.iter().any(|place| reflects(at, place)))
            .collect();
        for (at, write) in self.writes.iter().enumerate() {
            let (place, life) = write.by;
            let writer_lives = sim.lives(place).len() == life && sim.node(place).is_some();
            if writer_lives && !all.contains(&at) {
                let text = format!("{:?} is lost, and its writer lives", write.dot);
                return fail("OC3", sim, text);
            }
            if all.contains(&at) != node.map().reflects(write.dot) {
                return fail("OC2", sim, format!("{name} has not heard of {:?}", write.dot));
            }
            let expected = self.value(&all, &write.key);
            let siblings: BTreeSet<Dot> = node.siblings(&write.key).map(|s| s.dot).collect();
            if siblings != expected {
                let key = &write.key;
                let text = format!("{name} ends with {siblings:?} of {key:?}, not {expected:?}");
                return fail("OC9", sim, text);
            }
        }
        Ok(())
    }
}

/// Whether evidence may change a belief so.
fn judge_step(sim: &Sim, old: Belief, now: Belief, about: &impl Fn() -> String) -> Verdict {
    if now.boot < old.boot {
        return fail("OM3", sim, about());
    }
    if now.boot > old.boot {
        return Ok(());
    }
    if now.incarnation < old.incarnation {
        return fail("OM3", sim, about());
    }
    let live = |state| matches!(state, State::Alive | State::Suspect);
    if old.state == State::Left && now.state != State::Left {
        return fail("OM7", sim, about());
    }
    if !live(old.state) && live(now.state) && now.incarnation == old.incarnation {
        return fail("OM5", sim, about());
    }
    Ok(())
}

fn step_name(old: Option<State>, now: State) -> &'static str {
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

pub(super) fn fail(oracle: &'static str, sim: &Sim, text: String) -> Verdict {
    Err(Violation { oracle, at: sim.now(), text })
}
