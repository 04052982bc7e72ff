//! What is done with the frames of a packet.

use core::net::SocketAddr;

use super::Swim;
use super::row_wire::AliveRow;
use super::wire::{self, Frame};
use crate::time::Instant;
use crate::wire::{self as packet, Sender};

/// Most frames of the table exchange that one packet may have: each takes the time that a bucket takes to be sorted.
const MAX_LOOKS: usize = 64;

/// Whom a packet came from, in terms of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) from: SocketAddr,
    pub(super) sender: Sender,
    /// The sender's slot, if it is known in this boot.
    pub(super) slot: Option<u32>,
}

impl Origin {
    /// Whether a row is what its subject says, in the boot that it is of.
    pub(super) fn tells_of_itself(&self, row: AliveRow<'_>) -> bool {
        self.sender == Sender { id: row.id, boot_epoch: row.boot }
    }
}

impl Swim {
    /// Applies the membership frames of a packet that was checked. Updates come first, so that what
    /// the packet asks is answered in the light of what it tells.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        from: SocketAddr,
        sender: Sender,
        frames: packet::Frames<'_>,
    ) {
        if self.is_silent() {
            return;
        }
        self.keep_time(now);
        let mut origin = self.origin(from, sender);
        let (mut updates, mut told) = (frames, false);
        while let Ok(Some((tag, body))) = updates.next() {
            if tag == wire::UPDATES
                && let Ok(frame) = wire::parse(tag, body)
            {
                told = true;
                self.apply_frame(now, origin, frame);
            }
        }
        if told {
            // They may have told of the sender.
            origin = self.origin(from, sender);
        }
        self.hear_dead(now, origin);
        self.apply_others(now, origin, frames);
    }

    /// Applies the frames other than updates.
    fn apply_others(&mut self, now: Instant, origin: Origin, mut frames: packet::Frames<'_>) {
        let mut looks = MAX_LOOKS;
        while let Ok(Some((tag, body))) = frames.next() {
            if !wire::owns(tag) || tag == wire::UPDATES {
                continue;
            }
            if wire::looks_at_bucket(tag) {
                if looks == 0 {
                    self.stats.misaddressed += 1;
                    continue;
                }
                looks -= 1;
            }
            let held = |slot| self.table.member(slot).held;
            if wire::is_exchange(tag) && origin.slot.is_some_and(held) {
                // Its table lacks what it missed, and would for as long.
                continue;
            }
            if let Ok(frame) = wire::parse(tag, body) {
                self.apply_frame(now, origin, frame);
            }
            if self.is_silent() {
                return;
            }
        }
    }

    /// Whom a packet comes from, as the table has it now.
    pub(super) fn origin(&self, from: SocketAddr, sender: Sender) -> Origin {
        let slot = self.table.slot(sender.id);
        let slot = slot.filter(|&slot| self.table.row(slot).boot() == sender.boot_epoch);
        Origin { from, sender, slot }
    }

    fn apply_frame(&mut self, now: Instant, origin: Origin, frame: Frame<'_>) {
        match frame {
            Frame::Updates(mut rows) => {
                while let Ok(Some(row)) = rows.next() {
                    self.apply_row(now, origin, row);
                }
            }
            Frame::Ping { seq, target } => self.on_ping(origin, seq, target),
            Frame::Ack { seq } => self.on_ack(now, origin, seq),
            Frame::PingReq { seq, target, millis } => {
                self.on_ping_req(now, origin, seq, target, millis);
            }
            Frame::RelayedAck { seq, boot } => self.on_relayed_ack(now, origin, seq, boot),
            Frame::Nack { seq } => self.on_nack(now, origin, seq),
            Frame::Verify { target } => self.on_verify(now, origin, target),
            Frame::PushPull { answer, rows } => self.on_push_pull(now, origin, answer, rows),
            Frame::Join { cookie, row, alone } => self.on_join(now, origin, cookie, row, alone),
            Frame::Cookie { cookie } => self.on_cookie(now, origin, cookie),
            Frame::Conflict { id, asked, holder } => {
                self.on_conflict(now, origin, id, asked, holder);
            }
            Frame::BootTooOld { asked, boot } => {
                self.on_boot_too_old(now, origin, asked, boot);
            }
            Frame::Stranger => self.on_stranger(now, origin),
            Frame::LeftAck => self.on_left_ack(origin),
            Frame::TableDigest { digest } => self.on_table_digest(now, origin, digest),
            Frame::Buckets(digests) => self.on_buckets(origin, digests),
            Frame::Listed(listed) => self.on_listed(now, origin, listed),
            Frame::Offered(offered) => self.on_offered(now, origin, offered),
            Frame::Wanted(wanted) => self.on_wanted(origin, wanted),
            Frame::Unknown => {}
        }
    }
}
