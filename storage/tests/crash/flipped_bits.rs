//! Every bit of a small log flipped, one at a time: an identical state, a refusal that names the place, or the loss of
//! what was never acknowledged. Nothing else.

use std::path::{Path, PathBuf};

use raftmap_storage::model::{Cut, ModelFs};
use raftmap_storage::types::frame_len;
use raftmap_storage::{OpenError, verify};

use crate::exhaustive;
use crate::story::{State, Story};
use crate::world::{Act, World, dir, open_and_read, read_state, segments, try_open};

use Act::*;

const HEADER: usize = 4096;

/// The part of a file that a refusal may name for damage at `byte`: the frame around it, the file's header, or for
/// files that are not segments any place up to it.
fn place(path: &Path, bytes: &[u8], byte: usize) -> std::ops::RangeInclusive<usize> {
    let segment = path.extension().is_some_and(|extension| extension == "wal");
    if !segment || byte < HEADER {
        return 0..=byte;
    }
    let mut start = HEADER;
    while let Some(length) = bytes.get(start + 4..start + 8) {
        if bytes[start] == 0 {
            break;
        }
        let length = u32::from_le_bytes(length.try_into().unwrap());
        let end = start + frame_len(u64::from(length)) as usize;
        if byte < end {
            return start..=start;
        }
        start = end;
    }
    start..=byte
}

/// What became of the flips.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    lost_unacknowledged: u64,
    refused: u64,
}

/// A small log, and what it holds undamaged.
struct Small {
    disk: ModelFs,
    story: Story,
    whole: State,
}

fn check(small: &Small, path: &PathBuf, bytes: &[u8], byte: usize, bit: u8, tally: &mut Tally) {
    let flipped = small.disk.kill();
    assert!(flipped.flip(path, byte, bit));
    let fail = |what: String| -> ! { panic!("bit {bit} of byte {byte} of {}: {what}", path.display()) };
    let offline = verify(flipped.kill(), dir(), |_| ()).map(|_| ()).map_err(|error| error.to_string());
    let opened = try_open(&flipped);
    if offline.as_ref().err() != opened.as_ref().err().map(|error| error.to_string()).as_ref() {
        fail(format!("offline {offline:?}, opened {:?}", opened.as_ref().err()));
    }
    match opened {
        Ok((wal, recovered)) => {
            drop(wal);
            let state = read_state(&recovered).unwrap_or_else(|error| fail(error));
            match small.story.place(&state) {
                Ok(_) if state == small.whole => tally.same += 1,
                Ok(_) => tally.lost_unacknowledged += 1,
                Err(error) => fail(error),
            }
        }
        Err(OpenError::Damaged(damage)) => {
            tally.refused += 1;
            let places = place(path, bytes, byte);
            let right = damage.path == *path && places.contains(&(damage.offset as usize));
            if !right {
                fail(format!(
                    "refused, but named {} at {}, not {places:?}",
                    damage.path.display(),
                    damage.offset
                ));
            }
        }
        Err(error) => fail(format!("refused as {error}")),
    }
}

fn flip_all(disk: &ModelFs, story: &Story, step: usize) -> Tally {
    let (_, whole) = open_and_read(&disk.kill()).unwrap();
    let small = Small { disk: disk.kill(), story: story.clone(), whole };
    let mut tally = Tally::default();
    for path in segments(disk) {
        let bytes = disk.peek(&path).unwrap();
        for at in (0..bytes.len() * 8).step_by(step) {
            // Without RAFTMAP_EXHAUSTIVE the zeros behind the frames are passed over more quickly.
            let (byte, bit) = (at / 8, (at % 8) as u8);
            let blank = bytes[byte..(byte + 64).min(bytes.len())].iter().all(|byte| *byte == 0);
            if blank && !exhaustive() && !at.is_multiple_of(16 * step) {
                continue;
            }
            check(&small, &path, &bytes, byte, bit, &mut tally);
        }
    }
    tally
}

/// Two sealed segments, a third in use, a snapshot: some 20 KiB of frames, zeros and headers.
const SCRIPT: &[Act] = &[
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

/// One bit in so many, unless all are wanted. Odd, so that every bit of a byte has its turn.
fn step() -> usize {
    if exhaustive() { 1 } else { 31 }
}

#[test]
fn after_a_clean_stop() {
    let mut world = World::new(11, false);
    world.run(SCRIPT).unwrap();
    world.run(&[Idle]).unwrap();
    let (disk, story, _) = world.finish();
    let tally = flip_all(&disk.cut(Cut::LoseAll), &story, step());
    println!("{tally:?}");
    assert!(tally.refused > 500 && tally.same > 50 && tally.lost_unacknowledged == 0, "{tally:?}");
}

#[test]
fn after_a_kill_with_work_in_flight() {
    let mut world = World::new(12, false);
    world.run(SCRIPT).unwrap();
    world.run(&[Append(2, 200), SyncOnce, Append(1, 100)]).unwrap();
    let (disk, story, _) = world.finish();
    let tally = flip_all(&disk.kill(), &story, step());
    println!("{tally:?}");
    assert!(tally.refused > 500 && tally.same > 20, "{tally:?}");
}

/// Frames on the disk that nobody was told of: losing them is no harm, keeping them none either.
#[test]
fn after_a_power_cut_that_kept_the_write_and_lost_the_sync() {
    let mut world = World::new(13, true);
    world.run(&[Append(3, 100), Sync, Idle, Append(3, 100), Sync]).unwrap();
    let (_, _, moments) = world.finish();
    let in_flight =
        moments.iter().rev().find(|moment| moment.story.acked + 3 == moment.story.states.len() - 1);
    let moment = in_flight.expect("the last write before its sync");
    let tally = flip_all(&moment.disk.cut(Cut::KeepAll), &moment.story, step());
    println!("{tally:?}");
    assert!(tally.lost_unacknowledged > 50, "{tally:?}");
}
