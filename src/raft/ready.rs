//! What the core asks its host to do, in the order in which it must be done.

use raftmap_storage::types::{Batch, Entry, Index, NodeId, SnapshotId, Term};

use super::message::Outbound;

/// A batch's number: counts from 1, one for each non-empty [`Batch`], reported back through `Raft::on_durable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNumber(pub u64);

/// A read that waits for its round of confirmations; drawn by `Raft::read_index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Work for the host. Carry the fields out from the first to the last.
#[derive(Debug, Default)]
pub struct Ready {
    /// 1. May leave before our own disk has caught up (thesis 10.2.1).
    pub messages: Vec<Outbound>,
    /// 2. Write and sync; `None` where there is nothing to write.
    pub batch: Option<(BatchNumber, Batch)>,
    /// 3. Votes and acknowledgements: each leaves when everything up to this `Ready`'s batch (or, where it has none, up to the latest
    ///    batch before it) is durable.
    pub messages_after_sync: Vec<Outbound>,
    /// 4. Replace the map by this published snapshot before anything below is applied.
    pub restore: Option<SnapshotId>,
    /// 5. Apply, in order. Committed; not necessarily durable here yet.
    pub committed: Vec<Entry>,
    /// 6. Reads whose round is confirmed: answer each once its index is applied.
    pub reads: Vec<(ReadId, Index)>,
    /// 7. Reads that can no longer be confirmed here (the leader stepped down): definitely not done, ask the next leader.
    pub reads_failed: Vec<ReadId>,
    /// 8. Members whose next entry is no longer in the log: stream the latest durable snapshot to each, then report by
    ///    `Raft::snapshot_sent`.
    pub snapshots_wanted: Vec<NodeId>,
    /// 9. Entries of ours at and above this index may have been replaced: proposals waiting there with another term
    ///    are lost to this leader (their outcome is unknown).
    pub truncated_from: Option<Index>,
    /// 10. Members that showed less than they once acknowledged (thesis 3.8: their disk lied or was replaced). They do not count until refilled.
    pub regressions: Vec<Regression>,
    /// 11. Set when role, term or leader changed.
    pub status: Option<SoftState>,
}

/// A follower whose log is shorter than what it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regression {
    /// The member.
    pub peer: NodeId,
    /// The highest index it ever acknowledged to this leader.
    pub acknowledged: Index,
    /// The last index it shows now.
    pub shown: Index,
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// This node's term.
    pub term: Term,
    /// The leader of that term, once known.
    pub leader: Option<NodeId>,
    /// What this node is.
    pub role: RoleKind,
}

/// A node's role, without what belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleKind {
    /// Hears a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it would be elected (thesis 9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}
