//! A segment file before its first frame: its name, its header block, and how one is made.
//!
//! A segment gets its name only when header and zeros are on the disk, so under a name nothing is ever half made: a
//! bad header, or a length that is not the header's capacity, is damage.
//!
//! | offset | bytes | field          | note                                                       |
//! |--------|-------|----------------|------------------------------------------------------------|
//! | 0      | 8     | magic          | `RAFTMAP\x01`                                              |
//! | 8      | 4     | format version | 1                                                          |
//! | 12     | 4     | header length  | 4096                                                       |
//! | 16     | 16    | disk id        | the same in every file of a directory                      |
//! | 32     | 8     | segment id     | the one in the name                                        |
//! | 40     | 8     | salt           | random, per file                                           |
//! | 48     | 8     | capacity       | bytes of the file                                          |
//! | 56     | 4     | reserved       | 0                                                          |
//! | 60     | 4     | crc            | CRC-32 of bytes 0..60                                      |
//! | 64     | 4032  | zeros          | the block is written whole                                 |

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{File, Fs, write_all_at};
use crate::record;
use crate::types::{DiskId, frame_len};

/// The format this code writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Bytes ahead of the first frame.
pub(crate) const HEADER_LEN: u64 = 4096;
/// Bytes of the header block that carry something.
const FIELDS_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"RAFTMAP\x01";
/// Ids end here, so that an id and an offset share 64 bits.
pub(crate) const ID_END: u64 = 1 << 32;
/// The largest segment; offsets must fit 32 bits with room to spare.
pub(crate) const CAPACITY_MAX: u64 = 1 << 30;
/// The smallest that could hold anything: header, OPEN, and the SYNCED and SEAL every segment keeps room for.
pub(crate) const CAPACITY_MIN: u64 = HEADER_LEN + record::OPEN_LEN + record::RESERVE;
/// Zeros are written in pieces of this many bytes, each synced: the log's own sync, on the same disk, never waits
/// behind more than one of them.
const ZEROS_STEP: usize = 1 << 20;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) disk: DiskId,
    pub(crate) id: u64,
    pub(crate) salt: u64,
    pub(crate) capacity: u64,
}

/// Why a header block was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Written by another version of this format.
    Version(u32),
    /// Not what was written.
    Bad(&'static str),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; FIELDS_LEN] {
        let mut block = [0; FIELDS_LEN];
        block[0..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        block[16..32].copy_from_slice(&self.disk.0);
        block[32..40].copy_from_slice(&self.id.to_le_bytes());
        block[40..48].copy_from_slice(&self.salt.to_le_bytes());
        block[48..56].copy_from_slice(&self.capacity.to_le_bytes());
        let crc = crc32fast::hash(&block[..60]);
        block[60..64].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads the header block: `HEADER_LEN` bytes.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        let Some((fields, rest)) = block.split_first_chunk::<FIELDS_LEN>() else {
            return Err(HeaderError::Bad("the file is shorter than a segment header"));
        };
        if crc32fast::hash(&fields[..60]) != u32_at(fields, 60) {
            return Err(HeaderError::Bad("the segment header does not match its checksum"));
        }
        if fields[0..8] != MAGIC {
            return Err(HeaderError::Bad("this is not a segment: wrong magic"));
        }
        // Before everything else that a version may define: a later one may have moved it.
        if u32_at(fields, 8) != VERSION {
            return Err(HeaderError::Version(u32_at(fields, 8)));
        }
        if u64::from(u32_at(fields, 12)) != HEADER_LEN || u32_at(fields, 56) != 0 {
            return Err(HeaderError::Bad("the segment header has values that are never written"));
        }
        if *rest != [0; HEADER_LEN as usize - FIELDS_LEN] {
            return Err(HeaderError::Bad("the segment header is not followed by zeros"));
        }
        let mut disk = DiskId::default();
        disk.0.copy_from_slice(&fields[16..32]);
        let header =
            Self { disk, id: u64_at(fields, 32), salt: u64_at(fields, 40), capacity: u64_at(fields, 48) };
        let sized =
            (CAPACITY_MIN..=CAPACITY_MAX).contains(&header.capacity) && header.capacity.is_multiple_of(8);
        match sized && header.id > 0 && header.id < ID_END {
            true => Ok(header),
            false => Err(HeaderError::Bad("the segment header has values that are never written")),
        }
    }

    /// Where frames may end: behind it there is always room for SYNCED and SEAL.
    pub(crate) fn frames_end(&self) -> u64 {
        self.capacity - record::RESERVE
    }
}

fn u32_at(fields: &[u8; FIELDS_LEN], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&fields[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at(fields: &[u8; FIELDS_LEN], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&fields[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// The name of segment `id`.
pub(crate) fn file_name(id: u64) -> String {
    format!("seg-{id:016x}.wal")
}

/// The id in a segment's name; `None` for every name that [`file_name`] does not make.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".wal")?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id > 0 && id < ID_END && file_name(id) == name).then_some(id)
}

/// Bytes of a segment that holds an entry of `payload_max` bytes, whatever else it must hold.
pub(crate) fn capacity_for(payload_max: u32) -> u64 {
    (CAPACITY_MIN + frame_len(u64::from(payload_max))).next_multiple_of(HEADER_LEN)
}

/// A call that failed, and on what.
#[derive(Debug)]
pub(crate) struct IoFailed {
    pub(crate) op: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
    /// Names in the directory may have changed, durably or not.
    pub(crate) directory_unknown: bool,
}

impl IoFailed {
    /// Failed on a file that has no name yet, or only looked.
    pub(crate) fn before(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { op, path: path.to_owned(), source, directory_unknown: false }
    }

    /// Failed while names change.
    pub(crate) fn naming(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { op, path: path.to_owned(), source, directory_unknown: true }
    }
}

/// Makes a segment, durable under its name: header, then `frames`, then zeros up to its capacity. Replaces what bore
/// the name.
pub(crate) fn make<F: Fs>(fs: &F, dir: &Path, header: &Header, frames: &[u8]) -> Result<F::File, IoFailed> {
    let path = dir.join(file_name(header.id));
    let temp = fs.temp(dir).map_err(IoFailed::before("make", &path))?;
    let mut head = vec![0; HEADER_LEN as usize];
    head[..FIELDS_LEN].copy_from_slice(&header.encode());
    head.extend_from_slice(frames);
    write_all_at(&temp, &head, 0).map_err(IoFailed::before("write", &path))?;
    fill_zeros(&temp, head.len() as u64, header.capacity, true).map_err(IoFailed::before("write", &path))?;
    temp.sync_data().map_err(IoFailed::before("sync", &path))?;
    let file = fs.persist(temp, &path).map_err(IoFailed::naming("name", &path))?;
    fs.sync_dir(dir).map_err(IoFailed::naming("sync", dir))?;
    Ok(file)
}

/// A file's random number: frames of another file, even of the same id, do not pass for its own.
pub(crate) fn salt<F: Fs>(fs: &F) -> io::Result<u64> {
    let [a, b, c, d, e, f, g, h, ..] = fs.entropy()?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// Writes zeros over `[from, to)`. Real ones: a hole, or blocks merely reserved, would cost a journal commit when the
/// log's sync comes to them.
pub(crate) fn fill_zeros(file: &impl File, mut from: u64, to: u64, paced: bool) -> io::Result<()> {
    let zeros = vec![0; ZEROS_STEP.min(to.saturating_sub(from) as usize)];
    while from < to {
        let step = zeros.len().min((to - from) as usize);
        write_all_at(file, &zeros[..step], from)?;
        from += step as u64;
        if paced && from < to {
            file.sync_data()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelFs, Op};

    fn header() -> Header {
        Header { disk: DiskId([0xAB; 16]), id: 3, salt: 0x1122_3344_5566_7788, capacity: 65536 }
    }

    fn block(header: &Header) -> Vec<u8> {
        let mut block = header.encode().to_vec();
        block.resize(HEADER_LEN as usize, 0);
        block
    }

    #[test]
    fn header_has_these_bytes() {
        let hex: String = header().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "524146544d4150010100000000100000abababababababababababababababab\
             03000000000000008877665544332211000001000000000000000000d6b2a18f"
        );
        assert_eq!(Header::decode(&block(&header())), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_the_header_block_is_noticed() {
        let whole = block(&header());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::decode(&bytes), Err(HeaderError::Bad(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_block_that_is_cut_short_is_no_header() {
        for len in [0, 1, FIELDS_LEN - 1] {
            let cut = Header::decode(&block(&header())[..len]);
            assert_eq!(cut, Err(HeaderError::Bad("the file is shorter than a segment header")));
        }
    }

    /// One long sync would hold up the log's own.
    #[test]
    fn a_large_segment_is_synced_as_it_is_filled() {
        let (fs, dir) = (ModelFs::new(1), Path::new("/d"));
        fs.create_dir_all(dir).unwrap();
        let header = Header { capacity: 3 * ZEROS_STEP as u64 + HEADER_LEN, ..header() };
        let file = make(&fs, dir, &header, &[]).unwrap();
        assert_eq!((file.len().unwrap(), fs.count(Op::SyncData)), (header.capacity, 3));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = block(&header());
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Version(2)));
    }

    #[test]
    fn names_are_strict() {
        assert_eq!(file_name(0x1f), "seg-000000000000001f.wal");
        assert_eq!(parse_file_name("seg-000000000000001f.wal"), Some(31));
        for odd in [
            "seg-000000000000001F.wal",
            "seg-1f.wal",
            "seg-+00000000000001f.wal",
            "seg-0000000000000000.wal",
            "seg-0000000100000000.wal",
            "seg-000000000000001f.wal.bak",
            "seg-000000000000001f",
        ] {
            assert_eq!(parse_file_name(odd), None, "{odd}");
        }
    }
}
