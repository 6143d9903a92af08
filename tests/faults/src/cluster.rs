//! Three members in this process, on real files and real sockets, in directories `1`, `2`, `3` of one place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use raftmap::{Clerk, ConnectOptions, Node, NodeConfig, StartError};

use crate::error::{Result, Scenery, Stop};
use crate::liar::{Liar, Lie};

/// Members.
pub(crate) const NODES: u64 = 3;
/// The log's bound: small, so that segments (64 KiB) and snapshots come and go within seconds.
pub(crate) const LOG_BYTES: u64 = 256 * 1024;
/// Largest value.
pub(crate) const VALUE_BYTES: u32 = 8 * 1024;

const START_DEADLINE: Duration = Duration::from_secs(10);

/// Where they are and how they are told.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    dir: PathBuf,
    addresses: BTreeMap<u64, SocketAddr>,
    lie: Option<Lie>,
}

impl Plan {
    pub(crate) fn new(dir: &Path, lie: Option<Lie>) -> Result<Self> {
        let addresses = raftmap::free_addresses(NODES).or_broken("finding free ports")?;
        Ok(Self { dir: dir.into(), addresses, lie })
    }

    pub(crate) fn config(&self, id: u64) -> NodeConfig {
        let mut config = NodeConfig::new(id, self.dir.join(id.to_string()), self.addresses[&id]);
        config.peers = self.addresses.clone();
        config.max_raft_state = Some(LOG_BYTES);
        config.limits.value_bytes = VALUE_BYTES;
        config.limits.key_bytes = 64;
        config
    }

    /// Starts one member. A directory that does not open is red; a port that is not free yet is waited for.
    pub(crate) async fn start(&self, id: u64) -> Result<Node> {
        let begin = Instant::now();
        loop {
            let started = match self.lie {
                None => Node::start(self.config(id)).await,
                Some(lie) => Node::start_on(Liar(lie), self.config(id)).await,
            };
            match started {
                Ok(node) => return Ok(node),
                Err(error) if error.is_storage() && !in_use(&error) => {
                    return Err(Stop::Red(format!("node {id} does not start: {error}")));
                }
                Err(error) if begin.elapsed() > START_DEADLINE => {
                    return Err(Stop::Broken(format!("node {id} does not start: {error}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) async fn start_all(&self) -> Result<BTreeMap<u64, Node>> {
        let mut nodes = BTreeMap::new();
        for id in 1..=NODES {
            nodes.insert(id, self.start(id).await?);
        }
        Ok(nodes)
    }

    pub(crate) fn clerk(&self, deadline: Duration) -> Result<Clerk> {
        let servers: Vec<_> = self.addresses.values().copied().collect();
        let clerk = Clerk::connect(&servers, &ConnectOptions::default()).or_broken("making a clerk")?;
        Ok(clerk.with_deadline(deadline))
    }
}

/// A life that is ending still holds the lock.
fn in_use(error: &StartError) -> bool {
    matches!(error, StartError::Storage(raftmap::storage::OpenError::InUse { .. }))
}
