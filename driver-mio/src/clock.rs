//! The clock that the core does not have.

use std::time::{Duration, Instant as StdInstant};

use brickwork_core::Instant;

/// Monotonic time since the driver's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: StdInstant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: StdInstant::now() }
    }

    pub(crate) fn now(self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

/// Longest single wait. A selector may count milliseconds in 32 bits and wrap beyond them; waking up
/// early costs nothing.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// `wait` in whole milliseconds, rounded up: a sleep that ends early would spin until the timer is due.
pub(crate) fn round_up(wait: Duration) -> Duration {
    let millis = wait.min(MAX_WAIT).as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Microseconds of wall-clock time since 1970: the boot epoch of a node that starts now.
pub(crate) fn boot_epoch() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::from_micros(1));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_and_bounded() {
        assert_eq!(round_up(Duration::ZERO), Duration::ZERO);
        assert_eq!(round_up(Duration::from_nanos(1)), Duration::from_millis(1));
        assert_eq!(round_up(Duration::from_millis(7)), Duration::from_millis(7));
        assert_eq!(round_up(Duration::from_micros(7_001)), Duration::from_millis(8));
        assert_eq!(round_up(Duration::MAX), MAX_WAIT);
    }
}
