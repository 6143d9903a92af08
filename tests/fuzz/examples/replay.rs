//! Runs inputs through a fuzz target, on stable: `cargo run -p raftmap-fuzz-targets --example replay -- TARGET FILE…`. Ends
//! with 1 where one fails.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let target = words.next().unwrap_or_default();
    let failed: Vec<_> = words
        .filter(|file| {
            let data = std::fs::read(file).unwrap();
            catch_unwind(|| raftmap_fuzz_targets::run(&target, &data)).is_err()
        })
        .collect();
    println!("{target}: {} failed {}", failed.len(), failed.join(" "));
    ExitCode::from(u8::from(!failed.is_empty()))
}
