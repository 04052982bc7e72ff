//! How well a member answers, next to others: an assay.
//!
//! A probe tells whether a member is there. Where a link loses four of five datagrams one way, nearly every probe is
//! answered, after some tries, and the member is of no use all the same. So whoever needs far more tries for a member than
//! for others sends it sixteen pings, each of which is answered by itself or not at all, and as many to four others by turns.
//! What counts is the difference: if the observer's own network is bad, the others answer as badly, and it says nothing.
//! (Of cluster stability under such faults: Suresh et al., "Stable and Consistent Membership at Scale with Rapid", 2018,
//! sections 2 and 7.)

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use smallvec::SmallVec;

use super::Swim;
use super::member::{ME, Member, State};
use super::outbox::Msg;
use crate::id::NodeId;
use crate::time::Instant;

/// Pings to a live member, and as many to others: so many tell one that answers by chance from one that does not.
const PINGS: u32 = 16;
/// Who answers the first so many, as others do, answers well: one that answers every fifth does so once in 400,000 times.
const FIRST: u32 = 8;
/// Pings to one that is held failed: whether it answers at all.
const FEW: u32 = 5;
/// So many others take turns.
const OTHERS: usize = 4;
/// A member that was measured is not measured again within so many probe intervals, but for an inquiry that others opened.
const REST: u32 = 10;
/// So many that others found poor are measured at once.
const AT_ONCE: usize = 4;
/// Most members that wait to be measured.
const MOST_WANTED: usize = 64;
/// An observer that needs more tries than this for a usual member is in no place to judge: a mean, in 256ths.
const MOST_TRIES: u32 = 512;
/// A member that needed fewer tries than this needs no measuring.
const LEAST_TRIES: u32 = 4;

/// What sixteen pings said of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It answers as others do.
    Well,
    /// It answers by chance, less than a third as often as others.
    Poor,
    /// It does not answer at all.
    Silent,
    /// Neither, or the observer cannot tell.
    Nothing,
}

/// A measurement under way.
#[derive(Debug)]
pub(super) struct Assay {
    slot: u32,
    target: NodeId,
    boot: u64,
    /// It talked just before, while it was held failed.
    talked: bool,
    others: SmallVec<[(u32, NodeId); OTHERS]>,
    /// Pings have the numbers from here on, those to others the odd ones.
    first: u32,
    /// Pings that it gets in all, and so far.
    pings: u32,
    sent: u32,
    gap: Duration,
    next: Instant,
    /// When the pings to the member left.
    left: SmallVec<[Instant; PINGS as usize]>,
    /// Answers by the place of the ping, a bit each: of the member …
    answers: u16,
    /// … and of the others.
    by_others: u16,
}

impl Assay {
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Whether the ping of that number is one of these.
    const fn has(&self, seq: u32) -> bool {
        seq.wrapping_sub(self.first) < 2 * self.sent
    }

    /// Notes an answer. Returns when the ping left, if it was to the member.
    fn answered(&mut self, seq: u32, by: NodeId, boot: u64) -> Option<Instant> {
        let at = seq.wrapping_sub(self.first);
        let bit = 1 << (at / 2);
        if at.is_multiple_of(2) {
            if by == self.target && boot == self.boot {
                self.answers |= bit;
                return self.left.get(at as usize / 2).copied();
            }
        } else if self.others[at as usize / 2 % self.others.len()].1 == by {
            self.by_others |= bit;
        }
        None
    }

    /// Whether all of the first were answered.
    fn is_well(&self) -> bool {
        (self.answers & self.by_others).trailing_ones() >= self.pings.min(FIRST)
    }

    fn finding(&self) -> Finding {
        if self.is_well() {
            return Finding::Well;
        }
        finding(self.answers, self.by_others, self.pings)
    }
}

/// What answers say, by the place of the ping that they answer.
///
/// A member that stands still, or is cut off or joined in the middle of it, answers some pings in a row: no chance, and not
/// held against it. One that does not answer at all is for probes to find.
fn finding(answers: u16, by_others: u16, pings: u32) -> Finding {
    let (answered, by_others) = (answers.count_ones(), by_others.count_ones());
    let turns = ((answers ^ (answers >> 1)) & 0x7fff).count_ones();
    if by_others < pings.div_ceil(2) {
        Finding::Nothing
    } else if answered == 0 {
        Finding::Silent
    } else if answered * 4 >= by_others * 3 {
        Finding::Well
    } else if answered * 3 < by_others && turns >= 3 {
        Finding::Poor
    } else {
        Finding::Nothing
    }
}

/// The measurements under way, and whom the last were of.
#[derive(Debug, Default)]
pub(super) struct Assayer {
    under_way: Vec<Assay>,
    last: SmallVec<[(u32, Instant); 8]>,
    /// Who others found poor, and is to be measured here too, a few at a time.
    wanted: VecDeque<u32>,
    /// When the last of them was wanted, or one that was measured done.
    since: Instant,
}

impl Assayer {
    pub(super) fn next(&self) -> Option<Instant> {
        let may = !self.wanted.is_empty() && self.under_way.len() < AT_ONCE;
        let due = may.then_some(self.since);
        self.under_way.iter().map(Assay::next).chain(due).min()
    }

    /// Ends what concerns that member.
    pub(super) fn void(&mut self, slot: u32) {
        self.under_way.retain(|assay| assay.slot != slot);
        self.wanted.retain(|wanted| *wanted != slot);
    }

    pub(super) fn stop(&mut self) {
        self.under_way.clear();
        self.wanted.clear();
    }

    fn rests(&self, now: Instant, slot: u32, rest: Duration) -> bool {
        self.last.iter().any(|&(other, at)| other == slot && now < at + rest)
    }

    fn note(&mut self, now: Instant, slot: u32) {
        self.last.retain(|(other, _)| *other != slot);
        if self.last.len() == self.last.inline_size() {
            self.last.remove(0);
        }
        self.last.push((slot, now));
    }
}

impl Swim {
    /// The member in `slot` answered a probe after so many tries: more than its share?
    pub(super) fn consider(&mut self, now: Instant, slot: u32, tries: u32) {
        let usual = self.prober.usual_tries();
        if tries >= LEAST_TRIES && tries.saturating_mul(256) >= 3 * usual && usual <= MOST_TRIES {
            self.assay(now, slot, false);
        }
    }

    /// Measures how well the member in `slot` answers, unless another one is being measured, or it was lately.
    pub(super) fn assay(&mut self, now: Instant, slot: u32, talked: bool) {
        let rest = self.config.probe_interval * REST;
        if self.assayer.under_way.is_empty() && !self.assayer.rests(now, slot, rest) {
            self.begin_assay(now, slot, talked);
        }
    }

    /// Measures how well the member in `slot` answers, after those that are waiting.
    pub(super) fn assay_in_turn(&mut self, now: Instant, slot: u32) {
        let assayer = &mut self.assayer;
        let under_way = assayer.under_way.iter().any(|assay| assay.slot == slot);
        if under_way || assayer.wanted.len() >= MOST_WANTED || assayer.wanted.contains(&slot) {
            return;
        }
        assayer.since = now;
        assayer.wanted.push_back(slot);
        self.fire_assay(now);
    }

    fn begin_assay(&mut self, now: Instant, slot: u32, talked: bool) {
        if slot == ME || !self.holds_out() || self.leave.started() {
            return;
        }
        let (target, boot) = (self.table.member(slot).id(), self.table.row(slot).boot());
        let mut others = SmallVec::new();
        let well = |member: &Member| member.state == State::Alive && member.id() != target;
        let table = &self.table;
        table.sample(&mut self.rng, OTHERS, well, |slot| {
            others.push((slot, table.member(slot).id()));
        });
        if others.is_empty() {
            return;
        }
        self.stats.assays += 1;
        self.assayer.note(now, slot);
        self.assayer.wanted.retain(|wanted| *wanted != slot);
        // Whom others may have dropped needs no more than a look.
        let (pings, gap) = if self.table.member(slot).is_live() {
            (PINGS, self.config.retry_min)
        } else {
            (FEW, self.config.probe_interval / FEW)
        };
        let (first, sent) = (self.prober.next_seqs(2 * pings), 0);
        let (next, answers, by_others) = (now, 0, 0);
        self.assayer.under_way.push(Assay {
            slot,
            target,
            boot,
            talked,
            others,
            first,
            pings,
            sent,
            gap,
            next,
            left: SmallVec::new(),
            answers,
            by_others,
        });
        self.send_pings(now, self.assayer.under_way.len() - 1);
    }

    /// Sends the next two pings, or judges; begins with the next who waits.
    pub(super) fn fire_assay(&mut self, now: Instant) {
        for at in (0..self.assayer.under_way.len()).rev() {
            self.send_pings(now, at);
        }
        while self.assayer.under_way.len() < AT_ONCE
            && let Some(slot) = self.assayer.wanted.pop_front()
        {
            self.begin_assay(now, slot, false);
        }
    }

    /// Of the measurement there.
    fn send_pings(&mut self, now: Instant, at: usize) {
        let Some(assay) = self.assayer.under_way.get_mut(at) else { return };
        if assay.next > now {
            return;
        }
        if now > assay.next + self.config.probe_timeout {
            // Stalled itself: what came in meanwhile may be lost.
            self.assayer.under_way.swap_remove(at);
            return;
        }
        if assay.sent == assay.pings {
            return self.assayed(now, at);
        }
        let (slot, target) = (assay.slot, assay.target);
        let (other, other_id) = assay.others[assay.sent as usize % assay.others.len()];
        let seq = assay.first.wrapping_add(2 * assay.sent);
        assay.sent += 1;
        assay.left.push(now);
        // Late answers count: a member far away is as good as any.
        let last = assay.sent == assay.pings;
        assay.next = now + if last { self.config.probe_interval } else { assay.gap };
        self.outbox.msg(slot, Msg::Ping { seq, target });
        // One that is gone does not answer, as one that does not answer.
        if self.table.try_row(other).is_some_and(|row| row.member.id() == other_id) {
            self.outbox.msg(other, Msg::Ping { seq: seq.wrapping_add(1), target: other_id });
        }
    }

    /// Takes an answer to one of the pings; returns whether it was to one of them.
    pub(super) fn assay_answered(&mut self, now: Instant, seq: u32, by: NodeId, boot: u64) -> bool {
        let Some(at) = self.assayer.under_way.iter().position(|assay| assay.has(seq)) else {
            return false;
        };
        let assay = &mut self.assayer.under_way[at];
        let (slot, left) = (assay.slot, assay.answered(seq, by, boot));
        let well = assay.is_well();
        if let Some(left) = left {
            // Each ping has its own number, so it is known which one was answered.
            self.measure(slot, now - left);
        }
        if well {
            self.assayed(now, at);
        }
        true
    }

    fn assayed(&mut self, now: Instant, at: usize) {
        let assay = self.assayer.under_way.swap_remove(at);
        self.assayer.since = now;
        let row = self.table.try_row(assay.slot);
        if row.is_some_and(|row| row.member.id() == assay.target && row.boot() == assay.boot) {
            self.found(now, assay.slot, assay.finding(), assay.talked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers that come and go are counted, those that break off or begin are not.
    #[test]
    fn what_answers_say() {
        let all = u16::MAX;
        let of = |answers, by_others| finding(answers, by_others, PINGS);
        assert_eq!(of(all, all), Finding::Well);
        assert_eq!(of(0x0fff, all), Finding::Well);
        assert_eq!(of(0, all), Finding::Silent);
        assert_eq!(of(0b0100_1000_0010_0000, all), Finding::Poor);
        assert_eq!(of(0b0000_0000_0001_1111, all), Finding::Nothing, "stood still");
        assert_eq!(of(0b1110_0000_0000_0000, all), Finding::Nothing, "joined");
        assert_eq!(of(0b0101_0101_0101_0101, all), Finding::Nothing, "half");
        // An observer whom less than half of the others answer cannot tell.
        assert_eq!(of(0b0100_1000_0010_0000, 0x007f), Finding::Nothing);
        assert_eq!(of(0, 0x007f), Finding::Nothing);
        let few = |answers| finding(answers, 0b1_1111, FEW);
        assert_eq!([0, 0b1, 0b1_1011].map(few), [Finding::Silent, Finding::Nothing, Finding::Well]);
        // Next to others that answer half the time, three of sixteen are not few.
        assert_eq!(of(0b0100_1000_0010_0000, 0x00ff), Finding::Nothing);
        assert_eq!(of(0b0100_1000_0000_0000, 0x00ff), Finding::Poor);
    }
}
