//! Who is told what, and who is asked.
//!
//! The writer alone pushes a fresh change, once, to every peer; nobody forwards. Whatever that
//! misses is pulled: state digests ride on pings and acks, and a replica that sees a different one
//! sends its context and is answered with what it lacks. The next pull is the acknowledgement of the
//! last, so the answering side keeps no timers, and no copies but of what is under way in fragments.
//!
//! One peer is asked at a time for all that is missing. While that is more than one answer holds, up to three are asked
//! for a share of it each; see [`shares`](super::shares). One source alone, asked for three times as much
//! ([`Config::pull_budget`](super::Config::pull_budget)), brings 50,000 writes as fast as three where all ways are alike,
//! and faster where datagrams get lost by luck (`tests/map/catching_up.rs`). But a replica stays with a slow source that it
//! happened to ask first: 2.8 s in place of 0.64 s, if that is 200 ms away and two others are 20 ms. And what a short queue
//! on the way does not take is more: 11 % of all bytes in place of 7 %, with room for 20 KB.

use core::time::Duration;

use smallvec::SmallVec;

use super::Map;
use super::ask::Pulling;
use super::dot::{Packed, ReplicaId};
use super::peer::{Assumed, Cursor};
use super::pull_wire::{Listed, Pull};
use super::replica::Fate;
use super::skim::Skim;
use super::wire::{Chunk, Frame};
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// Pulls in a row without an answer that are repeated at once.
pub(super) const MAX_QUICK_RETRIES: u32 = 4;
/// The same of pulls from who gave a full sync, after which others are asked too.
const MAX_CATCHING_RETRIES: u32 = 2;
/// How much more often the digest is told while garbage waits.
const HASTE: u32 = 4;

impl Map {
    pub(super) fn apply_frame(&mut self, now: Instant, slot: u32, frame: Frame<'_>) {
        match frame {
            Frame::Pull(pull) => self.on_pull(now, slot, pull),
            Frame::State { context, content, epoch } => {
                self.on_state(now, slot, context, content, epoch);
            }
            Frame::Chunk(chunk) => self.on_chunk(now, slot, &chunk, &Skim::of(chunk.items)),
            Frame::Fetch(fetch) => self.on_fetch(now, slot, fetch),
            Frame::Stage(stage) => self.on_stage(now, slot, &stage),
            Frame::Gone { addressee, number } => self.on_gone(now, slot, addressee, number),
            Frame::Have(have) => self.on_have(now, slot, have),
            Frame::Seals(told) => self.on_seals(now, slot, told),
            Frame::Fragment(fragment) => self.on_fragment(now, slot, &fragment),
            Frame::Buckets(sums) => self.on_buckets(now, slot, sums),
            Frame::Differ(told) => self.on_differ(now, slot, told),
            Frame::Unknown => {}
        }
    }

    /// A local write happened: push it at once, or when the push interval is over.
    pub(super) fn schedule_push(&mut self, now: Instant) {
        if self.push_at.is_none() {
            let at = self.pushed_at.map_or(now, |last| last + self.config.push_interval);
            self.push_at = Some(at);
        }
        self.fire_push(now);
        self.sync_soon(now);
        self.count_news(now, 1);
        self.expect_garbage(now);
    }

    pub(super) fn fire_push(&mut self, now: Instant) {
        if self.push_at.is_some_and(|at| at <= now) {
            self.push_at = None;
            self.pushed_at = Some(now);
            self.peers.wake_all_for_push();
        }
    }

    pub(super) fn fire_pull(&mut self, now: Instant) {
        self.fire_shares(now);
        if let Some(pulling) = self.pulling.take_if(|pulling| pulling.deadline <= now) {
            self.narrow(&pulling);
            self.late = Some(pulling);
            self.stats.pulls_timed_out += 1;
            self.unanswered += 1;
            let asked = self.late.as_ref().map(Pulling::peer);
            if let Some(peer) = asked.and_then(|slot| self.peers.get_mut(slot)) {
                peer.unanswered = peer.unanswered.saturating_add(1);
            }
            // Whoever it was may be gone; another one has the data too. A lost datagram is made good
            // at once, an unreachable world is asked at the usual pace.
            if self.unanswered > MAX_CATCHING_RETRIES {
                self.catching = None;
            }
            let spoke = self.wanted.filter(|slot| self.may_have(*slot) && !self.is_silent(*slot));
            let other = self.catching.or(spoke).or_else(|| self.candidate());
            // The only one that is there and has something may be hard to draw.
            let same = asked.filter(|slot| self.may_have(*slot));
            let better = same.filter(|same| !self.is_silent(*same));
            // Where nobody is known to answer: who spoke is there, and may have lost the question or its answer.
            let heard = self.heard.filter(|slot| self.may_have_lost(*slot));
            self.wanted = match other {
                Some(other) if self.is_silent(other) => better.or(heard).or(Some(other)),
                other => other.or(same).or(heard),
            };
            if self.wanted.is_none() {
                reached!("map: pull from nobody else");
            } else if self.unanswered <= MAX_QUICK_RETRIES {
                reached!("map: pull from another at once");
            } else {
                reached!("map: pull from another later");
            }
            if self.unanswered <= MAX_QUICK_RETRIES {
                self.pull_after = now;
            }
        }
        if self.may_pull(now) && self.wanted.is_some() {
            let wanted = self.wanted.take();
            if let Some(slot) = wanted {
                self.start_pull(now, slot);
            }
        }
    }

    pub(super) fn fire_sync(&mut self, now: Instant) {
        if self.sync_at.is_none_or(|at| at > now) {
            return;
        }
        self.sync_at = None;
        // News spread best to anybody. In quiet times everybody is told in turn, and more often while
        // garbage waits for that.
        let (peer, pace) = if core::mem::take(&mut self.news) {
            (self.peers.random(&mut self.rng), 1)
        } else {
            (self.peers.in_turn(&mut self.rng), if self.awaits_members() { HASTE } else { 1 })
        };
        if let Some(slot) = peer {
            self.owe_state(slot);
            if !sabotaged!("sync-not-rearmed") {
                self.arm_sync(now, self.config.sync_interval / pace);
            }
        }
    }

    /// Makes sure that a peer is told the state digest about `within` from now.
    pub(super) fn arm_sync(&mut self, now: Instant, within: Duration) {
        if self.peers.len() > 0 && self.sync_at.is_none_or(|at| at > now + within * 5 / 4) {
            // A timer that fires must be later than before.
            let within = self.rng.jitter(within).max(Duration::from_nanos(1));
            self.sync_at = Some(now + within);
        }
    }

    /// The map changed: whoever misses the change should find out soon.
    pub(super) fn sync_soon(&mut self, now: Instant) {
        self.news = true;
        self.arm_sync(now, self.config.pull_interval);
    }

    pub(super) fn owe_state(&mut self, slot: u32) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.owes_state = true;
            self.peers.wake(slot);
        }
    }

    /// A peer may have what is missing here: ask it now, or when the pull interval is over.
    pub(super) fn want_pull(&mut self, now: Instant, slot: u32) {
        let slot = self.catching.unwrap_or(slot);
        self.wait_no_longer_for_the_silent(now, slot);
        if self.may_pull(now) {
            reached!("map: pull at once");
            self.start_pull(now, slot);
        } else if self
            .wanted
            .is_none_or(|wanted| self.full == Some(wanted) || self.is_silent(wanted))
        {
            // One whose data was refused comes after the others, and so does one that may be gone.
            reached!("map: pull later");
            self.wanted = Some(slot);
        } else {
            reached!("map: pull wanted already");
        }
    }

    fn may_pull(&self, now: Instant) -> bool {
        let idle = self.pulling.is_none() && self.shares.is_idle();
        idle && self.staging.is_none() && self.pull_after <= now
    }

    pub(super) fn start_pull(&mut self, now: Instant, slot: u32) {
        let budget = self.taken.left(now).min(self.window);
        let least = self.max_datagram;
        if budget < least as u64 {
            self.wanted = Some(slot);
            self.pull_after = self.pull_after.max(now + self.taken.wait_for(least));
            return;
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.owes_pull = true;
        self.peers.wake(slot);
        self.pulling = Some(self.pulling_from(now, slot, budget));
        self.pull_after = now + self.config.pull_interval;
        self.stats.pulls_sent += 1;
    }

    /// A pull from the peer in `slot` that begins now.
    pub(super) fn pulling_from(&mut self, now: Instant, slot: u32, budget: u64) -> Pulling {
        let state = self.peers.get(slot).map_or(0, |peer| peer.state);
        // Never zero, which marks a push.
        let nonce = u64::from(self.rng.u32()) + 1;
        let deadline = now + self.patience_with(slot);
        let listing = self.listing();
        Pulling {
            peer: slot,
            nonce,
            started: now,
            deadline,
            answered: false,
            of_silent: self.is_silent(slot),
            budget,
            listing,
            share: None,
            took: None,
            tries: 0,
            state,
            after: self.page,
            upto: None,
            seals: self.replicas.seals(),
            news: 0,
            next: Some(0),
            partial: false,
            crowded: false,
            repairs: false,
        }
    }

    fn on_state(
        &mut self,
        now: Instant,
        slot: u32,
        context: u64,
        content: u64,
        epoch: Option<u64>,
    ) {
        self.meet_life(slot, epoch);
        let mine = self.context_digest();
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.state = context;
        if context == mine || peer.exhausted == Some(context) {
            peer.cover(now);
        }
        if context == mine {
            reached!("map: digests equal");
            self.heard_equal(now, slot);
            self.catching = None;
            self.full.take_if(|full| *full == slot);
            if content != self.store.digest() {
                self.diverged(now, slot);
            }
        } else if peer.exhausted != Some(context) {
            reached!("map: digest differs");
            self.want_pull(now, slot);
        } else {
            reached!("map: digest of an exhausted peer");
        }
    }

    /// The peer in `slot` lives with this replica epoch.
    pub(super) fn meet_life(&mut self, slot: u32, epoch: Option<u64>) {
        let Some(peer) = self.peers.get(slot) else { return };
        let epoch = epoch.unwrap_or(peer.boot);
        if peer.epoch != epoch {
            self.lose_member(None, slot);
            self.peers.stop_serving(slot);
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.meet(epoch);
            }
            self.admit_if_nothing_is_gone(slot);
        }
    }

    fn on_pull(&mut self, now: Instant, slot: u32, pull: Pull<'_>) {
        self.meet_life(slot, Some(pull.epoch));
        if !self.has_seals(slot, pull.seals) {
            self.want_pull(now, slot);
            return;
        }
        if pull.after.is_some() || pull.upto.is_some() {
            reached!("map: asked for a page");
        }
        let mut assumed = SmallVec::new();
        let (behind, past) = self.hear_listed(slot, pull, &mut assumed);
        if let Some(merged) = past {
            self.lacks_past(now, slot, &pull, merged);
            return;
        }
        self.heard_context(now, slot, pull.waits);
        let mut cursor = Cursor::over(pull.after, pull.upto);
        let Some(peer) = self.peers.get(slot) else { return };
        if !peer.member {
            // Whether it lacks dots below the floor is not known of the replicas on other pages; until it
            // is, it is told nothing.
            let all = self.replicas.last();
            cursor = Cursor::over(all, all);
        }
        let logged = self.replicas.range(pull.after, pull.upto).all(|(_, number)| {
            // A member has all below the floor, even if what it told was forgotten just now.
            let from = if peer.member { self.replicas.floor(number) + 1 } else { 1 };
            let next = self.replicas.next_missing(number, peer.known.runs(number), from);
            next.is_none_or(|next| next > self.replicas.served_from(number))
        });
        if logged && !pull.whole || sabotaged!("served-below-the-floor") {
            if !peer.member {
                reached!("map: page of one who may lack what is gone");
            }
            self.serve_pull(now, slot, &pull, cursor, assumed);
        } else {
            self.peers.stop_serving(slot);
            self.offer_full(now, slot, &pull);
        }
        if behind {
            reached!("map: asked by one who is ahead");
            self.want_pull(now, slot);
        } else {
            reached!("map: asked by one who is not");
        }
    }

    /// Hears what the peer in `slot` says in a pull that it has, and what may be assumed of it in the answer. Returns
    /// whether it knows of writes that are unknown here, and whether it tells of lives that were retired here, and
    /// of merged ones even.
    fn hear_listed(
        &mut self,
        slot: u32,
        mut pull: Pull<'_>,
        assumed: &mut SmallVec<[Assumed; 1]>,
    ) -> (bool, Option<bool>) {
        let (mut behind, mut past) = (false, None);
        let Some(peer) = self.peers.get_mut(slot) else { return (behind, past) };
        let mut sealed: SmallVec<[u16; 16]> = SmallVec::new();
        while let Ok(Some((id, Listed { known: runs, set_aside }))) = pull.next() {
            if let Some(fate) = self.replicas.fate(id) {
                // It would not tell of a life of which it has all that counts.
                past = past.max(Some(matches!(fate, Fate::Merged)));
                continue;
            }
            let Some(number) = self.replicas.number(id) else {
                reached!("map: asked about a replica unknown here");
                // Nothing of it is known here; its dots are asked for below.
                behind |= runs.base > 0 || !runs.runs.is_empty();
                continue;
            };
            behind |= runs.base > self.replicas.base(number);
            while sabotaged!("context-adopted") && behind && self.store.slots() > 0 {
                let next = Packed::new(number, self.replicas.base(number) + 1);
                behind = next.counter() < runs.base && self.replicas.claim(next, 0);
            }
            let known = peer.known.runs_mut(number);
            let base = runs.base;
            known.add(1, base);
            for (from, to) in runs.runs {
                known.add(if sabotaged!("gaps-unheard") { 1 } else { from }, to);
            }
            if let Some(told) = set_aside {
                let all = self.replicas.assume(number, base, told);
                assumed.extend(all.map(|(runs, limit)| Assumed { replica: number, runs, limit }));
            }
            sealed.extend(self.replicas.seal(number).map(|_| number));
        }
        for (number, end) in self.replicas.ends(pull.after, pull.upto) {
            let silent = pull.buckets >> self.replicas.bucket(number) & 1 == 1;
            if silent && !sealed.contains(&number) {
                peer.known.runs_mut(number).add(1, end);
            }
        }
        (behind, past)
    }

    /// The peer in `slot`, which asked so, has not all of a life that was retired here, or merged even.
    fn lacks_past(&mut self, now: Instant, slot: u32, asked: &Pull<'_>, merged: bool) {
        self.lose_member(None, slot);
        self.peers.stop_serving(slot);
        if merged {
            self.owe_seals(slot);
        } else {
            self.offer_full(now, slot, asked);
        }
        self.want_pull(now, slot);
    }

    pub(super) fn on_chunk(&mut self, now: Instant, slot: u32, chunk: &Chunk<'_>, skim: &Skim<'_>) {
        if !self.is_mine(chunk.addressee) {
            reached!("map: chunk to an earlier life");
            self.stats.misaddressed += 1;
            return;
        }
        if chunk.nonce != 0 {
            self.taken.spend(chunk.items.bytes());
        }
        let Some(applied) = self.apply_chunk(now, slot, chunk, skim) else { return };
        if applied.news > 0 {
            self.sync_soon(now);
            self.count_news(now, applied.news);
            self.expect_garbage(now);
        }
        let answers = |pulling: &&mut Pulling| pulling.peer == slot && pulling.nonce == chunk.nonce;
        let patience = self.pull_patience();
        if let Some(pulling) = self.pulling.as_mut().filter(answers) {
            pulling.news += applied.news + applied.set_aside;
            let in_order = pulling.next == Some(chunk.number) && applied.whole;
            if in_order {
                reached!("map: answer in order");
            } else {
                reached!("map: answer with a chunk missing");
            }
            pulling.next = in_order.then_some(chunk.number + 1);
            pulling.deadline = now + patience;
            let (first, took) = (!pulling.answered, now - pulling.started);
            pulling.answered = true;
            if first {
                self.measure_pull(slot, took);
            }
            if chunk.last
                && let Some(pulling) = self.pulling.take()
            {
                self.pulled(now, &pulling, chunk.more);
            }
        } else if let Some(late) = self.late.take_if(|late| answers(&late)) {
            reached!("map: answer that is late");
            self.measure_pull(slot, now - late.started);
            if chunk.last && !chunk.more && self.page == late.after {
                self.page = late.upto;
            }
        } else if !self.on_shared(now, slot, chunk, applied) {
            self.look_for_gap(now, slot);
        }
    }

    /// A fragment comes from the peer in `slot`. Returns whether it answers the pull under way, or the one before.
    pub(super) fn answers_in_fragments(&mut self, now: Instant, slot: u32, nonce: u64) -> bool {
        let patience = self.pull_patience();
        let Some(pulling) = self.pulling.as_mut().filter(|pulling| pulling.is(slot, nonce)) else {
            return self.late.as_ref().is_some_and(|late| late.is(slot, nonce));
        };
        pulling.deadline = now + patience;
        let (first, took) = (!pulling.answered, now - pulling.started);
        pulling.answered = true;
        if first {
            self.measure_pull(slot, took);
        }
        true
    }

    /// A fragment that answers this pull was put to the others.
    pub(super) fn count_fragment(&mut self, slot: u32, nonce: u64, partial: bool, crowded: bool) {
        let pulling = self.pulling.as_mut().filter(|pulling| pulling.is(slot, nonce));
        if let Some(pulling) = pulling {
            pulling.partial |= partial;
            pulling.crowded |= crowded;
        }
    }

    /// A pull was answered to its end.
    fn pulled(&mut self, now: Instant, pulling: &Pulling, more: bool) {
        if !more && !sabotaged!("page-never-turns") {
            self.page = pulling.upto;
        }
        // The last page of the digest, and all of the answer to it: what was refused came meanwhile.
        if !more && pulling.upto.is_none() && pulling.next.is_some() {
            self.full.take_if(|full| *full == pulling.peer);
        }
        if more {
            reached!("map: answered to the budget");
        } else if pulling.upto.is_some() {
            reached!("map: answered to the page");
        } else {
            reached!("map: answered to its end");
        }
        self.widen(pulling);
        if !more {
            self.shares.all_told();
        } else if self.begin_shares(now, pulling) {
            return;
        }
        if more && pulling.news == 0 && !pulling.partial {
            // What one source began to tell another cannot go on with, it seems. It begins anew with the next pull.
            self.stats.windows_forgotten += u64::from(self.replicas.forget_aside());
        }
        // Pushes may have been faster.
        let worth = pulling.news > 0 || self.catching == Some(pulling.peer);
        // Some of an entry is missing. If others were given up for it, all might be begun again and again.
        let partial = pulling.partial && !pulling.crowded;
        let turns = pulling.upto.is_some() && (!more || pulling.news > 0);
        if turns || partial || (more && worth) {
            self.start_pull(now, pulling.peer);
            // What was equal the peer knows of. If nothing of what it told was new, it may have forgotten that.
            let goes_on = pulling.news > 0 || turns;
            if let Some(next) = self.pulling.as_mut().filter(|_| goes_on) {
                next.listing = pulling.listing;
            }
            return;
        }
        self.catching.take_if(|giver| *giver == pulling.peer);
        // All of the answer to all of the digest came, and nothing in it was new: that state of the
        // peer has nothing for this replica.
        let whole = pulling.after.is_none() && pulling.next.is_some() && !more;
        if whole && let Some(peer) = self.peers.get_mut(pulling.peer) {
            if pulling.upto.is_none() {
                peer.cover(pulling.started);
            }
            if pulling.news == 0 {
                reached!("map: answer without news");
                peer.exhausted = Some(pulling.state);
            }
        }
    }

    /// A push that starts after a gap shows that one before it was lost.
    fn look_for_gap(&mut self, now: Instant, slot: u32) {
        let Some(peer) = self.peers.get(slot) else { return };
        let number = self.replicas.number(ReplicaId::new(peer.id, peer.epoch));
        if number.is_some_and(|number| self.replicas.has_gap(number)) {
            reached!("map: push after a gap");
            self.want_pull(now, slot);
        } else {
            reached!("map: push without a gap");
        }
    }

    /// The peer in `slot` told its seals in place of the answer to a pull: that is asked for again, if any was new.
    pub(super) fn ask_again(&mut self, now: Instant, slot: u32) {
        if self.share_told_seals(now, slot) {
            return;
        }
        if let Some(pulling) = self.pulling.take_if(|pulling| pulling.peer == slot) {
            self.unanswered = 0;
            if pulling.seals != self.replicas.seals() {
                self.start_pull(now, slot);
            }
        }
    }
}
