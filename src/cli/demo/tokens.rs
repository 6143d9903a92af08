//! What clients write, and where.
//!
//! Two kinds of keys. To a *log* clients append tokens, each of which is written once in the whole run; it is left for
//! its next part when it gets long. A *register* is put a token, each of which is again written once.

use std::fmt;

/// A log goes on in its next part from about so many bytes on, so that reading it stays cheap.
pub(crate) const PART_BYTES: u64 = 32 * 1024;
/// The same where every value read goes into a file.
pub(crate) const RECORDED_PART_BYTES: u64 = 2 * 1024;

/// A key of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What an operation of this client with this number writes: the name that findings give it, and an end.
pub(crate) fn token(client: u32, number: u32) -> String {
    format!("c{client}-{number:06};")
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmap::check::{Call, KeyId, Operation, Outcome};

    #[test]
    fn a_token_is_the_name_of_its_operation() {
        for (client, number) in [(0, 1), (65_535, 999_999), (7, 1_000_000)] {
            let (key, outcome) = (KeyId(0), Outcome::Unknown);
            let operation = Operation { client, number, key, call: Call::Get, invoked_ns: 0, outcome };
            assert_eq!(token(client, number), format!("{operation};"));
        }
    }
}
