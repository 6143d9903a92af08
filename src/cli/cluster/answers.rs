//! What the map answers, in the checkers' words.

use std::time::Duration;

use bytes::Bytes;
use raftmap::check::{Content, Outcome, Reply};
use raftmap::{Command, Error, Pending, Reply as Answer, Versioned, Written};

/// What a command writes.
pub(crate) fn written(command: &Command) -> Option<Bytes> {
    match command {
        Command::Put { value, .. } | Command::Append { value, .. } | Command::CompareAndPut { value, .. } => {
            Some(value.clone())
        }
        Command::Delete { .. } => None,
    }
}

/// How a write ended. One of which nobody knows may be done yet, or never.
pub(crate) fn outcome(result: &raftmap::Result<Written>, returned_ns: u64) -> Outcome {
    match result {
        Ok(Written { index, reply }) => match stored(reply) {
            Some(reply) => Outcome::Done { returned_ns, index: *index, reply },
            None => Outcome::Refused { returned_ns },
        },
        Err(Error::Unknown(_) | Error::SessionExpired) => Outcome::Unknown,
        // Every other error promises that it was not done, and the check holds it to that.
        Err(_) => Outcome::Refused { returned_ns },
    }
}

/// Asks about a write under its own number until somebody knows, each time for as long as `patience` gives, or until it
/// gives no more. Whatever else is said does not undo that the write was sent: that is an expired session.
pub(crate) async fn resolve(
    mut pending: Pending,
    mut patience: impl FnMut() -> Option<Duration>,
) -> raftmap::Result<Written> {
    while let Some(time) = patience() {
        match pending.resolve(time).await {
            Ok(written) => return Ok(written),
            Err(Error::Unknown(again)) => pending = again,
            Err(_) => return Err(Error::SessionExpired),
        }
    }
    Err(Error::Unknown(pending))
}

/// What came of a write; [`None`]: it is over a limit, and was not done.
fn stored(answer: &Answer) -> Option<Reply> {
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
pub(crate) fn found(found: Option<&Versioned>) -> Reply {
    match found {
        Some(found) => Reply::Found { version: found.version, value: Content::of(&found.value) },
        None => Reply::Absent,
    }
}
