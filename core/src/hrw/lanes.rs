//! Sixteen scores at a time, and what is asked of them: the highest, the first few, those not below others.
//!
//! What decides of a score is 32 bits wide, so that a vector of any processor holds four of them or more and multiplies them. A
//! vector here is an array that compilers make vectors of as far as they are allowed to (`plain.rs`), or with the feature `simd`
//! one of the widest that the processor has (`wide.rs`). Both find the same.

/// Scores that are looked at together.
pub(super) const LANES: usize = 16;
/// Vectors whose scores are kept until it is known where the highest was found.
const ROWS: usize = 4;
/// Keys that [`winners`] tells of at once.
pub(super) const WINS: usize = ROWS * LANES;

pub(super) type Row = [u32; LANES];

/// Sixteen numbers.
pub(super) trait Lanes: Copy {
    /// What shows that the processor has such vectors.
    type Proof: Copy;

    fn splat(proof: Self::Proof, value: u32) -> Self;
    fn load(proof: Self::Proof, row: &Row) -> Self;
    /// [`crate::hash::mix32`] of each.
    fn mixed(self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    /// The larger of each pair of scores, and with it what goes with it; of equal ones the first.
    fn larger(self, with: Self, other: (Self, Self)) -> (Self, Self);
    fn row(self) -> Row;
    /// The largest of them.
    fn highest(self) -> u32;
    /// A bit for each that equals the other's.
    fn equal(self, other: Self) -> u64;
    /// A bit for each that is not less than the other's.
    fn at_least(self, other: Self) -> u64;
    /// With zeros in place of those that equal the other's, and there what goes with these.
    fn without(self, with: Self, other: (Self, Self)) -> (Self, Self);
}

/// The scores of up to 64 nodes.
struct Chunk<L> {
    rows: [L; ROWS],
    top: L,
}

impl<L: Lanes> Chunk<L> {
    #[inline(always)]
    fn new(proof: L::Proof, seeds: &[Row], key: u32) -> Self {
        let (zero, key) = (L::splat(proof, 0), L::splat(proof, key));
        let mut chunk = Self { rows: [zero; ROWS], top: zero };
        for (row, seeds) in chunk.rows.iter_mut().zip(seeds) {
            *row = L::load(proof, seeds).xor(key).mixed();
            chunk.top = chunk.top.max(*row);
        }
        chunk
    }

    /// Takes the highest score out and tells where it stood.
    #[inline(always)]
    fn take(&mut self, proof: L::Proof, top: u32) -> usize {
        let (zero, score) = (L::splat(proof, 0), L::splat(proof, top));
        let lane = self.top.equal(score).trailing_zeros() as usize;
        let mut at = zero;
        self.top = zero;
        for (number, row) in (0..).zip(&mut self.rows) {
            (*row, at) = row.without(at, (score, L::splat(proof, number)));
            self.top = self.top.max(*row);
        }
        at.row()[lane % LANES] as usize * LANES + lane
    }
}

/// Where a seed with the highest score for a key stands. Their number is a multiple of [`LANES`]; of the last ones, if they are
/// equal, the first is found.
#[inline(always)]
pub(super) fn best<L: Lanes>(proof: L::Proof, seeds: &[u32], key: u32) -> usize {
    let (rows, _) = seeds.as_chunks::<LANES>();
    let key = L::splat(proof, key);
    let (mut top, mut at) = (L::splat(proof, 0), L::splat(proof, 0));
    for (row, seeds) in (0..).zip(rows) {
        let score = L::load(proof, seeds).xor(key).mixed();
        (top, at) = top.larger(at, (score, L::splat(proof, row)));
    }
    let lane = top.equal(L::splat(proof, top.highest())).trailing_zeros() as usize;
    at.row()[lane % LANES] as usize * LANES + lane
}

/// Offers seeds by where they stand and what they score for a key. Whoever takes them says what the next must score at least; what
/// scores less is left out. Of each 64 the higher scores come first, and of equal seeds one, as of [`best`].
#[inline(always)]
pub(super) fn first<L: Lanes>(
    proof: L::Proof,
    seeds: &[u32],
    key: u32,
    mut offer: impl FnMut(usize, u32) -> u32,
) {
    let (rows, _) = seeds.as_chunks::<LANES>();
    let mut floor = 0;
    for (number, rows) in (0_usize..).zip(rows.chunks(ROWS)) {
        let start = number * WINS;
        let mut chunk = Chunk::<L>::new(proof, rows, key);
        loop {
            let top = chunk.top.highest();
            if top < floor {
                break;
            }
            if top == 0 {
                // So were all that were taken, and the one seed that scores nothing.
                if let Some(at) = rows.as_flattened().iter().position(|seed| *seed == key) {
                    floor = offer(start + at, 0);
                }
                break;
            }
            floor = offer(start + chunk.take(proof, top), top);
        }
    }
}

/// The next keys, of those from a multiple of 64 on, for which a node scores no less than the last of their owners does: where these 64
/// start, and a bit for each.
#[inline(always)]
pub(super) fn winners<L: Lanes>(
    proof: L::Proof,
    keys: &[u32],
    seed: u32,
    last: &[u32],
    from: usize,
) -> Option<(usize, u64)> {
    let seed = L::splat(proof, seed);
    let (keys, _) = keys[from..].as_chunks::<LANES>();
    let (last, _) = last[from..].as_chunks::<LANES>();
    for (block, (keys, last)) in (0_usize..).zip(keys.chunks(ROWS).zip(last.chunks(ROWS))) {
        let mut bits = 0;
        for (row, (keys, last)) in (0..).zip(keys.iter().zip(last)) {
            let scores = L::load(proof, keys).xor(seed).mixed();
            bits |= scores.at_least(L::load(proof, last)) << (row * LANES);
        }
        if bits != 0 {
            return Some((from + block * WINS, bits));
        }
    }
    None
}

#[cfg(test)]
mod tests;
