//! The map: what is written and removed, pulled and given, forgotten and sealed.

#[path = "../amid/mod.rs"]
mod amid;
#[path = "../common/mod.rs"]
mod common;

mod catching_up;
mod comparing;
mod forged;
mod fragments;
mod full;
mod full_sync;
mod garbage;
mod giving;
mod limits;
mod log;
mod overwritten;
mod policy;
mod pulling;
mod retiring;
mod seals;
mod sharing;
mod snapshot;
mod staging;
mod staleness;
mod whom;
