//! Writes that went astray and writes that never happened: whole sectors with the bytes of others, or with zeros. Each
//! leaves an identical state or a refusal that names the place. The one exception is what no single disk can know: the
//! log's very last sector, if the witness of its frames goes with them.

use std::path::{Path, PathBuf};

use raftmap_storage::model::SECTOR;

use crate::damage::{Small, Verdict};
use crate::sample;

/// Replaces one sector; `None` where it held the same already.
fn replace(small: &Small, path: &Path, bytes: &[u8], sector: usize, by: &[u8], how: &str) -> Option<Verdict> {
    let start = sector * SECTOR;
    let old = &bytes[start..bytes.len().min(start + SECTOR)];
    let first = old.iter().zip(by).position(|(old, new)| old != new)?;
    let damaged = small.disk.kill();
    damaged.damage(path, |bytes| {
        let length = old.len().min(by.len());
        bytes[start..start + length].copy_from_slice(&by[..length]);
        true
    });
    Some(small.judge(&damaged, path, bytes, start + first, how))
}

/// The file that the log ends in, and its last sector with a frame in it.
fn last_sector(files: &[(PathBuf, Vec<u8>)]) -> (PathBuf, usize) {
    let segments =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "wal"));
    let written = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).filter(|last| *last >= 4096);
    let last = segments.filter_map(|(path, bytes)| Some((path, written(bytes)?))).next_back();
    let (path, last) = last.expect("a log with frames");
    (path.clone(), last / SECTOR)
}

fn check(small: &Small, by: impl Fn(&Path, usize) -> Vec<Vec<u8>>, how: &str) {
    let files = small.files();
    let end = last_sector(&files);
    let mut refused = 0;
    for (path, bytes) in &files {
        for sector in 0..bytes.len().div_ceil(SECTOR) {
            for new in by(path, sector) {
                match replace(small, path, bytes, sector, &new, how) {
                    Some(Verdict::Refused) => refused += 1,
                    Some(Verdict::Same) | None => {}
                    Some(Verdict::LostAcknowledged | Verdict::LostUnacknowledged) => {
                        assert_eq!((path.clone(), sector), end, "{how}: acknowledged state is lost");
                    }
                }
            }
        }
    }
    assert!(refused > 10, "{how}: {refused} refused");
}

#[test]
fn a_sector_that_was_never_written() {
    check(&Small::cleanly_stopped(14), |_, _| vec![vec![0; SECTOR]], "a lost write");
}

#[test]
fn a_sector_that_was_written_elsewhere() {
    let small = Small::cleanly_stopped(15);
    let files = small.files();
    let sectors: Vec<&[u8]> = files.iter().flat_map(|(_, bytes)| bytes.chunks(SECTOR)).collect();
    let step = sample(5, 1) as usize;
    let others = |_: &Path, sector: usize| {
        sectors.iter().skip(sector % step).step_by(step).map(|other| other.to_vec()).collect()
    };
    check(&small, others, "a misdirected write");
}

/// As the one above, but by whole frames: each one at the place of each other one in its file.
#[test]
fn a_frame_that_stands_elsewhere() {
    let small = Small::cleanly_stopped(16);
    let mut moved = 0;
    for (path, bytes) in small.files().iter().filter(|(path, _)| path.ends_with("seg-0000000000000001.wal")) {
        let starts = crate::damage::frames(bytes);
        for (from, length) in &starts {
            for (to, _) in starts.iter().filter(|(to, _)| to != from && to + length <= bytes.len()) {
                let damaged = small.disk.kill();
                damaged.damage(path, |bytes| {
                    bytes.copy_within(*from..from + length, *to);
                    true
                });
                let verdict = small.judge(&damaged, path, bytes, *to, "a frame from elsewhere");
                assert_eq!(verdict, Verdict::Refused, "the frame at {from} at the place of the one at {to}");
                moved += 1;
            }
        }
    }
    assert!(moved > 20, "{moved} frames moved");
}
