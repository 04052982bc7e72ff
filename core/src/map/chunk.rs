//! Chunks: writing what a peer lacks. [`apply`](super::apply) is the other side.
//!
//! A chunk is self-contained: whole entries with exactly the dots they explain. Loss, reordering and
//! duplication of chunks, in any number and combination, are harmless: what was not claimed is asked
//! for again.

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::dot::Packed;
use super::introduced::Introduced;
use super::peer::{Cursor, Theirs};
use super::replica::Replicas;
use super::store::{Entry, Store};
use super::window::{self, Most, Window};
use super::wire::{
    self, FLAG_LAST, FLAG_MORE, ITEM_BARE, ITEM_FULL, ITEM_KEY, ITEM_OWN, ITEM_REF, Span,
};
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::wire::{NoRoom, Writer};

/// Which key has which number in the chunk being written: a table of those that it names, by their slots.
#[derive(Debug, Default)]
pub(super) struct Marks {
    serial: u32,
    /// How many are of this serial: at most half as many as there are places. Others are places that are free.
    len: usize,
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    serial: u32,
    slot: u32,
    number: u32,
}

impl Marks {
    /// How many have a number.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Gives a slot this number. Returns the one that it had.
    pub(super) fn replace(&mut self, slot: u32, number: u32) -> Option<u32> {
        if let Some(place) = self.place(slot) {
            let mark = &mut self.marks[place];
            if mark.serial == self.serial {
                return Some(core::mem::replace(&mut mark.number, number));
            }
        }
        self.set(slot, number);
        None
    }

    /// Gives the room for more than so many back.
    pub(super) fn shrink_to(&mut self, room: usize) {
        if self.marks.len() > room * 2 {
            *self = Self::default();
        }
    }

    /// Forgets all numbers.
    pub(super) fn begin(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        self.len = 0;
        if self.serial == 0 {
            self.marks.clear();
            self.serial = 1;
        }
    }

    /// The place of a slot, or the free one that it would get.
    fn place(&self, slot: u32) -> Option<usize> {
        let mask = self.marks.len().checked_sub(1)?;
        // Knuth's multiplicative hash; slots are numbered here, so nobody else chooses them.
        let mut at = slot.wrapping_mul(0x9e37_79b1).rotate_left(16) as usize & mask;
        while self.marks[at].serial == self.serial && self.marks[at].slot != slot {
            at = (at + 1) & mask;
        }
        Some(at)
    }

    fn get(&self, slot: u32) -> Option<u32> {
        let mark = self.marks[self.place(slot)?];
        (mark.serial == self.serial).then_some(mark.number)
    }

    /// Notes a slot that has no number yet.
    fn set(&mut self, slot: u32, number: u32) {
        if self.len * 2 >= self.marks.len() {
            let wider = alloc::vec![Mark::default(); (self.marks.len() * 2).max(64)];
            let old = core::mem::replace(&mut self.marks, wider);
            let serial = self.serial;
            old.into_iter().filter(|mark| mark.serial == serial).for_each(|mark| self.put(mark));
        }
        self.put(Mark { serial: self.serial, slot, number });
        self.len += 1;
    }

    fn put(&mut self, mark: Mark) {
        if let Some(place) = self.place(mark.slot) {
            self.marks[place] = mark;
        }
    }
}

/// Dots to look through for one chunk; one window is looked through to its end.
const MAX_LOOKED: u64 = 1 << 16;
/// How many dots ahead entries are brought near: about as many as a datagram holds.
const AHEAD: usize = 32;

/// At most how many bytes it takes to tell of this entry alone, after a write that supersedes the siblings that
/// `reads` accepts.
pub(super) fn encoded_len(
    entry: Entry<'_>,
    value: Option<&[u8]>,
    reads: impl Fn(Packed) -> bool,
) -> usize {
    // Datagram header and trailer, frame, addressee, nonce, number, flags, run, item, two counts.
    const FIXED: usize = 28 + 3 + 8 + 10 + 10 + 1 + 20 + 1 + 6;
    // A replica is introduced once (17 bytes) and referred to (2), a counter has at most 7.
    const DOT: usize = 17 + 2 + 7;
    let kept = entry.siblings().filter(|sibling| !reads(sibling.dot));
    let kept: usize = kept.map(|sibling| DOT + 3 + sibling.value.len()).sum();
    let own = value.map_or(0, |value| 9 + 3 + value.len());
    // Values that have no mark yet get one.
    let marked = |dot: Packed| entry.superseded().any(|mark| mark.replica() == dot.replica());
    let unmarked = entry.siblings().filter(|sibling| !marked(sibling.dot)).count();
    let marks = entry.superseded().len() + unmarked + 1;
    FIXED + entry.key.len() + kept + own + DOT * marks
}

/// The place of a chunk in the answer to a pull.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) nonce: u64,
    pub(super) number: u64,
    /// Whether the answer goes on after what fits datagrams.
    pub(super) goes_on: bool,
}

/// Ends the answer to a pull with a chunk of nothing. `more` if not all is told.
pub(super) fn write_end(
    w: &mut Writer<'_>,
    addressee: u64,
    nonce: u64,
    number: u64,
    more: bool,
) -> Result<(), NoRoom> {
    w.frame(wire::CHUNK, |w| {
        w.u64(addressee)?;
        w.varint(nonce)?;
        w.varint(number)?;
        w.u8(if more { FLAG_LAST | FLAG_MORE } else { FLAG_LAST })
    })
}

/// How a chunk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything that the peer lacks is in it or in chunks before it.
    Complete,
    /// The datagram is full.
    Full,
    /// The budget is used up.
    Budget,
    /// What comes next fits no datagram; nothing was written.
    Large,
}

/// The window that is told now, and room to look through the next.
struct Windows<'m> {
    now: &'m mut Option<Window>,
    seen: &'m mut Marks,
    most: Most,
    /// How many dots were looked through for this chunk.
    looked: u64,
}

/// Writes one chunk.
pub(super) struct ChunkWriter<'m> {
    pub(super) replicas: &'m Replicas,
    pub(super) store: &'m Store,
    pub(super) marks: &'m mut Marks,
    /// What the receiver has.
    pub(super) theirs: Theirs<'m>,
    /// Of an answer: what of it was overwritten.
    window: Option<Windows<'m>>,
    introduced: Introduced,
    objects: u32,
    /// The run being written: replica, last counter, place of its count, count.
    run: Option<(u16, u64, usize, u8)>,
}

impl<'m> ChunkWriter<'m> {
    pub(super) fn new(
        replicas: &'m Replicas,
        store: &'m Store,
        marks: &'m mut Marks,
        theirs: Theirs<'m>,
    ) -> Self {
        if !sabotaged!("marks-kept") || marks.serial == 0 {
            marks.begin();
        }
        let (introduced, window) = (Introduced::default(), None);
        Self { replicas, store, marks, theirs, window, introduced, objects: 0, run: None }
    }

    /// One that tells no entry for a dot that was overwritten in a window, this one while it lasts, and then others that come
    /// to so much.
    pub(super) fn in_windows(
        self,
        now: &'m mut Option<Window>,
        seen: &'m mut Marks,
        most: Most,
    ) -> Self {
        Self { window: Some(Windows { now, seen, most, looked: 0 }), ..self }
    }

    /// Writes what the peer lacks from `cursor` on, at most about `budget` bytes, as one frame: of this answer to a
    /// pull, or of a push.
    pub(super) fn write(
        mut self,
        w: &mut Writer<'_>,
        addressee: u64,
        answer: Option<Answer>,
        cursor: &mut Cursor,
        budget: u64,
    ) -> Result<End, NoRoom> {
        let alone = w.is_fresh();
        let mut end = End::Full;
        let written = w.frame(wire::CHUNK, |w| {
            w.u64(addressee)?;
            match answer {
                None => w.varint(0)?,
                Some(answer) => {
                    w.varint(answer.nonce)?;
                    w.varint(answer.number)?;
                }
            }
            let flags_at = w.len();
            w.u8(0)?;
            let start = w.len();
            end = self.items(w, cursor, budget, alone);
            match end {
                End::Large => return Err(NoRoom),
                End::Full => {}
                _ if answer.is_none_or(|answer| answer.goes_on) => {}
                End::Complete => w.set(flags_at, &[FLAG_LAST]),
                End::Budget => w.set(flags_at, &[FLAG_LAST | FLAG_MORE]),
            }
            // An empty chunk is worth sending only to end a pull.
            let goes_on = answer.is_none_or(|answer| answer.goes_on);
            let idle = goes_on || end == End::Full;
            if w.len() == start && idle { Err(NoRoom) } else { Ok(()) }
        });
        match (written, end) {
            (Err(NoRoom), End::Full) => Err(NoRoom),
            // Only what ends the answer has to be said.
            (Err(NoRoom), End::Budget) if answer.is_none_or(|answer| !answer.goes_on) => {
                Err(NoRoom)
            }
            _ => Ok(end),
        }
    }

    fn items(&mut self, w: &mut Writer<'_>, cursor: &mut Cursor, budget: u64, alone: bool) -> End {
        let start = w.len();
        self.reach(*cursor);
        loop {
            let Some(dot) = cursor.next(self.replicas, self.theirs) else {
                reached!("map: chunk complete");
                return End::Complete;
            };
            if (w.len() - start) as u64 >= budget {
                reached!("map: chunk at the budget");
                return End::Budget;
            }
            if w.len() > start && self.has_looked_enough(dot) {
                return End::Full;
            }
            if let Some(span) = self.overwritten(dot) {
                if self.span(w, dot.replica(), span).is_err() {
                    reached!("map: chunk full");
                    return End::Full;
                }
                cursor.pass(Packed::new(dot.replica(), span.to));
                continue;
            }
            // Every other dot that is answered from the log has a slot.
            let slot = self.replicas.slot(dot);
            if slot.is_some_and(|slot| self.waits(slot)) {
                cursor.pass(dot);
                continue;
            }
            if slot.ok_or(NoRoom).and_then(|slot| self.item(w, dot, slot)).is_err() {
                if w.len() > start || !alone {
                    reached!("map: chunk full");
                    return End::Full;
                }
                reached!("map: chunk of an entry that fits no datagram");
                if !sabotaged!("large-left-out") {
                    return End::Large;
                }
            }
            cursor.pass(dot);
        }
    }

    /// Brings the entries of the next dots near, all at once.
    fn reach(&self, mut cursor: Cursor) {
        let mut slots: SmallVec<[u32; AHEAD]> = SmallVec::new();
        while slots.len() < AHEAD
            && let Some(dot) = cursor.next(self.replicas, self.theirs)
        {
            slots.push(self.replicas.slot(dot).unwrap_or_default());
            cursor.pass(dot);
        }
        self.store.touch(slots.iter().copied());
    }

    /// Whether so many dots were looked through for this chunk that the rest is left to the next, though it has room.
    fn has_looked_enough(&self, dot: Packed) -> bool {
        let has = |now: &Window| now.has(dot.replica(), dot.counter());
        self.window.as_ref().is_some_and(|windows| {
            windows.looked > MAX_LOOKED && !windows.now.as_ref().is_some_and(has)
        })
    }

    /// The run of dots from this one on that is told as overwritten, if it is.
    fn overwritten(&mut self, dot: Packed) -> Option<Span> {
        let (replica, from) = (dot.replica(), dot.counter());
        let known = from <= self.replicas.base(replica);
        let mut window = None;
        if let Some(Windows { now, seen, most, looked }) = self.window.as_mut().filter(|_| known) {
            if !now.as_ref().is_some_and(|now| now.has(replica, from)) {
                let new = Window::new(self.replicas, seen, self.theirs, (replica, from), *most);
                *looked += new.len();
                **now = Some(new);
            }
            window = now.as_ref();
        }
        let (to, limit) = window::overwritten(self.replicas, window, replica, from)?;
        Some(Span { from, to, limit })
    }

    /// Writes that dots of a replica were overwritten.
    pub(super) fn span(
        &mut self,
        w: &mut Writer<'_>,
        replica: u16,
        span: Span,
    ) -> Result<(), NoRoom> {
        let introduced = self.introduced.len();
        let result = w.attempt(|w| {
            self.introduced.write(w, self.replicas, replica)?;
            w.varint(span.from)?;
            span.write(w)
        });
        match result {
            Ok(()) => self.run = None,
            Err(NoRoom) => self.introduced.truncate(introduced),
        }
        result
    }

    /// Whether what a dot is about, the entry in `slot`, is told when it has been written anew.
    fn waits(&self, slot: u32) -> bool {
        self.replicas.seals() != 0 && self.store.entry(slot).waits(self.replicas)
    }

    /// Writes one dot with what explains it, the entry in `slot`; takes everything back if it does not fit.
    pub(super) fn item(
        &mut self,
        w: &mut Writer<'_>,
        dot: Packed,
        slot: u32,
    ) -> Result<(), NoRoom> {
        let (introduced, run) = (self.introduced.len(), self.run);
        let result = w.attempt(|w| {
            let (replica, counter) = (dot.replica(), dot.counter());
            self.run = match self.run {
                Some((of, last, at, count))
                    if of == replica && last + 1 == counter && count < 127 =>
                {
                    w.set(at, &[count + 1]);
                    Some((of, counter, at, count + 1))
                }
                _ => {
                    self.introduced.write(w, self.replicas, replica)?;
                    w.varint(counter)?;
                    w.u8(1)?;
                    Some((replica, counter, w.len() - 1, 1))
                }
            };
            self.body(w, dot, slot)
        });
        if result.is_err() {
            self.introduced.truncate(introduced);
            self.run = run;
            if let Some((_, _, at, count)) = run {
                w.set(at, &[count]);
            }
        }
        result
    }

    fn body(&mut self, w: &mut Writer<'_>, dot: Packed, slot: u32) -> Result<(), NoRoom> {
        if let Some(number) = self.marks.get(slot) {
            w.u8(ITEM_REF)?;
            return w.varint(u64::from(number));
        }
        let entry = self.store.entry(slot);
        self.object(w, dot, entry)?;
        self.marks.set(slot, self.objects);
        self.objects += 1;
        Ok(())
    }

    fn object(&mut self, w: &mut Writer<'_>, dot: Packed, entry: Entry<'_>) -> Result<(), NoRoom> {
        let siblings = entry.siblings().map(|sibling| sibling.dot);
        let marks = entry.superseded().filter(|_| !sabotaged!("marks-not-compared"));
        let mut dots = siblings.chain(marks);
        let dead = entry.siblings().all(|sibling| sibling.dot != dot);
        let omitted = dead && sabotaged!("object-omitted");
        if omitted || dots.all(|dot| self.theirs.known.contains(dot)) {
            w.u8(ITEM_KEY)?;
            return w.bytes(entry.key);
        }
        let Some(only) = entry.only().filter(|only| only.dot == dot) else {
            return self.full(w, entry);
        };
        let mut superseded = entry.superseded();
        match (superseded.next(), superseded.next()) {
            (None, _) => w.u8(ITEM_BARE)?,
            (Some(own), None) if own == dot => w.u8(ITEM_OWN)?,
            _ => return self.full(w, entry),
        }
        w.bytes(entry.key)?;
        w.bytes(only.value)
    }

    fn full(&mut self, w: &mut Writer<'_>, entry: Entry<'_>) -> Result<(), NoRoom> {
        w.u8(ITEM_FULL)?;
        w.bytes(entry.key)?;
        self.introduced.write_dots(w, self.replicas, entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::hash::Secret;
    use crate::map::ReplicaId;
    use crate::rng::Rng;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// Keys have their numbers in the chunk that names them, and in no other.
        #[test]
        fn numbers_are_those_of_the_chunk(
            chunks in proptest::collection::vec(proptest::collection::btree_set(any::<u32>(), 0..300), 1..8),
        ) {
            let mut marks = Marks::default();
            for slots in &chunks {
                marks.begin();
                for (number, &slot) in (0..).zip(slots) {
                    prop_assert_eq!(marks.get(slot), None);
                    marks.set(slot, number);
                }
                let all: BTreeMap<u32, u32> = slots.iter().copied().zip(0..).collect();
                for slot in chunks.iter().flatten() {
                    prop_assert_eq!(marks.get(*slot), all.get(slot).copied());
                }
            }
        }
    }

    /// 87 bytes for what every datagram of the map has, 26 for each dot, 12 for the lengths of a written value and
    /// its counter, 3 for the length of a value that is kept.
    #[test]
    fn the_room_of_an_entry_is_the_sum_of_its_parts() {
        let replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 10);
        let mut store = Store::new(Secret::new(&mut Rng::fork(&[7; 32], 1)), 1_400);
        let slot = store.slot_or_insert(b"key-1");
        let len = |store: &Store, keeps: bool| {
            encoded_len(store.entry(slot), Some(&[7; 100]), |_| !keeps)
        };
        assert_eq!(len(&store, true), 87 + 5 + 112 + 26);
        store.write(&replicas, slot, Packed::new(0, 1), Some(&[7; 30]), |_| true);
        assert_eq!(len(&store, false), 87 + 5 + 112 + 2 * 26);
        assert_eq!(len(&store, true), 87 + 5 + 112 + 2 * 26 + (26 + 3 + 30));
        assert_eq!(encoded_len(store.entry(slot), None, |_| true), 87 + 5 + 2 * 26);
    }
}
