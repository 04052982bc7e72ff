//! What can be wrong with a write.

use core::fmt;

/// Why a write was refused. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsertError {
    /// The key is longer than `max_key`.
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The most bytes it may have.
        max: usize,
    },
    /// The value is longer than `max_value`.
    ValueTooLong {
        /// Its length in bytes.
        len: usize,
        /// The most bytes it may have.
        max: usize,
    },
    /// The map holds `max_keys` keys already.
    TooManyKeys {
        /// The limit.
        max: usize,
    },
    /// The map would hold more than `max_bytes` of keys and values.
    TooManyBytes {
        /// The limit.
        max: usize,
    },
    /// The node has as many values of its own as `max_own_values` allows.
    TooManyOwnValues {
        /// The limit.
        max: usize,
    },
    /// The node's own values and their keys would be more than `max_own_bytes`.
    TooManyOwnBytes {
        /// The limit.
        max: usize,
    },
    /// The entry would have more than four mebibytes with all its concurrent values, or have been written by more than
    /// 4,096 lives since everybody was last heard to have all its writes: not far from what can be told to anybody.
    EntryTooLarge {
        /// Its encoded size in bytes, at most.
        len: usize,
        /// The most bytes it may have.
        max: usize,
    },
    /// The key would have more than `max_siblings` concurrent values: nobody resolves them.
    TooManySiblings {
        /// The limit.
        max: usize,
    },
    /// This replica has used up its 2^48 - 1 writes.
    Exhausted,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyTooLong { len, max } => {
                write!(f, "the key has {len} bytes, and {max} are the most")
            }
            Self::ValueTooLong { len, max } => {
                write!(f, "the value has {len} bytes, and {max} are the most")
            }
            Self::TooManyKeys { max } => write!(f, "the map is at its limit of {max} keys"),
            Self::TooManyBytes { max } => write!(f, "the map is at its limit of {max} bytes"),
            Self::TooManyOwnValues { max } => {
                write!(f, "the node is at its quota of {max} values")
            }
            Self::TooManyOwnBytes { max } => write!(f, "the node is at its quota of {max} bytes"),
            Self::EntryTooLarge { len, max } => {
                write!(f, "the entry would have {len} bytes, and {max} are the most")
            }
            Self::TooManySiblings { max } => {
                write!(f, "the key has {max} concurrent values, which is the most")
            }
            Self::Exhausted => f.write_str("this replica has used up its writes"),
        }
    }
}

impl core::error::Error for InsertError {}
