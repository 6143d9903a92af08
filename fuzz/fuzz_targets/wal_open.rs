//! See `wal_open` in `tests/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftmap_fuzz_targets::run("wal_open", data));
