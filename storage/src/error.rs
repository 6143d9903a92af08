//! What can go wrong, one variant for each thing a caller would do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::types::{ClusterId, Index, NodeId, Position};

/// What to do with a damaged directory. Emptying it would let a voter vote twice in a term it already voted in.
pub const ADVICE: &str = "keep the directory as it is and do not empty it (an emptied voter may vote twice): \
                          restore a sound copy taken after the last stop, or have the member replaced";

/// Bytes that were durable once and are not what was written, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// First byte of the frame, header or chunk that does not check out.
    pub offset: u64,
    /// The entry it belongs to, where that can still be told.
    pub entry: Option<Position>,
    /// What does not check out.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: offset {}: ", self.path.display(), self.offset)?;
        if let Some(entry) = self.entry {
            write!(f, "entry {entry}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Why a directory was not opened. Nothing of what was acknowledged has been touched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another open store holds the directory, in this process or another.
    #[error("{} is in use by {}; stop it first", path.display(), holder(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The holder's process id, where it could be read.
        pid: Option<u32>,
    },
    /// Synced bytes are damaged. The files are left as they are.
    #[error("damaged: {0}; {ADVICE}")]
    Damaged(Damage),
    /// The directory belongs to another member, or to another cluster.
    #[error(
        "{} belongs to node {found_node} of cluster {found_cluster}, not to node {wanted_node} of cluster \
         {wanted_cluster}; give the directory that belongs to this node", path.display()
    )]
    WrongIdentity {
        /// The file that says so.
        path: PathBuf,
        /// The cluster on disk.
        found_cluster: ClusterId,
        /// The node on disk.
        found_node: NodeId,
        /// The cluster asked for.
        wanted_cluster: ClusterId,
        /// The node asked for.
        wanted_node: NodeId,
    },
    /// Written by another version of the format.
    #[error("{} has format version {found}, this program reads {supported}; use the program that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
        /// The version known here.
        supported: u32,
    },
    /// Not an opened directory of this store: there is no NODE file in it (offline checks only).
    #[error("{} holds no log; nothing was ever acknowledged from it", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// No space to make or repair the directory. Free some and open again.
    #[error("no space left for {}; free some and start again", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// An option is out of its range.
    #[error("{what}")]
    Options {
        /// Which, with both numbers.
        what: String,
    },
    /// The disk or the system refused.
    #[error("{op} {}: {source}; mend that and start again", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged(Damage { path: path.to_owned(), offset, entry: None, what: what.into() })
    }

    /// An adapter for `map_err`.
    pub(crate) fn io<'a>(op: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| match is_no_space(&source) {
            true => Self::NoSpace { path: path.to_owned() },
            false => Self::Io { op, path: path.to_owned(), source },
        }
    }
}

/// Why the log did not take something. After [`StoreError::Io`] every later call answers [`StoreError::Failed`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A write or a sync failed: what reached the disk is unknown, and the log takes nothing any more. Stop the node;
    /// opening the directory again finds out.
    #[error("{op} {} at offset {offset}: {source}; the log takes nothing more: stop, mend the disk, start again", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Where in it; 0 for a directory.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier call failed, and that is final.
    #[error("the log has failed before ({first}); stop and start again")]
    Failed {
        /// What failed first.
        first: String,
    },
    /// An entry is larger than the log takes. Nothing was queued and nothing has failed.
    #[error("entry {index} has {len} bytes, the log takes {max}")]
    TooLarge {
        /// Which.
        index: Index,
        /// Bytes of its payload.
        len: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// A batch that does not follow from what is queued already: a bug of the caller. Nothing was queued.
    #[error("batch {number} does not follow: {what}")]
    OutOfOrder {
        /// The batch.
        number: u64,
        /// What does not follow.
        what: String,
    },
}

/// Why an entry was not read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This segment does not hold it.
    #[error("{} does not hold entry {index}", path.display())]
    Absent {
        /// The segment.
        path: PathBuf,
        /// The entry asked for.
        index: Index,
    },
    /// Its bytes changed on disk since they were synced.
    #[error("damaged: {0}; {ADVICE}")]
    Damaged(Damage),
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// No room on the device, or none left in a quota.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
