//! The context in buckets of replicas, to find out which part of two contexts differs.

use super::Replicas;
use crate::hash;

/// How many buckets there are.
pub(in crate::map) const BUCKETS: usize = 64;

impl Replicas {
    /// The bucket of a replica, the same on every node.
    pub(in crate::map) fn bucket(&self, replica: u16) -> usize {
        of(self.known[usize::from(replica)].hash)
    }

    /// A sum of what is known of the replicas of each bucket: under equal seals, equal sums are equal sets of dots. Sealed
    /// lives that are known to their end, which may be retired here and not there, add nothing, and those that are not
    /// add something. This looks at every replica and every dot ahead of a gap, as writing all of the context does.
    pub(in crate::map) fn sums(&self) -> [u64; BUCKETS] {
        let mut sums = [0_u64; BUCKETS];
        for known in self.known.iter().filter(|known| !known.is_whole()) {
            let sealed = known.seal.as_ref().map_or(0, |_| !known.of_base);
            let ahead = known.ahead.keys().map(|counter| hash::mix_with(known.of_dots, *counter));
            let share = ahead.fold(known.digest().wrapping_add(sealed), u64::wrapping_add);
            let sum = &mut sums[of(known.hash)];
            *sum = sum.wrapping_add(share);
        }
        sums
    }
}

/// The highest six bits.
#[allow(clippy::cast_possible_truncation)] // below 64
const fn of(hash: u64) -> usize {
    (hash >> 58) as usize
}
