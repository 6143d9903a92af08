//! The bytes of a snapshot file. Integers are little-endian.
//!
//! Header, `72 + 8 * voters` bytes:
//!
//! | offset | bytes      | field                                                    |
//! |--------|------------|----------------------------------------------------------|
//! | 0      | 8          | magic `RAFTSNP\1`                                        |
//! | 8      | 4          | format version, 1                                        |
//! | 12     | 4          | length of this header, its CRC included                  |
//! | 16     | 8          | index                                                    |
//! | 24     | 8          | term                                                     |
//! | 32     | 16         | cluster id                                               |
//! | 48     | 8          | group id, 0                                              |
//! | 56     | 4          | voters, at most [`MEMBERS_MAX`]                          |
//! | 60     | 4          | learners, 0                                              |
//! | 64     | 8 * voters | their node ids, rising, none 0                           |
//! | …      | 4          | reserved, 0                                              |
//! | …      | 4          | CRC-32 of every header byte before                       |
//!
//! Chunk: CRC-32 of (chunk number from 0 as 8 bytes, content), 4 bytes; then the content, [`CHUNK`] bytes and in the
//! last chunk at least 1. No content, no chunk.
//!
//! Trailer, 64 bytes:
//!
//! | offset | bytes | field                                    |
//! |--------|-------|------------------------------------------|
//! | 0      | 8     | magic `SNAPEND\1`                        |
//! | 8      | 8     | length of the content                    |
//! | 16     | 8     | length of the file                       |
//! | 24     | 32    | BLAKE3 of every byte before the trailer  |
//! | 56     | 4     | reserved, 0                              |
//! | 60     | 4     | CRC-32 of the trailer's bytes 0 to 59    |

use std::collections::BTreeSet;

use super::Header;
use crate::types::{ClusterId, Index, Membership, NodeId, Position, Term};

/// Bytes of content in every chunk but the last.
pub const CHUNK: usize = 64 * 1024;
/// Voters that a header holds at most.
pub const MEMBERS_MAX: usize = 500;

/// Bytes of a chunk's checksum, ahead of its content.
pub(super) const CHUNK_CRC: usize = 4;
/// Bytes of a full chunk in the file.
pub(super) const CHUNK_STEP: usize = CHUNK_CRC + CHUNK;
pub(super) const TRAILER: usize = 64;
/// Bytes that the shortest header takes.
pub(super) const HEADER_MIN: usize = FIXED + TAIL;
pub(super) const HEADER_MAX: usize = HEADER_MIN + 8 * MEMBERS_MAX;

const MAGIC: [u8; 8] = *b"RAFTSNP\x01";
const TRAILER_MAGIC: [u8; 8] = *b"SNAPEND\x01";
const VERSION: u32 = 1;
/// Bytes of a header ahead of the node ids, and behind them.
const FIXED: usize = 64;
const TAIL: usize = 8;
const CRC: usize = 4;

/// What is wrong with bytes that should be a header or a trailer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They were not written like this.
    Damaged(&'static str),
    /// They were, by a version that this one does not know.
    Unsupported(&'static str),
}

/// The decoded trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) content: u64,
    pub(super) length: u64,
    pub(super) digest: [u8; 32],
}

/// Where things stand in a file of a given length: it leaves no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) header: u64,
    pub(super) content: u64,
    pub(super) chunks: u64,
}

impl Layout {
    /// The layout of a file of `length` bytes whose header takes `header`; `None` where no snapshot has that length.
    pub(super) fn of(length: u64, header: u64) -> Option<Self> {
        let body = length.checked_sub(header)?.checked_sub(TRAILER as u64)?;
        let chunks = body.div_ceil(CHUNK_STEP as u64);
        let last = body.checked_sub(chunks.saturating_sub(1) * CHUNK_STEP as u64)?;
        let whole = chunks == 0 || last > CHUNK_CRC as u64;
        whole.then(|| Self { header, content: body - chunks * CHUNK_CRC as u64, chunks })
    }

    /// Where chunk `number` begins, its checksum first, and the bytes it takes with it.
    pub(super) fn chunk(&self, number: u64) -> (u64, usize) {
        let content = self.content.saturating_sub(number * CHUNK as u64).min(CHUNK as u64);
        (self.header + number * CHUNK_STEP as u64, CHUNK_CRC + content as usize)
    }
}

/// The checksum of chunk `number`: bound to its place, so that two swapped chunks are found where they stand.
pub(super) fn chunk_crc(number: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// Whether `chunk`, checksum first, is chunk `number`; then its content.
pub(super) fn open_chunk(number: u64, chunk: &[u8]) -> Option<&[u8]> {
    let (crc, content) = chunk.split_first_chunk::<CHUNK_CRC>()?;
    (u32::from_le_bytes(*crc) == chunk_crc(number, content)).then_some(content)
}

/// The header's bytes. At most [`MEMBERS_MAX`] voters: the caller has checked.
pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let voters = &header.membership.voters;
    let length = HEADER_MIN + 8 * voters.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&header.position.index.0.to_le_bytes());
    bytes.extend_from_slice(&header.position.term.0.to_le_bytes());
    bytes.extend_from_slice(&header.cluster.0);
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.extend_from_slice(&(voters.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    voters.iter().for_each(|voter| bytes.extend_from_slice(&voter.0.to_le_bytes()));
    bytes.extend_from_slice(&0u32.to_le_bytes());
    seal(bytes)
}

/// The length that a header claims for itself, within bounds; `start` is its first [`HEADER_MIN`] bytes or more.
pub(super) fn header_len(start: &[u8]) -> Result<usize, Fault> {
    if !start.starts_with(&MAGIC) {
        return Err(Fault::Damaged("the header's magic is not there"));
    }
    let length = u32_at(start, 12)? as usize;
    let possible = (HEADER_MIN..=HEADER_MAX).contains(&length);
    if possible { Ok(length) } else { Err(Fault::Damaged("the header's length is out of bounds")) }
}

/// Reads a header of exactly the length it claims.
pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, Fault> {
    if header_len(bytes)? != bytes.len() || !is_sealed(bytes) {
        return Err(Fault::Damaged("the header's checksum does not match"));
    }
    if u32_at(bytes, 8)? != VERSION {
        return Err(Fault::Unsupported("a format version"));
    }
    if u64_at(bytes, 48)? != 0 || u32_at(bytes, 60)? != 0 {
        return Err(Fault::Unsupported("a group or learners"));
    }
    let voters = u32_at(bytes, 56)? as usize;
    if bytes.len() != HEADER_MIN + 8 * voters {
        return Err(Fault::Damaged("the header's length does not fit its voters"));
    }
    let voters = (0..voters).map(|at| u64_at(bytes, FIXED + 8 * at)).collect::<Result<Vec<_>, _>>()?;
    let rising = voters.first() != Some(&0) && voters.is_sorted_by(|low, high| low < high);
    if !rising || u32_at(bytes, bytes.len() - TAIL)? != 0 {
        return Err(Fault::Damaged("the header's fields are out of order"));
    }
    Ok(Header {
        position: Position { index: Index(u64_at(bytes, 16)?), term: Term(u64_at(bytes, 24)?) },
        cluster: ClusterId(array(bytes, 32)?),
        membership: Membership { voters: voters.into_iter().map(NodeId).collect::<BTreeSet<_>>() },
    })
}

/// The trailer's bytes, [`TRAILER`] of them.
pub(super) fn encode_trailer(trailer: &Trailer) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TRAILER);
    bytes.extend_from_slice(&TRAILER_MAGIC);
    bytes.extend_from_slice(&trailer.content.to_le_bytes());
    bytes.extend_from_slice(&trailer.length.to_le_bytes());
    bytes.extend_from_slice(&trailer.digest);
    bytes.extend_from_slice(&0u32.to_le_bytes());
    seal(bytes)
}

/// Reads a trailer.
pub(super) fn decode_trailer(bytes: &[u8]) -> Result<Trailer, Fault> {
    if !bytes.starts_with(&TRAILER_MAGIC) {
        return Err(Fault::Damaged("the trailer is not there: the file was cut short or overwritten"));
    }
    if bytes.len() != TRAILER || !is_sealed(bytes) || u32_at(bytes, 56)? != 0 {
        return Err(Fault::Damaged("the trailer's checksum does not match"));
    }
    Ok(Trailer { content: u64_at(bytes, 8)?, length: u64_at(bytes, 16)?, digest: array(bytes, 24)? })
}

/// Appends the CRC-32 of all there is.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<CRC>()
        .is_some_and(|(before, crc)| u32::from_le_bytes(*crc) == crc32fast::hash(before))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Fault> {
    let field = bytes.get(at..at + N).and_then(|field| field.try_into().ok());
    field.ok_or(Fault::Damaged("the header ends within a field"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Fault> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let voters = [NodeId(1), NodeId(2), NodeId(3)].into();
        encode_header(&Header {
            position: Position::new(7, 2),
            cluster: ClusterId([1; 16]),
            membership: Membership { voters },
        })
    }

    /// Sealed anew, so that only what is said is wrong.
    fn resealed(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes.truncate(bytes.len() - CRC);
        seal(bytes)
    }

    #[test]
    fn a_sealed_header_has_only_values_that_are_written() {
        let sound = header();
        assert_eq!(decode_header(&sound).unwrap().membership.voters.len(), 3);
        let of = |at: usize, value: &[u8]| decode_header(&resealed(header(), at, value)).unwrap_err();
        let damaged = |at: usize, value: &[u8], words: &str| match of(at, value) {
            Fault::Damaged(what) => assert!(what.contains(words), "{what}"),
            Fault::Unsupported(what) => panic!("{what}"),
        };
        let unsupported = |at: usize, value: &[u8]| assert!(matches!(of(at, value), Fault::Unsupported(_)));
        damaged(0, b"OTHERSNP", "magic");
        damaged(12, &(sound.len() as u32 + 8).to_le_bytes(), "checksum");
        damaged(12, &(HEADER_MAX as u32 + 1).to_le_bytes(), "out of bounds");
        damaged(12, &(HEADER_MIN as u32 - 1).to_le_bytes(), "out of bounds");
        unsupported(8, &2u32.to_le_bytes());
        unsupported(48, &1u64.to_le_bytes());
        unsupported(60, &1u32.to_le_bytes());
        damaged(56, &2u32.to_le_bytes(), "does not fit its voters");
        damaged(64, &0u64.to_le_bytes(), "out of order");
        damaged(64, &2u64.to_le_bytes(), "out of order");
        damaged(72, &4u64.to_le_bytes(), "out of order");
        damaged(sound.len() - TAIL, &1u32.to_le_bytes(), "out of order");
        assert!(matches!(decode_header(&sound[..sound.len() - 1]), Err(Fault::Damaged(_))));
    }

    #[test]
    fn a_sealed_trailer_has_only_values_that_are_written() {
        let trailer = Trailer { content: 5, length: 150, digest: [3; 32] };
        let sound = encode_trailer(&trailer);
        assert_eq!(decode_trailer(&sound), Ok(trailer));
        assert!(decode_trailer(&resealed(sound.clone(), 56, &[1])).is_err());
        assert!(decode_trailer(&resealed(sound.clone(), 0, b"X")).is_err());
        assert!(decode_trailer(&seal(sound.clone())).is_err(), "longer than a trailer");
        assert!(decode_trailer(&sound[..TRAILER - 1]).is_err());
    }
}
