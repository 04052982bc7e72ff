use alloc::vec::Vec;

use super::*;
use crate::hash::mix32;
use crate::hrw::plain::Plain;
use proptest::prelude::*;

/// Some seeds that are not alike, and the last one again until vectors are full.
fn seeds() -> impl Strategy<Value = (usize, Vec<u32>)> {
    let seeds = proptest::collection::hash_set(any::<u32>(), 1..200);
    seeds.prop_map(|seeds| filled(seeds.into_iter().collect()))
}

fn filled(mut seeds: Vec<u32>) -> (usize, Vec<u32>) {
    let n = seeds.len();
    seeds.resize(n.next_multiple_of(LANES), seeds[n - 1]);
    (n, seeds)
}

fn by_one(seeds: &[u32], key: u32) -> Vec<u32> {
    seeds.iter().map(|seed| mix32(seed ^ key)).collect()
}

fn agrees<L: Lanes>(proof: L::Proof, (n, seeds): &(usize, Vec<u32>), key: u32, k: usize) {
    let scores = by_one(seeds, key);
    let mut order: Vec<_> = (0..*n).collect();
    order.sort_unstable_by_key(|at| core::cmp::Reverse(scores[*at]));
    assert_eq!(best::<L>(proof, seeds, key), order[0]);

    // Who takes the first k asks for no less than the last of them.
    let (mut taken, mut offered) = (Vec::new(), 0);
    first::<L>(proof, seeds, key, |at, score| {
        assert_eq!(scores[at], score);
        assert!(at < *n, "the first of equal ones is offered");
        offered += 1;
        taken.push((score, at));
        taken.sort_unstable_by(|a, b| b.cmp(a));
        taken.truncate(k);
        if taken.len() < k { 0 } else { taken[k - 1].0 }
    });
    assert!(taken.iter().map(|(_, at)| at).eq(order.iter().take(k)));
    // Where there is room all are, and else the last of those that were taken once more.
    assert!(offered <= (k + 1) * seeds.len().div_ceil(WINS), "{offered} of {n}");

    let floors: Vec<_> = scores.iter().map(|score| score.wrapping_add(key % 3)).collect();
    let mut winning = Vec::new();
    let mut from = 0;
    while let Some((start, wins)) = winners::<L>(proof, seeds, key, &floors, from) {
        assert!(wins != 0 && start >= from);
        winning.extend((0..WINS).filter(|at| wins >> at & 1 == 1).map(|at| start + at));
        from = start + WINS;
        if from >= seeds.len() {
            break;
        }
    }
    let expected = (0..scores.len()).filter(|at| scores[*at] >= floors[*at]);
    assert!(winning.into_iter().eq(expected));
}

proptest! {
    #[test]
    fn vectors_find_what_one_by_one_is_found(seeds in seeds(), key in any::<u32>(), k in 1..80_usize) {
        agrees::<Plain>((), &seeds, key, k);
    }

    #[cfg(feature = "simd")]
    #[test]
    fn the_widest_vectors_find_the_same(seeds in seeds(), key in any::<u32>(), k in 1..80_usize) {
        use fearless_simd::{Level, dispatch, u32x16};
        dispatch!(Level::new(), simd => agrees::<u32x16<_>>(simd, &seeds, key, k));
        dispatch!(Level::baseline(), simd => agrees::<u32x16<_>>(simd, &seeds, key, k));
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = Level::new().as_avx2() {
            agrees::<u32x16<_>>(simd, &seeds, key, k);
        }
    }
}

/// What a score of nothing is where others were removed before.
#[test]
fn a_score_of_zero_is_found_as_others_are() {
    for (n, key) in [(1, 0), (3, 7), (16, 5), (20, 9), (64, 2), (70, 1), (140, 3)] {
        // The finaliser keeps zero: it is first, last, and in between.
        for turns in [0, n / 2, n - 1] {
            let mut seeds: Vec<u32> = (key..key + n).collect();
            seeds.rotate_right(turns as usize);
            let seeds = filled(seeds);
            for k in [2, 80, 200] {
                agrees::<Plain>((), &seeds, key, k);
                #[cfg(feature = "simd")]
                fearless_simd::dispatch!(fearless_simd::Level::new(), simd => {
                    agrees::<fearless_simd::u32x16<_>>(simd, &seeds, key, k);
                });
            }
        }
    }
}
