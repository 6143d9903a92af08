//! The writer: batches, rotation, purge, the latch, and a disk without space.

use super::*;
use crate::model::{Cut, Effect, Fault, Op};

#[test]
fn what_was_synced_is_read_back() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    assert!(log.recovered.fresh);
    let disk_id = log.recovered.disk_id;
    log.hard_state(3, Some(2));
    log.entries(5, 3, 20);
    let through = log.number;
    assert_eq!(log.sync().unwrap().through, Some(through));
    drop(log);

    let log = open_model(&fs.kill()).unwrap();
    assert!(!log.recovered.fresh);
    assert_eq!(log.recovered.disk_id, disk_id);
    assert_eq!(log.recovered.hard_state, HardState { term: Term(3), vote: Some(NodeId(2)) });
    assert_eq!(log.recovered.last, Position::new(5, 3));
    assert_eq!(log.recovered.tail, entries(1..=5, 3, 20));
    assert_eq!(log.recovered.log.len(), 5);
    assert!(log.recovered.log.iter().all(|meta| meta.term == Term(3) && meta.payload_len == 20));
    assert_eq!(log.recovered.dropped_tail_bytes, 0);
}

#[test]
fn nothing_that_was_acknowledged_needs_the_cache() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    for _ in 0..200 {
        log.entries(1, 1, 50);
        log.settle();
    }
    assert!(log.wal.stats().rotations > 2);
    for (number, after) in fs.cuts(64, 7).enumerate() {
        let log = open_model(&after).unwrap();
        assert_eq!(log.all(), entries(1..=200, 1, 50), "cut {number}");
    }
}

#[test]
fn batches_that_wait_together_share_one_sync() {
    let fs = ModelFs::new(1);
    let mut log = Log::open(&fs, Path::new(DIR), Options { segment_bytes: 65536, ..options() }).unwrap();
    log.hard_state(1, None);
    for _ in 0..100 {
        log.entries(1, 1, 50);
    }
    let synced = log.sync().unwrap();
    assert_eq!(synced.through, Some(101));
    assert_eq!((log.wal.stats().batches, log.wal.stats().syncs), (1, 1));
    assert!(!log.wal.queued());
}

#[test]
fn a_batch_that_does_not_fit_is_durable_with_its_last_frame() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.chores();
    log.hard_state(1, None);
    log.entries(60, 1, 60);
    let first = log.sync().unwrap();
    assert_eq!(first.through, Some(1));
    assert_eq!(first.sealed.unwrap().id(), 1);
    log.chores();
    let second = log.sync().unwrap();
    assert_eq!(second.through, Some(2));
    assert!(!log.wal.queued());
}

#[test]
fn one_write_takes_no_more_than_its_share() {
    let fs = ModelFs::new(1);
    let mut log = Log::open(&fs, Path::new(DIR), Options { batch_bytes: 300, ..options() }).unwrap();
    log.hard_state(1, None);
    log.entries(10, 1, 60); // 104 bytes each
    let steps: Vec<_> =
        std::iter::from_fn(|| log.wal.queued().then(|| log.sync().unwrap().through)).collect();
    assert_eq!(steps, [Some(1), None, None, None, Some(2)]);
}

#[test]
fn an_empty_batch_is_durable_with_those_before_it() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.push(Batch::default());
    assert_eq!(log.sync().unwrap().through, Some(1));
    log.hard_state(1, None);
    log.push(Batch::default());
    assert_eq!(log.sync().unwrap().through, Some(3));
}

/// Also where a segment is full and no spare is there.
#[test]
fn an_empty_batch_asks_the_disk_and_takes_no_room() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    let mut term = 0;
    while log.wal.room() >= crate::record::HARD_STATE_LEN {
        term += 1;
        log.hard_state(term, None);
        assert!(!log.sync().unwrap().waiting_for_spare);
    }
    let (room, syncs) = (log.wal.room(), log.wal.stats().syncs);
    log.push(Batch::default());
    assert_eq!(log.sync().unwrap().through, Some(term + 1));
    assert_eq!((log.wal.room(), log.wal.stats().syncs), (room, syncs + 1));
    assert_eq!(open_model(&fs.cut(Cut::LoseAll)).unwrap().recovered.hard_state.term, Term(term));
    fs.fail(Fault { on: Some(Op::SyncData), after: 0, effect: Effect::SyncKept, lasting: false });
    log.push(Batch::default());
    assert!(matches!(log.sync(), Err(StoreError::Io { .. })));
    assert!(matches!(log.sync(), Err(StoreError::Failed { .. })));
}

#[test]
fn without_a_spare_the_segment_is_filled_and_then_waits() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    while !log.sync().unwrap().waiting_for_spare {
        log.entries(1, 1, 60);
    }
    let (stats, room) = (log.wal.stats(), log.wal.room());
    assert!(room < 104, "{room} bytes left");
    assert!(log.wal.queued() && !log.wal.no_space());
    assert!(log.sync().unwrap().waiting_for_spare);
    assert_eq!(log.wal.stats(), stats);

    log.chores();
    log.settle();
    let count = log.last.index.0;
    drop(log);
    assert_eq!(open_model(&fs.kill()).unwrap().all(), entries(1..=count, 1, 60));
}

#[test]
fn entries_are_read_from_sealed_segments_the_newest_first() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(100, 1, 60);
    log.settle();
    log.hard_state(2, None);
    log.truncate(50, 1);
    log.entries(100, 2, 60);
    log.settle();
    assert_eq!(log.older(50), entry(50, 1, 60));
    assert_eq!(log.older(51), entry(51, 2, 60));
    assert_eq!(log.older(100), entry(100, 2, 60));

    let log = open_model(&fs.kill()).unwrap();
    let expected: Vec<Entry> = entries(1..=50, 1, 60).into_iter().chain(entries(51..=150, 2, 60)).collect();
    assert_eq!(log.all(), expected);
    let terms: Vec<u64> = log.recovered.log.iter().map(|meta| meta.term.0).collect();
    assert_eq!(terms, [vec![1; 50], vec![2; 100]].concat());
}

#[test]
fn a_segment_does_not_give_what_it_does_not_hold_or_what_has_changed() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(100, 1, 60);
    log.settle();
    drop(log);
    let fs = fs.kill();
    let log = open_model(&fs).unwrap();
    let first = &log.sealed[0];
    let absent = Index(first.last().0 + 1);
    assert!(matches!(first.entry(absent), Err(crate::ReadError::Absent { index, .. }) if index == absent));
    assert!(matches!(first.entry(Index(0)), Err(crate::ReadError::Absent { .. })));

    // The model's maps are copies: damage one in memory.
    let file = fs.peek(&segment(1)).unwrap();
    let at = file.windows(3).position(|bytes| bytes == b"7@1").unwrap();
    let mut damaged = file;
    damaged[at] ^= 1;
    let header = crate::segment::Header::decode(&damaged[..4096]).unwrap();
    let mut table = crate::sealed::Table::default();
    table.push(Index(7), at as u64 - 40);
    let seed = crate::record::Seed::new(&header);
    let segment = SealedSegment::new(segment(1), 1, seed, table, damaged.into());
    match segment.entry(Index(7)) {
        Err(crate::ReadError::Damaged(damage)) => {
            assert_eq!((damage.offset, damage.entry), (at as u64 - 40, Some(Position::new(7, 1))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_lets_whole_segments_go() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    let mut most = 0;
    for round in 1..=30 {
        log.entries(50, 1, 60);
        log.settle();
        log.snapshot(round * 50 - 3, 1, false);
        log.settle();
        log.wal.idle().unwrap();
        log.chores();
        most = most.max(segments(&fs).len());
        assert_eq!(log.wal.disk_bytes(), {
            let snapshot =
                log.fs.peek(&Path::new(DIR).join(snapshot::file_name(Position::new(round * 50 - 3, 1))));
            segments(&fs).len() as u64 * 8192 + snapshot.unwrap().len() as u64
        });
    }
    assert!(most <= 5, "{most} segments");
    let snapshots = fs.list(Path::new(DIR)).unwrap().iter().filter(|name| name.starts_with("snap-")).count();
    assert_eq!(snapshots, 1);
    assert!(log.wal.log_bytes() < 4 * 4096, "{}", log.wal.log_bytes());
    drop(log);
    let log = open_model(&fs.kill()).unwrap();
    assert_eq!(log.recovered.snapshot.unwrap().position, Position::new(1497, 1));
    assert_eq!(log.all(), entries(1498..=1500, 1, 60));
}

#[test]
fn hard_states_alone_do_not_grow_the_directory() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    for term in 1..=1000 {
        log.hard_state(term, Some(1));
        log.settle();
        assert!(segments(&fs).len() <= 4);
    }
    assert!(log.wal.stats().rotations > 5);
    drop(log);
    let log = open_model(&fs.kill()).unwrap();
    assert_eq!(log.recovered.hard_state, HardState { term: Term(1000), vote: Some(NodeId(1)) });
}

#[test]
fn a_segment_goes_only_when_the_next_open_is_durable() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.chores();
    log.hard_state(1, None);
    while log.sync().unwrap().sealed.is_none() {
        let term = log.number;
        log.hard_state(term, None);
    }
    // OPEN of segment 2 is written and not synced: a power cut now leaves segment 1 alone to begin the log.
    log.chores();
    assert_eq!(segments(&fs), [1, 2, 3]);
    for after in fs.cuts(64, 1) {
        open_model(&after).unwrap();
    }
    log.wal.idle().unwrap();
    log.chores();
    assert_eq!(segments(&fs), [2, 3]);
}

#[test]
fn an_installed_snapshot_empties_the_log() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(4, None);
    log.entries(60, 2, 60);
    log.snapshot(1000, 3, true);
    log.settle();
    log.entries(3, 4, 60);
    log.settle();
    drop(log);
    let log = open_model(&fs.kill()).unwrap();
    assert_eq!(log.recovered.snapshot.unwrap().position, Position::new(1000, 3));
    assert_eq!(log.recovered.last, Position::new(1003, 4));
    assert_eq!(log.all(), entries(1001..=1003, 4, 60));
    assert_eq!(log.recovered.log.len(), 3);
}

#[test]
fn a_reset_may_go_back_to_where_the_log_differed() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(4, None);
    log.entries(60, 2, 60);
    log.snapshot(30, 3, true);
    log.entries(2, 4, 60);
    log.settle();
    let log = open_model(&fs.kill()).unwrap();
    assert_eq!(log.recovered.last, Position::new(32, 4));
    assert_eq!(log.all(), entries(31..=32, 4, 60));
}

#[test]
fn a_batch_that_does_not_follow_is_refused_whole() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(2, Some(1));
    log.entries(3, 2, 10);
    log.settle();
    let snapshot = publish(&fs, Path::new(DIR), 3, 2);
    let mark = |position, reset| Some(SnapshotMark { snapshot: SnapshotId { position, ..snapshot }, reset });
    let hard_state = |term, vote: Option<u64>| Some(HardState { term: Term(term), vote: vote.map(NodeId) });
    let refused = [
        Batch { hard_state: hard_state(1, None), ..Batch::default() },
        Batch { hard_state: hard_state(2, Some(2)), ..Batch::default() },
        Batch { hard_state: hard_state(2, None), ..Batch::default() },
        Batch { truncate: Some(Position::new(4, 2)), ..Batch::default() },
        Batch { truncate: Some(Position::new(3, 1)), ..Batch::default() },
        Batch { truncate: Some(Position::new(2, 3)), ..Batch::default() },
        Batch { entries: vec![entry(5, 2, 1)], ..Batch::default() },
        Batch { entries: vec![entry(4, 2, 1), entry(4, 2, 1)], ..Batch::default() },
        Batch { entries: vec![entry(4, 1, 1)], ..Batch::default() },
        Batch { entries: vec![entry(4, 3, 1)], ..Batch::default() },
        Batch { snapshot: mark(Position::new(4, 2), false), ..Batch::default() },
        Batch { snapshot: mark(Position::new(3, 1), false), ..Batch::default() },
        Batch { snapshot: mark(Position::new(4, 3), true), ..Batch::default() },
        Batch { snapshot: mark(Position::new(0, 0), true), ..Batch::default() },
    ];
    for batch in refused {
        let error = log.wal.push(9, batch.clone()).unwrap_err();
        assert!(matches!(error, StoreError::OutOfOrder { number: 9, .. }), "{batch:?}: {error}");
        assert!(!log.wal.queued());
    }
    let batch = Batch { entries: vec![entry(4, 2, PAYLOAD_MAX as usize + 1)], ..Batch::default() };
    let error = log.wal.push(9, batch).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { index: Index(4), len: 1025, max: 1024 }), "{error}");
    log.entries(1, 2, PAYLOAD_MAX as usize);
    log.settle();
    // Below the snapshot in force there is no way back.
    log.snapshot(3, 2, false);
    let batch = Batch { truncate: Some(Position::new(2, 2)), ..Batch::default() };
    assert!(matches!(log.wal.push(9, batch), Err(StoreError::OutOfOrder { .. })));
}

#[test]
fn the_first_failed_write_or_sync_is_final() {
    for (on, effect) in [
        (Op::SyncData, Effect::SyncDropped),
        (Op::SyncData, Effect::SyncKept),
        (Op::SyncData, Effect::Enospc),
        (Op::WriteAt, Effect::Eio),
        (Op::WriteAt, Effect::Enospc),
    ] {
        let fs = ModelFs::new(1);
        let mut log = open_model(&fs).unwrap();
        log.hard_state(1, None);
        log.settle();
        fs.fail(Fault { on: Some(on), after: 0, effect, lasting: false });
        log.entries(1, 1, 10);
        assert!(matches!(log.sync(), Err(StoreError::Io { .. })), "{effect:?}");
        // The disk works again, and that changes nothing.
        assert!(matches!(log.sync(), Err(StoreError::Failed { .. })));
        assert!(matches!(log.wal.idle(), Err(StoreError::Failed { .. })));
        assert!(matches!(log.wal.push(9, Batch::default()), Err(StoreError::Failed { .. })));
        assert!(log.wal.next_chore().is_none());
    }
}

#[test]
fn a_failed_chore_fails_the_log() {
    for (on, effect) in
        [(Op::SyncDir, Effect::Eio), (Op::SyncDir, Effect::Enospc), (Op::Persist, Effect::Eio)]
    {
        let fs = ModelFs::new(1);
        let mut log = open_model(&fs).unwrap();
        log.hard_state(1, None);
        let chore = log.wal.next_chore().unwrap();
        assert!(log.wal.next_chore().is_none(), "one at a time");
        fs.fail(Fault { on: Some(on), after: 0, effect, lasting: false });
        assert!(matches!(chore.run(), Err(StoreError::Io { .. })), "{on:?}");
        assert!(matches!(log.sync(), Err(StoreError::Failed { .. })), "{on:?}");
    }
}

#[test]
fn want_of_space_is_told_and_passes() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.chores();
    fs.set_quota(Some(fs.used() + 100));
    log.hard_state(1, None);
    log.settle();
    assert!(!log.wal.no_space(), "a spare is left");
    while log.sync().unwrap().sealed.is_none() {
        log.entries(1, 1, 60);
    }
    log.chores();
    assert!(log.wal.no_space(), "the last spare is in use");
    assert!(log.wal.next_chore().is_none(), "not tried again at once");
    // What is left of the segment can be used, for hard states above all.
    let room = log.wal.room();
    log.hard_state(2, Some(1));
    assert!(!log.sync().unwrap().waiting_for_spare);
    assert!(log.wal.room() < room);
    while !log.sync().unwrap().waiting_for_spare {
        log.entries(1, 2, 60);
    }
    log.wal.retry_spare();
    log.chores();
    assert!(log.wal.no_space());

    fs.set_quota(None);
    log.wal.retry_spare();
    log.chores();
    assert!(!log.wal.no_space());
    log.settle();
    let last = log.last;
    drop(log);
    assert_eq!(open_model(&fs.kill()).unwrap().recovered.last, last);
}

#[test]
fn space_that_ends_in_the_middle_of_a_spare_does_not_fail_the_log() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    fs.fail(Fault { on: Some(Op::WriteAt), after: 1, effect: Effect::Enospc, lasting: false });
    log.chores();
    assert!(log.wal.no_space());
    let files = fs.list(Path::new(DIR)).unwrap();
    assert!(!files.iter().any(|name| name.starts_with("tmp-")), "{files:?}");
    log.hard_state(1, None);
    log.settle();
    log.wal.retry_spare();
    log.chores();
    assert!(!log.wal.no_space());
}

#[test]
fn a_quiet_log_makes_its_witness_durable_once() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.settle();
    assert_eq!(log.wal.stats().idle_syncs, 0);
    log.wal.idle().unwrap();
    log.wal.idle().unwrap();
    assert_eq!(log.wal.stats().idle_syncs, 1);
    let disk = fs.cut(crate::model::Cut::LoseAll);
    assert_eq!(frames(&disk), frames(&fs));
}

#[test]
fn the_witness_stands_in_the_file_before_anybody_hears() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.chores();
    log.hard_state(1, None);
    for _ in 0..100 {
        log.entries(1, 1, 60);
        let sealed = log.sync().unwrap().sealed.is_some();
        let (segment, offset, kind, durable) = *frames(&fs).last().unwrap();
        assert_eq!(kind, if sealed { "OPEN" } else { "SYNCED" });
        if !sealed {
            assert_eq!(durable, crate::Lsn::new(segment, offset), "all before it");
        }
        log.chores();
    }
}

#[test]
fn segments_are_a_quarter_of_the_bound_and_hold_the_largest_entry() {
    let check = |bound, payload_max, bytes| assert_eq!(crate::segment_bytes(bound, payload_max), bytes);
    check(Some(1000), 1024, 64 << 10);
    check(Some(1 << 20), 1024, 256 << 10);
    check(Some(64 << 20), 1 << 20, 16 << 20);
    check(None, 1 << 20, 16 << 20);
    check(Some(1000), 1 << 20, (1 << 20) + 8192);
    for payload_max in [0, 1, 1 << 20, 256 << 20] {
        let options = Options::new(Some(1000), payload_max);
        assert!(options.validate().is_ok(), "{payload_max}");
    }
    for wrong in [
        Options { spares: 0, ..options() },
        Options { spares: 9, ..options() },
        Options { segment_bytes: 4096, ..options() },
        Options { segment_bytes: 8193, ..options() },
        Options { segment_bytes: 1 << 31, ..options() },
        Options { payload_max: u32::MAX, ..options() },
    ] {
        assert!(matches!(wrong.validate(), Err(OpenError::Options { .. })), "{wrong:?}");
    }
}

#[test]
fn the_largest_entry_fits_into_the_smallest_segment() {
    for len in PAYLOAD_MAX as usize - 16..=PAYLOAD_MAX as usize {
        let fs = ModelFs::new(1);
        let bytes = crate::segment::capacity_for(PAYLOAD_MAX);
        let mut log = Log::open(&fs, Path::new(DIR), Options { segment_bytes: bytes, ..options() }).unwrap();
        log.hard_state(1, None);
        for _ in 0..12 {
            log.entries(1, 1, len);
            log.settle();
        }
        drop(log);
        assert_eq!(open_model(&fs.kill()).unwrap().all(), entries(1..=12, 1, len));
    }
}

/// Whoever waits for space tries again as soon as old segments were unlinked.
#[test]
fn a_purge_makes_room_to_try_again() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.settle();
    log.chores();
    fs.set_quota(Some(fs.used() + 500));
    for _ in 0..200 {
        if log.sync().unwrap().sealed.is_some() {
            break;
        }
        log.entries(1, 1, 60);
    }
    log.chores();
    assert!(log.wal.no_space(), "the last spare is in use");
    let before = segments(&fs).len();
    let last = log.last.index.0;
    fs.set_quota(Some(fs.used() + 1_000));
    log.snapshot(last, 1, false);
    let _ = log.sync().unwrap();
    log.chores();
    assert!(!log.wal.no_space() && !segments(&fs).contains(&1), "{before}, now {:?}", segments(&fs));
}

#[test]
fn a_file_to_be_removed_may_be_gone_and_may_not_refuse() {
    for (effect, fails) in [(None, false), (Some(Effect::Eio), true)] {
        let fs = ModelFs::new(1);
        let mut log = open_model(&fs).unwrap();
        log.hard_state(1, None);
        log.entries(120, 1, 60);
        log.settle();
        log.snapshot(100, 1, false);
        let _ = log.sync().unwrap();
        // What can be removed comes before what can be made.
        let chore = log.wal.next_chore().unwrap();
        match effect {
            // Removed by somebody else already.
            None => fs.delete(&segment(1)),
            Some(effect) => fs.fail(Fault { on: Some(Op::Remove), after: 0, effect, lasting: false }),
        }
        assert_eq!(chore.run().is_err(), fails, "{effect:?}");
        assert_eq!(segments(&fs).contains(&2), fails, "{effect:?}");
    }
}
