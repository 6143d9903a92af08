//! What the log says in sum, and which frame may follow which. The writer checks a batch by it before it is queued,
//! recovery checks every frame by it: one set of rules at both ends.

use crate::types::{HardState, Position, SnapshotId, SnapshotMark};

/// The log's state behind some frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogState {
    pub(crate) last: Position,
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotId>,
}

impl LogState {
    /// The last entry that a snapshot stands for; the place before the first one where there is none.
    pub(crate) fn base(&self) -> Position {
        self.snapshot.map_or(Position::ZERO, |snapshot| snapshot.position)
    }

    /// Terms never go back, and a vote once given stays for its term (Raft paper, Figure 2).
    pub(crate) fn set_hard_state(&mut self, new: HardState) -> Result<(), String> {
        let old = self.hard_state;
        if new.term < old.term {
            return Err(format!("term {} behind term {}", new.term, old.term));
        }
        if new.term == old.term && old.vote.is_some() && new.vote != old.vote {
            return Err(format!("another vote in term {}", new.term));
        }
        self.hard_state = new;
        Ok(())
    }

    pub(crate) fn truncate(&mut self, to: Position) -> Result<(), String> {
        if to.index > self.last.index {
            return Err(format!("truncation to {to} behind the last entry {}", self.last));
        }
        // The snapshot in force here, not the log's final one: a later snapshot may well stand above this place.
        if to.index < self.base().index {
            return Err(format!("truncation to {to} below the snapshot of {}", self.base()));
        }
        let known = [self.last, self.base()].into_iter().find(|known| known.index == to.index);
        if known.is_some_and(|known| known.term != to.term) || to.term > self.last.term {
            return Err(format!("truncation to {to}, which is not in the log"));
        }
        self.last = to;
        Ok(())
    }

    pub(crate) fn append(&mut self, entry: Position) -> Result<(), String> {
        if self.last.index.0.checked_add(1) != Some(entry.index.0) {
            return Err(format!("entry {entry} behind {}", self.last));
        }
        if entry.term < self.last.term || entry.term > self.hard_state.term {
            let (last, term) = (self.last, self.hard_state.term);
            return Err(format!("entry {entry} behind {last} in term {term}"));
        }
        self.last = entry;
        Ok(())
    }

    pub(crate) fn mark(&mut self, mark: &SnapshotMark) -> Result<(), String> {
        let to = mark.snapshot.position;
        if to.index < self.base().index || to.term < self.base().term || to.index.0 == 0 {
            return Err(format!("snapshot of {to} behind the snapshot of {}", self.base()));
        }
        if to.term > self.hard_state.term {
            return Err(format!("snapshot of {to} in term {}", self.hard_state.term));
        }
        if !mark.reset {
            let beyond = to.index > self.last.index || to.term > self.last.term;
            if beyond || (to.index == self.last.index && to.term != self.last.term) {
                return Err(format!("snapshot of {to}, which is not in the log up to {}", self.last));
            }
        }
        self.snapshot = Some(mark.snapshot);
        if mark.reset {
            self.last = to;
        }
        Ok(())
    }
}
