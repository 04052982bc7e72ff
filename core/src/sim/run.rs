//! A plan under way: its steps at their times, and every oracle after every step.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::judge::{Judge, Violation, Write, fail};
use super::plan::{Act, Plan, Report, Step};
use super::world::Sim;
use crate::map::{Dot, InsertError};

/// How long nodes have to find each other before anything goes wrong.
const MEETING: Duration = Duration::from_secs(30);
/// How long everybody must go on agreeing.
const STABLE: Duration = Duration::from_secs(5);

/// A plan under way.
pub(super) struct Run<'p> {
    plan: &'p Plan,
    sim: Sim,
    judge: Judge,
    /// What is left to end, by when.
    ends: Vec<(Duration, usize)>,
    contexts: BTreeMap<(usize, u8), (usize, crate::map::Context, Vec<Dot>)>,
    written: u64,
}

impl<'p> Run<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        let mut sim = Sim::new(plan.seed, plan.config.clone());
        for place in 0..plan.nodes {
            // Two seeds, so that a fault of one does not keep a restarted node out for ever.
            sim.start(place, &[0, 1]);
        }
        let judge = Judge::new(&sim);
        Self { plan, sim, judge, ends: Vec::new(), contexts: BTreeMap::new(), written: 0 }
    }

    pub(super) fn run(mut self) -> Result<Report, Violation> {
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
                let number = self.sim.begin_with(fault.clone(), step.luck);
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
