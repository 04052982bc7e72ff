//! Dots that were overwritten: known without their keys, once what came of them is.
//!
//! A writer that gives a key a new value has seen all that it gave it before. So whoever reflects a write of a replica
//! to some key reflects all earlier writes of that replica to it: which key that is need not be told. It is enough to
//! say that each of a run of dots was overwritten by another of the same replica, not later than by some *limit*. That
//! is true for ever, whoever says it. The run is set aside, and as soon as every dot up to the limit is known or itself
//! set aside with a limit not beyond, all of it is known: the last write to each of those keys is among what is
//! known, for nothing is after it that it could have been set aside for.
//!
//! By this a key that was overwritten a thousand times costs one object, and what lies before it a few bytes. What is set
//! aside counts for nothing until then: it is in no digest, it does not move the floor, and its dots are taken
//! in like any others if somebody tells of them. A pull says what is set aside, with the limit, so that no source of
//! which that can be completed tells it again. It is part of no snapshot and no write-ahead log: who starts again is told
//! it again.
//!
//! In the log of dots a mark in the place of the key says how many dots later the limit was, and so the dots are told on.
//! Windows of an answer end where no mark leads beyond (`Known::marked`), so that limits come no further with each who
//! passes them on. Of a sealed life nothing is set aside if some of what it wrote is void, and a seal that makes it so
//! cuts the log at the last mark: what overwrote a dot may be void itself.

use alloc::collections::BTreeMap;

use super::Replicas;
use super::known::About;
use crate::hash;
use crate::map::dot::{MAX_RUNS, Packed, Runs};
use crate::map::window;
use crate::map::wire::Span;
use crate::sabotage::sabotaged;

/// How far beyond the base a limit may be. An answer sets it half as far, or where what it was told so itself ends.
pub(in crate::map) const MAX_SPAN: u64 = 2 * window::MAX_DOTS;
/// Most runs of one replica: twice as many as an answer may come to.
const MAX_ASIDE: usize = 1 << 17;
/// Most runs with no further limits that one is laid around at a time. What is beyond them is told again.
const MAX_KEPT: usize = 64;

/// What is set aside of one replica.
#[derive(Debug, Default)]
pub(super) struct Overwritten {
    /// By their first counters: the last, and the limit. They do not overlap.
    runs: BTreeMap<u64, (u64, u64)>,
    /// No limit is beyond this.
    most: u64,
    seen: Seen,
    /// Whether the replica is in the list of those of which something is set aside.
    listed: bool,
}

/// How far the dots after a base were found to be known or set aside, and the greatest limit on the way.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    base: u64,
    upto: u64,
    limit: u64,
}

/// What a pull tells of dots that were set aside. Sources give other limits, and not each can complete what another began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::map) struct ToldAside {
    /// Up to where all dots are known, or set aside with no limit beyond the first, and that limit.
    pub(in crate::map) near: (u64, u64),
    /// All that is known or set aside, as many runs as are told, and the greatest limit of that.
    pub(in crate::map) all: (Runs, u64),
}

impl Overwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self { listed: self.listed, ..Self::default() };
    }

    /// Whether the dot may be waited for, so that there has to be room for it.
    pub(super) fn may_await(&self, counter: u64) -> bool {
        !self.is_empty() && counter <= self.most
    }

    /// The run with this dot: its last, and the limit.
    fn run_with(&self, counter: u64) -> Option<(u64, u64)> {
        let (_, run) = self.runs.range(..=counter).next_back()?;
        (run.0 >= counter).then_some(*run)
    }

    /// Sets a run aside, with this limit where its dots had none or a further one: in which order runs come makes no
    /// difference, nor does one that comes twice. Returns how many of it are new or nearer, and whether that is all of it.
    fn add(&mut self, from: u64, to: u64, limit: u64) -> (u64, bool) {
        self.most = self.most.max(limit);
        let (mut next, mut new, mut kept) = (from, 0, 0);
        let mut at = self.runs.range(..=from).next_back().map_or(from, |(first, _)| *first);
        while at <= to
            && let Some((&first, &(last, other))) = self.runs.range(at..=to).next()
        {
            at = last + 1;
            if last < from {
                continue;
            }
            if other <= limit {
                if next < first {
                    new += first - next;
                    self.put(next, first - 1, limit);
                }
                next = last + 1;
                kept += 1;
                if kept == MAX_KEPT && next <= to {
                    return (new, false);
                }
                continue;
            }
            // Less may be waited for.
            self.seen = Seen::default();
            self.runs.remove(&first);
            if first < from {
                self.put(first, from - 1, other);
            }
            if last > to {
                self.put(to + 1, last, other);
            }
            let both = first.max(from);
            if next < both {
                new += both - next;
            }
            new += last.min(to) - both + 1;
            self.put(next.min(both), last.min(to), limit);
            next = last.min(to) + 1;
        }
        if next <= to {
            self.put(next, to, limit);
            new += to - next + 1;
        }
        (new, true)
    }

    /// Notes a run, at once with the one before if they are alike.
    fn put(&mut self, from: u64, to: u64, limit: u64) {
        match self.runs.range_mut(..from).next_back() {
            Some((_, before)) if *before == (from - 1, limit) => before.0 = to,
            _ => drop(self.runs.insert(from, (to, limit))),
        }
    }

    /// What is known is other than it was.
    pub(super) fn look_again(&mut self) {
        self.seen = Seen::default();
    }

    /// A dot ahead of a gap is known now. If it was set aside, less may be waited for.
    pub(super) fn note_known(&mut self, counter: u64) {
        if self.run_with(counter).is_some() {
            self.look_again();
        }
    }

    /// Up to where all dots after the base are known or set aside, if no limit is beyond that. Takes the steps that it took
    /// to find out off `left`.
    fn complete(&mut self, base: u64, ahead: &BTreeMap<u64, u32>, left: &mut u64) -> Option<u64> {
        if self.seen.base != base || self.seen.upto < base {
            self.seen = Seen { base, upto: base, limit: 0 };
        }
        let Seen { mut upto, mut limit, .. } = self.seen;
        let mut known = ahead.range(upto + 1..).map(|(counter, _)| *counter).peekable();
        loop {
            while known.next_if(|counter| *counter <= upto + 1).is_some_and(|next| next > upto) {
                upto += 1;
                *left = left.saturating_sub(1);
            }
            *left = left.saturating_sub(1);
            if upto > base && (upto >= limit || sabotaged!("overwritten-at-once")) {
                return Some(upto);
            }
            if known.peek().is_some_and(|next| *next <= upto + 1) {
                continue;
            }
            let Some((last, further)) = self.run_with(upto + 1) else { break };
            (upto, limit) = (last, limit.max(further));
        }
        self.seen = Seen { base, upto, limit };
        None
    }

    /// Drops what is up to this counter.
    fn drop_to(&mut self, upto: u64) {
        let mut rest = self.runs.split_off(&(upto + 1));
        if let Some((_, &(last, limit))) =
            self.runs.last_key_value().filter(|(_, run)| run.0 > upto)
        {
            rest.insert(upto + 1, (last, limit));
        }
        self.runs = rest;
        self.seen = Seen::default();
    }
}

impl Replicas {
    /// Sets dots of a replica aside: each was overwritten by one of the same replica that is not after `limit`. Returns
    /// how many of them were not set aside yet, or with a limit further on; or nothing if there is no room for all of
    /// them, or they may not be believed.
    pub(in crate::map) fn set_aside(
        &mut self,
        replica: u16,
        (from, to): (u64, u64),
        limit: u64,
    ) -> Option<u64> {
        let known = &mut self.known[usize::from(replica)];
        let from = from.max(known.base + 1);
        if from > to || known.is_void(from) && known.is_void(to) {
            return Some(0);
        }
        let many = known.overwritten.runs.len() >= MAX_ASIDE;
        // On disk windows follow each other, each as long as it was told.
        let far = if self.unbounded {
            limit - from.min(limit) >= MAX_SPAN
        } else {
            limit > known.base + MAX_SPAN || many
        };
        if limit <= to || !known.is_plain() || known.is_void(limit) || far {
            return None;
        }
        let (new, whole) = known.overwritten.add(from, to, limit);
        if !core::mem::replace(&mut known.overwritten.listed, true) {
            self.waiting.push(replica);
        }
        (whole || new > 0).then_some(new)
    }

    /// Adds what was set aside of a replica and is complete now, in order, and tells runs of that with their limits.
    /// Returns how many dots there were. What it looked at is taken off `left`; once nothing is left what is complete
    /// stays set aside, for windows may follow each other for ever, and each is only a few bytes.
    pub(in crate::map) fn settle(
        &mut self,
        replica: u16,
        left: &mut u64,
        mut added: impl FnMut(Span),
    ) -> u64 {
        let mut new = 0;
        while *left > 0 {
            let known = &mut self.known[usize::from(replica)];
            let complete = known.overwritten.complete(known.base, &known.ahead, left);
            let Some(upto) = complete else { break };
            *left = left.saturating_sub(upto - known.base);
            let (before, mut run) = (known.digest(), (0, 0));
            let mut span: Option<Span> = None;
            while known.base < upto {
                let counter = known.base + 1;
                if let Some(slot) = known.ahead.remove(&counter) {
                    let ahead = hash::mix_with(known.of_dots, counter);
                    self.digest = self.digest.wrapping_sub(ahead);
                    known.push(slot);
                    span.take().into_iter().for_each(&mut added);
                    continue;
                }
                if counter > run.0 {
                    run = known.overwritten.run_with(counter).unwrap_or((counter, upto));
                }
                known.push(About::Overwritten(run.1).logged(counter));
                let told = span.get_or_insert(Span { from: counter, to: counter, limit: 0 });
                (told.to, told.limit) = (counter, told.limit.max(run.1));
                new += 1;
            }
            span.into_iter().for_each(&mut added);
            known.overwritten.drop_to(upto);
            self.close_gap(replica, before);
        }
        let known = &mut self.known[usize::from(replica)];
        if known.overwritten.runs.last_key_value().is_some_and(|(_, run)| run.0 <= known.base) {
            known.overwritten.clear();
        }
        new
    }

    /// Forgets all that is set aside. Returns whether anything was.
    pub(in crate::map) fn forget_aside(&mut self) -> bool {
        let mut any = false;
        for replica in self.waiting.drain(..) {
            let known = &mut self.known[usize::from(replica)];
            any |= !known.overwritten.is_empty();
            known.overwritten = Overwritten::default();
        }
        any
    }

    /// A replica of which something is set aside, of those from this place on in a list of such.
    pub(in crate::map) fn waiting(&mut self, at: usize) -> Option<u16> {
        while let Some(&replica) = self.waiting.get(at) {
            let overwritten = &mut self.known[usize::from(replica)].overwritten;
            if !overwritten.is_empty() {
                return Some(replica);
            }
            overwritten.listed = false;
            self.waiting.swap_remove(at);
        }
        None
    }

    /// What a pull tells of a replica of which something is set aside.
    pub(in crate::map) fn told_aside(&self, replica: u16) -> Option<ToldAside> {
        let known = &self.known[usize::from(replica)];
        let mut runs = known.overwritten.runs.values().skip_while(|run| run.0 <= known.base);
        let (_, first) = *runs.next()?;
        let Seen { upto, limit, base } = known.overwritten.seen;
        let seen = base == known.base && upto > base && limit == first;
        let from = if seen { upto } else { known.base };
        let mut told =
            ToldAside { near: (from, first), all: (Runs { base: from, ..Runs::default() }, first) };
        let mut ahead = known.ahead.range(from + 1..).map(|(counter, _)| *counter).peekable();
        let set_aside = &known.overwritten.runs;
        let across = set_aside.range(..=from).next_back();
        let runs = across.into_iter().chain(set_aside.range(from + 1..));
        let mut runs = runs.map(|(from, run)| (*from, *run)).peekable();
        let mut last = from;
        while told.all.0.runs.len() < MAX_RUNS {
            while ahead.next_if(|counter| *counter <= last).is_some() {}
            while runs.next_if(|(_, run)| run.0 <= last).is_some() {}
            let next_run = runs.peek().map(|(from, _)| (*from).max(last + 1));
            let (from, to, limit) = match (ahead.peek().copied(), next_run) {
                (Some(counter), run) if run.is_none_or(|run| counter <= run) => {
                    (counter, counter, 0)
                }
                (_, Some(from)) => {
                    let (_, (to, limit)) = runs.next()?;
                    (from, to, limit)
                }
                _ => break,
            };
            if from == told.near.0 + 1 && limit <= first {
                told.near.0 = to;
            }
            told.all.0.add(from, to);
            told.all.1 = limit.max(told.all.1);
            last = to;
        }
        Some(told)
    }

    /// What may be assumed of one who has all dots of a replica up to a base, and has set aside what it tells: the dots that
    /// it will have, and what it waits for. Who has all up to the limit can tell what is missing, and nobody else; of
    /// that, what was told here itself is told with the limits of then.
    pub(in crate::map) fn assume(
        &self,
        replica: u16,
        base: u64,
        told: ToldAside,
    ) -> Option<(Runs, u64)> {
        let can_complete = |limit: u64| {
            let here = limit <= self.base(replica) && self.is_plain(replica);
            base < limit && here && self.next_closed(replica, limit) <= base + MAX_SPAN
        };
        let ToldAside { near: (upto, limit), all } = told;
        if can_complete(all.1) {
            return Some(all);
        }
        can_complete(limit).then_some((Runs { base: upto, ..Runs::default() }, limit))
    }

    /// The first dot from this one on at which what is logged of a replica can be told without what comes after: no dot up
    /// to it came as one that was overwritten with a limit beyond.
    pub(in crate::map) fn next_closed(&self, replica: u16, counter: u64) -> u64 {
        let marked = &self.known[usize::from(replica)].marked;
        let at = marked.partition_point(|(first, _)| *first <= counter);
        let last = at.checked_sub(1).and_then(|at| marked.get(at));
        last.map_or(counter, |(_, end)| counter.max(*end))
    }

    /// What a dot up to the base is about.
    pub(in crate::map) fn about(&self, dot: Packed) -> About {
        let known = &self.known[usize::from(dot.replica())];
        let back =
            known.base.checked_sub(dot.counter()).and_then(|back| usize::try_from(back).ok());
        let at = back.and_then(|back| known.log.len().checked_sub(back + 1));
        at.map_or(About::Unknown, |at| About::of(dot.counter(), known.log[at]))
    }

    /// What the dots of a replica from a logged one on are about, up to the base.
    pub(in crate::map) fn abouts(
        &self,
        replica: u16,
        from: u64,
    ) -> impl Iterator<Item = (u64, About)> {
        let known = &self.known[usize::from(replica)];
        let first = known.base + 1 - known.log.len() as u64;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let logged = known.log.range(skip.min(known.log.len())..);
        (from.max(first)..)
            .zip(logged)
            .map(|(counter, logged)| (counter, About::of(counter, *logged)))
    }

    /// Whether its dots may be told as overwritten: none before its last that counts is void.
    pub(in crate::map) fn is_plain(&self, replica: u16) -> bool {
        self.known[usize::from(replica)].is_plain()
    }
}

#[cfg(test)]
impl Replicas {
    /// Makes the log one of dots that came in windows, of which the last of each dot is given.
    pub(in crate::map) fn forget_keys(&mut self, replica: u16, last_of: impl Fn(u64) -> u64) {
        let known = &mut self.known[usize::from(replica)];
        let first = known.base + 1 - known.log.len() as u64;
        let mut later = BTreeMap::new();
        for (at, logged) in known.log.iter_mut().enumerate().rev() {
            let counter = first + at as u64;
            let before: Option<u64> = later.insert(*logged, counter);
            if before.is_some_and(|later| later <= last_of(counter)) {
                *logged = About::Overwritten(last_of(counter)).logged(counter);
            }
        }
        let marked: alloc::vec::Vec<_> = (first..).zip(known.log.iter().copied()).collect();
        for (counter, logged) in marked {
            if let About::Overwritten(limit) = About::of(counter, logged) {
                known.mark(counter, limit);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
