//! The entries: concurrent values as siblings, and what they supersede.
//!
//! An entry is the pair (siblings, superseded). `superseded` holds, per replica, the greatest counter
//! n such that all of that replica's events on this key up to n are reflected here. The value of an
//! entry is a function of the set of events it reflects, so merging entries in any order, any number
//! of times, gives the same entry; the proof is that of the optimised observed-remove set (Bieniusa
//! et al. 2012) with per-key version vectors (Preguiça et al. 2010, dotted version vectors).
//!
//! Most entries have one value and at most its own mark. That much fits a [record](records), which lies in one piece
//! with its key; what an entry has beyond it lies in a table beside.

mod change;
mod entry;
mod forget;
mod index;
mod look;
mod records;

use alloc::vec::Vec;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::dot::Packed;
use super::order::Order;
use super::replica::Replicas;
use crate::hash::Secret;
use crate::reached::reached;
use crate::room;
use crate::sabotage::sabotaged;

use change::Part;
use entry::More;
pub(super) use entry::{Entry, Sibling};
use index::Index;
use records::{Flags, Place, Records};

/// Free slots that are worth keeping.
const SPARE: usize = 4;
/// The slot of no key.
const NONE: u32 = u32::MAX;

/// What another replica says an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) siblings: &'a [(Packed, &'a [u8])],
    pub(super) superseded: &'a [Packed],
}

impl Told<'_> {
    /// Whether the dot is that of its only sibling.
    pub(super) fn is_of(&self, dot: Packed) -> bool {
        matches!(self.siblings, [(only, _)] if *only == dot)
    }

    /// Whether it says by itself that the dot is reflected.
    pub(super) fn reflects(&self, dot: Packed) -> bool {
        let covers = |other: &Packed| other.replica() == dot.replica() && *other >= dot;
        self.superseded.iter().any(covers)
    }
}

/// What the siblings of an entry are to be.
type Parts<'v> = SmallVec<[(Packed, Part<'v>); 2]>;
/// What its marks are to be.
type Marked = SmallVec<[Packed; 4]>;

/// What a join made of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    /// Whose value was read before, and whose is read now.
    pub(super) before: Option<Packed>,
    pub(super) after: Option<Packed>,
    /// Whether there is nothing to tidy about it; see [`Store::is_tidy`].
    pub(super) tidy: bool,
}

/// The hash of a key, keyed by the store's secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHash(u32);

/// The hash of a key, and its slot if it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    hash: u32,
    pub(super) slot: Option<u32>,
}

/// The hash of a key, and the slot that it may well have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    hash: u32,
    pub(super) slot: u32,
}

/// As many as most datagrams name keys, without an allocation.
pub(super) type Guesses = SmallVec<[Guess; 64]>;

/// All entries in slots, with an index by key.
#[derive(Debug)]
pub(super) struct Store {
    secret: Secret,
    places: Vec<Place>,
    records: Records,
    /// Of the slots whose record says so.
    more: HashMap<u32, More, Secret>,
    index: Index,
    /// Slots of entries that were dropped.
    free: Vec<u32>,
    /// The slots in the order of their keys, if that is wanted.
    order: Option<Order>,
    /// Bytes of keys and values.
    bytes: usize,
    /// Values of this replica's node, and their bytes with those of their keys.
    own: (usize, usize),
    /// Keys with a value.
    live: usize,
    /// Bytes of the longest entry that can be told, and keys whose concurrent values together may exceed it.
    limit: usize,
    large: usize,
    /// Sum of a hash of (key, dot) over all siblings: equal contents have equal sums.
    digest: u64,
}

fn key<'s>(places: &[Place], records: &'s Records, slot: u32) -> &'s [u8] {
    records.get(places[slot as usize]).map_or(&[], |record| record.key)
}

/// The upper half of the keyed hash: an attacker knows neither.
#[allow(clippy::cast_possible_truncation)] // half of it
fn keyed(secret: Secret, key: &[u8]) -> u32 {
    (secret.hash(key) >> 32) as u32
}

fn marked(entry: Entry<'_>) -> Marked {
    let mut superseded = Marked::new();
    for mark in entry.superseded() {
        superseded.push(mark);
    }
    superseded
}

/// All siblings of an entry, as they are.
fn own_parts<'v>(entry: Entry<'_>) -> Parts<'v> {
    entry.siblings().enumerate().map(|(at, own)| (own.dot, Part::Own(at))).collect()
}

fn raise(superseded: &mut Marked, dot: Packed) {
    match superseded.iter_mut().find(|other| other.replica() == dot.replica()) {
        Some(other) => *other = dot.max(*other),
        None => superseded.push(dot),
    }
}

impl Store {
    pub(super) fn new(secret: Secret, limit: usize) -> Self {
        let (places, records, index) = (Vec::new(), Records::default(), Index::default());
        let (more, free, order) = (HashMap::with_hasher(secret), Vec::new(), None);
        let (bytes, live, large, digest) = (0, 0, 0, 0);
        Self {
            secret,
            places,
            records,
            more,
            index,
            free,
            order,
            bytes,
            own: (0, 0),
            live,
            limit,
            large,
            digest,
        }
    }

    /// A store without entries that is like this one.
    pub(super) fn empty(&self) -> Self {
        let new = Self::new(self.secret, self.limit);
        if self.order.is_some() { new.ordered() } else { new }
    }

    /// Gives an entry that has nothing its siblings and marks.
    pub(super) fn fill(&mut self, replicas: &Replicas, slot: u32, told: Told<'_>) {
        let new = |&(dot, value)| (dot, Part::New(value));
        let parts: Parts<'_> = told.siblings.iter().map(new).collect();
        self.set(replicas, slot, &parts, told.superseded);
    }

    /// Keeps the keys in their order from now on: of a store that has none.
    pub(super) fn ordered(self) -> Self {
        Self { order: Some(Order::default()), ..self }
    }

    /// Makes room for so many more keys.
    pub(super) fn reserve(&mut self, more: usize) {
        room::reserve(&mut self.places, more.saturating_sub(self.free.len()));
        self.index.reserve(more);
    }

    /// The slot of `key`, with an empty entry made if there was none.
    pub(super) fn slot_or_insert(&mut self, key: &[u8]) -> u32 {
        let look = self.look(key);
        look.slot.unwrap_or_else(|| self.insert(look, key))
    }

    /// Makes an empty entry for a key that was looked for just now, and not found.
    pub(super) fn insert(&mut self, look: Look, new: &[u8]) -> u32 {
        let place = self.records.add(Packed::from_bits(0), Flags::default(), new, &[]);
        self.insert_at(place, look, new)
    }

    /// The slot of a new key whose record lies there.
    #[allow(clippy::cast_possible_truncation)] // max_keys is at most 2^31
    fn insert_at(&mut self, place: Place, look: Look, new: &[u8]) -> u32 {
        let slot = if let Some(slot) = self.free.pop() {
            self.places[slot as usize] = place;
            slot
        } else {
            room::reserve(&mut self.places, 1);
            self.places.push(place);
            self.places.len() as u32 - 1
        };
        self.bytes += new.len();
        self.index.insert(look.hash, slot);
        if let Some(order) = &mut self.order {
            order.insert(slot, |slot| key(&self.places, &self.records, slot));
        }
        slot
    }

    /// The entries whose keys begin with `prefix`, in the order of the keys. Looks at all keys, unless they are
    /// kept in order.
    pub(super) fn prefix<'s, 'p>(
        &'s self,
        prefix: &'p [u8],
    ) -> impl Iterator<Item = Entry<'s>> + use<'s, 'p> {
        let key = |slot: u32| key(&self.places, &self.records, slot);
        let kept = self.order.as_ref().map(|order| order.from(prefix, key));
        let mut found: Vec<u32> = Vec::new();
        if kept.is_none() {
            // What is free or was removed has no values; those are left to the caller.
            found.extend((0..self.slots()).filter(|slot| key(*slot).starts_with(prefix)));
            found.sort_unstable_by_key(|slot| key(*slot));
        }
        let slots = kept.into_iter().flatten().chain(found);
        slots.map(|slot| self.entry(slot)).take_while(|entry| entry.key.starts_with(prefix))
    }

    /// The entry in a slot; an empty one without a key if it is free.
    #[inline]
    pub(super) fn entry(&self, slot: u32) -> Entry<'_> {
        let Some(record) = self.records.get(self.places[slot as usize]) else {
            return Entry::default();
        };
        let Flags { value, mark, more } = record.flags;
        Entry {
            key: record.key,
            first: value.then_some(Sibling { dot: record.dot, value: record.value }),
            mark: mark.then_some(record.dot),
            more: if more { self.more.get(&slot) } else { None },
        }
    }

    /// The same, if there is such a slot.
    pub(super) fn get(&self, slot: u32) -> Option<Entry<'_>> {
        (slot < self.slots()).then(|| self.entry(slot))
    }

    /// How many slots there are.
    #[allow(clippy::cast_possible_truncation)] // max_keys is at most 2^31
    pub(super) fn slots(&self) -> u32 {
        self.places.len() as u32
    }

    /// All slots; those without siblings and marks are removed keys, or free.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        (0..self.slots()).map(|slot| self.entry(slot))
    }

    /// How many keys there are, removed ones included.
    pub(super) const fn keys(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many values there are of this replica's node, and bytes of those and their keys.
    pub(super) const fn own(&self) -> (usize, usize) {
        self.own
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// How many keys have so many concurrent values that their entries may be told to nobody.
    pub(super) const fn large(&self) -> usize {
        self.large
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Applies a write of this replica: `dot` supersedes the siblings that `reads` accepts and, unless
    /// it is a removal, becomes one itself. The caller claims the dot. Returns whose value was read before, and whose is
    /// read now.
    pub(super) fn write(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        dot: Packed,
        value: Option<&[u8]>,
        reads: impl Fn(Packed) -> bool,
    ) -> (Option<Packed>, Option<Packed>) {
        let entry = self.entry(slot);
        let before = entry.winner(replicas).map(|sibling| sibling.dot);
        let mut superseded = marked(entry);
        for sibling in entry.siblings() {
            raise(&mut superseded, sibling.dot);
        }
        if value.is_none() {
            reached!("map: removal of a value");
        } else if entry.is_removed() {
            reached!("map: write over nothing");
        } else if entry.siblings().any(|sibling| reads(sibling.dot)) {
            reached!("map: write over a value");
        } else {
            reached!("map: write beside a value");
        }
        let own = entry.siblings().enumerate().map(|(at, own)| (own.dot, Part::Own(at)));
        let mut parts: Parts<'_> = own.filter(|(dot, _)| !reads(*dot)).collect();
        parts.extend(value.map(|value| (dot, Part::New(value))));
        raise(&mut superseded, dot);
        if value.is_none() && sabotaged!("removal-unmarked") {
            superseded.retain(|mark| *mark == dot);
        }
        let after = change::winner(replicas, entry, &parts);
        self.set(replicas, slot, &parts, &superseded);
        self.digest = self.digest.wrapping_add(u64::from(sabotaged!("content-hash-drifts")));
        (before, after)
    }

    /// Adds a value to an entry, beside those that it has.
    pub(super) fn add_sibling(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        dot: Packed,
        value: &[u8],
    ) {
        let entry = self.entry(slot);
        let (mut parts, superseded) = (own_parts(entry), marked(entry));
        parts.push((dot, Part::New(value)));
        self.set(replicas, slot, &parts, &superseded);
    }

    /// Makes the digest wrong for ever.
    #[cfg(test)]
    pub(super) const fn spoil_digest(&mut self) {
        self.digest = self.digest.wrapping_add(1);
    }

    /// Takes a value from an entry, as if it had never been there.
    #[cfg(test)]
    pub(super) fn lose_sibling(&mut self, replicas: &Replicas, slot: u32, dot: Packed) {
        let entry = self.entry(slot);
        let (mut parts, superseded) = (own_parts(entry), marked(entry));
        parts.retain(|(own, _)| *own != dot);
        self.set(replicas, slot, &parts, &superseded);
    }

    /// Merges what another replica says of an entry: a sibling survives if both have it, or if the
    /// side that lacks it does not reflect its dot. Of the other side `reflects` says whether it does.
    pub(super) fn join(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        told: Told<'_>,
        reflects: impl Fn(Packed) -> bool,
    ) -> Joined {
        let entry = self.entry(slot);
        let before = entry.winner(replicas).map(|sibling| sibling.dot);
        let has_there = |dot: Packed| told.siblings.iter().any(|(other, _)| *other == dot);
        let mut parts = Parts::new();
        for (at, own) in entry.siblings().enumerate() {
            if keeps(reflects(own.dot), has_there(own.dot)) {
                parts.push((own.dot, Part::Own(at)));
            }
        }
        for &(dot, value) in told.siblings {
            // A hostile peer may name one dot twice; it is one write all the same.
            if accepts(replicas, entry, dot) && parts.iter().all(|(own, _)| *own != dot) {
                parts.push((dot, Part::New(value)));
            }
        }
        if sabotaged!("winner-kept-alone") {
            let winner = change::winner(replicas, entry, &parts);
            parts.retain(|(dot, _)| Some(*dot) == winner);
        }
        match parts.len() {
            0 => reached!("map: join leaves none"),
            1 => {}
            _ => reached!("map: join leaves several values"),
        }
        let mut superseded = marked(entry);
        // Of retired lives it goes without saying.
        for &dot in told.superseded.iter().filter(|dot| !replicas.is_nobody(dot.replica())) {
            raise(&mut superseded, dot);
        }
        if !superseded.is_empty() {
            for (dot, _) in &parts {
                raise(&mut superseded, *dot);
            }
        }
        let after = change::winner(replicas, entry, &parts);
        let settled = superseded.iter().all(|dot| replicas.is_settled(*dot));
        let tidy = !settled || superseded.is_empty() && !parts.is_empty();
        self.set(replicas, slot, &parts, &superseded);
        Joined { before, after, tidy }
    }

    /// Drops the marks of an entry once all peers that count have the writes that they stand for and those
    /// of its values: all at once, for an entry that keeps some of its marks explains less than none does.
    /// An entry without values and marks is nothing; its slot is free for another key.
    pub(super) fn tidy(&mut self, replicas: &Replicas, slot: u32) {
        let entry = self.entry(slot);
        let removed = entry.is_removed();
        let mut dots = entry.superseded().chain(entry.siblings().map(|own| own.dot));
        let nothing = entry.superseded().len() == 0 && !removed;
        let hasty = removed && sabotaged!("removed-key-dropped-early");
        // What one that waits superseded is still to be told.
        let waits = entry.waits(replicas);
        if nothing || waits || !hasty && !dots.all(|dot| replicas.is_settled(dot)) {
            if sabotaged!("marks-dropped-one-by-one") {
                let marks = self.entry(slot).superseded();
                let kept: Marked = marks.filter(|mark| !replicas.is_settled(*mark)).collect();
                self.set_marks(replicas, slot, &kept);
            }
            return;
        }
        self.set_marks(replicas, slot, &[]);
        if removed {
            self.drop_key(slot);
        } else {
            reached!("map: marks dropped");
        }
    }

    fn set_marks(&mut self, replicas: &Replicas, slot: u32, superseded: &[Packed]) {
        let parts = own_parts(self.entry(slot));
        self.set(replicas, slot, &parts, superseded);
    }

    /// Drops a key whose entry is empty, if the slot has one.
    fn drop_key(&mut self, slot: u32) {
        reached!("map: removed key dropped");
        let place = self.places[slot as usize];
        let Some(record) = self.records.get(place) else { return };
        self.bytes -= record.key.len();
        self.index.remove(keyed(self.secret, record.key), slot);
        if let Some(order) = &mut self.order {
            order.remove(slot, |slot| key(&self.places, &self.records, slot));
        }
        self.places[slot as usize] = Place::NONE;
        self.records.free(place);
        self.free.push(slot);
        self.compact();
    }

    /// Gives room back and numbers the slots anew, if most of them are free. Nobody may know their numbers.
    pub(super) fn shrink(&mut self) {
        if self.free.len() >= SPARE.max(self.keys()) {
            self.renumber();
        }
    }

    /// Gives back what room is left of more keys, or of others, while nothing else is to be done. It takes as long as
    /// there is much to give back, but clears one page at a time. Returns whether there may be another. Nobody may
    /// know the numbers of slots.
    pub(super) fn rest(&mut self) -> bool {
        if self.free.len() >= SPARE.max(self.keys() / 4) {
            self.renumber();
        }
        if self.free.capacity() > self.free.len() + SPARE {
            self.free.shrink_to_fit();
        }
        if self.more.capacity() > self.more.len() * 4 + SPARE {
            self.more.shrink_to_fit();
        }
        self.index.fit();
        self.compact_at_rest()
    }

    fn renumber(&mut self) {
        let mut next = 0;
        let number = |place: &Place| {
            next += u32::from(*place != Place::NONE);
            next.saturating_sub(1)
        };
        let numbers: Vec<u32> = self.places.iter().map(number).collect();
        let new = |slot: u32| numbers[slot as usize];
        if let Some(order) = &mut self.order {
            order.renumber(new);
        }
        self.index.renumber(new);
        let more = core::mem::replace(&mut self.more, HashMap::with_hasher(self.secret));
        self.more.extend(more.into_iter().map(|(slot, more)| (new(slot), more)));
        self.free = Vec::new();
        self.places.retain(|place| *place != Place::NONE);
        self.places.shrink_to_fit();
    }

    /// Whether there is nothing to tidy about an entry, as far as its marks tell.
    pub(super) fn is_tidy(&self, replicas: &Replicas, slot: u32) -> bool {
        let entry = self.entry(slot);
        let settled = entry.superseded().all(|dot| replicas.is_settled(dot));
        let nothing = entry.superseded().len() == 0 && !entry.is_removed();
        !settled || nothing || entry.waits(replicas)
    }

    /// How many marks the entries have. Looks at all of them.
    pub(super) fn marks(&self) -> usize {
        self.entries().map(|entry| entry.superseded().len()).sum()
    }
}

/// Whether a sibling stays of which the other side knows that it was superseded, or has it too.
fn keeps(gone: bool, both: bool) -> bool {
    let gone = gone && !sabotaged!("join-keeps-superseded");
    let keep = both || !gone && !sabotaged!("join-drops-own");
    if both {
        reached!("map: join keeps a value that both have");
    } else if keep {
        reached!("map: join keeps a value unknown there");
    } else {
        reached!("map: join drops a superseded value");
    }
    keep
}

/// Whether a sibling that is told is news to an entry as it was before.
fn accepts(replicas: &Replicas, entry: Entry<'_>, dot: Packed) -> bool {
    let (known, superseded) = (replicas.contains(dot), entry.supersedes(dot));
    if known {
        reached!("map: join brings a known value");
    } else if superseded {
        reached!("map: join brings a value superseded here");
    } else {
        reached!("map: join brings a value");
    }
    let superseded = superseded && !sabotaged!("mark-ignored");
    !known && !superseded || sabotaged!("join-revives")
}

#[cfg(test)]
mod tests;
