//! A small network of state machines under virtual time, with every clock in the input's hand.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::Instant;

use crate::checks::{Machine, fire, send};
use crate::roll::Roll;

/// Datagrams that wait at a frozen machine before the system drops them.
const MAX_INBOX: usize = 64;

/// Arrivals and timers that one run may take: more is a storm of answers to answers.
const MAX_STEPS: u64 = 400_000;

/// A small generator for the network's own choices (SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) const fn percent(&mut self, percent: u8) -> bool {
        self.next() % 100 < percent as u64
    }
}

/// The address of a place.
pub(crate) fn addr(place: usize) -> SocketAddr {
    let place = u8::try_from(place).unwrap_or(u8::MAX);
    ([10, 0, 0, place + 1], 7000).into()
}

#[derive(Debug)]
struct Place<M> {
    machine: Option<M>,
    roll: Roll,
    /// Equal sides talk.
    side: bool,
    frozen: bool,
    inbox: Vec<(SocketAddr, Vec<u8>)>,
    /// What its clock shows beyond the network's time.
    ahead: Duration,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    serial: u64,
    place: usize,
    from: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Net<M> {
    now: Instant,
    places: Vec<Place<M>>,
    flights: BinaryHeap<Reverse<Flight>>,
    dice: Dice,
    serial: u64,
    steps: u64,
    /// Losses and repetitions in a hundred.
    pub(crate) loss: u8,
    pub(crate) repeats: u8,
    /// Delays are drawn evenly up to this, above zero.
    pub(crate) delay: Duration,
}

impl<M: Machine> Net<M> {
    pub(crate) fn new(places: usize, seed: u64) -> Self {
        let place = || Place {
            machine: None,
            roll: Roll::default(),
            side: false,
            frozen: false,
            inbox: Vec::new(),
            ahead: Duration::from_secs(100),
        };
        Self {
            now: Instant::ZERO,
            places: (0..places).map(|_| place()).collect(),
            flights: BinaryHeap::new(),
            dice: Dice(seed),
            serial: 0,
            steps: 0,
            loss: 0,
            repeats: 0,
            delay: Duration::from_micros(500),
        }
    }

    /// What the clock at `place` shows.
    pub(crate) fn clock(&self, place: usize) -> Instant {
        self.now + self.places[place].ahead
    }

    /// Sets the clock at `place` forward, or back if it can be.
    pub(crate) fn shift_clock(&mut self, place: usize, by: Duration, back: bool) {
        let ahead = &mut self.places[place].ahead;
        *ahead = if back { ahead.saturating_sub(by) } else { *ahead + by };
    }

    pub(crate) fn start(&mut self, place: usize, machine: M, roll: Roll) {
        let at = &mut self.places[place];
        at.inbox.clear();
        (at.machine, at.roll, at.frozen) = (Some(machine), roll, false);
        self.after_input(place);
    }

    pub(crate) fn stop(&mut self, place: usize) -> Option<M> {
        self.places[place].machine.take()
    }

    pub(crate) fn machine(&self, place: usize) -> Option<&M> {
        self.places[place].machine.as_ref()
    }

    pub(crate) fn roll(&self, place: usize) -> &Roll {
        &self.places[place].roll
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = (usize, &M)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(at, place)| Some((at, place.machine.as_ref()?)))
    }

    /// Gives a wish to the machine at `place`, if it is up and not frozen.
    pub(crate) fn with<R>(
        &mut self,
        place: usize,
        wish: impl FnOnce(&mut M, Instant) -> R,
    ) -> Option<R> {
        let now = self.clock(place);
        let at = &mut self.places[place];
        let machine = at.machine.as_mut().filter(|_| !at.frozen)?;
        let result = wish(machine, now);
        self.after_input(place);
        Some(result)
    }

    /// Splits the network: bit n of `sides` is the side of place n.
    pub(crate) fn split(&mut self, sides: u8) {
        for (at, place) in self.places.iter_mut().enumerate() {
            place.side = sides >> at & 1 == 1;
        }
    }

    pub(crate) fn freeze(&mut self, place: usize) {
        self.places[place].frozen = true;
    }

    /// Lets a frozen machine go on: what has arrived is handed in before timers fire.
    pub(crate) fn thaw(&mut self, place: usize) {
        self.places[place].frozen = false;
        for (from, bytes) in std::mem::take(&mut self.places[place].inbox) {
            self.deliver(place, from, bytes);
        }
        self.with(place, |machine, now| fire(machine, now));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done`, at most `limit`; returns whether it was done.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    /// The next arrival or timer, if it is not after `end`.
    fn step(&mut self, end: Instant) -> bool {
        self.steps += 1;
        assert!(self.steps < MAX_STEPS, "a storm: {} datagrams are under way", self.flights.len());
        let arrival = self.flights.peek().map(|Reverse(flight)| flight.at);
        let timers = self.places.iter().enumerate().filter_map(|(at, place)| {
            let machine = place.machine.as_ref().filter(|_| !place.frozen)?;
            let due = machine.poll_timeout()?;
            // A clock that was set forward makes timers due in the past: they are due now.
            let wait = due - (self.now + place.ahead);
            Some((self.now + wait, at))
        });
        match (arrival, timers.min()) {
            (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                self.now = at;
                if let Some(Reverse(flight)) = self.flights.pop() {
                    self.deliver(flight.place, flight.from, flight.bytes);
                }
                true
            }
            (_, Some((due, place))) if due <= end => {
                self.now = due;
                self.with(place, |machine, now| fire(machine, now));
                true
            }
            _ => false,
        }
    }

    fn deliver(&mut self, place: usize, from: SocketAddr, mut bytes: Vec<u8>) {
        if self.places[place].frozen {
            if self.places[place].inbox.len() < MAX_INBOX {
                self.places[place].inbox.push((from, bytes));
            }
            return;
        }
        let taken = self.with(place, |machine, now| machine.handle_packet(now, from, &mut bytes));
        assert!(matches!(taken, None | Some(Ok(()))), "a sound datagram is refused: {taken:?}");
    }

    fn after_input(&mut self, place: usize) {
        let now = self.clock(place);
        let at = &mut self.places[place];
        let Some(mut machine) = at.machine.take() else { return };
        machine.observe(now, &mut at.roll);
        send(&mut machine, 1400, |to, bytes| self.post(place, to, bytes));
        self.places[place].machine = Some(machine);
    }

    fn post(&mut self, from: usize, to: SocketAddr, bytes: &[u8]) {
        let Some(place) = (0..self.places.len()).find(|&place| addr(place) == to) else { return };
        let copies = 1 + usize::from(self.dice.percent(self.repeats));
        for _ in 0..copies {
            let cut = self.places[from].side != self.places[place].side;
            if cut || self.dice.percent(self.loss) {
                continue;
            }
            let delay = u64::try_from(self.delay.as_nanos()).unwrap_or(u64::MAX).max(1);
            let at = self.now + Duration::from_nanos(1 + self.dice.next() % delay);
            self.serial += 1;
            let (serial, from, bytes) = (self.serial, addr(from), bytes.to_vec());
            self.flights.push(Reverse(Flight { at, serial, place, from, bytes }));
        }
    }
}
