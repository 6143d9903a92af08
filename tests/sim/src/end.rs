//! The end of a world: the faults stop, a majority is healed, and everything must come right within bounded time, a
//! minority that stays broken or not. Then what clients saw is judged, and what the disks hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use raftmap::raft::RoleKind;
use raftmap::storage::model::Cut;
use raftmap::storage::types::NodeId;

use crate::atlas::{Harm, spoiled};
use crate::damage::copied;
use crate::history;
use crate::net::End;
use crate::node::Node;
use crate::world::{Event, World};

/// How long clients go on when the faults are over.
const AFTERMATH: Duration = Duration::from_millis(800);
/// By then everything must have come right.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Syncs of a disk that hangs take this many times as long.
const HUNG: u32 = 1_000_000;

/// How a node stays broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Dead,
    CutOff,
    Stopped,
    DiskHangs,
}

fn leads(node: &Node) -> bool {
    node.life.as_ref().is_some_and(|life| life.replica.soft_state().role == RoleKind::Leader)
}

/// Segments that a disk may hold at the end beyond twice the log's bound: a snapshot is due at four, for only whole ones go;
/// the one being written; a spare.
const SEGMENTS_LEFT: u64 = 6;
/// The snapshot in force, the one before it, and one that never came whole.
const SNAPSHOTS_LEFT: u64 = 3;

/// What broke off is dropped when the next one begins.
const UNFINISHED_LEFT: usize = 1;

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tmp-"))
}

impl World {
    /// Faults are over: from here on everything must come right.
    pub fn calm_down(&mut self) {
        self.trace.note(self.now, 0, "calm", 0, 0);
        self.calm = Some(self.now);
        self.links.calm();
        if self.rests_before_total_damage() || self.ends_in_total_damage() {
            return;
        }
        if self.setup.faults.crippled {
            self.cripple();
        }
        for at in 0..self.nodes.len() {
            if !self.broken.contains(&at) {
                self.mend(at);
            }
        }
        self.after(AFTERMATH, Event::StopClients);
        self.after(AFTERMATH, Event::Look);
    }

    /// A minority stays as it is, or becomes worse.
    fn cripple(&mut self) {
        self.broken = spoiled(&self.nodes).collect();
        if !self.broken.is_empty() {
            self.trace.sometimes("the end came with a damaged node");
        }
        let room = (self.nodes.len() - 1) / 2 - self.broken.len();
        let more = self.nemesis.between(room.min(1) as u64, room as u64) as usize;
        let sound =
            self.nemesis.shuffled(self.nodes.len()).into_iter().filter(|at| !self.broken.contains(at));
        for at in sound.take(more).collect::<Vec<_>>() {
            self.broken.insert(at);
            let fate = self.nemesis.pick(&[Fate::Dead, Fate::CutOff, Fate::Stopped, Fate::DiskHangs]);
            self.suffer(at, fate);
        }
    }

    fn suffer(&mut self, at: usize, fate: Fate) {
        match fate {
            Fate::Dead => {
                let crash = self.draw_crash();
                self.crash(at, crash);
                self.trace.sometimes("the end came with a dead node");
            }
            Fate::CutOff => {
                self.links.sever(End::Node(at));
                self.trace.sometimes("the end came with a node cut off");
            }
            Fate::Stopped => match &mut self.nodes[at].life {
                Some(life) => {
                    life.paused.get_or_insert_default();
                    self.trace.sometimes("the end came with a stopped process");
                }
                None => self.trace.sometimes("the end came with a dead node"),
            },
            Fate::DiskHangs => {
                self.nodes[at].slowness = HUNG;
                self.trace.sometimes("the end came with a disk that hangs");
            }
        }
    }

    pub fn mend(&mut self, at: usize) {
        self.heal_disk(at);
        let seed = self.disks.number();
        let node = &mut self.nodes[at];
        (node.locked_out, node.relapses) = (false, 0);
        if let Harm::Spoiled(sound) = &node.harm {
            node.disk = copied(sound, seed);
            node.harm = Harm::None;
        }
        let life = node.lives;
        self.at(self.now, Event::Resume(at, life));
        self.at(self.now, Event::Start(at));
    }

    pub fn look(&mut self) {
        match self.settled() {
            Ok(()) => self.over = true,
            Err(why) => {
                let since = self.now - self.calm.unwrap_or(self.now);
                assert!(since < PATIENCE, "{since:?} after the last fault: {why}");
                // A client that has not got through yet goes on, and all of them while somebody broken leads: a disk that
                // hangs is noticed by the next write.
                let led = self.healthy().any(leads);
                for at in 0..self.clients.len() {
                    if self.clients[at].is_quiet() && !(self.got_through(at) && self.has_written() && led) {
                        self.clients[at].stopped = false;
                        self.issue(at);
                        self.clients[at].stopped = true;
                    }
                }
                self.after(LOOK, Event::Look);
            }
        }
    }

    fn got_through(&self, client: usize) -> bool {
        self.calm.is_some_and(|calm| self.last_done[client] > calm)
    }

    fn has_written(&self) -> bool {
        self.calm.is_some_and(|calm| self.last_write > calm)
    }

    fn healthy(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().enumerate().filter(|(at, _)| !self.broken.contains(at)).map(|(_, node)| node)
    }

    /// One leader, everybody healthy with the same state and nothing left in hand, every call at its end.
    fn settled(&self) -> Result<(), String> {
        for (at, client) in self.clients.iter().enumerate() {
            if !client.is_quiet() || !self.got_through(at) {
                return Err(format!("client {at} still waits"));
            }
        }
        if !self.has_written() {
            return Err("no write was acknowledged".into());
        }
        let mut states = Vec::new();
        for node in self.healthy() {
            let life = node.life.as_ref().ok_or_else(|| format!("node {} does not run", node.id()))?;
            self.promises.kept(&self.connections, node)?;
            let held = life.replica.held();
            let busy = life.writer.has_orders() || life.writer.is_syncing() || !life.jobs.is_empty();
            if held != Default::default() || busy {
                return Err(format!("node {} still holds {held:?}, or has work: {busy}", node.id()));
            }
            let raft = life.replica.raft().status();
            if raft.last.index != raft.committed {
                return Err(format!("node {} has a log to {}", node.id(), raft.last));
            }
            states.push((node.id(), raft.term, raft.role, raft.leader, raft.committed, raft.applied));
        }
        if self.transfers.values().any(|transfer| transfer.ends().iter().all(|at| !self.broken.contains(at)))
        {
            return Err("a snapshot is still on its way".into());
        }
        let leader = states.iter().find(|state| state.2 == RoleKind::Leader);
        let Some((leader, term, _, _, committed, _)) = leader.copied() else {
            return Err(format!("nobody leads: {states:?}"));
        };
        let alike = |state: &(NodeId, _, RoleKind, Option<NodeId>, _, _)| {
            (state.1, state.3, state.4, state.5) == (term, Some(leader), committed, committed)
        };
        if states.iter().all(alike) { Ok(()) } else { Err(format!("not alike: {states:?}")) }
    }

    /// Looks at everything that must hold at the end, when all nodes run but those that stay broken.
    pub fn judge(&mut self) {
        let keys: BTreeSet<String> = self.history.iter().map(|call| call.key.clone()).collect();
        let (mut last, mut reached) = (BTreeMap::new(), 0);
        for at in 0..self.nodes.len() {
            self.note_struck(at);
            if self.broken.contains(&at) {
                continue;
            }
            let node = &self.nodes[at];
            let Some(life) = &node.life else { panic!("node {} does not run at the end", node.id()) };
            let (applied, digest) = (life.replica.map().applied_index(), life.replica.map().digest());
            for key in &keys {
                if let Some(found) = life.replica.map().get(key.as_bytes()) {
                    let value = String::from_utf8_lossy(&found.value).into_owned();
                    last.insert(key.clone(), (found.version, value));
                }
            }
            reached = applied.0;
            self.must(self.keeps_little(at));
            let checked = self.watch.digest(node.id(), applied, digest);
            self.must(checked);
            // What a power cut at the very end would leave.
            let latent = matches!(node.harm, Harm::Latent);
            let disk = if latent { node.disk.kill() } else { node.disk.cut(Cut::LoseAll) };
            let recovered = self.must(self.nodes[at].look(&disk));
            let checked = self.nodes[at].shadow.reborn(&recovered);
            self.must(checked);
        }
        self.must(self.watch.whole(&self.nodes));
        self.history.extend(history::closing(&self.history, &last, reached));
        let verdict = history::judge(&self.history);
        self.must(if verdict.is_clean() { Ok(()) } else { Err(verdict.to_string()) });
        self.checked.extend([
            (history::CALLS, verdict.operations),
            (history::ORDERED, verdict.checks.ordered),
            (history::WITNESSED, verdict.checks.answers.checks),
            (history::UNWITNESSED, verdict.checks.answers.unknown),
            (history::SEARCHED, verdict.checks.windows.checks),
            (history::UNSEARCHED, verdict.checks.windows.unknown),
            (history::STATES, self.watch.compared),
        ]);
    }

    /// What is behind the snapshot is gone from the disk too, in whole segments.
    fn keeps_little(&self, at: usize) -> Result<(), String> {
        let node = &self.nodes[at];
        let Some(bound) = node.config.max_raft_state.filter(|_| !matches!(node.harm, Harm::Latent)) else {
            return Ok(());
        };
        let files = node.disk.files();
        let unfinished = files.iter().filter(|path| is_unfinished(path)).count();
        if unfinished > UNFINISHED_LEFT {
            return Err(format!("{} ends with {unfinished} unfinished files: {files:?}", node.id()));
        }
        let files = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "snap"));
        let snapshot = files.filter_map(|path| Some(node.disk.peek(&path)?.len() as u64)).max().unwrap_or(0);
        let most = 2 * bound + SEGMENTS_LEFT * self.setup.sizes.log.segment_bytes + SNAPSHOTS_LEFT * snapshot;
        let used = node.disk.used();
        if used <= most {
            return Ok(());
        }
        Err(format!("{} ends with {used} bytes on its disk, at most {most}", node.id()))
    }

    /// Terms rise by elections, and elections take time; where messages come through, they also need a reason.
    pub fn judge_terms(&self) {
        let shortest = self.setup.timing.election_min;
        let elections = (self.now.as_millis() / shortest.as_millis()) as u64;
        self.must(self.watch.terms(8 + 2 * elections + self.upsets));
        let net = &self.setup.net;
        if net.loss == 0 && net.late == 0 && !net.uneven {
            self.must(self.watch.terms(8 + 4 * self.upsets));
        }
    }
}
