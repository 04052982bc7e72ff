//! Real replicas beside the model, and the comparison after every step.

mod calm;
mod disk;
mod judge;
mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use brickwork_core::map::{Config, Context, Dot, InsertError, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

use self::disk::Disk;
use self::judge::Look;
use super::{Epochs, Plan, Step};
use crate::common::maps::addr;
use crate::common::{Dice, frame_of};
use crate::model::{Events, History};

const PULL: u8 = 0xa1;
const CHUNK: u8 = 0xa3;
const FETCH: u8 = 0xa4;
const STAGE: u8 = 0xa5;
const FRAGMENT: u8 = 0xa8;
const SEALS: u8 = 0xa9;
const BUCKETS: u8 = 0xaa;
const DIFFER: u8 = 0xab;
/// Most datagrams that are under way at once, for each replica; fewer than six count as six.
const MAX_FLIGHTS: usize = 16;

/// What the histories met, by name.
pub type Coverage = BTreeMap<&'static str, u64>;

pub type Outcome<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($holds:expr, $($said:tt)+) => {
        if !$holds {
            return Err(format!($($said)+));
        }
    };
}

use ensure;

/// Events of each key, which most often are those of before, and the same for many.
type PerKey = Rc<Vec<Rc<Events>>>;

/// The events of a key, to be changed.
fn of_key(all: &mut PerKey, key: usize) -> &mut Events {
    Rc::make_mut(&mut Rc::make_mut(all)[key])
}

#[derive(Clone)]
struct Flight {
    from: usize,
    to: usize,
    /// The boots of both when it was sent.
    boots: (u64, u64),
    /// What the sender reflected then: no datagram can bring more.
    knew: PerKey,
    bytes: Vec<u8>,
}

/// How often all started again, and how often this replica forgot what it had set aside.
type Past = (u64, u64);

/// A replica and what it reflects of each key, by what it claims and what the writers had seen.
struct Replica {
    map: Map,
    /// Its boot epoch, which is not that of its life any more if that was sealed.
    boot: u64,
    /// The lives of this map, as far as it was looked at.
    lives: Vec<ReplicaId>,
    /// If it has a log.
    disk: Option<Disk>,
    /// Whether a crash may have taken back that it goes on as another life.
    taken_back: bool,
    /// How many it had made at the last look.
    writes: u64,
    claims: PerKey,
    reflects: PerKey,
    /// What all that is reflected comes to, and what is shown of that: not every value with a void name.
    whole: PerKey,
    value: PerKey,
    /// Of each key what was seen when it was last looked at.
    looks: Vec<Option<Look>>,
    /// Writes to no key that are reflected, new ones and those that were looked at before.
    nowhere: Vec<(Dot, PerKey)>,
    nowhere_before: Events,
    /// What the sender knew of what was taken since the last look.
    told: Option<PerKey>,
    /// What those knew who gave full syncs, whose units are put aside.
    staged: Option<PerKey>,
}

impl Replica {
    /// Its last write.
    fn last(&self) -> Dot {
        let dot = |counter| Dot::new(self.map.replica(), counter);
        let made = (1..).take_while(|counter| self.map.reflects(dot(*counter)));
        dot(made.last().unwrap_or(0))
    }
}

struct Reading {
    at: usize,
    key: usize,
    context: Context,
    siblings: Rc<Events>,
}

pub struct World<'p> {
    plan: &'p Plan,
    now: Instant,
    replicas: Vec<Replica>,
    keys: Vec<Vec<u8>>,
    history: History,
    /// Writes to no key, which stand for all that their writer reflected then: they are told with all of it.
    nowhere: BTreeMap<Dot, PerKey>,
    flights: Vec<Flight>,
    /// Each with how many restores there had been.
    taken: Vec<(Flight, Past)>,
    readings: Vec<Reading>,
    restarts: u64,
    restores: u64,
    /// Of each node the life with the highest epoch that it ever had.
    last_lives: BTreeMap<NodeId, ReplicaId>,
    /// All lives that there ever were, all boots, and lives that came after later ones.
    used: BTreeSet<ReplicaId>,
    boots: BTreeSet<ReplicaId>,
    late: BTreeSet<ReplicaId>,
    /// The content that each context was seen with: one function for all replicas and times.
    contents: BTreeMap<u64, u64>,
    coverage: Coverage,
    /// Where datagrams are written.
    buf: [u8; 1_400],
}

/// Runs the plan to its end and the calm after it.
pub fn run(plan: &Plan) -> Outcome<Coverage> {
    let mut world = World::new(plan)?;
    for (number, &(step, luck)) in plan.steps.iter().enumerate() {
        world
            .step(step, &mut Dice(luck))
            .map_err(|said| format!("step {number}, {step:?}: {said}"))?;
    }
    let synced: u64 = world.replicas.iter().map(|replica| replica.map.stats().full_syncs).sum();
    *world.coverage.entry("full sync amid writes").or_default() += synced;
    world.end().map_err(|said| format!("in the calm at the end: {said}"))?;
    world.met("many replicas", plan.replicas > 6);
    Ok(world.coverage)
}

fn id(place: usize) -> u64 {
    place as u64 + 1
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan) -> Outcome<Self> {
        let own = (0..plan.keys).map(|key| format!("key-{key}").into_bytes());
        let past = (0..plan.crowd).map(|life| format!("past-{life}").into_bytes());
        let keys: Vec<Vec<u8>> = own.chain(past).collect();
        let mut world = Self {
            plan,
            now: Instant::from_nanos(1_000_000_000),
            replicas: Vec::new(),
            history: History::of(&keys),
            keys,
            nowhere: BTreeMap::new(),
            flights: Vec::new(),
            taken: Vec::new(),
            readings: Vec::new(),
            restarts: 0,
            restores: 0,
            last_lives: BTreeMap::new(),
            used: BTreeSet::new(),
            boots: BTreeSet::new(),
            late: BTreeSet::new(),
            contents: BTreeMap::new(),
            coverage: Coverage::new(),
            buf: [0; 1_400],
        };
        for at in 0..plan.replicas {
            let first = if plan.epochs == Epochs::Rise { 1 } else { 1_000 };
            world.boots.insert(ReplicaId::new(NodeId(id(at)), first));
            let replica = world.replica(id(at), first);
            world.replicas.push(replica);
        }
        world.begin_with_a_crowd()?;
        world.meet_all();
        Ok(world)
    }

    fn replica(&self, id: u64, epoch: u64) -> Replica {
        let mut config = Config::lan();
        (config.max_key, config.max_value) = (16, 6_000);
        config.collect_interval = Duration::from_millis(self.plan.collect);
        config.keep_for = Duration::from_millis(self.plan.keep);
        config.compact_log_from = 600;
        let place = usize::try_from(id - 1).unwrap_or(0);
        config.max_past_lives = self.plan.past[place % self.plan.past.len()];
        if self.plan.seals {
            config.sync_interval = Duration::from_millis(5);
            config.pull_interval = Duration::from_millis(5);
        }
        config.ordered = self.plan.seed.is_multiple_of(2);
        config.max_window_dots = self.plan.window;
        if self.plan.small_budget {
            config.pull_budget = self.plan.max_datagram;
        }
        if self.plan.compared {
            config.max_listed = 0;
        }
        let mut entropy = [7; 32];
        entropy[..8].copy_from_slice(&self.plan.seed.to_le_bytes());
        entropy[8..16].copy_from_slice(&(id << 8 | epoch).to_le_bytes());
        // Whoever starts again draws other numbers, or it would take old answers for those that it waits for.
        entropy[16..24].copy_from_slice(&self.restores.to_le_bytes());
        let life = ReplicaId::new(NodeId(id), epoch);
        let mut map =
            Map::new(self.now, life, "test", config, self.plan.max_datagram, entropy).unwrap();
        let disk = self.plan.durable.then(|| {
            map.start_log();
            Disk::default()
        });
        let none: PerKey = Rc::new(vec![Rc::default(); self.keys.len()]);
        Replica {
            map,
            boot: epoch,
            lives: vec![life],
            disk,
            taken_back: false,
            writes: 0,
            claims: none.clone(),
            reflects: none.clone(),
            whole: none.clone(),
            value: none,
            looks: self.keys.iter().map(|_| None).collect(),
            nowhere: Vec::new(),
            nowhere_before: Events::new(),
            told: None,
            staged: None,
        }
    }

    /// Nodes that are gone wrote one key each, and told the first replica.
    fn begin_with_a_crowd(&mut self) -> Outcome {
        let me = id(0);
        for past in 0..self.plan.crowd {
            let (id, key) = (100 + past as u64, self.plan.keys + past);
            let mut ghost = self.replica(id, 1).map;
            ghost.peer_up(self.now, NodeId(me), 1, addr(me));
            let dot = ghost.insert(self.now, &self.keys[key], b"past").unwrap();
            self.history.write(dot, &self.keys[key], Some(b"past"), &Events::new(), None)?;
            let map = &mut self.replicas[0].map;
            map.peer_up(self.now, NodeId(id), 1, addr(id));
            while let Some(write) = ghost.poll_log() {
                ghost.log_synced(self.now, write.ticket);
            }
            let mut buf = [0; 1400];
            while let Some(sent) = ghost.poll_transmit(&mut buf) {
                let mut bytes = sent.payload.to_vec();
                map.handle_packet(self.now, addr(id), &mut bytes).unwrap();
            }
            map.peer_down(self.now, NodeId(id));
        }
        let keys = 0..self.keys.len();
        let past = keys.map(|key| self.history.of_number(key).iter().copied().collect());
        self.replicas[0].told = Some(Rc::new(past.map(Rc::new).collect()));
        self.check(0)
    }

    fn meet_all(&mut self) {
        for at in 0..self.replicas.len() {
            (0..self.replicas.len()).for_each(|peer| self.meet(at, peer));
        }
    }

    fn meet(&mut self, at: usize, peer: usize) {
        let life = self.replicas[peer].map.replica();
        let boot = self.replicas[peer].boot;
        self.replicas[at].map.peer_up(self.now, life.node, boot, addr(life.node.0));
    }

    fn step(&mut self, step: Step, luck: &mut Dice) -> Outcome {
        let touched = match step {
            Step::Insert { at, key, len } => Some(self.insert(at, key, len)?),
            Step::Remove { at, key } => Some(self.remove(at, key)?),
            Step::Burst { at, count } => {
                for _ in 0..count {
                    let key = luck.below(self.plan.keys);
                    if luck.percent(20) {
                        self.remove(at, key)?;
                    } else {
                        self.insert(at, key, luck.below(20))?;
                    }
                    self.check(at)?;
                }
                Some(at)
            }
            Step::Read { at, key } => {
                self.read(at, key);
                None
            }
            Step::Resolve { pick, put } => self.resolve(pick, put)?,
            Step::Deliver { pick } => self.deliver_any(pick, luck)?,
            Step::Repeat { pick } => self.repeat(pick)?,
            Step::Pass { millis } => {
                self.now += Duration::from_millis(millis);
                None
            }
            Step::Fire { at } => {
                let map = &mut self.replicas[at].map;
                let late = map.poll_timeout().is_some_and(|due| due < self.now);
                let before = map.stats().pulls_timed_out;
                map.handle_timeout(self.now);
                let given_up = map.stats().pulls_timed_out > before;
                self.met("late timer", late);
                self.met("pull timed out", given_up);
                Some(at)
            }
            Step::Restore { at } if self.plan.durable => self.crash(at, luck)?,
            Step::Restore { at } => self.restore(at)?,
            Step::Restart { at } => self.restart(at, luck),
            Step::Down { at, peer } => {
                self.replicas[at].map.peer_down(self.now, NodeId(id(peer)));
                self.met("peer down", at != peer);
                Some(at)
            }
            Step::Up { at, peer } => {
                self.meet(at, peer);
                Some(at)
            }
            Step::Part { group, millis } => {
                self.part(group, Duration::from_millis(millis))?;
                None
            }
        };
        let Some(at) = touched else { return Ok(()) };
        self.check(at)?;
        self.write_log(at, luck)?;
        // What is not collected at once merges with what comes.
        if luck.percent(75) {
            self.collect(at, luck);
        }
        Ok(())
    }

    fn met(&mut self, what: &'static str, really: bool) {
        if really {
            *self.coverage.entry(what).or_default() += 1;
        }
    }

    fn value(&self, len: usize) -> Vec<u8> {
        let mut value = format!("{}", self.history.len()).into_bytes();
        // So long that all siblings of a key together fit a datagram, or that one of them does not.
        let share = if self.plan.large { 12 } else { 5_000 };
        value.resize(value.len() + len * self.plan.max_datagram / share, b'.');
        value
    }

    fn insert(&mut self, at: usize, key: usize, len: usize) -> Outcome<usize> {
        let value = self.value(len);
        let done = self.replicas[at].map.insert(self.now, &self.keys[key], &value).map(Some);
        self.note(at, key, Some(&value), None, done)?;
        Ok(at)
    }

    fn remove(&mut self, at: usize, key: usize) -> Outcome<usize> {
        let replica = &mut self.replicas[at];
        let live = !replica.value[key].is_empty();
        let done = replica.map.remove(self.now, &self.keys[key]);
        ensure!(done.is_err() || done == Ok(live), "{done:?} for a key with a value: {live}");
        let dot = replica.last();
        self.note(at, key, None, None, done.map(|removed| removed.then_some(dot)))?;
        Ok(at)
    }

    fn read(&mut self, at: usize, key: usize) {
        let context = self.replicas[at].map.context(&self.keys[key]);
        let siblings = self.replicas[at].value[key].clone();
        self.readings.push(Reading { at, key, context, siblings });
    }

    /// Merges what was read, which may be stale by now.
    fn resolve(&mut self, pick: usize, put: bool) -> Outcome<Option<usize>> {
        let Some(pick) = pick.checked_rem(self.readings.len()) else { return Ok(None) };
        let Reading { at, key, context, siblings } = self.readings.swap_remove(pick);
        let value = put.then(|| self.value(0));
        let live = &self.replicas[at].value[key];
        let (stale, survive) = (*live != siblings, !live.is_subset(&siblings));
        self.met("stale resolve", stale);
        self.met("stale resolve beside a newer value", survive);
        let map = &mut self.replicas[at].map;
        let done = map.resolve(self.now, &self.keys[key], &context, value.as_deref());
        self.note(at, key, value.as_deref(), Some(&siblings), done)?;
        Ok(Some(at))
    }

    /// Writes in the model what was written in the map.
    fn note(
        &mut self,
        at: usize,
        key: usize,
        value: Option<&[u8]>,
        read: Option<&Events>,
        done: Result<Option<Dot>, InsertError>,
    ) -> Outcome {
        let replica = &self.replicas[at];
        match done {
            Ok(Some(dot)) => {
                let own = replica.last();
                ensure!(dot == own, "OC6: {dot:?} instead of {own:?}");
                let seen = &replica.reflects[key];
                // What is lost is not superseded by who does not have it.
                let shown = (self.plan.epochs != Epochs::Rise).then_some(&*replica.value[key]);
                self.history.write(dot, &self.keys[key], value, seen, read.or(shown))?;
                self.met(if value.is_some() { "insert" } else { "removal" }, true);
            }
            Ok(None) => {
                let nothing = value.is_none() && replica.value[key].is_empty();
                ensure!(nothing, "a write was not made");
            }
            Err(InsertError::EntryTooLarge { .. }) => self.met("write without room", true),
            Err(error) => return Err(format!("far from every limit: {error}")),
        }
        Ok(())
    }

    fn deliver_any(&mut self, pick: usize, luck: &mut Dice) -> Outcome<Option<usize>> {
        let Some(pick) = pick.checked_rem(self.flights.len()) else { return Ok(None) };
        let flight = if luck.percent(self.plan.duplication) {
            self.flights[pick].clone()
        } else {
            self.flights.remove(pick)
        };
        let to = flight.to;
        self.deliver(flight)?;
        Ok(Some(to))
    }

    fn deliver(&mut self, flight: Flight) -> Outcome {
        let current = self.boots(flight.from, flight.to);
        let map = &mut self.replicas[flight.to].map;
        let before = *map.stats();
        let taken = map.handle_packet(self.now, addr(id(flight.from)), &mut flight.bytes.clone());
        ensure!(taken == Ok(()), "a sound datagram is refused: {taken:?}");
        let after = *map.stats();
        let chunk = frame_of(&flight.bytes, CHUNK).is_some();
        let push = frame_of(&flight.bytes, CHUNK).is_some_and(|body| body[8] == 0);
        let news = after.dots_received > before.dots_received;
        self.met("push with news", push && news);
        self.met("push that shows a gap", push && news && after.pulls_sent > before.pulls_sent);
        self.met("answer with news", chunk && !push && news);
        self.met("chunk without news", chunk && !news);
        let fragment = frame_of(&flight.bytes, FRAGMENT);
        self.met("entry of several datagrams", fragment.is_some_and(|body| body[8] & 1 == 0));
        self.met("unit of several datagrams", fragment.is_some_and(|body| body[8] & 1 == 1));
        let units = frame_of(&flight.bytes, STAGE).is_some();
        let synced = after.full_syncs > before.full_syncs;
        self.met("full sync", synced);
        self.met("full sync of several datagrams", units && !synced);
        self.met("chunk to an older life", chunk && flight.boots.1 != current.1);
        self.met("chunk from an older life", chunk && flight.boots.0 != current.0);
        let skipped = after.misaddressed > before.misaddressed;
        // What was judged by the context of one life says nothing to the next.
        let stale = chunk && flight.boots.1 != current.1;
        ensure!(skipped || !stale, "a chunk for an older life of {} is taken", flight.to);
        if !skipped {
            self.note_told(&flight);
            let past = self.past(flight.to);
            self.taken.push((flight, past));
        }
        Ok(())
    }

    /// What the sender of a datagram reflected is what it may bring; a full sync, what all of its knew.
    fn note_told(&mut self, flight: &Flight) {
        let replica = &mut self.replicas[flight.to];
        let unit = frame_of(&flight.bytes, FRAGMENT).is_some_and(|body| body[8] & 1 == 1);
        if frame_of(&flight.bytes, STAGE).is_none() && !unit {
            replica.told = Some(flight.knew.clone());
            return;
        }
        let staged = replica.staged.get_or_insert_with(|| flight.knew.clone());
        for (key, knew) in flight.knew.iter().enumerate() {
            if !Rc::ptr_eq(&staged[key], knew) && !knew.is_subset(&staged[key]) {
                of_key(staged, key).extend(knew);
            }
        }
        replica.told = Some(staged.clone());
    }

    fn boots(&self, from: usize, to: usize) -> (u64, u64) {
        (self.replicas[from].boot, self.replicas[to].boot)
    }

    /// How often a replica may have forgotten what it had set aside.
    fn past(&self, at: usize) -> Past {
        (self.restores, self.replicas[at].map.stats().windows_forgotten)
    }

    /// I9: what was taken before changes nothing.
    fn repeat(&mut self, pick: usize) -> Outcome<Option<usize>> {
        let Some(pick) = pick.checked_rem(self.taken.len()) else { return Ok(None) };
        let (flight, past) = self.taken[pick].clone();
        // What came in fragments may have waited for this one again.
        let fragment = frame_of(&flight.bytes, FRAGMENT).is_some();
        if fragment || flight.boots.1 != self.boots(flight.from, flight.to).1 {
            return Ok(None);
        }
        let map = &mut self.replicas[flight.to].map;
        let (before, bytes) = ((map.digest(), map.len()), map.bytes());
        let overwritten = map.stats().dots_overwritten;
        let forgotten = self.past(flight.to) != past;
        let map = &mut self.replicas[flight.to].map;
        map.handle_packet(self.now, addr(id(flight.from)), &mut flight.bytes.clone()).unwrap();
        let after = (map.digest(), map.len());
        // What was only set aside is forgotten by who starts again, or when nobody goes on with it, and takes effect when it
        // comes again.
        let grew = map.stats().dots_overwritten > overwritten;
        let again = grew && forgotten;
        ensure!(
            before == after || again,
            "I9: a repeated datagram changed {before:?} to {after:?}"
        );
        // It may be the last word that garbage waited for.
        ensure!(map.bytes() <= bytes, "I9: a repeated datagram took room");
        ensure!(map.poll_event().is_none(), "I9: a repeated datagram caused an event");
        self.met("repeated chunk", frame_of(&flight.bytes, CHUNK).is_some());
        Ok(Some(flight.to))
    }

    /// Puts what a replica owes under way.
    fn collect(&mut self, at: usize, luck: &mut Dice) {
        let mut chunk_to = None;
        for flight in self.drain(at) {
            let chunk = frame_of(&flight.bytes, CHUNK).is_some();
            self.met("chunk split", chunk && chunk_to == Some(flight.to));
            chunk_to = chunk.then_some(flight.to);
            let paged = frame_of(&flight.bytes, PULL).is_some_and(is_paged);
            self.met("paged digest", paged);
            let share = frame_of(&flight.bytes, PULL).is_some_and(is_for_share);
            self.met("pull for a share", share);
            self.met("contexts compared", frame_of(&flight.bytes, DIFFER).is_some());
            if luck.percent(self.plan.loss) {
                self.met("lost chunk", chunk);
                continue;
            }
            let most = MAX_FLIGHTS * self.replicas.len().max(6);
            if self.flights.len() == most {
                self.flights.remove(luck.below(most));
            }
            self.flights.push(flight);
        }
    }

    fn drain(&mut self, at: usize) -> Vec<Flight> {
        let mut sent = Vec::new();
        while let Some(datagram) = self.replicas[at].map.poll_transmit(&mut self.buf) {
            let to = usize::from(datagram.to.port()) - 1;
            sent.push((to, datagram.payload.to_vec()));
        }
        let living = sent.into_iter().filter(|(to, _)| *to < self.replicas.len());
        let knew = &self.replicas[at].reflects;
        let flight = |(to, bytes)| Flight {
            from: at,
            to,
            boots: self.boots(at, to),
            knew: knew.clone(),
            bytes,
        };
        living.map(flight).collect()
    }
}

/// Whether a pull tells of a part of the replicas only.
fn flags_of(pull: &[u8]) -> u8 {
    let varint =
        |from: usize| from + pull[from..].iter().take_while(|byte| **byte > 127).count() + 1;
    pull[varint(varint(0)) + 8]
}

fn is_paged(pull: &[u8]) -> bool {
    flags_of(pull) & 2 != 0
}

fn is_for_share(pull: &[u8]) -> bool {
    flags_of(pull) & 64 != 0
}
