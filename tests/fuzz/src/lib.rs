//! The bodies of the fuzz targets, in ordinary code: `fuzz/` runs them on nightly, and `tests/fuzz_corpora.rs` replays
//! `fuzz/corpus` through them on stable. Each takes any bytes, and panics where the code is wrong.
//!
//! Whoever links this crate has its heap counted (see [`memory`]), so the targets run one at a time.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is a test: it says what is wrong by a panic, and nobody depends on it"
)]

mod config;
mod frame;
mod input;
pub mod memory;
mod message;
mod messages;
mod raft_step;
mod session_table;
mod snapshot;
mod wal;

// Models that other tests keep, by the names they call them.
use raftmap::raft;
#[path = "../../../storage/tests/crash/story.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod story;
#[path = "../../../storage/tests/crash/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod world;

/// One target: its name, which is also its corpus' and its binary's, and what it does with an input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: wal::record },
    Target { name: "wal_open", run: wal::wal_open },
    Target { name: "wal_ops", run: wal::wal_ops },
    Target { name: "frame", run: frame::frame },
    Target { name: "message", run: message::message },
    Target { name: "snapshot", run: snapshot::snapshot },
    Target { name: "raft_step", run: raft_step::raft_step },
    Target { name: "session_table", run: session_table::session_table },
    Target { name: "config", run: config::config },
];

/// Runs one input through the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no fuzz target {name}")).run)(data);
}
