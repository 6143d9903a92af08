//! Every call of a script fails once, in every way a call fails: the log latches or has room to go on, nothing panics,
//! and after the crash nothing acknowledged is missing.

use raftmap_storage::model::{Cut, Effect, ModelFs};
use raftmap_storage::types::Batch;

use crate::explore::outcomes;
use crate::sample;
use crate::story::{State, Story};
use crate::world::{Act, World, open_and_read, try_open};

use Act::*;

const SCRIPT: &[Act] = &[
    Append(3, 500),
    Sync,
    Chores,
    Overwrite(1),
    Append(6, 600),
    Sync,
    Snapshot(1),
    Sync,
    Chores,
    Append(5, 600),
    Sync,
    Chores,
    Idle,
    Reopen,
    Install(5),
    Append(2, 300),
    Sync,
    Chores,
];

const EFFECTS: [Effect; 6] = [
    Effect::Eio,
    Effect::Enospc,
    Effect::Short,
    Effect::SyncDropped,
    Effect::SyncDroppedSome(9),
    Effect::SyncKept,
];

/// Runs the script with the `nth` call failing. `None` where the fault struck nothing any more.
fn run(nth: u64, effect: Effect) -> Option<(ModelFs, World)> {
    let fs = ModelFs::new(1);
    fs.fail_nth(nth, effect);
    let mut world = match World::on(fs.clone(), false) {
        Ok(world) => world,
        Err(_) => {
            fs.heal();
            World::on(fs.kill(), false)
                .unwrap_or_else(|error| panic!("{effect:?} at call {nth}, then opened: {error}"))
        }
    };
    let calls = fs.calls();
    for act in SCRIPT {
        if world.act(*act).is_err() {
            check_latch(&mut world, *act, nth, effect);
            break;
        }
    }
    (calls.max(fs.calls()) > nth).then_some((fs, world))
}

/// A log that answered a sync or a chore with an error answers everything with one.
fn check_latch(world: &mut World, act: Act, nth: u64, effect: Effect) {
    world.fs.heal();
    match act {
        Sync | SyncOnce | Chores | RunChore | Idle => {
            let wal = world.wal();
            let pushed = wal.push(u64::MAX, Batch::default());
            let all =
                pushed.is_err() && wal.sync().is_err() && wal.idle().is_err() && wal.next_chore().is_none();
            assert!(all, "{effect:?} at call {nth}: {act:?} failed, and the log goes on");
        }
        Append(..) | Vote | Overwrite(_) | Truncate(_) | Snapshot(_) | Install(_) => {}
        TakeChore | Reopen | Kill | PowerCut(_) => {}
    }
}

/// What opens, which is a state of the story.
fn open_placed(disk: &ModelFs, story: &Story, when: &str) -> State {
    let opened = open_and_read(disk).map(|(_, state)| state);
    let placed = opened.and_then(|state| story.place(&state).map(|_| state));
    placed.unwrap_or_else(|error| panic!("{when}: {error}\nacknowledged: {}", story.acked))
}

fn check(nth: u64, effect: Effect) -> bool {
    let Some((_, world)) = run(nth, effect) else { return false };
    let (story, disk) = (world.story, world.fs);
    for after in outcomes(&disk, sample(6, 256), nth) {
        let when = format!("{effect:?} at call {nth}, then a crash");
        let state = open_placed(&after, &story, &when);
        for again in [after.cut(Cut::LoseAll), after.cut(Cut::KeepAll), after.kill_and_evict()] {
            let later = open_placed(&again, &story, &when);
            assert_eq!(later, state, "{when}: what was opened once did not stay");
        }
    }
    true
}

fn check_every_call(effects: &[Effect]) {
    for effect in effects {
        let struck = (0..).take_while(|nth| check(*nth, *effect)).count();
        assert!(struck > 60, "{effect:?} struck {struck} calls only");
    }
}

#[test]
fn every_call_answers_eio() {
    check_every_call(&EFFECTS[..1]);
}

#[test]
fn every_call_answers_enospc() {
    check_every_call(&EFFECTS[1..2]);
}

#[test]
fn every_call_is_short() {
    check_every_call(&EFFECTS[2..3]);
}

#[test]
fn every_sync_fails_in_each_way() {
    check_every_call(&EFFECTS[3..]);
}

/// Opening fails at each of its calls: it says so, and opening again finds everything.
#[test]
fn every_call_of_opening_fails() {
    let mut world = World::new(3, false);
    world
        .run(&[Append(6, 600), Sync, Snapshot(2), Sync, Chores, Append(5, 600), Sync, Append(1, 30)])
        .unwrap();
    let (story, disk) = (world.story, world.fs);
    for start in [disk.kill(), disk.cut(Cut::LoseAll), disk.cut(Cut::KeepAll), disk.cut(Cut::Some(1))] {
        for effect in EFFECTS {
            for nth in 0.. {
                let fs = start.kill();
                fs.fail_nth(nth, effect);
                let opened = try_open(&fs).map(|_| ());
                if fs.calls() <= nth {
                    break;
                }
                fs.heal();
                for after in [fs.kill(), fs.kill_and_evict(), fs.cut(Cut::LoseAll), fs.cut(Cut::Some(nth))] {
                    let when = format!("{effect:?} at call {nth} of opening ({opened:?}), opened again");
                    open_placed(&after, &story, &when);
                }
            }
        }
    }
}

/// Without space for spares the log says so, does not latch, and goes on when there is some.
#[test]
fn space_may_run_out_and_come_back() {
    for quota in (9_000..40_000).step_by(500) {
        let fs = ModelFs::new(1);
        fs.set_quota(Some(quota));
        let Ok(mut world) = World::on(fs.clone(), false) else {
            fs.set_quota(None);
            World::on(fs, false).unwrap_or_else(|error| panic!("quota {quota}, then none: {error}"));
            continue;
        };
        let mut full = false;
        for _ in 0..30 {
            full |= world.run(&[Append(1, 600), Sync]).is_err();
            if full {
                break;
            }
        }
        assert!(full, "quota {quota} was never met");
        let after = world.fs.cut(Cut::Some(quota));
        let (_, state) = open_and_read(&after).unwrap_or_else(|error| panic!("quota {quota}: {error}"));
        world.story.place(&state).unwrap_or_else(|error| panic!("quota {quota}: {error}"));
        fs.set_quota(None);
        let went_on = world.run(&[Idle, Chores, Sync, Append(2, 600), Sync]);
        went_on.unwrap_or_else(|error| panic!("quota {quota}, then none: {error}"));
    }
}
