//! A page of results: the same files and seeds by brickwork and by the rules of memberlist, a table and plots each.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::thread;

use super::Outcome;
use super::file::{Profile, Scenario};
use super::plot;
use super::report::{Report, Unit, compared};

/// One file by both.
#[derive(Debug)]
pub struct Pair {
    /// What the file is called on the page, and its plots.
    name: String,
    ours: Report,
    theirs: Report,
}

impl Pair {
    /// Runs both at once: nothing on the page depends on the watch.
    #[must_use]
    pub fn run(name: String, file: &str, scenario: &Scenario, options: &str, seeds: u64) -> Self {
        let by = |profile: Option<Profile>, options: String| {
            let mut scenario = scenario.clone();
            scenario.profile = profile.unwrap_or(scenario.profile);
            Report::gather(file.to_owned(), scenario, options, 0..=seeds - 1, |scenario, seed| {
                scenario.run(seed, |_| ())
            })
        };
        let theirs = format!("{options} --memberlist");
        thread::scope(|scope| {
            let ours = scope.spawn(|| by(None, options.to_owned()));
            let theirs = by(Some(Profile::MemberlistLan), theirs);
            let ours = ours.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Self { name, ours, theirs }
        })
    }

    /// The seed that broke a promise of the core, if one did, by the command that shows it.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        let of = |report: &Report| report.broken.map(|seed| report.command(seed));
        of(&self.ours).or_else(|| of(&self.theirs))
    }

    /// The part of the page, without plots.
    fn text(&self) -> String {
        let scenario = &self.ours.scenario;
        let mut text = format!(
            "## {}\n\n{}. {} nodes, {}.\n\n",
            self.name,
            scenario.description,
            scenario.nodes.get_ref(),
            humantime::format_duration(scenario.duration.get_ref().0)
        );
        text += "| figure | brickwork | memberlist's rules | target |  |\n";
        text += "| --- | --: | --: | --: | --- |\n";
        for row in compared(&self.ours, &self.theirs) {
            let of =
                |value: Option<f64>| value.map_or_else(String::new, |it| Unit::write(row.unit, it));
            let verdict = match row.met {
                None => "",
                Some(true) => "met",
                Some(false) => "**missed**",
            };
            let limit = row
                .limit
                .map_or_else(String::new, |it| format!("<= {}", Unit::write(row.unit, it)));
            let (ours, theirs) = (of(row.ours), of(row.theirs));
            // Writing to a text does not fail.
            let _ = writeln!(text, "| {} | {ours} | {theirs} | {limit} | {verdict} |", row.name);
        }
        text
    }

    fn arms(&self) -> [(&'static str, &[Outcome]); 2] {
        [("brickwork", &self.ours.outcomes), ("memberlist's rules", &self.theirs.outcomes)]
    }
}

/// Writes the page and its plots into a folder that is there. `command` makes it again.
///
/// # Errors
///
/// If a file cannot be written, or a plot not be drawn.
pub fn write(
    pairs: &[Pair],
    folder: &Path,
    command: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = format!(
        "# Membership next to the rules of memberlist\n\n\
         Written by\n\n```sh\n{command}\n```\n\n\
         in virtual time, so it comes out the same on every machine. Both follow the same files and seeds on the same simulator \
         and speak this project's wire format; *memberlist's rules* are its constants, formulas and exchanges of whole tables \
         (`swim::Config::memberlist_lan`). [benches/README.md](../README.md) says what the figures mean, and how they compare with \
         real agents. Where there are several seeds, a figure is the median and a target is met if every seed meets it; \
         *never* is what did not happen within the run. Targets are brickwork's.\n"
    );
    for pair in pairs {
        text += "\n";
        text += &pair.text();
        for file in plot::compare(&pair.name, &pair.arms(), folder)? {
            let _ = writeln!(text, "\n![{}]({file})", pair.name);
        }
    }
    std::fs::write(folder.join("README.md"), text).map_err(|error: io::Error| error.into())
}
