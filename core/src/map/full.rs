//! Full sync, on the side that gives.
//!
//! A peer that lacks a dot below the floor, or one whose log is cut, cannot be told what it misses dot by dot:
//! it is given all entries and the context that they make up together. What is given is numbered: first the
//! context as it was when the session began, in units of a replica each, then the slots of the store. The peer
//! asks for the units that it lacks, in any order, as often as datagrams are lost, and takes all of it in at
//! once; see [`stage`](super::stage). Here nothing is copied but the context, and what is under way of an entry that
//! fits no datagram.
//!
//! Entries go on changing meanwhile, and what is sent of a slot may reflect more than the context of the
//! session says. That does no harm: an entry carries the marks of what it reflects beyond it, as nothing is
//! collected while somebody is served (a session *pins* the floor, for [`PIN`] after the last sign of life,
//! for [`MAX_AGE`] and a little for each slot at most). Keys that are new are in the log. But a replica that
//! itself takes a full sync in knows suddenly what no mark tells of: that ends the sessions it gives.

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::Map;
use super::fragment::Fragments;
use super::fragment_wire::{Held, Of};
use super::full_wire::{self, ContextUnit, Fetch, Range, StageHead, UNIT_RUNS};
use super::introduced::Introduced;
use super::pull_wire::Pull;
use super::wire;
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};
use core::time::Duration;

/// How long a session lasts without a sign of its peer.
pub(super) const PIN: Duration = Duration::from_secs(30);
/// How long sessions last at most, and how long one may follow the other: what is written meanwhile waits for it to
/// be forgotten. A peer that is not through by then begins anew.
const MAX_AGE: Duration = Duration::from_secs(600);
/// So much longer for each slot that is given.
const SLOT_AGE: Duration = Duration::from_millis(1);
/// Most sessions at a time. Others are sent away, to one who has been served.
const MAX_SESSIONS: usize = 8;

/// A full sync being given.
#[derive(Debug)]
struct Session {
    id: u64,
    peer: u32,
    deadline: Instant,
    /// When it is over, whatever its peer does.
    end: Instant,
    context: Vec<ContextUnit>,
    /// Units in all: those of the context, and one for each slot that there was.
    total: u64,
    /// The nonce of the pull that it began with.
    asked: u64,
    /// The nonce of the pull that is answered, and then the number of the FETCH.
    nonce: u64,
    /// Number of the last FETCH.
    number: u64,
    /// How far the answers have got, but for what is given once more.
    sent: u64,
    todo: SmallVec<[Range; 4]>,
    /// Nothing is to be told but that the answer ends.
    ends: bool,
    budget: u64,
    /// What the peer has already of a unit that comes in fragments.
    held: Option<Held>,
    /// The unit that is under way in fragments.
    fragments: Option<(u64, Fragments)>,
}

/// Full syncs being given, and who is told that there is none.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: Vec<Session>,
    /// When the first of those began that have followed each other without a pause.
    since: Instant,
    gone: Vec<(u32, u64)>,
}

impl Sessions {
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.open.iter().map(|session| session.deadline).min()
    }

    /// The peer in `slot` is no more.
    pub(super) fn forget(&mut self, slot: u32) {
        self.open.retain(|session| session.peer != slot);
        self.gone.retain(|(peer, _)| *peer != slot);
    }
}

impl Session {
    /// Begins the answer to a FETCH.
    fn answer(&mut self, mut fetch: Fetch<'_>, budget: u64) {
        let head = fetch.head;
        (self.number, self.nonce, self.budget) = (head.number, head.number, budget);
        (self.held, self.fragments) = (head.held, None);
        self.todo.clear();
        while let Ok(Some((from, to))) = fetch.next() {
            let (mut from, to) = (from, to.min(self.total));
            if to == self.total {
                from = if head.ahead { from.max(self.sent) } else { from };
                self.sent = from;
            }
            if from < to {
                self.todo.push((from, to));
            }
        }
        self.ends = self.todo.is_empty();
    }

    /// All before `next` of what came first was told, in so many bytes, which may have been the last of the answer.
    fn pass(&mut self, next: u64, bytes: u64, last: bool) {
        self.budget = self.budget.saturating_sub(bytes);
        if let Some((from, end)) = self.todo.first_mut() {
            *from = next;
            if *end == self.total {
                self.sent = next;
            }
            if next == *end {
                self.todo.remove(0);
            }
        }
        if last {
            self.todo.clear();
        }
    }
}

impl Map {
    /// Whether somebody is being served, so that nothing may be collected.
    pub(super) const fn is_pinned(&self) -> bool {
        !self.sessions.open.is_empty()
    }

    /// Answers a pull that the log cannot answer.
    pub(super) fn offer_full(&mut self, now: Instant, slot: u32, pull: &Pull<'_>) {
        if self.sessions.open.iter().any(|open| open.peer == slot && open.asked == pull.nonce) {
            // A second copy of what is being answered.
            return;
        }
        if pull.share.is_some() {
            // What is not told write by write is given to who asks for all.
            self.tell_gone(slot, pull.nonce);
            return;
        }
        let free = self.sessions.open.len() < MAX_SESSIONS
            || self.sessions.open.iter().any(|session| session.peer == slot);
        if !free || self.yields_to(slot) {
            reached!("map: full sync refused");
            self.tell_gone(slot, pull.nonce);
            return;
        }
        let slots = self.store.slots();
        let age = MAX_AGE + SLOT_AGE.saturating_mul(slots);
        if self.sessions.open.is_empty() {
            self.sessions.since = now;
        } else if now >= self.sessions.since + age {
            self.sessions.forget(slot);
            self.tell_gone(slot, pull.nonce);
            self.unpinned(now);
            return;
        }
        reached!("map: full sync begins");
        self.write_all_waiting(now);
        self.sessions.forget(slot);
        let context = self.context_units();
        let total = (context.len() + self.store.slots() as usize) as u64;
        let session = Session {
            id: self.rng.u64(),
            peer: slot,
            deadline: now + PIN,
            end: now + age,
            context,
            total,
            asked: pull.nonce,
            nonce: pull.nonce,
            number: 0,
            sent: 0,
            todo: SmallVec::from_slice(&[(0, total)]),
            ends: false,
            budget: self.grant(now, pull.budget),
            held: None,
            fragments: None,
        };
        self.sessions.open.push(session);
        self.peers.wake(slot);
    }

    /// The context, in units that fit any datagram.
    fn context_units(&self) -> Vec<ContextUnit> {
        let mut units = Vec::new();
        for replica in self.replicas.numbers() {
            let (base, floor) = (self.replicas.base(replica), self.replicas.floor(replica));
            let mut ahead = self.replicas.runs_ahead(replica).peekable();
            let mut after = base;
            loop {
                let id = self.replicas.id(replica);
                let runs: SmallVec<[(u64, u64); 2]> = ahead.by_ref().take(UNIT_RUNS).collect();
                let last = runs.last().map_or(after, |run| run.1);
                units.push(ContextUnit { id, base, floor, after, runs });
                after = last;
                if ahead.peek().is_none() {
                    break;
                }
            }
        }
        units
    }

    pub(super) fn tell_gone(&mut self, slot: u32, number: u64) {
        self.sessions.gone.retain(|(peer, _)| *peer != slot);
        self.sessions.gone.push((slot, number));
        self.peers.wake(slot);
    }

    /// The peer in `slot` asks for more of what it is given, or is through.
    pub(super) fn on_fetch(&mut self, now: Instant, slot: u32, fetch: Fetch<'_>) {
        let head = fetch.head;
        let mut ranges = fetch;
        let is_over = !matches!(ranges.next(), Ok(Some(_)));
        let same = |session: &&mut Session| session.peer == slot && session.id == head.session;
        let budget = self.grant(now, head.budget);
        let Some(session) = self.sessions.open.iter_mut().find(same) else {
            if !is_over {
                reached!("map: session is over");
                self.tell_gone(slot, head.session);
            }
            return;
        };
        if is_over {
            reached!("map: full sync given");
            self.sessions.forget(slot);
            self.unpinned(now);
            return;
        }
        session.deadline = (now + PIN).min(session.end);
        if head.number <= session.number {
            reached!("map: asked for units twice");
            return;
        }
        session.answer(fetch, budget);
        self.peers.wake(slot);
    }

    /// Gives up sessions of peers that fell silent.
    pub(super) fn fire_sessions(&mut self, now: Instant) {
        let before = self.sessions.open.len();
        self.sessions.open.retain(|session| session.deadline > now);
        if self.sessions.open.len() < before {
            self.unpinned(now);
        }
    }

    /// Ends all sessions.
    pub(super) fn drop_sessions(&mut self, now: Instant) {
        if sabotaged!("adopts-while-serving") {
            return;
        }
        while let Some(session) = self.sessions.open.pop() {
            self.tell_gone(session.peer, session.id);
        }
        self.unpinned(now);
    }

    /// Writes what the peer in `slot` is owed of a full sync. What does not fit stays owed.
    pub(super) fn write_full(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(peer) = self.peers.get(slot) else { return };
        let (plain, addressee) = (peer.addressee(), self.under_seals(peer.addressee()));
        if let Some(at) = self.sessions.gone.iter().position(|(peer, _)| *peer == slot) {
            let (_, number) = self.sessions.gone[at];
            if full_wire::write_gone(w, plain, number).is_ok() {
                self.sessions.gone.swap_remove(at);
            } else {
                self.peers.wake(slot);
            }
        }
        let before = w.len();
        let mut open = core::mem::take(&mut self.sessions.open);
        for session in open.iter_mut().filter(|session| session.peer == slot) {
            if self.write_stage(w, addressee, session) {
                self.peers.wake(slot);
            }
        }
        self.sessions.open = open;
        self.given.spend(w.len() - before);
    }

    /// Writes one frame of the answer. Returns whether there is more of it.
    fn write_stage(&mut self, w: &mut Writer<'_>, addressee: u64, session: &mut Session) -> bool {
        let ends = core::mem::take(&mut session.ends).then_some((session.sent, session.sent));
        let Some((first, end)) = session.todo.first().copied().or(ends) else { return false };
        if session.fragments.is_some() {
            return Self::write_fragment(w, addressee, session);
        }
        let start = w.len();
        let fresh = w.is_fresh();
        let head = StageHead {
            addressee,
            session: session.id,
            nonce: session.nonce,
            contexts: session.context.len() as u64,
            total: session.total,
            first,
            covered: 0,
            last: false,
        };
        let mut next = first;
        let mut last = false;
        let written = w.frame(wire::STAGE, |w| {
            let place = head.write(w)?;
            next = self.units(w, &session.context, first, end);
            if next == first && ends.is_none() {
                return Err(NoRoom);
            }
            let spent = (w.len() - start) as u64;
            last = spent >= session.budget || (next == end && session.todo.len() <= 1);
            let covered = u32::try_from(next - first).map_err(|_| NoRoom)?;
            StageHead::finish(w, place, covered, last);
            Ok(())
        });
        if written.is_err() {
            session.ends = ends.is_some();
            if fresh && !session.ends {
                self.begin_fragments(session, first);
            }
            return session.ends || !session.todo.is_empty();
        }
        session.pass(next, (w.len() - start) as u64, last);
        !session.todo.is_empty()
    }

    /// This unit of a session fits no datagram.
    fn begin_fragments(&mut self, session: &mut Session, unit: u64) {
        let slot = unit.checked_sub(session.context.len() as u64);
        let slot = slot.and_then(|slot| u32::try_from(slot).ok());
        let entry = slot.and_then(|slot| self.store.get(slot));
        let fragments = |entry| {
            Fragments::of_unit(&self.replicas, entry, session.held.as_slice(), session.budget)
        };
        session.fragments = entry.and_then(fragments).map(|fragments| (unit, fragments));
        if session.fragments.is_none() {
            // Nobody could take it; the peer gives up in the end.
            self.stats.oversize += 1;
            session.todo.clear();
        }
    }

    /// Writes a fragment of the answer. Returns whether there is more of that.
    fn write_fragment(w: &mut Writer<'_>, addressee: u64, session: &mut Session) -> bool {
        let Some((unit, fragments)) = &mut session.fragments else { return false };
        let of = Of::Unit { session: session.id, unit: *unit };
        let left = session.budget.saturating_sub(fragments.len() as u64);
        let only = matches!(session.todo.as_slice(), [(from, end)] if from + 1 == *end);
        let ends = !fragments.is_end() || left == 0 || only;
        if fragments.write(w, addressee, of, ends) != Ok(true) {
            return true;
        }
        // What is left of it is asked for again.
        let next = if fragments.is_end() { *unit + 1 } else { *unit };
        session.fragments = None;
        session.budget = left;
        session.pass(next, 0, ends);
        !ends
    }

    /// Writes units from `first` on, as many as fit. Returns the first that did not.
    fn units(&self, w: &mut Writer<'_>, context: &[ContextUnit], first: u64, end: u64) -> u64 {
        let (mut introduced, mut last) = (Introduced::default(), None);
        let mut unwritten = first;
        for at in first..end {
            let contexts = context.len() as u64;
            let index = usize::try_from(at).unwrap_or(usize::MAX);
            let known = introduced.len();
            let written = w.attempt(|w| {
                if let Some(unit) = context.get(index) {
                    w.varint(at - unwritten)?;
                    return unit.write(w);
                }
                let slot = u32::try_from(at - contexts).unwrap_or(u32::MAX);
                let entry = self.store.get(slot);
                let Some(entry) = entry.filter(|entry| !entry.is_empty()) else { return Ok(()) };
                w.varint(at - unwritten)?;
                full_wire::write_entry(w, &self.replicas, &mut introduced, &mut last, entry)?;
                unwritten = at + 1;
                Ok(())
            });
            if written.is_err() {
                introduced.truncate(known);
                return at;
            }
            if at < contexts {
                unwritten = at + 1;
            }
            // Empty slots take no room, but time.
            if at - first >= 65_536 {
                return at + 1;
            }
        }
        end
    }
}
