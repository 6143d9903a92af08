//! Looking at a directory that nobody has open: the same recovery, without its repairs, and the frames one by one.

use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::fs::Fs;
use crate::lsn::Lsn;
use crate::node_file::Identity;
use crate::record::{self, Found, kind_name};
use crate::recover::{self, Survey};
use crate::segment::HEADER_LEN;
use crate::snapshot;
use crate::types::{HardState, Position, SnapshotId};

/// One thing that was checked and found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A segment of the log.
    Segment {
        /// The file.
        path: PathBuf,
        /// Its part in the log.
        part: Part,
    },
    /// A snapshot file.
    Snapshot {
        /// The file.
        path: PathBuf,
        /// The log refers to it; others are unlinked at the next open.
        in_force: bool,
    },
}

/// A segment's part in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The log goes on behind it.
    Sealed,
    /// The log ends in it.
    Tail,
    /// Not begun yet.
    Spare,
    /// Left over from a purge: unlinked at the next open.
    Superfluous,
}

/// What a sound directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whose directory it is.
    pub identity: Identity,
    /// Frames that recovery walks.
    pub frames: u64,
    /// The last entry.
    pub last: Position,
    /// Term and vote.
    pub hard_state: HardState,
    /// The snapshot in force.
    pub snapshot: Option<SnapshotId>,
    /// Bytes behind the log's end that were never acknowledged: the next open drops them. Not damage.
    pub tail_bytes: u64,
}

/// Checks a directory as [`crate::open`] does and changes nothing in it. `report` hears of each file that is sound.
///
/// # Errors
/// What opening would say, in the same words; [`OpenError::InUse`] when somebody has the directory open;
/// [`OpenError::Empty`] when there is no log in it.
pub fn verify<F: Fs>(fs: F, dir: &Path, mut report: impl FnMut(Finding)) -> Result<Summary, OpenError> {
    let _lock = lock_if_used(&fs, dir)?;
    let survey = recover::survey(&fs, dir)?;
    let walked = recover::walk(&fs, &survey)?;
    recover::check(&walked)?;
    let end = walked.end.segment();
    for (&id, segment) in &survey.segments {
        let part = match id {
            _ if id < walked.start => Part::Superfluous,
            _ if id < end => Part::Sealed,
            _ if id == end => Part::Tail,
            _ => Part::Spare,
        };
        report(Finding::Segment { path: segment.path.clone(), part });
    }
    let state = walked.replay.state;
    recover::verify_snapshot(&fs, dir, state.snapshot.as_ref())?;
    report_snapshots(&fs, &survey, state.snapshot.as_ref(), &mut report);
    Ok(Summary {
        identity: survey.node.identity,
        frames: walked.replay.frames,
        last: state.last,
        hard_state: state.hard_state,
        snapshot: state.snapshot,
        tail_bytes: walked.written_behind_end(),
    })
}

/// Snapshots that the log does not refer to do not count, sound or not: a crash may leave one.
fn report_snapshots<F: Fs>(
    fs: &F,
    survey: &Survey,
    in_force: Option<&SnapshotId>,
    report: &mut impl FnMut(Finding),
) {
    for &position in &survey.snapshots {
        let path = survey.dir.join(snapshot::file_name(position));
        let in_force = in_force.is_some_and(|snapshot| snapshot.position == position);
        if in_force || snapshot::verify_file(fs, &path).is_ok() {
            report(Finding::Snapshot { path, in_force });
        }
    }
}

/// One line of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpLine {
    /// A segment begins.
    Segment {
        /// The file.
        path: PathBuf,
        /// Its number.
        id: u64,
        /// Bytes of the file.
        capacity: u64,
    },
    /// A frame that checks out by itself.
    Frame {
        /// Where it stands.
        at: Lsn,
        /// Its kind's name.
        kind: &'static str,
        /// The entry it speaks of; 0@0 where it speaks of none.
        position: Position,
        /// Bytes of its payload.
        payload_len: u64,
        /// What it knew to be durable.
        durable: Lsn,
    },
    /// No more frames in this segment.
    End {
        /// Where they end.
        at: Lsn,
        /// What stands there; `None` for zeros or the end of the file.
        what: Option<&'static str>,
    },
}

/// Shows every frame of every segment, in order, up to the first place in each that is no frame. Changes nothing.
///
/// # Errors
/// As [`verify`], as far as NODE and segment headers go: damaged frames are shown, not refused.
pub fn dump<F: Fs>(fs: F, dir: &Path, mut show: impl FnMut(DumpLine)) -> Result<(), OpenError> {
    let _lock = lock_if_used(&fs, dir)?;
    let survey = recover::survey(&fs, dir)?;
    for &id in survey.segments.keys() {
        let segment = recover::load(&fs, &survey, id)?;
        show(DumpLine::Segment { path: segment.path.clone(), id, capacity: segment.header.capacity });
        let mut offset = HEADER_LEN;
        let what = loop {
            match record::read(&segment.seed, &segment.bytes, offset) {
                Found::Valid(frame) => {
                    show(DumpLine::Frame {
                        at: Lsn::new(id, offset),
                        kind: kind_name(frame.kind),
                        position: frame.position,
                        payload_len: frame.payload.len() as u64,
                        durable: frame.durable,
                    });
                    offset += frame.len();
                }
                Found::Zero => break None,
                Found::Bad { what, .. } => break Some(what),
            }
        };
        show(DumpLine::End { at: Lsn::new(id, offset), what });
    }
    Ok(())
}

/// A directory without a lock file was never open, or is a copy: there is nothing to hold, and nothing to be made.
fn lock_if_used<F: Fs>(fs: &F, dir: &Path) -> Result<Option<F::Lock>, OpenError> {
    let names = fs.list(dir).map_err(OpenError::io("list", dir))?;
    let used = names.iter().any(|name| name == recover::LOCK);
    used.then(|| recover::take_lock(fs, dir)).transpose()
}
