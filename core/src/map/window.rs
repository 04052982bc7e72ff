//! Windows: which of the dots that an answer tells next were overwritten by others that it tells.
//!
//! An answer by the log tells the oldest dots first, and with each the whole entry that it is about. Where keys were
//! overwritten meanwhile that would be the same entry once for each dot that is lacked. So a *window* of dots of one
//! replica is looked through before it is told: each that is followed in it by another of the same key is told
//! as [overwritten](super::replica), by its number alone, and the entry with the last of them.
//!
//! The receiver keeps all that is told of a window apart until it has the whole, so windows have an end: where they come
//! to as many keys as that may be. What is missing of one is told with the same end again.

use smallvec::SmallVec;

use super::chunk::Marks;
use super::peer::Theirs;
use super::replica::{About, Replicas};

/// Most dots of a window, unless another ends later.
pub(super) const MAX_DOTS: u64 = 1 << 18;
/// Most keys of one: entries that the receiver keeps ahead of a gap.
const MAX_KEYS: usize = 1 << 16;
/// It is not worth while to look through fewer dots.
const MIN_DOTS: u64 = 16;
/// Dots in a row that are worth a run of their own. Those of an entry of the same datagram cost less.
const MIN_RUN: u64 = 4;
/// Dots that a datagram may hold.
const DATAGRAM: u64 = 128;
/// Keys that there is always room for.
const ROOM: usize = 4_096;

/// Some dots of a replica, one after the other, of which the last is known to be the last of its key.
#[derive(Debug)]
pub(super) struct Window {
    replica: u16,
    first: u64,
    last: u64,
    /// A bit for each that is followed by another of the same key.
    overwritten: SmallVec<[u64; 4]>,
}

impl Window {
    /// The window from this dot on, which is known here and lacked there. Where something was set aside there, it ends
    /// with the limit of that.
    #[allow(clippy::cast_possible_truncation)] // windows are short
    pub(super) fn new(
        replicas: &Replicas,
        seen: &mut Marks,
        theirs: Theirs<'_>,
        replica: u16,
        first: u64,
    ) -> Self {
        let base = replicas.base(replica);
        let mut window = Self { replica, first, last: base, overwritten: SmallVec::new() };
        if theirs.lacked(replica, first, base) < MIN_DOTS || !replicas.is_plain(replica) {
            return window;
        }
        let told = theirs.limit(replica);
        let mut least = told;
        seen.begin();
        for (counter, about) in replicas.abouts(replica, first) {
            let at = (counter - first) as usize;
            if at.is_multiple_of(64) {
                window.overwritten.push(0);
            }
            match about {
                About::Key(slot) => {
                    if let Some(before) = seen.replace(slot, at as u32) {
                        window.note(before as usize);
                    }
                }
                About::Overwritten(limit) => {
                    window.note(at);
                    least = least.max(limit);
                }
                About::Unknown => {}
            }
            let full = seen.len() >= MAX_KEYS || counter - first >= MAX_DOTS - 1;
            if counter >= least && (full || told >= first) {
                window.last = counter;
                break;
            }
        }
        seen.shrink_to(ROOM);
        window
    }

    fn note(&mut self, at: usize) {
        if let Some(word) = self.overwritten.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    pub(super) const fn has(&self, replica: u16, counter: u64) -> bool {
        self.replica == replica && self.first <= counter && counter <= self.last
    }

    /// Whether this dot of the replica is followed by another of the same key, in this window.
    fn is_overwritten(&self, replica: u16, counter: u64) -> bool {
        let at = usize::try_from(counter - self.first).unwrap_or(usize::MAX);
        let word = self.overwritten.get(at / 64).copied().unwrap_or_default();
        self.has(replica, counter) && word >> (at % 64) & 1 == 1
    }
}

/// The run from this dot on that is to be told as overwritten, if it is: its last, and the limit.
pub(super) fn overwritten(
    replicas: &Replicas,
    window: Option<&Window>,
    replica: u16,
    first: u64,
) -> Option<(u64, u64)> {
    let window = window.filter(|window| window.has(replica, first));
    let (mut last, mut limit, mut keyed) = (first - 1, 0, true);
    for (counter, about) in replicas.abouts(replica, first) {
        let own = window.filter(|window| window.is_overwritten(replica, counter));
        limit = match (about, own) {
            (About::Overwritten(other), _) => {
                keyed &= counter > first;
                limit.max(other)
            }
            (About::Key(_), Some(window)) => limit.max(window.last),
            _ => break,
        };
        last = counter;
    }
    let few = last < first + MIN_RUN - 1 && limit < first + DATAGRAM;
    (last >= first && !(keyed && few)).then_some((last, limit))
}
