//! Reading entries back from segments that are written no more, through a read-only map and without copying.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Damage, ReadError};
use crate::record::{Found, Record, Seed, read};
use crate::types::{Entry, Index};

/// Where in one segment each of its entries stands. What a later frame of the same segment took back is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    first: Index,
    offsets: Vec<u32>,
}

impl Table {
    /// Notes the next entry's place.
    pub(crate) fn push(&mut self, index: Index, offset: u64) {
        if self.offsets.is_empty() {
            self.first = index;
        }
        self.offsets.push(offset as u32); // below 2^30: segment::CAPACITY_MAX
    }

    /// Forgets the entries above `last`.
    pub(crate) fn truncate(&mut self, last: Index) {
        self.offsets.truncate(last.next().0.saturating_sub(self.first.0) as usize);
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.offsets.clear();
    }

    pub(crate) fn offset(&self, index: Index) -> Option<u64> {
        let at = usize::try_from(index.0.checked_sub(self.first.0)?).ok()?;
        self.offsets.get(at).map(|&offset| u64::from(offset))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Index, u64)> + '_ {
        self.offsets
            .iter()
            .enumerate()
            .map(|(at, &offset)| (Index(self.first.0 + at as u64), u64::from(offset)))
    }
}

/// One sealed segment, mapped. Cheap to share; stays readable after a purge has unlinked its file.
///
/// Segments may overlap where the log went back: of several that hold an index the newest counts, see [`find`]. One
/// whose last entry is not above the snapshot in force is of no more use.
pub struct SealedSegment {
    path: PathBuf,
    id: u64,
    seed: Seed,
    table: Table,
    file: Bytes,
}

impl SealedSegment {
    pub(crate) fn new(path: PathBuf, id: u64, seed: Seed, table: Table, file: Bytes) -> Self {
        Self { path, id, seed, table, file }
    }

    /// The segment's number; later ones are greater.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first entry in it; above [`SealedSegment::last`] where it holds none.
    pub fn first(&self) -> Index {
        match self.table.offsets.is_empty() {
            true => Index(1),
            false => self.table.first,
        }
    }

    /// The last entry in it; 0 where it holds none.
    pub fn last(&self) -> Index {
        match self.table.offsets.len() as u64 {
            0 => Index(0),
            len => Index(self.table.first.0 + len - 1),
        }
    }

    /// Whether entry `index` stands in it.
    pub fn holds(&self, index: Index) -> bool {
        self.table.offset(index).is_some()
    }

    /// Entry `index`, its payload a slice of the map, checked against both checksums.
    ///
    /// # Errors
    /// [`ReadError::Absent`] when the segment does not hold it, [`ReadError::Damaged`] when its bytes have changed.
    pub fn entry(&self, index: Index) -> Result<Entry, ReadError> {
        let absent = || ReadError::Absent { path: self.path.clone(), index };
        let offset = self.table.offset(index).ok_or_else(absent)?;
        let damaged = |entry, what: String| {
            Err(ReadError::Damaged(Damage { path: self.path.clone(), offset, entry, what }))
        };
        let frame = match read(&self.seed, &self.file, offset) {
            Found::Valid(frame) => frame,
            Found::Zero => return damaged(None, format!("zeros instead of entry {index}")),
            Found::Bad { position, what, .. } => return damaged(position, what.to_owned()),
        };
        match frame.record() {
            Ok(Record::Entry { position, payload, payload_crc }) if position.index == index => {
                Ok(Entry { position, payload: self.file.slice_ref(payload), payload_crc })
            }
            Ok(_) | Err(_) => {
                damaged(Some(frame.position), format!("another frame instead of entry {index}"))
            }
        }
    }
}

/// Without the megabytes of its content.
impl fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SealedSegment");
        out.field("path", &self.path)
            .field("first", &self.first())
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

/// The segment that holds the entry in force at `index`: the newest of those that hold it. `sealed` is in the order in
/// which the segments were sealed.
pub fn find(sealed: &[Arc<SealedSegment>], index: Index) -> Option<&Arc<SealedSegment>> {
    sealed.iter().rev().find(|segment| segment.holds(index))
}
