//! The table exchange: what gossip did not reach is found by comparing tables, and only that is sent.
//!
//! A digest of the live members, and of those that are held out, rides on every ping and ack. Whoever sees another one answers with the
//! digests of 64 buckets of the id space; the peer lists what it has in those that differ, four bytes for each
//! member, in the order of the ids. A list covers a range of ids, so it may end wherever the datagram does. Whoever
//! gets it asks for what it lacks, and offers what the other lacks in the same way: members in full are only told
//! to who asked for them, and a node asks one peer at a time, so that nobody is told the same by many, however
//! many find at once how far it is behind. Each step is an answer to the one before: what is lost is found again
//! by the next comparison.
//!
//! A newcomer is told everybody by the one that lets it in, and then compares tables with another member, as one that is far
//! behind; where many start at once it finds so who came after it. A node with members that finds one elsewhere compares tables with it.
//!
//! Comparing ranges of hashed ids follows range-based set reconciliation (Meyer 2023), in a single step of fixed
//! width: 64 buckets of a table of 10,000 hold 156 members each, which is a list of less than a datagram.

use smallvec::SmallVec;

use super::outbox::{Msg, Owed, Print};
use super::row_wire;
use super::wire::{self, Digests, Fingerprints, Listed};
use super::{Member, Origin, Swim};
use crate::hash;
use crate::id::NodeId;
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::Writer;

/// Which bucket the member of that id is in.
pub(super) fn bucket(id: NodeId) -> usize {
    (hash::mix(id.0) >> 58) as usize
}

/// Where in its bucket it stands.
#[allow(clippy::cast_possible_truncation)] // 32 bits of the mix are what is wanted
fn position(id: NodeId) -> u32 {
    (hash::mix(id.0) >> 26) as u32
}

/// A member in four bytes. With a salt, so that two whose fingerprints are equal for one node differ for
/// the others.
#[allow(clippy::cast_possible_truncation)] // folding is what is wanted
fn fingerprint(digest: u64, salt: u32) -> u32 {
    let mixed = hash::mix(digest ^ u64::from(salt));
    (mixed ^ (mixed >> 32)) as u32
}

/// When tables were compared last.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// When a differing digest started an exchange.
    last: Option<Instant>,
    /// Since when, and until when, tables differ because many members are suspected, or were.
    flux: Option<Instant>,
    flux_until: Instant,
}

/// Members of one bucket; more than that are kept on the heap.
type OfBucket = SmallVec<[Print; 128]>;

/// Probe intervals between exchanges while many members are suspected, and until so many after.
const SELDOM: u32 = 8;
const FLUX: u32 = 2;

/// Who lacks so many of what a peer lists is far behind.
const FAR_BEHIND: usize = 16;

impl Swim {
    /// A peer's table differs: propose an exchange, at most one per probe interval. While many members are suspected, and for a
    /// moment after, tables differ by what gossip is about to tell, and are compared less often.
    pub(super) fn on_table_digest(&mut self, now: Instant, origin: Origin, digest: u64) {
        let Some(slot) = origin.slot else { return };
        if digest == self.table.digest() && !self.is_memberlist() {
            self.gossip.same_table(slot);
        } else if digest != self.table.digest() && self.may_exchange(now) {
            self.compared.last = Some(now);
            self.outbox.msg(slot, Msg::Buckets);
        }
    }

    fn may_exchange(&mut self, now: Instant) -> bool {
        let (interval, many) = (self.config.probe_interval, self.many_suspected());
        let Compared { last, flux, flux_until } = &mut self.compared;
        if many {
            // However often that begins, it puts off one exchange alone.
            if now >= *flux_until && *last >= *flux {
                *flux = Some(now);
            }
            *flux_until = now + interval * FLUX;
        }
        if now < *flux_until {
            reached!("membership: tables differ while many are suspected");
            (*last).max(*flux).is_none_or(|at| now >= at + interval * SELDOM)
        } else {
            last.is_none_or(|at| now >= at + interval)
        }
    }

    /// Owes the sender lists of the buckets that differ.
    pub(super) fn on_buckets(&mut self, origin: Origin, digests: Digests<'_>) {
        let Some(slot) = origin.slot else { return };
        let differs = |&(bucket, digest): &(usize, u32)| digest != self.table.bucket_digest(bucket);
        let differ = digests.iter().enumerate().filter(differs);
        let mask = differ.fold(0_u64, |mask, (bucket, _)| mask | 1 << bucket);
        if mask == 0 {
            return;
        }
        let owed = self.outbox.to(slot);
        (owed.lists, owed.listed) = (mask, 0);
    }

    /// Offers the sender those members of the range that it lacks, and asks for those that are lacked here.
    pub(super) fn on_listed(&mut self, now: Instant, origin: Origin, listed: Listed<'_>) {
        let Some(slot) = origin.slot else { return };
        let mine = self.fingerprints(listed.bucket, listed.salt, |id| {
            (listed.from..=listed.to).contains(&position(id))
        });
        let mut told: SmallVec<[bool; 256]> = smallvec::smallvec![false; mine.len()];
        let (salt, bucket) = (listed.salt, listed.bucket);
        let print = |fingerprint| Print { salt, bucket, fingerprint };
        let mut lacked = OfBucket::new();
        for theirs in listed.fingerprints() {
            match mine.binary_search_by_key(&theirs, |&(fingerprint, _)| fingerprint) {
                Ok(at) => told[at] = true,
                Err(_) => lacked.push(print(theirs)),
            }
        }
        let untold = mine.iter().zip(&told).filter(|(_, told)| !**told);
        let offered: OfBucket = untold.map(|(&(fingerprint, _), _)| print(fingerprint)).collect();
        if !offered.is_empty() {
            self.outbox.to(slot).offers.add(&offered);
        }
        self.want(now, slot, &lacked);
    }

    /// Asks for those members on offer that are lacked here.
    pub(super) fn on_offered(&mut self, now: Instant, origin: Origin, offered: Fingerprints<'_>) {
        let Some(slot) = origin.slot else { return };
        let mine = self.fingerprints(offered.bucket, offered.salt, |_| true);
        let (salt, bucket) = (offered.salt, offered.bucket);
        let is_here = |theirs: &u32| {
            mine.binary_search_by_key(theirs, |&(fingerprint, _)| fingerprint).is_ok()
        };
        let lacked = offered.fingerprints().filter(|theirs| !is_here(theirs));
        let lacked: OfBucket =
            lacked.map(|fingerprint| Print { salt, bucket, fingerprint }).collect();
        self.want(now, slot, &lacked);
    }

    /// Asks the peer in `slot` for members, unless another one is being asked.
    fn want(&mut self, now: Instant, slot: u32, lacked: &[Print]) {
        if lacked.is_empty() || !self.may_ask(now, slot) {
            return;
        }
        let count = self.outbox.to(slot).wants.add(lacked);
        if self.asking.is_none_or(|(_, until)| until <= now) {
            self.asking = Some((slot, now + self.config.probe_timeout));
        }
        // Who is far behind asks others too, for whoever answers may be as well.
        self.behind |= count >= FAR_BEHIND;
        if self.behind {
            self.arm_gossip(now);
        }
    }

    /// Whether this node may ask that peer for members now, rather than wait for what it asked another for. It asks one
    /// for so long; then it is the turn of another, and after as long again of anybody.
    fn may_ask(&self, now: Instant, slot: u32) -> bool {
        self.asking.is_none_or(|(asked, until)| {
            let again = until + self.config.probe_timeout;
            if asked == slot { now < until || again <= now } else { until <= now }
        })
    }

    /// Who is far behind compares tables with somebody else once it may ask it.
    pub(super) fn catch_up(&mut self, now: Instant) {
        if !self.behind || self.asking.is_some_and(|(_, until)| now < until) {
            return;
        }
        let lately = self.asking.filter(|(_, until)| now < *until + self.config.probe_timeout);
        let asked = lately.and_then(|(slot, _)| self.table.try_row(slot));
        let asked = asked.map(|row| row.member.id());
        let other = |member: &Member| Some(member.id()) != asked;
        let (outbox, behind) = (&mut self.outbox, &mut self.behind);
        self.table.sample(&mut self.rng, 1, other, |slot| {
            outbox.msg(slot, Msg::Buckets);
            *behind = false;
        });
    }

    /// Owes the sender the members that it asks for by their fingerprints.
    pub(super) fn on_wanted(&mut self, origin: Origin, wanted: Fingerprints<'_>) {
        let Some(slot) = origin.slot else { return };
        let mine = self.fingerprints(wanted.bucket, wanted.salt, |_| true);
        for theirs in wanted.fingerprints() {
            let at = mine.binary_search_by_key(&theirs, |&(fingerprint, _)| fingerprint);
            if let Ok(at) = at
                && !sabotaged!("wanted-untold")
            {
                self.outbox.to(slot).tell(mine[at].1);
            }
        }
    }

    /// The members of a bucket, live ones and such as are held out, that are `wanted`, this node included, by their fingerprints.
    fn fingerprints(
        &self,
        bucket: u8,
        salt: u32,
        wanted: impl Fn(NodeId) -> bool,
    ) -> SmallVec<[(u32, u32); 256]> {
        let bucket = self.table.bucket(usize::from(bucket));
        let rows = bucket.iter().map(|&slot| (slot, self.table.row(slot)));
        let mut found: SmallVec<[(u32, u32); 256]> = rows
            .filter(|(_, row)| wanted(row.member.id()))
            .map(|(slot, row)| (fingerprint(row.digest(), salt), slot))
            .collect();
        found.sort_unstable();
        found
    }

    /// Writes what the exchange owes `to`: lists of buckets, what is asked for, and members in full.
    /// `head` is where the datagram begins.
    pub(super) fn write_exchange(&self, w: &mut Writer<'_>, head: usize, to: u32, owed: &mut Owed) {
        while owed.lists != 0 && self.write_list(w, owed) {}
        wire::write_some(w, wire::WANTED, &mut owed.wants);
        wire::write_some(w, wire::OFFERED, &mut owed.offers);
        let fresh = w.len() == head;
        let _ = w.frame(wire::UPDATES, |w| {
            let (start, by) = (w.len(), self.teller());
            let empty = |w: &Writer<'_>| fresh && w.len() == start;
            let left = owed.told.iter().position(|about| match self.table.try_about(*about) {
                Some(row)
                    if *about != to
                        && self.table.may_be_told(*about)
                        && (row.row.member.is_live() || row.row.member.held) =>
                {
                    let empty = empty(w);
                    row_wire::write_whole_row(w, row, by, empty).is_err()
                }
                _ => false,
            });
            owed.told.drain(..left.unwrap_or(owed.told.len()));
            self.write_buckets(w, empty, to, owed);
            if w.len() == start { Err(crate::wire::NoRoom) } else { Ok(()) }
        });
    }

    /// Lists the lowest of the owed buckets, from where it was left on. Returns whether there may be room for more.
    fn write_list(&self, w: &mut Writer<'_>, owed: &mut Owed) -> bool {
        #[allow(clippy::cast_possible_truncation)] // below 64
        let bucket = owed.lists.trailing_zeros() as u8;
        let rows = self.table.bucket(usize::from(bucket)).iter().map(|&slot| self.table.row(slot));
        let mut mine: SmallVec<[(u32, u32); 256]> = rows
            .map(|row| (position(row.member.id()), fingerprint(row.digest(), self.salt)))
            .filter(|(position, _)| *position >= owed.listed)
            .collect();
        mine.sort_unstable();
        let fits = wire::listed_room(w);
        if fits == 0 && !mine.is_empty() {
            return false;
        }
        // Those at one place are listed together, or else the rest of them as far as there is room.
        let to = match mine.get(fits) {
            None => u32::MAX,
            Some((next, _)) => next.saturating_sub(1).max(owed.listed),
        };
        let end = mine.iter().position(|(position, _)| *position > to).unwrap_or(mine.len());
        let list = &mine[..end.min(fits)];
        if wire::write_listed(w, self.salt, bucket, (owed.listed, to), list).is_err() {
            return false;
        }
        if to == u32::MAX {
            owed.lists &= owed.lists - 1;
            owed.listed = 0;
        } else {
            owed.listed = to + 1;
        }
        true
    }

    /// Members of the owed digest buckets, as many as fit into a datagram that may be `empty` so far.
    pub(super) fn write_buckets(
        &self,
        w: &mut Writer<'_>,
        empty: impl Fn(&Writer<'_>) -> bool,
        to: u32,
        owed: &mut Owed,
    ) {
        let by = self.teller();
        while owed.buckets != 0 {
            let bucket = self.table.bucket(owed.buckets.trailing_zeros() as usize);
            while let Some(&slot) = bucket.get(owed.resume as usize) {
                let (about, empty) = (self.table.about(slot), empty(w));
                let told = slot != to && self.table.may_be_told(slot);
                if told && row_wire::write_whole_row(w, about, by, empty).is_err() {
                    return;
                }
                owed.resume += 1;
            }
            owed.buckets &= owed.buckets - 1;
            owed.resume = 0;
        }
    }
}
