//! A client's end of the wire: one UDP socket for all its connections, and one stream on each.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ClientConfig, Endpoint, SendStream};
use tokio::runtime::Handle;

use crate::frame::{Frame, HELLO, REPLY, REQUEST};
use crate::identity::{Identity, OutOfReach, SERVER_NAME};
use crate::limits::Limits;
use crate::queue::{Rejected, SendQueue};
use crate::server::HELLO_MAX;
use crate::stream::{self, CloseCode, FrameReader, StreamError, write_frame, write_queue};
use crate::supervise::{Tasks, lock};
use crate::tls::{self, Alpn, Refusal, TlsError};
use crate::{endpoint, is_loopback};

/// Takes what comes on one connection. Runs on a transport task: its calls must not block.
pub trait ReplyHandler: Send + 'static {
    /// A reply came. `payload` is a slice of a larger buffer: copy what is to be kept for long.
    fn reply(&mut self, payload: Bytes);

    /// The connection is gone, and with it whatever was under way; nothing follows. Called exactly once.
    fn closed(&mut self, reason: String);
}

/// Why a node was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer in time. Try another node, or again.
    #[error("no answer from {addr} within {timeout:?}")]
    Timeout {
        /// Who was asked.
        addr: SocketAddr,
        /// How long.
        timeout: Duration,
    },
    /// It answered and said no, or broke off; for a certificate that one side does not trust, here are the words.
    #[error("{addr} refused: {reason}")]
    Refused {
        /// Who was asked.
        addr: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// Who answers is not who should: not a node of this client's cluster. Check addresses and identity.
    #[error("{addr} is not one of ours: {refusal}")]
    Stranger {
        /// Who was asked.
        addr: SocketAddr,
        /// What does not fit.
        refusal: Refusal,
    },
    /// The identity is not to be used there.
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
    /// No socket could be opened.
    #[error("cannot open a socket towards {addr}")]
    Socket {
        /// Who was to be asked.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The transport panicked and takes no more connections. Make a new [`ClientEndpoint`].
    #[error("the client's transport is dead")]
    Dead,
}

/// Why a request or reply was not queued. It was not sent, in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is gone. Connect again.
    #[error("connection is closed")]
    Closed,
    /// Too much waits to be sent, or it exceeds the largest frame. Send less, or later.
    #[error("too many bytes wait to be sent")]
    Busy,
}

impl From<Rejected> for SendError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Closed => Self::Closed,
            Rejected::Full => Self::Busy,
        }
    }
}

/// One process's way to the nodes. Cheap to clone; the last clone dropped closes all its connections.
#[derive(Clone, Debug)]
pub struct ClientEndpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Identity,
    limits: Limits,
    local: ClientConfig,
    remote: ClientConfig,
    tasks: Tasks,
    dead: Arc<AtomicBool>,
    /// One socket for each family, made at first need.
    v4: Mutex<Option<Endpoint>>,
    v6: Mutex<Option<Endpoint>>,
}

impl ClientEndpoint {
    /// An endpoint that shows `identity`: a client's, or a node's that acts as one. Sockets are opened when needed.
    /// `runtime` has I/O and time enabled.
    ///
    /// # Errors
    /// [`TlsError`] when the identity's parts do not fit together.
    pub fn new(identity: Identity, limits: Limits, runtime: &Handle) -> Result<Self, TlsError> {
        let dead = Arc::new(AtomicBool::new(false));
        let on_dead = {
            let dead = dead.clone();
            Box::new(move |_| dead.store(true, Ordering::SeqCst))
        };
        Ok(ClientEndpoint(Arc::new(Inner {
            local: tls::client_config(&identity, Alpn::Client, &limits, true)?,
            remote: tls::client_config(&identity, Alpn::Client, &limits, false)?,
            identity,
            limits,
            tasks: Tasks::new(runtime.clone(), on_dead),
            dead,
            v4: Mutex::new(None),
            v6: Mutex::new(None),
        })))
    }

    /// Connects to the node at `addr`, says `hello` (at most 16 KiB) and waits for its answer, all within `timeout`.
    /// From then on `handler` gets the replies. `handler` hears nothing when this fails. Needs no particular executor
    /// around it.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect<H: ReplyHandler>(
        &self,
        addr: SocketAddr,
        hello: Bytes,
        handler: H,
        timeout: Duration,
    ) -> Result<ClientConnection, ConnectError> {
        let this = self.clone();
        let connecting = async move {
            let greeted = tokio::time::timeout(timeout, this.greet(addr, hello)).await;
            let greeted = greeted.map_err(|_| ConnectError::Timeout { addr, timeout })??;
            Ok(this.0.carry(greeted, Box::new(handler)))
        };
        let tasks = &self.0.tasks;
        // An error of the task itself is a panic or a runtime that is gone.
        tasks.handle().spawn(tasks.guard("connect", connecting)).await.unwrap_or(Err(ConnectError::Dead))
    }

    async fn greet(&self, addr: SocketAddr, hello: Bytes) -> Result<Greeted, ConnectError> {
        let refused = |reason: String| ConnectError::Refused { addr, reason };
        self.0.identity.check_reach(addr)?;
        let endpoint = self.0.endpoint(addr)?;
        let config = if is_loopback(addr) { &self.0.local } else { &self.0.remote };
        let connecting = endpoint.connect_with(config.clone(), addr, SERVER_NAME);
        let connection = connecting.map_err(|error| refused(error.to_string()))?;
        let connection = connection.await.map_err(|error| refused(stream::reason(&error)))?;
        // Closes the connection on every way out but the last: a greeting given up is no connection.
        let guard = CloseUnlessKept(Some(connection.clone()));
        let node = tls::admit(&connection, &self.0.identity)
            .and_then(|(_, certified)| tls::require_node(&certified, None))
            .map_err(|refusal| ConnectError::Stranger { addr, refusal })?;
        let lost = |error: StreamError| match connection.close_reason() {
            Some(reason) => refused(stream::reason(&reason)),
            None => refused(error.to_string()),
        };
        let (mut send, recv) = connection.open_bi().await.map_err(|error| refused(stream::reason(&error)))?;
        write_frame(&mut send, HELLO, hello).await.map_err(lost)?;
        let mut frames = FrameReader::new(recv, HELLO..=HELLO, HELLO_MAX);
        let Frame { payload: answer, .. } = frames.next().await.map_err(lost)?;
        frames.accept(REPLY..=REPLY, self.0.limits.reply_frame);
        guard.keep();
        Ok(Greeted { connection, send, frames, node, answer })
    }
}

struct Greeted {
    connection: quinn::Connection,
    send: SendStream,
    frames: FrameReader,
    node: u64,
    answer: Bytes,
}

struct CloseUnlessKept(Option<quinn::Connection>);

impl CloseUnlessKept {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseUnlessKept {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            stream::close(connection, CloseCode::Done, "given up");
        }
    }
}

impl Inner {
    fn endpoint(&self, addr: SocketAddr) -> Result<Endpoint, ConnectError> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(ConnectError::Dead);
        }
        let (slot, any) = match addr {
            SocketAddr::V4(_) => (&self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut slot = lock(slot);
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let opened = endpoint::open(any, &self.identity, None, &self.limits, &self.tasks)
            .map_err(|source| ConnectError::Socket { addr, source })?;
        Ok(slot.insert(opened).clone())
    }

    fn carry(&self, greeted: Greeted, handler: Box<dyn ReplyHandler>) -> ClientConnection {
        let Greeted { connection, mut send, mut frames, node, answer } = greeted;
        let queue = Arc::new(SendQueue::new(self.limits.request_queue, self.limits.request_frame));
        queue.open();
        let writer = {
            let queue = queue.clone();
            async move {
                // The reader hears of the connection's end and says so; here it only ends the writing.
                let _ = write_queue(&mut send, &queue).await;
            }
        };
        let writer = self.tasks.handle().spawn(self.tasks.guard("request writer", writer));
        let mut handler = ClosedOnce { handler, connection: connection.clone(), queue: queue.clone() };
        self.tasks.spawn("reply reader", async move {
            let closed = handler.connection.clone();
            tokio::select! {
                error = read(&mut frames, handler.handler.as_mut()) => handler.end(&error),
                _ = closed.closed() => {}
            }
            writer.abort();
        });
        ClientConnection(Arc::new(Open { connection, queue, node, answer }))
    }
}

async fn read(frames: &mut FrameReader, handler: &mut dyn ReplyHandler) -> StreamError {
    loop {
        match frames.next().await {
            Ok(Frame { payload, .. }) => handler.reply(payload),
            Err(error) => return error,
        }
    }
}

/// Says that the connection is gone, whichever way its task ends.
struct ClosedOnce {
    handler: Box<dyn ReplyHandler>,
    connection: quinn::Connection,
    queue: Arc<SendQueue>,
}

impl ClosedOnce {
    fn end(&self, error: &StreamError) {
        let code = match error {
            StreamError::Frame(_) | StreamError::Content(_) => CloseCode::Malformed,
            StreamError::Slow(_)
            | StreamError::SlowHeader
            | StreamError::Ended
            | StreamError::Read(_)
            | StreamError::Write(_) => CloseCode::Done,
        };
        stream::close(&self.connection, code, &error.to_string());
    }
}

impl Drop for ClosedOnce {
    fn drop(&mut self) {
        self.queue.close();
        stream::close(&self.connection, CloseCode::Done, "done");
        let reason = self.connection.close_reason().map(|error| stream::reason(&error)).unwrap_or_default();
        self.handler.closed(reason);
    }
}

/// A connection to one node. Cheap to clone; the last clone dropped closes it.
#[derive(Clone, Debug)]
pub struct ClientConnection(Arc<Open>);

#[derive(Debug)]
struct Open {
    connection: quinn::Connection,
    queue: Arc<SendQueue>,
    node: u64,
    answer: Bytes,
}

impl ClientConnection {
    /// Queues one request; its payload is `parts`, one behind the other. Never blocks, may be called from any thread.
    /// A queued request may still be lost with its connection.
    ///
    /// # Errors
    /// [`SendError`]; the request was not sent then.
    pub fn send(&self, parts: &[Bytes]) -> Result<(), SendError> {
        Ok(self.0.queue.push(REQUEST, parts)?)
    }

    /// Which node this leads to, by its certificate.
    pub fn node(&self) -> u64 {
        self.0.node
    }

    /// What the node answered to the hello.
    pub fn hello(&self) -> &Bytes {
        &self.0.answer
    }

    /// Whether the connection still stands, as far as this side knows.
    pub fn is_open(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }

    /// Closes the connection now; its handler hears of it.
    pub fn close(&self) {
        stream::close(&self.0.connection, CloseCode::Done, "done");
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        stream::close(&self.connection, CloseCode::Done, "done");
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for slot in [&self.v4, &self.v6] {
            if let Some(endpoint) = &*lock(slot) {
                endpoint.close(quinn::VarInt::from_u32(CloseCode::Done as u32), b"done");
            }
        }
    }
}
