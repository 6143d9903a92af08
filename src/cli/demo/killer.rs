//! SIGKILL and restart, one node at a time, by the plan.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::clients::Board;
use super::nodes::{Nodes, leader_of};
use super::plan::{Plan, Victim};
use super::report::Kill;
use super::view::View;

/// A restarted node has to be back within this.
const BACK_MAX: Duration = Duration::from_secs(8);
/// How often nodes are asked while something is waited for.
const POLL: Duration = Duration::from_millis(20);

/// Kills and restarts.
pub(super) struct Killer<'a> {
    pub(super) nodes: &'a mut Nodes,
    pub(super) plan: Plan,
    pub(super) view: &'a View,
    pub(super) board: &'a Board,
    /// Every kill so far.
    pub(super) kills: &'a mut Vec<Kill>,
    /// Nodes that came back.
    pub(super) restarts: &'a mut u64,
}

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
            self.all_run()?;
            let statuses = self.nodes.statuses().await;
            if statuses.len() == self.nodes.ids().len()
                && let Some(victim) = self.plan.next(leader_of(&statuses))
            {
                return Ok(Some(victim));
            }
            sleep(POLL).await;
        }
        Ok(None)
    }

    async fn strike(&mut self, victim: Victim) -> Result<(), String> {
        let Victim { node, leads, down } = victim;
        let before = self.board.now();
        self.nodes.kill(node).await.map_err(|error| format!("cannot kill node {node}: {error}"))?;
        let after = self.board.now();
        self.kills.push(Kill { node, led: leads, before, after });
        let killed = Instant::now();
        if leads {
            self.view.tell(&format!("killed node {node} (leader)"));
            self.watch_election(node, killed, killed + down).await;
        } else {
            self.view.tell(&format!("killed node {node}"));
        }
        sleep_until(killed + down).await;
        self.bring_back(node, killed).await
    }

    /// Tells who leads next, if that is seen before `until`.
    async fn watch_election(&self, gone: u64, killed: Instant, until: Instant) -> Option<u64> {
        while Instant::now() < until {
            if let Some(leader) = leader_of(&self.nodes.statuses().await).filter(|leader| *leader != gone) {
                self.view.tell(&format!("node {leader} leads after {} ms", killed.elapsed().as_millis()));
                return Some(leader);
            }
            sleep(POLL).await;
        }
        None
    }

    /// Restarts a node, and waits until it has what was committed when it came.
    async fn bring_back(&mut self, node: u64, killed: Instant) -> Result<(), String> {
        self.nodes.start(node).map_err(|error| format!("cannot restart node {node}: {error}"))?;
        let (started, mut wanted) = (Instant::now(), None);
        while started.elapsed() < BACK_MAX {
            self.all_run()?;
            let statuses = self.nodes.statuses().await;
            let leads = leader_of(&statuses).and_then(|leader| statuses.get(&leader));
            wanted = wanted.or(leads.map(|leader| leader.committed));
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

    fn all_run(&mut self) -> Result<(), String> {
        self.nodes.ended_by_itself().map_or(Ok(()), Err)
    }
}
