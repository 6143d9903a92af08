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
