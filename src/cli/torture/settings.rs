//! How the nodes of a run are set up: small, so that logs wrap, snapshots are taken and disks fill within seconds. And
//! what a node may take then.

use raftmap::storage::segment_bytes;

/// What each node is told besides its place.
pub(crate) const SERVE: [&str; 6] =
    ["--max-raft-state", "256KiB", "--limit-value", "16KiB", "--disk-quota", "64MiB"];
/// In bytes: the log's bound,
const MAX_RAFT_STATE: u64 = 256 << 10;
/// ... the largest value,
const VALUE_MAX: u64 = 16 << 10;
/// ... and the quota.
pub(crate) const DISK_QUOTA: u64 = 64 << 20;

/// A file in a node's directory that takes up its quota.
pub(crate) const BALLAST: &str = "ballast";
/// How a node ends that finds its disk full when it starts.
pub(crate) const NO_SPACE_EXIT: i32 = 5;

/// The largest entry in the log: a value, and some for its key, its session and its frame.
const ENTRY_MAX: u64 = VALUE_MAX + 4_096;
/// Most that the log above the latest snapshot may have: at twice its bound no more entries are taken, and one may have
/// passed that.
pub(crate) const LOG_MAX: u64 = 2 * MAX_RAFT_STATE + ENTRY_MAX;
/// Segments beyond twice the log's bound. A snapshot is due at four: only whole ones go. Then one being written, one
/// spare, one spare of an earlier life, and one being made.
const MORE_SEGMENTS: u64 = 4 + 4;
/// Snapshots: the one in force, the one before it, and one being written or arriving.
const SNAPSHOTS: u64 = 3;
/// A snapshot has besides what is read after a cycle: sessions, and values that were large in between.
const MORE_MAP: u64 = 128 << 10;
/// ... and around each key and value.
pub(crate) const PAIR_BYTES: u64 = 64;

/// Most that a node's directory may hold while nobody fills it, where keys and values of all cycles that are kept have
/// never been more than `map_bytes` together.
pub(crate) fn disk_max(map_bytes: u64) -> u64 {
    let segment = segment_bytes(Some(MAX_RAFT_STATE), ENTRY_MAX as u32);
    2 * MAX_RAFT_STATE + MORE_SEGMENTS * segment + SNAPSHOTS * (map_bytes + MORE_MAP)
}

/// Most memory that a node's process may have held: several times what it usually takes, 40 MB.
pub(crate) const MEMORY_MAX: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::size;

    #[test]
    fn bounds_are_of_what_the_nodes_are_told() {
        let told = |name: &str| {
            let at = SERVE.iter().position(|argument| *argument == name).expect(name);
            size::parse(SERVE[at + 1]).expect(name)
        };
        assert_eq!(told("--max-raft-state"), MAX_RAFT_STATE);
        assert_eq!((told("--limit-value"), told("--disk-quota")), (VALUE_MAX, DISK_QUOTA));
    }

    #[test]
    fn a_log_of_many_times_its_bound_is_not_within_bounds() {
        let usual = disk_max(512 << 10);
        assert!((1 << 20..4 << 20).contains(&usual), "{usual}");
        assert!(usual < 20 * MAX_RAFT_STATE && LOG_MAX < 3 * MAX_RAFT_STATE);
    }
}
