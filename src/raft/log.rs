//! The log in memory: the term and length of every live entry, and the last ones whole.
//!
//! ```text
//!        base          snapshot                     last
//!          |  trailing    |          live             |
//! metas:   [..............|...........................]     every entry behind `base`
//! tail:            [......|...........................]     its end, whole, on the heap
//! ```
//! Entries behind the snapshot are live: they count in [`Log::bytes`] and are on disk. What trails the snapshot is kept
//! for followers that are a little behind, and only as long as it is on the heap. The tail gives up its oldest entry when
//! it is over its bound and that entry can be read elsewhere, or trails the snapshot.

use std::collections::VecDeque;

use raftmap_storage::types::{Entry, EntryMeta, Index, Position, Term, frame_len};

use super::{OlderEntries, ReadError};

#[derive(Debug)]
pub(super) struct Log {
    /// The entry right before `metas`. `base.index <= snapshot`.
    base: Position,
    /// Stands for everything up to here: the last snapshot that is durable, or was installed.
    snapshot: Index,
    metas: VecDeque<EntryMeta>,
    /// The last entries of `metas`, whole.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    /// Entries up to here can be read back by [`OlderEntries`]. `sealed <= last`.
    sealed: Index,
    /// Frames of the entries above `snapshot`.
    bytes: u64,
}

impl Log {
    pub(super) fn new(
        base: Position,
        metas: Vec<EntryMeta>,
        tail: Vec<Entry>,
        sealed: Index,
        tail_bytes_max: usize,
    ) -> Self {
        let bytes = metas.iter().map(meta_frame_len).sum();
        let tail_bytes = tail.iter().map(|entry| entry.payload.len()).sum();
        let (metas, tail) = (VecDeque::from(metas), VecDeque::from(tail));
        let mut log =
            Self { base, snapshot: base.index, metas, tail, tail_bytes, tail_bytes_max, sealed, bytes };
        log.sealed = sealed.min(log.last().index);
        log.shrink_tail();
        log
    }

    /// The last entry; where there is none, what the log stands on.
    pub(super) fn last(&self) -> Position {
        let index = Index(self.base.index.0 + self.metas.len() as u64);
        Position { index, term: self.metas.back().map_or(self.base.term, |meta| meta.term) }
    }

    /// The entry right before the first one that can still be sent.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    /// The last entry that the snapshot stands for.
    pub(super) fn snapshot(&self) -> Index {
        self.snapshot
    }

    /// Frames of the entries above the snapshot.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn meta(&self, index: Index) -> Option<&EntryMeta> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        self.metas.get(usize::try_from(offset).ok()?)
    }

    /// The term at `index`; `None` behind the end and before the base.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.meta(index).map(|meta| meta.term)
    }

    /// The whole position at `index`.
    pub(super) fn position_at(&self, index: Index) -> Option<Position> {
        self.term_at(index).map(|term| Position { index, term })
    }

    /// Whether this very entry stands here.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// Payload bytes of the entries in `from..=through`.
    pub(super) fn payload_bytes(&self, from: Index, through: Index) -> u64 {
        let first = from.max(self.base.index.next()).0;
        (first..=through.min(self.last().index).0)
            .filter_map(|index| self.meta(Index(index)))
            .map(|meta| u64::from(meta.payload_len))
            .sum()
    }

    /// The first index of the term that stands at `index`; terms never go back, so halving finds it.
    pub(super) fn first_of_term(&self, index: Index) -> Option<Index> {
        let term = self.term_at(index)?;
        if term == self.base.term {
            return Some(self.base.index);
        }
        let older = self.metas.partition_point(|meta| meta.term < term);
        Some(Index(self.base.index.0 + older as u64 + 1))
    }

    /// The last index whose term is not above `term`.
    pub(super) fn last_not_above(&self, term: Term) -> Index {
        let count = self.metas.partition_point(|meta| meta.term <= term);
        Index(self.base.index.0 + count as u64)
    }

    pub(super) fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.position.index == last.index.next(), "appending {} behind {last}", entry.position);
        assert!(entry.position.term >= last.term, "appending {} behind {last}", entry.position);
        let payload_len = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX); // frames are far smaller
        let meta = EntryMeta { term: entry.position.term, payload_len };
        self.bytes += meta_frame_len(&meta);
        self.tail_bytes += entry.payload.len();
        self.metas.push_back(meta);
        self.tail.push_back(entry);
        self.shrink_tail();
    }

    /// Makes `last` the last index.
    pub(super) fn truncate(&mut self, last: Index) {
        assert!(last >= self.snapshot, "truncating to {last}, below the snapshot at {}", self.snapshot);
        while self.last().index > last {
            if let Some(meta) = self.metas.pop_back() {
                self.bytes -= meta_frame_len(&meta);
            }
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= entry.payload.len();
            }
        }
        self.sealed = self.sealed.min(last);
    }

    /// From now on a snapshot stands for everything up to `snapshot`; what it replaces stays only while it is on the heap.
    pub(super) fn compact(&mut self, snapshot: Index) {
        assert!(snapshot <= self.last().index, "snapshot at {snapshot} behind the end {}", self.last());
        for index in self.snapshot.next().0..=snapshot.0 {
            self.bytes -= self.meta(Index(index)).map_or(0, meta_frame_len);
        }
        self.snapshot = self.snapshot.max(snapshot);
        while self.base.index < self.snapshot && self.first_on_heap() > self.base.index.next() {
            self.drop_first_meta();
        }
        self.shrink_tail();
    }

    /// Forgets every entry: a snapshot from the leader replaces a log that does not match it.
    pub(super) fn reset(&mut self, snapshot: Position) {
        self.metas.clear();
        self.tail.clear();
        (self.base, self.snapshot, self.sealed) = (snapshot, snapshot.index, snapshot.index);
        (self.bytes, self.tail_bytes) = (0, 0);
    }

    /// Entries up to `through` can be read back from now on.
    pub(super) fn seal(&mut self, through: Index) {
        self.sealed = self.sealed.max(through.min(self.last().index));
        self.shrink_tail();
    }

    /// The first index of the tail, or the next one to come.
    fn first_on_heap(&self) -> Index {
        Index(self.last().index.0 + 1 - self.tail.len() as u64)
    }

    fn drop_first_meta(&mut self) {
        if let Some(meta) = self.metas.pop_front() {
            self.base = Position { index: self.base.index.next(), term: meta.term };
        }
    }

    fn shrink_tail(&mut self) {
        while self.tail_bytes > self.tail_bytes_max {
            let Some(first) = self.tail.front() else { return };
            let trails = first.position.index <= self.snapshot;
            if !trails && first.position.index > self.sealed {
                return;
            }
            self.tail_bytes -= first.payload.len();
            self.tail.pop_front();
            if trails {
                self.drop_first_meta();
            }
        }
    }

    /// Entries that are on the heap, from `from` to the end: what the disk has not been given yet always is.
    pub(super) fn on_heap_from(&self, from: Index) -> Vec<Entry> {
        let skipped = from.0.saturating_sub(self.first_on_heap().0);
        self.tail.iter().skip(skipped as usize).cloned().collect()
    }

    /// Some entries from `from` on: at least one, at most `count_max` and `through`, and no second one beyond
    /// `bytes_max` payload bytes. `from` must be behind the base and not behind the end.
    pub(super) fn read(
        &self,
        from: Index,
        through: Index,
        (count_max, bytes_max): (usize, usize),
        older: &dyn OlderEntries,
    ) -> Result<Vec<Entry>, ReadError> {
        let heap = self.first_on_heap();
        let through = through.min(Index(from.0.saturating_add(count_max as u64).saturating_sub(1)));
        if from < heap {
            let through = through.min(heap.prev());
            sometimes!("entries were read back from a segment");
            let mut entries = older.read(from, through, bytes_max)?;
            entries.truncate(usize::try_from(through.0.saturating_sub(from.0) + 1).unwrap_or(usize::MAX));
            self.check_read(from, &entries)?;
            return Ok(entries);
        }
        let wanted = (through.0 + 1).saturating_sub(from.0) as usize;
        let mut bytes = 0;
        let within = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.payload.len().max(1);
            first || bytes <= bytes_max
        };
        let skipped = (from.0 - heap.0) as usize;
        Ok(self.tail.range(skipped.min(self.tail.len())..).take(wanted).take_while(within).cloned().collect())
    }

    /// What came from disk must be what this log remembers; nothing else may ever be sent or applied.
    fn check_read(&self, from: Index, entries: &[Entry]) -> Result<(), ReadError> {
        if entries.is_empty() {
            return Err(ReadError::Missing { from });
        }
        let mut index = from;
        for entry in entries {
            if self.position_at(index) != Some(entry.position) {
                return Err(ReadError::Mismatch { wanted: index, found: entry.position });
            }
            index = index.next();
        }
        Ok(())
    }

    /// Panics when its ends do not fit together. Costs the same however long the log is.
    pub(super) fn check_ends(&self) {
        let last = self.last();
        assert!(self.base.index <= self.snapshot && self.snapshot <= last.index, "{self:?}");
        assert!(self.sealed <= last.index.max(self.snapshot), "sealed {} beyond the end", self.sealed);
        let heap = self.first_on_heap();
        assert!(heap.prev() <= self.sealed.max(self.base.index), "{heap} is the first on the heap, {self:?}");
        let first = self.tail.front().map(|entry| entry.position);
        assert!(first.is_none_or(|first| first.index == heap && self.holds(first)), "{first:?}, not {heap}");
        let newest = self.tail.back().map(|entry| entry.position);
        assert!(newest.is_none_or(|newest| newest == last), "{newest:?} is the newest, and the end {last}");
        let before = self.term_at(last.index.prev());
        assert!(before.is_none_or(|before| before <= last.term), "{last} behind one of term {before:?}");
        let may_go = first.is_some_and(|first| first.index <= self.sealed || first.index <= self.snapshot);
        assert!(self.tail_bytes <= self.tail_bytes_max || !may_go, "the tail is over its bound");
    }

    /// Panics when the counters have drifted from what they count.
    pub(super) fn check_invariants(&self) {
        self.check_ends();
        let live = self.metas.iter().skip((self.snapshot.0 - self.base.index.0) as usize);
        assert_eq!(self.bytes, live.map(meta_frame_len).sum::<u64>(), "bytes of live entries");
        let tail_bytes = self.tail.iter().map(|entry| entry.payload.len()).sum::<usize>();
        assert_eq!(self.tail_bytes, tail_bytes, "payload bytes on the heap");
        let mut term = self.base.term;
        for meta in &self.metas {
            assert!(meta.term >= term, "terms of the log go back from {term} to {}", meta.term);
            term = meta.term;
        }
        for (entry, index) in self.tail.iter().zip(self.first_on_heap().0..) {
            assert_eq!(Some(entry.position), self.position_at(Index(index)), "heap against records");
        }
    }
}

fn meta_frame_len(meta: &EntryMeta) -> u64 {
    frame_len(u64::from(meta.payload_len))
}
