//! Reading snapshot files back. Checking goes through positioned reads, where a bad sector is an error; only a file
//! that was checked is mapped, and each chunk is checked again as it is handed out.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::format::{
    self, CHUNK_CRC, CHUNK_STEP, Fault, HEADER_MIN, Layout, TRAILER, decode_header, decode_trailer,
    open_chunk,
};
use super::{Header, SnapshotError, file_name, parse_file_name};
use crate::fs::{File, Fs, read_exact_at};
use crate::types::SnapshotId;

/// A checked snapshot, mapped: its content and its bytes are slices of the file, never copied. The file may be unlinked
/// while slices of it live.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
    pub(super) raw: Bytes,
    checked: Checked,
}

impl Reader {
    /// Checks the whole file of snapshot `id` in `dir`, then maps it.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn open<F: Fs>(fs: &F, dir: &Path, id: &SnapshotId) -> Result<Self, SnapshotError> {
        let path = dir.join(file_name(id.position));
        let file = open(fs, &path)?;
        let checked = check_against(&file, &path, id)?;
        let raw = file.map().map_err(|error| SnapshotError::io("map", &path, error))?;
        if raw.len() as u64 != id.length {
            return Err(SnapshotError::damaged(&path, raw.len() as u64, "the file changed its length"));
        }
        Ok(Self { path, raw, checked })
    }

    /// What the snapshot says of itself.
    pub fn header(&self) -> &Header {
        &self.checked.header
    }

    /// The snapshot's identity, as announced to a peer.
    pub fn id(&self) -> &SnapshotId {
        &self.checked.id
    }

    /// Bytes of the content.
    pub fn content_len(&self) -> u64 {
        self.checked.layout.content
    }

    /// The content in order, in slices of [`super::CHUNK`] bytes (the last may be shorter), each checked once more as
    /// it is handed out: the page may have left the memory since and come back damaged.
    pub fn content(&self) -> Content<'_> {
        Content { reader: self, next: 0 }
    }

    /// The whole file, to be sent to a peer's [`super::Receiver`].
    pub fn raw(&self) -> Bytes {
        self.raw.clone()
    }

    fn chunk(&self, number: u64) -> Result<Bytes, SnapshotError> {
        let (offset, length) = self.checked.layout.chunk(number);
        let at = offset as usize;
        let chunk = self.raw.get(at..at + length).and_then(|chunk| open_chunk(number, chunk));
        match chunk {
            Some(_) => Ok(self.raw.slice(at + CHUNK_CRC..at + length)),
            None => Err(SnapshotError::damaged(&self.path, offset, BAD_CHUNK)),
        }
    }
}

/// The content of a [`Reader`], chunk by chunk. Ends after the first error.
#[derive(Debug)]
pub struct Content<'a> {
    reader: &'a Reader,
    next: u64,
}

impl Iterator for Content<'_> {
    type Item = Result<Bytes, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.reader.checked.layout.chunks {
            return None;
        }
        let chunk = self.reader.chunk(self.next);
        self.next = if chunk.is_ok() { self.next + 1 } else { u64::MAX };
        Some(chunk)
    }
}

/// Checks that the file of snapshot `id` is in `dir` and whole: length, every checksum, digest, position.
///
/// # Errors
/// [`SnapshotError::Missing`], [`SnapshotError::Damaged`], [`SnapshotError::Unreadable`],
/// [`SnapshotError::Unsupported`], or [`SnapshotError::Io`] where the file cannot be opened at all.
pub fn verify<F: Fs>(fs: &F, dir: &Path, id: &SnapshotId) -> Result<Header, SnapshotError> {
    let path = dir.join(file_name(id.position));
    check_against(&open(fs, &path)?, &path, id).map(|checked| checked.header)
}

/// Checks a snapshot file of which nothing is known but its path, and says which snapshot it is.
///
/// # Errors
/// As [`verify`].
pub fn verify_file<F: Fs>(fs: &F, path: &Path) -> Result<(SnapshotId, Header), SnapshotError> {
    let checked = check(&open(fs, path)?, path)?;
    let name = path.file_name().and_then(|name| name.to_str()).and_then(parse_file_name);
    if name.is_some_and(|named| named != checked.id.position) {
        return Err(SnapshotError::damaged(
            path,
            0,
            "it is the snapshot of another position than its name says",
        ));
    }
    Ok((checked.id, checked.header))
}

const BAD_CHUNK: &str = "a chunk's checksum does not match";

/// What a check found.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) id: SnapshotId,
    pub(super) header: Header,
    layout: Layout,
}

fn open<F: Fs>(fs: &F, path: &Path) -> Result<F::File, SnapshotError> {
    fs.open(path, false).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SnapshotError::Missing { path: path.to_path_buf() },
        _ => SnapshotError::io("open", path, error),
    })
}

fn check_against(file: &impl File, path: &Path, id: &SnapshotId) -> Result<Checked, SnapshotError> {
    let length = file_len(file, path)?;
    if length != id.length {
        let what =
            if length < id.length { "the file is cut short" } else { "the file goes on behind its end" };
        return Err(SnapshotError::damaged(path, length.min(id.length), what));
    }
    let checked = check(file, path)?;
    if checked.id != *id {
        return Err(SnapshotError::damaged(path, 0, "it is another snapshot than the one recorded"));
    }
    Ok(checked)
}

/// Checks all of a file through one buffer of one chunk: the ends first, which fix where everything else stands.
pub(super) fn check(file: &impl File, path: &Path) -> Result<Checked, SnapshotError> {
    let length = file_len(file, path)?;
    let Some(end) = length.checked_sub(TRAILER as u64).filter(|end| *end >= HEADER_MIN as u64) else {
        return Err(SnapshotError::damaged(path, length, "the file is too short for a header and a trailer"));
    };
    let mut check = Check { file, path, buffer: vec![0; CHUNK_STEP], digest: blake3::Hasher::new() };
    let trailer = decode_trailer(check.read(end, TRAILER)?).map_err(|fault| check.fault(end, fault))?;
    let (header, header_len) = check.header(end)?;
    let layout = Layout::of(length, header_len)
        .filter(|layout| trailer.length == length && trailer.content == layout.content)
        .ok_or_else(|| SnapshotError::damaged(path, end, "the trailer's lengths are not the file's"))?;
    check.chunks(&layout)?;
    if *check.digest.finalize().as_bytes() != trailer.digest {
        return Err(SnapshotError::damaged(path, end, "the digest does not match"));
    }
    let id = SnapshotId { position: header.position, length, digest: trailer.digest };
    Ok(Checked { id, header, layout })
}

struct Check<'a, F> {
    file: &'a F,
    path: &'a Path,
    buffer: Vec<u8>,
    digest: blake3::Hasher,
}

impl<F: File> Check<'_, F> {
    /// `length` bytes at `offset`; at most a chunk with its checksum.
    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], SnapshotError> {
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        match read_exact_at(self.file, buffer, offset) {
            Ok(()) => Ok(buffer),
            Err(source) => Err(SnapshotError::Unreadable { path: self.path.to_path_buf(), offset, source }),
        }
    }

    /// The header, and its length; `end` is where the trailer begins.
    fn header(&mut self, end: u64) -> Result<(Header, u64), SnapshotError> {
        let claimed = format::header_len(self.read(0, HEADER_MIN)?);
        let length = claimed.map_err(|fault| self.fault(0, fault))?;
        if length as u64 > end {
            return Err(self.fault(0, Fault::Damaged("the header does not fit the file")));
        }
        let decoded = decode_header(self.read(0, length)?);
        let header = decoded.map_err(|fault| self.fault(0, fault))?;
        self.digest.update(self.buffer.get(..length).unwrap_or_default());
        Ok((header, length as u64))
    }

    fn chunks(&mut self, layout: &Layout) -> Result<(), SnapshotError> {
        for number in 0..layout.chunks {
            let (offset, length) = layout.chunk(number);
            if open_chunk(number, self.read(offset, length)?).is_none() {
                return Err(SnapshotError::damaged(self.path, offset, BAD_CHUNK));
            }
            self.digest.update(self.buffer.get(..length).unwrap_or_default());
        }
        Ok(())
    }

    fn fault(&self, offset: u64, fault: Fault) -> SnapshotError {
        match fault {
            Fault::Damaged(what) => SnapshotError::damaged(self.path, offset, what),
            Fault::Unsupported(what) => SnapshotError::Unsupported { path: self.path.to_path_buf(), what },
        }
    }
}

fn file_len(file: &impl File, path: &Path) -> Result<u64, SnapshotError> {
    file.len().map_err(|error| SnapshotError::io("measure", path, error))
}
