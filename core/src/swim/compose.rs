//! What a datagram to a member carries.

use super::member::{ME, Member, State};
use super::outbox::{Msg, Owed};
use super::row_wire::{self, Teller};
use super::wire::{self, Context};
use super::{Peer, Swim, suspicion};
use crate::wire::{NoRoom, Writer};

impl Swim {
    /// Writes what `peer` is owed. What does not fit stays owed. Returns whether the datagram carries
    /// a ping or an ack, on which digests ride.
    pub(crate) fn write_frames(&mut self, peer: &Peer, w: &mut Writer<'_>) -> bool {
        let Some(slot) = peer.slot else {
            for &msg in &peer.msgs {
                if self.write_msg(w, msg, None).is_err() {
                    self.outbox.stranger(peer.addr, msg);
                }
            }
            return false;
        };
        let (mut owed, head) = (self.outbox.take(slot), w.len());
        if self.is_memberlist() && (owed.buckets != 0 || owed.gone.is_some()) {
            self.write_push_pull(w, slot, &mut owed);
            self.outbox.put_back(slot, owed);
            return false;
        }
        let mut probing = false;
        owed.msgs.retain(|msg| {
            let written = self.write_msg(w, *msg, Some(slot)).is_ok();
            probing |= written && matches!(msg, Msg::Ping { .. } | Msg::Ack { .. });
            !written
        });
        if probing && !self.is_memberlist() {
            let digest = self.table.digest();
            // Optional: the next ping or ack has room again.
            let _ = w.frame(wire::TABLE_DIGEST, |w| w.u64(digest));
        }
        owed.gossip = false;
        // No row fitting is fine: what was not written stays owed or queued.
        let accused = matches!(self.table.member(slot).state, State::Suspect | State::Dead);
        if accused || !owed.rows.is_empty() || !self.gossip.is_empty() {
            let _ = w.frame(wire::UPDATES, |w| self.write_updates(w, slot, probing, &mut owed));
        }
        if owed.is_exchanging() {
            self.write_exchange(w, head, slot, &mut owed);
        }
        self.outbox.put_back(slot, owed);
        probing
    }

    /// Fills spare room of a datagram to a member with gossip.
    pub(crate) fn write_gossip(&mut self, w: &mut Writer<'_>) {
        if self.gossip.is_empty() {
            return;
        }
        let _ = w.frame(wire::UPDATES, |w| self.write_queued(w, ME));
    }

    /// Tells of this node itself.
    pub(crate) fn write_self(&self, w: &mut Writer<'_>) {
        let (about, by) = (self.table.about(ME), self.teller());
        // One who is not told so hears of it from others.
        let _ = w.frame(wire::UPDATES, |w| row_wire::write_row(w, about, by));
    }

    /// This node as the one who tells, at the time of its last input.
    pub(super) fn teller(&self) -> Teller {
        let brief = self.many_suspected();
        Teller { me: self.table.me().id(), now: self.clock, brief }
    }

    fn write_msg(&mut self, w: &mut Writer<'_>, msg: Msg, to: Option<u32>) -> Result<(), NoRoom> {
        let addr = if let Msg::Conflict { id, .. } = msg {
            self.member(id).map(Member::addr)
        } else {
            None
        };
        let digests = |bucket| self.table.bucket_digest(bucket);
        let to = to.and_then(|slot| self.table.try_row(slot));
        let alone = self.table.live().is_empty();
        let context = Context { me: self.table.row(ME), alone, digests: &digests, to, addr };
        wire::write_msg(w, msg, &context)?;
        if let Msg::Ping { seq, .. } = msg {
            self.prober.sent(seq);
        }
        Ok(())
    }

    /// Rows for `slot`, the most urgent first: what it is accused of, what it is owed by name, and gossip.
    fn write_updates(
        &mut self,
        w: &mut Writer<'_>,
        slot: u32,
        probing: bool,
        owed: &mut Owed,
    ) -> Result<(), NoRoom> {
        let start = w.len();
        let by = self.teller();
        // The accused learns it from the very packet that reaches it (Lifeguard's buddy system). Not from one that carries what
        // it is owed alone: with the warning in front of it the longest row would never fit.
        let accused = matches!(self.table.member(slot).state, State::Suspect | State::Dead);
        let others = owed.rows.iter().any(|about| *about != slot);
        let owes_rows = others || !owed.told.is_empty() || owed.buckets != 0;
        let warned = accused && (probing || !owes_rows);
        if warned {
            let _ = row_wire::write_warning(w, self.table.about(slot), by);
        }
        owed.rows.retain(|about| match self.table.try_about(*about) {
            Some(row) if *about != slot && self.table.may_be_told(*about) => {
                row_wire::write_row(w, row, by).is_err()
            }
            // Its own is the warning, if that has to wait.
            _ => *about == slot && accused && !warned,
        });
        let _ = self.write_queued(w, slot);
        if w.len() == start { Err(NoRoom) } else { Ok(()) }
    }

    /// Queued gossip, except about `to` itself.
    fn write_queued(&mut self, w: &mut Writer<'_>, to: u32) -> Result<(), NoRoom> {
        let start = w.len();
        let by = self.teller();
        let urgent = suspicion::retransmits(&self.config, self.len());
        // The table exchange finds those that this does not reach, and costs them less.
        let bulk = if self.is_memberlist() { urgent } else { self.config.retransmit_mult };
        let (table, gossip) = (&self.table, &mut self.gossip);
        gossip.pick([urgent, bulk], |about| {
            if about == to && to != ME {
                // It knows best. Counted as told if there is nobody else, or else it would be kept for ever.
                return (table.live().len() == 1).then_some(0);
            }
            if !table.may_be_told(about) {
                return Some(0);
            }
            let row = table.try_about(about);
            let before = w.len();
            row.filter(|row| row_wire::write_row(w, *row, by).is_ok()).map(|_| w.len() - before)
        });
        if w.len() == start { Err(NoRoom) } else { Ok(()) }
    }
}
