//! Reading many keys in order, a page at a time. A page is cut from one state of the map; the next page may see a later
//! one.

use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::pairs::Pairs;
use crate::codec::{self, octets, optional_octets};

/// Pairs in a page, at most, whatever was asked for.
pub const PAGE_PAIRS: u32 = 10_000;
/// A page ends where its keys and values would take more bytes than this: 1 MiB. The first pair is always in it.
pub const PAGE_BYTES: u64 = 1024 * 1024;

/// Which keys to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Where they lie.
    pub keys: Keys,
    /// Only keys behind this one: the last key of the page before.
    #[serde(with = "optional_octets")]
    pub after: Option<Bytes>,
    /// Pairs wanted at most, 1 to [`PAGE_PAIRS`]; other numbers count as the nearer end.
    pub limit: u32,
}

/// A stretch of the map, in the order of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keys {
    /// Keys that begin with these bytes; all keys where it is empty.
    Prefix(#[serde(with = "octets")] Bytes),
    /// Keys from `start` on and before `end`. Nothing where `end` is not behind `start`.
    Range {
        /// The first key that counts; empty: from the first key there is.
        #[serde(with = "octets")]
        start: Bytes,
        /// The first key that no longer counts; `None`: up to the last key there is.
        #[serde(with = "optional_octets")]
        end: Option<Bytes>,
    },
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    #[serde(with = "octets")]
    pub key: Bytes,
    /// Its value.
    #[serde(with = "octets")]
    pub value: Bytes,
    /// Log index of its last change.
    pub version: u64,
}

/// What a scan found, keys rising.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// At most [`PAGE_PAIRS`] and about [`PAGE_BYTES`].
    #[serde(deserialize_with = "codec::at_most::<{ PAGE_PAIRS as usize }, _, _>")]
    pub pairs: Vec<Pair>,
    /// Whether keys of the scan lie behind the last pair here.
    pub more: bool,
}

impl Keys {
    fn first(&self) -> &[u8] {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Range { start, .. } => start,
        }
    }

    /// Whether `key`, which is not before [`Keys::first`], is still in.
    fn holds(&self, key: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Range { end, .. } => end.as_ref().is_none_or(|end| key < &end[..]),
        }
    }
}

impl Pairs {
    pub(super) fn scan(&self, scan: &Scan) -> Page {
        let limit = scan.limit.clamp(1, PAGE_PAIRS) as usize;
        let lower = match scan.after.as_deref() {
            Some(after) if after >= scan.keys.first() => Bound::Excluded(after),
            Some(_) | None => Bound::Included(scan.keys.first()),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        let behind = self.map.range::<_, [u8]>((lower, Bound::Unbounded));
        for (key, found) in behind.take_while(|(key, _)| scan.keys.holds(key)) {
            bytes += key.len() as u64 + found.value.len() as u64;
            page.more = page.pairs.len() == limit || (bytes > PAGE_BYTES && !page.pairs.is_empty());
            if page.more {
                break;
            }
            page.pairs.push(Pair { key: key.clone(), value: found.value.clone(), version: found.version });
        }
        page
    }
}
