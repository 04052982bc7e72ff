//! Evidence about one member: what it is, what to believe of it, and a real node that hears it.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

pub mod bytes;
pub mod model;
pub mod observer;

use std::fmt;

use brickwork_core::NodeId;
use brickwork_core::swim::{Member, State};

/// The subject of all evidence.
pub const A: NodeId = NodeId(0xa);
/// Two observers.
pub const B: NodeId = NodeId(0xb);
pub const C: NodeId = NodeId(0xc);
/// One who accused and is nobody's member.
pub const GONE: NodeId = NodeId(0xd);

/// Something about the subject. Its boots are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    Alive {
        boot: u64,
        incarnation: u32,
    },
    Accused {
        boot: u64,
        incarnation: u32,
        dead: bool,
        by: &'static [NodeId],
    },
    /// With or without the secret that proves it.
    Left {
        boot: u64,
        proven: bool,
    },
    /// No datagram: as much time passes as a suspicion lasts.
    Time,
}

/// Evidence and who tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub what: Evidence,
    /// The subject in the boot that it is about; otherwise the other observer.
    pub by_subject: bool,
}

pub const fn by_subject(what: Evidence) -> Item {
    Item { what, by_subject: true }
}

pub const fn told(what: Evidence) -> Item {
    Item { what, by_subject: false }
}

/// What is believed of the subject.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Belief {
    pub boot: u64,
    /// Without a meaning once it left: nothing of that boot is weighed any more.
    pub incarnation: u32,
    pub state: State,
}

impl Belief {
    pub fn of(member: &Member) -> Self {
        Self {
            boot: member.identity().boot_epoch(),
            incarnation: member.incarnation(),
            state: member.state(),
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }

    /// Whether the two mean the same.
    pub fn agrees(&self, other: &Self) -> bool {
        self.boot == other.boot
            && self.state == other.state
            && (self.state == State::Left || self.incarnation == other.incarnation)
    }
}

impl fmt::Debug for Belief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}.{}", self.state, self.boot, self.incarnation)
    }
}
