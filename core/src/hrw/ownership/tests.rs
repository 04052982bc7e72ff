use alloc::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::hrw::key_hash;
use proptest::prelude::*;

const ME: NodeId = NodeId(3);

#[derive(Debug, Clone, Copy)]
enum Step {
    Join(u64, u32),
    Leave(u64),
    Weigh(u64, u32),
    Track(u64),
    Forget(u32),
    Poll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Two of them have all that decides of a score in common.
    let node = prop_oneof![6 => 0..10_u64, 1 => Just(65_336), 1 => Just(81_207)];
    let weight = prop_oneof![Just(1_u32), 1..5_u32, 1..=u32::MAX];
    let step = prop_oneof![
        4 => (node.clone(), weight.clone()).prop_map(|(node, weight)| Step::Join(node, weight)),
        2 => node.clone().prop_map(Step::Leave),
        2 => (node, weight).prop_map(|(node, weight)| Step::Weigh(node, weight)),
        4 => (0..1_000_u64).prop_map(Step::Track),
        2 => (0..40_u32).prop_map(Step::Forget),
        1 => Just(Step::Poll),
    ];
    proptest::collection::vec(step, 1..120)
}

fn weight(weight: u32) -> NonZeroU32 {
    NonZeroU32::new(weight).unwrap()
}

/// The keys that this node has, by what it was told alone.
fn hear(table: &mut Ownership, mine: &mut BTreeSet<u32>) {
    while let Some(told) = table.poll() {
        let news = match told {
            Owned::Gained(key) => mine.insert(key),
            Owned::Lost(key) => mine.remove(&key),
        };
        assert!(news, "{told:?} is told twice");
    }
}

proptest! {
    /// Goal: the table is what a full look at all nodes gives, and what is told adds up to it, whatever came before.
    /// Method: any sequence of changes, each followed by that look.
    #[test]
    fn the_table_equals_a_full_recompute(steps in steps(), depth in 1..5_usize, weighed in any::<bool>()) {
        let (mut table, mut view) = (Ownership::new(ME, depth), View::default());
        let (mut keys, mut mine) = (BTreeMap::new(), BTreeSet::new());
        for step in steps {
            let by = |of: u32| if weighed { weight(of) } else { NonZeroU32::MIN };
            match step {
                Step::Join(node, of) => {
                    let node = NodeId(node);
                    prop_assert_eq!(table.join(node, by(of)), view.insert_weighted(node, by(of)));
                }
                Step::Leave(node) => prop_assert_eq!(table.leave(NodeId(node)), view.remove(NodeId(node))),
                Step::Weigh(node, of) => {
                    let had = view.set_weight(NodeId(node), by(of));
                    prop_assert_eq!(table.set_weight(NodeId(node), by(of)), had.is_some());
                }
                Step::Track(hash) => {
                    let hash = key_hash(&hash.to_be_bytes());
                    prop_assert_eq!(keys.insert(table.track(hash), hash), None);
                }
                Step::Forget(key) => prop_assert_eq!(table.forget(key), keys.remove(&key).is_some()),
                Step::Poll => hear(&mut table, &mut mine),
            }
            prop_assert_eq!(table.view(), &view);
            for (&key, &hash) in &keys {
                let mut all = [NodeId(0); 5];
                prop_assert_eq!(table.owners(key), view.owners(hash, &mut all[..depth]));
                prop_assert_eq!(table.owner(key), view.owner(hash));
            }
        }
        hear(&mut table, &mut mine);
        let owned: BTreeSet<u32> = keys.keys().copied().filter(|key| table.is_mine(*key)).collect();
        prop_assert_eq!(mine, owned);
        prop_assert!((0..200).all(|key| keys.contains_key(&key) || table.owner(key).is_none()));
    }
}

/// Goal: a leave scores anew only what the leaver had, a join scores one node per key, and no more is told than changed. Method: a
/// datacenter of 64 with 50,000 keys.
#[test]
fn only_what_must_is_scored() {
    let mut table = Ownership::new(NodeId(0), 1);
    (0..64).for_each(|node| assert!(table.join(NodeId(node), NonZeroU32::MIN)));
    let keys: Vec<_> =
        (0..50_000_u32).map(|key| table.track(key_hash(&key.to_be_bytes()))).collect();
    let had = keys.iter().filter(|key| table.owner(**key) == Some(NodeId(7))).count();
    let mut mine = BTreeSet::new();
    hear(&mut table, &mut mine);
    let before = table.work();
    assert!(table.leave(NodeId(7)));
    assert_eq!(table.work(), Work { rescored: before.rescored + had as u64, ..before });
    // Binomial with mean 781 and sigma 27.7.
    assert!((640..920).contains(&had), "{had}");
    let gained = core::iter::from_fn(|| table.poll())
        .inspect(|told| assert!(matches!(told, Owned::Gained(_))))
        .count();
    assert!((1..40).contains(&gained), "{gained} of {had}");
    let before = table.work();
    assert!(table.join(NodeId(7), NonZeroU32::MIN));
    assert_eq!(table.work(), Work { compared: before.compared + 50_000, ..before });
    let lost = core::iter::from_fn(|| table.poll())
        .inspect(|told| assert!(matches!(told, Owned::Lost(_))))
        .count();
    assert_eq!(lost, gained);
    agrees(&table, &keys);
    assert!(table.join(NodeId(64), NonZeroU32::MIN) && !table.join(NodeId(64), NonZeroU32::MIN));
}

/// Of each key, by a look at all nodes.
fn agrees(table: &Ownership, keys: &[u32]) {
    let mut all = [NodeId(0); 3];
    for (&key, number) in keys.iter().zip(0_u32..) {
        let hash = key_hash(&number.to_be_bytes());
        assert_eq!(table.owners(key), table.view().owners(hash, &mut all[..table.depth]));
        // Lower ones would be right as well, and have ever more keys looked at.
        let last = table.owners(key).get(table.depth - 1);
        let floor = last.map_or(0, |last| crate::hrw::high(crate::hrw::score(hash, *last)));
        assert_eq!(table.floors[key as usize], floor);
    }
}

/// Goal: beyond the first 64 keys the table is right as well. Method: some thousand keys with up to three owners, by weights that are
/// alike, differ, and are alike again; the number of keys fills no vector.
#[test]
fn many_keys_have_their_owners() {
    for depth in 1..=3 {
        let mut table = Ownership::new(ME, depth);
        let keys: Vec<_> =
            (0..2_005_u32).map(|key| table.track(key_hash(&key.to_be_bytes()))).collect();
        let mut change = |change: &dyn Fn(&mut Ownership) -> bool| {
            assert!(change(&mut table));
            agrees(&table, &keys);
        };
        for node in (0..20).chain([65_336, 81_207]) {
            change(&|table| table.join(NodeId(node), weight(1)));
        }
        change(&|table| table.set_weight(NodeId(4), weight(7)));
        change(&|table| table.join(NodeId(21), weight(3)));
        change(&|table| table.leave(NodeId(4)));
        change(&|table| table.set_weight(NodeId(21), weight(1)));
        change(&|table| table.leave(NodeId(65_336)));
        change(&|table| table.join(NodeId(4), weight(1)));
    }
}
