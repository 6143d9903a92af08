//! What a node is told when it starts, checked once at the door.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raftmap_storage::types::NodeId;

pub use crate::kv::Limits;

/// A node's settings. Only [`limits`](Self::limits) and the ids of [`peers`](Self::peers) must be equal on all
/// members; they are written into the log when the cluster is made and cannot change afterwards.
///
/// ```
/// let config = raftmap::NodeConfig::new(1, "data/1", "127.0.0.1:7001".parse()?);
/// assert!(config.validate().is_ok());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This member's id, at least 1. Never given to another machine or another directory.
    pub id: u64,
    /// Where its log and snapshots live: a local disk, one directory a node.
    pub dir: PathBuf,
    /// Where it listens (UDP), for members and clients.
    pub listen: SocketAddr,
    /// All members with their addresses, itself included. Empty: this node alone, an embedded map with a log.
    pub peers: BTreeMap<u64, SocketAddr>,
    /// Bound of the log in bytes, at least 1,000; at three quarters of it the map is snapshotted, and the log stays
    /// below twice the bound plus one largest entry. `None` keeps the whole log for ever. Default 64 MiB.
    pub max_raft_state: Option<u64>,
    /// Directory with `ca.pem`, `cert.pem`, `key.pem`; `None` uses the development identity, on loopback addresses
    /// only.
    pub identity: Option<PathBuf>,
    /// The replicated limits of keys, values and sessions.
    pub limits: Limits,
    /// How fast it notices that a leader is gone, and what that costs.
    pub timing: Timing,
}

/// The protocol's times. A shorter election timeout means faster failover and more elections on a slow disk or network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A leader says that it lives this often. Default 50 ms.
    pub heartbeat: Duration,
    /// A follower waits a random time of at least this long for a leader; at least four heartbeats. Default 250 ms.
    pub election_min: Duration,
    /// ... and at most this long; more than the least. Default 500 ms.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(500),
        }
    }
}

/// The clock's step: the times above are counted in these.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// The least bound of the log: one small entry, a hard state and a no-op must fit.
pub const MAX_RAFT_STATE_MIN: u64 = 1_000;
/// The default bound of the log.
pub const MAX_RAFT_STATE_DEFAULT: u64 = 64 << 20;

impl NodeConfig {
    /// A node alone, with everything else at its default.
    pub fn new(id: u64, dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            id,
            dir: dir.into(),
            listen,
            peers: BTreeMap::new(),
            max_raft_state: Some(MAX_RAFT_STATE_DEFAULT),
            identity: None,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }

    /// The members by id, this one included.
    pub fn members(&self) -> BTreeMap<NodeId, SocketAddr> {
        let mut members: BTreeMap<_, _> =
            self.peers.iter().map(|(id, address)| (NodeId(*id), *address)).collect();
        members.entry(NodeId(self.id)).or_insert(self.listen);
        members
    }

    /// Checks every setting against its range and its neighbours.
    ///
    /// # Errors
    /// The first setting that does not fit, with the numbers.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == 0 || self.peers.contains_key(&0) {
            return Err(ConfigError::ZeroId);
        }
        if !self.peers.is_empty() && !self.peers.contains_key(&self.id) {
            return Err(ConfigError::NotAMember { id: self.id, peers: self.peers.keys().copied().collect() });
        }
        let mut by_address = BTreeMap::new();
        for (id, address) in &self.peers {
            if let Some(other) = by_address.insert(address, id) {
                return Err(ConfigError::SameAddress { address: *address, ids: (*other, *id) });
            }
        }
        if let Some(bound) = self.max_raft_state
            && bound < MAX_RAFT_STATE_MIN
        {
            return Err(ConfigError::LogTooSmall { bound, least: MAX_RAFT_STATE_MIN });
        }
        self.limits.validate().map_err(|error| ConfigError::Limits(error.to_string()))?;
        self.timing.validate()
    }
}

impl Timing {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.heartbeat < TICK {
            return Err(ConfigError::HeartbeatTooShort { heartbeat: self.heartbeat, least: TICK });
        }
        let least = self.heartbeat * 4;
        if self.election_min < least {
            return Err(ConfigError::ElectionTooShort { election: self.election_min, least });
        }
        if self.election_max < self.election_min + TICK {
            return Err(ConfigError::ElectionRange { min: self.election_min, max: self.election_max });
        }
        Ok(())
    }

    /// Heartbeat, least and longest election timeout, in ticks.
    pub(crate) fn ticks(&self) -> (u32, u32, u32) {
        let ticks = |time: Duration| u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        (ticks(self.heartbeat).max(1), ticks(self.election_min), ticks(self.election_max))
    }
}

/// A setting that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Ids begin at 1.
    #[error("node ids begin at 1, 0 stands for nobody")]
    ZeroId,
    /// The node is not in its own list.
    #[error("node {id} is not among its own peers {peers:?}: list all members, this one too")]
    NotAMember {
        /// The node.
        id: u64,
        /// The list.
        peers: Vec<u64>,
    },
    /// Two members, one address.
    #[error("nodes {} and {} have the same address {address}", ids.0, ids.1)]
    SameAddress {
        /// The address.
        address: SocketAddr,
        /// The two.
        ids: (u64, u64),
    },
    /// The log's bound is below what works.
    #[error("max_raft_state of {bound} bytes is below the least, {least}")]
    LogTooSmall {
        /// What was asked for.
        bound: u64,
        /// The least.
        least: u64,
    },
    /// A replicated limit is out of its range.
    #[error("{0}")]
    Limits(String),
    /// Heartbeats below the clock's step.
    #[error("a heartbeat of {heartbeat:?} is below the least, {least:?}")]
    HeartbeatTooShort {
        /// What was asked for.
        heartbeat: Duration,
        /// The least.
        least: Duration,
    },
    /// Followers would lose patience with a healthy leader.
    #[error("an election timeout of {election:?} is below four heartbeats, {least:?}")]
    ElectionTooShort {
        /// What was asked for.
        election: Duration,
        /// The least.
        least: Duration,
    },
    /// Without a range elections collide.
    #[error(
        "election timeouts from {min:?} to {max:?}: the longest must be at least {TICK:?} above the least"
    )]
    ElectionRange {
        /// The least.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The protocol core refuses the numbers.
    #[error("{0}")]
    Protocol(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NodeConfig {
        NodeConfig::new(1, "unused", ([127, 0, 0, 1], 7001).into())
    }

    #[track_caller]
    fn refuse(change: impl FnOnce(&mut NodeConfig), words: &str) {
        let mut config = config();
        change(&mut config);
        let message = config.validate().expect_err("refused").to_string();
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn every_setting_is_checked_against_its_neighbours() {
        assert_eq!(config().validate(), Ok(()));
        refuse(|config| config.id = 0, "begin at 1");
        refuse(|config| config.peers = [(2, config.listen)].into(), "not among its own peers [2]");
        refuse(
            |config| config.peers = [(1, config.listen), (2, config.listen)].into(),
            "nodes 1 and 2 have the same address",
        );
        refuse(|config| config.max_raft_state = Some(999), "999 bytes is below the least, 1000");
        refuse(|config| config.limits.key_bytes = 0, "key_bytes");
        refuse(|config| config.timing.heartbeat = Duration::ZERO, "heartbeat");
        refuse(|config| config.timing.election_min = Duration::from_millis(199), "four heartbeats, 200ms");
        refuse(|config| config.timing.election_max = Duration::from_millis(250), "from 250ms to 250ms");
    }

    #[test]
    fn a_node_without_peers_is_its_own_cluster() {
        assert_eq!(config().members().into_keys().collect::<Vec<_>>(), vec![NodeId(1)]);
    }
}
