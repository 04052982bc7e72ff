//! Clocks that need not be true.

use core::time::Duration;

use crate::time::Instant;

/// A clock that may run at another rate than the others, and step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// At this true time …
    pub(super) base: Instant,
    /// … it showed this.
    pub(super) shown: Instant,
    /// Deviation of its rate in millionths.
    pub(super) ppm: i32,
}

impl Clock {
    pub(super) const TRUE: Self = Self { base: Instant::ZERO, shown: Instant::ZERO, ppm: 0 };

    fn rate(self) -> u128 {
        u128::from(1_000_000_u32.saturating_add_signed(self.ppm).max(1))
    }

    pub(super) fn show(self, now: Instant) -> Instant {
        let passed = (now - self.base).as_nanos() * self.rate() / 1_000_000;
        self.shown + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The first true time at which it shows `at` or more.
    pub(super) fn when(self, at: Instant) -> Instant {
        let nanos = ((at - self.shown).as_nanos() * 1_000_000).div_ceil(self.rate());
        self.base + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn rebase(&mut self, now: Instant) {
        *self = Self { base: now, shown: self.show(now), ppm: self.ppm };
    }
}
