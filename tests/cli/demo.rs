//! `raftmap demo`: its verdict, and that its nodes do not outlive it.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::cluster::{raftmap, run};

#[test]
fn a_short_demo_is_well() {
    let args =
        ["demo", "--seconds", "4", "--kill-every", "1500ms", "--clients", "4", "--seed", "3", "--json"];
    let begun = Instant::now();
    let ended = run(&args).code(0);
    assert!(begun.elapsed() < Duration::from_secs(34), "{:?}", begun.elapsed());
    let json = ended.json();
    for name in
        ["acked", "unknown", "kills", "leader_kills", "restarts", "failover_p50_ms", "failover_max_ms"]
    {
        assert!(json[name].is_u64(), "{name}: {json}");
    }
    for name in ["lost", "doubled", "reordered", "never_sent", "stale_reads", "torn_reads"] {
        assert_eq!(json[name], 0, "{name}: {json}");
    }
    assert!(json["leader_kills"].as_u64() >= Some(1) && json["acked"].as_u64() >= Some(1), "{json}");
    assert!(json["digests_equal"] == true && json["seed"] == 3, "{json}");
    assert!(json["dir"].is_null() && ended.stderr.contains("(leader)"), "{ended:?}");
}

#[test]
fn its_nodes_end_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("run");
    let mut demo = raftmap(&["demo", "--seconds", "60", "--dir"]);
    let mut demo = demo.arg(&place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let name = place.display().to_string();
    wait_for(|| nodes_of(&name) == 3, "three nodes run");
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for(|| nodes_of(&name) == 0, "no node runs");
}

/// Processes that serve below a directory.
fn nodes_of(dir: &str) -> usize {
    let commands = fs::read_dir("/proc").unwrap().filter_map(|process| {
        let line = fs::read(process.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).into_owned())
    });
    commands.filter(|line| line.contains("\0serve\0") && line.contains(dir)).count()
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool, what: &str) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
