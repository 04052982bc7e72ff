//! A scenario under way: the simulator, the script, and what is measured.

use std::time::{Duration, Instant as Wall};

use brickwork_core::sim::Sim;
use brickwork_core::{Event, Instant};
use rustix::time::{ClockId, clock_gettime};

use super::budget::Verdict;
use super::figures::{Figures, Sample};
use super::file::Scenario;
use super::keys::Keys;
use super::script::{Act, Step, script};
use super::truth::Truth;
use crate::alloc::live_bytes;

/// How often is looked at what no event tells.
const TICK: Duration = Duration::from_millis(100);
/// How long the nodes have to find each other.
const JOIN: Duration = Duration::from_secs(600);
/// Between two samples.
const SAMPLE: Duration = Duration::from_secs(1);
/// Headers of UDP and IPv4.
const HEADERS: f64 = 28.0;
/// Points of a distribution.
const POINTS: usize = 500;

/// What one run of a scenario came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// What it was run with.
    pub seed: u64,
    /// Hash of everything that happened: equal for equal scenarios and seeds.
    pub trace: u64,
    /// What was measured.
    pub figures: Figures,
    /// What was asserted.
    pub budget: Vec<Verdict>,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// Detection times in seconds, and the share of (crash, observer) pairs that were as fast.
    pub detection: Vec<(f64, f64)>,
    /// Virtual time that passed while it was measured …
    pub virtual_time: Duration,
    /// … and the time that it took, …
    pub wall_time: Duration,
    /// … of which the processor worked on it for so long, the rest of the time for others.
    pub cpu_time: Duration,
    /// The time that the whole run took, with the joining.
    pub whole_wall_time: Duration,
    /// Datagrams and timers that nodes handled while it was measured.
    pub inputs: u64,
}

impl Outcome {
    /// Whether every budget is kept.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.budget.iter().all(|verdict| verdict.met)
    }

    /// Virtual seconds per second.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.virtual_time.as_secs_f64() / self.wall_time.as_secs_f64()
    }

    /// Virtual seconds per second of the processor's time, which is what a machine that is shared with
    /// others can tell.
    #[must_use]
    pub fn speed_of_cpu(&self) -> f64 {
        self.virtual_time.as_secs_f64() / self.cpu_time.as_secs_f64()
    }
}

/// Time that all must agree after, and when it began.
#[derive(Debug, Clone, Copy)]
struct Calm(Instant);

struct Run<'s> {
    scenario: &'s Scenario,
    sim: Sim,
    truth: Truth,
    keys: Option<Keys<'s>>,
    /// The simulator's number of each fault.
    faults: Vec<Option<usize>>,
    /// How many crashes each place is down for.
    down: Vec<u32>,
    /// Faults that hold, and nodes that are to come back.
    open: usize,
    calm: Option<Calm>,
    heals: Vec<f64>,
    /// Nanoseconds times nodes that were up, and up to when they are counted.
    member_time: u128,
    counted: Instant,
    /// The beginning of time that counts.
    start: Instant,
    samples: Vec<Sample>,
    /// Bytes at the last sample.
    sampled: u64,
}

impl Scenario {
    /// Runs it with one seed; `progress` is told the virtual time that has passed. Equal seeds give
    /// equal traces and figures.
    ///
    /// # Panics
    ///
    /// If a node breaks a promise of the core.
    #[must_use]
    pub fn run(&self, seed: u64, mut progress: impl FnMut(Duration)) -> Outcome {
        let steps = script(self, seed);
        let mut run = Run::new(self, seed);
        let (began, heap) = (Wall::now(), live_bytes());
        let nodes = *self.nodes.get_ref();
        let mut figures = Figures { joined: Some(run.join()), ..Figures::default() };
        figures.joined_bytes = run.sim.traffic().bytes as f64 / nodes as f64;
        run.settle();
        figures.heap_per_node = (live_bytes() - heap) as f64 / nodes as f64;

        let (watch, cpu) = (Wall::now(), cpu_time());
        let inputs = run.sim.inputs();
        run.measure(steps, &mut progress, &mut figures);
        let (wall_time, cpu_time) = (watch.elapsed(), cpu_time().saturating_sub(cpu));
        let kept = run.truth.noticed.declared.heap()
            + run.keys.as_ref().map_or(0, |keys| keys.visible.heap())
            + run.samples.capacity() * size_of::<Sample>();
        figures.heap_per_node_at_end = (live_bytes() - heap - kept as i64) as f64 / nodes as f64;
        figures.heap_growth = figures.heap_per_node_at_end / figures.heap_per_node;
        let inputs = run.sim.inputs() - inputs;
        run.finish(seed, figures, inputs, [wall_time, cpu_time, began.elapsed()])
    }
}

impl<'s> Run<'s> {
    fn new(scenario: &'s Scenario, seed: u64) -> Self {
        let mut config = scenario.profile.config();
        if !scenario.map {
            // One peer is the fewest that the settings allow.
            config.map.max_peers = 1;
        }
        let keys = scenario.writes.as_ref();
        let keys = keys.map(|writes| Keys::new(writes, scenario.last_write(writes), seed));
        Self {
            scenario,
            sim: Sim::new(seed, config),
            truth: Truth::new(*scenario.nodes.get_ref(), scenario.grace.0),
            keys,
            faults: Vec::new(),
            down: vec![0; *scenario.nodes.get_ref()],
            open: 0,
            calm: None,
            heals: Vec::new(),
            member_time: 0,
            counted: Instant::ZERO,
            start: Instant::ZERO,
            samples: Vec::new(),
            sampled: 0,
        }
    }

    /// Starts all nodes at once through node 0, until all know all; returns how long that took.
    fn join(&mut self) -> f64 {
        for place in 0..*self.scenario.nodes.get_ref() {
            self.sim.start(place, &[0]);
            self.truth.started(&self.sim, place);
        }
        let end = self.sim.now() + JOIN;
        while !self.truth.is_agreed() {
            match self.sim.step(end) {
                Some(place) => self.look(place),
                None => return f64::INFINITY,
            }
        }
        (self.sim.now() - Instant::ZERO).as_secs_f64()
    }

    /// Writes what is to be there from the beginning, and waits until nothing happens any more.
    fn settle(&mut self) {
        if let Some(keys) = self.keys.take() {
            keys.preload(&mut self.sim);
            let end = self.sim.now() + JOIN;
            while self.sim.now() < end && !self.maps_agree() {
                self.advance(self.sim.now() + TICK);
            }
            self.keys = Some(keys);
        }
        self.advance(self.sim.now() + self.scenario.settle.0);
        self.start = self.sim.now();
        self.counted = self.start;
        self.member_time = 0;
        self.truth.begin();
    }

    fn measure(
        &mut self,
        steps: Vec<Step>,
        progress: &mut impl FnMut(Duration),
        figures: &mut Figures,
    ) {
        let before = self.sim.traffic().clone();
        self.sampled = before.bytes;
        let duration = self.scenario.duration.get_ref().0;
        let first_trouble = self.scenario.first_trouble().filter(|at| !at.is_zero());
        let mut idle = None;
        let mut steps = steps.into_iter().peekable();
        let (mut tick, mut sample) = (TICK, SAMPLE);
        let mut at = Duration::ZERO;
        loop {
            if first_trouble == Some(at) && idle.is_none() {
                idle = Some((self.sim.traffic().bytes, self.member_time));
            }
            while let Some((_, act)) = steps.next_if(|(due, _)| *due <= at) {
                self.act(act);
            }
            self.write(at);
            if at >= tick {
                self.tick();
                tick += TICK;
            }
            if at >= sample {
                self.sample(sample);
                progress(at);
                sample += SAMPLE;
            }
            if at >= duration {
                break;
            }
            let due = steps.peek().map(|(due, _)| *due).into_iter();
            let due = due.chain(self.keys.as_ref().and_then(Keys::due));
            let due = due.chain(first_trouble.filter(|&first| first > at));
            at = due.chain([tick, sample, duration]).min().unwrap_or(duration);
            self.advance(self.start + at);
        }
        let sent = self.sim.traffic();
        let rate = |bytes: u64, time: u128| bytes as f64 / (time as f64 / 1e9);
        let (bytes, datagrams) = (sent.bytes - before.bytes, sent.sent - before.sent);
        figures.bytes_per_second = rate(bytes, self.member_time);
        figures.datagrams_per_second = rate(datagrams, self.member_time);
        figures.bytes_per_second_with_headers =
            figures.bytes_per_second + HEADERS * figures.datagrams_per_second;
        figures.times_idle = idle.map(|(idle, time)| {
            rate(sent.bytes - idle, self.member_time - time) / rate(idle - before.bytes, time)
        });
    }

    /// Lets time pass until `at`.
    fn advance(&mut self, at: Instant) {
        while let Some(place) = self.sim.step(at) {
            self.look(place);
        }
        self.sim.run(at - self.sim.now());
        let passed = (at - self.counted).as_nanos();
        self.member_time += passed * self.truth.up() as u128;
        self.counted = at;
    }

    /// Takes the events of a place.
    fn look(&mut self, place: usize) {
        let now = self.sim.now();
        let mut over = false;
        for event in self.sim.events(place) {
            over |= matches!(event, Event::LeaveFinished { .. });
            // What one hears that says goodbye is nobody's view.
            if !self.truth.is_up(place) {
                continue;
            }
            self.truth.heard(now, place, &event);
            if let Some(keys) = &mut self.keys {
                keys.heard(&self.sim, place, &event);
            }
        }
        if over {
            self.sim.crash(place);
        }
    }

    fn look_at_all(&mut self) {
        for place in 0..self.sim.len() {
            self.look(place);
        }
    }

    fn write(&mut self, at: Duration) {
        let Some(keys) = &mut self.keys else { return };
        if keys.due().is_some_and(|due| due <= at) {
            keys.act(&mut self.sim, &self.truth, at);
            self.look_at_all();
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.sim.now();
        match act {
            Act::Begin(number, fault) => {
                self.trouble();
                if self.faults.len() <= number {
                    self.faults.resize(number + 1, None);
                }
                self.faults[number] = Some(self.sim.begin(fault));
                self.open += 1;
            }
            Act::End(number) => {
                if let Some(fault) = self.faults[number].take() {
                    self.sim.end(fault);
                    self.open -= 1;
                }
            }
            Act::Cut(number, side) => self.truth.cut(number, &side),
            Act::Join(number) => self.truth.joined(now, number),
            Act::Ill(places) => self.truth.ill(&places),
            Act::Faulty(places) => self.truth.faulty(now, &places),
            Act::Well(places) => self.truth.well(now, &places),
            Act::Crash(place, comes_back) => {
                self.trouble();
                self.open += usize::from(comes_back);
                self.down[place] += 1;
                if self.truth.is_up(place) {
                    self.sim.crash(place);
                    self.truth.crashed(now, place);
                    if let Some(keys) = &mut self.keys {
                        keys.crashed(place);
                    }
                }
            }
            Act::Leave(place) => {
                self.trouble();
                if self.truth.is_up(place) {
                    self.truth.leaves(now, place);
                    self.sim.with(place, |node, now| node.leave(now));
                    if let Some(keys) = &mut self.keys {
                        keys.crashed(place);
                    }
                }
            }
            Act::Return(place) => {
                self.open -= 1;
                self.down[place] -= 1;
                // Another crash may keep it down, for longer or for good.
                if self.down[place] == 0 && !self.truth.is_up(place) {
                    self.sim.restart(place);
                    self.truth.started(&self.sim, place);
                }
            }
            Act::Over => {
                if self.open == 0 {
                    self.trouble();
                    self.calm = Some(Calm(now));
                }
            }
        }
        // Whatever began or ended may have made a node act.
        self.look_at_all();
    }

    /// The calm, if it was one, is over: how long did it take until all agreed?
    fn trouble(&mut self) {
        let Some(Calm(since)) = self.calm.take() else { return };
        let healed = self.truth.last_wrong.max(since) - since;
        let agreed = self.truth.is_agreed() && !self.maps_differ();
        self.heals.push(if agreed { healed.as_secs_f64() } else { f64::INFINITY });
    }

    /// What no event tells.
    fn tick(&mut self) {
        if let Some(keys) = &mut self.keys {
            keys.sweep(&self.sim);
        }
        if self.calm.is_some() && self.maps_differ() {
            self.truth.last_wrong = self.sim.now();
        }
    }

    /// Whether maps differ for another reason than that a writer is always ahead of the others.
    fn maps_differ(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.due().is_none()) && !self.maps_agree()
    }

    fn maps_agree(&self) -> bool {
        let mut digests =
            self.sim.up().filter_map(|place| Some(self.sim.node(place)?.map().digest()));
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    fn sample(&mut self, at: Duration) {
        let bytes = self.sim.traffic().bytes;
        self.samples.push(Sample {
            at: at.as_secs_f64(),
            agreement: self.truth.agreement(),
            bytes: (bytes - self.sampled) as f64 / self.truth.up().max(1) as f64,
        });
        self.sampled = bytes;
    }

    fn finish(
        mut self,
        seed: u64,
        mut figures: Figures,
        inputs: u64,
        [wall_time, cpu_time, whole_wall_time]: [Duration; 3],
    ) -> Outcome {
        self.trouble();
        figures.heal = self.heals.iter().copied().reduce(f64::max);
        let hours = self.member_time as f64 / 3_600e9;
        let mut noticed = self.truth.finish();
        for times in
            [&mut noticed.first_suspected, &mut noticed.first_declared, &mut noticed.declared]
        {
            times.sort();
        }
        noticed.left.sort();
        figures.leaves = noticed.leaves;
        figures.left_all_p999 = noticed.left.permille(999);
        figures.left_as_failed = noticed.left_as_failed;
        figures.member_hours = hours;
        figures.false_deaths = noticed.false_deaths;
        figures.false_deaths_per_member_hour = noticed.false_deaths as f64 / hours;
        figures.false_suspicions_per_member_hour = noticed.false_suspicions as f64 / hours;
        figures.deaths_of_troubled = noticed.deaths_of_troubled;
        figures.deaths_after_heal = noticed.deaths_after_heal;
        figures.deaths_by_faulty = noticed.deaths_by_faulty;
        figures.faulty_out_p50 = noticed.of_faulty.out.percentile(50);
        figures.faulty_out = noticed.of_faulty.out.percentile(100);
        figures.faulty_changes = noticed.of_faulty.most_changes.map(|most| most as f64);
        figures.crashes = noticed.crashes;
        figures.suspected_first_p50 = noticed.first_suspected.percentile(50);
        figures.detection_first_p50 = noticed.first_declared.percentile(50);
        figures.detection_all_p50 = noticed.declared.percentile(50);
        figures.detection_all_p99 = noticed.declared.percentile(99);
        figures.detection_all_max = noticed.declared.percentile(100);
        figures.undetected = noticed.undetected;
        let peak = self.samples.iter().map(|sample| sample.bytes).reduce(f64::max);
        figures.bytes_per_second_peak = peak.unwrap_or(figures.bytes_per_second);
        if let Some(keys) = self.keys.take() {
            figures.writes = keys.count();
            let (visible, unseen) = keys.finish();
            figures.visibility_p50 = visible.percentile(50);
            figures.visibility_p99 = visible.percentile(99);
            figures.visibility_max = visible.percentile(100);
            figures.unseen = unseen;
            let left = self.sim.up().filter_map(|place| Some(self.sim.node(place)?.map().len()));
            let dies = self.scenario.writes.as_ref().is_some_and(|all| all.lifetime.is_some());
            figures.keys_left = left.max().filter(|_| dies).map(|left| left as f64);
            let left = self.sim.up().filter_map(|place| {
                let (marks, records) = self.sim.node(place)?.map().metadata();
                Some(marks + records)
            });
            figures.metadata_left = left.max().map(|left| left as f64);
        }
        Outcome {
            seed,
            trace: self.sim.trace(),
            budget: self.scenario.budget.judge(&figures),
            figures,
            samples: self.samples,
            detection: noticed.declared.distribution(POINTS),
            virtual_time: self.scenario.duration.get_ref().0,
            wall_time,
            cpu_time,
            whole_wall_time,
            inputs,
        }
    }
}

/// How long the processor has worked for this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
