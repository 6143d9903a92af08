//! Processes that are killed, left behind, or told to stop, under load.

use std::time::{Duration, Instant};

use raftmap::Clerk;

use super::cluster::{Cluster, PATIENCE, STOP_MAX};
use super::load::{Done, Load};

const ORDERS: [[u64; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];

#[tokio::test(flavor = "multi_thread")]
async fn all_killed_at_once_and_restarted_in_each_order() {
    let mut cluster = Cluster::start(&["--max-raft-state", "64KiB"]).await;
    let mut done = Done::default();
    for (round, order) in ORDERS.into_iter().enumerate() {
        let load = Load::start(&format!("r{round}"), &cluster.clerk(), 8);
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.kill_all();
        for (already, id) in order.into_iter().enumerate() {
            cluster.spawn(id);
            if already == 0 {
                serves_nobody_alone(&cluster, id).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.wait_all_applied().await;
        done = done.and(load.stop().await);
        done.check(&cluster.clerk()).await;
    }
    cluster.wait_equal().await;
}

/// Once it answers anybody, the one that was started first neither reads nor writes nor leads.
async fn serves_nobody_alone(cluster: &Cluster, id: u64) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = cluster.status(id).await {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "node {id} does not come back\n{}", cluster.logs());
    };
    assert_ne!(status.role, "leader", "node {id} alone");
    let alone = Clerk::connect(&[cluster.addresses[&id]], &cluster.options()).unwrap();
    let alone = alone.with_deadline(Duration::from_millis(500));
    let (read, written) = tokio::join!(alone.get("alone"), alone.put("alone", "in the world"));
    assert!(read.is_err() && written.is_err(), "node {id} alone: {read:?} {written:?}");
    let status = cluster.status(id).await.expect("it runs");
    assert_ne!(status.role, "leader", "node {id} alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_missed_the_log_comes_back_by_snapshot() {
    let mut cluster = Cluster::start(&["--max-raft-state", "64KiB"]).await;
    let clerk = cluster.clerk();
    clerk.put("before", "the fall").await.unwrap();
    cluster.wait_all_applied().await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let had = cluster.status(follower).await.unwrap().last;
    cluster.kill(follower);

    let value = [b'v'; 1_024];
    for number in 0..400 {
        clerk.put(format!("key-{}", number % 50), value).await.unwrap();
    }
    let leads = cluster.status(cluster.leader().await).await.unwrap();
    assert!(leads.snapshot > had, "the log the follower needs is gone: {leads:?}");
    assert!(leads.raft_state_bytes < 2 * 64 * 1_024 + 4_096, "{leads:?}");

    cluster.spawn(follower);
    cluster.wait_all_applied().await;
    let back = cluster.status(follower).await.unwrap();
    assert!(back.snapshot > had, "it took a snapshot over: {back:?}");
    cluster.wait_equal().await;
    // It counts again: with it and without the old leader there is a majority.
    cluster.kill(leader);
    clerk.put("after", "the fall").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_told_to_stop_under_load_stops_and_every_call_ends() {
    let mut cluster = Cluster::start(&[]).await;
    let clerk = cluster.clerk();
    let load = Load::start("t", &clerk, 16);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let leader = cluster.leader().await;
        let (took, status) = cluster.terminate(leader).await;
        assert!(took < STOP_MAX && status.code() == Some(0), "{took:?} {status}\n{}", cluster.logs());
        cluster.spawn(leader);
        cluster.wait_all_applied().await;
    }
    let done = load.stop().await;
    assert!(done.longest < Duration::from_secs(6), "a call took {:?}", done.longest);
    done.check(&clerk).await;
    cluster.wait_equal().await;
}
