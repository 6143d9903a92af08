//! What a core says of itself, for people and for tests.

use raftmap_storage::types::{Index, NodeId, Position, Term};

use super::progress::{Progress, Sending};
use super::ready::RoleKind;

/// A core at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
    /// What it is.
    pub role: RoleKind,
    /// The leader of that term, once known.
    pub leader: Option<NodeId>,
    /// The last entry of its log.
    pub last: Position,
    /// The highest index known to be committed.
    pub committed: Index,
    /// The highest index the host has applied.
    pub applied: Index,
    /// The highest index that is durable here.
    pub durable: Index,
    /// What the last durable or installed snapshot stands for; 0 where there is none.
    pub snapshot: Index,
    /// Frames above that snapshot, and one hard state.
    pub raft_state_bytes: u64,
    /// Messages dropped since the start because no member could have meant them.
    pub dropped: u64,
    /// The other members, in order of their ids; empty unless this node leads.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub id: NodeId,
    /// Known to be durable there.
    pub matched: Index,
    /// Sent next.
    pub next: Index,
    /// How it is sent to.
    pub state: PeerState,
    /// Heard since the last look at the quorum.
    pub recent_active: bool,
}

/// How a leader sends to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// One append at a time, until one matches.
    Probe,
    /// Ahead of the answers.
    Replicate,
    /// Waits for a snapshot.
    Snapshot,
}

impl PeerStatus {
    pub(super) fn new(id: NodeId, progress: &Progress) -> Self {
        let state = match progress.sending() {
            Sending::Probe { .. } => PeerState::Probe,
            Sending::Replicate => PeerState::Replicate,
            Sending::Snapshot(_) => PeerState::Snapshot,
        };
        let (matched, next) = (progress.matched(), progress.next());
        Self { id, matched, next, state, recent_active: progress.recent_active }
    }
}
