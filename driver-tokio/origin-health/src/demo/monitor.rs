//! Holds what the nodes say against what is true.
//!
//! The truth is known without the nodes: what each origin serves (the plan), who lives (the demo
//! kills and starts), and therefore who owns what (rendezvous over the living).
//!
//! # What counts as a wrong status
//!
//! A sampled answer of a live node is wrong if it differs from what the origin has served without a
//! break for longer than interval x threshold + 3 gossip intervals, counted from the later of
//! the origin's own turn and the start of the answering node.
//!
//! Between the death of an origin's owner, or the join of a better one, and that tolerance after the
//! first check by its present owner, nobody can know better; likewise before the first check at the
//! start. Answers that are wrong by the rule above during such a time, for at most
//! [`MAX_TAKEOVER`], are counted apart, as wrong while unchecked. The two numbers together are all
//! answers beyond the tolerance.

use core::time::Duration;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use brickwork_core::NodeId;
use brickwork_core::hrw::{self, View};
use tokio::time::Instant;

use super::member::Sample;
use super::plan::{self, Plan};
use crate::agent::{Notice, What};
use crate::health::State;

/// From this long after a kill or a join on, answers are judged again, takeover or not.
pub(crate) const MAX_TAKEOVER: Duration = Duration::from_secs(10);

/// From this long after the start on, answers are judged even if the cluster has not come together.
const MAX_STARTUP: Duration = Duration::from_secs(10);

/// A write that is not everywhere after this is not just on its way.
const LONG: Duration = Duration::from_secs(1);

/// How many wrong answers are told one by one.
const TOLD: usize = 5;

/// All measurements of a run.
#[derive(Debug)]
pub(crate) struct Monitor {
    plan: Arc<Plan>,
    start: Instant,
    tolerance: Duration,
    /// The living, and who owns each origin among them.
    live: View,
    names: BTreeMap<NodeId, Arc<str>>,
    owners: Vec<NodeId>,
    /// Since when answers are judged.
    judging_since: Option<Instant>,
    calm: bool,
    changed_at: Instant,
    origins: Vec<Track>,
    kill: Option<Kill>,
    pending: BTreeMap<usize, Vec<Pending>>,
    pub(crate) propagation: Vec<Duration>,
    /// Answers held against the truth.
    pub(crate) sampled: u64,
    pub(crate) wrong: u64,
    /// Answers beyond the tolerance while their origin had no checker that could know better.
    pub(crate) wrong_while_unchecked: u64,
    /// The first wrong answers in words.
    pub(crate) told: Vec<String>,
    pub(crate) false_failures: u64,
}

/// What is known of one origin's owner.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    /// First check by the present owner.
    taken: Option<Instant>,
    /// Since when the present owner has not made it.
    moving: Option<Instant>,
}

/// The death that the demo arranged.
#[derive(Debug)]
struct Kill {
    id: NodeId,
    at: Instant,
    /// Survivors that have not noticed.
    unaware: BTreeSet<NodeId>,
    first: Option<Duration>,
    last: Option<Duration>,
    /// Origins of the victim that nobody has checked since.
    orphans: BTreeSet<usize>,
    taken: Option<Duration>,
}

/// A write on its way.
#[derive(Debug)]
struct Pending {
    stamp: u64,
    at: Instant,
    last: Instant,
    unaware: BTreeSet<NodeId>,
}

impl Monitor {
    /// Nothing has happened yet.
    pub(crate) fn new(plan: Arc<Plan>, start: Instant, gossip_interval: Duration) -> Self {
        let tolerance = plan.tolerance(gossip_interval);
        let origins = vec![Track::default(); plan.behaviours.len()];
        Self {
            plan,
            start,
            tolerance,
            live: View::default(),
            names: BTreeMap::new(),
            owners: Vec::new(),
            judging_since: None,
            calm: false,
            changed_at: start,
            origins,
            kill: None,
            pending: BTreeMap::new(),
            propagation: Vec::new(),
            sampled: 0,
            wrong: 0,
            wrong_while_unchecked: 0,
            told: Vec::new(),
            false_failures: 0,
        }
    }

    /// How long an answer may lag behind its origin.
    pub(crate) fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// Whether the set of nodes and everyone's view of it stand still.
    pub(crate) fn calm(&self) -> bool {
        self.calm
    }

    /// When the set of nodes changed last.
    pub(crate) fn changed_at(&self) -> Instant {
        self.changed_at
    }

    /// The origins that `node` must own.
    pub(crate) fn owned_by(&self, node: NodeId) -> Vec<usize> {
        let owners = self.owners.iter().enumerate();
        owners.filter(|&(_, &owner)| owner == node).map(|(number, _)| number).collect()
    }

    /// Who must own each origin.
    pub(crate) fn owners(&self) -> &[NodeId] {
        &self.owners
    }

    /// The names of the owners, for the origin servers.
    pub(crate) fn owner_names(&self) -> Arc<[Arc<str>]> {
        let name = |owner| self.names.get(owner).cloned().unwrap_or_default();
        self.owners.iter().map(name).collect()
    }

    /// The living, in order.
    pub(crate) fn live(&self) -> Vec<NodeId> {
        let mut live = self.live.nodes().to_vec();
        live.sort_unstable();
        live
    }

    /// A node was started.
    pub(crate) fn joined(&mut self, id: NodeId, name: Arc<str>, at: Instant) {
        self.names.insert(id, name);
        self.live.insert(id);
        self.change(at);
    }

    /// A node was killed.
    pub(crate) fn killed(&mut self, id: NodeId, at: Instant) {
        let orphans = self.owned_by(id).into_iter().collect();
        self.live.remove(id);
        let unaware = self.live.nodes().iter().copied().collect();
        self.kill = Some(Kill { id, at, unaware, first: None, last: None, orphans, taken: None });
        self.change(at);
    }

    /// Whether anyone's view has ever been the truth.
    pub(crate) fn has_settled(&self) -> bool {
        self.judging_since.is_some()
    }

    /// Everyone's view is the truth again.
    pub(crate) fn settled(&mut self, at: Instant) {
        self.calm = true;
        self.judging_since.get_or_insert(at);
    }

    /// The run is over.
    pub(crate) fn end(&mut self, at: Instant) {
        self.calm = false;
        self.give_up(at);
    }

    /// Stops following the writes on their way. One that has been for long counts with its age, or
    /// the slowest would be those that are left out.
    fn give_up(&mut self, at: Instant) {
        for write in core::mem::take(&mut self.pending).into_values().flatten() {
            let age = at.saturating_duration_since(write.at);
            if age >= LONG {
                self.propagation.push(age);
            }
        }
    }

    fn change(&mut self, at: Instant) {
        self.calm = false;
        self.give_up(at);
        self.changed_at = at;
        let key = |number| hrw::key_hash(plan::name(number).as_bytes());
        let owner = |number| self.live.owner(key(number)).unwrap_or(NodeId(0));
        let owners: Vec<NodeId> = (0..self.plan.behaviours.len()).map(owner).collect();
        for (number, owner) in owners.iter().enumerate() {
            if self.owners.get(number) != Some(owner) {
                self.origins[number].moving.get_or_insert(at);
            }
        }
        self.owners = owners;
    }

    /// A node told something.
    pub(crate) fn notice(&mut self, notice: &Notice) {
        let Notice { node, at, what } = *notice;
        match what {
            What::Failed(id) => self.failed(node, id, at),
            What::Took(number) => self.took(node, number, at),
            What::Wrote(number, stamp) => self.wrote(node, number, stamp, at),
            What::Saw(number, stamp) => self.saw(node, number, stamp, at),
        }
    }

    fn failed(&mut self, by: NodeId, id: NodeId, at: Instant) {
        if self.live.nodes().contains(&id) {
            self.false_failures += 1;
        }
        if let Some(kill) = &mut self.kill
            && kill.id == id
            && kill.unaware.remove(&by)
        {
            let after = at.saturating_duration_since(kill.at);
            kill.first = Some(kill.first.map_or(after, |first| first.min(after)));
            kill.last = Some(kill.last.map_or(after, |last| last.max(after)));
        }
    }

    fn took(&mut self, by: NodeId, number: usize, at: Instant) {
        if self.owners[number] != by {
            return;
        }
        let track = &mut self.origins[number];
        if track.moving.take().is_some() {
            track.taken = Some(at);
        }
        if let Some(kill) = &mut self.kill
            && kill.orphans.remove(&number)
        {
            let after = at.saturating_duration_since(kill.at);
            kill.taken = Some(kill.taken.map_or(after, |last| last.max(after)));
        }
    }

    /// Only writes of calm times are followed: at other times it is open which node is the last
    /// live one.
    fn wrote(&mut self, by: NodeId, number: usize, stamp: u64, at: Instant) {
        if !self.calm || self.owners[number] != by {
            return;
        }
        let mut unaware: BTreeSet<NodeId> = self.live.nodes().iter().copied().collect();
        unaware.remove(&by);
        if !unaware.is_empty() {
            let pending = Pending { stamp, at, last: at, unaware };
            self.pending.entry(number).or_default().push(pending);
        }
    }

    fn saw(&mut self, node: NodeId, number: usize, stamp: u64, at: Instant) {
        let Some(writes) = self.pending.get_mut(&number) else {
            return;
        };
        writes.retain_mut(|write| {
            // A later status of the same owner shows at least as much as the one that is followed.
            if write.stamp <= stamp && write.unaware.remove(&node) {
                write.last = write.last.max(at);
            }
            if write.unaware.is_empty() {
                self.propagation.push(write.last.saturating_duration_since(write.at));
            }
            !write.unaware.is_empty()
        });
        if writes.is_empty() {
            self.pending.remove(&number);
        }
    }

    /// Holds the answers of the node `name`, started at `started`, against the truth.
    pub(crate) fn judge(&mut self, name: &str, started: Instant, sample: &Sample) {
        let now = sample.at;
        if self.judging_since.is_none() && now.duration_since(self.start) > MAX_STARTUP {
            self.judging_since = Some(now);
        }
        let at = now.saturating_duration_since(self.start);
        for (number, &state) in sample.states.iter().enumerate() {
            let truth = if self.plan.serves(number, at) { State::Up } else { State::Down };
            self.sampled += 1;
            if state == truth {
                continue;
            }
            let since = (self.start + self.plan.since(number, at)).max(started);
            if now.saturating_duration_since(since) <= self.tolerance {
                continue;
            }
            let track = self.origins[number];
            let moving = track.moving.is_some_and(|since| now.duration_since(since) < MAX_TAKEOVER);
            let checked = self.judging_since.filter(|_| !moving).map(|judging_since| {
                now.saturating_duration_since(
                    since.max(judging_since).max(track.taken.unwrap_or(since)),
                )
            });
            if checked.is_none_or(|lag| lag <= self.tolerance) {
                self.wrong_while_unchecked += 1;
            } else {
                let lag = now.saturating_duration_since(since);
                self.wrong += 1;
                if self.told.len() < TOLD {
                    self.told.push(format!(
                        "{name} says {} is {state}, for {:.1} s it is {truth}",
                        plan::name(number),
                        lag.as_secs_f64()
                    ));
                }
            }
        }
    }

    /// From the kill to the first and to the last survivor that noticed; the last one only if all
    /// have.
    pub(crate) fn detection(&self) -> (Option<Duration>, Option<Duration>) {
        match &self.kill {
            Some(kill) => (kill.first, kill.last.filter(|_| kill.unaware.is_empty())),
            None => (None, None),
        }
    }

    /// From the kill until the last of the victim's origins was checked by its new owner.
    pub(crate) fn takeover(&self) -> Option<Duration> {
        let kill = self.kill.as_ref()?;
        kill.taken.filter(|_| kill.orphans.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::servers::Counts;
    use super::*;

    const GOSSIP: Duration = Duration::from_millis(40);

    /// Three nodes over the plan of 30 origins, each checked by its owner, and the start.
    fn three() -> (Monitor, Vec<NodeId>, Instant) {
        let start = Instant::now();
        let mut monitor = Monitor::new(Arc::new(Plan::new(5, 30)), start, GOSSIP);
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            ids.push(NodeId::from_name(name));
            monitor.joined(NodeId::from_name(name), name.into(), start);
        }
        for number in 0..30 {
            let node = monitor.owners()[number];
            monitor.notice(&Notice { node, at: start, what: What::Took(number) });
        }
        (monitor, ids, start)
    }

    fn truthful(monitor: &Monitor, at: Instant) -> Sample {
        let served = |number| monitor.plan.serves(number, at.duration_since(monitor.start));
        let state = |number| {
            if served(number) { State::Up } else { State::Down }
        };
        Sample { at, members: 3, owns: 0, states: (0..30).map(state).collect() }
    }

    /// Goal: a node that checks everything, owned or not, is seen. Method: the servers' count, fed with
    /// one check of each origin by each of three nodes and judged by the owners that rendezvous names.
    #[test]
    fn checks_of_what_a_node_does_not_own_are_counted_by_the_true_owners() {
        let (mut monitor, ids, start) = three();
        let since = start.into_std();
        let mut counts = Counts::default();
        counts.begin_calm(since, monitor.owner_names());
        for number in 0..30 {
            for name in ["a", "b", "c"] {
                counts.request(number, name.as_bytes());
            }
        }
        counts.end_calm(since + monitor.plan.interval, monitor.plan.interval, 30);
        assert_eq!(counts.measured(30), Some((3.0, 60)));

        monitor.killed(ids[0], start);
        let orphaned = monitor.owner_names().iter().filter(|owner| ***owner == *"a").count();
        assert_eq!(orphaned, 0, "the dead own nothing");
        let mut counts = Counts::default();
        counts.begin_calm(since, monitor.owner_names());
        for (number, owner) in monitor.owners().iter().enumerate() {
            let name = ["b", "c"].iter().find(|name| NodeId::from_name(name) == *owner);
            counts.request(number, name.expect("a survivor").as_bytes());
        }
        counts.end_calm(since + monitor.plan.interval, monitor.plan.interval, 30);
        assert_eq!(counts.measured(30), Some((1.0, 0)));
    }

    #[test]
    fn an_answer_is_wrong_only_beyond_the_tolerance() {
        let (mut monitor, _, start) = three();
        monitor.settled(start);
        let steady = monitor
            .plan
            .behaviours
            .iter()
            .position(|b| *b == plan::Behaviour::Healthy)
            .expect("one");
        for (ms, wrong) in [(1000, 0), (2119, 0), (2121, 1)] {
            let mut sample = truthful(&monitor, start + Duration::from_millis(ms));
            sample.states[steady] = State::Down;
            monitor.judge("a", start, &sample);
            assert_eq!(monitor.wrong, wrong, "after {ms} ms");
        }
        let sample = truthful(&monitor, start + Duration::from_secs(60));
        monitor.judge("a", start, &sample);
        assert_eq!(monitor.wrong, 1);
    }

    #[test]
    fn a_takeover_is_measured_and_not_judged() {
        let (mut monitor, ids, start) = three();
        monitor.settled(start);
        let at = |ms| start + Duration::from_millis(ms);
        let orphans = monitor.owned_by(ids[0]);
        monitor.killed(ids[0], at(5000));
        let mut sample = truthful(&monitor, at(9000));
        sample.states[orphans[0]] = State::Unknown;
        monitor.judge("b", start, &sample);
        assert_eq!((monitor.wrong, monitor.wrong_while_unchecked), (0, 1));
        for (number, ms) in orphans.iter().zip(9001..) {
            let node = monitor.owners()[*number];
            monitor.notice(&Notice { node, at: at(ms), what: What::Took(*number) });
        }
        let last = Duration::from_millis(4000 + orphans.len() as u64);
        assert_eq!(monitor.takeover(), Some(last));
        sample.at = at(20_000);
        sample = Sample { states: truthful(&monitor, sample.at).states, ..sample };
        sample.states[orphans[0]] = State::Unknown;
        monitor.judge("b", start, &sample);
        assert_eq!(monitor.wrong, 1);
    }

    #[test]
    fn detection_is_complete_when_every_survivor_noticed() {
        let (mut monitor, ids, start) = three();
        let at = |ms| start + Duration::from_millis(ms);
        monitor.killed(ids[2], at(1000));
        monitor.notice(&Notice { node: ids[0], at: at(1500), what: What::Failed(ids[2]) });
        assert_eq!(monitor.detection(), (Some(Duration::from_millis(500)), None));
        monitor.notice(&Notice { node: ids[1], at: at(1700), what: What::Failed(ids[2]) });
        assert_eq!(
            monitor.detection(),
            (Some(Duration::from_millis(500)), Some(Duration::from_millis(700)))
        );
        assert_eq!(monitor.false_failures, 0);
        monitor.notice(&Notice { node: ids[1], at: at(1800), what: What::Failed(ids[0]) });
        assert_eq!(monitor.false_failures, 1);
    }

    #[test]
    fn a_write_has_propagated_when_the_last_node_reads_it() {
        let (mut monitor, ids, start) = three();
        monitor.settled(start);
        let at = |ms| start + Duration::from_millis(ms);
        let number = monitor.owned_by(ids[1])[0];
        monitor.notice(&Notice { node: ids[1], at: at(100), what: What::Wrote(number, 7) });
        monitor.notice(&Notice { node: ids[0], at: at(110), what: What::Saw(number, 7) });
        monitor.notice(&Notice { node: ids[0], at: at(111), what: What::Saw(number, 7) });
        assert!(monitor.propagation.is_empty());
        monitor.notice(&Notice { node: ids[2], at: at(130), what: What::Saw(number, 8) });
        assert_eq!(monitor.propagation, [Duration::from_millis(30)]);
    }
}
