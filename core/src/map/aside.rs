//! Entries that were put aside until a full sync is whole.
//!
//! Keys and values lie one after another in pages, so that a million of them cost neither a million allocations nor
//! a move of all, and most entries, which have one value and no marks, take 32 bytes beside. The hash of each key is
//! kept: the store is asked for it twice.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::apply::Object;
use super::dot::Packed;
use super::store::KeyHash;

/// Bytes of a page, but for an entry that is longer.
const PAGE: usize = 1 << 16;

/// Entries that were put aside, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pages: Vec<Vec<u8>>,
    entries: Vec<Place>,
    /// Bytes of their keys and values.
    bytes: usize,
}

/// Where an entry lies.
#[derive(Debug)]
struct Place {
    page: u32,
    at: u32,
    /// Length of the key; the values follow it.
    key: u32,
    hash: KeyHash,
    what: What,
}

/// Dots of an entry, and the lengths of its values.
#[derive(Debug)]
enum What {
    Lone(Packed, u32),
    More(Box<More>),
}

#[derive(Debug)]
struct More {
    siblings: SmallVec<[(Packed, u32); 2]>,
    superseded: SmallVec<[Packed; 2]>,
}

/// An entry that was put aside.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    pub(super) hash: KeyHash,
    pub(super) siblings: SmallVec<[(Packed, &'a [u8]); 1]>,
    pub(super) superseded: &'a [Packed],
}

impl Entry<'_> {
    /// Bytes of the key and all values.
    pub(super) fn len(&self) -> usize {
        self.key.len() + self.siblings.iter().map(|(_, value)| value.len()).sum::<usize>()
    }

    /// Its value, if that is all that it has.
    pub(super) fn lone(&self) -> Option<(Packed, &[u8])> {
        match (&*self.siblings, self.superseded) {
            ([only], []) => Some(*only),
            _ => None,
        }
    }

    /// Its dots: those of its values, and its marks.
    pub(super) fn dots(&self) -> impl Iterator<Item = Packed> {
        let siblings = self.siblings.iter().map(|(dot, _)| *dot);
        siblings.chain(self.superseded.iter().copied())
    }
}

#[allow(clippy::cast_possible_truncation)] // keys and values are shorter than 2^32, and so is a page
impl Aside {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts an entry aside that is a lone value without marks.
    pub(super) fn put_lone(&mut self, hash: KeyHash, key: &[u8], (dot, value): (Packed, &[u8])) {
        let (page, at) = self.write(key, [value].into_iter());
        let (key, what) = (key.len() as u32, What::Lone(dot, value.len() as u32));
        self.entries.push(Place { page, at, key, hash, what });
    }

    /// Puts any entry aside.
    pub(super) fn put(&mut self, hash: KeyHash, key: &[u8], object: &Object<'_>) {
        let values = object.siblings.iter().map(|(_, value)| *value);
        let (page, at) = self.write(key, values);
        let siblings = object.siblings.iter().map(|(dot, value)| (*dot, value.len() as u32));
        let superseded = object.superseded.iter().copied().collect();
        let more = More { siblings: siblings.collect(), superseded };
        let (key, what) = (key.len() as u32, What::More(Box::new(more)));
        self.entries.push(Place { page, at, key, hash, what });
    }

    /// Returns where they lie.
    fn write<'v>(
        &mut self,
        key: &[u8],
        values: impl Iterator<Item = &'v [u8]> + Clone,
    ) -> (u32, u32) {
        let len = key.len() + values.clone().map(<[u8]>::len).sum::<usize>();
        self.bytes += len;
        if self.pages.last().is_none_or(|page| page.capacity() - page.len() < len) {
            self.pages.push(Vec::with_capacity(len.max(PAGE)));
        }
        let page = self.pages.len() - 1;
        let bytes = &mut self.pages[page];
        let at = bytes.len();
        bytes.extend_from_slice(key);
        values.for_each(|value| bytes.extend_from_slice(value));
        (page as u32, at as u32)
    }

    pub(super) fn last(&self) -> Option<Entry<'_>> {
        self.entries.last().map(|place| self.entry(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|place| self.entry(place))
    }

    /// The hashes of the keys from number `from` on.
    pub(super) fn hashes(&self, from: usize) -> impl Iterator<Item = KeyHash> {
        self.entries.get(from..).unwrap_or_default().iter().map(|place| place.hash)
    }

    fn entry<'a>(&'a self, place: &'a Place) -> Entry<'a> {
        let bytes = &self.pages[place.page as usize][place.at as usize..];
        let (key, mut rest) = bytes.split_at(place.key as usize);
        let mut value = |(dot, len): (Packed, u32)| {
            let (value, behind) = rest.split_at(len as usize);
            rest = behind;
            (dot, value)
        };
        let (siblings, superseded) = match &place.what {
            What::Lone(dot, len) => (SmallVec::from_buf([value((*dot, *len))]), &[][..]),
            What::More(more) => {
                (more.siblings.iter().copied().map(value).collect(), &*more.superseded)
            }
        };
        Entry { key, hash: place.hash, siblings, superseded }
    }
}
