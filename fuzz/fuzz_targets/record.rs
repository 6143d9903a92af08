//! The log decoder on any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| raftmap_storage::fuzz_targets::record(data));
