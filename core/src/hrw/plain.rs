//! Vectors as the compiler makes them of arrays.

#[cfg(not(feature = "simd"))]
use super::lanes;
use super::lanes::{LANES, Lanes, Row};
use crate::hash;

/// Sixteen numbers in an array.
#[derive(Clone, Copy)]
pub(super) struct Plain(Row);

// Loops over indices: those are made vectors of.
#[allow(clippy::needless_range_loop)]
impl Lanes for Plain {
    type Proof = ();

    #[inline(always)]
    fn splat((): (), value: u32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load((): (), row: &Row) -> Self {
        Self(*row)
    }

    #[inline(always)]
    fn mixed(mut self) -> Self {
        for lane in 0..LANES {
            self.0[lane] = hash::mix32(self.0[lane]);
        }
        self
    }

    #[inline(always)]
    fn xor(mut self, other: Self) -> Self {
        for lane in 0..LANES {
            self.0[lane] ^= other.0[lane];
        }
        self
    }

    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        for lane in 0..LANES {
            self.0[lane] = self.0[lane].max(other.0[lane]);
        }
        self
    }

    #[inline(always)]
    fn larger(mut self, mut with: Self, other: (Self, Self)) -> (Self, Self) {
        for lane in 0..LANES {
            let larger = other.0.0[lane] > self.0[lane];
            self.0[lane] = if larger { other.0.0[lane] } else { self.0[lane] };
            with.0[lane] = if larger { other.1.0[lane] } else { with.0[lane] };
        }
        (self, with)
    }

    #[inline(always)]
    fn row(self) -> Row {
        self.0
    }

    #[inline(always)]
    fn highest(self) -> u32 {
        self.0.into_iter().fold(0, u32::max)
    }

    #[inline(always)]
    fn equal(self, other: Self) -> u64 {
        let mut bits = 0;
        for lane in 0..LANES {
            bits |= u64::from(self.0[lane] == other.0[lane]) << lane;
        }
        bits
    }

    #[inline(always)]
    fn at_least(self, other: Self) -> u64 {
        let mut bits = 0;
        for lane in 0..LANES {
            bits |= u64::from(self.0[lane] >= other.0[lane]) << lane;
        }
        bits
    }

    #[inline(always)]
    fn without(mut self, mut with: Self, other: (Self, Self)) -> (Self, Self) {
        for lane in 0..LANES {
            let equal = self.0[lane] == other.0.0[lane];
            self.0[lane] = if equal { 0 } else { self.0[lane] };
            with.0[lane] = if equal { other.1.0[lane] } else { with.0[lane] };
        }
        (self, with)
    }
}

/// See [`lanes::best`].
#[cfg(not(feature = "simd"))]
pub(super) fn best(seeds: &[u32], key: u32) -> usize {
    lanes::best::<Plain>((), seeds, key)
}

/// See [`lanes::first`].
#[cfg(not(feature = "simd"))]
pub(super) fn first(seeds: &[u32], key: u32, offer: impl FnMut(usize, u32) -> u32) {
    lanes::first::<Plain>((), seeds, key, offer);
}

/// See [`lanes::winners`].
#[cfg(not(feature = "simd"))]
pub(super) fn winners(keys: &[u32], seed: u32, last: &[u32], from: usize) -> Option<(usize, u64)> {
    lanes::winners::<Plain>((), keys, seed, last, from)
}
