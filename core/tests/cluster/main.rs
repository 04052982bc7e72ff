//! Whole nodes and what they share: promises, settings, wire, ownership, the virtual network.

#[path = "../common/mod.rs"]
mod common;

mod checked;
mod config;
mod contract;
mod convergence;
mod hrw;
mod load;
mod network;
mod node;
mod tracked;
mod wire;
