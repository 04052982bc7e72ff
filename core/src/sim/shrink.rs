//! From a run that fails to the few steps that make it fail.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::judge::Violation;
use super::plan::Plan;

/// A failing plan, and which of its steps are enough.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shrunk {
    /// Numbers of the steps that are left.
    pub steps: Vec<usize>,
    /// How many the plan had.
    pub of: usize,
    /// What fails with just these.
    pub violation: Violation,
    /// Runs that it took.
    pub runs: usize,
}

impl Shrunk {
    /// A command that runs just this again.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        let steps: Vec<String> = self.steps.iter().map(|step| format!("{step}")).collect();
        format!(
            "BRICKWORK_SIM_SEED={seed} BRICKWORK_SIM_STEPS={} cargo test -p brickwork-core --features sim \
             --test swarm -- --nocapture replay",
            steps.join(",")
        )
    }
}

impl Plan {
    /// Leaves out steps while the same oracle still objects, first all of them, then halves (Zeller and
    /// Hildebrandt 2002, delta debugging), with at most `runs` runs. `None` if the plan does not fail.
    ///
    /// The luck of a datagram belongs to it alone, so a step that is left out does not change what
    /// happens elsewhere by chance.
    #[must_use]
    pub fn shrink(&self, runs: usize) -> Option<Shrunk> {
        let violation = self.run().err()?;
        let all = (0..self.steps.len()).collect();
        let mut shrunk = Shrunk { steps: all, of: self.steps.len(), violation, runs: 1 };
        // What fails by itself, by its settings or in the calm, needs none of its steps.
        if !shrunk.steps.is_empty() && shrunk.runs < runs {
            shrunk.runs += 1;
            let bare = self.only(&[]).run().err();
            if let Some(violation) = bare.filter(|bare| bare.oracle == shrunk.violation.oracle) {
                return Some(Shrunk { steps: Vec::new(), violation, ..shrunk });
            }
        }
        let mut parts = 2;
        while shrunk.steps.len() > 1 && shrunk.runs < runs {
            let size = shrunk.steps.len().div_ceil(parts);
            let smaller = (0..shrunk.steps.len()).step_by(size).find_map(|from| {
                if shrunk.runs >= runs {
                    return None;
                }
                shrunk.runs += 1;
                let end = (from + size).min(shrunk.steps.len());
                let rest = [&shrunk.steps[..from], &shrunk.steps[end..]].concat();
                let violation = self.only(&rest).run().err()?;
                (violation.oracle == shrunk.violation.oracle).then_some((rest, violation))
            });
            match smaller {
                Some((steps, violation)) => {
                    (shrunk.steps, shrunk.violation) = (steps, violation);
                    parts = parts.saturating_sub(1).max(2);
                }
                None if size == 1 => break,
                None => parts = (parts * 2).min(shrunk.steps.len()),
            }
        }
        Some(shrunk)
    }
}
