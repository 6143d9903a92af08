//! Directories and certificates: what is in use, what is sound, what is not written over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Ended, STOP_MAX, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_process() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.call(&["put", "color", "green"]).code(0);
    let dir = cluster.node_dir(1).display().to_string();
    let pid = cluster.pid(1).to_string();
    let begun = Instant::now();
    let second = Ended::of(cluster.serve(1).output().unwrap()).code(5);
    assert!(second.stderr.contains(&pid) && second.stderr.contains(&dir), "{second:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "refused at once, not after waiting: {:?}",
        begun.elapsed()
    );
    let used = run(&["log", "verify", "--dir", &dir]).code(5);
    assert!(used.stderr.contains(&pid), "{used:?}");
    run(&["log", "dump", "--dir", &dir, "--json"]).code(5);

    let (took, status) = cluster.terminate(1).await;
    assert!(took < STOP_MAX && status.success(), "{took:?} {status}");
    let sound = run(&["log", "verify", "--dir", &dir]).code(0);
    assert!(sound.text().contains("sound: node 1"), "{sound:?}");
    let json = run(&["log", "verify", "--dir", &dir, "--json"]).code(0).json();
    assert!(json["sound"] == true && json["last_index"].as_u64().unwrap() > 1, "{json}");
    let words = run(&["log", "dump", "--dir", &dir]).code(0);
    let json = run(&["log", "dump", "--dir", &dir, "--json"]).code(0).json();
    assert_eq!(words.text().lines().count(), json["lines"].as_array().unwrap().len());
    assert!(words.text().contains(" ENTRY "), "{words:?}");

    let empty = tempfile::tempdir().unwrap();
    let nothing = run(&["log", "verify", "--dir", &empty.path().display().to_string()]).code(5);
    assert!(nothing.stderr.contains("no log"), "{nothing:?}");
    run(&["log", "verify", "--dir", "/nonexistent"]).code(5);
}

#[test]
fn certificates_are_made_once_and_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let made = run(&["cert", "new-cluster", "--out", &path("authority"), "--json"]).code(0);
    assert_eq!(made.json()["dir"], path("authority"));
    run(&["cert", "node", "--cluster", &path("authority"), "--id", "1", "--out", &path("node")]).code(0);
    run(&["cert", "client", "--cluster", &path("authority"), "--name", "alice", "--out", &path("alice")])
        .code(0);
    for (identity, key) in [("authority", "ca-key.pem"), ("node", "key.pem"), ("alice", "key.pem")] {
        let mode = fs::metadata(dir.path().join(identity).join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{identity}/{key}");
    }
    let again = run(&["cert", "new-cluster", "--out", &path("authority")]).code(4);
    assert!(again.stderr.contains("exists"), "{again:?}");
    run(&["cert", "client", "--cluster", &path("authority"), "--name", "a b", "--out", &path("b")]).code(2);
    run(&["cert", "node", "--cluster", &path("nowhere"), "--id", "1", "--out", &path("c")]).code(2);
    run(&["cert", "node", "--cluster", &path("authority"), "--id", "0", "--out", &path("c")]).code(2);
}

#[test]
fn without_an_identity_no_server_is_to_blame() {
    for command in [vec!["status"], vec!["get", "color"]] {
        let args = [command, vec!["--servers", "192.0.2.1:7001"]].concat();
        let refused = run(&args).code(2);
        assert!(refused.stderr.contains("raftmap cert client"), "{refused:?}");
        assert!(!refused.stderr.contains("refused"), "{refused:?}");
    }
}
