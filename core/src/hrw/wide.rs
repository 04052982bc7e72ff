//! The vectors of the processor that the program runs on, found out once: AVX-512 (as of Ice Lake), AVX2, SSE4.2 or SSE2, NEON.

use std::sync::LazyLock;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u32x16};

use super::lanes::{self, Lanes, Row};
use crate::hash;

static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

impl<S: Simd> Lanes for u32x16<S> {
    type Proof = S;

    #[inline(always)]
    fn splat(simd: S, value: u32) -> Self {
        simd.splat_u32x16(value)
    }

    #[inline(always)]
    fn load(simd: S, row: &Row) -> Self {
        Self::simd_from(simd, *row)
    }

    #[inline(always)]
    fn mixed(self) -> Self {
        let [first, second] = hash::MIX_32;
        let mut x = (self ^ (self >> 16)) * first;
        x = (x ^ (x >> 15)) * second;
        x ^ (x >> 16)
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.simd.max_u32x16(self, other)
    }

    #[inline(always)]
    fn larger(self, with: Self, other: (Self, Self)) -> (Self, Self) {
        let larger = other.0.simd_gt(self);
        (larger.select(other.0, self), larger.select(other.1, with))
    }

    #[inline(always)]
    fn row(self) -> Row {
        self.into()
    }

    #[inline(always)]
    fn highest(self) -> u32 {
        self.reduce_max()
    }

    #[inline(always)]
    fn equal(self, other: Self) -> u64 {
        self.simd_eq(other).to_bitmask()
    }

    #[inline(always)]
    fn at_least(self, other: Self) -> u64 {
        self.simd_ge(other).to_bitmask()
    }

    #[inline(always)]
    fn without(self, with: Self, other: (Self, Self)) -> (Self, Self) {
        let equal = self.simd_eq(other.0);
        let zero = <Self as Lanes>::splat(self.simd, 0);
        (equal.select(zero, self), equal.select(other.1, with))
    }
}

/// See [`lanes::best`].
pub(super) fn best(seeds: &[u32], key: u32) -> usize {
    dispatch!(*LEVEL, simd => lanes::best::<u32x16<_>>(simd, seeds, key))
}

/// See [`lanes::first`].
pub(super) fn first(seeds: &[u32], key: u32, offer: impl FnMut(usize, u32) -> u32) {
    dispatch!(*LEVEL, simd => lanes::first::<u32x16<_>>(simd, seeds, key, offer));
}

/// See [`lanes::winners`].
pub(super) fn winners(keys: &[u32], seed: u32, last: &[u32], from: usize) -> Option<(usize, u64)> {
    dispatch!(*LEVEL, simd => lanes::winners::<u32x16<_>>(simd, keys, seed, last, from))
}
