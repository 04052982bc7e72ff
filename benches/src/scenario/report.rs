//! Outcomes as tables for people and as JSON for programs.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::budget::Verdict;
use super::figures::Figures;
use super::file::Scenario;
use super::run::Outcome;

/// All outcomes of one file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The file as it was named.
    pub file: String,
    /// What it says.
    pub scenario: Scenario,
    /// Options of the command besides file and seed.
    pub options: String,
    /// One for each seed, up to the one that broke a promise.
    pub outcomes: Vec<Outcome>,
    /// With this seed a node broke a promise of the core, and the run ended.
    pub broken: Option<u64>,
}

/// How a figure is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    Bytes,
    Plain,
}

/// The middle one, and the worst.
#[derive(Debug, Clone, Copy)]
struct Values {
    median: Option<f64>,
    worst: Option<f64>,
}

/// A row: the figure's name, the key of its budget if it has one, and the figure.
type Row = (&'static str, &'static str, Unit, fn(&Figures) -> Option<f64>);

const HEAP_GROWTH: &str = "the same, times settled";

const ROWS: &[Row] = &[
    ("all know all after", "joined", Unit::Seconds, |all| all.joined),
    ("bytes per member for it", "joined_bytes", Unit::Bytes, |all| Some(all.joined_bytes)),
    ("member-hours measured", "", Unit::Plain, |all| Some(all.member_hours)),
    ("false deaths per member-hour", "false_deaths_per_member_hour", Unit::Plain, |all| {
        Some(all.false_deaths_per_member_hour)
    }),
    ("false suspicions per member-hour", "", Unit::Plain, |all| {
        Some(all.false_suspicions_per_member_hour)
    }),
    ("deaths of troubled nodes", "", Unit::Plain, |all| {
        Some(all.deaths_of_troubled as f64).filter(|&deaths| deaths > 0.0)
    }),
    ("deaths that a healed split tells of", "", Unit::Plain, |all| {
        Some(all.deaths_after_heal as f64).filter(|&deaths| deaths > 0.0)
    }),
    ("deaths by faulty nodes", "", Unit::Plain, |all| {
        Some(all.deaths_by_faulty as f64).filter(|&deaths| deaths > 0.0)
    }),
    ("faulty node out of lists, p50", "", Unit::Seconds, |all| all.faulty_out_p50),
    ("faulty node out of all lists", "faulty_out", Unit::Seconds, |all| all.faulty_out),
    ("changes of mind about one, most", "faulty_changes", Unit::Plain, |all| all.faulty_changes),
    ("crashes", "", Unit::Plain, |all| Some(all.crashes as f64).filter(|&count| count > 0.0)),
    ("first suspicion, p50", "", Unit::Seconds, |all| all.suspected_first_p50),
    ("first declared dead, p50", "detection_first_p50", Unit::Seconds, |all| {
        all.detection_first_p50
    }),
    ("declared by all, p50", "", Unit::Seconds, |all| all.detection_all_p50),
    ("declared by all, p99", "detection_all_p99", Unit::Seconds, |all| all.detection_all_p99),
    ("declared by all, longest", "", Unit::Seconds, |all| all.detection_all_max),
    ("leaves", "", Unit::Plain, |all| Some(all.leaves as f64).filter(|&count| count > 0.0)),
    ("heard of by all, p99.9", "left_all_p999", Unit::Seconds, |all| all.left_all_p999),
    ("taken for failures", "", Unit::Plain, |all| {
        Some(all.left_as_failed as f64).filter(|&pairs| pairs > 0.0)
    }),
    ("bytes per second and member", "bytes_per_second", Unit::Bytes, |all| {
        Some(all.bytes_per_second)
    }),
    ("the same with headers", "", Unit::Bytes, |all| Some(all.bytes_per_second_with_headers)),
    ("the same, the most in a second", "bytes_per_second_peak", Unit::Bytes, |all| {
        Some(all.bytes_per_second_peak)
    }),
    ("traffic, times idle", "times_idle", Unit::Plain, |all| all.times_idle),
    ("datagrams per second and member", "", Unit::Plain, |all| Some(all.datagrams_per_second)),
    ("all agree after trouble", "heal", Unit::Seconds, |all| all.heal),
    ("writes", "", Unit::Plain, |all| Some(all.writes as f64).filter(|&count| count > 0.0)),
    ("visible everywhere, p50", "", Unit::Seconds, |all| all.visibility_p50),
    ("visible everywhere, p99", "visibility_p99", Unit::Seconds, |all| all.visibility_p99),
    ("visible everywhere, longest", "", Unit::Seconds, |all| all.visibility_max),
    ("keys left", "keys_left", Unit::Plain, |all| all.keys_left),
    ("marks and records left", "metadata_left", Unit::Plain, |all| all.metadata_left),
    ("heap per node, settled", "", Unit::Bytes, |all| Some(all.heap_per_node)),
    ("heap per node, at the end", "", Unit::Bytes, |all| Some(all.heap_per_node_at_end)),
    (HEAP_GROWTH, "heap_growth", Unit::Plain, |all| Some(all.heap_growth)),
];

impl Report {
    /// A report on the outcomes of a file: what `run` gives for each seed, up to the first for which it
    /// panics.
    pub fn gather(
        file: String,
        scenario: Scenario,
        options: String,
        seeds: RangeInclusive<u64>,
        mut run: impl FnMut(&Scenario, u64) -> Outcome,
    ) -> Self {
        let mut report = Self { file, scenario, options, outcomes: Vec::new(), broken: None };
        for seed in seeds {
            // The panic itself tells what is wrong. What was measured before it still counts.
            match catch_unwind(AssertUnwindSafe(|| run(&report.scenario, seed))) {
                Ok(outcome) => report.outcomes.push(outcome),
                Err(_) => {
                    report.broken = Some(seed);
                    break;
                }
            }
        }
        report
    }

    /// Whether every seed keeps every promise and every budget.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.broken.is_none() && self.outcomes.iter().all(Outcome::is_met)
    }

    /// A command that repeats the run of one seed.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        format!(
            "cargo run --release -p brickwork-bench --bin simulate -- {} --seed {seed}{}",
            quoted(&self.file),
            self.options
        )
    }

    /// For people: a table, and a line for each seed.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}: {} ({} nodes, {}{})\n",
            self.file,
            self.scenario.description,
            self.scenario.nodes.get_ref(),
            humantime::format_duration(self.scenario.duration.get_ref().0),
            self.options,
        );
        if !self.outcomes.is_empty() {
            text += &format!("{}\n", self.table());
        }
        for outcome in &self.outcomes {
            text += &format!(
                "seed {}, trace {:#018x}: {:.1} virtual seconds per second, {:.1} per second of CPU; \
                 {:.1} s in all\n",
                outcome.seed,
                outcome.trace,
                outcome.speed(),
                outcome.speed_of_cpu(),
                outcome.whole_wall_time.as_secs_f64(),
            );
            if !outcome.is_met() {
                text += &format!("  MISSED; to see it again: {}\n", self.command(outcome.seed));
            }
        }
        if let Some(seed) = self.broken {
            text +=
                &format!("seed {seed}: BROKEN PROMISE; to see it again: {}\n", self.command(seed));
        }
        text
    }

    /// A figure with every seed.
    fn values(&self, figure: fn(&Figures) -> Option<f64>) -> Values {
        let mut values: Vec<f64> =
            self.outcomes.iter().filter_map(|outcome| figure(&outcome.figures)).collect();
        values.sort_by(f64::total_cmp);
        Values { median: values.get(values.len() / 2).copied(), worst: values.last().copied() }
    }

    /// What became of a budget with every seed.
    fn verdicts(&self, key: &'static str) -> impl Iterator<Item = &Verdict> {
        let all = self.outcomes.iter().flat_map(|outcome| &outcome.budget);
        all.filter(move |verdict| verdict.key == key)
    }

    /// One seed: what it gave. More: the median and the worst.
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let several = self.outcomes.len() > 1;
        let mut head = vec!["figure", if several { "median" } else { "" }];
        head.extend(several.then_some("worst"));
        head.extend(["budget", ""]);
        table.set_header(head);
        for &(name, key, unit, figure) in ROWS {
            let values = self.values(figure);
            let verdicts: Vec<_> = self.verdicts(key).collect();
            if values.median.is_none() && verdicts.is_empty() {
                continue;
            }
            let told =
                |value: Option<f64>| value.map_or_else(|| "none".into(), |it| unit.write(it));
            let mut cells = vec![name.to_owned(), told(values.median)];
            cells.extend(several.then(|| told(values.worst)));
            let limit = verdicts.first().map(|verdict| format!("<= {}", unit.write(verdict.limit)));
            cells.push(limit.unwrap_or_default());
            cells.push(match verdicts.iter().all(|verdict| verdict.met) {
                _ if verdicts.is_empty() => String::new(),
                true => "met".into(),
                false => "MISSED".into(),
            });
            table.add_row(cells);
        }
        for column in 1..if several { 4 } else { 3 } {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let runs: Vec<Value> = self.outcomes.iter().map(|outcome| self.run(outcome)).collect();
        let broken = self.broken.map(|seed| json!({ "seed": seed, "repeat": self.command(seed) }));
        json!({
            "file": self.file,
            "description": self.scenario.description,
            "options": self.options.trim(),
            "nodes": self.scenario.nodes.get_ref(),
            "virtual_seconds": self.scenario.duration.get_ref().0.as_secs_f64(),
            "met": self.is_met(),
            "broken": broken,
            "runs": runs,
        })
    }

    fn run(&self, outcome: &Outcome) -> Value {
        json!({
            "seed": outcome.seed,
            // As text: programs that read numbers as floats would round it.
            "trace": format!("{:#018x}", outcome.trace),
            "met": outcome.is_met(),
            "figures": outcome.figures,
            "budget": outcome.budget,
            "wall_seconds": outcome.wall_time.as_secs_f64(),
            "cpu_seconds": outcome.cpu_time.as_secs_f64(),
            "whole_wall_seconds": outcome.whole_wall_time.as_secs_f64(),
            "virtual_per_wall_second": outcome.speed(),
            "inputs": outcome.inputs,
            "samples": outcome.samples,
            "repeat": self.command(outcome.seed),
        })
    }
}

/// The word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./+,:=@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

/// A figure of two reports on one file, see [`compared`].
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    /// The median, if there is one.
    pub(super) ours: Option<f64>,
    pub(super) theirs: Option<f64>,
    /// The budget that the file sets, and whether the first keeps it with every seed.
    pub(super) limit: Option<f64>,
    pub(super) met: Option<bool>,
}

/// The figures of both that follow from file and seed: not the heap, which both share.
pub(super) fn compared(ours: &Report, theirs: &Report) -> Vec<Compared> {
    let rows = ROWS.iter().filter(|(name, ..)| !name.starts_with("heap") && *name != HEAP_GROWTH);
    let rows = rows.map(|&(name, key, unit, figure)| {
        let verdicts = || ours.verdicts(key);
        Compared {
            name,
            unit,
            ours: ours.values(figure).median,
            theirs: theirs.values(figure).median,
            limit: verdicts().next().map(|verdict| verdict.limit),
            met: verdicts().next().map(|_| verdicts().all(|verdict| verdict.met)),
        }
    });
    rows.filter(|row| row.ours.is_some() || row.theirs.is_some() || row.limit.is_some()).collect()
}

impl Unit {
    pub(super) fn write(self, value: f64) -> String {
        if value.is_infinite() {
            return "never".into();
        }
        match self {
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes if value >= 100_000.0 => format!("{:.0} kB", value / 1e3),
            Self::Bytes => format!("{value:.0} B"),
            Self::Plain if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Plain if value < 1.0 => format!("{value:.4}"),
            Self::Plain => format!("{value:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (word, expected) in [
            ("a/b-1.toml", "a/b-1.toml"),
            ("my file.toml", "'my file.toml'"),
            ("it's.toml", r"'it'\''s.toml'"),
            ("$HOME.toml", "'$HOME.toml'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
