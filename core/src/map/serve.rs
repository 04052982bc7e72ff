//! Answers to pulls: what fits datagrams first, then the rest in fragments.
//!
//! The oldest writes come first. What is fresh reaches a member by the pushes of its writer meanwhile, however much it
//! lacks; and what a pull brought ahead of a gap would cost it a record for each write until the gap is closed, and all
//! of it again if it starts over. A key that was overwritten meanwhile is told once, with the last write to it, and of
//! those before no more than their numbers; see [`window`](super::window).

use smallvec::SmallVec;

use super::Map;
use super::chunk::{self, Answer, ChunkWriter, End};
use super::fragment::Fragments;
use super::fragment_wire::Of;
use super::peer::{Assumed, Cursor, Serve, Theirs};
use super::pull_wire::Pull;
use super::window::Most;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};

impl Map {
    /// How much is given to one who asks for so many bytes.
    pub(super) fn grant(&mut self, now: Instant, asked: u64) -> u64 {
        let most = self.given.left(now).min(self.config.pull_budget as u64);
        asked.min(most.max(self.max_datagram as u64))
    }

    /// Begins the answer to the peer's pull, with what the cursor comes to.
    pub(super) fn serve_pull(
        &mut self,
        now: Instant,
        slot: u32,
        pull: &Pull<'_>,
        cursor: Cursor,
        assumed: SmallVec<[Assumed; 1]>,
    ) {
        let budget = self.grant(now, pull.budget);
        let cursor = cursor.of_share(pull.share);
        let mut serve = Serve::new(pull.nonce, cursor, budget, pull.held.collect());
        (serve.small_only, serve.assumed) = (pull.share.is_some(), assumed);
        self.peers.serve(slot, serve);
    }

    /// Goes on with the answer to the peer's pull.
    pub(super) fn write_serve(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(mut serve) = self.peers.stop_serving(slot) else { return };
        let Some(peer) = self.peers.get(slot) else { return };
        let addressee = self.under_seals(peer.addressee());
        let before = w.len();
        let ended = if let Some(fragments) = &mut serve.fragments {
            let of = Of::Item { nonce: serve.nonce, number: serve.number };
            if fragments.write(w, addressee, of, false) == Ok(true) {
                serve.budget = serve.budget.saturating_sub(fragments.len() as u64);
                serve.more |= !fragments.is_end();
                serve.number += 1;
                serve.fragments = None;
            }
            false
        } else if !serve.small_told {
            self.serve_chunk(slot, w, addressee, &mut serve)
        } else if !serve.large.is_empty() && serve.budget > 0 {
            self.serve_large(&mut serve);
            false
        } else {
            let more = serve.more || !serve.large.is_empty();
            chunk::write_end(w, addressee, serve.nonce, serve.number, more).is_ok()
        };
        self.given.spend(w.len() - before);
        if !ended {
            self.peers.serve(slot, serve);
        }
    }

    /// Writes the next chunk of an answer. Returns whether that was the last.
    fn serve_chunk(
        &mut self,
        slot: u32,
        w: &mut Writer<'_>,
        addressee: u64,
        serve: &mut Serve,
    ) -> bool {
        let Some(peer) = self.peers.get(slot) else { return true };
        let before = w.len();
        let goes_on = serve.more || !serve.large.is_empty();
        let answer = Answer { nonce: serve.nonce, number: serve.number, goes_on };
        let most = Most::of(serve.granted, self.config.max_window_dots);
        let theirs = Theirs { known: &peer.known, assumed: &serve.assumed };
        let chunk = ChunkWriter::new(&self.replicas, &self.store, &mut self.marks, theirs)
            .in_windows(&mut serve.window, &mut self.seen, most);
        let budget = serve.budget.saturating_sub(serve.reserved);
        let end = chunk.write(w, addressee, Some(answer), &mut serve.cursor, budget);
        serve.number += u64::from(w.len() > before);
        serve.budget = serve.budget.saturating_sub((w.len() - before) as u64);
        match end {
            Ok(End::Large) => {
                if let Some(dot) = serve.cursor.next(&self.replicas, theirs) {
                    serve.cursor.pass(dot);
                    serve.leave_for_last(dot);
                }
                false
            }
            Ok(End::Complete) => {
                serve.small_told = true;
                !goes_on
            }
            Ok(End::Budget) => {
                (serve.small_told, serve.more) = (true, true);
                !goes_on
            }
            Ok(End::Full) | Err(NoRoom) => false,
        }
    }

    /// Begins with the next entry that comes in fragments.
    fn serve_large(&mut self, serve: &mut Serve) {
        let dot = serve.large.remove(0);
        // It may have been forgotten meanwhile.
        let logged = dot.counter() > self.replicas.served_from(dot.replica());
        let Some(about) = self.replicas.slot(dot).filter(|_| logged) else { return };
        // What else it has of the same key is claimed when it has the entry.
        let (replicas, before) = (&self.replicas, serve.large.len());
        serve.large.retain(|other| replicas.slot(*other) != Some(about));
        serve.more |= serve.large.len() < before;
        let entry = self.store.entry(about);
        if entry.waits(&self.replicas) {
            return;
        }
        serve.fragments = Fragments::of_item(&self.replicas, entry, dot, &serve.held, serve.budget);
        // One that is too large for anybody is left out, or it would hold up the others.
        self.stats.oversize += u64::from(serve.fragments.is_none());
    }
}
