//! Time as the state machines see it: nanoseconds since an epoch that the driver picks.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point in time, in nanoseconds since an epoch that the driver picks (usually its own start).
///
/// The core never reads a clock. It compares instants, adds durations to them, and saturates at
/// both ends, so no input can make the arithmetic wrap or panic.
///
/// ```
/// use brickwork_core::Instant;
/// use core::time::Duration;
///
/// let start = Instant::ZERO;
/// let later = start + Duration::from_millis(5);
/// assert_eq!(later - start, Duration::from_millis(5));
/// assert_eq!(start - later, Duration::ZERO, "differences saturate");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);
    /// The last representable instant, 584 years after the epoch.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant that long before, the epoch at the earliest.
    pub(crate) fn back(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

/// A duration in whole nanoseconds, capped at 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Time that goes on when the driver's clock steps back, so that no timer waits until that clock has
/// caught up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    /// The last instant that it showed.
    latest: Instant,
    /// By how much it is ahead of the driver's clock.
    ahead: Duration,
}

impl Steady {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { latest: now, ahead: Duration::ZERO }
    }

    /// What it shows when the driver's clock shows `now`: never less than before.
    pub(crate) fn pass(&mut self, now: Instant) -> Instant {
        let shown = now + self.ahead;
        self.ahead += self.latest - shown;
        self.latest = self.latest.max(shown);
        self.latest
    }

    /// The same, for a look that is no input.
    pub(crate) fn at(&self, now: Instant) -> Instant {
        self.latest.max(now + self.ahead)
    }

    /// What the driver's clock shows when this one shows `at`.
    pub(crate) fn when(&self, at: Instant) -> Instant {
        Instant(at.0.saturating_sub(nanos(self.ahead)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_time_goes_on_after_steps_back() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut steady = Steady::new(at(10));
        assert_eq!(steady.pass(at(12)), at(12));
        assert_eq!(steady.pass(at(2)), at(12), "ten seconds back");
        assert_eq!(steady.pass(at(3)), at(13));
        assert_eq!(steady.when(at(15)), at(5));
        assert_eq!((steady.at(at(5)), steady.at(at(2))), (at(15), at(13)));
        assert_eq!(steady.pass(at(0)), at(13));
        assert_eq!(steady.pass(at(90)), at(103), "and it does not come back");
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant::MAX + Duration::MAX, Instant::MAX);
        assert_eq!(Instant::ZERO + Duration::MAX, Instant::MAX);
        assert_eq!(Instant::ZERO - Instant::MAX, Duration::ZERO);
    }
}
