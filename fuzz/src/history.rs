//! All that was written to the map, as plain sets, and what of it must be left in the end.

use std::collections::{BTreeMap, BTreeSet};

use brickwork_core::map::{Dot, ReplicaId};

/// A write or removal: which dot, by which life, and what its writer had seen.
#[derive(Debug)]
struct Write {
    by: ReplicaId,
    /// `None` for a removal, whose dot is not told.
    dot: Option<Dot>,
    seen: Vec<Dot>,
}

/// The reference that replicas are held against.
#[derive(Debug, Default)]
pub(crate) struct History {
    writes: Vec<Write>,
    values: BTreeMap<Dot, (usize, Vec<u8>)>,
    /// Values that some replica still held when the calm began, by key.
    held: BTreeMap<usize, BTreeSet<Dot>>,
}

impl History {
    pub(crate) const fn len(&self) -> usize {
        self.writes.len()
    }

    pub(crate) fn put(
        &mut self,
        key: usize,
        by: ReplicaId,
        dot: Dot,
        value: Vec<u8>,
        seen: Vec<Dot>,
    ) {
        assert_eq!(dot.replica, by, "a write bears the name of its writer");
        let twice = self.values.insert(dot, (key, value));
        assert!(twice.is_none(), "{dot:?} names two writes");
        self.writes.push(Write { by, dot: Some(dot), seen });
    }

    pub(crate) fn remove(&mut self, by: ReplicaId, seen: Vec<Dot>) {
        self.writes.push(Write { by, dot: None, seen });
    }

    /// Notes what of a key is still held by anybody.
    pub(crate) fn hold(&mut self, key: usize, dots: impl Iterator<Item = Dot>) {
        self.held.entry(key).or_default().extend(dots);
    }

    /// Checks what a replica ended with for a key. Whatever a living replica held and nobody
    /// superseded is there. Nothing is there that was not held, or that was superseded by a write that
    /// is known to the living: its writer lives on, or its value is held. Between the two lies what only
    /// writes superseded that may have died with their writers.
    pub(crate) fn check(&self, key: usize, living: &[ReplicaId], found: &BTreeMap<Dot, Vec<u8>>) {
        let held = self.held.get(&key).cloned().unwrap_or_default();
        let (mut superseded, mut known) = (BTreeSet::<&Dot>::new(), BTreeSet::<&Dot>::new());
        let all_held: BTreeSet<_> = self.held.values().flatten().collect();
        for write in &self.writes {
            superseded.extend(&write.seen);
            let survives = write.dot.is_some_and(|dot| all_held.contains(&dot));
            if survives || living.contains(&write.by) {
                known.extend(&write.seen);
            }
        }
        for dot in held.iter().filter(|dot| !superseded.contains(dot)) {
            assert!(found.contains_key(dot), "{dot:?} of key {key} is lost");
        }
        for (dot, value) in found {
            assert!(held.contains(dot), "{dot:?} of key {key} came from nowhere");
            assert!(!known.contains(dot), "{dot:?} of key {key} was superseded");
            let written = self.values.get(dot);
            assert_eq!(written, Some(&(key, value.clone())), "{dot:?} is another value");
        }
    }
}
