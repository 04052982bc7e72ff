//! A plan under way: its steps at their times, and every oracle after every step.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::fault::{Fault, Nodes, Trouble};
use super::judge::{Judge, Verdict, Violation, Write, fail};
use super::plan::{Act, Plan, Report, Step};
use super::world::Sim;
use crate::map::{Dot, InsertError};
use crate::reached;

/// How long nodes have to find each other before anything goes wrong.
const MEETING: Duration = Duration::from_secs(30);
/// Within this time after all list each other their maps must be equal.
const MAPS: Duration = Duration::from_secs(20);
/// How long local health may take to recover, and how long it may be until the lives are sealed that an insider made up: they
/// are kept for a minute, see `setting.rs`.
const RECOVERY: Duration = Duration::from_secs(100);
/// How long everybody must go on agreeing, at least.
const STABLE: Duration = Duration::from_secs(5);
/// How often a sick node stands still, for how long until something is written, how soon the others must
/// have heard of that, and how long it is up between.
const FITS: u32 = 10;
const FIT: Duration = Duration::from_millis(600);
const NEWS: Duration = Duration::from_millis(300);
const BREATH: Duration = Duration::from_millis(150);
/// One plan in so many ends with a sick node.
const SICK_ONE_IN: u64 = 4;
/// In every second of those its clock leaps so often by so much in each fit, sooner than anybody could answer
/// it: as that of a virtual machine which is given a moment now and then.
const LEAPS: u32 = 4;
const LEAP: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_micros(500);

/// One write in so many is of a value that fits no datagram, in one plan in so many.
const LARGE_ONE_IN: u64 = 4;

/// A plan under way.
pub(super) struct Run<'p> {
    plan: &'p Plan,
    sim: Sim,
    judge: Judge,
    /// What is left to end, by when.
    ends: Vec<(Duration, usize)>,
    contexts: BTreeMap<(usize, u8), (usize, crate::map::Context, Vec<Dot>)>,
    written: u64,
    /// Two clusters that have not met yet.
    apart: bool,
    /// Whether some values are longer than a datagram.
    large: bool,
}

impl<'p> Run<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        // What this thread has done before is no part of it.
        drop(reached::take());
        let mut sim = Sim::new(plan.seed, plan.config.clone());
        for place in 0..plan.nodes {
            if let Some(config) = plan.configs.get(place) {
                sim.configure(place, config.clone());
            }
            if let Some(origin) = plan.origins.get(place) {
                sim.set_clock(place, *origin);
            }
            sim.set_meta(place, plan.meta);
            // Two seeds, so that a fault of one does not keep a restarted node out for ever.
            let seeds = if plan.two_clusters { [place % 2, place % 2 + 2] } else { [0, 1] };
            sim.start(place, &seeds);
        }
        let replayed =
            |step: &Step| matches!(&step.act, Act::Fault(Fault::Node(_, Trouble::Replay(_)), _));
        if plan.steps.iter().any(replayed) {
            sim.record();
        }
        let judge = Judge::new(&sim);
        Self {
            plan,
            sim,
            judge,
            ends: Vec::new(),
            contexts: BTreeMap::new(),
            written: 0,
            apart: false,
            large: plan.seed.is_multiple_of(LARGE_ONE_IN),
        }
    }

    pub(super) fn run(mut self) -> Result<Report, Violation> {
        self.apart = self.plan.two_clusters;
        if !self.until_agreed(MEETING)? {
            self.judge.why_apart(&self.sim)?;
        }
        self.apart = false;
        let start = self.sim.now();
        for step in &self.plan.steps {
            self.run_to(start, step.at)?;
            self.act(step)?;
        }
        self.run_to(start, self.plan.trouble)?;
        let healed = self.heal()?;
        self.rest()?;
        if self.plan.seed.is_multiple_of(SICK_ONE_IN) && self.plan.nodes > 2 {
            self.bear_a_sick_node()?;
        }
        self.judge.finish(&self.sim)?;
        Ok(self.report(healed))
    }

    /// All faults are over, and everybody comes to agree. Returns how long it took.
    fn heal(&mut self) -> Result<Duration, Violation> {
        while let Some(number) = self.sim.net.first_fault() {
            self.end(number);
        }
        if self.plan.two_clusters {
            self.join(1, 0);
        }
        self.look_at_all()?;
        let calm = self.sim.now();
        if !self.until_agreed(self.plan.calm)? {
            self.judge.why_apart(&self.sim)?;
        }
        Ok(self.sim.now() - calm)
    }

    /// Nothing happens for a while, and nothing else than what always happens must be seen.
    fn rest(&mut self) -> Verdict {
        // Probes that began in trouble are over first.
        self.steps_until(self.sim.now() + STABLE)?;
        let end = self.sim.now() + RECOVERY;
        while self.sim.now() < end && (!self.is_healthy() || self.has_gaps() || self.inquires()) {
            self.steps_until(self.sim.now() + Duration::from_millis(200))?;
        }
        // Time for two rounds of probes.
        let slowest = self.sim.up().map(|place| self.sim.config(place).swim.probe_interval).max();
        let rounds = slowest.unwrap_or_default() * (2 * self.plan.nodes as u32 + 2);
        self.judge.begin_pace(&mut self.sim);
        self.steps_until(self.sim.now() + STABLE.max(rounds))?;
        self.judge.finish_pace(&mut self.sim)?;
        if self.agrees() { Ok(()) } else { self.judge.why_apart(&self.sim) }
    }

    /// One node stands still again and again, its clock too or not. The others must agree among themselves,
    /// about what is written now too.
    fn bear_a_sick_node(&mut self) -> Verdict {
        let sick = (self.plan.seed / SICK_ONE_IN) as usize % self.plan.nodes;
        let well: Vec<usize> = self.sim.up().filter(|&place| place != sick).collect();
        let Some(&writer) = well.first() else { return Ok(()) };
        let leaps = (self.plan.seed / SICK_ONE_IN).is_multiple_of(2);
        let key = self.key(writer, 0);
        // What is pushed is there sooner than what is pulled.
        self.large = false;
        for _ in 0..FITS {
            for _ in 0..if leaps { LEAPS } else { 0 } {
                let leap = Fault::Node(Nodes::one(sick), Trouble::ClockLeap(LEAP));
                let number = self.sim.begin(leap);
                self.steps_until(self.sim.now() + MOMENT)?;
                self.end(number);
            }
            let number = self.sim.begin(Fault::Node(Nodes::one(sick), Trouble::Pause));
            self.steps_until(self.sim.now() + FIT)?;
            self.write(writer, 0, true, false)?;
            self.steps_until(self.sim.now() + NEWS)?;
            let nodes = || well.iter().filter_map(|&place| self.sim.node(place));
            let lists = |node: &crate::Node| {
                nodes()
                    .all(|other| node.member(other.id()).is_some_and(crate::swim::Member::is_live))
            };
            let contents: Vec<_> = nodes().map(|node| node.siblings(&key).last()).collect();
            if !nodes().all(lists) || contents.iter().any(|of| *of != contents[0]) {
                let text =
                    format!("node-{sick} is sick, and the others do not agree: {contents:?}");
                return fail("OX2", &self.sim, text);
            }
            self.end(number);
            self.steps_until(self.sim.now() + BREATH)?;
        }
        if self.until_agreed(self.plan.calm)? { Ok(()) } else { self.judge.why_apart(&self.sim) }
    }

    fn is_healthy(&self) -> bool {
        let healthy =
            |node: &crate::Node| node.swim().local_health() == 0 || node.view().nodes().len() < 2;
        self.sim.up().filter_map(|place| self.sim.node(place)).all(healthy)
    }

    /// Whether a map may be about to seal something. That is news, and told as such.
    fn has_gaps(&self) -> bool {
        self.sim.up().filter_map(|place| self.sim.node(place)).any(|node| node.map().has_gaps())
    }

    /// Whether a member may be about to be held out for what it was in trouble, or let in.
    fn inquires(&self) -> bool {
        self.sim.up().filter_map(|place| self.sim.node(place)).any(|node| node.swim().inquires())
    }

    fn end(&mut self, number: usize) {
        let fault = self.sim.net.faults.get(&number).map(|(fault, _)| fault.clone());
        self.sim.end(number);
        if let Some(fault) = fault {
            self.judge.ended(&self.sim, fault);
        }
    }

    fn report(self, healed: Duration) -> Report {
        let mut met = self.judge.met;
        met.extend(self.sim.met());
        met.extend(reached::take());
        met.extend(self.plan.classes().into_iter().map(|class| (class, 1)));
        for place in self.sim.up() {
            let Some(node) = self.sim.node(place) else { continue };
            let (swim, map) = (node.stats().swim, node.stats().map);
            for (name, count) in Plan::COUNTERS.iter().zip([
                swim.probes,
                swim.probes_failed,
                swim.probes_void,
                swim.refutations,
                swim.misaddressed,
                map.writes,
                map.dots_received,
                map.pulls_sent,
                map.pulls_timed_out,
                map.misaddressed,
            ]) {
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
            self.end(number);
            self.look_at_all()?;
            self.ends.remove(0);
        }
        self.steps_until(start + at)
    }

    fn steps_until(&mut self, end: crate::Instant) -> Result<(), Violation> {
        while let Some(place) = self.sim.step(end) {
            self.judge.look(&self.sim, place)?;
        }
        self.look_at_strangers()?;
        self.sim.run(end - self.sim.now());
        Ok(())
    }

    fn join(&mut self, place: usize, through: usize) {
        let Some(node) = self.sim.node(through) else { return };
        let seed = node.identity().addr();
        self.sim.with(place, |node, now| node.join(now, &[seed]));
    }

    /// Lets time pass until all agree, at most for `limit`; returns whether they do.
    fn until_agreed(&mut self, limit: Duration) -> Result<bool, Violation> {
        let end = self.sim.now() + limit;
        let mut listed = None;
        // Looking costs as much as the lists are long, so not after every step.
        while self.sim.now() < end {
            let lists = self.lists_agree();
            if lists && self.maps_agree() {
                return Ok(true);
            }
            listed = listed.filter(|_| lists).or_else(|| lists.then(|| self.sim.now()));
            if listed.is_some_and(|since| self.sim.now() - since > MAPS) {
                return Ok(false);
            }
            let next = (self.sim.now() + Duration::from_millis(50)).min(end);
            self.steps_until(next)?;
        }
        Ok(self.agrees())
    }

    fn agrees(&self) -> bool {
        self.lists_agree() && self.maps_agree()
    }

    /// Who is to agree with whom: all with all, or the even and the odd places among themselves.
    fn sides(&self) -> Vec<Vec<usize>> {
        let side = |odd: usize| self.sim.up().filter(move |place| place % 2 == odd).collect();
        if self.apart { vec![side(0), side(1)] } else { vec![self.sim.up().collect()] }
    }

    /// All that are up list each other, and suspect nobody.
    fn lists_agree(&self) -> bool {
        self.sides().iter().all(|side| {
            let mut live: Vec<_> = side.iter().map(|&place| self.sim.id(place)).collect();
            live.sort_unstable();
            let alive = |node: &crate::Node| {
                node.members().all(|member| member.state() == crate::swim::State::Alive)
            };
            let agrees = |node: &crate::Node| node.view().nodes() == live && alive(node);
            side.iter().filter_map(|&place| self.sim.node(place)).all(agrees)
        })
    }

    fn maps_agree(&self) -> bool {
        self.sides().iter().all(|side| {
            let nodes = side.iter().filter_map(|&place| self.sim.node(place));
            let mut digests = nodes.map(|node| node.map().digest());
            let first = digests.next();
            digests.all(|digest| Some(digest) == first)
        })
    }

    fn look_at_all(&mut self) -> Result<(), Violation> {
        (0..self.plan.nodes).try_for_each(|place| self.judge.look(&self.sim, place))
    }

    /// No address gets more than three times what came from it before somebody there has proven that it is
    /// his (RFC 9000, section 8).
    fn look_at_strangers(&self) -> Result<(), Violation> {
        for ((place, addr), exchange) in self.sim.strangers() {
            if exchange.sent > 3 * exchange.received {
                let text = format!("node-{place} has sent {exchange:?} to {addr}, a stranger");
                fail("OX9", &self.sim, text)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, step: &Step) -> Result<(), Violation> {
        match &step.act {
            Act::Fault(fault, lasts) => {
                let number = self.sim.begin_with(fault.clone(), step.luck);
                self.ends.push((step.at + *lasts, number));
            }
            Act::Join(place, through) => self.join(*place, *through),
            Act::Put(place, key) => self.write(*place, *key, true, false)?,
            Act::Remove(place, key) => self.write(*place, *key, false, false)?,
            Act::PutOver(place, key) => self.write(*place, *key, true, true)?,
        }
        self.look_at_all()
    }

    /// The key of that number as the node at `place` writes it: two clusters write other keys.
    fn key(&self, place: usize, number: u8) -> Vec<u8> {
        let side = if self.plan.two_clusters && place % 2 == 1 { b'l' } else { b'k' };
        vec![side, number]
    }

    /// Writes or removes, over what is there or over what was there when last read.
    fn write(&mut self, place: usize, key: u8, put: bool, stale: bool) -> Result<(), Violation> {
        let name = self.key(place, key);
        let life = self.sim.lives(place).len();
        let Some(node) = self.sim.node(place) else { return Ok(()) };
        let dots = node.siblings(&name).map(|sibling| sibling.dot).collect();
        let fresh = (life, node.context(&name), dots);
        let last = self.contexts.insert((place, key), fresh.clone());
        let (_, context, over) = match last.filter(|(of, ..)| stale && *of == life) {
            Some(last) => last,
            None => fresh,
        };
        let before = self.judge.known(&self.sim, place, &name);
        self.written += 1;
        let mut value = put.then(|| self.written.to_le_bytes().to_vec());
        if self.large && self.written.is_multiple_of(LARGE_ONE_IN) {
            let len = node.map().limits().0.max_value;
            value.iter_mut().for_each(|value| value.resize(len, 0));
        }
        let result =
            self.sim.with(place, |node, now| node.resolve(now, &name, &context, value.as_deref()));
        let Some(result) = result else { return Ok(()) };
        match result {
            Ok(Some(dot)) => {
                // A context may name what is gone by now: it is superseded all the same.
                let by = (place, life);
                self.judge.wrote(&self.sim, Write { key: name, dot, value, over, before, by })
            }
            // Too many lives have written it; nothing to remove.
            Ok(None) | Err(InsertError::EntryTooLarge { .. }) => Ok(()),
            Err(error) => fail("OC3", &self.sim, format!("a write is refused: {error}")),
        }
    }
}
