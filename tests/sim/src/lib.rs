//! Whole clusters in a world of their own: one thread, one seed, no clock but the world's. Real replicas, real logs and
//! snapshots on model disks that crash, real clerks; the network, the time and what goes wrong are drawn from the seed.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of this is a test: it says what is wrong by a panic, and nobody depends on it"
)]

pub mod atlas;
pub mod client;
pub mod clocks;
pub mod damage;
pub mod dice;
pub mod disk_threads;
pub mod end;
pub mod entries;
pub mod excuse;
pub mod faults;
pub mod history;
pub mod less;
pub mod life;
pub mod marks;
pub mod nemesis;
pub mod net;
pub mod node;
pub mod process;
pub mod promises;
pub mod queue;
pub mod reads;
pub mod seeds;
pub mod setup;
pub mod shadow;
pub mod shrink;
pub mod soak;
pub mod speed;
pub mod tally;
pub mod tap;
pub mod total;
pub mod trace;
pub mod transfer;
pub mod watch;
pub mod world;
pub mod writer;
