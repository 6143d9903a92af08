//! A node's end of the wire: one port on which peers and clients meet it, and one connection to each peer.
//!
//! Of two nodes the one with the smaller id dials; when it dials again, the newer connection replaces the older one at
//! once, for it is the one that the other side believes in. On a connection, [`Class::Urgent`] frames have a stream of
//! their own that goes before all others, [`Class::Log`] frames another, and every snapshot a third, behind both.
//!
//! Sending never waits: a frame for a peer that is not connected, or whose queue is full, is dropped and counted, as
//! any message of Raft may be lost. Receiving is paced by [`Credit`]: a stream is read only while the frames that came
//! out of it and still wait fit its bound, each stream for itself.

mod accept;
mod dial;
mod link;
mod snapshot;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Endpoint;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::identity::{Identity, Role};
use crate::limits::{Limits, LimitsError};
use crate::queue::Rejected;
use crate::server::ClientService;
use crate::stats::{Counters, Stats};
use crate::stream::{CloseCode, Credit};
use crate::supervise::{OnDead, Tasks};
use crate::tls::{self, TlsError};
use crate::{endpoint, frame, is_loopback};
use link::Link;

pub use snapshot::{SnapshotAccept, SnapshotError, SnapshotOffer, SnapshotReport, SnapshotWriter};

/// Who this node is, where it listens and where its peers are.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The UDP address for peers and clients. Port 0 takes any free one; see [`Peers::local_addr`].
    pub listen: SocketAddr,
    /// This node's identity: its role must be a node.
    pub identity: Identity,
    /// The other nodes by id. This node's own entry may be among them and is ignored.
    pub peers: BTreeMap<u64, SocketAddr>,
    /// Sizes and waits.
    pub limits: Limits,
}

/// How urgent a frame is. Each class has its own stream, queue and credit, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Votes, heartbeats and their answers: small and before everything else.
    Urgent,
    /// Entries and what acknowledges them, in order.
    Log,
}

/// What happens on the wire. For one peer, events come in this order: `Connected`, any number of frames,
/// `Disconnected`.
#[derive(Debug)]
pub enum Event {
    /// A connection to `peer` stands, and each has accepted the other's hello.
    Connected {
        /// The peer's node id, from its certificate.
        peer: u64,
        /// What it said first; at most 64 KiB.
        hello: Bytes,
    },
    /// The connection to `peer` is gone; frames sent on it may be lost.
    Disconnected {
        /// The peer's node id.
        peer: u64,
    },
    /// A frame came.
    Frame {
        /// The sender's node id, from its certificate.
        peer: u64,
        /// The stream it came on.
        class: Class,
        /// What the sender called it, from [`frame::FIRST_USER_KIND`] on.
        kind: u8,
        /// What it carries: a slice of a larger buffer, so copy what is to be kept for long.
        payload: Bytes,
        /// The room that it takes up; drop it when the frame is done with.
        credit: Credit,
    },
}

/// The node behind the wire, as its peers meet it.
pub trait PeerHandler: Send + Sync + 'static {
    /// The first thing said on a new connection to `peer`; at most 64 KiB.
    fn hello(&self, peer: u64) -> Bytes;

    /// Looks at what `peer` said first. Must not block.
    ///
    /// # Errors
    /// Why there can be no connection, in words for both sides' logs. It is tried again later, with back-off.
    fn check_hello(&self, peer: u64, hello: &[u8]) -> Result<(), String>;

    /// Takes an event. Runs on a transport task: must not block, and a panic in it ends the transport.
    ///
    /// # Errors
    /// What is wrong with a frame, in words for both sides' logs: its connection is closed with them.
    fn event(&self, event: Event) -> Result<(), String>;

    /// Decides on a snapshot that a peer offers. Runs on a thread of its own and may block, as may the writer.
    ///
    /// # Errors
    /// Why it is not wanted, in words for the sender.
    fn snapshot(&self, offer: SnapshotOffer) -> Result<SnapshotAccept, String>;
}

/// Why a node's transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The limits contradict each other.
    #[error("limits contradict each other")]
    Limits(#[from] LimitsError),
    /// The identity is a client's. Use a node's.
    #[error("identity is {0}, a node needs a node's; make one with: raftmap cert node")]
    NotANode(Role),
    /// The identity's parts do not fit together.
    #[error("identity cannot be used")]
    Identity(#[from] TlsError),
    /// The address cannot be listened on. Free it or choose another.
    #[error("cannot listen on {addr}; is another node running there?")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// A node's running transport. Dropping it closes every connection without waiting.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
}

/// What the tasks of one transport have in common.
pub(crate) struct Shared {
    node: u64,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    endpoint: Endpoint,
    dial_config: quinn::ClientConfig,
    links: BTreeMap<u64, Arc<Link>>,
    handler: Arc<dyn PeerHandler>,
    pub(crate) clients: Arc<dyn ClientService>,
    pub(crate) client_slots: Arc<Semaphore>,
    pub(crate) requests_credit: Arc<Semaphore>,
    pub(crate) large_requests: Arc<Semaphore>,
    pub(crate) counters: Counters,
    pub(crate) tasks: Tasks,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).field("links", &self.links).finish_non_exhaustive()
    }
}

impl Peers {
    /// Listens, starts to dial, and from then on calls `handler` and `clients`. `on_dead` is called once if the
    /// transport stops working, by a panic or a dead socket: the node must stop then, for it no longer hears.
    ///
    /// `runtime` has I/O and time enabled; dropping it ends the transport as a kill would, without a goodbye. Blocks for
    /// up to a second while the address is still held by a transport that is just ending.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(
        config: PeerConfig,
        handler: Arc<dyn PeerHandler>,
        clients: Arc<dyn ClientService>,
        on_dead: OnDead,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        config.limits.validate()?;
        let Role::Node(node) = *config.identity.role() else {
            return Err(StartError::NotANode(config.identity.role().clone()));
        };
        let tasks = Tasks::new(runtime.clone(), on_dead);
        let local = is_loopback(config.listen);
        let server_config = tls::server_config(&config.identity, &config.limits, local)?;
        let dial_config = tls::client_config(&config.identity, tls::Alpn::Peer, &config.limits, local)?;
        let endpoint =
            endpoint::open(config.listen, &config.identity, Some(server_config), &config.limits, &tasks)
                .map_err(|source| StartError::Bind { addr: config.listen, source })?;
        let limits = config.limits;
        let (links, inboxes) = links(node, config.peers, &limits);
        let shared = Arc::new(Shared {
            node,
            identity: config.identity,
            endpoint,
            dial_config,
            links,
            handler,
            clients,
            client_slots: Arc::new(Semaphore::new(limits.clients)),
            requests_credit: Arc::new(Semaphore::new(limits.all_requests_credit)),
            large_requests: Arc::new(Semaphore::new(limits.large_requests)),
            counters: Counters::default(),
            tasks,
            limits,
        });
        shared.run(inboxes);
        Ok(Peers { shared })
    }

    /// Queues one frame for `to`; its payload is `parts`, one behind the other. Never blocks, may be called from any
    /// thread. Returns whether the frame was queued: it may still be lost with its connection.
    ///
    /// A frame is dropped and counted when `to` is unknown or not connected, when the queue of its class is full, or
    /// when it exceeds the largest frame of its class. `kind` is at least [`frame::FIRST_USER_KIND`].
    pub fn send(&self, to: u64, class: Class, kind: u8, parts: &[Bytes]) -> bool {
        debug_assert!(kind >= frame::FIRST_USER_KIND, "kind {kind} is the transport's own");
        let counters = &self.shared.counters;
        let queued = match self.shared.links.get(&to) {
            Some(link) => link.queue(class).push(kind, parts),
            None => Err(Rejected::Closed),
        };
        match queued {
            Ok(()) => return true,
            Err(Rejected::Closed) => counters.dropped_unconnected.add_one(),
            Err(Rejected::Full) => counters.dropped_full.add_one(),
        }
        false
    }

    /// Starts to send a snapshot on a stream of its own, behind everything else that goes to `to`. `announcement`
    /// (at most 64 KiB) is what the receiver decides by; `body` is the whole file, of which only what the receiver
    /// lacks is sent. `report` hears of progress and, exactly once and last, of the end.
    ///
    /// # Errors
    /// [`SnapshotError::NotConnected`], or [`SnapshotError::Busy`] while another transfer to `to` is under way;
    /// `report` hears nothing then.
    pub fn send_snapshot(
        &self,
        to: u64,
        announcement: Bytes,
        body: Bytes,
        report: Box<dyn FnMut(SnapshotReport) + Send>,
    ) -> Result<(), SnapshotError> {
        let link = self.shared.links.get(&to).ok_or(SnapshotError::NotConnected)?;
        snapshot::send(&self.shared, link, announcement, body, report)
    }

    /// Whether a connection to `peer` stands.
    pub fn is_connected(&self, peer: u64) -> bool {
        self.shared.links.get(&peer).is_some_and(|link| link.connection().is_some())
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// Whatever the system says of a dead socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// What was counted since the start.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Closes every connection, tells the other sides, and returns when all tasks have ended, within a second.
    /// Needs no particular executor around it.
    pub async fn shutdown(&self) {
        self.shared.stop();
        let shared = self.shared.clone();
        let ended = async move {
            shared.tasks.stopped().await;
            shared.endpoint.wait_idle().await;
        };
        let ended = async move { tokio::time::timeout(SHUTDOWN_PATIENCE, ended).await.is_ok() };
        // An error means that the runtime is gone, and every task with it.
        if let Ok(false) = self.shared.tasks.handle().spawn(ended).await {
            tracing::warn!("the transport's tasks did not end within {SHUTDOWN_PATIENCE:?}");
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn run(self: &Arc<Self>, inboxes: Vec<(Arc<Link>, link::Inbox)>) {
        self.tasks.spawn("accept", accept::run(self.clone()));
        for (link, inbox) in inboxes {
            if self.node < link.peer {
                self.tasks.spawn("dial", dial::run(self.clone(), link));
            } else {
                self.tasks.spawn("link", link::run_accepted(self.clone(), link, inbox));
            }
        }
    }

    fn stop(&self) {
        self.tasks.stop();
        self.endpoint.close(quinn::VarInt::from_u32(CloseCode::Stopping as u32), b"stopping");
    }
}

type Links = (BTreeMap<u64, Arc<Link>>, Vec<(Arc<Link>, link::Inbox)>);

fn links(node: u64, peers: BTreeMap<u64, SocketAddr>, limits: &Limits) -> Links {
    let others = peers.into_iter().filter(|(peer, _)| *peer != node);
    let made: Vec<_> = others.map(|(peer, addr)| Link::new(peer, addr, limits)).collect();
    (made.iter().map(|(link, _)| (link.peer, link.clone())).collect(), made)
}
