//! Membership: how members come, are watched, leave and are found again.

#[path = "../common/mod.rs"]
mod common;

mod adversaries;
mod claims;
mod detector;
mod exchange;
mod handshake;
mod healing;
mod hearsay;
mod join;
mod leaving;
mod paper;
mod probing;
mod propagation;
mod rack;
mod rumours;
mod seeking;
mod standing;
mod swim;
mod why;
