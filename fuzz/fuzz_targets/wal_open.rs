//! Opening any directory, with an eye on the memory it takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use raftmap_storage::fuzz_targets::{memory_bound, wal_open};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fuzz_target!(|data: &[u8]| {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let bytes = wal_open(data);
    let taken = MEMORY.peak_usage().saturating_sub(before) as u64;
    assert!(taken <= memory_bound(bytes), "{taken} bytes of memory for {bytes} bytes of files");
});
