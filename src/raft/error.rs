//! What the core refuses, and what reading back older entries may run into.

use std::error::Error;

use raftmap_storage::types::{Index, NodeId, Position};

use super::entry::KindError;

/// Why a proposal was not taken into the log: definitely not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only a leader makes entries.
    #[error("not the leader: {}", or_unknown(*leader))]
    NotLeader {
        /// Who is, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Too much is on its way already. Come back when some of it is committed.
    #[error("{bytes} bytes await their commit, {max} may: try again")]
    Busy {
        /// Payload bytes proposed and not committed.
        bytes: u64,
        /// Their limit.
        max: u64,
    },
    /// The log is at its bound. Come back when a snapshot has replaced some of it.
    #[error("the log holds {bytes} bytes, {max} is its bound: try again after the next snapshot")]
    LogFull {
        /// Bytes of Raft state.
        bytes: u64,
        /// Their bound.
        max: u64,
    },
    /// No-ops and bootstrap entries are the core's own.
    #[error("only commands are proposed: the core makes its other entries itself")]
    OwnKind,
    /// Not an entry that every member could read.
    #[error(transparent)]
    Kind(#[from] KindError),
}

/// Why a read was not taken in: definitely not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// Only a leader knows the commit index.
    #[error("not the leader: {}", or_unknown(*leader))]
    NotLeader {
        /// Who is, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Nothing is committed in this term yet, which is a matter of one round trip. Come back.
    #[error("the leader has committed nothing in its term yet: try again")]
    NotReady,
    /// Too many reads wait already. Come back.
    #[error("{max} reads wait already: try again")]
    Busy {
        /// Their limit.
        max: usize,
    },
}

fn or_unknown(leader: Option<NodeId>) -> String {
    leader.map_or_else(|| "the leader is unknown".into(), |leader| format!("node {leader} is"))
}

/// Older entries could not be read back. Nothing was sent or applied in their place.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store refused.
    #[error("reading older entries of the log")]
    Store(#[source] Box<dyn Error + Send + Sync>),
    /// The store gave nothing.
    #[error("entry {from} is live but the store gave none")]
    Missing {
        /// The first index that was asked for.
        from: Index,
    },
    /// The store gave something else than what was written.
    #[error(
        "the store gave entry {found} for index {wanted}: the log on disk differs from the one in memory"
    )]
    Mismatch {
        /// The index that was asked for.
        wanted: Index,
        /// What came.
        found: Position,
    },
}

impl ReadError {
    /// A store's own error.
    pub fn store(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Store(source.into())
    }
}
