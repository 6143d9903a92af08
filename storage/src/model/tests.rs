//! The model disk's own rules: a disk that forgives too much would let every other test pass.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::*;
use crate::fs::{File, Fs, LockError, read_exact_at, write_all_at};

const DIR: &str = "/data";

fn at(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A disk with one durable file `a` of `length` bytes of 1.
fn disk(length: usize) -> ModelFs {
    let fs = ModelFs::new(1);
    fs.put(&at("a"), vec![1; length]);
    fs
}

fn write(fs: &ModelFs, bytes: &[u8], offset: u64) -> ModelFile {
    let file = fs.open(&at("a"), true).unwrap();
    write_all_at(&file, bytes, offset).unwrap();
    file
}

fn first_bytes(fs: &ModelFs) -> Vec<u8> {
    fs.peek(&at("a")).unwrap().chunks(SECTOR).map(|sector| sector[0]).collect()
}

#[test]
fn each_unsynced_sector_goes_its_own_way() {
    let fs = disk(3 * SECTOR);
    write(&fs, &[2; 3 * SECTOR], 0);
    assert_eq!(fs.outcomes(), 8);
    let found: BTreeSet<Vec<u8>> = fs.cuts(100, 0).map(|after| first_bytes(&after)).collect();
    assert_eq!(found.len(), 8);
    assert_eq!(first_bytes(&fs), [2, 2, 2]);
    assert_eq!(first_bytes(&fs.kill()), [2, 2, 2]);
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), [1, 1, 1]);
    assert_eq!(first_bytes(&fs.cut(Cut::KeepAll)), [2, 2, 2]);
}

#[test]
fn what_is_synced_stays() {
    let fs = disk(SECTOR);
    write(&fs, &[2; SECTOR], 0).sync_data().unwrap();
    assert_eq!(fs.outcomes(), 1);
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), [2]);
}

#[test]
fn every_version_of_a_sector_may_be_the_one_on_disk() {
    let fs = disk(SECTOR);
    for version in 2..=4 {
        write(&fs, &[version; SECTOR], 0);
    }
    let found: BTreeSet<Vec<u8>> = fs.cuts(100, 0).map(|after| first_bytes(&after)).collect();
    assert_eq!(found, [vec![1], vec![2], vec![3], vec![4]].into());
}

#[test]
fn a_length_survives_or_not_apart_from_the_bytes() {
    let fs = disk(SECTOR);
    write(&fs, &[2; SECTOR], SECTOR as u64);
    let found: BTreeSet<Vec<u8>> = fs.cuts(100, 0).map(|after| first_bytes(&after)).collect();
    assert_eq!(found, [vec![1], vec![1, 0], vec![1, 2]].into());
}

#[test]
fn a_sector_tears_only_when_asked() {
    let fs = disk(SECTOR);
    write(&fs, &[2; SECTOR], 0);
    let torn = |cut| {
        let bytes = fs.cut(cut).peek(&at("a")).unwrap();
        bytes.contains(&1) && bytes.contains(&2)
    };
    assert!((0..50).any(|seed| torn(Cut::Torn(seed))));
    assert!(!(0..50).any(|seed| torn(Cut::Some(seed))));
}

#[test]
fn names_are_durable_after_a_directory_sync_only() {
    let fs = ModelFs::new(1);
    let dir = Path::new(DIR);
    fs.create_dir_all(dir).unwrap();
    let temp = fs.temp(dir).unwrap();
    write_all_at(&temp, b"x", 0).unwrap();
    temp.sync_data().unwrap();
    fs.persist(temp, &at("b")).unwrap();
    assert_eq!(fs.files(), [at("b")]);
    let found: BTreeSet<Vec<PathBuf>> = fs.cuts(100, 0).map(|after| after.files()).collect();
    assert!(found.contains(&vec![]) && found.contains(&vec![at("b")]), "{found:?}");
    fs.sync_dir(dir).unwrap();
    assert_eq!(fs.cut(Cut::LoseAll).files(), [at("b")]);
    fs.remove(&at("b")).unwrap();
    assert_eq!(fs.cut(Cut::LoseAll).files(), [at("b")]);
    fs.sync_dir(dir).unwrap();
    assert!(fs.cut(Cut::LoseAll).files().is_empty());
}

#[test]
fn several_names_go_their_own_ways() {
    let fs = disk(1);
    fs.put(&at("b"), vec![1]);
    fs.remove(&at("a")).unwrap();
    fs.remove(&at("b")).unwrap();
    let found: BTreeSet<usize> = fs.cuts(100, 0).map(|after| after.files().len()).collect();
    assert_eq!((fs.outcomes(), found), (4, [0, 1, 2].into()));
}

#[test]
fn a_replaced_name_is_the_old_or_the_new_file_never_none() {
    let fs = disk(1);
    let temp = fs.temp(Path::new(DIR)).unwrap();
    write_all_at(&temp, &[2], 0).unwrap();
    temp.sync_data().unwrap();
    fs.persist(temp, &at("a")).unwrap();
    let found: BTreeSet<Vec<u8>> = fs.cuts(100, 0).map(|after| first_bytes(&after)).collect();
    assert_eq!(found, [vec![1], vec![2]].into());
}

#[test]
fn a_dropping_sync_leaves_a_cache_newer_than_the_disk() {
    let fs = disk(SECTOR);
    let file = write(&fs, &[2; SECTOR], 0);
    fs.fail(Fault { on: Some(Op::SyncData), after: 0, effect: Effect::SyncDropped, lasting: false });
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(first_bytes(&fs), [2]);
    assert_eq!(first_bytes(&fs.kill()), [2]);
    assert_eq!(first_bytes(&fs.cut(Cut::KeepAll)), [1]);
    assert!((0..20).any(|_| first_bytes(&fs.kill_and_evict()) == [1]));
}

#[test]
fn a_later_write_takes_the_lost_sectors_of_its_page_along() {
    let fs = disk(16 * SECTOR);
    let file = write(&fs, &[2; 16 * SECTOR], 0);
    fs.fail_nth(0, Effect::SyncDropped);
    assert!(file.sync_data().is_err());
    write(&fs, &[3], 0).sync_data().unwrap();
    let mut expected = vec![2; 8];
    expected[0] = 3;
    expected.extend([1; 8]);
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), expected);
}

#[test]
fn writing_lost_bytes_again_makes_them_durable() {
    let fs = disk(SECTOR);
    let file = write(&fs, &[2; SECTOR], 0);
    fs.fail_nth(0, Effect::SyncDropped);
    assert!(file.sync_data().is_err());
    write(&fs, &[2; SECTOR], 0).sync_data().unwrap();
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), [2]);
}

#[test]
fn a_sync_may_fail_with_everything_on_disk() {
    let fs = disk(SECTOR);
    let file = write(&fs, &[2; SECTOR], 0);
    fs.fail_nth(0, Effect::SyncKept);
    assert!(file.sync_data().is_err());
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), [2]);
}

#[test]
fn a_dropping_directory_sync_is_not_made_good_by_the_next() {
    let fs = disk(1);
    fs.remove(&at("a")).unwrap();
    fs.fail_nth(0, Effect::SyncDropped);
    assert!(fs.sync_dir(Path::new(DIR)).is_err());
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert!(fs.files().is_empty());
    assert_eq!(fs.cut(Cut::KeepAll).files(), [at("a")]);
}

#[test]
fn the_nth_call_fails_and_only_it() {
    let fs = disk(8);
    let file = fs.open(&at("a"), true).unwrap();
    fs.fail_nth(1, Effect::Eio);
    let mut buf = [0; 1];
    assert!(file.read_at(&mut buf, 0).is_ok());
    assert!(file.read_at(&mut buf, 0).is_err());
    assert!(file.read_at(&mut buf, 0).is_ok());
    fs.fail(Fault { on: Some(Op::SyncData), after: 0, effect: Effect::Eio, lasting: true });
    assert!(file.read_at(&mut buf, 0).is_ok());
    assert!(file.sync_data().is_err() && file.sync_data().is_err());
    fs.heal();
    assert!(file.sync_data().is_ok());
    assert_eq!(fs.count(Op::SyncData), 3);
}

#[test]
fn short_calls_are_finished_by_the_helpers() {
    let fs = disk(0);
    let file = fs.open(&at("a"), true).unwrap();
    fs.fail_nth(0, Effect::Short);
    assert!(file.write_at(&[7; 100], 0).unwrap() < 100);
    fs.fail_nth(0, Effect::Short);
    write_all_at(&file, &[8; 100], 0).unwrap();
    fs.fail_nth(0, Effect::Short);
    let mut back = [0; 100];
    read_exact_at(&file, &mut back, 0).unwrap();
    assert_eq!(back, [8; 100]);
    assert_eq!(read_exact_at(&file, &mut back, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_quota_is_met_by_a_short_write_and_then_an_error() {
    let fs = disk(0);
    fs.set_quota(Some(10));
    let file = fs.open(&at("a"), true).unwrap();
    assert_eq!(file.write_at(&[1; 20], 0).unwrap(), 10);
    assert_eq!(file.write_at(&[1; 20], 10).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[2; 10], 0).unwrap(), 10);
    assert_eq!(fs.available_space(Path::new(DIR)).unwrap(), 0);
}

#[test]
fn a_lock_is_held_until_dropped_or_killed() {
    let fs = disk(0);
    let held = fs.lock(&at("LOCK")).unwrap();
    assert!(matches!(fs.lock(&at("LOCK")), Err(LockError::Held { pid: Some(_) })));
    assert!(fs.kill().lock(&at("LOCK")).is_ok());
    drop(held);
    assert!(fs.lock(&at("LOCK")).is_ok());
}

#[test]
fn a_killed_process_leaves_its_temporary_files() {
    let fs = disk(0);
    let temp = fs.temp(Path::new(DIR)).unwrap();
    let killed = fs.kill();
    drop(temp);
    assert_eq!(fs.files(), [at("a")]);
    assert_eq!(killed.files().len(), 2);
    let again = killed.temp(Path::new(DIR)).unwrap();
    assert_eq!(killed.files().len(), 3);
    drop(again);
}

#[test]
fn photos_show_the_disk_behind_each_change() {
    let fs = disk(SECTOR);
    fs.keep_photos();
    write(&fs, &[2; SECTOR], 0).sync_data().unwrap();
    let photos = fs.take_photos();
    let seen: Vec<_> = photos.iter().map(|(call, photo)| (*call, photo.outcomes())).collect();
    assert_eq!(seen, [(0, 1), (2, 2), (3, 1)]);
    assert_eq!(first_bytes(&photos[0].1), [1]);
}

#[test]
fn bad_sectors_are_read_errors_and_flips_stay() {
    let fs = disk(2 * SECTOR);
    assert!(fs.flip(&at("a"), 600, 1) && !fs.flip(&at("a"), 5000, 1));
    fs.make_unreadable(&at("a"), 0);
    let after = fs.cut(Cut::LoseAll);
    let file = after.open(&at("a"), false).unwrap();
    assert!(file.read_at(&mut [0; 1], 511).is_err());
    let mut byte = [0];
    read_exact_at(&file, &mut byte, 600).unwrap();
    assert_eq!(byte, [3]);
    assert_eq!(file.write_at(&[1], 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn many_facts_are_sampled_with_both_ends() {
    let fs = disk(40 * SECTOR);
    write(&fs, &[2; 40 * SECTOR], 0);
    let found: Vec<Vec<u8>> = fs.cuts(50, 9).map(|after| first_bytes(&after)).collect();
    assert_eq!(found.len(), 50);
    assert!(found.contains(&vec![1; 40]) && found.contains(&vec![2; 40]));
    assert!(found.iter().collect::<BTreeSet<_>>().len() > 40);
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let fs = ModelFs::new(seed);
        (fs.entropy().unwrap(), fs.entropy().unwrap())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_lying_sync_loses_sectors_that_nobody_misses_before_the_cache_is_gone() {
    let lied = |seed| {
        let fs = disk(8 * SECTOR);
        fs.fail(Fault { on: Some(Op::SyncData), after: 0, effect: Effect::SyncLied(seed), lasting: false });
        write(&fs, &[2; 8 * SECTOR], 0).sync_data().unwrap();
        assert_eq!(fs.take_struck(), [(Op::SyncData, Effect::SyncLied(seed))]);
        assert_eq!(first_bytes(&fs.kill()), [2; 8], "the cache has them");
        first_bytes(&fs.cut(Cut::LoseAll))
    };
    let found: BTreeSet<Vec<u8>> = (0..20).map(lied).collect();
    assert!(found.len() > 10 && found.iter().flatten().all(|byte| [1, 2].contains(byte)), "{found:?}");
    let fs = disk(SECTOR);
    fs.fail(Fault { on: Some(Op::SyncData), after: 0, effect: Effect::SyncLied(0), lasting: false });
    write(&fs, &[2; SECTOR], 0).sync_data().unwrap();
    // Another write takes the page along, and this time it is true.
    write(&fs, &[3; SECTOR], 0).sync_data().unwrap();
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), [3]);
}

#[test]
fn a_stray_sector_lands_elsewhere_and_its_place_stays_old() {
    let strayed = |seed| {
        let fs = disk(8 * SECTOR);
        fs.put(&at("b"), vec![9; 4 * SECTOR]);
        fs.fail(Fault {
            on: Some(Op::SyncData),
            after: 0,
            effect: Effect::SyncStrayed(seed),
            lasting: false,
        });
        write(&fs, &[2; SECTOR], 3 * SECTOR as u64).sync_data().unwrap();
        let after = fs.cut(Cut::LoseAll);
        (first_bytes(&after), after.peek(&at("b")).unwrap().chunks(SECTOR).any(|sector| sector[0] == 2))
    };
    for seed in 0..40 {
        let (a, in_b) = strayed(seed);
        assert_eq!(a[3], 1, "seed {seed}: the place it was meant for");
        assert!(a.iter().filter(|byte| **byte == 2).count() + usize::from(in_b) <= 1);
    }
    assert!((0..40).any(|seed| strayed(seed).1), "in the other file");
    assert!((0..40).any(|seed| strayed(seed).0.contains(&2)), "in its own");
}

#[test]
fn rot_is_seen_when_the_cache_is_gone() {
    let fs = disk(2 * SECTOR);
    assert!(fs.rot(&at("a"), SECTOR, 1));
    assert!(!fs.rot(&at("a"), 2 * SECTOR, 1));
    assert_eq!(first_bytes(&fs), [1, 1]);
    assert_eq!(first_bytes(&fs.kill()), [1, 1]);
    assert_eq!(first_bytes(&fs.cut(Cut::KeepAll)), [1, 3]);
    let evicted = (0..20).map(|_| first_bytes(&fs.kill_and_evict()));
    assert!(evicted.into_iter().any(|bytes| bytes == [1, 3]));
    // What is written over it is sound again.
    write(&fs, &[5; SECTOR], SECTOR as u64).sync_data().unwrap();
    assert_eq!(first_bytes(&fs.cut(Cut::LoseAll)), [1, 5]);
}

#[test]
fn a_map_may_be_misread_once() {
    let fs = disk(SECTOR);
    fs.fail(Fault { on: Some(Op::Map), after: 0, effect: Effect::Misread(7), lasting: false });
    let file = fs.open(&at("a"), false).unwrap();
    let (first, second) = (file.map().unwrap(), file.map().unwrap());
    assert_eq!(first.iter().zip(&second).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(second, [1; SECTOR].as_slice());
}
