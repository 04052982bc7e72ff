//! Changing an entry: the sums, and what of it lies where.

use alloc::boxed::Box;
use core::cell::OnceCell;

use smallvec::SmallVec;

use super::entry::{self, Apart, Entry, More};
use super::records::{self, Flags, MAX_VALUE};
use super::{Guess, Look, Store, keeps, keyed};
use crate::hash;
use crate::hrw;
use crate::map::dot::Packed;
use crate::map::fragment;
use crate::map::policy;
use crate::map::replica::Replicas;
use crate::sabotage::sabotaged;

/// A sibling of an entry that changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'v> {
    /// The value of the sibling that had this number.
    Own(usize),
    New(&'v [u8]),
}

type Parts<'p, 'v> = &'p [(Packed, Part<'v>)];

/// Which of these siblings is read, of an entry that is to have them.
pub(super) fn winner(
    replicas: &Replicas,
    entry: Entry<'_>,
    parts: Parts<'_, '_>,
) -> Option<Packed> {
    let value = |part: Part<'_>| match part {
        Part::Own(at) => entry.siblings().nth(at).map_or(0, |own| policy::time(own.value)),
        Part::New(value) => policy::time(value),
    };
    entry::winner(replicas, entry.key, parts.iter().map(|(dot, part)| (*dot, *part)), value)
}

impl Store {
    /// Gives an entry other siblings and marks, and brings the sums up to date. Those of its own siblings that
    /// stay come first, in their order.
    pub(super) fn set(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        parts: Parts<'_, '_>,
        superseded: &[Packed],
    ) {
        let entry = self.entry(slot);
        let large = self.large - usize::from(self.is_large(entry));
        let sums = self.sums(replicas, entry, parts);
        self.large = large;
        (self.digest, self.bytes, self.live, self.own) = sums;
        self.place(slot, parts, superseded);
        if parts.len() > 1 {
            self.large += usize::from(self.is_large(self.entry(slot)));
        }
        self.compact();
    }

    /// Lets a lone value with its own mark follow the lone one that its writer gave the key before. A join comes to the
    /// same. Returns whose value was read before; or nothing, and changes nothing, if it may not be as simple.
    #[inline]
    pub(in crate::map) fn follow(
        &mut self,
        replicas: &Replicas,
        guess: Guess,
        key: &[u8],
        dot: Packed,
        value: &[u8],
    ) -> Option<Packed> {
        let place = *self.places.get(guess.slot as usize)?;
        let old = self.records.get(place)?;
        let follows = old.dot.replica() == dot.replica() && old.dot < dot;
        let lone = old.flags.value && !old.flags.more && value.len() <= MAX_VALUE;
        let simple = follows && lone && old.key == key && !keeps(true, false);
        if !simple {
            return None;
        }
        let (before, len) = (old.dot, old.value.len());
        let half = hash::half(hrw::key_hash(key));
        let gone = hash::mix_with(half, replicas.hash(before));
        let new = hash::mix_with(half, replicas.hash(dot));
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(new);
        self.bytes = self.bytes - len + value.len();
        if replicas.is_mine(dot) {
            self.own.1 = self.own.1 - len + value.len();
        }
        let flags = Flags { value: true, mark: true, more: false };
        if len == value.len() {
            self.records.put_over(place, dot, flags, key.len(), value, torn(value));
        } else {
            self.places[guess.slot as usize] = self.records.put(place, dot, flags, value, 0);
            self.compact();
        }
        Some(before)
    }

    /// Makes an entry that is a lone value, with its own mark or without, for a key that was looked for just now, and not
    /// found. A join with an empty entry comes to the same. Returns its slot; or nothing, and changes nothing, if
    /// the value is long.
    pub(in crate::map) fn insert_lone(
        &mut self,
        replicas: &Replicas,
        look: Look,
        key: &[u8],
        dot: Packed,
        value: &[u8],
        mark: bool,
    ) -> Option<u32> {
        if value.len() > MAX_VALUE {
            return None;
        }
        let flags = Flags { value: true, mark, more: false };
        let place = self.records.add(dot, flags, key, value);
        let sum = hash::mix2(hrw::key_hash(key), replicas.hash(dot));
        self.digest = self.digest.wrapping_add(sum);
        self.bytes += value.len();
        self.live += 1;
        if replicas.is_mine(dot) {
            self.own = (self.own.0 + 1, self.own.1 + key.len() + value.len());
        }
        Some(self.insert_at(place, look, key))
    }

    /// Whether an entry may be too long to be told. Writers see to it that theirs are not.
    fn is_large(&self, entry: Entry<'_>) -> bool {
        entry.siblings().len() > 1 && fragment::is_too_large(entry, self.limit)
    }

    /// Digest, bytes, live keys and own values without those siblings that go, and with those that come.
    fn sums(
        &self,
        replicas: &Replicas,
        entry: Entry<'_>,
        parts: Parts<'_, '_>,
    ) -> (u64, usize, usize, (usize, usize)) {
        // Many changes are of marks alone.
        let hash = OnceCell::new();
        let sum =
            |dot| hash::mix2(*hash.get_or_init(|| hrw::key_hash(entry.key)), replicas.hash(dot));
        let (mut digest, mut bytes, mut own) = (self.digest, self.bytes, self.own);
        let key = entry.key.len();
        for (at, sibling) in entry.siblings().enumerate() {
            let stays = |part: &(Packed, Part<'_>)| matches!(part.1, Part::Own(own) if own == at);
            if !parts.iter().any(stays) {
                digest = digest.wrapping_sub(sum(sibling.dot));
                bytes -= sibling.value.len();
                if replicas.is_mine(sibling.dot) {
                    own = (own.0 - 1, own.1 - key - sibling.value.len());
                }
            }
        }
        for (dot, part) in parts {
            if let Part::New(value) = part {
                digest = digest.wrapping_add(sum(*dot));
                bytes += value.len();
                if replicas.is_mine(*dot) {
                    own = (own.0 + 1, own.1 + key + value.len());
                }
            }
        }
        let live = self.live - usize::from(!entry.is_removed()) + usize::from(!parts.is_empty());
        (digest, bytes, live, own)
    }

    /// Puts the first sibling into the record, if it is short, and a mark that is the only one and of no other dot.
    /// The rest goes beside.
    fn place(&mut self, slot: u32, parts: Parts<'_, '_>, superseded: &[Packed]) {
        let place = self.places[slot as usize];
        let Some(record) = self.records.get(place) else { return };
        let (was, len) = (record.flags, record.value.len());
        if let ([(dot, Part::New(value))], false) = (parts, was.more)
            && value.len() <= MAX_VALUE
            && superseded.len() < 2
            && superseded.iter().all(|mark| mark == dot)
        {
            let flags = Flags { value: true, mark: !superseded.is_empty(), more: false };
            let from = if was.value && len == value.len() { torn(value) } else { 0 };
            self.places[slot as usize] = self.records.put(place, *dot, flags, value, from);
            return;
        }
        let before = usize::from(was.value);
        let mut old = was.more.then(|| self.more.remove(&slot)).flatten().unwrap_or_default();
        let (first, rest) = match parts.split_first() {
            Some((first, rest)) if old.len(first.1, before) <= MAX_VALUE => (Some(first), rest),
            _ => (None, parts),
        };
        let mark = match (superseded, first) {
            ([mark], Some((dot, _))) => mark == dot,
            ([_], None) => true,
            _ => false,
        };
        let moved: Box<[u8]>;
        let value = match first {
            Some((_, Part::Own(0))) if was.value => None,
            Some((_, part @ Part::Own(_))) => {
                moved = old.value(*part, before);
                Some(&*moved)
            }
            Some((_, Part::New(value))) => Some(*value),
            None => Some(&[][..]),
        };
        let apart =
            |(dot, part): &(Packed, Part<'_>)| Apart { dot: *dot, value: old.value(*part, before) };
        let siblings: SmallVec<[Apart; 1]> = rest.iter().map(apart).collect();
        let beside = if mark { &[][..] } else { superseded };
        let more = !siblings.is_empty() || !beside.is_empty();
        let flags = Flags { value: first.is_some(), mark, more };
        let dot = first.map(|(dot, _)| *dot).or_else(|| superseded.first().copied());
        let dot = dot.unwrap_or(Packed::from_bits(0));
        if more {
            self.more.insert(slot, More { siblings, superseded: beside.into() });
        }
        let Some(value) = value else {
            self.records.set(place, dot, flags);
            return;
        };
        let over = was.value && first.is_some() && value.len() == len;
        let from = if over { torn(value) } else { 0 };
        self.places[slot as usize] = self.records.put(place, dot, flags, value, from);
    }

    /// Moves the records out of a page that is not worth its room, if there is one.
    pub(super) fn compact(&mut self) {
        if let Some(page) = self.records.wasteful() {
            self.clear_page(page);
        }
    }

    /// The same for a page that is not worth its room where time costs nothing. Returns whether there was one.
    pub(super) fn compact_at_rest(&mut self) -> bool {
        let page = self.records.untidy();
        if let Some(page) = page {
            self.clear_page(page);
        }
        page.is_some()
    }

    fn clear_page(&mut self, page: usize) {
        let bytes = self.records.take(page);
        for (old, record) in records::walk(page, &bytes) {
            let hash = keyed(self.secret, record.key);
            let slot = self.index.find(hash, |slot| self.places[slot as usize] == old);
            if let Some(slot) = slot {
                let new = self.records.add(record.dot, record.flags, record.key, record.value);
                self.places[slot as usize] = new;
            }
        }
        self.records.cleared(page);
    }
}

/// From where on a value is written over one of its length.
fn torn(value: &[u8]) -> usize {
    if sabotaged!("value-torn") { value.len() / 2 } else { 0 }
}

impl More {
    /// How long the value of a part is; that of the first sibling is zero if it is in the record already.
    fn len(&self, part: Part<'_>, before: usize) -> usize {
        match part {
            Part::Own(at) => at.checked_sub(before).map_or(0, |at| self.siblings[at].value.len()),
            Part::New(value) => value.len(),
        }
    }

    /// The value of a part, which is not in the record. `before` siblings were. One that is new takes the space of
    /// one that goes, where the sizes agree.
    fn value(&mut self, part: Part<'_>, before: usize) -> Box<[u8]> {
        match part {
            Part::Own(at) => core::mem::take(&mut self.siblings[at - before].value),
            Part::New(value) => {
                let same = |old: &&mut Apart| old.value.len() == value.len();
                let Some(spare) = self.siblings.iter_mut().find(same) else { return value.into() };
                let from = torn(value);
                spare.value[from..].copy_from_slice(&value[from..]);
                core::mem::take(&mut spare.value)
            }
        }
    }
}
