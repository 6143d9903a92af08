//! Opening again: after kills, in the middle of things, a thousand times, and by others.

use super::*;
use crate::os::{OsFs, lock_holder};

#[test]
fn a_thousand_restarts_do_not_grow_the_directory() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(100, 1, 60);
    log.settle();
    drop(log);
    let (mut fs, expected) = (fs.kill(), entries(1..=100, 1, 60));
    let mut settled = None;
    for restart in 0..1000 {
        let mut log = open_model(&fs).unwrap();
        if restart % 50 == 0 {
            assert_eq!(log.all(), expected);
        }
        if restart % 3 == 0 {
            log.chores();
        }
        drop(log);
        fs = match restart % 2 {
            0 => fs.kill(),
            _ => fs.cut(crate::model::Cut::Some(restart)),
        };
        let now = (fs.used(), frames(&fs).len());
        assert!(restart < 4 || settled == Some(now), "restart {restart}: {now:?} after {settled:?}");
        settled = Some(now);
    }
}

#[test]
fn a_thousand_restarts_with_a_vote_each_stay_within_a_few_segments() {
    let mut fs = ModelFs::new(1);
    for term in 1..=1000 {
        let mut log = open_model(&fs).unwrap();
        assert_eq!(log.recovered.hard_state.term, Term(term - 1));
        log.hard_state(term, Some(1));
        log.settle();
        log.chores();
        drop(log);
        fs = fs.cut(crate::model::Cut::Some(term));
        assert!(fs.used() <= 5 * 8192, "{} bytes after {term} restarts", fs.used());
    }
}

#[test]
fn restarts_on_real_files() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("some/where");
    let mut log = Log::open(&OsFs, &dir, options()).unwrap();
    log.hard_state(1, None);
    log.entries(150, 1, 60);
    log.settle();
    log.snapshot(60, 1, false);
    log.settle();
    log.wal.idle().unwrap();
    log.chores();
    assert_eq!(log.older(61), entry(61, 1, 60));
    drop(log);
    for _ in 0..20 {
        let log = Log::open(&OsFs, &dir, options()).unwrap();
        assert_eq!(log.all(), entries(61..=150, 1, 60));
    }
    let mut files = Vec::new();
    let summary = crate::verify(OsFs, &dir, |finding| files.push(finding)).unwrap();
    assert_eq!(summary.last, Position::new(150, 1));
    assert!(files.len() >= 3, "{files:?}");
}

#[test]
fn a_directory_is_held_once_and_the_holder_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let log = Log::open(&OsFs, temp.path(), options()).unwrap();
    let begin = std::time::Instant::now();
    let pid = std::process::id();
    for refused in [
        Log::open(&OsFs, temp.path(), options()).err().unwrap(),
        crate::verify(OsFs, temp.path(), |_| {}).unwrap_err(),
    ] {
        assert!(matches!(refused, OpenError::InUse { pid: Some(holder), .. } if holder == pid), "{refused}");
        assert!(refused.to_string().contains(&pid.to_string()), "{refused}");
    }
    assert_eq!(lock_holder(temp.path()), Some(pid));
    assert_eq!(lock_holder(&temp.path().join("none")), None);
    // A quarter of a second each; the rest is for a busy machine.
    assert!(begin.elapsed().as_millis() < 3000, "{:?}", begin.elapsed());
    drop(log);
    Log::open(&OsFs, temp.path(), options()).unwrap();
}

#[test]
fn a_chore_that_is_still_out_keeps_the_directory() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    let chore = log.wal.next_chore().unwrap();
    drop(log);
    assert!(matches!(open_model(&fs), Err(OpenError::InUse { .. })));
    let _done = chore.run().unwrap();
    open_model(&fs).unwrap();
}

#[test]
fn another_members_directory_is_refused_and_both_are_named() {
    let fs = ModelFs::new(1);
    drop(open_model(&fs).unwrap());
    for other in
        [Identity { node: NodeId(2), ..IDENTITY }, Identity { cluster: ClusterId([0xC2; 16]), ..IDENTITY }]
    {
        let error = open(fs.clone(), Path::new(DIR), other, options()).err().unwrap();
        assert!(matches!(error, OpenError::WrongIdentity { .. }));
        let text = error.to_string();
        for part in
            ["node 1", &CLUSTER.to_string(), &format!("node {}", other.node), &other.cluster.to_string()]
        {
            assert!(text.contains(part), "{text}");
        }
    }
    open_model(&fs).unwrap();
}

/// A log with acknowledged entries 1..=3, and where a batch that nobody acknowledged begins.
fn with_unacknowledged_batch() -> (ModelFs, usize, Vec<u8>) {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(3, 1, 33);
    log.settle();
    let begin = log.wal.durable().offset() as usize + crate::record::SYNCED_LEN as usize;
    log.hard_state(2, Some(1));
    log.entries(3, 2, 33);
    log.settle();
    let synced = log.wal.durable().offset() as usize;
    drop(log);
    // Its own SYNCED was never written.
    let mut bytes = fs.peek(&segment(1)).unwrap();
    bytes[synced..].fill(0);
    (fs.kill(), begin, bytes[..synced].to_vec())
}

#[test]
fn a_torn_batch_is_cut_at_every_byte() {
    let (fs, begin, whole) = with_unacknowledged_batch();
    for behind in [0_u8, 0xA5] {
        for cut in begin..=whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(whole.len() + 64, behind);
            bytes.resize(8192, 0);
            fs.put(&segment(1), bytes);
            let log = open_model(&fs).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            let all = log.all();
            assert_eq!(all[..3], entries(1..=3, 1, 33), "cut at {cut}");
            assert_eq!(all[3..], entries(4..=6, 2, 33)[..all.len() - 3], "cut at {cut}");
            assert!(cut < whole.len() || all.len() == 6);
            let lost = whole.len() > cut || behind != 0;
            assert!(log.recovered.dropped_tail_bytes > 0 || !lost || all.len() == 6 || behind == 0);
            drop(log);
            // What was cut stays cut, whatever comes behind.
            let mut again = open_model(&fs).unwrap();
            assert_eq!(again.all(), all, "cut at {cut}");
            assert_eq!(again.recovered.dropped_tail_bytes, 0);
            again.hard_state(9, None);
            again.entries(1, 9, 7);
            again.settle();
            drop(again);
            let last = open_model(&fs).unwrap();
            assert_eq!(last.all()[..all.len()], all);
            assert_eq!(last.recovered.tail.last().unwrap().position.term, Term(9));
        }
    }
}

#[test]
fn a_torn_batch_with_any_hole_keeps_what_was_acknowledged() {
    let (fs, begin, whole) = with_unacknowledged_batch();
    for hole in (begin..whole.len()).step_by(8) {
        for len in [8, 64, 256] {
            let mut bytes = whole.clone();
            let end = whole.len().min(hole + len);
            bytes[hole..end].fill(0);
            bytes.resize(8192, 0);
            fs.put(&segment(1), bytes);
            let log = open_model(&fs).unwrap_or_else(|error| panic!("hole at {hole}: {error}"));
            assert_eq!(log.all()[..3], entries(1..=3, 1, 33), "hole at {hole}");
        }
    }
}

#[test]
fn what_was_dropped_never_comes_back() {
    let (fs, begin, mut whole) = with_unacknowledged_batch();
    // Entry 5 is torn, entry 6 is whole on the disk behind it.
    let torn = begin + 56 + 80;
    whole[torn] ^= 0xFF;
    whole.resize(8192, 0);
    fs.put(&segment(1), whole);
    let mut log = open_model(&fs).unwrap();
    assert_eq!(log.recovered.last, Position::new(4, 2));
    // Of the same length as the entry that was dropped: frames behind it would stand in the right place.
    log.entries(1, 2, 33);
    log.settle();
    drop(log);
    for after in fs.cuts(32, 3) {
        assert_eq!(open_model(&after).unwrap().recovered.last, Position::new(5, 2));
    }
}

#[test]
fn a_making_that_was_interrupted_starts_over() {
    let fs = ModelFs::new(1);
    fs.keep_photos();
    drop(open_model(&fs).unwrap());
    for (call, photo) in fs.take_photos() {
        for after in photo.cuts(32, call).chain([photo.kill()]) {
            let log = open_model(&after).unwrap_or_else(|error| panic!("after call {call}: {error}"));
            assert_eq!(log.recovered.last, Position::ZERO);
            drop(log);
            assert!(!open_model(&after).unwrap().recovered.fresh);
        }
    }
}

#[test]
fn unfinished_files_go_and_unknown_ones_stay() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.settle();
    drop(log);
    let foreign = ["notes.txt", "seg-1.wal", "seg-0000000000000001.wal.bak", "snap-1.snap", "lost+found"];
    for name in foreign.iter().chain(&["tmp-abc"]) {
        fs.put(&Path::new(DIR).join(name), b"something".to_vec());
    }
    let log = open_model(&fs).unwrap();
    assert_eq!(log.recovered.hard_state.term, Term(1));
    let names = fs.list(Path::new(DIR)).unwrap();
    for name in foreign {
        assert!(names.iter().any(|there| there == name), "{name}");
    }
    assert!(!names.iter().any(|name| name.starts_with("tmp-")), "{names:?}");
}

#[test]
fn files_left_over_from_a_purge_are_not_a_gap() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(200, 1, 60);
    log.settle();
    let old: Vec<_> = [1, 3].iter().map(|&id| (segment(id), fs.peek(&segment(id)).unwrap())).collect();
    log.snapshot(200, 1, false);
    log.settle();
    while segments(&fs)[0] <= 4 {
        log.hard_state(1, None);
        log.settle();
        log.wal.idle().unwrap();
        log.chores();
    }
    drop(log);
    let orphan = publish(&fs, Path::new(DIR), 100, 1);
    for (path, bytes) in old {
        fs.put(&path, bytes);
    }
    let log = open_model(&fs).unwrap();
    assert_eq!(log.recovered.last, Position::new(200, 1));
    let names = fs.list(Path::new(DIR)).unwrap();
    assert!(!names.contains(&snapshot::file_name(orphan.position)));
    assert!(segments(&fs)[0] > 4);
}

#[test]
fn other_options_are_taken_up_with_the_next_segment() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(20, 1, 60);
    log.settle();
    log.chores();
    drop(log);
    let larger = Options { segment_bytes: 65536, payload_max: 50_000, ..options() };
    let mut log = Log::open(&fs, Path::new(DIR), larger).unwrap();
    log.entries(3, 1, 50_000);
    log.settle();
    drop(log);
    assert_eq!(open_model(&fs).unwrap().recovered.last, Position::new(23, 1));
}

#[test]
fn a_fresh_directory_needs_its_space() {
    let fs = ModelFs::new(1);
    fs.set_quota(Some(5000));
    assert!(matches!(open_model(&fs), Err(OpenError::NoSpace { .. })));
    fs.set_quota(None);
    open_model(&fs).unwrap();
}

#[test]
fn a_full_disk_does_not_keep_a_log_from_opening() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(100, 1, 60);
    log.settle();
    drop(log);
    fs.set_quota(Some(fs.used()));
    let mut log = open_model(&fs).unwrap();
    log.chores();
    log.hard_state(2, None);
    assert!(log.sync().unwrap().through.is_some() || log.wal.no_space());
}
