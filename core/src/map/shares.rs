//! Pulls from several sources at once, each for a share of what is missing here.
//!
//! What comes per round trip from one source is what one answer holds. When an answer ends though there is more, up to
//! two further peers are asked beside the one that gave it, each for another [`Share`] of the dots; each goes on by
//! itself until it has nothing more of its share. Their digests are as whole and as true as any, so what a peer knows
//! of this replica is the same whether it is asked for a share or for all; and what it tells are chunks like others.
//!
//! Nothing but speed depends on shares. When one source is through with its own, the others are waited for twice as
//! long as its last answer took, and what has not come by then is left to an ordinary pull from that source, which
//! alone decides what a peer has or has not. If that says again that there is more, it is shared again, without those
//! who were too slow: so the slowest source does not set the pace, and neither does one that is gone.
//!
//! Entries of several datagrams are left to ordinary pulls, and so is all that comes before a peer may be taken at its
//! word: pages of long contexts, full syncs, repairs, lives that are to be retired.

use core::time::Duration;

use smallvec::SmallVec;

use super::Map;
use super::apply::Applied;
use super::ask::{Listing, Pulling};
use super::dot::MAX_RUNS;
use super::wire::Chunk;
use crate::time::Instant;
use crate::wire::{PacketError, Reader};

/// Pulls for shares at a time.
const MAX: usize = 3;
/// Counters in a row that belong to one share. Shorter blocks are runs that fewer digests can list.
const BLOCK: u64 = 64;
/// Times in a row that a source is asked for its share without an answer.
const MAX_TRIES: u8 = 2;
/// Sources that are remembered as too slow.
const MAX_SLOW: usize = 4;

/// One of two or three parts of all dots. All nodes divide them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    index: u8,
    of: u8,
}

impl Share {
    pub(super) const fn new(index: u8, of: u8) -> Option<Self> {
        if index < of && of >= 2 && of as usize <= MAX { Some(Self { index, of }) } else { None }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, PacketError> {
        let byte = r.u8()?;
        Self::new(byte & 15, byte >> 4).ok_or(PacketError::Malformed)
    }

    /// How many there are.
    pub(super) const fn of(self) -> u8 {
        self.of
    }

    pub(super) const fn to_byte(self) -> u8 {
        self.of << 4 | self.index
    }

    /// The first counter from `counter` on that is in this share, of the replica with this hash.
    pub(super) const fn first(self, hash: u64, counter: u64) -> u64 {
        let (index, of) = (self.index as u64, self.of as u64);
        let block = counter / BLOCK;
        let ahead = (index + of - (hash % of + block % of) % of) % of;
        if ahead == 0 { counter } else { (block + ahead) * BLOCK }
    }
}

/// The pulls for shares that are under way.
#[derive(Debug, Default)]
pub(super) struct Shares {
    pulls: SmallVec<[Pulling; MAX]>,
    /// Since one was through with its share: what is known of those who answered to their end.
    through: Option<Through>,
    /// Whether any of them brought something.
    news: bool,
    /// Whether the last ones brought nothing, until a pull is answered to its end.
    vain: bool,
    /// Those who were waited for in vain, until then.
    slow: SmallVec<[u32; MAX_SLOW]>,
}

#[derive(Debug, Clone, Copy)]
struct Through {
    /// Whose last answer came soonest, and how long it took.
    slot: u32,
    took: Duration,
    /// How long the others are waited for.
    until: Instant,
}

impl Shares {
    pub(super) fn is_idle(&self) -> bool {
        self.pulls.is_empty()
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let ends = self.through.filter(|_| !self.is_idle()).map(|through| through.until);
        self.pulls.iter().map(Pulling::deadline).chain(ends).min()
    }

    /// The pull from the peer in `slot`.
    pub(super) fn pull(&mut self, slot: u32) -> Option<&mut Pulling> {
        self.pulls.iter_mut().find(|pulling| pulling.peer == slot)
    }

    fn take(&mut self, accepts: impl Fn(&Pulling) -> bool) -> Option<Pulling> {
        let at = self.pulls.iter().position(accepts)?;
        Some(self.pulls.remove(at))
    }

    /// Breaks them off.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// An ordinary pull was answered to its end.
    pub(super) fn all_told(&mut self) {
        (self.vain, self.slow) = (false, SmallVec::new());
    }

    /// The peer in `slot` was through with its share, or it is not to go on for another reason. The answer came after `took`.
    fn note_through(&mut self, slot: u32, took: Duration, until: Instant) {
        let through = self.through.get_or_insert(Through { slot, took, until });
        if took < through.took {
            (through.slot, through.took) = (slot, took);
        }
    }

    /// This pull was given up.
    fn note_given_up(&mut self, pulling: &Pulling) {
        let usual = self.through.map_or(Duration::ZERO, |through| through.took);
        if pulling.took.is_none_or(|took| took > usual * 2) {
            self.note_slow(pulling.peer);
        }
    }

    fn note_slow(&mut self, slot: u32) {
        if self.slow.len() < MAX_SLOW && !self.slow.contains(&slot) {
            self.slow.push(slot);
        }
    }
}

impl Map {
    /// The answer to this pull ended though there is more: begins pulls for shares of that, if it is worth it. Returns
    /// whether it did.
    pub(super) fn begin_shares(&mut self, now: Instant, before: &Pulling) -> bool {
        let whole =
            before.listing == Listing::All && before.after.is_none() && before.upto.is_none();
        let plain = self.page.is_none() && !self.retiring.is_behind() && self.staging.is_none();
        let due = before.news > 0 && !before.partial && !before.crowded && !before.repairs;
        if !whole || !plain || !due || self.shares.vain || self.catching.is_some() {
            return false;
        }
        let mut sources: SmallVec<[u32; MAX]> = SmallVec::from_slice(&[before.peer]);
        while sources.len() < MAX
            && let Some(slot) = self.candidate_but(|slot, shares| {
                sources.contains(&slot) || shares.slow.contains(&slot)
            })
        {
            sources.push(slot);
        }
        let of = sources.len() as u8;
        let budget = self.share_budget(now, of);
        if of < 2 || budget < self.max_datagram as u64 {
            return false;
        }
        (self.shares.through, self.shares.news) = (None, false);
        for (index, slot) in (0..).zip(sources) {
            let Some(share) = Share::new(index, of) else { continue };
            self.pull_share(now, slot, share, None);
        }
        true
    }

    /// How many bytes a pull for one of `of` shares asks for.
    fn share_budget(&mut self, now: Instant, of: u8) -> u64 {
        (self.taken.left(now) / u64::from(of)).min(self.window)
    }

    /// Asks the peer in `slot` for a share, after a pull for the same if this goes on.
    fn pull_share(&mut self, now: Instant, slot: u32, share: Share, before: Option<&Pulling>) {
        let budget = self.share_budget(now, share.of);
        let mut pulling = self.pulling_from(now, slot, budget);
        (pulling.listing, pulling.share) = (Listing::All, Some(share));
        if let Some(before) = before {
            (pulling.took, pulling.tries) = (before.took, before.tries);
        }
        pulling.deadline = now + self.share_patience(&pulling);
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.owes_pull = true;
            self.peers.wake(slot);
            self.shares.pulls.push(pulling);
            self.stats.pulls_sent += 1;
        }
    }

    /// How long the answer may take: by those of the same source before, if there were any.
    fn share_patience(&self, pulling: &Pulling) -> Duration {
        let (min, max) = (self.config.pull_timeout_min, self.config.pull_timeout);
        pulling.took.map_or_else(|| self.pull_patience(), |took| (took * 4).clamp(min, max))
    }

    /// A chunk from the peer in `slot` was applied. Returns whether it answers a pull for a share.
    pub(super) fn on_shared(
        &mut self,
        now: Instant,
        slot: u32,
        chunk: &Chunk<'_>,
        applied: Applied,
    ) -> bool {
        let Some(mut pulling) = self.shares.take(|pulling| pulling.is(slot, chunk.nonce)) else {
            return false;
        };
        let told = applied.news + applied.set_aside;
        pulling.news += told;
        self.shares.news |= told > 0;
        let in_order = pulling.next == Some(chunk.number) && applied.whole;
        pulling.next = in_order.then_some(chunk.number + 1);
        if !pulling.answered {
            (pulling.answered, pulling.took) = (true, Some(now - pulling.started));
            pulling.tries = 0;
        }
        pulling.deadline = now + self.share_patience(&pulling);
        if !chunk.last {
            self.shares.pulls.push(pulling);
            return true;
        }
        self.widen(&pulling);
        let goes_on = chunk.more && pulling.news > 0 && self.shares.through.is_none();
        let room = self.share_budget(now, MAX as u8) >= self.max_datagram as u64;
        if let Some(share) = pulling.share.filter(|_| goes_on && room && self.lists_all()) {
            self.pull_share(now, slot, share, Some(&pulling));
            return true;
        }
        let until = now + (now - pulling.started) * 2;
        self.shares.note_through(slot, pulling.took.unwrap_or_default(), until);
        self.finish_shares(now);
        true
    }

    /// Whether a digest lists every dot that is here. What it leaves out would be told again.
    fn lists_all(&self) -> bool {
        self.replicas.numbers().all(|number| match self.replicas.told_aside(number) {
            Some(told) => told.all.0.runs.len() < MAX_RUNS,
            None => self.replicas.runs_ahead(number).nth(MAX_RUNS).is_none(),
        })
    }

    /// If no pull for a share is under way any more, the rest is asked for as usual.
    fn finish_shares(&mut self, now: Instant) {
        if !self.shares.is_idle() || self.pulling.is_some() || self.staging.is_some() {
            return;
        }
        let through = self.shares.through.take().map(|through| through.slot);
        self.shares.vain |= !core::mem::take(&mut self.shares.news);
        if let Some(slot) = through.or_else(|| self.candidate()) {
            self.start_pull(now, slot);
        }
    }

    /// Gives pulls for shares up that were not answered in time.
    pub(super) fn fire_shares(&mut self, now: Instant) {
        if self.shares.is_idle() {
            return;
        }
        while let Some(mut pulling) = self.shares.take(|pulling| pulling.deadline <= now) {
            self.narrow(&pulling);
            self.stats.pulls_timed_out += 1;
            pulling.tries += 1;
            let again = self.shares.through.is_none() && pulling.tries < MAX_TRIES;
            match pulling.share.filter(|_| again && self.lists_all()) {
                Some(share) if self.share_budget(now, MAX as u8) >= self.max_datagram as u64 => {
                    self.pull_share(now, pulling.peer, share, Some(&pulling));
                }
                _ => self.shares.note_given_up(&pulling),
            }
        }
        if self.shares.through.is_some_and(|through| through.until <= now) {
            for pulling in core::mem::take(&mut self.shares.pulls) {
                self.shares.note_given_up(&pulling);
            }
        }
        self.finish_shares(now);
    }

    /// The peer of such a pull is asked for no share any more, for it gives none.
    pub(super) fn drop_share(&mut self, now: Instant, accepts: impl Fn(&Pulling) -> bool) -> bool {
        let dropped = self.shares.take(accepts);
        if let Some(pulling) = &dropped {
            self.shares.note_slow(pulling.peer);
            self.finish_shares(now);
        }
        dropped.is_some()
    }

    /// The peer in `slot` told its seals in place of the answer. If any was new, the answers of all others are to another
    /// state of this replica: what is missing is asked for anew. Returns whether it was asked for a share.
    pub(super) fn share_told_seals(&mut self, now: Instant, slot: u32) -> bool {
        let Some(pulling) = self.shares.take(|pulling| pulling.peer == slot) else { return false };
        if pulling.seals != self.replicas.seals() {
            self.shares.clear();
            self.shares.note_through(slot, Duration::ZERO, now);
            self.shares.news = true;
        }
        self.finish_shares(now);
        true
    }

    /// The peer in `slot` is no more.
    pub(super) fn forget_share(&mut self, now: Instant, slot: u32) {
        self.shares.through.take_if(|through| through.slot == slot);
        self.drop_share(now, |pulling| pulling.peer == slot);
        self.shares.slow.retain(|slow| *slow != slot);
    }
}

#[cfg(test)]
mod tests;
