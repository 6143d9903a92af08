//! What the map answers, in the checkers' words.

use bytes::Bytes;
use raftmap::check::{Content, Reply};
use raftmap::{Command, Reply as Answer, Versioned};

/// What a command writes.
pub(crate) fn written(command: &Command) -> Option<Bytes> {
    match command {
        Command::Put { value, .. } | Command::Append { value, .. } | Command::CompareAndPut { value, .. } => {
            Some(value.clone())
        }
        Command::Delete { .. } => None,
    }
}

/// What came of a write; [`None`]: it is over a limit, and was not done.
pub(crate) fn stored(answer: &Answer) -> Option<Reply> {
    match answer {
        Answer::Put { version } | Answer::Append { version, .. } | Answer::Swapped { version } => {
            Some(Reply::Stored { version: *version })
        }
        Answer::Mismatch { current } => Some(Reply::Mismatch { current: *current }),
        Answer::Delete { existed } => Some(Reply::Deleted { existed: *existed }),
        Answer::OutsideLimits(_) => None,
    }
}

/// What a read saw.
pub(crate) fn found(found: &Option<Versioned>) -> Reply {
    match found {
        Some(found) => Reply::Found { version: found.version, value: Content::of(&found.value) },
        None => Reply::Absent,
    }
}
