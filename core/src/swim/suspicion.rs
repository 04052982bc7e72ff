//! How long a suspected member has to refute: Lifeguard's timeout (Dadgar, Phillips, Currey 2018,
//! section IV-B), in integers.

use core::time::Duration;

use smallvec::SmallVec;

use super::config::{Config, Rules};
use crate::id::NodeId;
use crate::time::Instant;

/// Most accusers that are remembered and told: the first and its confirmations.
pub(super) const MAX_ACCUSERS: usize = 17;

/// An accusation at one (boot epoch, incarnation) of one member.
#[derive(Debug)]
pub(super) struct Suspicion {
    pub(super) started: Instant,
    /// Who accuses, each once, the first in front. Accusers merge by union and never overwrite.
    pub(super) accusers: SmallVec<[NodeId; 4]>,
    /// Through whom the accusations were heard: the first two distinct ones.
    relays: SmallVec<[NodeId; 2]>,
    /// How many probes of this node's own failed.
    own: u8,
    /// Who told that the member failed: each has waited for its refutation in vain.
    verdicts: SmallVec<[NodeId; 4]>,
    /// The accuser that alone is told, by the rules of memberlist.
    lone: Option<NodeId>,
}

impl Suspicion {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            accusers: SmallVec::new(),
            relays: SmallVec::new(),
            own: 0,
            verdicts: SmallVec::new(),
            lone: None,
        }
    }

    /// Adds an accuser heard through `relay`, unless there are enough. Returns whether it is a new one.
    pub(super) fn add(&mut self, config: &Config, accuser: NodeId, relay: NodeId) -> bool {
        if self.relays.len() < 2 && !self.relays.contains(&relay) {
            self.relays.push(relay);
        }
        // More of them would hurry nothing, and each is news that all tell all.
        let enough = (config.suspicion_confirmations + 1).min(MAX_ACCUSERS);
        if self.accusers.len() >= enough || self.accusers.contains(&accuser) {
            return false;
        }
        self.accusers.push(accuser);
        self.lone = (config.rules == Rules::Memberlist).then_some(accuser);
        true
    }

    /// Whether there are as many accusers as are remembered.
    pub(super) fn is_full(&self, config: &Config) -> bool {
        self.accusers.len() > config.suspicion_confirmations
    }

    /// The accusers that others are told.
    pub(super) fn told(&self) -> &[NodeId] {
        self.lone.as_ref().map_or(&self.accusers, core::slice::from_ref)
    }

    /// Notes that a probe of this node's own failed.
    pub(super) fn add_own(&mut self) {
        self.own = self.own.saturating_add(1);
    }

    /// Whether a probe of this node's own failed.
    pub(super) fn is_own(&self) -> bool {
        self.own > 0
    }

    /// Who told that the member failed.
    pub(super) fn verdicts(&self) -> &[NodeId] {
        &self.verdicts
    }

    /// Notes that `relay` holds the member failed.
    pub(super) fn add_verdict(&mut self, relay: NodeId) {
        if self.verdicts.len() < self.verdicts.inline_size() && !self.verdicts.contains(&relay) {
            self.verdicts.push(relay);
        }
    }

    /// Whether this node has not looked for itself as often as it should, `looks` times, and too few have told of it to make
    /// the wait the shortest, of so many accusers that count. It may have missed the refutation, as some always do. By the
    /// rules of memberlist nobody asks.
    ///
    /// Of `well` members, those whom nobody suspects: who is dead itself, but not held so yet, accuses nobody.
    pub(super) fn is_hearsay(
        &self,
        config: &Config,
        well: usize,
        accusers: usize,
        looks: u8,
    ) -> bool {
        if config.rules == Rules::Memberlist {
            return false;
        }
        let wanted = config.suspicion_confirmations.min(well.saturating_sub(2));
        let few = self.relays.len() < 2 || accusers <= wanted;
        self.own < looks && few && !self.is_judged(config, well)
    }

    /// Whether as many as make the wait the shortest have each waited to its end.
    pub(super) fn is_judged(&self, config: &Config, well: usize) -> bool {
        let enough = config.suspicion_confirmations.clamp(2, 4);
        self.verdicts.len() >= enough.min(well.saturating_sub(2)).max(2)
    }

    /// When the member counts as failed, in a cluster of `n` live members of whom `well` are suspected by nobody, if so many
    /// of its accusers count.
    ///
    /// A node that did not fail to reach the member itself needs evidence from two distinct relays
    /// before it shortens the wait, so that one liar alone cannot hurry it. Once as many as make the wait the shortest have
    /// each waited to the end, it is over, but for the time that an answer takes to get here.
    pub(super) fn deadline(
        &self,
        config: &Config,
        (n, well): (usize, usize),
        accusers: usize,
    ) -> Instant {
        if config.rules == Rules::Memberlist {
            let wanted = config.suspicion_confirmations;
            let confirmations = accusers.saturating_sub(1);
            let have = if n < wanted + 2 { wanted } else { confirmations };
            return self.started + timeout(config, n, have);
        }
        if self.is_judged(config, well) {
            return self.started + config.probe_timeout;
        }
        let heard = if self.is_own() || self.relays.len() >= 2 { accusers } else { 1 };
        self.started + timeout(config, n, heard.saturating_sub(1))
    }
}

/// The timeout after `confirmations` independent ones beyond the first accuser: from `max` down to
/// `min` with the logarithm of their number.
fn timeout(config: &Config, n: usize, confirmations: usize) -> Duration {
    let min = config.probe_interval * config.suspicion_min;
    let min = scale(min, log2_q16(n as u64).max(LOG2_10_Q16), LOG2_10_Q16);
    let wanted = config.suspicion_confirmations.min(n.saturating_sub(2));
    if wanted == 0 || confirmations >= wanted {
        return min;
    }
    let span = min * (config.suspicion_max_mult - 1);
    let (have, all) = (log2_q16(confirmations as u64 + 1), log2_q16(wanted as u64 + 1));
    min + scale(span, all - have, all)
}

/// The longest timeout in a cluster of `n` live members.
pub(super) fn longest(config: &Config, n: usize) -> Duration {
    timeout(config, n, 0).max(timeout(config, 3, 0))
}

/// How often one update is sent: `retransmit_mult * ceil(log10(n + 1))`.
pub(super) fn retransmits(config: &Config, n: usize) -> u32 {
    let mut digits = 1;
    let mut power = 10_usize;
    while power < n + 1 {
        digits += 1;
        power = power.saturating_mul(10);
    }
    config.retransmit_mult.saturating_mul(digits)
}

fn scale(d: Duration, numerator: u64, denominator: u64) -> Duration {
    let nanos = d.as_nanos() * u128::from(numerator) / u128::from(denominator);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// log2(10) in 16.16 fixed point.
const LOG2_10_Q16: u64 = 217_705;

/// log2 in 16.16 fixed point by repeated squaring; 0 for 0 and 1. Rounded down.
fn log2_q16(x: u64) -> u64 {
    if x < 2 {
        return 0;
    }
    let whole = u64::from(x.ilog2());
    // The mantissa in 1.63 fixed point.
    let mut mantissa = u128::from(x << (63 - whole));
    let mut fraction = 0;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >> 64 != 0 {
            fraction |= 1;
            mantissa >>= 1;
        }
    }
    (whole << 16) | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_match_their_values() {
        assert_eq!(log2_q16(1), 0);
        assert_eq!(log2_q16(2), 1 << 16);
        assert_eq!(log2_q16(1 << 40), 40 << 16);
        assert_eq!(log2_q16(10), LOG2_10_Q16);
        assert_eq!(log2_q16(3), 103_872); // 1.58496…
    }

    #[test]
    fn the_timeout_follows_lifeguard() {
        let lan = Config::lan();
        let ms = |n, c| timeout(&lan, n, c).as_millis();
        // 1,000 members: 3 s to 18 s, three confirmations wanted; 18 - 15 * log(c + 1) / log(4).
        assert_eq!(ms(1000, 0), 18_000);
        assert_eq!(ms(1000, 1), 10_500);
        assert_eq!(ms(1000, 2), 6_112);
        assert_eq!(ms(1000, 3), 3_000);
        assert_eq!(ms(1000, 9), 3_000);
        // Two members: nobody could confirm. Three: one can.
        assert_eq!(ms(2, 0), 1_000);
        assert_eq!((ms(3, 0), ms(3, 1)), (6_000, 1_000));
    }

    #[test]
    fn retransmits_round_up() {
        let lan = Config::lan();
        let sends: [u32; 6] = [1, 9, 10, 99, 100, 1000].map(|n| retransmits(&lan, n));
        assert_eq!(sends, [4, 4, 8, 8, 12, 16]);
    }

    #[test]
    fn one_relay_alone_does_not_hurry_the_verdict() {
        let lan = Config::lan();
        let mut suspicion = Suspicion::new(Instant::ZERO);
        for accuser in 1..=4 {
            assert!(suspicion.add(&lan, NodeId(accuser), NodeId(1)));
        }
        assert!(!suspicion.add(&lan, NodeId(4), NodeId(1)));
        assert_eq!(suspicion.deadline(&lan, (10, 10), 4), Instant::ZERO + Duration::from_secs(6));
        suspicion.add(&lan, NodeId(4), NodeId(2));
        assert_eq!(suspicion.deadline(&lan, (10, 10), 4), Instant::ZERO + Duration::from_secs(1));
        assert!(suspicion.deadline(&lan, (10, 10), 3) > Instant::ZERO + Duration::from_secs(1));
    }
}
