//! What is bounded stays bounded: the log at its smallest and while a member is down, snapshots to one that fell
//! behind, and what happens at each limit.

#![allow(clippy::expect_used, reason = "a test that cannot go on ends there")]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use raftmap::{Error as CallError, Limits, Node, NodeConfig};

type Outcome = Result<(), Box<dyn Error>>;

const READY: Duration = Duration::from_secs(10);

fn configs(
    dir: &Path,
    peers: &BTreeMap<u64, SocketAddr>,
    change: impl Fn(&mut NodeConfig),
) -> Vec<NodeConfig> {
    peers
        .iter()
        .map(|(&id, &listen)| {
            let mut config = NodeConfig::new(id, dir.join(id.to_string()), listen);
            config.peers = peers.clone();
            change(&mut config);
            config
        })
        .collect()
}

async fn start_all(configs: &[NodeConfig]) -> Result<Vec<Node>, Box<dyn Error>> {
    let mut nodes = Vec::new();
    for config in configs {
        nodes.push(Node::start(config.clone()).await?);
    }
    for node in &nodes {
        node.wait_ready(READY).await?;
    }
    Ok(nodes)
}

/// Waits until all have applied the same entries, and compares them.
async fn assert_equal(nodes: &[Node]) -> Outcome {
    let until = Instant::now() + READY;
    loop {
        let mut digests = Vec::new();
        for node in nodes {
            digests.push(node.digest().await?);
        }
        if digests.iter().all(|digest| digest.0 == digests[0].0) {
            assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
            return Ok(());
        }
        assert!(Instant::now() < until, "the nodes never came to the same index: {digests:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bound of a log of at most `max` bytes whose largest entry carries `value` bytes.
fn hard_bound(max: u64, value: u64) -> u64 {
    2 * max + value + 200
}

async fn assert_bounded(nodes: &[Node], max: u64, value: u64) -> Outcome {
    for node in nodes {
        let status = node.node_status().await?;
        let bytes = status.raft_state_bytes;
        assert!(bytes < hard_bound(max, value), "node {} holds {bytes} bytes of log", status.id);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_a_thousand_bytes_holds_its_bound_also_while_a_member_is_down() -> Outcome {
    const MAX: u64 = 1_000;
    let dir = tempfile::tempdir()?;
    let peers = raftmap::free_addresses(3)?;
    let configs = configs(dir.path(), &peers, |config| config.max_raft_state = Some(MAX));
    let mut nodes = start_all(&configs).await?;
    let down = nodes.pop().expect("three nodes");
    down.crash();
    for round in 0..60 {
        nodes[round % 2].put(format!("key-{}", round % 7), vec![b'x'; 300]).await?;
        assert_bounded(&nodes, MAX, 300).await?;
    }
    let back = Node::start(configs[2].clone()).await?;
    back.wait_ready(READY).await?;
    nodes.push(back);
    assert_equal(&nodes).await?;
    let status = nodes[2].node_status().await?;
    assert!(status.snapshot.0 > 10, "it came back by a snapshot: {status:?}");
    assert_bounded(&nodes, MAX, 300).await?;
    Ok(())
}

/// The other end: 160 MiB of large values under the bound that suits a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_64_mib_holds_its_bound() -> Outcome {
    const MAX: u64 = 64 << 20;
    const VALUE: usize = (1 << 20) - 1_000;
    let dir = tempfile::tempdir()?;
    let peers = raftmap::free_addresses(1)?;
    let configs = configs(dir.path(), &peers, |config| config.max_raft_state = Some(MAX));
    let nodes = start_all(&configs).await?;
    let mut most = 0;
    for round in 0..40 {
        let puts = (0..4).map(|key| nodes[0].put(format!("key-{key}"), vec![round; VALUE]));
        for put in puts.collect::<Vec<_>>() {
            put.await?;
        }
        assert_bounded(&nodes, MAX, VALUE as u64).await?;
        most = most.max(nodes[0].node_status().await?.raft_state_bytes);
    }
    let status = nodes[0].node_status().await?;
    assert!(most > MAX / 2 && status.snapshot.0 > 0, "the log at most {most}, then a snapshot: {status:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_a_small_bound_are_held_back_and_all_served() -> Outcome {
    const MAX: u64 = 20_000;
    let dir = tempfile::tempdir()?;
    let peers = raftmap::free_addresses(3)?;
    let configs = configs(dir.path(), &peers, |config| config.max_raft_state = Some(MAX));
    let nodes = start_all(&configs).await?;
    let mut tasks = Vec::new();
    for client in 0..16 {
        let clerk = nodes[client % 3].clerk().with_deadline(Duration::from_secs(30));
        tasks.push(tokio::spawn(async move {
            for number in 0..25 {
                clerk.append("journal", format!("{client}-{number};")).await?;
                clerk.put(format!("blob-{client}"), vec![b'x'; 2_000]).await?;
            }
            Ok::<(), CallError>(())
        }));
    }
    while tasks.iter().any(|task| !task.is_finished()) {
        assert_bounded(&nodes, MAX, 2_000).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for task in tasks {
        task.await??;
    }
    let journal = nodes[0].get("journal").await?.expect("written");
    let text = String::from_utf8(journal.value.to_vec())?;
    for client in 0..16 {
        let mine: Vec<&str> =
            text.split(';').filter(|token| token.starts_with(&format!("{client}-"))).collect();
        let expected: Vec<String> = (0..25).map(|number| format!("{client}-{number}")).collect();
        assert_eq!(mine, expected, "each once, in the order of its client");
    }
    assert_equal(&nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_checked_before_the_log_and_at_apply() -> Outcome {
    let dir = tempfile::tempdir()?;
    let peers = raftmap::free_addresses(1)?;
    let limits = Limits { key_bytes: 10, value_bytes: 100, ..Limits::default() };
    let configs = configs(dir.path(), &peers, |config| config.limits = limits);
    let nodes = start_all(&configs).await?;
    let node = &nodes[0];
    node.put("0123456789", vec![0; 100]).await?;
    let last = node.node_status().await?.last;
    for (key, value) in [("0123456789a", 1), ("k", 101), ("", 1)] {
        let error = node.put(key, vec![0; value]).await.expect_err("over a limit");
        assert!(matches!(error, CallError::TooLarge(_)), "{error}");
    }
    assert_eq!(node.node_status().await?.last, last, "refused before the log");
    let error = node.append("0123456789", "x").await.expect_err("101 bytes");
    assert!(matches!(error, CallError::TooLarge(_)), "{error}");
    assert_eq!(node.get("0123456789").await?.expect("unchanged").value.len(), 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_limits_are_fixed_when_the_cluster_is_made() -> Outcome {
    let dir = tempfile::tempdir()?;
    let peers = raftmap::free_addresses(2)?;
    let mut config = NodeConfig::new(1, dir.path(), peers[&1]);
    Node::start(config.clone()).await?.shutdown().await?;
    config.peers = peers;
    let error = Node::start(config.clone()).await.expect_err("another list of members").to_string();
    assert!(error.contains("[nodes 1,") && error.contains("[nodes 1 2,"), "{error}");
    config.peers.clear();
    config.limits.key_bytes = 7;
    let error = Node::start(config).await.expect_err("other limits").to_string();
    assert!(error.contains("keys to 4096 bytes") && error.contains("keys to 7 bytes"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_hangs_when_the_majority_is_gone_or_the_node_stops() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut nodes = raftmap::local_cluster(3, dir.path()).await?;
    nodes[0].put("k", "v").await?;
    // A follower learns of the commit a little later; a stale read would be right to find nothing before.
    nodes[0].wait_ready(READY).await?;
    let alone = nodes.remove(0);
    nodes.into_iter().for_each(Node::crash);
    let clerk = alone.clerk().with_deadline(Duration::from_millis(700));
    let begun = Instant::now();
    let (put, get, stale) = tokio::join!(clerk.put("k", "w"), clerk.get("k"), clerk.get_stale("k"));
    assert!(put.is_err() && get.is_err(), "{put:?} {get:?}");
    assert_eq!(stale?.expect("applied here").value, "v");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let late = tokio::spawn({
        let clerk = alone.clerk();
        async move { clerk.put("k", "x").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    alone.shutdown().await?;
    assert!(begun.elapsed() < Duration::from_secs(2), "stopped in {:?}", begun.elapsed());
    assert!(late.await?.is_err());
    Ok(())
}
