//! Whole clusters in a world of their own: one thread, one seed, no clock but the world's. Real replicas, real logs and
//! snapshots on model disks that crash, real clerks; the network, the time and what goes wrong are drawn from the seed.
//!
//! First everything goes wrong that the seed allows, and nothing may ever be false. Then the faults stop, and within
//! bounded time everything must come right. What clients saw is judged at the end.
//!
//! A failure prints the command that shows it again: `SIM_SEED=n cargo test --test sim NAME`; with `SIM_SHRINK=1` also the
//! least of it that still fails. `SIM_SEEDS=n` runs more.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of this is a test, also what stands outside of #[test] functions"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raftmap_sim::seeds::seeds;
use raftmap_sim::setup::{Faults, Net, Sabotage, Setup};
use raftmap_sim::shrink::Shrink;
use raftmap_sim::world::World;

/// Worlds that must count.
const ENOUGH: u64 = 200;

/// What so many worlds must have met, or they show nothing. Each mark there is must be met in a long run.
const OFTEN: [&str; 25] = [
    "a call ended as unknown",
    "a disk call was made to fail",
    "a disk was full",
    "a disk was slow",
    "a leader was elected",
    "a log was reset by a snapshot",
    "a log was truncated",
    "a message overtook another",
    "a message was doubled",
    "a message was lost",
    "a node died in a chore",
    "a node died in the midst of writing",
    "a node died writing a snapshot",
    "a node stopped by itself",
    "a node was killed",
    "a node was killed and its cache dropped",
    "a node was paused",
    "a recovery was crashed",
    "a segment was sealed",
    "a snapshot could not be written",
    "a snapshot was delivered",
    "a snapshot was marked",
    "the network was cut",
    "the power was cut",
    "the power was cut and sectors torn",
];

#[test]
fn random_worlds() {
    let tally = seeds("random_worlds", ENOUGH, Setup::draw);
    tally.print();
    if tally.worlds >= ENOUGH {
        let missed: Vec<&&str> = OFTEN.iter().filter(|name| !tally.marks.contains_key(**name)).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
        assert_eq!(tally.faults_found(), Vec::<String>::new());
    }
}

/// Without faults everybody gets through, however small the limits and wide the clocks apart.
#[test]
fn quiet_worlds() {
    let quiet = |seed| {
        let mut setup = Setup::draw(seed);
        (setup.faults, setup.net.loss, setup.net.late) = (Faults::none(), 0, 0);
        setup.safety = setup.safety.min(Duration::from_secs(2));
        setup
    };
    seeds("quiet_worlds", 10, quiet).print();
}

/// The seeds whose worlds are made twice, and the test that says their hashes in another process.
const TWICE: std::ops::Range<u64> = 1_000..1_020;
const HASHES: &str = "SIM_HASHES";

fn hashes() -> Vec<u64> {
    TWICE.map(|seed| World::run(Setup::draw(seed)).hash).collect()
}

/// In two processes, so that nothing of the first can be left over: no address, no table's order, no time of day.
#[test]
fn one_seed_makes_one_world() {
    let one = hashes();
    let this = std::env::current_exe().expect("this test's own file");
    let words = ["--exact", "hashes_of_this_process", "--nocapture", "--test-threads=1"];
    let other =
        std::process::Command::new(this).args(words).env(HASHES, "1").output().expect("a second process");
    let said = String::from_utf8_lossy(&other.stdout);
    let line =
        said.lines().find_map(|line| line.split_once("hashes: ")).unwrap_or_else(|| panic!("{other:?}")).1;
    assert_eq!(line, format!("{one:?}"), "seeds {TWICE:?}");
    let different: BTreeSet<u64> = one.iter().copied().collect();
    assert_eq!(different.len(), one.len(), "other seeds make other worlds");
}

/// The second process of the test above; alone it has nothing to say.
#[test]
fn hashes_of_this_process() {
    if std::env::var_os(HASHES).is_some() {
        println!("hashes: {:?}", hashes());
    }
}

/// How many of the seeds notice it.
fn noticed(sabotage: Sabotage, seeds: std::ops::Range<u64>) -> usize {
    let notices = |seed: &u64| {
        let mut setup = Setup::draw(*seed);
        (setup.sabotage, setup.nodes) = (Some(sabotage), 3);
        (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![setup.syncs[0]; 3]);
        setup.offsets = vec![Duration::ZERO; 3];
        setup.net = Net { loss: 0, ..setup.net };
        catch_unwind(AssertUnwindSafe(|| World::run(setup))).is_err()
    };
    seeds.filter(notices).count()
}

#[test]
fn a_disk_that_acknowledges_early_is_noticed() {
    assert_eq!(noticed(Sabotage::EarlyDurable, 0..3), 3);
}

#[test]
fn reads_without_a_round_are_noticed() {
    assert!(noticed(Sabotage::StaleReads, 0..8) >= 2);
}

/// What a planted fault needs to show itself is left, and little else.
#[test]
fn a_failure_shrinks_to_a_short_schedule() {
    let planted = |seed| Setup { sabotage: Some(Sabotage::EarlyDurable), ..Setup::draw(seed) };
    let shrunk = (0..20).find_map(|seed| {
        let failure = World::attempt(planted(seed)).err()?;
        (failure.struck.len() >= 4).then(|| Shrink::run(planted(seed)).expect("it failed"))
    });
    let shrunk = shrunk.expect("a seed that fails after a few faults");
    shrunk.print();
    let again = World::attempt(shrunk.less.clone().of(planted(shrunk.seed()))).expect_err("it fails again");
    assert_eq!((&again.what, again.at), (&shrunk.failure.what, shrunk.failure.at));
    assert!(shrunk.failure.struck.len() <= 2, "{:?}", shrunk.failure.struck);
}
