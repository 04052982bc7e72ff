//! Settings of ownership.

use core::time::Duration;

use crate::config::ConfigError;

/// Most owners of a key.
const MAX_OWNERS: usize = 64;
const MAX_GRACE: Duration = Duration::from_secs(86_400);

/// Who may own keys, and when a node is told that it does. All nodes of a cluster want the same but for the grace.
///
/// ```
/// use brickwork_core::Config;
/// use std::time::Duration;
///
/// let mut config = Config::lan();
/// config.ownership.owners = 2;
/// config.ownership.grace = Duration::from_secs(5);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How many members own a key that a node tracks, 1 to 64: the first in the order of priorities.
    pub owners: usize,
    /// Whether a suspected member owns keys until it is confirmed failed, as it does if nothing is said: most of them are well. Otherwise
    /// the next takes over some seconds sooner, and gives back what it took from one that was well.
    pub suspects_own: bool,
    /// How long a node must own a key before it is told so. The owner before may not have heard yet: where two must not work on
    /// a key, this is longer than news take to spread. A day at most, and zero if nothing is said.
    pub grace: Duration,
}

impl Config {
    /// One owner, which may be suspected, and no grace.
    #[must_use]
    pub const fn new() -> Self {
        Self { owners: 1, suspects_own: true, grace: Duration::ZERO }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.owners == 0 || self.owners > MAX_OWNERS {
            return Err(ConfigError::Refused("ownership.owners must be from 1 to 64"));
        }
        if self.grace > MAX_GRACE {
            return Err(ConfigError::Refused("ownership.grace must be a day at most"));
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
