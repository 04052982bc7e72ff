//! Interleaved measurement: whoever is compared takes turns in the same process.

use std::fmt;
use std::time::{Duration, Instant};

use crate::alloc;

/// Adds up the timed parts of an entrant's turn.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stopwatch {
    elapsed: Duration,
    longest: Duration,
    allocations: u64,
    ops: u64,
}

impl Stopwatch {
    /// Runs `work`, which is `ops` operations, on the watch.
    pub fn time<R>(&mut self, ops: u64, work: impl FnOnce() -> R) -> R {
        let allocations = alloc::count();
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        self.allocations += alloc::count() - allocations;
        self.elapsed += took;
        self.longest = self.longest.max(took);
        self.ops += ops;
        result
    }

    /// All timed parts together.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// One who takes part in a comparison.
pub struct Entrant {
    name: String,
    turn: Box<dyn FnMut(&mut Stopwatch)>,
}

impl Entrant {
    /// `turn` does some operations, the interesting part of them on the watch. It is called again and
    /// again until the watch shows enough.
    pub fn new(name: impl Into<String>, turn: impl FnMut(&mut Stopwatch) + 'static) -> Self {
        Self { name: name.into(), turn: Box::new(turn) }
    }

    /// Who.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time that `ops` operations take: a loop for criterion's `iter_custom`.
    #[must_use]
    pub fn take(&mut self, ops: u64) -> Duration {
        let mut watch = Stopwatch::default();
        while watch.ops < ops {
            self.turn(&mut watch);
        }
        watch.elapsed.mul_f64(ops as f64 / watch.ops as f64)
    }

    fn turn(&mut self, watch: &mut Stopwatch) {
        let before = watch.ops;
        (self.turn)(watch);
        assert!(watch.ops > before, "{} did nothing", self.name);
    }
}

impl fmt::Debug for Entrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entrant").field(&self.name).finish()
    }
}

/// What was measured of one entrant, per operation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Who.
    pub name: String,
    /// Median over the rounds; nanoseconds, or bytes where the row counts bytes.
    pub median: f64,
    /// That of the best round: what it takes when nobody else wants the processor.
    pub least: f64,
    /// The longest timed part of a round, in nanoseconds: of the round in which it was shortest, because
    /// what the system does to the others is no business of the code. Zero where nothing was timed.
    pub longest: f64,
    /// Allocations per operation in the last round; `None` where they were not counted.
    pub allocations: Option<f64>,
}

impl Outcome {
    /// A figure that was counted, not timed.
    #[must_use]
    pub fn counted(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), median: value, least: value, longest: 0.0, allocations: None }
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Turns of every entrant.
    pub rounds: usize,
    /// Time on the watch per turn.
    pub turn: Duration,
}

/// Lets the entrants take turns. The first round warms up and does not count.
#[must_use]
pub fn compare(effort: Effort, mut entrants: Vec<Entrant>) -> Vec<Outcome> {
    let mut laps: Vec<Vec<Stopwatch>> = entrants.iter().map(|_| Vec::new()).collect();
    for round in 0..=effort.rounds {
        for (entrant, laps) in entrants.iter_mut().zip(&mut laps) {
            let mut watch = Stopwatch::default();
            while watch.elapsed < effort.turn || watch.ops == 0 {
                entrant.turn(&mut watch);
            }
            if round > 0 {
                laps.push(watch);
            }
        }
    }
    entrants.into_iter().zip(laps).map(|(entrant, laps)| outcome(entrant.name, &laps)).collect()
}

fn outcome(name: String, laps: &[Stopwatch]) -> Outcome {
    let mut per_op: Vec<f64> = laps.iter().map(|lap| nanos(lap.elapsed) / lap.ops as f64).collect();
    per_op.sort_by(f64::total_cmp);
    let longest = laps.iter().map(|lap| nanos(lap.longest)).fold(f64::INFINITY, f64::min);
    let allocations = laps.last().map(|lap| lap.allocations as f64 / lap.ops as f64);
    let (least, median) = (per_op[0], per_op[per_op.len() / 2]);
    Outcome { name, median, least, longest, allocations }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
