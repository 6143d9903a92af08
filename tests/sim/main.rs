//! Whole clusters in a world of their own: one thread, one seed, no clock but the world's. Real replicas, real logs and
//! snapshots on model disks that crash, real clerks; the network, the time and what goes wrong are drawn from the seed.
//!
//! First everything goes wrong that the seed allows, and nothing may ever be false. Then the faults stop, and within
//! bounded time everything must come right. What clients saw is judged at the end.
//!
//! A failure prints the command that shows it again: `SIM_SEED=n cargo test --test sim NAME`. `SIM_SEEDS=n` runs more.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of this is a test, also what stands outside of #[test] functions"
)]

mod check;
mod client;
mod dice;
mod faults;
mod net;
mod node;
mod process;
mod seeds;
mod setup;
mod shadow;
mod trace;
mod transfer;
mod watch;
mod world;
mod writer;

use seeds::seeds;
use setup::Setup;
use world::World;

#[test]
fn random_worlds() {
    let tally = seeds("random_worlds", 100, |seed| World::run(Setup::draw(seed)));
    tally.print();
}
