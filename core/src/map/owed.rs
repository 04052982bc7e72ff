//! Writing what peers are owed: digests and pushes, and in between what other files tell of.

use super::Map;
use super::chunk::{ChunkWriter, End};
use super::dot::Packed;
use super::peer::{Cursor, Theirs};
use super::wire;
use crate::sabotage::sabotaged;
use crate::wire::Writer;

/// Datagrams.
impl Map {
    /// Writes what the peer in `slot` is owed. What does not fit stays owed.
    pub(super) fn write_owed(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let (pull, state) = (core::mem::take(&mut peer.owes_pull), peer.owes_state);
        if pull && self.write_pull(slot, w).is_err() {
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.owes_pull = true;
            }
            self.peers.wake(slot);
            return;
        }
        if state {
            self.write_state(w);
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.owes_state = false;
            }
        }
        self.write_differ(slot, w);
        self.write_fetch(slot, w);
        self.write_seals(slot, w);
        self.write_push(slot, w);
        self.write_have(slot, w);
        self.write_serve(slot, w);
        self.write_full(slot, w);
    }

    /// Writes the digests of context and content, for pings and acks.
    pub(super) fn write_state(&self, w: &mut Writer<'_>) {
        let (context, content) = self.digest();
        let epoch = self.replicas.own().epoch;
        let boot = self.boot;
        // Optional: without room the next datagram carries it.
        let _ = w.frame(wire::STATE, |w| {
            w.u64(context)?;
            w.u64(content)?;
            if epoch == boot { Ok(()) } else { w.u64(epoch) }
        });
    }

    /// Writes own dots that the peer was not pushed yet.
    pub(super) fn write_push(&mut self, slot: u32, w: &mut Writer<'_>) {
        let Some(peer) = self.peers.get(slot).filter(|peer| peer.owes_push) else { return };
        let me = self.replicas.me();
        let mut cursor = Cursor::of(&self.replicas, me, peer.pushed);
        let last = self.replicas.made();
        let addressee = self.under_seals(peer.addressee());
        let theirs = Theirs::certain(&peer.known);
        let chunk = ChunkWriter::new(&self.replicas, &self.store, &mut self.marks, theirs);
        let end = chunk.write(w, addressee, None, &mut cursor, u64::MAX);
        let large = end == Ok(End::Large);
        if let Some(dot) = cursor.next(&self.replicas, theirs).filter(|_| large) {
            cursor.pass(dot);
        }
        let next = cursor.next(&self.replicas, theirs).map_or(last, Packed::counter_before);
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.pushed = next;
            if sabotaged!("push-counts-as-heard") {
                peer.known.runs_mut(me).add(1, next);
            }
            peer.owes_push = end != Ok(End::Complete);
            // It is left to a pull, which the peer may begin when it has the rest.
            peer.left_large |= large;
            if !peer.owes_push && core::mem::take(&mut peer.left_large) {
                peer.owes_state = true;
                self.peers.wake(slot);
                return;
            }
            if peer.owes_push {
                self.peers.wake(slot);
            }
        }
    }
}
