//! What a run of the demo measured.

use core::fmt;
use core::time::Duration;

use serde::Serialize;

/// The closing JSON object. What was not measured is null.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) nodes: usize,
    pub(crate) origins: usize,
    /// Checks completed by all nodes.
    pub(crate) checks: u64,
    pub(crate) members_agree: bool,
    pub(crate) owners_agree: bool,
    pub(crate) statuses_agree: bool,
    pub(crate) wrong_statuses: Option<u64>,
    pub(crate) wrong_while_unchecked: Option<u64>,
    pub(crate) checks_per_origin_interval: Option<f64>,
    pub(crate) checks_by_non_owner: Option<u64>,
    pub(crate) origins_without_owner: usize,
    pub(crate) false_failures: Option<u64>,
    pub(crate) detect_failure_ms: Detection,
    pub(crate) takeover_ms: Option<f64>,
    pub(crate) propagation_ms: Propagation,
    pub(crate) bytes_sent: u64,
    pub(crate) datagrams_sent: u64,
}

/// From the kill to the first and the last survivor that held the victim for failed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Detection {
    pub(crate) first: Option<f64>,
    pub(crate) last: Option<f64>,
}

/// From an owner's write to the last live node that reads it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Propagation {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

impl Report {
    /// Whether all live nodes agreed at the end.
    pub(crate) fn agrees(&self) -> bool {
        self.members_agree && self.owners_agree && self.statuses_agree
    }
}

/// Milliseconds to a thousandth.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

impl Propagation {
    /// The percentiles of `times`, by nearest rank.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied().map(ms)
        };
        Self { p50: rank(50), p99: rank(99) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |agree| if agree { "agree" } else { "DIFFER" };
        let in_ms = |value: Option<f64>| {
            value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.1} ms"))
        };
        let count = |value: Option<u64>| {
            value.map_or_else(|| "(not measured)".to_owned(), |value| value.to_string())
        };
        let (first, last) = (self.detect_failure_ms.first, self.detect_failure_ms.last);
        let Propagation { p50, p99 } = self.propagation_ms;
        writeln!(
            f,
            "at the end      members {}, owners {}, statuses {}; {} origins without an owner",
            yes(self.members_agree),
            yes(self.owners_agree),
            yes(self.statuses_agree),
            self.origins_without_owner
        )?;
        writeln!(
            f,
            "answers         wrong {}, and {} while their origin had no checker yet",
            count(self.wrong_statuses),
            count(self.wrong_while_unchecked)
        )?;
        writeln!(
            f,
            "checks          {} in all, {} per origin and interval, {} by a node that is not the owner",
            self.checks,
            self.checks_per_origin_interval
                .map_or_else(|| "not measured".to_owned(), |rate| format!("{rate:.3}")),
            count(self.checks_by_non_owner)
        )?;
        writeln!(
            f,
            "failure         seen first after {}, by all after {}; taken over after {}; {} false",
            in_ms(first),
            in_ms(last),
            in_ms(self.takeover_ms),
            count(self.false_failures)
        )?;
        writeln!(
            f,
            "propagation     half of the writes within {}, 99 % within {}",
            in_ms(p50),
            in_ms(p99)
        )?;
        write!(f, "sent            {} datagrams, {} bytes", self.datagrams_sent, self.bytes_sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let Propagation { p50, p99 } = Propagation::of(times);
        assert_eq!((p50, p99), (Some(100.0), Some(198.0)));
        let none = Propagation::of(Vec::new());
        assert_eq!((none.p50, none.p99), (None, None));
    }
}
