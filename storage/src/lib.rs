//! raftmap's disk: the write-ahead log of term, vote and entries, snapshot files, the directory lock.
//!
//! This crate knows no Raft roles and no network. [`types`] holds the words that the whole project shares.

pub mod fs;
#[cfg(any(test, feature = "model"))]
#[doc(hidden)]
pub mod model;
pub mod snapshot;
pub mod types;
