//! The map embedded in this process: three nodes over real QUIC and real logs, and one node alone.

#![allow(clippy::expect_used, reason = "a test that cannot go on ends there")]

use std::error::Error;
use std::time::{Duration, Instant};

use raftmap::{Command, Compared, Keys, Node, NodeConfig, Scan};

fn leader(nodes: &[Node]) -> usize {
    let leader = nodes[0].leader().expect("a ready cluster has a leader");
    usize::try_from(leader).expect("small") - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_survives_the_crash_of_the_leader() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut nodes = raftmap::local_cluster(3, dir.path()).await?;
    nodes[0].put("greeting", "hello").await?;
    let leader = leader(&nodes);
    nodes.remove(leader).crash();
    let found = nodes[0].get("greeting").await?.expect("it was acknowledged");
    assert_eq!(found.value, "hello");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_works_on_every_node() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let nodes = raftmap::local_cluster(3, dir.path()).await?;
    for (at, node) in nodes.iter().enumerate() {
        let key = format!("key-{at}");
        assert_eq!(node.get(&key).await?, None);
        let first = node.put(&key, "a").await?;
        let second = node.append(&key, "b").await?;
        assert!(second > first, "versions rise: {first} {second}");
        let found = node.get(&key).await?.expect("present");
        assert_eq!((found.value.as_ref(), found.version), (b"ab".as_slice(), second));
        let mismatch = node.compare_and_put(&key, first, "c").await?;
        assert_eq!(mismatch, Compared::Mismatch { current: second });
        assert!(matches!(node.compare_and_put(&key, second, "c").await?, Compared::Swapped { .. }));
        assert!(node.append(format!("new-{at}"), "made").await? > second);
    }
    let scan = Scan { keys: Keys::Prefix("key-".into()), after: None, limit: 2 };
    let page = nodes[1].scan(scan.clone()).await?;
    assert_eq!((page.pairs.len(), page.more), (2, true));
    let rest = nodes[2].scan(Scan { after: Some(page.pairs[1].key.clone()), ..scan }).await?;
    assert_eq!((rest.pairs.len(), rest.more), (1, false));
    assert_eq!(nodes[0].len().await?, 6);
    assert!(nodes[0].delete("key-0").await?);
    assert!(!nodes[1].delete("key-0").await?);
    assert_eq!(nodes[2].len().await?, 5);
    Ok(())
}

/// Fault N18: the others work, and the address is dialled with pauses for as long as nobody is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_an_address_is_dialled_now_and_then_until_somebody_is() -> Result<(), Box<dyn Error>> {
    const DIALS: u32 = 8;
    let (dir, addresses) = (tempfile::tempdir()?, raftmap::free_addresses(3)?);
    let start = async |id: u64| {
        let mut config = NodeConfig::new(id, dir.path().join(id.to_string()), addresses[&id]);
        config.peers = addresses.clone();
        Node::start(config).await
    };
    let (one, _two) = (start(1).await?, start(2).await?);
    one.wait_ready(Duration::from_secs(10)).await?;
    let dials = || one.net_stats().expect("it runs").dials_failed;
    let (before, began) = (dials(), Instant::now());
    let mut writes = 0;
    while dials() < before + u64::from(DIALS) {
        assert!(began.elapsed() < Duration::from_secs(30), "{} dials in {:?}", dials(), began.elapsed());
        one.put("writes", writes.to_string()).await?;
        writes += 1;
    }
    // Each waits for an answer, and behind all but the first few is at least half of the longest pause.
    let (limits, took) = (raftmap::net::Limits::default(), began.elapsed());
    let least = limits.handshake * DIALS + limits.backoff_max / 2 * (DIALS - 4);
    assert!(took >= least, "{DIALS} dials within {took:?}, not {least:?}");
    let three = start(3).await?;
    three.wait_ready(Duration::from_secs(10)).await?;
    let found = three.get("writes").await?.expect("it was acknowledged");
    assert_eq!(found.value, (writes - 1).to_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_alone_is_a_map_with_a_log() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let address = raftmap::free_addresses(1)?[&1];
    let config = NodeConfig::new(1, dir.path(), address);
    let node = Node::start(config.clone()).await?;
    node.wait_ready(Duration::from_secs(10)).await?;
    node.put("k", "v").await?;
    node.crash();
    let node = Node::start(config).await?;
    assert_eq!(node.get("k").await?.expect("it was acknowledged").value, "v");
    node.shutdown().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_value_goes_through_every_node_and_a_larger_one_is_refused_at_once()
-> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let nodes = raftmap::local_cluster(3, dir.path()).await?;
    let (largest, larger) = (vec![7; 1 << 20], vec![7; 3 << 20]);
    for node in &nodes {
        node.put("large", &largest).await?;
        assert_eq!(node.get("large").await?.expect("present").value.len(), largest.len());
        let started = Instant::now();
        assert!(matches!(node.put("large", &larger).await, Err(raftmap::Error::TooLarge(_))));
        assert!(matches!(node.get(&larger).await, Err(raftmap::Error::TooLarge(_))));
        assert!(started.elapsed() < Duration::from_secs(1), "it is known without asking anybody");
    }
    // No cluster takes it: a clerk says so though nobody listens.
    let nobody = [raftmap::free_addresses(1)?[&1]];
    let clerk = raftmap::Clerk::connect(&nobody, &raftmap::ConnectOptions::default())?;
    assert!(matches!(clerk.put("large", &larger).await, Err(raftmap::Error::TooLarge(_))));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_connection_holds_may_be_asked_for_at_once() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let nodes = raftmap::local_cluster(3, dir.path()).await?;
    let follower = (leader(&nodes) + 1) % nodes.len();
    // Three times what one connection queues, in each direction.
    let clerk = nodes[follower].with_deadline(Duration::from_secs(30));
    let value = vec![7; 1 << 20];
    let puts: Vec<_> = (0..24)
        .map(|key| {
            let (clerk, value) = (clerk.clone(), value.clone());
            tokio::spawn(async move { clerk.put(format!("key-{key}"), value).await })
        })
        .collect();
    for put in puts {
        put.await??;
    }
    let gets: Vec<_> = (0..24)
        .map(|key| {
            let clerk = clerk.clone();
            tokio::spawn(async move { clerk.get(format!("key-{key}")).await })
        })
        .collect();
    for get in gets {
        assert_eq!(get.await??.expect("it was acknowledged").value, value);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clerk_of_a_node_that_has_stopped_says_so_and_leaves_nothing_in_doubt() -> Result<(), Box<dyn Error>>
{
    let dir = tempfile::tempdir()?;
    let node = Node::start(NodeConfig::new(1, dir.path(), raftmap::free_addresses(1)?[&1])).await?;
    node.wait_ready(Duration::from_secs(10)).await?;
    let clerk = node.clerk();
    clerk.put("k", "v").await?;
    node.shutdown().await?;
    assert!(matches!(clerk.put("k", "w").await, Err(raftmap::Error::Stopped)));
    assert!(matches!(clerk.get("k").await, Err(raftmap::Error::Stopped)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_its_general_form_is_no_success_where_nothing_was_stored() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(NodeConfig::new(1, dir.path(), raftmap::free_addresses(1)?[&1])).await?;
    node.wait_ready(Duration::from_secs(10)).await?;
    // A deadline that no clock reaches is one, too.
    let clerk = node.with_deadline(Duration::MAX);
    let version = clerk.put("large", vec![7; 1 << 20]).await?;
    let append = Command::Append { key: "large".into(), value: "x".into() };
    assert!(matches!(clerk.write(append).await, Err(raftmap::Error::TooLarge(_))));
    let compare = |version| Command::CompareAndPut { key: "large".into(), version, value: "x".into() };
    assert_eq!(clerk.write(compare(version + 1)).await?.version(), None);
    let written = clerk.write(compare(version)).await?;
    assert_eq!(written.version(), Some(written.index));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_too_small_for_a_clerk_is_refused_at_the_door() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut config = NodeConfig::new(1, dir.path(), raftmap::free_addresses(1)?[&1]);
    config.limits.window = 4;
    let refused = Node::start(config).await.expect_err("a clerk has 1,024 writes under way");
    assert!(refused.to_string().contains("choose one from 1024 to 16384"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_beyond_this_machine_is_enough_to_need_an_identity() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut config = NodeConfig::new(1, dir.path(), raftmap::free_addresses(1)?[&1]);
    config.peers = [(1, config.listen), (2, "192.0.2.1:7001".parse()?)].into();
    let refused = Node::start(config).await.expect_err("the development identity stays on this machine");
    assert!(refused.to_string().contains("192.0.2.1:7001 is not a loopback address"), "{refused}");
    Ok(())
}
