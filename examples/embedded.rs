//! A page-view counter. Three processes, each with a member of the map inside; none of them is special.
//!
//! Start it three times, each in a terminal of its own:
//!
//! ```text
//! cargo run --example embedded -- 1
//! cargo run --example embedded -- 2
//! cargo run --example embedded -- 3
//! ```
//!
//! Two are enough to begin. Then type at any of them:
//!
//! ```text
//! view /home       counts one view of the page
//! count /home      how many there were
//! pages            all pages with their counts
//! who              which process leads
//! ```
//!
//! Kill one with `kill -9` and go on at the others: no view is lost, and none counts twice. Start it again with the same
//! command: it catches up from its directory, `data/embedded/<id>`. End of input (ctrl-D) stops a process in order.

#![allow(clippy::print_stdout, reason = "it talks to whoever typed")]

use std::collections::BTreeMap;
use std::error::Error as AnyError;
use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use raftmap::{Command, Error, Keys, Node, NodeConfig, Reply, Scan, Versioned, Written};
use tokio::sync::mpsc;

/// How long the program asks for the outcome of a write before it gives the question back to the user.
const PATIENCE: Duration = Duration::from_secs(30);
/// Counters are the keys below this prefix.
const VIEWS: &str = "views";

#[tokio::main]
async fn main() -> Result<(), Box<dyn AnyError>> {
    let id = std::env::args().nth(1).and_then(|id| id.parse().ok()).filter(|id| (1..=3).contains(id));
    let id: u64 = id.ok_or("usage: cargo run --example embedded -- 1 (or 2, or 3)")?;
    let node = Node::start(config(id)?).await?;
    println!("node {id} runs; waiting for a majority");
    while node.wait_ready(Duration::from_secs(5)).await.is_err() {
        println!("still waiting: start another one");
    }
    println!("ready: view PAGE, count PAGE, pages, who");

    let mut lines = lines();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => answer(&node, line.trim()).await,
                None => break,
            },
            // A node stops by itself rather than put data at risk; so must what stands on it.
            Some(fault) = node.stopped() => return Err(fault.into()),
        }
    }
    node.shutdown().await?;
    Ok(())
}

/// Loopback addresses need no certificates; anywhere else set `identity`.
fn config(id: u64) -> Result<NodeConfig, Box<dyn AnyError>> {
    let address = |id: u64| -> Result<SocketAddr, Box<dyn AnyError>> {
        Ok((Ipv4Addr::LOCALHOST, 7100 + u16::try_from(id)?).into())
    };
    let mut config = NodeConfig::new(id, format!("data/embedded/{id}"), address(id)?);
    config.peers =
        (1..=3).map(|id| Ok((id, address(id)?))).collect::<Result<BTreeMap<_, _>, Box<dyn AnyError>>>()?;
    Ok(config)
}

/// Standard input, line by line, without blocking the runtime.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// One command. A call that fails is told and changes nothing else: the next one may succeed.
async fn answer(node: &Node, line: &str) {
    let answer = match line.split_once(' ').unwrap_or((line, "")) {
        ("view", page) if !page.is_empty() => view(node, page).await,
        ("count", page) if !page.is_empty() => count(node, page).await,
        ("pages", "") => pages(node).await,
        ("who", "") => {
            Ok(node.leader().map_or("nobody leads".into(), |leader| format!("node {leader} leads")))
        }
        ("", "") => return,
        _ => Ok("view PAGE, count PAGE, pages, who".into()),
    };
    match answer {
        Ok(words) => println!("{words}"),
        Err(Error::Unknown(_)) => println!("unknown: it may have counted or may still; `count` will tell"),
        Err(Error::SessionExpired) => println!("unknown: look whether it counted"),
        Err(error) => println!("not done: {error}"),
    }
}

/// Counts one view: reads the counter and swaps it for one more, until nobody came in between.
async fn view(node: &Node, page: &str) -> raftmap::Result<String> {
    let key = format!("{VIEWS}{page}");
    loop {
        let found = node.get(&key).await?;
        let views = number(found.as_ref()) + 1;
        let swap = Command::CompareAndPut {
            key: key.clone().into(),
            version: found.map_or(0, |found| found.version),
            value: views.to_string().into(),
        };
        match settle(node.write(swap).await).await?.reply {
            Reply::Swapped { .. } => return Ok(format!("{page}: {views}")),
            Reply::Mismatch { .. } => {}
            other => return Err(Error::Protocol(format!("a swap was answered by {other:?}"))),
        }
    }
}

/// A write whose outcome is unknown is asked for again under its own number, so it counts once. To send the swap again
/// as a new request would find its own first attempt in the way and count twice.
async fn settle(result: raftmap::Result<Written>) -> raftmap::Result<Written> {
    match result {
        Err(Error::Unknown(pending)) => {
            println!("no answer yet, asking again");
            pending.resolve(PATIENCE).await
        }
        settled => settled,
    }
}

async fn count(node: &Node, page: &str) -> raftmap::Result<String> {
    let found = node.get(format!("{VIEWS}{page}")).await?;
    Ok(format!("{page}: {}", number(found.as_ref())))
}

async fn pages(node: &Node) -> raftmap::Result<String> {
    let mut words = Vec::new();
    let mut scan = Scan { keys: Keys::Prefix(VIEWS.into()), after: None, limit: 1_000 };
    loop {
        let page = node.scan(scan.clone()).await?;
        for pair in &page.pairs {
            let name = String::from_utf8_lossy(pair.key.get(VIEWS.len()..).unwrap_or_default()).into_owned();
            words.push(format!("{name}: {}", String::from_utf8_lossy(&pair.value)));
        }
        match page.pairs.last() {
            Some(last) if page.more => scan.after = Some(last.key.clone()),
            _ => return Ok(words.join("\n")),
        }
    }
}

fn number(found: Option<&Versioned>) -> u64 {
    found.and_then(|found| std::str::from_utf8(&found.value).ok()?.parse().ok()).unwrap_or(0)
}
