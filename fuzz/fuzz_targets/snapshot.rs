//! See `snapshot` in `tests/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftmap_fuzz_targets::run("snapshot", data));
