//! Things of which many could have one and few do at a time.

use alloc::vec::Vec;

/// Numbered places for things of one kind. A place that was given up is used again, so that nothing is
/// allocated once there were as many at a time as there ever are.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Pool<T> {
    /// Gives a thing a place. Returns the number of that, which is below `u32::MAX`.
    #[allow(clippy::cast_possible_truncation)] // as many as members at most
    pub(crate) fn insert(&mut self, thing: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(thing);
            return place;
        }
        self.places.push(Some(thing));
        self.places.len() as u32 - 1
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    /// Gives a place up.
    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        let thing = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_given_up_once() {
        let mut pool = Pool::default();
        let (a, b) = (pool.insert('a'), pool.insert('b'));
        assert_eq!(pool.remove(a), Some('a'));
        assert_eq!(pool.remove(a), None);
        assert_eq!(pool.insert('c'), a);
        assert_eq!(pool.get_mut(b), Some(&mut 'b'));
        assert_eq!(pool.insert('d'), 2);
        assert_eq!(pool.get_mut(3), None);
    }
}
