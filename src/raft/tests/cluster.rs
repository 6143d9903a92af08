//! A cluster of cores whose network and disks the test holds in its hands. It checks Raft's promises as it goes: they are
//! the panics below, and the core's own invariants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raftmap_storage::types::{Entry, HardState, Index, Membership, NodeId, Position, SnapshotId, Term};

use super::files::{Disk, Pending, Queue, frames};
use crate::raft::message::AppendOutcome;
use crate::raft::{
    Body, Config, Message, Outbound, Raft, ReadId, ReadIndexError, Ready, Restored, RoleKind, entry,
};

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) config: Config,
    /// `None` while it is down.
    pub(super) raft: Option<Raft>,
    pub(super) disk: Disk,
    pub(super) queue: Queue,
    /// Syncs do not end by themselves.
    pub(super) held: bool,
    /// The map: every entry since the first, as applied.
    pub(super) machine: Vec<Entry>,
    /// The commit index when each waiting read was asked for.
    pub(super) reads: BTreeMap<ReadId, Index>,
}

#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) network: VecDeque<Envelope>,
    /// Links over which nothing comes.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Snapshot files, by what they hold.
    files: BTreeMap<(Index, Term), Vec<Entry>>,
    /// What happened, one line each.
    pub(super) trace: Vec<String>,
    /// Nobody reads the trace.
    pub(super) quiet: bool,
    /// Leaders by term: one each (Election Safety).
    leaders: BTreeMap<Term, NodeId>,
    /// Votes that left, by term and voter: one each.
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Everything that anybody took as committed.
    chosen: Vec<Entry>,
    /// A disk lied, so that a majority of copies can no longer be demanded.
    pub(super) lied: bool,
}

pub(super) fn config(id: NodeId) -> Config {
    Config {
        id,
        election_ticks: (10, 20),
        heartbeat_ticks: 3,
        append_bytes_max: 1000,
        append_entries_max: 8,
        inflight_appends_max: 4,
        inflight_bytes_max: 4000,
        uncommitted_bytes_max: 10_000,
        log_bytes_max: None,
        payload_max: 1 << 20,
        tail_bytes: 1_000_000,
        seed: 7,
    }
}

/// What a new node writes itself: every member the same.
fn fresh(voters: &BTreeSet<NodeId>) -> Disk {
    let cluster = Default::default();
    let bootstrap = entry::Bootstrap { cluster, voters: voters.clone(), limits: Bytes::new() };
    Disk {
        hard_state: HardState { term: Term(1), vote: None },
        snapshot: None,
        log: vec![bootstrap.entry().unwrap()],
    }
}

impl Cluster {
    pub(super) fn new(size: u64, config: impl Fn(NodeId) -> Config) -> Self {
        let voters: BTreeSet<NodeId> = (1..=size).map(NodeId).collect();
        let mut cluster = Self::default();
        for id in &voters {
            let member = Member {
                config: config(*id),
                raft: None,
                disk: fresh(&voters),
                queue: Queue::new(),
                held: false,
                machine: Vec::new(),
                reads: BTreeMap::new(),
            };
            cluster.members.insert(*id, member);
        }
        voters.into_iter().for_each(|id| cluster.start(id));
        cluster
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn member(&mut self, id: NodeId) -> &mut Member {
        self.members.get_mut(&id).unwrap()
    }

    pub(super) fn raft(&mut self, id: NodeId) -> Option<&mut Raft> {
        self.member(id).raft.as_mut()
    }

    pub(super) fn say(&mut self, line: String) {
        self.trace.push(line);
    }

    /// Starts a member from its disk.
    pub(super) fn start(&mut self, id: NodeId) {
        let voters = self.ids().into_iter().collect();
        let member = self.members.get_mut(&id).unwrap();
        let tail_bytes = member.config.tail_bytes;
        let mut from = member.disk.log.len();
        let mut bytes = 0;
        while from > 0 && bytes + member.disk.log[from - 1].payload.len() <= tail_bytes {
            from -= 1;
            bytes += member.disk.log[from].payload.len();
        }
        let restored = Restored {
            hard_state: member.disk.hard_state,
            snapshot: member.disk.snapshot,
            membership: Membership { voters },
            log: member.disk.metas(),
            tail: member.disk.log[from..].to_vec(),
            sealed_through: member.disk.last().index,
        };
        let base = member.disk.base();
        member.machine = match base.index {
            Index(0) => Vec::new(),
            _ => self.files[&(base.index, base.term)].clone(),
        };
        member.raft = Some(Raft::new(member.config.clone(), restored).unwrap());
    }

    /// Power goes; of what was on its way to the disk, `frames_kept` frames have reached it.
    pub(super) fn crash(&mut self, id: NodeId, mut frames_kept: usize) {
        let member = self.member(id);
        member.raft = None;
        member.reads.clear();
        for pending in std::mem::take(&mut member.queue) {
            for frame in pending.batch.iter().flat_map(|(_, batch)| frames(batch)) {
                if frames_kept > 0 {
                    frames_kept -= 1;
                    member.disk.write(frame);
                }
            }
        }
    }

    /// Takes and carries out everything that the core has ready.
    pub(super) fn pump(&mut self, id: NodeId) {
        loop {
            let member = self.members.get_mut(&id).unwrap();
            let Some(raft) = &mut member.raft else { return };
            raft.check_invariants();
            if raft.has_ready() {
                let ready = raft.ready(&member.disk).unwrap();
                raft.check_invariants();
                self.carry_out(id, ready);
            } else if member.held || member.queue.is_empty() {
                return self.look_around(id);
            } else {
                self.sync(id);
            }
        }
    }

    fn carry_out(&mut self, id: NodeId, ready: Ready) {
        if !self.quiet {
            self.tell(id, &ready);
        }
        let durable_term = self.member(id).disk.hard_state.term;
        for Outbound { to, message } in ready.messages {
            let asks = matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { granted: true });
            assert!(asks || message.term <= durable_term, "n{id} says {message:?} at term {durable_term}");
            let waits = matches!(
                message.body,
                Body::Vote { .. }
                    | Body::VoteReply { granted: true }
                    | Body::AppendReply(AppendOutcome::Accepted { .. })
            );
            assert!(!waits, "n{id} does not wait for its sync with {message:?}");
            self.network.push_back(Envelope { from: id, to, message });
        }
        let member = self.members.get_mut(&id).unwrap();
        member.queue.push_back(Pending { batch: ready.batch, messages: ready.messages_after_sync });
        // Disks lose nothing that was synced, unless one lied: so nobody shows less than it acknowledged.
        assert!(self.lied || ready.regressions.is_empty(), "n{id} reports {:?}", ready.regressions);
        if let Some(snapshot) = ready.restore {
            member.machine = self.files[&(snapshot.position.index, snapshot.position.term)].clone();
        }
        self.apply(id, ready.committed);
        for (read, index) in ready.reads {
            let asked = self.member(id).reads.remove(&read).unwrap();
            assert!(index >= asked, "read {read:?} at {index}, but {asked} was acknowledged before it began");
        }
        for read in ready.reads_failed {
            self.member(id).reads.remove(&read).unwrap();
        }
        self.release(id);
    }

    fn apply(&mut self, id: NodeId, entries: Vec<Entry>) {
        for entry in entries {
            let member = self.members.get_mut(&id).unwrap();
            assert_eq!(entry.position.index.0, member.machine.len() as u64 + 1, "n{id} skips or repeats");
            member.machine.push(entry);
        }
        let member = self.members.get_mut(&id).unwrap();
        let applied = Index(member.machine.len() as u64);
        member.raft.as_mut().unwrap().applied(applied);
    }

    /// What waits for no batch any more leaves.
    fn release(&mut self, id: NodeId) {
        while self.member(id).queue.front().is_some_and(|pending| pending.batch.is_none()) {
            let pending = self.member(id).queue.pop_front().unwrap();
            for Outbound { to, message } in pending.messages {
                self.check_durable(id, to, &message);
                self.network.push_back(Envelope { from: id, to, message });
            }
        }
    }

    /// The oldest batch becomes durable.
    pub(super) fn sync(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).unwrap();
        let Some(pending) = member.queue.front_mut() else { return };
        let Some((number, batch)) = pending.batch.take() else { return self.release(id) };
        frames(&batch).into_iter().for_each(|frame| member.disk.write(frame));
        self.release(id);
        if let Some(raft) = self.raft(id) {
            raft.on_durable(number);
            raft.check_invariants();
        }
    }

    /// What a message claims must be on the disk of the one who says it.
    fn check_durable(&mut self, id: NodeId, to: NodeId, message: &Message) {
        let disk = &self.member(id).disk;
        assert!(message.term <= disk.hard_state.term, "n{id} says {message:?}, not durable");
        match &message.body {
            Body::AppendReply(AppendOutcome::Accepted { matched, .. }) => {
                assert!(*matched <= disk.last().index, "n{id} acknowledges {matched} at {}", disk.last());
            }
            Body::VoteReply { granted: true } => {
                let vote = *self.votes.entry((message.term, id)).or_insert(to);
                assert_eq!(vote, to, "n{id} votes twice in term {}", message.term);
            }
            Body::Vote { .. } => {
                assert_eq!(disk.hard_state.vote, Some(id), "n{id} asks before its own vote is durable");
            }
            Body::AppendReply(AppendOutcome::Rejected { .. })
            | Body::VoteReply { granted: false }
            | Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::InstallSnapshot { .. }
            | Body::TimeoutNow => {}
        }
    }

    /// The promises of Raft (Raft paper, Figure 3), as far as this member's last step could break them.
    fn look_around(&mut self, id: NodeId) {
        let Some(raft) = &self.members[&id].raft else { return };
        let status = raft.status();
        if status.role == RoleKind::Leader {
            let is_new = !self.leaders.contains_key(&status.term);
            let leader = *self.leaders.entry(status.term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {}", status.term);
            // Leader Completeness. (What is chosen in later terms, or later in this one, is no concern of this moment.)
            for position in self.chosen.iter().map(|entry| entry.position).filter(|_| is_new) {
                let holds = position.index < raft.core.log.base().index || raft.core.log.holds(position);
                assert!(holds || position.term > status.term, "n{id} leads without {position}");
            }
        }
        // State Machine Safety, and copies on a majority of disks before anything counts as committed.
        for index in self.chosen.len() as u64 + 1..=status.committed.0 {
            let entry = self.entry_at(id, Index(index));
            let copies = self.members.values().filter(|member| member.disk.holds(entry.position)).count();
            let majority = self.members.len() / 2 + 1;
            assert!(copies >= majority || self.lied, "{} committed with {copies} copies", entry.position);
            self.chosen.push(entry);
        }
        let machine = &self.members[&id].machine;
        let from = machine.len().saturating_sub(32); // the rest was looked at before
        for (applied, chosen) in machine.iter().zip(&self.chosen).skip(from) {
            assert_eq!(applied, chosen, "n{id} applied something else");
        }
    }

    /// A committed entry of a member, wherever it has it.
    fn entry_at(&self, id: NodeId, index: Index) -> Entry {
        let member = &self.members[&id];
        if let Some(entry) = member.machine.get(index.0 as usize - 1) {
            return entry.clone();
        }
        let log = &member.raft.as_ref().unwrap().core.log;
        log.read(index, index, (1, usize::MAX), &member.disk).unwrap().remove(0)
    }

    /// Log Matching: two logs that share an entry share all before it. And no map differs from what was chosen.
    pub(super) fn check_everything(&self) {
        let rafts: Vec<&Raft> = self.members.values().filter_map(|member| member.raft.as_ref()).collect();
        for (a, b) in rafts.iter().flat_map(|a| rafts.iter().map(move |b| (&a.core.log, &b.core.log))) {
            let mut shared = false;
            for index in (1..=a.last().index.0.min(b.last().index.0)).rev().map(Index) {
                let (Some(left), Some(right)) = (a.term_at(index), b.term_at(index)) else { break };
                assert!(!shared || left == right, "logs share an entry above {index}, and not this one");
                shared |= left == right;
            }
        }
        for member in self.members.values() {
            assert!(member.machine.len() <= self.chosen.len());
            assert_eq!(member.machine, self.chosen[..member.machine.len()], "n{}", member.config.id);
        }
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to)) || self.members[&to].raft.is_none()
    }

    /// Hands a message over and lets its receiver work.
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        if let Some(raft) = self.raft(envelope.to) {
            raft.step(envelope.from, envelope.message);
        }
        self.pump(envelope.to);
    }

    pub(super) fn tick(&mut self, id: NodeId) {
        if let Some(raft) = self.raft(id) {
            raft.tick();
        }
        self.pump(id);
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |member: &&Member| {
            member.raft.as_ref().is_some_and(|raft| raft.soft_state().role == RoleKind::Leader)
        };
        self.members.values().filter(leads).map(|member| member.config.id).next_back()
    }

    pub(super) fn read(&mut self, id: NodeId) -> Option<Result<ReadId, ReadIndexError>> {
        let acknowledged = Index(self.chosen.len() as u64);
        let read = self.raft(id)?.read_index();
        if let Ok(read) = read {
            self.member(id).reads.insert(read, acknowledged);
        }
        Some(read)
    }

    /// Publishes a snapshot of what is applied and durable.
    pub(super) fn snapshot(&mut self, id: NodeId) -> Option<SnapshotId> {
        let member = self.members.get_mut(&id).unwrap();
        let raft = member.raft.as_mut()?;
        let status = raft.status();
        let index = status.applied.min(status.durable);
        if index <= status.snapshot {
            return None;
        }
        let position = raft.core.log.position_at(index)?;
        let content = member.machine[..index.0 as usize].to_vec();
        self.files.insert((position.index, position.term), content);
        let snapshot = snapshot_id(position);
        raft.snapshot_published(snapshot);
        self.pump(id);
        Some(snapshot)
    }

    /// The file arrives whole and the receiver is told.
    pub(super) fn install(&mut self, from: NodeId, to: NodeId, term: Term, snapshot: SnapshotId) {
        let membership = Membership { voters: self.ids().into_iter().collect() };
        let message = Message { term, body: Body::InstallSnapshot { snapshot, membership } };
        self.deliver(Envelope { from, to, message });
    }

    /// Pretends that a file with these committed entries exists.
    pub(super) fn add_file(&mut self, content: Vec<Entry>) -> SnapshotId {
        let position = content.last().unwrap().position;
        self.files.insert((position.index, position.term), content);
        snapshot_id(position)
    }
}

fn snapshot_id(position: Position) -> SnapshotId {
    SnapshotId { position, length: position.index.0 * 100, digest: [position.index.0 as u8; 32] }
}
