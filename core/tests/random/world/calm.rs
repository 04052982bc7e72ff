//! Time that passes without loss, for all or for some.

use std::time::Duration;

use brickwork_core::NodeId;

use super::{BUCKETS, CHUNK, DIFFER, FETCH, FRAGMENT, Outcome, PULL, SEALS, STAGE, World, id};
use crate::common::frame_of;

impl World<'_> {
    /// Lets time pass without loss. Returns how many datagrams carried a pull or a chunk.
    pub(super) fn calm(&mut self, time: Duration) -> Outcome<u64> {
        self.calm_among(usize::MAX, time)
    }

    /// Those of the group take all others for gone and hear of nobody else.
    pub(super) fn part(&mut self, group: usize, time: Duration) -> Outcome {
        let inside = |at: usize| group >> at & 1 == 1;
        for at in (0..self.replicas.len()).filter(|at| inside(*at)) {
            for peer in 0..self.replicas.len() {
                if inside(peer) {
                    self.meet(at, peer);
                } else {
                    self.replicas[at].map.peer_down(self.now, NodeId(id(peer)));
                }
            }
        }
        self.calm_among(group, time)?;
        (0..self.replicas.len()).filter(|at| inside(*at)).try_for_each(|at| self.check(at))
    }

    /// The same among some, by the bits of a number.
    fn calm_among(&mut self, group: usize, time: Duration) -> Outcome<u64> {
        let inside = |at: usize| group >> at & 1 == 1;
        let (end, mut asked) = (self.now + time, 0);
        while self.now < end {
            let mut quiet = true;
            for at in (0..self.replicas.len()).filter(|at| inside(*at)) {
                // It may have written something anew.
                if self.replicas[at].map.stats().writes != self.replicas[at].writes {
                    self.check(at)?;
                }
                if group == usize::MAX {
                    self.crash_in_another_life(at)?;
                }
                self.sync_log(at)?;
                for flight in self.drain(at).into_iter().filter(|flight| inside(flight.to)) {
                    quiet = false;
                    let tags = [PULL, CHUNK, FETCH, STAGE, FRAGMENT, SEALS, BUCKETS, DIFFER];
                    let more = tags.iter().any(|tag| frame_of(&flight.bytes, *tag).is_some());
                    asked += u64::from(more);
                    let to = flight.to;
                    self.deliver(flight)?;
                    if more {
                        self.check(to)?;
                    }
                }
            }
            if quiet {
                let those = (0..).zip(&self.replicas).filter(|(at, _)| inside(*at));
                let due = those.filter_map(|(_, replica)| replica.map.poll_timeout());
                self.now = due.min().unwrap_or(end).max(self.now);
                let now = self.now;
                let those = (0..).zip(&mut self.replicas).filter(|(at, _)| inside(*at));
                those.for_each(|(_, replica)| replica.map.handle_timeout(now));
            }
        }
        Ok(asked)
    }
}
