//! What a core is started with: its limits, and what its disk remembers.

use raftmap_storage::types::{Entry, EntryMeta, HardState, Index, Membership, NodeId, Position, SnapshotId};

use super::entry::VOTERS_MAX;

/// The limits of one core. All times are in ticks, whose length is the host's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node; one of the voters.
    pub id: NodeId,
    /// Shortest and longest election timeout, both possible. Drawn anew for every wait (thesis 3.4). The shortest is
    /// also how long a leader may go unheard before anybody votes for another, how long a leader may miss its
    /// majority, and how long a sync may take before the disk counts as stuck.
    pub election_ticks: (u32, u32),
    /// Between two heartbeats; below the shortest election timeout.
    pub heartbeat_ticks: u32,
    /// Payload bytes in one append; one entry always fits.
    pub append_bytes_max: usize,
    /// Entries in one append.
    pub append_entries_max: usize,
    /// Appends on their way to one follower without an answer.
    pub inflight_appends_max: usize,
    /// Payload bytes on their way to one follower; one append is always allowed.
    pub inflight_bytes_max: usize,
    /// Payload bytes proposed here and not yet committed; one proposal is always allowed.
    pub uncommitted_bytes_max: u64,
    /// Bound of [`Raft::raft_state_bytes`](super::Raft::raft_state_bytes), passed by less than one entry. At it,
    /// proposals are refused and a follower leaves entries out, except the no-op of a new leader. `None`: no bound.
    pub log_bytes_max: Option<u64>,
    /// Bytes of the largest payload that the disk takes; entries with more are nobody's.
    pub payload_max: usize,
    /// Payload bytes of the log's end that stay on the heap. Entries that are not sealed yet stay beyond it.
    pub tail_bytes: usize,
    /// Where the election timeouts are drawn from. Members need different ones.
    pub seed: u64,
}

/// What the disk gave back: the state that counted when its last batch was synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// The snapshot that stands for the log's beginning. The host has restored the map from it.
    pub snapshot: Option<SnapshotId>,
    /// The membership in force at the end of the log.
    pub membership: Membership,
    /// Every live entry above the snapshot, in order.
    pub log: Vec<EntryMeta>,
    /// The last ones of them, whole.
    pub tail: Vec<Entry>,
    /// Entries up to here can be read back from sealed segments.
    pub sealed_through: Index,
}

/// Why a core was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Node ids count from 1.
    #[error("node id 0 is not a member: choose ids from 1")]
    NodeIdZero,
    /// A limit of nothing.
    #[error("{field} is 0: it must be at least 1")]
    Zero {
        /// The field's name.
        field: &'static str,
    },
    /// Followers would campaign between two heartbeats.
    #[error("election timeout of {election} ticks is not above the heartbeat of {heartbeat} ticks")]
    ElectionTooShort {
        /// Ticks between two heartbeats.
        heartbeat: u32,
        /// The shortest election timeout.
        election: u32,
    },
    /// Shortest and longest are swapped.
    #[error("election timeout goes from {min} to {max} ticks: the first must not be above the second")]
    ElectionRange {
        /// The shortest.
        min: u32,
        /// The longest.
        max: u32,
    },
    /// This node is not among those who count.
    #[error("node {id} is not among the voters {voters:?}: start it with its own id, or another directory")]
    NotAVoter {
        /// This node.
        id: NodeId,
        /// Who counts.
        voters: Vec<NodeId>,
    },
    /// More voters than a bootstrap entry can name.
    #[error("{count} voters: at most {VOTERS_MAX} are supported")]
    TooManyVoters {
        /// How many there are.
        count: usize,
    },
    /// What was restored contradicts itself.
    #[error("restored log is inconsistent at index {}: {what}", at.index)]
    Restored {
        /// Where.
        at: Position,
        /// What is wrong.
        what: &'static str,
    },
}

impl Config {
    /// Checks each limit alone and against its neighbours.
    ///
    /// # Errors
    /// The first limit that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id.0 == 0 {
            return Err(ConfigError::NodeIdZero);
        }
        let limits = [
            ("heartbeat_ticks", u64::from(self.heartbeat_ticks)),
            ("append_bytes_max", self.append_bytes_max as u64),
            ("append_entries_max", self.append_entries_max as u64),
            ("inflight_appends_max", self.inflight_appends_max as u64),
            ("payload_max", self.payload_max as u64),
            ("inflight_bytes_max", self.inflight_bytes_max as u64),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("log_bytes_max", self.log_bytes_max.unwrap_or(1)),
        ];
        if let Some((field, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(ConfigError::Zero { field });
        }
        let (min, max) = self.election_ticks;
        if min > max {
            return Err(ConfigError::ElectionRange { min, max });
        }
        if min <= self.heartbeat_ticks {
            return Err(ConfigError::ElectionTooShort { heartbeat: self.heartbeat_ticks, election: min });
        }
        Ok(())
    }
}

impl Restored {
    /// The position the log begins behind.
    pub(super) fn base(&self) -> Position {
        self.snapshot.map_or(Position::ZERO, |snapshot| snapshot.position)
    }

    /// Checks what was read from disk against the rules that a core keeps.
    pub(super) fn validate(&self, id: NodeId) -> Result<(), ConfigError> {
        let voters = &self.membership.voters;
        if !voters.contains(&id) {
            return Err(ConfigError::NotAVoter { id, voters: voters.iter().copied().collect() });
        }
        if voters.len() > VOTERS_MAX {
            return Err(ConfigError::TooManyVoters { count: voters.len() });
        }
        self.check_terms()?;
        self.check_tail()
    }

    fn check_terms(&self) -> Result<(), ConfigError> {
        let mut at = self.base();
        for meta in &self.log {
            let next = Position { index: at.index.next(), term: meta.term };
            if meta.term < at.term {
                return Err(ConfigError::Restored { at: next, what: "the term goes back" });
            }
            at = next;
        }
        if at.term > self.hard_state.term {
            return Err(ConfigError::Restored { at, what: "its term is above the node's" });
        }
        Ok(())
    }

    fn check_tail(&self) -> Result<(), ConfigError> {
        let last = Index(self.base().index.0.saturating_add(self.log.len() as u64));
        let Some(skipped) = self.log.len().checked_sub(self.tail.len()) else {
            let at = self.tail.first().map_or(Position::ZERO, |entry| entry.position);
            return Err(ConfigError::Restored { at, what: "more whole entries than live ones" });
        };
        let mut index = Index(self.base().index.0.saturating_add(skipped as u64));
        if index > self.sealed_through.min(last) {
            let at = Position { index, ..Position::ZERO };
            return Err(ConfigError::Restored { at, what: "neither sealed nor on the heap" });
        }
        for (meta, entry) in self.log.iter().skip(skipped).zip(&self.tail) {
            index = index.next();
            let expected = Position { index, term: meta.term };
            if entry.position != expected || entry.payload.len() as u64 != u64::from(meta.payload_len) {
                return Err(ConfigError::Restored {
                    at: expected,
                    what: "the whole entry differs from its record",
                });
            }
        }
        Ok(())
    }
}
