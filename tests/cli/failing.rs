//! A disk that fails under a running node: it stops by itself, says what failed and where, and ends with the exit code of
//! the storage, while the others go on.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::cluster::{Cluster, Ended};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_stops_and_the_others_go_on() {
    let mut cluster = Cluster::start(&["--max-raft-state", "256KiB", "--limit-value", "8KiB"]).await;
    let clerk = cluster.clerk();
    let (_, status) = cluster.terminate(3).await;
    assert!(status.success());
    // Segments of 64 KiB fit below the limit, in either of the units that shells use; its next snapshot does not.
    let serve = cluster.serve(3);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 150; exec \"$@\"", "sh"]);
    limited.arg(serve.get_program()).args(serve.get_args());
    let limited = limited.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();

    for number in 0..300 {
        clerk.put(format!("key-{number}"), [b'v'; 2_048]).await.unwrap();
    }
    let ended = tokio::task::spawn_blocking(move || limited.wait_with_output());
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it stops by itself");
    let ended = Ended::of(ended.unwrap().unwrap()).code(5);
    assert!(ended.stderr.contains("snap-") && ended.stderr.contains("File too large"), "{ended:?}");
    clerk.put("still", "here").await.unwrap();

    // On a disk that works, it is one of them again.
    cluster.spawn(3);
    cluster.wait_all_applied().await;
    cluster.wait_equal().await;
}
