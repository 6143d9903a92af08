//! What every replica must agree on: how long keys and values may be, how many sessions there are and how long they
//! last. The limits are replicated (bootstrap entry, snapshots), because the map decides by them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::scan::{PAGE_BYTES, PAGE_PAIRS};
use crate::codec::{self, CodecError};

/// The longest key that any cluster may allow: 64 KiB.
pub const KEY_BYTES_MAX: u32 = 64 * 1024;
/// The longest value that any cluster may allow: 1 MiB. An entry goes to followers in one frame, and a call must get
/// its answer before its client takes the server for dead; both would have to grow with it.
pub const VALUE_BYTES_MAX: u32 = 1024 * 1024;

/// The least window that any cluster may have: a clerk may have as many writes under way.
pub const WINDOW_MIN: u32 = 1_024;

/// Bytes that a [`Proposal`](super::Proposal) takes beyond its key and its value, at most.
const PROPOSAL_OVERHEAD: usize = 96;
/// Bytes that a pair of a page takes beyond its key and its value, at most: two lengths and a version.
const PAIR_OVERHEAD: usize = 19;
/// Bytes that encoded [`Limits`] take, at most.
const ENCODED_MAX: usize = 64;

/// The replicated limits, equal on every member for the life of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the longest key, 1 to 64 KiB. Default 4 KiB.
    pub key_bytes: u32,
    /// Bytes of the longest value, 1 to 1 MiB, also of one that appends have made. Default 1 MiB.
    pub value_bytes: u32,
    /// Sessions open at one time, 1 to 1,048,576. One more is refused until another is closed or expires. An idle
    /// session costs each member less than 200 bytes of memory. Default 131,072.
    pub sessions: u32,
    /// Milliseconds of log time after which a session that was not used expires, at least 1. Default one hour.
    pub session_ttl_ms: u64,
    /// Requests of one session in flight, 1,024 (so many a clerk has) to 16,384: a sequence is below `acked_below + window`. Each reply that its
    /// client has not acknowledged costs 40 to 80 bytes of memory; `sessions * window` bounds their number. Default
    /// 1,024.
    pub window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 4 * 1024,
            value_bytes: 1024 * 1024,
            sessions: 131_072,
            session_ttl_ms: 3_600_000,
            window: 1_024,
        }
    }
}

impl Limits {
    /// Whether every limit is in its range.
    ///
    /// # Errors
    /// [`LimitsError`] names the first one that is not, and its range.
    pub fn validate(&self) -> Result<(), LimitsError> {
        self.check_from(WINDOW_MIN)
    }

    /// Whether a map can work by these limits. Clerks ask for more; that is [`validate`](Self::validate)'s matter.
    ///
    /// # Errors
    /// [`LimitsError`] names the first one that is not in its range.
    pub(super) fn check_workable(&self) -> Result<(), LimitsError> {
        self.check_from(1)
    }

    fn check_from(&self, window_min: u32) -> Result<(), LimitsError> {
        let ranges = [
            ("key_bytes", u64::from(self.key_bytes), 1, u64::from(KEY_BYTES_MAX)),
            ("value_bytes", u64::from(self.value_bytes), 1, u64::from(VALUE_BYTES_MAX)),
            ("sessions", u64::from(self.sessions), 1, 1024 * 1024),
            ("session_ttl_ms", self.session_ttl_ms, 1, u64::MAX),
            ("window", u64::from(self.window), u64::from(window_min), 16 * 1024),
        ];
        for (limit, found, min, max) in ranges {
            if found < min || found > max {
                return Err(LimitsError { limit, found, min, max });
            }
        }
        Ok(())
    }

    /// Whether `key` may be a key.
    ///
    /// # Errors
    /// [`LimitError::KeyEmpty`], [`LimitError::KeyTooLong`].
    pub fn check_key(&self, key: &[u8]) -> Result<(), LimitError> {
        match key.len() as u64 {
            0 => Err(LimitError::KeyEmpty),
            length if length > u64::from(self.key_bytes) => {
                Err(LimitError::KeyTooLong { length, limit: self.key_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Whether a value may have `length` bytes.
    ///
    /// # Errors
    /// [`LimitError::ValueTooLong`].
    pub fn check_value(&self, length: u64) -> Result<(), LimitError> {
        if length > u64::from(self.value_bytes) {
            return Err(LimitError::ValueTooLong { length, limit: self.value_bytes });
        }
        Ok(())
    }

    /// Bytes of the longest encoded [`Proposal`](super::Proposal) under these limits.
    pub const fn proposal_bytes(&self) -> usize {
        self.key_bytes as usize + self.value_bytes as usize + PROPOSAL_OVERHEAD
    }

    /// Bytes of the longest encoded [`Page`](super::Page) under these limits.
    pub const fn page_bytes(&self) -> usize {
        let pair = self.key_bytes as usize + self.value_bytes as usize;
        let data = if pair > PAGE_BYTES as usize { pair } else { PAGE_BYTES as usize };
        data + (PAGE_PAIRS as usize + 1) * PAIR_OVERHEAD
    }

    /// The bytes of these limits: equal limits give equal bytes.
    ///
    /// # Errors
    /// None in practice; the codec's are passed on.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self, ENCODED_MAX)
    }

    /// The limits that `bytes` are. Call [`Limits::validate`] before use.
    ///
    /// # Errors
    /// [`CodecError`] where `bytes` are not exactly such limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, ENCODED_MAX)
    }
}

/// A limit out of its range: the configuration is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("limit {limit} is {found}, choose one from {min} to {max}")]
pub struct LimitsError {
    /// The field's name.
    pub limit: &'static str,
    /// What it is.
    pub found: u64,
    /// What it must be at least.
    pub min: u64,
    /// What it may be at most.
    pub max: u64,
}

/// A key or value that the limits do not allow. Such a command changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
pub enum LimitError {
    /// The key is empty. A value may be, a key may not: "after no key" is where a scan begins.
    #[error("key is empty, give it at least one byte")]
    KeyEmpty,
    /// The key is longer than [`Limits::key_bytes`].
    #[error("key of {length} bytes is over the cluster's limit of {limit}")]
    KeyTooLong {
        /// Bytes of the key.
        length: u64,
        /// Bytes allowed.
        limit: u32,
    },
    /// The value, or what an append would have made of it, is longer than [`Limits::value_bytes`].
    #[error("value of {length} bytes is over the cluster's limit of {limit}")]
    ValueTooLong {
        /// Bytes of the value.
        length: u64,
        /// Bytes allowed.
        limit: u32,
    },
}
