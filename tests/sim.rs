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
use std::panic::catch_unwind;
use std::time::Duration;

use raftmap::check::check;
use raftmap::lines;
use raftmap_sim::damage::Directory;
use raftmap_sim::history::{self, Call, End, What, json_lines};
use raftmap_sim::less::Less;
use raftmap_sim::life::Crash;
use raftmap_sim::marks;
use raftmap_sim::net;
use raftmap_sim::seeds::seeds;
use raftmap_sim::setup::{Faults, Net, Sabotage, Setup};
use raftmap_sim::shrink::Shrink;
use raftmap_sim::world::{Event, Report, World};

#[path = "sim/parts_tests.rs"]
mod parts_tests;
#[path = "sim/schedule_tests.rs"]
mod schedule_tests;
#[path = "sim/watch_tests.rs"]
mod watch_tests;

/// Worlds that must count.
const ENOUGH: u64 = 200;

#[test]
fn random_worlds() {
    let tally = seeds("random_worlds", ENOUGH, Setup::draw);
    tally.print();
    if tally.worlds >= ENOUGH {
        // What so many worlds did not meet, they show nothing about.
        let missed: Vec<_> = tally.missed(marks::USUAL.iter().copied()).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

/// Seeds of long runs that found something, and what of it their worlds still meet: late refusals that named a sound follower as
/// regressed (again when they came seconds late), or kept it waiting; a clerk that never left a silent server; a leader without room that did not see its disk
/// hang; a full follower that was sent little; damage found after the last fault; a chore's failure heard of late; a session
/// table that stayed full. The long ones only begin.
#[test]
fn worlds_that_once_failed() {
    const FOUND: [(u64, Option<u64>, &str); 12] = [
        (183, Some(2_000), "a refusal raised a doubt"),
        (1_001_317, None, "a clerk left a server that was silent to all its calls"),
        (1_001_591, None, "a clerk left a server that was silent to all its calls"),
        (1_002_892, None, "a leader without room asked its disk"),
        (1_006_094, None, "a leader without room asked its disk"),
        (1_015_906, Some(3_000), "a leader without room asked its disk"),
        (4_012_548, Some(1_000), "a follower said that it has room again"),
        (4_012_871, None, "a damaged node refused to start and said where"),
        (8_031_793, None, "a node stopped by itself"),
        (8_084_201, None, "there were too many sessions for one more"),
        (9_543_811, None, "a refusal raised a doubt"),
        (10_001_906, Some(2_000), "a refusal raised a doubt"),
    ];
    let others = FOUND.iter().filter(|(seed, until, met)| {
        // Links were alike then, connections did not break by themselves, and inboxes had room.
        let without = ["uneven", "broken", "inbox"].map(str::to_owned).into();
        let less = Less { until: *until, without, ..Less::default() };
        let report = World::new(less.of(Setup::draw(*seed))).to_the_end();
        !report.marks.contains_key(met)
    });
    let others: Vec<_> = others.collect();
    assert!(
        others.is_empty(),
        "these are other worlds by now: others are to be found that meet it: {others:?}"
    );
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
    let tally = seeds("quiet_worlds", 10, quiet);
    tally.print();
    // One election each, but where a slow disk or a slow network takes longer than somebody's patience.
    let elected = tally.marks["a leader was elected"];
    assert!(elected <= tally.worlds + 2, "{elected} elections in {} worlds", tally.worlds);
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

/// The history of a world in a file is the history that was judged, for whoever reads it.
#[test]
fn a_history_in_lines_is_the_history() {
    let read = |calls: &[Call]| {
        let text: String = json_lines(calls).map(|line| line + "\n").collect();
        check(&lines::read(text.as_bytes()).expect("our own lines"))
    };
    let mut world = World::new(Setup::draw(7));
    let report = world.lived().expect("nothing is wrong");
    let verdict = read(&world.history);
    assert!(verdict.passed() && verdict.operations > 500, "{verdict}");
    let looked = [
        (history::CALLS, verdict.operations),
        (history::ORDERED, verdict.checks.ordered),
        (history::WITNESSED, verdict.checks.answers.checks),
        (history::SEARCHED, verdict.checks.windows.checks),
    ];
    assert!(looked.iter().all(|(name, count)| report.checked[name] == *count), "{looked:?}, {report:?}");
    // A write that nobody asked for.
    let is_written =
        |call: &Call| matches!((&call.what, &call.end), (What::Append { .. }, End::Written { .. }));
    let place = world.history.iter().position(is_written).expect("an append");
    world.history.remove(place);
    assert!(!read(&world.history).is_clean());
}

/// What the seeds say that notice it.
fn noticed(sabotage: Sabotage, seeds: impl Iterator<Item = u64>) -> Vec<String> {
    let notices = |seed| {
        let mut setup = Setup::draw(seed);
        (setup.sabotage, setup.nodes) = (Some(sabotage), 3);
        (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![setup.syncs[0]; 3]);
        setup.offsets = vec![Duration::ZERO; 3];
        setup.net = Net { loss: 0, ..setup.net };
        World::attempt(setup).err().map(|failure| failure.what)
    };
    seeds.filter_map(notices).collect()
}

#[test]
fn a_disk_that_acknowledges_early_is_noticed() {
    assert_eq!(noticed(Sabotage::EarlyDurable, 0..3).len(), 3);
}

/// By a look at the disk itself, where no crash, no purge and not the end of the world would show it as soon.
#[test]
fn a_disk_that_lies_about_its_syncs_is_noticed() {
    let lying = |seed| {
        let mut setup = Setup::draw(seed);
        (setup.sabotage, setup.nodes, setup.faults) = (Some(Sabotage::LyingDisks), 3, Faults::none());
        (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![setup.syncs[0]; 3]);
        (setup.max_raft_state, setup.safety) = (None, Duration::from_secs(10));
        // The more a disk holds, the more seldom it is looked at.
        (setup.sizes.log.segment_bytes, setup.load.filler) = (32_768, 0);
        World::attempt(setup).err().map(|failure| failure.what)
    };
    let said: Vec<String> = (0..6).filter_map(lying).collect();
    // Some of these worlds do not sync often enough.
    assert!(said.iter().filter(|what| what.contains("after a sync")).count() >= 3, "{said:#?}");
}

/// By the disks themselves: an entry is called committed, or acknowledged, and a majority does not hold it.
#[test]
fn a_commit_without_a_durable_quorum_is_noticed() {
    let said = noticed(Sabotage::EarlyLeader, 0..6);
    assert!(said.iter().any(|what| what.contains("is on 1 of 3 disks")), "{said:#?}");
}

#[test]
fn reads_without_a_round_are_noticed() {
    assert!(noticed(Sabotage::StaleReads, 0..8).len() >= 7);
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
        world.after(until, Event::Silent(None));
        let nodes = world.nodes.len() as u64;
        let report = world.to_the_end();
        assert_eq!(report.marks["a damaged node refused to start and said where"], nodes, "seed {seed}");
        halted += 1;
    }
    assert!(halted >= 6, "{halted} worlds had a record in every log");
}

/// A leader is cut off and goes on writing what nobody else gets; its directory is copied then. Later, when its log is
/// like the others' again, the copy takes the directory's place. Its leader has counted it up to the end of the log and
/// tells it of commits there, where it now has other entries.
fn set_back_to_another_branch(seed: u64) -> Option<Report> {
    let mut setup = Setup::draw(seed);
    (setup.nodes, setup.faults, setup.net.loss, setup.net.late) = (3, Faults::none(), 0, 0);
    (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![setup.syncs[0]; 3]);
    setup.safety = Duration::from_secs(5);
    let mut world = World::new(setup);
    while world.step(Duration::from_secs(1)) {}
    let old = world.leader()?;
    let others = (0..3).filter(|at| *at != old);
    let apart = others.flat_map(|at| {
        [(net::End::Node(old), net::End::Node(at)), (net::End::Node(at), net::End::Node(old))]
    });
    world.links.cut_only(apart.collect());
    while world.step(Duration::from_secs(2)) {}
    let branch = world.nodes[old].disk.kill();
    world.nodes[old].backups.push(branch);
    world.links.heal();
    while world.step(Duration::from_secs(3)) {}
    world.swap(old, Directory::Older);
    Some(world.to_the_end())
}

#[test]
fn a_node_set_back_to_another_branch_commits_nothing_of_it() {
    let reports: Vec<Report> = (0..6).filter_map(set_back_to_another_branch).collect();
    let count = |mark| reports.iter().filter(|report| report.marks.contains_key(mark)).count();
    assert!(count("a directory was rolled back") >= 3, "only {}", count("a directory was rolled back"));
    assert!(count("a log was truncated") >= 3, "only {}", count("a log was truncated"));
}
