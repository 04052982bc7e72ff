//! What is different while many members are suspected at once, as when a rack fails.

use super::Swim;

/// Members that are suspected at once count as many from so many on, which losses alone hardly bring about in small clusters,
/// and from one in so many of all members.
const MANY: usize = 4;
const MANY_OF: usize = 32;
/// Mean tries, in 256ths, up to which few datagrams are lost.
const FEW_TRIES: u32 = 256 * 9 / 8;

impl Swim {
    /// Whether so many members are suspected that more of them may well have failed at once, as when a rack does.
    ///
    /// Then it is not for the schedule alone to find these: of 300 that fail among 1,000 the last is probed by nobody for eight
    /// seconds, so more of them are probed at a time. For that each probe is shorter, and costs less. And as news are
    /// more than the budget of gossip has room for, those that begin something go before those that add to it
    /// ([`Swim::tell_behind`]), and tables are not compared while they differ for that alone. All members knew of all after
    /// 8.8 s instead of 11.9 s (99 of 100 pairs).
    pub(super) fn many_suspected(&self) -> bool {
        let many = (self.len() / MANY_OF).max(MANY);
        self.suspicions.len() >= many && !self.is_memberlist()
    }

    /// Whether more are probed at once while many are suspected: not where losses are so many that probes fail by chance, for that
    /// would keep many suspected, nor by who does not hear well itself.
    pub(super) fn may_hurry(&self) -> bool {
        let healthy = self.prober.health * 4 <= self.config.max_local_health;
        self.many_suspected() && self.prober.looks() == 1 && healthy
    }

    /// Whether few datagrams are lost, while many members are suspected: two pings tell as much as many, and of members that do
    /// not answer there are many as well.
    pub(super) const fn is_eased(&self) -> bool {
        self.prober.most > 1 && self.prober.usual_tries() <= FEW_TRIES
    }
}
