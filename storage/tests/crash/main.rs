//! The log on the model disk: crashed at every call, with every call failing, with every bit flipped, and at random.
//!
//! What is checked, everywhere: what opens is a state the log was once in, no older than the last acknowledged one. So
//! nothing acknowledged is missing, term and vote never go back, there is no hole, nothing that was never proposed, and
//! nothing that was truncated returns. What was opened once stays, whatever happens before the next write.
//!
//! By default each test takes a sample that ends within seconds; `RAFTMAP_EXHAUSTIVE=1` takes everything. A failure
//! prints the one command that shows it again.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of this is a test, also what stands outside of #[test] functions"
)]

mod bounds;
mod damage;
mod explore;
mod failing_calls;
mod failing_syncs;
mod flipped_bits;
mod ghosts;
mod random;
mod story;
mod stray_writes;
mod world;

/// Whether to leave nothing out.
fn exhaustive() -> bool {
    std::env::var_os("RAFTMAP_EXHAUSTIVE").is_some_and(|value| value == "1")
}

/// `few`, or `all` when nothing is to be left out.
fn sample(few: u64, all: u64) -> u64 {
    if exhaustive() { all } else { few }
}
