//! Random histories of the map: what happens, drawn from a seed, step by step.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod world;

use crate::common::Dice;

/// Every life leaves a mark on the keys that it writes, and entries must fit the smallest datagram.
const RESTARTS: u64 = 8;
/// As long as a window may be.
const WINDOW: usize = 1 << 18;

/// One thing that happens. Numbers are taken modulo what there is, so any list of steps is a history.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Insert {
        at: usize,
        key: usize,
        len: usize,
    },
    Remove {
        at: usize,
        key: usize,
    },
    /// Some keys are written again and again, one write in five is a removal.
    Burst {
        at: usize,
        count: usize,
    },
    /// Reads a context and keeps it for a later `Resolve`.
    Read {
        at: usize,
        key: usize,
    },
    Resolve {
        pick: usize,
        put: bool,
    },
    Deliver {
        pick: usize,
    },
    /// Delivers once more what its receiver took before.
    Repeat {
        pick: usize,
    },
    Pass {
        millis: u64,
    },
    /// Fires what is due at a replica, however late that is.
    Fire {
        at: usize,
    },
    /// A replica starts again without its state.
    Restart {
        at: usize,
    },
    /// A replica starts again from a snapshot, or from what its log had come to when it crashed, and meets all
    /// others.
    Restore {
        at: usize,
    },
    Down {
        at: usize,
        peer: usize,
    },
    Up {
        at: usize,
        peer: usize,
    },
    /// Some replicas, by the bits of a number, are a cluster of their own for a while, without loss.
    Part {
        group: usize,
        millis: u64,
    },
}

/// How the epochs of a node's starts follow each other. None comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epochs {
    Rise,
    Fall,
    Jump,
}

/// A whole history before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub replicas: usize,
    pub keys: usize,
    pub max_datagram: usize,
    /// Percent of datagrams.
    pub loss: u32,
    pub duplication: u32,
    /// Milliseconds between two collections of garbage, and for which it is kept for peers that are down.
    pub collect: u64,
    pub keep: u64,
    /// Whether an answer is one datagram, so that a full sync takes many.
    pub small_budget: bool,
    /// How many dots an answer looks through at a time.
    pub window: usize,
    /// Whether values may be longer than a datagram.
    pub large: bool,
    /// Whether replicas keep a log, and start again from that.
    pub durable: bool,
    /// Whether lives with gaps are looked for at once, not every two seconds.
    pub seals: bool,
    /// How many lives that are over each replica keeps one by one, in turn, and how often replicas start again without
    /// their state.
    pub past: Vec<usize>,
    pub restarts: u64,
    pub epochs: Epochs,
    /// Whether contexts are compared by sums before they are listed.
    pub compared: bool,
    /// Lives of the past whose writes are known to the first replica at the start.
    pub crowd: usize,
    /// Each with a number from which it draws all its luck, so that leaving one out does not shift
    /// that of the others.
    pub steps: Vec<(Step, u64)>,
}

impl Plan {
    /// The history of a seed: every fifth is one of full syncs, and another fifth are ones of seals, half of them with lives
    /// that are retired. One in 200 is one of many replicas, and one in 20 of few keys that are written often.
    pub fn new(seed: u64) -> Self {
        match seed % 5 {
            _ if seed % 200 == 21 => Self::crowded(seed),
            _ if seed % 20 == 10 => Self::hot(seed),
            4 => Self::forgetful(seed),
            3 if seed.is_multiple_of(2) => Self::fleeting(seed),
            3 => Self::mortal(seed),
            _ => Self::mixed(seed),
        }
    }

    /// A history in which lives end with writes that few have, and parts of the cluster that do not hear of
    /// each other go on without those.
    fn mortal(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = 3 + dice.below(3);
        let keys = [1, 2, 5][dice.below(3)];
        let steps = [100, 200, 300][dice.below(3)];
        let steps =
            (0..steps).map(|_| (mortal_step(&mut dice, replicas, keys), dice.next())).collect();
        Self {
            seed,
            replicas,
            keys,
            max_datagram: 1_400,
            loss: [40, 70][dice.below(2)],
            duplication: 20,
            collect: 1,
            keep: [0, 0, 20][dice.below(3)],
            small_budget: false,
            window: WINDOW,
            large: false,
            durable: is_durable(seed),
            seals: true,
            past: vec![[0, 64][dice.below(2)]],
            restarts: RESTARTS,
            epochs: Epochs::Rise,
            compared: is_compared(seed),
            crowd: 0,
            steps,
        }
    }

    /// Whether more lives may be over than are kept one by one.
    pub fn forgets(&self) -> bool {
        self.restarts > RESTARTS || self.past.iter().any(|past| *past < 64)
    }

    /// A history in which one replica starts again and again, and others are away meanwhile. In some they keep lives of
    /// the past as if they were configured one by one, epochs do not rise, or datagrams are small.
    fn fleeting(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = 3 + dice.below(2);
        let keys = [1, 3, 6][dice.below(3)];
        let steps = [100, 200, 400][dice.below(3)];
        let steps =
            (0..steps).map(|_| (fleeting_step(&mut dice, replicas, keys), dice.next())).collect();
        let mut plan = Self {
            seed,
            replicas,
            keys,
            max_datagram: 1_400,
            loss: [0, 20, 60][dice.below(3)],
            duplication: 20,
            collect: 1,
            keep: [0, 20][dice.below(2)],
            small_budget: dice.percent(30),
            window: WINDOW,
            large: false,
            durable: dice.percent(30),
            seals: true,
            past: vec![[0, 1, 3][dice.below(3)]],
            restarts: 100,
            epochs: Epochs::Rise,
            compared: is_compared(seed),
            crowd: 0,
            steps,
        };
        if dice.percent(50) {
            plan.past = (0..replicas).map(|_| [0, 2, 64, 1_000][dice.below(4)]).collect();
        }
        plan.max_datagram = [512, 1_400][dice.below(2)];
        plan.epochs = [Epochs::Rise, Epochs::Rise, Epochs::Fall, Epochs::Jump][dice.below(4)];
        plan
    }

    /// A history in which peers are forgotten again and again, so that one full sync follows the other, of
    /// many datagrams each, while keys are written and removed.
    fn forgetful(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = 2 + dice.below(3);
        let keys = 60;
        let durable = is_durable(seed);
        let first = (0..40).map(|key| Step::Insert { at: 0, key, len: 20 });
        let mut steps: Vec<_> = first.map(|step| (step, 0)).collect();
        steps
            .extend((0..400).map(|_| (full_step(&mut dice, replicas, keys, durable), dice.next())));
        Self {
            seed,
            replicas,
            keys,
            max_datagram: 512,
            loss: [0, 10][dice.below(2)],
            duplication: 0,
            collect: 1,
            keep: 0,
            small_budget: true,
            window: WINDOW,
            large: seed % 2 == 1,
            durable,
            seals: false,
            past: vec![64],
            restarts: RESTARTS,
            epochs: Epochs::Rise,
            compared: is_compared(seed),
            crowd: 0,
            steps,
        }
    }

    /// A history of sixteen replicas that hear less than half of what they are sent, while some crash, start again
    /// without their state, or are taken for gone.
    fn crowded(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = 16;
        let keys = [1, 3, 9, 30][dice.below(4)];
        let steps = [200, 400, 800][dice.below(3)];
        let steps =
            (0..steps).map(|_| (crowded_step(&mut dice, replicas, keys), dice.next())).collect();
        Self {
            seed,
            replicas,
            keys,
            max_datagram: [512, 1_400][dice.below(2)],
            loss: 60,
            duplication: 30,
            collect: [1, 30, 300][dice.below(3)],
            keep: [0, 100, 5_000][dice.below(3)],
            small_budget: dice.percent(50),
            window: WINDOW,
            large: seed % 4 == 3,
            durable: dice.percent(50),
            seals: dice.percent(50),
            past: vec![64],
            restarts: RESTARTS,
            epochs: Epochs::Rise,
            compared: is_compared(seed),
            crowd: 0,
            steps,
        }
    }

    /// A history of keys that are overwritten many times between two answers, which come from one replica and another.
    fn hot(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = 3 + dice.below(3);
        let keys = [2, 5, 9, 30][dice.below(4)];
        let seals = dice.percent(50);
        let steps = [60, 120, 240][dice.below(3)];
        let steps =
            (0..steps).map(|_| (hot_step(&mut dice, replicas, keys), dice.next())).collect();
        Self {
            seed,
            replicas,
            keys,
            max_datagram: 512,
            loss: [0, 30, 60][dice.below(3)],
            duplication: 20,
            collect: [1, 300][dice.below(2)],
            // Where all is waited for a twentieth of the time in the end, what is kept is kept no longer.
            keep: [0, 20, if seals { 0 } else { 5_000 }][dice.below(3)],
            small_budget: dice.percent(70),
            window: [16, 48, WINDOW][dice.below(3)],
            large: false,
            durable: is_durable(seed),
            seals,
            past: vec![64],
            restarts: RESTARTS,
            epochs: Epochs::Rise,
            compared: is_compared(seed),
            crowd: 0,
            steps,
        }
    }

    fn mixed(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let replicas = 2 + dice.below(5);
        let keys = [1, 1, 2, 5, 9, 30][dice.below(6)];
        let steps = [60, 100, 150, 250, 400][dice.below(5)];
        let max_datagram = [512, 512, 700, 1400][dice.below(4)];
        let loss = [0, 10, 30, 60][dice.below(4)];
        let duplication = [0, 30][dice.below(2)];
        let crowd = if dice.below(16) == 0 { 40 } else { 0 };
        let churn = [1, 1, 8][dice.below(3)];
        let (collect, keep) = ([1, 30, 300, 10_000][dice.below(4)], [0, 100, 5_000][dice.below(3)]);
        let small_budget = dice.percent(50);
        let steps =
            (0..steps).map(|_| (step(&mut dice, replicas, keys, churn), dice.next())).collect();
        Self {
            seed,
            replicas,
            keys,
            max_datagram,
            loss,
            duplication,
            collect,
            keep,
            small_budget,
            window: WINDOW,
            large: seed % 4 == 3,
            durable: is_durable(seed),
            seals: false,
            past: vec![64],
            restarts: RESTARTS,
            epochs: Epochs::Rise,
            compared: is_compared(seed),
            crowd,
            steps,
        }
    }
}

const fn is_durable(seed: u64) -> bool {
    seed % 3 == 1
}

const fn is_compared(seed: u64) -> bool {
    seed % 7 < 3
}

fn full_step(dice: &mut Dice, replicas: usize, keys: usize, durable: bool) -> Step {
    let (at, key, peer) = (dice.below(replicas), dice.below(keys), dice.below(replicas));
    match dice.below(100) {
        0..=7 => Step::Insert { at, key, len: dice.below(40) },
        8..=19 => Step::Remove { at, key },
        20..=24 => Step::Pass { millis: [1, 2, 100][dice.below(3)] },
        25..=39 => Step::Fire { at },
        40 => Step::Down { at, peer },
        41 if durable => Step::Restore { at },
        41..=43 => Step::Up { at, peer },
        44 => Step::Restart { at },
        _ => Step::Deliver { pick: dice.below(2) },
    }
}

fn mortal_step(dice: &mut Dice, replicas: usize, keys: usize) -> Step {
    let (at, key, pick) = (dice.below(replicas), dice.below(keys), dice.below(1 << 20));
    let peer = dice.below(replicas);
    match dice.below(100) {
        0..=29 => Step::Insert { at, key, len: dice.below(20) },
        30..=36 => Step::Remove { at, key },
        37..=38 => Step::Read { at, key },
        39..=41 => Step::Resolve { pick, put: dice.percent(60) },
        42..=67 => Step::Deliver { pick },
        68..=70 => Step::Repeat { pick },
        71..=75 => Step::Pass { millis: [1, 20, 100][dice.below(3)] },
        76..=78 => Step::Part { group: pick, millis: 20 + dice.below(200) as u64 },
        79..=81 => Step::Restart { at },
        82..=86 => Step::Restore { at },
        87..=90 => Step::Fire { at },
        91..=92 => Step::Down { at, peer },
        _ => Step::Up { at, peer },
    }
}

fn fleeting_step(dice: &mut Dice, replicas: usize, keys: usize) -> Step {
    let (at, key, pick) = (dice.below(replicas), dice.below(keys), dice.below(1 << 20));
    let peer = dice.below(replicas);
    match dice.below(100) {
        0..=19 => Step::Insert { at, key, len: dice.below(20) },
        20..=24 => Step::Insert { at: 0, key, len: dice.below(20) },
        25..=30 => Step::Remove { at, key },
        31..=32 => Step::Read { at, key },
        33..=34 => Step::Resolve { pick, put: dice.percent(60) },
        35..=59 => Step::Deliver { pick },
        60..=61 => Step::Repeat { pick },
        62..=66 => Step::Pass { millis: [1, 20, 100][dice.below(3)] },
        67..=76 => Step::Part { group: pick, millis: 20 + dice.below(200) as u64 },
        77..=86 => Step::Restart { at: 0 },
        87 => Step::Restart { at },
        88..=89 => Step::Restore { at },
        90..=93 => Step::Fire { at },
        94 => Step::Down { at, peer },
        _ => Step::Up { at, peer },
    }
}

fn crowded_step(dice: &mut Dice, replicas: usize, keys: usize) -> Step {
    let (at, key, pick) = (dice.below(replicas), dice.below(keys), dice.below(1 << 20));
    let peer = dice.below(replicas);
    match dice.below(100) {
        0..=14 => Step::Insert { at, key, len: dice.below(40) },
        15..=19 => Step::Remove { at, key },
        20..=22 => Step::Read { at, key },
        23..=25 => Step::Resolve { pick, put: dice.percent(60) },
        26..=73 => Step::Deliver { pick },
        74..=77 => Step::Repeat { pick },
        78..=81 => Step::Pass { millis: [1, 20, 100, 700][dice.below(4)] },
        82..=90 => Step::Fire { at },
        91 => Step::Part { group: pick, millis: 20 + dice.below(200) as u64 },
        92 => Step::Restart { at },
        93 => Step::Restore { at },
        94..=96 => Step::Down { at, peer },
        _ => Step::Up { at, peer },
    }
}

fn hot_step(dice: &mut Dice, replicas: usize, keys: usize) -> Step {
    let (at, key, pick) = (dice.below(replicas), dice.below(keys), dice.below(1 << 20));
    let peer = dice.below(replicas);
    match dice.below(100) {
        0..=3 => Step::Burst { at, count: 20 + dice.below(60) },
        4..=9 => Step::Insert { at, key, len: dice.below(40) },
        10..=11 => Step::Remove { at, key },
        12 => Step::Read { at, key },
        13..=14 => Step::Resolve { pick, put: dice.percent(60) },
        15..=69 => Step::Deliver { pick },
        70..=74 => Step::Repeat { pick },
        75..=80 => Step::Pass { millis: [1, 20, 100][dice.below(3)] },
        81..=84 => Step::Restore { at },
        85..=91 => Step::Fire { at },
        92 => Step::Restart { at },
        93 => Step::Part { group: pick, millis: 20 + dice.below(200) as u64 },
        94..=95 => Step::Down { at, peer },
        _ => Step::Up { at, peer },
    }
}

fn step(dice: &mut Dice, replicas: usize, keys: usize, churn: usize) -> Step {
    let (at, key, pick) = (dice.below(replicas), dice.below(keys), dice.below(1 << 20));
    let peer = dice.below(replicas);
    match dice.below(100) {
        0..=19 => Step::Insert { at, key, len: dice.below(40) },
        20..=26 => Step::Remove { at, key },
        27..=29 => Step::Read { at, key },
        30..=34 => Step::Resolve { pick, put: dice.percent(60) },
        35..=74 => Step::Deliver { pick },
        75..=79 => Step::Repeat { pick },
        80..=83 => Step::Pass { millis: [1, 20, 100, 700][dice.below(4)] },
        84 => Step::Restore { at },
        87..=93 => Step::Fire { at },
        85 if dice.below(10) < churn => Step::Restart { at },
        86 => Step::Down { at, peer },
        _ => Step::Up { at, peer },
    }
}
