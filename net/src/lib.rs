//! Frames between authenticated addresses over QUIC. Knows no Raft and no disk.
//!
//! A node runs [`Peers`]: one UDP port for its peers and its clients. A client runs a [`ClientEndpoint`]. Both show an
//! [`Identity`], and nothing is said before both certificates are checked. What goes to and fro is opaque here: bytes
//! with a kind, in the frames that [`frame`] describes.
//!
//! ```no_run
//! # use std::{sync::Arc, net::SocketAddr};
//! # use raftmap_net::*;
//! # fn start(handler: Arc<dyn PeerHandler>, clients: Arc<dyn ClientService>, runtime: &tokio::runtime::Handle)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! let listen: SocketAddr = "127.0.0.1:7001".parse()?;
//! let identity = Identity::resolve(None, listen, &Role::Node(1))?;
//! let peers = [(2, "127.0.0.1:7002".parse()?)].into();
//! let config = PeerConfig { listen, identity, peers, limits: Limits::default() };
//! let on_dead = Box::new(|reason| eprintln!("stopping: {reason}"));
//! let peers = Peers::start(config, handler, clients, on_dead, runtime)?;
//! peers.send(2, Class::Urgent, frame::FIRST_USER_KIND, &["are you there?".into()]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[macro_use]
mod bugs;
mod client;
mod endpoint;
pub mod frame;
pub mod identity;
mod limits;
mod peers;
mod queue;
pub mod relay;
mod server;
mod stats;
mod stream;
mod supervise;
mod tls;

pub use client::{ClientConnection, ClientEndpoint, ConnectError, ReplyHandler, SendError};
pub use identity::{
    Authority, Certified, ClusterId, Identity, IdentityError, Name, OutOfReach, Role, dev_identity,
    is_loopback, issue_client, issue_node, new_cluster,
};
pub use limits::{Limits, LimitsError};
pub use peers::{
    Class, Event, PeerConfig, PeerHandler, Peers, SnapshotAccept, SnapshotError, SnapshotOffer,
    SnapshotReport, SnapshotWriter, StartError,
};
pub use server::{ClientService, ClientSession, ReplySender};
pub use stats::Stats;
pub use stream::Credit;
pub use supervise::OnDead;
pub use tls::{Refusal, TlsError};
