//! raftmap's disk: the write-ahead log of term, vote and entries, snapshot files, the directory lock.
//!
//! This crate knows no Raft roles and no network. [`types`] holds the words that the whole project shares. `FORMAT.md`
//! beside the sources describes every byte.
//!
//! [`open`] takes a directory and returns a [`Wal`] with what it [`Recovered`]. Batches go in by [`Wal::push`], become
//! durable by [`Wal::sync`], and older entries are read back from [`SealedSegment`]s. [`verify()`] and [`dump`] look at
//! a directory that nobody has open. No thread is started here.
//!
//! ```
//! use bytes::Bytes;
//! use raftmap_storage::types::{Batch, ClusterId, Entry, HardState, NodeId, Position, Term};
//! use raftmap_storage::{Identity, Options, os::OsFs};
//!
//! # let temp = tempfile::tempdir().unwrap();
//! # let dir = temp.path();
//! let identity = Identity { cluster: ClusterId([7; 16]), node: NodeId(1) };
//! let options = Options::new(Some(1 << 20), 64 * 1024);
//! let (mut wal, _) = raftmap_storage::open(OsFs, dir, identity, options)?;
//! let entry = Entry::new(Position::new(1, 1), Bytes::from_static(b"first"));
//! let hard_state = Some(HardState { term: Term(1), vote: None });
//! wal.push(1, Batch { hard_state, entries: vec![entry.clone()], ..Batch::default() })?;
//! assert_eq!(wal.sync()?.through, Some(1));
//! drop(wal); // as abruptly as a kill
//!
//! let (_, recovered) = raftmap_storage::open(OsFs, dir, identity, options)?;
//! assert_eq!(recovered.tail, [entry]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod boots;
#[doc(hidden)]
#[macro_use]
pub mod bugs;
#[doc(hidden)]
#[macro_use]
pub mod marks;
mod error;
pub mod fs;
#[cfg(any(test, feature = "model"))]
#[doc(hidden)]
pub mod fuzz_targets;
mod lsn;
#[cfg(any(test, feature = "model"))]
#[doc(hidden)]
pub mod model;
mod node_file;
mod options;
pub mod os;
pub mod quota;
mod record;
mod recover;
mod sealed;
mod segment;
pub mod snapshot;
mod state;
#[cfg(test)]
mod tests;
pub mod types;
mod verify;
mod wal;

pub use error::{ADVICE, Damage, OpenError, ReadError, StoreError};
pub use lsn::Lsn;
pub use node_file::Identity;
pub use options::{Options, segment_bytes};
pub use recover::{Recovered, open};
pub use sealed::{SealedSegment, find};
pub use verify::{DumpLine, Finding, Part, Summary, dump, verify};
pub use wal::{Chore, ChoreDone, DirGuard, Stats, Synced, Wal};
