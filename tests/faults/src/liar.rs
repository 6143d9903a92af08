//! Disks that lie, for the negative controls: the operating system's, without one of the syncs that the log relies on.
//! A suite of power cuts that stays green on one of these proves nothing.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use raftmap::storage::fs::{File, Fs, LockError};
use raftmap::storage::os::{OsFile, OsFs, OsTemp};

/// What is reported done and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lie {
    /// No fdatasync of any file.
    LazyFsync,
    /// No sync of any directory.
    NoDirFsync,
    /// No fdatasync behind writes that hold terms and votes alone.
    NoVoteSync,
}

impl Lie {
    pub(crate) const ALL: [Self; 3] = [Self::LazyFsync, Self::NoDirFsync, Self::NoVoteSync];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LazyFsync => "lazy-fsync",
            Self::NoDirFsync => "no-dir-fsync",
            Self::NoVoteSync => "no-vote-sync",
        }
    }
}

/// The operating system's files under one lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liar(pub(crate) Lie);

/// What was written to a file since its last sync, honest or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsynced {
    Nothing,
    VotesAlone,
    Anything,
}

#[derive(Debug)]
pub(crate) struct LiarFile<F> {
    inner: F,
    lie: Lie,
    unsynced: Mutex<Unsynced>,
}

impl<F: File> LiarFile<F> {
    fn new(inner: F, lie: Lie) -> Self {
        // What an earlier life wrote is not known here.
        Self { inner, lie, unsynced: Mutex::new(Unsynced::Anything) }
    }

    fn wrote(&self, buf: &[u8]) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *unsynced = match *unsynced {
            Unsynced::Nothing | Unsynced::VotesAlone if votes_alone(buf) => Unsynced::VotesAlone,
            Unsynced::Nothing | Unsynced::VotesAlone | Unsynced::Anything => Unsynced::Anything,
        };
    }
}

/// Kinds and header of frames: storage/FORMAT.md.
const HARDSTATE: u8 = 2;
const SYNCED: u8 = 6;
const FRAME_HEADER: usize = 40;

/// Whether `buf` is frames of terms and votes (and of what was synced before) and no others.
fn votes_alone(mut buf: &[u8]) -> bool {
    while let Some(header) = buf.get(..FRAME_HEADER) {
        if header[0] != HARDSTATE && header[0] != SYNCED {
            return false;
        }
        let payload = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        buf = buf.get(FRAME_HEADER + payload.next_multiple_of(8)..).unwrap_or_default();
    }
    buf.is_empty()
}

impl<F: File> File for LiarFile<F> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.inner.write_at(buf, offset)?;
        self.wrote(buf);
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let was = std::mem::replace(&mut *unsynced, Unsynced::Nothing);
        match self.lie {
            Lie::LazyFsync => Ok(()),
            Lie::NoVoteSync if was == Unsynced::VotesAlone => Ok(()),
            Lie::NoVoteSync | Lie::NoDirFsync => self.inner.sync_data(),
        }
    }

    fn map(&self) -> io::Result<Bytes> {
        self.inner.map()
    }
}

impl Fs for Liar {
    type File = LiarFile<OsFile>;
    type Temp = LiarFile<OsTemp>;
    type Lock = <OsFs as Fs>::Lock;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        match self.0 {
            Lie::NoDirFsync => std::fs::create_dir_all(dir),
            Lie::LazyFsync | Lie::NoVoteSync => OsFs.create_dir_all(dir),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsFs.list(dir)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File> {
        Ok(LiarFile::new(OsFs.open(path, writable)?, self.0))
    }

    fn temp(&self, dir: &Path) -> io::Result<Self::Temp> {
        Ok(LiarFile::new(OsFs.temp(dir)?, self.0))
    }

    fn persist(&self, temp: Self::Temp, to: &Path) -> io::Result<Self::File> {
        Ok(LiarFile::new(OsFs.persist(temp.inner, to)?, self.0))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.0 {
            Lie::NoDirFsync => Ok(()),
            Lie::LazyFsync | Lie::NoVoteSync => OsFs.sync_dir(dir),
        }
    }

    fn lock(&self, path: &Path) -> Result<Self::Lock, LockError> {
        OsFs.lock(path)
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        OsFs.available_space(dir)
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        OsFs.entropy()
    }
}
