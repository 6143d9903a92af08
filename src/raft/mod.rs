//! Raft as pure steps: inputs in, one [`Ready`] out. No clock, file, socket, thread or random number of its own.
//!
//! The host calls [`Raft::step`], [`Raft::tick`], [`Raft::propose`], [`Raft::read_index`] and what its disk reports, in
//! any order; then, while [`Raft::has_ready`], takes a [`Ready`] and carries it out from its first field to its last.
//! Sections refer to Ongaro's thesis, and where they say so to the Raft paper.
//!
//! # Invariants
//! They hold after every call; [`Raft::check_invariants`] checks them in every script, fuzz input and simulated world.
//!
//! 1. No entry's term is above the node's term, and the terms of a log never go back.
//! 2. `snapshot <= committed`, `applied <= delivered <= committed <= last`; an entry at or below the commit index is never
//!    cut.
//! 3. `durable <= submitted <= last`, and nothing is said of an entry, a vote or a term before it is durable, except
//!    by a leader who sends entries that it does not count yet.
//! 4. A candidate and a leader have voted for themselves in their term; a vote once given stays for its term.
//! 5. Entries that are not on the heap are sealed or below the snapshot, and the heap tail is over its bound only by
//!    entries that are neither.
//! 6. A leader's own no-op is in its log, in its term. It commits by counting copies of entries of its own term alone, and
//!    counts itself only to its durable index.
//! 7. For each follower `matched < next`, `matched <= sent <= last`, and what is on its way fits the window.
//! 8. Reads wait only at a leader that has committed in its term, and each ends in `reads` or in `reads_failed`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod candidate;
mod claims;
mod config;
mod core;
mod disk;
pub mod entry;
mod error;
mod follower;
mod hearing;
mod leader;
mod log;
pub mod message;
mod progress;
mod quorum;
mod reads;
pub mod ready;
mod status;
#[cfg(test)]
mod tests;
mod timer;

use bytes::Bytes;
use raftmap_storage::types::{Entry, Index, NodeId, Position, SnapshotId, Term};

pub use self::config::{Config, ConfigError, Restored};
pub use self::error::{ProposeError, ReadError, ReadIndexError};
pub use self::message::{AppendOutcome, Body, Message, Outbound};
pub use self::ready::{BatchNumber, ReadId, Ready, Regression, RoleKind, SoftState};
pub use self::status::{PeerState, PeerStatus, Status};

use self::candidate::Campaign;
use self::core::Core;
use self::follower::Follower;
use self::leader::Leader;
use self::timer::Timer;

/// Entries that are no longer on the heap, read back from disk.
pub trait OlderEntries {
    /// Entries from `from` on: at least that one, none beyond `through`, and no second one that takes the payloads
    /// beyond `bytes_max`. Their checksums hold.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read. Never an empty or a shortened answer in its place.
    fn read(&self, from: Index, through: Index, bytes_max: usize) -> Result<Vec<Entry>, ReadError>;
}

/// One member's protocol state.
#[derive(Debug)]
pub struct Raft {
    core: Core,
    role: Role,
    /// What the host was last told.
    told: SoftState,
}

/// What belongs to a role goes when the role goes.
#[derive(Debug)]
enum Role {
    Follower(Follower),
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Leader),
}

/// What a role wants to be next. [`Raft::become_next`] makes it so, and nothing else does.
#[derive(Debug)]
enum Next {
    Stay,
    Follow { term: Term, leader: Option<NodeId> },
    PreCampaign,
    Campaign,
    Lead,
}

impl Raft {
    /// A follower with what its disk remembers. It hears of nobody yet.
    ///
    /// # Errors
    /// When a limit cannot work, or what was restored contradicts itself.
    pub fn new(config: Config, restored: Restored) -> Result<Self, ConfigError> {
        config.validate()?;
        restored.validate(config.id)?;
        let mut core = Core::new(config, restored);
        let timer = if core.majority() == 1 { Timer::at_once() } else { core.new_timer() };
        let follower = Follower::new(&core, None, timer);
        let told = SoftState { term: core.term(), leader: None, role: RoleKind::Follower };
        Ok(Self { core, role: Role::Follower(follower), told })
    }

    /// One tick of the host's clock has passed.
    pub fn tick(&mut self) {
        let core = &mut self.core;
        core.now += 1;
        let next = match &mut self.role {
            Role::Follower(follower) => follower.tick(core),
            Role::PreCandidate(campaign) | Role::Candidate(campaign) => campaign.tick(core),
            Role::Leader(leader) => leader.tick(core),
        };
        self.become_next(next);
    }

    /// `message` has come from `from`, whose identity the host vouches for. What no member could mean is dropped and
    /// counted in [`Status::dropped`].
    pub fn step(&mut self, from: NodeId, message: Message) {
        if !claims::is_plausible(&self.core, from, &message) {
            self.core.dropped += 1;
            return;
        }
        let Message { term, body } = message;
        if term < self.core.term() {
            return self.answer_the_past(from, &body);
        }
        if term > self.core.term() && self.adopts(term, &body) {
            self.become_next(Next::Follow { term, leader: None });
        }
        let next = self.hear(from, term, body);
        self.become_next(next);
    }

    /// Takes `payload` into the log, if this node leads. The first byte is the entry's kind: see [`entry::command`]. The
    /// outcome is known when the entry at this index is applied: it is this one only if the term is, too.
    ///
    /// # Errors
    /// [`ProposeError`]: nothing was done.
    pub fn propose(&mut self, payload: Bytes) -> Result<Position, ProposeError> {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(leader) => leader.propose(&mut self.core, payload),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(ProposeError::NotLeader { leader })
            }
        }
    }

    /// Draws a number for a linearizable read. It comes back in [`Ready::reads`] with the index that must be applied
    /// before reading, or in [`Ready::reads_failed`].
    ///
    /// # Errors
    /// [`ReadIndexError`]: the read was not taken in.
    pub fn read_index(&mut self) -> Result<ReadId, ReadIndexError> {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(leader) => leader.read_index(&mut self.core),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(ReadIndexError::NotLeader { leader })
            }
        }
    }

    /// Every batch up to `through` is durable.
    pub fn on_durable(&mut self, through: BatchNumber) {
        self.core.synced(through);
        match &mut self.role {
            Role::Leader(leader) => leader.advance_commit(&mut self.core),
            Role::Follower(follower) => follower.room_again(&mut self.core),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// The host has applied everything up to `through`.
    ///
    /// # Panics
    /// When that was never handed out.
    pub fn applied(&mut self, through: Index) {
        let delivered = self.core.delivered;
        assert!(through <= delivered, "applied {through}, but only {delivered} was handed out");
        self.core.applied = self.core.applied.max(through);
    }

    /// Entries up to `through` can be read back through [`OlderEntries`], so the heap may drop them.
    pub fn sealed(&mut self, through: Index) {
        // What is not durable yet may be another entry than the sealed one of its index.
        let through = through.min(self.core.disk.durable());
        self.core.log.seal(through);
    }

    /// Whether the disk has room for more entries. Without it a follower leaves entries out, as at the log's bound, so that
    /// votes still find room; what a host proposes is the host's to refuse.
    pub fn no_space(&mut self, no_space: bool) {
        self.core.no_space = no_space;
        if let Role::Follower(follower) = &mut self.role {
            follower.room_again(&mut self.core);
        }
    }

    /// A snapshot of this node's own map is durable under its name. The next [`Ready`] marks it; the log below it goes
    /// when that batch is durable. One that a newer snapshot has overtaken is ignored.
    ///
    /// # Panics
    /// When it holds more than what is applied and durable here.
    pub fn snapshot_published(&mut self, snapshot: SnapshotId) {
        self.core.published(snapshot);
    }

    /// What became of a snapshot from [`Ready::snapshots_wanted`]: handed over whole (the id that was sent), or failed.
    /// A failed one is asked for again after an election timeout, if the peer still lives and needs it.
    #[allow(
        clippy::result_unit_err,
        reason = "the cause is the host's to log; here a failure only means: later"
    )]
    pub fn snapshot_sent(&mut self, peer: NodeId, result: Result<SnapshotId, ()>) {
        match &mut self.role {
            Role::Leader(leader) => leader.snapshot_sent(&self.core, peer, result),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// Whether [`Self::ready`] would have something to do.
    pub fn has_ready(&self) -> bool {
        let leads_on = matches!(&self.role, Role::Leader(leader) if leader.has_work(&self.core));
        leads_on || self.core.has_work() || self.told != self.soft_state()
    }

    /// Everything to be done now. Appends are built here, so that what arrived since the last call shares one message.
    ///
    /// # Errors
    /// When an older entry cannot be read back. Nothing is lost: the next call tries again; but a log that cannot be read
    /// should stop its node.
    pub fn ready(&mut self, older: &dyn OlderEntries) -> Result<Ready, ReadError> {
        if let Role::Leader(leader) = &mut self.role {
            leader.prepare(&mut self.core, older)?;
        }
        let committed = self.core.next_committed(older)?;
        let core = &mut self.core;
        if let Some(last) = committed.last() {
            core.delivered = last.position.index;
        }
        let batch = core.disk.take_batch(core.hard_state, &core.log, core.now);
        let mut ready = std::mem::take(&mut core.ready);
        (ready.batch, ready.committed) = (batch, committed);
        let soft_state = self.soft_state();
        if soft_state != self.told {
            self.told = soft_state;
            ready.status = Some(soft_state);
        }
        Ok(ready)
    }

    /// The whole state at a glance.
    pub fn status(&self) -> Status {
        let (core, SoftState { term, leader, role }) = (&self.core, self.soft_state());
        let peers = match &self.role {
            Role::Leader(leader) => {
                leader.peers().iter().map(|(id, progress)| PeerStatus::new(*id, progress)).collect()
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Vec::new(),
        };
        Status {
            id: core.id(),
            term,
            role,
            leader,
            last: core.log.last(),
            committed: core.committed,
            applied: core.applied,
            durable: core.disk.durable(),
            snapshot: core.log.snapshot(),
            raft_state_bytes: core.raft_state_bytes(),
            dropped: core.dropped,
            peers,
        }
    }

    /// The last durable or installed snapshot stands for everything up to here; 0 where there is none.
    pub fn snapshot_index(&self) -> Index {
        self.core.log.snapshot()
    }

    /// Bytes on disk of the entries above the last durable snapshot, and of one hard state.
    pub fn raft_state_bytes(&self) -> u64 {
        self.core.raft_state_bytes()
    }

    /// Who leads, as far as this node knows.
    pub fn soft_state(&self) -> SoftState {
        let role = match &self.role {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        };
        SoftState { term: self.core.term(), leader: self.leader(), role }
    }

    /// Entries that the log in memory knows of: what [`Raft::check_invariants`] costs.
    pub fn log_length(&self) -> u64 {
        self.core.log.last().index.0 - self.core.log.base().index.0
    }

    /// Checks the invariants of this module's documentation.
    ///
    /// # Panics
    /// When one is broken, by its number.
    pub fn check_invariants(&self) {
        self.check_ends();
        self.core.check_invariants();
    }

    /// As [`Raft::check_invariants`], but for what lies within the log: costs the same however long that is.
    ///
    /// # Panics
    /// When one is broken, by its number.
    pub fn check_ends(&self) {
        self.core.check_ends();
        let own_vote = self.core.hard_state.vote == Some(self.core.id());
        match &self.role {
            Role::Follower(_) | Role::PreCandidate(_) => {}
            Role::Candidate(_) => assert!(own_vote, "4: a candidate without its own vote"),
            Role::Leader(leader) => {
                assert!(own_vote, "4: a leader without its own vote");
                leader.check_invariants(&self.core);
            }
        }
    }

    fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.core.id()),
        }
    }
}

/// Roles.
impl Raft {
    /// The one door from role to role.
    fn become_next(&mut self, mut next: Next) {
        loop {
            next = match next {
                Next::Stay => return,
                Next::Follow { term, leader } => self.follow(term, leader),
                Next::PreCampaign => {
                    let campaign = Campaign::ask(&mut self.core);
                    let then = campaign.outcome(&self.core, Next::Campaign);
                    self.role = Role::PreCandidate(campaign);
                    then
                }
                Next::Campaign => {
                    let campaign = Campaign::run(&mut self.core);
                    let then = campaign.outcome(&self.core, Next::Lead);
                    self.role = Role::Candidate(campaign);
                    then
                }
                Next::Lead => {
                    self.role = Role::Leader(Leader::new(&mut self.core));
                    Next::Stay
                }
            };
        }
    }

    fn follow(&mut self, term: Term, leader: Option<NodeId>) -> Next {
        if term > self.core.term() {
            self.core.set_hard_state(term, None);
        }
        // Within its term a vote stays, whatever becomes of the candidate.
        let timer = self.core.new_timer();
        let waiting = Follower::new(&self.core, leader, timer);
        match std::mem::replace(&mut self.role, Role::Follower(waiting)) {
            // A higher term alone is no reason to wait longer: only a leader or a vote is (Raft paper, Figure 2).
            Role::Follower(before) => {
                self.role = Role::Follower(Follower::new(&self.core, leader, before.into_timer()));
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {}
            Role::Leader(leader) => self.core.ready.reads_failed.extend(leader.abandon_reads()),
        }
        Next::Stay
    }
}
