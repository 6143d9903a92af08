//! What waits for the next write: batches taken apart into single frames, checked when they come in.

use std::collections::VecDeque;

use crate::error::StoreError;
use crate::record::{HARD_STATE_LEN, Record, SNAPSHOT_LEN, TRUNCATE_LEN};
use crate::state::LogState;
use crate::types::{Batch, Entry, HardState, Position, SnapshotMark};

/// One frame to be written, or none for an empty batch, which takes a sync all the same.
#[derive(Debug)]
pub(super) enum Op {
    HardState(HardState),
    Truncate(Position),
    Entry(Entry),
    Snapshot(SnapshotMark),
    Nothing,
}

impl Op {
    pub(super) fn record(&self) -> Option<Record<'_>> {
        match self {
            Op::HardState(hard_state) => Some(Record::HardState(*hard_state)),
            Op::Truncate(to) => Some(Record::Truncate(*to)),
            Op::Entry(Entry { position, payload, payload_crc }) => {
                Some(Record::Entry { position: *position, payload, payload_crc: *payload_crc })
            }
            Op::Snapshot(mark) => Some(Record::Snapshot(*mark)),
            Op::Nothing => None,
        }
    }

    pub(super) fn frame_len(&self) -> u64 {
        match self {
            Op::HardState(_) => HARD_STATE_LEN,
            Op::Truncate(_) => TRUNCATE_LEN,
            Op::Entry(entry) => entry.frame_len(),
            Op::Snapshot(_) => SNAPSHOT_LEN,
            Op::Nothing => 0,
        }
    }

    pub(super) fn apply(&self, state: &mut LogState) -> Result<(), String> {
        match self {
            Op::HardState(hard_state) => state.set_hard_state(*hard_state),
            Op::Truncate(to) => state.truncate(*to),
            Op::Entry(entry) => state.append(entry.position),
            Op::Snapshot(mark) => state.mark(mark),
            Op::Nothing => Ok(()),
        }
    }
}

/// Frames in the order in which they go to the disk.
pub(super) struct Queue {
    /// Each with its batch's number where it is the batch's last.
    ops: VecDeque<(Op, Option<u64>)>,
    /// The log's state behind the last one.
    planned: LogState,
}

impl Queue {
    pub(super) fn new(state: LogState) -> Self {
        Self { ops: VecDeque::new(), planned: state }
    }

    /// Takes all of a batch or nothing of it.
    pub(super) fn push(&mut self, number: u64, batch: Batch, payload_max: u32) -> Result<(), StoreError> {
        let too_large =
            batch.entries.iter().find(|entry| entry.payload.len() as u64 > u64::from(payload_max));
        if let Some(Entry { position, payload, .. }) = too_large {
            let (len, max) = (payload.len() as u64, u64::from(payload_max));
            return Err(StoreError::TooLarge { index: position.index, len, max });
        }
        let (before, planned) = (self.ops.len(), self.planned);
        let mut ops = in_order(batch).peekable();
        while let Some(op) = ops.next() {
            if let Err(what) = op.apply(&mut self.planned) {
                self.ops.truncate(before);
                self.planned = planned;
                return Err(StoreError::OutOfOrder { number, what });
            }
            let ends = ops.peek().is_none().then_some(number);
            self.ops.push_back((op, ends));
        }
        if self.ops.len() == before {
            self.ops.push_back((Op::Nothing, Some(number)));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Op> {
        self.ops.front().map(|(op, _)| op)
    }

    pub(super) fn pop(&mut self) -> Option<(Op, Option<u64>)> {
        self.ops.pop_front()
    }
}

/// A batch's frames. In this order every prefix is a state that Raft may be found in.
fn in_order(batch: Batch) -> impl Iterator<Item = Op> {
    let Batch { hard_state, truncate, entries, snapshot } = batch;
    let head = hard_state.map(Op::HardState).into_iter().chain(truncate.map(Op::Truncate));
    head.chain(entries.into_iter().map(Op::Entry)).chain(snapshot.map(Op::Snapshot))
}
