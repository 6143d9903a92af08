//! Work that need not hold up the writer: making spare segments, and unlinking what a snapshot made superfluous.
//!
//! At most one chore is out at a time, so spares appear one after another, each directory sync done before the next
//! rename.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Latch, NoSpace, Spare, Wal};
use crate::error::{StoreError, is_no_space};
use crate::fs::Fs;
use crate::segment::{self, Header, ID_END, IoFailed};
use crate::snapshot;
use crate::types::{DiskId, Index, Position};

/// One piece of background work. Run it on any thread and hand the outcome to [`Wal::chore_done`].
#[must_use]
pub struct Chore<F: Fs> {
    fs: F,
    dir: PathBuf,
    latch: Latch,
    work: Work,
    /// Held while the chore runs, even when the log is dropped meanwhile.
    _lock: Arc<Mutex<F::Lock>>,
}

enum Work {
    /// Make the segment `id`, replacing what a former life may have left under its name.
    Spare { disk: DiskId, id: u64, capacity: u64 },
    /// Unlink segments, oldest first, and snapshot files below the one in force.
    Purge { segments: Vec<u64>, base: Position },
}

/// What a chore has done.
#[must_use]
pub struct ChoreDone<F: Fs>(Done<F>);

enum Done<F: Fs> {
    Spare(Spare<F>),
    NoSpace,
    Purged { segments: Vec<u64>, base: Position },
}

impl<F: Fs> ChoreDone<F> {
    /// Whether a spare could not be made for want of space.
    pub fn no_space(&self) -> bool {
        matches!(self.0, Done::NoSpace)
    }
}

impl<F: Fs> Wal<F> {
    /// Background work to be done now, if there is any; `None` while a chore is out.
    pub fn next_chore(&mut self) -> Option<Chore<F>> {
        if self.chore_out || self.latch.is_set() {
            return None;
        }
        let work = self.purge().or_else(|| self.spare())?;
        self.chore_out = true;
        let lock = Arc::clone(&self.lock);
        Some(Chore {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            latch: self.latch.clone(),
            work,
            _lock: lock,
        })
    }

    /// Takes a chore's outcome.
    ///
    /// # Errors
    /// [`StoreError::Failed`] after a failure.
    pub fn chore_done(&mut self, done: ChoreDone<F>) -> Result<(), StoreError> {
        self.latch.check()?;
        self.chore_out = false;
        match done.0 {
            Done::Spare(spare) => {
                self.stale.retain(|&(id, _)| id != spare.header.id);
                self.spares.push_back(spare);
                self.no_space = NoSpace::Fine;
            }
            Done::NoSpace => self.no_space = NoSpace::Wait,
            Done::Purged { segments, base } => {
                self.live.retain(|segment| !segments.contains(&segment.id));
                self.swept = base;
                if self.no_space == NoSpace::Wait {
                    sometimes!("a purge made room for a spare");
                    self.no_space = NoSpace::Retry;
                }
            }
        }
        Ok(())
    }

    fn spare(&self) -> Option<Work> {
        let id = self.active.header.id + 1 + self.spares.len() as u64;
        let wanted = self.spares.len() < self.options.spares && self.no_space != NoSpace::Wait && id < ID_END;
        wanted.then_some(Work::Spare { disk: self.disk, id, capacity: self.options.segment_bytes })
    }

    /// A segment may go once recovery would begin behind it: at the newest segment that holds every entry above the
    /// snapshot, and whose OPEN is durable itself. Going by an OPEN that a power cut may still take would leave a log
    /// without a beginning.
    fn purge(&self) -> Option<Work> {
        let base = self.written.base();
        let starts = |segment: &&super::Live| {
            (segment.before <= base.index || bug!(10) && base.index > Index(0))
                && (segment.open() < self.durable || bug!(27))
        };
        let start = self.live.iter().rev().find(starts)?.id;
        let segments: Vec<u64> =
            self.live.iter().map(|segment| segment.id).take_while(|&id| id < start).collect();
        let wanted = !segments.is_empty() || self.swept != base;
        wanted.then_some(Work::Purge { segments, base })
    }
}

impl<F: Fs> Chore<F> {
    /// Does the work. Want of space is an outcome, not an error.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the log that gave the chore out fails with it.
    pub fn run(self) -> Result<ChoreDone<F>, StoreError> {
        self.latch.check()?;
        let fail = |failed: IoFailed| self.latch.fail(failed.op, &failed.path, 0, failed.source);
        let done = match &self.work {
            Work::Spare { disk, id, capacity } => match self.make_spare(*disk, *id, *capacity) {
                Ok(spare) => Done::Spare(spare),
                // A rename or a directory sync that failed is not to be tried again, whatever it failed for.
                Err(failed) if is_no_space(&failed.source) && !failed.directory_unknown => Done::NoSpace,
                Err(failed) => return Err(fail(failed)),
            },
            Work::Purge { segments, base } => {
                self.unlink(segments, base.index).map_err(fail)?;
                Done::Purged { segments: segments.clone(), base: *base }
            }
        };
        Ok(ChoreDone(done))
    }

    fn make_spare(&self, disk: DiskId, id: u64, capacity: u64) -> Result<Spare<F>, IoFailed> {
        let failed = |op| IoFailed::before(op, &self.dir);
        if self.fs.available_space(&self.dir).map_err(failed("ask for the space of"))? < capacity {
            return Err(failed("make a segment in")(io::ErrorKind::StorageFull.into()));
        }
        let salt = segment::salt(&self.fs).map_err(failed("draw a salt for"))?;
        let header = Header { disk, id, salt, capacity };
        let file = segment::make(&self.fs, &self.dir, &header, &[])?;
        Ok(Spare { header, file })
    }

    fn unlink(&self, segments: &[u64], below: Index) -> Result<(), IoFailed> {
        let failed = |op| IoFailed::naming(op, &self.dir);
        let names = self.fs.list(&self.dir).map_err(failed("list"))?;
        let old = |name: &&String| snapshot::parse_file_name(name).is_some_and(|at| at.index < below);
        let doomed =
            segments.iter().map(|&id| segment::file_name(id)).chain(names.iter().filter(old).cloned());
        for name in doomed {
            let path = self.dir.join(name);
            match self.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(IoFailed::naming("unlink", &path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.fs.sync_dir(&self.dir).map_err(failed("sync"))
    }
}
