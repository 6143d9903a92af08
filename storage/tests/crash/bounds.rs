//! What must not grow: the log of a crash loop, and the log of votes without entries.

use raftmap_storage::model::{Cut, ModelFs};

use crate::world::{Act, World, open_and_read, segments};

use Act::*;

fn files(fs: &ModelFs) -> Vec<Vec<u8>> {
    segments(fs).iter().map(|path| fs.peek(path).unwrap()).collect()
}

#[test]
fn a_crash_loop_leaves_the_log_as_it_is() {
    let mut world = World::new(21, false);
    world.run(&[Append(6, 500), Sync, Snapshot(2), Sync, Append(3, 100), Sync, Append(2, 100)]).unwrap();
    for crash in [ModelFs::kill, |fs: &ModelFs| fs.cut(Cut::Some(4)), |fs: &ModelFs| fs.cut(Cut::LoseAll)] {
        let mut fs = crash(&world.fs);
        let (_, state) = open_and_read(&fs).unwrap();
        let once = files(&fs);
        for life in 0..100 {
            fs = crash(&fs);
            let (_, later) = open_and_read(&fs).unwrap();
            assert_eq!(later, state);
            assert_eq!(files(&fs), once, "life {life}");
        }
    }
}

#[test]
fn votes_alone_do_not_fill_the_disk() {
    let mut world = World::new(22, false);
    world.run(&[Append(2, 100), Sync, Snapshot(0), Sync, Chores]).unwrap();
    for _ in 0..500 {
        world.run(&[Vote, Sync, Chores]).unwrap();
        assert!(world.fs.used() < 6 * 8192, "{} bytes", world.fs.used());
    }
    assert!(world.wal().stats().rotations > 5);
    let (_, state) = open_and_read(&world.fs.cut(Cut::LoseAll)).unwrap();
    world.story.place(&state).unwrap();
}

#[test]
fn truncations_alone_do_not_fill_the_disk() {
    let mut world = World::new(23, false);
    world.run(&[Append(2, 100), Sync]).unwrap();
    for round in 0..300 {
        world
            .run(&[Append(1, 8), Overwrite(1), Truncate(1), Overwrite(0), Snapshot(0), Sync, Chores])
            .unwrap();
        assert!(world.fs.used() < 6 * 8192, "{} bytes in round {round}", world.fs.used());
    }
}
