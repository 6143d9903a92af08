//! Every bit of a small log flipped, one at a time: an identical state, a refusal that names the place, or the loss of
//! what was never acknowledged. Nothing else.

use raftmap_storage::model::Cut;

use crate::damage::{SCRIPT, Small, Verdict};
use crate::exhaustive;
use crate::world::{Act, World};

use Act::*;

/// What became of the flips.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    lost_unacknowledged: u64,
    refused: u64,
}

fn flip_all(small: &Small) -> Tally {
    // One bit in so many, unless all are wanted. Odd, so that every bit of a byte has its turn.
    let step = if exhaustive() { 1 } else { 31 };
    let mut tally = Tally::default();
    for (path, bytes) in small.files() {
        for at in (0..bytes.len() * 8).step_by(step) {
            let (byte, bit) = (at / 8, (at % 8) as u8);
            // Unless all are wanted, long zeros are passed over more quickly.
            let blank = bytes[byte..(byte + 64).min(bytes.len())].iter().all(|byte| *byte == 0);
            if blank && !exhaustive() && !at.is_multiple_of(16 * step) {
                continue;
            }
            let flipped = small.disk.kill();
            assert!(flipped.flip(&path, byte, bit));
            match small.judge(&flipped, &path, &bytes, byte, "a flipped bit") {
                Verdict::Same => tally.same += 1,
                Verdict::LostUnacknowledged => tally.lost_unacknowledged += 1,
                Verdict::Refused => tally.refused += 1,
                Verdict::LostAcknowledged => {
                    panic!("bit {bit} of byte {byte} of {}: acknowledged state is lost", path.display())
                }
            }
        }
    }
    println!("{tally:?}");
    tally
}

#[test]
fn after_a_clean_stop() {
    let tally = flip_all(&Small::cleanly_stopped(11));
    assert!(tally.refused > 500 && tally.same > 50 && tally.lost_unacknowledged == 0, "{tally:?}");
}

#[test]
fn after_a_kill_with_work_in_flight() {
    let mut world = World::new(12, false);
    world.run(SCRIPT).unwrap();
    world.run(&[Append(2, 200), SyncOnce, Append(1, 100)]).unwrap();
    let (disk, story, _) = world.finish();
    let tally = flip_all(&Small::new(&disk.kill(), &story));
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
    let tally = flip_all(&Small::new(&moment.disk.cut(Cut::KeepAll), &moment.story));
    assert!(tally.lost_unacknowledged > 50, "{tally:?}");
}
