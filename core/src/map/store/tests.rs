use alloc::string::String;

use proptest::prelude::*;

use super::super::chunk;
use super::*;
use crate::NodeId;
use crate::hash;
use crate::hrw;
use crate::map::ReplicaId;
use crate::rng::Rng;

/// What may happen to the entry of a key.
#[derive(Debug, Clone)]
enum Act {
    /// A write of this replica, or a removal, that supersedes all values or none.
    Write { len: Option<usize>, all: bool },
    /// Others tell of values of theirs, by replica, write and length, and of what they superseded.
    Join { told: Vec<(u16, u64, usize)>, superseded: Vec<(u16, u64)>, all: bool },
    /// Everybody has everything.
    Settle,
}

fn act() -> impl Strategy<Value = Act> {
    let told = proptest::collection::vec((1..4_u16, 1..9_u64, 0..120_usize), 0..3);
    let superseded = proptest::collection::vec((0..4_u16, 1..9_u64), 0..3);
    prop_oneof![
        3 => (proptest::option::of(0..400_usize), any::<bool>())
            .prop_map(|(len, all)| Act::Write { len, all }),
        5 => (told, superseded, any::<bool>())
            .prop_map(|(told, superseded, all)| Act::Join { told, superseded, all }),
        1 => Just(Act::Settle),
    ]
}

/// Keys, bytes, live keys, large keys, digest and marks, counted anew.
fn counted(store: &Store, replicas: &Replicas) -> (usize, usize, usize, usize, u64, usize) {
    let (mut keys, mut bytes, mut live, mut large) = (0, 0, 0, 0);
    let (mut digest, mut marks) = (0_u64, 0);
    for entry in store.entries().filter(|entry| !entry.key.is_empty()) {
        keys += 1;
        bytes += entry.key.len();
        live += usize::from(!entry.is_removed());
        marks += entry.superseded().len();
        for sibling in entry.siblings() {
            bytes += sibling.value.len();
            let hash = hash::mix2(hrw::key_hash(entry.key), replicas.hash(sibling.dot));
            digest = digest.wrapping_add(hash);
        }
        let several = entry.siblings().len() > 1;
        large += usize::from(several && chunk::encoded_len(entry, None, |_| false) > 500);
    }
    (keys, bytes, live, large, digest, marks)
}

proptest! {
    /// The sums that are kept in step are those that would be counted anew, whatever happens to the entries.
    #[test]
    fn sums_are_those_of_the_entries(acts in proptest::collection::vec((0..6_u8, act()), 0..60)) {
        let id = |node| ReplicaId::new(NodeId(node), 1);
        let mut replicas = Replicas::new(id(1), 10, 100);
        for node in 2..5 {
            replicas.intern(id(node));
        }
        let mut store = Store::new(Secret::new(&mut Rng::fork(&[7; 32], 1)), 500);
        let mut written = 0;
        for (key, act) in acts {
            let key = alloc::vec![key + 1; 3 + usize::from(key)];
            match act {
                Act::Write { len, all } => {
                    let slot = store.slot_or_insert(&key);
                    written += 1;
                    let (dot, value) = (Packed::new(0, written), len.map(|len| alloc::vec![7; len]));
                    store.write(&replicas, slot, dot, value.as_deref(), |_| all);
                    replicas.claim(dot, slot);
                }
                Act::Join { told, superseded, all } => {
                    let slot = store.slot_or_insert(&key);
                    let values: Vec<_> = told
                        .into_iter()
                        // A dot is about one key.
                        .map(|(replica, n, len)| (Packed::new(replica, n * 10 + u64::from(key[0])), alloc::vec![8; len]))
                        .collect();
                    let siblings: Vec<_> = values.iter().map(|(dot, value)| (*dot, &value[..])).collect();
                    let superseded: Vec<_> = superseded
                        .into_iter()
                        .map(|(replica, n)| Packed::new(replica, n * 10 + u64::from(key[0])))
                        .filter(|dot| dot.replica() > 0 || dot.counter() <= written)
                        .collect();
                    let told = Told { siblings: &siblings, superseded: &superseded };
                    store.join(&replicas, slot, told, |dot| all || told.reflects(dot));
                    for (dot, _) in siblings {
                        replicas.claim(dot, slot);
                    }
                }
                Act::Settle => {
                    (0..4).for_each(|replica| replicas.adopt(replica, 1, if replica == 0 { written } else { 100 }));
                    (0..4).for_each(|replica| replicas.raise_floor(replica, u64::MAX));
                    for slot in 0..store.slots() {
                        if !store.entry(slot).key.is_empty() {
                            store.tidy(&replicas, slot);
                        }
                    }
                    prop_assert_eq!(store.keys(), store.live(), "removed keys are gone");
                    prop_assert_eq!(store.marks(), 0);
                    while store.rest() {}
                }
            }
            let sums = (store.keys(), store.bytes(), store.live(), store.large(), store.digest(), store.marks());
            prop_assert_eq!(sums, counted(&store, &replicas));
        }
    }

    /// Keys that are removed and settled leave nothing; the others are found under their new numbers. At rest it is enough
    /// that some are free.
    #[test]
    fn slots_are_numbered_anew_when_most_are_free(
        kept in proptest::collection::btree_set(0..150_u64, 0..100),
        rests in any::<bool>(),
    ) {
        let me = ReplicaId::new(NodeId(1), 1);
        let mut replicas = Replicas::new(me, 10, 10);
        let mut store = Store::new(Secret::new(&mut Rng::fork(&[7; 32], 1)), 1_400).ordered();
        let name = |key: u64| -> String { alloc::format!("key {key}") };
        let mut counter = 0;
        let mut write = |store: &mut Store, replicas: &mut Replicas, key: u64, value| {
            counter += 1;
            let slot = store.slot_or_insert(name(key).as_bytes());
            let dot = Packed::new(0, counter);
            store.write(replicas, slot, dot, value, |_| true);
            replicas.claim(dot, slot);
        };
        (0..150).for_each(|key| write(&mut store, &mut replicas, key, Some(b"v")));
        let gone = (0..150).filter(|key| !kept.contains(key));
        gone.for_each(|key| write(&mut store, &mut replicas, key, None));
        replicas.raise_floor(0, replicas.base(0));
        while let Some(slot) = replicas.unlog_one(0) {
            store.tidy(&replicas, slot);
        }
        prop_assert_eq!((store.keys(), store.marks()), (kept.len(), 0));
        let (bytes, digest) = (store.bytes(), store.digest());
        if rests {
            while store.rest() {}
            prop_assert!(store.index.bytes() <= kept.len() * 12 + 400, "{} for {}", store.index.bytes(), kept.len());
            prop_assert!(store.free.capacity() <= SPARE.max(kept.len() / 4) + SPARE && store.more.capacity() <= SPARE);
        } else {
            store.shrink();
        }
        prop_assert_eq!((store.bytes(), store.digest(), store.live()), (bytes, digest, kept.len()));
        let free = if rests { kept.len() / 4 } else { kept.len() };
        let slots = if 150 - kept.len() >= free.max(SPARE) { kept.len() } else { 150 };
        prop_assert_eq!(store.slots() as usize, slots);
        let mut names: Vec<String> = kept.iter().map(|key| name(*key)).collect();
        names.sort_unstable();
        let told = store.prefix(b"key 1").map(|entry| entry.key);
        let sorted = names.iter().filter(|name| name.starts_with("key 1"));
        prop_assert!(told.eq(sorted.map(|name| name.as_bytes())));
        for key in 0..150 {
            let found = store.slot(name(key).as_bytes());
            prop_assert_eq!(found.is_some(), kept.contains(&key));
            if let Some(slot) = found {
                prop_assert!(*store.entry(slot).key == *name(key).as_bytes());
            }
        }
        write(&mut store, &mut replicas, 200, Some(b"v"));
        prop_assert!(store.slot(name(200).as_bytes()).is_some());
    }
}

/// Values that together can be told, to the last byte, are not large.
#[test]
fn what_just_fits_is_not_large() {
    let large = |limit| {
        let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 10);
        replicas.intern(ReplicaId::new(NodeId(2), 1));
        let mut store = Store::new(Secret::new(&mut Rng::fork(&[7; 32], 1)), limit);
        let slot = store.slot_or_insert(b"key");
        store.write(&replicas, slot, Packed::new(0, 1), Some(b"one"), |_| true);
        let told = Told { siblings: &[(Packed::new(1, 1), b"other")], superseded: &[] };
        store.join(&replicas, slot, told, |_| false);
        (chunk::encoded_len(store.entry(slot), None, |_| false), store.large())
    };
    let (len, _) = large(1_000);
    assert_eq!((large(len).1, large(len - 1).1), (0, 1));
}
