//! When an origin is checked: a rhythm that every node knows without asking.
//!
//! The times of an origin's checks are its interval's multiples in Unix time, shifted by a phase
//! from its name. Whoever owns the origin follows the same times, so a change of owner neither
//! doubles nor skips a beat, and origins with the same interval are spread over it.

use core::time::Duration;
use std::time::SystemTime;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Unix time that never steps: the wall clock is read once, and the monotonic clock counts from
/// there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    start: Instant,
    unix_at_start: Duration,
}

impl WallClock {
    /// Reads the wall clock. A clock before 1970 counts as 1970: the rhythm is then still one of
    /// its own.
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { start: Instant::now(), unix_at_start: unix.unwrap_or_default() }
    }

    /// Unix time now.
    pub(crate) fn now(&self) -> Duration {
        self.unix_at(Instant::now())
    }

    /// Unix time in milliseconds, as it stands in a status.
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.now())
    }

    /// Unix time at a moment of the monotonic clock; the start for moments before it.
    pub(crate) fn unix_at(&self, at: Instant) -> Duration {
        self.unix_at_start + at.saturating_duration_since(self.start)
    }

    /// The moment of the monotonic clock at a Unix time; the start for times before it.
    pub(crate) fn instant_at(&self, unix: Duration) -> Instant {
        self.start + unix.saturating_sub(self.unix_at_start)
    }
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The times at which one origin is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    interval: u128,
    /// Below `interval`.
    phase: u128,
}

impl Rhythm {
    /// The rhythm of the origin `name`; `interval` is above zero.
    pub(crate) fn new(name: &str, interval: Duration) -> Self {
        let interval = interval.as_nanos().max(1);
        Self { interval, phase: u128::from(xxh3_64(name.as_bytes())) % interval }
    }

    /// The first time of the rhythm after `unix`.
    pub(crate) fn after(&self, unix: Duration) -> Duration {
        let unix = unix.as_nanos();
        // Counted one interval ahead, so that a time before the first phase does not underflow.
        let beats = (unix + self.interval - self.phase) / self.interval;
        let next = beats * self.interval + self.phase;
        let seconds = u64::try_from(next / 1_000_000_000).unwrap_or(u64::MAX);
        let nanos = u32::try_from(next % 1_000_000_000).unwrap_or(0);
        Duration::new(seconds, nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_next_beat_is_later_by_at_most_an_interval(
            name in "[a-z]{1,12}", interval in 1u64..100_000_000_000, unix in 0u64..4_000_000_000_000_000_000,
        ) {
            let interval = Duration::from_nanos(interval);
            let unix = Duration::from_nanos(unix);
            let rhythm = Rhythm::new(&name, interval);
            let next = rhythm.after(unix);
            prop_assert!(next > unix && next <= unix + interval);
            prop_assert_eq!(rhythm.after(next), next + interval);
        }
    }

    #[test]
    fn two_owners_follow_the_same_times() {
        let rhythm = Rhythm::new("shop", Duration::from_secs(10));
        let old = rhythm.after(Duration::from_millis(1_700_000_000_000));
        let new = rhythm.after(old + Duration::from_secs(3));
        assert_eq!(new, old + Duration::from_secs(10));
    }

    #[test]
    fn origins_are_spread_over_their_interval() {
        let interval = Duration::from_secs(1);
        let early = (0..1000)
            .filter(|i| {
                Rhythm::new(&format!("origin-{i}"), interval).after(Duration::ZERO)
                    < Duration::from_millis(500)
            })
            .count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }
}
