//! An embeddable replicated map.

mod codec;
pub mod kv;
pub mod raft;
