//! One frame on a stream: its bytes, and how they are checked on the way in.
//!
//! | offset | bytes  | field    | note                                             |
//! |--------|--------|----------|--------------------------------------------------|
//! | 0      | 4      | magic    | `rmap`                                           |
//! | 4      | 1      | version  | 1                                                |
//! | 5      | 1      | kind     | 1 to 15 are the transport's, from 16 on its user's |
//! | 6      | 2      | reserved | 0                                                |
//! | 8      | 4      | length   | of the payload, little-endian; limited by stream |
//! | 12     | 4      | crc      | CRC-32 of bytes 0 to 11 and the payload, little-endian |
//! | 16     | length | payload  |                                                  |
//!
//! TLS already protects the bytes on the way; the CRC finds what goes wrong in memory on either side of it. A stream
//! on which one frame is malformed has no next frame: the connection is closed.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

/// Bytes in front of every payload.
pub const HEADER_LEN: usize = 16;
/// The first kind that a user of the transport may give a frame; up to 255 they are the user's.
pub const FIRST_USER_KIND: u8 = 16;

pub(crate) const HELLO: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
pub(crate) const REPLY: u8 = 3;
pub(crate) const SNAPSHOT_OFFER: u8 = 4;
pub(crate) const SNAPSHOT_ACCEPT: u8 = 5;
pub(crate) const SNAPSHOT_REFUSE: u8 = 6;
pub(crate) const SNAPSHOT_DONE: u8 = 7;

const MAGIC: [u8; 4] = *b"rmap";
const VERSION: u8 = 1;

/// What is wrong with a frame. There is nothing to do but to close the connection it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are not ours.
    #[error("frame starts with {0:02x?}, not with the magic")]
    Magic([u8; 4]),
    /// The other side speaks a version that this side does not.
    #[error("frame has version {0}, this side speaks {VERSION}")]
    Version(u8),
    /// A kind that has no place on this stream.
    #[error("frame of kind {0} has no place on this stream")]
    Kind(u8),
    /// The reserved bytes are in use.
    #[error("frame has {0:#06x} in its reserved bytes")]
    Reserved(u16),
    /// The claimed length is over the limit of the stream.
    #[error("frame of kind {kind} claims {length} bytes, the limit is {limit}")]
    Length {
        /// The frame's kind.
        kind: u8,
        /// The length it claims, in bytes.
        length: u32,
        /// The most that is accepted, in bytes.
        limit: usize,
    },
    /// The checksum does not hold.
    #[error("frame of kind {kind} has checksum {found:08x}, its header says {claimed:08x}")]
    Checksum {
        /// The frame's kind.
        kind: u8,
        /// What the bytes give.
        found: u32,
        /// What the header says.
        claimed: u32,
    },
    /// The stream ended inside a frame.
    #[error("stream ended {0} bytes into a frame")]
    Truncated(usize),
}

/// A frame that passed its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is; see [`FIRST_USER_KIND`].
    pub kind: u8,
    /// What it carries. A slice of the receive buffer: copy what is to be kept for long.
    pub payload: Bytes,
}

/// The header of a frame whose payload is `parts`, one behind the other. `None` when they exceed a `u32`.
pub fn header(kind: u8, parts: &[Bytes]) -> Option<[u8; HEADER_LEN]> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let mut header = [0; HEADER_LEN];
    let (checked, crc_field) = header.split_at_mut(12);
    checked[..4].copy_from_slice(&MAGIC);
    checked[4] = VERSION;
    checked[5] = kind;
    checked[8..].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(checked);
    parts.iter().for_each(|part| crc.update(part));
    crc_field.copy_from_slice(&crc.finalize().to_le_bytes());
    Some(header)
}

/// Takes a stream's bytes as they come and gives whole, checked frames.
///
/// Memory follows the bytes that arrived, never the length that a header claims.
#[derive(Debug)]
pub struct Decoder {
    kinds: RangeInclusive<u8>,
    limit: usize,
    buffer: BytesMut,
}

/// A header that passed every check which needs no payload.
struct Claim {
    kind: u8,
    length: usize,
    crc: u32,
}

impl Decoder {
    /// Accepts frames of these kinds with at most `limit` payload bytes.
    pub fn new(kinds: RangeInclusive<u8>, limit: usize) -> Self {
        Decoder { kinds, limit, buffer: BytesMut::new() }
    }

    /// Changes what is accepted from the next frame on.
    pub fn accept(&mut self, kinds: RangeInclusive<u8>, limit: usize) {
        self.kinds = kinds;
        self.limit = limit;
    }

    /// Adds received bytes. Call [`next`](Self::next) until it gives `None` before adding more.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the bytes show it: a bad header is refused without waiting for its payload.
    #[expect(
        clippy::should_implement_trait,
        reason = "a failed decoder has no next item, so it is no iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(claim) = self.claim()? else { return Ok(None) };
        if self.buffer.len() < HEADER_LEN + claim.length {
            return Ok(None);
        }
        let frame = self.buffer.split_to(HEADER_LEN + claim.length).freeze();
        let payload = frame.slice(HEADER_LEN..);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[..12]);
        crc.update(&payload);
        match crc.finalize() {
            found if found == claim.crc => Ok(Some(Frame { kind: claim.kind, payload })),
            found => Err(FrameError::Checksum { kind: claim.kind, found, claimed: claim.crc }),
        }
    }

    /// Payload bytes of the frame that has begun and is not whole; `None` before its header is.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn begun(&self) -> Result<Option<usize>, FrameError> {
        Ok(self.claim()?.map(|claim| claim.length))
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated(self.buffer.len())) }
    }

    fn claim(&self) -> Result<Option<Claim>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [m0, m1, m2, m3, version, kind, r0, r1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic([m0, m1, m2, m3]));
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if !self.kinds.contains(&kind) {
            return Err(FrameError::Kind(kind));
        }
        if [r0, r1] != [0, 0] {
            return Err(FrameError::Reserved(u16::from_le_bytes([r0, r1])));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length as usize > self.limit {
            return Err(FrameError::Length { kind, length, limit: self.limit });
        }
        Ok(Some(Claim { kind, length: length as usize, crc: u32::from_le_bytes([c0, c1, c2, c3]) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, &[Bytes::copy_from_slice(payload)]).unwrap().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let mut decoder = Decoder::new(16..=20, 1024);
        decoder.extend(bytes);
        decoder.next()
    }

    #[test]
    fn golden_bytes() {
        let golden = b"rmap\x01\x10\x00\x00\x05\x00\x00\x00\x34\x6d\xed\x33hello";
        assert_eq!(encode(16, b"hello"), golden, "a later version must still read this");
        let frame = decode(golden).unwrap().unwrap();
        assert_eq!((frame.kind, &frame.payload[..]), (16, &b"hello"[..]));
    }

    #[test]
    fn parts_are_one_payload() {
        let parts = [Bytes::from_static(b"he"), Bytes::new(), Bytes::from_static(b"llo")];
        assert_eq!(header(16, &parts).unwrap(), encode(16, b"hello")[..HEADER_LEN]);
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let stream = [encode(16, b"one"), encode(17, b""), encode(20, &[7; 1024])].concat();
        for step in [1, 2, 3, 15, 16, 17, 40, stream.len()] {
            let mut decoder = Decoder::new(16..=20, 1024);
            let mut seen = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.extend(chunk);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push((frame.kind, frame.payload.len()));
                }
            }
            assert_eq!(seen, [(16, 3), (17, 0), (20, 1024)], "in steps of {step}");
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let sound = encode(16, b"some payload");
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A longer length waits for bytes that never come; the stream's end then shows the damage.
            assert!(!matches!(decode(&damaged), Ok(Some(_))), "bit {bit} went unseen");
        }
    }

    #[test]
    fn a_truncated_frame_is_found_at_the_end_of_the_stream() {
        let sound = encode(16, b"some payload");
        for cut in 1..sound.len() {
            let mut decoder = Decoder::new(16..=20, 1024);
            decoder.extend(&sound[..cut]);
            assert_eq!(decoder.next(), Ok(None));
            assert_eq!(decoder.finish(), Err(FrameError::Truncated(cut)));
        }
    }

    #[test]
    fn a_claimed_length_is_refused_before_it_gets_memory() {
        for length in [1025, u32::MAX] {
            let mut bytes = encode(16, b"");
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            assert_eq!(decode(&bytes), Err(FrameError::Length { kind: 16, length, limit: 1024 }));
        }
        let mut decoder = Decoder::new(16..=20, usize::MAX);
        let mut bytes = encode(16, b"");
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        decoder.extend(&bytes);
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer.capacity() < 1024, "memory follows what arrived");
    }

    #[test]
    fn a_header_names_what_is_wrong_with_it() {
        let damage = |at: usize, value: u8| {
            let mut bytes = encode(16, b"x");
            bytes[at] = value;
            decode(&bytes).unwrap_err()
        };
        assert_eq!(damage(0, b'R'), FrameError::Magic(*b"Rmap"));
        assert_eq!(damage(4, 2), FrameError::Version(2));
        assert_eq!(damage(5, 21), FrameError::Kind(21));
        assert_eq!(damage(5, HELLO), FrameError::Kind(HELLO));
        assert_eq!(damage(7, 1), FrameError::Reserved(256));
        assert!(matches!(damage(16, b'y'), FrameError::Checksum { kind: 16, .. }));
    }
}
