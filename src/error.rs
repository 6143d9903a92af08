//! What a call can end with, apart from its result.

use std::time::Duration;

use crate::clerk::{ConnectError, Pending};
use crate::wire::client::Refusal;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not end with its result. Each variant is something else that a caller would do next. After every
/// one but [`Unknown`](Error::Unknown) and [`SessionExpired`](Error::SessionExpired) the call was definitely not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The write may have happened or may still happen. Ask again with [`Pending::resolve`].
    #[error(
        "the outcome is unknown: the deadline passed after the write had been sent; resolve it under the same number"
    )]
    Unknown(Pending),
    /// The cluster has forgotten this clerk's session while a write was unresolved: whether it happened, only the data
    /// can tell. Later writes open a new session.
    #[error("the session expired while the write was unresolved: read the data to see whether it happened")]
    SessionExpired,
    /// No server answered in time. Try again later, or look at the servers.
    #[error("no server answered within {deadline:?}: is a majority of the nodes up and reachable?")]
    NoAnswer {
        /// The call's deadline.
        deadline: Duration,
    },
    /// No server could be connected to in time. Look at the addresses, the identity and the servers.
    #[error("no server could be reached within {deadline:?}: {why}")]
    NotConnected {
        /// The call's deadline.
        deadline: Duration,
        /// What the latest attempt ended with.
        why: String,
    },
    /// The cluster has servers but no leader that this clerk could find in time. Try again later.
    #[error("no leader was found in time: is a majority of the nodes up?")]
    NoLeader,
    /// A limit is reached. Try again a little later, with less at once.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// The leader's disk is full. Make room; reads and elections go on meanwhile.
    #[error("no space left for the log on the leader's disk: make room, reads go on meanwhile")]
    NoSpace,
    /// A key or value is over its limit. Make it smaller.
    #[error("too large: {0}")]
    TooLarge(String),
    /// Nothing was sent: there are no servers, or no identity to show them. Name them.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused the request as it stands: a bug, or a server of another version.
    #[error("refused: {0}")]
    Protocol(String),
    /// One server could not be asked.
    #[error("{server}: {why}")]
    Unreachable {
        /// The server.
        server: std::net::SocketAddr,
        /// Why not.
        why: String,
    },
    /// The node in this process has stopped, or the last one that was asked is stopping. Start it again.
    #[error("the node is stopping or has stopped")]
    Stopped,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader { .. } | Refusal::Lost => Self::NoLeader,
            Refusal::Busy => Self::Busy("the leader's log or queue is at its bound"),
            Refusal::SessionTableFull => Self::Busy("the session table is full"),
            Refusal::NoSpace => Self::NoSpace,
            Refusal::TooLarge { what } => Self::TooLarge(what),
            Refusal::SessionExpired => Self::SessionExpired,
            Refusal::BadRequest { what } => Self::Protocol(what),
            Refusal::Stopping => Self::Stopped,
        }
    }
}

/// An error with all its causes, in one line.
#[doc(hidden)]
pub fn chain(error: &dyn std::error::Error) -> String {
    let words = error.to_string();
    let Some(cause) = error.source() else { return words };
    let causes = chain(cause);
    // Some messages hold their causes already: all of them, or the first one.
    if words.contains(&causes) {
        return words;
    }
    match words.strip_suffix(&cause.to_string()) {
        Some(stem) => format!("{stem}{causes}"),
        None => format!("{words}: {causes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("deep")]
        Deep,
        #[error("middle")]
        Middle(#[source] Box<Nested>),
        #[error("holds one: {0}")]
        HoldsOne(#[source] Box<Nested>),
        #[error("holds all: {}", chain(.0))]
        HoldsAll(#[source] Box<Nested>),
        #[error("holds all ({}) within", chain(.0))]
        HoldsWithin(#[source] Box<Nested>),
    }

    #[test]
    fn each_cause_is_said_once() {
        let middle = || Box::new(Nested::Middle(Box::new(Nested::Deep)));
        assert_eq!(chain(&*middle()), "middle: deep");
        assert_eq!(chain(&Nested::HoldsOne(middle())), "holds one: middle: deep");
        assert_eq!(chain(&Nested::HoldsAll(middle())), "holds all: middle: deep");
        assert_eq!(chain(&Nested::HoldsWithin(middle())), "holds all (middle: deep) within");
    }
}
