//! What the demo shows while it runs: a live table in a terminal, lines elsewhere, nothing for
//! scripts.

use core::fmt;
use core::time::Duration;
use std::io::{self, IsTerminal, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The table shows at most this many nodes, so that it fits a screen.
const MAX_ROWS: usize = 20;

/// How often a line tells how things are where no table can.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One node, as the table shows it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Live members in its view; none if the node was killed.
    pub(crate) members: Option<usize>,
    pub(crate) owns: usize,
    pub(crate) up: usize,
    pub(crate) down: usize,
    pub(crate) unknown: usize,
}

/// The state of the whole run.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) elapsed: Duration,
    pub(crate) duration: Duration,
    pub(crate) checks: u64,
    pub(crate) wrong: u64,
    pub(crate) rows: Vec<Row>,
}

/// Where it is shown.
#[derive(Debug)]
pub(crate) enum View {
    /// Redrawn in place.
    Table(ProgressBar),
    /// Printed now and then; the time of the last one.
    Lines(Option<Duration>),
    /// Not at all.
    Silent,
}

impl View {
    /// The view that suits stdout; none for scripts.
    pub(crate) fn new(silent: bool) -> Self {
        if silent {
            Self::Silent
        } else if io::stdout().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            // The template is constant and good; another one would only look different.
            bar.set_style(
                ProgressStyle::with_template("{msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            Self::Table(bar)
        } else {
            Self::Lines(None)
        }
    }

    /// Tells something that happened.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        match self {
            Self::Table(bar) => bar.println(what.to_string()),
            Self::Lines(_) => line(&what),
            Self::Silent => {}
        }
    }

    /// Shows how things are.
    pub(crate) fn show(&mut self, picture: &Picture) {
        match self {
            Self::Table(bar) => bar.set_message(picture.table()),
            Self::Lines(last) => {
                if last.is_none_or(|last| picture.elapsed >= last + LINE_EVERY) {
                    *last = Some(picture.elapsed);
                    line(&picture.line());
                }
            }
            Self::Silent => {}
        }
    }

    /// Leaves the table as it is and tells the rest below it.
    pub(crate) fn end(&self, summary: impl fmt::Display) {
        match self {
            Self::Table(bar) => {
                bar.abandon();
                line(&format_args!("\n{summary}"));
            }
            Self::Lines(_) => line(&format_args!("\n{summary}")),
            Self::Silent => {}
        }
    }
}

/// Prints a line. Whoever closed stdout does not want it; the closing object says so if it cannot be
/// written either.
fn line(what: &dyn fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{what}");
}

impl Picture {
    fn line(&self) -> String {
        let live = || self.rows.iter().filter(|row| row.members.is_some());
        let range = |of: fn(&Row) -> usize| {
            let low = live().map(of).min().unwrap_or(0);
            let high = live().map(of).max().unwrap_or(0);
            if low == high { low.to_string() } else { format!("{low}-{high}") }
        };
        format!(
            "{:6.1} s  {} live nodes, each sees {} members; origins up {}, down {}, unknown {}; {} checks, {} wrong answers",
            self.elapsed.as_secs_f64(),
            live().count(),
            range(|row| row.members.unwrap_or(0)),
            range(|row| row.up),
            range(|row| row.down),
            range(|row| row.unknown),
            self.checks,
            self.wrong
        )
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["node", "members", "owns", "up", "down", "unknown"]);
        for row in self.rows.iter().take(MAX_ROWS) {
            match row.members {
                Some(members) => table.add_row([
                    row.name.clone(),
                    members.to_string(),
                    row.owns.to_string(),
                    row.up.to_string(),
                    row.down.to_string(),
                    row.unknown.to_string(),
                ]),
                None => table.add_row([row.name.as_str(), "killed", "", "", "", ""]),
            };
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let more = match self.rows.len().saturating_sub(MAX_ROWS) {
            0 => String::new(),
            more => format!("\n … and {more} more nodes"),
        };
        format!(
            "\n{table}{more}\n\n {:.0} of {:.0} s, {} checks, {} wrong answers",
            self.elapsed.as_secs_f64(),
            self.duration.as_secs_f64(),
            self.checks,
            self.wrong
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(nodes: usize) -> Picture {
        let row = |number: usize| Row {
            name: format!("node-{number}"),
            members: (number > 0).then_some(nodes - 1),
            owns: 8,
            up: 30 + number % 2,
            down: 10,
            unknown: 0,
        };
        Picture {
            elapsed: Duration::from_millis(12_340),
            duration: Duration::from_secs(30),
            checks: 480,
            wrong: 0,
            rows: (0..nodes).map(row).collect(),
        }
    }

    #[test]
    fn a_line_tells_where_nodes_differ() {
        let line = picture(5).line();
        let told =
            "12.3 s  4 live nodes, each sees 4 members; origins up 30-31, down 10, unknown 0;";
        assert!(line.contains(told), "{line}");
    }

    #[test]
    fn a_large_cluster_does_not_overflow_the_screen() {
        let table = picture(64).table();
        assert!(table.contains("and 44 more nodes"));
        assert!(table.lines().count() < MAX_ROWS + 8);
        assert!(table.contains("killed"));
    }
}
