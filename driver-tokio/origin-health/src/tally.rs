//! How many checks were made, how they ended and how long they took, since the start.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::check::{Outcome, Reason, Unchecked};

/// How a check can end, in one word each. A failure's status code is left out: it would make as
/// many kinds as origins can think of.
pub(crate) const KINDS: [&str; 7] =
    ["ok", "dns", "connect", "tls", "timeout", "status", "protocol"];

/// Why a check was not made, in one word each.
pub(crate) const UNCHECKED: [&str; 2] = ["local", "late"];

/// The upper ends of the buckets of durations. The longest default timeout is far below the last.
pub(crate) const BOUNDS: [Duration; 11] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Counts checks. Every check counts once in `kinds` and once in `buckets`; one that was not made
/// counts in `unchecked` alone.
#[derive(Default)]
pub(crate) struct Tally {
    kinds: [AtomicU64; KINDS.len()],
    unchecked: [AtomicU64; UNCHECKED.len()],
    /// Checks that took at most the bound, and more than the bound before; the last one has none.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Tally {
    /// Counts one check.
    pub(crate) fn count(&self, outcome: &Outcome) {
        let kind = match outcome.failure {
            None => 0,
            Some(Reason::Dns) => 1,
            Some(Reason::Connect) => 2,
            Some(Reason::Tls) => 3,
            Some(Reason::Timeout) => 4,
            Some(Reason::Status(_)) => 5,
            Some(Reason::Protocol) => 6,
        };
        let bucket = BOUNDS.partition_point(|&bound| bound < outcome.latency);
        self.kinds[kind].fetch_add(1, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts one check that was not made.
    pub(crate) fn count_unchecked(&self, why: &Unchecked) {
        let kind = match why {
            Unchecked::Local(_) => 0,
            Unchecked::Late => 1,
        };
        self.unchecked[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// All checks that were made.
    pub(crate) fn total(&self) -> u64 {
        self.kinds().into_iter().sum()
    }

    /// Checks by how they ended, in the order of [`KINDS`].
    pub(crate) fn kinds(&self) -> [u64; KINDS.len()] {
        self.kinds.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Checks that were not made, in the order of [`UNCHECKED`].
    pub(crate) fn unchecked(&self) -> [u64; UNCHECKED.len()] {
        self.unchecked.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Checks by how long they took: up to each of [`BOUNDS`] and above the one before, and at last
    /// those above all of them.
    pub(crate) fn buckets(&self) -> [u64; BOUNDS.len() + 1] {
        self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// How long all checks took together.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("total", &self.total()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_counts_once() {
        let tally = Tally::default();
        for (millis, failure) in [
            (5, None),
            (6, None),
            (20_000, Some(Reason::Timeout)),
            (0, Some(Reason::Status(500))),
            (0, Some(Reason::Status(404))),
        ] {
            tally.count(&Outcome { latency: Duration::from_millis(millis), failure });
        }
        for why in [Unchecked::Late, Unchecked::Local("no descriptor".to_owned()), Unchecked::Late]
        {
            tally.count_unchecked(&why);
        }
        assert_eq!(tally.unchecked(), [1, 2]);
        assert_eq!(tally.total(), 5, "what was not made is no check");
        assert_eq!(tally.kinds(), [2, 0, 0, 0, 1, 2, 0]);
        let buckets = tally.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[BOUNDS.len()]), (3, 1, 1), "a bound is inside");
        assert_eq!(tally.spent(), Duration::from_millis(20_011));
    }
}
