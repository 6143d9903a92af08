//! Runs every fuzz target over its corpus in `fuzz/corpus`: what fuzzing once found stays found, without nightly. One
//! test only, because the heap that it watches is its own.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is a test, also what stands outside of #[test] functions"
)]

use std::panic::catch_unwind;
use std::path::Path;

use raftmap_fuzz_targets::TARGETS;

/// The inputs of one corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let named = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (named(path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn every_input_of_the_corpora_passes() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let inputs = corpus(target.name);
        assert!(inputs.len() >= 8, "the corpus of {} has {} inputs", target.name, inputs.len());
        for (input, data) in inputs {
            let target = target.name;
            if catch_unwind(|| raftmap_fuzz_targets::run(target, &data)).is_err() {
                failed.push(format!("cargo +nightly fuzz run {target} fuzz/corpus/{target}/{input}"));
            }
        }
    }
    assert!(failed.is_empty(), "see them again with:\n{}", failed.join("\n"));
}
