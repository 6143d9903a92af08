//! The log with its chores on a thread of their own, as a node runs it, on real files.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::os::OsFs;
use crate::{Chore, ChoreDone};

fn is_send<T: Send>() {}

#[test]
fn the_log_and_its_chores_may_change_threads() {
    is_send::<Wal<OsFs>>();
    is_send::<Chore<OsFs>>();
    is_send::<ChoreDone<OsFs>>();
    is_send::<Wal<ModelFs>>();
    is_send::<Arc<SealedSegment>>();
}

#[test]
fn writing_goes_on_while_segments_are_made_and_unlinked() {
    let temp = tempfile::tempdir().unwrap();
    let mut log = Log::open(&OsFs, temp.path(), options()).unwrap();
    let (chores, inbox) = mpsc::channel::<Chore<OsFs>>();
    let (outbox, done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || inbox.iter().for_each(|chore| outbox.send(chore.run().unwrap()).unwrap()));
        log.hard_state(1, None);
        for round in 1..=60_u64 {
            log.entries(10, 1, 60);
            if round % 6 == 0 {
                log.snapshot(round * 10 - 20, 1, false);
            }
            while log.wal.queued() {
                let waiting = log.sync().unwrap().waiting_for_spare;
                if let Some(chore) = log.wal.next_chore() {
                    chores.send(chore).unwrap();
                }
                let finished = if waiting { done.recv().ok() } else { done.try_recv().ok() };
                finished.into_iter().for_each(|chore| log.wal.chore_done(chore).unwrap());
            }
        }
        drop(chores);
    });
    done.try_iter().for_each(|chore| log.wal.chore_done(chore).unwrap());
    log.chores();
    let names = OsFs.list(temp.path()).unwrap();
    assert!(!names.contains(&crate::segment::file_name(1)), "{names:?}");
    // The maps outlive the files.
    assert_eq!(log.older(1), entry(1, 1, 60));
    assert!(log.wal.stats().rotations > 10);
    drop(log);
    let log = Log::open(&OsFs, temp.path(), options()).unwrap();
    assert_eq!(log.all(), entries(581..=600, 1, 60));
}
