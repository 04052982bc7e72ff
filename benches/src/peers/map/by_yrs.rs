//! yrs 0.28: a shared map in a document; one transaction per write, as an application writes.

use std::sync::Arc;

use yrs::updates::decoder::Decode as _;
use yrs::{Any, Doc, Map as _, MapRef, ReadTxn as _, StateVector, Transact as _, Update};

use crate::map::{BATCH, DELTA, KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};
use crate::peers::map::changes;

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
        let (key, value) = entry::<LEN>(at, version);
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

    /// Overwrites `count` keys in one transaction, and returns the update of just that.
    fn overwrite(&self, n: u32, count: usize, version: u32) -> Vec<u8> {
        let mut transaction = self.doc.transact_mut();
        for at in changes(n, count, version) {
            let (key, value) = entry::<KEY>(at, version);
            self.map.insert(&mut transaction, key, value);
        }
        transaction.encode_update_v1()
    }
}

fn entry<const LEN: usize>(at: u32, version: u32) -> (Arc<str>, Any) {
    let key = std::str::from_utf8(&key::<LEN>(at)).expect("keys are ASCII").into();
    (key, Any::Buffer(Arc::new(value(at, version))))
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

/// The update of one transaction is as long after a thousand others as after none; what a state vector
/// asks for has the deletions of all times in it.
pub(super) fn merging(n: u32) -> Entrant {
    let writer = Replica::filled::<KEY>(1, n);
    let (reader, mut version) = (writer.twin(), 0);
    let first = writer.overwrite(n, DELTA, 0);
    reader.merge(&first);
    Entrant::new("yrs", move |watch| {
        let updates: Vec<_> = (0..BATCH)
            .map(|_| {
                version += 1;
                writer.overwrite(n, DELTA, version)
            })
            .collect();
        assert!(updates.iter().all(|update| update.len() < 2 * first.len()), "updates grow");
        let (cold, warm) = updates.split_first().expect("a batch is not empty");
        reader.merge(cold);
        watch.time(warm.len() as u64, || warm.iter().for_each(|update| reader.merge(update)));
    })
}

/// A writer who changed what is asked for, one who asks, and what that one has.
fn behind(base: &[u8], n: u32, changed: usize) -> (Replica, Replica, StateVector) {
    let (writer, reader) = (Replica::new(3), Replica::new(2));
    writer.merge(base);
    reader.merge(base);
    let state = reader.state();
    writer.overwrite(n, changed, 1);
    (writer, reader, state)
}

fn base(n: u32) -> Vec<u8> {
    Replica::filled::<KEY>(1, n).changes_since(&StateVector::default())
}

/// With documents that are made anew for every operation, since deletions pile up in them.
pub(super) fn encoding(n: u32, changed: usize) -> Entrant {
    let base = base(n);
    Entrant::new("yrs", move |watch| {
        let (writer, _, state) = behind(&base, n, changed);
        watch.time(1, || writer.changes_since(&state));
    })
}

/// As for encoding.
pub(super) fn decoding(n: u32, changed: usize) -> Entrant {
    let base = base(n);
    Entrant::new("yrs", move |watch| {
        let (writer, reader, state) = behind(&base, n, changed);
        let update = writer.changes_since(&state);
        watch.time(1, || reader.merge(&update));
        assert_eq!(reader.state(), writer.state());
    })
}

pub(super) fn bytes(n: u32, changed: usize) -> Outcome {
    let (writer, _, state) = behind(&base(n), n, changed);
    Outcome::counted("yrs", writer.changes_since(&state).len() as f64)
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("yrs", overhead(n, || Replica::filled::<SHORT_KEY>(1, n)))
}
