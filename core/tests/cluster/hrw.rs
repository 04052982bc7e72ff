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
                0xb0b0_7423_b656_138e,
                0x1666_bcdf_cf03_549f,
                0x927a_26f4_177e_8231,
                0x9790_e465_058c_2f6e,
                0xbcd9_ed18_5e16_7909,
            ],
        ),
        (
            b"origin-17",
            0xffe9_a823_9e65_2921,
            [
                0xfa53_89cd_3b07_d52f,
                0xcae2_4b95_c934_b148,
                0x5eb3_6418_ad11_1716,
                0x8380_417a_0245_b5aa,
                0x7a89_19a3_4680_6085,
            ],
        ),
        (
            b"https://example.org/health",
            0xa69a_d0e5_9b9a_d0ba,
            [
                0x8fa6_c7d7_6a8b_f970,
                0xca16_270a_8daa_d38d,
                0xb660_495b_c602_80f0,
                0xba56_ee56_68b3_e194,
                0xce6e_1d4d_5fa9_e7e0,
            ],
        ),
        (
            &bytes(),
            0x9408_a443_3b95_2d71,
            [
                0x5568_c193_d6a7_e4e5,
                0xa511_2982_6c99_19d7,
                0x57a3_d528_cda1_e7d0,
                0x1ae1_7160_5598_54de,
                0x147a_692c_ae27_5f4d,
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
    let expected = [0, 1, u64::MAX, 0x41a2_496d_0aee_0567, 2].map(NodeId);
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
        (b"", [4, 3, 2, 0, 1]),
        (b"origin-17", [0, 4, 1, 3, 2]),
        (b"https://example.org/health", [4, 3, 2, 1, 0]),
        (&bytes(), [1, 2, 4, 3, 0]),
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
    assert_eq!((owned, hash.digest()), ([593, 2_329, 4_041, 5_711, 7_326], 0xef48_22d6_56bd_5b40));
}
