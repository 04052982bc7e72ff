//! Entries that fit no datagram, cut into fragments.
//!
//! What cannot be cut is the entry: only a whole one explains its dots. So one that is larger than a datagram is
//! written as if datagrams had no end, and those bytes are sent piece by piece, in answer to a pull or as a unit of
//! a full sync. Its dots are claimed when all of it is there. A push leaves it to the pulls.
//!
//! The bytes are a function of the entry and the dot that was asked for, the same at every replica that reflects the
//! same writes of the key, and a hash of them is their name. Whoever has the first of them says so when it asks
//! again, and goes on from there, be it with another peer. So a loss costs at most what was asked for at once; an
//! entry that changes meanwhile is begun anew. A replica puts a few entries together at a time, of [`MAX_ENTRY`]
//! bytes in all, and only what it asked for; who sends keeps no more of it than it was asked for at once.

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::Map;
use super::chunk::encoded_len;
use super::dot::{Packed, Runs};
use super::fragment_wire::{self, Fragment, Held, Of};
use super::full_wire::{self, Stage, StageHead, Units};
use super::introduced::Introduced;
use super::replica::Replicas;
use super::skim::Skim;
use super::store::Entry;
use super::wire::{self, Chunk, ITEM_FULL, Items};
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};

/// More than an entry has beside its key and values, if there are few of these.
const MAX_OVERHEAD: usize = 64 * 1024;
/// Longest entry that a write may leave: 63 concurrent values of the longest that there are.
pub(super) const MAX_WRITTEN: usize = 4 << 20;
/// Most concurrent values of a key that a write may leave, and most lives whose marks it has then.
pub(super) const MAX_WRITTEN_SIBLINGS: usize = 1_024;
pub(super) const MAX_WRITTEN_MARKS: usize = 4_096;
/// Longest entry that can be told. Writers who do not hear of each other each leave as much as they may, and all of it
/// meets in one entry, which must be told still: the bytes of eight sides of a partition at their limits, or of 500 who
/// write the longest value there is each, the values of four such sides, and the marks of two.
pub(super) const MAX_ENTRY: usize = 8 * MAX_WRITTEN;
/// Most concurrent values and marks of such: what is done to an entry takes time with the square of these.
pub(super) const MAX_SIBLINGS: usize = 4 * MAX_WRITTEN_SIBLINGS;
pub(super) const MAX_MARKS: usize = 2 * MAX_WRITTEN_MARKS;
/// Most entries that are put together at a time: other peers begin with others.
pub(super) const MAX_HELD: usize = 8;
/// Fewer bytes than that are not worth an answer, nor a place in a datagram with others.
const LEAST: usize = 256;

/// Whether an entry can be told to nobody.
pub(super) fn is_too_large(entry: Entry<'_>, most: usize) -> bool {
    let (siblings, marks) = (entry.siblings().len(), entry.superseded().len());
    siblings > MAX_SIBLINGS || marks > MAX_MARKS || encoded_len(entry, None, |_| false) > most
}

fn name(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Some of an entry on its way to a peer: as much as it asked for.
#[derive(Debug)]
pub(super) struct Fragments {
    /// The name of the whole, and its length.
    id: u64,
    len: usize,
    /// Where these bytes begin, and how many of them were sent.
    offset: usize,
    bytes: Vec<u8>,
    sent: usize,
}

impl Fragments {
    /// Of the item that tells `dot` with its entry; `None` if that is too large.
    pub(super) fn of_item(
        replicas: &Replicas,
        entry: Entry<'_>,
        dot: Packed,
        held: &[Held],
        budget: u64,
    ) -> Option<Self> {
        let whole = encode(entry, |w| {
            let mut introduced = Introduced::default();
            introduced.write(w, replicas, dot.replica())?;
            w.varint(dot.counter())?;
            w.u8(1)?;
            w.u8(ITEM_FULL)?;
            w.bytes(entry.key)?;
            introduced.write_dots_in_order(w, replicas, entry)
        });
        whole.map(|whole| Self::new(&whole, held, budget))
    }

    /// Of the unit of a full sync that tells of the entry; `None` if that is too large.
    pub(super) fn of_unit(
        replicas: &Replicas,
        entry: Entry<'_>,
        held: &[Held],
        budget: u64,
    ) -> Option<Self> {
        let whole = encode(entry, |w| {
            // No unit is skipped.
            w.varint(0)?;
            full_wire::write_large_entry(w, replicas, entry)
        });
        whole.map(|whole| Self::new(&whole, held, budget))
    }

    /// What comes after that which the peer has already, to the budget.
    fn new(whole: &[u8], held: &[Held], budget: u64) -> Self {
        let (id, len) = (name(whole), whole.len());
        let held = held.iter().find(|held| held.id == id);
        let held = held.and_then(|held| usize::try_from(held.len).ok());
        // All of it is never held, or it would not be asked for.
        let offset = held.filter(|held| *held < len).unwrap_or(0);
        if offset > 0 {
            reached!("map: fragments go on");
        }
        let rest = whole.get(offset..).unwrap_or_default();
        let budget = usize::try_from(budget).unwrap_or(usize::MAX).max(LEAST);
        // What is nearly all of the rest is all of it.
        let all = rest.len() <= budget.saturating_add(budget / 4);
        let bytes = rest.get(..budget).filter(|_| !all).unwrap_or(rest).to_vec();
        Self { id, len, offset, bytes, sent: 0 }
    }

    /// Writes the next one. Returns whether it is the last for now; that of a unit is told so if it `ends` the answer,
    /// while a chunk says the end of an answer to a pull.
    pub(super) fn write(
        &mut self,
        w: &mut Writer<'_>,
        addressee: u64,
        of: Of,
        ends: bool,
    ) -> Result<bool, NoRoom> {
        let fresh = w.is_fresh();
        let mut len = 0;
        w.frame(wire::FRAGMENT, |w| {
            let flags_at = fragment_wire::write_head(w, addressee, of)?;
            w.u64(self.id)?;
            w.varint(self.len as u64)?;
            w.varint((self.offset + self.sent) as u64)?;
            let rest = self.bytes.get(self.sent..).unwrap_or_default();
            if w.room() < LEAST.min(rest.len()) && !fresh {
                return Err(NoRoom);
            }
            len = rest.len().min(w.room());
            w.put(rest.get(..len).unwrap_or_default())?;
            if ends && len == rest.len() && matches!(of, Of::Unit { .. }) {
                w.set(flags_at, &[fragment_wire::UNIT | fragment_wire::LAST]);
            }
            Ok(())
        })?;
        self.sent += len;
        Ok(self.sent == self.bytes.len())
    }

    /// How many bytes it is.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing of the entry comes after it.
    pub(super) const fn is_end(&self) -> bool {
        self.offset + self.bytes.len() == self.len
    }
}

/// The bytes of an entry, however many; `None` if it is too large.
fn encode(
    entry: Entry<'_>,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
) -> Option<Vec<u8>> {
    if is_too_large(entry, MAX_ENTRY) {
        return None;
    }
    let mut bytes = alloc::vec![0; encoded_len(entry, None, |_| false)];
    let mut w = Writer::new(&mut bytes);
    write(&mut w).ok()?;
    let len = w.len();
    bytes.truncate(len);
    Some(bytes)
}

/// An entry that comes in fragments.
#[derive(Debug)]
pub(super) struct Assembly {
    id: u64,
    len: usize,
    /// As many as came, and room for those that were lost on the way.
    bytes: Vec<u8>,
    /// Which of them are here, counted from one.
    got: Runs,
}

impl Assembly {
    fn new(id: u64, len: usize) -> Self {
        Self { id, len, bytes: Vec::new(), got: Runs::default() }
    }

    /// What the sender need not send again.
    const fn held(&self) -> Held {
        Held { id: self.id, len: self.got.base }
    }

    /// Returns whether any of it is new. What is further ahead than `window` was not asked for.
    fn put(&mut self, offset: usize, bytes: &[u8], window: u64) -> bool {
        let end = offset + bytes.len();
        if end as u64 > self.got.base.saturating_add(window) {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let Some(room) = self.bytes.get_mut(offset..end) else { return false };
        room.copy_from_slice(bytes);
        let new = self.got.next_absent(offset as u64 + 1) <= end as u64;
        self.got.add(offset as u64 + 1, end as u64);
        new
    }

    fn is_whole(&self) -> bool {
        self.got.base >= self.len as u64
    }
}

impl Map {
    /// What is here of entries that come in fragments; the one that was added to last comes last.
    pub(super) fn held(&self) -> SmallVec<[Held; 1]> {
        self.assemblies.iter().map(Assembly::held).filter(|held| held.len > 0).collect()
    }

    /// A fragment of an entry that was asked for came from the peer in `slot`.
    pub(super) fn on_fragment(&mut self, now: Instant, slot: u32, fragment: &Fragment<'_>) {
        if !self.is_mine(fragment.addressee) {
            self.stats.misaddressed += 1;
            return;
        }
        let wanted = match fragment.of {
            Of::Item { nonce, .. } => self.answers_in_fragments(now, slot, nonce),
            Of::Unit { session, unit } => self.stages_in_fragments(slot, session, unit),
        };
        if !wanted {
            reached!("map: fragment that nobody waits for");
            return;
        }
        if fragment.len > self.config.max_bytes.saturating_add(MAX_OVERHEAD) {
            // There is no room for it, whatever is removed.
            self.refuse(now, slot);
            self.abandon_staging(now, slot);
            return;
        }
        let put = self.put_together(fragment);
        if put.new {
            self.note_staged(now, slot);
        }
        match fragment.of {
            Of::Item { nonce, number } => {
                let partial = put.new && put.whole.is_none();
                self.count_fragment(slot, nonce, partial, put.crowded);
                if let Some(bytes) = put.whole
                    && let Ok(items) = Items::checked(&bytes)
                {
                    reached!("map: fragments make an item");
                    let (last, more) = (false, false);
                    let addressee = fragment.addressee;
                    let chunk = Chunk { addressee, nonce, number, last, more, items };
                    self.on_chunk(now, slot, &chunk, &Skim::of(chunk.items));
                }
            }
            Of::Unit { session, unit } => {
                if let Some(bytes) = put.whole
                    && let Ok(units) = Units::checked(&bytes, unit)
                {
                    reached!("map: fragments make a unit");
                    let (total, nonce) = self.staged();
                    let head = StageHead {
                        addressee: fragment.addressee,
                        session,
                        nonce,
                        contexts: 0,
                        total,
                        first: unit,
                        covered: 1,
                        last: fragment.last,
                    };
                    self.on_stage(now, slot, &Stage { head, units });
                } else if fragment.last {
                    self.ask_for_units(slot);
                }
            }
        }
    }

    /// Takes a fragment in.
    fn put_together(&mut self, fragment: &Fragment<'_>) -> Put {
        let (id, len) = (fragment.id, fragment.len);
        let mixed = sabotaged!("fragments-mixed");
        let same = |assembly: &Assembly| (assembly.id == id || mixed) && assembly.len == len;
        let known = self.assemblies.iter().position(same);
        let mut assembly = known.map_or_else(
            || {
                reached!("map: first of the fragments");
                Assembly::new(id, len)
            },
            |at| self.assemblies.remove(at),
        );
        let window = 2 * self.config.pull_budget as u64;
        let new = assembly.put(fragment.offset, fragment.bytes, window);
        if !assembly.is_whole() {
            if new || known.is_some() {
                self.assemblies.push(assembly);
            }
            return Put { new, crowded: self.give_up_assemblies(), whole: None };
        }
        // What is not what its name says was made up.
        let right = name(&assembly.bytes) == id || mixed;
        Put { new, crowded: false, whole: right.then_some(assembly.bytes) }
    }

    /// Gives up those that were not added to for longest, if there are too many. Returns whether there were.
    fn give_up_assemblies(&mut self) -> bool {
        let before = self.assemblies.len();
        let bytes = |all: &[Assembly]| all.iter().map(|one| one.bytes.len()).sum::<usize>();
        while self.assemblies.len() > MAX_HELD
            || self.assemblies.len() > 1 && bytes(&self.assemblies) > MAX_ENTRY
        {
            self.assemblies.remove(0);
        }
        self.assemblies.len() < before
    }
}

/// What became of a fragment.
struct Put {
    /// Whether any of it was new.
    new: bool,
    /// Whether others were given up for it.
    crowded: bool,
    whole: Option<Vec<u8>>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::hash::Secret;
    use crate::map::ReplicaId;
    use crate::map::store::Store;
    use crate::rng::Rng;
    use proptest::prelude::*;

    /// A store in which the replicas `order` wrote `key` without having seen each other, as one that heard of them in
    /// this order.
    fn entry(order: &[u64], len: usize) -> (Replicas, Store, u32) {
        let mut replicas = Replicas::new(ReplicaId::new(NodeId(order[0]), 1), 10, 10);
        let mut store = Store::new(Secret::new(&mut Rng::fork(&[7; 32], 1)), MAX_ENTRY);
        let slot = store.slot_or_insert(b"key");
        for &id in order {
            let number = replicas.intern(ReplicaId::new(NodeId(id), 1)).unwrap();
            let value = alloc::vec![u8::try_from(id).unwrap(); len];
            store.write(&replicas, slot, Packed::new(number, id), Some(&value), |_| false);
        }
        (replicas, store, slot)
    }

    fn item(order: &[u64], len: usize, held: &[Held], budget: u64) -> Option<Fragments> {
        let (replicas, store, slot) = entry(order, len);
        let one = replicas.number(ReplicaId::new(NodeId(1), 1)).unwrap();
        Fragments::of_item(&replicas, store.entry(slot), Packed::new(one, 1), held, budget)
    }

    #[test]
    fn the_same_entry_is_the_same_bytes_wherever_it_is() {
        let of = |order: &[u64]| item(order, 1_000, &[], u64::MAX).unwrap();
        assert_eq!(of(&[1, 2, 3]).bytes, of(&[3, 1, 2]).bytes);
        assert_ne!(of(&[1, 2, 3]).id, of(&[1, 2]).id);
    }

    #[test]
    fn an_entry_beyond_the_limit_is_none() {
        assert!(item(&[1, 2], 1_000, &[], 1).is_some());
        assert!(item(&[1, 2], MAX_ENTRY / 2, &[], 1).is_none());
    }

    proptest! {
        /// Whatever is lost, what was held is not sent again, and in the end all of it is there.
        #[test]
        fn fragments_make_the_bytes_whatever_is_lost(
            len in 1_000..9_000_usize,
            room in 512..1_400_usize,
            budget in 1..6_000_u64,
            losses in proptest::collection::vec(any::<bool>(), 400),
        ) {
            let whole = item(&[1, 2], len, &[], u64::MAX).unwrap();
            let mut assembly = Assembly::new(whole.id, whole.bytes.len());
            let mut losses = losses.into_iter();
            let mut rounds = 0;
            while !assembly.is_whole() {
                rounds += 1;
                prop_assert!(rounds < 400);
                let before = assembly.got.base;
                let mut under_way = item(&[2, 1], len, &[assembly.held()], budget).unwrap();
                prop_assert_eq!(under_way.offset as u64, before);
                prop_assert!(under_way.bytes.len() as u64 <= budget.max(LEAST as u64) * 5 / 4);
                let (mut done, mut lost) = (false, false);
                while !done {
                    let mut buf = alloc::vec![0; room];
                    let mut w = Writer::new(&mut buf);
                    let of = Of::Item { nonce: 1, number: 0 };
                    done = under_way.write(&mut w, 7, of, false).unwrap();
                    let end = w.len();
                    let mut r = crate::wire::Reader::new(&buf[..end]);
                    let (tag, body) = (r.u8().unwrap(), r.bytes(room).unwrap());
                    prop_assert!(r.is_empty());
                    let Ok(wire::Frame::Fragment(fragment)) = wire::parse(tag, body) else {
                        panic!("a sound fragment");
                    };
                    prop_assert_eq!((fragment.id, fragment.len), (whole.id, whole.len));
                    if losses.next().unwrap_or(false) {
                        lost = true;
                    } else {
                        assembly.put(fragment.offset, fragment.bytes, u64::MAX);
                    }
                }
                prop_assert!(lost || assembly.got.base > before);
            }
            prop_assert_eq!(assembly.bytes, whole.bytes);
        }
    }
}
