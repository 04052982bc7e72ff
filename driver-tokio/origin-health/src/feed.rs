//! What changes at a node, told to everyone who watches.
//!
//! One task follows the node's events for all watchers. It notes which origins and whether the
//! members changed, reads those and no others once per [`Limits::tick`], and hands the rows to a
//! bounded channel that every watcher reads at its own pace. One change costs one read and one row,
//! however many origins there are and however many watch. Only a change of membership makes it read
//! all origins, because any of them may have a new owner.
//!
//! The map has no event for a concurrent value that is not the one that is read, so the number of
//! values that an origin has is that of its last change.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::time::Duration;

use brickwork_core::{Event, NodeId};
use brickwork_tokio::{Events, Handle, Stopped};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub(crate) use self::message::{Kind, Message};
pub(crate) use self::watcher::{Refused, Watcher};
use crate::health::State;
use crate::origins::Origin;
use crate::reading::{Reading, Roll};
use crate::schedule::{WallClock, millis};

mod message;
#[cfg(test)]
mod tests;
mod watcher;

/// What bounds the work and the memory of a feed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Least time between two rounds of messages.
    pub(crate) tick: Duration,
    /// How often members are told anew while somebody watches: their round-trip times change
    /// without an event.
    pub(crate) refresh: Duration,
    /// Most origins in one message, and in one visit to the node.
    pub(crate) rows: usize,
    /// Messages that a watcher may lag behind before it starts over with everything.
    pub(crate) backlog: usize,
    /// Most watchers at a time.
    pub(crate) watchers: usize,
}

impl Limits {
    /// Those of a real node. A message has some 60 kB at most, so the backlog has some 4 MB.
    pub(crate) const NODE: Self = Self {
        tick: Duration::from_millis(250),
        refresh: Duration::from_secs(5),
        rows: 500,
        backlog: 64,
        watchers: 64,
    };
}

/// What a feed reads.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The node.
    pub(crate) handle: Handle,
    /// The node's name.
    pub(crate) name: String,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The list of origins.
    pub(crate) origins: Arc<[Origin]>,
    /// Unix time.
    pub(crate) clock: WallClock,
}

/// Sums over everything that the feed has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Origins that are up.
    pub(crate) up: usize,
    /// Origins that are down.
    pub(crate) down: usize,
    /// Origins of which nobody has told enough.
    pub(crate) unknown: usize,
    /// Origins that this node owns.
    pub(crate) owned: usize,
    /// Origins with more than one concurrent value.
    pub(crate) contested: usize,
    /// Suspicions heard of.
    pub(crate) suspected: u64,
    /// Suspicions that turned out wrong.
    pub(crate) recovered: u64,
    /// Members confirmed failed.
    pub(crate) failed: u64,
    /// Members that left gracefully.
    pub(crate) left: u64,
    /// Events that came faster than the feed could follow.
    pub(crate) missed: u64,
}

/// Reaches a running feed. It ends with its node, and with it all its watchers.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    source: Source,
    limits: Limits,
    started_ms: u64,
    /// Weak: watchers must see the end of the task.
    messages: broadcast::WeakSender<Message>,
    counts: watch::Receiver<Counts>,
    seats: Arc<Semaphore>,
}

impl Feed {
    /// Starts to follow the node.
    pub(crate) async fn start(source: Source, limits: Limits) -> Result<Self, Stopped> {
        let events = source.handle.events();
        let me = source.handle.call(|node, _| node.id()).await?;
        let origins = source.origins.len();
        let (messages, _) = broadcast::channel(limits.backlog);
        let (counts_in, counts) = watch::channel(Counts { unknown: origins, ..Counts::default() });
        let feed = Self {
            started_ms: source.clock.now_ms(),
            source: source.clone(),
            limits,
            messages: messages.downgrade(),
            counts,
            seats: Arc::new(Semaphore::new(limits.watchers)),
        };
        let mut by_name: Vec<usize> = (0..origins).collect();
        by_name.sort_unstable_by_key(|&number| &source.origins[number].name);
        let task = Task {
            me,
            known: vec![Known::default(); origins],
            by_name,
            stale: BTreeSet::new(),
            // What happened before the events began is read, not heard.
            all_stale: true,
            members_stale: true,
            roll: Message::default(),
            source,
            limits,
            events,
            messages,
            counts: counts_in,
        };
        tokio::spawn(task.run());
        Ok(feed)
    }

    /// What it reads.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The sums now.
    pub(crate) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.limits.watchers - self.seats.available_permits()
    }

    /// When the feed started, in Unix time in milliseconds.
    pub(crate) fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Starts to watch: first everything, then what changes.
    ///
    /// # Errors
    ///
    /// If too many watch already, or the node is gone.
    pub(crate) fn watch(&self) -> Result<Watcher, Refused> {
        Watcher::new(self)
    }
}

impl Source {
    /// Reads these origins in one visit to the node; there are at most [`Limits::rows`].
    async fn read(&self, numbers: Vec<usize>) -> Result<Vec<Reading>, Stopped> {
        let origins = Arc::clone(&self.origins);
        let read = self.handle.call(move |node, _| {
            let read = |number: usize| Reading::new(node, number, &origins[number]);
            numbers.into_iter().map(read).collect()
        });
        read.await
    }

    /// Reads the members.
    pub(crate) async fn read_roll(&self) -> Result<Roll, Stopped> {
        self.handle.call(|node, _| Roll::read(node)).await.map(Roll::sort)
    }
}

/// What was last told of an origin, as far as it takes to see that it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    state: State,
    owner: Option<NodeId>,
    siblings: usize,
    /// When the status was written, and since when it holds: two statuses of one origin that are
    /// equal in both are one.
    written_us: u64,
    since_ms: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self { state: State::Unknown, owner: None, siblings: 0, written_us: 0, since_ms: 0 }
    }
}

impl Known {
    fn new(reading: &Reading) -> Self {
        let status = reading.status.as_ref();
        Self {
            state: reading.state(),
            owner: reading.owner.as_ref().map(|owner| owner.id()),
            siblings: reading.siblings,
            written_us: status.map_or(0, |status| status.written_us),
            since_ms: status.map_or(0, |status| status.since_ms),
        }
    }

    /// The sums to which it adds one.
    fn counted<'c>(
        &self,
        me: NodeId,
        counts: &'c mut Counts,
    ) -> impl Iterator<Item = &'c mut usize> {
        let state = match self.state {
            State::Up => &mut counts.up,
            State::Down => &mut counts.down,
            State::Unknown => &mut counts.unknown,
        };
        let owned = (self.owner == Some(me)).then_some(&mut counts.owned);
        let contested = (self.siblings > 1).then_some(&mut counts.contested);
        [Some(state), owned, contested].into_iter().flatten()
    }
}

struct Task {
    source: Source,
    limits: Limits,
    me: NodeId,
    events: Events,
    messages: broadcast::Sender<Message>,
    counts: watch::Sender<Counts>,
    /// For every origin of the list.
    known: Vec<Known>,
    /// The places of the origins in the order of their names: finds an origin by its key.
    by_name: Vec<usize>,
    /// Origins that may have changed since they were last read.
    stale: BTreeSet<usize>,
    /// Any origin may have changed.
    all_stale: bool,
    members_stale: bool,
    /// The members as they were last told.
    roll: Message,
}

impl Task {
    /// Works until the node is gone.
    async fn run(mut self) {
        let mut refresh = interval(self.limits.refresh);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        loop {
            let stale = self.all_stale || self.members_stale || !self.stale.is_empty();
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.note(&event),
                    None => return,
                },
                () = sleep_until(due), if stale => {
                    if self.publish().await.is_err() {
                        return;
                    }
                    due = Instant::now() + self.limits.tick;
                }
                _ = refresh.tick() => self.members_stale |= self.is_watched(),
            }
        }
    }

    fn is_watched(&self) -> bool {
        self.messages.receiver_count() > 0
    }

    /// Notes what an event makes stale.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Changed { key, .. } => self.stale.extend(self.number(key)),
            Event::Joined { .. } | Event::Restarted { .. } => self.note_members(|_| {}),
            Event::Failed { .. } => self.note_members(|counts| counts.failed += 1),
            Event::Left { .. } => self.note_members(|counts| counts.left += 1),
            Event::Missed { events } => self.note_members(|counts| counts.missed += events),
            Event::Suspected { .. } => {
                self.members_stale = true;
                self.counts.send_modify(|counts| counts.suspected += 1);
            }
            Event::Recovered { .. } => {
                self.members_stale = true;
                self.counts.send_modify(|counts| counts.recovered += 1);
            }
            Event::Updated { .. } => self.members_stale = true,
            // These, and what later versions tell, change nothing that is shown.
            Event::Conflict { .. } | Event::LeaveFinished { .. } | Event::Full | _ => {}
        }
    }

    /// Other members may mean another owner for every origin.
    fn note_members(&mut self, count: impl FnOnce(&mut Counts)) {
        self.members_stale = true;
        self.all_stale = true;
        self.stale.clear();
        self.counts.send_modify(count);
    }

    /// The place of the origin with this key; none for a key of somebody else.
    fn number(&self, key: &[u8]) -> Option<usize> {
        let name = |&number: &usize| self.source.origins[number].name.as_bytes();
        let at = self.by_name.binary_search_by(|number| name(number).cmp(key)).ok()?;
        Some(self.by_name[at])
    }

    /// Reads what is stale, and tells what of it changed.
    async fn publish(&mut self) -> Result<(), Stopped> {
        if core::mem::take(&mut self.members_stale) {
            let roll = Message::members(&self.source.read_roll().await?);
            if roll != self.roll {
                self.roll = roll.clone();
                // Nobody watching is fine.
                let _ = self.messages.send(roll);
            }
        }
        let stale = core::mem::take(&mut self.stale);
        let numbers: Vec<usize> = if core::mem::take(&mut self.all_stale) {
            (0..self.known.len()).collect()
        } else {
            stale.into_iter().collect()
        };
        let mut counts = *self.counts.borrow();
        let mut rows = Vec::new();
        for numbers in numbers.chunks(self.limits.rows) {
            for reading in self.source.read(numbers.to_vec()).await? {
                if !self.learn(&reading, &mut counts) {
                    continue;
                }
                rows.push(reading);
                if rows.len() == self.limits.rows {
                    self.tell(&mut rows);
                }
            }
        }
        self.tell(&mut rows);
        self.counts.send_replace(counts);
        Ok(())
    }

    /// Takes over what was read of an origin. Returns whether it is news.
    fn learn(&mut self, reading: &Reading, counts: &mut Counts) -> bool {
        let (known, now) = (&mut self.known[reading.number], Known::new(reading));
        if *known == now {
            return false;
        }
        known.counted(self.me, counts).for_each(|count| *count -= 1);
        now.counted(self.me, counts).for_each(|count| *count += 1);
        *known = now;
        true
    }

    fn tell(&self, rows: &mut Vec<Reading>) {
        if !rows.is_empty() && self.is_watched() {
            // The last watcher may have gone in this moment.
            let _ = self.messages.send(Message::origins(&self.source.origins, rows));
        }
        rows.clear();
    }
}
