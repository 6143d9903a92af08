//! The operating system's own files, where they say something else than success.

use std::io;

use super::*;
use crate::fs::{File, LockError};
use crate::os::OsFs;

#[test]
fn a_directory_is_made_with_all_above_it_and_may_be_there() {
    let temp = tempfile::tempdir().unwrap();
    let deep = temp.path().join("a/b/c");
    for _ in 0..2 {
        OsFs.create_dir_all(&deep).unwrap();
        assert!(deep.is_dir());
    }
    // A bare name stands in the current directory: this package's.
    OsFs.create_dir_all(Path::new("src")).unwrap();
}

/// Every file of data begins as one of these: what the map holds is its owner's.
#[cfg(unix)]
#[test]
fn files_of_data_are_read_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let temp = OsFs.temp(dir.path()).unwrap();
    let path = dir.path().join("data");
    OsFs.persist(temp, &path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn no_directory_is_made_below_a_file() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("file"), "").unwrap();
    let error = OsFs.create_dir_all(&temp.path().join("file/below")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}

/// A name that cannot be made durable is no name. /proc cannot sync its own.
#[cfg(target_os = "linux")]
#[test]
fn a_parent_that_cannot_be_synced_is_an_error() {
    let error = OsFs.create_dir_all(Path::new("/proc/self")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

/// As `lost+found` where a file system of its own is mounted: not to be opened, nor asked how long it is.
#[test]
fn what_is_no_file_is_not_listed() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("lost+found")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
    std::fs::write(temp.path().join("file"), "").unwrap();
    assert_eq!(OsFs.list(temp.path()).unwrap(), ["file"]);
    let quota = crate::quota::Quota::new(OsFs, 100);
    assert_eq!(quota.available_space(temp.path()).unwrap(), 100);
}

/// The process id in the lock file is for people: a disk that has no room for it keeps nobody out.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_does_not_keep_a_directory_from_being_locked() {
    let temp = tempfile::tempdir().unwrap();
    let lock = temp.path().join("LOCK");
    std::os::unix::fs::symlink("/dev/full", &lock).unwrap();
    OsFs.lock(&lock).unwrap();
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_an_error_and_no_holder() {
    let temp = tempfile::tempdir().unwrap();
    assert!(matches!(OsFs.lock(temp.path()), Err(LockError::Io(_))));
}

#[test]
fn an_empty_file_is_an_empty_map() {
    let temp = tempfile::tempdir().unwrap();
    assert!(OsFs.temp(temp.path()).unwrap().map().unwrap().is_empty());
}
