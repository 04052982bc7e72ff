//! Asking for the units of a full sync, on the side that takes.
//!
//! Answers come by the window, and more is asked for before an answer is over: once half of it is here, by a FETCH that
//! lets the giver go on from where it has got to ([`Ask::Ahead`]). So a way of any length is never idle, and neither
//! the loss of that FETCH nor that of an answer's last datagram costs a timeout: the end of an answer lets the same be
//! asked again, and its giver takes no notice of what it has heard already. Only both together, one time in 400 where a
//! datagram in 20 is lost, are waited for. That was one time in ten before, and two thirds of the time that a million
//! entries took. Tried instead: a timeout of 10 ms in place of 25, which saves half as much.
//!
//! What is missing before the place that had been reached when the last FETCH left is asked for with it: what was on
//! its way then is only late, perhaps.

use smallvec::SmallVec;

use super::Map;
use super::full_wire::{self, FetchHead, MAX_RANGES, Range, Stage};
use super::stage::Staging;
use crate::reached::reached;
use crate::time::Instant;
use crate::wire::Writer;

/// Requests in a row without an answer after which a full sync is given up: five seconds on a fast network, so
/// that a giver may stand still for some without all that came being thrown away.
const MAX_TRIES: u32 = 7;

/// What is owed to the giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// To ask for all that is missing, since nothing more comes.
    Missing,
    /// To ask for more while an answer comes.
    Ahead,
    /// To ask for the same as before, in case that was lost.
    Again,
}

/// What was asked for, and what came of it.
#[derive(Debug)]
pub(super) struct Asking {
    /// Nonce of the pull that began it.
    nonce: u64,
    /// Number of the last FETCH. The pull is 0.
    number: u64,
    /// Whether that asked for more while an answer came.
    ahead: bool,
    /// How many bytes it asked for.
    budget: u64,
    /// The newest answer, and how much of it came.
    hearing: u64,
    heard: u64,
    /// One past the last unit that came, and what that was when the last FETCH left.
    edge: u64,
    settled: u64,
    owes: Option<Ask>,
    deadline: Instant,
    tries: u32,
}

impl Asking {
    pub(super) const fn new(now: Instant, nonce: u64, budget: u64) -> Self {
        let (number, hearing, heard, edge, settled) = (0, 0, 0, 0, 0);
        let (ahead, owes, deadline, tries) = (false, None, now, 0);
        Self { nonce, number, ahead, budget, hearing, heard, edge, settled, owes, deadline, tries }
    }

    /// The answer that a fragment is of, which has no number: the newest, unless more was asked for while another came,
    /// and nothing is known of the answer to that.
    pub(super) const fn of_fragments(&self) -> u64 {
        if self.ahead && self.hearing < self.number { self.hearing } else { self.number }
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Some of what was missing came.
    pub(super) const fn put_off(&mut self, deadline: Instant) {
        (self.deadline, self.tries) = (deadline, 0);
    }

    /// So many bytes came, up to unit `upto`, of the answer with that number.
    fn hear(&mut self, number: u64, bytes: u64, upto: u64) {
        if number > self.hearing && number <= self.number {
            (self.hearing, self.heard) = (number, 0);
        }
        if number == self.hearing {
            self.heard += bytes;
        }
        self.edge = self.edge.max(upto);
    }

    /// The answer with that number is over.
    fn end(&mut self, number: u64) {
        if number >= self.number {
            self.owes = Some(Ask::Missing);
        } else if number + 1 == self.number && self.hearing < self.number {
            self.owes = self.owes.or(Some(Ask::Again));
        }
    }

    /// How many of the bytes asked for are still to come, as far as is known.
    const fn awaited(&self) -> u64 {
        self.budget.saturating_sub(self.heard)
    }

    /// Whether enough of the newest answer is here to ask for more.
    const fn is_half_through(&self) -> bool {
        self.hearing == self.number && self.heard >= self.awaited()
    }
}

impl Map {
    /// A part of an answer came.
    pub(super) fn note_answer(&self, staging: &mut Staging, stage: &Stage<'_>) {
        let (head, total) = (stage.head, staging.total());
        let asking = &mut staging.asking;
        let number = if head.nonce == asking.nonce { 0 } else { head.nonce };
        let upto = head.first + u64::from(head.covered);
        asking.hear(number, stage.units.bytes() as u64, upto);
        if head.last {
            asking.end(number);
        } else if asking.owes.is_none()
            && asking.is_half_through()
            && asking.edge < total
            && self.held().is_empty()
            && self.taken.left_then() >= asking.awaited() + self.max_datagram as u64
        {
            reached!("map: more units asked for ahead");
            asking.owes = Some(Ask::Ahead);
        }
    }

    /// The answer of the peer in `slot` is over, and more is missing.
    pub(super) fn ask_for_units(&mut self, slot: u32) {
        if let Some(staging) = self.staging.as_mut().filter(|staging| staging.peer() == slot) {
            let number = staging.asking.of_fragments();
            staging.asking.end(number);
            self.peers.wake(slot);
        }
    }

    /// Asks again, or gives up.
    pub(super) fn fire_staging(&mut self, now: Instant) {
        let patience = self.pull_patience();
        let Some(mut staging) = self.staging.take_if(|staging| staging.asking.deadline <= now)
        else {
            return;
        };
        let asking = &mut staging.asking;
        asking.tries += 1;
        if asking.tries > MAX_TRIES {
            self.abandon(now, &staging);
            self.wanted = self.candidate();
            return;
        }
        reached!("map: units asked for again");
        asking.deadline = now + patience * (1 << asking.tries.min(6));
        asking.owes = Some(Ask::Missing);
        self.peers.wake(staging.peer());
        self.staging = Some(staging);
    }

    /// Asks for what is missing of a full sync, or says that it is over.
    pub(super) fn write_fetch(&mut self, slot: u32, w: &mut Writer<'_>) {
        if let Some((_, session)) = self.over.take_if(|(peer, _)| *peer == slot)
            && full_wire::write_fetch(w, &FetchHead::over(session), core::iter::empty()).is_err()
        {
            self.over = Some((slot, session));
            self.peers.wake(slot);
        }
        let held = self.held().last().copied();
        let staging = self.staging.as_mut().filter(|staging| staging.peer() == slot);
        let Some((staging, ask)) = staging.and_then(|it| it.asking.owes.map(|owes| (it, owes)))
        else {
            return;
        };
        let asking = &staging.asking;
        // Nothing is left ahead once the last unit came; with all before it there would be nothing to ask for.
        let ask = if asking.edge >= staging.total() { Ask::Missing } else { ask };
        let ahead = ask != Ask::Missing;
        // What is on its way is spent already.
        let awaited = if ask == Ask::Ahead { asking.awaited() } else { 0 };
        let most = self.config.pull_budget as u64;
        let left = self.taken.left_then().saturating_sub(awaited);
        let budget = left.clamp(self.max_datagram as u64, most);
        let number = asking.number + u64::from(ask != Ask::Again);
        let head = FetchHead { session: staging.session(), number, ahead, budget, held };
        let (settled, total, edge) = (asking.settled, staging.total(), asking.edge);
        let mut ranges: SmallVec<[Range; MAX_RANGES]> = SmallVec::new();
        if ahead {
            // The last one is there, whatever else is: without any the session would be over.
            let last = staging.missing().last().filter(|range| range.1 == total);
            let old = staging.missing().filter(|range| range.1 < total && range.0 < settled);
            let old = old.map(|(from, to)| (from, to.min(settled)));
            ranges.extend(old.take(MAX_RANGES - 1).chain(last));
        } else {
            ranges.extend(staging.missing().take(MAX_RANGES));
        }
        if full_wire::write_fetch(w, &head, ranges.into_iter()).is_err() {
            self.peers.wake(slot);
            return;
        }
        let asking = &mut staging.asking;
        asking.owes = None;
        if ask != Ask::Again {
            (asking.number, asking.budget, asking.settled) = (number, budget, edge);
            asking.ahead = ahead;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is owed follows from which answer ends. Method: a second FETCH that asks ahead, and the ends of the
    /// answers before and after.
    #[test]
    fn the_end_of_an_answer_asks_for_what_it_shows_to_be_missing() {
        let asking = || {
            let mut asking = Asking::new(Instant::ZERO, 99, 1_000);
            (asking.number, asking.ahead) = (2, true);
            asking.hear(1, 700, 10);
            asking
        };
        let ended = |mut asking: Asking, number| {
            asking.end(number);
            asking.owes
        };
        assert_eq!(ended(asking(), 0), None, "long over");
        assert_eq!(ended(asking(), 1), Some(Ask::Again), "the second may be lost");
        assert_eq!(ended(asking(), 2), Some(Ask::Missing));
        assert_eq!(asking().of_fragments(), 1);
        let mut heard = asking();
        heard.hear(2, 10, 11);
        assert_eq!((heard.hearing, heard.heard, heard.edge), (2, 10, 11));
        heard.hear(1, 500, 9);
        heard.hear(3, 500, 9);
        assert_eq!((heard.hearing, heard.heard, heard.edge), (2, 10, 11), "old, or nobody's");
        assert_eq!(heard.of_fragments(), 2);
        assert_eq!(ended(heard, 1), None, "it has come");
        let mut all = asking();
        all.owes = Some(Ask::Missing);
        assert_eq!(ended(all, 1), Some(Ask::Missing), "that asks for the same and more");
    }
}
