//! The map's vocabulary: what a log entry asks of it, and what it answers.
//!
//! | type       | says                                                                  |
//! |------------|-----------------------------------------------------------------------|
//! | `Proposal` | a request, stamped with log time by the leader that writes it          |
//! | `Request`  | open, close or use a session                                          |
//! | `Command`  | one change of the map, executed exactly once                          |
//! | `Reply`    | what the command did; small, kept until the client acknowledges it     |
//! | `Outcome`  | what became of the request                                            |
//!
//! Encoded by bincode: new variants and fields go to the end.

use std::fmt;

use bytes::Bytes;
use raftmap_storage::types::Index;
use serde::{Deserialize, Serialize};

use super::limits::{LimitError, Limits};
use crate::codec::{self, CodecError, octets};

/// Log time in milliseconds: the leader's monotonic clock, carried by the entries. It has no date, never goes back, and
/// stands still while there is no leader, so an outage ages nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogTime(pub u64);

impl LogTime {
    /// Whether something last used at `self` has outlived `ttl_ms` now. The boundary itself is over.
    pub(super) fn is_over(self, ttl_ms: u64, now: Self) -> bool {
        self.0.saturating_add(ttl_ms) <= now.0
    }
}

/// A session: the log index of the entry that opened it, so never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who opened a session: a hash of the identity in the client's certificate. Filled in by the server, never by the
/// client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner(pub [u8; 16]);

/// One change of the map. A version is the log index of the last change of a key: it rises, with gaps; 0 is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Store `value` under `key`, whatever was there.
    Put {
        /// Not empty, at most [`Limits::key_bytes`].
        #[serde(with = "octets")]
        key: Bytes,
        /// May be empty, at most [`Limits::value_bytes`].
        #[serde(with = "octets")]
        value: Bytes,
    },
    /// Put `value` behind what is stored under `key`; an absent key counts as empty and is created.
    Append {
        /// Not empty, at most [`Limits::key_bytes`].
        #[serde(with = "octets")]
        key: Bytes,
        /// May be empty. Old and new together at most [`Limits::value_bytes`].
        #[serde(with = "octets")]
        value: Bytes,
    },
    /// Remove `key`.
    Delete {
        /// Not empty, at most [`Limits::key_bytes`].
        #[serde(with = "octets")]
        key: Bytes,
    },
    /// Store `value` under `key` if its version is still `version`.
    CompareAndPut {
        /// Not empty, at most [`Limits::key_bytes`].
        #[serde(with = "octets")]
        key: Bytes,
        /// The version to replace; 0: only if the key is absent.
        version: u64,
        /// May be empty, at most [`Limits::value_bytes`].
        #[serde(with = "octets")]
        value: Bytes,
    },
}

impl Command {
    /// The key it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. }
            | Self::Append { key, .. }
            | Self::Delete { key }
            | Self::CompareAndPut { key, .. } => key,
        }
    }

    /// Bytes of the value it carries.
    pub fn value_len(&self) -> usize {
        match self {
            Self::Put { value, .. } | Self::Append { value, .. } | Self::CompareAndPut { value, .. } => {
                value.len()
            }
            Self::Delete { .. } => 0,
        }
    }

    /// Whether `limits` allow it, as far as that can be told without the map: to be asked before it is proposed. What
    /// an append makes of a stored value is checked when it is applied.
    ///
    /// # Errors
    /// [`LimitError`] says which limit and by how much.
    pub fn check(&self, limits: &Limits) -> Result<(), LimitError> {
        limits.check_key(self.key())?;
        match self {
            Self::Put { value, .. } | Self::Append { value, .. } | Self::CompareAndPut { value, .. } => {
                limits.check_value(value.len() as u64)
            }
            Self::Delete { .. } => Ok(()),
        }
    }
}

/// What a command did. Never holds a value, so that a session's kept replies stay small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// Stored.
    Put {
        /// The key's version from now on.
        version: u64,
    },
    /// Appended.
    Append {
        /// The key's version from now on.
        version: u64,
        /// Bytes of the whole value from now on.
        length: u64,
    },
    /// The key is absent from now on.
    Delete {
        /// Whether it was there.
        existed: bool,
    },
    /// The version was the expected one, and the value is stored.
    Swapped {
        /// The key's version from now on.
        version: u64,
    },
    /// The version was another one, and nothing changed.
    Mismatch {
        /// The version found; 0: the key is absent.
        current: u64,
    },
    /// Key or value is outside the limits, and nothing changed. Counts as executed.
    OutsideLimits(LimitError),
}

/// What one log entry asks of the map, stamped by the leader that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's log time. One that lies before the map's log time counts as that.
    pub at: LogTime,
    /// What is asked.
    pub request: Request,
}

/// What is asked of the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Open a session. Two of these open two: one whose outcome never arrived is left to expire.
    Open {
        /// To whom it will belong.
        owner: Owner,
    },
    /// Close a session, and forget its replies.
    Close {
        /// Who asks.
        owner: Owner,
        /// The session.
        session: SessionId,
    },
    /// Execute a command exactly once.
    Execute {
        /// Who asks.
        owner: Owner,
        /// The session it is numbered in.
        session: SessionId,
        /// Its number in the session, counted from 1. The same number is the same request.
        sequence: u64,
        /// The client has the outcome of every request numbered below this, and will not ask for them again. Only
        /// rises; at most `sequence`.
        acked_below: u64,
        /// What to do.
        command: Command,
    },
    /// Only move log time on, so that idle sessions expire where nothing else is written.
    Tick,
}

impl Proposal {
    /// Appends its bytes to `out` (which may hold the entry's kind already).
    ///
    /// # Errors
    /// [`CodecError::TooLong`] where key and value are over `limits`; `out` is then as it was.
    pub fn encode_into(&self, out: &mut Vec<u8>, limits: &Limits) -> Result<(), CodecError> {
        codec::encode_into(self, out, limits.proposal_bytes())
    }

    /// The proposal that `bytes` are. Key and value are copied out of them.
    ///
    /// # Errors
    /// [`CodecError`] where `bytes` are not exactly one proposal, or more than `limits` allow.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, CodecError> {
        codec::decode(bytes, limits.proposal_bytes())
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The session is open.
    Opened {
        /// Its name: the index of this entry.
        session: SessionId,
    },
    /// There are [`Limits::sessions`] already, none of them known to be expired: try again later.
    TableFull,
    /// The session is closed.
    Closed,
    /// The command was executed by this entry.
    Executed {
        /// This entry's index.
        at: Index,
        /// What it did.
        reply: Reply,
    },
    /// The command was executed by an earlier entry, and this one did nothing.
    Duplicate {
        /// That earlier entry's index.
        at: Index,
        /// What it did then.
        reply: Reply,
    },
    /// Log time moved on.
    Ticked,
    /// Not done by this entry.
    Refused {
        /// Why.
        reason: Refusal,
    },
}

/// Why a request was not done by this entry. Whether an earlier entry did it is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The number is below what the client has acknowledged (numbers begin at 1): it had its outcome, and the reply is
    /// forgotten. Never run again.
    #[error("numbers below {acked_below} have been acknowledged and are never executed again")]
    BelowAcknowledged {
        /// Numbers below this one are settled.
        acked_below: u64,
    },
    /// The session is not there: expired, closed, or never opened. What became of its unanswered requests can no longer
    /// be asked here.
    #[error("no such session: it expired, was closed or never opened")]
    SessionExpired,
    /// The session belongs to someone else.
    #[error("the session belongs to another certificate")]
    NotOwner,
    /// The number is [`Limits::window`] or more above the lowest that is not acknowledged: acknowledge first. Not run.
    #[error("the window ends at number {below}: acknowledge earlier replies first")]
    WindowExceeded {
        /// The lowest number that is refused for now.
        below: u64,
    },
}
