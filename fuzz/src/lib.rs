//! Fuzz targets: plain functions from bytes to a panic if an invariant of brickwork breaks.
//!
//! No input alone makes them panic, so every panic is a bug: in the core, or here. The same bytes
//! always do the same. `cargo fuzz` looks for such bytes, and `tests/replay.rs` runs all of the
//! committed corpus and some fresh inputs on every test run.
//!
//! - [`packet`]: hostile datagrams, damaged on every level, reach a live node.
//! - [`frames`]: sound datagrams with hostile frames reach a live node.
//! - [`map_ops`]: replicas of the map under loss, repetition, disorder and restarts converge.
//! - [`restore`]: snapshots and logs that are not what a replica wrote.
//! - [`swim_ops`]: members under loss, partitions, crashes and bad clocks come to agree.

#![warn(missing_docs)]

mod checks;
mod frames;
mod history;
mod input;
mod map_ops;
mod net;
mod packet;
mod replay;
mod restore;
mod roll;
mod scene;
mod swim_ops;
mod victim;

pub use frames::frames;
pub use map_ops::map_ops;
pub use packet::packet;
pub use replay::{TARGETS, Target, files_in, replay_arguments};
pub use restore::restore;
pub use scene::seeds;
pub use swim_ops::swim_ops;
