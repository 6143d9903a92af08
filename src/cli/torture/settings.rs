//! How the nodes of a run are set up: small, so that logs wrap, snapshots are taken and disks fill within seconds.

/// What each node is told besides its place.
pub(crate) const SERVE: [&str; 6] =
    ["--max-raft-state", "256KiB", "--limit-value", "16KiB", "--disk-quota", "64MiB"];
/// The quota of `SERVE` in bytes.
pub(crate) const DISK_QUOTA: u64 = 64 << 20;
/// A file in a node's directory that takes up its quota.
pub(crate) const BALLAST: &str = "ballast";
/// How a node ends that finds its disk full when it starts.
pub(crate) const NO_SPACE_EXIT: i32 = 5;
/// Most that a node's directory may hold while nobody fills it: the log at twice its bound, a few segments, and three
/// snapshots of a map that holds what the latest cycles wrote.
pub(crate) const DISK_MAX: u64 = 48 << 20;
/// Most memory that a node's process may have held.
pub(crate) const MEMORY_MAX: u64 = 256 << 20;
