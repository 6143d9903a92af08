#![doc = include_str!("../README.md")]

// Re-exported here, for its macros.
#[macro_use(bug, sometimes)]
pub extern crate raftmap_storage as storage;

pub mod admin;
mod config;
mod error;
mod local;

// The parts, for this project's own tests and fuzz targets; no promise is made about anything in them.
#[doc(hidden)]
pub mod check;
#[doc(hidden)]
pub mod clerk;
#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod kv;
#[cfg(feature = "json")]
#[doc(hidden)]
pub mod lines;
#[doc(hidden)]
pub mod node;
#[doc(hidden)]
pub mod raft;
#[doc(hidden)]
pub mod wire;

pub use raftmap_net as net;

pub use crate::clerk::{Clerk, Compared, ConnectError, ConnectOptions, DEFAULT_DEADLINE, Pending, Written};
pub use crate::config::{
    ConfigError, Limits, MAX_RAFT_STATE_DEFAULT, MAX_RAFT_STATE_MIN, NodeConfig, Timing,
};
#[doc(hidden)]
pub use crate::error::chain;
pub use crate::error::{Error, Result};
pub use crate::kv::{Command, Keys, LimitError, Page, Pair, Reply, Scan, Versioned};
pub use crate::local::{free_addresses, local_cluster};
pub use crate::node::{Fault, Node, StartError};
pub use crate::wire::client::NodeStatus;
