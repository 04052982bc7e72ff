//! Looking for keys: one at a time, or many whose cache misses overlap.

use super::{Guess, Guesses, KeyHash, Look, NONE, Store, key, keyed};

impl Store {
    pub(in crate::map) fn slot(&self, key: &[u8]) -> Option<u32> {
        self.look(key).slot
    }

    pub(in crate::map) fn look(&self, key: &[u8]) -> Look {
        let hash = keyed(self.secret, key);
        Look { hash, slot: self.find(hash, key) }
    }

    pub(in crate::map) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(keyed(self.secret, key))
    }

    /// The same as [`Self::look`], with a hash that was taken before.
    pub(in crate::map) fn look_by(&self, KeyHash(hash): KeyHash, key: &[u8]) -> Look {
        Look { hash, slot: self.find(hash, key) }
    }

    /// Brings the places of these hashes in the index near, all at once.
    pub(in crate::map) fn near(&self, hashes: impl Iterator<Item = KeyHash>) {
        let touch = |sum, KeyHash(hash)| sum ^ self.index.touch(hash);
        core::hint::black_box(hashes.fold(0, touch));
    }

    fn find(&self, hash: u32, wanted: &[u8]) -> Option<u32> {
        self.index.find(hash, |slot| key(&self.places, &self.records, slot) == wanted)
    }

    /// Looks for many keys at a time. What is read of one does not wait for what is read of the others, so the cache
    /// fetches them all at once; one after the other they would take most of the time of a merge. (Group
    /// prefetching: Chen, Ailamaki, Gibbons and Mowry 2004.)
    pub(in crate::map) fn guess(&self, keys: &[&[u8]]) -> Guesses {
        let mut guesses = Guesses::with_capacity(keys.len());
        for key in keys {
            guesses.push(Guess { hash: keyed(self.secret, key), slot: NONE });
        }
        let touched = guesses.iter().fold(0, |sum, guess| sum ^ self.index.touch(guess.hash));
        core::hint::black_box(touched);
        for guess in &mut guesses {
            guess.slot = self.index.find(guess.hash, |_| true).unwrap_or(NONE);
        }
        self.touch(guesses.iter().map(|guess| guess.slot));
        guesses
    }

    /// Brings the records of these slots near, all at once.
    pub(in crate::map) fn touch(&self, slots: impl Iterator<Item = u32>) {
        let places = slots.filter_map(|slot| self.places.get(slot as usize).copied());
        // Two lines: most records have no more.
        let ends = |place| self.records.touch(place, 0) ^ self.records.touch(place, 64);
        core::hint::black_box(places.fold(0, |sum, place| sum ^ ends(place)));
    }

    /// What has become of a guess.
    pub(in crate::map) fn check(&self, guess: Guess, wanted: &[u8]) -> Look {
        let place = self.places.get(guess.slot as usize);
        let right = place.and_then(|place| self.records.get(*place));
        let right = right.is_some_and(|record| record.key == wanted);
        let slot = if right { Some(guess.slot) } else { self.find(guess.hash, wanted) };
        Look { hash: guess.hash, slot }
    }
}
