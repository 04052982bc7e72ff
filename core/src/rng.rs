//! Randomness: one generator per block, forked from the entropy that the caller gave.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng};

use crate::hash::mix2;
use crate::sabotage::sabotaged;

/// A seeded xoshiro256++ stream (Blackman and Vigna 2021). Not for secrets that must outlive the
/// process; its seed is as good as the entropy that the driver hands in.
#[derive(Debug, Clone)]
pub(crate) struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The stream named `label` of this entropy. A block that draws more numbers does not shift the
    /// streams of the others.
    pub(crate) fn fork(entropy: &[u8; 32], label: u64) -> Self {
        let mut seed = *entropy;
        if sabotaged!("luck-from-outside") {
            seed[0] ^= crate::sabotage::tick();
        }
        for (word, lane) in seed.as_chunks_mut::<8>().0.iter_mut().zip(1..) {
            *word = mix2(u64::from_le_bytes(*word) ^ lane, label).to_le_bytes();
        }
        Self(Xoshiro256PlusPlus::from_seed(seed))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    #[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
    pub(crate) fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    /// A number in `0..n`, zero for `n = 0`. The bias of the multiply-shift is below n / 2^64.
    #[allow(clippy::cast_possible_truncation)] // the product's high word is below n
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.u64()) * n as u128) >> 64) as usize
    }

    /// A duration drawn evenly from `[0, most)`.
    pub(crate) fn within(&mut self, most: core::time::Duration) -> core::time::Duration {
        let nanos = usize::try_from(most.as_nanos()).unwrap_or(usize::MAX);
        core::time::Duration::from_nanos(self.below(nanos) as u64)
    }

    /// A duration drawn evenly from `[d - d/4, d + d/4)`, so that peers started together drift apart.
    pub(crate) fn jitter(&mut self, d: core::time::Duration) -> core::time::Duration {
        let quarter = (d / 4).as_nanos();
        let spread = usize::try_from(quarter * 2).unwrap_or(usize::MAX);
        d - d / 4 + core::time::Duration::from_nanos(self.below(spread) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let mut a = Rng::fork(&[7; 32], 1);
        let mut b = Rng::fork(&[7; 32], 1);
        let mut c = Rng::fork(&[7; 32], 2);
        let first = a.u64();
        assert_eq!(first, b.u64());
        assert_ne!(first, c.u64());
        assert!((0..1000).all(|_| a.below(3) < 3));
        assert_eq!(a.below(0), 0);
    }
}
