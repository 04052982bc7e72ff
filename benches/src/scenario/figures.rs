//! What a run measured.

use std::time::Duration;

use serde::Serialize;

/// Times that something took, and how often it never happened.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies {
    micros: Vec<u32>,
    never: u64,
}

impl Latencies {
    pub(super) fn push(&mut self, time: Duration) {
        self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn never(&mut self, count: u64) {
        self.never += count;
    }

    /// Bytes that are kept for it.
    pub(super) fn heap(&self) -> usize {
        self.micros.capacity() * size_of::<u32>()
    }

    pub(super) fn sort(&mut self) {
        self.micros.sort_unstable();
    }

    pub(super) fn count(&self) -> u64 {
        self.micros.len() as u64 + self.never
    }

    /// The `percent`-th percentile (nearest rank) in seconds, endless if it never happened; `None` if
    /// there is nothing. It must be sorted.
    pub(super) fn percentile(&self, percent: u64) -> Option<f64> {
        self.permille(percent * 10)
    }

    /// The same in thousandths.
    pub(super) fn permille(&self, permille: u64) -> Option<f64> {
        let rank = (self.count() * permille).div_ceil(1_000).max(1) - 1;
        if self.count() == 0 {
            return None;
        }
        let micros = usize::try_from(rank).ok().and_then(|rank| self.micros.get(rank));
        Some(micros.map_or(f64::INFINITY, |&micros| f64::from(micros) / 1e6))
    }

    /// Time in seconds and share of all that took at most so long, in `points` steps.
    pub(super) fn distribution(&self, points: usize) -> Vec<(f64, f64)> {
        let (len, all) = (self.micros.len(), self.count() as f64);
        let points = points.min(len);
        let point = |number: usize| {
            let rank = number * len / points - 1;
            (f64::from(self.micros[rank]) / 1e6, (rank + 1) as f64 / all)
        };
        (1..=points).map(point).collect()
    }
}

/// What a run measured. Times are in seconds; what is endless is `null` in JSON, as is what there was
/// nothing to measure of.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Figures {
    /// From the start of the nodes until all knew all.
    pub joined: Option<f64>,
    /// Bytes per member that this took.
    pub joined_bytes: f64,
    /// Hours times members that are measured.
    pub member_hours: f64,
    /// (observer, subject) pairs in which a node was declared dead that was up, well and within reach.
    pub false_deaths: u64,
    /// The same per hour and member.
    pub false_deaths_per_member_hour: f64,
    /// The same of suspicions.
    pub false_suspicions_per_member_hour: f64,
    /// (observer, subject) pairs in which a node was declared dead that was up but paused or slow.
    pub deaths_of_troubled: u64,
    /// The same of one that was up, and within reach of the observer but a short time before not of all.
    pub deaths_after_heal: u64,
    /// The same of one that was up, well and within reach, by one whose own links are bad.
    pub deaths_by_faulty: u64,
    /// From when a node's links were bad to each well node that lists it no more, median.
    pub faulty_out_p50: Option<f64>,
    /// The same, longest.
    pub faulty_out: Option<f64>,
    /// How often one well node came to list one such node, or not, the most.
    pub faulty_changes: Option<f64>,
    /// Crashes.
    pub crashes: u64,
    /// From a crash to the first suspicion, median.
    pub suspected_first_p50: Option<f64>,
    /// From a crash to the first declaration, median.
    pub detection_first_p50: Option<f64>,
    /// From a crash to each observer, median.
    pub detection_all_p50: Option<f64>,
    /// The same, 99th percentile.
    pub detection_all_p99: Option<f64>,
    /// The same, longest.
    pub detection_all_max: Option<f64>,
    /// (crash, observer) pairs that were never detected.
    pub undetected: u64,
    /// Nodes that left.
    pub leaves: u64,
    /// From a leave to each observer that learns that it left, 99.9th percentile; who holds it failed never does.
    pub left_all_p999: Option<f64>,
    /// (leave, observer) pairs in which it was held failed.
    pub left_as_failed: u64,
    /// UDP payload that a member sent per second.
    pub bytes_per_second: f64,
    /// The same with headers of UDP and IPv4.
    pub bytes_per_second_with_headers: f64,
    /// The same in the second in which it was most, without headers.
    pub bytes_per_second_peak: f64,
    /// Datagrams that a member sent per second.
    pub datagrams_per_second: f64,
    /// UDP payload per second and member since the first trouble, as a multiple of before it.
    pub times_idle: Option<f64>,
    /// From the end of each trouble until all agreed for good, the longest.
    pub heal: Option<f64>,
    /// Writes.
    pub writes: u64,
    /// From a write to each replica, median.
    pub visibility_p50: Option<f64>,
    /// The same, 99th percentile.
    pub visibility_p99: Option<f64>,
    /// The same, longest.
    pub visibility_max: Option<f64>,
    /// (write, replica) pairs that had not come together at the end.
    pub unseen: u64,
    /// Keys that the fullest replica had left when all were removed.
    pub keys_left: Option<f64>,
    /// Marks of superseded writes and records of the log that the fullest replica had left.
    pub metadata_left: Option<f64>,
    /// Live heap per node at the end of the settle time, simulator included.
    pub heap_per_node: f64,
    /// The same at the end of the run, without what the measuring keeps.
    pub heap_per_node_at_end: f64,
    /// The second as a multiple of the first.
    pub heap_growth: f64,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Sample {
    /// Seconds since it counted.
    pub at: f64,
    /// Share of (observer, subject) pairs in which the list told the truth.
    pub agreement: f64,
    /// UDP payload that a member sent in that second.
    pub bytes: f64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank_and_never_is_the_longest() {
        let mut times = Latencies::default();
        assert_eq!(times.percentile(50), None);
        for second in (1..=99).rev() {
            times.push(Duration::from_secs(second));
        }
        times.never(1);
        times.sort();
        assert_eq!(times.percentile(50), Some(50.0));
        assert_eq!(times.percentile(99), Some(99.0));
        assert_eq!(times.percentile(100), Some(f64::INFINITY));
        assert_eq!((times.permille(501), times.permille(990)), (Some(51.0), Some(99.0)));
        let distribution = times.distribution(10);
        assert_eq!(distribution.len(), 10);
        assert_eq!(*distribution.last().unwrap(), (99.0, 0.99));
    }
}
