//! automerge 0.12: the root map of a document; one transaction per write, as an application writes.
//! Where that makes a difference, with all writes in one transaction too, its cheapest form.

use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ChangeHash, ROOT};

use crate::map::{DELTA, KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};
use crate::peers::map::changes;

fn empty() -> Automerge {
    Automerge::new().with_actor(ActorId::from([1; 16].as_slice()))
}

/// Overwrites keys in one transaction.
fn write<const LEN: usize>(doc: &mut Automerge, keys: impl Iterator<Item = u32>, version: u32) {
    let mut transaction = doc.transaction();
    for at in keys {
        let key = key::<LEN>(at);
        let key = std::str::from_utf8(&key).expect("keys are ASCII");
        transaction.put(ROOT, key, value(at, version).to_vec()).expect("the root is a map");
    }
    transaction.commit();
}

/// Writes `n` keys, so many of them in a transaction.
fn fill<const LEN: usize>(doc: &mut Automerge, n: u32, together: u32) {
    for start in (0..n).step_by(together as usize) {
        write::<LEN>(doc, start..n.min(start + together), 0);
    }
}

fn filled<const LEN: usize>(n: u32, together: u32) -> Automerge {
    let mut doc = empty();
    fill::<LEN>(&mut doc, n, together);
    doc
}

/// Overwrites `count` keys in one transaction, and returns the heads of before.
fn overwrite(doc: &mut Automerge, n: u32, count: usize, version: u32) -> Vec<ChangeHash> {
    let heads = doc.get_heads();
    write::<KEY>(doc, changes(n, count, version), version);
    heads
}

fn merge(doc: &mut Automerge, update: &[u8]) {
    doc.load_incremental(update).expect("as it was encoded");
}

pub(super) fn insertion(n: u32) -> Entrant {
    inserting("automerge", n, 1)
}

pub(super) fn insertion_at_once(n: u32) -> Entrant {
    inserting("automerge, one transaction", n, n)
}

fn inserting(name: &'static str, n: u32, together: u32) -> Entrant {
    Entrant::new(name, move |watch| {
        let mut doc = empty();
        watch.time(u64::from(n), || fill::<KEY>(&mut doc, n, together));
    })
}

/// One merge at a time, since each walks over all keys between the first and the last that it changes. In
/// ten transactions the ten keys take as long when they are merged together, and five times as long one
/// by one.
pub(super) fn merging(n: u32) -> Entrant {
    let mut writer = filled::<KEY>(n, 1);
    let (mut reader, mut version) = (writer.fork(), 0);
    Entrant::new("automerge", move |watch| {
        version += 1;
        let heads = overwrite(&mut writer, n, DELTA, version);
        let update = writer.save_after(&heads);
        watch.time(1, || merge(&mut reader, &update));
        assert_eq!(reader.get_heads(), writer.get_heads());
    })
}

/// With a document that is copied anew for every operation, since what was overwritten piles up in it.
pub(super) fn encoding(n: u32, changed: usize) -> Entrant {
    let base = filled::<KEY>(n, 1);
    Entrant::new("automerge", move |watch| {
        let mut writer = base.fork();
        let heads = overwrite(&mut writer, n, changed, 1);
        watch.time(1, || writer.save_after(&heads));
    })
}

/// As for encoding.
pub(super) fn decoding(n: u32, changed: usize) -> Entrant {
    let base = filled::<KEY>(n, 1);
    Entrant::new("automerge", move |watch| {
        let (mut writer, mut reader) = (base.fork(), base.fork());
        let heads = overwrite(&mut writer, n, changed, 1);
        let update = writer.save_after(&heads);
        watch.time(1, || merge(&mut reader, &update));
        assert_eq!(reader.get_heads(), writer.get_heads());
    })
}

pub(super) fn bytes(n: u32, changed: usize) -> Outcome {
    let mut writer = filled::<KEY>(n, 1);
    let heads = overwrite(&mut writer, n, changed, 1);
    Outcome::counted("automerge", writer.save_after(&heads).len() as f64)
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("automerge", overhead(n, || filled::<SHORT_KEY>(n, 1)))
}

pub(super) fn heap_at_once(n: u32) -> Outcome {
    Outcome::counted("automerge, one transaction", overhead(n, || filled::<SHORT_KEY>(n, n)))
}
