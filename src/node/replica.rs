//! One member's replica: the protocol core, the map and everyone who waits, tied together without a clock, a thread
//! or a socket. Inputs go in by [`Replica::step`]; [`Replica::advance`] carries out what came of them through a
//! [`Host`], in the order that safety needs. The node's thread drives it over real disks and networks, a simulated
//! world over made-up ones.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use raftmap_storage::SealedSegment;
use raftmap_storage::types::{Entry, HardState, Index, Membership, NodeId, Position, SnapshotId, Term};

use super::fault::{Fault, chain};
pub use super::host::{Arrived, ClientId, Durable, Host, Input, Job};
use super::log_time::LogClock;
use super::older::Older;
use super::sync_times::SyncTimes;
use super::waiting::{ReadWaiter, Waiting};
use crate::kv::{self, Owner, Proposal, StateMachine};
use crate::raft::entry::{self, Kind};
use crate::raft::{
    BatchNumber, Body, Message, Outbound, ProposeError, Raft, ReadIndexError, Ready, Regression, RoleKind,
    SoftState,
};
use crate::wire::client::{Answer, Ask, NodeStatus, Query, Refusal, Request, Response, answer_to};

/// A replica's own settings.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The bound of Raft state in bytes; `None` never snapshots.
    pub max_raft_state: Option<u64>,
    /// Bytes of frames on disk, of any kind, at which a snapshot is due: elections and truncations write frames too, and
    /// a log may grow by them alone.
    pub log_bytes_max: u64,
    /// Where members are reached, for hints to clients.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// Most requests of clients waiting at once; one more gets [`Refusal::Busy`].
    pub waiting_max: usize,
    /// Who counts.
    pub membership: Membership,
}

/// See the module's description.
pub struct Replica {
    raft: Raft,
    map: StateMachine,
    older: Older,
    config: ReplicaConfig,
    clock: LogClock,
    waiting: Waiting,
    /// Acknowledgements and votes, each behind the batch that must be durable first.
    after_sync: VecDeque<(BatchNumber, Vec<Outbound>)>,
    submitted: BatchNumber,
    durable: BatchNumber,
    snapshot: SnapshotState,
    /// Snapshots that arrived since the last `advance`: the core takes one of them, or none.
    arrived: Vec<Arrived>,
    syncs: SyncTimes,
    disk_bytes: u64,
    log_bytes: u64,
    no_space: bool,
    fault: Option<Fault>,
    soft: SoftState,
    /// Ticks until log time may be moved on again.
    expiring: u32,
    /// How many were reported since the start, and the latest.
    regressions: (u64, Option<Regression>),
}

/// What a replica keeps for others at the moment, in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Requests of clients that wait for the log.
    pub waiting: usize,
    /// Lists of messages that wait for the disk.
    pub after_sync: usize,
    /// Snapshots that arrived and were not looked at.
    pub arrived: usize,
}

/// Where our own snapshots stand.
#[derive(Debug, Default)]
struct SnapshotState {
    /// The newest one published here; what a member that fell behind gets.
    latest: Option<SnapshotId>,
    /// One is being written.
    writing: bool,
    /// Ticks to wait before another try, after one failed.
    pause: u32,
}

/// Ticks between a failed snapshot and the next try.
const SNAPSHOT_PAUSE_TICKS: u32 = 100;
/// What a payload begins with: more would stay in memory with each that is small.
const PAYLOAD_ROOM: usize = 64;

/// Lists of messages that may wait for the disk at once. A disk that hangs while heartbeats are answered would gather them
/// for ever; whatever is dropped beyond it may as well have been lost on the way.
const AFTER_SYNC_MAX: usize = 4096;

/// Ticks between two entries that only move log time on.
const EXPIRY_PAUSE_TICKS: u32 = 100;

impl Replica {
    /// A replica that goes on from `raft` and `map`, which stand at the same snapshot.
    pub fn new(
        raft: Raft,
        map: StateMachine,
        sealed: Vec<Arc<SealedSegment>>,
        latest: Option<SnapshotId>,
        config: ReplicaConfig,
    ) -> Self {
        let clock = LogClock::new(map.log_time());
        let soft = raft.soft_state();
        Self {
            raft,
            map,
            older: Older::new(sealed),
            waiting: Waiting::new(config.waiting_max),
            config,
            clock,
            after_sync: VecDeque::new(),
            submitted: BatchNumber(0),
            durable: BatchNumber(0),
            snapshot: SnapshotState { latest, ..SnapshotState::default() },
            arrived: Vec::new(),
            syncs: SyncTimes::default(),
            disk_bytes: 0,
            log_bytes: 0,
            no_space: false,
            fault: None,
            soft,
            expiring: 0,
            regressions: (0, None),
        }
    }

    /// Takes one input. `now` is the host's monotonic clock, never going back; only log time is derived from it.
    pub fn step(&mut self, now: Duration, input: Input, host: &mut impl Host) {
        match input {
            Input::Tick => self.tick(now),
            Input::Peer { from, message } => self.raft.step(from, message),
            Input::Client { client, owner, request } => self.ask(now, client, owner, request, host),
            Input::Durable(durable) => self.on_durable(durable, host),
            Input::SnapshotWritten(result) => self.snapshot_written(result),
            Input::SnapshotArrived(arrived) => self.snapshot_arrived(*arrived),
            Input::SnapshotSent { peer, result } => self.raft.snapshot_sent(peer, result),
            Input::NoSpace(no_space) => {
                self.no_space = no_space;
                self.raft.no_space(no_space);
            }
            Input::Fault(fault) => self.fault = Some(fault),
            Input::Stop => self.waiting.fail_all(&Refusal::Lost, &Refusal::Stopping, host),
        }
    }

    /// Carries out everything that is ready. Call after one or several steps: what came together leaves together.
    ///
    /// # Errors
    /// The log on this disk, or an entry that a majority committed, cannot be read: the node must stop.
    pub fn advance(&mut self, now: Duration, host: &mut impl Host) -> Result<(), Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.start_read_round(host);
        while self.raft.has_ready() {
            let ready = self.raft.ready(&self.older).map_err(|error| Fault::Log(chain(&error)))?;
            self.carry_out(now, ready, host)?;
        }
        self.arrived.clear();
        self.maybe_snapshot(host);
        Ok(())
    }

    /// The order is the protocol's: what may leave early, what must be on disk, what waits for the disk, what is
    /// executed.
    fn carry_out(&mut self, now: Duration, ready: Ready, host: &mut impl Host) -> Result<(), Fault> {
        ready.messages.into_iter().for_each(|outbound| host.send(outbound));
        if let Some((number, batch)) = ready.batch {
            self.submitted = number;
            host.submit(number, batch);
        }
        self.send_after_sync(ready.messages_after_sync, host);
        if let Some(state) = ready.status {
            self.role_changed(now, state, host);
        }
        if let Some(from) = ready.truncated_from {
            self.waiting.lost_from(from, host);
        }
        if let Some(snapshot) = ready.restore {
            self.restore(snapshot, host)?;
        }
        self.apply(now, ready.committed, host)?;
        self.waiting.reads_failed(&ready.reads_failed, &self.not_leader(), host);
        for (id, index) in ready.reads {
            self.waiting.read_confirmed(id, if bug!(9) { Index(0) } else { index });
        }
        self.answer_reads(host);
        ready.snapshots_wanted.into_iter().for_each(|peer| self.send_snapshot(peer, host));
        for regression in ready.regressions {
            self.regressions = (self.regressions.0 + 1, Some(regression));
            tracing::error!(
                node = %regression.peer, acknowledged = %regression.acknowledged, shown = %regression.shown,
                "a member shows less than it acknowledged: it lost data, and does not count until it is refilled"
            );
        }
        Ok(())
    }

    fn send_after_sync(&mut self, messages: Vec<Outbound>, host: &mut impl Host) {
        if messages.is_empty() {
            return;
        }
        if self.durable >= self.submitted {
            messages.into_iter().for_each(|outbound| host.send(outbound));
        } else if self.after_sync.len() < AFTER_SYNC_MAX {
            self.after_sync.push_back((self.submitted, messages));
        }
    }

    fn on_durable(&mut self, durable: Durable, host: &mut impl Host) {
        self.syncs.record(durable.took);
        self.disk_bytes = durable.disk_bytes;
        self.log_bytes = durable.log_bytes;
        if let Some(through) = durable.through {
            self.durable = self.durable.max(through);
            self.raft.on_durable(through);
        }
        if let Some(segment) = durable.sealed {
            // After `on_durable`: of what is not durable yet, the core takes nothing for sealed.
            self.raft.sealed(segment.last());
            self.older.add(segment);
        }
        self.older.forget_through(self.raft.snapshot_index());
        while self.after_sync.front().is_some_and(|(number, _)| *number <= self.durable) {
            let Some((_, messages)) = self.after_sync.pop_front() else { break };
            messages.into_iter().for_each(|outbound| host.send(outbound));
        }
    }

    fn tick(&mut self, now: Duration) {
        self.raft.tick();
        self.snapshot.pause = self.snapshot.pause.saturating_sub(1);
        self.expiring = self.expiring.saturating_sub(1);
        self.expire_sessions(now);
    }

    // ---- Clients ----

    fn ask(&mut self, now: Duration, client: ClientId, owner: Owner, request: Request, host: &mut impl Host) {
        let id = request.id;
        let write = match request.body {
            Ask::Open => kv::Request::Open { owner },
            Ask::Close { session } => kv::Request::Close { owner, session },
            Ask::Write { session, sequence, acked_below, command } => {
                if let Err(error) = command.check(self.map.limits()) {
                    let refusal = Refusal::TooLarge { what: error.to_string() };
                    return host.reply(client, Response { id, body: Err(refusal) });
                }
                kv::Request::Execute { owner, session, sequence, acked_below, command }
            }
            Ask::Read(query) => return self.queue_read(ReadWaiter { client, id, query }, host),
            Ask::Stale(query) => {
                let body = Ok(self.answer(&query));
                return host.reply(client, Response { id, body });
            }
            Ask::Status => {
                let body = Ok(Answer::Status(Box::new(self.status())));
                return host.reply(client, Response { id, body });
            }
            Ask::Digest => return host.start(Job::Digest { client, id, image: self.map.image() }),
        };
        if let Err(refusal) = self.propose(now, client, id, write) {
            host.reply(client, Response { id, body: Err(refusal) });
        }
    }

    fn propose(
        &mut self,
        now: Duration,
        client: ClientId,
        id: u64,
        request: kv::Request,
    ) -> Result<(), Refusal> {
        if self.soft.role != RoleKind::Leader {
            return Err(self.not_leader());
        }
        if self.no_space {
            sometimes!("a write was refused for a full disk");
            return Err(Refusal::NoSpace);
        }
        if self.waiting.is_full() {
            sometimes!("a write was refused for those that wait");
            return Err(Refusal::Busy);
        }
        let position = self.append(now, request)?;
        self.waiting.write(position, client, id);
        Ok(())
    }

    /// One entry, stamped with log time.
    fn append(&mut self, now: Duration, request: kv::Request) -> Result<Position, Refusal> {
        let mut payload = Vec::with_capacity(PAYLOAD_ROOM);
        payload.extend_from_slice(&entry::command(&[]));
        Proposal { at: self.clock.stamp(now), request }
            .encode_into(&mut payload, self.map.limits())
            .map_err(|error| Refusal::TooLarge { what: error.to_string() })?;
        self.raft.propose(payload.into()).map_err(|error| match error {
            ProposeError::NotLeader { .. } => self.not_leader(),
            ProposeError::Busy { .. } | ProposeError::LogFull { .. } => Refusal::Busy,
            ProposeError::OwnKind | ProposeError::Kind(_) => Refusal::BadRequest { what: error.to_string() },
        })
    }

    /// Sessions expire by log time, which stands still where nobody writes: the leader moves it on when one is due.
    fn expire_sessions(&mut self, now: Duration) {
        let due = self.map.next_expiry();
        if self.soft.role != RoleKind::Leader
            || self.no_space
            || self.expiring > 0
            || due.is_none_or(|due| due > self.clock.stamp(now))
        {
            return;
        }
        sometimes!("a leader moved log time on where nobody wrote");
        // Refused at a bound: the next pause is over soon enough.
        self.expiring = EXPIRY_PAUSE_TICKS;
        let _position = self.append(now, kv::Request::Tick);
    }

    fn queue_read(&mut self, read: ReadWaiter, host: &mut impl Host) {
        let refusal = if self.soft.role != RoleKind::Leader {
            self.not_leader()
        } else if self.waiting.is_full() {
            Refusal::Busy
        } else {
            return self.waiting.queue_read(read);
        };
        host.reply(read.client, Response { id: read.id, body: Err(refusal) });
    }

    /// Every read that arrived since the last round shares the next one.
    fn start_read_round(&mut self, host: &mut impl Host) {
        if !self.waiting.has_queued_reads() {
            return;
        }
        match self.raft.read_index() {
            Ok(id) => self.waiting.start_round(id),
            // The term's first entry is not committed yet (thesis 6.4, step 1): they wait for it.
            Err(ReadIndexError::NotReady | ReadIndexError::Busy { .. }) => {}
            Err(ReadIndexError::NotLeader { .. }) => self.waiting.fail_queued_reads(&self.not_leader(), host),
        }
    }

    fn answer_reads(&mut self, host: &mut impl Host) {
        for read in self.waiting.readable(self.map.applied().index) {
            let body = Ok(self.answer(&read.query));
            host.reply(read.client, Response { id: read.id, body });
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        let index = self.map.applied().index;
        match query {
            Query::Get { key } => Answer::Got { index, found: self.map.get(key).cloned() },
            Query::Scan(scan) => Answer::Page { index, page: self.map.scan(scan) },
            Query::Len => Answer::Len { index, pairs: self.map.len() as u64 },
        }
    }

    fn not_leader(&self) -> Refusal {
        let leader = self.soft.leader.filter(|_| self.soft.role != RoleKind::Leader);
        Refusal::NotLeader { leader: leader.and_then(|id| Some((id, *self.config.addresses.get(&id)?))) }
    }

    fn role_changed(&mut self, now: Duration, state: SoftState, host: &mut impl Host) {
        let was_leader = self.soft.role == RoleKind::Leader;
        self.soft = state;
        if state.role == RoleKind::Leader {
            self.clock.lead_from(now, self.map.log_time());
        } else if was_leader {
            // Entries of ours may still commit under the next leader: nobody can say yet.
            self.waiting.fail_all(&Refusal::Lost, &self.not_leader(), host);
        }
        host.changed(state);
    }

    // ---- The map ----

    fn apply(&mut self, now: Duration, committed: Vec<Entry>, host: &mut impl Host) -> Result<(), Fault> {
        let Some(last) = committed.last().map(|entry| entry.position.index) else { return Ok(()) };
        for entry in committed {
            self.apply_one(now, &entry, host)?;
        }
        self.raft.applied(last);
        Ok(())
    }

    fn apply_one(&mut self, now: Duration, entry: &Entry, host: &mut impl Host) -> Result<(), Fault> {
        let position = entry.position;
        let undecodable = |what: String| Fault::Entry { index: position.index, term: position.term, what };
        match entry::kind(&entry.payload).map_err(|error| undecodable(error.to_string()))? {
            Kind::NoOp => {
                self.map.skip(position);
                if self.soft.role == RoleKind::Leader && position.term == self.soft.term {
                    // Everything of earlier terms is applied: log time goes on from the latest of it.
                    self.clock.lead_from(now, self.map.log_time());
                }
            }
            Kind::Bootstrap => self.map.skip(position),
            Kind::Command => {
                let body = entry.payload.get(1..).unwrap_or_default();
                let proposal = Proposal::decode(body, self.map.limits())
                    .map_err(|error| undecodable(error.to_string()))?;
                let outcome = self.map.apply(position, proposal);
                if let Some((client, id)) = self.waiting.take_write(position, host) {
                    host.reply(client, Response { id, body: answer_to(outcome) });
                }
            }
        }
        Ok(())
    }

    fn restore(&mut self, snapshot: SnapshotId, host: &mut impl Host) -> Result<(), Fault> {
        let found = self.arrived.iter().position(|arrived| arrived.snapshot == snapshot);
        let Some(arrived) = found.map(|at| self.arrived.swap_remove(at)) else {
            return Err(Fault::Log(format!("snapshot {} was accepted but never arrived", snapshot.position)));
        };
        let old = std::mem::replace(&mut self.map, arrived.map);
        #[cfg(raftmap_bugs)]
        if bug!(32) {
            self.map.keep_pairs_of(&old);
        }
        host.start(Job::Discard { map: old });
        self.snapshot.latest = Some(snapshot);
        self.waiting.lost_through(snapshot.position.index, host);
        Ok(())
    }

    // ---- Snapshots ----

    /// Starts one when the log nears its bound and what is applied here is durable here as well.
    fn maybe_snapshot(&mut self, host: &mut impl Host) {
        let Some(bound) = self.config.max_raft_state else { return };
        let near =
            self.raft.raft_state_bytes() >= bound / 4 * 3 || self.log_bytes >= self.config.log_bytes_max;
        if self.snapshot.writing || self.snapshot.pause > 0 || !near {
            return;
        }
        let applied = self.map.applied().index;
        let latest = self.snapshot.latest.map_or(Index(0), |snapshot| snapshot.position.index);
        // One that is written but not marked yet has dropped nothing so far: another one would be for nothing.
        if applied <= latest || self.raft.snapshot_index() < latest || self.raft.status().durable < applied {
            return;
        }
        self.snapshot.writing = true;
        let membership = self.config.membership.clone();
        host.start(Job::WriteSnapshot { image: self.map.image(), membership });
    }

    fn snapshot_written(&mut self, result: Result<SnapshotId, String>) {
        self.snapshot.writing = false;
        match result {
            Ok(snapshot) => {
                // A leader's newer snapshot may have come in between.
                let latest = self.snapshot.latest.map_or(Index(0), |latest| latest.position.index);
                if snapshot.position.index <= latest && !bug!(26) {
                    sometimes!("a snapshot was overtaken by a newer one");
                    return;
                }
                self.snapshot.latest = Some(snapshot);
                self.raft.snapshot_published(snapshot);
            }
            Err(error) => {
                tracing::warn!(%error, "no snapshot could be written; trying again");
                self.snapshot.pause = SNAPSHOT_PAUSE_TICKS;
            }
        }
    }

    fn snapshot_arrived(&mut self, arrived: Arrived) {
        if arrived.map.limits() != self.map.limits() {
            tracing::warn!(from = %arrived.from, "a snapshot with other limits than ours was not taken");
            return;
        }
        let (from, term, snapshot) = (arrived.from, arrived.term, arrived.snapshot);
        let membership = arrived.membership.clone();
        self.arrived.push(arrived);
        self.raft.step(from, Message { term, body: Body::InstallSnapshot { snapshot, membership } });
    }

    fn send_snapshot(&mut self, peer: NodeId, host: &mut impl Host) {
        let Some(snapshot) = self.snapshot.latest else {
            return self.raft.snapshot_sent(peer, Err(()));
        };
        let membership = self.config.membership.clone();
        host.start(Job::SendSnapshot { peer, term: self.soft.term, snapshot, membership });
    }

    // ---- Looking in ----

    /// How this node is.
    pub fn status(&self) -> NodeStatus {
        let raft = self.raft.status();
        let (fsync_p50_us, fsync_p99_us) = self.syncs.percentiles();
        NodeStatus {
            id: raft.id,
            role: role_name(raft.role).into(),
            term: raft.term,
            leader: raft.leader,
            last: raft.last.index,
            committed: raft.committed,
            applied: self.map.applied().index,
            durable: raft.durable,
            raft_state_bytes: raft.raft_state_bytes,
            max_raft_state: self.config.max_raft_state,
            disk_bytes: self.disk_bytes,
            snapshot: raft.snapshot,
            fsync_p50_us,
            fsync_p99_us,
            syncs: self.syncs.count(),
            pairs: self.map.len() as u64,
            sessions: self.map.sessions_len() as u64,
            no_space: self.no_space,
        }
    }

    /// What it keeps for others: nothing of it lasts.
    pub fn held(&self) -> Held {
        let after_sync = self.after_sync.len();
        Held { waiting: self.waiting.count(), after_sync, arrived: self.arrived.len() }
    }

    /// The latest member that showed less than it had acknowledged to this leader, and how many there were.
    pub fn regressions(&self) -> (u64, Option<Regression>) {
        self.regressions
    }

    /// Who leads, as far as this node knows.
    pub fn soft_state(&self) -> SoftState {
        self.soft
    }

    /// The map as this node has applied it.
    pub fn map(&self) -> &StateMachine {
        &self.map
    }

    /// The protocol core, for checks from outside.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }
}

/// The hard state with which a node begins that has just written the bootstrap entry.
pub const BOOTSTRAP_HARD_STATE: HardState = HardState { term: Term(1), vote: None };

fn role_name(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}
