//! loro 1.17: a map in a document; one commit per write, as an application writes.

use loro::{ExportMode, LoroDoc, LoroMap, VersionVector};

use crate::map::{BATCH, DELTA, KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};
use crate::peers::map::changes;

struct Replica {
    doc: LoroDoc,
    map: LoroMap,
}

impl Replica {
    fn new(id: u64) -> Self {
        let doc = LoroDoc::new();
        doc.set_peer_id(id).expect("nothing is written yet");
        let map = doc.get_map("map");
        Self { doc, map }
    }

    fn filled<const LEN: usize>(n: u32) -> Self {
        let replica = Self::new(1);
        replica.fill::<LEN>(n);
        replica
    }

    fn fill<const LEN: usize>(&self, n: u32) {
        for at in 0..n {
            self.write::<LEN>(at, 0);
            self.doc.commit();
        }
    }

    fn write<const LEN: usize>(&self, at: u32, version: u32) {
        let key = key::<LEN>(at);
        let key = std::str::from_utf8(&key).expect("keys are ASCII");
        self.map.insert(key, value(at, version).as_slice()).expect("the map is attached");
    }

    /// Overwrites `count` keys in one commit, and returns the version of before.
    fn overwrite(&self, n: u32, count: usize, version: u32) -> VersionVector {
        let before = self.doc.oplog_vv();
        changes(n, count, version).for_each(|at| self.write::<KEY>(at, version));
        self.doc.commit();
        before
    }

    fn changes_since(&self, version: &VersionVector) -> Vec<u8> {
        self.doc.export(ExportMode::updates(version)).expect("no history is left out")
    }

    fn merge(&self, update: &[u8]) {
        self.doc.import(update).expect("as it was encoded");
    }

    /// A replica in step with this one.
    fn twin(&self) -> Self {
        let twin = Self::new(2);
        twin.merge(&self.changes_since(&VersionVector::default()));
        twin
    }
}

pub(super) fn insertion(n: u32) -> Entrant {
    Entrant::new("loro", move |watch| {
        let replica = Replica::new(1);
        watch.time(u64::from(n), || replica.fill::<KEY>(n));
    })
}

pub(super) fn merging(n: u32) -> Entrant {
    let writer = Replica::filled::<KEY>(n);
    let (reader, mut version) = (writer.twin(), 0);
    Entrant::new("loro", move |watch| {
        let updates: Vec<_> = (0..BATCH)
            .map(|_| {
                version += 1;
                let before = writer.overwrite(n, DELTA, version);
                writer.changes_since(&before)
            })
            .collect();
        let (cold, warm) = updates.split_first().expect("a batch is not empty");
        reader.merge(cold);
        watch.time(warm.len() as u64, || warm.iter().for_each(|update| reader.merge(update)));
        assert_eq!(reader.doc.oplog_vv(), writer.doc.oplog_vv());
    })
}

pub(super) fn encoding(n: u32, changed: usize) -> Entrant {
    let (writer, mut version) = (Replica::filled::<KEY>(n), 0);
    Entrant::new("loro", move |watch| {
        version += 1;
        let before = writer.overwrite(n, changed, version);
        watch.time(1, || writer.changes_since(&before));
    })
}

pub(super) fn decoding(n: u32, changed: usize) -> Entrant {
    let writer = Replica::filled::<KEY>(n);
    let (reader, mut version) = (writer.twin(), 0);
    Entrant::new("loro", move |watch| {
        version += 1;
        let before = writer.overwrite(n, changed, version);
        let update = writer.changes_since(&before);
        watch.time(1, || reader.merge(&update));
        assert_eq!(reader.doc.oplog_vv(), writer.doc.oplog_vv());
    })
}

pub(super) fn bytes(n: u32, changed: usize) -> Outcome {
    let writer = Replica::filled::<KEY>(n);
    let before = writer.overwrite(n, changed, 1);
    Outcome::counted("loro", writer.changes_since(&before).len() as f64)
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("loro", overhead(n, || Replica::filled::<SHORT_KEY>(n)))
}
