//! A little work for members that are about to suffer, and the check of what is left of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use raftmap::{Clerk, Error, Node};

use crate::error::{Result, Stop};
use crate::process::{Members, Process};

/// Bytes of a stored value: a dozen fill a segment.
const STORED: usize = 6_000;
/// Keys that are stored again and again.
const KEYS: u64 = 8;
/// Tokens that one key collects.
const TOKENS: u64 = 200;
const READY: Duration = Duration::from_secs(60);

/// What was acknowledged, what was tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    next: u64,
    /// By key: the newest number acknowledged.
    stored: BTreeMap<String, u64>,
    appended: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    pub(crate) acked: u64,
    pub(crate) failed: u64,
}

impl Work {
    /// One write; whether it was acknowledged. Every third is an append, the others store large values.
    pub(crate) async fn write(&mut self, clerk: &Clerk) -> std::result::Result<(), Error> {
        let number = self.next;
        self.next += 1;
        let appends = number.is_multiple_of(3);
        let outcome = match appends {
            true => clerk.append(collection(number), format!("<{number}>")).await,
            false => clerk.put(store(number), format!("<{number}>{}", "x".repeat(STORED))).await,
        };
        match outcome {
            Ok(_) if appends => _ = self.appended.insert(number),
            Ok(_) => _ = self.stored.insert(store(number), number),
            Err(error) => {
                self.failed += 1;
                if !matches!(error, Error::Unknown(_)) {
                    self.refused.insert(number);
                }
                return Err(error);
            }
        }
        self.acked += 1;
        Ok(())
    }

    /// Writes until `count` more are acknowledged, the process has ended, or the patience has. Whether all were.
    pub(crate) async fn write_some(
        &mut self,
        clerk: &Clerk,
        count: u64,
        process: &mut Process,
        patience: Duration,
    ) -> bool {
        let (begin, wanted) = (Instant::now(), self.acked + count);
        while self.acked < wanted {
            if begin.elapsed() > patience || process.ended().is_some() {
                return false;
            }
            let _counted = self.write(clerk).await;
        }
        true
    }

    /// Everything acknowledged is there, once; nothing refused is.
    pub(crate) async fn reads_back(&self, clerk: &Clerk) -> Result<()> {
        let red = |what: String| Err(Stop::Red(what));
        let lost = |error: Error| Stop::Red(format!("a read fails afterwards: {error}"));
        for (key, number) in &self.stored {
            let found = clerk.get(key).await.map_err(lost)?;
            let there = found.as_ref().and_then(|found| tokens(&found.value).first().copied());
            let newer = there.is_some_and(|there| there >= *number && there < self.next);
            if !newer || there.is_some_and(|there| self.refused.contains(&there)) {
                return red(format!("{key} was stored with {number}, and has {there:?}"));
            }
        }
        for first in (0..self.next).step_by(usize::try_from(TOKENS).unwrap_or(1)) {
            let key = collection(first);
            let found = clerk.get(&key).await.map_err(lost)?;
            let there = found.map(|found| tokens(&found.value)).unwrap_or_default();
            let once: BTreeSet<u64> = there.iter().copied().collect();
            let missing =
                self.appended.iter().find(|number| collection(**number) == key && !once.contains(number));
            if let Some(missing) = missing {
                return red(format!("{missing} was appended to {key}, and is gone"));
            }
            if once.len() != there.len() || once.iter().any(|number| self.refused.contains(number)) {
                return red(format!("{key} has tokens twice, or refused ones: {there:?}"));
            }
        }
        Ok(())
    }

    /// Starts all members in this process on what is left, and reads back; writes once more; looks at the directories.
    pub(crate) async fn survives(&mut self, members: &Members) -> Result<()> {
        let mut nodes = Vec::new();
        for &id in members.addresses.keys() {
            nodes.push(start(members, id).await?);
        }
        let clerk = members.clerk(READY)?;
        let outcome = match self.write(&clerk).await {
            Ok(()) => self.reads_back(&clerk).await,
            Err(error) => Err(Stop::Red(format!("a write fails afterwards: {error}"))),
        };
        tokio::task::block_in_place(|| nodes.into_iter().for_each(Node::crash));
        outcome?;
        members.dirs.values().try_for_each(|dir| verify(dir))
    }
}

async fn start(members: &Members, id: u64) -> Result<Node> {
    let begin = Instant::now();
    loop {
        match Node::start(members.config(id)).await {
            Ok(node) => return Ok(node),
            // The life before may not be quite over.
            Err(_) if begin.elapsed() < Duration::from_secs(3) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(Stop::Red(format!("node {id} does not start again: {error}"))),
        }
    }
}

/// As `raftmap log verify`.
pub(crate) fn verify(dir: &std::path::Path) -> Result<()> {
    raftmap::storage::verify(raftmap::storage::os::OsFs, dir, |_| {})
        .map(drop)
        .map_err(|error| Stop::Red(format!("verify: {error}")))
}

fn store(number: u64) -> String {
    format!("stored-{}", number % KEYS)
}

fn collection(number: u64) -> String {
    format!("appended-{}", number / TOKENS)
}

/// The numbers in `<1><2>…`.
fn tokens(value: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(value);
    text.split('<').filter_map(|part| part.split('>').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check that nothing can fail is none: each kind of forgery is told.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_forged_acknowledgement_is_red() {
        let place = tempfile::tempdir().unwrap();
        let members = Members::below(place.path(), 1).unwrap();
        let node = start(&members, 1).await.unwrap();
        node.wait_ready(READY).await.unwrap();
        let clerk = members.clerk(READY).unwrap();
        let mut work = Work::default();
        for _ in 0..10 {
            work.write(&clerk).await.unwrap();
        }
        work.reads_back(&clerk).await.unwrap();
        let red = async |forge: fn(&mut Work), words: &str| {
            let mut forged = work.clone();
            forge(&mut forged);
            let said = forged.reads_back(&clerk).await.expect_err("forged").to_string();
            assert!(said.contains(words), "{said}");
        };
        red(|work| _ = work.appended.insert(4), "4 was appended to appended-0, and is gone").await;
        red(|work| _ = work.stored.insert(store(2), 10), "was stored with 10").await;
        red(|work| _ = work.stored.insert("stored-x".into(), 1), "has None").await;
        red(|work| _ = work.refused.insert(3), "refused ones").await;
        red(|work| _ = work.refused.insert(8), "was stored with 8").await;
        clerk.append(collection(0), "<3>").await.unwrap();
        red(|_| {}, "tokens twice").await;
        node.crash();
    }
}
