//! A run from beginning to end: cycles of faults, healing and check, and a last look at what is on the disks.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use raftmap::check::{History, Verdict};
use raftmap::storage::os::OsFs;
use raftmap::{Clerk, ConnectOptions};
use tokio::sync::watch;

use super::audit::{self, Auditor, EQUAL_MAX};
use super::clients::{Board, Client, Share};
use super::faults::Faults;
use super::ledger::{Ledger, Scribe};
use super::network::Network;
use super::plan::Plan;
use super::report::{ACKNOWLEDGED_MIN, Report};
use super::settings::SERVE;
use crate::cli::cluster::nodes::Nodes;
use crate::cli::exit::chain;
use crate::cli::{lines, output};

/// The nodes have to find a leader within this.
const START_MAX: Duration = Duration::from_secs(20);
/// Once everything is healed, clients have this long to find out about calls whose outcome is unknown.
const RESOLVE_MAX: Duration = Duration::from_secs(20);

/// A ledger with more operations is not checked as a whole, for that takes some hundred bytes of memory for each.
const LEDGER_MAX: u64 = 5_000_000;

/// A run, and what is known of it so far.
pub(crate) struct Play {
    pub(crate) dir: PathBuf,
    pub(crate) load: Duration,
    pub(crate) report: Report,
    /// Tells the reason once it is to stop early.
    pub(crate) stop: watch::Receiver<Option<&'static str>>,
    pub(crate) nodes: Option<Nodes>,
    pub(crate) network: Option<Network>,
}

/// What goes on from cycle to cycle.
struct Company {
    board: Arc<Board>,
    clients: Vec<Client>,
    auditor: Auditor,
    plan: Plan,
}

impl Play {
    /// Plays. What goes wrong ends it, and stands in the report.
    pub(crate) async fn run(&mut self) {
        let begun = Instant::now();
        match self.phases(begun).await {
            Ok(()) => self.report.complete = true,
            Err(problem) => self.report.tally.problem(problem),
        }
        self.report.ran = begun.elapsed();
        if let Some(network) = &self.network {
            self.report.datagrams = network.counts();
        }
    }

    async fn phases(&mut self, begun: Instant) -> Result<(), String> {
        let cannot = |error: &dyn std::error::Error| format!("cannot start: {}", chain(error));
        let (seed, history) = (self.report.seed, self.report.history.clone());
        let (ledger, scribe) = Ledger::create(&history)
            .map_err(|error| format!("cannot make the ledger {}: {error}", history.display()))?;
        let nodes = Nodes::new(&self.dir, self.report.nodes).map_err(|error| cannot(&error))?;
        let nodes = self.nodes.insert(nodes.with_settings(&SERVE));
        let network = Network::between(nodes, seed).await.map_err(|error| cannot(&error))?;
        let network = self.network.insert(network);
        for id in nodes.ids() {
            nodes.start(id).map_err(|error| format!("cannot start node {id}: {error}"))?;
        }
        let leader = audit::one_leader(nodes, START_MAX).await?;
        output::note(&format!("node {leader} leads; seed {seed}, in {}", self.dir.display()));
        let company = company(&self.report, nodes, network, ledger).map_err(|error| cannot(&error))?;
        let ended = self.cycles(company, begun).await;
        let written = finish(scribe).await;
        self.verify().await;
        self.check_ledger().await;
        ended.and(written)
    }

    /// Cycle after cycle, until the time is over or somebody says stop.
    async fn cycles(&mut self, mut company: Company, begun: Instant) -> Result<(), String> {
        let mut left = self.load;
        for cycle in 1.. {
            let (more, length) = self.cycle(company, cycle, left).await?;
            company = more;
            left = left.saturating_sub(length);
            if let Some(why) = *self.stop.borrow() {
                return Err(format!("stopped by {why} after {} s", begun.elapsed().as_secs()));
            }
            if left.is_zero() {
                break;
            }
            company.auditor.sweep().await?;
        }
        for client in company.clients {
            client.close().await;
        }
        Ok(())
    }

    async fn cycle(
        &mut self,
        mut company: Company,
        cycle: u64,
        left: Duration,
    ) -> Result<(Company, Duration), String> {
        let (Some(nodes), Some(network)) = (&mut self.nodes, &self.network) else {
            return Err("the nodes are not running".into());
        };
        let tally = &mut self.report.tally;
        let board = company.board.clone();
        let (acts, length) = company.plan.cycle(left);
        board.begin();
        let working: Vec<_> =
            company.clients.drain(..).map(|client| tokio::spawn(client.work(cycle, RESOLVE_MAX))).collect();
        let mut faults = Faults::new(nodes, network, &board, tally);
        let struck = tokio::select! {
            struck = faults.run(acts, length) => struck,
            _ = self.stop.wait_for(Option::is_some) => Ok(()),
        };
        let healed = match struck {
            Ok(()) => faults.heal().await,
            Err(problem) => Err(problem),
        };
        board.stop();
        let since = Instant::now();
        healed?;
        let mut history = History::default();
        for share in working {
            let Share { client, history: share, written } =
                share.await.map_err(|error| format!("a client ended early: {error}"))?;
            company.clients.push(client);
            history.extend(share);
            written.map_err(audit::ledger)?;
        }
        tally.unresolved = board.unresolved.load(Ordering::Relaxed);
        let before = tally.acknowledged_writes + tally.answered_reads;
        tally.count(&history);
        let acknowledged = tally.acknowledged_writes + tally.answered_reads - before;
        tally.idle_cycles += u64::from(acknowledged < ACKNOWLEDGED_MIN);
        audit::one_leader(nodes, EQUAL_MAX).await?;
        audit::equal_replicas(nodes).await?;
        tally.converged.push(since.elapsed());
        let verdict = company.auditor.audit(history, tally).await?;
        tally.judge(&verdict);
        audit::within_bounds(nodes, tally).await;
        tally.cycles += 1;
        let at = board.now() as f64 / 1e9;
        output::note(&format!("{at:9.2} s  cycle {cycle}: {acknowledged} operations, {}", words(&verdict)));
        match verdict.is_clean() {
            true => Ok((company, length)),
            false => Err(format!("cycle {cycle} found what must not be")),
        }
    }

    /// Checks the whole run once more, from what is in its ledger: across cycles, and that it is all there.
    async fn check_ledger(&mut self) {
        if self.report.tally.operations() > LEDGER_MAX {
            return;
        }
        let path = self.report.history.clone();
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

fn company(
    report: &Report,
    nodes: &Nodes,
    network: &Network,
    ledger: Ledger,
) -> Result<Company, raftmap::ConnectError> {
    let (seed, addresses) = (report.seed, network.addresses());
    let clerk = || Clerk::connect(&addresses, &ConnectOptions::default());
    let board = Board::new();
    let count = u32::try_from(report.clients).unwrap_or(u32::MAX);
    let client = |id| Ok(Client::new(id, seed, clerk()?, board.clone(), ledger.clone()));
    let clients = (1..=count).map(client).collect::<Result<_, raftmap::ConnectError>>()?;
    let auditor = Auditor::new(count + 1, clerk()?, board.clone(), ledger.clone());
    let plan = Plan::new(seed, nodes.ids(), &report.asked);
    Ok(Company { board, clients, auditor, plan })
}

async fn finish(scribe: Scribe) -> Result<(), String> {
    let finished = tokio::task::spawn_blocking(|| scribe.finish()).await;
    finished
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("the ledger cannot be written: {error}"))
}
