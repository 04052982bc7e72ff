//! Chunks: applying what a peer told, whole or not at all where limits are concerned.

use smallvec::SmallVec;

use super::Map;
use super::dot::Packed;
use super::entry_wire::FullEntry;
use super::introduced::Introduced;
use super::replica::{MAX_SPAN, Replicas};
use super::skim::Skim;
use super::store::{Entry, Guess, Guesses, Look, Store, Told};
use super::streak::Streak;
use super::wire::{Body, Chunk, Item, ReplicaRef, Span, Step};
use crate::event::{Event, Key};
use crate::reached::reached;
use crate::time::Instant;

/// What became of a chunk that was not refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    /// Dots that were new.
    pub(super) news: u64,
    /// Dots that were newly set aside.
    pub(super) set_aside: u64,
    /// Whether every dot of it is known now.
    pub(super) whole: bool,
}

/// Siblings and superseded dots of one received object, with replicas interned.
#[derive(Debug, Default)]
pub(super) struct Object<'p> {
    pub(super) siblings: SmallVec<[(Packed, &'p [u8]); 2]>,
    pub(super) superseded: SmallVec<[Packed; 4]>,
}

/// The keys that a chunk names, by their numbers.
pub(super) struct Objects {
    guesses: Guesses,
    /// Of those that were come to.
    slots: SmallVec<[Option<u32>; 64]>,
}

impl Objects {
    /// What the key that comes next may have for a slot.
    pub(super) fn guess(&self) -> Option<Guess> {
        self.guesses.get(self.slots.len()).copied()
    }

    /// The slot of the key that comes next.
    pub(super) fn look(&self, store: &Store, key: &[u8]) -> Look {
        self.guess().map_or_else(|| store.look(key), |guess| store.check(guess, key))
    }
}

/// Interned numbers of the replicas that a chunk introduced, as far as they are known here.
type Numbers = SmallVec<[Option<u16>; 32]>;

fn number(replicas: &Replicas, numbers: &mut Numbers, reference: ReplicaRef) -> Option<u16> {
    match reference {
        ReplicaRef::Known(number) => numbers.get(number).copied().flatten(),
        ReplicaRef::New(id) => {
            let number = replicas.number(id);
            numbers.push(number);
            number
        }
    }
}

/// An object's dots and the lengths of its values, read without interning anything. The dots of
/// replicas that are unknown here have no number.
#[derive(Debug, Default)]
struct Outline {
    siblings: SmallVec<[(Option<Packed>, usize); 2]>,
    superseded: SmallVec<[Packed; 4]>,
}

impl Outline {
    fn read(&mut self, replicas: &Replicas, mut entry: FullEntry<'_>, numbers: &mut Numbers) {
        while let Ok(Some((reference, counter, value))) = entry.next_sibling() {
            let replica = number(replicas, numbers, reference);
            let dot = replica.map(|replica| Packed::new(replica, counter));
            self.siblings.push((dot, value.len()));
        }
        while let Ok(Some((reference, counter))) = entry.next_superseded() {
            let replica = number(replicas, numbers, reference);
            self.superseded.extend(replica.map(|replica| Packed::new(replica, counter)));
        }
    }

    /// How many bytes of values the join with `entry` adds, and how many it frees; see [`Store::join`].
    fn growth(&self, replicas: &Replicas, entry: Entry<'_>) -> (usize, usize) {
        let known = |dot: Packed| replicas.contains(dot) || entry.supersedes(dot);
        let new = self.siblings.iter().filter(|(dot, _)| !dot.is_some_and(known));
        let stays = |own: Packed| {
            let covers = |dot: &Packed| dot.replica() == own.replica() && *dot >= own;
            self.siblings.iter().any(|(dot, _)| *dot == Some(own))
                || !self.superseded.iter().any(covers)
        };
        let gone = entry.siblings().filter(|sibling| !stays(sibling.dot));
        (new.map(|(_, len)| len).sum(), gone.map(|sibling| sibling.value.len()).sum())
    }
}

impl Map {
    /// Applies a chunk from the peer in `slot`. Returns what became of it, or `None` if it was refused
    /// whole.
    pub(super) fn apply_chunk(
        &mut self,
        now: Instant,
        slot: u32,
        chunk: &Chunk<'_>,
        skim: &Skim<'_>,
    ) -> Option<Applied> {
        if skim.is_forged(&self.replicas) {
            self.hear_of_unmade(now);
            return None;
        }
        if !self.admits(chunk, skim) {
            self.refuse(now, slot);
            return None;
        }
        // Before a retired life may take one of the numbers that are left for them.
        skim.intern(&mut self.replicas);
        let guesses = self.store.guess(&skim.keys);
        self.take_items(Some(slot), chunk, guesses)
    }

    /// Joins all that a chunk tells, from the peer in `slot` or from disk; of its keys some may have been looked for.
    /// Returns `None` if that takes too many replicas.
    pub(super) fn take_items(
        &mut self,
        slot: Option<u32>,
        chunk: &Chunk<'_>,
        guesses: Guesses,
    ) -> Option<Applied> {
        let refused = self.stats.dots_refused;
        let mut whole = true;
        let mut introduced = Introduced::default();
        let mut objects = Objects { guesses, slots: SmallVec::new() };
        let mut items = chunk.items;
        let (mut replica, mut news, mut run, mut streak) = (0, 0, None, Streak::default());
        let mut set_aside = 0;
        if slot.is_none() {
            // What is on disk was taken in before.
            self.may_settle = u64::MAX;
        }
        loop {
            let step = items.next().ok().flatten();
            if let Some(Step::Item(item)) = step
                && let Some(about) = self.take_simply(&mut streak, &objects, replica, &item)
            {
                objects.slots.push(Some(about));
                continue;
            }
            if let Some((replica, from, to)) = self.end_streak(&mut streak) {
                news += to - from + 1;
                self.extend_run(slot, &mut run, (replica, from, to));
            }
            let item = match step {
                None => break,
                Some(Step::Run(reference)) => {
                    replica = introduced.resolve(&mut self.replicas, reference)?;
                    continue;
                }
                Some(Step::Overwritten(reference, span)) => {
                    let of = introduced.resolve(&mut self.replicas, reference)?;
                    let taken = self.set_aside(slot, of, span, &mut news);
                    whole &= taken.is_some();
                    set_aside += taken.unwrap_or_default();
                    continue;
                }
                Some(Step::Item(item)) => item,
            };
            let dot = Packed::new(replica, item.counter);
            let about = self.take_item(dot, &item, &mut introduced, &mut objects, &mut news)?;
            // A key that the sender only names but that is not here: not claimed, so asked for again.
            whole &= about.is_some() || self.replicas.contains(dot);
            if let Some(about) = about {
                // That of a lone value was claimed with it.
                if !matches!(item.body, Body::Own { .. } | Body::Bare { .. }) {
                    news += u64::from(self.claim(dot, about));
                }
                self.extend_run(slot, &mut run, (replica, item.counter, item.counter));
            }
        }
        self.note_known(slot, run);
        let mut at = 0;
        while self.may_settle > 0
            && let Some(replica) = self.replicas.waiting(at)
        {
            news += self.settle(replica);
            self.may_settle = self.may_settle.saturating_sub(1);
            at += 1;
        }
        self.stats.dots_received += news;
        whole &= refused == self.stats.dots_refused;
        Some(Applied { news, set_aside, whole })
    }

    /// Sets aside what a peer told, or the disk. Returns how many dots that were, unless they are not believed.
    #[cold]
    fn set_aside(
        &mut self,
        slot: Option<u32>,
        replica: u16,
        span: Span,
        news: &mut u64,
    ) -> Option<u64> {
        let Span { from, to, limit } = span;
        self.note_known(slot, Some((replica, from, to)));
        // One chunk may tell of several windows, of which each begins where the one before is complete.
        if limit > self.replicas.base(replica) + MAX_SPAN {
            *news += self.settle(replica);
        }
        self.replicas.set_aside(replica, (from, to), limit)
    }

    /// Takes in what was set aside of a replica, if it is complete now. Returns how many dots that were.
    fn settle(&mut self, replica: u16) -> u64 {
        let (log, left) = (&mut self.log, &mut self.may_settle);
        let new = self.replicas.settle(replica, left, |span| {
            if let Some(log) = log {
                log.note_overwritten(replica, span);
            }
        });
        self.stats.dots_overwritten += new;
        new
    }

    /// Takes in a lone value that is next in a streak, if it is as simple as that. Returns its slot.
    #[inline]
    fn take_simply(
        &mut self,
        streak: &mut Streak,
        objects: &Objects,
        replica: u16,
        item: &Item<'_>,
    ) -> Option<u32> {
        let (key, value, mark) = match item.body {
            Body::Own { key, value } => (key, value, true),
            Body::Bare { key, value } => (key, value, false),
            Body::Ref { .. } | Body::Key { .. } | Body::Full { .. } => return None,
        };
        self.follow(streak, objects, key, (Packed::new(replica, item.counter), value), mark)
    }

    /// Joins what one item tells. Returns the slot of what it is about, unless that is not here or was removed; or
    /// `None` if it takes too many replicas.
    #[allow(clippy::option_option)] // the outer one ends the whole
    fn take_item(
        &mut self,
        dot: Packed,
        item: &Item<'_>,
        introduced: &mut Introduced,
        objects: &mut Objects,
        news: &mut u64,
    ) -> Option<Option<u32>> {
        Some(match item.body {
            Body::Ref { object } => {
                reached!("map: item refers to another");
                objects.slots.get(object).copied().flatten()
            }
            Body::Key { key } => {
                let about = objects.look(&self.store, key).slot;
                reached!("map: item names a key");
                objects.slots.push(about);
                about
            }
            Body::Own { key, value } => {
                reached!("map: item of a lone value over its own");
                let told = Told { siblings: &[(dot, value)], superseded: &[dot] };
                self.merge(key, told, objects, news)
            }
            Body::Bare { key, value } => {
                let told = Told { siblings: &[(dot, value)], superseded: &[] };
                self.merge(key, told, objects, news)
            }
            Body::Full { key, entry } => {
                reached!("map: item of an entry");
                let object = self.intern(entry, introduced)?;
                let (siblings, superseded) = (&object.siblings, &object.superseded);
                self.merge(key, Told { siblings, superseded }, objects, news)
            }
        })
    }

    /// Notes a run of dots that a peer told: at once with the one before, if it goes on with that.
    fn extend_run(
        &mut self,
        slot: Option<u32>,
        before: &mut Option<(u16, u64, u64)>,
        run: (u16, u64, u64),
    ) {
        match before {
            Some((of, _, last)) if *of == run.0 && *last + 1 == run.1 => *last = run.2,
            _ => {
                self.note_known(slot, before.take());
                *before = Some(run);
            }
        }
    }

    /// The peer that told of this run of a replica's dots has them.
    fn note_known(&mut self, slot: Option<u32>, run: Option<(u16, u64, u64)>) {
        let peer = slot.and_then(|slot| self.peers.get_mut(slot));
        if let (Some(peer), Some((replica, from, to))) = (peer, run) {
            peer.known.runs_mut(replica).add(from, to);
        }
    }

    pub(super) fn intern<'p>(
        &mut self,
        mut entry: FullEntry<'p>,
        introduced: &mut Introduced,
    ) -> Option<Object<'p>> {
        let mut object = Object::default();
        while let Ok(Some((reference, counter, value))) = entry.next_sibling() {
            let replica = introduced.resolve(&mut self.replicas, reference)?;
            object.siblings.push((Packed::new(replica, counter), value));
        }
        while let Ok(Some((reference, counter))) = entry.next_superseded() {
            let replica = introduced.resolve_mark(&mut self.replicas, reference, counter)?;
            object.superseded.push(Packed::new(replica, counter));
        }
        Some(object)
    }

    /// Joins one object and claims every dot that it names. Returns its slot, unless it is about a key that
    /// was removed, and dropped with all that is told of it here.
    fn merge(
        &mut self,
        key: &[u8],
        told: Told<'_>,
        objects: &mut Objects,
        news: &mut u64,
    ) -> Option<u32> {
        let dots = || {
            // The mark of a lone value is its own, most often.
            let marks = told.superseded.iter().filter(|mark| !told.is_of(**mark));
            told.siblings.iter().map(|(dot, _)| *dot).chain(marks.copied())
        };
        let look = objects.look(&self.store, key);
        if look.slot.is_none() && dots().all(|dot| self.replicas.is_settled(dot)) {
            reached!("map: old news of a dropped key");
            objects.slots.push(None);
            return None;
        }
        let slot = look.slot.unwrap_or_else(|| self.store.insert(look, key));
        objects.slots.push(Some(slot));
        self.retiring.note_named(told.superseded);
        let joined = self.store.join(&self.replicas, slot, told, |dot| told.reflects(dot));
        for dot in dots() {
            *news += u64::from(self.claim(dot, slot));
        }
        self.note_change(slot, key, joined.before, joined.after);
        if !joined.tidy {
            self.tidy(slot);
        }
        Some(slot)
    }

    /// Adds a dot to the context if there is room for it; without room it is asked for again later. One that is
    /// known needs none.
    pub(super) fn claim(&mut self, dot: Packed, slot: u32) -> bool {
        if self.replicas.claim_next(dot, slot) {
            self.note_for_log(dot, slot);
            return true;
        }
        if self.replicas.contains(dot) {
            reached!("map: dot known");
            return false;
        }
        if !self.replicas.has_room(dot) {
            self.stats.dots_refused += 1;
            self.replicas.note_refused(dot.replica());
            return false;
        }
        let new = self.replicas.claim(dot, slot);
        if new {
            self.note_for_log(dot, slot);
            if self.replicas.slot(dot).is_none() {
                self.note_unlogged(slot);
            }
        }
        new
    }

    /// Whether the limits hold after the chunk, judged before anything of it is applied.
    fn admits(&self, chunk: &Chunk<'_>, skim: &Skim<'_>) -> bool {
        if self.replicas.in_use() + skim.new_replicas(&self.replicas) > self.config.max_replicas {
            return false;
        }
        if self.store.keys() + skim.keys.len() <= self.config.max_keys
            && self.store.bytes() + chunk.items.bytes() <= self.config.max_bytes
        {
            return true;
        }
        // Near the limit look closer: what is known brings nothing new, what is superseded makes room.
        let (mut keys, mut bytes) = (0, 0);
        let mut numbers = Numbers::new();
        let mut named: SmallVec<[u32; 32]> = SmallVec::new();
        let (mut items, mut replica) = (chunk.items, None);
        while let Ok(Some(step)) = items.next() {
            let item = match step {
                Step::Run(reference) => {
                    replica = number(&self.replicas, &mut numbers, reference);
                    continue;
                }
                Step::Overwritten(reference, _) => {
                    number(&self.replicas, &mut numbers, reference);
                    continue;
                }
                Step::Item(item) => item,
            };
            let dot = replica.map(|replica| Packed::new(replica, item.counter));
            let mut outline = Outline::default();
            let key = match item.body {
                Body::Own { key, value } => {
                    outline.siblings.push((dot, value.len()));
                    outline.superseded.extend(dot);
                    key
                }
                Body::Bare { key, value } => {
                    outline.siblings.push((dot, value.len()));
                    key
                }
                Body::Full { key, entry } => {
                    outline.read(&self.replicas, entry, &mut numbers);
                    key
                }
                Body::Ref { .. } | Body::Key { .. } => continue,
            };
            let Some(slot) = self.store.slot(key) else {
                keys += 1;
                bytes += key.len() + outline.siblings.iter().map(|(_, len)| len).sum::<usize>();
                continue;
            };
            let (added, freed) = outline.growth(&self.replicas, self.store.entry(slot));
            // A second item about the key cannot free the same bytes again.
            let again = named.contains(&slot);
            bytes += added.saturating_sub(if again { 0 } else { freed });
            named.push(slot);
        }
        self.store.keys() + keys <= self.config.max_keys
            && self.store.bytes() + bytes <= self.config.max_bytes
    }

    /// A chunk of the peer in `slot` was refused for its size: say so once, and do not ask again soon.
    pub(super) fn refuse(&mut self, now: Instant, slot: u32) {
        self.stats.chunks_refused += 1;
        self.pull_after = now + self.config.pull_interval * 32;
        self.pulling = None;
        self.shares.clear();
        if self.full.replace(slot).is_none() {
            self.events.push(Event::Full);
        }
    }

    /// Tells the application if another value is read for the key in a slot than before.
    pub(super) fn note_change(
        &mut self,
        slot: u32,
        key: &[u8],
        before: Option<Packed>,
        after: Option<Packed>,
    ) {
        self.hear_times(slot);
        self.stop_waiting(slot);
        if after != before {
            let name = |dot: Option<Packed>| dot.map(|dot| self.replicas.dot(dot));
            let (old, new) = (name(before), name(after));
            self.events.push(Event::Changed { key: Key::new(key), old, new });
        }
    }
}
