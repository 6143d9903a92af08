//! What the disk has been given and what it holds: nothing counts before its sync is reported (thesis 10.2.1).

use std::collections::VecDeque;

use raftmap_storage::types::{Batch, HardState, Index, Position, SnapshotId, SnapshotMark, Term};

use super::log::Log;
use super::ready::BatchNumber;

#[derive(Debug)]
pub(super) struct Disk {
    /// Term or vote changed since the last batch.
    hard_state_changed: bool,
    /// Whether it still answers is to be seen.
    asked: bool,
    /// The lowest end of the log since the last batch, where that is below what earlier batches hold.
    truncate: Option<Position>,
    /// A snapshot to be marked.
    mark: Option<SnapshotMark>,
    /// Entries up to here were in some batch. `durable <= submitted <= last`.
    submitted: Index,
    /// The newest snapshot that was handed to this disk, marked or on its way.
    marked: Index,
    /// Batches without a reported sync, oldest first.
    in_flight: VecDeque<InFlight>,
    last_number: BatchNumber,
    /// Entries of the present log that are durable.
    durable: Index,
    /// The term that is durable.
    durable_term: Term,
}

#[derive(Debug)]
struct InFlight {
    number: BatchNumber,
    /// When it was handed out, in ticks.
    since: u64,
    /// The log's end after it, as far as later truncations have left it.
    through: Index,
    term: Option<Term>,
    mark: Option<SnapshotMark>,
}

impl Disk {
    pub(super) fn new(term: Term, snapshot: Index, last: Index) -> Self {
        Self {
            hard_state_changed: false,
            asked: false,
            truncate: None,
            mark: None,
            submitted: last,
            marked: snapshot,
            in_flight: VecDeque::new(),
            last_number: BatchNumber(0),
            durable: last,
            durable_term: term,
        }
    }

    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// Whether a crash now would still leave this node in `term`.
    pub(super) fn holds_term(&self, term: Term) -> bool {
        self.durable_term == term
    }

    /// Whether every batch was reported durable.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the oldest batch has waited for its sync for more than `ticks`.
    pub(super) fn is_stuck(&self, now: u64, ticks: u32) -> bool {
        self.in_flight.front().is_some_and(|batch| now.saturating_sub(batch.since) > u64::from(ticks))
    }

    /// Whether a log that was dropped for a snapshot has not been handed out yet. Entries cannot join that batch.
    pub(super) fn awaits_reset(&self) -> bool {
        self.mark.is_some_and(|mark| mark.reset)
    }

    pub(super) fn hard_state_changed(&mut self) {
        self.hard_state_changed = true;
    }

    /// The next batch leaves even if it is empty.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// The log now ends at `last`.
    pub(super) fn truncated(&mut self, last: Position) {
        if last.index < self.submitted {
            self.truncate = Some(last);
            self.submitted = last.index;
        }
        self.clip(last.index);
    }

    /// What is on its way no longer vouches for entries above `last`: others may take their places.
    fn clip(&mut self, last: Index) {
        self.durable = self.durable.min(last);
        for batch in &mut self.in_flight {
            batch.through = batch.through.min(last);
        }
    }

    /// A snapshot is to be marked. `false` where a newer one already is.
    pub(super) fn mark(&mut self, mark: SnapshotMark) -> bool {
        let index = mark.snapshot.position.index;
        if index <= self.marked {
            return false;
        }
        self.marked = index;
        if mark.reset {
            self.clip(Index(0));
            self.truncate = None;
            self.submitted = index;
        }
        // Where the log is dropped anyhow, a second mark must not bring it back.
        let reset = mark.reset || self.awaits_reset();
        self.mark = Some(SnapshotMark { reset, ..mark });
        true
    }

    pub(super) fn has_batch(&self, log: &Log) -> bool {
        self.hard_state_changed
            || self.asked
            || self.truncate.is_some()
            || self.mark.is_some()
            || self.submitted < log.last().index
    }

    /// Everything that is not on its way yet, as one batch.
    pub(super) fn take_batch(
        &mut self,
        hard_state: HardState,
        log: &Log,
        now: u64,
    ) -> Option<(BatchNumber, Batch)> {
        if !self.has_batch(log) {
            return None;
        }
        self.asked = false;
        let hard_state = std::mem::take(&mut self.hard_state_changed).then_some(hard_state);
        let entries = log.on_heap_from(self.submitted.next());
        let batch = Batch { hard_state, truncate: self.truncate.take(), entries, snapshot: self.mark.take() };
        self.submitted = log.last().index;
        self.last_number.0 += 1;
        let (number, through) = (self.last_number, self.submitted);
        let term = hard_state.map(|state| state.term);
        self.in_flight.push_back(InFlight { number, since: now, through, term, mark: batch.snapshot });
        Some((number, batch))
    }

    /// Batches up to `through` are durable. Returns the newest snapshot among them whose log is still there to compact.
    pub(super) fn synced(&mut self, through: BatchNumber) -> Option<SnapshotId> {
        let mut compact = None;
        if bug!(17) && self.in_flight.front().is_some_and(|batch| batch.number != through) {
            return None;
        }
        let done = self.in_flight.partition_point(|batch| batch.number <= through);
        for batch in self.in_flight.drain(..done) {
            self.durable = self.durable.max(batch.through);
            self.durable_term = batch.term.unwrap_or(self.durable_term);
            if let Some(mark) = batch.mark {
                compact = Some(mark.snapshot);
            }
        }
        compact
    }

    /// Panics when the order of given, durable and last is broken.
    pub(super) fn check_invariants(&self, log: &Log, term: Term) {
        let last = log.last().index;
        assert!(self.durable <= self.submitted, "durable {} > given {}", self.durable, self.submitted);
        assert!(self.submitted <= last, "given {} > last {last}", self.submitted);
        assert!(self.durable_term <= term, "durable term {} > {term}", self.durable_term);
        let in_order = self.in_flight.iter().is_sorted_by_key(|batch| batch.number);
        assert!(in_order, "batches out of order: {:?}", self.in_flight);
        assert!(self.in_flight.iter().all(|batch| batch.through <= self.submitted), "{:?}", self.in_flight);
    }
}
