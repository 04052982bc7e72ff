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
//!
//! # What goes wrong
//!
//! [`Fault::CLASSES`] are what plans draw from, [`Plan::CLASSES`] what they have besides, and
//! [`Plan::EFFECTS`] what faults must have led to in a campaign.
//!
//! - *Loss*: even, in bursts, one way, by size, by kind of frame, of the first packets of a link.
//! - *Copies*: duplicates up to ten minutes late, and recorded datagrams that arrive again, in later lives of
//!   either end too.
//! - *Delay*: constant, even, exponential, Pareto, with stalls, other ones there and back, and clogs that
//!   let go all at once. Datagrams overtake each other freely.
//! - *Partitions*: between two sides, around one node, one way, rings, bridges, partial meshes, flapping
//!   ones. Sources that change as behind a NAT, for a while or for ever.
//! - *Nodes*: paused, slow, deaf, mute, with late timers, with sockets that block or hold little, with events
//!   that nobody takes.
//! - *Clocks*: too fast, too slow, leaping up to a year, stepping back, beginning anywhere, and wall clocks
//!   that are behind at the next start.
//! - *Deaths*: any time, in the middle of a join, of a leave or of a train of datagrams; of all within one
//!   probe period, or one after the other; for ever; with another address afterwards.
//! - *Damage*: flipped bits, cuts, extensions, splices, bursts of them, and lies under a right checksum.
//! - *Settings*: from one node to 32, and as many as [`Plan::swarm_of`] is asked for; others at each node;
//!   the smallest datagrams; two clusters that meet.
//! - *Adversaries* without a key: noise, replays, joins and pings under the addresses of others; and with one:
//!   see [`Betrayal`].
//!
//! What is not there waits for what it would test. Stale and cloned state wait for state that can be
//! restored; other versions, weights and keys in one cluster for those; more members, keys or marks of
//! removal than there is room for, wait for quotas: [`Config`](crate::Config) bounds them, and who is refused
//! does not agree. The classes of [`Fault::BEYOND`] can be asked for, and say what they wait for.

// A simulation tells what it finds by panicking: that is what its callers are for.
#![allow(clippy::missing_panics_doc)]
// Virtual places and dice are far below any limit of these types.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod adversary;
mod befall;
mod checked;
mod clock;
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
mod network;
mod outputs;
mod plan;
mod run;
mod setting;
mod shrink;
mod trouble;
mod turn;
mod view;
mod world;

pub use adversary::Exchange;
pub use checked::Checked;
pub use fault::{Betrayal, Condition, Damage, Delay, Fault, Links, Moment, Nodes, Trouble};
pub use judge::Violation;
pub use machine::Machine;
pub use net::{Expect, Traffic};
pub use network::{Happening, Input, Network};
pub use plan::{Act, Plan, Report, Step};
pub use shrink::Shrunk;
pub use world::{End, Life, Sim};
