//! Snapshot files: one file holds everything up to and including one log position, checked end to end.
//!
//! A snapshot comes into being under a temporary name and gets its own only when it is whole and synced; the directory
//! is synced after that. So a file that bears a snapshot's name is whole, or it is damaged: there is no third case.
//! Whether it counts is not decided here but by its record in the log, which is written afterwards.
//!
//! | part    | bytes             | what                                                                    |
//! |---------|-------------------|-------------------------------------------------------------------------|
//! | header  | 72 + 8 per member | position, cluster, membership, CRC-32                                   |
//! | chunks  | 4 + up to 64 KiB  | CRC-32 of (chunk number, content), then content; only the last is short |
//! | trailer | 64                | content length, file length, BLAKE3 of all before the trailer, CRC-32   |
//!
//! No length is needed before the content is known, and where each chunk stands follows from the file's length alone.
//! `format` has the bytes, [`Writer`] and [`Receiver`] make files, [`Reader`] and [`verify`] read them back.

mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use crate::types::{ClusterId, Index, Membership, Position, Term};

pub use format::{CHUNK, MEMBERS_MAX};
pub use read::{Content, Reader, verify, verify_file};
pub use write::{Receiver, SYNC_STEP, Writer};

/// What a snapshot says of itself, ahead of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last entry whose effect the content holds.
    pub position: Position,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Who counted at `position`; at most [`MEMBERS_MAX`] voters.
    pub membership: Membership,
}

/// Why a snapshot file could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file's bytes are not those of a whole snapshot. It is left untouched.
    #[error("damaged snapshot {} at byte {offset}: {what}; keep the file and get a sound copy from another member", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged header, chunk or trailer begins, or where the file ends too early or goes on too long.
        offset: u64,
        /// What does not check out.
        what: &'static str,
    },
    /// The disk does not give the bytes back: damage too, found by the disk itself.
    #[error("cannot read snapshot {} at byte {offset}; keep the file and get a sound copy from another member", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where reading failed.
        offset: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// No file bears the snapshot's name.
    #[error("no snapshot file {}; get it from another member", path.display())]
    Missing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// A sound file of a kind that this version does not know.
    #[error("snapshot {} has {what} that this version does not know; use the version that wrote it or a later one", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is unknown.
        what: &'static str,
    },
    /// The bytes that arrived are not the snapshot that was announced. Nothing was published.
    #[error("received bytes are not the announced snapshot {}: {what}; ask for it again", path.display())]
    Mismatch {
        /// The name it would have got.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// An announced snapshot is larger than the limit. No byte of it was taken.
    #[error("announced snapshot of {length} bytes is over the limit of {limit}; raise the limit")]
    TooLarge {
        /// Bytes announced.
        length: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// More voters than a header holds.
    #[error("{members} members do not fit into a snapshot header, {MEMBERS_MAX} do")]
    TooManyMembers {
        /// Voters given.
        members: usize,
    },
    /// Another sound snapshot of the same position stands under the name; the log may refer to it, so it stays.
    #[error("snapshot {} exists with other content for the same position; use that one", path.display())]
    Exists {
        /// The file that stands.
        path: PathBuf,
    },
    /// The disk is full. Nothing was published; an attempt made later, with space, may succeed.
    #[error("no space for snapshot {}; free some or raise the quota", path.display())]
    NoSpace {
        /// The name it would have got.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The disk failed a call. What reached it is unknown: stop, and open the directory anew.
    #[error("cannot {op} {}; stop and check the disk", path.display())]
    Io {
        /// The call, as an infinitive.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier call on the same writer failed. Drop it and start over.
    #[error("an earlier write of snapshot {} failed; start it anew", path.display())]
    Failed {
        /// The name it would have got.
        path: PathBuf,
    },
}

impl SnapshotError {
    /// Whether what reached the disk is unknown, so that the directory must be opened anew before it is trusted. A second
    /// try could report a success that is none.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Failed { .. })
    }

    fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, source },
            _ => Self::Io { op, path, source },
        }
    }

    fn damaged(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Damaged { path: path.to_path_buf(), offset, what }
    }
}

/// The name of the snapshot of `position`: `snap-<index>-<term>.snap`, 16 hexadecimal digits each.
pub fn file_name(position: Position) -> String {
    format!("snap-{:016x}-{:016x}.snap", position.index.0, position.term.0)
}

/// The position that a snapshot's file name gives; `None` for anything that [`file_name`] does not make.
pub fn parse_file_name(name: &str) -> Option<Position> {
    let (index, term) = name.strip_prefix("snap-")?.strip_suffix(".snap")?.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let position = Position { index: Index(number(index)?), term: Term(number(term)?) };
    // Signs, capitals and other widths would name the same snapshot twice.
    (file_name(position) == name).then_some(position)
}
