//! What a run must reach, and whether it did.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::figures::Figures;
use super::value::Time;

/// `[budget]`: the most that a figure may be. What is not named is not asserted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Until all know all, from the start of the nodes.
    pub joined: Option<Spanned<Time>>,
    /// Bytes per member that this takes, without UDP and IP headers.
    pub joined_bytes: Option<Spanned<f64>>,
    /// Members declared dead that were up and within reach.
    pub false_deaths_per_member_hour: Option<Spanned<f64>>,
    /// From when a node's links were bad to each well node that lists it no more, the longest.
    pub faulty_out: Option<Spanned<Time>>,
    /// How often one well node came to list one such node, or not, the most.
    pub faulty_changes: Option<Spanned<f64>>,
    /// From a crash to the first that declares it, median over the crashes.
    pub detection_first_p50: Option<Spanned<Time>>,
    /// From a crash to each who was there, 99th percentile over (crash, observer) pairs.
    pub detection_all_p99: Option<Spanned<Time>>,
    /// From a leave to each who was there and learns that it left, 99.9th percentile over (leave, observer) pairs.
    pub left_all_p999: Option<Spanned<Time>>,
    /// Bytes that a member sends per second, without UDP and IP headers.
    pub bytes_per_second: Option<Spanned<f64>>,
    /// The same in the second in which it was most.
    pub bytes_per_second_peak: Option<Spanned<f64>>,
    /// The same while there is trouble, as a multiple of before it.
    pub times_idle: Option<Spanned<f64>>,
    /// From the end of trouble until all agree for good, the longest.
    pub heal: Option<Spanned<Time>>,
    /// From a write to each replica, 99th percentile over (write, replica) pairs.
    pub visibility_p99: Option<Spanned<Time>>,
    /// Keys that are left when all were removed.
    pub keys_left: Option<Spanned<f64>>,
    /// Marks and records of the log that are left.
    pub metadata_left: Option<Spanned<f64>>,
    /// Live heap at the end, as a multiple of that at the beginning.
    pub heap_growth: Option<Spanned<f64>>,
}

/// A figure next to its budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The key in the file.
    pub key: &'static str,
    /// The most that it may be; times in seconds.
    pub limit: f64,
    /// What was measured; `None` if that is endless, or there was nothing to measure.
    pub value: Option<f64>,
    /// Whether it is within the limit.
    pub met: bool,
}

/// What a budget needs so that there is something to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// `[[loss]]` with `nodes`.
    Faulty,
    /// `[[crash]]`.
    Crash,
    /// `[[leave]]`.
    Leave,
    /// Something that ends.
    End,
    /// Trouble that begins late enough.
    Idle,
    /// `[writes]`.
    Writes,
    /// `[writes]` with a `lifetime`.
    Lifetime,
}

/// One key: its limit, where that stands, and the figure that it limits.
pub(super) struct Line {
    pub(super) key: &'static str,
    pub(super) limit: Option<Spanned<f64>>,
    pub(super) needs: Needs,
    figure: fn(&Figures) -> Option<f64>,
}

fn seconds(time: Option<&Spanned<Time>>) -> Option<Spanned<f64>> {
    time.map(|time| Spanned::new(time.span(), time.get_ref().0.as_secs_f64()))
}

impl Budget {
    /// All keys, named or not.
    pub(super) fn lines(&self) -> [Line; 16] {
        let line = |key, limit, needs, figure| Line { key, limit, needs, figure };
        [
            line("joined", seconds(self.joined.as_ref()), Needs::Nothing, |all| all.joined),
            line("joined_bytes", self.joined_bytes.clone(), Needs::Nothing, |all| {
                Some(all.joined_bytes)
            }),
            line(
                "false_deaths_per_member_hour",
                self.false_deaths_per_member_hour.clone(),
                Needs::Nothing,
                |all| Some(all.false_deaths_per_member_hour),
            ),
            line("faulty_out", seconds(self.faulty_out.as_ref()), Needs::Faulty, |all| {
                all.faulty_out
            }),
            line("faulty_changes", self.faulty_changes.clone(), Needs::Faulty, |all| {
                all.faulty_changes
            }),
            line(
                "detection_first_p50",
                seconds(self.detection_first_p50.as_ref()),
                Needs::Crash,
                |all| all.detection_first_p50,
            ),
            line(
                "detection_all_p99",
                seconds(self.detection_all_p99.as_ref()),
                Needs::Crash,
                |all| all.detection_all_p99,
            ),
            line("left_all_p999", seconds(self.left_all_p999.as_ref()), Needs::Leave, |all| {
                all.left_all_p999
            }),
            line("bytes_per_second", self.bytes_per_second.clone(), Needs::Nothing, |all| {
                Some(all.bytes_per_second)
            }),
            line(
                "bytes_per_second_peak",
                self.bytes_per_second_peak.clone(),
                Needs::Nothing,
                |all| Some(all.bytes_per_second_peak),
            ),
            line("times_idle", self.times_idle.clone(), Needs::Idle, |all| all.times_idle),
            line("heal", seconds(self.heal.as_ref()), Needs::End, |all| all.heal),
            line("visibility_p99", seconds(self.visibility_p99.as_ref()), Needs::Writes, |all| {
                all.visibility_p99
            }),
            line("keys_left", self.keys_left.clone(), Needs::Lifetime, |all| all.keys_left),
            line("metadata_left", self.metadata_left.clone(), Needs::Writes, |all| {
                all.metadata_left
            }),
            line("heap_growth", self.heap_growth.clone(), Needs::Nothing, |all| {
                Some(all.heap_growth)
            }),
        ]
    }

    /// Judges what is named.
    #[must_use]
    pub fn judge(&self, figures: &Figures) -> Vec<Verdict> {
        let judged = self.lines().into_iter().filter_map(|line| {
            let limit = line.limit?.into_inner();
            let value = (line.figure)(figures);
            let met = value.is_some_and(|value| value <= limit);
            let value = value.filter(|value| value.is_finite());
            Some(Verdict { key: line.key, limit, value, met })
        });
        judged.collect()
    }
}
