//! A UDP socket with QUIC on it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Endpoint, ServerConfig};

use crate::identity::Identity;
use crate::limits::Limits;
use crate::supervise::{Supervised, Tasks};
use crate::tls;

/// How long an address may still be held by a transport that is just ending.
const BIND_PATIENCE: Duration = Duration::from_millis(1000);

/// Opens an endpoint; with a server configuration it also accepts.
pub(crate) fn open(
    addr: SocketAddr,
    identity: &Identity,
    server: Option<ServerConfig>,
    limits: &Limits,
    tasks: &Tasks,
) -> io::Result<Endpoint> {
    let (socket, short) = bind_patiently(addr, limits.socket_buffer)?;
    if let (Some(got), Some(_)) = (short, &server) {
        let wanted = limits.socket_buffer;
        tracing::warn!(
            wanted,
            got,
            "small socket buffer, bursts may be lost; raise net.core.rmem_max and wmem_max"
        );
    }
    let _context = tasks.handle().enter();
    Endpoint::new(tls::endpoint_config(identity), server, socket, Arc::new(Supervised(tasks.clone())))
}

fn bind_patiently(addr: SocketAddr, buffer: usize) -> io::Result<(std::net::UdpSocket, Option<usize>)> {
    let until = Instant::now() + BIND_PATIENCE;
    loop {
        match tls::bind(addr, buffer) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound,
        }
    }
}
