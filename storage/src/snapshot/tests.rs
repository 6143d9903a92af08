//! Snapshot files on the model disk: every length, every flipped bit, every cut, every failing call.

use std::path::{Path, PathBuf};

use super::format::{CHUNK_STEP, TRAILER, Trailer, encode_header, encode_trailer};
use super::*;
use crate::fs::{File, Fs};
use crate::model::{Cut, Effect, ModelFs, Op};
use crate::types::{NodeId, SnapshotId};

const DIR: &str = "/data";

fn disk() -> ModelFs {
    let fs = ModelFs::new(1);
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs
}

fn header() -> Header {
    Header {
        position: Position::new(0x1234, 7),
        cluster: ClusterId(*b"0123456789abcdef"),
        membership: Membership { voters: [NodeId(1), NodeId(2), NodeId(0x0303)].into() },
    }
}

fn header_len() -> usize {
    encode_header(&header()).len()
}

fn path() -> PathBuf {
    Path::new(DIR).join(file_name(header().position))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 * 31 + at) as u8).collect()
}

fn write(fs: &ModelFs, content: &[u8]) -> Result<SnapshotId, SnapshotError> {
    let mut writer = Writer::create(fs.clone(), Path::new(DIR), header())?;
    writer.write(content)?;
    writer.publish()
}

fn read(fs: &ModelFs, id: &SnapshotId) -> Result<Vec<u8>, SnapshotError> {
    let reader = Reader::open(fs, Path::new(DIR), id)?;
    assert_eq!(reader.header(), &header());
    let content = reader.content().collect::<Result<Vec<_>, _>>()?.concat();
    assert_eq!(content.len() as u64, reader.content_len());
    Ok(content)
}

/// Where a damaged file was found damaged.
fn damaged_at(fs: &ModelFs, id: &SnapshotId) -> u64 {
    match verify(fs, Path::new(DIR), id) {
        Err(SnapshotError::Damaged { path: found, offset, .. }) => {
            assert_eq!(found, path());
            offset
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_strict() {
    let name = "snap-0000000000001234-0000000000000007.snap";
    assert_eq!(file_name(header().position), name);
    assert_eq!(parse_file_name(name), Some(header().position));
    for wrong in [
        "snap-0000000000001234-0000000000000007.snap.old",
        "snap-0000000000001234-7.snap",
        "snap-+000000000001234-0000000000000007.snap",
        "snap-000000000000ABCD-0000000000000007.snap",
        "snap-00000000000012340000000000000007.snap",
        "tmp-0000000000001234-0000000000000007.snap",
        "",
    ] {
        assert_eq!(parse_file_name(wrong), None, "{wrong}");
    }
}

#[test]
fn the_bytes_stay_what_they_are() {
    let fs = disk();
    let id = write(&fs, b"hello").unwrap();
    let hex: String = fs.peek(&path()).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(verify(&fs, Path::new(DIR), &id).unwrap(), header());
}

#[test]
fn golden_bytes_are_read() {
    let bytes: Vec<u8> =
        (0..GOLDEN.len()).step_by(2).map(|at| u8::from_str_radix(&GOLDEN[at..at + 2], 16).unwrap()).collect();
    let fs = disk();
    fs.put(&path(), bytes);
    let (id, found) = verify_file(&fs, &path()).unwrap();
    assert_eq!(found, header());
    assert_eq!(read(&fs, &id).unwrap(), b"hello");
}

#[test]
fn every_length_around_a_chunk_comes_back() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17] {
        let fs = disk();
        let content = pattern(length);
        let id = write(&fs, &content).unwrap();
        let chunks = length.div_ceil(CHUNK);
        assert_eq!(id.length as usize, header_len() + 4 * chunks + length + TRAILER);
        assert_eq!(read(&fs, &id).unwrap(), content, "{length}");
        assert_eq!(verify_file(&fs, &path()).unwrap(), (id, header()));
        assert_eq!(fs.files(), [path()]);
    }
}

#[test]
fn where_one_write_ends_leaves_no_trace() {
    let content = pattern(2 * CHUNK + 99);
    let whole = write(&disk(), &content).unwrap();
    for piece in [1000, CHUNK - 1, CHUNK + 1] {
        let mut writer = Writer::create(disk(), Path::new(DIR), header()).unwrap();
        content.chunks(piece).for_each(|piece| writer.write(piece).unwrap());
        assert_eq!(writer.publish().unwrap(), whole, "{piece}");
    }
}

#[test]
fn every_flipped_bit_is_found_where_it_is() {
    let fs = disk();
    let id = write(&fs, &pattern(200)).unwrap();
    let (chunk, trailer) = (header_len(), id.length as usize - TRAILER);
    for byte in 0..id.length as usize {
        let place = match byte {
            byte if byte < chunk => 0,
            byte if byte < trailer => chunk,
            _ => trailer,
        };
        for bit in 0..8 {
            let fs = fs.kill();
            assert!(fs.flip(&path(), byte, bit));
            assert_eq!(damaged_at(&fs, &id), place as u64, "bit {bit} of byte {byte}");
            assert!(verify_file(&fs, &path()).is_err());
            assert!(Reader::open(&fs, Path::new(DIR), &id).is_err());
        }
    }
}

#[test]
fn a_flipped_bit_in_a_later_chunk_names_that_chunk() {
    let fs = disk();
    let id = write(&fs, &pattern(3 * CHUNK)).unwrap();
    for number in 0..3 {
        let fs = fs.kill();
        let start = header_len() + number * CHUNK_STEP;
        assert!(fs.flip(&path(), start + 4 + 777, 3));
        assert_eq!(damaged_at(&fs, &id), start as u64);
    }
}

#[test]
fn swapped_chunks_are_found() {
    let fs = disk();
    let id = write(&fs, &pattern(3 * CHUNK)).unwrap();
    fs.damage(&path(), |bytes| {
        let (first, second) = bytes[header_len()..].split_at_mut(CHUNK_STEP);
        first.swap_with_slice(&mut second[..CHUNK_STEP]);
        true
    });
    assert_eq!(damaged_at(&fs, &id), header_len() as u64);
}

#[test]
fn every_shorter_and_longer_file_is_refused() {
    let fs = disk();
    let id = write(&fs, &pattern(300)).unwrap();
    for length in 0..id.length {
        let fs = fs.kill();
        fs.damage(&path(), |bytes| {
            bytes.truncate(length as usize);
            true
        });
        assert_eq!(damaged_at(&fs, &id), length);
        assert!(matches!(verify_file(&fs, &path()), Err(SnapshotError::Damaged { .. })), "{length}");
    }
    for more in 1..200 {
        let fs = fs.kill();
        fs.damage(&path(), |bytes| {
            bytes.extend(vec![0; more]);
            true
        });
        assert_eq!(damaged_at(&fs, &id), id.length);
        assert!(verify_file(&fs, &path()).is_err(), "{more}");
    }
}

#[test]
fn a_sound_file_in_another_place_is_refused() {
    let fs = disk();
    let id = write(&fs, b"content").unwrap();
    let bytes = fs.peek(&path()).unwrap();
    let other = Position::new(0x9999, 7);
    let misplaced = Path::new(DIR).join(file_name(other));
    fs.put(&misplaced, bytes);
    assert!(matches!(verify_file(&fs, &misplaced), Err(SnapshotError::Damaged { .. })));
    let wanted = SnapshotId { position: other, ..id };
    assert!(matches!(verify(&fs, Path::new(DIR), &wanted), Err(SnapshotError::Damaged { .. })));
}

#[test]
fn a_missing_file_is_named() {
    let fs = disk();
    let id = write(&fs, b"content").unwrap();
    fs.delete(&path());
    let error = verify(&fs, Path::new(DIR), &id).unwrap_err();
    assert!(matches!(&error, SnapshotError::Missing { path: found } if *found == path()));
    assert!(error.to_string().contains("snap-0000000000001234-0000000000000007.snap"));
}

#[test]
fn a_later_version_is_not_called_damage() {
    let fs = disk();
    let id = write(&fs, b"content").unwrap();
    fs.damage(&path(), |bytes| {
        bytes[8] = 2;
        let end = header_len() - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        true
    });
    assert!(matches!(verify(&fs, Path::new(DIR), &id), Err(SnapshotError::Unsupported { .. })));
}

#[test]
fn a_forged_file_with_sound_checksums_fails_its_digest() {
    let fs = disk();
    let id = write(&fs, b"content").unwrap();
    fs.damage(&path(), |bytes| {
        let start = header_len();
        bytes[start + 4] ^= 0x20;
        let end = bytes.len() - TRAILER;
        let crc = super::format::chunk_crc(0, &bytes[start + 4..end]);
        bytes[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        true
    });
    assert_eq!(damaged_at(&fs, &id), id.length - TRAILER as u64);
}

/// Both lengths in the trailer are the file's, whatever the trailer's own checksum says.
#[test]
fn a_forged_trailer_with_other_lengths_is_found() {
    let trailer = |id: &SnapshotId| Trailer { content: 7, length: id.length, digest: id.digest };
    let forged: [fn(Trailer) -> Trailer; 3] = [
        |trailer| Trailer { length: trailer.length + 1, ..trailer },
        |trailer| Trailer { content: trailer.content - 1, ..trailer },
        |trailer| trailer,
    ];
    for (forge, sound) in forged.into_iter().zip([false, false, true]) {
        let fs = disk();
        let id = write(&fs, b"content").unwrap();
        fs.damage(&path(), |bytes| {
            let start = bytes.len() - TRAILER;
            bytes[start..].copy_from_slice(&encode_trailer(&forge(trailer(&id))));
            true
        });
        match verify(&fs, Path::new(DIR), &id) {
            Ok(_) => assert!(sound),
            Err(error) => assert!(!sound && error.to_string().contains("the trailer's lengths"), "{error}"),
        }
    }
}

#[test]
fn a_bad_sector_is_an_error_with_its_place() {
    let fs = disk();
    let id = write(&fs, &pattern(2 * CHUNK)).unwrap();
    fs.make_unreadable(&path(), 200);
    let found = verify(&fs, Path::new(DIR), &id);
    let second = (header_len() + CHUNK_STEP) as u64;
    assert!(matches!(found, Err(SnapshotError::Unreadable { offset, .. }) if offset == second), "{found:?}");
}

#[test]
fn content_damaged_after_the_check_is_not_handed_out() {
    let fs = disk();
    let id = write(&fs, &pattern(2 * CHUNK)).unwrap();
    let mut reader = Reader::open(&fs, Path::new(DIR), &id).unwrap();
    let mut raw = reader.raw.to_vec();
    raw[header_len() + CHUNK_STEP + 50] ^= 1;
    reader.raw = raw.into();
    let chunks: Vec<_> = reader.content().collect();
    assert!(matches!(&chunks[..], [Ok(_), Err(SnapshotError::Damaged { .. })]), "{chunks:?}");
}

#[test]
fn too_many_members_are_refused() {
    let voters = (1..=MEMBERS_MAX as u64).map(NodeId).collect();
    let most = Header { membership: Membership { voters }, ..header() };
    let id = Writer::create(disk(), Path::new(DIR), most.clone()).unwrap().publish().unwrap();
    assert!(id.length > 4000);
    let mut more = most;
    more.membership.voters.insert(NodeId(MEMBERS_MAX as u64 + 1));
    let refused = Writer::create(disk(), Path::new(DIR), more);
    assert!(matches!(refused.err(), Some(SnapshotError::TooManyMembers { members: 501 })));
}

#[test]
fn a_large_snapshot_is_synced_as_it_goes() {
    let fs = disk();
    let mut writer = Writer::create(fs.clone(), Path::new(DIR), header()).unwrap();
    let piece = pattern(1 << 20);
    for _ in 0..17 {
        writer.write(&piece).unwrap();
    }
    assert_eq!(fs.count(Op::SyncData), 2);
    writer.publish().unwrap();
    assert_eq!(fs.count(Op::SyncData), 3);
}

#[test]
fn publishing_syncs_then_renames_then_syncs_the_directory() {
    let fs = disk();
    fs.keep_trace();
    write(&fs, b"content").unwrap();
    let order: Vec<Op> = fs.trace().iter().map(|step| step.op).filter(|op| op.changes()).collect();
    let expected = [Op::Temp, Op::WriteAt, Op::WriteAt, Op::WriteAt, Op::SyncData, Op::Persist, Op::SyncDir];
    assert_eq!(order, expected);
}

/// A file that bears a snapshot's name is whole after any power cut at any moment, and is there once publish is done.
#[test]
fn a_named_file_is_whole_after_any_crash() {
    let fs = disk();
    fs.keep_photos();
    let id = write(&fs, &pattern(1500)).unwrap();
    let done = fs.calls();
    for (call, photo) in fs.take_photos() {
        for after in photo.cuts(256, call).chain([photo.kill()]) {
            match verify(&after, Path::new(DIR), &id) {
                Ok(_) => {}
                Err(SnapshotError::Missing { .. }) => assert!(call < done, "published and gone"),
                Err(error) => panic!("after call {call}: {error}"),
            }
        }
    }
    assert!(verify(&fs.cut(Cut::LoseAll), Path::new(DIR), &id).is_ok());
}

#[test]
fn a_failure_at_any_call_publishes_nothing_unsound() {
    let effects = [Effect::Eio, Effect::Enospc, Effect::Short, Effect::SyncDropped, Effect::SyncKept];
    let calls = {
        let fs = disk();
        write(&fs, &pattern(CHUNK + 5)).unwrap();
        fs.calls()
    };
    for effect in effects {
        for nth in 0..calls {
            let fs = disk();
            fs.fail_nth(nth, effect);
            let written = write(&fs, &pattern(CHUNK + 5));
            for after in [fs.kill(), fs.cut(Cut::LoseAll), fs.cut(Cut::KeepAll), fs.cut(Cut::Some(nth))] {
                match (&written, verify_file(&after, &path())) {
                    (_, Ok(_)) | (Err(_), Err(SnapshotError::Missing { .. })) => {}
                    (written, found) => panic!("{effect:?} at call {nth}: {written:?}, {found:?}"),
                }
            }
            if written.is_err() {
                assert!(fs.files().iter().all(|file| *file == path()), "a temporary file stayed");
            }
        }
    }
}

#[test]
fn a_failed_writer_stays_failed() {
    let fs = disk();
    let mut writer = Writer::create(fs.clone(), Path::new(DIR), header()).unwrap();
    fs.fail_nth(0, Effect::Enospc);
    assert!(matches!(writer.write(&pattern(CHUNK)), Err(SnapshotError::NoSpace { .. })));
    assert!(matches!(writer.write(b"more"), Err(SnapshotError::Failed { .. })));
    assert!(matches!(writer.publish(), Err(SnapshotError::Failed { .. })));
    assert!(fs.files().is_empty());
}

#[test]
fn space_that_comes_back_is_used() {
    let fs = disk();
    fs.set_quota(Some(1000));
    assert!(matches!(write(&fs, &pattern(5000)), Err(SnapshotError::NoSpace { .. })));
    assert_eq!(fs.used(), 0);
    fs.set_quota(None);
    write(&fs, &pattern(5000)).unwrap();
}

#[test]
fn a_sound_snapshot_is_never_replaced() {
    let fs = disk();
    let first = write(&fs, b"first").unwrap();
    assert_eq!(write(&fs, b"first").unwrap(), first);
    assert_eq!(write(&fs, b"other").unwrap(), first);
    assert_eq!(read(&fs, &first).unwrap(), b"first");
    assert_eq!(fs.files(), [path()]);
}

#[test]
fn a_damaged_snapshot_is_replaced() {
    let fs = disk();
    let first = write(&fs, b"first").unwrap();
    fs.flip(&path(), 20, 0);
    assert_eq!(write(&fs, b"first").unwrap(), first);
    assert_eq!(read(&fs, &first).unwrap(), b"first");
}

/// A snapshot as a peer would send it.
fn announced(content: &[u8]) -> (SnapshotId, Vec<u8>) {
    let fs = disk();
    let id = write(&fs, content).unwrap();
    let raw = Reader::open(&fs, Path::new(DIR), &id).unwrap().raw();
    (id, raw.to_vec())
}

fn receiver(fs: &ModelFs, id: SnapshotId) -> Receiver<ModelFs> {
    Receiver::create(fs.clone(), Path::new(DIR), id, 1 << 20).unwrap()
}

#[test]
fn a_received_file_is_the_sent_one() {
    let (id, raw) = announced(&pattern(CHUNK + 1000));
    let fs = disk();
    let mut receiver = receiver(&fs, id);
    for piece in raw.chunks(999) {
        let before = receiver.offset();
        receiver.write(piece).unwrap();
        assert_eq!(receiver.offset(), before + piece.len() as u64);
    }
    assert_eq!(receiver.id(), &id);
    assert_eq!(receiver.publish().unwrap(), header());
    assert_eq!(fs.peek(&path()).unwrap(), raw);
    assert_eq!(read(&fs, &id).unwrap(), pattern(CHUNK + 1000));
    let trace = { fs.count(Op::SyncData) >= 1 && fs.count(Op::SyncDir) == 1 };
    assert!(trace);
    assert!(verify(&fs.cut(Cut::LoseAll), Path::new(DIR), &id).is_ok());
}

#[test]
fn every_flipped_bit_on_the_way_publishes_nothing() {
    let (id, raw) = announced(&pattern(100));
    for bit in 0..raw.len() * 8 {
        let fs = disk();
        let mut receiver = receiver(&fs, id);
        let mut bytes = raw.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        receiver.write(&bytes).unwrap();
        assert!(receiver.publish().is_err(), "bit {bit}");
        assert!(fs.files().is_empty());
    }
}

#[test]
fn another_snapshot_than_the_announced_is_refused() {
    let (id, _) = announced(b"aaaa");
    let (_, other) = announced(b"bbbb");
    let fs = disk();
    let mut receiver = receiver(&fs, id);
    receiver.write(&other).unwrap();
    assert!(matches!(receiver.publish(), Err(SnapshotError::Mismatch { .. })));
    assert!(fs.files().is_empty());
}

#[test]
fn fewer_or_more_bytes_than_announced_are_refused() {
    let (id, raw) = announced(b"content");
    let fs = disk();
    let mut short = receiver(&fs, id);
    short.write(&raw[..raw.len() - 1]).unwrap();
    assert!(matches!(short.write(b"xy"), Err(SnapshotError::Mismatch { .. })));
    assert_eq!(short.offset(), id.length - 1);
    assert!(matches!(short.publish(), Err(SnapshotError::Mismatch { .. })));
}

#[test]
fn announced_lengths_are_checked_first() {
    let (id, _) = announced(b"content");
    let create = |length, limit| {
        let id = SnapshotId { length, ..id };
        Receiver::create(disk(), Path::new(DIR), id, limit).err()
    };
    assert!(matches!(create(1001, 1000), Some(SnapshotError::TooLarge { length: 1001, limit: 1000 })));
    assert!(matches!(create(135, 1000), Some(SnapshotError::Mismatch { .. })));
    assert!(create(136, 1000).is_none());
}

#[test]
fn a_received_snapshot_does_not_replace_another_sound_one() {
    let (id, raw) = announced(b"theirs");
    let fs = disk();
    let ours = write(&fs, b"ours").unwrap();
    let mut receiver = receiver(&fs, id);
    receiver.write(&raw).unwrap();
    assert!(matches!(receiver.publish(), Err(SnapshotError::Exists { .. })));
    assert_eq!(read(&fs, &ours).unwrap(), b"ours");
}

#[test]
fn a_mapped_snapshot_outlives_its_name() {
    let fs = disk();
    let id = write(&fs, b"content").unwrap();
    let reader = Reader::open(&fs, Path::new(DIR), &id).unwrap();
    fs.remove(&path()).unwrap();
    let content: Vec<_> = reader.content().map(|chunk| chunk.unwrap()).collect();
    assert_eq!(content, [bytes::Bytes::from_static(b"content")]);
    assert_eq!(fs.open(&path(), false).err().map(|error| error.kind()), Some(std::io::ErrorKind::NotFound));
    assert!(fs.temp(Path::new(DIR)).unwrap().map().unwrap().is_empty());
}

/// The file of [`header`] with the content `hello`. A later version must still read it.
const GOLDEN: &str = concat!(
    "52414654534e500101000000600000003412000000000000070000000000000030313233343536373839616263646566",
    "0000000000000000030000000000000001000000000000000200000000000000030300000000000000000000152085de",
    "191746ff68656c6c6f534e4150454e44010500000000000000a900000000000000eeb804c5696736a6d7ea9f4da0f12b",
    "93ae3ea49c76b8b4319728ee4740a0ff6f000000003facad4d",
);
