//! Places with nodes, a network between them, and virtual time.

use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::adversary::Wire;
use super::checked::Checked;
use super::clock::Clock;
use super::fault::{Delay, Fault, Trouble};
use super::lives::{Fuse, fresh};
use super::net::{Expect, Luck, Net};
use crate::time::Instant;
use crate::{Config, Event, Identity, NodeId};

/// What a place holds back while its node is busy, if nothing else is said.
pub(super) const INBOX: usize = 4_096;
/// What wall clocks show at the beginning, in microseconds.
const WALL: u64 = 1 << 50;
/// Between the boot epochs of two lives, as microseconds of a wall clock would be.
const EPOCH: u64 = 1_000_000;

/// The end of time.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// One life of a node at a place, as the simulation knows it to be true.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Life {
    /// Its boot epoch when it started; the node may adopt a higher one in the join handshake.
    pub started_as: u64,
    /// All boot epochs that it ever claimed.
    pub epochs: Vec<u64>,
    /// The highest incarnation that it ever issued.
    pub incarnation: u32,
    /// When it began.
    pub from: Instant,
    /// When and how it ended.
    pub ended: Option<(Instant, End)>,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Without a word.
    Crash,
    /// With a graceful leave that was over.
    Leave,
}

/// A place: its node, if that is up, its past, and what troubles it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) config: Config,
    /// Bytes of metadata.
    pub(super) meta: usize,
    pub(super) addr: SocketAddr,
    pub(super) node: Option<Checked>,
    pub(super) lives: Vec<Life>,
    pub(super) seeds: Vec<usize>,
    pub(super) clock: Clock,
    /// The wake-up that counts; those found in the queue for other times are void.
    pub(super) wake: Option<Instant>,
    /// Until then it takes no input.
    pub(super) busy_until: Instant,
    /// What arrived meanwhile.
    pub(super) inbox: VecDeque<(SocketAddr, Vec<u8>, Expect)>,
    pub(super) troubles: BTreeMap<usize, Trouble>,
    /// Datagrams sent, which numbers their luck.
    pub(super) sent: u64,
    /// Wake-ups since the last that found something due.
    pub(super) idle_wakes: u32,
    pub(super) events: Vec<Event>,
    pub(super) moves: u16,
    /// The source that others see instead of its address, if a rebinding has changed it …
    pub(super) outside: Option<SocketAddr>,
    /// … and how many have.
    pub(super) rebound: u16,
    pub(super) fuse: Option<Fuse>,
    /// How far its wall clock is behind at the next start.
    pub(super) behind: Duration,
    /// Until then its socket is full.
    pub(super) full_until: Instant,
}

impl Place {
    pub(super) fn has(&self, test: impl Fn(&Trouble) -> bool) -> bool {
        self.troubles.values().any(test)
    }

    pub(super) fn find<T>(&self, of: impl Fn(&Trouble) -> Option<T>) -> Option<T> {
        self.troubles.values().find_map(of)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Arrive {
        place: usize,
        from: SocketAddr,
        expect: Expect,
        bytes: Vec<u8>,
    },
    Drained {
        place: usize,
    },
    Wake {
        place: usize,
    },
    Resume {
        place: usize,
    },
    /// Something that a fault does again and again.
    Pulse {
        place: usize,
        fault: usize,
        count: u64,
    },
}

/// A cluster under virtual time: a pure function of its seed and of what is asked of it.
///
/// ```
/// use core::time::Duration;
///
/// use brickwork_core::Config;
/// use brickwork_core::sim::{Condition, Fault, Links, Nodes, Sim};
///
/// let mut sim = Sim::new(1, Config::local());
/// for place in 0..5 {
///     sim.start(place, &[0]);
/// }
/// assert!(sim.run_until(Duration::from_secs(10), |sim| sim.differences().is_empty()));
///
/// // Two of them are cut off, and each side goes on alone; then they find each other again.
/// let side = Links::around(&Nodes::Only(vec![3, 4]));
/// let cut = sim.begin(Fault::Link(side, Condition::Cut));
/// sim.run(Duration::from_secs(30));
/// assert_eq!(sim.node(0).unwrap().members().count(), 3);
/// assert_eq!(sim.node(4).unwrap().members().count(), 2);
/// sim.end(cut);
/// assert!(sim.run_until(Duration::from_secs(60), |sim| sim.differences().is_empty()));
/// assert_eq!(sim.node(0).unwrap().members().count(), 5);
/// ```
#[derive(Debug)]
pub struct Sim {
    pub(super) seed: u64,
    pub(super) config: Config,
    pub(super) now: Instant,
    pub(super) places: Vec<Place>,
    pub(super) by_addr: BTreeMap<SocketAddr, usize>,
    pub(super) queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    pub(super) serial: u64,
    pub(super) net: Net,
    pub(super) wire: Wire,
    /// Datagrams held back by clogs, with the links that hold them.
    pub(super) clogged: Vec<(usize, usize, What)>,
    /// With what the luck of each belongs to.
    pub(super) faults: BTreeMap<usize, (Fault, u64)>,
    pub(super) next_fault: usize,
    /// What members say of themselves, as the nodes have it in common.
    pub(super) identities: BTreeMap<NodeId, Arc<Identity>>,
    /// Met so far, by class.
    pub(super) met: BTreeMap<&'static str, u64>,
    pub(super) trace: u64,
    pub(super) buf: Vec<u8>,
    pub(super) inputs: u64,
    /// Pings that left, with sender and receiver, while somebody wants to know.
    pub(super) probes: Option<Vec<(Instant, usize, usize)>>,
}

/// Where the node of a place lives at first.
pub(super) fn address(place: usize, moves: u16) -> SocketAddr {
    let host = Ipv4Addr::from(0x0a00_0001 + place as u32);
    (host, 7_946 + moves).into()
}

impl Sim {
    /// An empty world whose nodes have these settings and whose links usually take half a
    /// millisecond to two.
    #[must_use]
    pub fn new(seed: u64, config: Config) -> Self {
        let usual = Delay::Uniform(Duration::from_micros(500), Duration::from_millis(2));
        Self::with_delay(seed, config, usual)
    }

    /// The same with links that usually take `delay`.
    #[must_use]
    pub fn with_delay(seed: u64, config: Config, delay: Delay) -> Self {
        Self {
            seed,
            // More than any node may send: it must keep to its own limit.
            buf: vec![0; crate::MAX_DATAGRAM],
            config,
            now: Instant::ZERO,
            places: Vec::new(),
            by_addr: BTreeMap::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            net: Net::new(seed, delay),
            wire: Wire::default(),
            clogged: Vec::new(),
            faults: BTreeMap::new(),
            next_fault: 0,
            identities: BTreeMap::new(),
            met: BTreeMap::new(),
            trace: seed,
            inputs: 0,
            probes: None,
        }
    }

    /// Starts a node without state at `place`, which joins through the nodes at `seeds`. A node that
    /// runs there is replaced, as after a crash.
    ///
    /// # Panics
    ///
    /// If the core refuses the settings.
    pub fn start(&mut self, place: usize, seeds: &[usize]) {
        self.reserve(place);
        self.crash(place);
        self.places[place].seeds = seeds.to_vec();
        self.restart(place);
    }

    /// The nodes that start at `place` from now on have these settings, not those of the others.
    pub fn configure(&mut self, place: usize, config: Config) {
        self.reserve(place);
        self.places[place].config = config;
    }

    /// The clock of `place` shows this now, and goes on from there.
    pub fn set_clock(&mut self, place: usize, shown: Instant) {
        self.reserve(place);
        let clock = &mut self.places[place].clock;
        clock.rebase(self.now);
        clock.shown = shown;
        self.arm(place);
    }

    /// The nodes that start at `place` from now on tell so many bytes of metadata.
    pub fn set_meta(&mut self, place: usize, bytes: usize) {
        self.reserve(place);
        self.places[place].meta = bytes;
    }

    fn reserve(&mut self, place: usize) {
        while self.places.len() <= place {
            self.add_place();
        }
    }

    fn add_place(&mut self) {
        let number = self.places.len();
        let addr = address(number, 0);
        self.by_addr.insert(addr, number);
        self.places.push(Place {
            name: format!("node-{number}"),
            config: self.config.clone(),
            meta: 0,
            addr,
            node: None,
            lives: Vec::new(),
            seeds: Vec::new(),
            clock: Clock::TRUE,
            wake: None,
            busy_until: Instant::ZERO,
            inbox: VecDeque::new(),
            troubles: BTreeMap::new(),
            sent: 0,
            idle_wakes: 0,
            events: Vec::new(),
            moves: 0,
            outside: None,
            rebound: 0,
            fuse: None,
            behind: Duration::ZERO,
            full_until: Instant::ZERO,
        });
    }

    /// Starts the node of a place that is down again, without state, through the seeds of its first
    /// start.
    ///
    /// # Panics
    ///
    /// If the core refuses the settings.
    pub fn restart(&mut self, place: usize) {
        // By name, as DNS does it: where they live now.
        let seeds = self.places[place].seeds.iter().filter(|&&seed| seed != place);
        let seeds: Vec<_> = seeds
            .map(|&seed| self.places.get(seed).map_or_else(|| address(seed, 0), |seed| seed.addr))
            .collect();
        let life = self.places[place].lives.len() as u64;
        let spot = &mut self.places[place];
        let behind = core::mem::take(&mut spot.behind);
        let wall = WALL + EPOCH * life + self.now.as_nanos() / 1_000;
        let epoch = fresh(spot, wall.saturating_sub(behind.as_micros() as u64));
        let mut identity = Identity::new(spot.name.clone(), spot.addr).with_boot_epoch(epoch);
        identity.meta = vec![0x6d; spot.meta];
        let mut luck = Luck::new(self.seed ^ 0x5eed, place, life);
        let mut entropy = [0; 32];
        for chunk in entropy.chunks_mut(8) {
            chunk.copy_from_slice(&luck.next().to_le_bytes());
        }
        spot.clock.rebase(self.now);
        let now = spot.clock.show(self.now);
        let node = Checked::new(now, identity, spot.config.clone(), entropy);
        let mut node = node.unwrap_or_else(|error| panic!("the settings are refused: {error}"));
        if !seeds.is_empty() {
            node.join(now, &seeds);
        }
        spot.lives.push(Life {
            started_as: epoch,
            epochs: vec![epoch],
            incarnation: 0,
            from: self.now,
            ended: None,
        });
        spot.node = Some(node);
        spot.events.clear();
        let paused = spot.has(|trouble| matches!(trouble, Trouble::Pause));
        spot.busy_until = if paused { NEVER } else { self.now };
        spot.wake = None;
        spot.full_until = self.now;
        self.mark(place, 1);
        self.after_input(place);
    }

    /// Ends the node at `place` without a word.
    pub fn crash(&mut self, place: usize) {
        self.stop(place, End::Crash);
    }

    pub(super) fn stop(&mut self, place: usize, how: End) {
        let spot = &mut self.places[place];
        if spot.node.take().is_some() {
            spot.inbox.clear();
            spot.fuse = None;
            spot.wake = None;
            if let Some(life) = spot.lives.last_mut() {
                life.ended = Some((self.now, how));
            }
            self.mark(place, 2);
        }
    }

    /// Gives a wish to the node at `place`, if it is up and not paused, with its own present time.
    pub fn with<R>(
        &mut self,
        place: usize,
        wish: impl FnOnce(&mut Checked, Instant) -> R,
    ) -> Option<R> {
        let spot = self.places.get_mut(place)?;
        if spot.busy_until == NEVER {
            return None;
        }
        let now = spot.clock.show(self.now);
        let result = wish(spot.node.as_mut()?, now);
        self.mark(place, 3);
        self.after_input(place);
        Some(result)
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end).is_some() {}
        self.now = end;
    }

    /// Lets time pass until `done` holds after some step, at most for `limit`. Returns whether it held.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.step(end).is_none() {
                self.now = end;
                return done(self);
            }
        }
    }

    /// Takes the next step, if it is not after `end`, and returns the place that it touched.
    pub fn step(&mut self, end: Instant) -> Option<usize> {
        loop {
            let Reverse((at, ..)) = self.queue.peek()?;
            if *at > end {
                return None;
            }
            let Reverse((at, _, what)) = self.queue.pop()?;
            self.now = self.now.max(at);
            let touched = match what {
                What::Arrive { place, from, expect, bytes } => {
                    self.arrive(place, from, expect, bytes)
                }
                What::Drained { place } => self.drained(place),
                What::Wake { place } => self.wake(place, at),
                What::Resume { place } => self.resume(place),
                What::Pulse { place, fault, count } => self.pulse(place, fault, count),
            };
            if touched.is_some() {
                self.inputs += 1;
                return touched;
            }
        }
    }
}
