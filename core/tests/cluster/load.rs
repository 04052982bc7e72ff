//! How evenly owners are spread, over names as operators and attackers give them: every figure is next to what chance gives.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::num::NonZeroU32;

use brickwork_core::NodeId;
use brickwork_core::hrw::{View, key_hash, score};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

const NODES: u64 = 64;
const KEYS: u64 = 3_200;
const SEEDS: u64 = 30;

type Name<T> = (&'static str, fn(u64, u64) -> T);

/// Sets of nodes by a seed and a number: names of hosts, addresses, and ids that differ in few bits, which nobody hashed.
const IDS: [Name<NodeId>; 5] = [
    ("host names", |seed, n| NodeId::from_name(&format!("cache-{seed:03}-{n:03}"))),
    ("addresses", |seed, n| {
        NodeId::from_name(&format!("10.{}.{}.{n}:7946", seed / 250, seed % 250))
    }),
    ("ids in a row", |seed, n| NodeId(1 + seed * NODES + n)),
    ("ids in a row, shifted", |seed, n| NodeId((seed * NODES + n) << 40)),
    ("ids with the seed above", |seed, n| NodeId(seed << 56 | n)),
];

/// Sets of keys likewise.
const KEY_SETS: [Name<Vec<u8>>; 4] = [
    ("numbers in a row", |seed, n| (seed * KEYS + n).to_be_bytes().to_vec()),
    ("origins", |seed, n| format!("origin-{}", seed * KEYS + n).into_bytes()),
    ("addresses", |seed, n| format!("10.{seed}.{}.{}:443", n / 250, n % 250).into_bytes()),
    ("one byte again and again", |seed, n| vec![seed as u8; 1 + n as usize]),
];

fn loads(view: &View, keys: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut loads = vec![0; view.nodes().len()];
    for key in keys {
        let owner = view.owner(key).unwrap();
        loads[view.nodes().binary_search(&owner).unwrap()] += 1;
    }
    loads
}

/// The sum of squares of what is too much or too little, each by what is expected.
fn chi_square(loads: &[u64], expected: impl Fn(usize) -> f64) -> f64 {
    let part = |(at, load): (usize, &u64)| (*load as f64 - expected(at)).powi(2) / expected(at);
    loads.iter().enumerate().map(part).sum()
}

/// Goal: the load of nodes varies as that of balls thrown into bins at random, whose coefficient of variation is sqrt((m-1)/K), within
/// 2 %. Method: 600 clusters, 30 of each kind of names of nodes and keys; for each kind alone, chi-square within five of its deviations.
#[test]
fn loads_vary_as_chance_has_them() {
    let (mut squares, mut clusters) = (0.0, 0.0);
    for (ids, id) in IDS {
        for (names, key) in KEY_SETS {
            let mut chi = 0.0;
            for seed in 0..SEEDS {
                let view: View = (0..NODES).map(|n| id(seed, n)).collect();
                let loads = loads(&view, (0..KEYS).map(|n| key_hash(&key(seed, n))));
                let mean = KEYS as f64 / NODES as f64;
                let of_one = chi_square(&loads, |_| mean);
                squares += of_one / KEYS as f64;
                clusters += 1.0;
                chi += of_one;
            }
            let freedom = (SEEDS * (NODES - 1)) as f64;
            let away = (chi - freedom) / (2.0 * freedom).sqrt();
            assert!(away.abs() < 5.0, "{ids}, {names}: {away} deviations from chance");
        }
    }
    let found = f64::sqrt(squares / clusters);
    let chance = f64::sqrt((NODES - 1) as f64 / KEYS as f64);
    assert!((found / chance - 1.0).abs() < 0.02, "{found} and not {chance}");
}

/// The same where each node has a part of its own.
#[test]
fn loads_follow_weights_as_chance_has_them() {
    for (ids, id) in IDS {
        let (mut chi, mut freedom) = (0.0, 0.0);
        for seed in 0..SEEDS {
            let mut view = View::default();
            for n in 0..16 {
                view.insert_weighted(
                    id(seed, n),
                    NonZeroU32::new(1 + (n as u32 * 7) % 16).unwrap(),
                );
            }
            let keys = (0..KEYS).map(|n| key_hash(&(seed * KEYS + n).to_be_bytes()));
            let weight = |at: usize| f64::from(view.weight(view.nodes()[at]).unwrap().get());
            let all: f64 = (0..view.nodes().len()).map(weight).sum();
            chi += chi_square(&loads(&view, keys), |at| KEYS as f64 * weight(at) / all);
            freedom += 15.0;
        }
        let away = (chi - freedom) / (2.0 * freedom).sqrt();
        assert!(away.abs() < 5.0, "{ids}: {away} deviations from chance");
    }
}

/// Goal: nothing shines through from a name to its scores. Method: of keys and ids by chance, each bit is turned; each bit that decides
/// turns in half of all cases, within five deviations and some for the number of pairs.
#[test]
fn a_bit_of_a_name_turns_half_of_those_that_decide() {
    const ROUNDS: u32 = 4_000;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut turned = vec![[0_u32; 32]; 16 * 8 + 64];
    for _ in 0..ROUNDS {
        let mut key = [0; 16];
        rng.fill_bytes(&mut key);
        let node = NodeId(rng.next_u64());
        let decides = |key: &[u8], node| score(key_hash(key), node) >> 32;
        let before = decides(&key, node);
        for (bit, turned) in turned.iter_mut().enumerate() {
            let after = if bit < 128 {
                let mut key = key;
                key[bit / 8] ^= 1 << (bit % 8);
                decides(&key, node)
            } else {
                decides(&key, NodeId(node.0 ^ 1 << (bit - 128)))
            };
            for (at, turned) in turned.iter_mut().enumerate() {
                *turned += ((before ^ after) >> at & 1) as u32;
            }
        }
    }
    let deviation = f64::from(ROUNDS).sqrt() / 2.0;
    for (bit, turned) in turned.iter().enumerate() {
        for (at, turned) in turned.iter().enumerate() {
            let away = (f64::from(*turned) - f64::from(ROUNDS) / 2.0) / deviation;
            assert!(away.abs() < 5.5, "bit {bit} turns bit {at} {turned} times of {ROUNDS}");
        }
    }
}

/// The same of a key's hash, of which 32 bits decide: what the finaliser does alone. It is nearly as good as chance: a bit of bias is
/// less than one in eight.
#[test]
fn a_bit_of_a_hash_turns_half_of_those_that_decide() {
    const ROUNDS: u32 = 4_000;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(9);
    let mut turned = [[0_u32; 32]; 32];
    for _ in 0..ROUNDS {
        let (hash, node) = (rng.next_u64(), NodeId(rng.next_u64()));
        for (bit, turned) in turned.iter_mut().enumerate() {
            let change = score(hash, node) ^ score(hash ^ 1 << bit, node);
            assert_eq!(change & 0xffff_ffff, 0, "the halves have nothing to do with each other");
            for (at, turned) in turned.iter_mut().enumerate() {
                *turned += (change >> (32 + at) & 1) as u32;
            }
        }
    }
    for (bit, turned) in turned.iter().enumerate() {
        for (at, turned) in turned.iter().enumerate() {
            let share = f64::from(*turned) / f64::from(ROUNDS);
            assert!(
                (share - 0.5).abs() < 0.0625,
                "bit {bit} turns bit {at} in {share} of all cases"
            );
        }
    }
}

/// Goal: two nodes of which all that decides is alike, as one pair among 4,096 nodes has it in 500 clusters, share what they win,
/// and all agree who owns what. Method: such pairs, by a search, beside two others; each of them leaves and is back.
#[test]
fn nodes_whose_deciding_halves_are_alike_share() {
    let half = |id: u64| score(0, NodeId(id)) >> 32;
    let mut halves: Vec<_> = (0..300_000).map(|id| (half(id), id)).collect();
    halves.sort_unstable();
    let pairs: Vec<_> = halves
        .windows(2)
        .filter(|two| two[0].0 == two[1].0)
        .map(|two| (two[0].1, two[1].1))
        .collect();
    assert!(pairs.len() > 3, "{} pairs, of ten that chance has", pairs.len());
    for (first, second) in pairs {
        let all: View = [first, second, 300_001, 300_002].into_iter().map(NodeId).collect();
        let mut view = all.clone();
        for twin in [first, second] {
            assert!(view.remove(NodeId(twin)) && view.insert(NodeId(twin)));
            assert_eq!(view, all);
        }
        let mut load = [0; 2];
        for key in (0..3_000_u32).map(|key| key_hash(&key.to_be_bytes())) {
            let mut order = view.nodes().to_vec();
            order.sort_unstable_by_key(|id| std::cmp::Reverse(score(key, *id)));
            let mut found = [NodeId(0); 4];
            assert_eq!(view.owners(key, &mut found), order);
            for k in 1..4 {
                assert_eq!(view.owners(key, &mut found[..k]), &order[..k]);
            }
            assert_eq!(view.owner(key), Some(order[0]));
            load[0] += u32::from(order[0].0 == first);
            load[1] += u32::from(order[0].0 == second);
        }
        // A third of all together, as one node, and each half of it: binomial of mean 500.
        assert!(load.iter().all(|load| (400..600).contains(load)), "{load:?}");
        assert!(view.remove(NodeId(second)) && !view.remove(NodeId(second)));
        let two: View = [first, 300_001, 300_002].into_iter().map(NodeId).collect();
        assert_eq!(view, two);
    }
}
