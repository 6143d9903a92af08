//! Runs the fuzz targets over their corpora in `fuzz/corpus`: what fuzzing once found stays found, without nightly.
//! One test only, so that the memory it watches is its own.
#![allow(clippy::expect_used, reason = "all of this is a test")]

use std::path::Path;

use peak_alloc::PeakAlloc;
use raftmap_storage::fuzz_targets::{memory_bound, record, wal_open};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).expect("the corpus is in the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

#[test]
fn every_input_of_the_corpora_passes() {
    let (records, directories) = (corpus("record"), corpus("wal_open"));
    assert!(records.len() >= 10 && directories.len() >= 10, "corpora are missing");
    records.iter().for_each(|data| record(data));
    for data in directories {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let bytes = wal_open(&data);
        let taken = MEMORY.peak_usage().saturating_sub(before) as u64;
        assert!(taken <= memory_bound(bytes), "{taken} bytes of memory for {bytes} bytes of files: {data:?}");
    }
}
