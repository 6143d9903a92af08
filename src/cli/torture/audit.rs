//! What is asked of a healed cluster at the end of each cycle: that it comes to rest with equal replicas, that every key
//! reads as the cycle's history allows, that older keys are what they were, and that nobody grew beyond bounds.
//!
//! Keys of a cycle are written in that cycle alone. So each cycle is checked by itself and its history let go, while its
//! keys stay for two more cycles, are read again, and are then removed: time goes on, memory and map do not.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raftmap::check::{self, Call, History, Operation, Outcome, Verdict};
use raftmap::lines;
use raftmap::{Clerk, Command, NodeStatus};
use tokio::time::{Instant, sleep};

use super::clients::Shared;
use super::ledger::{Ledger, Unwritable};
use super::settings::{LOG_MAX, MEMORY_MAX, PAIR_BYTES, disk_max};
use super::tally::Tally;
use crate::cli::cluster::answers;
use crate::cli::cluster::nodes::{Nodes, leader_of};

/// All nodes have to be equal within this after everything was healed.
pub(crate) const EQUAL_MAX: Duration = Duration::from_secs(30);
/// A full disk is asked again twice a second; its node may say so within this.
const ROOM_MAX: Duration = Duration::from_secs(5);
/// Reading one key may take so long.
const READ_MAX: Duration = Duration::from_secs(10);
/// How often nodes are asked while something is waited for.
const POLL: Duration = Duration::from_millis(50);
/// Cycles whose keys stay.
const CYCLES_KEPT: usize = 2;

/// The reader after each cycle, a client like others, and what it remembers of older cycles.
pub(crate) struct Auditor {
    id: u32,
    number: u32,
    clerk: Clerk,
    shared: Arc<Shared>,
    ledger: Ledger,
    older: VecDeque<BTreeMap<String, Outcome>>,
    /// Most bytes that the keys and values of all cycles that are kept have had.
    map_bytes: u64,
}

impl Auditor {
    /// With the number that follows on the clients'.
    pub(crate) fn new(id: u32, clerk: Clerk, shared: Arc<Shared>, ledger: Ledger) -> Self {
        let (clerk, older) = (clerk.with_deadline(READ_MAX), VecDeque::new());
        Self { id, number: 0, clerk, shared, ledger, older, map_bytes: 0 }
    }

    /// Most bytes that the map may have held between cycles.
    pub(crate) fn map_bytes(&self) -> u64 {
        self.map_bytes
    }

    /// Reads every key of the cycle, checks its history, and looks at older keys.
    ///
    /// # Errors
    /// What keeps it from looking, in words.
    pub(crate) async fn audit(&mut self, mut history: History, tally: &mut Tally) -> Result<Verdict, String> {
        let names: Vec<Vec<u8>> = history.keys().map(|key| history.name(key).to_vec()).collect();
        let mut seen = BTreeMap::new();
        for name in names {
            let name = String::from_utf8_lossy(&name).into_owned();
            let (mut operation, value) = self.read(&name).await?;
            operation.key = history.key(name.as_bytes());
            let place = history.push(operation);
            history.set_last(place, value);
            seen.insert(name, operation.outcome);
        }
        self.look_back(tally).await?;
        self.older.push_back(seen);
        self.map_bytes = self.map_bytes.max(self.older.iter().flatten().map(pair_bytes).sum());
        let checked = tokio::task::spawn_blocking(move || check::check(&history)).await;
        checked.map_err(|error| format!("the check itself ended early: {error}"))
    }

    /// Older keys were not written any more: each is what it was, version and all.
    async fn look_back(&mut self, tally: &mut Tally) -> Result<(), String> {
        let older = std::mem::take(&mut self.older);
        for (name, before) in older.iter().flatten() {
            let (now, _) = self.read(name).await?;
            tally.read_again += 1;
            if answer(now.outcome) != answer(*before) {
                tally.changed_later += 1;
                tally.problem(format!("{name} changed after its last write: {before:?}, now {now:?}"));
            }
        }
        self.older = older;
        Ok(())
    }

    /// Removes what was kept long enough.
    ///
    /// # Errors
    /// A key could not be removed, in words.
    pub(crate) async fn sweep(&mut self) -> Result<(), String> {
        while self.older.len() > CYCLES_KEPT {
            for name in self.older.pop_front().unwrap_or_default().into_keys() {
                self.remove(&name).await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, name: &str) -> Result<(Operation, Vec<u8>), String> {
        let mut operation = self.operation(Call::Get);
        let read = self.clerk.get_with_index(name).await;
        if let Ok((index, found)) = &read {
            let (returned_ns, reply) = (self.shared.now(), answers::found(found.as_ref()));
            operation.outcome = Outcome::Done { returned_ns, index: *index, reply };
        }
        let value = read.as_ref().ok().and_then(|(_, found)| Some(found.as_ref()?.value.to_vec()));
        let written = self.ledger.written(lines::line(&operation, name.as_bytes(), value.as_deref())).await;
        written.map_err(ledger)?;
        read.map_err(|error| format!("cannot read {name} although all is healed: {error}"))?;
        Ok((operation, value.unwrap_or_default()))
    }

    async fn remove(&mut self, name: &str) -> Result<(), String> {
        let mut operation = self.operation(Call::Delete);
        self.ledger.synced(lines::line(&operation, name.as_bytes(), None)).await.map_err(ledger)?;
        let written = self.clerk.write(Command::Delete { key: name.to_owned().into() }).await;
        operation.outcome = answers::outcome(&written, self.shared.now());
        self.ledger.written(lines::line(&operation, name.as_bytes(), None)).await.map_err(ledger)?;
        written.map(drop).map_err(|error| format!("cannot remove {name} although all is healed: {error}"))
    }

    fn operation(&mut self, call: Call) -> Operation {
        self.number += 1;
        self.shared.audited.fetch_add(1, Ordering::Relaxed);
        let invoked_ns = self.shared.now();
        let key = check::KeyId(0);
        Operation { client: self.id, number: self.number, key, call, invoked_ns, outcome: Outcome::Unknown }
    }
}

fn answer(outcome: Outcome) -> Option<check::Reply> {
    match outcome {
        Outcome::Done { reply, .. } => Some(reply),
        Outcome::Unknown | Outcome::Refused { .. } => None,
    }
}

/// Of a key and its value in the map.
fn pair_bytes((key, outcome): (&String, &Outcome)) -> u64 {
    let value = match answer(*outcome) {
        Some(check::Reply::Found { value, .. }) => value.length(),
        _ => 0,
    };
    key.len() as u64 + u64::from(value) + PAIR_BYTES
}

pub(crate) fn ledger(_: Unwritable) -> String {
    "the ledger cannot be written".into()
}

/// Waits until all nodes run under one leader.
///
/// # Errors
/// They do not within `limit`.
pub(crate) async fn one_leader(nodes: &mut Nodes, limit: Duration) -> Result<u64, String> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        nodes.ended_by_itself().map_or(Ok(()), |ended| Err(ended.words))?;
        let statuses = nodes.statuses().await;
        if let Some(leader) = leader_of(&statuses).filter(|_| statuses.len() == nodes.ids().len()) {
            return Ok(leader);
        }
        sleep(POLL).await;
    }
    Err(format!("the nodes did not all come to one leader within {limit:?}"))
}

/// Waits until every node answers and none calls its disk full any more.
///
/// # Errors
/// One still does after [`ROOM_MAX`], or says nothing.
pub(crate) async fn room_again(nodes: &Nodes) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let statuses = nodes.statuses().await;
        let has_room = |id: &u64| statuses.get(id).is_some_and(|status| !status.no_space);
        let full: Vec<u64> = nodes.ids().into_iter().filter(|id| !has_room(id)).collect();
        if full.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= ROOM_MAX {
            return Err(format!(
                "nodes {full:?} call their disks full or say nothing, {ROOM_MAX:?} after they had room again"
            ));
        }
        sleep(POLL).await;
    }
}

/// Waits until all nodes have applied the same entries, and compares what they made of them.
///
/// # Errors
/// They do not come to one index within [`EQUAL_MAX`], or differ there.
pub(crate) async fn equal_replicas(nodes: &mut Nodes) -> Result<(), String> {
    let begun = Instant::now();
    let mut digests = BTreeMap::new();
    while begun.elapsed() < EQUAL_MAX {
        nodes.ended_by_itself().map_or(Ok(()), |ended| Err(ended.words))?;
        digests = nodes.digests().await;
        let first = digests.values().next().copied();
        let at_one = digests.values().all(|(applied, _)| first.is_some_and(|(index, _)| index == *applied));
        if at_one && digests.len() == nodes.ids().len() {
            let differ = digests.values().any(|digest| Some(*digest) != first);
            return if differ { Err(format!("replicas differ: {}", words(&digests))) } else { Ok(()) };
        }
        sleep(POLL).await;
    }
    Err(format!("the replicas did not come to one index within {EQUAL_MAX:?}: {}", words(&digests)))
}

fn words(digests: &BTreeMap<u64, (u64, [u8; 32])>) -> String {
    let node = |(id, (index, digest)): (&u64, &(u64, [u8; 32]))| {
        let [a, b, c, d, ..] = digest;
        format!("node {id} at {index} {a:02x}{b:02x}{c:02x}{d:02x}")
    };
    digests.iter().map(node).collect::<Vec<_>>().join(", ")
}

/// Holds what each node takes against its bounds.
///
/// # Errors
/// Not all of them tell, or a directory cannot be measured.
pub(crate) async fn within_bounds(nodes: &Nodes, map_bytes: u64, tally: &mut Tally) -> Result<(), String> {
    let disk_bound = disk_max(map_bytes);
    for (id, status) in all_statuses(nodes).await? {
        let log = status.raft_state_bytes;
        if !tally.log.holds(log, LOG_MAX) {
            tally.problem(format!("node {id} keeps {log} bytes of log, {LOG_MAX} are the bound"));
        }
        let dir = nodes.directory(id);
        let disk =
            directory_bytes(&dir).map_err(|error| format!("cannot measure {}: {error}", dir.display()))?;
        let disk = disk.max(status.disk_bytes);
        if !tally.disk.holds(disk, disk_bound) {
            tally.problem(format!("node {id} takes {disk} bytes of disk, {disk_bound} are the bound"));
        }
        let Some(memory) = nodes.process(id).and_then(memory) else { continue };
        if !tally.memory.holds(memory, MEMORY_MAX) {
            tally.problem(format!("node {id} took {memory} bytes of memory, {MEMORY_MAX} are the bound"));
        }
    }
    Ok(())
}

async fn all_statuses(nodes: &Nodes) -> Result<BTreeMap<u64, NodeStatus>, String> {
    let begun = Instant::now();
    while begun.elapsed() < EQUAL_MAX {
        let statuses = nodes.statuses().await;
        if statuses.len() == nodes.ids().len() {
            return Ok(statuses);
        }
        sleep(POLL).await;
    }
    Err(format!("the nodes did not all tell their status within {EQUAL_MAX:?}"))
}

/// Of all files in a directory; one that goes meanwhile takes nothing.
fn directory_bytes(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(dir)? {
        match file?.metadata() {
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Most memory that a process has held, where the system tells.
fn memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_a_directory_count() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, bytes) in [("a", 1_000), ("b", 24)] {
            std::fs::write(dir.path().join(name), vec![0; bytes]).expect("written");
        }
        assert_eq!(directory_bytes(dir.path()).expect("readable"), 1_024);
        assert!(
            directory_bytes(&dir.path().join("gone")).is_err(),
            "what cannot be measured is within no bound"
        );
    }

    #[test]
    fn a_pair_is_its_key_its_value_and_some() {
        let value = check::Content::of(b"four");
        let found =
            Outcome::Done { returned_ns: 2, index: 1, reply: check::Reply::Found { version: 1, value } };
        assert_eq!(pair_bytes((&"key".to_owned(), &found)), 3 + 4 + PAIR_BYTES);
        assert_eq!(pair_bytes((&"key".to_owned(), &Outcome::Unknown)), 3 + PAIR_BYTES);
    }

    #[test]
    fn a_process_has_held_some_memory() {
        assert!(memory(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
