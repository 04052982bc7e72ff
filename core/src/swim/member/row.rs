//! What the table holds for each member: 72 bytes, of which a cluster of ten thousand has ten thousand.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use super::super::suspicion::Suspicion;
use super::{Member, State};
use crate::id::Identity;
use crate::time::Instant;

/// What goes with the state.
#[derive(Debug)]
pub(in crate::swim) enum Case {
    /// Alive or dead: nothing.
    None,
    /// Suspect: who accuses.
    Suspicion(Box<Suspicion>),
    /// Left: the secret that proves it, passed on with the news.
    Left(Box<[u8; 16]>),
}

/// What only those have who are, or were, in trouble: most are not, so it is boxed.
#[derive(Debug)]
struct Trouble {
    case: Case,
    /// Until then what the member says against others is old: it was held dead, and others by it.
    heeded_from: Instant,
    /// Stamp of the newest tombstone made for this row; an older one is void.
    tombstone: u64,
    /// The greatest version that others told of it, if that was more than could be believed: what was told before says nothing
    /// new, though it is above what is believed.
    heard: u32,
}

#[derive(Debug)]
pub(in crate::swim) struct Row {
    pub(in crate::swim) member: Member,
    /// Commitment to the secret that a graceful leave reveals.
    pub(in crate::swim) commitment: u64,
    pub(super) digest: u64,
    /// When it came to its state.
    pub(in crate::swim) since: Instant,
    trouble: Option<Box<Trouble>>,
    /// Position in `live` or in `gone`, whichever the state says.
    pub(super) position: u32,
    /// Position in its digest bucket while live, or held out.
    pub(super) in_bucket: u32,
    /// When others began to raise its incarnation lately, in milliseconds that wrap,
    raised_at: u32,
    /// and what that was.
    raised_from: u32,
}

impl Row {
    pub(super) fn alive(
        identity: Arc<Identity>,
        incarnation: u32,
        version: u32,
        commitment: u64,
    ) -> Self {
        let digest = identity.digest();
        let (state, rtt_us, held, doubted) = (State::Alive, 0, false, false);
        Self {
            member: Member { identity, incarnation, state, rtt_us, version, held, doubted },
            commitment,
            digest,
            since: Instant::ZERO,
            trouble: None,
            position: 0,
            in_bucket: 0,
            raised_at: 0,
            raised_from: 0,
        }
    }

    pub(in crate::swim) fn boot(&self) -> u64 {
        self.member.identity.boot_epoch()
    }

    /// Of what it says of itself.
    pub(in crate::swim) const fn digest(&self) -> u64 {
        self.digest
    }

    pub(in crate::swim) fn case(&self) -> &Case {
        self.trouble.as_deref().map_or(&Case::None, |trouble| &trouble.case)
    }

    /// The accusations, while it is suspected and, as evidence, after it died of them.
    pub(in crate::swim) fn suspicion(&self) -> Option<&Suspicion> {
        match self.case() {
            Case::Suspicion(suspicion) => Some(suspicion),
            Case::None | Case::Left(_) => None,
        }
    }

    pub(in crate::swim) fn suspicion_mut(&mut self) -> Option<&mut Suspicion> {
        match &mut self.trouble.as_deref_mut()?.case {
            Case::Suspicion(suspicion) => Some(suspicion),
            Case::None | Case::Left(_) => None,
        }
    }

    pub(in crate::swim) fn take_case(&mut self) -> Case {
        let trouble = self.trouble.as_deref_mut();
        trouble.map_or(Case::None, |trouble| core::mem::replace(&mut trouble.case, Case::None))
    }

    /// Of a member that is well again nothing is kept but that it was dead of late. The tombstone that it may have had is
    /// void then.
    pub(super) fn set_case(&mut self, case: Case) {
        let well = matches!(case, Case::None) && self.member.is_live();
        if well && self.heeded_from() == Instant::ZERO && self.heard() == 0 {
            self.trouble = None;
        } else if !well || self.trouble.is_some() {
            self.trouble().case = case;
        }
    }

    /// Until then what it says against others is old.
    pub(in crate::swim) fn heeded_from(&self) -> Instant {
        self.trouble.as_deref().map_or(Instant::ZERO, |trouble| trouble.heeded_from)
    }

    pub(in crate::swim) fn set_heeded_from(&mut self, at: Instant) {
        self.trouble().heeded_from = at;
    }

    /// Stamps count from one.
    pub(super) fn tombstone(&self) -> u64 {
        self.trouble.as_deref().map_or(0, |trouble| trouble.tombstone)
    }

    pub(super) fn set_tombstone(&mut self, stamp: u64) {
        self.trouble().tombstone = stamp;
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_with(|| {
            let (case, heeded_from, heard) = (Case::None, Instant::ZERO, 0);
            Box::new(Trouble { case, heeded_from, tombstone: 0, heard })
        })
    }

    /// The greatest version that others told of it, if it was not believed.
    pub(in crate::swim) fn heard(&self) -> u32 {
        self.trouble.as_deref().map_or(0, |trouble| trouble.heard)
    }

    /// Others told of such a version.
    pub(in crate::swim) fn hear(&mut self, version: u32) {
        if version > self.heard() {
            self.trouble().heard = version;
        }
    }

    /// The member itself said what its numbers are.
    pub(in crate::swim) fn forget_heard(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.heard = 0;
        }
    }

    /// The incarnation from which others may raise it in steps at `now`: what it was when the last `window` began. After 49
    /// days of quiet a window may seem to be open still, which leaves it the older number.
    #[allow(clippy::cast_possible_truncation)] // wraps
    pub(in crate::swim) fn raised_from(&mut self, now: Instant, window: Duration) -> u32 {
        let now = (now.as_nanos() / 1_000_000) as u32;
        if u128::from(now.wrapping_sub(self.raised_at)) >= window.as_millis() {
            (self.raised_at, self.raised_from) = (now, self.member.incarnation);
        }
        self.raised_from
    }
}
