//! What others tell of a member that only the member can show.
//!
//! That it lives elsewhere now, or is in a boot far beyond those that are known, is believed of no other; nor of itself that it
//! moved within a boot, which one could say under its name. It is asked at the address that was told, and what was told counts once
//! it answered from that boot. Whoever makes up an address where nobody answers under the member's name so moves nobody there, nor keeps
//! it from the boots to come by one at the end of the range; with an address of his own he can do both. Until the answer nothing
//! is passed on, so each who hears of it asks for itself.
//!
//! The old address is not asked: one that answers at the new one in a newer boot is there, whether or not another one
//! still bears its name. Members on both sides of a split that is over could not agree otherwise, where each side holds a
//! node of that name (see the join handshake).
//!
//! A restart at the address that is known needs no proof, for two cannot share one: nearly all restarts are of this kind, and
//! a thousand members that all ask the one who restarts would be a storm. Nor does the first word of a member (see SECURITY.md),
//! unless its boot is a year beyond that of the one who hears it and of the one who tells it: there is nobody yet who would be moved.
//! Nor is a newer boot of one that is held failed asked for elsewhere, which some may hear of through others alone.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::evidence::FAR_AHEAD;
use super::member::ME;
use super::outbox::Msg;
use super::row_wire::AliveRow;
use super::{Origin, Swim};
use crate::id::{Identity, NodeId};
use crate::time::Instant;
use crate::wire::Sender;

/// Most members that are asked at a time. What is told of others meanwhile is told again, as tables go on differing.
const MAX_CLAIMS: usize = 64;
/// So often each is asked, with 43 bytes: two to three times the bytes of the rows by which somebody makes them up.
const TRIES: u8 = 3;

/// What was told, by whom, and the ping that shall show it.
#[derive(Debug)]
struct Claim {
    identity: Arc<Identity>,
    incarnation: u32,
    version: u32,
    commitment: u64,
    teller: Sender,
    from: SocketAddr,
    seq: u32,
    tries: u8,
    next: Instant,
}

impl Claim {
    fn is_of(&self, sender: Sender) -> bool {
        (self.identity.id(), self.identity.boot_epoch()) == (sender.id, sender.boot_epoch)
    }
}

#[derive(Debug, Default)]
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|claim| claim.next).min()
    }

    fn of(&self, id: NodeId) -> Option<&Claim> {
        self.0.iter().find(|claim| claim.identity.id() == id)
    }
}

impl Swim {
    /// Whether what a row tells is to be shown by its subject.
    pub(super) fn wants_proof(
        &self,
        origin: Origin,
        known: Option<u32>,
        row: AliveRow<'_>,
    ) -> bool {
        if self.is_memberlist() {
            return false;
        }
        // Whoever speaks in another boot was let in there at most, and the join handshake shows the source alone.
        let shown = origin.tells_of_itself(row) && row.addr == origin.from;
        let Some(slot) = known else {
            // Where boots are counted otherwise than here, the one who tells is known in such a boot.
            let teller = origin.slot.map_or(0, |_| origin.sender.boot_epoch);
            let usual = self.sender().boot_epoch.max(teller);
            return !shown && row.boot.saturating_sub(usual) > FAR_AHEAD;
        };
        if slot == ME {
            return false;
        }
        let known = self.table.row(slot);
        let newer = row.boot > known.boot();
        let further = row.boot == known.boot() && row.version > known.member.version;
        let far = newer && row.boot - known.boot() > FAR_AHEAD;
        let moved = row.addr != known.member.addr();
        // Within a boot nobody moves. One that is held dead and is back elsewhere may be heard of through others alone.
        moved && further || !shown && (far || newer && moved && known.member.is_live())
    }

    /// Asks the member of whom that was told at the address that was told.
    pub(super) fn claim(&mut self, now: Instant, origin: Origin, row: AliveRow<'_>) {
        let room = self.claims.0.len() < MAX_CLAIMS;
        if !room || self.leave.started() || self.claims.of(row.id).is_some() {
            return;
        }
        self.stats.claims += 1;
        self.claims.0.push(Claim {
            identity: row.identity(),
            incarnation: row.incarnation,
            version: row.version,
            commitment: row.commitment,
            teller: origin.sender,
            from: origin.from,
            // Nobody who does not get the ping shall guess it.
            seq: self.rng.u32(),
            tries: 0,
            next: now,
        });
        self.fire_claims(now);
    }

    pub(super) fn fire_claims(&mut self, now: Instant) {
        if self.claims.next().is_none_or(|at| at > now) {
            return;
        }
        let again = self.config.probe_interval / u32::from(TRIES);
        let (outbox, stats) = (&mut self.outbox, &mut self.stats);
        self.claims.0.retain_mut(|claim| {
            if claim.next > now {
                return true;
            }
            if claim.tries == TRIES {
                stats.claims_dropped += 1;
                return false;
            }
            (claim.tries, claim.next) = (claim.tries + 1, now + again);
            let (seq, target) = (claim.seq, claim.identity.id());
            outbox.stranger(claim.identity.addr(), Msg::Ping { seq, target });
            true
        });
    }

    /// Takes an answer to such a ping; returns whether it was one.
    pub(super) fn claim_answered(&mut self, now: Instant, sender: Sender, seq: u32) -> bool {
        let of = |claim: &Claim| claim.seq == seq && claim.is_of(sender);
        let Some(at) = self.claims.0.iter().position(of) else { return false };
        let claim = self.claims.0.swap_remove(at);
        let Claim { incarnation, version, commitment, teller, from, .. } = claim;
        // Its numbers are still what the teller said; and it may be in another boot itself by now, or gone.
        let origin = self.origin(from, teller);
        let row = AliveRow::of(&claim.identity, incarnation, version, commitment);
        let known = self.table.slot(row.id);
        self.believe_alive(now, origin, known, row);
        true
    }

    pub(super) fn stop_claims(&mut self) {
        self.claims.0.clear();
    }
}
