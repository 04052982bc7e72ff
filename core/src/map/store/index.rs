//! Which slot has a key: a table of keyed hashes that lie in their order.
//!
//! A cell is the upper half of a key's hash and its slot. Its home follows from the hash and rises with it; a cell
//! lies there or, where others are, as near behind as the order of the hashes allows. This is linear probing of an
//! ordered table (Amble and Knuth 1974, "Ordered hash tables") whose home is a product instead of a remainder
//! (Lemire 2019, "Fast random integer generation in an interval"). So a search reads neighbours, most often one line
//! of the cache; and a table grows by one pass over the old cells in their order, without a look at the keys. It
//! grows by an eighth, and has nine to ten and a half bytes for each key.
//!
//! The hash is keyed by a secret, so that nobody outside can aim keys at one place.

use alloc::vec::Vec;

/// A cell without a slot. As the highest hash it ends every search.
const EMPTY: u64 = u64::MAX;
/// Cells that are looked at together: most are no farther from home.
const WINDOW: usize = 8;
/// Cells behind the last home.
const TAIL: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// As many as there are homes, and a tail; or none.
    cells: Vec<u64>,
    homes: usize,
    len: usize,
}

const fn cell(hash: u32, slot: u32) -> u64 {
    (hash as u64) << 32 | slot as u64
}

const fn hash_of(cell: u64) -> u32 {
    (cell >> 32) as u32
}

#[allow(clippy::cast_possible_truncation)] // the lower half
const fn slot_of(cell: u64) -> u32 {
    cell as u32
}

impl Index {
    #[allow(clippy::cast_possible_truncation)] // less than the number of homes
    const fn home(&self, hash: u32) -> usize {
        ((hash as u64 * self.homes as u64) >> 32) as usize
    }

    /// Something of what the home of a hash and those behind it hold: a read that brings them near and decides
    /// nothing.
    pub(super) fn touch(&self, hash: u32) -> u64 {
        let home = self.home(hash);
        let at = |at: usize| self.cells.get(at).copied().unwrap_or_default();
        at(home) ^ at(home + WINDOW - 1)
    }

    /// The first place from which on no hash is lower.
    fn place(&self, hash: u32) -> usize {
        let mut place = self.home(hash);
        // Lower hashes have no gap behind the home, so they can be counted without a branch for each, which
        // no processor could foresee.
        while let Some(window) = self.cells.get(place..).and_then(<[u64]>::first_chunk::<WINDOW>) {
            let lower = window.iter().map(|cell| usize::from(hash_of(*cell) < hash)).sum::<usize>();
            place += lower;
            if lower < WINDOW {
                return place;
            }
        }
        let behind = self.cells.get(place..).unwrap_or_default();
        place + behind.iter().take_while(|cell| hash_of(**cell) < hash).count()
    }

    /// The slot with this hash that `is` accepts.
    pub(super) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let behind = self.cells.get(self.place(hash)..).unwrap_or_default();
        let equal = behind.iter().take_while(|cell| hash_of(**cell) == hash && **cell != EMPTY);
        equal.map(|cell| slot_of(*cell)).find(|slot| is(*slot))
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = (self.len + more) * 8;
        if wanted > self.homes * 7 {
            self.resize((wanted / 7 + 1).max(self.homes + (self.homes / 8).max(8)));
        }
    }

    /// Adds a slot that is not there.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        if (self.len + 1) * 8 > self.homes * 7 {
            self.resize(self.homes + (self.homes / 8).max(8));
        }
        let place = self.place(hash);
        let behind = self.cells.get(place..).unwrap_or_default();
        let room = behind.iter().position(|cell| *cell == EMPTY);
        let end = room.map_or_else(|| self.lengthen(), |room| place + room);
        self.cells.copy_within(place..end, place + 1);
        self.cells[place] = cell(hash, slot);
        self.len += 1;
    }

    /// Takes a slot out, if it is there.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let mut place = self.place(hash);
        let wanted = cell(hash, slot);
        while self.cells.get(place).is_some_and(|cell| *cell != wanted && hash_of(*cell) == hash) {
            place += 1;
        }
        if wanted == EMPTY || self.cells.get(place) != Some(&wanted) {
            return false;
        }
        // Those behind it that are not at home come nearer by one.
        let mut end = place + 1;
        while let Some(&next) = self.cells.get(end)
            && next != EMPTY
            && self.home(hash_of(next)) < end
        {
            end += 1;
        }
        self.cells.copy_within(place + 1..end, place);
        self.cells[end - 1] = EMPTY;
        self.len -= 1;
        true
    }

    /// The slots got other numbers, and there are fewer than there were.
    pub(super) fn renumber(&mut self, new: impl Fn(u32) -> u32) {
        for place in self.cells.iter_mut().filter(|place| **place != EMPTY) {
            *place = cell(hash_of(*place), new(slot_of(*place)));
        }
        self.resize(self.fitting());
    }

    /// Gives room back, if there is much more than what there is needs.
    pub(super) fn fit(&mut self) {
        if self.homes > self.fitting() * 6 / 5 {
            self.resize(self.fitting());
        }
    }

    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.cells.capacity() * 8
    }

    /// How many homes leave some room for more.
    const fn fitting(&self) -> usize {
        if self.len == 0 { 0 } else { self.len * 5 / 4 + 8 }
    }

    /// A cell behind the last one, all of which are taken.
    fn lengthen(&mut self) -> usize {
        let end = self.cells.len();
        self.cells.reserve_exact(TAIL);
        self.cells.resize(end + TAIL, EMPTY);
        end
    }

    fn resize(&mut self, homes: usize) {
        if homes == 0 {
            *self = Self::default();
            return;
        }
        let old = core::mem::take(&mut self.cells);
        self.homes = homes;
        self.cells = alloc::vec![EMPTY; homes + TAIL];
        let mut next = 0;
        for cell in old.into_iter().filter(|cell| *cell != EMPTY) {
            let place = self.home(hash_of(cell)).max(next);
            if place >= self.cells.len() {
                self.lengthen();
            }
            self.cells[place] = cell;
            next = place + 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    /// Every cell is as near behind its home as the order allows, and none is lost.
    fn check(index: &Index) {
        let mut last = None;
        for (place, &cell) in index.cells.iter().enumerate() {
            if cell == EMPTY {
                continue;
            }
            let home = index.home(hash_of(cell));
            assert!(home <= place);
            assert!(index.cells[home..place].iter().all(|other| *other != EMPTY), "no gap");
            assert!(last.is_none_or(|last| last <= hash_of(cell)), "the order of the hashes");
            last = Some(hash_of(cell));
        }
        assert_eq!(index.cells.iter().filter(|cell| **cell != EMPTY).count(), index.len);
        assert!(index.len * 8 <= index.homes * 7);
    }

    proptest! {
        /// Goal: the index is a set of (hash, slot), however the hashes are spread. Method: hashes of few values, of
        /// the ends of the range and of all values, beside the tree of the standard library.
        #[test]
        fn it_is_a_map(
            acts in proptest::collection::vec((any::<bool>(), any::<u32>(), 0..200_u32), 0..400),
            spread in 0..4_u32,
        ) {
            let mut index = Index::default();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (insert, random, slot) in acts {
                let hash = match spread {
                    0 => random % 3,
                    1 => u32::MAX - random % 5,
                    2 => random & 0xf000_0000,
                    _ => random,
                };
                if insert && !model.contains_key(&slot) {
                    model.insert(slot, hash);
                    index.insert(hash, slot);
                } else if !insert {
                    let known = model.remove(&slot);
                    prop_assert_eq!(index.remove(known.unwrap_or(hash), slot), known.is_some());
                }
                check(&index);
            }
            for slot in 0..200 {
                let known = model.get(&slot).copied();
                let found = known.and_then(|hash| index.find(hash, |other| other == slot));
                prop_assert_eq!(found, known.map(|_| slot));
                prop_assert_eq!(index.find(known.unwrap_or(7), |_| false), None);
            }
            index.renumber(|slot| slot + 1_000);
            check(&index);
            for (slot, hash) in model {
                prop_assert!(index.find(hash, |other| other == slot + 1_000).is_some());
            }
        }
    }

    /// What is left of many more is given back.
    #[test]
    fn it_fits_what_there_is() {
        let mut index = Index::default();
        let hash = |slot: u32| slot.wrapping_mul(0x9e37_79b1);
        (0..20_000).for_each(|slot| index.insert(hash(slot), slot));
        (5_000..20_000).for_each(|slot| assert!(index.remove(hash(slot), slot)));
        index.fit();
        check(&index);
        assert!(index.homes < 5_000 * 3 / 2, "{} homes", index.homes);
        assert!((0..5_000).all(|slot| index.find(hash(slot), |other| other == slot).is_some()));
        let homes = index.homes;
        index.fit();
        assert_eq!(index.homes, homes, "it is done");
    }

    /// Ten bytes and a half for each key at most, once there are some.
    #[test]
    fn it_takes_few_bytes() {
        let mut index = Index::default();
        for slot in 0..20_000_u32 {
            index.insert(slot.wrapping_mul(0x9e37_79b1), slot);
            let bytes = index.bytes();
            assert!(slot < 2_000 || bytes as f64 / f64::from(slot + 1) < 10.5, "{bytes} of {slot}");
        }
    }
}
