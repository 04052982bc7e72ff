//! Probing for others: a helper asks a member on behalf of one that cannot reach it.
//!
//! It passes the answer on, and answers `Nack` when four fifths of the asker's time are over and the member is still silent, so
//! the asker learns that at least its own network works (Lifeguard section IV-A).

use core::time::Duration;

use super::member::ME;
use super::outbox::Msg;
use super::{Origin, Swim};
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Sender;

/// Most probes that are relayed for others at a time.
const MAX_RELAYS: usize = 64;
/// Most of them for one asker, which has half as many probes in flight at most.
const MAX_OF_ONE: usize = 8;

/// A probe for somebody else.
#[derive(Debug)]
pub(super) struct Relay {
    asker: u32,
    asker_boot: u64,
    asker_seq: u32,
    slot: u32,
    target: NodeId,
    boot: u64,
    seq: u32,
    retry_at: Instant,
    nack_at: Option<Instant>,
    expires: Instant,
    answered: bool,
}

impl Relay {
    pub(super) fn next(&self) -> Instant {
        let at = if self.answered { self.expires } else { self.retry_at.min(self.expires) };
        self.nack_at.map_or(at, |nack| at.min(nack))
    }
}

impl Swim {
    pub(super) fn on_ping_req(
        &mut self,
        now: Instant,
        origin: Origin,
        asker_seq: u32,
        target: NodeId,
        millis: u16,
    ) {
        let Some(asker) = origin.slot else { return };
        let known = self
            .table
            .slot(target)
            .filter(|&slot| slot != ME && slot != asker && self.table.member(slot).is_live());
        let Some(slot) = known else {
            self.outbox.msg(asker, Msg::Nack { seq: asker_seq });
            return;
        };
        let same = |relay: &&Relay| relay.asker == asker && relay.asker_seq == asker_seq;
        if let Some(relay) = self.prober.relays.iter().find(same) {
            // Asked again: the answer, if there is one, was lost.
            if relay.answered {
                self.outbox.msg(asker, Msg::RelayedAck { seq: asker_seq, boot: relay.boot });
            } else if relay.nack_at.is_none() {
                self.outbox.msg(asker, Msg::Nack { seq: asker_seq });
            }
            return;
        }
        let of_one = self
            .prober
            .relays
            .iter()
            .filter(|relay| relay.asker == asker && !relay.answered)
            .count();
        if self.prober.relays.len() >= MAX_RELAYS || of_one >= MAX_OF_ONE {
            // It is not told that the target is silent, but that this node is there.
            self.outbox.msg(asker, Msg::Nack { seq: asker_seq });
            return;
        }
        let left = Duration::from_millis(u64::from(millis)).min(self.config.probe_interval * 16);
        let seq = self.prober.next_seq();
        let rumours = self.is_memberlist();
        self.prober.relays.push(Relay {
            asker,
            asker_boot: origin.sender.boot_epoch,
            asker_seq,
            slot,
            target,
            boot: self.table.row(slot).boot(),
            seq,
            retry_at: now + self.retry_interval(slot),
            nack_at: Some(now + if rumours { self.config.probe_timeout } else { left * 4 / 5 }),
            expires: now + if rumours { self.config.probe_timeout * 2 } else { left },
            answered: false,
        });
        self.outbox.msg(slot, Msg::Ping { seq, target });
    }

    pub(super) fn fire_relays(&mut self, now: Instant) {
        let mut relays = core::mem::take(&mut self.prober.relays);
        relays.retain(|relay| {
            let asker = self.table.try_row(relay.asker);
            relay.expires > now && asker.is_some_and(|row| row.boot() == relay.asker_boot)
        });
        for relay in &mut relays {
            if relay.nack_at.is_some_and(|at| at <= now) {
                relay.nack_at = None;
                self.outbox.msg(relay.asker, Msg::Nack { seq: relay.asker_seq });
            }
            if !relay.answered && relay.retry_at <= now {
                relay.retry_at = now + self.retry_interval(relay.slot);
                let (seq, target) = (relay.seq, relay.target);
                self.outbox.msg(relay.slot, Msg::Ping { seq, target });
            }
        }
        self.prober.relays = relays;
    }

    /// Passes the answer to one of those pings on; returns whether it was to one of them.
    pub(super) fn relay_answered(&mut self, sender: Sender, seq: u32) -> bool {
        let of = |relay: &&mut Relay| relay.seq == seq && relay.target == sender.id;
        let Some(relay) = self.prober.relays.iter_mut().find(of) else { return false };
        if relay.boot == sender.boot_epoch && !relay.answered {
            relay.answered = true;
            relay.nack_at = None;
            let (asker, seq, boot) = (relay.asker, relay.asker_seq, relay.boot);
            self.outbox.msg(asker, Msg::RelayedAck { seq, boot });
        }
        true
    }

    /// Drops those to and for a member whose boot or state they were for is over.
    pub(super) fn void_relays(&mut self, slot: u32) {
        self.prober.relays.retain(|relay| relay.slot != slot && relay.asker != slot);
    }
}
