//! The operating system behind the [`Fs`] trait: pread and pwrite, fdatasync, flock, rename.
//!
//! Local disks only: `flock` and `fdatasync` over a network file system promise less than the log needs.

mod map;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::NamedTempFile;

use crate::fs::{File, Fs, LockError};
use crate::recover::LOCK;

/// How long [`Fs::lock`] waits for the holder to let go.
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// How often it looks meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// The host's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

/// An open file under its final name.
#[derive(Debug)]
pub struct OsFile(fs::File);

/// A file that has no final name yet; unlinked when dropped.
#[derive(Debug)]
pub struct OsTemp(NamedTempFile);

/// Holds the directory. The system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct OsLock(#[expect(dead_code, reason = "held for its drop, which unlocks")] fs::File);

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self) -> io::Result<Bytes> {
        map::map(&self.0)
    }
}

impl File for OsTemp {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.as_file().metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self.0.as_file(), buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self.0.as_file(), buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.as_file().sync_data()
    }

    fn map(&self) -> io::Result<Bytes> {
        map::map(self.0.as_file())
    }
}

impl Fs for OsFs {
    type File = OsFile;
    type Temp = OsTemp;
    type Lock = OsLock;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        if !dir.is_dir() {
            self.create_dir_all(parent)?;
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // Also where it was there: who made it may have been killed before this.
        match self.sync_dir(parent) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
            // A parent that may not be read is not of our making.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                // Where names do not tell what they are, each is asked, and may be gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // What is no file, as `lost+found` in the root of a file system, is not ours.
            if kind.is_file() || kind.is_symlink() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<OsFile> {
        Ok(OsFile(fs::OpenOptions::new().read(true).write(writable).open(path)?))
    }

    fn temp(&self, dir: &Path) -> io::Result<OsTemp> {
        Ok(OsTemp(tempfile::Builder::new().prefix("tmp-").tempfile_in(dir)?))
    }

    fn persist(&self, temp: OsTemp, to: &Path) -> io::Result<OsFile> {
        Ok(OsFile(temp.0.persist(to).map_err(|failed| failed.error)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<OsLock, LockError> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        // flock belongs to the open file, not to the process: a second open here is refused like anybody else's.
        let begin = Instant::now();
        while let Err(error) = fs2::FileExt::try_lock_exclusive(&file) {
            if error.raw_os_error() != fs2::lock_contended_error().raw_os_error() {
                return Err(LockError::Io(error));
            }
            if begin.elapsed() >= LOCK_WAIT {
                return Err(LockError::Held { pid: holder(&mut file) });
            }
            std::thread::sleep(LOCK_POLL);
        }
        // For people only, and a full disk must not keep anybody out.
        if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
            tracing::warn!(path = %path.display(), %error, "the lock file does not tell who holds it");
        }
        Ok(OsLock(file))
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        fs2::available_space(dir)
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// The process that took the lock of `dir` last, as far as the lock file tells. It may be gone: for people and tests.
pub fn lock_holder(dir: &Path) -> Option<u32> {
    holder(&mut fs::File::open(dir.join(LOCK)).ok()?)
}

/// The process id in the lock file; informational, so anything odd is simply not known.
fn holder(file: &mut fs::File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
