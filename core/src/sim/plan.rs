//! A whole run as data: who takes part, what goes wrong when, and what is written meanwhile.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;

use super::fault::{Condition, Damage, Delay, Fault, Links, Nodes, Trouble};
use super::judge::{Judge, Violation, Write, fail};
use super::net::{Luck, Traffic};
use super::world::Sim;
use crate::Config;
use crate::map::{Dot, InsertError};

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
}

/// A run that is about to happen, or to happen again.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// Decides all that is left to chance.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Their settings.
    pub config: Config,
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

/// How long nodes have to find each other before anything goes wrong.
const MEETING: Duration = Duration::from_secs(30);
/// How long everybody must go on agreeing.
const STABLE: Duration = Duration::from_secs(5);
/// Keys in use.
const KEYS: u8 = 6;

impl Plan {
    /// A random plan: some nodes, some classes of faults, each several times, and some writes. Few
    /// classes at a time find more than all at once (Groce et al. 2012, swarm testing).
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut dice = Dice(Luck::new(seed, 0, 0));
        let nodes = if dice.one_in(4) { 3 + dice.below(30) } else { 3 + dice.below(6) };
        let trouble = Duration::from_secs(10 + dice.below(30) as u64);
        let mut steps = Vec::new();
        let classes: Vec<usize> = (0..=dice.below(5)).map(|_| dice.below(CLASSES)).collect();
        for class in classes {
            for _ in 0..=dice.below(4) {
                let at = dice.time(trouble);
                let lasts = dice.time(trouble - at);
                steps.push(Step { at, act: Act::Fault(fault(&mut dice, class, nodes), lasts) });
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
            steps.push(Step { at, act });
        }
        steps.sort_by_key(|step| step.at);
        let calm = Duration::from_secs(120);
        Self { seed, nodes, config: Config::local(), steps, trouble, calm }
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
    /// The first [`Violation`]. A panic, in the core or by [`Checked`](super::Checked), is one of the
    /// oracle `OX8`.
    pub fn run(&self) -> Result<Report, Violation> {
        let run = AssertUnwindSafe(|| Run::new(self).run());
        catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let text = text.unwrap_or_default();
            Err(Violation { oracle: "OX8", at: crate::Instant::ZERO, text })
        })
    }
}

/// A plan under way.
struct Run<'p> {
    plan: &'p Plan,
    sim: Sim,
    judge: Judge,
    /// What is left to end, by when.
    ends: Vec<(Duration, usize)>,
    contexts: BTreeMap<(usize, u8), (usize, crate::map::Context, Vec<Dot>)>,
    written: u64,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan) -> Self {
        let mut sim = Sim::new(plan.seed, plan.config.clone());
        for place in 0..plan.nodes {
            // Two seeds, so that a fault of one does not keep a restarted node out for ever.
            sim.start(place, &[0, 1]);
        }
        let judge = Judge::new(&sim);
        Self { plan, sim, judge, ends: Vec::new(), contexts: BTreeMap::new(), written: 0 }
    }

    fn run(mut self) -> Result<Report, Violation> {
        if !self.until_agreed(MEETING)? {
            let text = format!("they do not find each other: {:?}", self.sim.differences());
            fail("OM2", &self.sim, text)?;
        }
        let start = self.sim.now();
        for step in &self.plan.steps {
            self.run_to(start, step.at)?;
            self.act(step)?;
        }
        self.run_to(start, self.plan.trouble)?;
        self.sim.calm();
        let calm = self.sim.now();
        if !self.until_agreed(self.plan.calm)? {
            let text = format!("they do not come to agree: {:?}", self.sim.differences());
            fail("OX2", &self.sim, text)?;
        }
        let healed = self.sim.now() - calm;
        self.steps_until(self.sim.now() + STABLE)?;
        let differences = self.sim.differences();
        if !differences.is_empty() {
            fail("OX2", &self.sim, format!("they do not go on agreeing: {differences:?}"))?;
        }
        self.judge.finish(&self.sim)?;
        Ok(self.report(healed))
    }

    fn report(self, healed: Duration) -> Report {
        let mut met = self.judge.met;
        met.extend(self.sim.met());
        for place in self.sim.up() {
            let Some(node) = self.sim.node(place) else { continue };
            let map = node.stats().map;
            for (name, count) in [
                ("map: dots received", map.dots_received),
                ("map: pulls sent", map.pulls_sent),
                ("map: pulls timed out", map.pulls_timed_out),
                ("map: misaddressed", map.misaddressed),
            ] {
                *met.entry(name).or_default() += count;
            }
        }
        Report {
            trace: self.sim.trace(),
            time: self.sim.now() - crate::Instant::ZERO,
            healed,
            inputs: self.sim.inputs(),
            traffic: self.sim.traffic().clone(),
            met,
            writes: self.written,
        }
    }

    /// Runs until `at` after `start`; faults that are over by then end on the way.
    fn run_to(&mut self, start: crate::Instant, at: Duration) -> Result<(), Violation> {
        self.ends.sort_unstable();
        while let Some(&(end, number)) = self.ends.first().filter(|(end, _)| *end <= at) {
            self.steps_until(start + end)?;
            self.sim.end(number);
            self.look_at_all()?;
            self.ends.remove(0);
        }
        self.steps_until(start + at)
    }

    fn steps_until(&mut self, end: crate::Instant) -> Result<(), Violation> {
        while let Some(place) = self.sim.step(end) {
            self.judge.look(&self.sim, place)?;
        }
        self.sim.run(end - self.sim.now());
        Ok(())
    }

    fn until_agreed(&mut self, limit: Duration) -> Result<bool, Violation> {
        let end = self.sim.now() + limit;
        // Looking costs as much as the lists are long, so not after every step.
        while self.sim.now() < end {
            if self.sim.differences().is_empty() && self.nobody_is_suspected() {
                return Ok(true);
            }
            let next = (self.sim.now() + Duration::from_millis(50)).min(end);
            self.steps_until(next)?;
        }
        Ok(self.sim.differences().is_empty())
    }

    fn nobody_is_suspected(&self) -> bool {
        let alive = |node: &crate::Node| {
            node.members().all(|member| member.state() == crate::swim::State::Alive)
        };
        self.sim.up().filter_map(|place| self.sim.node(place)).all(alive)
    }

    fn look_at_all(&mut self) -> Result<(), Violation> {
        (0..self.plan.nodes).try_for_each(|place| self.judge.look(&self.sim, place))
    }

    fn act(&mut self, step: &Step) -> Result<(), Violation> {
        match &step.act {
            Act::Fault(fault, lasts) => {
                let number = self.sim.begin(fault.clone());
                self.ends.push((step.at + *lasts, number));
            }
            Act::Put(place, key) => self.write(*place, *key, true, false)?,
            Act::Remove(place, key) => self.write(*place, *key, false, false)?,
            Act::PutOver(place, key) => self.write(*place, *key, true, true)?,
        }
        self.look_at_all()
    }

    /// Writes or removes, over what is there or over what was there when last read.
    fn write(&mut self, place: usize, key: u8, put: bool, stale: bool) -> Result<(), Violation> {
        let name = vec![b'k', key];
        let life = self.sim.lives(place).len();
        let Some(node) = self.sim.node(place) else { return Ok(()) };
        let dots = node.siblings(&name).map(|sibling| sibling.dot).collect();
        let fresh = (life, node.context(&name), dots);
        let last = self.contexts.insert((place, key), fresh.clone());
        let (_, context, over) = match last.filter(|(of, ..)| stale && *of == life) {
            Some(last) => last,
            None => fresh,
        };
        self.written += 1;
        let value = self.written.to_le_bytes();
        let value = put.then_some(&value[..]);
        let result = self.sim.with(place, |node, now| node.resolve(now, &name, &context, value));
        let Some(result) = result else { return Ok(()) };
        match result {
            Ok(Some(dot)) => {
                // A context may name what is gone by now: it is superseded all the same.
                let (by, seen) = ((place, life), BTreeSet::new());
                self.judge.wrote(&self.sim, Write { key: name, dot, put, over, seen, by })
            }
            // Too many lives have written it; nothing to remove.
            Ok(None) | Err(InsertError::EntryTooLarge { .. }) => Ok(()),
            Err(error) => fail("OC3", &self.sim, format!("a write is refused: {error}")),
        }
    }
}

/// Random choices of a plan.
struct Dice(Luck);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next()) * n as u128) >> 64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn time(&mut self, most: Duration) -> Duration {
        self.0.within(most)
    }

    fn some(&mut self, nodes: usize) -> Nodes {
        let count = 1 + self.below(nodes.div_ceil(2));
        let mut places: Vec<usize> = (0..count).map(|_| self.below(nodes)).collect();
        places.sort_unstable();
        places.dedup();
        Nodes::Only(places)
    }

    fn links(&mut self, nodes: usize) -> Links {
        match self.below(4) {
            0 => Links::around(&self.some(nodes)),
            1 => Links::one_way(self.some(nodes), self.some(nodes)),
            _ => Links::all(),
        }
    }

    fn permille(&mut self) -> u32 {
        10 + self.below(600) as u32
    }
}

/// How many classes of faults a plan draws from.
const CLASSES: usize = Fault::CLASSES.len();

/// A fault of the class of that number.
fn fault(dice: &mut Dice, class: usize, nodes: usize) -> Fault {
    let ms = Duration::from_millis;
    let millis = |dice: &mut Dice, most: usize| ms(1 + dice.below(most) as u64);
    let condition = match Fault::CLASSES[class] {
        "partition" => return Fault::Link(Links::around(&dice.some(nodes)), Condition::Cut),
        "one-way cut" => {
            let links = Links::one_way(dice.some(nodes), dice.some(nodes));
            return Fault::Link(links, Condition::Cut);
        }
        "loss" => Condition::Loss(dice.permille()),
        "loss in bursts" => {
            Condition::Bursts { permille: dice.permille() / 2, mean: 1 + dice.below(50) as u32 }
        }
        "small mtu" => Condition::Mtu(100 + dice.below(1_000)),
        "loss by kind" => {
            Condition::Kind { tag: 1 + dice.below(14) as u8, permille: dice.permille() }
        }
        "duplication" => {
            let within = if dice.one_in(4) { Duration::from_secs(600) } else { ms(200) };
            Condition::Duplicate { permille: dice.permille().min(500), within }
        }
        "constant delay" => Condition::Delay(Delay::Constant(millis(dice, 200))),
        "uniform delay" => Condition::Delay(Delay::Uniform(ms(0), millis(dice, 400))),
        "exponential delay" => Condition::Delay(Delay::Exponential(millis(dice, 100))),
        "pareto delay" => Condition::Delay(Delay::Pareto(millis(dice, 10))),
        "stalls on the way" => {
            let one_in = 2 + dice.below(50) as u32;
            Condition::Delay(Delay::Bimodal { usual: ms(1), stall: ms(2_000), one_in })
        }
        "clog and release" => Condition::Clog,
        "flipped bits" => damage(dice, Damage::Flip),
        "truncation" => damage(dice, Damage::Cut),
        "extension" => damage(dice, Damage::Extend),
        "splicing" => damage(dice, Damage::Splice),
        class => {
            let (mut nodes, trouble) = (dice.some(nodes), trouble(dice, class));
            if let (Nodes::Only(places), Trouble::Death | Trouble::Move) = (&mut nodes, &trouble) {
                // Who starts without state needs one seed that is where it was.
                places.retain(|&place| place != 0);
            }
            return Fault::Node(nodes, trouble);
        }
    };
    Fault::Link(dice.links(nodes), condition)
}

fn damage(dice: &mut Dice, how: Damage) -> Condition {
    Condition::Damage { permille: dice.permille(), how }
}

fn trouble(dice: &mut Dice, class: &str) -> Trouble {
    let millis = |dice: &mut Dice, most: usize| Duration::from_millis(1 + dice.below(most) as u64);
    match class {
        "pause" => Trouble::Pause,
        "slow node" => Trouble::Slow(millis(dice, 100)),
        "deaf node" => Trouble::Deaf,
        "mute node" => Trouble::Mute,
        "clock rate" => Trouble::ClockRate(dice.below(200_001) as i32 - 100_000),
        "clock leap" => {
            let most = if dice.one_in(4) { 400_000_000 } else { 10_000 };
            Trouble::ClockLeap(millis(dice, most))
        }
        "clock back" => Trouble::ClockBack(millis(dice, 5_000)),
        "late timers" => Trouble::LateTimers(millis(dice, 500)),
        "death" => Trouble::Death,
        "leave" => Trouble::Leave,
        "address change" => Trouble::Move,
        "blocked socket" => Trouble::Blocked,
        "events not taken" => Trouble::Inattentive,
        "small inbox" => Trouble::Inbox(2 + dice.below(19)),
        "short buffer" => Trouble::ShortBuffer(crate::MIN_DATAGRAM + dice.below(900)),
        "flood" => Trouble::Flood(10 + dice.below(1_000) as u32),
        _ => Trouble::Crash,
    }
}
