//! Who answers far worse than others is held out.
//!
//! What observers found of a member ([`assay`](super::assay)) is told with who found it and how long ago, as an
//! [`Inquiry`]. Once enough distinct observers found it poor, and others had the time to find otherwise, each member by itself
//! holds it failed, and holds it out: for a time it takes no word that it is there. Without that a member whose link loses most
//! of what it sends, or fails every other half minute, would come and go as long as that lasts; here it goes once.
//!
//! An observer's word alone is nothing. Of those who hear of it first some measure too, so few that the member is not
//! flooded, and say what they find, good or bad; two that found it well outweigh all others, also when the verdict has
//! fallen, and whenever the inquiry is said to have been opened. So whoever lies alone evicts nobody for long. One that is told of
//! a verdict that fell before, of a member that is well here, gives as much time to those who find otherwise. And as gossip
//! reaches nearly all, and not all, each tells of the inquiry once more before it acts: who knows otherwise says so.
//!
//! A member that was held failed, talks, and does not answer, is one that cannot hear: it is held out by as many that found it
//! so, at once. One that does not talk either may be dead, or on the other side of a split, and comes back as soon as it can;
//! who has held many failed lately was itself apart from them, and measures none of them.
//!
//! Where gossip does not reach, comparing tables does: members that are held out count in the digests of tables as such.

use core::time::Duration;

use super::assay::Finding;
use super::inquiry::{
    Findings, Inquiry, MAX_OBSERVERS, MAX_TIMES, Terms, Verdict, WELL, found_before,
};
use super::member::{ME, State};
use super::standing_wire::Told;
use super::{Origin, Swim};
use crate::event::Event;
use crate::id::NodeId;
use crate::time::Instant;

/// Probe intervals in which an inquiry is heard, and which whoever hears of its verdict gives to others to find otherwise, …
const HEARING: u32 = 12;
/// … after which one that came to nothing is forgotten, …
const WINDOW: u32 = 60;
/// … and of which a hold must have more left to begin where it is heard of.
const SLACK: u32 = 10;
/// A hold is forgiven after so many times [`Config::hold_out`](super::Config::hold_out).
const FORGIVEN: u32 = 6;
/// So many of those who hear of an inquiry measure too, on average: fewer than two of them once in half a million inquiries.
const WITNESSES: usize = 16;

/// What is known of how a member answers in its present boot.
#[derive(Debug, Default)]
pub(super) struct Standing {
    inquiry: Option<Inquiry>,
    /// When the inquiry was heard of first, or opened here.
    heard: Instant,
    /// Others were told of it once more, as it comes to a hold here.
    asked: bool,
    /// Who found the member well when that came to nothing last.
    well: Findings<WELL>,
    /// When a peer that had not heard of those was told last.
    corrected: Option<Instant>,
    /// How often the member was held out, and when that was over last.
    times: u8,
    ended: Instant,
}

impl Standing {
    fn inquiry(&self) -> Option<&Inquiry> {
        self.inquiry.as_ref()
    }

    /// What is told of it.
    pub(super) fn told(&self) -> Option<&Inquiry> {
        self.inquiry().filter(|inquiry| !inquiry.poor().is_empty())
    }
}

impl Swim {
    /// Whether members are held out at all.
    pub(super) fn holds_out(&self) -> bool {
        !self.is_memberlist() && !self.config.hold_out.is_zero()
    }

    fn terms(&self) -> Terms {
        let interval = self.config.probe_interval;
        Terms {
            hearing: interval * HEARING,
            window: interval * WINDOW,
            // A tombstone that is forgotten before would let it in again.
            hold: self.config.hold_out.min(self.config.tombstone_age / 16),
            jitter: interval,
        }
    }

    /// How many observers it takes, in a cluster of so many members.
    fn quorum(&self) -> u8 {
        let most = self.config.hold_out_observers.min(MAX_OBSERVERS);
        u8::try_from(most.min(self.len().saturating_sub(2)).max(2)).unwrap_or(u8::MAX)
    }

    /// Nothing is known of how a member answers: it starts anew, or has left.
    pub(super) fn forget_standing(&mut self, slot: u32) {
        self.holds.clear(slot);
        self.table.set_held(slot, false);
        self.table.drop_standing(slot);
    }

    /// This node measured a member.
    ///
    /// One that does not answer at all is poor only if it talks all the same, and that it is well is news only where others
    /// found it otherwise.
    pub(super) fn found(&mut self, now: Instant, slot: u32, finding: Finding, talked: bool) {
        let state = self.table.member(slot).state;
        let poor = match finding {
            Finding::Poor => state != State::Left,
            Finding::Silent => state == State::Dead && talked,
            Finding::Well | Finding::Nothing => false,
        };
        if !poor && finding != Finding::Well {
            return;
        }
        self.settle(now, slot);
        let (me, at) = (self.table.me().id(), found_before(now, Duration::ZERO));
        let terms = self.terms();
        let standing = self.table.standing(slot);
        let times = standing.map_or(0, |standing| standing.times);
        // What was enough when it was opened is enough, though the cluster may have grown since.
        let known = standing.and_then(|standing| standing.inquiry());
        let known = known.map(|known| (known.opened(), known.quorum()));
        let (opened, quorum) = known.unwrap_or_else(|| (at, self.quorum()));
        let mut told = Inquiry::new(opened, times, quorum);
        if !poor {
            told.add_well(me, at);
        } else if told.is_heard(now, &terms) {
            told.add_poor(me, at);
        }
        self.weigh(now, slot, &told, true);
    }

    /// A member that is held failed talks. If it hears as well it will say that it is there; or else it is measured.
    pub(super) fn hear_dead(&mut self, now: Instant, origin: Origin) {
        let Some(slot) = origin.slot else { return };
        let row = self.table.row(slot);
        // Where it is asked must be where it talks from.
        let member = &row.member;
        if member.state != State::Dead || member.held || member.addr() != origin.from {
            return;
        }
        let settled = now >= row.since + self.config.probe_interval;
        if settled && self.holds_out() && self.few_failed(now) {
            self.assay(now, slot, true);
        }
    }

    /// Whether few were held failed of late: who holds many failed was apart from them, and it is for all of them to come back.
    fn few_failed(&mut self, now: Instant) -> bool {
        let window = self.config.probe_interval * WINDOW;
        while self.failed_at.front().is_some_and(|at| now >= *at + window) {
            self.failed_at.pop_front();
        }
        self.failed_at.len() * 4 <= self.table.live().len()
    }

    /// A peer tells of an inquiry.
    pub(super) fn on_standing(&mut self, now: Instant, origin: Origin, told: Told<'_>) {
        let Some(slot) = self.known(origin, told.id, told.boot) else { return };
        if !self.holds_out() || self.is_outdated(now, origin) {
            return;
        }
        let mut inquiry = Inquiry::new(found_before(now, told.opened), told.times, told.quorum);
        // Whoever is named may have left since, and this node may have found it before it started anew: who drops a name has
        // another set than all others. But a member does not judge itself.
        let may = |by: NodeId| by != told.id;
        for (by, age) in told.poor().filter(|(by, _)| may(*by)) {
            inquiry.add_poor(by, found_before(now, age));
        }
        for (by, age) in told.well().filter(|(by, _)| may(*by)) {
            inquiry.add_well(by, found_before(now, age));
        }
        if slot == ME {
            self.hear_of_own(now, &inquiry);
        } else if self.table.member(slot).state != State::Left {
            self.settle(now, slot);
            if !self.weigh(now, slot, &inquiry, false) {
                let counts = (told.poor().count(), told.well().count());
                self.heard_standing(now, origin, slot, &inquiry, counts);
            }
        }
    }

    /// Adds findings, passes on what is new, and sees what it comes to. Returns whether anything was new.
    fn weigh(&mut self, now: Instant, slot: u32, told: &Inquiry, own: bool) -> bool {
        let (terms, member) = (self.terms(), self.table.member(slot));
        let (dead, held) = (member.state == State::Dead, member.held);
        let slack = now + self.config.probe_interval * SLACK;
        let verdict = told.verdict(now, dead, &terms);
        let lasts = match verdict {
            _ if told.poor().is_empty() => false,
            Verdict::Open(_) => true,
            Verdict::Held(until) => until > slack,
            Verdict::Dismissed(until) => until > now,
        };
        if !lasts && self.table.standing(slot).is_none() {
            // Nearly every member is found well at some time: nothing is kept for that.
            return false;
        }
        let standing = self.table.make_standing(slot);
        let known = standing.inquiry.as_mut();
        // A hold that is in force takes the place of what was begun since by who did not know of it.
        let older = |known: &Inquiry| {
            told.opened() < known.opened() && matches!(verdict, Verdict::Held(_)) && !held
        };
        // Who opened it may have missed the last hold, or that the member was found well since.
        let mut anew = told.clone().at_least(standing.times);
        anew.hear_well(&standing.well);
        let (news, begun) = match known {
            Some(known) if known.is_same(told, &terms) => (known.join(told, &terms), false),
            Some(known) => {
                anew.hear_well(known.well());
                let other = older(known) || known.was_over_before(told);
                let begun = lasts && other && !anew.is_outweighed();
                (begun || known.hear_well(told.well()), begun)
            }
            None => (lasts, lasts),
        };
        if begun {
            standing.inquiry = Some(anew);
            (standing.heard, standing.asked) = (now, false);
        }
        if let Some(known) = &mut standing.inquiry {
            // It may be older than it was known to be.
            known.hear_well(&standing.well);
            if known.is_outweighed() {
                standing.well = known.well().into();
            }
        }
        // Also of one whose verdict is old: it is news here, and may be a liar's.
        let witness = begun && !own;
        if !news {
            return false;
        }
        self.judge(now, slot);
        // As many as are wanted, whoever they are, in a cluster of any size.
        if witness && self.rng.below(self.table.live().len().max(1)) < WITNESSES {
            self.assay_in_turn(now, slot);
        }
        self.tell_soon(now, slot);
        true
    }

    /// Drops an inquiry that is over.
    fn settle(&mut self, now: Instant, slot: u32) {
        let terms = self.terms();
        let failed = self.table.member(slot).state == State::Dead;
        let Some(standing) = self.table.standing_mut(slot) else { return };
        if now >= standing.ended + terms.hold * FORGIVEN {
            standing.times = 0;
        }
        let Some(inquiry) = &standing.inquiry else { return };
        match inquiry.verdict(now, failed, &terms) {
            Verdict::Held(until) if until <= now => {
                standing.times = (inquiry.times() + 1).min(MAX_TIMES);
                standing.ended = now;
            }
            Verdict::Dismissed(until) if until <= now => {}
            Verdict::Open(_) | Verdict::Held(_) | Verdict::Dismissed(_) => return,
        }
        standing.inquiry = None;
        self.holds.clear(slot);
        self.table.set_held(slot, false);
    }

    /// Does what the inquiry comes to at this moment, and notes when that will be another.
    fn judge(&mut self, now: Instant, slot: u32) {
        let (terms, member) = (self.terms(), self.table.member(slot));
        let (failed, held) = (member.state == State::Dead, member.held);
        let Some(standing) = self.table.standing(slot) else { return };
        let Some(inquiry) = &standing.inquiry else { return };
        let asked = standing.asked;
        let late = standing.heard + self.config.probe_interval * HEARING;
        // One that failed is held at once, before it comes back; but not on the word that it was so some time ago, when it may
        // have failed but for a moment, and for another reason.
        let at_once = failed && inquiry.is_heard(standing.heard, &terms);
        let slack = now + self.config.probe_interval * SLACK;
        match inquiry.verdict(now, failed, &terms) {
            Verdict::Held(_) if !at_once && now < late => self.holds.set(slot, late),
            // The others end it soon.
            Verdict::Held(until) if !held && until <= slack => self.holds.set(slot, until),
            // Gossip reaches nearly all: who has not heard that others found otherwise is told so when it asks.
            Verdict::Held(_) if !held && !failed && !asked => {
                self.holds.set(slot, now + self.config.probe_interval);
                if let Some(standing) = self.table.standing_mut(slot) {
                    standing.asked = true;
                }
                self.tell_soon(now, slot);
            }
            Verdict::Held(until) => {
                self.holds.set(slot, until);
                if !held {
                    self.hold_out(now, slot);
                }
            }
            Verdict::Open(until) | Verdict::Dismissed(until) => {
                self.holds.set(slot, until);
                if held {
                    self.table.set_held(slot, false);
                    self.stats.holds_lifted += 1;
                }
            }
        }
    }

    fn hold_out(&mut self, now: Instant, slot: u32) {
        self.stats.held_out += 1;
        if self.table.member(slot).is_live() {
            let case = self.table.row_mut(slot).take_case();
            self.bury(now, slot, case);
        }
        self.table.set_held(slot, true);
        self.tell_soon(now, slot);
    }

    /// Does what is due of inquiries.
    pub(super) fn fire_holds(&mut self, now: Instant) {
        let due = self.next_hold();
        if due.is_none_or(|at| at > now) || self.notice_stall(now, due) {
            return;
        }
        while let Some((_, slot)) = self.holds.pop(now) {
            self.settle(now, slot);
            self.judge(now, slot);
        }
    }

    /// When that is.
    pub(super) fn next_hold(&self) -> Option<Instant> {
        self.holds.next().map(|at| at.max(self.verdicts_after))
    }

    /// A peer tells nothing new. If it is just what is told here it is known there; if that comes to something else, it is told.
    fn heard_standing(
        &mut self,
        now: Instant,
        origin: Origin,
        slot: u32,
        told: &Inquiry,
        counts: (usize, usize),
    ) {
        let standing = self.table.standing(slot);
        let Some(inquiry) = standing.and_then(|standing| standing.inquiry()) else { return };
        let same = inquiry.is_same(told, &self.terms());
        let outweighs = inquiry.outweighs(told) || same && inquiry.is_outweighed();
        if outweighs && counts.1 < WELL {
            // Should the other not take it, they do not go on at the speed of the network.
            let rest = self.config.probe_interval;
            let corrected = standing.and_then(|standing| standing.corrected);
            if corrected.is_none_or(|at| now >= at + rest) {
                if let Some(standing) = self.table.standing_mut(slot) {
                    standing.corrected = Some(now);
                }
                self.correct(origin, slot);
            }
        } else if same
            // Of one that is not held out its state is told as well, and may be other news to the peer.
            && self.table.member(slot).held
            && (inquiry.poor().len(), inquiry.well().len()) == counts
            && let Some(teller) = origin.slot
        {
            self.gossip.heard(slot, teller);
        }
    }

    /// Others hold this node out, if enough of them are named.
    fn hear_of_own(&mut self, now: Instant, inquiry: &Inquiry) {
        if let Verdict::Held(until) = inquiry.verdict(now, true, &self.terms()) {
            let was = self.out_until;
            self.out_until = was.max(until);
            if was <= now && until > now {
                self.events.push(Event::HeldOut { remaining: until - now });
            }
        }
    }
}
