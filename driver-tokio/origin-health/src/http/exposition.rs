//! The text format of Prometheus, version 0.0.4: families of samples, each with a line of help and
//! a type.

use core::fmt::{Display, Write as _};
use core::time::Duration;

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow, from zero at the start; the name ends in `_total`.
    Counter,
    /// They go up and down.
    Gauge,
}

/// The text of all families so far.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// Label names with their values.
type Labels<'l> = &'l [(&'l str, &'l str)];

impl Exposition {
    /// Writes a family with one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help, [(&[][..], value)]);
    }

    /// Writes a family with a sample for each value of one label.
    pub(super) fn labelled<'l, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'l str, V)>,
    ) {
        self.head(name, kind.as_str(), help);
        for (value_of_label, value) in samples {
            self.sample(name, &[(label, value_of_label)], value);
        }
    }

    /// Writes a family whose samples have several labels, or none.
    pub(super) fn family<'l, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) {
        self.head(name, kind.as_str(), help);
        for (labels, value) in samples {
            self.sample(name, labels, value);
        }
    }

    /// Writes a histogram of durations. `buckets` counts what is up to each of `bounds` and above
    /// the one before, and at last what is above all of them.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[Duration],
        buckets: &[u64],
        sum: Duration,
    ) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let bounds = bounds.iter().map(|bound| bound.as_secs_f64().to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(buckets) {
            below += count;
            self.sample(&bucket, &[("le", &bound)], below);
        }
        self.sample(&format!("{name}_sum"), &[], sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], below);
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            self.push(format_args!("{before}{label}=\"{}\"", escape(value)));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.push(format_args!("{end} {value}\n"));
    }

    fn push(&mut self, text: core::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_in_the_format() {
        let mut text = Exposition::default();
        text.single("a_total", Kind::Counter, "As.", 3);
        text.family("info", Kind::Gauge, "Who.", [(&[("x", "q\"\\\n"), ("y", "")][..], 1)]);
        text.labelled("b", Kind::Gauge, "Bs.", "state", [("up", 0.5), ("down", 2.0)]);
        assert_eq!(
            text.finish(),
            "# HELP a_total As.\n# TYPE a_total counter\na_total 3\n\
             # HELP info Who.\n# TYPE info gauge\ninfo{x=\"q\\\"\\\\\\n\",y=\"\"} 1\n\
             # HELP b Bs.\n# TYPE b gauge\nb{state=\"up\"} 0.5\nb{state=\"down\"} 2\n"
        );
    }

    #[test]
    fn buckets_of_a_histogram_include_those_below() {
        let mut text = Exposition::default();
        let bounds = [Duration::from_millis(5), Duration::from_secs(1)];
        text.histogram("d_seconds", "Ds.", &bounds, &[1, 0, 2], Duration::from_millis(2500));
        let lines = text.finish();
        let samples: Vec<&str> = lines.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "d_seconds_bucket{le=\"0.005\"} 1",
                "d_seconds_bucket{le=\"1\"} 1",
                "d_seconds_bucket{le=\"+Inf\"} 3",
                "d_seconds_sum 2.5",
                "d_seconds_count 3",
            ]
        );
    }
}
