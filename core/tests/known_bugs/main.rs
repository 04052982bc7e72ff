//! Bugs that other systems met in public, one test each under the name of the report.

#[path = "../common/mod.rs"]
mod common;
#[path = "../counted/mod.rs"]
mod counted;

mod defects;
mod map;
mod membership;
