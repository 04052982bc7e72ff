//! Sets of events, small and often copied.

use std::fmt;

use brickwork_core::map::Dot;

/// A set of events, by name. In order, each once, which is less work than a tree.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Events(Vec<Dot>);

impl Events {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns whether it is new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        // Most are later than all before.
        let place = if self.0.last().is_none_or(|last| *last < dot) {
            Err(self.0.len())
        } else {
            self.0.binary_search(&dot)
        };
        place.map_err(|at| self.0.insert(at, dot)).is_err()
    }

    pub fn remove(&mut self, dot: Dot) {
        if let Ok(at) = self.0.binary_search(&dot) {
            self.0.remove(at);
        }
    }

    pub fn contains(&self, dot: Dot) -> bool {
        self.0.binary_search(&dot).is_ok()
    }

    pub fn retain(&mut self, keep: impl FnMut(&Dot) -> bool) {
        self.0.retain(keep);
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        let new = other.difference(self).collect::<Vec<_>>();
        if !new.is_empty() {
            self.0.extend(new);
            self.0.sort();
        }
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.len() <= other.len() && self.difference(other).next().is_none()
    }

    /// Those that are not in another set.
    pub fn difference<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = Dot> + 's {
        let mut others = other.0.as_slice();
        self.iter().filter(move |dot| {
            while others.first().is_some_and(|first| first < dot) {
                others = &others[1..];
            }
            others.first() != Some(dot)
        })
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Dot> + '_ {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for Events {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut all = Vec::from_iter(dots);
        all.sort_unstable();
        all.dedup();
        Self(all)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}
