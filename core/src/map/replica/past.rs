//! Lives that are over and have left nothing but their names.
//!
//! Once a life is sealed, all members have its writes, and no entry names one, all that is left of it is which of its
//! names count. Such a life is *retired*: it gives up its number, with its log, its place in every digest of the
//! context that is told, and what is remembered of it for each peer. Its seal stays, for somebody may come back who has
//! a write that the seal is without.
//!
//! Of each node the last [`RECENT`] retired lives are kept like that. Those before are *merged*: a bound of their
//! epochs, and sums of what they contributed to the digests. Two replicas that retired the same lives have the same
//! sums, however far each of them has merged; so merging is nobody else's business. A dot of a merged life counts as
//! known, whatever its counter. This is what keeps the context at some words for each node that there ever was, instead
//! of some for each of its lives.
//!
//! The digests are those of before: a life contributes to them what it did when it had a number.
//!
//! Sources: one number per node below which every life is over, from DottedDB's node-wide causality (Gonçalves et al.
//! 2017) and Akka Distributed Data's pruning of removed nodes, which has to be told for long enough for everybody to
//! hear of it; the sums, which tell who did not, are this project's.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Known, Replicas};
use crate::hash;
use crate::id::NodeId;
use crate::map::dot::{ReplicaId, Runs};
use crate::map::peer::Context;
use crate::map::seal::{MAX_MERGED, Seal};

/// Retired lives of one node whose seals are kept. One that starts again more often than that while somebody is cut
/// off makes them forget what only that one has of lives before, and take all that others have.
const RECENT: usize = 8;

/// The part of all numbers that is left to others than retired lives that are named again.
const SPARE: usize = 16;

/// Lives from this epoch on are not merged: a node whose word is doubted can always begin one after those that are.
pub(in crate::map) const LAST: u64 = u64::MAX / 2;

/// What is left of all lives of a node before some epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::map) struct Merged {
    /// That epoch; zero if there are none.
    pub(in crate::map) below: u64,
    /// The sum of their seals, and that of their shares in the digest of the context.
    pub(in crate::map) seals: u64,
    pub(in crate::map) bases: u64,
}

impl Merged {
    /// With one life more.
    const fn with(self, life: u64, end: u64, seal: u64) -> Self {
        let bases = self.bases.wrapping_add(share(life, end));
        Self { below: self.below, seals: self.seals.wrapping_add(seal), bases }
    }
}

/// What a life with this hash contributes to the digest of the context, if all of its dots up to `base` are known.
pub(super) const fn share(life: u64, base: u64) -> u64 {
    if base == 0 { 0 } else { hash::mix_with(hash::half(!life), base) }
}

/// The retired lives of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    merged: Merged,
    /// Epoch and seal of those after, ascending.
    recent: Vec<(u64, Seal)>,
}

/// The retired lives, and the numbers that they gave up.
#[derive(Debug, Clone, Default)]
pub(super) struct Pasts {
    nodes: BTreeMap<NodeId, Past>,
    /// How many retired lives are kept, of all nodes.
    kept: usize,
    /// The number by which all retired lives go.
    nobody: Option<u16>,
    free: Vec<u16>,
}

impl Pasts {
    fn of(&self, node: NodeId) -> Option<&Past> {
        self.nodes.get(&node)
    }

    /// The number of a retired life; `None` if this is none.
    pub(super) fn number(&self, id: ReplicaId) -> Option<u16> {
        self.fate(id).and(self.nobody)
    }

    fn fate(&self, id: ReplicaId) -> Option<Fate<'_>> {
        let past = self.of(id.node)?;
        if id.epoch < past.merged.below {
            return Some(Fate::Merged);
        }
        let at = past.recent.binary_search_by_key(&id.epoch, |life| life.0).ok()?;
        Some(Fate::Retired(&past.recent[at].1))
    }

    /// Takes a number that was given up.
    pub(super) fn take_number(&mut self) -> Option<u16> {
        self.free.pop()
    }

    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }
}

/// What became of a retired life.
#[derive(Debug, Clone, Copy)]
pub(in crate::map) enum Fate<'r> {
    /// Its seal is known,
    Retired(&'r Seal),
    /// or not any more.
    Merged,
}

/// What this replica knows of the lives that a peer has merged.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::map) enum Verdict {
    /// The same, or more.
    Known,
    /// The same if these lives are sealed so, which were not sealed here.
    Sealed(Vec<(u16, Seal)>),
    /// Something else.
    Other,
}

impl Replicas {
    /// What became of a life, if it was retired.
    pub(in crate::map) fn fate(&self, id: ReplicaId) -> Option<Fate<'_>> {
        self.past.fate(id)
    }

    /// Whether this is the number by which all retired lives go. No dot of it is kept anywhere.
    pub(in crate::map) fn is_nobody(&self, replica: u16) -> bool {
        self.past.nobody == Some(replica)
    }

    /// Whether lives were retired.
    pub(in crate::map) fn has_past(&self) -> bool {
        !self.past.nodes.is_empty()
    }

    /// The retired lives whose seals are known.
    pub(in crate::map) fn retired(&self) -> impl Iterator<Item = (ReplicaId, &Seal)> {
        self.past.nodes.iter().flat_map(|(node, past)| {
            past.recent.iter().map(|(epoch, seal)| (ReplicaId::new(*node, *epoch), seal))
        })
    }

    /// The nodes that have merged lives, and what is left of those.
    pub(in crate::map) fn merged(&self) -> impl Iterator<Item = (NodeId, Merged)> {
        let merged = self.past.nodes.iter().map(|(node, past)| (*node, past.merged));
        merged.filter(|(_, merged)| merged.below > 0)
    }

    /// The epoch before which all lives of a node are over and merged.
    pub(super) fn first_epoch(&self, node: NodeId) -> u64 {
        self.past.of(node).map_or(0, |past| past.merged.below)
    }

    /// Whether a later life of the node was retired than `epoch`.
    pub(super) fn is_followed_by_retired(&self, id: ReplicaId) -> bool {
        let merged = |past: &Past| past.merged.below.checked_sub(1);
        let last = |past: &Past| past.recent.last().map(|life| life.0).or_else(|| merged(past));
        self.past.of(id.node).and_then(last).is_some_and(|last| last > id.epoch)
    }

    /// Whether more later lives of the node than `most` are retired, and not merged for the sake of this one.
    pub(in crate::map) fn keeps_from_merging(&self, replica: u16, most: usize) -> bool {
        let id = self.id(replica);
        let recent = self.past.of(id.node).map_or(&[][..], |past| &past.recent);
        recent.len() > most.max(RECENT) && recent[0].0 > id.epoch
    }

    /// Whether all that a life wrote is known to all members, and here to be all of it that counts: nothing but the
    /// entries can name it.
    pub(in crate::map) fn is_spent(&self, replica: u16) -> bool {
        let known = &self.known[usize::from(replica)];
        let end = known.seal.as_ref().map_or(known.base, |seal| seal.end);
        let whole = known.base == end && known.ahead.is_empty() && !known.vacant;
        // Who lacked some of it still would be given all of the map in place of what it lacks.
        let told = known.log.is_empty() && known.floor == known.base;
        whole && told && (known.base > 0 || known.seal.is_some())
    }

    /// The seal that a life without gaps has if it has none.
    pub(in crate::map) fn seal_as_known(&self, replica: u16) -> Seal {
        Seal { end: self.base(replica), void: Runs::default() }
    }

    /// Retires a [spent](Self::is_spent) life that is sealed and that no entry names. Nothing may know its number any
    /// more. Returns whether it is retired.
    pub(in crate::map) fn retire(&mut self, replica: u16) -> bool {
        let id = self.id(replica);
        if !self.is_spent(replica) || !self.has_room_for_past(id.node) {
            return false;
        }
        let Some(seal) = self.known[usize::from(replica)].seal.take() else { return false };
        self.vacate(replica);
        let past = self.past.nodes.entry(id.node).or_default();
        if let Err(at) = past.recent.binary_search_by_key(&id.epoch, |life| life.0) {
            past.recent.insert(at, (id.epoch, seal));
            self.past.kept += 1;
        }
        self.merge_past(id.node);
        true
    }

    /// A retired life gets a number again, if this write of it is void: an entry is to name that. Whoever was away when
    /// the life was retired may have what has become void, and is to hear that somebody else has written it anew. Once
    /// all have heard, it is retired again. Returns the number; or nothing if the write counts, or few numbers are left:
    /// those are for lives of which more is to be known. Of merged lives nothing is known any more.
    pub(in crate::map) fn revive(&mut self, id: ReplicaId, counter: u64) -> Option<u16> {
        let room = self.max.saturating_sub(self.in_use()) * SPARE > self.max;
        let past = self.past.nodes.get_mut(&id.node)?;
        let at = past.recent.binary_search_by_key(&id.epoch, |life| life.0).ok()?;
        if !past.recent[at].1.is_void(counter) || !room {
            return None;
        }
        let (_, seal) = past.recent.remove(at);
        self.past.kept -= 1;
        let number = self.intern(id)?;
        let known = &mut self.known[usize::from(number)];
        (known.base, known.floor, known.logged) = (seal.end, seal.end, seal.end);
        known.seal = Some(seal);
        Some(number)
    }

    /// Takes over a retired life of a snapshot, of which nothing is known here. There is [room](Self::has_room_for_past).
    pub(in crate::map) fn take_retired(&mut self, id: ReplicaId, seal: Seal) {
        self.need_nobody();
        let life = hash::mix2(id.node.0, id.epoch);
        let (of_seal, of_base) = (seal.hash(life), share(life, seal.end));
        self.seals = self.seals.wrapping_add(of_seal);
        self.digest = self.digest.wrapping_add(of_seal).wrapping_add(of_base);
        let recent = &mut self.past.nodes.entry(id.node).or_default().recent;
        let at = recent.partition_point(|other| other.0 < id.epoch);
        recent.insert(at, (id.epoch, seal));
        self.past.kept += 1;
    }

    /// Sees to it that there is a number that stands for retired lives.
    fn need_nobody(&mut self) {
        if self.past.nobody.is_none() {
            self.past.nobody = u16::try_from(self.known.len()).ok();
            self.known.push(Known::vacant());
        }
    }

    /// Merges all retired lives of a node but the last ones, up to the first that has a number.
    fn merge_past(&mut self, node: NodeId) {
        let Some(past) = self.past.nodes.get_mut(&node) else { return };
        let lives = ReplicaId::new(node, 0)..=ReplicaId::new(node, u64::MAX);
        let first = self.order.range(lives).next().map_or(u64::MAX, |(id, _)| id.epoch);
        while past.recent.len() > RECENT && past.recent[0].0 < first.min(LAST) {
            let (epoch, seal) = past.recent.remove(0);
            self.past.kept -= 1;
            let life = hash::mix2(node.0, epoch);
            past.merged = past.merged.with(life, seal.end, seal.hash(life));
            past.merged.below = epoch + 1;
        }
    }

    /// A number without a life.
    fn vacate(&mut self, replica: u16) {
        let known = &mut self.known[usize::from(replica)];
        self.order.remove(&known.id);
        *known = Known::vacant();
        if self.past.nobody.is_none() {
            self.past.nobody = Some(replica);
        } else {
            self.past.free.push(replica);
        }
    }

    /// Takes in a seal of a retired life that is kept. Returns whether it makes more names void.
    pub(in crate::map) fn take_retired_seal(
        &mut self,
        id: ReplicaId,
        end: u64,
        void: &Runs,
    ) -> bool {
        let Some(past) = self.past.nodes.get_mut(&id.node) else { return false };
        let Ok(at) = past.recent.binary_search_by_key(&id.epoch, |life| life.0) else {
            return false;
        };
        let before = &past.recent[at].1;
        let seal = Seal::merge(Some(before), end, void);
        if seal == *before || seal.void.counters_len() > MAX_MERGED {
            return false;
        }
        let life = hash::mix2(id.node.0, id.epoch);
        let seals = seal.hash(life).wrapping_sub(before.hash(life));
        let bases = share(life, seal.end).wrapping_sub(share(life, before.end));
        past.recent[at].1 = seal;
        self.seals = self.seals.wrapping_add(seals);
        self.digest = self.digest.wrapping_add(seals).wrapping_add(bases);
        true
    }

    /// Compares what a peer has merged of a node's lives with what is known of them here.
    pub(in crate::map) fn compare_past(&self, node: NodeId, told: Merged) -> Verdict {
        let own = self.past.of(node);
        let mut sum = own.map_or_else(Merged::default, |past| past.merged);
        if told.below <= sum.below {
            // Of two that are not the same everybody goes by the greater.
            let other = told.below == sum.below && told > sum;
            return if other { Verdict::Other } else { Verdict::Known };
        }
        for (epoch, seal) in own.iter().flat_map(|past| &past.recent) {
            if *epoch < told.below {
                let life = hash::mix2(node.0, *epoch);
                sum = sum.with(life, seal.end, seal.hash(life));
            }
        }
        let mut sealed = Vec::new();
        for number in self.lives_before(node, told.below) {
            let known = &self.known[usize::from(number)];
            let whole = self.is_whole(number);
            if !whole && (known.seal.is_some() || !known.ahead.is_empty()) {
                return Verdict::Other;
            }
            if whole || known.base > 0 {
                let seal = known.seal.clone().unwrap_or_else(|| self.seal_as_known(number));
                sum = sum.with(known.hash, seal.end, seal.hash(known.hash));
                sealed.extend((!whole).then_some((number, seal)));
            }
        }
        if (sum.seals, sum.bases) != (told.seals, told.bases) {
            Verdict::Other
        } else if sealed.is_empty() {
            Verdict::Known
        } else {
            Verdict::Sealed(sealed)
        }
    }

    /// The numbers of a node's lives before some epoch.
    pub(in crate::map) fn lives_before(
        &self,
        node: NodeId,
        epoch: u64,
    ) -> impl Iterator<Item = u16> {
        let lives = ReplicaId::new(node, 0)..ReplicaId::new(node, epoch);
        self.order.range(lives).map(|(_, number)| *number)
    }

    /// Whether a sealed life of the node is known that is not before this epoch. What vouches for merged lives here is
    /// told with them to others.
    pub(in crate::map) fn has_sealed_life_from(&self, node: NodeId, epoch: u64) -> bool {
        let lives = ReplicaId::new(node, epoch)..=ReplicaId::new(node, u64::MAX);
        let last = self.past.of(node).and_then(|past| past.recent.last());
        let sealed = |number: &u16| self.known[usize::from(*number)].seal.is_some();
        self.order.range(lives).any(|(_, number)| sealed(number))
            || last.is_some_and(|life| life.0 >= epoch)
    }

    /// Whether a life of the node may be retired: the nodes that have such, and the lives that are kept of them, are as
    /// many as there may be replicas at most.
    pub(in crate::map) fn has_room_for_past(&self, node: NodeId) -> bool {
        self.past.kept < self.max && self.has_room_for_pasts(node, 0)
    }

    /// Whether it may be told what is left of the node's lives, beside so many nodes more.
    pub(in crate::map) fn has_room_for_pasts(&self, node: NodeId, others: usize) -> bool {
        let number = self.past.nobody.is_some() || self.known.len() < self.max;
        let nodes = self.past.nodes.len() + others;
        number && (nodes < self.max || self.past.nodes.contains_key(&node))
    }

    /// Takes over what a peer has merged of a node's lives, in the place of what is known of them. No entry may name
    /// them, and nothing know their numbers.
    pub(in crate::map) fn take_past(&mut self, node: NodeId, told: Merged) {
        let lives: Vec<u16> = self.lives_before(node, told.below).collect();
        for number in lives {
            let known = &self.known[usize::from(number)];
            let seal = known.seal.as_ref().map_or(0, |seal| seal.hash(known.hash));
            let ahead = known.ahead.keys().map(|counter| hash::mix_with(known.of_dots, *counter));
            let ahead = ahead.fold(known.digest(), u64::wrapping_add);
            self.seals = self.seals.wrapping_sub(seal);
            self.digest = self.digest.wrapping_sub(seal).wrapping_sub(ahead);
            self.vacate(number);
        }
        self.need_nobody();
        let past = self.past.nodes.entry(node).or_default();
        let mut sum = past.merged;
        for (epoch, seal) in past.recent.iter().filter(|life| life.0 < told.below) {
            let life = hash::mix2(node.0, *epoch);
            sum = sum.with(life, seal.end, seal.hash(life));
        }
        let before = past.recent.len();
        past.recent.retain(|life| life.0 >= told.below);
        self.past.kept -= before - past.recent.len();
        past.merged = told;
        let seals = told.seals.wrapping_sub(sum.seals);
        let bases = told.bases.wrapping_sub(sum.bases);
        self.seals = self.seals.wrapping_add(seals);
        self.digest = self.digest.wrapping_add(seals).wrapping_add(bases);
    }
}

impl Context {
    /// A number goes to another life.
    pub(in crate::map) fn forget(&mut self, replica: u16) {
        if usize::from(replica) < self.len() {
            *self.runs_mut(replica) = Runs::default();
        }
    }
}
