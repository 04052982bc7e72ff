//! The records: keys, each with one value, packed into pages.
//!
//! ```text
//! offset size
//!  0      8   dot of the value; without a value, of the one mark that the entry has, if it has one
//!  8      4   length of the key (12 bits), length of the value (11 bits), flags (9 bits, of which five are left for
//!             values that have a time to live, or go with their writers)
//! 12          key, value, and up to three bytes that round the length to four
//! ```
//!
//! All that a merge needs of a usual entry lies in one or two lines of the cache. A record whose length changes moves
//! to the end of the open page; the room that it leaves is not used again until its page is cleared: when such
//! room is more than a quarter of the rest, the records of the page with most of it move too, and the page
//! is given back. (The cleaning of a log-structured memory: Rumble, Kejriwal and Ousterhout 2014.) One step
//! moves 64 KiB at most, and memory is never more than a quarter and two pages beyond what the records take. While the
//! map is at rest, pages are cleared of which more than a sixteenth is such room.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::map::dot::Packed;
use crate::map::wire::MAX_KEY;

/// Bytes of a page, but for a record that is longer than a quarter of that: it has a page of its own.
const PAGE: usize = 1 << 16;
const HEAD: usize = 12;
/// Longest value that a record can have.
pub(super) const MAX_VALUE: usize = 1 << 10;
const KEY_BITS: u32 = 12;
const _: () = assert!(MAX_KEY < 1 << KEY_BITS);
const VALUE_BITS: u32 = 11;

/// What a record says of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    /// It has a value, and a dot of that.
    pub(super) value: bool,
    /// The dot is the one mark that the entry has.
    pub(super) mark: bool,
    /// There is more of the entry beside the record.
    pub(super) more: bool,
}

/// The beginning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) dot: Packed,
    pub(super) flags: Flags,
    pub(super) key: usize,
    pub(super) value: usize,
    /// Nobody's any more.
    free: bool,
}

impl Head {
    const NOTHING: Self = Self::read(&[0; HEAD]);

    pub(super) const fn new(dot: Packed, flags: Flags, key: usize, value: usize) -> Self {
        Self { dot, flags, key, value, free: false }
    }

    #[inline]
    const fn read(&[a, b, c, d, e, f, g, h, lens @ ..]: &[u8; HEAD]) -> Self {
        let lens = u32::from_le_bytes(lens);
        let flags = lens >> (KEY_BITS + VALUE_BITS);
        Self {
            dot: Packed::from_bits(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            flags: Flags { value: flags & 1 != 0, mark: flags & 2 != 0, more: flags & 4 != 0 },
            key: (lens & ((1 << KEY_BITS) - 1)) as usize,
            value: (lens >> KEY_BITS & ((1 << VALUE_BITS) - 1)) as usize,
            free: flags & 8 != 0,
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // both lengths have their bits
    fn write(self, bytes: &mut [u8]) {
        let Flags { value, mark, more } = self.flags;
        let (value, mark) = (u32::from(value), u32::from(mark) << 1);
        let flags = value | mark | u32::from(more) << 2 | u32::from(self.free) << 3;
        let lens = self.key as u32 | (self.value as u32) << KEY_BITS;
        let lens = lens | flags << (KEY_BITS + VALUE_BITS);
        bytes[..8].copy_from_slice(&self.dot.bits().to_le_bytes());
        bytes[8..HEAD].copy_from_slice(&lens.to_le_bytes());
    }

    /// Bytes of the record.
    const fn len(&self) -> usize {
        (HEAD + self.key + self.value).next_multiple_of(4)
    }
}

/// That of the record at the beginning of these bytes.
fn head(bytes: &[u8]) -> Head {
    bytes.first_chunk().map_or(Head::NOTHING, Head::read)
}

/// Where a record lies: 26 bits of page, 14 of offset in words of four bytes. Four tebibytes of pages can be
/// named, which is more than there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place([u8; 5]);

impl Place {
    /// No place: of a slot that is free.
    pub(super) const NONE: Self = Self([0xff; 5]);

    fn new(page: usize, at: usize) -> Self {
        let bits = (page as u64) << 14 | (at / 4) as u64;
        let [a, b, c, d, e, ..] = bits.to_le_bytes();
        Self([a, b, c, d, e])
    }

    /// The page, and the offset in it.
    #[allow(clippy::cast_possible_truncation)] // 26 bits
    #[inline]
    const fn parts(self) -> (usize, usize) {
        let [a, b, c, d, e] = self.0;
        let low = u32::from_le_bytes([a, b, c, d]);
        ((low >> 14 | (e as u32) << 18) as usize, (low & 0x3fff) as usize * 4)
    }
}

/// A record with its key and value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'r> {
    pub(super) dot: Packed,
    pub(super) flags: Flags,
    pub(super) key: &'r [u8],
    pub(super) value: &'r [u8],
}

#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
    /// Bytes of the records that are somebody's.
    live: usize,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    pages: Vec<Page>,
    /// The page to which records are added.
    open: Option<usize>,
    /// Numbers of pages without bytes.
    spare: Vec<usize>,
    /// Bytes of all pages, and of the records in them that are somebody's.
    len: usize,
    live: usize,
}

impl Records {
    /// Reads a byte of a record: brings it near and decides nothing.
    pub(super) fn touch(&self, place: Place, ahead: usize) -> u8 {
        let (page, at) = place.parts();
        let bytes = self.pages.get(page).map_or(&[][..], |page| &page.bytes);
        bytes.get(at + ahead).copied().unwrap_or_default()
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<Record<'_>> {
        let (page, at) = place.parts();
        let (head, rest) = self.pages.get(page)?.bytes.get(at..)?.split_first_chunk()?;
        let head = Head::read(head);
        let (key, rest) = rest.split_at_checked(head.key)?;
        Some(Record { dot: head.dot, flags: head.flags, key, value: rest.get(..head.value)? })
    }

    /// From a record on to the end of its page.
    fn bytes(&mut self, place: Place) -> &mut [u8] {
        let (page, at) = place.parts();
        &mut self.pages[page].bytes[at..]
    }

    /// Adds a record. The key has at most [`MAX_KEY`] bytes, the value [`MAX_VALUE`].
    pub(super) fn add(&mut self, dot: Packed, flags: Flags, key: &[u8], value: &[u8]) -> Place {
        debug_assert!(key.len() <= MAX_KEY && value.len() <= MAX_VALUE);
        let head = Head::new(dot, flags, key.len(), value.len());
        let (number, at) = self.room(head.len());
        let bytes = &mut self.pages[number].bytes[at..];
        head.write(bytes);
        bytes[HEAD..HEAD + key.len()].copy_from_slice(key);
        bytes[HEAD + key.len()..][..value.len()].copy_from_slice(value);
        Place::new(number, at)
    }

    /// Changes dot and flags of a record.
    pub(super) fn set(&mut self, place: Place, dot: Packed, flags: Flags) {
        let bytes = self.bytes(place);
        Head { dot, flags, ..head(bytes) }.write(bytes);
    }

    /// Changes all but the key, of this length, of a record whose value has the length of the new one, and lets the
    /// bytes of the value before `from` be.
    #[inline]
    pub(super) fn put_over(
        &mut self,
        place: Place,
        dot: Packed,
        flags: Flags,
        key: usize,
        value: &[u8],
        from: usize,
    ) {
        let bytes = self.bytes(place);
        Head::new(dot, flags, key, value.len()).write(bytes);
        bytes[HEAD + key..][from..value.len()].copy_from_slice(&value[from..]);
    }

    /// Changes all but the key of a record, and lets the bytes of the value before `from` be. Returns where it
    /// is now.
    pub(super) fn put(
        &mut self,
        place: Place,
        dot: Packed,
        flags: Flags,
        value: &[u8],
        from: usize,
    ) -> Place {
        let old = head(self.bytes(place));
        let new = Head::new(dot, flags, old.key, value.len());
        let stays = new.len() == old.len() || self.stretch(place, old.len(), new.len());
        let bytes = self.bytes(place);
        if stays {
            new.write(bytes);
            bytes[HEAD + old.key..][from..value.len()].copy_from_slice(&value[from..]);
            return place;
        }
        let key: SmallVec<[u8; 64]> = bytes[HEAD..][..old.key].into();
        let moved = self.add(dot, flags, &key, value);
        self.free(place);
        moved
    }

    /// Makes the last record of the open page longer or shorter, if it is that one and has the room: the value of a
    /// new key comes just after the key.
    fn stretch(&mut self, place: Place, old: usize, new: usize) -> bool {
        let (number, at) = place.parts();
        let last = self.open == Some(number) && self.pages[number].bytes.len() == at + old;
        if !last || at + new > PAGE {
            return false;
        }
        self.resize(number, at + new);
        self.len = self.len - old + new;
        self.live = self.live - old + new;
        self.pages[number].live -= old;
        self.pages[number].live += new;
        true
    }

    pub(super) fn free(&mut self, place: Place) {
        let bytes = self.bytes(place);
        let head = head(bytes);
        Head { free: true, ..head }.write(bytes);
        let (number, _) = place.parts();
        let page = &mut self.pages[number];
        page.live -= head.len();
        self.live -= head.len();
        if page.live == 0 {
            self.len -= core::mem::take(&mut page.bytes).len();
            if self.open == Some(number) {
                self.open = None;
            }
            self.spare.push(number);
        }
    }

    /// The page with most room that cannot be used, if there is too much of that.
    pub(super) fn wasteful(&self) -> Option<usize> {
        if self.len - self.live <= self.live / 4 + PAGE {
            return None;
        }
        let others = (0..self.pages.len()).filter(|number| self.open != Some(*number));
        others.max_by_key(|number| self.waste(*number))
    }

    /// The page with most room that cannot be used, of those of which that is more than a sixteenth.
    pub(super) fn untidy(&self) -> Option<usize> {
        let worth = |number: &usize| self.waste(*number) * 16 > self.pages[*number].bytes.len();
        (0..self.pages.len()).filter(worth).max_by_key(|number| self.waste(*number))
    }

    fn waste(&self, number: usize) -> usize {
        self.pages[number].bytes.len() - self.pages[number].live
    }

    /// Takes a page out, to be cleared and given back.
    pub(super) fn take(&mut self, number: usize) -> Vec<u8> {
        self.open.take_if(|open| *open == number);
        let page = core::mem::take(&mut self.pages[number]);
        self.len -= page.bytes.len();
        self.live -= page.live;
        page.bytes
    }

    /// The page that was taken out is empty, its number free for another.
    pub(super) fn cleared(&mut self, number: usize) {
        self.spare.push(number);
    }

    /// Room for a record of `len` bytes.
    fn room(&mut self, len: usize) -> (usize, usize) {
        self.len += len;
        self.live += len;
        let fits = |number: &usize| self.pages[*number].bytes.len() + len <= PAGE;
        let number = if len > PAGE / 4 {
            self.fresh()
        } else if let Some(number) = self.open.filter(fits) {
            number
        } else {
            let number = self.fresh();
            self.open = Some(number);
            number
        };
        let at = self.pages[number].bytes.len();
        self.resize(number, at + len);
        self.pages[number].live += len;
        (number, at)
    }

    fn resize(&mut self, number: usize, len: usize) {
        let bytes = &mut self.pages[number].bytes;
        if bytes.capacity() < len {
            // Small maps have small pages.
            let room = (self.len / 4).clamp(256, PAGE) + bytes.len();
            bytes.reserve_exact(room.min(PAGE).max(len) - bytes.len());
        }
        bytes.resize(len, 0);
    }

    fn fresh(&mut self) -> usize {
        self.spare.pop().unwrap_or_else(|| {
            self.pages.push(Page::default());
            self.pages.len() - 1
        })
    }
}

/// The records of a page that was taken out, each with the place where it was.
pub(super) fn walk(number: usize, bytes: &[u8]) -> impl Iterator<Item = (Place, Record<'_>)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        loop {
            let (head, rest) = bytes.get(at..)?.split_first_chunk()?;
            let (head, place) = (Head::read(head), Place::new(number, at));
            at += head.len();
            if !head.free {
                let (key, rest) = rest.split_at(head.key);
                let (dot, flags) = (head.dot, head.flags);
                return Some((place, Record { dot, flags, key, value: &rest[..head.value] }));
            }
        }
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    type Model = BTreeMap<usize, (Place, Packed, Flags, Vec<u8>, Vec<u8>)>;

    fn check(records: &Records, model: &Model) {
        let mut live = 0;
        for (place, dot, flags, key, value) in model.values() {
            let record = records.get(*place);
            let told = record.map(|record| (record.dot, record.flags, record.key, record.value));
            assert_eq!(told, Some((*dot, *flags, &key[..], &value[..])));
            live += Head::new(*dot, *flags, key.len(), value.len()).len();
        }
        assert_eq!(records.live, live);
        assert_eq!(records.len, records.pages.iter().map(|page| page.bytes.len()).sum::<usize>());
        let held: usize = records.pages.iter().map(|page| page.bytes.capacity()).sum();
        assert!(held <= live + live / 4 + 3 * PAGE + 1_000, "{held} bytes for {live}");
    }

    fn clear(records: &mut Records, model: &mut Model, number: usize) {
        let bytes = records.take(number);
        for (old, record) in walk(number, &bytes) {
            let new = records.add(record.dot, record.flags, record.key, record.value);
            let known = model.values_mut().find(|known| known.0 == old);
            known.expect("a record of the model").0 = new;
        }
        records.cleared(number);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Records are what was put into them, whatever comes, changes its length and goes, and take little more
        /// room than they need.
        #[test]
        fn records_stay_what_they_are(
            acts in proptest::collection::vec((0..40_usize, 0..6_u8, 0..=MAX_VALUE, any::<[bool; 3]>()), 1..900),
            long in 0..=MAX_KEY,
        ) {
            let mut records = Records::default();
            let mut model = Model::new();
            for (step, (name, kind, len, [value, mark, more])) in acts.into_iter().enumerate() {
                let flags = Flags { value, mark, more };
                let dot = Packed::new(7, step as u64 + 1);
                let bytes = alloc::vec![u8::try_from(step % 256).unwrap_or(0); len];
                match model.get_mut(&name) {
                    None => {
                        let key = alloc::vec![3; if name == 0 { long } else { name * 20 }];
                        let place = records.add(dot, flags, &key, &bytes);
                        model.insert(name, (place, dot, flags, key, bytes));
                    }
                    Some(known) if kind < 4 => {
                        known.0 = records.put(known.0, dot, flags, &bytes, 0);
                        (known.1, known.2, known.4) = (dot, flags, bytes);
                    }
                    Some(known) if kind < 5 => {
                        records.set(known.0, dot, flags);
                        (known.1, known.2) = (dot, flags);
                    }
                    Some(known) => {
                        records.free(known.0);
                        model.remove(&name);
                    }
                }
                if let Some(number) = records.wasteful() {
                    clear(&mut records, &mut model, number);
                }
            }
            check(&records, &model);
            // Each clears at least a sixteenth of a page.
            for _ in 0..16 * records.pages.len() {
                let Some(number) = records.untidy() else { break };
                clear(&mut records, &mut model, number);
            }
            check(&records, &model);
            for page in &records.pages {
                prop_assert!(page.live * 16 >= page.bytes.len() * 15, "{} of {}", page.live, page.bytes.len());
            }
            for (place, ..) in model.values() {
                records.free(*place);
            }
            check(&records, &Model::new());
            prop_assert_eq!(records.len, 0, "nothing is left");
        }
    }
}
