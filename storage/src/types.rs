//! The words the whole project shares, and the one type of each: from the leader to its disk, over the wire, to the
//! follower's disk and into the map. Nothing here does I/O.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A leader's reign. 0 is the time before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

/// A place in the log, counted from 1. 0 is the place before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Index(pub u64);

/// A member of the cluster, chosen by the operator, at least 1. Never given to another machine or another disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// One cluster among others: 16 bytes that every member carries in its certificate and on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

/// One log directory, drawn at random when it is made: a wiped or replaced disk shows a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(pub [u8; 16]);

/// An entry's id: where it stands and which reign wrote it. Two logs that share one agree on everything up to it
/// (the Log Matching property, Raft paper 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Where the entry stands.
    pub index: Index,
    /// The term of the leader that made it.
    pub term: Term,
}

/// What a node must never forget between two lives: its term and whom it voted for in it (Raft paper, Figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this node has seen. Never goes back.
    pub term: Term,
    /// The candidate that has this node's vote in `term`, if any. Once set it stays for that term.
    pub vote: Option<NodeId>,
}

/// Bytes of a frame's header on disk; the payload follows, padded to [`FRAME_ALIGN`].
pub const FRAME_HEADER: u64 = 40;
/// Frames begin at multiples of this many bytes.
pub const FRAME_ALIGN: u64 = 8;

/// Bytes that a payload of `payload_len` bytes takes in the log, header and padding included.
pub const fn frame_len(payload_len: u64) -> u64 {
    FRAME_HEADER + payload_len.next_multiple_of(FRAME_ALIGN)
}

/// One entry of the replicated log. `payload_crc` is made once, where the entry is born, and checked at every hop:
/// when it arrives from a peer, when it is read back from disk, before it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, and the term of the leader that made it.
    pub position: Position,
    /// What it carries. Raft does not look inside, except at the first byte (the entry's kind).
    pub payload: Bytes,
    /// CRC-32 of (index, term, payload): see [`payload_crc`].
    pub payload_crc: u32,
}

impl Entry {
    /// A new entry, its checksum made here. Only a leader makes entries.
    pub fn new(position: Position, payload: Bytes) -> Self {
        let payload_crc = payload_crc(position, &payload);
        Self { position, payload, payload_crc }
    }

    /// Whether the payload is still what the leader wrote, for this place and term.
    pub fn is_intact(&self) -> bool {
        payload_crc(self.position, &self.payload) == self.payload_crc
    }

    /// Bytes this entry takes in the log.
    pub fn frame_len(&self) -> u64 {
        frame_len(self.payload.len() as u64)
    }
}

/// CRC-32 of index and term (8 little-endian bytes each), then the payload.
pub fn payload_crc(position: Position, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&position.index.0.to_le_bytes());
    hasher.update(&position.term.0.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// What the log remembers of an entry without its payload: enough to answer for its term and its bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// The term of the leader that made it.
    pub term: Term,
    /// Bytes of its payload, without frame header and padding.
    pub payload_len: u32,
}

/// Who counts. Fixed by the bootstrap entry for now; snapshots carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The members whose votes and copies count towards a majority.
    pub voters: BTreeSet<NodeId>,
}

/// A snapshot file, named by what it holds: everything up to and including `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The last entry whose effect the snapshot contains.
    pub position: Position,
    /// Bytes of the whole file.
    pub length: u64,
    /// BLAKE3 of the file up to its trailer. Equal digests mean equal files.
    pub digest: [u8; 32],
}

/// A snapshot's record in the log: from here on it stands for everything up to its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The published file. It must be durable under its name before the mark is written.
    pub snapshot: SnapshotId,
    /// The log is empty from here on: the snapshot came from a leader and the entries held here did not match it.
    pub reset: bool,
}

/// What one `Ready` asks of the disk, carried out in the order of its fields. Every prefix of it is a legal Raft
/// state, so a crash may cut it at any frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// New term or vote.
    pub hard_state: Option<HardState>,
    /// The log's new last entry: everything above it goes. The only way back.
    pub truncate: Option<Position>,
    /// Entries, contiguous, right behind the last one.
    pub entries: Vec<Entry>,
    /// A snapshot that counts from now on.
    pub snapshot: Option<SnapshotMark>,
}

impl Term {
    /// The term after this one; saturates, so that a hostile number cannot overflow.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Index {
    /// The place after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The place before this one; 0 stays 0.
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Position {
    /// The place before the first entry.
    pub const ZERO: Self = Self { index: Index(0), term: Term(0) };

    /// The entry at `index` made in `term`.
    pub const fn new(index: u64, term: u64) -> Self {
        Self { index: Index(index), term: Term(term) }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `index@term`, as in traces and messages.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}
