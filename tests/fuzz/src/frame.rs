//! The stream decoder of the wire: whatever arrives, and in whatever pieces, what comes out are frames that the encoder
//! makes of it again, no longer than the limit; and memory follows what arrived, never what a header claims.

use raftmap_net::frame::{Decoder, FIRST_USER_KIND, FrameError, HEADER_LEN, header};

use crate::input::Input;
use crate::memory;

/// How a stream ended: bytes that were whole frames, and what stopped it.
type End = (usize, Result<(), FrameError>);

/// Input: bytes in a piece, limit (2 bytes), then the stream.
pub(crate) fn frame(data: &[u8]) {
    let mut input = Input::new(data);
    let (piece, limit) = (1 + usize::from(input.byte()), usize::from(input.u16()));
    let stream = input.rest();
    check(stream, piece, limit);
    // Few inputs have the right checksums; so also with them put right.
    check(&sealed(stream), piece, limit);
}

fn check(stream: &[u8], piece: usize, limit: usize) {
    let bound = 2 * stream.len() + memory::SLACK;
    let whole = memory::within(bound, "a stream at once", || decode(stream, stream.len().max(1), limit));
    let pieces = memory::within(bound, "a stream in pieces", || decode(stream, piece, limit));
    assert_eq!(whole, pieces, "what comes out depends on how it came in");
}

fn decode(stream: &[u8], piece: usize, limit: usize) -> End {
    let mut decoder = Decoder::new(FIRST_USER_KIND..=FIRST_USER_KIND + 3, limit);
    let mut read = 0;
    for bytes in stream.chunks(piece) {
        decoder.extend(bytes);
        loop {
            match decoder.next() {
                Ok(None) => break,
                Err(error) => return (read, Err(error)),
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= limit, "{} bytes over {limit}", frame.payload.len());
                    let again = header(frame.kind, std::slice::from_ref(&frame.payload)).unwrap();
                    let there = &stream[read..read + HEADER_LEN + frame.payload.len()];
                    assert!(there[..HEADER_LEN] == again, "the header is encoded otherwise");
                    assert!(there[HEADER_LEN..] == frame.payload, "another payload than what came");
                    read += there.len();
                }
            }
        }
    }
    (read, decoder.finish())
}

/// The stream with every header made sound: kind and length stay what they are, as far as there are bytes.
fn sealed(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = stream;
    while let Some((claimed, behind)) = rest.split_first_chunk::<HEADER_LEN>() {
        let length = usize::from(u16::from_le_bytes([claimed[8], claimed[9]])).min(behind.len());
        let payload = bytes::Bytes::copy_from_slice(&behind[..length]);
        out.extend(header(FIRST_USER_KIND + claimed[5] % 5, std::slice::from_ref(&payload)).unwrap());
        out.extend(&payload);
        rest = &behind[length..];
    }
    out.extend(rest);
    out
}
