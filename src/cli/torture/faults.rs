//! Carries out a cycle's acts on real processes and links, and puts everything right again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raftmap::net::relay::{Counts, Weather};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::clients::Shared;
use super::network::Network;
use super::plan::Act;
use super::settings::{BALLAST, DISK_QUOTA, NO_SPACE_EXIT};
use super::sorts::{Kind, Sort};
use super::tally::Tally;
use crate::cli::cluster::nodes::{Nodes, leader_of};
use crate::cli::output;

/// How often it is looked whether a node ended by itself, and whether a new leader has acknowledged a write.
const LOOK: Duration = Duration::from_millis(20);

/// A fault waits so long at a time for an earlier one of its kind that takes longer than planned.
const BUSY_AGAIN: Duration = Duration::from_millis(100);

/// How often it is looked whether a node that is killed in recovery has its directory.
const OPENED_AGAIN: Duration = Duration::from_millis(1);

/// Nodes that may be busy, asleep or gone are asked so many times.
const ASKED_MAX: usize = 3;

/// ... and so many times whether their disks are full, after everything else was healed.
const FULL_ASKED_MAX: usize = 20;
/// Time until a node is asked again whether its disk is full.
const FULL_AGAIN: Duration = Duration::from_millis(500);

/// Does to the cluster what the plan says.
pub(crate) struct Faults<'a> {
    pub(crate) nodes: &'a mut Nodes,
    pub(crate) network: &'a Network,
    pub(crate) shared: &'a Shared,
    pub(crate) tally: &'a mut Tally,
    /// The cycle's beginning.
    begun: Instant,
    /// What is to be done when. Those of one time in the order in which they were put down.
    steps: BTreeMap<(Instant, u64), Step>,
    planned: u64,
    /// Nodes whose disk is full now.
    full: BTreeSet<u64>,
    /// Nodes that were started on a full disk: they may refuse, also a little later.
    doubtful: BTreeSet<u64>,
    /// The fault that filled them, and those of them that have not noticed yet.
    filled: Option<(Sort, BTreeSet<u64>)>,
    /// The weather, and all datagrams before it.
    weather: Option<(Sort, Counts)>,
    /// Since when somebody sleeps.
    asleep: Option<Instant>,
    /// What goes on now: one fault of a kind at a time, or the end of one would end another.
    active: BTreeSet<Kind>,
    /// A leader that was killed while nothing else went on: when, on both clocks.
    fallen: Option<(Instant, u64)>,
}

#[derive(Debug)]
enum Step {
    Begin(Act),
    Start(Vec<u64>),
    Continue(Vec<u64>),
    Reconnect,
    MakeRoom(Vec<u64>),
    AwaitRecovery(Recovering),
    EndRecovery(Recovering),
    Look,
}

/// A node that is killed in its recovery, over and over.
#[derive(Debug)]
struct Recovering {
    node: u64,
    /// How long each of its next lives goes on once it has its directory, the last one first.
    lives: Vec<Duration>,
    /// A life has ended in recovery.
    cut_short: bool,
}

/// Waits until then; `true`: somebody has said stop.
async fn stopped(stop: &mut watch::Receiver<Option<&'static str>>, at: Instant) -> bool {
    timeout_at(at, stop.wait_for(Option::is_some)).await.is_ok()
}

impl<'a> Faults<'a> {
    /// Nothing is planned yet.
    pub(crate) fn new(
        nodes: &'a mut Nodes,
        network: &'a Network,
        shared: &'a Shared,
        tally: &'a mut Tally,
    ) -> Self {
        let (steps, full) = (BTreeMap::new(), BTreeSet::new());
        let begun = Instant::now();
        Self {
            nodes,
            network,
            shared,
            tally,
            begun,
            steps,
            planned: 0,
            full,
            doubtful: BTreeSet::new(),
            filled: None,
            weather: None,
            asleep: None,
            active: BTreeSet::new(),
            fallen: None,
        }
    }

    /// Carries out these acts, and whatever they bring with them, until `length` has passed or somebody says stop. What was
    /// begun is not broken off: a signal on its way could arrive when all is healed.
    ///
    /// # Errors
    /// A node ended by itself or could not be started or signalled: in words, and the run is over.
    pub(crate) async fn run(
        &mut self,
        acts: Vec<Act>,
        length: Duration,
        stop: &mut watch::Receiver<Option<&'static str>>,
    ) -> Result<(), String> {
        self.begun = Instant::now();
        for act in acts {
            self.plan(self.begun + act.at, Step::Begin(act));
        }
        self.plan(self.begun, Step::Look);
        let end = self.begun + length;
        while let Some(((at, _), step)) = self.steps.pop_first().filter(|((at, _), _)| *at < end) {
            if stopped(stop, at).await {
                return Ok(());
            }
            self.look()?;
            self.step(step).await?;
        }
        stopped(stop, end).await;
        self.look()
    }

    /// Puts everything right: no full disk, no cut, nobody asleep, everybody up.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn heal(&mut self) -> Result<(), String> {
        self.steps.clear();
        self.calm();
        self.wake(&self.nodes.ids()).await?;
        self.make_room(self.nodes.ids()).await?;
        self.look()?;
        // Whether those still refuse is not waited for: they have room now.
        let doubtful: Vec<u64> = std::mem::take(&mut self.doubtful).into_iter().collect();
        self.kill(&doubtful).await?;
        self.start(&self.nodes.ids())
    }

    fn plan(&mut self, at: Instant, step: Step) {
        self.planned += 1;
        self.steps.insert((at, self.planned), step);
    }

    /// Sees who ended by itself. Only one that finds its disk full when it starts may.
    fn look(&mut self) -> Result<(), String> {
        while let Some(ended) = self.nodes.ended_by_itself() {
            if !(self.doubtful.contains(&ended.node) && ended.code == Some(NO_SPACE_EXIT)) {
                return Err(ended.words);
            }
            self.tally.refused_starts += 1;
            self.found_full(ended.node);
        }
        if let Some((killed, killed_ns)) = self.fallen
            && self.shared.sent_ns.load(Ordering::Relaxed) > killed_ns
        {
            self.tally.failovers.push(killed.elapsed());
            self.fallen = None;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Begin(act) => self.begin(act).await,
            Step::Start(nodes) => {
                self.active.remove(&Kind::Kill);
                self.start(&nodes)
            }
            Step::Continue(nodes) => {
                self.active.remove(&Kind::Stop);
                self.wake(&nodes).await
            }
            Step::Reconnect => {
                self.active.remove(&Kind::Partition);
                self.calm();
                Ok(())
            }
            Step::MakeRoom(nodes) => {
                // A node that is cut off or asleep does not notice: its disk stays full until it does.
                if !self.all_found_full(1).await {
                    self.plan(Instant::now() + FULL_AGAIN, Step::MakeRoom(nodes));
                    return Ok(());
                }
                self.active.remove(&Kind::Disk);
                self.make_room(nodes).await
            }
            Step::AwaitRecovery(recovering) => {
                self.await_recovery(recovering);
                Ok(())
            }
            Step::EndRecovery(recovering) => self.end_recovery(recovering).await,
            Step::Look => {
                self.plan(Instant::now() + LOOK, Step::Look);
                Ok(())
            }
        }
    }

    async fn begin(&mut self, act: Act) -> Result<(), String> {
        if self.active.contains(&act.sort.kind()) {
            self.plan(Instant::now() + BUSY_AGAIN, Step::Begin(act));
            return Ok(());
        }
        let leader = self.leader().await;
        self.look()?;
        let leads = leader.map_or("nobody leads".into(), |leader| format!("{leader} leads"));
        output::note(&format!("{:9.2} s  {act} ({leads})", self.shared.now() as f64 / 1e9));
        self.tally.begun += 1;
        let alone = self.active.is_empty();
        self.active.insert(act.sort.kind());
        // With another fault in its way a failover says nothing of failovers.
        self.fallen = None;
        // As planned, but for the time that it took to find out who leads.
        let end = (self.begun + act.at + act.lasts).max(Instant::now() + act.lasts / 2);
        match act.sort.kind() {
            Kind::Kill if act.sort == Sort::KillInRecovery => self.begin_recoveries(act).await,
            Kind::Kill => self.begin_kill(&act, leader, alone, end).await,
            Kind::Stop => self.begin_stop(&act, leader, end).await,
            Kind::Partition => {
                self.begin_weather(&act, leader, end);
                Ok(())
            }
            Kind::Disk => self.begin_full(&act, leader, end),
        }
    }

    async fn begin_recoveries(&mut self, act: Act) -> Result<(), String> {
        let node = act.order.first().copied().unwrap_or_default();
        self.kill(&[node]).await?;
        self.next_life(Recovering { node, lives: act.lives, cut_short: false })
    }

    async fn begin_kill(
        &mut self,
        act: &Act,
        leader: Option<u64>,
        alone: bool,
        end: Instant,
    ) -> Result<(), String> {
        let victims = act.victims(leader);
        if self.kill(&victims).await? == victims.len() {
            self.count(act.sort, leader);
        }
        if alone && leader.is_some_and(|leader| victims == [leader]) {
            self.fallen = Some((Instant::now(), self.shared.now()));
        }
        self.plan(end, Step::Start(victims));
        Ok(())
    }

    async fn begin_stop(&mut self, act: &Act, leader: Option<u64>, end: Instant) -> Result<(), String> {
        let victims = act.victims(leader);
        let mut stopped = 0;
        for id in &victims {
            stopped += usize::from(self.signal(*id, "STOP").await?);
        }
        if stopped == victims.len() {
            self.count(act.sort, leader);
            self.asleep = Some(Instant::now());
        }
        self.plan(end, Step::Continue(victims));
        Ok(())
    }

    fn begin_weather(&mut self, act: &Act, leader: Option<u64>, end: Instant) {
        // It counts once datagrams have met it.
        self.weather = act.sort.hits(leader).then(|| (act.sort, self.network.counts()));
        match act.weather == Weather::default() {
            true => self.network.cut(&act.cuts(leader)),
            false => self.network.set(act.weather),
        }
        self.plan(end, Step::Reconnect);
    }

    fn begin_full(&mut self, act: &Act, leader: Option<u64>, end: Instant) -> Result<(), String> {
        let victims = act.victims(leader);
        for id in &victims {
            self.fill(*id)?;
        }
        self.filled = act.sort.hits(leader).then(|| (act.sort, victims.iter().copied().collect()));
        self.shared.ask_for_large(true);
        self.plan(end, Step::MakeRoom(victims));
        Ok(())
    }

    /// Good weather again.
    fn calm(&mut self) {
        self.network.set(Weather::default());
        if let Some((sort, _)) = self.weather.take().filter(|(sort, before)| self.network.met(*sort, before))
        {
            self.took_hold(sort);
        }
    }

    /// Nobody sleeps any more.
    async fn wake(&mut self, nodes: &[u64]) -> Result<(), String> {
        for id in nodes {
            self.signal(*id, "CONT").await?;
        }
        if let Some(since) = self.asleep.take() {
            self.tally.pauses.push(since.elapsed());
        }
        Ok(())
    }

    /// Who leads, as far as anybody answers.
    async fn leader(&self) -> Option<u64> {
        for _ in 0..ASKED_MAX {
            if let Some(leader) = leader_of(&self.nodes.statuses().await) {
                return Some(leader);
            }
        }
        None
    }

    /// Whether all whose disks are full have noticed by now: they say so themselves, or would not start.
    async fn all_found_full(&mut self, asked_max: usize) -> bool {
        for asked in 0..asked_max {
            if self.filled.is_none() {
                break;
            }
            if asked > 0 {
                sleep(FULL_AGAIN).await;
            }
            for (id, _) in self.nodes.statuses().await.iter().filter(|(_, status)| status.no_space) {
                self.found_full(*id);
            }
        }
        self.filled.is_none()
    }

    /// This node has no room. With the last one that was to have none, the fault has taken hold.
    fn found_full(&mut self, node: u64) {
        let Some((sort, unnoticed)) = &mut self.filled else { return };
        unnoticed.remove(&node);
        if unnoticed.is_empty() {
            let sort = *sort;
            self.filled = None;
            self.took_hold(sort);
        }
    }

    /// It happened to whom it was meant for.
    fn count(&mut self, sort: Sort, leader: Option<u64>) {
        if sort.hits(leader) {
            self.took_hold(sort);
        }
    }

    fn took_hold(&mut self, sort: Sort) {
        *self.tally.fired.entry(sort).or_default() += 1;
    }

    async fn kill(&mut self, victims: &[u64]) -> Result<usize, String> {
        let mut killed = 0;
        for id in victims.iter().filter(|id| self.nodes.runs(**id)).copied().collect::<Vec<_>>() {
            self.nodes.kill(id).await.map_err(|error| format!("cannot kill node {id}: {error}"))?;
            killed += 1;
            self.tally.processes_killed += 1;
        }
        Ok(killed)
    }

    /// One more life of a node that is killed in its recovery. The last one it keeps.
    fn next_life(&mut self, recovering: Recovering) -> Result<(), String> {
        self.start(&[recovering.node])?;
        match recovering.lives.is_empty() {
            true => drop(self.active.remove(&Kind::Kill)),
            false => self.plan(Instant::now(), Step::AwaitRecovery(recovering)),
        }
        Ok(())
    }

    /// Its time counts from when it has its directory, which a busy machine lets it have late. One that refuses a full
    /// disk is gone.
    fn await_recovery(&mut self, mut recovering: Recovering) {
        let now = Instant::now();
        if !self.nodes.has_opened(recovering.node) && self.nodes.runs(recovering.node) {
            return self.plan(now + OPENED_AGAIN, Step::AwaitRecovery(recovering));
        }
        let after = recovering.lives.pop().unwrap_or_default();
        self.plan(now + after, Step::EndRecovery(recovering));
    }

    /// It counts once a life has ended with its directory open and before the node listened.
    async fn end_recovery(&mut self, mut recovering: Recovering) -> Result<(), String> {
        let node = recovering.node;
        if self.nodes.runs(node) {
            self.kill(&[node]).await?;
            if !self.nodes.has_recovered(node) && !recovering.cut_short {
                recovering.cut_short = true;
                self.took_hold(Sort::KillInRecovery);
            }
        }
        self.next_life(recovering)
    }

    fn start(&mut self, nodes: &[u64]) -> Result<(), String> {
        for id in nodes.iter().copied().filter(|id| !self.nodes.runs(*id)).collect::<Vec<_>>() {
            match self.full.contains(&id) {
                true => self.doubtful.insert(id),
                false => self.doubtful.remove(&id),
            };
            self.nodes.start(id).map_err(|error| format!("cannot start node {id}: {error}"))?;
            self.tally.restarts += 1;
        }
        Ok(())
    }

    /// `false`: it does not run.
    async fn signal(&mut self, id: u64, signal: &str) -> Result<bool, String> {
        let sent = self.nodes.signal(id, signal).await;
        sent.map_err(|error| format!("cannot send SIG{signal} to node {id}: {error}"))
    }

    /// Puts a file into a node's directory that takes up all of its quota.
    fn fill(&mut self, id: u64) -> Result<(), String> {
        let path = self.nodes.directory(id).join(BALLAST);
        let filled = File::create(&path).and_then(|file| file.set_len(DISK_QUOTA));
        filled.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        self.full.insert(id);
        Ok(())
    }

    /// Takes it out again, once all have noticed, if they do.
    async fn make_room(&mut self, nodes: Vec<u64>) -> Result<(), String> {
        let full: Vec<u64> = nodes.into_iter().filter(|id| self.full.contains(id)).collect();
        if full.is_empty() {
            return Ok(());
        }
        // With everything else healed it comes to that, unless nobody writes.
        if !self.all_found_full(FULL_ASKED_MAX).await {
            self.filled = None;
        }
        self.shared.ask_for_large(false);
        for id in full {
            let path = self.nodes.directory(id).join(BALLAST);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("cannot remove {}: {error}", path.display()));
                }
                Ok(()) | Err(_) => {}
            }
            self.full.remove(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
