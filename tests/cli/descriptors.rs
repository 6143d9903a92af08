//! A node that may open few files: it refuses to start in words, serves, or stops as for any failure of its disk. What
//! it acknowledged is there in any case.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, PATIENCE};

const ENOUGH: u64 = 64;

/// What became of a node that may open so many files.
enum End {
    /// It acknowledged this, and was killed.
    Served(String),
    /// It ended by itself, with this code and these words.
    Stopped(Option<i32>, String),
}

async fn with_files(cluster: &Cluster, files: u64) -> End {
    let serve = cluster.serve(1);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"]).arg(serve.get_program());
    limited.args(serve.get_args()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut node = limited.spawn().unwrap();
    let clerk = cluster.clerk().with_deadline(Duration::from_secs(1));
    let begun = Instant::now();
    for attempt in 1.. {
        if node.try_wait().unwrap().is_some() {
            break;
        }
        // One whose answer did not come in time may count as well: each attempt writes something else.
        let token = format!("{files}.{attempt};");
        let Err(error) = clerk.append("log", token.as_str()).await else {
            node.kill().unwrap();
            node.wait().unwrap();
            return End::Served(token);
        };
        if begun.elapsed() > PATIENCE {
            node.kill().unwrap();
            let killed = node.wait_with_output().unwrap();
            panic!(
                "with {files} files it neither serves ({error}) nor ends: {}",
                String::from_utf8_lossy(&killed.stderr)
            );
        }
    }
    let ended = node.wait_with_output().unwrap();
    End::Stopped(ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// What the system says of the node's thread for chores: `S` while it waits for one, `R` or `D` while it works.
fn chores_thread(pid: u32) -> Option<char> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default());
    stats.into_iter().find_map(|stat| stat.split_once("(raftmap-chores) ")?.1.chars().next())
}

/// Waits until the segment after the first one is ready. A log that cannot make it when it wants it fails, as it does
/// for any failure of its disk; once it is there, nothing needs to be opened until it is in use.
async fn wait_for_the_next_segment(cluster: &Cluster) {
    let begun = Instant::now();
    let segments = || {
        let names = std::fs::read_dir(cluster.node_dir(1)).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".wal")).count()
    };
    // Having a name is not the last step: the directory is opened after it, for its sync.
    while segments() < 2 || chores_thread(cluster.pid(1)) != Some('S') {
        assert!(begun.elapsed() < PATIENCE, "{} segments, {:?}", segments(), chores_thread(cluster.pid(1)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Case P13. The log's files are open by then: nothing more may be opened, and writes go on.
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_open_log_still_writes() {
    let mut cluster = Cluster::prepare(1, &[]);
    cluster.spawn_all().await;
    wait_for_the_next_segment(&cluster).await;
    let clerk = cluster.clerk();
    clerk.put("log", "").await.unwrap();
    let limited = Command::new("prlimit").args(["--nofile=3", "--pid", &cluster.pid(1).to_string()]).status();
    assert!(limited.expect("prlimit, of util-linux").success());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", cluster.pid(1))).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max open files            3 ")), "{limits}");
    let tokens: Vec<String> = (0..100).map(|number| format!("{number};")).collect();
    for token in &tokens {
        clerk.append("log", token).await.unwrap();
    }
    cluster.kill(1);
    cluster.spawn_all().await;
    let found = cluster.clerk().get("log").await.unwrap().expect("it was written").value;
    assert_eq!(found, tokens.concat(), "everything acknowledged, once");
}

/// The same from the start on.
#[tokio::test(flavor = "multi_thread")]
async fn few_files_are_refused_in_words_or_enough() {
    let mut cluster = Cluster::prepare(1, &[]);
    cluster.spawn_all().await;
    cluster.clerk().put("log", "").await.unwrap();
    cluster.kill(1);
    let (mut stopped, mut served) = (0, Vec::new());
    for files in [10, 14, 18, 22, 26, ENOUGH] {
        match with_files(&cluster, files).await {
            End::Served(token) => served.push(token),
            // Here not even the system's libraries could be opened: no code of ours ran.
            End::Stopped(_, words) if words.contains("error while loading shared libraries") => {}
            End::Stopped(code, words) => {
                assert!(
                    words.contains("Too many open files") && !words.contains("panicked"),
                    "{files}: {words}"
                );
                assert!(matches!(code, Some(2..=5)), "{files}: {code:?}, {words}");
                stopped += 1;
            }
        }
    }
    assert!(
        stopped > 0 && served.last().is_some_and(|token| token.starts_with(&format!("{ENOUGH}."))),
        "{stopped} stopped, {served:?} served"
    );
    cluster.spawn_all().await;
    let found = cluster.clerk().get("log").await.unwrap().expect("it was written").value;
    let found = String::from_utf8(found.to_vec()).unwrap();
    for token in served {
        assert_eq!(found.matches(&token).count(), 1, "{token} in {found}");
    }
}
