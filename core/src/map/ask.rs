//! Pulls: what is noted of the one under way, and how much of the context it lists.
//!
//! A pull lists the context, or the page of it that fits a datagram. Where that is long, the peer is asked first which
//! part of it differs from its own; see [`compare`](super::compare).
//!
//! How many bytes it asks for follows what the way carries, as the window of a TCP connection does: half as many after
//! an answer that broke off, a datagram's more after each that came whole. An answer is sent at once, so one that is
//! longer than some queue on the way is cut short there every time, its end is lost, and a timeout is waited for. Loss
//! without a queue costs some time by that: an answer of which the last datagram is lost is no shorter the next time
//! for any good. A pull that nothing answered tells nothing: the peer may be gone.

use core::time::Duration;

use smallvec::SmallVec;

use super::Map;
use super::compare_wire;
use super::dot::ReplicaId;
use super::fragment_wire::Held;
use super::pull_wire::{PullHead, write_replica_dots};
use super::replica::Replicas;
use super::shares::Share;
use super::wire;
use crate::id::NodeId;
use crate::reached::reached;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};

/// Which replicas a pull lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    All,
    /// The peer is asked first in which buckets there is a difference.
    Sums,
    /// Those of the buckets that it named.
    Buckets(u64),
}

impl Listing {
    fn has(self, replicas: &Replicas, replica: u16) -> bool {
        match self {
            Self::Buckets(mask) => mask >> replicas.bucket(replica) & 1 == 1,
            Self::All | Self::Sums => true,
        }
    }

    const fn buckets(self) -> u64 {
        match self {
            Self::Buckets(mask) => mask,
            Self::All | Self::Sums => u64::MAX,
        }
    }
}

/// The pull that is under way.
#[derive(Debug)]
pub(super) struct Pulling {
    pub(super) peer: u32,
    pub(super) nonce: u64,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) answered: bool,
    /// Whether nothing shows so far that the peer is there.
    pub(super) of_silent: bool,
    /// How many bytes it asks for.
    pub(super) budget: u64,
    pub(super) listing: Listing,
    /// The part of the missing dots that it asks for, if not for all of them.
    pub(super) share: Option<Share>,
    /// How long the last answer of the same source to one for the same share took, and how often it gave none since.
    pub(super) took: Option<Duration>,
    pub(super) tries: u8,
    /// What the peer had told of its context when it was asked.
    pub(super) state: u64,
    /// First and last replica of the digest, if the whole did not fit.
    pub(super) after: Option<ReplicaId>,
    pub(super) upto: Option<ReplicaId>,
    /// The sum of the seals when it was begun.
    pub(super) seals: u64,
    /// Dots that it brought so far.
    pub(super) news: u64,
    /// Number of the chunk that comes next, while none was lost, overtaken or refused in part.
    pub(super) next: Option<u64>,
    /// Whether it brought new bytes of an entry that is not whole yet, and whether it made others be given up.
    pub(super) partial: bool,
    pub(super) crowded: bool,
    /// Whether it asks for a full sync to mend what is not as it should be.
    pub(super) repairs: bool,
}

impl Pulling {
    pub(super) const fn repairs(&self) -> bool {
        self.repairs
    }

    /// It is not to ask for what is missing but for all.
    pub(super) const fn set_repairs(&mut self) {
        (self.repairs, self.listing) = (true, Listing::All);
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) const fn peer(&self) -> u32 {
        self.peer
    }

    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// What it says before its digest, which holds all replicas.
    fn head(&self, replicas: &Replicas, held: SmallVec<[Held; 1]>) -> PullHead {
        PullHead {
            nonce: self.nonce,
            budget: self.budget,
            epoch: replicas.own().epoch,
            after: None,
            upto: None,
            // Entries in fragments are of no share.
            held: if self.share.is_some() { SmallVec::new() } else { held },
            share: self.share,
            whole: self.repairs,
            seals: replicas.seals(),
            buckets: self.listing.buckets(),
            waits: false,
        }
    }

    /// Whether it is the one that a datagram of the peer in `slot` answers.
    pub(super) const fn is(&self, slot: u32, nonce: u64) -> bool {
        self.peer == slot && self.nonce == nonce
    }
}

/// No replica comes after this one.
const LAST: ReplicaId = ReplicaId::new(NodeId(u64::MAX), u64::MAX);

impl Map {
    /// An answer broke off: it was more than the way could carry, as far as is known.
    pub(super) fn narrow(&mut self, pulling: &Pulling) {
        if pulling.answered {
            reached!("map: window halved");
            self.window = (self.window / 2).max(self.max_datagram as u64);
        }
    }

    /// All of an answer came.
    pub(super) fn widen(&mut self, pulling: &Pulling) {
        if pulling.next.is_some() {
            // Those for shares come so many at a time.
            let parts = pulling.share.map_or(1, |share| u64::from(share.of()));
            let wider = self.window + self.max_datagram as u64 / parts;
            self.window = wider.min(self.config.pull_budget as u64);
        }
    }

    /// Writes the sums of the context, or what of it is to be listed, or the page of that which fits.
    pub(super) fn write_pull(&mut self, slot: u32, w: &mut Writer<'_>) -> Result<(), NoRoom> {
        let (held, fresh) = (self.held(), w.is_fresh());
        let asked = self.pulling.as_mut().filter(|pulling| pulling.peer == slot);
        let Some(pulling) = asked.or_else(|| self.shares.pull(slot)) else {
            return Ok(());
        };
        let replicas = &self.replicas;
        if pulling.listing == Listing::Sums {
            let written = compare_wire::write_buckets(w, replicas, pulling.nonce);
            if written.is_ok() || !fresh {
                return written;
            }
            // Every datagram has room for the fewest of them. If not, they would be owed for ever.
            pulling.listing = Listing::All;
        }
        let page = self.page.filter(|_| pulling.share.is_none());
        let mut head = pulling.head(replicas, held);
        (head.after, head.whole) = (page, head.whole || self.retiring.is_behind());
        head.waits = !self.seals.is_idle();
        let listing = pulling.listing;
        let lists = |number| listing.has(replicas, number) && replicas.is_listed(number);
        let listed = |after| replicas.range(after, None).filter(move |(_, number)| lists(*number));
        // What is set aside says more than what is known, where there is no room for both.
        let dots = |w: &mut Writer<'_>, id, number| {
            let (base, set_aside) = (replicas.base(number), replicas.told_aside(number));
            let more = set_aside.is_some();
            let written = write_replica_dots(w, id, base, replicas.runs_ahead(number), set_aside);
            if written.is_ok() || !more {
                return written;
            }
            write_replica_dots(w, id, base, core::iter::empty(), replicas.told_aside(number))
        };
        let whole = |w: &mut Writer<'_>, head: &PullHead| {
            w.frame(wire::PULL, |w| {
                head.write(w)?;
                listed(head.after).try_for_each(|(id, number)| dots(w, id, number))
            })
        };
        // What differs may fit, though all does not.
        head.after = page.filter(|_| listing == Listing::All);
        let mut written = whole(w, &head);
        if written.is_err() && fresh && head.after != page {
            head.after = page;
            written = whole(w, &head);
        }
        (pulling.after, pulling.upto) = (head.after, None);
        // A share of a page is nobody's: what does not fit is left to the pull that comes after those for shares.
        if pulling.share.is_some() {
            return if fresh { Ok(()) } else { written };
        }
        if written.is_ok() || !fresh {
            self.page = if written.is_ok() { head.after } else { self.page };
            return written;
        }
        reached!("map: pull of a page");
        // As many as fit; the upper bound is known, and written, only after them.
        head.upto = Some(LAST);
        w.frame(wire::PULL, |w| {
            head.write(w)?;
            let bound_at = w.len() - wire::REPLICA_LEN;
            for (id, number) in listed(head.after) {
                let alone = head.upto == Some(LAST);
                let known = |w: &mut Writer<'_>| {
                    let (base, ahead) = (replicas.base(number), replicas.runs_ahead(number));
                    write_replica_dots(w, id, base, ahead, None)
                };
                if dots(w, id, number).is_err() && (!alone || known(w).is_err()) {
                    break;
                }
                head.upto = Some(id);
            }
            let end = w.len();
            w.rewind(bound_at);
            head.upto.map_or(Ok(()), |upto| wire::write_replica(w, upto))?;
            w.rewind(end);
            Ok(())
        })?;
        pulling.upto = head.upto;
        Ok(())
    }
}
