//! The log that QEMU's `blklogwrites` keeps of a block device: every write and flush, in the order of their completion.
//!
//! One sector of header (magic, version, number of entries, sector size), then entry behind entry: a sector of (first
//! sector, sectors, flags, length), then the bytes written. All integers are little-endian.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Result, Scenery, Stop};

/// Bytes of a sector: what a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const COUNT_OFFSET: u64 = 16;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    /// Where on the device, in bytes.
    pub(crate) to: u64,
    /// How many bytes; 0 for a bare flush.
    pub(crate) length: u64,
    /// Where its bytes stand in the log.
    pub(crate) data: u64,
    /// Everything logged before it is on the disk once it is done.
    pub(crate) flush: bool,
}

/// A log that is finished.
#[derive(Debug)]
pub(crate) struct BlockLog {
    file: File,
    pub(crate) entries: Vec<Logged>,
}

/// The number of entries so far, while the device is in use. The device writes it before it reports a flush done, so
/// what was acknowledged behind that flush is within the first so many.
pub(crate) fn count(log: &File) -> std::io::Result<u64> {
    u64_at(log, COUNT_OFFSET)
}

fn u64_at(file: &File, offset: u64) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(u64::from_le_bytes(bytes))
}

impl BlockLog {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).or_broken("opening the block log")?;
        let header = |at| u64_at(&file, at).or_broken("reading the block log's header");
        if header(0)? != MAGIC {
            return Err(Stop::Broken(format!("{} is no block log", path.display())));
        }
        let total = header(COUNT_OFFSET)?;
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..total {
            let field = |nth: u64| u64_at(&file, at + nth * 8).or_broken("reading the block log");
            let (sector, sectors, flags) = (field(0)?, field(1)?, field(2)?);
            if flags & DISCARD != 0 {
                return Err(Stop::Broken("the file system discarded blocks; format without discard".into()));
            }
            let length = sectors * SECTOR;
            let flush = flags & FLUSH != 0;
            entries.push(Logged { to: sector * SECTOR, length, data: at + SECTOR, flush });
            at += SECTOR + length;
        }
        Ok(Self { file, entries })
    }

    pub(crate) fn bytes(&self, entry: &Logged) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(entry.length).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, entry.data).or_broken("reading the block log")?;
        Ok(bytes)
    }

    /// How many of the first `cut` entries a flush among them covers.
    pub(crate) fn flushed(&self, cut: usize) -> usize {
        self.entries.iter().take(cut).rposition(|entry| entry.flush).map_or(0, |at| at + 1)
    }
}
