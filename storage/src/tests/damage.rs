//! Damage to bytes that were synced: found, named, and left as it is.

use super::*;
use crate::Damage;

/// A log of four segments, a snapshot, everything acknowledged and quiet; and its end.
fn sound() -> (ModelFs, Vec<Entry>) {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, Some(1));
    log.entries(60, 1, 60);
    log.settle();
    log.snapshot(20, 1, false);
    log.truncate(55, 1);
    log.hard_state(2, None);
    log.entries(65, 2, 60);
    log.settle();
    log.wal.idle().unwrap();
    drop(log);
    let log = open_model(&fs).unwrap();
    let all = log.all();
    assert_eq!(all.len(), 100);
    assert!(log.sealed.len() >= 3);
    drop(log);
    (fs, all)
}

fn refusal(fs: &ModelFs) -> Damage {
    let offline = crate::verify(fs.kill(), Path::new(DIR), |_| {}).map(|summary| summary.last);
    match open_model(fs).map(|log| log.recovered.last) {
        Err(OpenError::Damaged(damage)) => {
            let text = OpenError::Damaged(damage.clone()).to_string();
            assert!(text.contains("do not empty it"), "{text}");
            assert_eq!(offline.unwrap_err().to_string(), text, "offline and online say the same");
            damage
        }
        other => panic!("{other:?}, and offline {offline:?}"),
    }
}

#[test]
fn a_flipped_bit_is_named_or_changes_nothing() {
    let (fs, expected) = sound();
    let all_frames = frames(&fs);
    let end_of = |id| all_frames.iter().rev().find(|frame| frame.0 == id).map_or(4096, |frame| frame.1);
    let end = all_frames.last().copied().unwrap();
    let mut refused = 0;
    for id in segments(&fs) {
        let path = segment(id);
        let len = fs.peek(&path).unwrap().len();
        // Every byte, one of its bits; all bits of all bytes are the crash explorer's work.
        for byte in (0..len).step_by(7) {
            let fs = fs.kill();
            assert!(fs.flip(&path, byte, (byte % 8) as u8));
            match open_model(&fs) {
                Ok(log) => {
                    assert_eq!(log.all(), expected, "segment {id} byte {byte}");
                    // In the last witness, or where nothing was ever written.
                    let unused = byte as u64 >= end_of(id) + crate::record::SYNCED_LEN;
                    assert!(
                        unused || (id, byte as u64) >= (end.0, end.1),
                        "unnoticed in segment {id} byte {byte}"
                    );
                }
                Err(OpenError::Damaged(damage)) => {
                    assert_eq!(damage.path, path, "byte {byte}");
                    let begins =
                        all_frames.iter().rev().find(|frame| frame.0 == id && frame.1 <= byte as u64);
                    let begins = begins.map_or(0, |frame| frame.1);
                    assert_eq!(damage.offset, begins, "segment {id} byte {byte}: {damage}");
                    refused += 1;
                }
                Err(other) => panic!("segment {id} byte {byte}: {other}"),
            }
        }
    }
    assert!(refused > 1500, "{refused}");
}

#[test]
fn a_damaged_payload_still_tells_its_entry() {
    let (fs, _) = sound();
    let bytes = fs.peek(&segment(2)).unwrap();
    let at = bytes.windows(5).position(|window| window == b"40@1 ").unwrap();
    fs.flip(&segment(2), at, 0);
    let damage = refusal(&fs);
    assert_eq!(damage.path, segment(2));
    assert_eq!(damage.offset, at as u64 - 40);
    assert_eq!(damage.entry, Some(Position::new(40, 1)));
    let before = fs.peek(&segment(2)).unwrap();
    let _ = refusal(&fs);
    assert_eq!(fs.peek(&segment(2)).unwrap(), before, "left as it is");
}

#[test]
fn the_last_acknowledged_batch_is_convicted_by_its_witness() {
    let fs = ModelFs::new(1);
    let mut log = open_model(&fs).unwrap();
    log.hard_state(1, None);
    log.entries(1, 1, 60);
    log.settle();
    drop(log);
    let bytes = fs.peek(&segment(1)).unwrap();
    let at = bytes.windows(4).position(|window| window == b"1@1 ").unwrap();
    fs.flip(&segment(1), at, 0);
    assert_eq!(refusal(&fs).entry, Some(Position::new(1, 1)));
}

#[test]
fn a_segment_shorter_than_made_is_named_at_any_length() {
    let (fs, _) = sound();
    for id in segments(&fs) {
        for len in (0..8192).step_by(37).chain([4095, 4096, 4097, 8184, 8191]) {
            let fs = fs.kill();
            fs.damage(&segment(id), |bytes| {
                bytes.truncate(len);
                true
            });
            let damage = refusal(&fs);
            assert_eq!(damage.path, segment(id), "length {len}");
            assert!(damage.offset <= len as u64, "{damage}");
        }
    }
}

#[test]
fn a_longer_segment_is_named() {
    let (fs, _) = sound();
    fs.damage(&segment(2), |bytes| {
        bytes.push(0);
        true
    });
    assert_eq!(refusal(&fs).path, segment(2));
}

#[test]
fn a_missing_segment_is_found() {
    let (fs, expected) = sound();
    let all = segments(&fs);
    let begun = frames(&fs).last().unwrap().0;
    for id in all {
        let fs = fs.kill();
        fs.delete(&segment(id));
        if id > begun {
            // Only a spare.
            assert_eq!(open_model(&fs).unwrap().all(), expected);
            continue;
        }
        let damage = refusal(&fs);
        // Of the oldest one's end nothing is known but that its successor needs it.
        assert_eq!(damage.path, segment(id), "{damage}");
    }
}

/// The snapshot by which a log may begin in its last segment is marked behind that segment's first frames. Damage up to
/// there is named where it is, not the older segments, which were purged for that mark.
#[test]
fn damage_before_the_mark_by_which_the_log_begins_is_named() {
    let fs = ModelFs::new(1);
    // So large that a mark stays in the segment it was written to.
    let options = Options { segment_bytes: 16_384, ..options() };
    let mut log = Log::open(&fs, Path::new(DIR), options).unwrap();
    log.hard_state(1, Some(1));
    while log.wal.stats().rotations < 2 {
        log.entries(1, 1, 60);
        log.settle();
    }
    log.entries(2, 1, 60);
    log.settle();
    log.snapshot(log.last.index.0, 1, false);
    log.settle();
    log.entries(2, 1, 60);
    log.settle();
    log.wal.idle().unwrap();
    drop(log);
    let all = frames(&fs);
    let mark = all.iter().position(|frame| frame.2 == "SNAPSHOT").unwrap();
    assert!(mark > 2 && all.len() > mark + 2 && all.iter().all(|frame| frame.0 == 3), "{all:?}");
    for (id, offset, kind, _) in &all[..all.len() - 1] {
        let fs = fs.kill();
        fs.flip(&segment(*id), *offset as usize + 9, 1);
        let damage = refusal(&fs);
        assert_eq!((damage.path.clone(), damage.offset), (segment(*id), *offset), "{kind}: {damage}");
    }
}

#[test]
fn no_segment_at_all_is_damage() {
    let (fs, _) = sound();
    for id in segments(&fs) {
        fs.delete(&segment(id));
    }
    assert_eq!(refusal(&fs).path, segment(1));
}

#[test]
fn swapped_and_duplicated_segments_are_found() {
    let (fs, _) = sound();
    let (first, second) = (fs.peek(&segment(1)).unwrap(), fs.peek(&segment(2)).unwrap());
    let swapped = fs.kill();
    swapped.put(&segment(1), second.clone());
    swapped.put(&segment(2), first.clone());
    assert_eq!(refusal(&swapped).path, segment(1));
    let duplicated = fs.kill();
    duplicated.put(&segment(2), first.clone());
    let damage = refusal(&duplicated);
    assert_eq!(damage.path, segment(2));
    assert!(damage.what.contains("seg-0000000000000001.wal"), "{damage}");
    let beyond = fs.kill();
    beyond.put(&segment(99), first);
    assert_eq!(refusal(&beyond).path, segment(99));
}

#[test]
fn a_foreign_segment_is_found() {
    let (fs, _) = sound();
    let (other, _) = {
        let fs = ModelFs::new(2);
        let mut log = open_model(&fs).unwrap();
        log.hard_state(1, Some(1));
        log.entries(100, 1, 60);
        log.settle();
        (fs, ())
    };
    fs.put(&segment(2), other.peek(&segment(2)).unwrap());
    let damage = refusal(&fs);
    assert_eq!(damage.path, segment(2));
    assert!(damage.what.contains("made for directory"), "{damage}");
}

#[test]
fn frames_of_another_place_do_not_pass() {
    let (fs, _) = sound();
    // An entry's frame copied over the next one's place, in the same file; then one from another file.
    let at: Vec<u64> = frames(&fs).iter().filter(|f| f.0 == 1 && f.2 == "ENTRY").map(|f| f.1).collect();
    let (from, to) = (at[3] as usize, at[4] as usize);
    let copied = fs.kill();
    copied.damage(&segment(1), |bytes| {
        bytes.copy_within(from..from + 104, to);
        true
    });
    assert_eq!(refusal(&copied).offset, to as u64);
    let second = fs.peek(&segment(2)).unwrap();
    let place = frames(&fs).iter().find(|f| f.0 == 2 && f.2 == "ENTRY").unwrap().1 as usize;
    fs.damage(&segment(1), |bytes| {
        bytes[to..to + 104].copy_from_slice(&second[place..place + 104]);
        true
    });
    assert_eq!(refusal(&fs).offset, to as u64);
}

#[test]
fn zeroed_frames_before_a_witness_are_found() {
    let (fs, _) = sound();
    let all = frames(&fs);
    for (id, offset, kind, _) in &all[..all.len() - 1] {
        let fs = fs.kill();
        fs.damage(&segment(*id), |bytes| {
            bytes[*offset as usize..*offset as usize + 40].fill(0);
            true
        });
        let damage = refusal(&fs);
        assert_eq!((damage.path, damage.offset), (segment(*id), *offset), "{kind}");
    }
}

#[test]
fn an_unreadable_sector_is_damage_not_an_end() {
    let (fs, _) = sound();
    fs.make_unreadable(&segment(2), 10);
    let damage = refusal(&fs);
    assert_eq!((damage.path, damage.offset), (segment(2), 5120));
}

#[test]
fn node_and_log_go_together() {
    let (fs, _) = sound();
    let node = Path::new(DIR).join("NODE");
    let without = fs.kill();
    without.delete(&node);
    let error = open_model(&without).err().unwrap();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.path == node), "{error}");
    for byte in 0..64 {
        let fs = fs.kill();
        fs.flip(&node, byte, 3);
        assert_eq!(refusal(&fs).path, node);
    }
    fs.damage(&node, |bytes| {
        bytes.clear();
        true
    });
    assert_eq!(refusal(&fs).path, node);
}

#[test]
fn a_missing_or_damaged_snapshot_is_named() {
    let (fs, _) = sound();
    let path = Path::new(DIR).join(snapshot::file_name(Position::new(20, 1)));
    let missing = fs.kill();
    missing.delete(&path);
    let damage = refusal(&missing);
    assert_eq!((damage.path, damage.entry), (path.clone(), Some(Position::new(20, 1))));
    for byte in 0..fs.peek(&path).unwrap().len() {
        let fs = fs.kill();
        fs.flip(&path, byte, 5);
        assert_eq!(refusal(&fs).path, path, "byte {byte}");
    }
}

#[test]
fn looking_changes_nothing() {
    let (fs, _) = sound();
    let image =
        |fs: &ModelFs| -> Vec<_> { fs.files().into_iter().map(|path| (fs.peek(&path), path)).collect() };
    let before = image(&fs);
    let mut findings = Vec::new();
    let summary = crate::verify(fs.clone(), Path::new(DIR), |finding| findings.push(finding)).unwrap();
    assert_eq!(summary.last, Position::new(120, 2));
    assert_eq!(summary.identity, IDENTITY);
    assert_eq!(findings.len(), segments(&fs).len() + 1);
    let mut lines = 0;
    crate::dump(fs.clone(), Path::new(DIR), |_| lines += 1).unwrap();
    assert!(lines > 100);
    assert_eq!(image(&fs), before);
    let empty = ModelFs::new(1);
    empty.create_dir_all(Path::new(DIR)).unwrap();
    assert!(matches!(crate::verify(empty, Path::new(DIR), |_| {}), Err(OpenError::Empty { .. })));
}

/// A crash may leave a snapshot that the log does not refer to yet: told where it is sound, and no damage where it is not.
#[test]
fn a_snapshot_that_the_log_does_not_name_is_no_part_of_it() {
    let (fs, _) = sound();
    let stray = publish(&fs, Path::new(DIR), 90, 2).position;
    let path = Path::new(DIR).join(snapshot::file_name(stray));
    let told = || {
        let mut told = Vec::new();
        crate::verify(fs.clone(), Path::new(DIR), |finding| told.push(finding)).unwrap();
        told.contains(&crate::Finding::Snapshot { path: path.clone(), in_force: false })
    };
    assert!(told());
    fs.flip(&path, 100, 0);
    assert!(!told());
}

#[test]
fn a_later_format_is_not_damage() {
    let (fs, _) = sound();
    fs.damage(&segment(2), |bytes| {
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        true
    });
    assert!(matches!(open_model(&fs), Err(OpenError::Version { found: 2, supported: 1, .. })));
}

/// Case D22. A file of no bytes where one of each kind stood: named, or as if it had never been.
/// Each file in its turn. Nobody misses the lock, the counter or a segment without a frame: they are made again.
#[test]
fn any_one_file_that_is_missing_is_named_or_was_not_needed() {
    let (fs, expected) = sound();
    let used: Vec<_> = frames(&fs).iter().map(|frame| segment(frame.0)).collect();
    for path in fs.files() {
        let fs = fs.kill();
        fs.delete(&path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        if ["LOCK", "BOOT"].contains(&name) || name.starts_with("seg-") && !used.contains(&path) {
            assert_eq!(open_model(&fs).unwrap().all(), expected, "{name}");
        } else {
            // A segment is missed at the end of the one before it.
            let named = refusal(&fs).path;
            assert!(named == path || name.starts_with("seg-"), "{name} is missing: {}", named.display());
        }
    }
    assert!(fs.files().len() > 6 && used.contains(&segment(4)), "{:?}", fs.files());
}

#[test]
fn empty_files_of_each_kind_are_refused_or_unborn() {
    let (fs, expected) = sound();
    for path in fs.files() {
        let fs = fs.kill();
        fs.damage(&path, |bytes| {
            bytes.clear();
            true
        });
        let name = path.file_name().and_then(|name| name.to_str()).unwrap().to_owned();
        match open_model(&fs) {
            Ok(log) => {
                assert!(["LOCK", "BOOT"].contains(&name.as_str()), "{name} is empty, and nobody minds");
                assert_eq!(log.all(), expected, "{name}");
            }
            Err(OpenError::Damaged(damage)) => assert_eq!(damage.path, path),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}
