//! The task behind an agent: it follows the node's events and its own checks, one at a time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;

use brickwork_core::{Event, Identity, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::{Command, Ended, Notice, REFRESH, Setup, What};
use crate::check::Outcome;
use crate::failure::{self, Seldom};
use crate::health::{Health, State, Status};
use crate::schedule::Rhythm;
use crate::tally::Tally;

/// Events handled in one go, so that a burst of them costs one look at the node.
const MAX_BATCH: usize = 1024;

/// One origin that this node owns.
struct Assignment {
    /// Tells its findings from those of an earlier assignment of the same origin.
    generation: u64,
    health: Health,
    /// Checks since the status was written.
    unwritten: u32,
    /// The next check writes, whatever it finds.
    due: bool,
    /// When a foreign value was last written over; bounds how often two views can answer each
    /// other.
    rewritten: Option<Instant>,
    fresh: bool,
    check: AbortHandle,
}

/// What a check found.
pub(super) struct Finding {
    number: usize,
    generation: u64,
    outcome: Outcome,
}

pub(super) struct Task {
    setup: Setup,
    teller: Teller,
    me: NodeId,
    /// Where this node lives, to tell the two sides of a conflict apart.
    addr: SocketAddr,
    numbers: BTreeMap<Box<[u8]>, usize>,
    assigned: BTreeMap<usize, Assignment>,
    generation: u64,
    running: JoinSet<()>,
    found: mpsc::Sender<Finding>,
    tally: Arc<Tally>,
    joined: watch::Sender<bool>,
    /// The newest stamp; stamps of one node rise strictly.
    last_stamp: u64,
    told_refusal: bool,
    /// Tells of checks that were not made.
    unchecked: Arc<Seldom>,
    /// Nothing is checked and nothing taken over any more.
    paused: bool,
    /// The node follows who owns the origins.
    tracking: bool,
}

/// Tells the observer, if there is one. A write is told from inside the node's own task, before its
/// datagrams leave, so that nobody can tell of having seen it earlier.
#[derive(Clone)]
struct Teller {
    node: NodeId,
    notices: Option<mpsc::UnboundedSender<Notice>>,
}

impl Teller {
    fn tell(&self, what: What) {
        if let Some(notices) = &self.notices {
            // An observer that went away has seen enough.
            let _ = notices.send(Notice { node: self.node, at: Instant::now(), what });
        }
    }
}

/// What a batch of events asks for.
#[derive(Default)]
struct Batch {
    /// Whether it may own other origins than before.
    owners: bool,
    changed: BTreeSet<usize>,
    taken_by: Option<SocketAddr>,
}

impl Task {
    /// The task of one agent, and where its checks leave what they find.
    pub(super) fn new(
        setup: Setup,
        me: &Identity,
        joined: watch::Sender<bool>,
        tally: Arc<Tally>,
    ) -> (Self, mpsc::Receiver<Finding>) {
        let names = setup.origins.iter().enumerate();
        let numbers =
            names.map(|(number, origin)| (origin.name.as_bytes().into(), number)).collect();
        let (found, findings) = mpsc::channel(1024);
        let task = Self {
            teller: Teller { node: me.id(), notices: setup.notices.clone() },
            setup,
            me: me.id(),
            addr: me.addr(),
            numbers,
            assigned: BTreeMap::new(),
            generation: 0,
            running: JoinSet::new(),
            found,
            tally,
            joined,
            last_stamp: 0,
            told_refusal: false,
            unchecked: Arc::default(),
            paused: false,
            tracking: false,
        };
        (task, findings)
    }

    /// Works until the node is gone, or another one bears its name.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut findings: mpsc::Receiver<Finding>,
    ) -> Ended {
        if self.rebalance().await.is_err() {
            return Ended::NodeGone;
        }
        loop {
            let done = tokio::select! {
                event = self.setup.events.next() => match event {
                    Some(event) => self.follow(event).await,
                    None => return Ended::NodeGone,
                },
                Some(finding) = findings.recv() => self.record(finding).await,
                command = inbox.recv() => match command {
                    Some(Command::Owned(answer)) => {
                        // Whoever asked may have stopped waiting.
                        let _ = answer.send(self.assigned.keys().copied().collect());
                        Ok(())
                    }
                    Some(Command::Pause(done)) => {
                        self.paused = true;
                        self.assigned.clear();
                        self.running.shutdown().await;
                        let _ = done.send(());
                        Ok(())
                    }
                    None => return Ended::NodeGone,
                },
            };
            if let Err(ended) = done {
                return ended;
            }
            while self.running.try_join_next().is_some() {}
        }
    }

    /// Handles an event and those that wait behind it.
    async fn follow(&mut self, first: Event) -> Result<(), Ended> {
        let mut batch = Batch::default();
        self.sort(&first, &mut batch);
        for _ in 1..MAX_BATCH {
            let waiting = tokio::select! {
                biased;
                event = self.setup.events.next() => event,
                () = core::future::ready(()) => None,
            };
            let Some(event) = waiting else { break };
            self.sort(&event, &mut batch);
        }
        if let Some(holder) = batch.taken_by {
            return Err(Ended::NameTaken { holder });
        }
        if batch.owners {
            self.rebalance().await?;
        }
        if !batch.changed.is_empty() {
            self.answer_changes(batch.changed).await?;
        }
        Ok(())
    }

    fn sort(&self, event: &Event, batch: &mut Batch) {
        match event {
            // Until there is another member no key is tracked.
            Event::Joined { .. } | Event::Gained { .. } | Event::Lost { .. } => {
                batch.owners = true;
            }
            Event::Failed { id } => self.teller.tell(What::Failed(*id)),
            Event::Changed { key, .. } => batch.changed.extend(self.numbers.get(&key[..])),
            Event::Missed { .. } => {
                batch.owners = true;
                batch.changed.extend(0..self.setup.origins.len());
            }
            Event::Conflict { id, holder, newcomer }
                if *id == self.me && self.addr == *newcomer =>
            {
                batch.taken_by = Some(*holder);
            }
            // These, and what later versions tell, change neither owners nor statuses.
            Event::Updated { .. }
            | Event::Restarted { .. }
            | Event::Left { .. }
            | Event::Suspected { .. }
            | Event::Recovered { .. }
            | Event::Conflict { .. }
            | Event::LeaveFinished { .. }
            | Event::Full
            | _ => {}
        }
    }

    /// Asks the node who owns what, drops what was lost and takes over what was gained.
    async fn rebalance(&mut self) -> Result<(), Ended> {
        if self.paused {
            return Ok(());
        }
        let origins = Arc::clone(&self.setup.origins);
        let waiting = !*self.joined.borrow();
        let tracking = self.tracking;
        let owned = self.setup.handle.call(move |node, now| {
            if waiting && node.members().filter(|member| member.is_live()).count() < 2 {
                return None;
            }
            let keys = origins.iter().map(|origin| origin.name.as_bytes());
            if !tracking {
                // Not before: a node that is still alone would gain all and lose them again.
                for key in keys.clone() {
                    node.track(now, key);
                }
            }
            Some(keys.map(|key| node.is_mine(key)).collect::<Vec<bool>>())
        });
        let Some(owned) = owned.await.map_err(|_stopped| Ended::NodeGone)? else {
            return Ok(());
        };
        self.tracking = true;
        self.joined.send_if_modified(|joined| !core::mem::replace(joined, true));
        self.assigned.retain(|&number, assignment| {
            if !owned[number] {
                assignment.check.abort();
            }
            owned[number]
        });
        let gained: Vec<usize> = owned
            .iter()
            .enumerate()
            .filter(|&(number, &mine)| mine && !self.assigned.contains_key(&number))
            .map(|(number, _)| number)
            .collect();
        if gained.is_empty() { Ok(()) } else { self.take_over(gained).await }
    }

    /// Makes this node the only writer of what it gained, then starts to check it.
    async fn take_over(&mut self, gained: Vec<usize>) -> Result<(), Ended> {
        let origins = Arc::clone(&self.setup.origins);
        let name = self.setup.name.clone();
        let stamp = self.stamp();
        let teller = self.teller.clone();
        let numbers = gained.clone();
        let read = self.setup.handle.call(move |node, now| {
            let take = |&number: &usize| {
                let key = origins[number].name.as_bytes();
                let status = Status::decode(node.get(key)?)?;
                let mine = Status { checker: name.clone(), written_us: stamp, ..status };
                let written = node.insert(now, key, &mine.encode());
                let written = written.map(|_| teller.tell(What::Wrote(number, stamp)));
                Some((mine, written.map_err(|error| error.to_string())))
            };
            numbers.iter().map(take).collect::<Vec<_>>()
        });
        let read = read.await.map_err(|_stopped| Ended::NodeGone)?;
        for (number, read) in gained.into_iter().zip(read) {
            let origin = &self.setup.origins[number];
            let health = match &read {
                Some((status, _)) => Health::resume(origin, status),
                None => Health::new(origin, self.setup.clock.now_ms()),
            };
            let due = match read {
                Some((_, Err(refusal))) => {
                    self.complain(number, &refusal);
                    true
                }
                Some((_, Ok(()))) | None => false,
            };
            self.start_checks(number, health, due);
        }
        Ok(())
    }

    fn start_checks(&mut self, number: usize, health: Health, due: bool) {
        self.generation += 1;
        let generation = self.generation;
        let origins = Arc::clone(&self.setup.origins);
        let (checker, clock) = (self.setup.checker.clone(), self.setup.clock);
        let (found, tally) = (self.found.clone(), Arc::clone(&self.tally));
        let seldom = Arc::clone(&self.unchecked);
        let check = self.running.spawn(async move {
            let origin = &origins[number];
            let rhythm = Rhythm::new(&origin.name, origin.interval);
            let mut beat = clock.now();
            loop {
                // A beat that passed during a stall is skipped, not made up for: never two checks
                // in one interval.
                beat = rhythm.after(beat.max(clock.now()));
                tokio::time::sleep_until(clock.instant_at(beat)).await;
                let outcome = match checker.check(origin).await {
                    Ok(outcome) => outcome,
                    // Nothing was learned about the origin: its row of checks goes on at the next
                    // beat, and what is written stays.
                    Err(why) => {
                        tally.count_unchecked(&why);
                        seldom.tell(format_args!("cannot check {:?}: {why}", origin.name));
                        continue;
                    }
                };
                tally.count(&outcome);
                if found.send(Finding { number, generation, outcome }).await.is_err() {
                    return;
                }
            }
        });
        let assignment = Assignment {
            generation,
            health,
            unwritten: 0,
            due,
            rewritten: None,
            fresh: true,
            check,
        };
        self.assigned.insert(number, assignment);
    }

    /// Counts one check, and writes the status if there is news or it was long ago.
    async fn record(&mut self, finding: Finding) -> Result<(), Ended> {
        let Finding { number, generation, outcome } = finding;
        let now_ms = self.setup.clock.now_ms();
        let Some(assignment) = self.assigned.get_mut(&number) else {
            return Ok(());
        };
        if assignment.generation != generation {
            return Ok(());
        }
        let changed = assignment.health.observe(now_ms, &outcome);
        assignment.unwritten += 1;
        let known = assignment.health.state() != State::Unknown;
        let write = known && (changed || assignment.due || assignment.unwritten >= REFRESH);
        let first = core::mem::take(&mut assignment.fresh);
        if first {
            self.teller.tell(What::Took(number));
        }
        if write { self.write(number).await } else { Ok(()) }
    }

    /// Writes the status of an origin over everything that this node reads of it.
    async fn write(&mut self, number: usize) -> Result<(), Ended> {
        let stamp = self.stamp();
        let Some(assignment) = self.assigned.get_mut(&number) else {
            return Ok(());
        };
        let value = assignment.health.status(&self.setup.name, stamp).encode();
        let origins = Arc::clone(&self.setup.origins);
        let teller = self.teller.clone();
        let written = self.setup.handle.call(move |node, now| {
            let key = origins[number].name.as_bytes();
            let written = node.insert(now, key, &value);
            let written = written.map(|_| teller.tell(What::Wrote(number, stamp)));
            written.map_err(|error| error.to_string())
        });
        match written.await.map_err(|_stopped| Ended::NodeGone)? {
            Ok(()) => {
                assignment.unwritten = 0;
                assignment.due = false;
            }
            // `due` or `unwritten` still stand, so the next check tries again.
            Err(refusal) => {
                assignment.due = true;
                self.complain(number, &refusal);
            }
        }
        Ok(())
    }

    /// Looks at changed statuses: tells the observer, and writes over what others wrote to origins
    /// of this node.
    async fn answer_changes(&mut self, changed: BTreeSet<usize>) -> Result<(), Ended> {
        let mut look: Vec<(usize, bool)> = changed
            .into_iter()
            .map(|number| (number, self.assigned.contains_key(&number)))
            .collect();
        if self.setup.notices.is_none() {
            look.retain(|&(_, mine)| mine);
        }
        if look.is_empty() {
            return Ok(());
        }
        let origins = Arc::clone(&self.setup.origins);
        let read = self.setup.handle.call(move |node, _| {
            let me = node.id();
            let read = |&(number, mine): &(usize, bool)| {
                let key = origins[number].name.as_bytes();
                let foreign =
                    mine && node.siblings(key).any(|sibling| sibling.dot.replica.node != me);
                (number, foreign, node.get(key).and_then(Status::decode))
            };
            look.iter().map(read).collect::<Vec<_>>()
        });
        let read = read.await.map_err(|_stopped| Ended::NodeGone)?;
        for (number, foreign, status) in read {
            if let Some(status) = &status
                && status.checker != self.setup.name
            {
                self.teller.tell(What::Saw(number, status.written_us));
            }
            if foreign {
                self.write_over(number, status).await?;
            }
        }
        Ok(())
    }

    /// Another node wrote to an origin of this one.
    async fn write_over(&mut self, number: usize, read: Option<Status>) -> Result<(), Ended> {
        let Some(assignment) = self.assigned.get_mut(&number) else {
            return Ok(());
        };
        let origin = &self.setup.origins[number];
        // A node that has not decided yet knows less than whoever wrote.
        if assignment.health.state() == State::Unknown
            && let Some(status) = &read
        {
            assignment.health = Health::resume(origin, status);
        }
        // Two nodes that both hold themselves for the owner would answer each other as fast as the
        // network goes.
        let recent = |at: Instant| at.elapsed() < origin.interval;
        if assignment.rewritten.is_some_and(recent) || assignment.health.state() == State::Unknown {
            assignment.due = true;
            return Ok(());
        }
        assignment.rewritten = Some(Instant::now());
        self.write(number).await
    }

    /// Unix time in microseconds, above every stamp before.
    fn stamp(&mut self) -> u64 {
        let now = self.setup.clock.now();
        self.last_stamp = (self.last_stamp + 1).max(micros(now));
        self.last_stamp
    }

    /// Says once that the map refuses statuses; it tends to refuse all of them from then on.
    fn complain(&mut self, number: usize, refusal: &str) {
        if !core::mem::replace(&mut self.told_refusal, true) {
            let name = &self.setup.origins[number].name;
            failure::tell(format_args!("the map refuses the status of {name:?}: {refusal}"));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
