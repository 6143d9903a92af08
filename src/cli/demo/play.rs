//! A run from beginning to end. Each phase has a bound of its own, and the whole has one above them (`mod.rs`), at which
//! what is known by then is reported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raftmap::check::{self, Call, History, KeyId, Operation, Outcome};
use raftmap::{Clerk, ConnectOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Args;
use super::clients::{Client, Shared};
use super::killer::Killer;
use super::plan::Plan;
use super::record::Record;
use super::report::Report;
use super::view::View;
use crate::cli::cluster::answers;
use crate::cli::cluster::nodes::{Nodes, leader_of};

/// Small, so that a run of some seconds takes snapshots and drops log.
const MAX_RAFT_STATE: &str = "1MiB";
/// The nodes have to find a leader within this.
const START_MAX: Duration = Duration::from_secs(10);
/// After the load, clients ask about unknown outcomes for this long.
const RESOLVE_MAX: Duration = Duration::from_secs(6);
/// All keys have to be read within this.
const READ_MAX: Duration = Duration::from_secs(8);
/// The replicas have to be equal within this.
const EQUAL_MAX: Duration = Duration::from_secs(10);
/// How often nodes are asked while something is waited for.
const POLL: Duration = Duration::from_millis(50);

/// A run, and what is known of it so far.
pub(super) struct Play {
    dir: PathBuf,
    load: Duration,
    kill_every: Duration,
    clients: u16,
    nodes: Option<Nodes>,
    view: View,
    shared: Arc<Shared>,
    report: Report,
}

impl Play {
    /// A run that has not begun.
    pub(super) fn new(args: &Args, seed: u64, dir: &Path, record: Record) -> Self {
        let report = Report { seed, nodes: args.nodes, clients: args.clients.into(), ..Report::default() };
        Self {
            dir: dir.to_owned(),
            load: Duration::from_secs(args.seconds),
            kill_every: args.kill_every,
            clients: args.clients,
            nodes: None,
            view: View::new(args.seconds),
            shared: Shared::new(record),
            report,
        }
    }

    /// Plays. What goes wrong ends it, and stands in the report.
    pub(super) async fn run(&mut self) {
        if let Err(problem) = self.phases().await {
            self.view.tell(&problem);
            self.report.problems.push(problem);
        }
    }

    /// Ends all nodes and gives the report.
    pub(super) async fn end(mut self) -> Report {
        self.view.finish();
        if let Some(nodes) = &mut self.nodes {
            nodes.kill_all().await;
        }
        self.report
    }

    async fn phases(&mut self) -> Result<(), String> {
        self.start().await?;
        let clients = self.start_clients()?;
        let killed = self.kill_and_restart().await;
        let mut history = self.join(clients).await?;
        self.report.count(&history);
        // What the clients saw is worth a check also where a node went down by itself: a majority may be up.
        if let Err(problem) = killed {
            self.view.tell(&problem);
            self.report.problems.push(problem);
        }
        self.read_all(&mut history).await?;
        self.view.now("checking");
        let written = self.shared.record.finish();
        written.map_err(|error| format!("the history cannot be written: {error}"))?;
        let verdict = tokio::task::spawn_blocking(move || check::check(&history)).await;
        self.report.verdict = Some(verdict.map_err(|error| format!("the check ended early: {error}"))?);
        let equal = self.compare_replicas().await?;
        self.report.digests_equal = Some(equal);
        Ok(())
    }

    async fn start(&mut self) -> Result<(), String> {
        let count = self.report.nodes;
        self.view.tell(&format!(
            "starting {count} nodes in {} (seed {})",
            self.dir.display(),
            self.report.seed
        ));
        let nodes = Nodes::new(&self.dir, count).map_err(|error| format!("cannot start: {error}"))?;
        let mut nodes = nodes.with_settings(&["--max-raft-state", MAX_RAFT_STATE]);
        for id in nodes.ids() {
            nodes.start(id).map_err(|error| format!("cannot start node {id}: {error}"))?;
        }
        let nodes = self.nodes.insert(nodes);
        let begun = Instant::now();
        while begun.elapsed() < START_MAX {
            nodes.ended_by_itself().map_or(Ok(()), |ended| Err(ended.words))?;
            let statuses = nodes.statuses().await;
            if let Some(leader) = leader_of(&statuses).filter(|_| statuses.len() as u64 == count) {
                self.view.tell(&format!("node {leader} leads"));
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(format!("the nodes did not find a leader within {START_MAX:?}"))
    }

    fn start_clients(&mut self) -> Result<Vec<JoinHandle<History>>, String> {
        let addresses = self.running()?.addresses();
        let end = std::time::Instant::now() + self.load + RESOLVE_MAX;
        let mut clients = Vec::new();
        for id in 0..self.clients {
            let clerk = Clerk::connect(&addresses, &ConnectOptions::default())
                .map_err(|error| format!("client {id}: {error}"))?;
            let client = Client::new(id.into(), self.report.seed, clerk, self.shared.clone(), end);
            clients.push(tokio::spawn(client.run()));
        }
        self.view.tell(&format!("{} clients append, put and get", self.clients));
        Ok(clients)
    }

    /// The load's time, spent with kills; it ends early where a node went down by itself.
    async fn kill_and_restart(&mut self) -> Result<(), String> {
        let Self { nodes: Some(nodes), view, shared, report, .. } = self else { return Ok(()) };
        let begun = Instant::now();
        let end = begun + self.load;
        let plan = Plan::new(report.seed, nodes.ids(), self.kill_every);
        let stopping = async {
            tokio::time::sleep_until(end).await;
            // On time, whatever the killer still waits for.
            shared.stop();
            std::future::pending::<()>().await
        };
        let (kills, restarts) = (&mut report.kills, &mut report.restarts);
        let mut killer = Killer { nodes, plan, view, shared, kills, restarts, fallen: None, term: 0 };
        let killed = tokio::select! {
            killed = killer.run(self.kill_every, end) => killed,
            () = view.follow(shared.clone()) => Ok(()),
            () = stopping => Ok(()),
        };
        shared.stop();
        report.ran = begun.elapsed().min(self.load);
        killed
    }

    async fn join(&mut self, clients: Vec<JoinHandle<History>>) -> Result<History, String> {
        self.view.tell("the load is over; unknown outcomes are asked about");
        let mut history = History::default();
        for client in clients {
            history.extend(client.await.map_err(|error| format!("a client ended early: {error}"))?);
        }
        Ok(history)
    }

    /// The value of every key that was touched, read from the leader by one client more.
    async fn read_all(&mut self, history: &mut History) -> Result<(), String> {
        let keys: Vec<KeyId> = history.keys().collect();
        self.view.tell(&format!("reading {} keys", keys.len()));
        let addresses = self.running()?.addresses();
        let clerk =
            Clerk::connect(&addresses, &ConnectOptions::default()).map_err(|error| error.to_string())?;
        let end = Instant::now() + READ_MAX;
        let client = self.clients.into();
        for (number, key) in (1..).zip(keys) {
            let name = String::from_utf8_lossy(history.name(key)).into_owned();
            let left = end.saturating_duration_since(Instant::now());
            let invoked_ns = self.shared.now();
            let read = clerk.with_deadline(left).get_with_index(&name).await;
            let (index, seen) = read.map_err(|error| format!("cannot read {name} after the run: {error}"))?;
            let outcome =
                Outcome::Done { returned_ns: self.shared.now(), index, reply: answers::found(seen.as_ref()) };
            let operation = Operation { client, number, key, call: Call::Get, invoked_ns, outcome };
            let value = seen.map(|seen| seen.value.to_vec());
            self.shared.record.note(&operation, &name, value.as_deref());
            let place = history.push(operation);
            history.set_last(place, value.unwrap_or_default());
        }
        Ok(())
    }

    /// Whether all nodes that run come to one applied index with one digest. One that does not run is a problem of its
    /// own, known by now.
    async fn compare_replicas(&mut self) -> Result<bool, String> {
        self.view.tell("comparing the replicas");
        let nodes = self.running()?;
        let begun = Instant::now();
        let mut digests = BTreeMap::new();
        while begun.elapsed() < EQUAL_MAX {
            nodes.ended_by_itself().map_or(Ok(()), |ended| Err(ended.words))?;
            digests = nodes.digests().await;
            let indices: Vec<u64> = digests.values().map(|(applied, _)| *applied).collect();
            let at_one_index = indices.windows(2).all(|pair| pair[0] == pair[1]);
            if digests.len() == nodes.running() && at_one_index {
                return Ok(all_equal(&digests));
            }
            sleep(POLL).await;
        }
        let applied: Vec<String> =
            digests.iter().map(|(id, (index, _))| format!("node {id} at {index}")).collect();
        Err(format!("the replicas did not come to one index within {EQUAL_MAX:?}: {}", applied.join(", ")))
    }

    fn running(&mut self) -> Result<&mut Nodes, String> {
        self.nodes.as_mut().ok_or_else(|| "the nodes are not running".to_owned())
    }
}

fn all_equal(digests: &BTreeMap<u64, (u64, [u8; 32])>) -> bool {
    let mut values = digests.values();
    let first = values.next();
    values.all(|other| Some(other) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_different_digest_is_seen() {
        let mut digests: BTreeMap<u64, (u64, [u8; 32])> = (1..=3).map(|id| (id, (7, [9; 32]))).collect();
        assert!(all_equal(&digests));
        digests.insert(3, (7, [8; 32]));
        assert!(!all_equal(&digests));
        assert!(all_equal(&BTreeMap::new()));
    }
}
