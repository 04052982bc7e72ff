//! Leaving gracefully: tell a few members until they acknowledge, and let gossip do the rest.

use alloc::boxed::Box;

use smallvec::SmallVec;

use super::member::{Case, ME, State};
use super::{Origin, Swim};
use crate::event::Event;
use crate::id::NodeId;
use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Leave {
    deadline: Option<Instant>,
    retry_at: Option<Instant>,
    acknowledged: SmallVec<[NodeId; 8]>,
    /// The leave is over: no timer, no packet any more.
    pub(super) finished: bool,
}

impl Leave {
    pub(super) fn next(&self) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.deadline).min()
    }

    pub(super) const fn started(&self) -> bool {
        self.finished || self.deadline.is_some()
    }
}

impl Swim {
    pub(super) fn start_leave(&mut self, now: Instant) {
        if self.leave.started() {
            return;
        }
        self.stop_probing();
        self.joiner.stop();
        self.turn(now, ME, State::Left, Case::Left(Box::new(self.preimage)), now);
        self.leave.deadline = Some(now + self.config.leave_timeout);
        if self.joiner.conflicted {
            self.finish_leave();
            return;
        }
        self.tell_first(now, ME);
        self.say_goodbye(now);
    }

    fn say_goodbye(&mut self, now: Instant) {
        let wanted = self.config.leave_acks.min(self.table.live().len());
        if self.leave.acknowledged.len() >= wanted {
            self.finish_leave();
            return;
        }
        let (outbox, done) = (&mut self.outbox, &self.leave.acknowledged);
        let silent = |member: &super::Member| !done.contains(&member.id());
        self.table.sample(&mut self.rng, wanted, silent, |slot| outbox.row(slot, ME));
        self.leave.retry_at = Some(now + self.config.retry_max);
    }

    pub(super) fn on_left_ack(&mut self, origin: Origin) {
        if !self.leave.started() || origin.slot.is_none() {
            return;
        }
        let id = origin.sender.id;
        if !self.leave.acknowledged.contains(&id) {
            self.leave.acknowledged.push(id);
        }
        if self.leave.acknowledged.len() >= self.config.leave_acks.min(self.table.live().len()) {
            self.finish_leave();
        }
    }

    pub(super) fn fire_leave(&mut self, now: Instant) {
        if self.leave.deadline.is_some_and(|at| at <= now) {
            self.finish_leave();
        } else if self.leave.retry_at.is_some_and(|at| at <= now) {
            self.say_goodbye(now);
        }
    }

    pub(super) fn finish_leave(&mut self) {
        if self.leave.finished {
            return;
        }
        self.leave.finished = true;
        self.leave.deadline = None;
        self.leave.retry_at = None;
        self.outbox.clear();
        let acknowledged = self.leave.acknowledged.len();
        self.events.push(Event::LeaveFinished { acknowledged });
    }
}
