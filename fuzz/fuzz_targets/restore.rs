//! Fuzzes [`brickwork_fuzz::restore`]; without a fuzzer, replays the files and folders named.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| brickwork_fuzz::restore(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    brickwork_fuzz::replay_arguments(brickwork_fuzz::restore)
}
