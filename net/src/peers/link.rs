//! One peer: its queues, and the life of each connection to it from the hello to the end.
//!
//! | stream                          | opened by       | carries                                             |
//! |---------------------------------|-----------------|-----------------------------------------------------|
//! | the first, both ways            | who dials       | hello there, hello back, an empty hello, then urgent frames |
//! | one each way                    | each            | log frames                                          |
//! | one for each snapshot, both ways | who has it     | see `snapshot`                                      |
//!
//! The empty hello says that the answer was accepted too: before it, neither side takes the connection for one.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Class, Event, Shared, snapshot};
use crate::frame::{self, FIRST_USER_KIND, Frame, HELLO};
use crate::limits::Limits;
use crate::queue::SendQueue;
use crate::stream::{self, CloseCode, Credit, FrameReader, StreamError, write_frame, write_queue};
use crate::supervise::lock;

/// Largest hello in bytes.
pub(super) const HELLO_MAX: usize = 64 * 1024;
const URGENT_PRIORITY: i32 = 2;
const LOG_PRIORITY: i32 = 1;

/// Accepted connections on their way to the link's task; a peer that fills it is redialling faster than we can greet.
pub(super) type Inbox = mpsc::Receiver<Established>;
const INBOX_LEN: usize = 4;

/// One peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: u64,
    pub(super) addr: SocketAddr,
    urgent: SendQueue,
    log: SendQueue,
    current: Mutex<Option<Connection>>,
    pub(super) accepted: mpsc::Sender<Established>,
    pub(super) sending_snapshot: AtomicBool,
    trouble: Mutex<String>,
}

/// A connection on which both hellos were accepted.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) frames: FrameReader,
    pub(super) hello: bytes::Bytes,
}

/// Why a connection was not established.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    #[error("its hello is refused: {0}")]
    Refused(String),
    #[error("no hello within {0:?}")]
    Silent(Duration),
    #[error("the connection failed: {0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the first stream failed: {0}")]
    Stream(#[from] StreamError),
}

impl Link {
    pub(super) fn new(peer: u64, addr: SocketAddr, limits: &Limits) -> (Arc<Self>, Inbox) {
        let (accepted, inbox) = mpsc::channel(INBOX_LEN);
        let link = Link {
            peer,
            addr,
            urgent: SendQueue::new(limits.urgent_queue, limits.urgent_frame),
            log: SendQueue::new(limits.log_queue, limits.log_frame),
            current: Mutex::new(None),
            accepted,
            sending_snapshot: AtomicBool::new(false),
            trouble: Mutex::new(String::new()),
        };
        (Arc::new(link), inbox)
    }

    pub(super) fn queue(&self, class: Class) -> &SendQueue {
        match class {
            Class::Urgent => &self.urgent,
            Class::Log => &self.log,
        }
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        lock(&self.current).clone()
    }

    /// Logs what keeps the peer away, but the same thing only once in a row.
    pub(super) fn note_trouble(&self, trouble: String) {
        let mut last = lock(&self.trouble);
        if *last != trouble {
            tracing::warn!(peer = self.peer, addr = %self.addr, trouble, "no connection to peer");
            *last = trouble;
        }
    }

    fn open(&self, connection: &Connection) {
        self.urgent.open();
        self.log.open();
        *lock(&self.current) = Some(connection.clone());
        lock(&self.trouble).clear();
    }

    fn close(&self) {
        *lock(&self.current) = None;
        self.urgent.close();
        self.log.close();
    }
}

/// The dialling side of the hello: ours, theirs, and a last word that theirs was accepted.
pub(super) async fn greet_first(
    shared: &Shared,
    peer: u64,
    connection: Connection,
) -> Result<Established, GreetError> {
    let (mut send, recv) = connection.open_bi().await?;
    write_frame(&mut send, HELLO, shared.handler.hello(peer)).await?;
    let mut frames = FrameReader::new(recv, HELLO..=HELLO, HELLO_MAX);
    let Frame { payload: hello, .. } = frames.next().await?;
    check_hello(shared, peer, &hello, &connection)?;
    write_frame(&mut send, HELLO, bytes::Bytes::new()).await?;
    Ok(established(shared, connection, send, frames, hello))
}

/// The accepting side of the hello. Nothing is sent to a peer, and nothing is heard, before both have agreed.
pub(super) async fn greet_second(
    shared: &Shared,
    peer: u64,
    connection: Connection,
) -> Result<Established, GreetError> {
    let (mut send, recv) = connection.accept_bi().await?;
    let mut frames = FrameReader::new(recv, HELLO..=HELLO, HELLO_MAX);
    let Frame { payload: hello, .. } = frames.next().await?;
    check_hello(shared, peer, &hello, &connection)?;
    write_frame(&mut send, HELLO, shared.handler.hello(peer)).await?;
    frames.next().await?;
    Ok(established(shared, connection, send, frames, hello))
}

fn check_hello(shared: &Shared, peer: u64, hello: &[u8], connection: &Connection) -> Result<(), GreetError> {
    shared.handler.check_hello(peer, hello).map_err(|reason| {
        shared.counters.refused.add_one();
        stream::close(connection, CloseCode::Refused, &reason);
        GreetError::Refused(reason)
    })
}

fn established(
    shared: &Shared,
    connection: Connection,
    send: SendStream,
    mut frames: FrameReader,
    hello: bytes::Bytes,
) -> Established {
    frames.accept(FIRST_USER_KIND..=u8::MAX, shared.limits.urgent_frame);
    Established { connection, send, frames, hello }
}

/// Carries the accepted connections of one peer, one after the other, until the transport stops.
pub(super) async fn run_accepted(shared: Arc<Shared>, link: Arc<Link>, mut inbox: Inbox) {
    let mut next = None;
    while !shared.tasks.is_stopping() {
        let established = match next.take() {
            Some(established) => Some(established),
            None => tokio::select! {
                accepted = inbox.recv() => accepted,
                () = shared.tasks.stopping() => None,
            },
        };
        let Some(established) = established else { return };
        next = carry(&shared, &link, newest(established, &mut inbox), Some(&mut inbox)).await;
    }
}

/// Of several connections that wait, the one made last is the one that the peer believes in.
fn newest(mut established: Established, inbox: &mut Inbox) -> Established {
    while let Ok(newer) = inbox.try_recv() {
        stream::close(&established.connection, CloseCode::Replaced, "replaced by a newer connection");
        established = newer;
    }
    established
}

/// Carries one connection from its first frame to its end. Returns the newer one that replaced it, if one did.
pub(super) async fn carry(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    established: Established,
    inbox: Option<&mut Inbox>,
) -> Option<Established> {
    let Established { connection, send, frames, hello } = established;
    let peer = link.peer;
    shared.counters.peer_connections.add_one();
    tracing::info!(peer, addr = %connection.remote_address(), "peer connected");
    link.open(&connection);
    let _nothing_to_refuse = shared.handler.event(Event::Connected { peer, hello });

    let mut streams = spawn_streams(shared, link, &connection, send, frames);
    let newer = tokio::select! {
        _ = connection.closed() => None,
        error = first_error(&mut streams) => {
            end(shared, &connection, &error);
            None
        }
        newer = next_accepted(inbox) => Some(newer),
    };

    if newer.is_some() {
        shared.counters.peer_replaced.add_one();
        stream::close(&connection, CloseCode::Replaced, "replaced by a newer connection");
    }
    link.close();
    // Every reader is gone before the next connection speaks: no frame of an old connection comes after it.
    streams.shutdown().await;
    let reason = connection.close_reason().map(|error| stream::reason(&error)).unwrap_or_default();
    tracing::info!(peer, reason, "peer disconnected");
    let _nothing_to_refuse = shared.handler.event(Event::Disconnected { peer });
    newer
}

async fn next_accepted(inbox: Option<&mut Inbox>) -> Established {
    let accepted = match inbox {
        Some(inbox) => inbox.recv().await,
        None => None,
    };
    match accepted {
        Some(established) => established,
        // The dialling side has no inbox, and the link keeps a sender: nothing comes then.
        None => std::future::pending().await,
    }
}

/// A malformed frame is worth a warning; a stream that ended with its connection is not.
fn end(shared: &Shared, connection: &Connection, error: &StreamError) {
    match error {
        fault @ (StreamError::Frame(_) | StreamError::Content(_)) => {
            if shared.counters.malformed.add_one_worth_a_line() {
                tracing::warn!(addr = %connection.remote_address(), %fault, "malformed frame from peer");
            }
            stream::close(connection, CloseCode::Malformed, &fault.to_string());
        }
        StreamError::Slow(_)
        | StreamError::SlowHeader
        | StreamError::Ended
        | StreamError::Read(_)
        | StreamError::Write(_) => {
            stream::close(connection, CloseCode::Done, &error.to_string());
        }
    }
}

type Streams = JoinSet<Result<(), StreamError>>;

async fn first_error(streams: &mut Streams) -> StreamError {
    loop {
        match streams.join_next().await {
            Some(Ok(Err(error))) => return error,
            // Loops that only end with an error; a panic was reported and ends the transport.
            Some(Ok(Ok(())) | Err(_)) => {}
            None => return StreamError::Ended,
        }
    }
}

fn spawn_streams(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    connection: &Connection,
    send: SendStream,
    frames: FrameReader,
) -> Streams {
    let mut streams = Streams::new();
    let tasks = &shared.tasks;
    streams.spawn(tasks.guard("urgent writer", write(link.clone(), Class::Urgent, send)));
    streams.spawn(tasks.guard("urgent reader", read(shared.clone(), link.peer, Class::Urgent, frames)));
    streams.spawn(tasks.guard("log writer", open_log(link.clone(), connection.clone())));
    streams.spawn(tasks.guard("log reader", accept_log(shared.clone(), link.peer, connection.clone())));
    streams
        .spawn(tasks.guard("snapshot", snapshot::receive_all(shared.clone(), link.peer, connection.clone())));
    streams
}

async fn write(link: Arc<Link>, class: Class, mut send: SendStream) -> Result<(), StreamError> {
    let priority = match class {
        Class::Urgent => URGENT_PRIORITY,
        Class::Log => LOG_PRIORITY,
    };
    // It fails on a closed stream only, and then the first write says why.
    let _ = send.set_priority(priority);
    write_queue(&mut send, link.queue(class)).await
}

async fn open_log(link: Arc<Link>, connection: Connection) -> Result<(), StreamError> {
    let send = connection.open_uni().await.map_err(|_| StreamError::Ended)?;
    write(link, Class::Log, send).await
}

async fn accept_log(shared: Arc<Shared>, peer: u64, connection: Connection) -> Result<(), StreamError> {
    let recv: RecvStream = connection.accept_uni().await.map_err(|_| StreamError::Ended)?;
    let frames = FrameReader::new(recv, FIRST_USER_KIND..=u8::MAX, shared.limits.log_frame);
    read(shared, peer, Class::Log, frames).await
}

async fn read(
    shared: Arc<Shared>,
    peer: u64,
    class: Class,
    mut frames: FrameReader,
) -> Result<(), StreamError> {
    let room = match class {
        Class::Urgent => shared.limits.urgent_queue,
        Class::Log => shared.limits.log_queue,
    };
    let room = Arc::new(Semaphore::new(room));
    loop {
        let Frame { kind, payload } = frames.next().await?;
        let credit = Credit::take(&room, None, payload.len()).await;
        let event = Event::Frame { peer, class, kind, payload, credit };
        shared.handler.event(event).map_err(StreamError::Content)?;
    }
}

/// Time for a hello, after which the connection is given up.
pub(super) async fn within<T>(
    limit: Duration,
    connection: Connection,
    greeting: impl Future<Output = Result<T, GreetError>>,
) -> Result<T, GreetError> {
    let result = match tokio::time::timeout(limit, greeting).await {
        Ok(result) => result,
        Err(_) => Err(GreetError::Silent(limit)),
    };
    if let Err(error) = &result {
        // Closed already when the hello was refused; the first reason stays.
        stream::close(&connection, CloseCode::Refused, &error.to_string());
    }
    result
}

const _: () = assert!(frame::HEADER_LEN + HELLO_MAX <= 1024 * 1024, "a hello fits the first stream's window");
