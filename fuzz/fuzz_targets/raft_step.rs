//! See `raft_step` in `tests/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftmap_fuzz_targets::run("raft_step", data));
