//! Settings of a node, and why one is refused.

use alloc::string::String;
use core::fmt;

use crate::id::{Identity, MAX_META, MAX_NAME, MAX_ZONE};
use crate::wire::{MAX_DATAGRAM, MIN_DATAGRAM};
use crate::{hrw, map, swim};

/// Settings of a [`Node`](crate::Node). Start from a preset and change fields:
///
/// ```
/// use brickwork_core::Config;
///
/// let mut config = Config::lan();
/// config.cluster = "edge-sjc".into();
/// config.swim.indirect_probes = 4;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The cluster's name. Packets of clusters with another name are refused.
    pub cluster: String,
    /// Largest datagram that is sent, in bytes, 512 to 65,000. The default of 1,400 passes every
    /// ordinary path without IP fragmentation.
    pub max_datagram: usize,
    /// Most events that wait for the application before the oldest are dropped.
    pub max_events: usize,
    /// Settings of membership.
    pub swim: swim::Config,
    /// Settings of the map.
    pub map: map::Config,
    /// Settings of ownership.
    pub ownership: hrw::Config,
}

impl Config {
    /// For nodes in one datacenter.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            cluster: String::from("brickwork"),
            max_datagram: 1_400,
            max_events: 65_536,
            swim: swim::Config::lan(),
            map: map::Config::lan(),
            ownership: hrw::Config::new(),
        }
    }

    /// For nodes on one machine, as in tests: everything about five times as fast.
    #[must_use]
    pub fn local() -> Self {
        Self { swim: swim::Config::local(), map: map::Config::local(), ..Self::lan() }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check_datagram(self.max_datagram)?;
        if self.max_events == 0 {
            return Err(ConfigError::Refused("max_events must be above zero"));
        }
        self.swim.check()?;
        self.ownership.check()?;
        self.map.check(self.max_datagram)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::lan()
    }
}

/// Why a configuration or an identity was refused. Nothing was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is out of range or does not go with another; the text names both.
    Refused(&'static str),
    /// A part of the identity is too long.
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most bytes it may have.
        max: usize,
    },
    /// The address is nobody's: port 0, unspecified or multicast.
    BadAddress,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::TooLong { what, len, max } => {
                write!(f, "the {what} has {len} bytes, and {max} are the most")
            }
            Self::BadAddress => {
                f.write_str("the address must have a port and be neither unspecified nor multicast")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

pub(crate) fn check_datagram(max_datagram: usize) -> Result<(), ConfigError> {
    if (MIN_DATAGRAM..=MAX_DATAGRAM).contains(&max_datagram) {
        Ok(())
    } else {
        Err(ConfigError::Refused("max_datagram must be from 512 to 65,000 bytes"))
    }
}

pub(crate) fn check_identity(identity: &Identity) -> Result<(), ConfigError> {
    let parts = [
        ("name", identity.name().len(), MAX_NAME),
        ("zone", identity.zone().len(), MAX_ZONE),
        ("metadata", identity.meta().len(), MAX_META),
    ];
    for (what, len, max) in parts {
        if len > max {
            return Err(ConfigError::TooLong { what, len, max });
        }
    }
    let ip = identity.addr().ip();
    if identity.addr().port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(ConfigError::BadAddress);
    }
    Ok(())
}
