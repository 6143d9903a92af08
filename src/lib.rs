//! An embeddable replicated map.

pub mod raft;
