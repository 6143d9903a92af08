//! The replicated map and its sessions: a pure function of the log.
//!
//! Committed entries go in, in the order of their indexes, and every replica that has applied the same entries holds
//! the same state, down to its [digest](StateMachine::digest). There is no clock here (log time comes with the
//! entries), no thread, no file and no random number; and every order is the order of keys.
//!
//! | file       | its job                                                   |
//! |------------|-----------------------------------------------------------|
//! | `limits`   | the replicated limits                                     |
//! | `command`  | what an entry asks, and what it is answered               |
//! | `machine`  | the order of things within one entry                      |
//! | `session`  | exactly once, and expiry                                  |
//! | `pairs`    | the map                                                   |
//! | `scan`     | reading it in pages                                       |
//! | `content`  | the bytes of a snapshot's content                         |
//! | `image`    | writing them out, beside the running map                  |
//! | `restore`  | reading them back, piece by piece                         |

#![deny(clippy::disallowed_methods)]

mod command;
mod content;
mod image;
mod limits;
mod machine;
mod pairs;
mod restore;
mod scan;
mod session;
#[cfg(test)]
mod tests;

pub use self::command::{Command, LogTime, Outcome, Owner, Proposal, Refusal, Reply, Request, SessionId};
pub use self::image::{Chunks, Image};
pub use self::limits::{KEY_BYTES_MAX, LimitError, Limits, LimitsError, VALUE_BYTES_MAX, WINDOW_MIN};
pub use self::machine::StateMachine;
pub use self::pairs::Versioned;
pub use self::restore::{Restore, RestoreError};
pub use self::scan::{Keys, PAGE_BYTES, PAGE_PAIRS, Page, Pair, Scan};
pub use crate::codec::CodecError;
