//! What accusations come to: a suspicion, its end, and what follows it.
//!
//! When a suspicion runs out of which not enough others told, the member is probed, again and again, until it
//! answers the accusation or a probe fails, two where losses are many: one that came alone, or whose refutation did not get
//! here, is not enough.

use super::Swim;
use super::member::{Case, ME, Member, State};
use super::suspicion::Suspicion;
use crate::event::Event;
use crate::id::NodeId;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use alloc::boxed::Box;
use smallvec::SmallVec;

/// What goes before more accusers of one who is suspected, and before the verdict: see [`Swim::tell_behind`].
const MORE: u32 = 2;
const FAILED: u32 = 3;
/// So many that were held failed of late are counted.
const MOST_FAILED: usize = 4_096;
/// How a node came to suspect a member: [`Event::Suspected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accusation {
    /// A probe of its own failed.
    Probe,
    /// A peer says that one failed, its own or another's.
    Word,
    /// A peer has held it failed, after it waited for a refutation.
    Verdict,
    /// A peer says that it left, and cannot show that the member ever said so.
    Leave,
}

impl Swim {
    /// Adds accusers of a live member, heard through `relay`, and moves the deadline of its suspicion.
    pub(super) fn accuse(
        &mut self,
        now: Instant,
        slot: u32,
        accusers: impl Iterator<Item = NodeId>,
        relay: NodeId,
        why: Accusation,
    ) {
        let member = self.table.member(slot);
        let left = member.state == State::Left && sabotaged!("the-left-suspected");
        let me = slot == ME && !sabotaged!("own-death-believed");
        if !member.is_live() && !left || me {
            return;
        }
        let (id, n) = (member.id(), self.len());
        let fresh = member.state == State::Alive || left;
        let by_verdict = why == Accusation::Verdict && self.is_well(relay);
        if fresh {
            let suspicion = Case::Suspicion(Box::new(Suspicion::new(now)));
            self.turn(now, slot, State::Suspect, suspicion, now);
            if why == Accusation::Probe {
                self.stats.suspicions_by_probe += 1;
            } else {
                self.stats.suspicions_by_word += 1;
            }
        }
        let Some(suspicion) = self.table.row_mut(slot).suspicion_mut() else { return };
        if why == Accusation::Probe {
            suspicion.add_own();
        }
        if by_verdict {
            suspicion.add_verdict(relay);
        }
        let full = suspicion.is_full(&self.config);
        // Those who do not count take nobody's place: two who told each other of them would never end.
        let accusers: SmallVec<[NodeId; 4]> =
            accusers.filter(|id| !full || self.may_accuse(*id)).collect();
        if full && !accusers.is_empty() {
            self.drop_accusers(slot);
        }
        let Some(suspicion) = self.table.row_mut(slot).suspicion_mut() else { return };
        let mut news = fresh;
        for accuser in accusers {
            news |= suspicion.add(&self.config, accuser, relay);
        }
        let hurried = fresh && why == Accusation::Verdict;
        let by = suspicion.accusers.first().copied().unwrap_or(relay);
        let Some(suspicion) = self.table.row(slot).suspicion() else { return };
        let accusers = self.accusers(suspicion);
        // New evidence can put the deadline into the past, which must not look like a stall.
        let deadline = suspicion.deadline(&self.config, (n, self.well()), accusers);
        let deadline = match deadline.max(now) {
            _ if sabotaged!("suspicion-for-ever") => Instant::MAX,
            _ if sabotaged!("hasty-verdict") => now,
            deadline => deadline,
        };
        self.suspicions.set(slot, deadline);
        if fresh {
            self.events.push(Event::Suspected { id, by, why });
        }
        if hurried {
            // More verdicts may be on their way, and would leave it no time.
            self.warn(now, slot, relay);
        }
        if fresh {
            self.tell_soon(now, slot);
        } else if news {
            self.tell_behind(now, slot, MORE);
        }
    }

    /// How many of those that are named as accusers count: live members, and this node itself only by a probe of its own.
    fn accusers(&self, suspicion: &Suspicion) -> usize {
        let counts = |id: &&NodeId| {
            let myself = **id == self.table.me().id();
            (!myself || suspicion.is_own()) && self.member(**id).is_some_and(Member::is_live)
        };
        if self.is_memberlist() {
            return suspicion.accusers.len();
        }
        suspicion.accusers.iter().filter(counts).count()
    }

    /// Whether an accuser of that name can be one.
    fn may_accuse(&self, id: NodeId) -> bool {
        self.is_memberlist() || self.member(id).is_some_and(Member::is_live)
    }

    /// Accusers that do not count make room for others.
    fn drop_accusers(&mut self, slot: u32) {
        let Some(suspicion) = self.table.row(slot).suspicion() else { return };
        let kept = suspicion.accusers.iter().copied().filter(|id| self.may_accuse(*id)).collect();
        if let Some(suspicion) = self.table.row_mut(slot).suspicion_mut() {
            suspicion.accusers = kept;
        }
    }

    /// Live members that nobody suspects here.
    fn well(&self) -> usize {
        self.len() - self.suspicions.len()
    }

    /// Whether nobody doubts that member here.
    fn is_well(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|member| member.state == State::Alive)
    }

    pub(super) fn fire_suspicions(&mut self, now: Instant) {
        let due = self.suspicions.next().map(|at| at.max(self.verdicts_after));
        if due.is_none_or(|at| at > now) || self.notice_stall(now, due) {
            return;
        }
        let (n, looks) = (self.well(), self.prober.looks());
        while let Some((_, slot)) = self.suspicions.pop(now) {
            if let Some(suspicion) = self.table.row(slot).suspicion()
                && suspicion.is_hearsay(&self.config, n, self.accusers(suspicion), looks)
            {
                // It ends when the probe fails, or with more evidence, or with the refutation that the probe asks for.
                self.prober.probe_soon(slot);
                self.stats.looks += 1;
                let time = self.stretched(self.config.probe_interval * 2);
                self.suspicions.set(slot, now + time);
                continue;
            }
            let id = self.table.member(slot).id();
            let row = self.table.row_mut(slot);
            if sabotaged!("accuser-raises-incarnation") {
                row.member.incarnation += 1;
            }
            // The accusers go on with the news: they are its evidence.
            let case = row.take_case();
            if sabotaged!("failure-told-twice") {
                self.events.push(Event::Failed { id });
            }
            self.fail(now, slot, case);
        }
    }

    /// The member comes to a state; the dead and the left are remembered until `forget_at`.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        slot: u32,
        state: State,
        case: Case,
        forget_at: Instant,
    ) {
        self.table.set_state(slot, state, case, forget_at);
        self.table.row_mut(slot).since = now;
    }

    /// The member was accused, and has not answered in time.
    pub(super) fn fail(&mut self, now: Instant, slot: u32, case: Case) {
        let n = self.well();
        match &case {
            Case::Suspicion(suspicion) if suspicion.is_own() => self.stats.failures_by_probe += 1,
            Case::Suspicion(suspicion) if suspicion.is_judged(&self.config, n) => {
                self.stats.failures_by_verdicts += 1;
            }
            Case::Suspicion(_) | Case::None | Case::Left(_) => self.stats.failures_by_word += 1,
        }
        self.bury(now, slot, case);
    }

    /// The member is out of the list.
    pub(super) fn bury(&mut self, now: Instant, slot: u32, case: Case) {
        let id = self.table.member(slot).id();
        if self.failed_at.len() == MOST_FAILED {
            self.failed_at.pop_front();
        }
        self.failed_at.push_back(now);
        self.void_probes(slot);
        self.suspicions.clear(slot);
        let forget_at = now + self.config.tombstone_age;
        self.turn(now, slot, State::Dead, case, forget_at);
        self.events.push(Event::Failed { id });
        self.lost(now);
        self.tell_behind(now, slot, FAILED);
    }

    /// A member is out of the list.
    pub(super) fn lost(&mut self, now: Instant) {
        if self.table.live().is_empty() && !self.leave.started() {
            self.isolated = true;
            self.events.push(Event::Isolated);
        }
        self.arm_join(now);
    }
}
