//! What happens when, to whom: a scenario and a seed as a list of acts.

use std::time::Duration;

use brickwork_core::sim::{Condition, Fault, Links, Nodes, Trouble};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use toml::Spanned;

use super::file::{Crash, Direction, Loss, Pause, Scenario};
use super::load::time;
use super::value::{Pick, Time};

/// One act.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// The fault of this number begins.
    Begin(usize, Fault),
    /// It ends.
    End(usize),
    /// From here on these are cut off from the others.
    Cut(usize, Vec<usize>),
    /// The cut of this number is over.
    Join(usize),
    /// From here on these are troubled in a way for which they may be taken for dead.
    Ill(Vec<usize>),
    /// They are well again.
    Well(Vec<usize>),
    /// From here on these are faulty: the others had better do without them.
    Faulty(Vec<usize>),
    /// The node at this place dies, and comes back or not.
    Crash(usize, bool),
    /// The node at this place says goodbye, and ends when enough know.
    Leave(usize),
    /// It starts again without state.
    Return(usize),
    /// Something of the kind that all must recover from is over.
    Over,
}

/// When, and what.
pub(super) type Step = (Duration, Act);

/// Draws nodes, and whatever else is left to the seed.
pub(super) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ stream.rotate_left(32)))
    }

    /// Below `n`, which is above zero.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Never node 0 unless it is named, in random order unless they are named.
    fn some(&mut self, pick: &Pick, nodes: usize) -> Vec<usize> {
        if let Pick::These(places) = pick {
            return places.clone();
        }
        let mut places: Vec<usize> = (1..nodes).collect();
        let count = pick.len(nodes).min(places.len());
        for at in 0..count {
            let other = at + self.below((places.len() - at) as u64) as usize;
            places.swap(at, other);
        }
        places.truncate(count);
        places
    }
}

/// Writes the script.
struct Writer<'s> {
    scenario: &'s Scenario,
    nodes: usize,
    dice: Dice,
    steps: Vec<Step>,
    faults: usize,
}

/// The acts in their order. Equal for equal seeds.
pub(super) fn script(scenario: &Scenario, seed: u64) -> Vec<Step> {
    let (nodes, dice) = (*scenario.nodes.get_ref(), Dice::new(seed, 1));
    let mut writer = Writer { scenario, nodes, dice, steps: Vec::new(), faults: 0 };
    for loss in &scenario.loss {
        let condition = match &loss.burst {
            None => Condition::Loss(loss.share.0),
            Some(mean) => Condition::Bursts { permille: loss.share.0, mean: *mean.get_ref() },
        };
        let links = match &loss.nodes {
            None => vec![Links::all()],
            Some(pick) => {
                let some = writer.some(pick);
                writer.steps.push((time(loss.begin.as_ref()), Act::Faulty(some.clone())));
                let out = Links::one_way(Nodes::Only(some.clone()), Nodes::All);
                let into = Links::one_way(Nodes::Except(some.clone()), Nodes::Only(some));
                match loss.direction.as_ref().map(|direction| *direction.get_ref()) {
                    None => vec![out, into],
                    Some(Direction::Out) => vec![out],
                    Some(Direction::In) => vec![into],
                }
            }
        };
        for links in links {
            writer.losses(loss, &Fault::Link(links, condition.clone()));
        }
        writer.over(loss.end.as_ref());
    }
    for split in &scenario.split {
        let mut side = writer.some(&split.nodes);
        side.sort_unstable();
        let (number, from) = (writer.faults, time(split.begin.as_ref()));
        writer.steps.push((from, Act::Cut(number, side.clone())));
        let fault = Fault::Link(Links::around(&Nodes::Only(side)), Condition::Cut);
        writer.fault(fault, split.begin.as_ref(), split.end.as_ref());
        if let Some(end) = &split.end {
            writer.steps.push((end.get_ref().0, Act::Join(number)));
        }
        writer.over(split.end.as_ref());
    }
    for slow in &scenario.slow {
        let some = writer.some(&slow.nodes);
        writer.ill(&some, slow.begin.as_ref(), slow.end.as_ref());
        let fault = Fault::Node(Nodes::Only(some), Trouble::Slow(slow.per_input.0));
        writer.fault(fault, slow.begin.as_ref(), slow.end.as_ref());
        writer.over(slow.end.as_ref());
    }
    for pause in &scenario.pause {
        writer.pauses(pause);
    }
    for crash in &scenario.crash {
        writer.crashes(crash);
    }
    for leave in &scenario.leave {
        let some = writer.some(&leave.nodes);
        for (at, place) in spread(some, leave.begin.as_ref(), leave.end.as_ref()) {
            writer.steps.push((at, Act::Leave(place)));
        }
    }
    // Stable: acts of one moment keep the order in which they were written.
    writer.steps.sort_by_key(|(at, _)| *at);
    writer.steps
}

impl Writer<'_> {
    fn some(&mut self, pick: &Spanned<Pick>) -> Vec<usize> {
        self.dice.some(pick.get_ref(), self.nodes)
    }

    fn fault(&mut self, fault: Fault, begin: Option<&Spanned<Time>>, end: Option<&Spanned<Time>>) {
        self.fault_at(fault, time(begin), end.map(|end| end.get_ref().0));
    }

    fn fault_at(&mut self, fault: Fault, begin: Duration, end: Option<Duration>) {
        let number = self.faults;
        self.faults += 1;
        self.steps.push((begin, Act::Begin(number, fault)));
        if let Some(end) = end {
            self.steps.push((end, Act::End(number)));
        }
    }

    /// Once, or again and again.
    fn losses(&mut self, loss: &Loss, fault: &Fault) {
        let (Some(on), Some(off)) = (&loss.on, &loss.off) else {
            return self.fault(fault.clone(), loss.begin.as_ref(), loss.end.as_ref());
        };
        let duration = self.scenario.duration.get_ref().0;
        let end = loss.end.as_ref().map_or(duration, |end| end.get_ref().0);
        let mut at = time(loss.begin.as_ref());
        while at < end {
            self.fault_at(fault.clone(), at, Some((at + on.get_ref().0).min(end)));
            at += on.get_ref().0 + off.get_ref().0;
        }
    }

    fn ill(&mut self, some: &[usize], begin: Option<&Spanned<Time>>, end: Option<&Spanned<Time>>) {
        self.steps.push((time(begin), Act::Ill(some.to_vec())));
        if let Some(end) = end {
            self.steps.push((end.get_ref().0, Act::Well(some.to_vec())));
        }
    }

    fn over(&mut self, end: Option<&Spanned<Time>>) {
        if let Some(end) = end {
            self.steps.push((end.get_ref().0, Act::Over));
        }
    }

    /// Each pauses and runs in turns of its own, from a random moment of the first turn on.
    fn pauses(&mut self, pause: &Pause) {
        let some = self.some(&pause.nodes);
        self.ill(&some, pause.begin.as_ref(), pause.end.as_ref());
        let (still, run) = (pause.still.get_ref().0, pause.run.get_ref().0);
        let duration = self.scenario.duration.get_ref().0;
        let end = pause.end.as_ref().map_or(duration, |end| end.get_ref().0);
        let turn = u64::try_from((still + run).as_nanos()).unwrap_or(u64::MAX);
        for place in some {
            let mut at = time(pause.begin.as_ref()) + Duration::from_nanos(self.dice.below(turn));
            while at < end {
                let fault = Fault::Node(Nodes::one(place), Trouble::Pause);
                self.fault_at(fault, at, Some((at + still).min(end)));
                at += still + run;
            }
        }
        self.over(pause.end.as_ref());
    }

    /// All at once, or at even distances.
    fn crashes(&mut self, crash: &Crash) {
        let some = self.some(&crash.nodes);
        for (at, place) in spread(some, crash.begin.as_ref(), crash.end.as_ref()) {
            self.steps.push((at, Act::Crash(place, crash.back_after.is_some())));
            if let Some(back) = &crash.back_after {
                self.steps.push((at + back.get_ref().0, Act::Return(place)));
                self.steps.push((at + back.get_ref().0, Act::Over));
            }
        }
    }
}

/// Places and their moments: all at `begin`, or until `end` at even distances.
fn spread(
    places: Vec<usize>,
    begin: Option<&Spanned<Time>>,
    end: Option<&Spanned<Time>>,
) -> impl Iterator<Item = (Duration, usize)> {
    let (begin, count) = (time(begin), places.len() as u32);
    let whole = end.map_or(Duration::ZERO, |end| end.get_ref().0 - begin);
    (0..).zip(places).map(move |(number, place)| (begin + whole * number / count, place))
}
