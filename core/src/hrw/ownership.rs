//! Who owns each of many keys, kept up to date as nodes come and go.
//!
//! A full answer takes a score of each node for each key. But a node that joins takes only the keys that it wins, so that one
//! score per key tells which they are; and one that leaves gives up only its own, so that no others are scored again. A weight
//! that grows is like a join, one that shrinks like a leave.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::View;
use super::cost::Bid;
use super::lanes::{LANES, WINS};
use crate::id::NodeId;

/// What a table of [`Ownership`] tells the node that keeps it, by the numbers of keys.
#[allow(clippy::exhaustive_enums)] // there is no third
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owned {
    /// The node is now among the owners of that key.
    Gained(u32),
    /// It was among them, and is no more.
    Lost(u32),
}

/// How much a table had to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Scores of one node for one key.
    pub compared: u64,
    /// Keys of which all nodes were scored.
    pub rescored: u64,
}

/// The first owners of each key of a set, and which of them this node has just won or lost.
///
/// Keys are known by the numbers that [`Ownership::track`] gives them. A key takes 8 bytes per owner and
/// 19 to 23 more, and the room that vectors keep in hand.
///
/// ```
/// use brickwork_core::NodeId;
/// use brickwork_core::hrw::{Owned, Ownership, key_hash};
/// use core::num::NonZeroU32;
///
/// let (me, other) = (NodeId(1), NodeId(2));
/// let mut table = Ownership::new(me, 1);
/// let key = table.track(key_hash(b"origin-17"));
/// assert_eq!(table.owner(key), None);
///
/// table.join(me, NonZeroU32::MIN);
/// assert_eq!(table.poll(), Some(Owned::Gained(key)));
/// table.join(other, NonZeroU32::MIN);
/// let lost = table.owner(key) == Some(other);
/// assert_eq!(table.poll(), lost.then_some(Owned::Lost(key)));
/// ```
#[derive(Debug, Clone)]
pub struct Ownership {
    me: NodeId,
    /// How many owners a key has, if there are so many nodes.
    depth: usize,
    view: View,
    hashes: Vec<u64>,
    /// What of these decides, beyond the last key until vectors are full.
    lows: Vec<u32>,
    /// What of a score decides that one has to reach who is to be among the owners of the key: that of the last of them, or 0 if there
    /// are fewer than `depth`. As `lows`; what is beyond the last key may be reached by chance, and is no key.
    floors: Vec<u32>,
    /// Of each key `depth` nodes, the most preferred first; there are as many as the view has, if those are fewer.
    nodes: Vec<NodeId>,
    marks: Vec<Mark>,
    /// Keys whose owners changed so that this node may have to be told.
    changed: Vec<u32>,
    free: Vec<u32>,
    work: Work,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    is_tracked: bool,
    /// It waits to be polled.
    is_changed: bool,
    /// What this node was told last: that it is among the owners.
    was_mine: bool,
}

impl Ownership {
    /// A table without keys and nodes, kept by `me`, in which a key has so many owners, one at least.
    #[must_use]
    pub fn new(me: NodeId, owners: usize) -> Self {
        Self {
            me,
            depth: owners.max(1),
            view: View::default(),
            hashes: Vec::new(),
            lows: Vec::new(),
            floors: Vec::new(),
            nodes: Vec::new(),
            marks: Vec::new(),
            changed: Vec::new(),
            free: Vec::new(),
            work: Work::default(),
        }
    }

    /// The nodes that owners are chosen among.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// How much was done so far.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.work
    }

    /// Adds the key with that hash and returns its number, which may be that of one that was forgotten. The same hash may be added
    /// more than once. Costs O(n).
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 keys.
    pub fn track(&mut self, key_hash: u64) -> u32 {
        let key = self.free.pop().unwrap_or_else(|| {
            let key = u32::try_from(self.hashes.len()).expect("no more keys than numbers");
            self.hashes.push(0);
            self.marks.push(Mark::default());
            self.nodes.resize(self.nodes.len() + self.depth, NodeId(0));
            let lanes = self.hashes.len().next_multiple_of(LANES);
            self.lows.resize(lanes, 0);
            self.floors.resize(lanes, u32::MAX);
            key
        });
        self.hashes[key as usize] = key_hash;
        self.lows[key as usize] = super::low(key_hash);
        self.marks[key as usize].is_tracked = true;
        self.rescore(key as usize);
        key
    }

    /// Removes a key. This node hears that it lost it, if it had it. Returns whether it was there.
    pub fn forget(&mut self, key: u32) -> bool {
        let Some(mark) = self.marks.get_mut(key as usize).filter(|mark| mark.is_tracked) else {
            return false;
        };
        mark.is_tracked = false;
        if mark.was_mine {
            // Its number is free once that is told.
            self.note(key as usize);
        } else if !mark.is_changed {
            self.free.push(key);
        }
        true
    }

    /// The owner of the key, `None` if there is no such key or no node. Costs O(1).
    #[must_use]
    pub fn owner(&self, key: u32) -> Option<NodeId> {
        self.owners(key).first().copied()
    }

    /// The owners of the key, the most preferred first; none if there is no such key. Costs O(1).
    #[must_use]
    pub fn owners(&self, key: u32) -> &[NodeId] {
        let is_tracked = self.marks.get(key as usize).is_some_and(|mark| mark.is_tracked);
        if is_tracked { self.row(key as usize) } else { &[] }
    }

    /// Whether this node is among the owners of the key, polled or not. Costs O(owners).
    #[must_use]
    pub fn is_mine(&self, key: u32) -> bool {
        self.owners(key).contains(&self.me)
    }

    /// What changed for this node since it was told last: each key once at most, and none that it lost and won again. Costs
    /// O(1) on average.
    pub fn poll(&mut self) -> Option<Owned> {
        loop {
            let key = self.changed.pop()?;
            let is_mine = self.is_mine(key);
            let mark = &mut self.marks[key as usize];
            mark.is_changed = false;
            let was_mine = core::mem::replace(&mut mark.was_mine, is_mine);
            if !mark.is_tracked {
                self.free.push(key);
            }
            match (was_mine, is_mine) {
                (false, true) => return Some(Owned::Gained(key)),
                (true, false) => return Some(Owned::Lost(key)),
                _ => {}
            }
        }
    }

    /// A node is there. Returns whether it was new; if not, nothing changes. Costs a score per key.
    pub fn join(&mut self, node: NodeId, weight: NonZeroU32) -> bool {
        let found = self.found();
        self.view.insert_weighted(node, weight) && {
            self.offer(node, found);
            true
        }
    }

    /// A node is gone. Returns whether it was there. Costs a look at each key, and O(n) for those that it owned.
    pub fn leave(&mut self, node: NodeId) -> bool {
        let found = self.found();
        self.view.remove(node) && {
            self.withdraw(node, found);
            true
        }
    }

    /// A node has another weight now. Returns whether it is there. Costs as much as a join if it is more, and as a leave if it
    /// is less.
    pub fn set_weight(&mut self, node: NodeId, weight: NonZeroU32) -> bool {
        let Some(before) = self.view.set_weight(node, weight) else { return false };
        if weight > before {
            self.offer(node, self.found());
        } else if weight < before {
            self.withdraw(node, self.found());
        }
        true
    }

    /// How many owners each key has.
    fn found(&self) -> usize {
        self.view.nodes().len().min(self.depth)
    }

    fn row(&self, key: usize) -> &[NodeId] {
        &self.nodes[key * self.depth..][..self.found()]
    }

    /// Lets a node take its place among the `found` owners of each key, of which it may be one already, further down.
    fn offer(&mut self, node: NodeId, found: usize) {
        let Some(weight) = self.view.weight(node) else { return };
        let seed = super::low(super::node_seed(node));
        self.work.compared += self.hashes.len() as u64;
        let mut from = 0;
        while let Some((start, mut wins)) = self.next_wins(seed, from) {
            while wins != 0 {
                let key = start + wins.trailing_zeros() as usize;
                wins &= wins - 1;
                if self.marks.get(key).is_some_and(|mark| mark.is_tracked) {
                    let score = super::score(self.hashes[key], node);
                    self.place(key, Bid { score, weight, node }, found);
                }
            }
            from = start + WINS;
        }
    }

    /// The next keys, from one on, that a node may be an owner of: where these start, and a bit for each. Most end here: of equal
    /// weights the higher score is preferred.
    fn next_wins(&self, seed: u32, from: usize) -> Option<(usize, u64)> {
        if from >= self.hashes.len() {
            None
        } else if self.view.is_uneven() {
            Some((from, !0))
        } else {
            super::run::winners(&self.lows, seed, &self.floors, from)
        }
    }

    /// Puts a bid in its place among the `found` that there are.
    fn place(&mut self, key: usize, bid: Bid, found: usize) {
        let start = key * self.depth;
        let row = &self.nodes[start..][..found];
        let stood = row.iter().position(|node| *node == bid.node);
        let end = stood.unwrap_or(found);
        // Those further up are asked, the last of them first.
        let mut at = end;
        while at > 0 {
            let other = self.view.bid(self.hashes[key], self.nodes[start + at - 1]);
            if other.prefer(&bid).is_gt() {
                break;
            }
            at -= 1;
        }
        if at == self.depth {
            return;
        }
        let last = end.min(self.depth - 1);
        let falls = stood.is_none() && found == self.depth && self.nodes[start + last] == self.me;
        self.nodes[start + at..=start + last].rotate_right(1);
        self.nodes[start + at] = bid.node;
        self.set_floor(key);
        if falls || (stood.is_none() && bid.node == self.me) {
            self.note(key);
        }
    }

    /// As the owners of the key are now.
    fn set_floor(&mut self, key: usize) {
        let last = self.row(key).get(self.depth - 1);
        self.floors[key] =
            last.map_or(0, |last| super::high(super::score(self.hashes[key], *last)));
    }

    /// A node is gone, or bids less: scores anew the keys of which it is one of the `found` owners.
    fn withdraw(&mut self, node: NodeId, found: usize) {
        let mut from = 0;
        while let Some(at) = self.nodes[from..].iter().position(|owner| *owner == node) {
            let (key, rank) = ((from + at) / self.depth, (from + at) % self.depth);
            // Beyond those that there are is what was there once.
            if rank < found && self.marks[key].is_tracked {
                self.rescore(key);
                from = (key + 1) * self.depth;
            } else {
                from += at + 1;
            }
        }
    }

    fn rescore(&mut self, key: usize) {
        self.work.rescored += 1;
        let row = &mut self.nodes[key * self.depth..][..self.depth];
        let is_mine = self.view.owners(self.hashes[key], row).contains(&self.me);
        self.set_floor(key);
        if is_mine != self.marks[key].was_mine {
            self.note(key);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // no more keys than numbers
    fn note(&mut self, key: usize) {
        if !core::mem::replace(&mut self.marks[key].is_changed, true) {
            self.changed.push(key as u32);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
