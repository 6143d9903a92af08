//! How often a directory has been started from: a small counter beside the log, so that others can tell two lives of
//! one disk apart. Nothing acknowledged depends on it.
//!
//! `BOOT`: the count (8 bytes, little-endian), CRC-32 of them (4 bytes). Replaced as a whole: temporary file, sync,
//! rename, directory sync.

use std::io;
use std::path::Path;

use crate::error::is_no_space;
use crate::fs::{File, Fs, read_exact_at, write_all_at};

/// The counter's file name.
pub const FILE_NAME: &str = "BOOT";

/// Counts one more start and returns the count, from 1. An absent or unreadable counter begins again; on a full disk it
/// stays as it was, since a full disk is no reason not to start.
///
/// # Errors
/// The new count could not be made durable.
pub fn count<F: Fs>(fs: &F, dir: &Path) -> io::Result<u64> {
    let path = dir.join(FILE_NAME);
    let boots = read(fs, &path).unwrap_or(0).saturating_add(1);
    match write(fs, dir, &path, boots) {
        Err(error) if is_no_space(&error) => tracing::warn!(boots, "no space to count this start"),
        written => written?,
    }
    Ok(boots)
}

fn write<F: Fs>(fs: &F, dir: &Path, path: &Path, boots: u64) -> io::Result<()> {
    let count = boots.to_le_bytes();
    let temp = fs.temp(dir)?;
    write_all_at(&temp, &count, 0)?;
    write_all_at(&temp, &crc32fast::hash(&count).to_le_bytes(), count.len() as u64)?;
    temp.sync_data()?;
    fs.persist(temp, path)?;
    fs.sync_dir(dir)
}

fn read<F: Fs>(fs: &F, path: &Path) -> Option<u64> {
    let file = fs.open(path, false).ok()?;
    let (mut count, mut crc) = ([0; 8], [0; 4]);
    read_exact_at(&file, &mut count, 0).ok()?;
    read_exact_at(&file, &mut crc, count.len() as u64).ok()?;
    (u32::from_le_bytes(crc) == crc32fast::hash(&count)).then(|| u64::from_le_bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Effect, ModelFs};
    use crate::os::OsFs;

    #[test]
    fn a_full_disk_keeps_nobody_from_starting() {
        let (fs, dir) = (ModelFs::new(1), Path::new("/d"));
        fs.create_dir_all(dir).unwrap();
        assert_eq!(count(&fs, dir).unwrap(), 1);
        fs.set_quota(Some(fs.used()));
        assert_eq!((count(&fs, dir).unwrap(), count(&fs, dir).unwrap()), (2, 2));
    }

    #[test]
    fn a_count_that_may_not_be_durable_is_an_error() {
        let (fs, dir) = (ModelFs::new(1), Path::new("/d"));
        fs.create_dir_all(dir).unwrap();
        for call in 0..6 {
            let fs = fs.kill();
            fs.fail_nth(call, Effect::Eio);
            assert!(count(&fs, dir).is_err() || call == 0, "call {call}");
        }
    }

    #[test]
    fn counts_on_and_begins_again_where_it_was_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let next = || count(&OsFs, dir.path()).unwrap();
        assert_eq!((next(), next(), next()), (1, 2, 3));
        std::fs::write(dir.path().join(FILE_NAME), [1, 2, 3]).unwrap();
        assert_eq!((next(), next()), (1, 2));
    }
}
