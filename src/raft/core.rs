//! What every role shares: term, log, commit index, disk, and the `Ready` that is being filled.

use std::collections::BTreeSet;

use raftmap_storage::types::{
    Entry, HardState, Index, NodeId, Position, SnapshotId, SnapshotMark, Term, frame_len,
};

use super::config::{Config, Restored};
use super::disk::Disk;
use super::log::Log;
use super::message::{AppendOutcome, Body, Message, Outbound};
use super::quorum;
use super::ready::{BatchNumber, ReadId, Ready};
use super::timer::{Random, Timer};
use super::{OlderEntries, ReadError};

/// Payload bytes that one `Ready` hands out to be applied; one entry always fits. The next one brings the rest.
const COMMITTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries that one `Ready` hands out to be applied.
const COMMITTED_ENTRIES_MAX: usize = 4096;
/// A hard state's frame: a term and a vote.
const HARD_STATE_FRAME: u64 = frame_len(16);

#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) hard_state: HardState,
    pub(super) log: Log,
    pub(super) disk: Disk,
    /// Known to be on a majority. Never goes back. `applied <= delivered <= committed <= last`.
    pub(super) committed: Index,
    /// Handed out to be applied.
    pub(super) delivered: Index,
    /// Applied, as the host says.
    pub(super) applied: Index,
    /// Ticks since this life began.
    pub(super) now: u64,
    /// Messages that no member of ours could have meant.
    pub(super) dropped: u64,
    /// The disk has no room for more entries.
    pub(super) no_space: bool,
    pub(super) random: Random,
    /// Numbers every read of this life, over all terms.
    last_read: ReadId,
    /// Work for the host, as far as it is known.
    pub(super) ready: Ready,
}

impl Core {
    pub(super) fn new(config: Config, restored: Restored) -> Self {
        let base = restored.base();
        let hard_state = restored.hard_state;
        let log = Log::new(base, restored.log, restored.tail, restored.sealed_through, config.tail_bytes);
        let random = Random::new(config.seed ^ config.id.0.rotate_left(32));
        Self {
            voters: restored.membership.voters,
            hard_state,
            disk: Disk::new(hard_state.term, base.index, log.last().index),
            log,
            committed: base.index,
            delivered: base.index,
            applied: base.index,
            now: 0,
            dropped: 0,
            no_space: false,
            random,
            last_read: ReadId(0),
            ready: Ready::default(),
            config,
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.config.id
    }

    pub(super) fn term(&self) -> Term {
        self.hard_state.term
    }

    pub(super) fn majority(&self) -> usize {
        quorum::majority(self.voters.len())
    }

    /// The other voters.
    pub(super) fn others(&self) -> Vec<NodeId> {
        self.voters.iter().copied().filter(|voter| *voter != self.config.id).collect()
    }

    pub(super) fn new_timer(&mut self) -> Timer {
        Timer::new(&mut self.random, self.config.election_ticks)
    }

    pub(super) fn next_read(&mut self) -> ReadId {
        self.last_read.0 += 1;
        self.last_read
    }

    /// Whether no sync has been reported for longer than an election timeout.
    pub(super) fn is_stuck(&self) -> bool {
        self.disk.is_stuck(self.now, self.config.election_ticks.0)
    }

    /// Frames above the last durable snapshot, and one hard state.
    pub(super) fn raft_state_bytes(&self) -> u64 {
        HARD_STATE_FRAME.saturating_add(self.log.bytes())
    }

    /// The bound that the log has reached, if it has.
    pub(super) fn log_bound_reached(&self) -> Option<u64> {
        self.config.log_bytes_max.filter(|max| self.raft_state_bytes() >= *max)
    }

    /// Whether there is room for more entries: in the log's bound, and on the disk.
    pub(super) fn has_room(&self) -> bool {
        !self.no_space && self.log_bound_reached().is_none()
    }

    /// Sends the disk an empty batch, where nothing else would show whether it still answers.
    pub(super) fn ask_disk(&mut self) {
        if self.disk.is_idle() {
            sometimes!("a leader without room asked its disk");
            self.disk.ask();
        }
    }

    /// Term and vote change together, in one record (Raft paper, Figure 2: persistent state).
    pub(super) fn set_hard_state(&mut self, term: Term, vote: Option<NodeId>) {
        assert!(term >= self.term(), "term goes back from {} to {term}", self.term());
        let new = HardState { term, vote };
        if new != self.hard_state {
            self.hard_state = new;
            self.disk.hard_state_changed();
        }
    }

    /// Says something that holds as soon as our term is durable: at once where it is.
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        if self.disk.holds_term(self.term()) {
            self.send_now(to, self.term(), body);
        } else {
            self.send_after_sync(to, body);
        }
    }

    /// Says something that no crash could make untrue.
    pub(super) fn send_now(&mut self, to: NodeId, term: Term, body: Body) {
        self.ready.messages.push(Outbound { to, message: Message { term, body } });
    }

    /// Says something that holds once all that is decided by now is durable: votes and acknowledgements.
    pub(super) fn send_after_sync(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.term(), body };
        self.ready.messages_after_sync.push(Outbound { to, message });
    }

    /// The log's new last entry is `last`: what stood above it was never committed.
    pub(super) fn truncate(&mut self, last: Position) {
        assert!(last.index >= self.committed, "truncating to {last}, below the commit at {}", self.committed);
        self.log.truncate(last.index);
        self.disk.truncated(last);
        self.unsay_above(last.index);
        self.replaced_from(last.index.next());
    }

    /// Nobody is told of entries that were taken and cut before they were ever handed to the disk.
    fn unsay_above(&mut self, last: Index) {
        let cut = |body: &Body| matches!(body, Body::AppendReply(AppendOutcome::Accepted { matched, .. }) if *matched > last);
        let before = self.ready.messages_after_sync.len();
        self.ready.messages_after_sync.retain(|outbound| !cut(&outbound.message.body));
        if self.ready.messages_after_sync.len() < before {
            sometimes!("an acknowledgement was unsaid");
        }
    }

    fn replaced_from(&mut self, index: Index) {
        let from = self.ready.truncated_from.map_or(index, |earlier| earlier.min(index));
        self.ready.truncated_from = Some(from);
    }

    /// Everything up to `index` is committed, as far as it is here.
    pub(super) fn commit(&mut self, index: Index) {
        self.committed = self.committed.max(index.min(self.log.last().index));
    }

    /// A snapshot from the leader takes the place of the log up to its position, which is above our commit.
    pub(super) fn install(&mut self, snapshot: SnapshotId) {
        let position = snapshot.position;
        // A matching suffix stays: it may hold entries we have acknowledged (Raft paper 7, Figure 13).
        let reset = if bug!(14) { self.log.last().index < position.index } else { !self.log.holds(position) };
        if !reset {
            sometimes!("a snapshot came to a log that goes on behind it");
        }
        if reset {
            self.replaced_from(self.committed.next());
            self.log.reset(position);
        }
        self.disk.mark(SnapshotMark { snapshot, reset });
        self.committed = position.index;
        (self.delivered, self.applied) = (position.index, position.index);
        self.ready.restore = Some(snapshot);
    }

    /// Our own snapshot is durable under its name.
    pub(super) fn published(&mut self, snapshot: SnapshotId) {
        let position = snapshot.position;
        if position.index <= self.log.snapshot() && !bug!(26) {
            return; // a newer one is in force, perhaps from the leader
        }
        let durable = self.disk.durable();
        assert!(position.index <= self.applied, "snapshot at {position}, applied {}", self.applied);
        assert!(position.index <= durable, "snapshot at {position}, durable {durable}");
        assert!(self.log.holds(position), "snapshot at {position} is not of this log");
        self.disk.mark(SnapshotMark { snapshot, reset: false });
    }

    /// Batches up to `through` are durable.
    pub(super) fn synced(&mut self, through: BatchNumber) {
        if let Some(snapshot) = self.disk.synced(through) {
            self.log.compact(snapshot.position.index);
        }
    }

    /// The next entries to apply.
    pub(super) fn next_committed(&self, older: &dyn OlderEntries) -> Result<Vec<Entry>, ReadError> {
        if self.delivered >= self.committed {
            return Ok(Vec::new());
        }
        let limits = (COMMITTED_ENTRIES_MAX, COMMITTED_BYTES_MAX);
        self.log.read(self.delivered.next(), self.committed, limits, older)
    }

    /// Whether the host has anything to do, as far as the roles have already said so.
    pub(super) fn has_work(&self) -> bool {
        let ready = &self.ready;
        self.delivered < self.committed
            || self.disk.has_batch(&self.log)
            || !ready.messages.is_empty()
            || !ready.messages_after_sync.is_empty()
            || !ready.reads.is_empty()
            || !ready.reads_failed.is_empty()
            || !ready.snapshots_wanted.is_empty()
            || !ready.regressions.is_empty()
            || ready.restore.is_some()
            || ready.truncated_from.is_some()
    }

    /// Panics when a rule about term, log and commit is broken (the numbers are those of the module's list). Of the log
    /// it looks at the ends alone.
    pub(super) fn check_ends(&self) {
        let last = self.log.last();
        assert!(last.term <= self.term(), "1: last entry {last} above term {}", self.term());
        assert!(self.committed <= last.index, "2: committed {} > last {last}", self.committed);
        assert!(self.delivered <= self.committed, "2: handed out {} > {}", self.delivered, self.committed);
        assert!(self.applied <= self.delivered, "2: applied {} > {}", self.applied, self.delivered);
        assert!(self.log.snapshot() <= self.committed, "2: snapshot {} uncommitted", self.log.snapshot());
        self.log.check_ends();
        self.disk.check_invariants(&self.log, self.term());
    }

    /// The same, and the whole log.
    pub(super) fn check_invariants(&self) {
        self.check_ends();
        self.log.check_invariants();
    }
}
