//! How nodes die, come back, and are seen under other addresses.

use core::time::Duration;

use super::fault::{Moment, Trouble};
use super::world::{End, Place, Sim, What, address};

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

impl Place {
    /// Whether another trouble than this one keeps the node down.
    fn is_kept_down(&self, but: usize) -> bool {
        self.troubles.iter().any(|(&number, trouble)| number != but && keeps_down(trouble))
    }

    /// The source that others see on its datagrams.
    pub(super) fn source(&self) -> core::net::SocketAddr {
        self.outside.unwrap_or(self.addr)
    }
}

impl Sim {
    /// Starts the node of a place again, unless it is up or something else keeps it down.
    pub(super) fn come_back(&mut self, place: usize) {
        let spot = &mut self.places[place];
        if spot.has(keeps_down) {
            return;
        }
        // A leave that is still under way ends here.
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
        spot.addr = address(place, spot.moves);
        self.remap(place);
    }

    /// Others see the datagrams of a place under a new source from now on.
    pub(super) fn rebind(&mut self, place: usize) {
        /// Above the ports that nodes move to.
        const OUTSIDE: u16 = 20_000;
        let spot = &mut self.places[place];
        spot.rebound += 1;
        let mut outside = address(place, 0);
        outside.set_port(OUTSIDE + spot.rebound);
        spot.outside = Some(outside);
        self.remap(place);
    }

    /// A rebinding is over, unless it is for ever.
    pub(super) fn unbind(&mut self, place: usize, lasting: bool) {
        let spot = &mut self.places[place];
        if !lasting && !spot.has(|trouble| matches!(trouble, Trouble::Rebind { .. })) {
            spot.outside = None;
        }
        self.remap(place);
    }

    /// Brings the addresses that lead to a place in step with its troubles.
    fn remap(&mut self, place: usize) {
        self.by_addr.retain(|_, at| *at != place);
        let spot = &self.places[place];
        let hidden = |trouble: &Trouble| matches!(trouble, Trouble::Rebind { hidden: true, .. });
        if !spot.has(hidden) {
            self.by_addr.insert(spot.addr, place);
        }
        if let Some(outside) = spot.outside {
            self.by_addr.insert(outside, place);
        }
    }

    /// The node at `place` begins what it is going to die of.
    pub(super) fn light(&mut self, place: usize, fault: usize, moment: Moment, left: u32) {
        if self.places[place].is_kept_down(fault) {
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
        *self.met.entry(name).or_default() += 1;
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
        *self.met.entry("crashed while sending").or_default() += 1;
        // What it has said is on its way.
        self.note_truth(place);
        self.crash(place);
        true
    }

    /// In a rolling restart it is the turn of `place`: to go down, and then to come back.
    pub(super) fn roll(&mut self, place: usize, fault: usize, count: u64, each: Duration) {
        if count == 0 {
            self.crash(place);
            self.push(self.now + each / 2, What::Pulse { place, fault, count: 1 });
        } else {
            self.come_back(place);
        }
    }

    /// What a socket with little room takes before it is full, and until when it is.
    pub(super) fn room_to_send(&self, place: usize) -> Option<u32> {
        let spot = &self.places[place];
        if spot.full_until > self.now {
            return Some(0);
        }
        spot.find(
            |trouble| if let Trouble::SmallOutbox(room) = trouble { Some(*room) } else { None },
        )
    }

    /// The socket of `place` is full; it takes more when what is in it has left.
    pub(super) fn fill(&mut self, place: usize) {
        /// How long a full socket takes to empty.
        const DRAIN: Duration = Duration::from_millis(10);
        let at = self.now + DRAIN;
        self.places[place].full_until = at;
        self.push(at, What::Drained { place });
    }

    /// The socket of `place` takes datagrams again.
    pub(super) fn drained(&mut self, place: usize) -> Option<usize> {
        if self.places[place].busy_until <= self.now {
            self.send(place);
            self.arm(place);
        }
        None
    }
}

/// A boot epoch that no life before had.
pub(super) fn fresh(spot: &Place, mut epoch: u64) -> u64 {
    while spot.lives.iter().any(|life| life.epochs.contains(&epoch)) {
        epoch += 1;
    }
    epoch
}
