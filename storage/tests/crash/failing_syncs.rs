//! Syncs that fail, in both ways that were measured on real file systems, then crashes, also inside the recovery that
//! follows. The hard one: the cache shows bytes that the disk does not hold, and says they are clean. A recovery that
//! trusts what it reads then lets them vanish, or come back, later.

use raftmap_storage::model::{Effect, Fault, ModelFs, Op};

use crate::explore::Explorer;
use crate::sample;
use crate::world::{Act, Moment, World};

use Act::*;

const SCRIPT: &[Act] = &[
    Append(2, 300),
    Sync,
    Append(1, 8),
    Sync,
    Vote,
    Sync,
    Append(5, 500),
    Sync,
    Chores,
    Overwrite(2),
    Sync,
    Snapshot(1),
    Sync,
    Chores,
    Append(6, 600),
    Sync,
    Chores,
    Snapshot(0),
    Sync,
    Chores,
    Append(4, 500),
    Snapshot(1),
    Sync,
    Idle,
];

/// Runs the script until the `nth` call of this kind fails; `None` when there is none. What was acknowledged before
/// must survive whatever follows.
fn run(on: Op, nth: u64, effect: Effect) -> Option<Moment> {
    let fs = ModelFs::new(5);
    fs.fail(Fault { on: Some(on), after: nth, effect, lasting: false });
    let story = match World::on(fs.clone(), false) {
        Ok(mut world) => {
            let _ = world.run(SCRIPT);
            world.story
        }
        Err(_) => crate::story::Story::default(),
    };
    (fs.count(on) > nth).then_some(Moment { disk: fs, call: nth, story, act: None })
}

fn explore(name: &'static str, on: Op, effect: impl Fn(u64) -> Effect) {
    let mut explorer = Explorer::new(name);
    let mut struck = 0;
    while let Some(moment) = run(on, struck, effect(struck)) {
        // The process dies of it and comes back: its cache is the only thing it can read. Or the power goes first.
        explorer.crash(&moment);
        struck += 1;
    }
    println!("{name}: {struck} syncs, {} opens", explorer.opened);
    assert!(struck > 3, "{name} struck next to nothing");
}

#[test]
fn file_syncs_that_drop_everything() {
    explore("file_syncs_that_drop_everything", Op::SyncData, |_| Effect::SyncDropped);
}

#[test]
fn file_syncs_that_drop_some() {
    for seed in 0..sample(3, 40) {
        explore("file_syncs_that_drop_some", Op::SyncData, |nth| Effect::SyncDroppedSome(seed * 1000 + nth));
    }
}

#[test]
fn file_syncs_that_fail_with_everything_on_disk() {
    explore("file_syncs_that_fail_with_everything_on_disk", Op::SyncData, |_| Effect::SyncKept);
}

#[test]
fn directory_syncs_that_drop_everything() {
    explore("directory_syncs_that_drop_everything", Op::SyncDir, |_| Effect::SyncDropped);
}

#[test]
fn directory_syncs_that_drop_some() {
    for seed in 0..sample(3, 40) {
        explore("directory_syncs_that_drop_some", Op::SyncDir, |nth| {
            Effect::SyncDroppedSome(seed * 1000 + nth)
        });
    }
}

#[test]
fn directory_syncs_that_fail_with_everything_on_disk() {
    explore("directory_syncs_that_fail_with_everything_on_disk", Op::SyncDir, |_| Effect::SyncKept);
}
