//! When news are told: as they come, and in dedicated datagrams to random members while there is something to tell.

use super::gossip::Class;
use super::{Rules, Swim, suspicion};
use crate::sabotage::sabotaged;
use crate::time::Instant;

impl Swim {
    /// Queues for gossip who a member is, or that it joined.
    pub(super) fn tell(&mut self, now: Instant, slot: u32) {
        self.gossip.put(slot, Class::Bulk);
        self.arm_gossip(now);
    }

    /// Queues for gossip what is said against a member.
    pub(super) fn tell_soon(&mut self, now: Instant, slot: u32) {
        // By the rules of memberlist all are told alike.
        let class = if self.is_memberlist() { Class::Bulk } else { Class::Urgent };
        self.gossip.put(slot, class);
        self.arm_gossip(now);
    }

    /// The same of what adds to what is known to be said against a member, so that it is told `rank` times less. While many are
    /// suspected what is new goes first: told twice at once by each who hears of it, it spreads as fast as if it were alone.
    pub(super) fn tell_behind(&mut self, now: Instant, slot: u32, rank: u32) {
        if !self.many_suspected() {
            return self.tell_soon(now, slot);
        }
        // Of the few times that it is told in a small cluster most are left.
        let sends = rank.min(suspicion::retransmits(&self.config, self.len()) / 4);
        self.gossip.put_behind(slot, u8::try_from(sends).unwrap_or(u8::MAX));
        self.arm_gossip(now);
    }

    /// Queues for gossip, before all others, what a member says for itself: that it is there, or leaves.
    pub(super) fn tell_first(&mut self, now: Instant, slot: u32) {
        if self.is_memberlist() {
            self.gossip.put(slot, Class::Bulk);
        } else {
            self.gossip.put_first(slot);
        }
        self.arm_gossip(now);
    }

    pub(super) fn arm_gossip(&mut self, now: Instant) {
        if self.gossip_at.is_none() {
            self.grant_gossip();
            self.gossip_at = Some(now + self.rng.jitter(self.config.gossip_interval));
        }
    }

    pub(super) fn fire_gossip(&mut self, now: Instant) {
        if self.gossip_at.is_none_or(|at| at > now) {
            return;
        }
        self.catch_up(now);
        if self.table.live().is_empty() || (!self.behind && self.gossip.is_empty()) {
            // Whoever joins next is told at once, and `tell` arms the timer again.
            self.gossip_at = None;
            return;
        }
        self.gossip_at = Some(match now + self.config.gossip_interval {
            _ if sabotaged!("timer-not-moved") => now,
            at if sabotaged!("uptime-wraps") => Instant::from_nanos(at.as_nanos() % (1 << 52)),
            at => at,
        });
        self.grant_gossip();
        let outbox = &mut self.outbox;
        let mut left = self.config.gossip_nodes;
        if self.config.rules == Rules::Memberlist {
            // As if all were in one list.
            let (live, gone) = (self.table.live().len(), self.table.gone());
            left = (0..left).filter(|_| self.rng.below(live + gone.len()) < live).count();
            for _ in left..self.config.gossip_nodes {
                outbox.to(gone[self.rng.below(gone.len())]).gossip = true;
            }
        }
        self.table.sample(
            &mut self.rng,
            left,
            |_| true,
            |slot| {
                outbox.to(slot).gossip = true;
            },
        );
    }

    /// So many bytes of gossip leave until the next tick, whatever they ride on: as many as the members that it is for have
    /// datagrams, one of them for what the table exchange tells as well, and one of each at least.
    fn grant_gossip(&mut self) {
        let (members, datagram) = (self.config.gossip_nodes, self.max_datagram);
        // Of 20 kB a second, all that a member may send while many fail, their probes take more then.
        let probes = if self.many_suspected() { datagram / 8 } else { 0 };
        let (urgent, bulk) = match self.config.rules {
            Rules::Brickwork if members == 0 => (0, 0),
            Rules::Brickwork => ((members - 1).max(1) * datagram - probes, datagram),
            Rules::Memberlist => (usize::MAX, usize::MAX),
        };
        self.gossip.grant(urgent, bulk);
    }
}
