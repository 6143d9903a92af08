//! Why a node stopped by itself.

use std::sync::Arc;

use raftmap_storage::types::{Index, Term};

pub(crate) use crate::error::chain;

/// A node that cannot go on without putting data at risk stops. Its directory is left as it is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// A write, a sync or a read of the log failed; the message names file, offset and what to do.
    #[error("the log: {0}")]
    Log(String),
    /// A committed entry cannot be understood: this version is older than the one that wrote it, or the entry is damaged.
    #[error(
        "committed entry {index} of term {term} cannot be executed: {what}; do not delete anything, run the version that wrote it"
    )]
    Entry {
        /// Its place.
        index: Index,
        /// Its term.
        term: Term,
        /// Why.
        what: String,
    },
    /// A thread of the node ended unexpectedly.
    #[error("{0} ended unexpectedly; restart the node, its log is intact up to the last acknowledgement")]
    Thread(Arc<str>),
    /// The network endpoint is gone.
    #[error("the network: {0}; restart the node")]
    Network(String),
}
