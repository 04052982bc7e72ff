//! Bytes that may be spent per second, on what is asked for and on what is answered.
//!
//! What is left grows with time, up to what a second brings. It is looked at when something is asked for or promised,
//! and spent when that arrives or leaves, so it may fall below zero, by no more than what was promised at a time.

use core::time::Duration;

use crate::time::Instant;

const SECOND: i128 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes per second.
    rate: i128,
    /// Billionths of a byte.
    left: i128,
    at: Instant,
}

impl Allowance {
    pub(super) const fn new(now: Instant, rate: usize) -> Self {
        let rate = rate as i128;
        Self { rate, left: rate * SECOND, at: now }
    }

    /// How many bytes may be spent now.
    pub(super) fn left(&mut self, now: Instant) -> u64 {
        let passed = i128::try_from((now - self.at).as_nanos()).unwrap_or(SECOND).min(1 << 60);
        self.left = (self.left + passed * self.rate).min(self.rate * SECOND);
        self.at = self.at.max(now);
        self.left_then()
    }

    /// The same, as if it were still when it was looked at last.
    pub(super) fn left_then(&self) -> u64 {
        u64::try_from(self.left / SECOND).unwrap_or(0)
    }

    pub(super) const fn spend(&mut self, bytes: usize) {
        self.left -= bytes as i128 * SECOND;
    }

    /// How long it takes, from when it was looked at last, until so many bytes are left.
    pub(super) fn wait_for(&self, bytes: usize) -> Duration {
        let lacks = (bytes as i128).min(self.rate) * SECOND - self.left;
        let nanos = (lacks + self.rate - 1).max(0) / self.rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_at_its_rate() {
        let start = Instant::ZERO;
        let at = |millis| start + Duration::from_millis(millis);
        let mut allowance = Allowance::new(start, 1_000);
        assert_eq!((allowance.left(start), allowance.wait_for(1_000)), (1_000, Duration::ZERO));
        allowance.spend(1_300);
        assert_eq!((allowance.left(start), allowance.wait_for(1)), (0, Duration::from_millis(301)));
        assert_eq!(allowance.left(at(300)), 0);
        assert_eq!(allowance.left(at(301)), 1);
        // However often it is looked at.
        (302_000..400_000).for_each(|micros| {
            allowance.left(start + Duration::from_micros(micros));
        });
        assert_eq!((allowance.left(at(400)), allowance.wait_for(5_000)), (100, at(900) - start));
        assert_eq!(allowance.left(at(86_400_000)), 1_000, "what a second brings is kept at most");
        assert_eq!(allowance.left(at(5)), 1_000, "time that goes back brings nothing");
    }
}
