//! The two kinds of hash: wire-stable ones, equal on every node for ever, and keyed ones for local tables.
//!
//! Wire-stable hashes decide what nodes agree on without talk (node ids, key scores, digests), so
//! they never change: XXH3-64 for byte strings, a fixed 64-bit finaliser for integers. Local tables
//! are indexed by ids and keys that peers choose; their hasher is SipHash-1-3 under a key drawn from
//! the node's entropy, so nobody outside can aim collisions at it.

use core::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use crate::rng::Rng;

/// The published 64-bit hash (XXH3, seed 0) of a byte string. Wire-stable.
pub(crate) fn stable(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A bijective 64-bit finaliser with full avalanche: variant 13 of Stafford's "Better bit mixing"
/// (2011), the output function of SplitMix64. Wire-stable.
#[inline]
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes two words into one, order mattering. Wire-stable.
#[inline]
pub(crate) const fn mix2(a: u64, b: u64) -> u64 {
    mix_with(half(a), b)
}

/// The first half of [`mix2`], for whoever hashes many words with the same first one.
pub(crate) const fn half(a: u64) -> u64 {
    mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The second half.
#[inline]
pub(crate) const fn mix_with(half: u64, b: u64) -> u64 {
    mix(half ^ b)
}

/// The secret that keys local tables, cookies and tokens of one node.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    k0: u64,
    k1: u64,
}

impl Secret {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { k0: rng.u64(), k1: rng.u64() }
    }

    /// The keyed hash of a byte string.
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.k0, self.k1).hash(bytes)
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl BuildHasher for Secret {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.k0, self.k1)
    }
}

/// An index from a peer-chosen key to a slot number. It has no iterator, so hash order cannot leak
/// into behaviour; whoever needs order keeps a `Vec` beside it.
#[derive(Debug)]
pub(crate) struct Index<K> {
    table: HashMap<K, u32, Secret>,
}

impl<K: Eq + Hash> Index<K> {
    pub(crate) fn new(secret: Secret) -> Self {
        Self { table: HashMap::with_hasher(secret) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<u32> {
        self.table.get(key).copied()
    }

    pub(crate) fn insert(&mut self, key: K, slot: u32) {
        self.table.insert(key, slot);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.table.remove(key);
    }
}

/// One-way commitment to a 16-byte secret: SipHash-2-4, a pseudo-random function, keyed by the
/// secret and applied to a constant. Finding a secret for a given commitment takes about 2^64 tries.
pub(crate) fn commitment(preimage: [u8; 16]) -> u64 {
    let mut hasher = siphasher::sip::SipHasher24::new_with_key(&preimage);
    hasher.write(b"brickwork left");
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_hashes_have_their_published_values() {
        assert_eq!(
            stable(b""),
            0x2d06_8005_38d3_94c2,
            "XXH3-64 of the empty string, from its specification"
        );
        assert_eq!(mix(0), 0);
        // First outputs of SplitMix64 seeded with 0 and 1 (Vigna's reference code).
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c16), 0x910a_2dec_8902_5cc1);
    }
}
