//! Announcements: peers are told what is here, so that they may forget it.
//!
//! A peer keeps the log of a write until it knows that everybody has the write (see [`garbage`](super::garbage)).
//! Pushes are not acknowledged, and digests say something only to whoever has an equal one, which under steady
//! writes nobody has. So a replica tells the bases of its context:
//!
//! * For every [`NEWS_PER_TURN`] dots that are new here, and more where there are many replicas, the peer whose turn
//!   it is. Each pair has then heard from each other once that many dots times the number of peers have been
//!   written, however fast; that bounds the logs, and costs some bytes per dot. Scuttlebutt (van Renesse et al.
//!   2008) and DottedDB send such a vector too, but by the clock, whether or not there is something to forget.
//! * When nothing has been new for a pull interval, all peers, by the digest: all of them are equal by then,
//!   or will pull. It is told again once or twice, for datagrams get lost, as far as news has paid for it: it
//!   costs a datagram per peer, so as many dots must have come.
//!
//! The little that neither covers is left to the digests that everybody is told in turn in quiet times.

use smallvec::SmallVec;

use super::Map;
use super::wire::{self, Have};
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};

/// Dots that come for each peer that is told the bases …
const NEWS_PER_TURN: u64 = 32;
/// … and bases that are told for each of them at most.
const BASES_PER_NEWS: u64 = 4;
/// How often all peers are told the digest after the same news, at most.
const TELLINGS: u64 = 3;

/// What was told, and what is to be.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// Dots that came since a peer was told the bases.
    news: u64,
    /// Dots that came and have paid for no digest yet.
    credit: u64,
    /// When the last dot came.
    last: Option<Instant>,
    /// When it is looked whether nothing came meanwhile.
    calm: Option<Instant>,
    /// Whose turn it is, from a random peer on: not everybody tells the same one.
    turn: Option<u32>,
}

impl Announcements {
    pub(super) const fn timeout(&self) -> Option<Instant> {
        self.calm
    }
}

impl Map {
    /// So many dots are new here.
    pub(super) fn count_news(&mut self, now: Instant, dots: u64) {
        let peers = self.peers.len() as u64;
        let per_turn = NEWS_PER_TURN.max(self.replicas.in_use() as u64 / BASES_PER_NEWS);
        let told = &mut self.announcements;
        told.last = Some(now);
        told.calm.get_or_insert(now + self.config.pull_interval);
        told.credit = (told.credit + dots).min(peers * TELLINGS);
        told.news = (told.news + dots).min(peers * per_turn);
        while self.announcements.news >= per_turn {
            self.announcements.news -= per_turn;
            let turn = self.announcements.turn.unwrap_or_else(|| self.rng.u32()).wrapping_add(1);
            self.announcements.turn = Some(turn);
            let Some(slot) = self.peers.at(turn as usize) else { return };
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.owes_have = Some(0);
                self.peers.wake(slot);
            }
        }
    }

    /// So much came at once that all peers are to be told.
    pub(super) fn count_as_news_for_all(&mut self, now: Instant) {
        self.count_news(now, self.peers.len() as u64 * TELLINGS);
    }

    pub(super) fn fire_announcements(&mut self, now: Instant) {
        let told = &mut self.announcements;
        if told.calm.take_if(|at| *at <= now).is_none() {
            return;
        }
        let interval = self.config.pull_interval;
        let calm = told.last.map_or(now, |last| last + interval);
        if calm > now {
            told.calm = Some(calm);
            return;
        }
        let peers = self.peers.len() as u64;
        // Some may have gone since.
        told.credit = told.credit.min(peers * TELLINGS);
        if peers == 0 || told.credit < peers {
            return;
        }
        reached!("map: calm is told to all");
        told.credit -= peers;
        if told.credit >= peers {
            told.calm = Some(now + 2 * interval);
        }
        let slots: SmallVec<[u32; 64]> = self.peers.slots().collect();
        slots.into_iter().for_each(|slot| self.owe_state(slot));
    }

    /// Writes the bases that the peer in `slot` is to be told; those that do not fit, another datagram does. It is told
    /// nothing while values wait to be written anew.
    pub(super) fn write_have(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(first) = peer.owes_have.take().filter(|_| self.seals.is_idle()) else { return };
        let replicas = &self.replicas;
        let bases = replicas.bases().skip(usize::try_from(first).unwrap_or(usize::MAX));
        let mut next = first;
        let mut whole = true;
        // A frame without room for one base would be sent for ever.
        let written = w.frame(wire::HAVE, |w| {
            w.u64(replicas.names())?;
            w.varint(first)?;
            for (_, base) in bases {
                if w.varint(base).is_err() {
                    whole = false;
                    break;
                }
                next += 1;
            }
            if whole || next > first { Ok(()) } else { Err(NoRoom) }
        });
        if written.is_err() {
            next = first;
        }
        if !whole || written.is_err() {
            peer.owes_have = Some(next);
            self.peers.wake(slot);
        }
    }

    /// The peer in `slot` has all dots up to the bases that it tells. They are told without the names of the
    /// replicas, which are six times as long; so they say something only to whoever knows of the same ones.
    pub(super) fn on_have(&mut self, now: Instant, slot: u32, have: Have<'_>) {
        if have.names != self.replicas.names() && !sabotaged!("names-unchecked") {
            reached!("map: bases of other replicas");
            return;
        }
        reached!("map: bases told");
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let numbers = self.replicas.bases().map(|(number, _)| number);
        let mut told = have;
        for number in numbers.skip(usize::try_from(have.first).unwrap_or(usize::MAX)) {
            let Ok(Some(base)) = told.next() else { break };
            peer.known.runs_mut(number).add(1, base);
        }
        // With the same seals, and no others to tell of, it has all of the same ones.
        for (number, end) in self.replicas.ends(None, None) {
            if self.replicas.is_whole(number) {
                peer.known.runs_mut(number).add(1, end);
            }
        }
        self.heard_context(now, slot, false);
    }
}
