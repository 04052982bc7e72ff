//! What is read of an entry, wherever its parts lie.

use alloc::boxed::Box;
use core::iter::Copied;
use core::slice;

use smallvec::SmallVec;

use crate::hrw;
use crate::map::dot::Packed;
use crate::map::policy::{self, Policy};
use crate::map::replica::Replicas;
#[cfg(feature = "sim")]
use crate::reached::reached;
use crate::sabotage::sabotaged;

/// One of the concurrent values of a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::map) struct Sibling<'s> {
    pub(in crate::map) dot: Packed,
    pub(in crate::map) value: &'s [u8],
}

/// A sibling that lies beside the records: it is long, or not the first.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) dot: Packed,
    pub(super) value: Box<[u8]>,
}

/// What an entry has beside its record.
#[derive(Debug, Default)]
pub(super) struct More {
    /// Those after the one in the record, if that has one.
    pub(super) siblings: SmallVec<[Apart; 1]>,
    /// Empty if the record has the only mark.
    pub(super) superseded: SmallVec<[Packed; 2]>,
}

/// A key with its siblings and marks; with neither it was never written, or is a free slot without a key.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::map) struct Entry<'s> {
    pub(in crate::map) key: &'s [u8],
    pub(super) first: Option<Sibling<'s>>,
    pub(super) mark: Option<Packed>,
    pub(super) more: Option<&'s More>,
}

/// The siblings of an entry, in the order in which they came.
#[derive(Debug, Clone)]
pub(in crate::map) struct Siblings<'s> {
    first: Option<Sibling<'s>>,
    rest: slice::Iter<'s, Apart>,
}

impl<'s> Iterator for Siblings<'s> {
    type Item = Sibling<'s>;

    fn next(&mut self) -> Option<Sibling<'s>> {
        let apart = |apart: &'s Apart| Sibling { dot: apart.dot, value: &apart.value };
        self.first.take().or_else(|| self.rest.next().map(apart))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = usize::from(self.first.is_some()) + self.rest.len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for Siblings<'_> {}

/// The marks of an entry: at most one dot per replica, its greatest reflected one on this key.
#[derive(Debug, Clone)]
pub(in crate::map) struct Marks<'s> {
    only: Option<Packed>,
    rest: Copied<slice::Iter<'s, Packed>>,
}

impl Iterator for Marks<'_> {
    type Item = Packed;

    fn next(&mut self) -> Option<Packed> {
        self.only.take().or_else(|| self.rest.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = usize::from(self.only.is_some()) + self.rest.len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for Marks<'_> {}

impl<'s> Entry<'s> {
    /// One in steady state, none if the key is removed, several after concurrent writes.
    pub(in crate::map) fn siblings(&self) -> Siblings<'s> {
        let rest = self.more.map_or(&[][..], |more| &more.siblings);
        Siblings { first: self.first, rest: rest.iter() }
    }

    /// The sibling, if there is just one.
    pub(in crate::map) fn only(&self) -> Option<Sibling<'s>> {
        let mut siblings = self.siblings();
        siblings.next().filter(|_| siblings.next().is_none())
    }

    pub(in crate::map) fn superseded(&self) -> Marks<'s> {
        let rest = self.more.map_or(&[][..], |more| &more.superseded);
        Marks { only: self.mark, rest: rest.iter().copied() }
    }

    /// Whether it has no values.
    pub(in crate::map) fn is_removed(&self) -> bool {
        self.siblings().len() == 0
    }

    /// Whether it has neither values nor marks: a key that was never written, or its free slot.
    pub(in crate::map) fn is_empty(&self) -> bool {
        self.is_removed() && self.superseded().len() == 0
    }

    /// Whether all events of the dot's replica up to the dot are reflected by supersession.
    pub(in crate::map) fn supersedes(&self, dot: Packed) -> bool {
        let mut marks = self.superseded();
        marks.find(|mark| mark.replica() == dot.replica()).is_some_and(|mark| mark >= dot)
    }

    /// Whether it has a value that is to be written anew. Until then it is told to nobody: who takes its marks, but
    /// not the value, would have lost what the value superseded, and be told so by no name.
    pub(in crate::map) fn waits(&self, replicas: &Replicas) -> bool {
        let told = sabotaged!("waiting-told");
        !told
            && replicas.seals() != 0
            && self.siblings().any(|sibling| replicas.is_void(sibling.dot))
    }

    /// The sibling that is read: of the writer with the highest unweighted score for the key,
    /// whoever is alive; among one node's the latest.
    pub(in crate::map) fn winner(&self, replicas: &Replicas) -> Option<Sibling<'s>> {
        if self.more.is_none() {
            return self.first;
        }
        let siblings = self.siblings().map(|sibling| (sibling.dot, sibling.value));
        let winner = winner(replicas, self.key, siblings, policy::time)?;
        self.siblings().find(|sibling| sibling.dot == winner)
    }
}

/// Which of the siblings of a key is read; `time` tells the Lamport time of one.
pub(super) fn winner<V: Copy>(
    replicas: &Replicas,
    key: &[u8],
    mut siblings: impl ExactSizeIterator<Item = (Packed, V)> + Clone,
    time: impl Fn(V) -> u64,
) -> Option<Packed> {
    if siblings.len() < 2 {
        return siblings.next().map(|(dot, _)| dot);
    }
    if replicas.policy() == Policy::Lamport {
        let latest = siblings.max_by_key(|(dot, value)| (time(*value), replicas.dot(*dot)));
        return latest.map(|(dot, _)| dot);
    }
    let dots = siblings.map(|(dot, _)| dot);
    if sabotaged!("latest-wins") {
        return dots.max_by_key(|dot| replicas.dot(*dot).counter);
    }
    #[cfg(feature = "sim")]
    note_ties(replicas, dots.clone());
    let hash = hrw::key_hash(key);
    dots.max_by_key(|dot| {
        let dot = replicas.dot(*dot);
        let node = dot.replica.node;
        (hrw::score(hash, node), node, dot.replica.epoch, dot.counter)
    })
}

/// By what it is decided which of several values is read.
#[cfg(feature = "sim")]
fn note_ties(replicas: &Replicas, several: impl Iterator<Item = Packed> + Clone) {
    let dots = || several.clone().map(|dot| replicas.dot(dot).replica);
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
