//! The frames of a full sync; see [`wire`](super::wire) for their layout.

#![warn(clippy::indexing_slicing)]

use smallvec::SmallVec;

use super::dot::{MAX_COUNTER, Packed, ReplicaId};
use super::entry_wire::FullEntry;
use super::fragment_wire::Held;
use super::introduced::Introduced;
use super::replica::Replicas;
use super::store::Entry;
use super::wire::{self, FLAG_LAST, MAX_BYTES, MAX_KEY, ReplicaRef};
use crate::wire::{NoRoom, PacketError, Reader, Writer};

/// Most ranges of units that one FETCH asks for.
pub(super) const MAX_RANGES: usize = 16;
/// Most runs of one context unit, so that the longest fits the shortest datagram.
pub(super) const UNIT_RUNS: usize = 16;

const FLAG_AHEAD: u8 = 1;
const LONE: u8 = 0;
const ENTRY: u8 = 1;
/// As the lone value before it, of the same replica: slots are mostly in the order in which keys were written.
const NEXT: u8 = 2;

/// First and one past the last of some units.
pub(super) type Range = (u64, u64);

/// What a FETCH frame says before its ranges.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchHead {
    pub(super) session: u64,
    /// Those that ask for units are numbered from one on.
    pub(super) number: u64,
    /// The giver goes on from where it has got to, if that is further than the last range begins.
    pub(super) ahead: bool,
    pub(super) budget: u64,
    /// What it has already of a unit that comes in fragments.
    pub(super) held: Option<Held>,
}

impl FetchHead {
    /// Of one that says that the session is over.
    pub(super) const fn over(session: u64) -> Self {
        Self { session, number: 0, ahead: false, budget: 0, held: None }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fetch<'p> {
    pub(super) head: FetchHead,
    end: u64,
    rest: Reader<'p>,
}

impl Fetch<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Range>, PacketError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let from = self.end.checked_add(self.rest.varint()?);
        let from = from.ok_or(PacketError::LimitExceeded)?;
        let end = from.checked_add(self.rest.varint()?).filter(|end| *end > from);
        self.end = end.ok_or(PacketError::LimitExceeded)?;
        Ok(Some((from, self.end)))
    }
}

pub(super) fn parse_fetch(mut r: Reader<'_>) -> Result<Fetch<'_>, PacketError> {
    let (session, number, flags) = (r.u64()?, r.varint()?, r.u8()?);
    let (budget, len) = (r.varint()?, r.varint()?);
    let held = if len == 0 { None } else { Some(Held { id: r.u64()?, len }) };
    if flags & !FLAG_AHEAD != 0 {
        return Err(PacketError::Malformed);
    }
    let head = FetchHead { session, number, ahead: flags != 0, budget, held };
    let fetch = Fetch { head, end: 0, rest: r };
    let (mut check, mut ranges) = (fetch, 0);
    while check.next()?.is_some() {
        ranges += 1;
    }
    if ranges > MAX_RANGES { Err(PacketError::LimitExceeded) } else { Ok(fetch) }
}

pub(super) fn write_fetch(
    w: &mut Writer<'_>,
    head: &FetchHead,
    ranges: impl Iterator<Item = Range>,
) -> Result<(), NoRoom> {
    w.frame(wire::FETCH, |w| {
        w.u64(head.session)?;
        w.varint(head.number)?;
        w.u8(if head.ahead { FLAG_AHEAD } else { 0 })?;
        w.varint(head.budget)?;
        w.varint(head.held.map_or(0, |held| held.len))?;
        head.held.map_or(Ok(()), |held| w.u64(held.id))?;
        let mut end = 0;
        for (from, to) in ranges.take(MAX_RANGES) {
            w.varint(from - end)?;
            w.varint(to - from)?;
            end = to;
        }
        Ok(())
    })
}

pub(super) fn write_gone(w: &mut Writer<'_>, addressee: u64, number: u64) -> Result<(), NoRoom> {
    w.frame(wire::GONE, |w| {
        w.u64(addressee)?;
        w.u64(number)
    })
}

/// What a STAGE frame says before its units.
#[derive(Debug, Clone, Copy)]
pub(super) struct StageHead {
    pub(super) addressee: u64,
    pub(super) session: u64,
    pub(super) nonce: u64,
    /// How many units tell of the context: the first ones.
    pub(super) contexts: u64,
    pub(super) total: u64,
    pub(super) first: u64,
    pub(super) covered: u32,
    pub(super) last: bool,
}

impl StageHead {
    /// Writes it. Returns where [`StageHead::finish`] has to write what is known only after the units.
    pub(super) fn write(&self, w: &mut Writer<'_>) -> Result<usize, NoRoom> {
        w.u64(self.addressee)?;
        w.u64(self.session)?;
        w.varint(self.nonce)?;
        w.varint(self.contexts)?;
        w.varint(self.total)?;
        w.varint(self.first)?;
        let place = w.len();
        w.u32(self.covered)?;
        w.u8(0)?;
        Ok(place)
    }

    pub(super) fn finish(w: &mut Writer<'_>, place: usize, covered: u32, last: bool) {
        w.set(place, &covered.to_le_bytes());
        w.set(place + 4, &[if last { FLAG_LAST } else { 0 }]);
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'p> {
    pub(super) head: StageHead,
    pub(super) units: Units<'p>,
}

/// Walks the units of a STAGE frame, checking every reference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units<'p> {
    rest: Reader<'p>,
    next: u64,
    contexts: u64,
    end: u64,
    replicas: usize,
    /// Number of the replica and counter of the last lone value.
    last: Option<(usize, u64)>,
}

/// Some of the dots of a replica: all up to the base, and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContextUnit {
    pub(super) id: ReplicaId,
    pub(super) base: u64,
    pub(super) floor: u64,
    /// The counter that the first run's gap begins after.
    pub(super) after: u64,
    pub(super) runs: SmallVec<[(u64, u64); 2]>,
}

#[derive(Debug, Clone)]
pub(super) enum Unit<'p> {
    Context(ContextUnit),
    Lone { replica: ReplicaRef, counter: u64, key: &'p [u8], value: &'p [u8] },
    Entry { key: &'p [u8], entry: FullEntry<'p> },
}

impl<'p> Units<'p> {
    /// An entry's, that was put together from fragments.
    pub(super) fn checked(bytes: &'p [u8], unit: u64) -> Result<Self, PacketError> {
        let end = unit.checked_add(1).ok_or(PacketError::LimitExceeded)?;
        let rest = Reader::new(bytes);
        let units = Self { rest, next: unit, contexts: 0, end, replicas: 0, last: None };
        let mut check = units;
        while check.next()?.is_some() {}
        Ok(units)
    }

    /// Bytes that are left to walk.
    pub(super) const fn bytes(&self) -> usize {
        self.rest.remaining()
    }

    /// The next unit.
    pub(super) fn next(&mut self) -> Result<Option<Unit<'p>>, PacketError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at = self.next.checked_add(self.rest.varint()?).filter(|at| *at < self.end);
        let at = at.ok_or(PacketError::LimitExceeded)?;
        self.next = at + 1;
        let r = &mut self.rest;
        if at < self.contexts {
            return context(r).map(Unit::Context).map(Some);
        }
        match r.u8()? {
            LONE => {
                let replica = wire::checked_ref(r, &mut self.replicas)?;
                let counter = wire::counter(r, 1)?;
                let number = match replica {
                    ReplicaRef::New(_) => self.replicas - 1,
                    ReplicaRef::Known(number) => number,
                };
                self.last = Some((number, counter));
                let (key, value) = (r.bytes(MAX_KEY)?, r.bytes(MAX_BYTES)?);
                Ok(Some(Unit::Lone { replica, counter, key, value }))
            }
            NEXT => {
                let (number, last) = self.last.ok_or(PacketError::Malformed)?;
                let counter = step(last, r.varint()?).ok_or(PacketError::LimitExceeded)?;
                self.last = Some((number, counter));
                let (key, value) = (r.bytes(MAX_KEY)?, r.bytes(MAX_BYTES)?);
                Ok(Some(Unit::Lone { replica: ReplicaRef::Known(number), counter, key, value }))
            }
            ENTRY => {
                let key = r.bytes(MAX_KEY)?;
                let entry = FullEntry::read(r, &mut self.replicas)?;
                Ok(Some(Unit::Entry { key, entry }))
            }
            _ => Err(PacketError::Malformed),
        }
    }
}

/// The counter that is so far from `last`: the lowest bit says whether it is back.
fn step(last: u64, by: u64) -> Option<u64> {
    let (far, back) = (by >> 1, by & 1 == 1);
    let counter = if back { last.checked_sub(far)? } else { last.checked_add(far)? };
    Some(counter).filter(|counter| (1..=MAX_COUNTER).contains(counter))
}

/// How far `counter` is from `last`, as [`step`] takes it.
const fn step_to(last: u64, counter: u64) -> u64 {
    if counter < last { (last - counter) << 1 | 1 } else { (counter - last) << 1 }
}

fn context(r: &mut Reader<'_>) -> Result<ContextUnit, PacketError> {
    let id = wire::replica(r)?;
    let (base, floor) = (wire::counter(r, 0)?, wire::counter(r, 0)?);
    let after = wire::counter(r, 0)?;
    let count = usize::from(r.u8()?);
    if floor > base || after < base || count > UNIT_RUNS {
        return Err(PacketError::Malformed);
    }
    let (mut runs, mut end) = (SmallVec::new(), after);
    for _ in 0..count {
        let from = wire::add(end, r.varint()?, 2)?;
        end = wire::add(from, r.varint()?, 0)?;
        runs.push((from, end));
    }
    Ok(ContextUnit { id, base, floor, after, runs })
}

pub(super) fn parse_stage(mut r: Reader<'_>) -> Result<Stage<'_>, PacketError> {
    let (addressee, session, nonce) = (r.u64()?, r.u64()?, r.varint()?);
    let (contexts, total, first) = (r.varint()?, r.varint()?, r.varint()?);
    let covered = r.u32()?;
    let flags = r.u8()?;
    let end = first.checked_add(u64::from(covered)).filter(|end| *end <= total);
    let end = end.ok_or(PacketError::Malformed)?;
    if flags & !FLAG_LAST != 0 || contexts > total || total > MAX_COUNTER {
        return Err(PacketError::Malformed);
    }
    let last = flags != 0;
    let head = StageHead { addressee, session, nonce, contexts, total, first, covered, last };
    let units = Units { rest: r, next: first, contexts, end, replicas: 0, last: None };
    let mut check = units;
    while check.next()?.is_some() {}
    Ok(Stage { head, units })
}

impl ContextUnit {
    pub(super) fn write(&self, w: &mut Writer<'_>) -> Result<(), NoRoom> {
        wire::write_replica(w, self.id)?;
        w.varint(self.base)?;
        w.varint(self.floor)?;
        w.varint(self.after)?;
        w.u8(u8::try_from(self.runs.len()).map_err(|_| NoRoom)?)?;
        let mut end = self.after;
        for &(from, to) in &self.runs {
            w.varint(from - end - 2)?;
            w.varint(to - from)?;
            end = to;
        }
        Ok(())
    }
}

/// Writes the unit of an entry, after a lone value by the name of `last`, if there was one; a lone value takes its place.
pub(super) fn write_entry(
    w: &mut Writer<'_>,
    replicas: &Replicas,
    introduced: &mut Introduced,
    last: &mut Option<Packed>,
    entry: Entry<'_>,
) -> Result<(), NoRoom> {
    if let (Some(only), 0) = (entry.only(), entry.superseded().len()) {
        let (replica, counter) = (only.dot.replica(), only.dot.counter());
        if let Some(last) = last.filter(|last| last.replica() == replica) {
            w.u8(NEXT)?;
            w.varint(step_to(last.counter(), counter))?;
        } else {
            w.u8(LONE)?;
            introduced.write(w, replicas, replica)?;
            w.varint(counter)?;
        }
        w.bytes(entry.key)?;
        w.bytes(only.value)?;
        *last = Some(only.dot);
        return Ok(());
    }
    w.u8(ENTRY)?;
    w.bytes(entry.key)?;
    introduced.write_dots(w, replicas, entry)
}

/// Writes the unit of an entry that fits no datagram, the same wherever the same is known of the key.
pub(super) fn write_large_entry(
    w: &mut Writer<'_>,
    replicas: &Replicas,
    entry: Entry<'_>,
) -> Result<(), NoRoom> {
    w.u8(ENTRY)?;
    w.bytes(entry.key)?;
    Introduced::default().write_dots_in_order(w, replicas, entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    proptest! {
        /// The step between any two counters leads from one to the other.
        #[test]
        fn a_step_leads_where_it_was_to(last in 1..=MAX_COUNTER, counter in 1..=MAX_COUNTER) {
            prop_assert_eq!(step(last, step_to(last, counter)), Some(counter));
        }

        /// No step leads beyond the counters that there are.
        #[test]
        fn no_step_leads_out(last in 1..=MAX_COUNTER, by in any::<u64>()) {
            let counter = step(last, by);
            prop_assert!(counter.is_none_or(|counter| (1..=MAX_COUNTER).contains(&counter)));
            prop_assert_eq!(counter.map(|counter| step_to(last, counter)), counter.map(|_| if by == 1 { 0 } else { by }));
        }
    }

    #[test]
    fn a_step_needs_a_value_before_it() {
        let next = [0, NEXT, 2, 1, b'k', 0];
        assert!(matches!(Units::checked(&next, 0), Err(PacketError::Malformed)));
        let replica = [0; 17];
        let lone = |counter| [&[0, LONE][..], &replica, &[counter, 1, b'j', 0]].concat();
        let counters = |bytes: &[u8]| -> Result<Vec<u64>, PacketError> {
            let units = Units {
                rest: Reader::new(bytes),
                next: 0,
                contexts: 0,
                end: 9,
                replicas: 0,
                last: None,
            };
            let (mut units, mut counters) = (units, Vec::new());
            while let Some(unit) = units.next()? {
                let Unit::Lone { counter, .. } = unit else { continue };
                counters.push(counter);
            }
            Ok(counters)
        };
        assert_eq!(counters(&[lone(5), next.to_vec()].concat()), Ok(vec![5, 6]));
        let back = [0, NEXT, 9, 1, b'k', 0].to_vec();
        assert_eq!(counters(&[lone(5), back.clone()].concat()), Ok(vec![5, 1]));
        assert_eq!(counters(&[lone(4), back].concat()), Err(PacketError::LimitExceeded));
    }
}
