//! How faults begin and end, as far as links, clocks and sockets go.

use alloc::vec::Vec;

use super::fault::{Condition, Fault, Links, Nodes, Trouble};
use super::network::{NEVER, Network, What};
use crate::time::Instant;

/// The first port under which others see a place whose source has changed: above those that nodes of a
/// simulation move to.
const OUTSIDE: u16 = 20_000;

impl Trouble {
    /// Whether it lies in the program itself, so that no network can bring it about.
    const fn is_inside(&self) -> bool {
        match self {
            Self::Crash
            | Self::Death
            | Self::Leave
            | Self::Goodbye
            | Self::Move
            | Self::CrashDuring(..)
            | Self::Restart(_)
            | Self::RollingRestart(_)
            | Self::WallClockBack(_)
            | Self::Inattentive
            | Self::Insider(..) => true,
            Self::Pause
            | Self::Slow(_)
            | Self::Deaf
            | Self::Mute
            | Self::ClockRate(_)
            | Self::ClockLeap(_)
            | Self::ClockBack(_)
            | Self::LateTimers(_)
            | Self::Rebind { .. }
            | Self::Blocked
            | Self::Inbox(_)
            | Self::SmallOutbox(_)
            | Self::ShortBuffer(_)
            | Self::Flood(_)
            | Self::Replay(_)
            | Self::Spoof(_) => false,
        }
    }
}

impl Network {
    /// A fault begins. Returns its number, by which it is ended.
    ///
    /// A place is what [`Fault::Node`] calls a node. Replayed and spoofed datagrams are those that
    /// programs sent since [`record`](Self::record), or since the fault began.
    ///
    /// # Panics
    ///
    /// If it is a trouble that lies in the program itself: [`Trouble::Crash`], [`Trouble::Death`],
    /// [`Trouble::Leave`], [`Trouble::Goodbye`], [`Trouble::Move`], [`Trouble::CrashDuring`],
    /// [`Trouble::Restart`], [`Trouble::RollingRestart`], [`Trouble::WallClockBack`],
    /// [`Trouble::Inattentive`] and [`Trouble::Insider`] are yours to bring about, with
    /// [`close`](Self::close), [`open`](Self::open) and [`move_to`](Self::move_to).
    pub fn begin(&mut self, fault: Fault) -> usize {
        self.begin_with(fault, self.next_fault as u64)
    }

    /// The same, with the number that its luck belongs to: what it does by chance is the same
    /// whichever faults began before it.
    ///
    /// # Panics
    ///
    /// As [`begin`](Self::begin).
    pub fn begin_with(&mut self, fault: Fault, luck: u64) -> usize {
        if let Fault::Node(_, trouble) = &fault {
            assert!(!trouble.is_inside(), "a network cannot bring about: {}", fault.class());
        }
        self.befall(&fault, luck)
    }

    /// The fault of that number is over; nothing happens if it is already.
    pub fn end(&mut self, number: usize) {
        self.relieve(number);
    }

    /// All faults are over.
    pub fn calm(&mut self) {
        while let Some(number) = self.first_fault() {
            self.end(number);
        }
    }

    /// The oldest fault that is not over.
    pub(super) fn first_fault(&self) -> Option<usize> {
        self.faults.first_key_value().map(|(&number, _)| number)
    }

    /// Those of the places that exist.
    pub(super) fn places_of(&self, nodes: &Nodes) -> Vec<usize> {
        (0..self.spots.len()).filter(|&place| nodes.has(place)).collect()
    }

    /// Whether there is a node, or a link between two, that the fault is about.
    fn hits(&self, fault: &Fault) -> bool {
        let places = || 0..self.spots.len();
        let joins = |links: &Links, from| places().any(|to| from != to && links.has(from, to));
        match fault {
            Fault::Node(nodes, _) => places().any(|place| nodes.has(place)),
            Fault::Link(links, _) => places().any(|from| joins(links, from)),
        }
    }

    /// A fault begins, as far as links, clocks and sockets go.
    pub(super) fn befall(&mut self, fault: &Fault, luck: u64) -> usize {
        let number = self.next_fault;
        self.next_fault += 1;
        // One that nobody is left of, after those that must stay were left out, says nothing of its class.
        if self.hits(fault) {
            *self.met.entry(fault.class()).or_default() += 1;
        }
        match fault {
            Fault::Link(links, condition) => {
                self.links.begin(number, luck, links.clone(), condition.clone());
            }
            Fault::Node(nodes, trouble) => {
                for place in self.places_of(nodes) {
                    self.spots[place].troubles.insert(number, trouble.clone());
                    self.trouble(place, number, trouble);
                }
            }
        }
        self.faults.insert(number, (fault.clone(), luck));
        number
    }

    /// Ends a fault as far as that, and returns it.
    pub(super) fn relieve(&mut self, number: usize) -> Option<Fault> {
        let (fault, _) = self.faults.remove(&number)?;
        match &fault {
            Fault::Link(links, condition) => {
                self.links.end(number);
                if *condition == Condition::Clog {
                    self.unclog(links);
                }
            }
            Fault::Node(nodes, trouble) => {
                for place in self.places_of(nodes) {
                    self.spots[place].troubles.remove(&number);
                    self.untrouble(place, trouble);
                }
            }
        }
        Some(fault)
    }

    fn trouble(&mut self, place: usize, number: usize, trouble: &Trouble) {
        let now = self.now;
        let spot = &mut self.spots[place];
        match *trouble {
            Trouble::Pause => spot.busy_until = NEVER,
            Trouble::ClockRate(ppm) => {
                spot.clock.rebase(now);
                spot.clock.ppm = ppm;
                self.wake_when_due(place);
            }
            Trouble::ClockLeap(by) => {
                spot.clock.rebase(now);
                spot.clock.shown += by;
                self.wake_when_due(place);
            }
            Trouble::ClockBack(by) => {
                spot.clock.rebase(now);
                let shown = spot.clock.shown.as_nanos();
                let back = shown.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX));
                spot.clock.shown = Instant::from_nanos(back);
                self.wake_when_due(place);
            }
            Trouble::Rebind { .. } => self.rebind(place),
            Trouble::Flood(_) | Trouble::Replay(_) | Trouble::Spoof(_) | Trouble::Insider(..) => {
                self.push(now, What::Pulse { place, fault: number, count: 0 });
            }
            Trouble::Slow(_)
            | Trouble::Deaf
            | Trouble::Mute
            | Trouble::LateTimers(_)
            | Trouble::Blocked
            | Trouble::Inbox(_)
            | Trouble::SmallOutbox(_)
            | Trouble::ShortBuffer(_)
            | Trouble::Crash
            | Trouble::Death
            | Trouble::Leave
            | Trouble::Goodbye
            | Trouble::Move
            | Trouble::CrashDuring(..)
            | Trouble::Restart(_)
            | Trouble::RollingRestart(_)
            | Trouble::WallClockBack(_)
            | Trouble::Inattentive => {}
        }
    }

    #[allow(clippy::wildcard_enum_match_arm)] // most troubles are over when they are not there
    fn untrouble(&mut self, place: usize, trouble: &Trouble) {
        let now = self.now;
        let spot = &mut self.spots[place];
        match trouble {
            Trouble::Pause if !spot.has(|trouble| matches!(trouble, Trouble::Pause)) => {
                spot.busy_until = now;
                self.push(now, What::Resume { place });
            }
            Trouble::ClockRate(_) => {
                // Of those that are still on, the latest decides, as when it began.
                let rate = |trouble: &Trouble| {
                    if let Trouble::ClockRate(ppm) = trouble { Some(*ppm) } else { None }
                };
                let other = spot.troubles.values().rev().find_map(rate);
                spot.clock.rebase(now);
                spot.clock.ppm = other.unwrap_or(0);
                self.wake_when_due(place);
            }
            Trouble::Blocked => self.push(now, What::Drained { place }),
            Trouble::Rebind { lasting, .. } => self.unbind(place, *lasting),
            _ => {}
        }
    }

    /// Others see the datagrams of a place under a new source from now on.
    fn rebind(&mut self, place: usize) {
        let mut outside = self.spots[place].addr;
        loop {
            let spot = &mut self.spots[place];
            spot.rebound += 1;
            outside.set_port(OUTSIDE.wrapping_add(spot.rebound));
            if !self.by_addr.contains_key(&outside) {
                break;
            }
        }
        self.spots[place].outside = Some(outside);
        self.remap(place);
    }

    /// A rebinding is over, unless it is for ever.
    fn unbind(&mut self, place: usize, lasting: bool) {
        let spot = &mut self.spots[place];
        if !lasting && !spot.has(|trouble| matches!(trouble, Trouble::Rebind { .. })) {
            spot.outside = None;
        }
        self.remap(place);
    }

    /// Brings the addresses that lead to a place in step with its troubles.
    pub(super) fn remap(&mut self, place: usize) {
        self.by_addr.retain(|_, at| *at != place);
        let spot = &self.spots[place];
        let hidden = |trouble: &Trouble| matches!(trouble, Trouble::Rebind { hidden: true, .. });
        let own = (!spot.has(hidden)).then_some(spot.addr);
        for addr in own.into_iter().chain(spot.outside) {
            let other = self.by_addr.insert(addr, place);
            assert_eq!(other, None, "{addr} is taken");
        }
    }

    fn unclog(&mut self, links: &Links) {
        let held = core::mem::take(&mut self.clogged);
        for (from, to, what) in held {
            if links.has(from, to) {
                self.push(self.now, what);
            } else {
                self.clogged.push((from, to, what));
            }
        }
    }
}
