//! A member's disk as the core may assume it: batches become durable in order, at any frame of them a crash may cut.

use std::collections::VecDeque;

use raftmap_storage::types::{Batch, Entry, EntryMeta, HardState, Index, Position, SnapshotId, SnapshotMark};

use crate::raft::{BatchNumber, OlderEntries, Outbound, ReadError};

/// What a node finds after a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Option<SnapshotId>,
    /// Entries above the snapshot.
    pub(super) log: Vec<Entry>,
}

/// A batch on its way, and what may leave when it is durable.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) batch: Option<(BatchNumber, Batch)>,
    pub(super) messages: Vec<Outbound>,
}

/// One thing that is written as a whole.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    HardState(HardState),
    Truncate(Position),
    Entry(Entry),
    Snapshot(SnapshotMark),
}

/// The frames of a batch, in the order of the file.
pub(super) fn frames(batch: &Batch) -> Vec<Frame> {
    let mut frames = Vec::new();
    frames.extend(batch.hard_state.map(Frame::HardState));
    frames.extend(batch.truncate.map(Frame::Truncate));
    frames.extend(batch.entries.iter().cloned().map(Frame::Entry));
    frames.extend(batch.snapshot.map(Frame::Snapshot));
    frames
}

impl Disk {
    pub(super) fn base(&self) -> Position {
        self.snapshot.map_or(Position::ZERO, |snapshot| snapshot.position)
    }

    pub(super) fn last(&self) -> Position {
        self.log.last().map_or(self.base(), |entry| entry.position)
    }

    pub(super) fn position_at(&self, index: Index) -> Option<Position> {
        let base = self.base();
        if index == base.index {
            return Some(base);
        }
        let offset = index.0.checked_sub(base.index.0 + 1)?;
        self.log.get(offset as usize).map(|entry| entry.position)
    }

    /// Whether this very entry, or a snapshot above it, is durable.
    pub(super) fn holds(&self, position: Position) -> bool {
        position.index < self.base().index || self.position_at(position.index) == Some(position)
    }

    pub(super) fn metas(&self) -> Vec<EntryMeta> {
        let meta =
            |entry: &Entry| EntryMeta { term: entry.position.term, payload_len: entry.payload.len() as u32 };
        self.log.iter().map(meta).collect()
    }

    /// Writes a frame, holding the core to the rules of the file format.
    pub(super) fn write(&mut self, frame: Frame) {
        match frame {
            Frame::HardState(hard_state) => {
                assert!(hard_state.term >= self.hard_state.term, "term goes back on disk");
                if hard_state.term == self.hard_state.term && self.hard_state.vote.is_some() {
                    assert_eq!(hard_state.vote, self.hard_state.vote, "vote changes within a term");
                }
                self.hard_state = hard_state;
            }
            Frame::Truncate(last) => {
                assert!(last.index < self.last().index, "truncating to {last} at {}", self.last());
                assert_eq!(self.position_at(last.index), Some(last), "truncating to what is not there");
                self.log.truncate((last.index.0 - self.base().index.0) as usize);
            }
            Frame::Entry(entry) => {
                let (last, position) = (self.last(), entry.position);
                assert_eq!(position.index, last.index.next(), "{position} behind {last}");
                assert!(position.term >= last.term, "{position} behind {last}");
                assert!(position.term <= self.hard_state.term, "{position} above the term on disk");
                assert!(entry.is_intact());
                self.log.push(entry);
            }
            Frame::Snapshot(SnapshotMark { snapshot, reset }) => {
                let position = snapshot.position;
                assert!(position.index > self.base().index, "snapshot goes back to {position}");
                if reset {
                    self.log.clear();
                } else {
                    assert_eq!(self.position_at(position.index), Some(position), "snapshot not of this log");
                    self.log.drain(..(position.index.0 - self.base().index.0) as usize);
                }
                self.snapshot = Some(snapshot);
            }
        }
    }
}

/// Reads from what is durable; nothing else is ever sealed.
impl OlderEntries for Disk {
    fn read(&self, from: Index, through: Index, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let skipped = from.0.checked_sub(self.base().index.0 + 1).ok_or(ReadError::Missing { from })?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.log.iter().skip(skipped as usize) {
            bytes += entry.payload.len();
            if entry.position.index > through || (!entries.is_empty() && bytes > bytes_max) {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

/// Batches between the core and its disk.
pub(super) type Queue = VecDeque<Pending>;
