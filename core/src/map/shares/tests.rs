use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::id::NodeId;
use crate::map::dot::{Packed, ReplicaId};
use crate::map::peer::{Context, Cursor, Theirs};
use crate::map::replica::Replicas;

fn all_of(of: u8) -> impl Iterator<Item = Share> {
    (0..of).filter_map(move |index| Share::new(index, of))
}

/// The dots that a cursor comes to, in its order.
fn walk(mut cursor: Cursor, replicas: &Replicas, theirs: &Context) -> Vec<Packed> {
    core::iter::from_fn(|| {
        let dot = cursor.next(replicas, Theirs::certain(theirs))?;
        cursor.pass(dot);
        Some(dot)
    })
    .collect()
}

proptest! {
    /// Every dot that a peer lacks is in one share, and in no other, whatever either side has.
    #[test]
    fn shares_are_disjoint_and_cover_everything(
        mine in proptest::collection::vec((0..5_u64, 1..900_u64, 0..300_u64), 0..12),
        theirs in proptest::collection::vec((0..5_u64, 1..900_u64, 0..300_u64), 0..12),
        of in 2..=3_u8,
    ) {
        let life = |node: u64| ReplicaId::new(NodeId(node), 1);
        let mut replicas = Replicas::new(life(9), 10, 10_000);
        let (mut known, mut expected) = (Context::default(), BTreeSet::new());
        for (node, from, len) in mine {
            let Some(number) = replicas.intern(life(node)) else { continue };
            for counter in from..=from + len {
                replicas.claim(Packed::new(number, counter), 0);
                expected.insert(Packed::new(number, counter));
            }
        }
        for (node, from, len) in theirs {
            if let Some(number) = replicas.number(life(node)) {
                known.runs_mut(number).add(from, from + len);
            }
        }
        expected.retain(|dot| !known.contains(*dot));
        let mut met = BTreeSet::new();
        for share in all_of(of) {
            let dots = walk(Cursor::over(None, None).of_share(Some(share)), &replicas, &known);
            for pair in dots.windows(2) {
                prop_assert!(
                    pair[0].replica() != pair[1].replica() || pair[0] < pair[1],
                    "in their order: {pair:?}",
                );
            }
            for dot in dots {
                prop_assert!(met.insert(dot), "twice: {dot:?}");
            }
        }
        prop_assert_eq!(met, expected);
    }

    /// What is skipped is of other shares.
    #[test]
    fn the_first_counter_of_a_share_is_the_next_that_is_in_it(
        hash in any::<u64>(),
        counter in 1..1_u64 << 47,
        of in 2..=3_u8,
    ) {
        let owners: Vec<_> = all_of(of).filter(|share| share.first(hash, counter) == counter).collect();
        prop_assert_eq!(owners.len(), 1, "one share has it: {:?}", owners);
        for share in all_of(of) {
            let first = share.first(hash, counter);
            prop_assert!((counter..counter + 64 * u64::from(of)).contains(&first));
            prop_assert_eq!(share.first(hash, first), first);
            prop_assert!(first == counter || share.first(hash, first - 1) == first);
        }
    }
}

#[test]
fn a_share_is_a_byte_on_the_wire() {
    let read = |byte: u8| Share::read(&mut Reader::new(&[byte])).ok();
    let valid: Vec<u8> = (0..=255).filter(|byte| read(*byte).is_some()).collect();
    assert_eq!(valid, [0x20, 0x21, 0x30, 0x31, 0x32]);
    for byte in valid {
        assert_eq!(read(byte).map(Share::to_byte), Some(byte));
    }
}
