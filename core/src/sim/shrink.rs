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
        let mut size = shrunk.of.div_ceil(2);
        loop {
            let before = shrunk.steps.len();
            self.leave_out(&mut shrunk, size, runs);
            let idle = shrunk.steps.len() == before;
            if shrunk.runs >= runs || shrunk.steps.len() < 2 || (size == 1 && idle) {
                break;
            }
            size = size.div_ceil(2);
        }
        Some(shrunk)
    }

    /// Leaves out so many steps at a time wherever the same oracle still objects. It goes on where it is: what was needed
    /// beside more steps mostly is beside fewer.
    fn leave_out(&self, shrunk: &mut Shrunk, size: usize, runs: usize) {
        let mut from = 0;
        while from < shrunk.steps.len() && shrunk.steps.len() > 1 && shrunk.runs < runs {
            shrunk.runs += 1;
            let end = (from + size).min(shrunk.steps.len());
            let rest = [&shrunk.steps[..from], &shrunk.steps[end..]].concat();
            let violation = self.only(&rest).run().err();
            match violation.filter(|violation| violation.oracle == shrunk.violation.oracle) {
                Some(violation) => (shrunk.steps, shrunk.violation) = (rest, violation),
                None => from = end,
            }
        }
    }
}
