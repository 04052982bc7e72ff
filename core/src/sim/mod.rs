//! Deterministic simulation: clusters under virtual time on a network with faults.
//!
//! [`Sim`] is a world of places with nodes, a network between them and a clock. Every run is a pure
//! function of its seed and of what is asked of it, so whatever it finds can be seen again. [`Checked`]
//! wraps a node, or a lone brick, and asserts the core's promises on every call; use it, with or without
//! the rest, to test an embedding of your own.
//!
//! A [`Plan`] is a whole run as data: faults and writes by the clock, then calm. [`Plan::swarm`] makes one
//! from a seed, [`Plan::run`] judges it by every oracle after every step, and [`Plan::shrink`] finds the few
//! steps of a failing one that are enough.
//!
//! ```
//! use brickwork_core::sim::Plan;
//!
//! let report = Plan::swarm(7).run().expect("every oracle holds");
//! assert_eq!(report.trace, Plan::swarm(7).run().unwrap().trace);
//! ```

// A simulation tells what it finds by panicking: that is what its callers are for.
#![allow(clippy::missing_panics_doc)]
// Virtual places and dice are far below any limit of these types.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod adversary;
mod checked;
mod damage;
mod draw;
mod fault;
mod forge;
mod inputs;
mod insider;
mod judge;
mod lives;
mod machine;
mod net;
mod outputs;
mod plan;
mod run;
mod setting;
mod shrink;
mod trouble;
mod view;
mod world;

pub use adversary::Exchange;
pub use checked::Checked;
pub use fault::{Betrayal, Condition, Damage, Delay, Fault, Links, Moment, Nodes, Trouble};
pub use judge::Violation;
pub use machine::Machine;
pub use net::Traffic;
pub use plan::{Act, Plan, Report, Step};
pub use shrink::Shrunk;
pub use world::{End, Life, Sim};
