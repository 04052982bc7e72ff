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

    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    /// When `at` is for tokio; `None` if that is beyond what the platform's clock can name.
    pub(crate) fn to_tokio(self, at: Instant) -> Option<tokio::time::Instant> {
        self.start.checked_add(at - Instant::ZERO).map(tokio::time::Instant::from_std)
    }
}

/// Microseconds of wall-clock time since 1970: the boot epoch of a node that starts now.
pub(crate) fn boot_epoch() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::from_micros(1));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
