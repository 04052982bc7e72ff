//! What observers found of one member: an inquiry, from the first who found that it answers poorly to the verdict.
//!
//! It is a set of findings, and everybody adds what he hears to what he has: in which order makes no difference. What it comes
//! to follows from the set and from the time since it was opened, so all who have the same set come to the same, and whoever
//! hears of it late joins them.

use core::time::Duration;

use smallvec::SmallVec;

use crate::id::NodeId;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// Most observers of one inquiry.
pub(super) const MAX_OBSERVERS: usize = 8;
/// So many that found the member well outweigh all others.
pub(super) const WELL: usize = 2;
/// How often a member was held out before is counted so far, and each doubles the time.
pub(super) const MAX_TIMES: u8 = 3;

/// Moments are kept as so much later: a finding may be older than the clock here, which may have begun with this node.
const EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long ago something was found.
pub(super) fn age(now: Instant, found: Instant) -> Duration {
    now + EVER - found
}

/// When something was found that is so old.
pub(super) fn found_before(now: Instant, age: Duration) -> Instant {
    (now + EVER).back(age)
}

/// The moment so long after something was found; now, if that is over.
fn after(now: Instant, found: Instant, time: Duration) -> Instant {
    now + time.saturating_sub(age(now, found))
}

/// Members, and when each found something, the oldest first: see [`age`].
pub(super) type Findings<const N: usize> = SmallVec<[(NodeId, Instant); N]>;

/// How long the parts of an inquiry take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What is found later than so long after it was opened is not of it.
    pub(super) hearing: Duration,
    /// One that came to nothing is forgotten so long after it was opened.
    pub(super) window: Duration,
    /// The first time out.
    pub(super) hold: Duration,
    /// Ages of what is passed on differ by less.
    pub(super) jitter: Duration,
}

impl Terms {
    fn whole(&self, times: u8) -> Duration {
        self.hearing + self.hold * (1 << times.min(MAX_TIMES))
    }
}

/// What it comes to, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing so far.
    Open(Instant),
    /// The member is held out.
    Held(Instant),
    /// Nothing. It is remembered, or else it would be begun again by who has not heard of that.
    Dismissed(Instant),
}

/// What was found of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// When it was opened.
    opened: Instant,
    /// How often the member was held out before, of late.
    times: u8,
    /// So many observers are enough.
    quorum: u8,
    poor: Findings<4>,
    well: Findings<WELL>,
}

impl Inquiry {
    pub(super) fn new(opened: Instant, times: u8, quorum: u8) -> Self {
        let (poor, well) = (SmallVec::new(), SmallVec::new());
        Self { opened, times, quorum, poor, well }
    }

    /// The same of a member that was held out so often, if that is more.
    pub(super) fn at_least(self, times: u8) -> Self {
        Self { times: self.times.max(times), ..self }
    }

    pub(super) const fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) const fn times(&self) -> u8 {
        self.times
    }

    pub(super) const fn quorum(&self) -> u8 {
        self.quorum
    }

    pub(super) fn poor(&self) -> &[(NodeId, Instant)] {
        &self.poor
    }

    pub(super) fn well(&self) -> &[(NodeId, Instant)] {
        &self.well
    }

    /// Whether enough found the member well.
    pub(super) fn is_outweighed(&self) -> bool {
        self.well.len() >= WELL
    }

    /// Adds a finding. Returns whether it is one more.
    pub(super) fn add_poor(&mut self, by: NodeId, at: Instant) -> bool {
        add(&mut self.poor, MAX_OBSERVERS, by, at)
    }

    /// The same of one that found the member well.
    pub(super) fn add_well(&mut self, by: NodeId, at: Instant) -> bool {
        add(&mut self.well, WELL, by, at)
    }

    /// Whether what is found now is of this inquiry.
    pub(super) fn is_heard(&self, now: Instant, terms: &Terms) -> bool {
        age(now, self.opened) < terms.hearing
    }

    /// Whether the other is the same: several may open it at once.
    pub(super) fn is_same(&self, other: &Self, terms: &Terms) -> bool {
        let (first, second) = (self.opened.min(other.opened), self.opened.max(other.opened));
        second <= first + terms.hearing
    }

    /// Adds all of the same one. Returns whether anything of it was new.
    ///
    /// Each who found something saw to it that it was in time, and nobody else does: whoever judged that by his own idea of
    /// when it was opened would have another set than others, and argue with them for as long as it lasts.
    pub(super) fn join(&mut self, other: &Self, terms: &Terms) -> bool {
        let mut news = other.times > self.times || other.quorum > self.quorum;
        self.times = self.times.max(other.times);
        self.quorum = self.quorum.max(other.quorum);
        // The older of two, but not for what it takes to pass it on.
        if other.opened + terms.jitter < self.opened {
            self.opened = other.opened;
            news = true;
        }
        for &(by, at) in &other.poor {
            news |= self.add_poor(by, at);
        }
        for &(by, at) in &other.well {
            news |= self.add_well(by, at);
        }
        news
    }

    /// Who found the member well since this was opened, as another inquiry names them, counts here too: a liar may open many, at
    /// times of its choice. Returns whether anything of it was new.
    pub(super) fn hear_well(&mut self, well: &[(NodeId, Instant)]) -> bool {
        let since = self.opened;
        let found = well.iter().filter(|(_, at)| *at >= since);
        found.fold(false, |news, &(by, at)| self.add_well(by, at) | news)
    }

    /// Whether the other was opened when this had come to nothing, as enough found the member well: it is another matter.
    pub(super) fn was_over_before(&self, other: &Self) -> bool {
        self.is_outweighed() && self.well.iter().all(|(_, at)| *at < other.opened)
    }

    /// Whether so many as it takes found the member well since another was opened.
    pub(super) fn outweighs(&self, other: &Self) -> bool {
        self.well.iter().filter(|(_, at)| *at >= other.opened).count() >= WELL
    }

    /// What it comes to. Whoever holds the member failed in any case waits for nobody, for it may come back before.
    pub(super) fn verdict(&self, now: Instant, failed: bool, terms: &Terms) -> Verdict {
        let heard = !self.is_heard(now, terms);
        let enough = self.poor.len() >= usize::from(self.quorum);
        let end = after(now, self.opened, terms.whole(self.times));
        let end = if sabotaged!("hold-for-ever") { end + terms.hold * 1_000 } else { end };
        if enough && !self.is_outweighed() && (heard || failed) {
            return Verdict::Held(end);
        }
        if !heard && !self.is_outweighed() {
            return Verdict::Open(after(now, self.opened, terms.hearing));
        }
        // Others may hold it out, and must hear otherwise as long as they do.
        let window = after(now, self.opened, terms.window);
        Verdict::Dismissed(if enough { end.max(window) } else { window })
    }
}

fn add<const N: usize>(list: &mut Findings<N>, most: usize, by: NodeId, at: Instant) -> bool {
    let new = list.len() < most && !list.iter().any(|(other, _)| *other == by);
    if new {
        let place = list.partition_point(|finding| *finding <= (by, at));
        list.insert(place.min(list.len()), (by, at));
    }
    new
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TERMS: Terms = Terms {
        hearing: Duration::from_secs(12),
        window: Duration::from_secs(60),
        hold: Duration::from_secs(600),
        jitter: SECOND,
    };

    fn seconds(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    /// Opened so many seconds ago.
    fn inquiry(now: Instant, ago: u64, poor: u64, well: u64) -> Inquiry {
        let opened = found_before(now, SECOND * u32::try_from(ago).unwrap_or(0));
        let mut inquiry = Inquiry::new(opened, 0, 4);
        (0..poor).for_each(|by| assert!(inquiry.add_poor(NodeId(by), opened)));
        (0..well).for_each(|by| assert!(inquiry.add_well(NodeId(by), opened)));
        inquiry
    }

    #[test]
    fn what_an_inquiry_comes_to() {
        let now = seconds(3);
        let of =
            |ago, poor, well, failed| inquiry(now, ago, poor, well).verdict(now, failed, &TERMS);
        let at = |after: u64| seconds(3 + after);
        // (age, poor, well, failed): the same whatever the clock says.
        assert_eq!(of(2, 3, 0, false), Verdict::Open(at(10)));
        assert_eq!(of(2, 5, 1, false), Verdict::Open(at(10)));
        assert_eq!(of(2, 4, 1, true), Verdict::Held(at(610)));
        assert_eq!(of(2, 3, 0, true), Verdict::Open(at(10)));
        assert_eq!(of(12, 4, 1, false), Verdict::Held(at(600)));
        assert_eq!(of(500, 4, 0, false), Verdict::Held(at(112)));
        assert_eq!(of(612, 4, 0, false), Verdict::Held(now));
        assert_eq!(of(12, 3, 0, false), Verdict::Dismissed(at(48)));
        assert_eq!(of(2, 4, 2, false), Verdict::Dismissed(at(610)), "others may hold it out");
        assert_eq!(of(2, 3, 2, true), Verdict::Dismissed(at(58)));
        let mut again = inquiry(now, 12, 4, 0);
        again.times = 2;
        assert_eq!(again.verdict(now, false, &TERMS), Verdict::Held(at(2_400)));
    }

    /// Of two that are the same the older counts, but for what it takes to pass it on; others are kept apart.
    #[test]
    fn the_older_of_two_counts() {
        let now = seconds(100);
        for (one, two, same, opened) in [
            (20, 20, true, 20),
            (20, 21, true, 20),
            (20, 23, true, 23),
            (20, 32, true, 32),
            (20, 33, false, 0),
        ] {
            let (mut first, second) = (inquiry(now, one, 1, 0), inquiry(now, two, 3, 0));
            assert_eq!(
                (first.is_same(&second, &TERMS), second.is_same(&first, &TERMS)),
                (same, same)
            );
            if same {
                assert!(first.join(&second, &TERMS));
                assert_eq!((age(now, first.opened()).as_secs(), first.poor().len()), (opened, 3));
                assert!(!first.join(&second, &TERMS), "it is no news twice");
            }
        }
    }

    proptest! {
        /// In which order parts of it are heard makes no difference, nor does hearing them twice.
        #[test]
        fn joins_are_of_sets(
            parts in proptest::collection::vec((0..8_u64, 0..9_u64, any::<bool>(), 0..2_u8), 1..12),
            shuffle in any::<prop::sample::Index>(),
        ) {
            let now = seconds(50);
            let part = |&(by, ago, well, times): &(u64, u64, bool, u8)| {
                let at = found_before(now, SECOND * u32::try_from(ago).unwrap_or(0));
                let mut one = Inquiry::new(found_before(now, SECOND * 9), times, 4);
                if well {
                    one.add_well(NodeId(by % 2), found_before(now, SECOND * 5));
                } else {
                    one.add_poor(NodeId(by), at);
                }
                one
            };
            let all = |parts: &[(u64, u64, bool, u8)]| {
                let mut all = Inquiry::new(found_before(now, SECOND * 9), 0, 4);
                parts.iter().for_each(|one| { all.join(&part(one), &TERMS); });
                prop_assert!(!parts.iter().any(|one| all.clone().join(&part(one), &TERMS)));
                let ids = |list: &[(NodeId, Instant)]| {
                    let mut ids: alloc::vec::Vec<_> = list.iter().map(|(id, _)| *id).collect();
                    ids.sort_unstable();
                    ids
                };
                Ok((ids(all.poor()), ids(all.well()), all.times(), all.verdict(now, false, &TERMS)))
            };
            let mut others = parts.clone();
            others.rotate_left(shuffle.index(parts.len()));
            let reversed: alloc::vec::Vec<_> = others.iter().rev().copied().collect();
            prop_assert_eq!(all(&parts)?, all(&reversed)?);
        }
    }
}
