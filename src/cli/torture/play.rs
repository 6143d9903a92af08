//! A run from beginning to end: cycles of faults, healing and check, and a last look at what is on the disks.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use raftmap::check::{History, Verdict};
use raftmap::lines;
use raftmap::storage::os::OsFs;
use raftmap::{Clerk, ConnectOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::audit::{self, Auditor, EQUAL_MAX};
use super::clients::{Client, Shared, Work};
use super::faults::Faults;
use super::ledger::{Ledger, LedgerThread};
use super::network::Network;
use super::plan::{Act, Plan};
use super::report::{ACKNOWLEDGED_MIN, Report};
use super::settings::SERVE;
use super::tally::Tally;
use crate::cli::cluster::nodes::Nodes;
use crate::cli::exit::chain;
use crate::cli::output;

/// The nodes have to find a leader within this.
const START_MAX: Duration = Duration::from_secs(20);
/// Once everything is healed, clients have this long to find out about calls whose outcome is unknown.
const RESOLVE_MAX: Duration = Duration::from_secs(20);

/// A ledger with more operations is not checked as a whole, for that takes some hundred bytes of memory for each.
const LEDGER_MAX: u64 = 5_000_000;

/// A run, and what is known of it so far.
pub(crate) struct Play {
    dir: PathBuf,
    /// Where the ledger goes.
    history: PathBuf,
    load: Duration,
    report: Report,
    /// Tells the reason once it is to stop early.
    stop: watch::Receiver<Option<&'static str>>,
    begun: Instant,
    nodes: Option<Nodes>,
    network: Option<Network>,
}

/// What goes on from cycle to cycle.
struct Workload {
    shared: Arc<Shared>,
    clients: Vec<Client>,
    auditor: Auditor,
    plan: Plan,
}

impl Play {
    /// A run that begins now, of which `report` knows what was asked for.
    pub(crate) fn new(
        report: Report,
        load: Duration,
        dir: &Path,
        history: &Path,
        stop: watch::Receiver<Option<&'static str>>,
    ) -> Self {
        let (dir, history, begun) = (dir.to_owned(), history.to_owned(), Instant::now());
        Self { dir, history, load, report, stop, begun, nodes: None, network: None }
    }

    /// Plays. What goes wrong ends it, and stands in the report.
    pub(crate) async fn run(&mut self) {
        match self.phases().await {
            Ok(()) => self.report.complete = true,
            Err(problem) => self.report.tally.problem(problem),
        }
    }

    /// Ends all nodes and gives the report, also of a run that was cut off.
    pub(crate) async fn end(mut self) -> Report {
        if let Some(nodes) = &mut self.nodes {
            nodes.kill_all().await;
        }
        self.report.ran = self.begun.elapsed();
        if let Some(network) = &self.network {
            self.report.datagrams = network.counts();
        }
        self.report
    }

    async fn phases(&mut self) -> Result<(), String> {
        let cannot = |error: &dyn std::error::Error| format!("cannot start: {}", chain(error));
        let seed = self.report.seed;
        let (ledger, ledger_thread) = Ledger::create(&self.history)
            .map_err(|error| format!("cannot make the ledger {}: {error}", self.history.display()))?;
        let nodes = Nodes::new(&self.dir, self.report.nodes).map_err(|error| cannot(&error))?;
        let nodes = self.nodes.insert(nodes.with_settings(&SERVE));
        let network = Network::between(nodes, seed).await.map_err(|error| cannot(&error))?;
        let network = self.network.insert(network);
        for id in nodes.ids() {
            nodes.start(id).map_err(|error| format!("cannot start node {id}: {error}"))?;
        }
        let leader = audit::one_leader(nodes, START_MAX).await?;
        output::note(&format!("node {leader} leads; seed {seed}, in {}", self.dir.display()));
        let workload = workload(&self.report, nodes, network, ledger).map_err(|error| cannot(&error))?;
        let shared = workload.shared.clone();
        let ended = self.cycles(workload).await;
        let written = finish(ledger_thread).await;
        self.report.tally.audited = shared.audited.load(Ordering::Relaxed);
        self.verify().await;
        self.check_ledger().await;
        ended.and(written)
    }

    /// Cycle after cycle, until the time is over or somebody says stop.
    async fn cycles(&mut self, mut workload: Workload) -> Result<(), String> {
        let mut left = self.load;
        for cycle in 1.. {
            let (acts, length) = workload.plan.cycle(left);
            self.cycle(&mut workload, cycle, acts, length).await?;
            left = left.saturating_sub(length);
            if let Some(why) = *self.stop.borrow() {
                return Err(format!("stopped by {why} after {} s", self.begun.elapsed().as_secs()));
            }
            if left.is_zero() {
                break;
            }
            workload.auditor.sweep().await?;
        }
        for client in workload.clients {
            client.close().await;
        }
        Ok(())
    }

    /// Faults under load, healing, and what all of it came to.
    async fn cycle(
        &mut self,
        workload: &mut Workload,
        cycle: u64,
        acts: Vec<Act>,
        length: Duration,
    ) -> Result<(), String> {
        let working = workload.begin(cycle);
        let healed = self.strike_and_heal(&workload.shared, acts, length).await;
        workload.shared.stop();
        let since = Instant::now();
        // What clients did is counted also where something went wrong: it is in the ledger.
        let history = workload.collect(working).await?;
        let acknowledged = self.count(&workload.shared, &history);
        healed?;
        let verdict = self.judge(&mut workload.auditor, history, since).await?;
        let at = workload.shared.now() as f64 / 1e9;
        output::note(&format!("{at:9.2} s  cycle {cycle}: {acknowledged} operations, {}", words(&verdict)));
        match verdict.is_clean() {
            true => Ok(()),
            false => Err(format!("cycle {cycle} found what must not be")),
        }
    }

    /// Carries out the acts, until they are over or somebody says stop, and puts everything right.
    async fn strike_and_heal(
        &mut self,
        shared: &Shared,
        acts: Vec<Act>,
        length: Duration,
    ) -> Result<(), String> {
        let (nodes, network, tally) = running(&mut self.nodes, &self.network, &mut self.report)?;
        let mut faults = Faults::new(nodes, network, shared, tally);
        faults.run(acts, length, &mut self.stop).await?;
        faults.heal().await
    }

    /// Counts a cycle's operations, and says how many were acknowledged.
    fn count(&mut self, shared: &Shared, history: &History) -> u64 {
        let tally = &mut self.report.tally;
        let before = tally.acknowledged();
        tally.count(history);
        tally.unresolved = shared.unresolved.load(Ordering::Relaxed);
        let acknowledged = tally.acknowledged() - before;
        tally.idle_cycles += u64::from(acknowledged < ACKNOWLEDGED_MIN);
        acknowledged
    }

    /// What is asked of a healed cluster.
    async fn judge(
        &mut self,
        auditor: &mut Auditor,
        history: History,
        since: Instant,
    ) -> Result<Verdict, String> {
        let (nodes, _, tally) = running(&mut self.nodes, &self.network, &mut self.report)?;
        audit::one_leader(nodes, EQUAL_MAX).await?;
        audit::room_again(nodes).await?;
        audit::equal_replicas(nodes).await?;
        tally.converged.push(since.elapsed());
        let verdict = auditor.audit(history, tally).await?;
        tally.judge(&verdict);
        audit::within_bounds(nodes, auditor.map_bytes(), tally).await?;
        tally.cycles += 1;
        Ok(verdict)
    }

    /// Checks the whole run once more, from what is in its ledger: across cycles, and that it is all there.
    async fn check_ledger(&mut self) {
        if self.report.tally.operations() > LEDGER_MAX {
            return;
        }
        let path = self.history.clone();
        let tally = &mut self.report.tally;
        match tokio::task::spawn_blocking(move || check(&path)).await {
            Ok(Ok(verdict)) => tally.judge_ledger(&verdict),
            Ok(Err(problem)) => tally.problem(problem),
            Err(error) => tally.problem(format!("the check of the ledger ended early: {error}")),
        }
    }

    /// Ends all nodes and reads what they left on their disks.
    async fn verify(&mut self) {
        let Some(nodes) = &mut self.nodes else { return };
        nodes.kill_all().await;
        for id in nodes.ids() {
            let dir = nodes.directory(id);
            let looked = tokio::task::spawn_blocking(move || raftmap::storage::verify(OsFs, &dir, |_| {}));
            match looked.await.map_err(|error| error.to_string()) {
                Ok(Ok(_)) => self.report.tally.verified += 1,
                Ok(Err(error)) => self.report.tally.problem(format!("node {id}: {}", chain(&error))),
                Err(error) => self.report.tally.problem(format!("node {id}: cannot verify: {error}")),
            }
        }
    }
}

/// Reads the ledger as anybody can, and checks it.
fn check(ledger: &Path) -> Result<Verdict, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("the ledger {}: {error}", ledger.display());
    let file = File::open(ledger).map_err(|error| cannot(&error))?;
    let history = lines::read(BufReader::new(file)).map_err(|error| cannot(&error))?;
    Ok(raftmap::check::check(&history))
}

fn words(verdict: &Verdict) -> &'static str {
    if verdict.is_clean() { "nothing is wrong" } else { "SOMETHING IS WRONG" }
}

/// What a cycle needs of a run, borrowed part by part.
fn running<'a>(
    nodes: &'a mut Option<Nodes>,
    network: &'a Option<Network>,
    report: &'a mut Report,
) -> Result<(&'a mut Nodes, &'a Network, &'a mut Tally), String> {
    match (nodes, network) {
        (Some(nodes), Some(network)) => Ok((nodes, network, &mut report.tally)),
        _ => Err("the nodes are not running".into()),
    }
}

impl Workload {
    /// Lets all clients work on the keys of a cycle.
    fn begin(&mut self, cycle: u64) -> Vec<JoinHandle<Work>> {
        self.shared.begin();
        self.clients.drain(..).map(|client| tokio::spawn(client.work(cycle, RESOLVE_MAX))).collect()
    }

    /// Waits for what they did. They have been told to stop.
    async fn collect(&mut self, working: Vec<JoinHandle<Work>>) -> Result<History, String> {
        let mut history = History::default();
        for work in working {
            let Work { client, history: done, written } =
                work.await.map_err(|error| format!("a client ended early: {error}"))?;
            self.clients.push(client);
            history.extend(done);
            written.map_err(audit::ledger)?;
        }
        Ok(history)
    }
}

fn workload(
    report: &Report,
    nodes: &Nodes,
    network: &Network,
    ledger: Ledger,
) -> Result<Workload, raftmap::ConnectError> {
    let (seed, addresses) = (report.seed, network.addresses());
    let clerk = || Clerk::connect(&addresses, &ConnectOptions::default());
    let shared = Shared::new();
    let count = u32::try_from(report.clients).unwrap_or(u32::MAX);
    let client = |id| Ok(Client::new(id, seed, clerk()?, shared.clone(), ledger.clone()));
    let clients = (1..=count).map(client).collect::<Result<_, raftmap::ConnectError>>()?;
    let auditor = Auditor::new(count + 1, clerk()?, shared.clone(), ledger.clone());
    let plan = Plan::new(seed, nodes.ids(), &report.asked);
    Ok(Workload { shared, clients, auditor, plan })
}

async fn finish(thread: LedgerThread) -> Result<(), String> {
    let finished = tokio::task::spawn_blocking(|| thread.finish()).await;
    finished
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("the ledger cannot be written: {error}"))
}
