//! What members say to each other. A message is a claim: every field is checked by the role that hears it.

use raftmap_storage::types::{Entry, Index, Membership, NodeId, Position, SnapshotId, Term};

/// One message to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Whom it is for.
    pub to: NodeId,
    /// What it says.
    pub message: Message,
}

/// A message, with the sender's term in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term; for `PreVote` the term it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me? Changes nobody's term (thesis 9.6).
    PreVote {
        /// The last entry of the asker's log.
        last: Position,
    },
    /// The answer. When granted, the message's term is the one asked about.
    PreVoteReply {
        /// Whether a vote would be given.
        granted: bool,
    },
    /// Vote for me (Raft paper 5.2). Leaves only after the candidate's own vote is durable.
    Vote {
        /// The last entry of the candidate's log.
        last: Position,
        /// The leader asked for this election (TimeoutNow), so stickiness does not apply (thesis 4.2.3).
        transfer: bool,
    },
    /// The answer. Leaves only after the vote is durable.
    VoteReply {
        /// Whether the vote is given.
        granted: bool,
    },
    /// Entries to hold (Raft paper 5.3). Empty ones probe.
    Append {
        /// Which of this leader's appends to this follower it is, from 1: a refusal names it.
        number: u64,
        /// The entry right before `entries`.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// Contiguous, right behind `prev`.
        entries: Vec<Entry>,
    },
    /// The answer. Leaves only after what it confirms is durable.
    AppendReply(AppendOutcome),
    /// I am still the leader.
    Heartbeat {
        /// At most what this follower is known to hold.
        commit: Index,
        /// The newest read round; 0 where none waits. An answer confirms all rounds up to it.
        round: u64,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// The round of the heartbeat.
        round: u64,
        /// This node's disk has not finished a sync for longer than an election timeout.
        stuck: bool,
    },
    /// The snapshot file of this id has arrived here, whole and verified, from the leader of `term`. The node hands
    /// this to its own core when the transfer is complete; it is not sent between members.
    InstallSnapshot {
        /// The file, published under its name.
        snapshot: SnapshotId,
        /// Who counts at that point of the log.
        membership: Membership,
    },
    /// Campaign at once (thesis 3.10). Reserved: understood, never sent for now.
    TimeoutNow,
}

/// What became of an `Append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The log equals the leader's up to `matched`, durably.
    Accepted {
        /// The last entry confirmed: never above what an `Append` carried.
        matched: Index,
        /// The follower's log is at its byte bound, or its disk is full: entries behind `matched` were left out. The same
        /// answer without it follows, unasked, when there is room again; as it may be lost, ask at the next heartbeat.
        full: bool,
    },
    /// No entry at `prev`, or another one.
    Rejected {
        /// The refused message's number: what was asked later is answered from a later state of the log, however late
        /// the answers come.
        number: u64,
        /// The refused message's `prev`.
        prev: Index,
        /// The follower's last entry.
        last: Index,
        /// The term standing at `prev` where there is one, and the first index of that term: the leader may skip the
        /// whole term (Raft paper 5.3, last paragraph).
        conflict: Option<Position>,
    },
}

/// Terms above it are no terms: nobody gets there by counting elections. It leaves room to add without overflow.
pub const TERM_MAX: Term = Term(1 << 62);
/// A message is not heard whose term is further above ours than this. Terms count elections: with one every quarter of a
/// second it takes 30 years to get that far, but one message of a broken member would otherwise lead everybody to the
/// end of all terms, where nobody can be elected any more.
pub const TERM_JUMP_MAX: u64 = 1 << 32;
/// Indexes above it are no places in a log.
pub const INDEX_MAX: Index = Index(1 << 62);
