//! A node whose disk fails or fills up: what it says, what it still does, and what is there afterwards.

#![allow(clippy::expect_used, reason = "a test that cannot go on ends there")]

use std::error::Error;
use std::time::Duration;

use raftmap::storage::model::{Cut, Effect, Fault, ModelFs, Op};
use raftmap::{Error as CallError, Node, NodeConfig};

type Outcome = Result<(), Box<dyn Error>>;

const READY: Duration = Duration::from_secs(10);

async fn alone(fs: &ModelFs) -> Result<Node, Box<dyn Error>> {
    let mut config = NodeConfig::new(1, "/model/1", raftmap::free_addresses(1)?[&1]);
    config.max_raft_state = Some(1 << 20);
    let node = Node::start_on(fs.clone(), config).await?;
    node.wait_ready(READY).await?;
    Ok(node)
}

async fn failing_sync(effect: Effect) -> Outcome {
    let fs = ModelFs::new(7);
    let node = alone(&fs).await?;
    node.put("kept", "1").await?;
    fs.fail(Fault { on: Some(Op::SyncData), after: 0, effect, lasting: false });
    let clerk = node.clerk().with_deadline(Duration::from_secs(2));
    let error = clerk.put("doubtful", "2").await.expect_err("its sync failed");
    assert!(matches!(error, CallError::Unknown(_)), "{error}");
    // The fault was a single one: later syncs would succeed, and are never tried.
    let fault = tokio::time::timeout(READY, node.stopped()).await?.expect("it stopped by itself").to_string();
    assert!(fault.contains("seg-") && fault.contains("offset") && fault.contains("start again"), "{fault}");
    assert!(node.get("kept").await.is_err(), "a stopped node serves nothing");
    drop(node);

    let node = alone(&fs.kill()).await?;
    assert_eq!(node.get("kept").await?.expect("it was acknowledged").value, "1");
    node.put("after", "3").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_that_lost_the_bytes_is_final() -> Outcome {
    failing_sync(Effect::SyncDropped).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_that_kept_the_bytes_is_final_too() -> Outcome {
    failing_sync(Effect::SyncKept).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_is_final() -> Outcome {
    let fs = ModelFs::new(8);
    let node = alone(&fs).await?;
    node.put("kept", "1").await?;
    fs.fail(Fault { on: Some(Op::WriteAt), after: 0, effect: Effect::Eio, lasting: false });
    assert!(node.clerk().with_deadline(Duration::from_secs(2)).put("doubtful", "2").await.is_err());
    assert!(tokio::time::timeout(READY, node.stopped()).await?.is_some());
    drop(node);
    let node = alone(&fs.kill()).await?;
    assert_eq!(node.get("kept").await?.expect("it was acknowledged").value, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_directory_sync_under_a_snapshot_is_final() -> Outcome {
    let fs = ModelFs::new(10);
    let mut config = NodeConfig::new(1, "/model/1", raftmap::free_addresses(1)?[&1]);
    config.max_raft_state = Some(2_000);
    let node = Node::start_on(fs.clone(), config.clone()).await?;
    node.wait_ready(READY).await?;
    node.put("kept", "1").await?;
    // Segments are far larger than this log: the next directory sync is the snapshot's.
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs.fail(Fault { on: Some(Op::SyncDir), after: 0, effect: Effect::SyncDropped, lasting: false });
    let clerk = node.clerk().with_deadline(Duration::from_secs(2));
    let mut puts = 0;
    while clerk.put("more", vec![b'x'; 200]).await.is_ok() {
        puts += 1;
        assert!(puts < 1_000, "the node goes on over a snapshot whose name may be lost");
    }
    let fault = tokio::time::timeout(READY, node.stopped()).await?.expect("it stopped by itself").to_string();
    assert!(fault.contains("sync"), "{fault}");
    drop(node);
    let node = Node::start_on(fs.cut(Cut::LoseAll), config).await?;
    assert_eq!(node.get("kept").await?.expect("it was acknowledged").value, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_on_a_full_disk() -> Outcome {
    let fs = ModelFs::new(11);
    let node = alone(&fs).await?;
    node.put("kept", "1").await?;
    drop(node);
    let fs = fs.kill();
    fs.set_quota(Some(fs.used()));
    let node = alone(&fs).await?;
    assert_eq!(node.get("kept").await?.expect("it was acknowledged").value, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() -> Outcome {
    let fs = ModelFs::new(9);
    let node = alone(&fs).await?;
    node.put("kept", "1").await?;
    fs.set_quota(Some(fs.used()));
    let clerk = node.clerk().with_deadline(Duration::from_secs(1));
    let mut acknowledged = 0;
    let refusal = loop {
        match clerk.put(format!("key-{acknowledged}"), vec![b'x'; 100_000]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000, "the quota holds");
    };
    assert!(matches!(refusal, CallError::NoSpace), "{refusal}");
    assert_eq!(clerk.get("kept").await?.expect("reads go on").value, "1");
    assert_eq!(clerk.len().await?, acknowledged + 1);
    fs.set_quota(None);
    let clerk = clerk.with_deadline(READY);
    let mut tries = 0;
    while let Err(error) = clerk.put("again", "2").await {
        assert!(matches!(error, CallError::NoSpace | CallError::Busy(_)), "{error}");
        tries += 1;
        assert!(tries < 100, "space is back, {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
