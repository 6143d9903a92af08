//! Entries that left the heap, read back from sealed segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftmap_storage::SealedSegment;
use raftmap_storage::types::{Entry, Index};

use crate::raft::{OlderEntries, ReadError};

/// The sealed segments, each with the part of it that is still the log.
#[derive(Debug)]
pub struct Older {
    /// By the last entry that counts.
    segments: BTreeMap<Index, Arc<SealedSegment>>,
}

impl Older {
    /// Starts with the segments found at opening, oldest first.
    pub fn new(segments: Vec<Arc<SealedSegment>>) -> Self {
        let mut older = Self { segments: BTreeMap::new() };
        segments.into_iter().for_each(|segment| older.add(segment));
        older
    }

    /// One more was sealed.
    pub fn add(&mut self, segment: Arc<SealedSegment>) {
        if segment.first() > segment.last() {
            return;
        }
        // Where it begins below the end of an older one lies a truncation: the older one counts up to there only.
        let cut = self.segments.split_off(&segment.first());
        if let Some((_, older)) = cut.into_iter().next()
            && older.first() < segment.first()
        {
            self.segments.insert(segment.first().prev(), older);
        }
        self.segments.insert(segment.last(), segment);
    }

    /// Everything up to `through` is in a durable snapshot: segments wholly below are let go.
    pub fn forget_through(&mut self, through: Index) {
        if self.segments.first_key_value().is_some_and(|(last, _)| *last <= through) {
            self.segments = self.segments.split_off(&through.next());
        }
    }
}

impl OlderEntries for Older {
    fn read(&self, from: Index, through: Index, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut index = from;
        while index <= through {
            let (_, segment) = self
                .segments
                .range(index..)
                .next()
                .ok_or_else(|| ReadError::store(format!("no sealed segment holds entry {index}")))?;
            let entry = segment.entry(index).map_err(ReadError::store)?;
            bytes += entry.payload.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
            index = index.next();
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raftmap_storage::os::OsFs;
    use raftmap_storage::types::{Batch, ClusterId, HardState, NodeId, Position, Term};
    use raftmap_storage::{Identity, Options, Wal};

    use super::*;

    const PAYLOAD: usize = 500;

    /// A log of 64 KiB segments, which hold some 120 entries each.
    fn log(dir: &std::path::Path) -> Wal<OsFs> {
        let identity = Identity { cluster: ClusterId([1; 16]), node: NodeId(1) };
        let options = Options::new(Some(1_000), 512);
        let (mut wal, _) = raftmap_storage::open(OsFs, dir, identity, options).expect("opens");
        let hard_state = Some(HardState { term: Term(2), vote: None });
        wal.push(1, Batch { hard_state, ..Batch::default() }).expect("queued");
        wal
    }

    fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        indexes.map(|index| Entry::new(Position::new(index, term), Bytes::from(vec![7; PAYLOAD]))).collect()
    }

    fn write(wal: &mut Wal<OsFs>, older: &mut Older, number: u64, batch: Batch) {
        wal.push(number, batch).expect("queued");
        while wal.queued() {
            let synced = wal.sync().expect("synced");
            synced.sealed.into_iter().for_each(|segment| older.add(segment));
            while let Some(chore) = wal.next_chore() {
                wal.chore_done(chore.run().expect("done")).expect("taken");
            }
        }
    }

    fn terms(older: &Older, from: u64, through: u64) -> Vec<u64> {
        let entries = older.read(Index(from), Index(through), usize::MAX).expect("is there");
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.position.index.0).collect();
        assert_eq!(indexes, (from..=through).collect::<Vec<_>>());
        entries.iter().map(|entry| entry.position.term.0).collect()
    }

    #[test]
    fn entries_are_read_across_segments_and_within_the_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut wal, mut older) = (log(dir.path()), Older::new(vec![]));
        write(&mut wal, &mut older, 2, Batch { entries: entries(1..=400, 1), ..Batch::default() });
        assert!(older.segments.len() >= 3, "{}", older.segments.len());
        assert_eq!(terms(&older, 1, 300), vec![1; 300]);
        let few = older.read(Index(5), Index(300), 3 * PAYLOAD).expect("is there");
        assert_eq!(few.len(), 3);
        assert_eq!(older.read(Index(5), Index(300), 1).expect("one always fits").len(), 1);
        assert!(older.read(Index(399), Index(400), usize::MAX).is_err(), "not sealed yet");
    }

    #[test]
    fn what_was_replaced_later_is_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut wal, mut older) = (log(dir.path()), Older::new(vec![]));
        write(&mut wal, &mut older, 2, Batch { entries: entries(1..=130, 1), ..Batch::default() });
        let truncate = Some(Position::new(100, 1));
        write(
            &mut wal,
            &mut older,
            3,
            Batch { truncate, entries: entries(101..=600, 2), ..Batch::default() },
        );
        assert_eq!(terms(&older, 50, 100), vec![1; 51]);
        assert_eq!(terms(&older, 101, 200), vec![2; 100]);
        older.forget_through(Index(300));
        assert!(older.read(Index(10), Index(20), usize::MAX).is_err(), "in the snapshot");
        assert_eq!(terms(&older, 301, 310), vec![2; 10]);
    }
}
