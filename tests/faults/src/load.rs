//! What happens on the logged device: clients write without pause, members crash and come back, and everything that was
//! promised goes into the ledger.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmap::{Command, Error, Node};
use tokio::sync::Mutex;

use crate::cluster::{NODES, Plan};
use crate::error::{Result, Scenery};
use crate::ledger::{Acked, Book, Ledger, Shown};
use crate::liar::Lie;
use crate::random::Random;
use crate::witness;

const CLIENTS: u64 = 5;
/// Tokens that one key collects by appends, and then another does.
const TOKENS_PER_KEY: u64 = 40;
/// Longest padding of an appended token and of a stored one: a key's whole collection stays below the largest value.
const PADDING: (u64, u64) = (150, 6_000);
const CALL_DEADLINE: Duration = Duration::from_millis(1_500);
const POLL: Duration = Duration::from_millis(8);

/// On a busy machine the load goes on for so many times longer, until it counts.
const LONGER: u32 = 10;

/// Whether so much happened that cuts of it say something.
pub(crate) fn enough(ledger: &Ledger) -> bool {
    let snapshots = ledger.shown.iter().filter(|shown| shown.at > 0 && shown.snapshot > 0);
    ledger.acked_here() >= 300 && ledger.elected_here() >= 3 && snapshots.count() > 0
}

type Nodes = Arc<Mutex<BTreeMap<u64, Node>>>;

/// Runs the load for `time` on the directories below `dir`.
pub(crate) fn run(dir: &Path, lie: Option<Lie>, seed: u64, time: Duration, book: &Book) -> Result<Ledger> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_broken("starting a runtime")?;
    witness::write_into(Some(book.clone()));
    let ended = runtime.block_on(all(dir, lie, seed, time, book));
    witness::write_into(None);
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended?;
    Ok(book.close())
}

async fn all(dir: &Path, lie: Option<Lie>, seed: u64, time: Duration, book: &Book) -> Result<()> {
    let plan = Plan::new(dir, lie)?;
    let nodes: Nodes = Arc::new(Mutex::new(plan.start_all().await?));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let (clerk, book, stop) = (plan.clerk(CALL_DEADLINE)?, book.clone(), stop.clone());
        let random = Random::new(seed ^ (client + 1) << 32);
        tasks.push(tokio::spawn(async move { write(client, clerk, random, &book, &stop).await }));
    }
    let (watched, log, end) = (nodes.clone(), book.clone(), stop.clone());
    tasks.push(tokio::spawn(async move { watch(&watched, &log, &end).await }));

    let crashed = crash_and_restart(&plan, &nodes, Random::new(seed), time, book).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.or_broken("ending the load")?;
    }
    let nodes = std::mem::take(&mut *nodes.lock().await);
    tokio::task::block_in_place(|| nodes.into_values().for_each(Node::crash));
    crashed
}

/// One client: token behind token, each a call of its own.
async fn write(client: u64, clerk: raftmap::Clerk, mut random: Random, book: &Book, stop: &AtomicBool) {
    let (mut number, generation) = (0, book.open().generation);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let replaced = random.below(10) < 3;
        let (key, padding) = match replaced {
            true => (format!("put-{client}-{}", random.below(6)), random.below(PADDING.1)),
            false => {
                (format!("app-{generation}-{client}-{}", number / TOKENS_PER_KEY), random.below(PADDING.0))
            }
        };
        let token = format!("<{generation}.{client}.{number}>");
        let value = Bytes::from(format!("{token}{}", "x".repeat(usize::try_from(padding).unwrap_or(0))));
        let (bytes, command_key) = (value, Bytes::from(key.clone()));
        let command = match replaced {
            true => Command::Put { key: command_key, value: bytes },
            false => Command::Append { key: command_key, value: bytes },
        };
        let outcome = clerk.write(command).await;
        let at = book.now();
        let mut ledger = book.open();
        match outcome {
            Ok(written) => ledger.acked.push(Acked { at, index: written.index, key, token, replaced }),
            Err(Error::Unknown(_)) => _ = ledger.unknown.insert(token),
            Err(_) => _ = ledger.refused.insert(token, at),
        }
    }
}

/// Asks every member, again and again, how much of its log is safe.
async fn watch(nodes: &Nodes, book: &Book, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for (&node, running) in &*nodes.lock().await {
            if let Ok(status) = running.node_status().await {
                let safe = status.durable.min(status.committed).0;
                let at = book.now();
                book.open().shown.push(Shown { at, node, safe, snapshot: status.snapshot.0 });
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Ends members as a kill would and starts them again: mostly the leader, sometimes a follower for long enough that it
/// needs a snapshot, sometimes all.
async fn crash_and_restart(
    plan: &Plan,
    nodes: &Nodes,
    mut random: Random,
    time: Duration,
    book: &Book,
) -> Result<()> {
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_millis(700)).await;
    while begin.elapsed() < time || !enough(&book.open()) && begin.elapsed() < time * LONGER {
        tokio::time::sleep(Duration::from_millis(250 + random.below(500))).await;
        let leader = leader(nodes).await.unwrap_or(1);
        let (victims, down) = match random.below(10) {
            0..7 => (vec![leader], 30 + random.below(400)),
            7..9 => (vec![leader % NODES + 1], 1_200),
            _ => ((1..=NODES).collect(), 30),
        };
        let ended: Vec<Node> = {
            let mut nodes = nodes.lock().await;
            victims.iter().filter_map(|id| nodes.remove(id)).collect()
        };
        book.open().crashes += ended.len() as u64;
        tokio::task::block_in_place(|| ended.into_iter().for_each(Node::crash));
        tokio::time::sleep(Duration::from_millis(down)).await;
        for id in victims {
            let node = plan.start(id).await?;
            nodes.lock().await.insert(id, node);
        }
    }
    Ok(())
}

async fn leader(nodes: &Nodes) -> Option<u64> {
    nodes.lock().await.values().find_map(Node::leader)
}
