//! Membership judged by one who knows the truth: who is up, who was within reach of whom, and when each
//! heard what.

use std::time::Duration;

use brickwork_core::sim::Sim;
use brickwork_core::{Event, Instant, NodeId};
use hashbrown::HashMap;

use super::faulty::{FaultyNodes, Verdicts};
use super::figures::Latencies;

/// A set of small numbers.
#[derive(Debug, Clone)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    /// Returns whether that is new.
    pub(super) fn set(&mut self, at: usize, on: bool) -> bool {
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        let new = (*word & bit != 0) != on;
        if on {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        new
    }
}

/// A cut through the network: between these places and the others, until then.
#[derive(Debug)]
struct Cut {
    number: usize,
    side: Bits,
    until: Option<Instant>,
}

/// A death that its observers are to notice.
#[derive(Debug)]
struct Death {
    at: Instant,
    /// It said goodbye.
    left_by_itself: bool,
    /// Who was up then and has not noticed.
    unaware: Bits,
    left: usize,
    suspected: bool,
    declared: bool,
}

/// What the truth is about one place.
#[derive(Debug)]
struct Subject {
    up: bool,
    started: Instant,
    lives: u32,
    troubles: u32,
    well_since: Option<Instant>,
    death: Option<Death>,
}

/// Why a live node may be declared dead, or that there is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excuse {
    None,
    /// It stood still, or was too slow to answer, or its links were bad.
    Trouble,
    /// The links of the observer were bad.
    Observer,
    /// It was within reach of the observer, but was not of others, who tell now what they believed.
    Heal,
    /// It was out of reach, or had died.
    Gone,
}

/// What was noticed, rightly or wrongly, since measuring began.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    pub(super) false_deaths: u64,
    pub(super) false_suspicions: u64,
    pub(super) deaths_of_troubled: u64,
    pub(super) deaths_after_heal: u64,
    pub(super) deaths_by_faulty: u64,
    pub(super) of_faulty: Verdicts,
    pub(super) crashes: u64,
    /// From a crash to the first that suspects it, and to the first that declares it.
    pub(super) first_suspected: Latencies,
    pub(super) first_declared: Latencies,
    /// From a crash to each observer.
    pub(super) declared: Latencies,
    /// (crash, observer) pairs of nodes that stayed dead and unnoticed.
    pub(super) undetected: u64,
    pub(super) leaves: u64,
    /// From a leave to each observer that hears of it.
    pub(super) left: Latencies,
    pub(super) left_as_failed: u64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Truth {
    grace: Duration,
    places: HashMap<NodeId, usize>,
    subjects: Vec<Subject>,
    /// Who is listed by whom, a row for each observer.
    lists: Vec<Bits>,
    cuts: Vec<Cut>,
    faulty: FaultyNodes,
    up: usize,
    /// Pairs of which the list and the truth differ.
    wrong: u64,
    /// The last moment at which there were any.
    pub(super) last_wrong: Instant,
    pub(super) noticed: Noticed,
}

impl Truth {
    /// Nobody is up yet.
    pub(super) fn new(nodes: usize, grace: Duration) -> Self {
        let subject = || Subject {
            up: false,
            started: Instant::ZERO,
            lives: 0,
            troubles: 0,
            well_since: None,
            death: None,
        };
        Self {
            grace,
            places: HashMap::with_capacity(nodes),
            subjects: (0..nodes).map(|_| subject()).collect(),
            lists: vec![Bits::new(nodes); nodes],
            cuts: Vec::new(),
            faulty: FaultyNodes::new(nodes),
            up: 0,
            wrong: 0,
            last_wrong: Instant::ZERO,
            noticed: Noticed::default(),
        }
    }

    pub(super) const fn up(&self) -> usize {
        self.up
    }

    pub(super) fn is_up(&self, place: usize) -> bool {
        self.subjects[place].up
    }

    /// Whether each live node lists just the live ones.
    pub(super) const fn is_agreed(&self) -> bool {
        self.wrong == 0
    }

    /// Share of the pairs of which list and truth are the same.
    pub(super) fn agreement(&self) -> f64 {
        let pairs = self.up as f64 * (self.subjects.len().saturating_sub(1)) as f64;
        if pairs > 0.0 { 1.0 - self.wrong as f64 / pairs } else { 1.0 }
    }

    /// From here on it counts.
    pub(super) fn begin(&mut self) {
        self.noticed = Noticed::default();
    }

    pub(super) fn started(&mut self, sim: &Sim, place: usize) {
        let now = sim.now();
        self.places.insert(sim.id(place), place);
        let subject = &mut self.subjects[place];
        // Who came back before all had noticed is not missing with the others.
        subject.death = None;
        (subject.up, subject.started) = (true, now);
        subject.lives += 1;
        self.up += 1;
        self.flip(now, place, true);
        self.lists[place] = Bits::new(self.subjects.len());
        self.wrong += self.up as u64 - 1;
    }

    pub(super) fn crashed(&mut self, now: Instant, place: usize) {
        if self.subjects[place].up {
            self.noticed.crashes += 1;
            self.gone(now, place, false);
        }
    }

    /// From here on all should learn that the node at `place` has left.
    pub(super) fn leaves(&mut self, now: Instant, place: usize) {
        if self.subjects[place].up {
            self.noticed.leaves += 1;
            self.gone(now, place, true);
        }
    }

    fn gone(&mut self, now: Instant, place: usize, left_by_itself: bool) {
        self.subjects[place].up = false;
        self.up -= 1;
        let row = &self.lists[place];
        for (other, subject) in self.subjects.iter_mut().enumerate() {
            if other == place {
                continue;
            }
            self.wrong -= u64::from(row.has(other) != subject.up);
            if let Some(death) = &mut subject.death
                && death.unaware.set(place, false)
            {
                death.left -= 1;
            }
        }
        self.flip(now, place, false);
        let mut unaware = Bits::new(self.subjects.len());
        for (other, subject) in self.subjects.iter().enumerate() {
            // Who has already declared it dead, wrongly, has nothing to notice.
            unaware.set(other, subject.up && self.lists[other].has(place));
        }
        let left = (0..self.subjects.len()).filter(|&other| unaware.has(other)).count();
        self.subjects[place].death = Some(Death {
            at: now,
            left_by_itself,
            unaware,
            left,
            suspected: false,
            declared: false,
        });
    }

    /// What all observers list about `place` is judged by the other truth from now on.
    fn flip(&mut self, now: Instant, place: usize, up: bool) {
        for (other, subject) in self.subjects.iter().enumerate() {
            if other == place || !subject.up {
                continue;
            }
            let listed = self.lists[other].has(place);
            match listed == up {
                true => self.wrong -= 1,
                false => self.wrong += 1,
            }
        }
        self.last_wrong = now;
    }

    pub(super) fn cut(&mut self, number: usize, side: &[usize]) {
        let mut bits = Bits::new(self.subjects.len());
        for &place in side {
            bits.set(place, true);
        }
        self.cuts.push(Cut { number, side: bits, until: None });
    }

    pub(super) fn joined(&mut self, now: Instant, number: usize) {
        for cut in self.cuts.iter_mut().filter(|cut| cut.number == number) {
            cut.until = Some(now);
        }
    }

    pub(super) fn ill(&mut self, places: &[usize]) {
        for &place in places {
            self.subjects[place].troubles += 1;
        }
    }

    /// The links of these are bad from now on, and whatever is believed of them is no fault of the believer.
    pub(super) fn faulty(&mut self, now: Instant, places: &[usize]) {
        self.faulty.begin(now, places);
    }

    pub(super) fn well(&mut self, now: Instant, places: &[usize]) {
        for &place in places {
            let subject = &mut self.subjects[place];
            subject.troubles -= 1;
            subject.well_since = Some(now);
        }
    }

    /// What the node at `observer` says happened.
    pub(super) fn heard(&mut self, now: Instant, observer: usize, event: &Event) {
        match event {
            Event::Joined { identity } | Event::Restarted { identity, .. } => {
                self.listed(now, observer, identity.id(), true);
            }
            Event::Left { id } => {
                if let Some(subject) = self.listed(now, observer, *id, false) {
                    self.left(now, observer, subject);
                }
            }
            Event::Failed { id } => {
                if let Some(subject) = self.listed(now, observer, *id, false) {
                    self.declared(now, observer, subject);
                }
            }
            Event::Suspected { id, .. } => {
                if let Some(&subject) = self.places.get(id) {
                    self.suspected(now, observer, subject);
                }
            }
            Event::Missed { .. } => panic!("node-{observer} missed events that are taken at once"),
            // These change no list.
            Event::Updated { .. }
            | Event::Recovered { .. }
            | Event::Conflict { .. }
            | Event::LeaveFinished { .. }
            | Event::Changed { .. }
            | Event::Full
            | _ => {}
        }
    }

    fn listed(&mut self, now: Instant, observer: usize, id: NodeId, on: bool) -> Option<usize> {
        let subject = *self.places.get(&id)?;
        if subject != observer && self.lists[observer].set(subject, on) {
            match on == self.subjects[subject].up {
                true => self.wrong -= 1,
                false => self.wrong += 1,
            }
            self.last_wrong = now;
            self.faulty.listed(now, observer, subject, on);
        }
        Some(subject)
    }

    fn declared(&mut self, now: Instant, observer: usize, place: usize) {
        if self.subjects[place].up {
            match self.excuse(now, observer, place) {
                Excuse::None => self.noticed.false_deaths += 1,
                Excuse::Trouble => self.noticed.deaths_of_troubled += 1,
                Excuse::Observer => self.noticed.deaths_by_faulty += 1,
                Excuse::Heal => self.noticed.deaths_after_heal += 1,
                Excuse::Gone => {}
            }
            return;
        }
        let Some(death) = &mut self.subjects[place].death else { return };
        let after = now - death.at;
        if death.left_by_itself {
            if death.unaware.set(observer, false) {
                death.left -= 1;
                self.noticed.left.never(1);
                self.noticed.left_as_failed += 1;
            }
            return;
        }
        if !core::mem::replace(&mut death.declared, true) {
            self.noticed.first_declared.push(after);
        }
        if death.unaware.set(observer, false) {
            death.left -= 1;
            self.noticed.declared.push(after);
        }
    }

    fn left(&mut self, now: Instant, observer: usize, place: usize) {
        let death = self.subjects[place].death.as_mut().filter(|death| death.left_by_itself);
        if let Some(death) = death
            && death.unaware.set(observer, false)
        {
            death.left -= 1;
            self.noticed.left.push(now - death.at);
        }
    }

    fn suspected(&mut self, now: Instant, observer: usize, place: usize) {
        if self.subjects[place].up {
            if self.excuse(now, observer, place) == Excuse::None {
                self.noticed.false_suspicions += 1;
            }
            return;
        }
        if let Some(death) = &mut self.subjects[place].death
            && !death.left_by_itself
            && !core::mem::replace(&mut death.suspected, true)
        {
            self.noticed.first_suspected.push(now - death.at);
        }
    }

    fn excuse(&self, now: Instant, observer: usize, place: usize) -> Excuse {
        let recent = |then: Instant| now - then <= self.grace;
        let apart = |cut: &Cut| {
            cut.side.has(observer) != cut.side.has(place) && cut.until.is_none_or(recent)
        };
        let subject = &self.subjects[place];
        if self.cuts.iter().any(apart) || (subject.lives > 1 && recent(subject.started)) {
            Excuse::Gone
        } else if subject.troubles > 0
            || subject.well_since.is_some_and(recent)
            || self.faulty.has(place)
        {
            Excuse::Trouble
        } else if self.faulty.has(observer) {
            Excuse::Observer
        } else if self.cuts.iter().any(|cut| cut.until.is_some_and(recent)) {
            Excuse::Heal
        } else {
            Excuse::None
        }
    }

    /// What was noticed until the end.
    pub(super) fn finish(&mut self) -> Noticed {
        let mut noticed = core::mem::take(&mut self.noticed);
        let faulty = core::mem::take(&mut self.faulty);
        noticed.of_faulty = faulty.finish(|place| self.subjects[place].up);
        let unnoticed = self.subjects.iter().filter_map(|subject| subject.death.as_ref());
        for death in unnoticed {
            if death.left_by_itself {
                noticed.left.never(death.left as u64);
                continue;
            }
            noticed.undetected += death.left as u64;
            noticed.declared.never(death.left as u64);
            noticed.first_suspected.never(u64::from(!death.suspected));
            noticed.first_declared.never(u64::from(!death.declared));
        }
        noticed
    }
}
