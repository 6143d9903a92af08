//! A node: the one place where protocol, map, disk and network meet.
//!
//! ```text
//! clients ── serve ──┐                     ┌── log_threads, log_writer ── disk
//!                    ├── inbox ── replica ─┼── links ── other members
//! members ── links ──┘   (one thread)      └── jobs (snapshots, digests)
//! ```
//! One thread owns the replica; nothing else touches protocol state, log positions or map. Every queue is bounded and
//! says what happens at its bound.

pub mod arrivals;
pub mod clients;
pub mod driver;
pub mod fault;
pub mod host;
pub mod inbox;
pub mod jobs;
pub mod links;
mod local;
pub mod log_threads;
pub mod log_time;
pub mod log_writer;
pub mod older;
pub mod open;
pub mod replica;
pub mod serve;
pub mod sync_times;
#[cfg(test)]
mod tests;
pub mod waiting;

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use raftmap_net::{ClientEndpoint, Identity, IdentityError, PeerConfig, Peers, Role, is_loopback};
use raftmap_storage::OpenError;
use raftmap_storage::fs::Fs;
use raftmap_storage::os::OsFs;
use raftmap_storage::types::{Batch, ClusterId, Index, NodeId};
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::arrivals::Arrivals;
use self::clients::Clients;
use self::driver::CloseOnDrop;
pub use self::fault::Fault;
use self::inbox::Inbox;
use self::jobs::{DIGESTS_MAX, Jobs, Task};
use self::links::{Ears, Mouth, Sending};
use self::local::LocalDoor;
use self::log_threads::{WriterHandle, WriterThreads};
use self::open::Opened;
use self::replica::{ClientId, Host, Job, Replica};
use self::serve::Service;
use crate::clerk::Clerk;
use crate::clerk::door::Doors;
use crate::clerk::servers::ServerAddress;
use crate::config::{ConfigError, NodeConfig};
use crate::error::{Error, Result};
use crate::raft::{BatchNumber, Outbound, SoftState};
use crate::wire::client::{Answer, Ask, NodeStatus, Refusal, Response, ServerHello};
use crate::wire::hello::PROTOCOL;

/// How long an orderly stop waits for the last answers to leave.
const GOODBYE: Duration = Duration::from_millis(50);

/// A member of a cluster, running in this process. It is also a [`Clerk`]: calls go to its own replica where that
/// leads, and to the leader where it does not.
///
/// Dropping it stops it without a clean end, as [`crash`](Self::crash) does; [`shutdown`](Self::shutdown) is the
/// orderly way.
#[derive(Debug)]
pub struct Node {
    clerk: Clerk,
    door: LocalDoor,
    running: Arc<Running>,
}

/// What stops a node, from any side.
#[derive(Debug)]
struct Running {
    inbox: Arc<Inbox>,
    crashed: Arc<AtomicBool>,
    peers: Mutex<Option<Arc<Peers>>>,
    fault: Arc<Mutex<Option<Fault>>>,
    ended: watch::Receiver<bool>,
    soft: watch::Receiver<SoftState>,
}

impl Node {
    /// Opens or makes the directory, takes its lock, recovers the log, and joins the others. Returns when the node
    /// runs; whether it can already serve, [`wait_ready`](Self::wait_ready) tells. Needs a tokio runtime with its time
    /// and I/O drivers, and uses it for the network alone.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then, and nothing acknowledged is touched.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_on(OsFs, config).await
    }

    /// As [`start`](Self::start), on another disk than the operating system's.
    #[doc(hidden)]
    pub async fn start_on<F: Fs>(fs: F, config: NodeConfig) -> Result<Self, StartError> {
        config.validate()?;
        let role = Role::Node(config.id);
        let identity = Identity::resolve(config.identity.as_deref(), farthest(&config), &role)?;
        if *identity.role() != role {
            return Err(StartError::WrongCertificate { id: config.id, role: identity.role().to_string() });
        }
        let cluster = ClusterId(identity.cluster().0);
        let (disk, opening) = (fs.clone(), config.clone());
        let opened = tokio::task::spawn_blocking(move || open::open(&disk, &opening, cluster))
            .await
            .map_err(|error| StartError::Core(error.to_string()))??;
        run(fs, config, identity, opened)
    }

    /// Waits until there is a leader, this node has applied everything that was committed when it was asked, and
    /// calls are served.
    ///
    /// # Errors
    /// The deadline passed first: the majority may not be up. Or, at once, the node is stopping.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let ready = async {
            let wanted = self.clerk.with_deadline(deadline).read_index().await?;
            while self.node_status().await?.applied < Index(wanted) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        };
        tokio::time::timeout(deadline, ready).await.unwrap_or(Err(Error::NoAnswer { deadline }))
    }

    /// How this node is.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn node_status(&self) -> Result<NodeStatus> {
        match self.ask(Ask::Status).await? {
            Answer::Status(status) => Ok(*status),
            other => Err(Error::Protocol(format!("a status was asked for: {other:?}"))),
        }
    }

    /// What its transport has counted; `None` once it has stopped.
    #[doc(hidden)]
    pub fn net_stats(&self) -> Option<raftmap_net::Stats> {
        let peers = self.running.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.as_ref().map(|peers| peers.stats())
    }

    /// This node's applied index and the BLAKE3 of its map and sessions there: equal on all nodes that have applied
    /// the same entries.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn digest(&self) -> Result<(u64, [u8; 32])> {
        match self.ask(Ask::Digest).await? {
            Answer::Digest { applied, digest } => Ok((applied.0, digest)),
            other => Err(Error::Protocol(format!("a digest was asked for: {other:?}"))),
        }
    }

    async fn ask(&self, body: Ask) -> Result<Answer> {
        tokio::select! {
            answer = self.door.ask(body) => answer,
            _ = self.stopped() => Err(Error::Stopped),
        }
    }

    /// The member that leads, as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.running.soft.borrow().leader.map(|leader| leader.0)
    }

    /// This node's own clerk, for others to hold: it shares the node's session and connections.
    pub fn clerk(&self) -> Clerk {
        self.clerk.clone()
    }

    /// Resolves when the node has stopped: with the reason if it stopped by itself, because going on would have put
    /// data at risk.
    pub async fn stopped(&self) -> Option<Fault> {
        let mut ended = self.running.ended.clone();
        // The sender lives in the thread that sets it; if that is gone, the node is.
        let _gone = ended.wait_for(|ended| *ended).await;
        self.running.fault()
    }

    /// Stops in order: answers everyone who waits, syncs the log's last witness, frees the directory.
    ///
    /// # Errors
    /// The node had stopped by itself, for this reason.
    pub async fn shutdown(self) -> Result<(), Fault> {
        let peers = self.running.peers.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.running.inbox.close();
        let fault = self.stopped().await;
        if let Some(peers) = peers {
            // Closing a connection drops what is still queued on it: the last answers are given time to leave.
            tokio::time::sleep(GOODBYE).await;
            peers.shutdown().await;
        }
        fault.map_or(Ok(()), Err)
    }

    /// Stops at once, as SIGKILL would: nothing is flushed, nobody is told; the directory's lock is free when this
    /// returns. Blocks its thread for as long as a sync under way takes. For tests of what uses the map.
    pub fn crash(self) {
        self.running.crash();
        while !*self.running.ended.borrow() && self.running.ended.has_changed().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Deref for Node {
    type Target = Clerk;

    fn deref(&self) -> &Clerk {
        &self.clerk
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.crash();
    }
}

impl Running {
    fn crash(&self) {
        // After an orderly stop there is nothing left to crash.
        if *self.ended.borrow() {
            return;
        }
        self.crashed.store(true, Ordering::Release);
        drop(self.peers.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.inbox.close();
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An address beyond this machine, if there is one among those that the node listens on or dials: one is enough to ask
/// for a real identity.
fn farthest(config: &NodeConfig) -> SocketAddr {
    let mut all = std::iter::once(config.listen).chain(config.peers.values().copied());
    all.find(|address| !is_loopback(*address)).unwrap_or(config.listen)
}

/// Starts the network and the threads of an opened node.
fn run<F: Fs>(fs: F, config: NodeConfig, identity: Identity, opened: Opened<F>) -> Result<Node, StartError> {
    let inbox = Arc::new(Inbox::default());
    // Closing the inbox ends whatever ran before an error.
    assemble(fs, config, identity, opened, inbox.clone()).inspect_err(|_| inbox.close())
}

fn assemble<F: Fs>(
    fs: F,
    config: NodeConfig,
    identity: Identity,
    opened: Opened<F>,
    inbox: Arc<Inbox>,
) -> Result<Node, StartError> {
    let Opened { wal, replica, hello } = opened;
    let clients = Arc::new(Clients::default());
    let crashed = Arc::new(AtomicBool::new(false));
    let fault = Arc::new(Mutex::new(None));
    let cluster = hello.cluster;
    let guard = wal.guard();
    let endpoint = ClientEndpoint::new(identity.clone(), raftmap_net::Limits::default(), &Handle::current())
        .map_err(|error| StartError::Core(fault::chain(&error)))?;
    let io = |source| StartError::Io { path: config.dir.clone(), source };

    let arrivals = Arrivals::new(fs.clone(), config.dir.clone(), cluster);
    let ears = Ears { inbox: inbox.clone(), hello, arrivals, guard: guard.clone() };
    let server_hello = ServerHello { protocol: PROTOCOL, node: NodeId(config.id) };
    let service = Service { inbox: inbox.clone(), clients: clients.clone(), hello: server_hello };
    let peers = start_network(&config, &identity, ears, service, &inbox, &fault)?;

    let (writer, writer_threads) = log_threads::start(wal, inbox.clone(), crashed.clone()).map_err(io)?;
    let jobs = Jobs {
        fs,
        dir: config.dir.clone(),
        cluster,
        inbox: inbox.clone(),
        peers: peers.clone(),
        clients: clients.clone(),
        digests: Arc::default(),
        guard: guard.clone(),
    };
    let digests = jobs.digests.clone();
    let (tasks, jobs_thread) = jobs.start().map_err(io)?;
    let (soft_sender, soft) = watch::channel(replica.soft_state());
    let host = LiveHost {
        mouth: Mouth { peers: peers.clone() },
        writer: writer.clone(),
        clients: clients.clone(),
        tasks,
        digests,
        soft: soft_sender,
    };
    let replica_thread = start_replica(replica, &inbox, &crashed, host).map_err(io)?;
    let threads = Threads { replica: replica_thread, writer, writer_threads, jobs: jobs_thread };
    let ended = watch_over(threads, peers.clone(), fault.clone()).map_err(io)?;

    let running =
        Running { inbox: inbox.clone(), crashed, peers: Mutex::new(Some(peers)), fault, ended, soft };
    let door = LocalDoor::new(inbox, clients, serve::owner(identity.name()));
    let others = config.members().into_iter().filter(|(id, _)| id.0 != config.id);
    let own = ServerAddress::Local { alias: config.members().get(&NodeId(config.id)).copied() };
    let others = others.map(|(_, address)| ServerAddress::Remote(address));
    let servers = std::iter::once(own).chain(others).collect();
    let clerk = Clerk::new(servers, Doors::new(endpoint));
    clerk.attach(|events| door.link(events));
    Ok(Node { clerk, door, running: Arc::new(running) })
}

fn start_network<F: Fs>(
    config: &NodeConfig,
    identity: &Identity,
    ears: Ears<F>,
    service: Service,
    inbox: &Arc<Inbox>,
    fault: &Arc<Mutex<Option<Fault>>>,
) -> Result<Arc<Peers>, StartError> {
    let peer_config = PeerConfig {
        listen: config.listen,
        identity: identity.clone(),
        peers: config.peers.clone(),
        limits: raftmap_net::Limits::default(),
    };
    let (inbox, fault) = (inbox.clone(), fault.clone());
    let on_dead = Box::new(move |reason| network_died(&fault, &inbox, reason));
    let peers = Peers::start(peer_config, Arc::new(ears), Arc::new(service), on_dead, &Handle::current())?;
    Ok(Arc::new(peers))
}

/// A leader that cannot hear must not stay one.
fn network_died(fault: &Mutex<Option<Fault>>, inbox: &Inbox, reason: String) {
    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Fault::Network(reason));
    inbox.close();
}

fn start_replica<F: Fs>(
    replica: Replica,
    inbox: &Arc<Inbox>,
    crashed: &Arc<AtomicBool>,
    mut host: LiveHost<F>,
) -> std::io::Result<JoinHandle<Result<(), Fault>>> {
    let (inbox, crashed) = (inbox.clone(), crashed.clone());
    std::thread::Builder::new().name("raftmap-replica".into()).spawn(move || {
        let _close = CloseOnDrop(inbox.clone());
        driver::run(replica, &inbox, &crashed, &mut host)
    })
}

struct Threads<F: Fs> {
    replica: JoinHandle<Result<(), Fault>>,
    writer: WriterHandle<F>,
    writer_threads: WriterThreads,
    jobs: JoinHandle<()>,
}

/// Ends the node's threads in order when the replica's ends, for whatever reason, and says so.
fn watch_over<F: Fs>(
    threads: Threads<F>,
    peers: Arc<Peers>,
    fault: Arc<Mutex<Option<Fault>>>,
) -> std::io::Result<watch::Receiver<bool>> {
    let (ended, receiver) = watch::channel(false);
    std::thread::Builder::new().name("raftmap-watch".into()).spawn(move || {
        let thread = |name: &str| Some(Fault::Thread(name.into()));
        let replica = threads.replica.join().map_or_else(|_| thread("the replica"), Result::err);
        threads.writer.stop();
        drop(threads.writer);
        let writer = threads.writer_threads.writer.join().unwrap_or_else(|_| thread("the log writer"));
        let chores =
            threads.writer_threads.chores.join().map_or_else(|_| thread("the log's chores"), |()| None);
        let jobs = threads.jobs.join().map_or_else(|_| thread("the snapshot writer"), |()| None);
        // The log's own word is the one that says what to do.
        if let Some(found) = writer.or(replica).or(chores).or(jobs) {
            tracing::error!(fault = %found, "the node has stopped by itself");
            fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
        }
        drop(peers);
        ended.send_replace(true);
    })?;
    Ok(receiver)
}

/// What the replica acts through in a running node.
struct LiveHost<F: Fs> {
    mouth: Mouth,
    writer: WriterHandle<F>,
    clients: Arc<Clients>,
    tasks: Sender<Task>,
    digests: Arc<AtomicUsize>,
    soft: watch::Sender<SoftState>,
}

impl<F: Fs> Host for LiveHost<F> {
    fn send(&mut self, outbound: Outbound) {
        self.mouth.send(&outbound);
    }

    fn submit(&mut self, number: BatchNumber, batch: Batch) {
        self.writer.submit(number, batch);
    }

    fn reply(&mut self, client: ClientId, response: Response) {
        self.clients.reply(client, response);
    }

    fn start(&mut self, job: Job) {
        let task = match job {
            Job::WriteSnapshot { image, membership } => Task::Write { image, membership },
            Job::SendSnapshot { peer, term, snapshot, membership } => {
                Task::Send(Sending { peer, term, snapshot, membership })
            }
            Job::Discard { map } => Task::Discard(map),
            Job::Digest { client, id, .. } if self.digests.load(Ordering::Relaxed) >= DIGESTS_MAX => {
                return self.reply(client, Response { id, body: Err(Refusal::Busy) });
            }
            Job::Digest { client, id, image } => {
                self.digests.fetch_add(1, Ordering::Relaxed);
                Task::Digest { client, id, image }
            }
        };
        // The thread ends with the node.
        let _stopping = self.tasks.send(task);
    }

    fn changed(&mut self, state: SoftState) {
        tracing::info!(term = %state.term, role = ?state.role, leader = ?state.leader, "role");
        self.soft.send_replace(state);
    }
}

/// Why a node did not start. Each variant is something else that its operator would do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting does not fit.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// There is no identity, or it cannot be used.
    #[error("identity: {}", fault::chain(.0))]
    Identity(#[from] IdentityError),
    /// The certificate is somebody else's.
    #[error("the certificate is {role}'s, not node {id}'s: use the one made for this node")]
    WrongCertificate {
        /// The node.
        id: u64,
        /// The certificate's role.
        role: String,
    },
    /// The directory is in use, damaged, somebody else's, or the disk refuses.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The log took nothing.
    #[error(transparent)]
    Store(#[from] raftmap_storage::StoreError),
    /// The recorded snapshot cannot be read into a map.
    #[error("the snapshot: {0}")]
    Snapshot(String),
    /// The log's first entry cannot be made or read.
    #[error("the log's first entry: {0}")]
    Bootstrap(String),
    /// The log was begun with other members or limits, which cannot change.
    #[error("this log was begun on other terms: it has [{ours}], the configuration says [{asked}]")]
    OtherTerms {
        /// The log's.
        ours: String,
        /// The configuration's.
        asked: String,
    },
    /// A file or thread could not be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The network could not be started.
    #[error("network: {}", fault::chain(.0))]
    Network(#[from] raftmap_net::StartError),
    /// The nodes of a local cluster did not find together.
    #[error("started, but not ready: {0}")]
    NotReady(String),
    /// What was read from the disk contradicts itself.
    #[error("{0}")]
    Core(String),
}

impl StartError {
    /// Whether the disk or the directory is the reason, so that the operator should look there and delete nothing.
    pub fn is_storage(&self) -> bool {
        match self {
            Self::Storage(_)
            | Self::Store(_)
            | Self::Snapshot(_)
            | Self::Bootstrap(_)
            | Self::OtherTerms { .. }
            | Self::Io { .. }
            | Self::Core(_) => true,
            Self::Config(_)
            | Self::Identity(_)
            | Self::WrongCertificate { .. }
            | Self::Network(_)
            | Self::NotReady(_) => false,
        }
    }
}
