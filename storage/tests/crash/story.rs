//! What was asked of a log: every state it went through, frame by frame, and how much of that was acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use raftmap_storage::types::{Batch, Entry, HardState, Index, Position, SnapshotId, SnapshotMark, Term};

/// One entry, unlike every other ever proposed: `serial` is in its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) term: Term,
    pub(crate) serial: u64,
    pub(crate) size: usize,
}

impl Item {
    pub(crate) fn payload(&self) -> Bytes {
        let mut bytes = self.serial.to_le_bytes().to_vec();
        bytes.resize(self.size.max(8), self.serial as u8);
        bytes.into()
    }
}

/// One state of a log, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotId>,
    /// Above the snapshot, without holes.
    pub(crate) items: Vec<Item>,
}

impl State {
    pub(crate) fn base(&self) -> Position {
        self.snapshot.map_or(Position::ZERO, |snapshot| snapshot.position)
    }

    pub(crate) fn last(&self) -> Position {
        let base = self.base();
        let index = Index(base.index.0 + self.items.len() as u64);
        Position { index, term: self.items.last().map_or(base.term, |item| item.term) }
    }

    /// The entry's id at `index`, which lies between the snapshot and the last entry.
    pub(crate) fn position(&self, index: u64) -> Position {
        match index.checked_sub(self.base().index.0 + 1) {
            None => self.base(),
            Some(at) => Position { index: Index(index), term: self.items[at as usize].term },
        }
    }

    fn truncate(&mut self, to: Position) {
        self.items.truncate((to.index.0 - self.base().index.0) as usize);
    }

    fn mark(&mut self, mark: &SnapshotMark) {
        let position = mark.snapshot.position;
        let covered = (position.index.0.saturating_sub(self.base().index.0) as usize).min(self.items.len());
        self.items.drain(..if mark.reset { self.items.len() } else { covered });
        self.snapshot = Some(mark.snapshot);
    }
}

/// The states behind each frame that was queued, and where acknowledgement stands.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) states: Arc<Vec<State>>,
    /// Index of the last acknowledged state.
    pub(crate) acked: usize,
    /// For each batch not acknowledged yet: its number, and the state behind it.
    waiting: Vec<(u64, usize)>,
    serial: u64,
}

impl Default for Story {
    fn default() -> Self {
        Self { states: Arc::new(vec![State::default()]), acked: 0, waiting: Vec::new(), serial: 0 }
    }
}

impl Story {
    /// A story that begins with an acknowledged state. Its entries' serials stay apart from those in it.
    pub(crate) fn beginning_with(state: State) -> Self {
        let serial = state.items.iter().map(|item| item.serial).max().unwrap_or(0);
        Self { states: Arc::new(vec![state]), serial, ..Self::default() }
    }

    /// The state that the log will be in when everything queued is durable.
    pub(crate) fn now(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    /// A new entry behind the last one.
    pub(crate) fn propose(&mut self, last: Position, term: Term, size: usize) -> (Entry, Item) {
        self.serial += 1;
        let item = Item { term, serial: self.serial, size: size.max(8) };
        (Entry::new(Position { index: last.index.next(), term }, item.payload()), item)
    }

    /// Notes a batch, frame by frame in the order in which it is written.
    pub(crate) fn push(&mut self, number: u64, batch: &Batch, items: &[Item]) {
        let mut state = self.now().clone();
        let states = Arc::make_mut(&mut self.states);
        if let Some(hard_state) = batch.hard_state {
            state.hard_state = hard_state;
            states.push(state.clone());
        }
        if let Some(to) = batch.truncate {
            state.truncate(to);
            states.push(state.clone());
        }
        for item in items {
            state.items.push(*item);
            states.push(state.clone());
        }
        if let Some(mark) = &batch.snapshot {
            state.mark(mark);
            states.push(state);
        }
        self.waiting.push((number, self.states.len() - 1));
    }

    /// Notes that every batch up to `number` is durable.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        while let Some((_, state)) = self.waiting.first().filter(|(batch, _)| *batch <= number) {
            self.acked = *state;
            self.waiting.remove(0);
        }
    }

    /// Goes on from state `at`: what was queued behind it is lost, and must stay so.
    pub(crate) fn settle(&mut self, at: usize) {
        Arc::make_mut(&mut self.states).truncate(at + 1);
        self.acked = at;
        self.waiting.clear();
    }

    /// Which state `found` is, of those that may be found now; the latest that fits.
    pub(crate) fn place(&self, found: &State) -> Result<usize, String> {
        place(&self.states, self.acked, found)
    }
}

/// Which of the states from `acked` on is `found`.
pub(crate) fn place(states: &[State], acked: usize, found: &State) -> Result<usize, String> {
    if let Some(at) = (acked..states.len()).rev().find(|at| &states[*at] == found) {
        return Ok(at);
    }
    let what = match states.iter().position(|state| state == found) {
        Some(old) => format!("state {old} is older than the acknowledged one, {acked}"),
        None => "a state that the log was never in".to_owned(),
    };
    Err(format!(
        "{what}\nfound: {found:?}\nacknowledged: {:?}\nlast queued: {:?}",
        states[acked],
        states.last()
    ))
}
