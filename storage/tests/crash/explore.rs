//! Scripts crashed behind every call that changes the disk, with every outcome a power cut may have (or a sample), and
//! crashed again behind every call of the recovery that follows.

use std::collections::HashSet;

use raftmap_storage::model::{Cut, ModelFs};
use raftmap_storage::{OpenError, verify};

use crate::story::{State, place};
use crate::world::{Act, Moment, World, dir, open_and_read};
use crate::{exhaustive, sample};

use Act::*;

/// What may be found after a crash of `disk`: power cuts, also with sectors torn within, and a killed process with and
/// without its page cache.
pub(crate) fn outcomes(disk: &ModelFs, bound: u64, seed: u64) -> impl Iterator<Item = ModelFs> {
    let torn = [disk.cut(Cut::Torn(seed)), disk.cut(Cut::Torn(seed + 1))];
    disk.cuts(bound, seed).chain(torn).chain([disk.kill(), disk.kill_and_evict()])
}

/// Opens disks, remembers which it has seen, and says what is wrong in one breath with how to see it again.
pub(crate) struct Explorer {
    name: &'static str,
    seen: HashSet<([u8; 32], usize, usize)>,
    pub(crate) opened: u64,
}

impl Explorer {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, seen: HashSet::new(), opened: 0 }
    }

    fn is_new(&mut self, disk: &ModelFs, moment: &Moment) -> bool {
        self.seen.insert((disk.fingerprint(), moment.story.acked, moment.story.states.len()))
    }

    fn open(&mut self, disk: &ModelFs, moment: &Moment, when: &str) -> State {
        self.opened += 1;
        let opened = open_and_read(disk).map(|(_, state)| state);
        let placed = opened.and_then(|state| moment.story.place(&state).map(|_| state));
        placed.unwrap_or_else(|error| {
            let (name, call, act) = (self.name, moment.call, moment.act);
            panic!("{error}\n{when}, behind call {call} ({act:?})\ncargo test -p raftmap-storage --test crash {name}")
        })
    }

    /// Everything that may happen after a crash at this moment.
    pub(crate) fn crash(&mut self, moment: &Moment) {
        for disk in outcomes(&moment.disk, sample(24, 1024), moment.call) {
            if self.is_new(&disk, moment) {
                self.recover(&disk, moment);
            }
        }
    }

    /// Opens what a crash left, with a second crash behind each call of that, and with any crash thereafter.
    pub(crate) fn recover(&mut self, disk: &ModelFs, moment: &Moment) {
        let as_found = disk.kill();
        let offline = verify(disk.kill(), dir(), |_| ());
        disk.keep_photos();
        let state = self.open(disk, moment, "after a crash");
        match offline {
            Ok(sound) => {
                assert_eq!((sound.hard_state, sound.last), (state.hard_state, state.last()), "{}", self.name)
            }
            Err(OpenError::Empty { .. }) => assert_eq!(state, State::default(), "{}", self.name),
            Err(OpenError::Io { .. }) if as_found.files().is_empty() => {} // not even a directory
            Err(error) => panic!("{}: offline, behind call {}: {error}", self.name, moment.call),
        }
        for (call, photo) in disk.take_photos() {
            for again in outcomes(&photo, sample(6, 64), call) {
                if self.is_new(&again, moment) {
                    self.open(
                        &again,
                        moment,
                        &format!("after a second crash, behind call {call} of recovery"),
                    );
                }
            }
        }
        for again in outcomes(disk, sample(6, 64), 0) {
            let later = self.open(&again, moment, "after a crash behind recovery");
            assert_eq!(later, state, "{}: what was opened once did not stay", self.name);
        }
        if self.opened.is_multiple_of(7) || exhaustive() {
            self.use_it(&as_found, moment, &state);
        }
    }

    /// What was opened can be written to, and keeps what is acknowledged then.
    fn use_it(&mut self, disk: &ModelFs, moment: &Moment, state: &State) {
        let mut world =
            World::take_over(disk.clone(), state).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let used = world.run(&[Append(2, 50), Vote, Sync]);
        used.unwrap_or_else(|error| panic!("{} behind call {}: {error}", self.name, moment.call));
        for cut in [Cut::LoseAll, Cut::KeepAll, Cut::Some(moment.call)] {
            let found = open_and_read(&world.fs.cut(cut)).map(|(_, found)| found);
            let found =
                found.unwrap_or_else(|error| panic!("{} behind call {}: {error}", self.name, moment.call));
            place(&world.story.states, world.story.acked, &found).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

fn explore(name: &'static str, script: &[Act]) {
    let mut world = World::new(1, true);
    world.run(script).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (_, _, moments) = world.finish();
    let mut explorer = Explorer::new(name);
    moments.iter().for_each(|moment| explorer.crash(moment));
    println!("{name}: {} moments, {} opens", moments.len(), explorer.opened);
    assert!(moments.len() > 10 && explorer.opened > 100, "{name} explored next to nothing");
}

#[test]
fn making_the_directory() {
    explore("making_the_directory", &[Append(1, 20), Sync]);
}

#[test]
fn appends_and_votes() {
    explore(
        "appends_and_votes",
        &[Append(3, 300), Sync, Vote, Sync, Append(1, 8), Vote, Append(2, 500), SyncOnce, Sync],
    );
}

#[test]
fn truncations() {
    let script =
        [Append(5, 100), Sync, Overwrite(3), Sync, Truncate(1), Sync, Append(2, 30), Overwrite(1), Sync];
    explore("truncations", &script);
}

#[test]
fn rotations() {
    let script = [
        Append(6, 600),
        Sync,
        Append(3, 600),
        Sync,
        Overwrite(7),
        Append(4, 500),
        Sync,
        Chores,
        Append(1, 8),
        Sync,
    ];
    explore("rotations", &script);
}

#[test]
fn snapshots_and_purges() {
    let script = [
        Append(6, 500),
        Sync,
        Snapshot(2),
        Sync,
        Chores,
        Append(6, 500),
        Sync,
        Snapshot(0),
        Append(1, 8),
        Sync,
        Chores,
        Append(4, 500),
        Sync,
        Chores,
        Idle,
        Chores,
    ];
    explore("snapshots_and_purges", &script);
}

/// The segment that everything older goes for has nothing in it but an OPEN that is not synced yet.
#[test]
fn purges_right_behind_a_snapshot() {
    let script = [
        Append(3, 300),
        Sync,
        Snapshot(0),
        Sync,
        Chores,
        Append(2, 200),
        Vote,
        Snapshot(0),
        Sync,
        Chores,
        Vote,
        Sync,
    ];
    explore("purges_right_behind_a_snapshot", &script);
}

/// The power cut keeps some of the unlinked names: what is left is no gap in the log.
#[test]
fn purges_of_several_segments() {
    let script = [
        Append(4, 600),
        Append(4, 600),
        Append(5, 600),
        Sync,
        Snapshot(0),
        Sync,
        Vote,
        Sync,
        Chores,
        Append(1, 8),
        Sync,
    ];
    explore("purges_of_several_segments", &script);
}

/// A truncation is judged by the snapshot in force where it stands, not by a later one above it.
#[test]
fn snapshots_above_a_truncation() {
    let script = [
        Append(4, 50),
        Sync,
        Overwrite(2),
        Append(3, 50),
        Sync,
        Snapshot(1),
        Sync,
        Reopen,
        Vote,
        Sync,
        Reopen,
    ];
    explore("snapshots_above_a_truncation", &script);
}

/// Spares are made and segments unlinked while batches are written and synced.
#[test]
fn chores_on_another_thread() {
    let script = [
        TakeChore,
        Append(3, 600),
        SyncOnce,
        RunChore,
        Append(3, 600),
        SyncOnce,
        Chores,
        Append(2, 600),
        Sync,
        Snapshot(0),
        Sync,
        Append(2, 600),
        TakeChore,
        Sync,
        Vote,
        SyncOnce,
        RunChore,
        Append(3, 600),
        SyncOnce,
        Chores,
        Append(4, 600),
        Sync,
    ];
    explore("chores_on_another_thread", &script);
}

#[test]
fn installed_snapshots() {
    let script = [
        Append(4, 500),
        Sync,
        Install(10),
        Sync,
        Chores,
        Append(2, 200),
        Sync,
        Install(0),
        Append(7, 600),
        Sync,
        Chores,
        Truncate(3),
        Append(1, 8),
        Sync,
    ];
    explore("installed_snapshots", &script);
}

#[test]
fn reopening() {
    explore(
        "reopening",
        &[Append(2, 100), Sync, Reopen, Append(2, 100), Sync, Idle, Reopen, Reopen, Vote, Sync, Reopen],
    );
}

#[test]
fn kills_with_work_in_flight() {
    let script = [
        Append(2, 400),
        Sync,
        Append(2, 400),
        Kill,
        Append(7, 600),
        SyncOnce,
        Kill,
        Overwrite(2),
        Sync,
        Kill,
        Kill,
        Append(3, 600),
        Sync,
        Chores,
        Kill,
        Vote,
        Sync,
    ];
    explore("kills_with_work_in_flight", &script);
}

#[test]
fn power_cuts_with_work_in_flight() {
    let script = [
        Append(2, 400),
        Sync,
        Append(2, 400),
        PowerCut(1),
        Append(7, 600),
        SyncOnce,
        PowerCut(2),
        Overwrite(2),
        Sync,
        PowerCut(3),
        Snapshot(1),
        Sync,
        Chores,
        PowerCut(4),
        Append(6, 600),
        Sync,
        Chores,
        PowerCut(5),
        Vote,
        Sync,
    ];
    explore("power_cuts_with_work_in_flight", &script);
}
