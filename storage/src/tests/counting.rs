//! How many writes and syncs the log costs, on real files.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::fs::{File, LockError};
use crate::os::{OsFs, OsLock};

#[derive(Debug, Default)]
struct Counts {
    writes: AtomicU64,
    syncs: AtomicU64,
    dir_syncs: AtomicU64,
}

/// Counts the calls on files that have their name; what happens to temporary ones is the chores' business.
#[derive(Clone, Debug, Default)]
struct CountingFs {
    inner: OsFs,
    counts: Arc<Counts>,
}

struct CountingFile(<OsFs as Fs>::File, Arc<Counts>);

impl File for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        self.0.write_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        self.0.sync_data()
    }
    fn map(&self) -> io::Result<Bytes> {
        self.0.map()
    }
}

impl Fs for CountingFs {
    type File = CountingFile;
    type Temp = <OsFs as Fs>::Temp;
    type Lock = OsLock;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File> {
        Ok(CountingFile(self.inner.open(path, writable)?, Arc::clone(&self.counts)))
    }
    fn temp(&self, dir: &Path) -> io::Result<Self::Temp> {
        self.inner.temp(dir)
    }
    fn persist(&self, temp: Self::Temp, to: &Path) -> io::Result<Self::File> {
        Ok(CountingFile(self.inner.persist(temp, to)?, Arc::clone(&self.counts)))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.counts.dir_syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> Result<Self::Lock, LockError> {
        self.inner.lock(path)
    }
    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        self.inner.available_space(dir)
    }
    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.inner.entropy()
    }
}

#[test]
fn one_write_and_one_fdatasync_a_batch_rotation_included() {
    let temp = tempfile::tempdir().unwrap();
    let fs = CountingFs::default();
    let mut log = Log::open(&fs, temp.path(), options()).unwrap();
    log.chores();
    let count = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
    let (_, _, _) = (count(&fs.counts.writes), count(&fs.counts.syncs), count(&fs.counts.dir_syncs));
    for batch in 1..=500_u64 {
        match batch % 10 {
            1 => log.hard_state(batch, Some(1)),
            _ => log.entries(1, (batch - 1) / 10 * 10 + 1, 60),
        }
        let synced = log.sync().unwrap();
        assert_eq!(synced.through, Some(batch));
        assert_eq!(count(&fs.counts.syncs), 1, "batch {batch}");
        // The batch, and behind its sync the witness: SYNCED, or OPEN in the next segment.
        assert_eq!(count(&fs.counts.writes), 2, "batch {batch}");
        assert_eq!(count(&fs.counts.dir_syncs), 0, "batch {batch}");
        log.chores();
        // A named file is never written or synced by a chore; the directory is.
        assert_eq!((count(&fs.counts.writes), count(&fs.counts.syncs)), (0, 0));
        count(&fs.counts.dir_syncs);
    }
    let stats = log.wal.stats();
    assert_eq!((stats.batches, stats.syncs), (500, 500));
    assert!(stats.rotations >= 8, "{stats:?}");
}
