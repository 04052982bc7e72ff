//! Retiring lives that are over, so that what is kept grows with the nodes that there ever were and not with how often
//! they were started.
//!
//! A life costs little, but whoever starts again without its state begins another one, for as long as there is a map.
//! So once more than [`max_past_lives`](super::Config::max_past_lives) are over and followed by others, or sixteen times
//! as many are those of nodes that are gone, it is looked which of them the entries still name, some entries at a time.
//! Of those that none names all writes are superseded by others that every member has: nobody will ever be told of them
//! again. They are [sealed](super::seal); and once every member has taken the seals, and written anew what they made void,
//! they are [retired](super::replica::Replicas::retire). Not sooner: marks of a retired life are not kept, and without its
//! mark whoever waits to write a value anew does not learn that somebody else has. He may be no member, though, and come
//! back later; so a retired life gets its number back while some entry has a mark of a void write of it
//! ([`revive`](super::replica::Replicas::revive)).
//!
//! Values that nobody has touched since keep a life. That is well as long as there are few such lives. If there are
//! sixteen times as many as are kept otherwise, the peer that ranks first for such a life writes its values again as its
//! own; and so for a life that is followed by four times as many retired ones, since lives are merged from the first
//! on. Not sooner, for it is a write like any other: what somebody who is cut off removes meanwhile returns with him.
//!
//! One without members judges nothing: it knows least of what others have.
//!
//! This happens to all members at about the same time, and nobody asks the others: what a seal is without is
//! written anew by whoever has it, and a life that is retired here and not there contributes to the digests as before.
//!
//! One that was cut off while more lives of a node were retired than are kept one by one may find that it does not know
//! the same of them. It takes the word of the others: what it has of those lives it writes anew if not all of its
//! members had it, and drops otherwise, for either the others have superseded it or the node that wrote it told nobody
//! but the few here, lost its state, and began more than eight lives elsewhere. To write all of it anew instead would
//! bring back, for that rare loss, whatever was overwritten while somebody was cut off. It tells them, by a write to no
//! key, to take all that is here, and takes all that is there. Until then it gives nobody a full sync.
//!
//! A life whose epoch is below merged ones of its node is one that the others have never heard of. It goes on as
//! another, and writes all of its own anew. If it ends before it has heard of that, what it wrote goes as above.

use alloc::vec::Vec;

use super::Map;
use super::dot::{Packed, ReplicaId};
use super::full::PIN;
use super::replica::{LAST, Merged, Verdict};
use super::seal::{Gone, Seal};
use crate::event::Key;
use crate::hash;
use crate::hrw;
use crate::id::NodeId;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use core::time::Duration;

/// Entries that are looked at in one go …
const STEP: u32 = 2_048;
/// … with so much time between, …
const PAUSE: Duration = Duration::from_millis(1);
/// … and values that are written again at most.
const MAX_WRITES: usize = 64;
/// How many times as many lives are kept of nodes that are gone, which may come back, and of those that have values.
const KEPT: usize = 16;
/// How many times as many retired lives of one node are kept one by one for the sake of one before them that has values.
const BLOCKED: usize = 4;

/// A walk through all entries for the lives that they name.
#[derive(Debug)]
struct Census {
    next: u32,
    at: Instant,
    /// By number, whether an entry names it. Numbers that came later are not judged.
    named: Vec<bool>,
}

/// What this replica has to do about lives that are over.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    census: Option<Census>,
    /// When the next one may begin.
    again: Instant,
    /// Lives whose values are written again in that.
    adopting: Vec<u16>,
    /// Whether lives were sealed that are to be retired once all have taken the seals. Until then no walk is of use.
    sealed: bool,
    /// Until when it looks for somebody who knows what it does not know of merged lives.
    behind: Option<Instant>,
}

impl Retiring {
    pub(super) fn timeout(&self) -> Option<Instant> {
        let census = self.census.as_ref().map(|census| census.at);
        census.into_iter().chain(self.behind).min()
    }

    /// Whether slots may not be numbered anew.
    pub(super) const fn is_counting(&self) -> bool {
        self.census.is_some()
    }

    /// Whether others know of writes that count as known here.
    pub(super) const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// A full sync was taken. Who has the same seals and gives one knows what those lives wrote.
    pub(super) const fn caught_up(&mut self) {
        self.behind = None;
    }

    /// Entries that were looked at already may have been given anything.
    pub(super) fn stop_counting(&mut self) {
        (self.census, self.adopting) = (None, Vec::new());
    }

    #[cfg(test)]
    pub(super) fn begin_walk(&mut self, now: Instant) {
        self.census = Some(Census { next: 0, at: now, named: Vec::new() });
    }

    #[cfg(test)]
    pub(super) fn end_walk(&mut self) {
        self.census = None;
    }

    /// An entry that was looked at already may have been given these marks. Values of lives that are over it cannot be
    /// given: they are known.
    pub(super) fn note_named(&mut self, marks: &[Packed]) {
        if let Some(census) = &mut self.census {
            marks.iter().for_each(|mark| census.note(*mark));
        }
    }
}

impl Census {
    fn note(&mut self, dot: Packed) {
        if let Some(named) = self.named.get_mut(usize::from(dot.replica())) {
            *named = true;
        }
    }

    fn is_named(&self, life: u16) -> bool {
        self.named.get(usize::from(life)).copied().unwrap_or(true)
    }
}

/// How many of some lives are to be retired, if so many may be kept.
const fn due(lives: &[u16], most: usize) -> usize {
    if lives.len() > most { lives.len() - most / 2 } else { 0 }
}

impl Map {
    /// Begins a walk if there is reason to.
    pub(super) fn consider_census(&mut self, now: Instant) {
        let due = self.lives_over_by_kind(now).iter().any(|(lives, most)| due(lives, *most) > 0);
        // Some may be over soon, or spent.
        let known = self.replicas.numbers().count();
        let usual = self.config.max_past_lives.saturating_add(self.peers.len() + 1);
        if due || known > usual {
            self.expect_gaps(now);
        }
        let idle = self.retiring.census.is_none() && now >= self.retiring.again;
        let of_use = self.has_members() && (!self.retiring.sealed || self.are_seals_settled());
        if due && idle && of_use {
            self.retiring.sealed = false;
            // A number that is free goes to a life that may be named where was looked already.
            let mut named = alloc::vec![true; self.replicas.len()];
            self.replicas.numbers().for_each(|life| named[usize::from(life)] = false);
            self.retiring.census = Some(Census { next: 0, at: now, named });
        }
    }

    pub(super) fn fire_retiring(&mut self, now: Instant) {
        if self.retiring.behind.take_if(|until| *until <= now).is_some() {
            if self.peers.len() == 0 {
                // It is this replica that is away.
                self.retiring.behind = Some(now + PIN);
            } else {
                // Whoever knew more is gone for good.
                self.sync_soon(now);
            }
        }
        let Some(mut census) = self.retiring.census.take_if(|census| census.at <= now) else {
            return;
        };
        let adopting = core::mem::take(&mut self.retiring.adopting);
        let mut writes = 0;
        let end = census.next.saturating_add(STEP).min(self.store.slots());
        while census.next < end && writes < MAX_WRITES {
            writes += self.count_slot(now, census.next, &mut census, &adopting);
            census.next += 1;
        }
        if census.next >= self.store.slots() {
            self.retire_spent(now, &census);
        } else {
            let pause = if writes > 0 { self.config.push_interval } else { PAUSE };
            census.at = now + pause.max(PAUSE);
            self.retiring.adopting = adopting;
            self.retiring.census = Some(census);
        }
    }

    /// Notes which lives an entry names, and writes values of some of them again. Returns how many.
    fn count_slot(
        &mut self,
        now: Instant,
        slot: u32,
        census: &mut Census,
        adopting: &[u16],
    ) -> usize {
        let entry = self.store.entry(slot);
        entry.superseded().chain(entry.siblings().map(|own| own.dot)).for_each(|dot| {
            census.note(dot);
        });
        if adopting.is_empty() || entry.waits(&self.replicas) {
            return 0;
        }
        let left = entry.siblings().filter(|own| adopting.contains(&own.dot.replica()));
        let left: Vec<_> = left.map(|own| (own.dot, Vec::from(own.value))).collect();
        let key = Vec::from(entry.key);
        for (dot, stored) in &left {
            if self.may_write() {
                let new = self.write_again(now, (slot, &key), stored, |other| other == *dot);
                self.tell_written_anew(&key, *dot, new);
            }
        }
        left.len()
    }

    /// All entries were looked at: retires what none of them names.
    fn retire_spent(&mut self, now: Instant, census: &Census) {
        self.retiring.again = now + self.config.collect_interval;
        if self.staging.is_some() || self.is_pinned() || !self.has_members() {
            // Whoever is given all goes by the numbers of lives, and new seals would break off what is given.
            return;
        }
        let mut kinds = self.lives_over_by_kind(now);
        let mut spent = Vec::new();
        for (lives, most) in &kinds {
            spent.extend(self.lives_to_retire(census, lives, due(lives, *most)));
        }
        let (sealed, unsealed): (Vec<u16>, Vec<u16>) =
            spent.iter().partition(|life| self.replicas.seal(**life).is_some());
        if self.are_seals_settled() {
            self.retire(&sealed);
        }
        let most = self.config.max_past_lives.saturating_mul(KEPT);
        for ((lives, _), most) in kinds.iter_mut().zip([0, most, most]) {
            lives.retain(|life| !spent.contains(life));
            let lives = self.lives_to_adopt(census, lives, due(lives, most));
            self.retiring.adopting.extend(lives);
        }
        if spent.is_empty() && self.retiring.adopting.is_empty() {
            self.retiring.again = now + self.config.keep_for.max(self.config.collect_interval);
        }
        // One lot after the other: each has all members agree anew.
        if sealed.is_empty() {
            let seal = |life| (life, self.replicas.seal_as_known(life));
            let seals: Vec<(u16, Seal)> = unsealed.into_iter().map(seal).collect();
            self.retiring.sealed = !seals.is_empty();
            self.take_seals(now, seals);
        } else {
            self.retiring.sealed = !self.are_seals_settled();
        }
    }

    /// Retires lives that are sealed and spent.
    fn retire(&mut self, lives: &[u16]) {
        let retired: Vec<u16> =
            lives.iter().copied().filter(|life| self.replicas.retire(*life)).collect();
        if !retired.is_empty() {
            self.stats.retired += retired.len() as u64;
            self.peers.stop_serving_all();
            retired.iter().for_each(|life| self.forget_number(*life));
        }
    }

    /// The lives of others that are over, each with how many such are kept: those that keep later ones from being merged,
    /// others that another one of the same node followed, and those of nodes that are gone.
    fn lives_over_by_kind(&mut self, now: Instant) -> [(Vec<u16>, usize); 3] {
        let over = self.lives_over(now);
        let replicas = &self.replicas;
        let (followed, gone): (Vec<u16>, _) =
            over.into_iter().partition(|life| replicas.is_followed(*life));
        let most = self.config.max_past_lives;
        let blocks = |life: &u16| replicas.keeps_from_merging(*life, most.saturating_mul(BLOCKED));
        let (blocking, followed) = followed.into_iter().partition(blocks);
        [(blocking, 0), (followed, most), (gone, most.saturating_mul(KEPT))]
    }

    /// Of some lives those that nothing names, up to so many.
    fn lives_to_retire(&self, census: &Census, lives: &[u16], due: usize) -> Vec<u16> {
        let unnamed = |life: &u16| !census.is_named(*life) || sabotaged!("retired-though-named");
        let spent = |life: &u16| unnamed(life) && self.replicas.is_spent(*life);
        let mut spent: Vec<u16> = lives.iter().copied().filter(spent).collect();
        spent.sort_unstable_by_key(|life| self.replicas.id(*life));
        spent.truncate(due);
        spent
    }

    /// Of some lives, so many of which should be retired, those whose values this replica is to write again for that.
    fn lives_to_adopt(&self, census: &Census, lives: &[u16], due: usize) -> Vec<u16> {
        let named = |life: &u16| census.is_named(*life) && self.replicas.is_spent(*life);
        let mut lives: Vec<u16> = lives.iter().copied().filter(named).collect();
        lives.sort_unstable_by_key(|life| {
            let ReplicaId { node, epoch } = self.replicas.id(*life);
            (epoch, node)
        });
        lives.truncate(due);
        lives.retain(|life| self.is_heir(self.replicas.id(*life)));
        lives
    }

    /// Whether of all peers this one writes values of a life again. Not the node whose life it was, for one that starts
    /// again and again would never get to it.
    fn is_heir(&self, life: ReplicaId) -> bool {
        let (key, me) = (hash::mix2(life.node.0, life.epoch), self.replicas.own().node);
        let peers = self.peers.slots().filter_map(|slot| self.peers.get(slot));
        let mut others = peers.map(|peer| peer.id).filter(|id| *id != life.node);
        let mine = hrw::score(key, me);
        me != life.node && others.all(|other| hrw::score(key, other) <= mine)
    }

    /// A life has given up its number, which nothing may know any more.
    fn forget_number(&mut self, life: u16) {
        self.peers.forget_replica(life);
        self.garbage.forget(life);
        self.seals.forget(life);
        if let Some(log) = &mut self.log {
            log.forget(life);
        }
    }

    /// A peer tells what is left of the lives of nodes that it has merged.
    pub(super) fn hear_pasts(&mut self, now: Instant, told: &[(NodeId, Merged)]) {
        let (mut others, mut unheard) = (Vec::new(), None);
        for &(node, merged) in told {
            // Lives are merged when there are many later ones. Without any nobody vouches for it.
            let vouched = self.replicas.has_sealed_life_from(node, merged.below);
            let room = self.replicas.has_room_for_pasts(node, others.len());
            if merged.below > LAST || !vouched || !room {
                continue;
            }
            // A life with such an epoch nobody listens to.
            let (own, me) = (self.replicas.own(), self.replicas.me());
            if own.node == node && own.epoch < merged.below {
                if !self.begin_life_from(merged.below) {
                    continue;
                }
                unheard = Some(me);
            }
            match self.replicas.compare_past(node, merged) {
                Verdict::Known => {}
                Verdict::Sealed(seals) => self.take_seals(now, seals),
                Verdict::Other if sabotaged!("other-past-ignored") => {}
                Verdict::Other => others.push((node, merged)),
            }
        }
        if !others.is_empty() {
            self.take_pasts(now, &others, unheard);
        }
    }

    /// Takes another's word for the lives of some nodes before some epochs. One of them may be that of this replica until
    /// now, of which the others have not heard.
    fn take_pasts(&mut self, now: Instant, told: &[(NodeId, Merged)], unheard: Option<u16>) {
        // That there is no entry may be what others do not know.
        let knows = |life| self.replicas.base(life) > 0 || self.replicas.has_gap(life);
        let fresh = !self.replicas.numbers().any(knows);
        let before = |(node, merged): &(NodeId, Merged)| {
            self.replicas.lives_before(*node, merged.below).collect::<Vec<u16>>()
        };
        let lives: Vec<u16> = told.iter().flat_map(before).collect();
        let mut gone: Vec<(u16, Gone)> = Vec::new();
        for life in &lives {
            let as_known = self.replicas.seal_as_known(*life);
            let Seal { end, void } = self.replicas.seal(*life).cloned().unwrap_or(as_known);
            let known = if unheard == Some(*life) { 0 } else { self.replicas.floor(*life) };
            let end = end.min(known);
            gone.extend(self.replicas.take_seal(*life, end, &void).map(|gone| (*life, gone)));
        }
        self.replace(now, gone);
        if !fresh {
            self.write_nowhere(now, now);
        }
        self.write_all_waiting(now);
        let slots = if lives.is_empty() { 0 } else { self.store.slots() };
        for slot in 0..slots {
            if let Some((before, after)) = self.store.forget_lives(&self.replicas, slot, &lives) {
                let key = Key::new(self.store.entry(slot).key);
                self.note_change(slot, &key, before, after);
            }
        }
        told.iter().for_each(|(node, merged)| self.replicas.take_past(*node, *merged));
        lives.iter().for_each(|life| self.forget_number(*life));
        self.note_untidy();
        self.retiring.stop_counting();
        self.fall_behind(now);
        self.under_other_seals(now);
    }

    /// From now on somebody is looked for who knows what counts as known here. That may be who had nothing new until now.
    pub(super) fn fall_behind(&mut self, now: Instant) {
        self.peers.ask_all_again();
        self.retiring.behind = Some(now + self.config.keep_for.max(PIN));
    }
}

#[cfg(test)]
mod tests;
