//! How nodes die, come back and move.

use core::time::Duration;

use super::fault::{Moment, Trouble};
use super::network::{Spot, What};
use super::world::{End, Place, Sim, address};

/// A crash that waits for its moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fuse {
    pub(super) moment: Moment,
    /// Inputs, or datagrams of one train, until then.
    pub(super) left: u32,
}

/// Whether a trouble keeps its node down until it ends.
const fn keeps_down(trouble: &Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Crash
            | Trouble::Death
            | Trouble::Move
            | Trouble::Leave
            | Trouble::Goodbye
            | Trouble::WallClockBack(_)
            | Trouble::CrashDuring(..)
    )
}

impl Spot {
    /// Whether another trouble than this one keeps the node down.
    fn is_kept_down(&self, but: usize) -> bool {
        self.troubles.iter().any(|(&number, trouble)| number != but && keeps_down(trouble))
    }
}

impl Sim {
    /// Starts the node of a place again, unless it is up or something else keeps it down.
    pub(super) fn come_back(&mut self, place: usize) {
        if self.net.spots[place].has(keeps_down) {
            return;
        }
        // A leave that is still under way ends here.
        let spot = &self.places[place];
        if spot.node.as_ref().is_some_and(|node| !node.node().swim().me().is_live()) {
            self.stop(place, End::Leave);
        }
        if self.places[place].node.is_none() {
            self.restart(place);
        }
    }

    pub(super) fn relocate(&mut self, place: usize) {
        let spot = &mut self.places[place];
        spot.moves += 1;
        self.net.move_to(place, address(place, spot.moves));
    }

    /// The node at `place` begins what it is going to die of.
    pub(super) fn light(&mut self, place: usize, fault: usize, moment: Moment, left: u32) {
        if self.net.spots[place].is_kept_down(fault) {
            return;
        }
        match moment {
            Moment::Joining => {
                self.crash(place);
                self.restart(place);
            }
            Moment::Leaving => {
                self.with(place, |node, now| node.leave(now));
            }
            Moment::Sending => {}
        }
        let spot = &mut self.places[place];
        spot.fuse = spot.node.is_some().then_some(Fuse { moment, left });
    }

    /// An input brings the node at `place` nearer to its end. Returns whether this was it.
    pub(super) fn burn(&mut self, place: usize) -> bool {
        let spot = &mut self.places[place];
        let (Some(fuse), Some(node)) = (&mut spot.fuse, &spot.node) else { return false };
        let node = node.node();
        let name = match fuse.moment {
            Moment::Joining if node.members().count() > 1 => {
                // It was quicker.
                spot.fuse = None;
                return false;
            }
            Moment::Joining => "crashed while joining",
            Moment::Leaving => "crashed while leaving",
            Moment::Sending => return false,
        };
        fuse.left -= 1;
        if fuse.left > 0 {
            return false;
        }
        *self.net.met.entry(name).or_default() += 1;
        self.crash(place);
        true
    }

    /// The node at `place` has handed out so many datagrams in one go: is it to die before the next?
    pub(super) fn burn_train(&mut self, place: usize, sent: u32) -> bool {
        let spot = &self.places[place];
        let dies = |fuse: Fuse| matches!(fuse.moment, Moment::Sending) && fuse.left <= sent;
        if !spot.fuse.is_some_and(dies) {
            return false;
        }
        *self.net.met.entry("crashed while sending").or_default() += 1;
        // What it has said is on its way.
        self.note_truth(place);
        self.crash(place);
        true
    }

    /// In a rolling restart it is the turn of `place`: to go down, and then to come back.
    pub(super) fn roll(&mut self, place: usize, fault: usize, count: u64, each: Duration) {
        if count == 0 {
            self.crash(place);
            self.net.push(self.net.now + each / 2, What::Pulse { place, fault, count: 1 });
        } else {
            self.come_back(place);
        }
    }
}

/// A boot epoch that no life before had.
pub(super) fn fresh(spot: &Place, mut epoch: u64) -> u64 {
    while spot.lives.iter().any(|life| life.epochs.contains_key(&epoch)) {
        epoch += 1;
    }
    epoch
}
