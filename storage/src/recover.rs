//! Opening a directory: take the lock, verify everything that counts, cut what was never acknowledged, and hand over.
//!
//! The order is the point (FORMAT.md tells why of each step):
//!
//! 1. lock the directory;
//! 2. read NODE and all segment headers, delete unfinished files ([`survey`]);
//! 3. sync what is there before reading it: a killed process leaves bytes that can be seen and are not durable;
//! 4. walk the frames from where the log begins to the first place that is not a frame ([`walk`]), replaying them
//!    ([`replay`]);
//! 5. look for a witness behind that place, and decide ([`cases`]);
//! 6. check the snapshot;
//! 7. write the tail again and zeros behind it, attest it ([`repair`]);
//! 8. only now unlink what is superfluous.
//!
//! Nothing up to step 6 changes what a later open would find, and dying anywhere and opening again gives the same log.

mod cases;
mod create;
mod repair;
mod replay;
mod survey;
mod walk;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Damage, OpenError};
use crate::fs::{File, Fs, LockError};
use crate::node_file::Identity;
use crate::options::Options;
use crate::sealed::SealedSegment;
use crate::snapshot::{self, SnapshotError};
use crate::types::{DiskId, Entry, EntryMeta, HardState, Position, SnapshotId};
use crate::wal::{Active, Live, Resume, Wal};
pub(crate) use survey::{Survey, survey};
pub(crate) use walk::{Walked, load, walk};

/// The name of the lock file; in it the holder's process id, for people.
pub(crate) const LOCK: &str = "LOCK";

/// What an opened directory holds.
#[derive(Debug)]
pub struct Recovered {
    /// The directory's id.
    pub disk_id: DiskId,
    /// The directory was made just now.
    pub fresh: bool,
    /// Term and vote.
    pub hard_state: HardState,
    /// The snapshot in force; its file is there and was verified.
    pub snapshot: Option<SnapshotId>,
    /// Every entry above the snapshot, the first at `snapshot.index + 1` (1 without one).
    pub log: Vec<EntryMeta>,
    /// The last entry; the snapshot's position where the log is empty.
    pub last: Position,
    /// Those of `log` that stand in the segment still being written: keep them on the heap.
    pub tail: Vec<Entry>,
    /// The full segments, oldest first: every entry of `log` that is not in `tail` can be read from them
    /// ([`crate::find`]).
    pub sealed: Vec<Arc<SealedSegment>>,
    /// Bytes behind the log's end that were never acknowledged, and are gone.
    pub dropped_tail_bytes: u64,
}

/// Opens `dir`, making it if there is nothing yet: takes the lock, verifies everything, repairs the tail.
///
/// # Errors
/// See [`OpenError`]. Nothing acknowledged was touched, whichever it is.
pub fn open<F: Fs>(
    fs: F,
    dir: &Path,
    identity: Identity,
    options: Options,
) -> Result<(Wal<F>, Recovered), OpenError> {
    options.validate()?;
    fs.create_dir_all(dir).map_err(OpenError::io("make", dir))?;
    let lock = take_lock(&fs, dir)?;
    let fresh = create::make_if_new(&fs, dir, identity, &options)?;
    let survey = survey(&fs, dir)?;
    survey.check_identity(identity)?;
    survey.remove_unfinished(&fs)?;
    survey.sync(&fs)?;
    let mut walked = walk(&fs, &survey)?;
    let ending = cases::decide(&walked)?;
    let snapshot = verify_snapshot(&fs, dir, walked.replay.state.snapshot.as_ref());
    #[cfg(raftmap_bugs)]
    if bug!(5) && snapshot.is_err() {
        survey.remove_all(&fs)?;
        drop(lock);
        return open(fs, dir, identity, options);
    }
    snapshot?;

    let dropped_tail_bytes = walked.written_behind_end();
    repair::apply(&fs, &mut walked, ending)?;
    repair::remove_superfluous(&fs, &survey, &walked)?;
    if dropped_tail_bytes > 0 {
        tracing::info!(dir = %dir.display(), "tail of {dropped_tail_bytes} unsynced bytes dropped");
    }
    let recovered = hand_out(&fs, &survey, &walked, fresh, dropped_tail_bytes)?;
    Ok((resume(fs, options, &survey, walked, lock)?, recovered))
}

/// Whether a walked log is sound; the error is the one that [`open`] gives.
pub(crate) fn check(walked: &Walked) -> Result<(), OpenError> {
    cases::decide(walked).map(|_| ())
}

/// Takes the directory's lock, or says who has it.
pub(crate) fn take_lock<F: Fs>(fs: &F, dir: &Path) -> Result<F::Lock, OpenError> {
    let path = dir.join(LOCK);
    fs.lock(&path).map_err(|error| match error {
        LockError::Held { pid } => OpenError::InUse { path: dir.to_owned(), pid },
        LockError::Io(source) => OpenError::io("lock", &path)(source),
    })
}

/// The snapshot that the log refers to must exist and be whole: the entries it stands for are gone.
pub(crate) fn verify_snapshot<F: Fs>(
    fs: &F,
    dir: &Path,
    snapshot: Option<&SnapshotId>,
) -> Result<(), OpenError> {
    let Some(id) = snapshot else { return Ok(()) };
    let damaged = |path, offset, what: String| {
        OpenError::Damaged(Damage { path, offset, entry: Some(id.position), what })
    };
    match snapshot::verify(fs, dir, id) {
        Ok(_) => Ok(()),
        Err(SnapshotError::Damaged { path, offset, what }) => Err(damaged(path, offset, what.to_owned())),
        Err(SnapshotError::Unreadable { path, offset, source }) => {
            Err(damaged(path, offset, format!("cannot be read: {source}")))
        }
        Err(SnapshotError::Missing { path }) => {
            Err(damaged(path, 0, "the snapshot that the log refers to is missing".to_owned()))
        }
        Err(SnapshotError::Io { op, path, source }) => Err(OpenError::Io { op, path, source }),
        // A later format; or what only writing can say.
        Err(
            other @ (SnapshotError::Unsupported { .. }
            | SnapshotError::Mismatch { .. }
            | SnapshotError::TooLarge { .. }
            | SnapshotError::TooManyMembers { .. }
            | SnapshotError::Exists { .. }
            | SnapshotError::NoSpace { .. }
            | SnapshotError::Failed { .. }),
        ) => {
            let path = dir.join(snapshot::file_name(id.position));
            Err(damaged(path, 0, other.to_string()))
        }
    }
}

fn hand_out<F: Fs>(
    fs: &F,
    survey: &Survey,
    walked: &Walked,
    fresh: bool,
    dropped_tail_bytes: u64,
) -> Result<Recovered, OpenError> {
    let state = walked.replay.state;
    let mut sealed = Vec::new();
    for segment in walked.replay.segments.iter().filter(|segment| segment.id != walked.end.segment()) {
        let found = survey.segment(segment.id)?;
        let file = fs.open(&found.path, false).map_err(OpenError::io("open", &found.path))?;
        let map = file.map().map_err(OpenError::io("map", &found.path))?;
        let (path, table) = (found.path.clone(), segment.table.clone());
        sealed.push(Arc::new(SealedSegment::new(path, segment.id, found.seed(), table, map)));
    }
    Ok(Recovered {
        disk_id: survey.node.disk,
        fresh,
        hard_state: state.hard_state,
        snapshot: state.snapshot,
        log: walked.replay.live().to_vec(),
        last: state.last,
        tail: walked.tail_entries(state.base().index)?,
        sealed,
        dropped_tail_bytes,
    })
}

fn resume<F: Fs>(
    fs: F,
    options: Options,
    survey: &Survey,
    walked: Walked,
    lock: F::Lock,
) -> Result<Wal<F>, OpenError> {
    let mut live = VecDeque::new();
    for segment in &walked.replay.segments {
        let bytes = survey.segment(segment.id)?.header.capacity;
        live.push_back(Live { id: segment.id, bytes, before: segment.before });
    }
    let Walked { replay, end, durable, tail, .. } = walked;
    let found = survey.segment(tail.id)?;
    let table = replay.segments.last().map(|segment| segment.table.clone()).unwrap_or_default();
    let active = Active {
        header: found.header,
        path: found.path.clone(),
        file: fs.open(&found.path, true).map_err(OpenError::io("open", &found.path))?,
        seed: found.seed(),
        offset: end.offset(),
        table,
        largest: 0,
        holds_snapshot: replay.holds_snapshot,
    };
    let stale =
        survey.segments.range(tail.id + 1..).map(|(&id, later)| (id, later.header.capacity)).collect();
    let (dir, disk) = (survey.dir.clone(), survey.node.disk);
    Ok(Wal::resume(Resume {
        fs,
        dir,
        options,
        disk,
        active,
        live,
        stale,
        state: replay.state,
        durable,
        lock,
    }))
}
