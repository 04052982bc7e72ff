//! The table of rows: what was measured, how it compares, and whether it reaches its target.

use comfy_table::{CellAlignment, Table, presets};

use crate::measure::Outcome;

/// What the figures of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Nanoseconds per operation.
    Time,
    /// Bytes.
    Bytes,
}

/// Judges the outcomes of a row; the first is brickwork's.
pub type Bar = Box<dyn Fn(&[Outcome]) -> bool>;

/// One row: the same work done by several.
pub struct Row {
    id: &'static str,
    work: String,
    unit: Unit,
    target: &'static str,
    bar: Option<Bar>,
    outcomes: Vec<Outcome>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("id", &self.id)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl Row {
    /// A row whose first outcome is brickwork's, without a target; there is at least one.
    #[must_use]
    pub fn new(
        id: &'static str,
        work: impl Into<String>,
        unit: Unit,
        outcomes: Vec<Outcome>,
    ) -> Self {
        assert!(!outcomes.is_empty(), "a row without outcomes");
        Self { id, work: work.into(), unit, target: "", bar: None, outcomes }
    }

    /// With a target and its judge.
    #[must_use]
    pub fn target(
        mut self,
        target: &'static str,
        bar: impl Fn(&[Outcome]) -> bool + 'static,
    ) -> Self {
        self.target = target;
        self.bar = Some(Box::new(bar));
        self
    }

    /// Whether the target is reached, if there is one.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.bar.as_ref().map(|bar| bar(&self.outcomes))
    }

    /// Which row, and of what.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}, {}", self.id, self.work)
    }

    /// What was measured, brickwork first.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }
}

/// The rows as a table in Markdown, which reads well on a terminal too.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "row",
        "work",
        "by",
        "median",
        "least",
        "longest",
        "allocations",
        "ratio",
        "target",
        "",
    ]);
    for row in rows {
        let ours = row.outcomes[0].median;
        for (at, outcome) in row.outcomes.iter().enumerate() {
            let first = |text: &str| if at == 0 { text.to_owned() } else { String::new() };
            // Where something was timed.
            let timed = |value| match outcome.longest > 0.0 {
                true => figure(row.unit, value),
                false => String::new(),
            };
            let verdict = match row.met() {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            table.add_row([
                first(row.id),
                first(&row.work),
                outcome.name.clone(),
                figure(row.unit, outcome.median),
                timed(outcome.least),
                timed(outcome.longest),
                outcome.allocations.map(|count| format!("{count:.2}")).unwrap_or_default(),
                format!("{:.2}", outcome.median / ours),
                first(row.target),
                first(verdict),
            ]);
        }
    }
    for column in [3, 4, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn figure(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes if value < 1_000.0 => format!("{value:.1} B"),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::Time => time(value),
    }
}

/// Nanoseconds with three or four digits and the fitting unit.
#[must_use]
pub fn time(nanos: f64) -> String {
    for (unit, size) in [("s", 1e9), ("ms", 1e6), ("us", 1e3)] {
        if nanos >= size {
            return format!("{:.2} {unit}", nanos / size);
        }
    }
    format!("{nanos:.1} ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_first_and_the_verdict_is_the_bars() {
        let outcomes = vec![Outcome::counted("brickwork", 20.0), Outcome::counted("peer", 50.0)];
        let under = |limit: f64| move |outcomes: &[Outcome]| outcomes[0].median <= limit;
        let row = |limit| {
            Row::new("X1", "work", Unit::Time, outcomes.clone()).target("<= limit", under(limit))
        };
        assert_eq!((row(20.0).met(), row(19.0).met()), (Some(true), Some(false)));
        let text = render(&[row(20.0), row(19.0)]);
        assert!(
            text.contains("2.50") && text.contains("| met") && text.contains("| missed"),
            "{text}"
        );
    }

    #[test]
    fn times_have_their_unit() {
        let texts = [0.5, 999.0, 1_000.0, 2.5e6, 3e9].map(time);
        assert_eq!(texts, ["0.5 ns", "999.0 ns", "1.00 us", "2.50 ms", "3.00 s"]);
    }
}
