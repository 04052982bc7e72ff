//! Rendezvous hashing at the sizes of row H1.

use std::hint::black_box;

use brickwork_core::NodeId;
use brickwork_core::hrw::View;

use crate::measure::Entrant;

/// Keys that are asked for in turn.
const KEYS: u64 = 1_024;

/// Hashes of keys that are all different and unrelated.
#[must_use]
pub fn keys() -> Vec<u64> {
    (0..KEYS).map(|key| brickwork_core::hrw::key_hash(&key.to_le_bytes())).collect()
}

/// The view of `n` nodes called as servers are.
#[must_use]
pub fn view(n: u32) -> View {
    (0..n).map(|node| NodeId::from_name(&format!("cache-{node:06}"))).collect()
}

/// H1: the owner of a key whose hash is known, as in the table of all origins.
#[must_use]
pub fn owner(n: u32) -> Entrant {
    let (view, keys) = (view(n), keys());
    Entrant::new("brickwork", move |watch| {
        watch.time(KEYS, || {
            for &key in &keys {
                black_box(view.owner(black_box(key)));
            }
        });
    })
}

/// H1: the first three owners.
#[must_use]
pub fn owners(n: u32) -> Entrant {
    let (view, keys) = (view(n), keys());
    Entrant::new("brickwork, top 3", move |watch| {
        let mut out = [NodeId(0); 3];
        watch.time(KEYS, || {
            for &key in &keys {
                black_box(view.owners(black_box(key), &mut out));
            }
        });
    })
}

/// The least that an owner costs: one mixing of 64 bits per node and a maximum, over a slice.
#[must_use]
pub fn argmax64(n: u32) -> Entrant {
    let (seeds, keys) = (seeds(n), keys());
    Entrant::new("limit: argmax, 64-bit mix", move |watch| {
        watch.time(KEYS, || {
            for &key in &keys {
                let (key, mut best) = (black_box(key), (0, 0));
                for (at, &seed) in seeds.iter().enumerate() {
                    let score = mix64(key ^ seed);
                    if score >= best.0 {
                        best = (score, at);
                    }
                }
                black_box(best);
            }
        });
    })
}

/// The same with 32 bits, and the node's index in the lowest ones: one maximum finds both.
#[must_use]
pub fn argmax32(n: u32) -> Entrant {
    let seeds: Vec<u32> = seeds(n).into_iter().map(|seed| seed as u32).collect();
    let (bits, keys) = (n.next_power_of_two() - 1, keys());
    Entrant::new("limit: argmax, 32-bit mix", move |watch| {
        watch.time(KEYS, || {
            for &key in &keys {
                let key = black_box(key) as u32;
                let tagged =
                    (0_u32..).zip(&seeds).map(|(at, &seed)| mix32(key ^ seed) & !bits | at);
                black_box(tagged.fold(0, u32::max));
            }
        });
    })
}

fn seeds(n: u32) -> Vec<u64> {
    (0..n).map(|node| mix64(u64::from(node) + 1)).collect()
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
const fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The finaliser of MurmurHash3 (Appleby).
const fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}
