//! yrs 0.28: a shared map in a document; one transaction per write, as an application writes.

use std::sync::Arc;

use yrs::updates::decoder::Decode as _;
use yrs::{Any, Doc, Map as _, MapRef, ReadTxn as _, StateVector, Transact as _, Update};

use crate::map::{DELTA, KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};

struct Replica {
    doc: Doc,
    map: MapRef,
}

impl Replica {
    fn new(id: u64) -> Self {
        let doc = Doc::with_client_id(id);
        let map = doc.get_or_insert_map("map");
        Self { doc, map }
    }

    fn filled<const LEN: usize>(id: u64, n: u32) -> Self {
        let replica = Self::new(id);
        for at in 0..n {
            replica.write::<LEN>(at, 0);
        }
        replica
    }

    fn write<const LEN: usize>(&self, at: u32, version: u32) {
        let key: Arc<str> = std::str::from_utf8(&key::<LEN>(at)).expect("keys are ASCII").into();
        let value = Any::Buffer(Arc::new(value(at, version)));
        self.map.insert(&mut self.doc.transact_mut(), key, value);
    }

    fn state(&self) -> StateVector {
        self.doc.transact().state_vector()
    }

    fn changes_since(&self, state: &StateVector) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(state)
    }

    fn merge(&self, update: &[u8]) {
        let update = Update::decode_v1(update).expect("as it was encoded");
        self.doc.transact_mut().apply_update(update).expect("nothing is missing");
    }

    /// A replica in step with this one.
    fn twin(&self) -> Self {
        let twin = Self::new(2);
        twin.merge(&self.changes_since(&StateVector::default()));
        twin
    }

    fn overwrite(&self, n: u32, count: usize, version: u32) {
        for at in 0..count as u32 {
            self.write::<KEY>((version * 31 + at * 7_919) % n, version);
        }
    }
}

pub(super) fn insertion(n: u32) -> Entrant {
    Entrant::new("yrs", move |watch| {
        let replica = Replica::new(1);
        watch.time(u64::from(n), || {
            for at in 0..n {
                replica.write::<KEY>(at, 0);
            }
        });
    })
}

pub(super) fn merging(n: u32) -> Entrant {
    decoded("yrs", n, DELTA)
}

pub(super) fn encoding(n: u32, changed: usize) -> Entrant {
    let writer = Replica::filled::<KEY>(1, n);
    let mut version = 0;
    Entrant::new("yrs", move |watch| {
        version += 1;
        let state = writer.state();
        writer.overwrite(n, changed, version);
        watch.time(1, || writer.changes_since(&state));
    })
}

pub(super) fn decoding(n: u32, changed: usize) -> Entrant {
    decoded("yrs", n, changed)
}

fn decoded(name: &str, n: u32, changed: usize) -> Entrant {
    let writer = Replica::filled::<KEY>(1, n);
    let (reader, mut version) = (writer.twin(), 0);
    Entrant::new(name, move |watch| {
        version += 1;
        let state = writer.state();
        writer.overwrite(n, changed, version);
        let update = writer.changes_since(&state);
        watch.time(1, || reader.merge(&update));
    })
}

pub(super) fn bytes(n: u32, changed: usize) -> Outcome {
    let writer = Replica::filled::<KEY>(1, n);
    let state = writer.state();
    writer.overwrite(n, changed, 1);
    Outcome::counted("yrs", writer.changes_since(&state).len() as f64)
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("yrs", overhead(n, || Replica::filled::<SHORT_KEY>(1, n)))
}
