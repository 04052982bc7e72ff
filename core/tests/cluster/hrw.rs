//! Scores are wire-stable: golden vectors, printed by the second implementation in `vectors/hrw.py`.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;

use brickwork_core::NodeId;
use brickwork_core::hrw::{View, key_hash, score};

const NODES: [u64; 5] = [0, 1, 2, u64::MAX, 0x41a2_496d_0aee_0567];

fn bytes() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn scores_have_their_golden_values() {
    let vectors: [(&[u8], u64, [u64; 5]); 4] = [
        (
            b"",
            0x2d06_8005_38d3_94c2,
            [
                0x13fd_b3ef_906a_cfc1,
                0xe61e_2f34_7654_9ea9,
                0x61b1_c855_be22_7b2e,
                0x73c0_9922_6c50_5393,
                0x33d8_ab4f_15f8_2c0a,
            ],
        ),
        (
            b"origin-17",
            0xffe9_a823_9e65_2921,
            [
                0xa7a5_2941_40f5_f4f7,
                0x851c_b3fa_5afa_6f74,
                0x514d_21b0_20ed_d922,
                0x906e_1c1e_280b_171d,
                0x500b_b22f_fb05_ed23,
            ],
        ),
        (
            b"https://example.org/health",
            0xa69a_d0e5_9b9a_d0ba,
            [
                0x16a4_b84c_a933_5829,
                0xf09c_b3a4_0946_9438,
                0x2d69_4e1b_835a_cd74,
                0xe766_d94a_c950_2418,
                0xa939_d7fd_0902_5e25,
            ],
        ),
        (
            &bytes(),
            0x9408_a443_3b95_2d71,
            [
                0xf981_552d_f3da_6baf,
                0x4682_befd_bf9d_e752,
                0x64f6_2bd1_5335_b4bf,
                0xccab_a6b9_ea3f_9ef1,
                0x9b9f_7091_8a18_a8d4,
            ],
        ),
    ];
    for (key, hash, scores) in vectors {
        assert_eq!(key_hash(key), hash);
        assert_eq!(NODES.map(|node| score(hash, NodeId(node))), scores);
    }
}

#[test]
fn owners_follow_the_golden_scores() {
    let view: View = NODES.into_iter().map(NodeId).collect();
    let mut order = [NodeId(9); 5];
    let order = view.owners(key_hash(b"origin-17"), &mut order);
    let expected = [0, u64::MAX, 1, 2, 0x41a2_496d_0aee_0567].map(NodeId);
    assert_eq!(order, expected);
}

#[test]
fn on_a_tie_the_larger_id_wins_and_nobody_owns_without_nodes() {
    let mut view = View::default();
    assert_eq!(view.owner(7), None);
    assert!(view.owners(7, &mut [NodeId(0); 3]).is_empty());
    assert!(view.insert(NodeId(5)));
    assert_eq!(view.owner(7), Some(NodeId(5)));
    assert!(view.owners(7, &mut []).is_empty());
}

/// Weights are wire-stable too, with all that they make of scores.
#[test]
fn weighted_owners_have_their_golden_order() {
    let mut view = View::default();
    for (node, weight) in NODES.into_iter().zip([1, 4, 7, 10, 13]) {
        assert!(view.insert_weighted(NodeId(node), NonZeroU32::new(weight).unwrap()));
    }
    let orders: [(&[u8], [usize; 5]); 4] = [
        (b"", [1, 3, 4, 2, 0]),
        (b"origin-17", [3, 4, 1, 2, 0]),
        (b"https://example.org/health", [3, 1, 4, 2, 0]),
        (&bytes(), [3, 0, 4, 2, 1]),
    ];
    for (key, order) in orders {
        let mut found = [NodeId(0); 5];
        assert_eq!(view.owners(key_hash(key), &mut found), order.map(|at| NodeId(NODES[at])));
        for (rank, at) in order.into_iter().enumerate() {
            assert_eq!(view.rank(key_hash(key), NodeId(NODES[at])), Some(rank));
        }
    }
    let (mut owned, mut hash) = ([0; 5], xxhash_rust::xxh3::Xxh3::new());
    for key in 0..20_000_u32 {
        let owner = view.owner(key_hash(&key.to_be_bytes())).unwrap();
        owned[NODES.iter().position(|node| *node == owner.0).unwrap()] += 1;
        hash.update(&owner.0.to_be_bytes());
    }
    assert_eq!((owned, hash.digest()), ([550, 2_276, 3_957, 5_634, 7_583], 0xf855_e247_72e8_73ff));
}
