//! A small log with one damage, and the verdict on how it opens: identical, refused at the right place, or smaller.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use raftmap_storage::model::{Cut, ModelFs};
use raftmap_storage::types::frame_len;
use raftmap_storage::{OpenError, verify};

use crate::story::{State, Story};
use crate::world::{Act, World, dir, open_and_read, read_state, segments, try_open};

use Act::*;

const HEADER: usize = 4096;

/// The part of a file that a refusal may name for damage at `byte`: the frame around it, the file's header, or for
/// files that are not segments any place.
fn place(path: &Path, bytes: &[u8], byte: usize) -> RangeInclusive<usize> {
    let segment = path.extension().is_some_and(|extension| extension == "wal");
    if !segment {
        return 0..=bytes.len(); // snapshot files and NODE have tests of their own for this
    }
    if byte < HEADER {
        return 0..=byte;
    }
    let frames = frames(bytes);
    match frames.iter().find(|(start, length)| byte < start + length) {
        Some((start, _)) => *start..=*start,
        None => frames.last().map_or(HEADER, |(start, length)| start + length)..=byte,
    }
}

/// Where each frame of a segment begins, and its bytes. Only for segments that are sound.
pub(crate) fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut start = HEADER;
    while let Some(header) = bytes.get(start..start + 8).filter(|header| header[0] != 0) {
        let payload = u32::from_le_bytes(header[4..8].try_into().unwrap());
        let length = frame_len(u64::from(payload)) as usize;
        frames.push((start, length));
        start += length;
    }
    frames
}

/// What a damage led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    LostUnacknowledged,
    LostAcknowledged,
    Refused,
}

/// A small log, and what it holds undamaged.
pub(crate) struct Small {
    pub(crate) disk: ModelFs,
    story: Story,
    whole: State,
}

/// Two sealed segments, a third in use, a snapshot: some 20 KiB of frames, zeros and headers.
pub(crate) const SCRIPT: &[Act] = &[
    Append(6, 300),
    Sync,
    Overwrite(2),
    Sync,
    Append(4, 600),
    Sync,
    Snapshot(3),
    Sync,
    Append(5, 400),
    Sync,
    Vote,
    Sync,
    Append(2, 33),
    Sync,
];

impl Small {
    pub(crate) fn new(disk: &ModelFs, story: &Story) -> Self {
        let (_, whole) = open_and_read(&disk.kill()).unwrap();
        Self { disk: disk.kill(), story: story.clone(), whole }
    }

    /// The log of [`SCRIPT`] after a clean stop and a power cut.
    pub(crate) fn cleanly_stopped(seed: u64) -> Self {
        let mut world = World::new(seed, false);
        world.run(SCRIPT).unwrap();
        world.run(&[Idle]).unwrap();
        let (disk, story, _) = world.finish();
        Self::new(&disk.cut(Cut::LoseAll), &story)
    }

    /// Every file, with its bytes.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| (self.disk.peek(&path).unwrap(), path);
        segments(&self.disk).into_iter().map(read).map(|(bytes, path)| (path, bytes)).collect()
    }

    /// Opens `damaged`, in whose file `path` (`bytes` before) the first damaged byte is `byte`. The offline check must
    /// say the same, and a refusal must name the place.
    pub(crate) fn judge(
        &self,
        damaged: &ModelFs,
        path: &Path,
        bytes: &[u8],
        byte: usize,
        how: &str,
    ) -> Verdict {
        let fail = |what: String| -> ! { panic!("{how} at byte {byte} of {}: {what}", path.display()) };
        let offline = verify(damaged.kill(), dir(), |_| ()).map(|_| ()).map_err(|error| error.to_string());
        let opened = try_open(damaged);
        if offline.as_ref().err() != opened.as_ref().err().map(|error| error.to_string()).as_ref() {
            fail(format!("offline {offline:?}, opened {:?}", opened.as_ref().err()));
        }
        match opened {
            Ok((wal, recovered)) => {
                drop(wal);
                let state = read_state(&recovered).unwrap_or_else(|error| fail(error));
                match self.story.place(&state) {
                    Ok(_) if state == self.whole => Verdict::Same,
                    Ok(_) => Verdict::LostUnacknowledged,
                    Err(_) if self.story.states.contains(&state) => Verdict::LostAcknowledged,
                    Err(error) => fail(error),
                }
            }
            Err(OpenError::Damaged(damage)) => {
                let (places, named) = (place(path, bytes, byte), damage.path.display());
                if damage.path != path || !places.contains(&(damage.offset as usize)) {
                    fail(format!("refused, but named {named} at {}, not {places:?}", damage.offset));
                }
                Verdict::Refused
            }
            Err(error) => fail(format!("refused as {error}")),
        }
    }
}
