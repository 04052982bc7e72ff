//! Virtual time and a network with faults, for programs of whoever uses it.

use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;
use core::time::Duration;

use super::adversary::Wire;
use super::clock::Clock;
use super::fault::{Delay, Fault, Trouble};
use super::machine::Machine;
use super::net::{Expect, Net, Traffic};
use super::turn::Turn;
use crate::PacketError;
use crate::time::Instant;

/// The end of time.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Something that a program must take in, with the time that its own clock shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Input {
    /// Whose turn it is.
    pub place: usize,
    /// What the clock there shows.
    pub now: Instant,
    /// What happened.
    pub what: Happening,
}

/// What happened at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// A datagram arrived.
    Datagram {
        /// Its sender, as a socket would tell.
        from: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
        /// What the program may make of it.
        expect: Expect,
    },
    /// The deadline that was [armed](Network::arm) is there.
    Timer,
    /// The socket was full or blocked, and may take datagrams again: [`Network::room`] tells.
    Writable,
}

impl Input {
    /// Hands it to a machine of the core; [`Happening::Writable`] is nothing to one.
    ///
    /// # Errors
    ///
    /// Those of [`Machine::handle_packet`]. [`Expect::allows`] tells which are right.
    pub fn hand_to(self, machine: &mut impl Machine) -> Result<(), PacketError> {
        match self.what {
            Happening::Datagram { from, mut bytes, .. } => {
                machine.handle_packet(self.now, from, &mut bytes)
            }
            Happening::Timer => {
                machine.handle_timeout(self.now);
                Ok(())
            }
            Happening::Writable => Ok(()),
        }
    }
}

/// Where a program lives, and what troubles it.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) addr: SocketAddr,
    pub(super) open: bool,
    /// How often a program has begun here.
    pub(super) lives: usize,
    pub(super) clock: Clock,
    /// When the program wants to be called, by its clock.
    pub(super) due: Option<Instant>,
    /// The wake-up that counts; those found in the queue for other times are void.
    pub(super) wake: Option<Instant>,
    /// Until then it takes no input.
    pub(super) busy_until: Instant,
    /// What arrived meanwhile.
    pub(super) inbox: VecDeque<(SocketAddr, Vec<u8>, Expect)>,
    pub(super) troubles: BTreeMap<usize, Trouble>,
    /// Datagrams sent, which numbers their luck …
    pub(super) sent: u64,
    /// … and those sent since the timer was armed last.
    pub(super) train: u32,
    /// Until then its socket is full.
    pub(super) full_until: Instant,
    /// It took datagrams again while the program was busy.
    pub(super) drained: bool,
    /// Wake-ups since the last that found something due.
    pub(super) idle_wakes: u32,
    /// The source that others see instead of its address, if a rebinding has changed it …
    pub(super) outside: Option<SocketAddr>,
    /// … and how many have.
    pub(super) rebound: u16,
}

impl Spot {
    const fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            open: false,
            lives: 0,
            clock: Clock::TRUE,
            due: None,
            wake: None,
            busy_until: Instant::ZERO,
            inbox: VecDeque::new(),
            troubles: BTreeMap::new(),
            sent: 0,
            train: 0,
            full_until: Instant::ZERO,
            drained: false,
            idle_wakes: 0,
            outside: None,
            rebound: 0,
        }
    }

    pub(super) fn has(&self, test: impl Fn(&Trouble) -> bool) -> bool {
        self.troubles.values().any(test)
    }

    pub(super) fn find<T>(&self, of: impl Fn(&Trouble) -> Option<T>) -> Option<T> {
        self.troubles.values().find_map(of)
    }

    /// The source that others see on its datagrams.
    pub(super) fn source(&self) -> SocketAddr {
        self.outside.unwrap_or(self.addr)
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

/// Virtual time, sockets at places, and what becomes of datagrams between them: a pure function of its
/// seed and of what is asked of it.
///
/// It knows nothing of the programs at the places: datagrams are bytes to it, and a program is whatever
/// takes an [`Input`] and says afterwards what it sends and when it wants to be called. So a loop of
/// your own, with all that you built around a node, runs on it as on a socket and a clock, under the
/// faults of [`Fault`]. [`Sim`](super::Sim) is one such program: nodes of the core and nothing else.
///
/// The loop is that of every driver: take the [next](Self::next) input, hand it in, [send](Self::send)
/// what is owed and [arm](Self::arm) the timer. For a [`Machine`] of the core [`serve`](Self::serve)
/// does the last two. Lone membership, for example, needs no more than this:
///
/// ```
/// use core::time::Duration;
///
/// use brickwork_core::sim::{Checked, Condition, Fault, Links, Network};
/// use brickwork_core::swim::{self, Swim};
/// use brickwork_core::{Identity, Instant};
///
/// let mut net = Network::new(7);
/// net.begin(Fault::Link(Links::all(), Condition::Loss(200)));
/// let mut swims: Vec<Checked<Swim>> = Vec::new();
/// for place in 0..3_u8 {
///     let addr = ([10, 0, 0, place], 7000).into();
///     assert_eq!(net.bind(addr), usize::from(place));
///     let (identity, config) = (Identity::new(format!("{place}"), addr), swim::Config::local());
///     let swim = Swim::new(Instant::ZERO, identity, "docs", config, 1400, [place; 32])?;
///     let mut swim = Checked::of(swim);
///     swim.with(|swim| swim.join(Instant::ZERO, &[([10, 0, 0, 0], 7000).into()]));
///     net.serve(usize::from(place), &mut swim);
///     swims.push(swim);
/// }
/// let end = net.now() + Duration::from_secs(10);
/// while let Some(input) = net.next(end) {
///     let place = input.place;
///     input.hand_to(&mut swims[place])?;
///     while swims[place].poll_event().is_some() {}
///     net.serve(place, &mut swims[place]);
/// }
/// assert!(swims.iter().all(|swim| swim.machine().members().count() == 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Every method that takes a place, if there is none of that number.
#[derive(Debug)]
pub struct Network {
    pub(super) seed: u64,
    pub(super) now: Instant,
    pub(super) spots: Vec<Spot>,
    pub(super) by_addr: BTreeMap<SocketAddr, usize>,
    pub(super) queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    pub(super) serial: u64,
    pub(super) links: Net,
    pub(super) wire: Wire,
    /// Datagrams held back by clogs, with the links that hold them.
    pub(super) clogged: Vec<(usize, usize, What)>,
    /// With what the luck of each belongs to.
    pub(super) faults: BTreeMap<usize, (Fault, u64)>,
    pub(super) next_fault: usize,
    /// Met so far, by class.
    pub(super) met: BTreeMap<&'static str, u64>,
    /// The place that took a datagram out of its inbox and goes on with the next after it.
    pub(super) resuming: Option<usize>,
    buf: Vec<u8>,
}

/// Places and their programs.
impl Network {
    /// A network without places, whose links usually take half a millisecond to two.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let usual = Delay::Uniform(Duration::from_micros(500), Duration::from_millis(2));
        Self::with_delay(seed, usual)
    }

    /// The same with links that usually take `delay`, but at least a nanosecond.
    #[must_use]
    pub fn with_delay(seed: u64, delay: Delay) -> Self {
        Self {
            seed,
            now: Instant::ZERO,
            spots: Vec::new(),
            by_addr: BTreeMap::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            links: Net::new(seed, delay),
            wire: Wire::default(),
            clogged: Vec::new(),
            faults: BTreeMap::new(),
            next_fault: 0,
            met: BTreeMap::new(),
            resuming: None,
            buf: Vec::new(),
        }
    }

    /// A new place with a socket at `addr`. Returns its number: places are counted from zero.
    ///
    /// # Panics
    ///
    /// If the address is taken.
    pub fn bind(&mut self, addr: SocketAddr) -> usize {
        let place = self.add(addr);
        self.open(place);
        place
    }

    /// A new place where nobody lives yet.
    pub(super) fn add(&mut self, addr: SocketAddr) -> usize {
        let place = self.spots.len();
        self.spots.push(Spot::new(addr));
        self.remap(place);
        place
    }

    /// The program at `place` is gone, as in a crash: what arrives is lost, no timer fires.
    pub fn close(&mut self, place: usize) {
        let spot = &mut self.spots[place];
        spot.open = false;
        spot.inbox.clear();
        (spot.due, spot.wake, spot.drained) = (None, None, false);
    }

    /// A program begins anew at `place`, without a timer. A trouble of the place that is not over goes
    /// on, and so does what is under way to it.
    pub fn open(&mut self, place: usize) {
        let spot = &mut self.spots[place];
        spot.open = true;
        spot.lives += 1;
        spot.clock.rebase(self.now);
        let paused = spot.has(|trouble| matches!(trouble, Trouble::Pause));
        spot.busy_until = if paused { NEVER } else { self.now };
        (spot.due, spot.wake) = (None, None);
        (spot.full_until, spot.train) = (self.now, 0);
    }

    /// The socket of `place` has another address from now on, as after a start on another machine.
    ///
    /// # Panics
    ///
    /// If the address is taken.
    pub fn move_to(&mut self, place: usize, addr: SocketAddr) {
        self.spots[place].addr = addr;
        self.remap(place);
    }

    /// The address of the socket of `place`. While a [`Trouble::Rebind`] is on, others see another.
    #[must_use]
    pub fn addr(&self, place: usize) -> SocketAddr {
        self.spots[place].addr
    }

    /// The true time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// What the clock at `place` shows: the time to hand to its program.
    #[must_use]
    pub fn clock(&self, place: usize) -> Instant {
        self.spots[place].clock.show(self.now)
    }

    /// The clock of `place` shows this now, and goes on from there.
    pub fn set_clock(&mut self, place: usize, shown: Instant) {
        let clock = &mut self.spots[place].clock;
        clock.rebase(self.now);
        clock.shown = shown;
        self.wake_when_due(place);
    }

    /// Whether the program at `place` stands still: it takes no wishes either.
    #[must_use]
    pub fn is_paused(&self, place: usize) -> bool {
        self.spots[place].busy_until == NEVER
    }

    /// What became of all datagrams.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.links.traffic
    }

    /// How many faults of each class have begun.
    #[must_use]
    pub const fn met(&self) -> &BTreeMap<&'static str, u64> {
        &self.met
    }
}

/// The loop of a driver.
impl Network {
    /// The next input that a program must take, if it is due by `end`; otherwise time passes until
    /// `end`.
    ///
    /// Nothing is handed to a program that is paused or busy before it is that no more, and then what
    /// has arrived comes before the timer.
    ///
    /// # Panics
    ///
    /// If a place is woken a thousand times on end with nothing due.
    pub fn next(&mut self, end: Instant) -> Option<Input> {
        self.go_on();
        loop {
            let input = match self.step(end) {
                Some(Turn::Input(input)) => Some(input),
                Some(Turn::Pulse { place, trouble: Trouble::Spoof(_), luck, .. }) => {
                    self.spoof(place, luck)
                }
                // Those of the faults that `begin` refuses.
                Some(Turn::Pulse { .. }) => None,
                None => {
                    self.pass(end);
                    return None;
                }
            };
            if let Some(input) = input {
                self.charge(input.place);
                return Some(input);
            }
        }
    }

    /// Time passes until `end`.
    pub(super) fn pass(&mut self, end: Instant) {
        self.now = self.now.max(end);
    }

    /// How long a datagram the program at `place` can send now, of at most `most` bytes; `None` while
    /// its socket takes none.
    #[must_use]
    pub fn room(&self, place: usize, most: usize) -> Option<usize> {
        let spot = &self.spots[place];
        if spot.full_until > self.now || spot.has(|trouble| matches!(trouble, Trouble::Blocked)) {
            return None;
        }
        if spot.outbox().is_some_and(|room| spot.train >= room) {
            return None;
        }
        let short =
            |trouble: &Trouble| if let Trouble::ShortBuffer(n) = trouble { Some(*n) } else { None };
        Some(spot.find(short).map_or(most, |room| room.clamp(crate::MIN_DATAGRAM.min(most), most)))
    }

    /// Sends a datagram from `place`. Returns whether its socket took it: if so it is on its way, or
    /// lost, and nobody is told.
    pub fn send(&mut self, place: usize, to: SocketAddr, payload: &[u8]) -> bool {
        let taken = self.room(place, payload.len()).is_some();
        if taken {
            self.dispatch(place, to, payload);
        }
        taken
    }

    /// Says when the program at `place` wants to be called next, by its own clock. It replaces what was
    /// said before and is good for one [`Happening::Timer`]: say it after every input and every wish.
    pub fn arm(&mut self, place: usize, due: Option<Instant>) {
        let spot = &mut self.spots[place];
        (spot.due, spot.train) = (due, 0);
        self.wake_when_due(place);
    }

    /// What a driver does after an input or a wish: sends all that `machine`, at `place`, owes, as far
    /// as the socket takes it, and arms its timer. Events are left to the caller.
    pub fn serve(&mut self, place: usize, machine: &mut impl Machine) {
        let mut buf = core::mem::take(&mut self.buf);
        buf.resize(crate::MAX_DATAGRAM, 0);
        while let Some(room) = self.room(place, buf.len()) {
            let Some(sent) = machine.poll_transmit(&mut buf[..room]) else { break };
            self.dispatch(place, sent.to, sent.payload);
        }
        self.buf = buf;
        self.arm(place, machine.poll_timeout());
    }
}
