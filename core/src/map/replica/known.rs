//! What is known of the writes of one replica.

use alloc::collections::{BTreeMap, VecDeque};

use super::overwritten::Overwritten;
use crate::hash;
use crate::id::NodeId;
use crate::map::dot::{ReplicaId, Runs};
use crate::map::seal::Seal;

/// Void names in a row that are logged.
const VOID_LOGGED: u64 = 64;
/// The slot of a dot whose key is not known.
pub(super) const UNLOGGED: u32 = u32::MAX;
/// Slots are below this; what is above it is that of a dot that was [overwritten](super::overwritten), and says how
/// many dots later at most.
pub(in crate::map) const OVERWRITTEN: u32 = 1 << 31;

/// What a dot is about, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::map) enum About {
    /// The key in this slot.
    Key(u32),
    /// A key that its replica wrote again not later than by the dot of this counter. Both are known.
    Overwritten(u64),
    /// It names no write, or nobody asks any more.
    Unknown,
}

impl About {
    /// What a log keeps, of the dot of this counter.
    pub(in crate::map) const fn of(counter: u64, logged: u32) -> Self {
        match logged {
            UNLOGGED => Self::Unknown,
            slot if slot < OVERWRITTEN => Self::Key(slot),
            later => Self::Overwritten(counter + (later - OVERWRITTEN) as u64),
        }
    }

    /// What a log keeps of it.
    #[allow(clippy::cast_possible_truncation)] // limits are near
    pub(super) const fn logged(self, counter: u64) -> u32 {
        match self {
            Self::Key(slot) => slot,
            Self::Overwritten(limit) => OVERWRITTEN + limit.saturating_sub(counter) as u32,
            Self::Unknown => UNLOGGED,
        }
    }
}

/// The dots known of one replica: all up to `base`, and some ahead of gaps.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: ReplicaId,
    pub(super) hash: u64,
    /// Half the hash of each of its dots, and of its base.
    pub(super) of_dots: u64,
    pub(super) of_base: u64,
    pub(super) base: u64,
    /// The truncation vector.
    pub(super) floor: u64,
    /// The log floor. It may be ahead of the base after a full sync.
    pub(super) logged: u64,
    /// The slots of the keys that the last dots up to `base` are about: of all after `logged`.
    pub(super) log: VecDeque<u32>,
    /// The same for dots ahead of a gap.
    pub(super) ahead: BTreeMap<u64, u32>,
    /// Dots that will be known with others.
    pub(super) overwritten: Overwritten,
    /// Of marks in the log of dots that were overwritten: the first and the limit of such as overlap, ascending.
    pub(super) marked: VecDeque<(u64, u64)>,
    /// Whether it is a life of this replica's node.
    pub(super) mine: bool,
    /// Whether a dot of it was not claimed for lack of room, though its effect was taken in.
    pub(super) refused: bool,
    /// Which of its dots name no write. They count as known.
    pub(super) seal: Option<Seal>,
    /// Whether this is a number without a life.
    pub(super) vacant: bool,
}

impl Known {
    /// Of a life that nothing is known of.
    pub(super) fn new(id: ReplicaId, mine: bool) -> Self {
        let hash = hash::mix2(id.node.0, id.epoch);
        Self {
            id,
            hash,
            of_dots: hash::half(hash),
            of_base: hash::half(!hash),
            base: 0,
            floor: 0,
            logged: 0,
            log: VecDeque::new(),
            ahead: BTreeMap::new(),
            overwritten: Overwritten::default(),
            marked: VecDeque::new(),
            mine,
            refused: false,
            seal: None,
            vacant: false,
        }
    }

    /// Of no life. All of its dots are void.
    pub(super) fn vacant() -> Self {
        let nobody = ReplicaId::new(NodeId(0), 0);
        Self { seal: Some(Seal::default()), vacant: true, ..Self::new(nobody, false) }
    }

    /// Its share of the digest of the context.
    pub(super) fn digest(&self) -> u64 {
        if self.base == 0 { 0 } else { hash::mix_with(self.of_base, self.base) }
    }

    /// Whether its base is told. That of a sealed life is, though it is zero: who says nothing of it has all of it.
    pub(super) fn is_named(&self) -> bool {
        (self.base > 0 || self.seal.is_some()) && !self.is_whole()
    }

    /// Whether it is sealed, and all is known of it that counts.
    pub(super) fn is_whole(&self) -> bool {
        self.ahead.is_empty() && self.seal.as_ref().is_some_and(|seal| seal.end == self.base)
    }

    /// Whether none of its dots before the last that counts is void.
    pub(super) fn is_plain(&self) -> bool {
        self.seal.as_ref().is_none_or(|seal| seal.void == Runs::default())
    }

    pub(super) fn is_void(&self, counter: u64) -> bool {
        self.seal.as_ref().is_some_and(|seal| seal.is_void(counter))
    }

    /// Names that are void are no gap. Where there are many of them in a row the log is cut, for a seal can name a million
    /// in a few bytes. Returns whether entries are left to which no log leads.
    #[must_use]
    pub(super) fn pass_void(&mut self) -> bool {
        let next = self.seal.as_ref().map_or(0, |seal| seal.void.next_absent(self.base + 1) - 1);
        let mut cut = false;
        if self.log.is_empty() && next > self.base || next > self.base + VOID_LOGGED {
            cut = !self.log.is_empty();
            self.log = VecDeque::new();
            (self.base, self.logged) = (next, self.logged.max(next));
        }
        while self.base < next {
            self.push(UNLOGGED);
        }
        cut
    }

    /// The next dot in order is about `slot`.
    pub(super) fn push(&mut self, slot: u32) {
        self.base += 1;
        if self.base > self.logged {
            self.log.push_back(slot);
            if let About::Overwritten(limit) = About::of(self.base, slot) {
                self.mark(self.base, limit);
            }
        }
    }

    /// The log has a mark of this dot, with this limit.
    #[cold]
    pub(super) fn mark(&mut self, counter: u64, limit: u64) {
        match self.marked.back_mut() {
            Some((_, end)) if *end >= counter => *end = limit.max(*end),
            _ => self.marked.push_back((counter, limit)),
        }
    }

    /// Some of the log was cut.
    pub(super) fn forget_marks(&mut self) {
        while self.marked.front().is_some_and(|(_, end)| *end <= self.logged) {
            self.marked.pop_front();
        }
        if self.marked.is_empty() {
            self.marked.shrink_to_fit();
        }
    }
}
