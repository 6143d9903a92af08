//! What the clients did and saw, as small as it can be kept: a run makes hundreds of thousands of operations.
//!
//! Two kinds of keys. To a *log* clients append tokens, each of which is written once in the whole run; it is left for
//! its next part when it gets long. A *register* is put a token, each of which is again written once. A value read is
//! kept as its length and a fingerprint: a log's must be that of a beginning of the log's last value, a register's
//! that of a token.

use std::fmt;

/// Nanoseconds since the run began, by the one monotonic clock of this process.
pub(crate) type Moment = u64;

/// A log goes on in its next part from about this many bytes on, so that reading it stays cheap.
pub(crate) const PART_BYTES: u64 = 32 * 1024;

/// One write, told apart from every other one of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token {
    /// Who wrote it.
    pub(crate) client: u16,
    /// Its number among that client's writes, from 1.
    pub(crate) number: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}-{:06};", self.client, self.number)
    }
}

impl Token {
    /// The token at the beginning of `bytes`, and how many bytes it takes; only in the spelling in which it is written.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        // The longest is `c65535-4294967295;`.
        let length = bytes.iter().take(18).position(|byte| *byte == b';')? + 1;
        let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
        let (client, number) = text.strip_prefix('c')?.strip_suffix(';')?.split_once('-')?;
        let token = Self { client: client.parse().ok()?, number: number.parse().ok()? };
        (token.to_string() == text).then_some((token, length))
    }
}

/// A key of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// Tokens are appended to it.
    Log {
        /// Which log.
        log: u16,
        /// Which part of it, from 0.
        part: u32,
    },
    /// One token is put into it.
    Register {
        /// Which.
        number: u16,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { log, part } => write!(f, "log-{log}/{part:04}"),
            Self::Register { number } => write!(f, "register-{number}"),
        }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged: it made this version of the key.
    Acked {
        /// The version.
        version: u64,
    },
    /// Done once or never, nobody knows.
    Unknown,
    /// Refused, and must never be seen.
    NotDone,
}

/// A write, by append or by put, as its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// What was written.
    pub(crate) token: Token,
    /// Where.
    pub(crate) key: Key,
    /// Not later than this it had been sent.
    pub(crate) invoked: Moment,
    /// Its outcome was known then.
    pub(crate) returned: Moment,
    /// Its outcome.
    pub(crate) outcome: Outcome,
}

/// A linearizable read that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// Of what.
    pub(crate) key: Key,
    /// Not later than this it had been sent.
    pub(crate) invoked: Moment,
    /// Its answer was there then.
    pub(crate) returned: Moment,
    /// The answer.
    pub(crate) seen: Seen,
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The key's version; 0: absent.
    pub(crate) version: u64,
    /// Bytes of the value.
    pub(crate) length: u32,
    /// Of the value.
    pub(crate) fingerprint: Fingerprint,
}

impl Seen {
    /// What a read of an absent key sees.
    pub(crate) const ABSENT: Self = Self { version: 0, length: 0, fingerprint: Fingerprint::EMPTY };

    /// What a read of `value` sees.
    pub(crate) fn of(version: u64, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        Self { version, length, fingerprint: Fingerprint::of(value) }
    }
}

/// FNV-1a of some bytes. It can be carried on over more bytes, and is no proof against malice, which is not expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// That of no bytes.
    pub(crate) const EMPTY: Self = Self(0xCBF2_9CE4_8422_2325);

    /// That of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::EMPTY.then(bytes)
    }

    /// That of the bytes before, with `bytes` behind them.
    pub(crate) fn then(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)))
    }
}

/// Everything that one or more clients did.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// In no order.
    pub(crate) writes: Vec<Write>,
    /// In no order.
    pub(crate) reads: Vec<Read>,
}

impl History {
    /// Takes in what another client did.
    pub(crate) fn extend(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        for (client, number) in [(0, 1), (3, 123), (u16::MAX, u32::MAX), (7, 999_999), (7, 1_000_000)] {
            let token = Token { client, number };
            let text = token.to_string();
            assert_eq!(Token::parse(text.as_bytes()), Some((token, text.len())));
            assert_eq!(Token::parse(format!("{text}c1-000001;").as_bytes()), Some((token, text.len())));
        }
        for text in
            ["", "c1-000001", "c1-1;", "1-000001;", "c1-00x001;", "c+1-000001;", "c99999-000001;", ";"]
        {
            assert_eq!(Token::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_carried_on() {
        assert_eq!(Fingerprint::of(b"ab").then(b"cd"), Fingerprint::of(b"abcd"));
        assert_ne!(Fingerprint::of(b"abcd"), Fingerprint::of(b"abdc"));
        // The published value for "a".
        assert_eq!(Fingerprint::of(b"a").0, 0xAF63_DC4C_8601_EC8C);
    }
}
