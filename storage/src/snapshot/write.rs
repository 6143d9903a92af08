//! Making snapshot files: from the map's own content ([`Writer`]) or from a peer's bytes ([`Receiver`]). Both write
//! into a temporary file and go through one door to give it its name.

use std::path::{Path, PathBuf};

use super::format::{
    self, CHUNK_CRC, CHUNK_STEP, HEADER_MIN, TRAILER, Trailer, encode_header, encode_trailer,
};
use super::{Header, MEMBERS_MAX, SnapshotError, file_name, read};
use crate::fs::{File, Fs, write_all_at};
use crate::types::{Position, SnapshotId};

/// Bytes after which a snapshot is synced while it is being written, so that the log's next sync does not have to wait
/// for all of it at once.
pub const SYNC_STEP: u64 = 8 * 1024 * 1024;

/// Writes one snapshot, holding one chunk in memory. Dropped unpublished, it leaves nothing behind.
pub struct Writer<F: Fs> {
    output: Output<F>,
    position: Position,
    /// The chunk being filled, room for its checksum first; never full between two calls.
    chunk: Vec<u8>,
    chunks: u64,
    content: u64,
    digest: Box<blake3::Hasher>,
}

impl<F: Fs> Writer<F> {
    /// Begins the snapshot of `header.position` in `dir`.
    ///
    /// # Errors
    /// [`SnapshotError::TooManyMembers`], [`SnapshotError::NoSpace`], [`SnapshotError::Io`].
    pub fn create(fs: F, dir: &Path, header: Header) -> Result<Self, SnapshotError> {
        let members = header.membership.voters.len();
        if members > MEMBERS_MAX {
            return Err(SnapshotError::TooManyMembers { members });
        }
        let mut chunk = Vec::with_capacity(CHUNK_STEP);
        chunk.resize(CHUNK_CRC, 0);
        let output = Output::create(fs, dir, header.position)?;
        let digest = Box::new(blake3::Hasher::new());
        let mut writer = Self { output, position: header.position, chunk, chunks: 0, content: 0, digest };
        writer.append(&encode_header(&header))?;
        Ok(writer)
    }

    /// Adds content behind what was written before. Where one call ends and the next begins leaves no trace.
    ///
    /// # Errors
    /// [`SnapshotError::NoSpace`] or [`SnapshotError::Io`]; every call after one answers [`SnapshotError::Failed`].
    pub fn write(&mut self, mut content: &[u8]) -> Result<(), SnapshotError> {
        while !content.is_empty() {
            let room = CHUNK_STEP - self.chunk.len();
            let (now, later) = content.split_at(room.min(content.len()));
            self.chunk.extend_from_slice(now);
            content = later;
            if self.chunk.len() == CHUNK_STEP {
                self.end_chunk()?;
            }
        }
        self.output.usable()
    }

    /// Writes the trailer, syncs the file, gives it its name and syncs the directory. On `Ok` the file is durable under
    /// [`file_name`] and may be recorded. Where a sound snapshot of the same position stands already it stays, and its
    /// id is returned: the log may refer to it.
    ///
    /// # Errors
    /// [`SnapshotError::NoSpace`] leaves nothing behind. After [`SnapshotError::Io`] the name may or may not be there.
    pub fn publish(mut self) -> Result<SnapshotId, SnapshotError> {
        self.output.usable()?;
        self.end_chunk()?;
        let length = self.output.offset + TRAILER as u64;
        let digest = *self.digest.finalize().as_bytes();
        self.output.append(&encode_trailer(&Trailer { content: self.content, length, digest }))?;
        let id = SnapshotId { position: self.position, length, digest };
        self.output.publish(id)
    }

    /// Seals the chunk in hand with its checksum and writes it; an empty one is none.
    fn end_chunk(&mut self) -> Result<(), SnapshotError> {
        let Some((crc, content)) = self.chunk.split_first_chunk_mut::<CHUNK_CRC>() else { return Ok(()) };
        if content.is_empty() {
            return Ok(());
        }
        *crc = format::chunk_crc(self.chunks, content).to_le_bytes();
        self.content += content.len() as u64;
        self.chunks += 1;
        let mut chunk = std::mem::take(&mut self.chunk);
        let written = self.append(&chunk);
        chunk.truncate(CHUNK_CRC);
        self.chunk = chunk;
        written
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.digest.update(bytes);
        self.output.append(bytes)
    }
}

/// Takes a snapshot's file from a peer, byte for byte and in order. After a broken connection it goes on at
/// [`Receiver::offset`] if the peer announces the same id again, and only then. Dropped unpublished, it leaves nothing.
pub struct Receiver<F: Fs> {
    output: Output<F>,
    id: SnapshotId,
}

impl<F: Fs> Receiver<F> {
    /// Begins to take the announced snapshot `id` of at most `limit` bytes into `dir`.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`], [`SnapshotError::Mismatch`] for a length that no snapshot has,
    /// [`SnapshotError::NoSpace`], [`SnapshotError::Io`].
    pub fn create(fs: F, dir: &Path, id: SnapshotId, limit: u64) -> Result<Self, SnapshotError> {
        if id.length > limit {
            return Err(SnapshotError::TooLarge { length: id.length, limit });
        }
        if id.length < (HEADER_MIN + TRAILER) as u64 {
            let path = dir.join(file_name(id.position));
            return Err(SnapshotError::Mismatch { path, what: "no snapshot is that short" });
        }
        Ok(Self { output: Output::create(fs, dir, id.position)?, id })
    }

    /// What was announced.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }

    /// Bytes taken so far: where the next [`Receiver::write`] continues.
    pub fn offset(&self) -> u64 {
        self.output.offset
    }

    /// Takes the file's next bytes.
    ///
    /// # Errors
    /// [`SnapshotError::Mismatch`] for more bytes than announced (none of them taken), [`SnapshotError::NoSpace`],
    /// [`SnapshotError::Io`]; after the last two every call answers [`SnapshotError::Failed`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if bytes.len() as u64 > self.id.length.saturating_sub(self.output.offset) {
            return Err(self.mismatch("more bytes than announced"));
        }
        self.output.append(bytes)
    }

    /// Reads back everything, checks it against the announced id, and publishes it as [`Writer::publish`] does.
    ///
    /// # Errors
    /// [`SnapshotError::Mismatch`], [`SnapshotError::Damaged`] or [`SnapshotError::Unsupported`] publish nothing;
    /// [`SnapshotError::Exists`] where a sound snapshot of the same position but with other bytes stands; the others
    /// as for [`Writer::publish`].
    pub fn publish(self) -> Result<Header, SnapshotError> {
        self.output.usable()?;
        if self.output.offset != self.id.length {
            return Err(self.mismatch("fewer bytes than announced"));
        }
        let found = read::check(&self.output.temp, &self.output.path)?;
        if found.id != self.id {
            return Err(self.mismatch("another position or digest"));
        }
        let path = self.output.path.clone();
        let standing = self.output.publish(self.id)?;
        if standing == self.id { Ok(found.header) } else { Err(SnapshotError::Exists { path }) }
    }

    fn mismatch(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Mismatch { path: self.output.path.clone(), what }
    }
}

/// A temporary file that grows at its end and may get a snapshot's name.
struct Output<F: Fs> {
    fs: F,
    dir: PathBuf,
    /// The name it is to get.
    path: PathBuf,
    temp: F::Temp,
    offset: u64,
    /// Bytes before this are synced; at most [`SYNC_STEP`] behind `offset`, plus one write.
    synced: u64,
    failed: bool,
}

impl<F: Fs> Output<F> {
    fn create(fs: F, dir: &Path, position: Position) -> Result<Self, SnapshotError> {
        let path = dir.join(file_name(position));
        let temp =
            fs.temp(dir).map_err(|error| SnapshotError::io("make a temporary file for", &path, error))?;
        Ok(Self { fs, dir: dir.to_path_buf(), path, temp, offset: 0, synced: 0, failed: false })
    }

    fn usable(&self) -> Result<(), SnapshotError> {
        if self.failed { Err(SnapshotError::Failed { path: self.path.clone() }) } else { Ok(()) }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.usable()?;
        // Only a whole success counts: bytes of a failed write may stand behind `offset`.
        self.failed = true;
        write_all_at(&self.temp, bytes, self.offset)
            .map_err(|error| SnapshotError::io("write", &self.path, error))?;
        self.offset += bytes.len() as u64;
        if self.offset - self.synced >= SYNC_STEP {
            self.sync()?;
        }
        self.failed = false;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), SnapshotError> {
        self.temp.sync_data().map_err(|error| SnapshotError::io("sync", &self.path, error))?;
        self.synced = self.offset;
        Ok(())
    }

    /// File sync, rename, directory sync, in this order and nowhere else. Says which snapshot now stands there.
    fn publish(mut self, id: SnapshotId) -> Result<SnapshotId, SnapshotError> {
        self.sync()?;
        let standing = match self.standing()? {
            Some(standing) => standing,
            None => {
                self.fs
                    .persist(self.temp, &self.path)
                    .map_err(|error| SnapshotError::io("rename a temporary file to", &self.path, error))?;
                id
            }
        };
        self.fs.sync_dir(&self.dir).map_err(|source| SnapshotError::Io {
            op: "sync directory",
            path: self.dir.clone(),
            source,
        })?;
        Ok(standing)
    }

    /// The sound snapshot of this position that has the name already. A damaged one is no loss to replace.
    fn standing(&self) -> Result<Option<SnapshotId>, SnapshotError> {
        match read::verify_file(&self.fs, &self.path) {
            Ok((id, _)) => Ok(Some(id)),
            Err(SnapshotError::Missing { .. } | SnapshotError::Damaged { .. }) => Ok(None),
            Err(SnapshotError::Unreadable { .. } | SnapshotError::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
