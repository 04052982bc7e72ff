//! How faults begin and end.

use alloc::vec::Vec;

use super::fault::{Betrayal, Condition, Fault, Links, Nodes, Trouble};
use super::net::Luck;
use super::world::{NEVER, Sim, What};
use crate::time::Instant;

impl Sim {
    /// A fault begins. Returns its number, by which it is ended.
    pub fn begin(&mut self, fault: Fault) -> usize {
        self.begin_with(fault, self.next_fault as u64)
    }

    /// The same, with the number that its luck belongs to: what it does by chance is the same
    /// whichever faults began before it.
    pub fn begin_with(&mut self, fault: Fault, luck: u64) -> usize {
        let number = self.next_fault;
        self.next_fault += 1;
        *self.met.entry(fault.class()).or_default() += 1;
        match &fault {
            Fault::Link(links, condition) => {
                self.net.begin(number, luck, links.clone(), condition.clone());
            }
            Fault::Node(nodes, trouble) => {
                for (turn, place) in self.places_of(nodes).into_iter().enumerate() {
                    self.trouble(place, number, trouble, turn as u32, luck);
                }
            }
        }
        self.faults.insert(number, (fault, luck));
        number
    }

    /// The fault of that number is over.
    pub fn end(&mut self, number: usize) {
        let Some((fault, _)) = self.faults.remove(&number) else { return };
        match fault {
            Fault::Link(links, condition) => {
                self.net.end(number);
                if condition == Condition::Clog {
                    self.unclog(&links);
                }
            }
            Fault::Node(nodes, trouble) => {
                for place in self.places_of(&nodes) {
                    self.relieve(place, number, &trouble);
                }
            }
        }
    }

    /// All faults are over.
    pub fn calm(&mut self) {
        while let Some((&number, _)) = self.faults.first_key_value() {
            self.end(number);
        }
    }

    fn places_of(&self, nodes: &Nodes) -> Vec<usize> {
        (0..self.places.len()).filter(|&place| nodes.has(place)).collect()
    }

    /// Begins for `place`, the `turn`-th of those that it befalls.
    fn trouble(&mut self, place: usize, number: usize, trouble: &Trouble, turn: u32, luck: u64) {
        let now = self.now;
        let spot = &mut self.places[place];
        spot.troubles.insert(number, trouble.clone());
        match *trouble {
            Trouble::Pause => spot.busy_until = NEVER,
            Trouble::ClockRate(ppm) => {
                spot.clock.rebase(now);
                spot.clock.ppm = ppm;
                self.arm(place);
            }
            Trouble::ClockLeap(by) => {
                spot.clock.rebase(now);
                spot.clock.shown += by;
                self.arm(place);
            }
            Trouble::ClockBack(by) => {
                spot.clock.rebase(now);
                let shown = spot.clock.shown.as_nanos();
                let back = shown.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX));
                spot.clock.shown = Instant::from_nanos(back);
                self.arm(place);
            }
            Trouble::Crash | Trouble::Death | Trouble::Move | Trouble::WallClockBack(_) => {
                self.crash(place);
            }
            Trouble::Restart(within) => {
                self.crash(place);
                let mut luck = Luck::new(self.seed ^ 0x0b_1e55, place, 0).fork(luck);
                let back = now + luck.within(within);
                self.push(back, What::Pulse { place, fault: number, count: 0 });
            }
            Trouble::RollingRestart(each) => {
                let turn = now + each * turn;
                self.push(turn, What::Pulse { place, fault: number, count: 0 });
            }
            Trouble::CrashDuring(moment, left) => self.light(place, number, moment, left.max(1)),
            Trouble::Rebind { .. } => self.rebind(place),
            Trouble::Leave | Trouble::Goodbye => {
                self.with(place, |node, now| node.leave(now));
            }
            Trouble::Flood(_) | Trouble::Replay(_) | Trouble::Spoof(_) | Trouble::Insider(..) => {
                self.push(now, What::Pulse { place, fault: number, count: 0 });
            }
            Trouble::Slow(_)
            | Trouble::Deaf
            | Trouble::Mute
            | Trouble::LateTimers(_)
            | Trouble::Blocked
            | Trouble::Inattentive
            | Trouble::Inbox(_)
            | Trouble::SmallOutbox(_)
            | Trouble::ShortBuffer(_) => {}
        }
    }

    fn relieve(&mut self, place: usize, number: usize, trouble: &Trouble) {
        let now = self.now;
        let spot = &mut self.places[place];
        spot.troubles.remove(&number);
        match trouble {
            Trouble::Pause => {
                if !spot.has(|trouble| matches!(trouble, Trouble::Pause)) {
                    spot.busy_until = now;
                    self.push(now, What::Resume { place });
                }
            }
            Trouble::ClockRate(_) => {
                spot.clock.rebase(now);
                spot.clock.ppm = 0;
                self.arm(place);
            }
            Trouble::Crash | Trouble::Leave | Trouble::Restart(_) | Trouble::RollingRestart(_) => {
                self.come_back(place);
            }
            Trouble::CrashDuring(..) => {
                spot.fuse = None;
                self.come_back(place);
            }
            Trouble::WallClockBack(by) => {
                spot.behind = *by;
                self.come_back(place);
            }
            Trouble::Insider(Betrayal::Keys, _) => {
                self.crash(place);
                self.come_back(place);
            }
            Trouble::Rebind { lasting, .. } => self.unbind(place, *lasting),
            Trouble::Move => {
                if self.places[place].node.is_none() {
                    self.relocate(place);
                }
                self.come_back(place);
            }
            Trouble::Blocked => {
                self.send(place);
                self.arm(place);
            }
            Trouble::Inattentive => self.take_events(place),
            Trouble::Death
            | Trouble::Goodbye
            | Trouble::ClockLeap(_)
            | Trouble::ClockBack(_)
            | Trouble::Slow(_)
            | Trouble::Deaf
            | Trouble::Mute
            | Trouble::LateTimers(_)
            | Trouble::Inbox(_)
            | Trouble::SmallOutbox(_)
            | Trouble::ShortBuffer(_)
            | Trouble::Flood(_)
            | Trouble::Replay(_)
            | Trouble::Spoof(_)
            | Trouble::Insider(..) => {}
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
