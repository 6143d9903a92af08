//! Reads that wait for proof that this leader still leads (ReadIndex, thesis 6.4).
//!
//! One round of heartbeats confirms every read that had arrived when the round began; reads that arrive while it runs
//! begin the next one. Rounds count from 1 within a leader's term, and an answer names the newest round its sender
//! had heard of: it confirms that one and all before.

use raftmap_storage::types::Index;

use super::ready::ReadId;

/// Reads that wait here at most; a caller beyond it is told to come back.
pub(super) const READS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Arrived since the round began.
    waiting: Vec<ReadId>,
    /// The newest round, running or done; 0 before the first.
    round: u64,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// The commit index when the round began: at or above the one when each of its reads arrived.
    index: Index,
    ids: Vec<ReadId>,
}

impl Reads {
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.running.as_ref().map_or(0, |running| running.ids.len())
    }

    pub(super) fn add(&mut self, id: ReadId) {
        self.waiting.push(id);
    }

    /// The newest round, for every heartbeat to carry.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Whether a round could begin now.
    pub(super) fn can_begin(&self) -> bool {
        self.running.is_none() && !self.waiting.is_empty()
    }

    /// Begins a round where one can; its heartbeats must be made after this.
    pub(super) fn begin(&mut self, committed: Index) -> bool {
        if !self.can_begin() {
            return false;
        }
        self.round += 1;
        self.running = Some(Running { index: committed, ids: std::mem::take(&mut self.waiting) });
        true
    }

    /// A majority has confirmed every round up to `round`: the reads that this answers, each with its index.
    pub(super) fn confirm(&mut self, round: u64) -> Vec<(ReadId, Index)> {
        if round < self.round {
            return Vec::new();
        }
        let Some(running) = self.running.take() else { return Vec::new() };
        running.ids.into_iter().map(|id| (id, running.index)).collect()
    }

    /// Whether a round is running.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Every read that is not confirmed, as the leader steps down.
    pub(super) fn abandon(self) -> impl Iterator<Item = ReadId> {
        self.running.into_iter().flat_map(|running| running.ids).chain(self.waiting)
    }
}
