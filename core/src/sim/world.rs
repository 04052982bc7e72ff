//! Places with nodes, on a network.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::checked::Checked;
use super::fault::Delay;
use super::lives::{Fuse, fresh};
use super::net::Luck;
use super::network::Network;
use crate::time::Instant;
use crate::{Config, Event, Identity, NodeId};

/// What wall clocks show at the beginning, in microseconds.
const WALL: u64 = 1 << 50;
/// Between the boot epochs of two lives, as microseconds of a wall clock would be.
const EPOCH: u64 = 1_000_000;

/// One life of a node at a place, as the simulation knows it to be true.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Life {
    /// Its boot epoch when it started; the node may adopt a higher one in the join handshake.
    pub started_as: u64,
    /// All boot epochs that it ever claimed, each with the highest incarnation that it issued under it.
    pub epochs: BTreeMap<u64, u32>,
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

/// A place: its node, if that is up, and its past.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) config: Config,
    /// Bytes of metadata.
    pub(super) meta: usize,
    pub(super) node: Option<Checked>,
    pub(super) lives: Vec<Life>,
    pub(super) seeds: Vec<usize>,
    pub(super) events: Vec<Event>,
    pub(super) moves: u16,
    pub(super) fuse: Option<Fuse>,
    /// How far its wall clock is behind at the next start.
    pub(super) behind: Duration,
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
    pub(super) net: Network,
    pub(super) places: Vec<Place>,
    /// What members say of themselves, as the nodes have it in common.
    pub(super) identities: BTreeMap<NodeId, Arc<Identity>>,
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
            net: Network::with_delay(seed, delay),
            places: Vec::new(),
            identities: BTreeMap::new(),
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
        self.net.set_clock(place, shown);
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
        let number = self.net.add(address(self.places.len(), 0));
        self.places.push(Place {
            name: format!("node-{number}"),
            config: self.config.clone(),
            meta: 0,
            node: None,
            lives: Vec::new(),
            seeds: Vec::new(),
            events: Vec::new(),
            moves: 0,
            fuse: None,
            behind: Duration::ZERO,
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
        let known = |seed| {
            if seed < self.places.len() { self.net.addr(seed) } else { address(seed, 0) }
        };
        let seeds: Vec<_> = seeds.map(|&seed| known(seed)).collect();
        let life = self.places[place].lives.len() as u64;
        let spot = &mut self.places[place];
        let behind = core::mem::take(&mut spot.behind);
        let wall = WALL + EPOCH * life + self.net.now.as_nanos() / 1_000;
        let epoch = fresh(spot, wall.saturating_sub(behind.as_micros() as u64));
        let identity = Identity::new(&spot.name, self.net.addr(place))
            .with_boot_epoch(epoch)
            .with_meta(vec![0x6d; spot.meta]);
        let mut luck = Luck::new(self.seed ^ 0x5eed, place, life);
        let mut entropy = [0; 32];
        for chunk in entropy.chunks_mut(8) {
            chunk.copy_from_slice(&luck.next().to_le_bytes());
        }
        self.net.open(place);
        let now = self.net.clock(place);
        let node = Checked::new(now, identity, spot.config.clone(), entropy);
        let mut node = node.unwrap_or_else(|error| panic!("the settings are refused: {error}"));
        if !seeds.is_empty() {
            node.join(now, &seeds);
        }
        spot.lives.push(Life {
            started_as: epoch,
            epochs: BTreeMap::from([(epoch, 0)]),
            from: self.net.now,
            ended: None,
        });
        spot.node = Some(node);
        spot.events.clear();
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
            spot.fuse = None;
            self.net.close(place);
            if let Some(life) = spot.lives.last_mut() {
                life.ended = Some((self.net.now, how));
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
        if self.net.is_paused(place) {
            return None;
        }
        let now = self.net.clock(place);
        let result = wish(spot.node.as_mut()?, now);
        self.mark(place, 3);
        self.after_input(place);
        Some(result)
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.net.now + time;
        while self.step(end).is_some() {}
        self.net.pass(end);
    }

    /// Lets time pass until `done` holds after some step, at most for `limit`. Returns whether it held.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.net.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.step(end).is_none() {
                self.net.pass(end);
                return done(self);
            }
        }
    }
}
