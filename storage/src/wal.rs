//! The writer's side of the log: a queue of batches in, one write and one fdatasync for as many as fit, and a word on
//! what is durable now.
//!
//! One thread owns it. Nothing here waits: making spare segments and unlinking old ones are [`Chore`]s that any thread
//! may run, so a rotation costs the writer no more than any other batch.
//!
//! 1. `durable` moves in one place, after a successful fdatasync, and never passes bytes that it did not cover.
//! 2. Before a batch is reported durable, a frame that says so stands behind it (SYNCED, or OPEN in the next segment):
//!    written, not synced. A killed process thus leaves no acknowledged byte without a witness.
//! 3. Behind every frame there is room for SYNCED and SEAL.
//! 4. The first failed write or sync is final.

mod chore;
mod latch;
mod queue;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use chore::{Chore, ChoreDone};
pub(crate) use latch::Latch;

use crate::error::StoreError;
use crate::fs::{File, Fs, write_all_at};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::record::{self, Open, Record, Seed};
use crate::sealed::{SealedSegment, Table};
use crate::segment::{self, HEADER_LEN, Header};
use crate::state::LogState;
use crate::types::{Batch, DiskId, FRAME_ALIGN, Index, Position};
use queue::{Op, Queue};

/// A log, open for writing. Dropping it lets go of the directory, at once and without flushing, as a kill would;
/// [`Wal::idle`] before that is a clean stop.
pub struct Wal<F: Fs> {
    fs: F,
    dir: PathBuf,
    options: Options,
    disk: DiskId,
    latch: Latch,
    active: Active<F>,
    /// Segments that recovery would walk, oldest first, the active one last.
    live: VecDeque<Live>,
    /// Ready for use, in the order of their ids, right behind the active one's.
    spares: VecDeque<Spare<F>>,
    /// Spares of an earlier life, with their bytes: each is made anew before its turn comes.
    stale: Vec<(u64, u64)>,
    queue: Queue,
    /// State behind the last frame written.
    written: LogState,
    /// Everything before it is on the disk.
    durable: Lsn,
    /// A witness stands behind `durable` that is not synced itself.
    unsynced_witness: bool,
    /// Reused for every write.
    buffer: Vec<u8>,
    chore_out: bool,
    no_space: NoSpace,
    /// The snapshot below which files have been unlinked.
    swept: Position,
    stats: Stats,
    /// Chores hold it too: one still running must not meet the directory's next owner.
    lock: Arc<Mutex<F::Lock>>,
}

/// The segment being written.
pub(crate) struct Active<F: Fs> {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    pub(crate) file: F::File,
    pub(crate) seed: Seed,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    pub(crate) table: Table,
    /// Bytes of the largest frame written since the segment became active.
    pub(crate) largest: u64,
    /// A SNAPSHOT record stands in it: rotating soon lets the segments before it go.
    pub(crate) holds_snapshot: bool,
}

/// What purging needs to know of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    /// The log's last index where the segment begins.
    pub(crate) before: Index,
}

impl Live {
    fn open(&self) -> Lsn {
        Lsn::new(self.id, HEADER_LEN)
    }
}

/// An empty segment, durable under its name.
pub(crate) struct Spare<F: Fs> {
    header: Header,
    file: F::File,
}

/// What is known about space for spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoSpace {
    /// The last attempt went well.
    Fine,
    /// The last attempt failed; the next one waits for [`Wal::retry_spare`] or a purge.
    Wait,
    /// The last attempt failed; it may be tried again.
    Retry,
}

/// A share of the directory's lock, see [`Wal::guard`].
pub struct DirGuard<F: Fs> {
    _lock: Arc<Mutex<F::Lock>>,
}

impl<F: Fs> Clone for DirGuard<F> {
    fn clone(&self) -> Self {
        Self { _lock: self._lock.clone() }
    }
}

/// What [`Wal::sync`] has achieved.
#[derive(Debug, Default)]
#[must_use]
pub struct Synced {
    /// The highest batch number that is now wholly durable, with all before it; `None` if that did not move.
    pub through: Option<u64>,
    /// A segment that is full now: its entries may be read back from it.
    pub sealed: Option<Arc<SealedSegment>>,
    /// What is queued next does not fit, and no spare is ready: run the next chore, then call `sync` again. With
    /// [`Wal::no_space`] that may take until somebody frees some.
    pub waiting_for_spare: bool,
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Writes of one or more batches, or of a part of one.
    pub batches: u64,
    /// fdatasyncs for them: always equal to `batches`.
    pub syncs: u64,
    /// fdatasyncs of a quiet log's last witness.
    pub idle_syncs: u64,
    /// Segments sealed.
    pub rotations: u64,
    /// Bytes written, witnesses included, spares not.
    pub bytes: u64,
}

/// Everything recovery hands over to the writer.
pub(crate) struct Resume<F: Fs> {
    pub(crate) fs: F,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) disk: DiskId,
    pub(crate) active: Active<F>,
    pub(crate) live: VecDeque<Live>,
    pub(crate) stale: Vec<(u64, u64)>,
    pub(crate) state: LogState,
    pub(crate) durable: Lsn,
    pub(crate) lock: F::Lock,
}

impl<F: Fs> Wal<F> {
    pub(crate) fn resume(from: Resume<F>) -> Self {
        Self {
            fs: from.fs,
            dir: from.dir,
            options: from.options,
            disk: from.disk,
            latch: Latch::default(),
            active: from.active,
            live: from.live,
            spares: VecDeque::new(),
            stale: from.stale,
            queue: Queue::new(from.state),
            written: from.state,
            durable: from.durable,
            unsynced_witness: false,
            buffer: Vec::new(),
            chore_out: false,
            no_space: NoSpace::Fine,
            swept: from.state.base(),
            stats: Stats::default(),
            lock: Arc::new(Mutex::new(from.lock)),
        }
    }

    /// Queues a batch behind those queued before; how many may wait is for the caller to bound. `number` comes back in [`Synced::through`] once it is durable.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::OutOfOrder`] refuse the batch and change nothing;
    /// [`StoreError::Failed`] after a failure.
    pub fn push(&mut self, number: u64, batch: Batch) -> Result<(), StoreError> {
        self.latch.check()?;
        self.queue.push(number, batch, self.options.payload_max)
    }

    /// Whether anything waits for [`Wal::sync`].
    pub fn queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Writes and syncs as much of the queue as fits into one write, in order: one positioned write, one fdatasync.
    /// A batch may be split between two calls. With nothing to do it does nothing; an empty batch is something: it takes no
    /// room and shows whether the disk still answers.
    ///
    /// # Errors
    /// [`StoreError::Io`] and then, for ever, [`StoreError::Failed`]: what reached the disk is unknown.
    pub fn sync(&mut self) -> Result<Synced, StoreError> {
        self.latch.check()?;
        let filled = self.fill();
        let mut synced = Synced { through: filled.through, sealed: None, waiting_for_spare: filled.blocked };
        if self.buffer.is_empty() {
            if filled.through.is_some() {
                self.touch()?;
            }
            return Ok(synced);
        }
        self.write_durably()?;
        match filled.spare {
            Some(spare) => {
                synced.sealed = Some(self.rotate(spare)?);
                synced.waiting_for_spare = false;
            }
            None => self.attest()?,
        }
        Ok(synced)
    }

    /// Makes the last witness durable too. Call it after some 50 ms without a batch and at a clean stop.
    ///
    /// # Errors
    /// As [`Wal::sync`].
    pub fn idle(&mut self) -> Result<(), StoreError> {
        self.latch.check()?;
        if !self.unsynced_witness {
            return Ok(());
        }
        self.sync_active()?;
        self.unsynced_witness = false;
        self.stats.idle_syncs += 1;
        Ok(())
    }

    /// Lets a spare that found no space be tried again, as the next chore. Call it about twice a second after
    /// [`ChoreDone::no_space`]; what a purge frees is tried at once.
    pub fn retry_spare(&mut self) {
        if self.no_space == NoSpace::Wait {
            sometimes!("a spare that found no space was tried again");
            self.no_space = NoSpace::Retry;
        }
    }

    /// Whether no spare is left and none could be made for want of space. Refuse proposals then; hard states still go
    /// into what is left of the segment (see [`Wal::room`]).
    pub fn no_space(&self) -> bool {
        self.no_space != NoSpace::Fine && self.spares.is_empty()
    }

    /// Bytes of frames that still fit without another segment, what is queued not counted.
    pub fn room(&self) -> u64 {
        self.active.header.frames_end().saturating_sub(self.active.offset)
    }

    /// Bytes the directory takes: segments in use, spares, the snapshot in force.
    pub fn disk_bytes(&self) -> u64 {
        let live: u64 = self.live.iter().map(|segment| segment.bytes).sum();
        let spares: u64 = self.spares.iter().map(|spare| spare.header.capacity).sum();
        let stale: u64 = self.stale.iter().map(|&(_, bytes)| bytes).sum();
        live + spares + stale + self.written.snapshot.map_or(0, |snapshot| snapshot.length)
    }

    /// Bytes of frames, of any kind, that recovery would walk: what a snapshot would let go. Hard states and
    /// truncations count too, so a log that grows by them alone is seen growing.
    pub fn log_bytes(&self) -> u64 {
        let sealed: u64 =
            self.live.iter().rev().skip(1).map(|segment| segment.bytes.saturating_sub(HEADER_LEN)).sum();
        sealed + (self.active.offset - HEADER_LEN)
    }

    /// Keeps the directory locked for as long as it lives, beyond the log itself: for whoever else writes there.
    pub fn guard(&self) -> DirGuard<F> {
        DirGuard { _lock: self.lock.clone() }
    }

    /// This directory's id.
    pub fn disk_id(&self) -> DiskId {
        self.disk
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything before this place is on the disk.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Encodes what fits of the queue into the buffer, and SEAL behind it when the segment shall end there.
    fn fill(&mut self) -> Filled<F> {
        self.buffer.clear();
        let mut filled = Filled { through: None, blocked: false, spare: None };
        while let Some(op) = self.queue.front() {
            let len = op.frame_len();
            if len > 0 && self.end() + len > self.active.header.frames_end() {
                sometimes!("a segment had no room for the next frame");
                filled.blocked = true;
                #[cfg(raftmap_bugs)]
                if bug!(29) && self.no_space() {
                    self.skip_front(&mut filled.through);
                    continue;
                }
                break;
            }
            if !self.buffer.is_empty() && self.buffer.len() as u64 + len > self.options.batch_bytes as u64 {
                sometimes!("more was queued than one write takes");
                break;
            }
            self.active.largest = self.active.largest.max(len);
            self.append_front(&mut filled.through);
        }
        if filled.blocked || self.wants_rotation() {
            filled.spare = self.spares.pop_front();
        }
        if let Some(spare) = &filled.spare {
            let end = self.end();
            let seal = Record::Seal { next: spare.header.id };
            record::encode(&seal, self.durable, &self.active.seed, end, &mut self.buffer);
        }
        filled
    }

    /// Where the next frame would stand.
    fn end(&self) -> u64 {
        self.active.offset + self.buffer.len() as u64
    }

    /// Moves the queue's first operation into the buffer.
    fn append_front(&mut self, through: &mut Option<u64>) {
        let Some((op, ends)) = self.queue.pop() else { return };
        let offset = self.end();
        let active = &mut self.active;
        if let Some(record) = op.record() {
            record::encode(&record, self.durable, &active.seed, offset, &mut self.buffer);
        }
        let followed = op.apply(&mut self.written);
        assert!(followed.is_ok(), "checked when it was queued: {followed:?}");
        match op {
            Op::Entry(entry) => active.table.push(entry.position.index, offset),
            Op::Truncate(_) if bug!(28) => {}
            Op::Truncate(to) => active.table.truncate(to.index),
            Op::Snapshot(mark) => {
                active.holds_snapshot = true;
                if mark.reset {
                    active.table.clear();
                }
            }
            Op::HardState(_) | Op::Nothing => {}
        }
        *through = ends.or(*through);
    }

    /// For bug 29: goes on behind what finds no room, as if it were written.
    #[cfg(raftmap_bugs)]
    fn skip_front(&mut self, through: &mut Option<u64>) {
        if let Some((op, ends)) = self.queue.pop() {
            let _unwritten = op.apply(&mut self.written);
            *through = ends.or(*through);
        }
    }

    /// A segment ends early where a frame like the largest so far would not fit: found out with the next batch, SEAL
    /// would need a sync of its own. And it ends behind a snapshot once half of it is used, so that what the snapshot
    /// replaced can go.
    fn wants_rotation(&self) -> bool {
        let Header { capacity, .. } = self.active.header;
        let likely = self.active.largest.min(capacity / 8);
        let nearly_full = self.end() + record::SYNCED_LEN + likely > self.active.header.frames_end();
        let half_used = self.active.holds_snapshot && self.end() >= capacity / 2;
        !self.buffer.is_empty() && (nearly_full || half_used)
    }

    /// The one write and the one sync.
    fn write_durably(&mut self) -> Result<(), StoreError> {
        let offset = self.active.offset;
        self.write_buffer(offset)?;
        self.active.offset += self.buffer.len() as u64;
        self.sync_active()?;
        self.stats.batches += 1;
        self.stats.syncs += 1;
        Ok(())
    }

    /// Writes zeros over the zeros behind the end and syncs.
    fn touch(&mut self) -> Result<(), StoreError> {
        self.buffer.resize(FRAME_ALIGN as usize, 0);
        self.write_buffer(self.active.offset)?;
        self.sync_active()?;
        self.unsynced_witness = false;
        self.stats.batches += 1;
        self.stats.syncs += 1;
        Ok(())
    }

    /// Writes the buffer into the active segment.
    fn write_buffer(&mut self, offset: u64) -> Result<(), StoreError> {
        self.stats.bytes += self.buffer.len() as u64;
        write_all_at(&self.active.file, &self.buffer, offset)
            .map_err(|source| self.latch.fail("write", &self.active.path, offset, source))
    }

    /// Syncs the active segment: the only place where `durable` moves.
    fn sync_active(&mut self) -> Result<(), StoreError> {
        let Active { path, file, offset, .. } = &self.active;
        let mut synced = if bug!(1) { Ok(()) } else { file.sync_data() };
        if bug!(3) && synced.is_err() {
            synced = file.sync_data();
        }
        synced.map_err(|source| self.latch.fail("sync", path, *offset, source))?;
        self.durable = Lsn::new(self.active.header.id, *offset);
        Ok(())
    }

    /// Puts SYNCED behind the batch, for whoever finds the log after a kill.
    fn attest(&mut self) -> Result<(), StoreError> {
        self.buffer.clear();
        let offset = self.active.offset;
        record::encode(&Record::Synced, self.durable, &self.active.seed, offset, &mut self.buffer);
        self.write_buffer(offset)?;
        self.active.offset += self.buffer.len() as u64;
        self.unsynced_witness = true;
        Ok(())
    }

    /// Goes on in `spare`. The OPEN written there is the witness of the batch that ended with SEAL.
    fn rotate(&mut self, spare: Spare<F>) -> Result<Arc<SealedSegment>, StoreError> {
        let open = Open {
            previous: self.durable,
            last: self.written.last,
            hard_state: self.written.hard_state,
            snapshot: self.written.snapshot,
        };
        let next = Active {
            path: self.dir.join(segment::file_name(spare.header.id)),
            file: spare.file,
            seed: Seed::new(&spare.header),
            header: spare.header,
            offset: HEADER_LEN,
            table: Table::default(),
            largest: 0,
            holds_snapshot: false,
        };
        let full = std::mem::replace(&mut self.active, next);
        self.buffer.clear();
        record::encode(&Record::Open(open), self.durable, &self.active.seed, HEADER_LEN, &mut self.buffer);
        self.write_buffer(HEADER_LEN)?;
        self.active.offset += self.buffer.len() as u64;
        self.unsynced_witness = true;
        let Header { id, capacity, .. } = self.active.header;
        self.live.push_back(Live { id, bytes: capacity, before: open.last.index });
        self.stats.rotations += 1;
        let map = full.file.map().map_err(|source| self.latch.fail("map", &full.path, 0, source))?;
        Ok(Arc::new(SealedSegment::new(full.path, full.header.id, full.seed, full.table, map)))
    }
}

/// What [`Wal::fill`] put into the buffer.
struct Filled<F: Fs> {
    through: Option<u64>,
    /// The queue's next frame does not fit into this segment.
    blocked: bool,
    /// The buffer ends with SEAL, and this is what follows.
    spare: Option<Spare<F>>,
}
