//! Calls on a cluster: what is printed, and the exit codes.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::{Cluster, Ended, free_address, raftmap, run};

fn call_with_stdin(cluster: &Cluster, args: &[&str], stdin: &[u8]) -> Ended {
    let mut command = raftmap(args);
    command.args(cluster.reach()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    Ended::of(child.wait_with_output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_print_what_they_did() {
    let cluster = Cluster::start(&[]).await;
    values(&cluster);
    versions(&cluster);
    pages(&cluster);
    looks(&cluster);
    load(&cluster);
}

fn values(cluster: &Cluster) {
    let put = cluster.call(&["put", "color", "green"]).code(0);
    assert!(put.text().starts_with("version "), "{put:?}");
    let get = cluster.call(&["get", "color"]).code(0);
    assert_eq!((get.text(), get.stderr.as_str()), ("green", ""), "the value alone");
    cluster.call(&["append", "color", "ish"]).code(0);
    assert_eq!(cluster.call(&["get", "color"]).code(0).text(), "greenish");
    assert_eq!(cluster.call(&["get", "color", "--stale"]).code(0).text(), "greenish");

    let bytes = b"\x00\xff\n line\r\n\n";
    call_with_stdin(cluster, &["put", "raw", "-"], bytes).code(0);
    assert_eq!(cluster.call(&["get", "raw"]).code(0).stdout, bytes);
    let json = cluster.call(&["get", "raw", "--json"]).code(0).json();
    assert_eq!((&json["found"], &json["value_base64"]), (&json!(true), &json!("AP8KIGxpbmUNCgo=")));
    cluster.call(&["put", "empty", ""]).code(0);
    assert_eq!(cluster.call(&["get", "empty"]).code(0).text(), "", "there, and empty");

    let absent = cluster.call(&["get", "nowhere"]).code(1);
    assert!(absent.stdout.is_empty() && absent.stderr.contains("absent"), "{absent:?}");
    let json = cluster.call(&["get", "nowhere", "--json"]).code(1).json();
    assert_eq!(json, json!({ "key": "nowhere", "found": false, "version": 0 }));

    let large = "x".repeat(5_000);
    let refused = cluster.call(&["put", &large, "v"]).code(4);
    assert!(refused.stderr.contains("5000") && refused.stderr.contains("4096"), "both numbers: {refused:?}");
    let refused = cluster.call(&["put", "", "v", "--json"]).code(4);
    assert_eq!(refused.json()["exit_code"], 4, "{refused:?}");
}

fn versions(cluster: &Cluster) {
    let version = cluster.call(&["put", "lock", "a", "--json"]).code(0).json()["version"].as_u64().unwrap();
    assert_eq!(cluster.call(&["get", "lock", "--json"]).code(0).json()["version"], version);
    let mismatch = cluster.call(&["cas", "lock", "0", "b"]).code(1);
    assert_eq!(mismatch.text(), format!("not stored: the version is {version}, not 0\n"));
    let json = cluster.call(&["cas", "lock", "7777777", "b", "--json"]).code(1).json();
    assert_eq!(json, json!({ "swapped": false, "current": version }));
    let json = cluster.call(&["cas", "lock", &version.to_string(), "b", "--json"]).code(0).json();
    assert!(json["swapped"] == true && json["version"].as_u64().unwrap() > version, "{json}");
    assert_eq!(cluster.call(&["get", "lock"]).code(0).text(), "b");
    cluster.call(&["cas", "fresh", "0", "mine"]).code(0);
    cluster.call(&["cas", "fresh", "0", "mine too"]).code(1);
    assert_eq!(cluster.call(&["delete", "fresh"]).code(0).text(), "deleted\n");
    assert_eq!(cluster.call(&["delete", "fresh", "--json"]).code(1).json(), json!({ "existed": false }));
}

fn pages(cluster: &Cluster) {
    for key in ["p/a", "p/b", "p/c", "q"] {
        cluster.call(&["put", key, &format!("value of\t{key}")]).code(0);
    }
    let all = cluster.call(&["scan", "p/"]).code(0);
    let keys: Vec<_> = all.text().lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(keys, ["p/a", "p/b", "p/c"]);
    assert!(all.text().contains("value of\\tp/a") && all.stderr.is_empty(), "{all:?}");
    let some = cluster.call(&["scan", "p/", "--limit", "1", "--after", "p/a"]).code(0);
    assert!(some.text().starts_with("p/b\t") && some.stderr.contains("--after"), "{some:?}");
    let json = cluster.call(&["scan", "p/", "--limit", "2", "--json"]).code(0).json();
    assert_eq!((&json["more"], &json["pairs"][1]["key"]), (&json!(true), &json!("p/b")));
    let json = cluster.call(&["scan", "nothing", "--json"]).code(0).json();
    assert_eq!(json, json!({ "pairs": [], "more": false }));
}

fn looks(cluster: &Cluster) {
    let table = cluster.call(&["status"]).code(0);
    assert_eq!(table.text().lines().count(), 4, "{table:?}");
    for title in ["id", "address", "role", "term", "last", "committed", "applied", "fsync p99", "trails"] {
        assert!(table.text().lines().next().unwrap().contains(title), "{table:?}");
    }
    assert!(table.text().contains("leader") && table.text().matches("follower").count() == 2, "{table:?}");
    let json = cluster.call(&["status", "--json"]).code(0).json();
    assert_eq!(json["nodes"].as_array().unwrap().len(), 3);
    for name in ["raft_state_bytes", "disk_bytes", "snapshot", "fsync_p50_us", "fsync_p99_us", "trails"] {
        assert!(json["nodes"][0][name].is_u64(), "{name}: {json}");
    }

    let mut with_stranger = cluster.reach();
    with_stranger[1] = format!("{},{}", with_stranger[1], free_address());
    let mut command = raftmap(&["status", "--json", "--timeout", "1s"]);
    let some = Ended::of(command.args(&with_stranger).output().unwrap()).code(0);
    assert_eq!(some.json()["nodes"][3]["reachable"], false);
    let mut command = raftmap(&["get", "color"]);
    command.env("RAFTMAP_SERVERS", &with_stranger[1]).env("RAFTMAP_IDENTITY", &with_stranger[3]);
    assert_eq!(Ended::of(command.output().unwrap()).code(0).text(), "greenish");
}

fn load(cluster: &Cluster) {
    for op in ["put", "append", "get"] {
        let args =
            ["bench", "--op", op, "--clients", "9", "--seconds", "1", "--value-bytes", "100", "--json"];
        let json = cluster.call(&args).code(0).json();
        assert_eq!(
            (&json["op"], &json["clients"], &json["errors"]),
            (&json!(op), &json!(9), &json!(0)),
            "{json}"
        );
        let times = ["p50_us", "p99_us", "max_us"].map(|name| json[name].as_u64().unwrap());
        assert!(json["ops_per_s"].as_u64().unwrap() > 0 && times.is_sorted(), "{json}");
    }
    // 27 sessions and those of all the commands before have been given back. A command waits half a second for that: on
    // a slow disk a few are left to their expiry.
    let json = cluster.call(&["status", "--json"]).code(0).json();
    assert!(json["nodes"][0]["sessions"].as_u64().unwrap() < 9, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_a_command_ends_in_time() {
    let cluster = Cluster::start(&[]).await;
    cluster.call(&["put", "k", "v"]).code(0);
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.signal(*id, "STOP");
    }
    let begun = Instant::now();
    // Not even a session was to be had, so it was not done.
    let refused = cluster.call(&["put", "k", "w", "--timeout", "1s", "--json"]).code(4);
    assert_eq!(refused.json()["exit_code"], 4, "{refused:?}");
    let unread = cluster.call(&["get", "k", "--timeout", "1s"]).code(4);
    assert!(unread.stdout.is_empty(), "{unread:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(cluster.call(&["get", "k", "--stale", "--timeout", "5s"]).code(0).text(), "v");
    for id in &others {
        cluster.signal(*id, "CONT");
    }
    assert_eq!(cluster.call(&["get", "k", "--timeout", "15s"]).code(0).text(), "v");

    let nobody = free_address().to_string();
    let begun = Instant::now();
    run(&["put", "k", "v", "--servers", &nobody, "--timeout", "700ms"]).code(4);
    run(&["bench", "--servers", &nobody, "--timeout", "700ms", "--clients", "1", "--seconds", "1"]).code(4);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let silent = run(&["status", "--servers", &nobody, "--timeout", "700ms"]).code(4);
    assert!(silent.text().contains("unreachable"), "{silent:?}");
}

/// The followers are stopped while commands are under way, so that sooner or later one has sent its write and hears
/// nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_sent_and_not_answered_is_unknown() {
    let cluster = Cluster::start(&[]).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for round in 0..20 {
        cluster.wait_all_applied().await;
        let puts: Vec<_> = (0..10)
            .map(|number| {
                std::thread::sleep(Duration::from_millis(8));
                let mut put =
                    raftmap(&["put", &format!("{round}/{number}"), "v", "--timeout", "1s", "--json"]);
                put.args(cluster.reach()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        others.iter().for_each(|id| cluster.signal(*id, "STOP"));
        let ends: Vec<Ended> =
            puts.into_iter().map(|put| Ended::of(put.wait_with_output().unwrap())).collect();
        others.iter().for_each(|id| cluster.signal(*id, "CONT"));
        assert!(ends.iter().all(|end| matches!(end.code, Some(0 | 3 | 4))), "{ends:?}");
        if let Some(unknown) = ends.iter().find(|end| end.code == Some(3)) {
            assert!(unknown.stderr.contains("unknown") && unknown.json()["exit_code"] == 3, "{unknown:?}");
            return;
        }
    }
    panic!("no write was caught on its way");
}

#[test]
fn what_cannot_be_asked_for_is_refused_in_words() {
    for (args, words) in [
        (&["put", "k"][..], "<VALUE>"),
        (&["get", "k"], "--servers"),
        (&["get", "k", "--servers", "127.0.0.1:1", "--timeout", "5"], "no unit"),
        (&["get", "k", "--servers", "192.0.2.1:7001"], "raftmap cert client"),
        (&["demo", "--seconds", "2", "--kill-every", "2s"], "--seconds 2"),
        (
            &["serve", "--id", "1", "--dir", "/nonexistent/d", "--listen", "192.0.2.1:7001"],
            "raftmap cert node",
        ),
        (&["serve", "--id", "1", "--dir", "d", "--listen", "127.0.0.1:1", "--max-raft-state", "10"], "1000"),
    ] {
        let refused = run(args).code(2);
        assert!(refused.stderr.contains(words) && refused.stdout.is_empty(), "{args:?}: {refused:?}");
    }
    let help = run(&["help"]).code(0);
    assert!(help.text().contains("Exit codes:") && help.text().contains("raftmap demo"), "{help:?}");
    run(&["--version"]).code(0);
}
