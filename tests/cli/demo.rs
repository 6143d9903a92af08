//! `raftmap demo`: its verdict, and that its nodes do not outlive it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cluster::{Ended, raftmap, run};

#[test]
fn a_short_demo_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history.jsonl").display().to_string();
    let args =
        ["demo", "--seconds", "4", "--kill-every", "1500ms", "--clients", "4", "--seed", "3", "--json"];
    let begun = Instant::now();
    let ended = run(&[&args[..], &["--history", &history]].concat()).code(0);
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
    let checked = run(&["check", &history, "--json"]).code(0).json();
    assert!(
        checked["passed"] == true && checked["operations"].as_u64() >= json["acked"].as_u64(),
        "{checked}"
    );
}

#[test]
fn its_nodes_end_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("run");
    let mut demo = raftmap(&["demo", "--seconds", "60", "--dir"]);
    let mut demo = demo.arg(&place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let name = place.display().to_string();
    wait_for(|| nodes_of(&name).len() == 3, "three nodes run");
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for(|| nodes_of(&name).is_empty(), "no node runs");
}

#[test]
fn a_node_that_somebody_else_kills_is_a_failure_and_its_data_is_kept() {
    let mut demo = raftmap(&["demo", "--seconds", "20", "--kill-every", "15s", "--seed", "5", "--json"]);
    let demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Temporary, so it is found by its parent.
    let children = || nodes_of("raftmap-demo-").into_iter().filter(|pid| parent_of(*pid) == Some(demo.id()));
    wait_for(|| children().count() == 3, "three nodes run");
    std::thread::sleep(Duration::from_secs(2));
    let pid = children().next().unwrap().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let ended = Ended::of(demo.wait_with_output().unwrap()).code(1);
    let json = ended.json();
    assert!(
        json["passed"] == false && json["problems"][0].as_str().unwrap().contains("ended by itself"),
        "{json}"
    );
    let dir = json["dir"].as_str().unwrap();
    assert!(fs::exists(format!("{dir}/node-1.log")).unwrap(), "kept: {json}");
    fs::remove_dir_all(dir).unwrap();
}

/// Processes that serve below a directory of this name.
fn nodes_of(dir: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|process| {
        let process = process.ok()?;
        let line = String::from_utf8_lossy(&fs::read(process.path().join("cmdline")).ok()?).into_owned();
        let serves = line.contains("\0serve\0") && line.contains(dir);
        serves.then(|| process.file_name().to_str()?.parse().ok()).flatten()
    });
    processes.collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool, what: &str) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
