//! What crosses the network, in bytes: messages between members, requests of clients, the hello that opens a
//! connection between members. Frames (magic, version, length, checksum) are `raftmap_net`'s; this module fills them.
//!
//! Payloads are described by types of their own, apart from the ones the code works with, so that a change in the
//! protocol core cannot change the bytes unnoticed. Golden bytes in `golden.rs` hold every format.

pub mod client;
pub mod hello;
pub mod peer;

#[cfg(test)]
mod golden;

use bytes::Bytes;
use serde::Serialize;

use crate::codec::{self, CodecError};

/// Frame kind of a message between members ([`peer`]).
pub const KIND_RAFT: u8 = 16;

/// Why bytes from the network were refused. The connection they came on is closed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// Not what this version writes.
    #[error(
        "malformed {what} of {length} bytes from the network: the sender speaks another version or is broken"
    )]
    Malformed {
        /// The thing that was expected.
        what: &'static str,
        /// Bytes that came.
        length: usize,
    },
    /// Over its limit: nothing was sent.
    #[error("cannot send a {what}: {error}")]
    Unencodable {
        /// The thing that was to be sent.
        what: &'static str,
        /// Why not.
        error: CodecError,
    },
    /// An entry's payload does not match the checksum its leader made.
    #[error("entry {index} arrived damaged: its checksum does not match")]
    DamagedEntry {
        /// Its place in the log.
        index: u64,
    },
}

/// The bytes of `value`, at most `limit`.
fn encode<T: Serialize>(what: &'static str, value: &T, limit: usize) -> Result<Bytes, WireError> {
    codec::encode(value, limit).map(Bytes::from).map_err(|error| WireError::Unencodable { what, error })
}
