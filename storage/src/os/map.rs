//! The one place with `unsafe`: a read-only map of a file that nobody writes to any more.
#![allow(unsafe_code)] // mmap cannot be had without it; the argument stands beside the call

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::Mmap;

/// Maps the whole of `file`. What is returned keeps the map alive; an unlinked file stays readable through it.
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: only sealed segments and published snapshots are mapped. Both are written no more and never truncated
    // (the directory is locked, and files leave it by unlink alone), so the bytes behind the slice do not change.
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}
