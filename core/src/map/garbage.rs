//! Garbage: forgetting what every peer that counts has.
//!
//! Marks of superseded writes, removed keys and logs are there for peers that lack the writes they speak of.
//! Once every peer has a write, it is below the *floor*, and what speaks of such writes alone is dropped.
//! Nobody is asked and nothing is agreed upon: each replica keeps a floor of its own, from what it happens to
//! hear of the contexts of its peers (as in DottedDB, Gonçalves et al. 2017, with one vector per replica).
//!
//! A replica collects in rounds. It notes the bases of its context, the *cut*, and waits until every *member*
//! has shown that it has all dots of the cut: by a context digest equal to the one here, by the bases that it
//! [announces](super::announce), or by a pull that names them. Then the cut becomes the floor. So a round costs
//! one comparison per digest that is told, one pass over the replicas for each context that is, and one when it
//! begins and ends; logs are swept some dots at a time.
//!
//! A member is a peer that has all dots below the floor. Only members are pushed to and answered from the
//! log. Whoever lacks such a dot would be told of writes without what they supersede; it needs a
//! [full sync](super::full). A peer that is down counts for [`Config::keep_for`](super::Config::keep_for)
//! more, then it is forgotten; if it comes back, it is a member again if it missed no floor. The same holds of one
//! that is up and confirms nothing for so long, as one does whose map is full.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use smallvec::SmallVec;

use super::Map;
use super::chunk::Marks;
use super::full::PIN;
use super::store::Entry;
use crate::id::NodeId;
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// Dots that are swept off the logs at a time …
const SWEEP: usize = 2_048;
/// … with so much time between.
const PAUSE: Duration = Duration::from_millis(1);
/// Time between two pages that are cleared while nothing else is to be done.
const REST: Duration = Duration::from_millis(10);

/// A member that went down.
#[derive(Debug, Clone, Copy)]
struct Absent {
    id: NodeId,
    boot: u64,
    until: Instant,
}

/// The round under way, and what is left to sweep of those before.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// Number of the round; members keep that of the last one they confirmed.
    round: u64,
    /// Whether a round is under way.
    open: bool,
    /// Bases by interned replica when the last round began.
    cut: Vec<u64>,
    /// Members that have confirmed it.
    confirmed: usize,
    members: usize,
    /// How long those that have not confirmed it are waited for.
    patience: Instant,
    /// Members with which the context was equal since it was last that of this digest.
    equals: usize,
    common: u64,
    absent: Vec<Absent>,
    /// Until when nothing is dropped, for the sake of peers that have yet to come.
    held: Option<Instant>,
    /// When the next round begins, or the one under way is looked at again.
    at: Option<Instant>,
    /// The digest of the context whose cut was taken last.
    seen: u64,
    /// The next replica to sweep, and when.
    sweeping: Option<(u16, Instant)>,
    /// When more room is given back, if there may be more.
    resting: Option<Instant>,
    /// Slots of entries with marks that no log leads to: those that a full sync brought, and those that
    /// could not be tidied up while somebody was served.
    untidy: BTreeSet<u32>,
    /// The sum of the seals under which the last round was confirmed.
    seals: Option<u64>,
}

impl Garbage {
    /// A number goes to another life: the round under way wants nothing of it.
    pub(super) fn forget(&mut self, replica: u16) {
        if let Some(base) = self.cut.get_mut(usize::from(replica)) {
            *base = 0;
        }
    }

    /// As if all members had taken seals of this sum.
    #[cfg(test)]
    pub(super) const fn settle(&mut self, seals: u64) {
        self.seals = Some(seals);
    }

    /// Whether a round waits for members to confirm it.
    const fn is_short(&self) -> bool {
        self.open && self.confirmed < self.members
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let sweep = self.sweeping.map(|(_, at)| at);
        let stragglers = self.is_short().then_some(self.patience);
        [self.at, sweep, stragglers, self.resting].into_iter().flatten().min()
    }
}

impl Map {
    /// The context changed: there will be something to collect.
    pub(super) fn expect_garbage(&mut self, now: Instant) {
        if !self.garbage.open {
            // One that waited for a peer that was down is not waited for longer than that.
            let at = now + self.config.collect_interval;
            self.garbage.at = Some(self.garbage.at.map_or(at, |before| before.min(at)));
        }
        self.expect_gaps(now);
    }

    pub(super) fn fire_garbage(&mut self, now: Instant) {
        if self.garbage.sweeping.is_some_and(|(_, at)| at <= now) {
            self.sweep(now);
        }
        if self.garbage.resting.is_some_and(|at| at <= now) {
            self.give_back(now);
        }
        if self.garbage.is_short() && self.garbage.patience <= now {
            self.leave_stragglers(now);
        }
        if self.garbage.at.is_none_or(|at| at > now) {
            return;
        }
        self.garbage.at = None;
        if !self.garbage.open && self.garbage.seen == self.replicas.digest() {
            self.rest(now);
        } else if !self.garbage.open {
            self.begin_round(now);
            // Those that are equal already need not say so again.
            let digest = self.replicas.digest();
            let slots: SmallVec<[u32; 64]> = self.peers.slots().collect();
            for slot in slots {
                if self.peers.get(slot).is_some_and(|peer| peer.equal == digest) {
                    self.confirm(now, slot);
                }
            }
        }
        self.try_to_collect(now);
    }

    /// Whether there is something to collect, as soon as all members show that they have it.
    pub(super) const fn awaits_members(&self) -> bool {
        let garbage = &self.garbage;
        let waits = garbage.at.is_some() && garbage.seen != self.replicas.digest();
        // For one that is down no digest helps.
        garbage.is_short() || waits
    }

    /// Whether each member has been heard to have the context of this replica, and nobody else is waited for.
    pub(super) fn is_unanimous(&self, now: Instant) -> bool {
        let garbage = &self.garbage;
        // Who comes back from being cut off has peers before it has members, and knows least of all.
        let equal = garbage.members > 0
            && garbage.members == self.peers.len()
            && garbage.common == self.replicas.digest()
            && garbage.equals == garbage.members;
        let absent = garbage.absent.iter().any(|absent| now < absent.until);
        equal && !absent && garbage.held.is_none_or(|until| until <= now) && !self.is_pinned()
    }

    /// Whether anybody else is known to have all below the floor.
    pub(super) const fn has_members(&self) -> bool {
        self.garbage.members > 0
    }

    /// Whether every member has taken the seals that are here, and nobody has anything left to write anew for them.
    pub(super) fn are_seals_settled(&self) -> bool {
        self.seals.is_idle() && self.garbage.seals == Some(self.replicas.seals())
    }

    /// What is known of lives that were sealed is less than it was: the round under way would wait in vain.
    pub(super) fn restart_round(&mut self, now: Instant) {
        (self.garbage.open, self.garbage.seen) = (false, 0);
        self.expect_garbage(now);
    }

    #[allow(clippy::cast_possible_truncation)] // at most 65,535 replicas
    fn begin_round(&mut self, now: Instant) {
        reached!("map: round begins");
        let bases = (0..self.replicas.len() as u16).map(|replica| self.replicas.base(replica));
        self.garbage.cut.clear();
        self.garbage.cut.extend(bases);
        self.garbage.open = true;
        self.garbage.seen = self.replicas.digest();
        self.garbage.round += 1;
        self.garbage.confirmed = 0;
        self.garbage.patience = now + self.config.keep_for;
    }

    /// The peer in `slot` has every dot that this replica has.
    pub(super) fn heard_equal(&mut self, now: Instant, slot: u32) {
        self.admit(slot);
        let digest = self.replicas.digest();
        let garbage = &mut self.garbage;
        if garbage.common != digest {
            (garbage.common, garbage.equals) = (digest, 0);
        }
        if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.equal != digest) {
            peer.equal = digest;
            garbage.equals += 1;
        }
        self.confirm(now, slot);
        let waiting = self.garbage.open || self.garbage.seen != digest;
        if waiting && self.garbage.equals == self.garbage.members {
            reached!("map: all are equal");
            // No need to go through the rounds: all have all of it.
            if !self.garbage.open || self.garbage.seen != digest {
                self.begin_round(now);
            }
            let slots: SmallVec<[u32; 64]> = self.peers.slots().collect();
            slots.into_iter().for_each(|slot| self.confirm(now, slot));
        }
    }

    /// The peer in `slot` told of its context, and whether it has something to write anew: is it a member, and has it the
    /// cut?
    #[allow(clippy::cast_possible_truncation)] // at most 65,535 replicas
    pub(super) fn heard_context(&mut self, now: Instant, slot: u32, waits: bool) {
        let Some(peer) = self.peers.get(slot) else { return };
        let knows = |replica: u16, upto| peer.known.runs(replica).base >= upto;
        let mut all = 0..self.replicas.len() as u16;
        let has_floor = all.all(|replica| knows(replica, self.replicas.floor(replica)));
        let mut cut = self.garbage.cut.iter().zip(0..);
        let has_cut = cut.all(|(base, replica)| knows(replica, *base));
        if has_floor {
            self.admit(slot);
        }
        if waits {
            if self.peers.get(slot).is_some_and(|peer| peer.member) {
                // It may have come since the last round.
                (self.garbage.seals, self.garbage.seen) = (None, 0);
                self.expect_garbage(now);
            }
        } else if has_cut {
            self.confirm(now, slot);
        }
    }

    fn admit(&mut self, slot: u32) {
        if let Some(peer) = self.peers.get_mut(slot).filter(|peer| !peer.member) {
            reached!("map: peer admitted");
            peer.member = true;
            peer.confirmed = 0;
            // What was written meanwhile is left to its pulls.
            peer.pushed = self.replicas.made();
            self.garbage.members += 1;
        }
    }

    fn confirm(&mut self, now: Instant, slot: u32) {
        let round = self.garbage.round;
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.member) else { return };
        if peer.confirmed != round {
            peer.confirmed = round;
            self.garbage.confirmed += 1;
            self.garbage.patience = now + self.config.keep_for;
        }
        if self.garbage.open && self.garbage.confirmed == self.garbage.members {
            self.try_to_collect(now);
        }
    }

    /// Members that no round gets any further for are members no more: a full map cannot take in what it lacks, and
    /// others would keep everything for its sake, for ever. It is waited for no longer than one that is down.
    fn leave_stragglers(&mut self, now: Instant) {
        let round = self.garbage.round;
        let slots: SmallVec<[u32; 64]> = self.peers.slots().collect();
        for slot in slots {
            if self.peers.get(slot).is_some_and(|peer| peer.member && peer.confirmed != round) {
                self.stats.stragglers += 1;
                self.lose_member(None, slot);
                // What it is being told explains less as soon as anything is dropped.
                self.peers.stop_serving(slot);
            }
        }
        self.try_to_collect(now);
    }

    /// A peer came: it is a member if it can lack nothing below the floor.
    pub(super) fn meet_member(&mut self, now: Instant, slot: u32) {
        let Some(peer) = self.peers.get(slot) else { return };
        let (id, boot) = (peer.id, peer.boot);
        let back = self.garbage.absent.iter().position(|absent| absent.id == id);
        let back = back.map(|at| self.garbage.absent.swap_remove(at));
        let stayed = back.is_some_and(|absent| absent.boot == boot && now < absent.until);
        if stayed {
            reached!("map: member back in time");
            self.admit(slot);
        } else {
            self.admit_if_nothing_is_gone(slot);
        }
    }

    /// Below a floor of nothing nobody can lack anything.
    pub(super) fn admit_if_nothing_is_gone(&mut self, slot: u32) {
        let nothing = self.replicas.numbers().all(|replica| self.replicas.floor(replica) == 0);
        if nothing && !self.replicas.has_past() {
            self.admit(slot);
        }
    }

    /// The peer in `slot` goes, or begins another life.
    pub(super) fn lose_member(&mut self, now: Option<Instant>, slot: u32) {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.member) else { return };
        peer.member = false;
        let equal = peer.equal != 0 && peer.equal == self.garbage.common;
        self.garbage.equals = self.garbage.equals.saturating_sub(usize::from(equal));
        peer.equal = 0;
        peer.owes_push = false;
        let (id, boot) = (peer.id, peer.boot);
        self.garbage.members -= 1;
        self.garbage.confirmed -=
            usize::from(peer.confirmed > 0 && peer.confirmed == self.garbage.round);
        peer.confirmed = 0;
        if let Some(now) = now {
            let until = now + self.config.keep_for;
            self.garbage.absent.retain(|absent| now < absent.until);
            self.garbage.absent.push(Absent { id, boot, until });
            if self.garbage.open && self.garbage.at.is_none() {
                self.garbage.at = Some(until);
            }
        }
    }

    /// Makes the cut the floor, if all members have confirmed it.
    #[allow(clippy::cast_possible_truncation)] // at most 65,535 replicas
    pub(super) fn try_to_collect(&mut self, now: Instant) {
        let hasty = sabotaged!("floor-unconfirmed");
        if self.garbage.confirmed < self.garbage.members && !hasty {
            reached!("map: round waits for a member");
            return;
        }
        if self.store.large() > 0 {
            // It could be told to nobody whom the log does not reach any more.
            return;
        }
        let disk = self.log.as_mut();
        let lacks = self.garbage.open && disk.is_some_and(|log| log.lacks(&self.garbage.cut));
        if lacks && !sabotaged!("disk-no-member") {
            return;
        }
        self.garbage.absent.retain(|absent| now < absent.until);
        let absent = self.garbage.absent.iter().map(|absent| absent.until);
        let back = absent.chain(self.garbage.held.filter(|until| now < *until)).max();
        if let Some(until) = back.filter(|_| self.garbage.open) {
            reached!("map: round waits for one who is down");
            self.garbage.at = Some(until);
            return;
        }
        if self.is_pinned() && !sabotaged!("pin-ignored") {
            reached!("map: round waits for a full sync");
            return;
        }
        if !core::mem::take(&mut self.garbage.open) || sabotaged!("garbage-kept") {
            return;
        }
        self.garbage.seals = Some(self.replicas.seals());
        if self.replicas.was_cut() {
            self.note_untidy();
        }
        for (replica, &base) in (0..).zip(&self.garbage.cut) {
            self.replicas.raise_floor(replica, base);
        }
        self.revisit();
        self.garbage.sweeping = Some((0, now));
        self.sweep(now);
        if self.garbage.seen != self.replicas.digest() {
            self.expect_garbage(now);
        }
    }

    /// Takes some dots below the floor off the logs, and tidies the entries that they are about.
    fn sweep(&mut self, now: Instant) {
        let Some((mut replica, _)) = self.garbage.sweeping else { return };
        if self.is_pinned() && !sabotaged!("pin-ignored") {
            // It goes on when nobody is served.
            self.garbage.sweeping = Some((replica, now + PIN));
            return;
        }
        let mut left = SWEEP;
        while left > 0 {
            if let Some(slot) = self.replicas.unlog(replica, &mut left) {
                self.store.tidy(&self.replicas, slot);
                continue;
            }
            if left == 0 {
                break;
            }
            left -= 1;
            replica += 1;
            if usize::from(replica) >= self.replicas.len() {
                reached!("map: logs swept");
                self.garbage.sweeping = None;
                // Nothing tells of slots now but the index: they may be numbered anew.
                if self.is_clean() {
                    self.store.shrink();
                    self.expect_garbage(now);
                }
                return;
            }
        }
        self.garbage.sweeping = Some((replica, now + PAUSE));
    }

    /// Whether all have all of it.
    fn is_clean(&self) -> bool {
        let idle = self.seals.is_idle() && !self.retiring.is_counting();
        self.replicas.logged() == 0 && self.garbage.untidy.is_empty() && idle
    }

    /// Gives back the room of what comes and goes with news, if none came since all was swept.
    fn rest(&mut self, now: Instant) {
        if self.is_clean() {
            reached!("map: at rest");
            self.replicas.shrink();
            // What each has in particular is known by the floor.
            self.peers.forget_contexts();
            (self.marks, self.seen) = (Marks::default(), Marks::default());
            self.assemblies = Vec::new();
        }
        self.give_back(now);
    }

    /// Gives back room of the store's while nothing is to be forgotten, a little at a time. After news it begins anew
    /// with the next rest.
    fn give_back(&mut self, now: Instant) {
        let news = self.garbage.open || self.garbage.seen != self.replicas.digest();
        self.garbage.resting = if news {
            None
        } else if self.is_pinned() || !self.is_clean() {
            Some(now + PIN)
        } else {
            // Nobody knows a slot now.
            self.store.rest().then(|| now + REST)
        };
    }

    /// Tidies up an entry that was joined, if nobody needs its marks.
    pub(super) fn tidy(&mut self, slot: u32) {
        if !self.store.is_tidy(&self.replicas, slot) {
            if self.is_pinned() {
                self.garbage.untidy.insert(slot);
            } else {
                self.store.tidy(&self.replicas, slot);
            }
        }
    }

    /// Tidies the entries that no log leads to.
    fn revisit(&mut self) {
        let mut untidy = core::mem::take(&mut self.garbage.untidy);
        untidy.retain(|slot| {
            let slot = *slot;
            self.store.tidy(&self.replicas, slot);
            self.store.entry(slot).superseded().len() > 0
        });
        self.garbage.untidy = untidy;
    }

    /// Notes all entries with marks: a full sync cut the logs that led to them. Those that it left with
    /// neither values nor marks are dropped.
    #[allow(clippy::cast_possible_truncation)] // max_keys is at most 2^31
    pub(super) fn note_untidy(&mut self) {
        for slot in 0..self.store.slots() {
            if self.store.entry(slot).is_empty() {
                self.store.tidy(&self.replicas, slot);
            }
        }
        let marked =
            |(slot, entry): (u32, Entry<'_>)| (entry.superseded().len() > 0).then_some(slot);
        self.garbage.untidy = (0..).zip(self.store.entries()).filter_map(marked).collect();
    }

    /// Notes an entry with a mark that came when the log was cut beyond it.
    pub(super) fn note_unlogged(&mut self, slot: u32) {
        self.garbage.untidy.insert(slot);
    }

    /// Nobody is served any more, unless somebody is.
    pub(super) fn unpinned(&mut self, now: Instant) {
        if !self.is_pinned() {
            self.revisit();
            if let Some((_, at)) = &mut self.garbage.sweeping {
                *at = now;
            }
            self.try_to_collect(now);
        }
    }

    /// This replica was made of a snapshot: those that were its members then are given time to come.
    pub(super) fn hold(&mut self, now: Instant) {
        self.garbage.held = Some(now + self.config.keep_for);
        self.note_untidy();
        self.expect_garbage(now);
    }

    /// After a full sync was taken in: the floor rose, and who counts is judged anew.
    pub(super) fn judge_members(&mut self, now: Instant) {
        let slots: Vec<u32> = self.peers.slots().collect();
        for slot in slots {
            self.lose_member(None, slot);
            self.heard_context(now, slot, false);
        }
        self.garbage.open = false;
        // Even if nothing was new, there are entries that no log leads to.
        self.garbage.seen = 0;
        self.garbage.absent.clear();
        self.garbage.sweeping = Some((0, now));
        self.count_as_news_for_all(now);
        self.expect_garbage(now);
    }
}

// An interpreter takes a quarter of an hour for each: they fill pages.
#[cfg(all(test, not(miri)))]
mod tests;
