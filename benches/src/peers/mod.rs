//! The same work done by published crates. Without the feature `peers` there are none.

pub mod hrw;
pub mod map;
pub mod swim;
