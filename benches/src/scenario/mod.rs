//! Scenarios: whole clusters under virtual time with faults and writes, from a file, measured and judged.
//!
//! [`Scenario::read`] reads a file, [`Scenario::run`] runs it with a seed on the core's simulator and
//! gives an [`Outcome`]. [`report`] prints outcomes as tables and as JSON, [`plot`] draws them. The keys of
//! a file are explained in `benches/README.md`; it is the source of everything that a run does, next to
//! its seed.

// Virtual places are far below any limit of these types.
#![allow(clippy::cast_possible_truncation)]

mod budget;
mod faulty;
mod figures;
mod file;
mod keys;
mod load;
pub mod page;
pub mod plot;
pub mod report;
mod run;
mod script;
mod truth;
mod value;

pub use budget::{Budget, Verdict};
pub use figures::{Figures, Sample};
pub use file::{
    Crash, Direction, Leave, Loss, Pause, Profile, Quick, Scenario, Slow, Split, Writes,
};
pub use load::BadFile;
pub use run::Outcome;
pub use value::{Pick, Share, Time};
