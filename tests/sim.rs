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

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raftmap_sim::damage::Directory;
use raftmap_sim::life::Crash;
use raftmap_sim::seeds::{Tally, seeds};
use raftmap_sim::setup::{Faults, Net, Sabotage, Setup};
use raftmap_sim::world::{Event, Report, World};

#[path = "sim/watch_tests.rs"]
mod watch_tests;

/// Fewer seeds than this may miss something rare.
const ENOUGH: u64 = 150;

/// What many worlds must have met, or they show nothing. Rarer things are in the table alone.
const OFTEN: &[&str] = &[
    "a call ended as unknown",
    "a disk call was made to fail",
    "a disk was full",
    "a disk was slow",
    "a leader was elected",
    "a log was reset by a snapshot",
    "a log was truncated",
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
    "a snapshot to be sent was gone",
    "a clock leapt",
    "a copy was started as another node",
    "a crash loop came to its end",
    "a damaged node refused to start and said where",
    "a directory sync failed",
    "a directory was emptied",
    "a directory was rolled back",
    "a disk lost what others hold, and could not know",
    "a file vanished",
    "a leader named a member that lost what it had acknowledged",
    "a log found space again without a restart",
    "a log ran out of space",
    "a map was misread",
    "a message overtook another",
    "a message was doubled",
    "a message was lost",
    "a node died behind the OPEN of a segment",
    "a node was cut off one way",
    "a node went on from a copy of its directory",
    "a read failed",
    "a second process was started on a directory",
    "a sector became unreadable",
    "a sector was zeroed",
    "a sound copy was brought back",
    "a sync failed and dropped its pages",
    "a sync failed and everything was on the disk",
    "a sync lied",
    "a write failed",
    "a write was short",
    "a write went astray",
    "bits rotted in NODE",
    "bits rotted in a sealed segment",
    "bits rotted in a snapshot",
    "bits rotted in the last segment",
    "bits rotted under a running node",
    "one direction of a link was slow",
    "one node saw both parts of a cut network",
    "one node was cut off",
    "the atlas kept a disk from harm",
    "the end came with a damaged node",
    "the end came with a dead node",
    "the end came with a disk that hangs",
    "the end came with a node cut off",
    "the end came with a stopped process",
    "the network was a ring",
    "the network was cut in two",
    "segments were purged",
];

fn met(tally: &Tally) {
    tally.print();
    if tally.worlds >= ENOUGH {
        let met: BTreeSet<&str> = tally.marks.keys().copied().collect();
        let missed: Vec<&&str> = OFTEN.iter().filter(|name| !met.contains(*name)).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
        // Worlds in which hardly anything was done show nothing.
        assert!(tally.idle * 10 <= tally.worlds, "{} worlds did hardly anything", tally.idle);
    }
}

#[test]
fn random_worlds() {
    met(&seeds("random_worlds", ENOUGH, |seed| World::run(Setup::draw(seed))));
}

/// Without faults everybody gets through, however small the limits and wide the clocks apart.
#[test]
fn quiet_worlds() {
    let quiet = |seed| {
        let mut setup = Setup::draw(seed);
        (setup.faults, setup.net.loss, setup.net.late) = (Faults::none(), 0, 0);
        setup.safety /= 4;
        World::run(setup)
    };
    let tally = seeds("quiet_worlds", 10, quiet);
    tally.print();
    assert_eq!(tally.idle, 0);
}

#[test]
fn one_seed_makes_one_world() {
    for seed in 1_000..1_006 {
        let (first, second) = (World::run(Setup::draw(seed)), World::run(Setup::draw(seed)));
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(World::run(Setup::draw(1_000)).hash, World::run(Setup::draw(1_001)).hash);
}

/// How many of the seeds notice it.
fn noticed(sabotage: Sabotage, seeds: impl Iterator<Item = u64>) -> usize {
    let notices = |seed: u64| {
        let mut setup = Setup::draw(seed);
        (setup.sabotage, setup.nodes) = (Some(sabotage), 3);
        (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![setup.syncs[0]; 3]);
        setup.offsets = vec![Duration::ZERO; 3];
        setup.net = Net { loss: 0, ..setup.net };
        catch_unwind(AssertUnwindSafe(|| World::run(setup))).is_err()
    };
    seeds.filter(|seed| notices(*seed)).count()
}

#[test]
fn a_disk_that_acknowledges_early_is_noticed() {
    assert_eq!(noticed(Sabotage::EarlyDurable, 0..3), 3);
}

#[test]
fn reads_without_a_round_are_noticed() {
    assert!(noticed(Sabotage::StaleReads, 0..8) >= 7);
}

/// Two of three directories are emptied while the third node is away, as far as the atlas lets them be.
fn two_of_three_emptied(sabotage: Option<Sabotage>) -> Report {
    let mut setup = Setup::draw(4);
    (setup.nodes, setup.sabotage, setup.faults, setup.net.loss) = (3, sabotage, Faults::none(), 0);
    (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![setup.syncs[0]; 3]);
    setup.safety = Duration::from_secs(8);
    let mut world = World::new(setup);
    while world.step(Duration::from_secs(2)) {}
    world.crash(2, Crash::Kill);
    world.nodes[2].locked_out = true;
    world.after(Duration::from_secs(4), Event::Directory(2, Directory::Copied, 0));
    (0..2).for_each(|at| world.swap(at, Directory::Emptied));
    world.to_the_end()
}

/// What the atlas forbids is what no cluster can bear: done all the same, acknowledged writes are lost, and that is seen.
#[test]
fn harm_beyond_the_atlas_is_noticed() {
    let beyond = || two_of_three_emptied(Some(Sabotage::NoAtlas));
    assert!(catch_unwind(beyond).is_err());
    let report = two_of_three_emptied(None);
    assert_eq!(report.marks.get("a directory was emptied"), Some(&1), "the second one would be one too many");
}

/// Every copy of a record is damaged: all nodes halt and name it, and nothing is served.
#[test]
fn total_damage_is_a_halt_that_names_the_record() {
    let mut halted = 0;
    for seed in 0..12 {
        let mut setup = Setup::draw(seed);
        (setup.faults, setup.net.loss, setup.net.late) = (Faults::none(), 0, 0);
        setup.safety = Duration::from_secs(1_000);
        let mut world = World::new(setup);
        let until = Duration::from_secs(2);
        while world.step(until) {}
        if world.damage_everywhere().is_none() {
            continue;
        }
        // What was on its way still arrives; then there is nobody.
        while world.step(until * 2) {}
        let done = world.done;
        while world.step(until * 5) {}
        assert!(world.nodes.iter().all(|node| node.life.is_none()), "seed {seed}: a node runs");
        assert_eq!(world.done, done, "seed {seed}: somebody serves");
        assert_eq!(
            world.trace.marks["a damaged node refused to start and said where"],
            world.nodes.len() as u64
        );
        halted += 1;
    }
    assert!(halted >= 6, "{halted} worlds had a record in every log");
}
