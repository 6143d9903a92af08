//! From the log's beginning to the first place that is not a frame, and a look at what lies behind.

use std::path::PathBuf;

use crate::error::{Damage, OpenError};
use crate::fs::Fs;
use crate::lsn::Lsn;
use crate::record::{self, Found, OPEN_LEN, Record, Seed, kind_name};
use crate::segment::{self, HEADER_LEN, Header};
use crate::types::{Entry, Index, Position};

use super::replay::{Next, Replay};
use super::survey::{Survey, read_segment};

/// A log, read from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) replay: Replay,
    /// The first segment walked: older ones are left over from a purge.
    pub(crate) start: u64,
    /// Where the log ends.
    pub(crate) end: Lsn,
    /// Everything before it is on the disk; not before [`super::repair`] has seen to it.
    pub(crate) durable: Lsn,
    /// What stands at the end instead of a frame.
    pub(crate) at_end: AtEnd,
    /// The highest durable_lsn that any frame behind the end carries, and where that stands.
    pub(crate) promise: Option<(Lsn, Lsn)>,
    /// The highest segment that was ever begun.
    pub(crate) newest: u64,
    /// The segment that `end` is in.
    pub(crate) tail: Loaded,
    /// The one before it, where the tail has no OPEN that would vouch for it.
    pub(crate) before_tail: Option<Loaded>,
}

/// What stands where the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AtEnd {
    /// Nothing was written.
    Zero,
    /// Something that is no frame, and what it still tells.
    Bad {
        /// Its kind, where its header is intact.
        kind: Option<u8>,
        /// The entry it speaks of, likewise.
        position: Option<Position>,
        /// What does not check out.
        what: &'static str,
    },
}

/// A segment in memory. What is written back in repair comes from here, never from a second read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) seed: Seed,
    pub(crate) bytes: Vec<u8>,
}

/// Walks the log. Changes nothing.
pub(crate) fn walk<F: Fs>(fs: &F, survey: &Survey) -> Result<Walked, OpenError> {
    let newest = newest(survey)?;
    let newest_loaded = load(fs, survey, newest)?;
    let start = start(fs, survey, &newest_loaded)?;
    let mut cached = Some(newest_loaded);
    let mut replay = Replay::default();
    let mut before_tail = None;
    let mut id = start;
    let (tail, offset, at_end) = loop {
        let segment = match cached.take_if(|loaded| loaded.id == id) {
            Some(loaded) => loaded,
            None => load(fs, survey, id)?,
        };
        match walk_segment(&mut replay, &segment)? {
            Ended::Sealed(next) => {
                before_tail = Some(segment);
                id = next;
            }
            Ended::At(offset, at_end) => break (segment, offset, at_end),
        }
    };
    let end = Lsn::new(tail.id, offset);
    let durable = replay.durable.max(Lsn::new(start, HEADER_LEN));
    // OPEN vouches for all of the segment before its own.
    before_tail = before_tail.filter(|_| offset == HEADER_LEN);
    let promise = highest_promise(fs, survey, &tail, offset)?;
    Ok(Walked { replay, start, end, durable, at_end, promise, newest, tail, before_tail })
}

/// The highest segment that was begun, which is where the log ends if nothing is damaged.
fn newest(survey: &Survey) -> Result<u64, OpenError> {
    let newest = survey.segments.iter().rev().find(|(_, segment)| segment.open.is_some());
    let none = || {
        let path = survey
            .segments
            .first_key_value()
            .map_or_else(|| survey.dir.join(segment::file_name(1)), |(_, segment)| segment.path.clone());
        OpenError::damaged(&path, HEADER_LEN, "no segment of this used directory begins with a sound OPEN")
    };
    newest.map(|(&id, _)| id).ok_or_else(none)
}

/// The index of the snapshot in force at the end of the newest segment: what its OPEN says, or a record behind that. And
/// where its frames end.
fn snapshot_index(survey: &Survey, newest: &Loaded) -> (Index, u64) {
    let open = survey.segments.get(&newest.id).and_then(|segment| segment.open);
    let mut base = open.and_then(|open| open.snapshot).map_or(Index(0), |snapshot| snapshot.position.index);
    let mut offset = HEADER_LEN;
    while let Found::Valid(frame) = record::read(&newest.seed, &newest.bytes, offset) {
        if let Ok(Record::Snapshot(mark)) = frame.record() {
            base = base.max(mark.snapshot.position.index);
        }
        offset += frame.len();
    }
    (base, offset)
}

/// The newest segment that needs nothing older: all that the log held where it begins is in the snapshot.
fn start<F: Fs>(fs: &F, survey: &Survey, newest: &Loaded) -> Result<u64, OpenError> {
    let (base, end) = snapshot_index(survey, newest);
    let whole = |open: crate::record::Open| open.last.index <= base;
    let begins =
        survey.segments.range(..=newest.id).rev().find(|(_, segment)| segment.open.is_some_and(whole));
    if let Some((&id, _)) = begins {
        return Ok(id);
    }
    // Where frames end before synced bytes do, the snapshot may stand behind the damage, which the walk will name.
    let promise = highest_promise(fs, survey, newest, end)?;
    if promise.is_some_and(|(durable, _)| durable > Lsn::new(newest.id, end)) {
        return Ok(newest.id);
    }
    // Either an OPEN on the way is damaged, or the file before the oldest is gone.
    let unopened = survey.segments.range(..newest.id).rev().find(|(_, segment)| segment.open.is_none());
    if let Some((_, segment)) = unopened {
        let what = "the segment does not begin with a sound OPEN, and no older one begins the log";
        return Err(OpenError::damaged(&segment.path, HEADER_LEN, what));
    }
    let oldest = survey.segments.first_key_value().map_or(newest.id, |(&id, _)| id);
    let path = survey.dir.join(segment::file_name(oldest.saturating_sub(1)));
    let what = format!(
        "missing: the snapshot covers entries up to {base} only, and the log goes on before {oldest}"
    );
    Err(OpenError::damaged(&path, 0, what))
}

/// A whole segment that the survey has found.
pub(crate) fn load<F: Fs>(fs: &F, survey: &Survey, id: u64) -> Result<Loaded, OpenError> {
    let path = survey.segment(id)?.path.clone();
    let (header, bytes) = read_segment(fs, &path, id)?;
    Ok(Loaded { id, path, header, seed: Seed::new(&header), bytes })
}

enum Ended {
    /// With SEAL: the log goes on in this segment.
    Sealed(u64),
    /// Here, at what is no frame.
    At(u64, AtEnd),
}

fn walk_segment(replay: &mut Replay, segment: &Loaded) -> Result<Ended, OpenError> {
    let mut offset = HEADER_LEN;
    loop {
        let frame = match record::read(&segment.seed, &segment.bytes, offset) {
            Found::Valid(frame) => frame,
            Found::Zero => return Ok(Ended::At(offset, AtEnd::Zero)),
            Found::Bad { kind, position, what } => {
                return Ok(Ended::At(offset, AtEnd::Bad { kind, position, what }));
            }
        };
        let next = replay.apply(&segment.header, offset, &frame).map_err(|what| {
            let entry = (frame.kind == 4).then_some(frame.position);
            let what = format!("{} frame does not follow: {what}", kind_name(frame.kind));
            OpenError::Damaged(Damage { path: segment.path.clone(), offset, entry, what })
        })?;
        match next {
            Next::Frame => offset += frame.len(),
            Next::Segment(id) => return Ok(Ended::Sealed(id)),
        }
    }
}

/// Looks at every place behind the end, in this segment and all later ones, for a frame that knows of synced bytes.
fn highest_promise<F: Fs>(
    fs: &F,
    survey: &Survey,
    tail: &Loaded,
    offset: u64,
) -> Result<Option<(Lsn, Lsn)>, OpenError> {
    let in_tail = record::highest_promise(&tail.seed, &tail.bytes, offset);
    let mut highest = in_tail.map(|(durable, at)| (durable, Lsn::new(tail.id, at)));
    for &id in survey.segments.range(tail.id + 1..).map(|(id, _)| id) {
        let later = load(fs, survey, id)?;
        let found = record::highest_promise(&later.seed, &later.bytes, HEADER_LEN);
        let found = found.map(|(durable, at)| (durable, Lsn::new(id, at)));
        highest = highest.into_iter().chain(found).max_by_key(|(durable, _)| *durable);
    }
    Ok(highest)
}

impl Walked {
    /// Whether nothing but SYNCED stands between what is known durable and the end.
    pub(crate) fn is_attested(&self) -> bool {
        self.replay.said <= self.durable
    }

    /// Bytes behind the end up to the last one that is not zero.
    pub(crate) fn written_behind_end(&self) -> u64 {
        let mut behind = self.tail.bytes.get(self.end.offset() as usize..).unwrap_or_default();
        // Nearly all of it is zeros: many at a time.
        while let Some((before, _)) = behind.split_last_chunk().filter(|(_, last)| **last == [0; 256]) {
            behind = before;
        }
        behind.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1)
    }

    /// The entries above `base` that stand in the last segment, with payloads of their own.
    pub(crate) fn tail_entries(&self, base: Index) -> Result<Vec<Entry>, OpenError> {
        let table = self.replay.segments.last().filter(|segment| segment.id == self.tail.id);
        let entries = table.into_iter().flat_map(|segment| segment.table.entries());
        entries
            .filter(|&(index, _)| index > base)
            .map(|(index, offset)| match record::read(&self.tail.seed, &self.tail.bytes, offset) {
                Found::Valid(frame) if frame.position.index == index => Ok(Entry {
                    position: frame.position,
                    payload: bytes::Bytes::copy_from_slice(frame.payload),
                    payload_crc: frame.payload_crc,
                }),
                // It was valid a moment ago, in the same memory.
                Found::Valid(_) | Found::Zero | Found::Bad { .. } => {
                    Err(OpenError::damaged(&self.tail.path, offset, "changed in memory while it was read"))
                }
            })
            .collect()
    }
}

const _: () = assert!(HEADER_LEN + OPEN_LEN < segment::CAPACITY_MIN);
