//! Places with nodes, a network between them, and virtual time.

use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::checked::Checked;
use super::fault::{Delay, Fault, Trouble};
use super::net::{Luck, Net};
use crate::hash::mix2;
use crate::time::Instant;
use crate::{Config, Event, Identity};

/// What a place holds back while its node is busy, if nothing else is said.
const INBOX: usize = 4_096;
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

/// A clock that may run at another rate than the others, and step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// At this true time …
    pub(super) base: Instant,
    /// … it showed this.
    pub(super) shown: Instant,
    /// Deviation of its rate in millionths.
    pub(super) ppm: i32,
}

impl Clock {
    const TRUE: Self = Self { base: Instant::ZERO, shown: Instant::ZERO, ppm: 0 };

    fn rate(self) -> u128 {
        u128::from(1_000_000_u32.saturating_add_signed(self.ppm).max(1))
    }

    pub(super) fn show(self, now: Instant) -> Instant {
        let passed = (now - self.base).as_nanos() * self.rate() / 1_000_000;
        self.shown + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The first true time at which it shows `at` or more.
    fn when(self, at: Instant) -> Instant {
        let nanos = ((at - self.shown).as_nanos() * 1_000_000).div_ceil(self.rate());
        self.base + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn rebase(&mut self, now: Instant) {
        *self = Self { base: now, shown: self.show(now), ppm: self.ppm };
    }
}

/// A place: its node, if that is up, its past, and what troubles it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
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
    pub(super) inbox: VecDeque<(SocketAddr, Vec<u8>, bool)>,
    pub(super) troubles: BTreeMap<usize, Trouble>,
    /// Datagrams sent, which numbers their luck.
    pub(super) sent: u64,
    /// Wake-ups since the last that found something due.
    pub(super) idle_wakes: u32,
    pub(super) events: Vec<Event>,
    pub(super) moves: u16,
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
    Arrive { place: usize, from: SocketAddr, damaged: bool, bytes: Vec<u8> },
    Wake { place: usize },
    Resume { place: usize },
    Noise { place: usize, fault: usize },
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
    /// Datagrams held back by clogs, with the links that hold them.
    pub(super) clogged: Vec<(usize, usize, What)>,
    pub(super) faults: BTreeMap<usize, Fault>,
    pub(super) next_fault: usize,
    /// Met so far, by class.
    pub(super) met: BTreeMap<&'static str, u64>,
    pub(super) trace: u64,
    pub(super) buf: Vec<u8>,
    pub(super) inputs: u64,
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
            buf: vec![0; config.max_datagram],
            config,
            now: Instant::ZERO,
            places: Vec::new(),
            by_addr: BTreeMap::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            net: Net::new(seed, delay),
            clogged: Vec::new(),
            faults: BTreeMap::new(),
            next_fault: 0,
            met: BTreeMap::new(),
            trace: seed,
            inputs: 0,
        }
    }

    /// Starts a node without state at `place`, which joins through the nodes at `seeds`. A node that
    /// runs there is replaced, as after a crash.
    ///
    /// # Panics
    ///
    /// If the core refuses the settings.
    pub fn start(&mut self, place: usize, seeds: &[usize]) {
        while self.places.len() <= place {
            self.add_place();
        }
        self.crash(place);
        self.places[place].seeds = seeds.to_vec();
        self.restart(place);
    }

    fn add_place(&mut self) {
        let number = self.places.len();
        let addr = address(number, 0);
        self.by_addr.insert(addr, number);
        self.places.push(Place {
            name: format!("node-{number}"),
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
        let epoch = EPOCH * (1 + life) + self.now.as_nanos() / 1_000;
        let identity = Identity::new(spot.name.clone(), spot.addr).with_boot_epoch(epoch);
        let mut luck = Luck::new(self.seed ^ 0x5eed, place, life);
        let mut entropy = [0; 32];
        for chunk in entropy.chunks_mut(8) {
            chunk.copy_from_slice(&luck.next().to_le_bytes());
        }
        spot.clock.rebase(self.now);
        let now = spot.clock.show(self.now);
        let node = Checked::new(now, identity, self.config.clone(), entropy);
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
                What::Arrive { place, from, damaged, bytes } => {
                    self.arrive(place, from, damaged, bytes)
                }
                What::Wake { place } => self.wake(place, at),
                What::Resume { place } => self.resume(place),
                What::Noise { place, fault } => self.noise(place, fault),
            };
            if touched.is_some() {
                self.inputs += 1;
                return touched;
            }
        }
    }

    /// A datagram reaches a place, and its node unless that is busy.
    fn arrive(
        &mut self,
        place: usize,
        from: SocketAddr,
        damaged: bool,
        mut bytes: Vec<u8>,
    ) -> Option<usize> {
        let spot = &mut self.places[place];
        spot.node.as_ref()?;
        if spot.has(|trouble| matches!(trouble, Trouble::Deaf)) {
            self.net.traffic.lost += 1;
            return None;
        }
        if spot.busy_until > self.now {
            let room =
                spot.find(
                    |trouble| if let Trouble::Inbox(room) = trouble { Some(*room) } else { None },
                );
            if spot.inbox.len() >= room.unwrap_or(INBOX) {
                self.net.traffic.overflowed += 1;
            } else {
                spot.inbox.push_back((from, bytes, damaged));
            }
            return None;
        }
        self.net.traffic.delivered += 1;
        self.trace = mix2(self.trace, crate::hash::stable(&bytes));
        self.mark(place, 4);
        let spot = &mut self.places[place];
        let now = spot.clock.show(self.now);
        let result = spot.node.as_mut()?.handle_packet(now, from, &mut bytes);
        assert!(
            damaged || matches!(result, Ok(()) | Err(crate::PacketError::OwnPacket)),
            "{} refuses what another node sent: {result:?}",
            spot.name
        );
        self.after_input(place);
        Some(place)
    }

    /// A wake-up is due, unless it was put off.
    fn wake(&mut self, place: usize, at: Instant) -> Option<usize> {
        let now = self.now;
        let spot = &mut self.places[place];
        if spot.wake != Some(at) {
            return None;
        }
        spot.wake = None;
        if spot.busy_until > now {
            // What it slept through is done after what has arrived meanwhile.
            return None;
        }
        let shown = spot.clock.show(now);
        let node = spot.node.as_mut()?;
        if node.poll_timeout().is_some_and(|due| due <= shown) {
            node.handle_timeout(shown);
            spot.idle_wakes = 0;
            self.mark(place, 5);
            self.after_input(place);
            return Some(place);
        }
        spot.idle_wakes += 1;
        assert!(spot.idle_wakes < 1_000, "{} wakes up again and again for nothing", spot.name);
        self.arm(place);
        None
    }

    /// The node at `place` can take input again: what has arrived first, one by one.
    fn resume(&mut self, place: usize) -> Option<usize> {
        let spot = &mut self.places[place];
        if spot.busy_until > self.now {
            return None;
        }
        let Some((from, bytes, damaged)) = spot.inbox.pop_front() else {
            self.arm(place);
            return None;
        };
        let touched = self.arrive(place, from, damaged, bytes);
        let at = self.places[place].busy_until.max(self.now);
        self.push(at, What::Resume { place });
        touched
    }

    /// One datagram of noise, and the next one later.
    fn noise(&mut self, place: usize, fault: usize) -> Option<usize> {
        let Some(Fault::Node(_, Trouble::Flood(rate))) = self.faults.get(&fault) else {
            return None;
        };
        let pause = Duration::from_secs(1) / (*rate).max(1);
        self.serial += 1;
        let mut luck = Luck::new(self.seed ^ 0xf100d, place, self.serial);
        let len = luck.next() % 200;
        let bytes = (0..len).map(|_| luck.next() as u8).collect();
        self.push(self.now + pause, What::Noise { place, fault });
        self.arrive(place, address(usize::from(u16::MAX), 0), true, bytes)
    }

    /// Sends what the node owes, takes its events, and notes when it wants to be called.
    fn after_input(&mut self, place: usize) {
        let spot = &mut self.places[place];
        if let Some(cost) =
            spot.find(|trouble| if let Trouble::Slow(cost) = trouble { Some(*cost) } else { None })
        {
            // A node that starts while it is paused stays so.
            spot.busy_until = spot.busy_until.max(self.now + cost);
            let at = spot.busy_until;
            self.push(at, What::Resume { place });
        }
        self.send(place);
        self.take_events(place);
        self.note_truth(place);
        self.arm(place);
    }

    pub(super) fn send(&mut self, place: usize) {
        let spot = &self.places[place];
        if spot.has(|trouble| matches!(trouble, Trouble::Blocked)) {
            return;
        }
        let room =
            spot.find(
                |trouble| if let Trouble::ShortBuffer(room) = trouble { Some(*room) } else { None },
            );
        let room = room.unwrap_or(self.buf.len()).clamp(crate::MIN_DATAGRAM, self.buf.len());
        let mute = spot.has(|trouble| matches!(trouble, Trouble::Mute));
        let mut buf = core::mem::take(&mut self.buf);
        loop {
            let spot = &mut self.places[place];
            let Some(node) = &mut spot.node else { break };
            let Some(sent) = node.poll_transmit(&mut buf[..room]) else { break };
            spot.sent += 1;
            let (number, from) = (spot.sent, spot.addr);
            self.net.traffic.sent += 1;
            self.net.traffic.bytes += sent.payload.len() as u64;
            if mute {
                self.net.traffic.lost += 1;
            } else {
                self.post(place, from, sent.to, number, sent.payload);
            }
        }
        self.buf = buf;
    }

    fn post(&mut self, from: usize, source: SocketAddr, to: SocketAddr, number: u64, bytes: &[u8]) {
        let Some(&place) = self.by_addr.get(&to) else {
            self.net.traffic.nowhere += 1;
            return;
        };
        for copy in self.net.carry(self.now, from, place, number, bytes) {
            let what =
                What::Arrive { place, from: source, damaged: copy.damaged, bytes: copy.bytes };
            match copy.at {
                Some(at) => self.push(at, what),
                None => self.clogged.push((from, place, what)),
            }
        }
    }

    pub(super) fn take_events(&mut self, place: usize) {
        let spot = &mut self.places[place];
        if spot.has(|trouble| matches!(trouble, Trouble::Inattentive)) {
            return;
        }
        let mut left = false;
        while let Some(event) = spot.node.as_mut().and_then(Checked::poll_event) {
            left |= matches!(event, Event::LeaveFinished { .. });
            spot.events.push(event);
        }
        if left {
            self.stop(place, End::Leave);
        }
    }

    /// What the node says of itself is the truth about it.
    fn note_truth(&mut self, place: usize) {
        let spot = &mut self.places[place];
        let (Some(node), Some(life)) = (&spot.node, spot.lives.last_mut()) else { return };
        let me = node.node().swim().me();
        let epoch = me.identity().boot_epoch;
        if !life.epochs.contains(&epoch) {
            // A new boot epoch begins with incarnations of its own.
            life.epochs.push(epoch);
            life.incarnation = 0;
        }
        life.incarnation = life.incarnation.max(me.incarnation());
    }

    pub(super) fn arm(&mut self, place: usize) {
        let late = self.places[place]
            .find(|trouble| if let Trouble::LateTimers(by) = trouble { Some(*by) } else { None });
        let spot = &mut self.places[place];
        let due = spot.node.as_ref().and_then(Checked::poll_timeout);
        let Some(mut at) = due.map(|due| spot.clock.when(due).max(self.now)) else {
            spot.wake = None;
            return;
        };
        if let Some(by) = late {
            at += Luck::new(self.seed ^ 0x1a7e, place, spot.sent).within(by);
        }
        at = at.max(spot.busy_until);
        if spot.wake != Some(at) {
            spot.wake = Some(at);
            self.push(at, What::Wake { place });
        }
    }

    pub(super) fn push(&mut self, at: Instant, what: What) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, what)));
    }

    fn mark(&mut self, place: usize, what: u64) {
        let step = mix2(self.now.as_nanos(), (place as u64) << 8 | what);
        self.trace = mix2(self.trace, step);
    }
}
