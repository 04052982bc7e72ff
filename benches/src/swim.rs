//! Membership at the sizes of rows P1 to P6.

use std::time::Duration;

use brickwork_core::swim::{Config, Swim};
use brickwork_core::{Identity, Instant};

use crate::alloc;
use crate::measure::{Entrant, Outcome, Stopwatch};
use crate::wire::{CLUSTER, Datagram, Paper, introduce};

/// Largest datagram that is sent.
pub const MAX_DATAGRAM: usize = 1400;
/// Alive rows in one datagram of that size.
pub const ROWS: u32 = 25;
/// Updates in a packet of row P2.
pub const UPDATES: u32 = 20;
/// The member on paper that all datagrams come from.
pub const TELLER: Paper = Paper(1);

/// A node, the clock that it lives by, and a buffer.
#[derive(Debug)]
pub struct Subject {
    /// The state machine under test.
    pub swim: Swim,
    /// Virtual time.
    pub now: Instant,
    buf: Vec<u8>,
}

impl Subject {
    /// A node that knows nobody.
    #[must_use]
    pub fn alone() -> Self {
        let mut config = Config::lan();
        config.max_members = 1 << 20;
        let me = Paper(0);
        let identity = Identity::new(me.name(), me.addr());
        let swim = Swim::new(Instant::ZERO, identity, CLUSTER, config, MAX_DATAGRAM, [7; 32]);
        let mut subject = Self {
            swim: swim.expect("the preset is accepted"),
            now: Instant::ZERO,
            buf: vec![0; MAX_DATAGRAM],
        };
        introduce(TELLER, TELLER.addr(), |datagram| {
            subject.take(datagram);
            subject.send().map(|len| subject.buf[..len].to_vec())
        });
        subject
    }

    /// A node with `n` members, itself included, and nothing left to say.
    #[must_use]
    pub fn among(n: u32) -> Self {
        let mut subject = Self::told(n);
        assert_eq!(subject.swim.len(), n as usize);
        subject.quiet();
        subject
    }

    /// A node that has just been told of `n` members, by a driver that asks for events after each datagram.
    fn told(n: u32) -> Self {
        let mut subject = Self::alone();
        for mut packet in introductions(n) {
            subject.take(&mut packet);
            while subject.swim.poll_event().is_some() {}
        }
        subject
    }

    /// Takes a datagram in.
    pub fn take(&mut self, packet: &mut [u8]) {
        let taken = self.swim.handle_packet(self.now, TELLER.addr(), packet);
        taken.expect("the datagram is correct");
    }

    /// Writes the next datagram and returns its length.
    pub fn send(&mut self) -> Option<usize> {
        self.swim.poll_transmit(&mut self.buf).map(|sent| sent.payload.len())
    }

    /// Takes all events and sends all datagrams. Returns how many datagrams.
    pub fn drain(&mut self) -> usize {
        while self.swim.poll_event().is_some() {}
        std::iter::from_fn(|| self.send()).count()
    }

    /// Lets news wear off: what is queued is sent, on acks, as often as it should be.
    fn quiet(&mut self) {
        const LONE_ACK: usize = 100;
        let mut ping = Datagram::from(TELLER.id(), 1).ping(1, Paper(0).id()).seal();
        self.drain();
        loop {
            self.take(&mut ping);
            let len = self.send().expect("a ping is answered");
            if self.drain() == 0 && len < LONE_ACK {
                return;
            }
        }
    }
}

/// Datagrams that introduce members 2 to `n` - 1.
#[must_use]
pub fn introductions(n: u32) -> Vec<Vec<u8>> {
    let packet = |first: u32| {
        let rows = (first..n.min(first + ROWS)).map(Paper);
        Datagram::from(TELLER.id(), 1).alive(rows, 0).seal()
    };
    (2..n).step_by(ROWS as usize).map(packet).collect()
}

/// P1: handle a ping and write its ack.
#[must_use]
pub fn ping(n: u32) -> Entrant {
    const BATCH: u64 = 1_000;
    let mut subject = Subject::among(n);
    let mut packet = Datagram::from(TELLER.id(), 1).ping(77, Paper(0).id()).seal();
    Entrant::new("brickwork", move |watch| {
        watch.time(BATCH, || {
            for _ in 0..BATCH {
                subject.take(&mut packet);
                assert!(subject.send().is_some(), "a ping is answered");
            }
        });
        subject.drain();
    })
}

/// P2: a packet with 20 updates, all of them news.
#[must_use]
pub fn updates(n: u32) -> Entrant {
    const BATCH: u32 = 64;
    let mut subject = Subject::among(n);
    let mut incarnation = 0;
    Entrant::new("brickwork", move |watch| {
        incarnation += 1;
        let mut packets: Vec<_> = (0..BATCH)
            .map(|at| {
                // Steps through the members, so that the rows lie far apart.
                let rows = (0..UPDATES).map(|row| Paper(2 + (at * UPDATES + row) * 7 % (n - 2)));
                Datagram::from(TELLER.id(), 1).alive(rows, incarnation).seal()
            })
            .collect();
        watch.time(u64::from(BATCH), || packets.iter_mut().for_each(|packet| subject.take(packet)));
        subject.drain();
    })
}

/// P3: timers that are due, with the gossip of all members queued, and what they make it send.
#[must_use]
pub fn timeouts(n: u32) -> Entrant {
    Entrant::new("brickwork", move |watch| {
        let mut subject = Subject::alone();
        for mut packet in introductions(n) {
            subject.take(&mut packet);
        }
        subject.drain();
        for _ in 0..200 {
            let Some(due) = subject.swim.poll_timeout() else { break };
            subject.now = subject.now.max(due);
            watch.time(1, || {
                subject.swim.handle_timeout(subject.now);
                while subject.send().is_some() {}
            });
            while subject.swim.poll_event().is_some() {}
        }
    })
}

/// P4: forget 5,000 dead members of `n` when their tombstones end.
#[must_use]
pub fn removals(n: u32) -> Entrant {
    const DEAD: u32 = 5_000;
    Entrant::new("brickwork", move |watch| {
        let mut subject = Subject::among(n);
        for first in (2..2 + DEAD).step_by(ROWS as usize) {
            let rows = (first..first + ROWS).map(Paper);
            subject.take(&mut Datagram::from(TELLER.id(), 1).dead(rows, TELLER.id()).seal());
        }
        subject.drain();
        // The suspicions run out one after another, with a helper's silence between; nobody answers
        // any probe, so the others are kept from failing by looking at the first deadlines only.
        let expected = n as usize - DEAD as usize;
        while subject.swim.len() > expected {
            step(&mut subject);
        }
        let gone = subject.swim.former_members().count();
        subject.now += Config::lan().tombstone_age + Duration::from_secs(60);
        watch.time(1, || subject.swim.handle_timeout(subject.now));
        let left = subject.swim.former_members().count();
        assert!(gone >= DEAD as usize && left + DEAD as usize <= gone, "{gone} gone, {left} left");
    })
}

/// The next timer, answered by nobody.
fn step(subject: &mut Subject) {
    let due = subject.swim.poll_timeout().expect("somebody is probed");
    subject.now = subject.now.max(due);
    subject.swim.handle_timeout(subject.now);
    subject.drain();
}

/// P5: fill the table with `n` members.
#[must_use]
pub fn fill(n: u32) -> Entrant {
    let packets = introductions(n);
    Entrant::new("brickwork", move |watch| fill_once(watch, &packets, n))
}

/// P6: live heap per member, without names, when nothing is left to say.
#[must_use]
pub fn heap(n: u32) -> Outcome {
    Outcome::counted("brickwork", per_member(n, Subject::among))
}

/// P6: the same while all of them are still to be told to others.
#[must_use]
pub fn heap_of_news(n: u32) -> Outcome {
    Outcome::counted("brickwork, all of it news", per_member(n, Subject::told))
}

/// P6: live heap of a node with `n` members, names included, at rest and with everything still to be told.
#[must_use]
pub fn whole(n: u32) -> [Outcome; 2] {
    [
        Outcome::counted("brickwork", kept(|| Subject::among(n))),
        Outcome::counted("brickwork, all of it news", kept(|| Subject::told(n))),
    ]
}

/// Bytes that one more member takes, beyond those of its name: what a node with `n` has more than one with two.
pub fn per_member<T>(n: u32, make: impl Fn(u32) -> T) -> f64 {
    let bytes = kept(|| make(n)) - kept(|| make(2));
    bytes / f64::from(n - 2) - Paper(0).name().len() as f64
}

/// Bytes of heap that what `make` makes holds.
pub fn kept<T>(make: impl FnOnce() -> T) -> f64 {
    let before = alloc::live_bytes();
    let made = make();
    let bytes = alloc::live_bytes() - before;
    drop(made);
    bytes as f64
}

fn fill_once(watch: &mut Stopwatch, packets: &[Vec<u8>], n: u32) {
    let (mut subject, mut packets) = (Subject::alone(), packets.to_vec());
    watch.time(1, || packets.iter_mut().for_each(|packet| subject.take(packet)));
    assert_eq!(subject.swim.len(), n as usize);
}
