//! serde and bincode, fenced in one module: values to bytes and back, under a limit.
//!
//! The bytes are bincode 2's standard configuration: little-endian, integers as varints, enums by the number of their
//! variant, structs by the order of their fields. So variants and fields are only ever added at the end, and the golden
//! tests of each format hold that.
//!
//! What is decoded came from a disk or a peer and is only a claim: the slice is measured before it is read, no length
//! inside it is believed before that many bytes are there, nothing may be left over, and a value has one spelling: what
//! the encoder would have written otherwise is refused. Fields that hold byte strings use `octets`, text uses `text`:
//! both borrow from the slice and copy once, where `Vec<u8>` and `String` would ask for memory first. Lists, whose
//! elements may take more memory than bytes, use `at_most`.

use std::fmt;
use std::marker::PhantomData;

use bincode::config;
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// No message is longer than this many bytes, whatever limit the caller gives: 64 MiB.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// What most messages fit into: without it each would grow from nothing, doubling.
const ROOM: usize = 128;

/// Why bytes are not the value they should be, or a value has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// More bytes than allowed here. Nothing was read or written.
    #[error("message of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Bytes of the message.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes are not such a value: damaged, or from a version that knows more variants.
    #[error("message of {length} bytes is malformed: {detail}")]
    Malformed {
        /// Bytes of the message.
        length: usize,
        /// Where decoding gave up.
        detail: String,
    },
    /// A whole value, and then more: not what a writer of ours makes.
    #[error("message has {extra} bytes behind its end")]
    Trailing {
        /// Bytes left over.
        extra: usize,
    },
    /// The value has a shape that the format cannot say. Only a bug of ours leads here.
    #[error("value cannot be encoded: {detail}")]
    Unencodable {
        /// What was refused.
        detail: String,
    },
}

/// `value` as bytes, at most `limit` of them.
pub(crate) fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(ROOM);
    encode_into(value, &mut out, limit)?;
    Ok(out)
}

/// Appends `value` to `out`, at most `limit` bytes of it; after an error `out` is as it was.
pub(crate) fn encode_into<T: Serialize>(
    value: &T,
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), CodecError> {
    let start = out.len();
    let written = bincode::serde::encode_into_std_write(value, out, config::standard());
    let limit = limit.min(MESSAGE_MAX);
    let outcome = match written {
        Ok(length) if length > limit => Err(CodecError::TooLong { length, limit }),
        Ok(_) => Ok(()),
        Err(error) => Err(CodecError::Unencodable { detail: error.to_string() }),
    };
    if outcome.is_err() {
        out.truncate(start);
    }
    outcome
}

/// The value that `bytes` are, all of them, and at most `limit`.
pub(crate) fn decode<'de, T>(bytes: &'de [u8], limit: usize) -> Result<T, CodecError>
where
    T: Serialize + Deserialize<'de>,
{
    let (length, limit) = (bytes.len(), limit.min(MESSAGE_MAX));
    if length > limit {
        return Err(CodecError::TooLong { length, limit });
    }
    // bincode counts memory, not bytes read (an integer of one byte counts as up to 16), and knows its bound when
    // compiled: each class allows 16 bytes of memory for every byte of the longest message in it.
    let value = match length {
        0..=0xFFF => decode_within::<T, 0x1_0000>(bytes),
        0x1000..=0xF_FFFF => decode_within::<T, 0x100_0000>(bytes),
        _ => decode_within::<T, { 16 * MESSAGE_MAX }>(bytes),
    }?;
    check_spelling(&value, bytes)?;
    Ok(value)
}

/// A value has one spelling. Others exist: a small number in a long varint, a set out of order or with doubles.
fn check_spelling<T: Serialize>(value: &T, bytes: &[u8]) -> Result<(), CodecError> {
    let same = bincode::serde::encode_into_writer(value, Expected(bytes), config::standard());
    same.map_err(|_| CodecError::Malformed {
        length: bytes.len(),
        detail: "not the bytes that its value is written in".into(),
    })
}

/// Takes these bytes and no others. Nothing is copied.
struct Expected<'a>(&'a [u8]);

impl Writer for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0 = self.0.strip_prefix(bytes).ok_or(EncodeError::Other("another spelling"))?;
        Ok(())
    }
}

fn decode_within<'de, T: Deserialize<'de>, const MEMORY: usize>(bytes: &'de [u8]) -> Result<T, CodecError> {
    let decoded = match bug!(35) {
        true => bincode::serde::borrow_decode_from_slice(bytes, config::standard()),
        false => bincode::serde::borrow_decode_from_slice(bytes, config::standard().with_limit::<MEMORY>()),
    };
    let (value, read) =
        decoded.map_err(|error| CodecError::Malformed { length: bytes.len(), detail: error.to_string() })?;
    match bytes.len().saturating_sub(read) {
        0 => Ok(value),
        extra => Err(CodecError::Trailing { extra }),
    }
}

/// For `#[serde(with = "crate::codec::octets")]` on a field of [`bytes::Bytes`].
pub(crate) mod octets {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        <&'de [u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
    }
}

/// For `#[serde(with = "crate::codec::optional_octets")]` on a field of `Option<Bytes>`.
pub(crate) mod optional_octets {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        Option::<&'de [u8]>::deserialize(deserializer).map(|slice| slice.map(Bytes::copy_from_slice))
    }
}

/// For `#[serde(with = "crate::codec::text")]` on a field of `String`.
pub(crate) mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        <&'de str>::deserialize(deserializer).map(str::to_owned)
    }
}

/// For `#[serde(deserialize_with = "crate::codec::at_most::<MAX, _, _>")]` on a field of `Vec<T>`: a list of more
/// elements is refused, and memory is taken as they come.
pub(crate) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData))
}

struct Elements<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if elements.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Letter {
        number: u64,
        #[serde(with = "octets")]
        body: Bytes,
        #[serde(with = "optional_octets")]
        postscript: Option<Bytes>,
    }

    fn letter(body: &'static [u8]) -> Letter {
        Letter { number: 300, body: Bytes::from_static(body), postscript: Some(Bytes::from_static(b"ps")) }
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = encode(&letter(b"hi"), 100).unwrap();
        assert_eq!(bytes, [251, 44, 1, 2, b'h', b'i', 1, 2, b'p', b's']);
        assert_eq!(decode::<Letter>(&bytes, 100), Ok(letter(b"hi")));
    }

    #[test]
    fn the_limit_holds_on_both_sides_and_leaves_the_buffer_alone() {
        let mut out = vec![7];
        assert_eq!(
            encode_into(&letter(b"hi"), &mut out, 9),
            Err(CodecError::TooLong { length: 10, limit: 9 })
        );
        assert_eq!(out, [7]);
        encode_into(&letter(b"hi"), &mut out, 10).unwrap();
        assert_eq!(decode::<Letter>(&out[1..], 9), Err(CodecError::TooLong { length: 10, limit: 9 }));
    }

    #[test]
    fn nothing_may_be_left_over_or_missing() {
        let mut bytes = encode(&letter(b"hi"), 100).unwrap();
        for cut in 0..bytes.len() {
            assert!(
                matches!(decode::<Letter>(&bytes[..cut], 100), Err(CodecError::Malformed { .. })),
                "{cut}"
            );
        }
        bytes.push(0);
        assert_eq!(decode::<Letter>(&bytes, 100), Err(CodecError::Trailing { extra: 1 }));
    }

    #[test]
    fn a_length_that_is_not_there_is_refused() {
        // The body claims 2^62 bytes.
        let claim = [1, 253, 0, 0, 0, 0, 0, 0, 0, 64, b'x'];
        assert!(matches!(decode::<Letter>(&claim, 100), Err(CodecError::Malformed { length: 11, .. })));
    }

    #[test]
    fn a_length_that_is_not_there_gets_no_memory() {
        // A plain `String` takes its memory before it is read, unlike `text` and `octets`. This one claims 2^62 bytes.
        let claim = [253, 0, 0, 0, 0, 0, 0, 0, 64, b'x'];
        assert!(matches!(decode::<String>(&claim, 100), Err(CodecError::Malformed { length: 10, .. })));
    }

    #[test]
    fn every_class_of_length_is_read_back() {
        for length in [0, 0xF00, 0x1000, 0xF_FF00, 0x10_0000, 0x120_0000] {
            let sent = Letter { number: u64::MAX, body: Bytes::from(vec![9; length]), postscript: None };
            let bytes = encode(&sent, MESSAGE_MAX).unwrap();
            assert!(decode::<Letter>(&bytes, MESSAGE_MAX) == Ok(sent), "{length}");
        }
        // Small integers are where memory exceeds bytes most.
        for length in [0xF00, 0xF_F000] {
            let dense = vec![0_u128; length];
            let bytes = encode(&dense, MESSAGE_MAX).unwrap();
            assert!(decode::<Vec<u128>>(&bytes, MESSAGE_MAX) == Ok(dense), "{length}");
        }
    }

    #[test]
    fn a_value_has_one_spelling() {
        let bytes = encode(&letter(b"hi"), 100).unwrap();
        // 300 in a varint of four bytes instead of two; and of eight.
        for long in [&[252, 44, 1, 0, 0][..], &[253, 44, 1, 0, 0, 0, 0, 0, 0]] {
            let other = [long, &bytes[3..]].concat();
            let refused = decode::<Letter>(&other, 100).unwrap_err();
            assert!(refused.to_string().contains("not the bytes"), "{refused}");
        }
        type Set = std::collections::BTreeSet<u8>;
        assert_eq!(decode::<Set>(&[2, 7, 9], 100), Ok([7, 9].into()));
        for other in [[2, 9, 7], [2, 7, 7]] {
            assert!(decode::<Set>(&other, 100).is_err(), "{other:?}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pages {
        #[serde(with = "text")]
        title: String,
        #[serde(deserialize_with = "at_most::<3, _, _>")]
        numbers: Vec<u16>,
    }

    #[test]
    fn lists_have_a_bound() {
        for (length, fits) in [(0, true), (3, true), (4, false)] {
            let bytes = encode(&Pages { title: "x".into(), numbers: vec![7; length] }, 100).unwrap();
            assert_eq!(decode::<Pages>(&bytes, 100).is_ok(), fits, "{length}");
        }
    }
}
