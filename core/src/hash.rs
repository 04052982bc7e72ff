//! The two kinds of hash: wire-stable ones, equal on every node for ever, and keyed ones for local tables.
//!
//! Wire-stable hashes decide what nodes agree on without talk (node ids, key scores, digests), so
//! they never change: XXH3-64 for byte strings, fixed finalisers of 64 and 32 bits for integers. Local tables
//! are indexed by ids and keys that peers choose; their hasher is SipHash-1-3 under a key drawn from
//! the node's entropy, so nobody outside can aim collisions at it.

use core::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::id::NodeId;
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

/// What [`mix32`] multiplies by.
pub(crate) const MIX_32: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// A bijective 32-bit finaliser with nearly full avalanche: `lowbias32` of Wellons, "Prospecting for hash functions" (2018).
/// Wire-stable.
#[inline(always)]
pub(crate) const fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(MIX_32[0]);
    x = (x ^ (x >> 15)).wrapping_mul(MIX_32[1]);
    x ^ (x >> 16)
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

/// An index from node ids, which peers choose, to slot numbers. It stores the slots alone, five bytes of room each, and asks
/// `id_of` for the id in one: whoever looks a member up reads its row anyway. It has no iterator, so hash order cannot
/// leak into behaviour; whoever needs order keeps a `Vec` beside it.
pub(crate) struct Index {
    slots: HashTable<u32>,
    secret: Secret,
}

impl Index {
    pub(crate) const fn new(secret: Secret) -> Self {
        Self { slots: HashTable::new(), secret }
    }

    pub(crate) fn get(&self, id: NodeId, id_of: impl Fn(u32) -> NodeId) -> Option<u32> {
        self.slots.find(self.secret.hash_one(id), |&slot| id_of(slot) == id).copied()
    }

    /// Adds a slot, whose id is in none yet.
    pub(crate) fn insert(&mut self, slot: u32, id_of: impl Fn(u32) -> NodeId) {
        let hash = |&slot: &u32| self.secret.hash_one(id_of(slot));
        self.slots.insert_unique(hash(&slot), slot, hash);
    }

    /// Forgets an id, as long as its slot has it.
    pub(crate) fn remove(&mut self, id: NodeId, id_of: impl Fn(u32) -> NodeId) {
        let found = self.slots.find_entry(self.secret.hash_one(id), |&slot| id_of(slot) == id);
        if let Ok(entry) = found {
            entry.remove();
        }
    }
}

impl core::fmt::Debug for Index {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Index").field("len", &self.slots.len()).finish_non_exhaustive()
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
