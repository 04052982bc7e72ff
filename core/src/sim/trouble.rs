//! How troubles of nodes begin and end.

use super::fault::{Betrayal, Fault, Trouble};
use super::net::Luck;
use super::network::What;
use super::world::Sim;

impl Sim {
    /// A fault begins. Returns its number, by which it is ended.
    pub fn begin(&mut self, fault: Fault) -> usize {
        self.begin_with(fault, self.net.next_fault as u64)
    }

    /// The same, with the number that its luck belongs to: what it does by chance is the same
    /// whichever faults began before it.
    pub fn begin_with(&mut self, fault: Fault, luck: u64) -> usize {
        let number = self.net.befall(&fault, luck);
        if let Fault::Node(nodes, trouble) = &fault {
            for (turn, place) in self.net.places_of(nodes).into_iter().enumerate() {
                self.trouble(place, number, trouble, turn as u32, luck);
            }
        }
        number
    }

    /// The fault of that number is over.
    pub fn end(&mut self, number: usize) {
        if let Some(Fault::Node(nodes, trouble)) = self.net.relieve(number) {
            for place in self.net.places_of(&nodes) {
                self.relieve(place, &trouble);
            }
        }
    }

    /// All faults are over.
    pub fn calm(&mut self) {
        while let Some(number) = self.net.first_fault() {
            self.end(number);
        }
    }

    /// Begins for `place`, the `turn`-th of those that it befalls.
    fn trouble(&mut self, place: usize, number: usize, trouble: &Trouble, turn: u32, luck: u64) {
        let now = self.net.now;
        match *trouble {
            Trouble::Crash | Trouble::Death | Trouble::Move | Trouble::WallClockBack(_) => {
                self.crash(place);
            }
            Trouble::Restart(within) => {
                self.crash(place);
                let mut luck = Luck::new(self.seed ^ 0x0b_1e55, place, 0).fork(luck);
                let back = now + luck.within(within);
                self.net.push(back, What::Pulse { place, fault: number, count: 0 });
            }
            Trouble::RollingRestart(each) => {
                let turn = now + each * turn;
                self.net.push(turn, What::Pulse { place, fault: number, count: 0 });
            }
            Trouble::CrashDuring(moment, left) => self.light(place, number, moment, left.max(1)),
            Trouble::Leave | Trouble::Goodbye => {
                self.with(place, |node, now| node.leave(now));
            }
            Trouble::Pause
            | Trouble::Slow(_)
            | Trouble::Deaf
            | Trouble::Mute
            | Trouble::ClockRate(_)
            | Trouble::ClockLeap(_)
            | Trouble::ClockBack(_)
            | Trouble::LateTimers(_)
            | Trouble::Rebind { .. }
            | Trouble::Blocked
            | Trouble::Inattentive
            | Trouble::Inbox(_)
            | Trouble::SmallOutbox(_)
            | Trouble::ShortBuffer(_)
            | Trouble::Flood(_)
            | Trouble::Replay(_)
            | Trouble::Spoof(_)
            | Trouble::Insider(..) => {}
        }
    }

    fn relieve(&mut self, place: usize, trouble: &Trouble) {
        match trouble {
            Trouble::Crash | Trouble::Leave | Trouble::Restart(_) | Trouble::RollingRestart(_) => {
                self.come_back(place);
            }
            Trouble::CrashDuring(..) => {
                self.places[place].fuse = None;
                self.come_back(place);
            }
            Trouble::WallClockBack(by) => {
                self.places[place].behind = *by;
                self.come_back(place);
            }
            Trouble::Insider(Betrayal::Keys, _) => {
                self.crash(place);
                self.come_back(place);
            }
            Trouble::Move => {
                if self.places[place].node.is_none() {
                    self.relocate(place);
                }
                self.come_back(place);
            }
            Trouble::Inattentive => self.take_events(place),
            Trouble::Death
            | Trouble::Goodbye
            | Trouble::Pause
            | Trouble::ClockRate(_)
            | Trouble::ClockLeap(_)
            | Trouble::ClockBack(_)
            | Trouble::Slow(_)
            | Trouble::Deaf
            | Trouble::Mute
            | Trouble::LateTimers(_)
            | Trouble::Rebind { .. }
            | Trouble::Blocked
            | Trouble::Inbox(_)
            | Trouble::SmallOutbox(_)
            | Trouble::ShortBuffer(_)
            | Trouble::Flood(_)
            | Trouble::Replay(_)
            | Trouble::Spoof(_)
            | Trouble::Insider(..) => {}
        }
    }
}
