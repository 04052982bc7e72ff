//! Fuzzes [`brickwork_fuzz::map_ops`]; without a fuzzer, replays the files and folders named.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| brickwork_fuzz::map_ops(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    brickwork_fuzz::replay_arguments(brickwork_fuzz::map_ops)
}
