//! dson 0.3: an observed-remove map of multi-value registers. A write makes a delta, which its writer
//! joins as all others do, and a join copies the whole map.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use dson::crdts::mvreg::MvRegValue;
use dson::crdts::{NoExtensionTypes, TypeVariantValue};
use dson::sentinel::DummySentinel;
use dson::{CausalContext, CausalDotStore, Dot, DotFun, DotStore as _, Identifier, MvReg, OrMap};

use crate::map::{DELTA, KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};
use crate::peers::map::changes;

type Replica = CausalDotStore<OrMap<String>>;

/// Most keys of C1: each insert copies all that are there.
const MOST_INSERTED: u32 = 1_000;

fn writer() -> Identifier {
    Identifier::new(1, 0)
}

fn text<const LEN: usize>(at: u32) -> String {
    String::from_utf8(key::<LEN>(at).to_vec()).expect("keys are ASCII")
}

fn bytes_of(at: u32, version: u32) -> MvRegValue {
    MvRegValue::Bytes(value(at, version).to_vec())
}

/// The delta of one write, after all that `context` tells of. Not by the crate's transactions, which copy
/// the map once more, so that they can be taken back.
fn written<const LEN: usize>(
    map: &OrMap<String>,
    context: &CausalContext,
    at: u32,
    version: u32,
) -> Replica {
    map.apply_to_register(
        |register, context, id| register.write(bytes_of(at, version), context, id),
        text::<LEN>(at),
        context,
        writer(),
    )
}

fn join(replica: &mut Replica, delta: Replica) {
    let Ok(()) = replica.consume(delta, &mut DummySentinel);
}

fn insert<const LEN: usize>(replica: &mut Replica, at: u32) {
    let delta = written::<LEN>(&replica.store, &replica.context, at, 0);
    join(replica, delta);
}

/// What `n` inserts make, in linear time.
fn filled<const LEN: usize>(n: u32) -> Replica {
    let entry = |at| {
        let mut dots = DotFun::default();
        dots.set(Dot::mint(writer(), u64::from(at) + 1), bytes_of(at, 0));
        let reg = MvReg(dots);
        (text::<LEN>(at), TypeVariantValue::<NoExtensionTypes> { reg, ..Default::default() })
    };
    let all = [(NonZeroU64::MIN, NonZeroU64::new(n.into()))];
    let context = CausalContext::from_intervals([(writer(), all)]).expect("one interval");
    let mut replica = Replica { store: (0..n).map(entry).collect(), context };
    // Makes what the map keeps of the dots of each entry.
    join(&mut replica, Replica::new());
    replica
}

/// The delta of `count` writes, which the writer still has to join.
fn overwritten(replica: &Replica, n: u32, count: usize, version: u32) -> Replica {
    let mut context = replica.context.clone();
    let mut deltas: VecDeque<Replica> = changes(n, count, version)
        .map(|at| {
            let delta = written::<KEY>(&replica.store, &context, at, version);
            context.union(&delta.context);
            delta
        })
        .collect();
    // In pairs, since a join takes as long as the larger side is.
    while deltas.len() > 1 {
        let mut first = deltas.pop_front().expect("two are left");
        join(&mut first, deltas.pop_front().expect("two are left"));
        deltas.push_back(first);
    }
    deltas.pop_front().expect("something is written")
}

fn encode(delta: &Replica) -> Vec<u8> {
    rmp_serde::to_vec(delta).expect("it has a form")
}

pub(super) fn insertion(n: u32) -> Entrant {
    let n = n.min(MOST_INSERTED);
    Entrant::new(format!("dson, up to {n} keys"), move |watch| {
        let mut replica = Replica::new();
        watch.time(u64::from(n), || {
            for at in 0..n {
                insert::<KEY>(&mut replica, at);
            }
        });
    })
}

pub(super) fn merging(n: u32) -> Entrant {
    let mut writer = filled::<KEY>(n);
    let (mut reader, mut version) = (writer.clone(), 0);
    Entrant::new("dson", move |watch| {
        version += 1;
        let delta = overwritten(&writer, n, DELTA, version);
        join(&mut writer, delta.clone());
        watch.time(1, || join(&mut reader, delta));
        assert_eq!(reader.context, writer.context);
    })
}

/// Of a delta that was kept since it was written. The writer does not join it here, which takes hundreds
/// of times as long as encoding it.
pub(super) fn encoding(n: u32, changed: usize) -> Entrant {
    let (writer, mut version) = (filled::<KEY>(n), 0);
    Entrant::new("dson, kept delta by MessagePack", move |watch| {
        version += 1;
        let delta = overwritten(&writer, n, changed, version);
        watch.time(1, || encode(&delta));
    })
}

/// Of what a causal context lacks. That does not tell which values were overwritten, so the dots of
/// these are kept by the caller.
pub(super) fn extracting(n: u32, changed: usize) -> Entrant {
    let (mut writer, mut version) = (filled::<KEY>(n), 0);
    Entrant::new("dson, by context and MessagePack", move |watch| {
        version += 1;
        let frontier = writer.context.clone();
        let delta = overwritten(&writer, n, changed, version);
        let gone = &delta.context - &delta.store.dots();
        join(&mut writer, delta.clone());
        let extracted = watch.time(1, || {
            let mut extracted = writer.subset_for_inflation_from(&frontier);
            extracted.context.union(&gone);
            encode(&extracted);
            extracted
        });
        assert!(extracted == delta, "what is extracted is not what was written");
    })
}

pub(super) fn decoding(n: u32, changed: usize) -> Entrant {
    let mut writer = filled::<KEY>(n);
    let (mut reader, mut version) = (writer.clone(), 0);
    Entrant::new("dson, deltas by MessagePack", move |watch| {
        version += 1;
        let delta = overwritten(&writer, n, changed, version);
        let bytes = encode(&delta);
        join(&mut writer, delta);
        watch.time(1, || {
            let delta = rmp_serde::from_slice(&bytes).expect("as it was encoded");
            join(&mut reader, delta);
        });
        assert_eq!(reader.context, writer.context);
    })
}

pub(super) fn bytes(n: u32, changed: usize) -> Outcome {
    let delta = overwritten(&filled::<KEY>(n), n, changed, 1);
    Outcome::counted("dson, deltas by MessagePack", encode(&delta).len() as f64)
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("dson", overhead(n, || filled::<SHORT_KEY>(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_is_filled_is_one_that_was_written() {
        let mut written = Replica::new();
        (0..100).for_each(|at| insert::<KEY>(&mut written, at));
        assert!(written == filled::<KEY>(100));
    }
}
