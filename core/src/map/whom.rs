//! Whom to ask for what is missing, and how long to wait for an answer.
//!
//! Who tells something shows that it is there, though not that it hears. So those that speak are asked before those that left
//! several pulls unanswered, and nobody who speaks waits for one that may be gone.

use core::time::Duration;

use super::Map;
use super::ask::Pulling;
use super::peer::Peer;
use super::shares::Shares;
use super::sync::MAX_QUICK_RETRIES;
use crate::id::NodeId;
use crate::reached::reached;
use crate::time::Instant;

/// Peers that are looked at for one to pull from.
const MAX_CANDIDATES: usize = 8;
/// How often the patience doubles while nobody answers.
const MAX_DOUBLINGS: u32 = 5;
/// The same with a peer that has told something meanwhile: it is others who do not answer.
const MAX_DOUBLINGS_HEARD: u32 = 2;

impl Map {
    /// A peer that may have what is missing here, by what it told last.
    pub(super) fn candidate(&mut self) -> Option<u32> {
        self.candidate_but(|_, _| false)
    }

    /// The same among those who are not left out.
    pub(super) fn candidate_but(&mut self, left_out: impl Fn(u32, &Shares) -> bool) -> Option<u32> {
        let mut silent = None;
        for _ in 0..MAX_CANDIDATES {
            let slot = self.peers.random(&mut self.rng)?;
            if left_out(slot, &self.shares) || !self.may_have(slot) {
                continue;
            }
            if !self.is_silent(slot) {
                return Some(slot);
            }
            // After many died at once most of those who seem to have something are gone.
            reached!("map: one that is silent passed over");
            silent = Some(slot);
        }
        silent
    }

    /// Whether the peer in `slot` may have what is missing here, by what it told last.
    pub(super) fn may_have(&self, slot: u32) -> bool {
        let differs = |peer: &Peer| {
            peer.state != self.replicas.digest() && peer.exhausted != Some(peer.state)
        };
        self.peers.get(slot).is_some_and(|peer| self.page.is_some() || differs(peer))
    }

    /// Whether nothing shows that the peer in `slot` is there and knows this replica.
    pub(super) fn is_silent(&self, slot: u32) -> bool {
        self.peers.get(slot).is_some_and(Peer::is_silent)
    }

    /// Whether the peer in `slot` may have what is missing here, or has not told its digest, and so few questions to it are
    /// without an answer since it spoke that they may have been lost.
    pub(super) fn may_have_lost(&self, slot: u32) -> bool {
        let untold = |peer: &Peer| peer.state == 0 || self.may_have(slot);
        self.peers.get(slot).is_some_and(|peer| peer.may_have_lost() && untold(peer))
    }

    /// Who the peer in `slot` is, if nothing shows that it is there; see [`Map::is_silent`].
    pub(crate) fn silent(&self, slot: u32) -> Option<NodeId> {
        self.peers.get(slot).filter(|peer| peer.is_silent()).map(|peer| peer.id)
    }

    /// How long an answer to a pull may take. Some losses in a row are ordinary; after more of them
    /// answers must have become slow, so they are waited for longer, and measured again.
    pub(super) fn pull_patience(&self) -> Duration {
        self.patience(MAX_DOUBLINGS)
    }

    /// How long the answer of the peer in `slot` is waited for.
    pub(super) fn patience_with(&self, slot: u32) -> Duration {
        self.patience(if self.is_silent(slot) { MAX_DOUBLINGS } else { MAX_DOUBLINGS_HEARD })
    }

    fn patience(&self, most_doublings: u32) -> Duration {
        let (min, max) = (self.config.pull_timeout_min, self.config.pull_timeout);
        let usual = self.pull_time.map_or(max, |usual| (usual * 4).clamp(min, max));
        usual * (1 << self.unanswered.saturating_sub(MAX_QUICK_RETRIES).min(most_doublings))
    }

    /// The answer of the peer in `slot` took this long.
    pub(super) fn measure_pull(&mut self, slot: u32, sample: Duration) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.unanswered = 0;
        }
        // Smoothed by one eighth, as round trips are (RFC 6298 section 2), but upwards by halves: a
        // late answer is asked for twice.
        self.pull_time = Some(match self.pull_time {
            None => sample,
            Some(usual) if sample > usual => (usual + sample) / 2,
            Some(usual) => usual - usual / 8 + sample / 8,
        });
        self.unanswered = 0;
    }

    /// One who may be gone is waited for long. Whoever is there does not wait for that, nor longer than usual for who is
    /// there again.
    pub(super) fn wait_no_longer_for_the_silent(&mut self, now: Instant, speaks: u32) {
        let in_vain = |pulling: &Pulling| !pulling.answered && pulling.of_silent;
        if self.is_silent(speaks) || !self.pulling.as_ref().is_some_and(in_vain) {
            return;
        }
        let patience = self.patience_with(speaks);
        match &mut self.pulling {
            Some(pulling) if pulling.peer == speaks => {
                reached!("map: silent one is there again");
                pulling.of_silent = false;
                pulling.deadline = pulling.deadline.min(now + patience);
            }
            pulling => {
                reached!("map: silent one waited for no longer");
                self.late = pulling.take();
                self.wanted = None;
            }
        }
    }
}
