//! A whole cluster in one process: real QUIC on loopback, real logs, one directory each. For a first look, and for the
//! tests of what uses the map.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::config::NodeConfig;
use crate::node::{Node, StartError};

/// How long [`local_cluster`] waits for each node.
const READY: Duration = Duration::from_secs(10);

/// Starts `nodes` members on free loopback ports, in directories `1`, `2`, … below `dir`, and waits until all serve.
///
/// # Errors
/// A node did not start, or they found no leader within ten seconds.
pub async fn local_cluster(nodes: u64, dir: impl AsRef<Path>) -> Result<Vec<Node>, StartError> {
    let peers =
        free_addresses(nodes).map_err(|source| StartError::Io { path: dir.as_ref().into(), source })?;
    let mut cluster = Vec::new();
    for (&id, &listen) in &peers {
        let mut config = NodeConfig::new(id, dir.as_ref().join(id.to_string()), listen);
        config.peers = peers.clone();
        cluster.push(Node::start(config).await?);
    }
    for node in &cluster {
        node.wait_ready(READY).await.map_err(|error| StartError::NotReady(error.to_string()))?;
    }
    Ok(cluster)
}

/// Ids from 1 with loopback addresses that were free a moment ago.
///
/// # Errors
/// The system gives no more ports.
pub fn free_addresses(nodes: u64) -> std::io::Result<BTreeMap<u64, SocketAddr>> {
    // All are held until the last is found, so that they differ.
    let sockets: Vec<UdpSocket> =
        (0..nodes).map(|_| UdpSocket::bind(("127.0.0.1", 0))).collect::<std::io::Result<_>>()?;
    (1..).zip(&sockets).map(|(id, socket)| Ok((id, socket.local_addr()?))).collect()
}
