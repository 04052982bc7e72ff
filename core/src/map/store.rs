//! The entries: concurrent values as siblings, and what they supersede.
//!
//! An entry is the pair (siblings, superseded). `superseded` holds, per replica, the greatest counter
//! n such that all of that replica's events on this key up to n are reflected here. The value of an
//! entry is a function of the set of events it reflects, so merging entries in any order, any number
//! of times, gives the same entry; the proof is that of the optimised observed-remove set (Bieniusa
//! et al. 2012) with per-key version vectors (Preguiça et al. 2010, dotted version vectors).

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::dot::Packed;
use super::fragment;
use super::order::Order;
use super::policy::Policy;
use super::replica::Replicas;
use crate::hash::{self, Secret};
use crate::hrw;
use crate::reached::reached;
use crate::sabotage::sabotaged;

/// Free slots that are worth keeping.
const SPARE: usize = 32;

/// One of the concurrent values of a key.
#[derive(Debug)]
pub(super) struct Sibling {
    pub(super) dot: Packed,
    pub(super) value: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    /// The wire-stable hash of the key, which scores its writers.
    hash: u64,
    /// One in steady state, none if the key is removed, several after concurrent writes.
    pub(super) siblings: SmallVec<[Sibling; 1]>,
    /// At most one dot per replica: its greatest reflected one on this key.
    pub(super) superseded: SmallVec<[Packed; 2]>,
}

impl Entry {
    /// Whether all events of the dot's replica up to the dot are reflected by supersession.
    pub(super) fn supersedes(&self, dot: Packed) -> bool {
        let of_replica = |other: &&Packed| other.replica() == dot.replica();
        self.superseded.iter().find(of_replica).is_some_and(|other| *other >= dot)
    }

    /// Whether it has neither values nor marks: a key that was never written, or its free slot.
    pub(super) fn is_empty(&self) -> bool {
        self.siblings.is_empty() && self.superseded.is_empty()
    }

    fn raise(&mut self, dot: Packed) {
        match self.superseded.iter_mut().find(|other| other.replica() == dot.replica()) {
            Some(other) => *other = dot.max(*other),
            None => self.superseded.push(dot),
        }
    }

    /// The sibling that is read: of the writer with the highest unweighted score for the key,
    /// whoever is alive; among one node's the latest.
    pub(super) fn winner(&self, replicas: &Replicas) -> Option<&Sibling> {
        match self.siblings.as_slice() {
            [] => None,
            [only] => Some(only),
            several if sabotaged!("latest-wins") => {
                several.iter().max_by_key(|sibling| replicas.dot(sibling.dot).counter)
            }
            several if replicas.policy() == Policy::Lamport => {
                several.iter().max_by_key(|sibling| Policy::rank(replicas, sibling))
            }
            several => {
                #[cfg(feature = "sim")]
                note_ties(replicas, several);
                several.iter().max_by_key(|sibling| {
                    let dot = replicas.dot(sibling.dot);
                    let node = dot.replica.node;
                    (hrw::score(self.hash, node), node, dot.replica.epoch, dot.counter)
                })
            }
        }
    }
}

/// What another replica says an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) siblings: &'a [(Packed, &'a [u8])],
    pub(super) superseded: &'a [Packed],
}

impl Told<'_> {
    /// Whether it says by itself that the dot is reflected.
    pub(super) fn reflects(&self, dot: Packed) -> bool {
        let covers = |other: &Packed| other.replica() == dot.replica() && *other >= dot;
        self.superseded.iter().any(covers)
    }
}

/// All entries in slots, with an index by key.
#[derive(Debug)]
pub(super) struct Store {
    secret: Secret,
    entries: Vec<Entry>,
    index: HashTable<u32>,
    /// Slots of entries that were dropped.
    free: Vec<u32>,
    /// The slots in the order of their keys, if that is wanted.
    order: Option<Order>,
    /// Bytes of keys and values.
    bytes: usize,
    /// Keys with a value.
    live: usize,
    /// Bytes of the longest entry that can be told, and keys whose concurrent values together may exceed it.
    limit: usize,
    large: usize,
    /// Sum of a hash of (key, dot) over all siblings: equal contents have equal sums.
    digest: u64,
}

impl Store {
    pub(super) fn new(secret: Secret, limit: usize) -> Self {
        let (entries, index, free) = (Vec::new(), HashTable::new(), Vec::new());
        let order = None;
        Self { secret, entries, index, free, order, bytes: 0, live: 0, limit, large: 0, digest: 0 }
    }

    /// A store without entries that is like this one.
    pub(super) fn empty(&self) -> Self {
        let new = Self::new(self.secret, self.limit);
        if self.order.is_some() { new.ordered() } else { new }
    }

    /// Gives an entry that has nothing its siblings and marks.
    pub(super) fn fill(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        siblings: SmallVec<[Sibling; 1]>,
        superseded: SmallVec<[Packed; 2]>,
    ) {
        self.uncount(replicas, slot);
        let entry = &mut self.entries[slot as usize];
        (entry.siblings, entry.superseded) = (siblings, superseded);
        self.count(replicas, slot);
    }

    /// Keeps the keys in their order from now on: of a store that has none.
    pub(super) fn ordered(self) -> Self {
        Self { order: Some(Order::default()), ..self }
    }

    pub(super) fn slot(&self, key: &[u8]) -> Option<u32> {
        let same = |slot: &u32| *self.entries[*slot as usize].key == *key;
        self.index.find(self.secret.hash(key), same).copied()
    }

    /// The slot of `key`, with an empty entry made if there was none.
    #[allow(clippy::cast_possible_truncation)] // max_keys is at most 2^31
    pub(super) fn slot_or_insert(&mut self, key: &[u8]) -> u32 {
        if let Some(slot) = self.slot(key) {
            return slot;
        }
        let entry = Entry {
            key: key.into(),
            hash: hrw::key_hash(key),
            siblings: SmallVec::new(),
            superseded: SmallVec::new(),
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = entry;
            slot
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        self.bytes += key.len();
        let (secret, entries) = (self.secret, &self.entries);
        let rehash = |slot: &u32| secret.hash(&entries[*slot as usize].key);
        self.index.insert_unique(secret.hash(key), slot, rehash);
        if let Some(order) = &mut self.order {
            order.insert(slot, |slot| &*entries[slot as usize].key);
        }
        slot
    }

    /// The entries whose keys begin with `prefix`, in the order of the keys. Looks at all keys, unless they are
    /// kept in order.
    pub(super) fn prefix<'s, 'p>(
        &'s self,
        prefix: &'p [u8],
    ) -> impl Iterator<Item = &'s Entry> + use<'s, 'p> {
        let key = |slot: u32| &*self.entry(slot).key;
        let kept = self.order.as_ref().map(|order| order.from(prefix, key));
        let mut found: Vec<u32> = Vec::new();
        if kept.is_none() {
            // What is free or was removed has no values; those are left to the caller.
            let all = (0..).zip(&self.entries);
            let those = all.filter(|(_, entry)| entry.key.starts_with(prefix));
            found.extend(those.map(|(slot, _)| slot));
            found.sort_unstable_by_key(|slot| key(*slot));
        }
        let slots = kept.into_iter().flatten().chain(found);
        slots.map(|slot| self.entry(slot)).take_while(|entry| entry.key.starts_with(prefix))
    }

    pub(super) fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    /// All slots; those without siblings and marks are removed keys, or free.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many keys there are, removed ones included.
    pub(super) const fn keys(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
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
    /// it is a removal, becomes one itself. The caller claims the dot.
    pub(super) fn write(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        dot: Packed,
        value: Option<&[u8]>,
        reads: impl Fn(Packed) -> bool,
    ) {
        self.uncount(replicas, slot);
        let entry = &mut self.entries[slot as usize];
        for at in 0..entry.siblings.len() {
            entry.raise(entry.siblings[at].dot);
        }
        if value.is_none() {
            reached!("map: removal of a value");
        } else if entry.siblings.is_empty() {
            reached!("map: write over nothing");
        } else if entry.siblings.iter().any(|sibling| reads(sibling.dot)) {
            reached!("map: write over a value");
        } else {
            reached!("map: write beside a value");
        }
        let mut reuse = None;
        entry.siblings.retain(|sibling| {
            let keep = !reads(sibling.dot);
            if !keep {
                reuse = Some(core::mem::take(&mut sibling.value));
            }
            keep
        });
        if let Some(value) = value {
            entry.siblings.push(Sibling { dot, value: fill(reuse, value) });
        }
        entry.raise(dot);
        if value.is_none() && sabotaged!("removal-unmarked") {
            entry.superseded.retain(|mark| *mark == dot);
        }
        self.count(replicas, slot);
        self.digest = self.digest.wrapping_add(u64::from(sabotaged!("content-hash-drifts")));
    }

    /// Adds a value to an entry, beside those that it has.
    pub(super) fn add_sibling(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        dot: Packed,
        value: &[u8],
    ) {
        self.uncount(replicas, slot);
        self.entries[slot as usize].siblings.push(Sibling { dot, value: value.into() });
        self.count(replicas, slot);
    }

    /// Makes the digest wrong for ever.
    #[cfg(test)]
    pub(super) const fn spoil_digest(&mut self) {
        self.digest = self.digest.wrapping_add(1);
    }

    /// Takes a value from an entry, as if it had never been there.
    #[cfg(test)]
    pub(super) fn lose_sibling(&mut self, replicas: &Replicas, slot: u32, dot: Packed) {
        self.uncount(replicas, slot);
        self.entries[slot as usize].siblings.retain(|own| own.dot != dot);
        self.count(replicas, slot);
    }

    /// Merges what another replica says of an entry: a sibling survives if both have it, or if the
    /// side that lacks it does not reflect its dot. Of the other side `reflects` says whether it does.
    pub(super) fn join(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        told: Told<'_>,
        reflects: impl Fn(Packed) -> bool,
    ) {
        self.uncount(replicas, slot);
        let entry = &mut self.entries[slot as usize];
        let has_there = |dot: Packed| told.siblings.iter().any(|(other, _)| *other == dot);
        // Judge the incoming by the entry as it was, before anything of it is dropped.
        let accepted: SmallVec<[bool; 4]> = told
            .siblings
            .iter()
            .map(|(dot, _)| {
                let (known, superseded) = (replicas.contains(*dot), entry.supersedes(*dot));
                if known {
                    reached!("map: join brings a known value");
                } else if superseded {
                    reached!("map: join brings a value superseded here");
                } else {
                    reached!("map: join brings a value");
                }
                let superseded = superseded && !sabotaged!("mark-ignored");
                !known && !superseded || sabotaged!("join-revives")
            })
            .collect();
        let mut spare: SmallVec<[Box<[u8]>; 1]> = SmallVec::new();
        entry.siblings.retain(|own| {
            let gone = reflects(own.dot) && !sabotaged!("join-keeps-superseded");
            let both = has_there(own.dot);
            let keep = both || !gone && !sabotaged!("join-drops-own");
            if both {
                reached!("map: join keeps a value that both have");
            } else if keep {
                reached!("map: join keeps a value unknown there");
            } else {
                reached!("map: join drops a superseded value");
            }
            if !keep {
                spare.push(core::mem::take(&mut own.value));
            }
            keep
        });
        for (&(dot, value), _) in
            told.siblings.iter().zip(accepted).filter(|(_, accepted)| *accepted)
        {
            // A hostile peer may name one dot twice; it is one write all the same.
            if entry.siblings.iter().all(|own| own.dot != dot) {
                entry.siblings.push(Sibling { dot, value: fill(spare.pop(), value) });
            }
        }
        if sabotaged!("winner-kept-alone")
            && let Some(winner) = entry.winner(replicas).map(|sibling| sibling.dot)
        {
            entry.siblings.retain(|sibling| sibling.dot == winner);
        }
        match entry.siblings.len() {
            0 => reached!("map: join leaves none"),
            1 => {}
            _ => reached!("map: join leaves several values"),
        }
        for &dot in told.superseded {
            entry.raise(dot);
        }
        if !entry.superseded.is_empty() {
            for at in 0..entry.siblings.len() {
                entry.raise(entry.siblings[at].dot);
            }
        }
        self.count(replicas, slot);
    }

    /// Drops the marks of an entry once all peers that count have the writes that they stand for and those
    /// of its values: all at once, for an entry that keeps some of its marks explains less than none does.
    /// An entry without values and marks is nothing; its slot is free for another key.
    pub(super) fn tidy(&mut self, replicas: &Replicas, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        let mut dots = entry.superseded.iter().chain(entry.siblings.iter().map(|own| &own.dot));
        let nothing = entry.superseded.is_empty() && !entry.siblings.is_empty();
        let hasty = entry.siblings.is_empty() && sabotaged!("removed-key-dropped-early");
        if nothing || !hasty && !dots.all(|dot| replicas.is_settled(*dot)) {
            if sabotaged!("marks-dropped-one-by-one") {
                entry.superseded.retain(|mark| !replicas.is_settled(*mark));
            }
            return;
        }
        let large = usize::from(self.is_large(slot));
        let entry = &mut self.entries[slot as usize];
        entry.superseded = SmallVec::new();
        self.large = self.large - large + usize::from(self.is_large(slot));
        if !self.entries[slot as usize].siblings.is_empty() {
            reached!("map: marks dropped");
            return;
        }
        reached!("map: removed key dropped");
        if let Some(order) = &mut self.order {
            order.remove(slot, |slot| &*self.entries[slot as usize].key);
        }
        let key = core::mem::take(&mut self.entries[slot as usize].key);
        self.bytes -= key.len();
        if let Ok(place) = self.index.find_entry(self.secret.hash(&key), |other| *other == slot) {
            place.remove();
            self.free.push(slot);
        }
    }

    /// Gives room back and numbers the slots anew, if most of them are free. Nobody may know their numbers.
    #[allow(clippy::cast_possible_truncation)] // max_keys is at most 2^31
    pub(super) fn shrink(&mut self) {
        if self.free.len() < SPARE || self.free.len() < self.keys() {
            return;
        }
        let mut free = alloc::vec![false; self.entries.len()];
        core::mem::take(&mut self.free).into_iter().for_each(|slot| free[slot as usize] = true);
        if let Some(order) = &mut self.order {
            let mut next = 0;
            let number = |free: &bool| {
                next += u32::from(!free);
                next.saturating_sub(1)
            };
            let numbers: Vec<u32> = free.iter().map(number).collect();
            order.renumber(|slot| numbers[slot as usize]);
        }
        let mut free = free.into_iter();
        self.entries.retain(|_| !free.next().unwrap_or(false));
        self.entries.shrink_to_fit();
        let (secret, entries) = (self.secret, &self.entries);
        let hash = |slot: &u32| secret.hash(&entries[*slot as usize].key);
        self.index = HashTable::with_capacity(entries.len());
        for slot in 0..entries.len() as u32 {
            self.index.insert_unique(hash(&slot), slot, hash);
        }
    }

    /// Whether there is nothing to tidy about an entry, as far as its marks tell.
    pub(super) fn is_tidy(&self, replicas: &Replicas, slot: u32) -> bool {
        let entry = self.entry(slot);
        let settled = entry.superseded.iter().all(|dot| replicas.is_settled(*dot));
        !settled || entry.superseded.is_empty() && !entry.siblings.is_empty()
    }

    /// How many marks the entries have. Looks at all of them.
    pub(super) fn marks(&self) -> usize {
        self.entries.iter().map(|entry| entry.superseded.len()).sum()
    }

    /// Takes an entry out of the sums, before it changes.
    fn uncount(&mut self, replicas: &Replicas, slot: u32) {
        let sums = self.sums(replicas, slot);
        self.digest = self.digest.wrapping_sub(sums.0);
        self.bytes -= sums.1;
        self.live -= usize::from(sums.2);
        self.large -= usize::from(self.is_large(slot));
    }

    fn count(&mut self, replicas: &Replicas, slot: u32) {
        let sums = self.sums(replicas, slot);
        self.digest = self.digest.wrapping_add(sums.0);
        self.bytes += sums.1;
        self.live += usize::from(sums.2);
        self.large += usize::from(self.is_large(slot));
    }

    /// Whether an entry may be too long to be told. Writers see to it that theirs are not.
    fn is_large(&self, slot: u32) -> bool {
        let entry = self.entry(slot);
        entry.siblings.len() > 1 && fragment::is_too_large(entry, self.limit)
    }

    fn sums(&self, replicas: &Replicas, slot: u32) -> (u64, usize, bool) {
        let entry = &self.entries[slot as usize];
        let (mut digest, mut bytes) = (0_u64, 0);
        for sibling in &entry.siblings {
            digest = digest.wrapping_add(hash::mix2(entry.hash, replicas.hash(sibling.dot)));
            bytes += sibling.value.len();
        }
        (digest, bytes, !entry.siblings.is_empty())
    }
}

/// By what it is decided which of several values is read.
#[cfg(feature = "sim")]
fn note_ties(replicas: &Replicas, several: &[Sibling]) {
    let dots = || several.iter().map(|sibling| replicas.dot(sibling.dot).replica);
    for (at, one) in dots().enumerate() {
        for other in dots().skip(at + 1) {
            if one == other {
                reached!("map: read by counter");
            } else if one.node == other.node {
                reached!("map: read by epoch");
            } else {
                reached!("map: read by score");
            }
        }
    }
}

/// A copy of `value`, in the space of an overwritten one where the sizes agree.
fn fill(spare: Option<Box<[u8]>>, value: &[u8]) -> Box<[u8]> {
    match spare {
        Some(mut old) if old.len() == value.len() => {
            let torn = if sabotaged!("value-torn") { value.len() / 2 } else { 0 };
            old[torn..].copy_from_slice(&value[torn..]);
            old
        }
        _ => value.into(),
    }
}

#[cfg(test)]
mod tests;
