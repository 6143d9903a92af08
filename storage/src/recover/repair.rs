//! Making the log's end true: what was seen goes to the disk again, zeros go behind it, and only then is it attested.
//!
//! After a failed sync the cache may show bytes that the disk does not hold, or zeros where it holds some. So nothing
//! here goes by what reads back: everything since the last proof is written again from memory, and the rest of the
//! segment is written whole, whatever seems to be there. A frame that was dropped can then never come back.

use crate::error::OpenError;
use crate::fs::{File, Fs, write_all_at};
use crate::lsn::Lsn;
use crate::record::{self, Open, Record};
use crate::segment::{self, HEADER_LEN};
use crate::snapshot;

use super::cases::Ending;
use super::replay::Replayed;
use super::survey::Survey;
use super::walk::{Loaded, Walked};

/// Writes the log's end. Afterwards `walked.end` is where the next frame goes, and all before `walked.durable` is on the
/// disk.
pub(super) fn apply<F: Fs>(fs: &F, walked: &mut Walked, ending: Ending) -> Result<(), OpenError> {
    if let Some(before) = &walked.before_tail {
        sometimes!("a segment before the last was written again");
        // It is whole: it ends with SEAL.
        let from = unproven_from(walked, before);
        let file = fs.open(&before.path, true).map_err(OpenError::io("open", &before.path))?;
        rewrite(&file, before, from, walked.replay.said.offset())?;
        file.sync_data().map_err(OpenError::io("sync", &before.path))?;
    }
    let tail = &walked.tail;
    let file = fs.open(&tail.path, true).map_err(OpenError::io("open", &tail.path))?;
    rewrite(&file, tail, unproven_from(walked, tail), walked.end.offset())?;
    segment::fill_zeros(&file, walked.end.offset(), tail.header.capacity, false)
        .map_err(OpenError::io("write", &tail.path))?;
    file.sync_data().map_err(OpenError::io("sync", &tail.path))?;

    let end = walked.end;
    let (record, promise) = match ending {
        Ending::Attest => (Record::Synced, end),
        // What OPEN vouches for is the segment before; this one holds nothing yet.
        Ending::Open => (Record::Open(open(walked)), walked.replay.said),
        Ending::Keep => {
            walked.durable = end;
            return Ok(());
        }
    };
    let mut frame = Vec::new();
    record::encode(&record, promise, &tail.seed, end.offset(), &mut frame);
    write_all_at(&file, &frame, end.offset()).map_err(OpenError::io("write", &tail.path))?;
    file.sync_data().map_err(OpenError::io("sync", &tail.path))?;
    if let Record::Open(open) = record {
        let before = open.last.index;
        walked.replay.segments.push(Replayed { id: tail.id, before, table: Default::default() });
        walked.replay.holds_snapshot = false;
    }
    walked.end = Lsn(end.0 + frame.len() as u64);
    walked.durable = walked.end;
    Ok(())
}

/// Where in `segment` the bytes begin that no frame knows to be durable.
fn unproven_from(walked: &Walked, segment: &Loaded) -> u64 {
    match walked.durable.segment() == segment.id {
        true => walked.durable.offset(),
        false => HEADER_LEN,
    }
}

fn open(walked: &Walked) -> Open {
    let state = walked.replay.state;
    Open {
        previous: walked.replay.said,
        last: state.last,
        hard_state: state.hard_state,
        snapshot: state.snapshot,
    }
}

fn rewrite(file: &impl File, segment: &Loaded, from: u64, to: u64) -> Result<(), OpenError> {
    let bytes = segment.bytes.get(from as usize..to as usize).unwrap_or_default();
    write_all_at(file, bytes, from).map_err(OpenError::io("write", &segment.path))
}

/// Unlinks segments left over from a purge, oldest first, and snapshots that the log does not refer to. Not before the
/// log's end is attested: until then it might still end where it needs them.
pub(super) fn remove_superfluous<F: Fs>(fs: &F, survey: &Survey, walked: &Walked) -> Result<(), OpenError> {
    let segments = survey.segments.range(..walked.start).map(|(_, segment)| segment.path.clone());
    let in_force = walked.replay.state.snapshot.map(|snapshot| snapshot.position);
    let others = survey.snapshots.iter().filter(|&&position| Some(position) != in_force);
    let snapshots = others.map(|&position| survey.dir.join(snapshot::file_name(position)));
    let mut removed = false;
    for path in segments.chain(snapshots) {
        sometimes!("recovery removed what a purge had left");
        fs.remove(&path).map_err(OpenError::io("unlink", &path))?;
        removed = true;
    }
    match removed {
        true => fs.sync_dir(&survey.dir).map_err(OpenError::io("sync", &survey.dir)),
        false => Ok(()),
    }
}
