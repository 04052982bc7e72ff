//! Comparing contexts of many replicas before one of them is listed.
//!
//! To list a thousand replicas takes a dozen datagrams, though two contexts mostly differ in a few of them. So beyond
//! [`Config::max_listed`](super::Config::max_listed) a pull begins with sums over 64 buckets of replicas. The peer answers
//! in which of these it has other dots; the pull that follows lists the replicas of those alone.
//!
//! What a pull lists is a lower bound of what the puller has, so it may leave out any of it. That the peer does not take
//! the rest for missing is because it notes, when it compares, that all of its own dots in equal buckets are known to
//! the puller. That stays true, as contexts grow; between two who have other seals nothing is compared. Whatever is
//! lost, repeated, late or made up, the worst is that something is told again that the puller has.
//!
//! A pull that follows one that was not answered lists all, page by page: the peer may be of a version that skips these
//! frames, and a comparison that gets lost costs one more time to wait.

use super::Map;
use super::ask::Listing;
use super::compare_wire::{self, Differ, Sums};
use super::dot::MAX_RUNS;
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::Writer;

impl Map {
    /// What the next pull is to list.
    pub(super) fn listing(&self) -> Listing {
        let many = self.replicas.in_use() > self.config.max_listed;
        if many && self.unanswered == 0 && !self.retiring.is_behind() {
            Listing::Sums
        } else {
            Listing::All
        }
    }

    /// The peer in `slot` asks in which buckets its context differs from the one here.
    pub(super) fn on_buckets(&mut self, now: Instant, slot: u32, sums: Sums<'_>) {
        self.meet_life(slot, Some(sums.epoch));
        if !self.has_seals(slot, sums.seals) {
            self.want_pull(now, slot);
            return;
        }
        reached!("map: contexts compared");
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let mut differ = sums.differ(&self.replicas.sums());
        if sabotaged!("sums-not-compared") {
            differ = 0;
        }
        for number in self.replicas.numbers() {
            if differ >> self.replicas.bucket(number) & 1 == 1 {
                continue;
            }
            let base = self.replicas.base(number);
            let ahead = self.replicas.runs_ahead(number).take(MAX_RUNS);
            for (from, to) in (base > 0).then_some((1, base)).into_iter().chain(ahead) {
                peer.known.runs_mut(number).add(from, to);
            }
        }
        peer.owes_differ = Some((sums.nonce, differ));
        self.peers.wake(slot);
    }

    /// Writes in which buckets the context of the peer in `slot` differs.
    pub(super) fn write_differ(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(peer) = self.peers.get(slot) else { return };
        let Some((nonce, buckets)) = peer.owes_differ else { return };
        let addressee = self.under_seals(peer.addressee());
        let written = compare_wire::write_differ(w, Differ { addressee, nonce, buckets });
        if written.is_err() {
            self.peers.wake(slot);
        } else if let Some(peer) = self.peers.get_mut(slot) {
            peer.owes_differ = None;
        }
    }

    /// The peer in `slot` says in which buckets its context differs from the one here: those are listed to it.
    pub(super) fn on_differ(&mut self, now: Instant, slot: u32, told: Differ) {
        if !self.is_mine(told.addressee) {
            self.stats.misaddressed += 1;
            return;
        }
        let asked = self.pulling.as_ref().filter(|pulling| pulling.is(slot, told.nonce));
        let Some(pulling) = asked.filter(|pulling| pulling.listing == Listing::Sums) else {
            return;
        };
        reached!("map: pull of what differs");
        self.measure_pull(slot, now - pulling.started);
        let deadline = now + self.pull_patience();
        if let Some(pulling) = &mut self.pulling {
            pulling.of_silent = false;
            pulling.listing = Listing::Buckets(told.buckets);
            (pulling.started, pulling.deadline) = (now, deadline);
        }
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.owes_pull = true;
        }
        self.peers.wake(slot);
    }
}
