//! The member table: who is known, in which state, and in which order they are probed.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::exchange;
use super::inquiry::Inquiry;
use super::standing::Standing;
use crate::hash::{Index, Secret};
use crate::id::{Identity, NodeId};
use crate::rng::Rng;
use crate::room;
use crate::sabotage::sabotaged;
use crate::time::Instant;

mod row;

pub(super) use row::{Case, Row};

/// What is believed of a member. The order is the order of evidence at equal incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums)] // the protocol has these four
pub enum State {
    /// It answers.
    Alive,
    /// It did not answer somebody; it has time to refute.
    Suspect,
    /// It was confirmed failed.
    Dead,
    /// It said goodbye.
    Left,
}

/// A member as this node sees it.
#[derive(Debug, Clone)]
pub struct Member {
    pub(super) identity: Arc<Identity>,
    pub(super) incarnation: u32,
    pub(super) state: State,
    /// Smoothed round-trip time in microseconds; zero until measured.
    pub(super) rtt_us: u32,
    /// Version of the identity within its boot; address and metadata may change.
    pub(super) version: u32,
    /// Whether it is held out, and stands in its bucket as such: never one that is not dead.
    pub(super) held: bool,
    /// Nothing was heard of it since this node stood still for longer than the gone are remembered.
    pub(super) doubted: bool,
}

impl Member {
    /// What the member says of itself.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.identity.name()
    }

    /// Where it lives.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.identity.addr()
    }

    /// How often it refuted an accusation since its start.
    #[must_use]
    pub const fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// What is believed of it.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether it counts as a member: alive, or suspected and not yet confirmed failed.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }

    /// The smoothed round-trip time to it, once measured.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        if self.rtt_us == 0 { None } else { Some(Duration::from_micros(self.rtt_us as u64)) }
    }
}

/// What others are told of a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'t> {
    pub(super) row: &'t Row,
    /// What was found of how it answers.
    pub(super) found: Option<&'t Inquiry>,
}

/// Reads ids for the index.
fn id_in(rows: &[Option<Row>]) -> impl Fn(u32) -> NodeId {
    |slot| rows[slot as usize].as_ref().expect("slots in the index are in use").member.id()
}

/// This node itself.
pub(super) const ME: u32 = 0;
/// How many of the oldest tombstones are looked at for one that may be dropped.
const MOST_LOOKS: usize = 1_024;
/// Makes the digest of a member that is held out another one.
const HELD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Digest buckets of the table.
pub(super) const BUCKETS: usize = 64;

/// All known members in slots; slot [`ME`] is this node. Every operation is O(1), apart from sampling,
/// which is bounded by the sample.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    index: Index,
    /// Live peers. The part before `cursor` was probed this round; the rest is shuffled as it is drawn.
    live: Vec<u32>,
    cursor: usize,
    /// Dead and left peers.
    gone: Vec<u32>,
    /// When each tombstone ends, oldest first, with the stamp of the row when it was made.
    expiries: VecDeque<(Instant, u32, u64)>,
    /// Tombstones made so far: their stamps.
    stamps: u64,
    buckets: [Vec<u32>; BUCKETS],
    sums: [u64; BUCKETS],
    /// Of all of them.
    sum: u64,
    /// Where new members enter the round.
    places: Rng,
    /// What was found of how members answer: of few at a time, so it has no place in each row.
    standings: BTreeMap<u32, Standing>,
}

impl Table {
    pub(super) fn new(me: Arc<Identity>, commitment: u64, secret: Secret, places: Rng) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            free: Vec::new(),
            index: Index::new(secret),
            live: Vec::new(),
            cursor: 0,
            gone: Vec::new(),
            expiries: VecDeque::new(),
            stamps: 0,
            buckets: [const { Vec::new() }; BUCKETS],
            sums: [0; BUCKETS],
            sum: 0,
            places,
            standings: BTreeMap::new(),
        };
        table.rows.push(Some(Row::alive(me, 0, 0, commitment)));
        table.index.insert(ME, id_in(&table.rows));
        table.enter_bucket(ME);
        table
    }

    pub(super) fn slot(&self, id: NodeId) -> Option<u32> {
        self.index.get(id, id_in(&self.rows))
    }

    /// Of all live peers others are told only once something is heard of them.
    pub(super) fn doubt(&mut self) {
        for &slot in &self.live {
            if let Some(row) = &mut self.rows[slot as usize] {
                row.member.doubted = true;
            }
        }
    }

    /// Whether others may be told that it is there.
    pub(super) fn may_be_told(&self, slot: u32) -> bool {
        self.try_row(slot).is_some_and(|row| !row.member.doubted || !row.member.is_live())
    }

    /// The row of `slot`, which must be in use: slots are handed out by this table and forgotten by
    /// their holders when [`Table::expire`] or [`Table::forget_oldest`] frees them.
    pub(super) fn row(&self, slot: u32) -> &Row {
        self.rows[slot as usize].as_ref().expect("slot is in use")
    }

    /// The row of a slot that may have been freed since it was noted.
    pub(super) fn try_row(&self, slot: u32) -> Option<&Row> {
        self.rows.get(slot as usize).and_then(Option::as_ref)
    }

    pub(super) fn row_mut(&mut self, slot: u32) -> &mut Row {
        self.rows[slot as usize].as_mut().expect("slot is in use")
    }

    pub(super) fn member(&self, slot: u32) -> &Member {
        &self.row(slot).member
    }

    pub(super) fn about(&self, slot: u32) -> About<'_> {
        About { row: self.row(slot), found: self.found(slot) }
    }

    /// Of a slot that may have been freed since it was noted.
    pub(super) fn try_about(&self, slot: u32) -> Option<About<'_>> {
        self.try_row(slot).map(|row| About { row, found: self.found(slot) })
    }

    /// What others are told of how the member answers.
    pub(super) fn found(&self, slot: u32) -> Option<&Inquiry> {
        self.standing(slot).and_then(Standing::told)
    }

    pub(super) fn standing(&self, slot: u32) -> Option<&Standing> {
        self.standings.get(&slot)
    }

    pub(super) fn standing_mut(&mut self, slot: u32) -> Option<&mut Standing> {
        self.standings.get_mut(&slot)
    }

    /// The same, an empty one if there was none.
    pub(super) fn make_standing(&mut self, slot: u32) -> &mut Standing {
        self.standings.entry(slot).or_default()
    }

    pub(super) fn drop_standing(&mut self, slot: u32) {
        self.standings.remove(&slot);
    }

    pub(super) fn me(&self) -> &Member {
        self.member(ME)
    }

    /// Live peers, this node not among them.
    pub(super) fn live(&self) -> &[u32] {
        &self.live
    }

    /// Peers that failed or left and are still remembered.
    pub(super) fn gone(&self) -> &[u32] {
        &self.gone
    }

    /// Rows in use, this node's own included.
    pub(super) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Adds a live member that is not known yet.
    #[allow(clippy::cast_possible_truncation)] // max_members is far below u32::MAX
    pub(super) fn insert(
        &mut self,
        identity: Arc<Identity>,
        incarnation: u32,
        version: u32,
        commitment: u64,
    ) -> u32 {
        let row = Row::alive(identity, incarnation, version, commitment);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.rows[slot as usize] = Some(row);
                slot
            }
            None => {
                room::reserve(&mut self.rows, 1);
                self.rows.push(Some(row));
                self.rows.len() as u32 - 1
            }
        };
        self.index.insert(slot, id_in(&self.rows));
        self.enter_live(slot);
        self.enter_bucket(slot);
        slot
    }

    /// Gives a row a new identity, keeping the digest in step.
    pub(super) fn set_identity(&mut self, slot: u32, identity: Arc<Identity>, version: u32) {
        let counted = self.member(slot).is_live() || self.member(slot).held;
        if counted {
            self.leave_bucket(slot);
        }
        let row = self.row_mut(slot);
        row.digest = identity.digest() ^ if row.member.held { HELD } else { 0 };
        row.member.version = version;
        row.member.identity = identity;
        if counted {
            self.enter_bucket(slot);
        }
    }

    /// Holds an equal identity in common with others. A thousand nodes in one process would have each of
    /// them a thousand times.
    #[cfg(feature = "sim")]
    pub(super) fn share(&mut self, identity: &Arc<Identity>) {
        if let Some(slot) = self.slot(identity.id()) {
            let held = &mut self.row_mut(slot).member.identity;
            if *held == *identity {
                *held = identity.clone();
            }
        }
    }

    /// Changes a row's state and keeps the lists and the digest in step. A row that becomes dead or
    /// left is remembered until `forget_at`.
    pub(super) fn set_state(&mut self, slot: u32, state: State, case: Case, forget_at: Instant) {
        if state != State::Dead {
            self.set_held(slot, false);
        }
        let was_live = self.row(slot).member.is_live();
        let row = self.row_mut(slot);
        row.member.state = state;
        row.set_case(case);
        let is_live = row.member.is_live();
        if was_live && !is_live {
            self.leave_bucket(slot);
            if slot != ME {
                self.leave_live(slot);
                self.enter_gone(slot);
                self.stamps += 1;
                let stamp = self.stamps;
                self.row_mut(slot).set_tombstone(stamp);
                self.expiries.push_back((forget_at, slot, stamp));
                self.drop_void_expiries();
            }
        } else if !was_live && is_live {
            if slot != ME {
                self.leave_gone(slot);
                self.enter_live(slot);
            }
            self.enter_bucket(slot);
        }
    }

    /// A failed member that is held out stands in its bucket, as something else than it is while it lives: who has not heard of
    /// it finds that by comparing tables.
    pub(super) fn set_held(&mut self, slot: u32, held: bool) {
        if self.member(slot).held == held {
            return;
        }
        if !held {
            self.leave_bucket(slot);
        }
        let row = self.row_mut(slot);
        (row.member.held, row.digest) = (held, row.digest ^ HELD);
        if held {
            self.enter_bucket(slot);
        }
    }

    /// Members that die and come back again and again leave void entries behind: once they are the
    /// majority, they go, at a cost that is O(1) per entry made.
    fn drop_void_expiries(&mut self) {
        if self.expiries.len() > 2 * self.gone.len() + 64 {
            let rows = &self.rows;
            self.expiries.retain(|&(_, slot, stamp)| {
                let row = rows.get(slot as usize).and_then(Option::as_ref);
                row.is_some_and(|row| row.tombstone() == stamp && !row.member.is_live())
            });
        }
    }

    /// When the oldest tombstone ends.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.front().map(|&(at, _, _)| at)
    }

    /// Forgets one tombstone that is due and returns its slot. Entries of members that came back
    /// meanwhile are dropped on the way.
    pub(super) fn expire(&mut self, now: Instant) -> Option<u32> {
        while let Some(&(at, slot, stamp)) = self.expiries.front() {
            if at > now {
                return None;
            }
            self.expiries.pop_front();
            let Some(row) = self.rows.get(slot as usize).and_then(Option::as_ref) else { continue };
            if row.member.is_live() || row.tombstone() != stamp {
                continue;
            }
            self.forget(slot);
            return Some(slot);
        }
        None
    }

    /// Frees the slot of a member that is gone.
    fn forget(&mut self, slot: u32) {
        self.set_held(slot, false);
        self.leave_gone(slot);
        self.index.remove(self.member(slot).id(), id_in(&self.rows));
        self.drop_standing(slot);
        self.rows[slot as usize] = None;
        self.free.push(slot);
    }

    /// Forgets the one that went first, apart from such as are held out and one that is spared, before its time, and returns
    /// its slot; `None` if there is none among the oldest. The void ones in front are dropped, so that each is passed once; of
    /// those behind it looks at no more than [`MOST_LOOKS`].
    pub(super) fn forget_oldest(&mut self, spared: Option<u32>) -> Option<u32> {
        let gone = |&(_, slot, stamp): &(Instant, u32, u64)| {
            self.try_row(slot)
                .filter(|row| row.tombstone() == stamp && !row.member.is_live())
                .map(|row| (slot, row.member.held))
        };
        let void = self.expiries.iter().take_while(|entry| gone(entry).is_none()).count();
        let rest = self.expiries.iter().skip(void).take(MOST_LOOKS);
        let oldest = rest.filter_map(gone);
        let slot = oldest
            .filter(|(slot, held)| !held && Some(*slot) != spared)
            .map(|(slot, _)| slot)
            .next();
        self.expiries.drain(..void);
        self.forget(slot?);
        self.drop_void_expiries();
        slot
    }

    /// The next member to probe: round robin over a permutation that is shuffled as it is drawn, so
    /// two probes of one member lie at most 2n - 1 apart (SWIM section 4.3).
    pub(super) fn next_probe(&mut self, rng: &mut Rng) -> Option<u32> {
        if self.cursor >= self.live.len() {
            self.cursor = 0;
        }
        if self.live.is_empty() {
            return None;
        }
        let first = if sabotaged!("probe-anyone") { 0 } else { self.cursor };
        let drawn = first + rng.below(self.live.len() - first);
        self.swap_live(self.cursor, drawn);
        self.cursor += 1;
        Some(self.live[self.cursor - 1])
    }

    /// Up to `k` distinct live peers that pass `wanted`: a window of the permutation from a random place.
    pub(super) fn sample(
        &self,
        rng: &mut Rng,
        k: usize,
        mut wanted: impl FnMut(&Member) -> bool,
        mut take: impl FnMut(u32),
    ) {
        let start = rng.below(self.live.len());
        // In a small cluster look at everyone, in a large one give up before it becomes a scan.
        let looks = self.live.len().min(4 * k + 64);
        let window = self.live[start..].iter().chain(&self.live[..start]).take(looks);
        let mut left = k;
        for &slot in window {
            if left == 0 {
                break;
            }
            if wanted(self.member(slot)) {
                take(slot);
                left -= 1;
            }
        }
    }

    /// The sum of the digests of all live members, this node included.
    pub(super) const fn digest(&self) -> u64 {
        self.sum
    }

    /// The digest of one bucket, folded to 32 bits.
    #[allow(clippy::cast_possible_truncation)] // folding is what is wanted
    pub(super) fn bucket_digest(&self, bucket: usize) -> u32 {
        let sum = self.sums[bucket];
        (sum ^ (sum >> 32)) as u32
    }

    /// The live members of one bucket, this node included.
    pub(super) fn bucket(&self, bucket: usize) -> &[u32] {
        &self.buckets[bucket]
    }

    fn bucket_of(&self, slot: u32) -> usize {
        exchange::bucket(self.member(slot).id())
    }

    #[allow(clippy::cast_possible_truncation)] // no more members than u32
    fn enter_bucket(&mut self, slot: u32) {
        let bucket = self.bucket_of(slot);
        let row = self.rows[slot as usize].as_mut().expect("slot is in use");
        row.in_bucket = self.buckets[bucket].len() as u32;
        self.sums[bucket] = self.sums[bucket].wrapping_add(row.digest);
        self.sum = self.sum.wrapping_add(row.digest);
        self.buckets[bucket].push(slot);
    }

    fn leave_bucket(&mut self, slot: u32) {
        let bucket = self.bucket_of(slot);
        let (at, digest) = (self.row(slot).in_bucket, self.row(slot).digest);
        self.sums[bucket] = self.sums[bucket].wrapping_sub(digest);
        self.sum = self.sum.wrapping_sub(digest);
        self.buckets[bucket].swap_remove(at as usize);
        if let Some(&moved) = self.buckets[bucket].get(at as usize) {
            self.row_mut(moved).in_bucket = at;
        }
    }

    /// A new member enters the round of probes at a random place (SWIM section 4.3), which may be among those
    /// who have been probed: then its turn is in the next round. If all entered the rest of the round, then members
    /// that come and go as fast as others are probed would let no round end.
    #[allow(clippy::cast_possible_truncation)]
    fn enter_live(&mut self, slot: u32) {
        let end = self.live.len();
        self.row_mut(slot).position = end as u32;
        room::reserve(&mut self.live, 1);
        self.live.push(slot);
        if self.places.below(end + 1) < self.cursor {
            self.swap_live(self.cursor, end);
            self.cursor += 1;
        }
    }

    fn leave_live(&mut self, slot: u32) {
        let mut at = self.row(slot).position as usize;
        if at < self.cursor {
            // Keep the probed part in front: its last one takes the leaver's place.
            self.cursor -= 1;
            self.swap_live(at, self.cursor);
            at = self.cursor;
        }
        self.swap_live(at, self.live.len() - 1);
        self.live.pop();
    }

    #[allow(clippy::cast_possible_truncation)]
    fn swap_live(&mut self, a: usize, b: usize) {
        self.live.swap(a, b);
        for at in [a, b] {
            let slot = self.live[at];
            self.row_mut(slot).position = at as u32;
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn enter_gone(&mut self, slot: u32) {
        self.row_mut(slot).position = self.gone.len() as u32;
        self.gone.push(slot);
    }

    fn leave_gone(&mut self, slot: u32) {
        let at = self.row(slot).position;
        self.gone.swap_remove(at as usize);
        if let Some(&moved) = self.gone.get(at as usize) {
            self.row_mut(moved).position = at;
        }
    }
}

#[cfg(test)]
mod tests;
