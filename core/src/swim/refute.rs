//! How this node answers that it is accused: by a higher incarnation, first of all to those who accuse it (SWIM section 4.2).

use core::time::Duration;

use super::evidence::{LAST_INCARNATION, MAX_STEP};
use super::member::{ME, State};
use super::{Origin, Swim, suspicion};
use crate::id::NodeId;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// So many of those that accuse this node, and of those who told it so, have the answer from itself; the others by gossip.
pub(super) const MOST_ANSWERED: usize = 8;

impl Swim {
    /// This node is accused: raise the incarnation and say so, first of all to its accusers.
    ///
    /// An accusation of the present incarnation soon after a refutation waits for its turn, without an
    /// answer: whoever holds this node suspect would answer the unchanged row with the suspicion, and
    /// the two would go on at the speed of the network.
    pub(super) fn refute(
        &mut self,
        now: Instant,
        origin: Origin,
        accused: u32,
        accusers: impl Iterator<Item = NodeId>,
    ) {
        let me = self.table.me();
        if me.state != State::Alive {
            return;
        }
        if accused < me.incarnation {
            self.correct(origin, ME);
            return;
        }
        // Whoever is dead is maybe nobody, at an address that was made up.
        let live = |slot: &u32| self.table.member(*slot).is_live();
        let accusers = accusers.filter_map(|id| self.table.slot(id)).filter(live);
        for slot in origin.slot.into_iter().chain(accusers) {
            let answered = &mut self.refute_to;
            if answered.len() < MOST_ANSWERED && slot != ME && !answered.contains(&slot) {
                answered.push(slot);
            }
        }
        // Who told of it believes a number that is not this node's. A step at a time: nobody can use them up, and others
        // pass the answer on.
        let most = if self.is_memberlist() { u32::MAX } else { MAX_STEP - 1 };
        let above = accused.min(me.incarnation.saturating_add(most));
        self.refute_above = self.refute_above.max(above);
        if self.refute_after > now {
            self.refute_due = true;
        } else {
            self.raise_incarnation(now);
        }
    }

    /// A refutation that had to wait is due.
    pub(super) fn fire_refutation(&mut self, now: Instant) {
        if !self.refute_due || self.refute_after > now {
            return;
        }
        self.refute_due = false;
        // Who has begun to leave meanwhile has nothing to refute.
        if self.table.me().state == State::Alive {
            self.raise_incarnation(now);
        }
    }

    fn raise_incarnation(&mut self, now: Instant) {
        self.refute_due = false;
        let pause = if self.is_memberlist() { Duration::ZERO } else { self.config.retry_min };
        self.refute_after = now + pause;
        let row = self.table.row_mut(ME);
        let by = u32::from(!sabotaged!("refutes-too-low"));
        let above = row.member.incarnation.max(core::mem::take(&mut self.refute_above));
        if above < LAST_INCARNATION {
            row.member.incarnation = above + by;
        } else {
            // They are used up, which takes whoever makes accusations up five months: those of the next boot are not.
            let boot = row.boot();
            if self.take_boot(boot.saturating_add(1)) {
                self.table.row_mut(ME).member.incarnation = 0;
            }
        }
        self.stats.refutations += 1;
        if self.is_memberlist() || now >= self.blamed_until {
            // Once for as long as a suspicion may last: all that it was late for by then is one fault. And whoever makes
            // accusations up would have this node probe ever more seldom.
            self.blamed_until = now + suspicion::longest(&self.config, self.len());
            self.worsen_health();
        }
        self.tell_first(now, ME);
        for slot in core::mem::take(&mut self.refute_to) {
            if self.table.try_row(slot).is_some() && !self.is_memberlist() {
                self.outbox.row(slot, ME);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::*;
    use crate::Identity;
    use crate::swim::Config;
    use crate::wire::Sender;

    /// Goal: a member can always refute. Method: one at the end of its incarnations is accused twice.
    #[test]
    fn a_member_whose_incarnations_are_used_up_begins_a_boot() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        let now = Instant::ZERO;
        let me = Identity::new("a", addr);
        let mut swim = Swim::new(now, me, "test", Config::lan(), 1400, [7; 32]).expect("accepted");
        swim.table.row_mut(ME).member.incarnation = LAST_INCARNATION - 1;
        let sender = Sender { id: NodeId(5), boot_epoch: 1 };
        let origin = Origin { from: addr, sender, slot: None };
        let numbers = |swim: &Swim| (swim.me().identity().boot_epoch(), swim.me().incarnation());
        let nobody = core::iter::empty;
        swim.refute(now, origin, LAST_INCARNATION - 1, nobody());
        assert_eq!(numbers(&swim), (1, LAST_INCARNATION));
        let now = now + Config::lan().retry_min;
        swim.refute(now, origin, u32::MAX, nobody());
        assert_eq!(numbers(&swim), (2, 0));
    }
}
