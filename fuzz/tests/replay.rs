//! Every input of the corpus holds, and so do fresh ones: random bytes, and mutations of the corpus.
//!
//! A failure names the seed and a file with the input. `BRICKWORK_FUZZ_SEED=SEED cargo test -p
//! brickwork-fuzz` runs the same inputs again; `cargo run -p brickwork-fuzz --bin TARGET -- FILE` runs
//! the one that failed.

use std::panic::catch_unwind;
use std::path::Path;

use brickwork_fuzz::{TARGETS, Target, files_in};

/// Fresh inputs per target on each run, few enough to take seconds.
const FRESH: [(&str, u64); 5] = [
    ("packet", 20_000),
    ("frames", 20_000),
    ("map_ops", 4_000),
    ("swim_ops", 1_500),
    ("restore", 10_000),
];
const MAX_LEN: usize = 600;

#[test]
fn packet() {
    holds("packet");
}

#[test]
fn frames() {
    holds("frames");
}

#[test]
fn map_ops() {
    holds("map_ops");
}

#[test]
fn swim_ops() {
    holds("swim_ops");
}

#[test]
fn restore() {
    holds("restore");
}

#[test]
fn every_target_is_tested() {
    let names = TARGETS.map(|(name, _)| name);
    assert_eq!(names, FRESH.map(|(name, _)| name));
    assert_eq!(names, ["packet", "frames", "map_ops", "swim_ops", "restore"]);
}

fn holds(name: &str) {
    let target = TARGETS.into_iter().find(|target| target.0 == name).expect("a target");
    let corpus = corpus(name);
    for (file, input) in &corpus {
        run(target, input, file);
    }
    let seed = seed();
    let (_, count) = FRESH.into_iter().find(|fresh| fresh.0 == name).expect("a count");
    for number in 0..count {
        let mut dice = Dice(seed.wrapping_add(number));
        let input = fresh(&mut dice, &corpus);
        run(target, &input, &format!("input {number} of BRICKWORK_FUZZ_SEED={seed}"));
    }
}

/// The committed inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = files_in(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let read = |file: &Path| std::fs::read(file).expect("a readable file");
    files.iter().map(|file| (file.display().to_string(), read(file))).collect()
}

/// Hands the input to the target; a panic there is repeated with all that is needed to see it again.
fn run((name, body): Target, input: &[u8], origin: &str) {
    if catch_unwind(|| body(input)).is_err() {
        let file = std::env::temp_dir().join(format!("brickwork-{name}-{}", std::process::id()));
        let saved = std::fs::write(&file, input);
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!(
            "{name} fails on {origin}\nsaved ({saved:?}); replay it with\n\
             cargo run -p brickwork-fuzz --bin {name} -- {}\n{hex}",
            file.display()
        );
    }
}

fn seed() -> u64 {
    if let Ok(seed) = std::env::var("BRICKWORK_FUZZ_SEED") {
        return seed.parse().expect("BRICKWORK_FUZZ_SEED is a number");
    }
    getrandom::u64().expect("entropy of the system")
}

/// One in four is random; the others are inputs of the corpus with a few mutations.
fn fresh(dice: &mut Dice, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    if dice.below(4) == 0 {
        return (0..dice.below(MAX_LEN)).map(|_| dice.byte()).collect();
    }
    let mut input = corpus[dice.below(corpus.len())].1.clone();
    for _ in 0..=dice.below(6) {
        mutate(&mut input, dice, corpus);
    }
    input
}

fn mutate(input: &mut Vec<u8>, dice: &mut Dice, corpus: &[(String, Vec<u8>)]) {
    let at = dice.below(input.len() + 1);
    let end = (at + 1 + dice.below(16)).min(input.len());
    match dice.below(6) {
        0 | 1 => {
            let (bit, value) = (1 << dice.below(8), dice.byte());
            if let Some(byte) = input.get_mut(at) {
                *byte = if value < 128 { *byte ^ bit } else { value };
            }
        }
        2 => drop(input.drain(at..end)),
        3 => {
            let more: Vec<u8> = (0..dice.below(16)).map(|_| dice.byte()).collect();
            input.splice(at..at, more);
        }
        4 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        _ => {
            let other = &corpus[dice.below(corpus.len())].1;
            input.truncate(at);
            input.extend_from_slice(&other[dice.below(other.len() + 1)..]);
        }
    }
    input.truncate(2 * MAX_LEN);
}

/// A small generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
