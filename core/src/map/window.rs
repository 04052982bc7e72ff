//! Windows: which of the dots that an answer tells next were overwritten by others that it tells.
//!
//! An answer by the log tells the oldest dots first, and with each the whole entry that it is about. Where keys were
//! overwritten meanwhile that would be the same entry once for each dot that is lacked. So a *window* of dots of one
//! replica is looked through before it is told: each that is followed in it by another of the same key is told
//! as [overwritten](super::replica), by its number alone, and the entry with the last of them.
//!
//! The receiver keeps all that is told of a window apart until it has the whole, so windows have an end: where they come
//! to as many keys as that may be, or as many dots as are in proportion to the bytes that are asked for. What is missing of
//! one is told with the same end again.

use smallvec::SmallVec;

use super::chunk::Marks;
use super::peer::Theirs;
use super::replica::{About, Replicas};

/// Most dots of a window, unless another ends later.
pub(super) const MAX_DOTS: u64 = 1 << 18;
/// Most keys of one: their last dots the receiver keeps ahead of a gap.
const MAX_KEYS: u64 = 1 << 16;
/// So many dots for each byte of the answer, and so many bytes for each key: who asks for little has little looked through
/// for it. What an answer holds is a tenth or so of the keys.
const DOTS_PER_BYTE: u64 = 4;
const BYTES_PER_KEY: u64 = 3;

/// It is not worth while to look through fewer dots.
const MIN_DOTS: u64 = 16;
/// Dots in a row that are worth a run of their own. Those of an entry of the same datagram cost less.
const MIN_RUN: u64 = 4;
/// Dots that a datagram may hold.
const DATAGRAM: u64 = 128;
/// Keys that there is always room for.
const ROOM: usize = 4_096;

/// How much a window may come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    dots: u64,
    keys: u64,
}

impl Most {
    /// For an answer of so many bytes, and of so many dots in any case.
    pub(super) fn of(budget: u64, dots: usize) -> Self {
        Self {
            dots: budget.saturating_mul(DOTS_PER_BYTE).clamp(MIN_DOTS, dots as u64),
            keys: (budget / BYTES_PER_KEY).clamp(MIN_DOTS, MAX_KEYS),
        }
    }
}

/// Some dots of a replica, one after the other.
#[derive(Debug)]
pub(super) struct Window {
    replica: u16,
    first: u64,
    last: u64,
    /// A bit for each that is followed by another of the same key.
    overwritten: SmallVec<[u64; 4]>,
}

impl Window {
    /// The window from this dot on, which is known here and lacked there, of so many dots and keys at most. Where something
    /// was set aside there, it ends with the limit of that, or where what it is told besides ends.
    ///
    /// What came here without its key has a limit too, so a window ends where none leads beyond it: before there are too
    /// many dots, or if there is no such place, with the first one after. So no limit comes further than the
    /// longest window that was ever told.
    pub(super) fn new(
        replicas: &Replicas,
        seen: &mut Marks,
        theirs: Theirs<'_>,
        (replica, first): (u16, u64),
        most: Most,
    ) -> Self {
        let mut window =
            Self { replica, first, last: replicas.base(replica), overwritten: SmallVec::new() };
        let plain = replicas.is_plain(replica);
        if !plain || theirs.lacked(replica, first, window.last) < MIN_DOTS {
            return window;
        }
        let told = theirs.limit(replica);
        let end = (told >= first).then_some(told);
        if let Some(sooner) = window.look_through(replicas, seen, most, end) {
            window.overwritten.clear();
            window.look_through(replicas, seen, most, Some(sooner));
        }
        seen.shrink_to(ROOM);
        window
    }

    /// Looks through so many dots, or up to this one. Returns where it should have ended, if it went too far.
    #[allow(clippy::cast_possible_truncation)] // windows are short
    fn look_through(
        &mut self,
        replicas: &Replicas,
        seen: &mut Marks,
        most: Most,
        end: Option<u64>,
    ) -> Option<u64> {
        seen.begin();
        let mut closed = None;
        // Up to where the dots so far lead.
        let mut least = self.first;
        for (counter, about) in replicas.abouts(self.replica, self.first) {
            let at = (counter - self.first) as usize;
            if at.is_multiple_of(64) {
                self.overwritten.push(0);
            }
            match about {
                About::Key(slot) => {
                    if let Some(before) = seen.replace(slot, at as u32) {
                        self.note(before as usize);
                    }
                }
                About::Overwritten(limit) => {
                    self.note(at);
                    least = least.max(limit);
                }
                About::Unknown => {}
            }
            self.last = counter;
            let full = seen.len() as u64 >= most.keys || counter - self.first >= most.dots - 1;
            match end {
                Some(end) if counter >= end && counter >= least => return None,
                Some(_) => {}
                None if counter >= least && full => return None,
                None if counter >= least => closed = Some(counter),
                None if full && closed.is_some() => return closed,
                None => {}
            }
        }
        None
    }

    fn note(&mut self, at: usize) {
        if let Some(word) = self.overwritten.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// How many dots were looked through for it.
    pub(super) fn len(&self) -> u64 {
        self.overwritten.len() as u64 * 64
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
            // All of a window has one limit: what comes of it can be assumed with that.
            (About::Overwritten(other), own) => {
                keyed &= counter > first;
                limit.max(own.map_or(other, |window| window.last))
            }
            (About::Key(_), Some(window)) => limit.max(window.last),
            _ => break,
        };
        last = counter;
    }
    let few = last < first + MIN_RUN - 1 && limit < first + DATAGRAM;
    (last >= first && !(keyed && few)).then_some((last, limit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod passed_on;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::NodeId;
    use crate::map::ReplicaId;
    use crate::map::dot::{Packed, Runs};
    use crate::map::peer::{Assumed, Context};

    proptest! {
        /// What a window calls overwritten is followed in it by another dot of the same key, and nothing else is; it is no
        /// longer than the budget lets it be, unless something was set aside there up to a later one, with which it
        /// ends. What is told from it is what it says, with a limit that is not beyond it.
        #[test]
        fn windows_say_what_the_log_says(
            keys in proptest::collection::vec(0..40_u32, 16..400),
            (first, upto) in (1..300_u64, 0..400_u64),
            budget in prop_oneof![Just(1_u64), 1..200_u64, Just(1 << 20)],
        ) {
            let (mut replicas, mut seen) = (Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100), Marks::default());
            for (n, key) in (1..).zip(&keys) {
                replicas.claim(Packed::new(0, n), *key);
            }
            let base = keys.len() as u64;
            let first = first.min(base);
            let mut known = Context::default();
            known.runs_mut(0).add(1, first - 1);
            let runs = Runs { base: first - 1, ..Runs::default() };
            let assumed = [Assumed { replica: 0, runs, limit: upto.min(base) }];
            let assumed = if upto >= first { &assumed[..] } else { &[] };
            let theirs = Theirs { known: &known, assumed };
            let most = Most::of(budget, 1 << 18);
            let window = Window::new(&replicas, &mut seen, theirs, (0, first), most);
            prop_assert!(window.has(0, first) && !window.has(1, first));
            let key = |n: u64| keys[usize::try_from(n).unwrap() - 1];
            let looked_through = base + 1 - first >= MIN_DOTS;
            for n in first..=base {
                let followed = (n + 1..=window.last).any(|later| key(later) == key(n));
                let expected = n <= window.last && followed && looked_through;
                prop_assert_eq!(window.is_overwritten(0, n), expected, "{} of {:?}", n, window);
            }
            if !looked_through {
                prop_assert_eq!(window.last, base);
            } else if let [assumed] = assumed {
                prop_assert_eq!(window.last, assumed.limit);
            } else {
                prop_assert!(window.last < first + most.dots);
                let distinct = (first..=window.last).map(key).collect::<alloc::collections::BTreeSet<_>>();
                let full = distinct.len() as u64 >= most.keys;
                prop_assert!(full || window.last + 1 == first + most.dots || window.last == base);
            }
            if let Some((to, limit)) = overwritten(&replicas, Some(&window), 0, first) {
                prop_assert_eq!(limit, window.last);
                prop_assert!((first..=to).all(|n| window.is_overwritten(0, n)));
                prop_assert!(!window.is_overwritten(0, to + 1));
            }
        }
    }

    proptest! {
        /// Of dots that came without their keys a window goes no further than it may, or the longest that came; and none
        /// of its limits leads beyond it. Method: a log of windows of some lengths.
        #[test]
        fn windows_end_where_no_limit_leads_beyond(
            lens in proptest::collection::vec((2..40_u64, any::<bool>()), 1..30),
            first in 1..500_u64,
            dots in 16..60_usize,
        ) {
            let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 1_000);
            let of = replicas.intern(ReplicaId::new(NodeId(2), 1)).unwrap();
            let mut base = 0;
            for (len, keyless) in &lens {
                let last = base + len;
                let from = if *keyless { last } else { base + 1 };
                for n in from..=last {
                    replicas.claim(Packed::new(of, n), u32::try_from(n % 5).unwrap());
                }
                if *keyless {
                    replicas.set_aside(of, (base + 1, last - 1), last);
                    replicas.settle(of, &mut u64::MAX.clone(), |_| ());
                }
                base = last;
            }
            prop_assert_eq!(replicas.base(of), base);
            let first = first.min(base);
            let known = Context::default();
            let most = Most::of(1 << 20, dots);
            let window = Window::new(&replicas, &mut Marks::default(), Theirs::certain(&known), (of, first), most);
            prop_assert!(replicas.next_closed(of, window.last) == window.last);
            prop_assert!(window.last < first + most.dots.max(40));
            for (n, about) in replicas.abouts(of, first).take_while(|(n, _)| *n <= window.last) {
                let limit = match about {
                    About::Overwritten(limit) => limit,
                    About::Key(_) | About::Unknown => n,
                };
                prop_assert!(limit <= window.last);
                let keyless = limit > n;
                let key = |n| if let About::Key(slot) = replicas.about(Packed::new(of, n)) { Some(slot) } else { None };
                let followed = key(n).is_some() && (n + 1..=window.last).any(|later| key(later) == key(n));
                let looked_through = base + 1 - first >= MIN_DOTS;
                prop_assert_eq!(window.is_overwritten(of, n), looked_through && (keyless || followed));
            }
        }
    }

    /// Dots that came without their keys are told on with the limit that they came with, though none is looked through.
    #[test]
    fn what_came_without_a_key_is_told_without_one() {
        let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
        let of = replicas.intern(ReplicaId::new(NodeId(2), 1)).unwrap();
        replicas.claim(Packed::new(of, 3), 7);
        replicas.claim(Packed::new(of, 4), 8);
        assert_eq!(replicas.set_aside(of, (1, 2), 4), Some(2));
        assert_eq!(replicas.settle(of, &mut u64::MAX.clone(), |_| ()), 2);
        assert_eq!(overwritten(&replicas, None, of, 1), Some((2, 4)));
        assert_eq!(overwritten(&replicas, None, of, 2), Some((2, 4)));
        assert_eq!(overwritten(&replicas, None, of, 3), None);
    }
}
