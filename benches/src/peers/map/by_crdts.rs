//! crdts 7: a map of multi-value registers, as Riak's. By operations (delivered once and in causal
//! order, which the user must see to) and by merging states.

use crdts::{CmRDT as _, CvRDT as _, MVReg, Map};

use crate::map::{BATCH, DELTA, KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};
use crate::peers::map::changes;

type Register = MVReg<Vec<u8>, u64>;
type Replica = Map<Vec<u8>, Register, u64>;
type Op = crdts::map::Op<Vec<u8>, Register, u64>;

fn write<const LEN: usize>(map: &mut Replica, at: u32, version: u32) -> Op {
    let context = map.read_ctx().derive_add_ctx(1);
    let value = value(at, version).to_vec();
    let op = map.update(key::<LEN>(at).to_vec(), context, |register, context| {
        register.write(value, context)
    });
    map.apply(op.clone());
    op
}

fn filled<const LEN: usize>(n: u32) -> Replica {
    let mut map = Replica::new();
    for at in 0..n {
        write::<LEN>(&mut map, at, 0);
    }
    map
}

fn operations(map: &mut Replica, n: u32, count: usize, version: u32) -> Vec<Op> {
    changes(n, count, version).map(|at| write::<KEY>(map, at, version)).collect()
}

pub(super) fn insertion(n: u32) -> Entrant {
    Entrant::new("crdts", move |watch| {
        let mut map = Replica::new();
        watch.time(u64::from(n), || {
            for at in 0..n {
                write::<KEY>(&mut map, at, 0);
            }
        });
    })
}

pub(super) fn applying(n: u32) -> Entrant {
    let mut writer = filled::<KEY>(n);
    let (mut reader, mut version) = (writer.clone(), 0);
    Entrant::new("crdts, operations", move |watch| {
        let mut batch: Vec<Vec<Op>> = (0..BATCH)
            .map(|_| {
                version += 1;
                operations(&mut writer, n, DELTA, version)
            })
            .collect();
        let cold = batch.remove(0);
        cold.into_iter().for_each(|op| reader.apply(op));
        watch.time(batch.len() as u64, || {
            batch.into_iter().flatten().for_each(|op| reader.apply(op));
        });
    })
}

/// States, because the clock of this map has no gaps: a part of a state would tell that the rest of it
/// was removed.
pub(super) fn merging(n: u32) -> Entrant {
    let mut writer = filled::<KEY>(n);
    let (mut reader, mut version) = (writer.clone(), 0);
    Entrant::new("crdts, states", move |watch| {
        version += 1;
        operations(&mut writer, n, DELTA, version);
        let state = writer.clone();
        watch.time(1, || reader.merge(state));
        assert_eq!(reader.len().val, n as usize);
    })
}

pub(super) fn encoding(n: u32, changed: usize) -> Entrant {
    let (mut writer, mut version) = (filled::<KEY>(n), 0);
    Entrant::new("crdts, operations by postcard", move |watch| {
        version += 1;
        let ops = operations(&mut writer, n, changed, version);
        watch.time(1, || postcard::to_allocvec(&ops).expect("it has a form"));
    })
}

pub(super) fn decoding(n: u32, changed: usize) -> Entrant {
    let mut writer = filled::<KEY>(n);
    let (mut reader, mut version) = (writer.clone(), 0);
    Entrant::new("crdts, operations by postcard", move |watch| {
        version += 1;
        let ops = operations(&mut writer, n, changed, version);
        let bytes = postcard::to_allocvec(&ops).expect("it has a form");
        watch.time(1, || {
            let ops: Vec<Op> = postcard::from_bytes(&bytes).expect("as it was encoded");
            ops.into_iter().for_each(|op| reader.apply(op));
        });
    })
}

pub(super) fn bytes(n: u32, changed: usize) -> Outcome {
    let ops = operations(&mut filled::<KEY>(n), n, changed, 1);
    let bytes = postcard::to_allocvec(&ops).expect("it has a form");
    Outcome::counted("crdts, operations by postcard", bytes.len() as f64)
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("crdts", overhead(n, || filled::<SHORT_KEY>(n)))
}
