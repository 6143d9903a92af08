//! A bound on what a directory may take, on any file system: at it, writes that would make a file longer fail as on a
//! full disk. For machines where several directories share a disk and the system offers no quotas, and for tests of full
//! disks.
//!
//! Nothing is counted along the way: whenever a file grows, the lengths of all files in its directory are added up.
//! So files of others count too, and the room they leave behind is found at once. Growth is rare: the log writes into
//! segments that were filled with zeros beforehand.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::fs::{File, Fs, LockError};

/// A file system whose directories take so many bytes at most.
#[derive(Clone, Copy, Debug)]
pub struct Quota<F> {
    inner: F,
    bytes: u64,
}

impl<F: Fs> Quota<F> {
    /// At most `bytes` in each directory, its files taken by their lengths.
    pub fn new(inner: F, bytes: u64) -> Self {
        Self { inner, bytes }
    }

    /// Bytes by which files in `dir` may still grow.
    fn left(&self, dir: &Path) -> io::Result<u64> {
        let mut taken = 0_u64;
        for name in self.inner.list(dir)? {
            match self.inner.open(&dir.join(name), false).and_then(|file| file.len()) {
                Ok(length) => taken = taken.saturating_add(length),
                // Gone since it was listed, or not ours.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.bytes.saturating_sub(taken))
    }

    fn bound<T>(&self, file: T, path: &Path) -> Bounded<T, F> {
        let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        Bounded { file, fs: self.clone(), dir }
    }
}

/// A file that grows within its directory's bound.
#[derive(Debug)]
pub struct Bounded<T, F> {
    file: T,
    fs: Quota<F>,
    dir: PathBuf,
}

impl<T: File, F: Fs> File for Bounded<T, F> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// As a disk does it: what still fits is written, and only then it is full.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let (length, end) = (self.file.len()?, offset.saturating_add(buf.len() as u64));
        if end <= length {
            return self.file.write_at(buf, offset);
        }
        let limit = length.saturating_add(self.fs.left(&self.dir)?);
        match usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len()) {
            0 if !buf.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            fits => self.file.write_at(buf.get(..fits).unwrap_or_default(), offset),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }
}

impl<F: Fs> Fs for Quota<F> {
    type File = Bounded<F::File, F>;
    type Temp = Bounded<F::Temp, F>;
    type Lock = F::Lock;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File> {
        Ok(self.bound(self.inner.open(path, writable)?, path))
    }

    fn temp(&self, dir: &Path) -> io::Result<Self::Temp> {
        Ok(Bounded { file: self.inner.temp(dir)?, fs: self.clone(), dir: dir.to_owned() })
    }

    fn persist(&self, temp: Self::Temp, to: &Path) -> io::Result<Self::File> {
        Ok(self.bound(self.inner.persist(temp.file, to)?, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Self::Lock, LockError> {
        self.inner.lock(path)
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        Ok(self.inner.available_space(dir)?.min(self.left(dir)?))
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.inner.entropy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::write_all_at;
    use crate::os::OsFs;

    #[test]
    fn files_grow_until_their_directory_is_full_and_again_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Quota::new(OsFs, 100);
        let (path, ballast) = (dir.path().join("a"), dir.path().join("ballast"));
        let file = fs.persist(fs.temp(dir.path()).unwrap(), &path).unwrap();
        std::fs::write(&ballast, [0; 60]).unwrap();
        assert_eq!(fs.available_space(dir.path()).unwrap(), 40);
        // What fits goes out first, as on a disk.
        assert_eq!(file.write_at(&[1; 50], 0).unwrap(), 40);
        assert_eq!(file.write_at(&[1; 10], 40).unwrap_err().kind(), io::ErrorKind::StorageFull);
        // What is there may be written again, and a temporary file is no way around.
        assert_eq!(file.write_at(&[2; 40], 0).unwrap(), 40);
        let temp = fs.temp(dir.path()).unwrap();
        assert_eq!(temp.write_at(&[1], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        std::fs::remove_file(&ballast).unwrap();
        write_all_at(&temp, &[1; 30], 0).unwrap();
        let error = write_all_at(&file, &[3; 60], 40).unwrap_err();
        assert_eq!((error.kind(), file.len().unwrap()), (io::ErrorKind::StorageFull, 70));
        drop(temp);
        write_all_at(&file, &[3; 30], 70).unwrap();
        assert_eq!(fs.available_space(dir.path()).unwrap(), 0);
    }

    #[test]
    fn a_directory_that_was_overfull_before_has_no_room_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, [7; 200]).unwrap();
        let fs = Quota::new(OsFs, 100);
        let file = fs.open(&path, true).unwrap();
        assert_eq!((fs.available_space(dir.path()).unwrap(), file.len().unwrap()), (0, 200));
        assert_eq!(file.write_at(&[8; 10], 190).unwrap(), 10);
        assert!(file.write_at(&[8; 10], 200).is_err());
        // Nothing at all fits everywhere.
        assert_eq!((file.write_at(&[], 300).unwrap(), file.len().unwrap()), (0, 200));
    }

    #[test]
    fn a_file_that_has_gone_takes_nothing_and_one_that_cannot_be_asked_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Quota::new(OsFs, 100);
        std::fs::write(dir.path().join("a"), [7; 60]).unwrap();
        // Listed, and nothing behind the name: as when it was unlinked in between.
        std::os::unix::fs::symlink("nothing", dir.path().join("gone")).unwrap();
        assert_eq!(fs.available_space(dir.path()).unwrap(), 40);
        std::os::unix::fs::symlink("around", dir.path().join("around")).unwrap();
        assert!(fs.available_space(dir.path()).is_err(), "a name that leads to itself");
    }
}
