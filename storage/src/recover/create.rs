//! Making a directory that was never used. NODE is published last, so a directory without it has acknowledged nothing.

use std::path::Path;

use crate::error::OpenError;
use crate::fs::Fs;
use crate::lsn::Lsn;
use crate::node_file::{self, Identity, NodeFile};
use crate::options::Options;
use crate::record::{self, Found, OPEN_LEN, Open, Record, Seed};
use crate::segment::{self, HEADER_LEN, Header, IoFailed};
use crate::snapshot;
use crate::types::{DiskId, HardState, Position, Term};

use super::survey::read_segment;

/// What a log begins with.
const FIRST: Open = Open {
    previous: Lsn(0),
    last: Position::ZERO,
    hard_state: HardState { term: Term(0), vote: None },
    snapshot: None,
};

/// Makes the directory's first files, unless they are there. Whether it did.
pub(super) fn make_if_new<F: Fs>(
    fs: &F,
    dir: &Path,
    identity: Identity,
    options: &Options,
) -> Result<bool, OpenError> {
    let names = fs.list(dir).map_err(OpenError::io("list", dir))?;
    let disk = if names.iter().any(|name| name == node_file::NAME) {
        match unborn(fs, dir, identity, &names)? {
            Some(disk) => disk,
            None => return Ok(false),
        }
    } else {
        refuse_if_used(fs, dir, &names)?;
        DiskId(fs.entropy().map_err(OpenError::io("draw an id for", dir))?)
    };
    let salt = segment::salt(fs).map_err(OpenError::io("draw a salt for", dir))?;
    let header = Header { disk, id: 1, salt, capacity: options.segment_bytes };
    let mut frame = Vec::new();
    record::encode(&Record::Open(FIRST), Lsn(0), &Seed::new(&header), HEADER_LEN, &mut frame);
    segment::make(fs, dir, &header, &frame)
        .map_err(|IoFailed { op, path, source, .. }| OpenError::io(op, &path)(source))?;
    node_file::write(fs, dir, &NodeFile { disk, identity })?;
    Ok(true)
}

/// The id of a directory that has its NODE and nothing but OPEN behind it: no open of it ever got as far as SYNCED.
/// It is made once more. If the directory sync behind NODE failed, the names that can be seen now may not be on the
/// disk, and no later sync would put them there; given anew, they are.
fn unborn<F: Fs>(
    fs: &F,
    dir: &Path,
    identity: Identity,
    names: &[String],
) -> Result<Option<DiskId>, OpenError> {
    let node = node_file::read(fs, dir)?;
    if node.identity != identity || names.iter().any(|name| snapshot::parse_file_name(name).is_some()) {
        return Ok(None);
    }
    let ids: Vec<u64> = names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
    if ids.first() != Some(&1) {
        return Ok(None);
    }
    for id in ids {
        let (header, bytes) = read_segment(fs, &dir.join(segment::file_name(id)), id)?;
        let seed = Seed::new(&header);
        let begins = match record::read(&seed, &bytes, HEADER_LEN) {
            Found::Valid(frame) if frame.record().ok() == Some(Record::Open(FIRST)) => true,
            // Another term than none was written by somebody who had voted.
            Found::Valid(_) => return Ok(None),
            Found::Zero | Found::Bad { .. } => false,
        };
        let behind = if id == 1 { HEADER_LEN + OPEN_LEN } else { HEADER_LEN };
        // The first look is enough in a directory in use, the second one costs a walk through all of the file.
        let used = matches!(record::read(&seed, &bytes, behind), Found::Valid(_))
            || record::highest_promise(&seed, &bytes, behind).is_some();
        if header.disk != node.disk || begins != (id == 1) || used {
            return Ok(None);
        }
    }
    Ok(Some(node.disk))
}

/// Without NODE there may be a first segment with nothing but OPEN in it: its making was interrupted. Anything more is
/// a directory in use whose NODE is gone.
pub(super) fn refuse_if_used<F: Fs>(fs: &F, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    let missing = || OpenError::damaged(&dir.join(node_file::NAME), 0, "missing from a directory in use");
    for name in names {
        if snapshot::parse_file_name(name).is_some() {
            return Err(missing());
        }
        match segment::parse_file_name(name) {
            Some(1) => {
                let (header, bytes) = read_segment(fs, &dir.join(name), 1)?;
                if record::highest_promise(&Seed::new(&header), &bytes, HEADER_LEN + OPEN_LEN).is_some() {
                    return Err(missing());
                }
            }
            Some(_) => return Err(missing()),
            None => {}
        }
    }
    Ok(())
}
