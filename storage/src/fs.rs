//! The one narrow door to files. The log, its recovery and the snapshot files reach the disk through these two traits
//! alone, so that the same code runs on the operating system ([`crate::os`]) and on a model disk that loses, keeps and
//! tears what was not synced.
//!
//! Nothing here retries: what a failed call left behind is for the caller to treat as unknown.

use std::io;
use std::path::Path;

use bytes::Bytes;

/// A file that is open for reading and writing at given places. Positions are absolute; there is no cursor.
#[expect(clippy::len_without_is_empty, reason = "a file's length is asked for, never whether it has one")]
pub trait File: Send + Sync + 'static {
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Reads up to `buf.len()` bytes at `offset`; 0 means the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of `buf` at `offset` and says how much. Visible to readers at once, durable only after a sync.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// `fdatasync`: everything written before this call is on the disk when it returns `Ok`. After an `Err` nothing is
    /// known of those bytes, and a later `Ok` does not vouch for them.
    fn sync_data(&self) -> io::Result<()>;

    /// The whole file as one read-only slice, without copying. The file must neither shrink nor be written to while
    /// any part of it lives.
    fn map(&self) -> io::Result<Bytes>;
}

/// Why the directory's lock was not given.
#[derive(Debug)]
pub enum LockError {
    /// Somebody holds it, in this process or another; with the holder's process id where it could be read.
    Held {
        /// The process that holds the lock.
        pid: Option<u32>,
    },
    /// The lock file could not be made or locked.
    Io(io::Error),
}

/// A file system, and what else of the host the store needs.
pub trait Fs: Clone + Send + Sync + 'static {
    /// An open file under its final name.
    type File: File;
    /// A file without its final name yet (`tmp-…` in the same directory); removed when dropped unpersisted, as far as
    /// the process lives.
    type Temp: File;
    /// Held for as long as the value lives.
    type Lock: Send + 'static;

    /// Makes `dir` and its parents, each entry synced into its parent.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in `dir`, sorted; names that are not UTF-8 are given lossily (they match nothing of ours).
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens an existing file; `writable` or read-only.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File>;

    /// A new empty temporary file in `dir`, mode 0600, named `tmp-…`.
    fn temp(&self, dir: &Path) -> io::Result<Self::Temp>;

    /// Gives `temp` its name, replacing what bore it. A rename and no more: the caller has synced the file before, and
    /// syncs the directory after.
    fn persist(&self, temp: Self::Temp, to: &Path) -> io::Result<Self::File>;

    /// Unlinks a file. Readers that have it open or mapped keep it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the directory's entries durable: names given, replaced and removed before this call.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of `path`, waiting at most 250 ms, and writes the process id into it.
    fn lock(&self, path: &Path) -> Result<Self::Lock, LockError>;

    /// Bytes that may still be written below `dir`.
    fn available_space(&self, dir: &Path) -> io::Result<u64>;

    /// 16 random bytes for disk ids and salts; seeded in a model.
    fn entropy(&self) -> io::Result<[u8; 16]>;
}

/// Writes all of `buf` at `offset`. A write that makes no progress is an error, never a gap.
pub fn write_all_at(file: &impl File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                buf = buf.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buf` from `offset`. A file that ends first is `UnexpectedEof`.
pub fn read_exact_at(file: &impl File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut std::mem::take(&mut buf)[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A file that is interrupted at every other call and then does one byte.
    #[derive(Default)]
    struct Restless {
        calls: AtomicU32,
        bytes: Mutex<Vec<u8>>,
        full: bool,
    }

    impl Restless {
        fn turn(&self) -> io::Result<()> {
            if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                Ok(())
            }
        }
    }

    impl File for Restless {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().unwrap().len() as u64)
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.turn()?;
            let bytes = self.bytes.lock().unwrap();
            let Some(byte) = bytes.get(offset as usize) else { return Ok(0) };
            buf[0] = *byte;
            Ok(1)
        }

        fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
            self.turn()?;
            if self.full {
                return Ok(0);
            }
            assert_eq!(self.bytes.lock().unwrap().len() as u64, offset);
            self.bytes.lock().unwrap().push(buf[0]);
            Ok(1)
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn map(&self) -> io::Result<Bytes> {
            Ok(Bytes::from(self.bytes.lock().unwrap().clone()))
        }
    }

    #[test]
    fn an_interrupted_or_short_call_goes_on_where_it_was() {
        let file = Restless::default();
        write_all_at(&file, b"whole", 0).unwrap();
        let mut read = [0; 5];
        read_exact_at(&file, &mut read, 0).unwrap();
        assert_eq!(&read, b"whole");
        assert_eq!(file.calls.into_inner(), 20);
    }

    #[test]
    fn no_progress_is_an_error_and_never_a_gap() {
        let file = Restless { full: true, ..Restless::default() };
        assert_eq!(write_all_at(&file, b"x", 0).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(read_exact_at(&file, &mut [0], 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
