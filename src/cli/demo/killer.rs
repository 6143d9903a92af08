//! SIGKILL and restart, one node at a time, by the plan.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmap::NodeStatus;
use tokio::time::{Instant, sleep, sleep_until};

use super::clients::Shared;
use super::plan::{Plan, Victim};
use super::report::Kill;
use super::view::View;
use crate::cli::cluster::nodes::Nodes;
use crate::cli::status::leader;

/// A restarted node has to be back within this.
const BACK_MAX: Duration = Duration::from_secs(8);
/// How often nodes are asked while something is waited for.
const POLL: Duration = Duration::from_millis(20);

/// Kills and restarts.
pub(super) struct Killer<'a> {
    pub(super) nodes: &'a mut Nodes,
    pub(super) plan: Plan,
    pub(super) view: &'a View,
    pub(super) shared: &'a Shared,
    /// Every kill so far.
    pub(super) kills: &'a mut Vec<Kill>,
    /// Nodes that came back.
    pub(super) restarts: &'a mut u64,
    /// A leader that was killed and whose successor has not been seen yet.
    pub(super) fallen: Option<Fallen>,
    /// The latest leader's term.
    pub(super) term: u64,
}

/// A leader that is gone.
#[derive(Clone, Copy)]
pub(super) struct Fallen {
    /// Its term: whoever leads in a later one is its successor.
    term: u64,
    killed: Instant,
}

type Statuses = BTreeMap<u64, NodeStatus>;

impl Killer<'_> {
    /// Kills a node `every` so often until `end`, and sees each back before the next.
    ///
    /// # Errors
    /// A node ended by itself, did not come back, or could not be started: in words, and the run is over.
    pub(super) async fn run(&mut self, every: Duration, end: Instant) -> Result<(), String> {
        let mut next = Instant::now() + every;
        loop {
            sleep_until(next.min(end)).await;
            let Some(victim) = self.choose(end).await? else { return Ok(()) };
            self.strike(victim).await?;
            // Late is late: two kills do not follow at once to make up for it.
            next = (next + every).max(Instant::now());
        }
    }

    /// The plan's next victim, once all nodes are up and, where it matters, one leads. `None`: the time is over.
    async fn choose(&mut self, end: Instant) -> Result<Option<Victim>, String> {
        while Instant::now() < end {
            let statuses = self.ask().await?;
            let leader = leader(statuses.values());
            if statuses.len() == self.nodes.ids().len()
                && let Some(victim) = self.plan.next(leader.map(|leader| leader.id.0))
            {
                self.term = leader.map_or(self.term, |leader| leader.term.0);
                return Ok(Some(victim));
            }
            sleep(POLL).await;
        }
        Ok(None)
    }

    async fn strike(&mut self, victim: Victim) -> Result<(), String> {
        let Victim { node, leads, down } = victim;
        let before = self.shared.now();
        self.nodes.kill(node).await.map_err(|error| format!("cannot kill node {node}: {error}"))?;
        let after = self.shared.now();
        self.kills.push(Kill { node, led: leads, before, after });
        let killed = Instant::now();
        self.view.tell(&format!("killed node {node}{}", if leads { " (leader)" } else { "" }));
        self.fallen = leads.then_some(Fallen { term: self.term, killed });
        while self.fallen.is_some() && killed.elapsed() < down {
            self.ask().await?;
            sleep(POLL).await;
        }
        sleep_until(killed + down).await;
        self.bring_back(node, killed).await
    }

    /// Restarts a node, and waits until it has what was committed when it came.
    async fn bring_back(&mut self, node: u64, killed: Instant) -> Result<(), String> {
        self.nodes.start(node).map_err(|error| format!("cannot restart node {node}: {error}"))?;
        let (started, mut wanted) = (Instant::now(), None);
        while started.elapsed() < BACK_MAX {
            let statuses = self.ask().await?;
            wanted = wanted.or(leader(statuses.values()).map(|leader| leader.committed));
            if let (Some(wanted), Some(status)) = (wanted, statuses.get(&node))
                && status.applied >= wanted
            {
                *self.restarts += 1;
                let (down, back) = (started - killed, started.elapsed());
                let (down, back) = (down.as_millis(), back.as_millis());
                self.view.tell(&format!(
                    "restarted node {node} after {down} ms; it has caught up {back} ms later"
                ));
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(format!("node {node} did not catch up within {BACK_MAX:?} of its restart"))
    }

    /// Asks all nodes that run how they are, and tells when a fallen leader's successor is seen.
    async fn ask(&mut self) -> Result<Statuses, String> {
        self.nodes.ended_by_itself().map_or(Ok(()), |ended| Err(ended.words))?;
        let statuses = self.nodes.statuses().await;
        if let (Some(fallen), Some(leader)) = (self.fallen, leader(statuses.values()))
            && leader.term.0 > fallen.term
        {
            let (id, after) = (leader.id, fallen.killed.elapsed().as_millis());
            self.view.tell(&format!("node {id} leads after {after} ms"));
            self.fallen = None;
        }
        Ok(statuses)
    }
}
