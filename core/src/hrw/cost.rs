//! What a weight does to a score: the logarithm method of weighted rendezvous hashing, in integers.
//!
//! Take the score as a number u between 0 and 1. The node with the least -ln(u) / w owns the key, and so a node of weight w owns w
//! of the sum of all weights; what changes with one weight is only what that node gains or loses. Source: Schindelhauer and
//! Schomaker, "Weighted Distributed Hash Tables" (2005), the logarithmic method.
//!
//! All nodes must agree, so -ln(u) is computed here in fixed point: near u = 1, where owners are found, by the first terms of
//! its series, and elsewhere by steps of a table. Both never increase with the score, and nor does one that goes over into the other:
//! where all weights are equal, the order of costs is that of scores, and [`super::View`] compares those alone.

use core::cmp::Ordering;
use core::num::NonZeroU32;

use crate::id::NodeId;

/// Bits behind the point of a cost: -ln(2^-64) is 44.4, which takes six before it.
const POINT: u32 = 58;
/// ln(2), with 64 bits behind the point.
const LN_2_64: u64 = 0xb172_17f7_d1cf_79ab;
/// The same as a cost.
const LN_2: u64 = LN_2_64 >> (64 - POINT);
/// Steps of the table between 1 and 2.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 10;
/// Scores that are nearer to their upper end than this, 2^-8 of their range, are served by the series.
const NEAR: u64 = 1 << 56;

/// ln(1 + i / STEPS) for each i.
static LN: [u64; STEPS + 1] = table();

/// By digits of the binary logarithm: a number between 1 and 2 is squared, and the digit is whether that is above 2.
const fn table() -> [u64; STEPS + 1] {
    let mut table = [LN_2; STEPS + 1];
    let mut step = 0;
    while step < STEPS {
        let mut number = (1 << 63) + ((step as u64) << (63 - STEP_BITS));
        let (mut log, mut digit) = (0_u64, 64);
        while digit > 0 {
            digit -= 1;
            let square = number as u128 * number as u128;
            let above = square >> 127;
            log |= (above as u64) << digit;
            number = (square >> (63 + above)) as u64;
        }
        table[step] = ((log as u128 * LN_2_64 as u128) >> (128 - POINT)) as u64;
        step += 1;
    }
    table
}

/// -ln((score + 1) / 2^64), with [`POINT`] bits behind the point; too much by less than one part in 2^14.
#[must_use]
pub(super) fn cost(score: u64) -> u64 {
    if !score < NEAR { near(!score) } else { far(score + 1) }
}

/// The series of -ln(1 - d), for d with 64 bits behind the point.
const fn near(d: u64) -> u64 {
    let (mut power, mut sum, mut n) = (d, d, 1);
    while n < 6 {
        n += 1;
        power = ((power as u128 * d as u128) >> 64) as u64;
        sum += power / n;
    }
    sum >> (64 - POINT)
}

/// By the steps of the table, and in a straight line between two of them.
fn far(number: u64) -> u64 {
    let zeros = number.leading_zeros();
    // The highest bit is one, and falls out.
    let mantissa = (number << zeros) << 1;
    #[allow(clippy::cast_possible_truncation)] // of so many bits as the table has
    let step = (mantissa >> (64 - STEP_BITS)) as usize;
    let (from, to) = (LN[step], LN[step + 1]);
    let rest = mantissa << STEP_BITS;
    #[allow(clippy::cast_possible_truncation)] // no more than the step
    let ln = from + ((u128::from(to - from) * u128::from(rest)) >> 64) as u64;
    u64::from(zeros + 1) * LN_2 - ln
}

/// What one node bids for a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bid {
    pub(super) score: u64,
    pub(super) weight: NonZeroU32,
    pub(super) node: NodeId,
}

impl Bid {
    /// Whether this one is preferred to another, which is `Greater`. Of equal costs the higher score is, and of those the
    /// greater id.
    pub(super) fn prefer(&self, other: &Self) -> Ordering {
        let by_score = (self.score, self.node).cmp(&(other.score, other.node));
        if self.weight == other.weight {
            return by_score;
        }
        let price = |of: &Self, by: &Self| u128::from(cost(of.score)) * u128::from(by.weight.get());
        price(other, self).cmp(&price(self, other)).then(by_score)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::float_cmp)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(score: u64) -> f64 {
        let below = (!score) as f64 / 2_f64.powi(64);
        if below < 0.5 { -(-below).ln_1p() } else { -((score + 1) as f64 / 2_f64.powi(64)).ln() }
    }

    fn check(score: u64) {
        let (found, exact) = (cost(score) as f64 / 2_f64.powi(58), exact(score));
        // A few units of the last place, where that is all there is.
        let slack = 4.0 / 2_f64.powi(58);
        assert!(found >= exact * (1.0 - 2_f64.powi(-48)) - slack, "{score:#x}: {found} of {exact}");
        assert!(found <= exact * (1.0 + 2_f64.powi(-14)) + slack, "{score:#x}: {found} of {exact}");
        if let Some(next) = score.checked_add(1) {
            assert!(cost(next) <= cost(score), "{score:#x} costs less than the next");
        }
    }

    #[test]
    fn costs_are_logarithms_at_the_seams() {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        let steps = (0..=STEPS as u64).map(|step| (step << 53) | (1 << 63));
        let seams = powers.chain(steps).chain([0, u64::MAX, u64::MAX - NEAR]);
        for seam in seams {
            (0..9).for_each(|by| check(seam.wrapping_add(by).wrapping_sub(4)));
        }
    }

    /// Printed by the second implementation in `core/tests/vectors/hrw.py`, which has its logarithms from elsewhere.
    #[test]
    fn costs_have_their_golden_values() {
        let golden = [
            (0, 0xb172_17f7_d1cf_7980),
            (1, 0xaeac_4f97_f288_3b9a),
            (1 << 32, 0x58b9_0bfb_e4e8_3cab),
            (1 << 63, 0x02c5_c85f_df47_3de6),
            (0xdead_beef_1234_5678, 0x008e_cb58_cb95_d4b5),
            (u64::MAX - NEAR, 0x0004_0201_5656_22cd),
            (u64::MAX - NEAR + 1, 0x0004_0201_5656_22cc),
            (u64::MAX - (1 << 30), 0x0100_0000),
            (u64::MAX, 0),
        ];
        for (score, wanted) in golden {
            assert_eq!(cost(score), wanted, "{score:#x}");
        }
    }

    proptest! {
        #[test]
        fn costs_are_logarithms(score in any::<u64>(), near in 0..64_u32) {
            check(score);
            check(!(score >> near));
        }

        #[test]
        fn a_higher_score_never_costs_more(a in any::<u64>(), b in any::<u64>()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(cost(high) <= cost(low));
        }
    }
}
