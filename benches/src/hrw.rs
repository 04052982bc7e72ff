//! Rendezvous hashing at the sizes of rows H1 and H2.

use std::hint::black_box;
use std::num::NonZeroU32;

use brickwork_core::NodeId;
use brickwork_core::hrw::{Ownership, View, key_hash};

use crate::measure::{Entrant, Stopwatch};

/// Keys that are asked for in turn.
const KEYS: u64 = 1_024;

/// Hashes of keys that are all different and unrelated.
#[must_use]
pub fn keys() -> Vec<u64> {
    (0..KEYS).map(|key| key_hash(&key.to_le_bytes())).collect()
}

/// The view of `n` nodes called as servers are.
#[must_use]
pub fn view(n: u32) -> View {
    (0..n).map(server).collect()
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
    Entrant::new("brickwork", move |watch| {
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

/// The same with 32 bits, and the node's index in the lowest ones: one maximum finds both. In vectors as wide as the crate
/// under test may use.
#[must_use]
pub fn argmax32(n: u32) -> Entrant {
    let (tags, keys) = (Tags::new(n), keys());
    Entrant::new("limit: argmax, 32-bit mix", move |watch| {
        watch.time(KEYS, || {
            for &key in &keys {
                let key = black_box(key) as u32;
                black_box(wide(
                    #[inline(always)]
                    || tags.of(key).fold(0, u32::max),
                ));
            }
        });
    })
}

/// The first three, by a maximum each.
#[must_use]
pub fn top_three(n: u32) -> Entrant {
    let (tags, keys) = (Tags::new(n), keys());
    let mut scores = vec![0; n as usize];
    Entrant::new("limit: three times argmax, 32-bit mix", move |watch| {
        watch.time(KEYS, || {
            for &key in &keys {
                let key = black_box(key) as u32;
                black_box(wide(
                    #[inline(always)]
                    || {
                        for (score, tag) in scores.iter_mut().zip(tags.of(key)) {
                            *score = tag;
                        }
                        let below = |limit: u32| {
                            let lower = |score| if score < limit { score } else { 0 };
                            scores.iter().map(|&score| lower(score)).fold(0, u32::max)
                        };
                        let first = scores.iter().copied().fold(0, u32::max);
                        let second = below(first);
                        (first, second, below(second))
                    },
                ));
            }
        });
    })
}

/// Scores with the node's index in the lowest bits.
struct Tags {
    seeds: Vec<u32>,
    bits: u32,
}

impl Tags {
    fn new(n: u32) -> Self {
        let seeds = seeds(n).into_iter().map(|seed| seed as u32).collect();
        Self { seeds, bits: n.next_power_of_two() - 1 }
    }

    #[inline(always)]
    fn of(&self, key: u32) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.seeds).map(move |(at, &seed)| mix32(key ^ seed) & !self.bits | at)
    }
}

/// Runs a loop with the widest vectors of the processor, if brickwork does so too.
#[inline(always)]
fn wide<R>(run: impl FnOnce() -> R) -> R {
    #[cfg(feature = "simd")]
    {
        use fearless_simd::{Level, Simd, dispatch};
        static LEVEL: std::sync::LazyLock<Level> = std::sync::LazyLock::new(Level::new);
        dispatch!(*LEVEL, simd => simd.vectorize(run))
    }
    #[cfg(not(feature = "simd"))]
    run()
}

/// H2: a table of so many keys when one of 64 nodes leaves, and when it is back.
#[must_use]
pub fn change(keys: u32, change: Change) -> Entrant {
    let mut table = Ownership::new(server(0), 1);
    (0..NODES).for_each(|node| assert!(table.join(server(node), NonZeroU32::MIN)));
    for key in hashes(keys) {
        table.track(key);
    }
    let node = server(NODES / 2);
    Entrant::new("brickwork", move |watch| {
        let leave = |table: &mut Ownership| assert!(table.leave(node));
        let join = |table: &mut Ownership| assert!(table.join(node, NonZeroU32::MIN));
        change.time(watch, &mut table, leave, join);
        while table.poll().is_some() {}
    })
}

/// What changes at row H2.
#[allow(clippy::exhaustive_enums)] // there is no third
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// One of 64 nodes leaves.
    Leave,
    /// A 64th joins.
    Join,
}

impl Change {
    /// Does both, and this one on the watch.
    fn time<T>(
        self,
        watch: &mut Stopwatch,
        table: &mut T,
        leave: impl FnOnce(&mut T),
        join: impl FnOnce(&mut T),
    ) {
        if self == Self::Leave {
            watch.time(1, || leave(table));
            join(table);
        } else {
            leave(table);
            watch.time(1, || join(table));
        }
    }
}

/// The least that it takes: a look at each owner and 63 scores for each key that lost its own, or one score per key.
#[must_use]
pub fn change_limit(keys: u32, change: Change) -> Entrant {
    let mut table =
        Bare { seeds: seeds(NODES), hashes: hashes(keys), owners: Vec::new(), scores: Vec::new() };
    (table.owners, table.scores) = table.hashes.iter().map(|&key| table.best(key, None)).unzip();
    Entrant::new("limit: only what must be scored", move |watch| {
        change.time(watch, &mut table, Bare::leave, Bare::join);
    })
}

/// All scores anew, as without a table.
#[must_use]
pub fn recompute(keys: u32) -> Entrant {
    let (view, hashes) = (view(NODES), hashes(keys));
    let mut owners = vec![None; hashes.len()];
    Entrant::new("all keys anew", move |watch| {
        watch.time(1, || {
            for (owner, &key) in owners.iter_mut().zip(&hashes) {
                *owner = view.owner(key);
            }
        });
        black_box(&owners);
    })
}

/// Nodes of row H2.
const NODES: u32 = 64;

struct Bare {
    seeds: Vec<u64>,
    hashes: Vec<u64>,
    owners: Vec<u32>,
    scores: Vec<u64>,
}

impl Bare {
    /// The owner of a key, `without` one node, and its score.
    fn best(&self, key: u64, without: Option<u32>) -> (u32, u64) {
        let mut best = (0, 0);
        for (node, &seed) in (0..).zip(&self.seeds) {
            let score = mix64(key ^ seed);
            if score >= best.1 && Some(node) != without {
                best = (node, score);
            }
        }
        best
    }

    fn leave(&mut self) {
        for key in 0..self.hashes.len() {
            if self.owners[key] == NODES / 2 {
                let best = self.best(self.hashes[key], Some(NODES / 2));
                (self.owners[key], self.scores[key]) = best;
            }
        }
    }

    fn join(&mut self) {
        let seed = self.seeds[NODES as usize / 2];
        let rows = self.hashes.iter().zip(&mut self.scores).zip(&mut self.owners);
        for ((&hash, best), owner) in rows {
            let score = mix64(hash ^ seed);
            if score >= *best {
                (*owner, *best) = (NODES / 2, score);
            }
        }
    }
}

fn server(node: u32) -> NodeId {
    NodeId::from_name(&format!("cache-{node:06}"))
}

fn hashes(keys: u32) -> Vec<u64> {
    (0..keys).map(|key| key_hash(&key.to_le_bytes())).collect()
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
