//! Time that passes without loss, for all or for some.

use std::time::Duration;

use brickwork_core::{Instant, NodeId};

use super::{BUCKETS, CHUNK, DIFFER, FETCH, FRAGMENT, Outcome, PULL, SEALS, STAGE, World, id};
use crate::common::frame_of;

/// What those send who are not equal yet.
const MORE: [u8; 8] = [PULL, CHUNK, FETCH, STAGE, FRAGMENT, SEALS, BUCKETS, DIFFER];

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
        // Those that something happened to: of the others there is nothing to be had.
        let mut touched: Vec<bool> = (0..self.replicas.len()).map(inside).collect();
        while self.now < end {
            let mut quiet = true;
            for at in 0..touched.len() {
                if !std::mem::take(&mut touched[at]) {
                    continue;
                }
                // It may have written something anew.
                if self.replicas[at].map.stats().writes != self.replicas[at].writes {
                    self.check(at)?;
                }
                if group == usize::MAX && self.crash_in_another_life(at)? {
                    touched.fill(true);
                    touched[at] = false;
                }
                self.sync_log(at)?;
                for flight in self.drain(at).into_iter().filter(|flight| inside(flight.to)) {
                    quiet = false;
                    let more = MORE.iter().any(|tag| frame_of(&flight.bytes, *tag).is_some());
                    asked += u64::from(more);
                    let to = flight.to;
                    self.deliver(flight)?;
                    touched[to] = true;
                    if more {
                        self.check(to)?;
                    }
                }
            }
            if quiet {
                self.fire(end, &mut touched, inside);
            }
        }
        Ok(asked)
    }

    /// Lets time pass until something is due, and fires that.
    fn fire(&mut self, end: Instant, touched: &mut [bool], inside: impl Fn(usize) -> bool) {
        let due = |at: usize| self.replicas[at].map.poll_timeout().filter(|_| inside(at));
        let due: Vec<Option<Instant>> = (0..self.replicas.len()).map(due).collect();
        self.now = due.iter().flatten().min().copied().unwrap_or(end).max(self.now);
        for (at, due) in due.into_iter().enumerate() {
            if due.is_some_and(|due| due <= self.now) {
                self.replicas[at].map.handle_timeout(self.now);
                touched[at] = true;
            }
        }
    }
}
