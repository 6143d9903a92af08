//! The log on a model disk: opening whatever a directory holds, and living through any steps and crashes.

use raftmap_storage::Options;
use raftmap_storage::fuzz_targets;
use raftmap_storage::model::{Cut, Effect, Fault, ModelFs, Op};

use crate::input::Input;
use crate::memory;
use crate::world::{Act, World, open_and_read_with, options};

/// Steps of one input.
const ACTS_MAX: usize = 24;
/// An input of some hundred steps: its disk, the disk's copies, and every state that its log was in.
const MEMORY: usize = 32 * 1024 * 1024;

/// See [`fuzz_targets::record`]. What it makes is the file once more, with one frame sealed, and each frame again.
pub(crate) fn record(data: &[u8]) {
    memory::within(4 * data.len() + memory::SLACK, "a file's frames", || fuzz_targets::record(data));
}

/// See [`fuzz_targets::wal_open`]. Memory is held against the size of the directory.
pub(crate) fn wal_open(data: &[u8]) {
    let (bytes, taken) = memory::taken(|| fuzz_targets::wal_open(data));
    let bound = fuzz_targets::memory_bound(bytes);
    assert!(taken as u64 <= bound, "{taken} bytes of heap for {bytes} bytes of files, {bound} are allowed");
}

/// Steps, faults and crashes beside a story that knows what must be there: what opens is a state that the log was once
/// in, no older than the last acknowledged one, and stays.
///
/// Input: the options, then a byte for each step and one or more for its numbers.
pub(crate) fn wal_ops(data: &[u8]) {
    memory::within(MEMORY, "a log's life", || live(Input::new(data)))
        .unwrap_or_else(|error| panic!("{error}"));
}

fn live(mut input: Input<'_>) -> Result<(), String> {
    let wide = Options { segment_bytes: 16384, payload_max: 5000, spares: 2, batch_bytes: 8192 };
    let chosen = if input.yes() { wide } else { options() };
    let mut world = World::with(ModelFs::new(1), chosen, false)?;
    let mut acts = 0;
    while !input.is_empty() && acts < ACTS_MAX {
        acts += 1;
        match input.byte() % 32 {
            0..=1 => world.fs.fail(fault(&mut input)),
            2..=4 => crash(&mut world, &mut input)?,
            number => {
                let act = act(number, &mut input, chosen.payload_max);
                // A log that failed takes nothing more: only a crash helps.
                if world.act(act).is_err() {
                    crash(&mut world, &mut input)?;
                }
            }
        }
    }
    crash(&mut world, &mut input)
}

fn act(number: u8, input: &mut Input<'_>, payload_max: u32) -> Act {
    match number {
        5..=12 => Act::Append(1 + input.below(6), size(input, payload_max)),
        13 => Act::Append(1 + input.below(12), 600),
        14 => Act::Vote,
        15 => Act::Overwrite(input.below(6)),
        16 => Act::Truncate(input.below(4)),
        17 => Act::Snapshot(input.below(3)),
        18 => Act::Install(input.below(20) as u64),
        19..=22 => Act::Sync,
        23 => Act::SyncOnce,
        24 => Act::Chores,
        25 => Act::Idle,
        26 => Act::Reopen,
        27..=28 => Act::TakeChore,
        29..=30 => Act::RunChore,
        _ => Act::Kill,
    }
}

/// Often one of a few, so that one frame stands exactly where another one stood before.
fn size(input: &mut Input<'_>, payload_max: u32) -> usize {
    let sizes = [0, 40, 472, 600, 4056, payload_max as usize, usize::from(input.byte()) * 3];
    sizes[input.below(sizes.len())].min(payload_max as usize)
}

fn fault(input: &mut Input<'_>) -> Fault {
    let effect = match input.below(6) {
        0 => Effect::Eio,
        1 => Effect::Enospc,
        2 => Effect::Short,
        3 => Effect::SyncDropped,
        4 => Effect::SyncDroppedSome(u64::from(input.byte())),
        _ => Effect::SyncKept,
    };
    let on = [None, Some(Op::SyncDir), Some(Op::SyncData), Some(Op::SyncData)][input.below(4)];
    Fault { on, after: input.below(12) as u64, effect, lasting: false }
}

/// A crash with any subset of what was not synced, perhaps one more in the middle of the recovery, and a recovery that
/// gets through. What was opened stays, whatever happens before the next write.
fn crash(world: &mut World, input: &mut Input<'_>) -> Result<(), String> {
    world.fs.heal();
    let mut fs = crashed(&world.fs, input);
    if input.below(4) == 1 {
        fs.fail(fault(input));
        let _struck_or_not = open_and_read_with(&fs, world.options);
        fs.heal();
        fs = crashed(&fs, input);
    }
    world.recover_on(fs)?;
    let (_, state) = open_and_read_with(&crashed(&world.fs, input), world.options)?;
    match &state == world.story.now() {
        true => Ok(()),
        false => {
            Err(format!("what was opened did not stay\nopened: {:?}\nthen: {state:?}", world.story.now()))
        }
    }
}

fn crashed(fs: &ModelFs, input: &mut Input<'_>) -> ModelFs {
    match input.below(8) {
        0 => fs.kill(),
        1 => fs.kill_and_evict(),
        2 => fs.cut(Cut::LoseAll),
        3 => fs.cut(Cut::KeepAll),
        4 => fs.cut(Cut::Torn(u64::from(input.u16()))),
        _ => fs.cut(Cut::Some(u64::from(input.u16()))),
    }
}
