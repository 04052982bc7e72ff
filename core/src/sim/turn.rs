//! What happens next on a network: arrivals, wake-ups, and what faults do again and again.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;

use super::fault::{Fault, Trouble};
use super::net::{Expect, Luck};
use super::network::{Happening, Input, Network, Spot, What};
use crate::time::Instant;

/// What a place holds back while its program is busy, if nothing else is said.
const INBOX: usize = 4_096;
/// How long a full socket takes to empty.
const DRAIN: Duration = Duration::from_millis(10);
/// Where noise comes from: nobody's address.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 0), 7_946));

/// What whoever drives the network must see to.
#[derive(Debug)]
pub(super) enum Turn {
    /// A program must take this.
    Input(Input),
    /// A fault that the network cannot bring about by itself does the next of its things.
    Pulse { place: usize, fault: usize, count: u64, trouble: Trouble, luck: Luck },
}

impl Spot {
    /// How many datagrams the socket takes before it is full, if it is small.
    pub(super) fn outbox(&self) -> Option<u32> {
        self.find(
            |trouble| if let Trouble::SmallOutbox(room) = trouble { Some(*room) } else { None },
        )
    }
}

/// Inputs.
impl Network {
    /// The next turn by `end`.
    pub(super) fn step(&mut self, end: Instant) -> Option<Turn> {
        loop {
            let Reverse((at, ..)) = self.queue.peek()?;
            if *at > end {
                return None;
            }
            let Reverse((at, _, what)) = self.queue.pop()?;
            self.now = self.now.max(at);
            let turn = match what {
                What::Arrive { place, from, expect, bytes } => {
                    self.arrive(place, from, expect, bytes).map(Turn::Input)
                }
                What::Drained { place } => self.drained(place).map(Turn::Input),
                What::Wake { place } => self.wake(place, at).map(Turn::Input),
                What::Resume { place } => self.resume(place).map(Turn::Input),
                What::Pulse { place, fault, count } => self.pulse(place, fault, count),
            };
            if turn.is_some() {
                return turn;
            }
        }
    }

    /// The program at `place`, if there is one, gets this now.
    fn input(&self, place: usize, what: Happening) -> Option<Input> {
        let now = self.clock(place);
        self.spots[place].open.then_some(Input { place, now, what })
    }

    /// A slow program is busy with an input or a wish for a while.
    pub(super) fn charge(&mut self, place: usize) {
        let spot = &mut self.spots[place];
        if let Some(cost) =
            spot.find(|trouble| if let Trouble::Slow(cost) = trouble { Some(*cost) } else { None })
        {
            // A program that starts while it is paused stays so.
            spot.busy_until = spot.busy_until.max(self.now + cost);
            let at = spot.busy_until;
            self.push(at, What::Resume { place });
        }
    }

    /// A datagram reaches a place, and its program unless that is busy.
    pub(super) fn arrive(
        &mut self,
        place: usize,
        from: SocketAddr,
        expect: Expect,
        bytes: Vec<u8>,
    ) -> Option<Input> {
        let spot = &mut self.spots[place];
        if !spot.open {
            return None;
        }
        if spot.has(|trouble| matches!(trouble, Trouble::Deaf)) {
            self.links.traffic.lost += 1;
            return None;
        }
        if spot.busy_until > self.now {
            let room =
                spot.find(
                    |trouble| if let Trouble::Inbox(room) = trouble { Some(*room) } else { None },
                );
            if spot.inbox.len() >= room.unwrap_or(INBOX) {
                self.links.traffic.overflowed += 1;
            } else {
                spot.inbox.push_back((from, bytes, expect));
            }
            return None;
        }
        self.links.traffic.delivered += 1;
        self.heard(place, from, bytes.len());
        self.input(place, Happening::Datagram { from, bytes, expect })
    }

    /// A wake-up is due, unless it was put off.
    fn wake(&mut self, place: usize, at: Instant) -> Option<Input> {
        let spot = &mut self.spots[place];
        if spot.wake != Some(at) {
            return None;
        }
        spot.wake = None;
        if spot.busy_until > self.now {
            // What it slept through is done after what has arrived meanwhile.
            return None;
        }
        let shown = spot.clock.show(self.now);
        if spot.due.is_some_and(|due| due <= shown) {
            (spot.idle_wakes, spot.due) = (0, None);
            return self.input(place, Happening::Timer);
        }
        spot.idle_wakes += 1;
        assert!(
            spot.idle_wakes < 1_000,
            "OM11: {} wakes up again and again for nothing",
            spot.addr
        );
        self.wake_when_due(place);
        None
    }

    /// The program at `place` can take input again: what has arrived first, one by one.
    fn resume(&mut self, place: usize) -> Option<Input> {
        let spot = &mut self.spots[place];
        if spot.busy_until > self.now {
            return None;
        }
        let Some((from, bytes, expect)) = spot.inbox.pop_front() else {
            let writable = core::mem::take(&mut spot.drained);
            self.wake_when_due(place);
            return if writable { self.input(place, Happening::Writable) } else { None };
        };
        let input = self.arrive(place, from, expect, bytes);
        self.resuming = Some(place);
        if input.is_none() {
            self.go_on();
        }
        input
    }

    /// Whoever takes datagrams out of its inbox takes the next one when it is done with the last.
    pub(super) fn go_on(&mut self) {
        if let Some(place) = self.resuming.take() {
            let at = self.spots[place].busy_until.max(self.now);
            self.push(at, What::Resume { place });
        }
    }

    /// The socket of `place` takes datagrams again.
    fn drained(&mut self, place: usize) -> Option<Input> {
        let spot = &mut self.spots[place];
        spot.train = 0;
        if spot.busy_until > self.now {
            spot.drained = true;
            return None;
        }
        self.input(place, Happening::Writable)
    }

    /// A fault does the next of the things that it does again and again.
    #[allow(clippy::wildcard_enum_match_arm)] // the others take somebody who knows the programs
    fn pulse(&mut self, place: usize, fault: usize, count: u64) -> Option<Turn> {
        let (Fault::Node(_, trouble), luck) = self.faults.get(&fault)?.clone() else {
            return None;
        };
        let luck = Luck::new(self.seed ^ 0xf100d, place, count).fork(luck);
        if let Some(rate) = trouble.rate() {
            let pause = Duration::from_secs(1) / rate.max(1);
            self.push(self.now + pause, What::Pulse { place, fault, count: count + 1 });
        }
        match trouble {
            Trouble::Flood(_) => self.noise(place, luck).map(Turn::Input),
            Trouble::Replay(_) => self.replay(place, luck).map(Turn::Input),
            trouble => Some(Turn::Pulse { place, fault, count, trouble, luck }),
        }
    }

    /// One datagram of noise.
    fn noise(&mut self, place: usize, mut luck: Luck) -> Option<Input> {
        let len = luck.next() % 200;
        let bytes = (0..len).map(|_| luck.next() as u8).collect();
        self.arrive(place, NOWHERE, Expect::Damaged, bytes)
    }
}

/// Outputs.
impl Network {
    /// The socket of `place` takes a datagram. Returns the place that it is on its way to.
    pub(super) fn dispatch(
        &mut self,
        place: usize,
        to: SocketAddr,
        payload: &[u8],
    ) -> Option<usize> {
        let (number, mute) = self.count(place, payload.len());
        let heading = if mute {
            self.links.traffic.lost += 1;
            None
        } else {
            self.post(place, to, number, payload)
        };
        self.fill(place);
        heading
    }

    /// The program at `place` does as if it had sent so many bytes.
    pub(super) fn keep_back(&mut self, place: usize, bytes: usize) {
        self.count(place, bytes);
        self.links.traffic.lost += 1;
        self.fill(place);
    }

    /// The number of the datagram, and whether it is lost at once.
    fn count(&mut self, place: usize, bytes: usize) -> (u64, bool) {
        let spot = &mut self.spots[place];
        spot.sent += 1;
        spot.train += 1;
        self.links.traffic.sent += 1;
        self.links.traffic.bytes += bytes as u64;
        (spot.sent, spot.has(|trouble| matches!(trouble, Trouble::Mute)))
    }

    fn post(&mut self, from: usize, to: SocketAddr, number: u64, bytes: &[u8]) -> Option<usize> {
        let Some(&place) = self.by_addr.get(&to) else {
            self.links.traffic.nowhere += 1;
            self.lost_to(from, to, bytes.len());
            return None;
        };
        let source = self.spots[from].source();
        self.tape(from, place, source, number, bytes);
        for copy in self.links.carry(self.now, from, place, number, bytes) {
            let what = What::Arrive { place, from: source, expect: copy.expect, bytes: copy.bytes };
            match copy.at {
                Some(at) => self.push(at, what),
                None => self.clogged.push((from, place, what)),
            }
        }
        Some(place)
    }

    /// A small socket may be full now; it takes more when what is in it has left.
    fn fill(&mut self, place: usize) {
        let spot = &mut self.spots[place];
        if spot.outbox().is_some_and(|room| spot.train >= room) {
            let at = self.now + DRAIN;
            spot.full_until = at;
            self.push(at, What::Drained { place });
        }
    }

    pub(super) fn wake_when_due(&mut self, place: usize) {
        let spot = &mut self.spots[place];
        let late = spot
            .find(|trouble| if let Trouble::LateTimers(by) = trouble { Some(*by) } else { None });
        let Some(mut at) = spot.due.map(|due| spot.clock.when(due).max(self.now)) else {
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
}

impl Trouble {
    /// How many times per second it does something.
    #[allow(clippy::wildcard_enum_match_arm)] // most troubles do nothing between their beginning and end
    const fn rate(&self) -> Option<u32> {
        match self {
            Self::Flood(rate) | Self::Replay(rate) | Self::Spoof(rate) | Self::Insider(_, rate) => {
                Some(*rate)
            }
            _ => None,
        }
    }
}
