//! A node's end of its clients' connections: one stream each, with many requests and replies on it at a time.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::SendError;
use crate::frame::{Frame, HELLO, REPLY, REQUEST};
use crate::identity::Certified;
use crate::peers::Shared;
use crate::queue::{Rejected, SendQueue};
use crate::stats::Counters;
use crate::stream::{self, CloseCode, Credit, FrameReader, Pace, StreamError, write_frame, write_queue};
use crate::tls;

/// Largest hello of a client, and of its answer, in bytes.
pub(crate) const HELLO_MAX: usize = 16 * 1024;

/// Requests up to this take up no room while they come: a connection's window bounds them.
const SMALL_REQUEST: usize = 64 * 1024;

/// The node behind the wire, as its clients meet it.
pub trait ClientService: Send + Sync + 'static {
    /// Takes a new client in, whose certificate was checked. `hello` is what it said first, at most 16 KiB. Must not
    /// block. Returns what is answered to the hello (at most 16 KiB) and who takes this connection's requests.
    ///
    /// # Errors
    /// Why it may not come in, in words for the client.
    fn connected(
        &self,
        client: Certified,
        hello: Bytes,
        replies: ReplySender,
    ) -> Result<(Bytes, Box<dyn ClientSession>), String>;
}

/// Takes the requests of one client connection, in the order in which they came. Dropped when the connection ends.
pub trait ClientSession: Send {
    /// Takes one request. Runs on a transport task: must not block, and a panic in it ends the transport. `payload`
    /// is a slice of a larger buffer; `credit` is the room it takes up, to be dropped when the request is done with.
    fn request(&mut self, payload: Bytes, credit: Credit);
}

/// Sends replies to one client, in any order and from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReplySender(Arc<Replies>);

#[derive(Debug)]
struct Replies {
    queue: SendQueue,
    connection: Connection,
    shared: std::sync::Weak<Shared>,
}

impl ReplySender {
    /// Queues one reply; its payload is `parts`, one behind the other. Never blocks. Returns whether it was queued: it
    /// may still be lost with the connection.
    ///
    /// A client that lets its replies pile up beyond the limit is disconnected: it must ask again elsewhere or later.
    pub fn send(&self, parts: &[Bytes]) -> bool {
        match self.0.queue.push(REPLY, parts) {
            Ok(()) => true,
            Err(Rejected::Closed) => false,
            Err(Rejected::Full) => {
                self.0.queue.close();
                if self
                    .0
                    .shared
                    .upgrade()
                    .is_some_and(|shared| shared.counters.slow_readers.add_one_worth_a_line())
                {
                    let addr = self.0.connection.remote_address();
                    tracing::info!(%addr, "client reads its replies too slowly");
                }
                stream::close(&self.0.connection, CloseCode::SlowReader, "replies are read too slowly");
                false
            }
        }
    }

    /// Queues one reply that may also be withheld, such as a large one that can be asked for again: it leaves a
    /// quarter of the queue to those that [`send`](Self::send) brings. Never blocks; closes nothing.
    ///
    /// # Errors
    /// [`SendError::Busy`] where it does not fit at the moment, [`SendError::Closed`] where the connection is gone.
    pub fn try_send(&self, parts: &[Bytes]) -> Result<(), SendError> {
        Ok(self.0.queue.push_leaving(self.0.queue.limit() / 4, REPLY, parts)?)
    }

    /// Whether the connection still stands.
    pub fn is_open(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }
}

/// A client whose hello was accepted and answered.
pub(crate) struct Greeted {
    connection: Connection,
    send: SendStream,
    frames: FrameReader,
    session: Box<dyn ClientSession>,
    replies: ReplySender,
    _slot: OwnedSemaphorePermit,
}

/// Takes a client in, or closes its connection with the reason.
pub(crate) async fn greet(
    shared: &Arc<Shared>,
    connection: Connection,
    client: Certified,
) -> Option<Greeted> {
    let Ok(slot) = shared.client_slots.clone().try_acquire_owned() else {
        shared.counters.clients_turned_away.add_one();
        stream::close(&connection, CloseCode::Refused, "too many clients; try another node");
        return None;
    };
    let exchange = exchange_hello(shared, &connection, client, slot);
    let refused = match tokio::time::timeout(shared.limits.handshake, exchange).await {
        Ok(Ok(greeted)) => {
            shared.counters.client_connections.add_one();
            return Some(greeted);
        }
        Ok(Err(reason)) => reason,
        Err(_) => "no hello in time".into(),
    };
    shared.counters.refused.add_one();
    tracing::debug!(addr = %connection.remote_address(), reason = refused, "client refused");
    stream::close(&connection, CloseCode::Refused, &refused);
    None
}

async fn exchange_hello(
    shared: &Arc<Shared>,
    connection: &Connection,
    client: Certified,
    slot: OwnedSemaphorePermit,
) -> Result<Greeted, String> {
    let (mut send, recv) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    let mut frames = FrameReader::new(recv, HELLO..=HELLO, HELLO_MAX);
    let Frame { payload: hello, .. } = frames.next().await.map_err(|error| error.to_string())?;
    let queue = SendQueue::new(shared.limits.reply_queue, shared.limits.reply_frame);
    let replies = ReplySender(Arc::new(Replies {
        queue,
        connection: connection.clone(),
        shared: Arc::downgrade(shared),
    }));
    // Open before the service knows of it: what it sends at once is not lost, but leaves behind the hello.
    replies.0.queue.open();
    let (answer, session) = shared.clients.connected(client, hello, replies.clone())?;
    write_frame(&mut send, HELLO, answer).await.map_err(|error| error.to_string())?;
    frames.accept(REQUEST..=REQUEST, shared.limits.request_frame);
    Ok(Greeted { connection: connection.clone(), send, frames, session, replies, _slot: slot })
}

/// Carries requests and replies until the connection ends.
pub(crate) async fn serve(shared: &Arc<Shared>, greeted: Greeted) {
    let Greeted { connection, mut send, mut frames, mut session, replies, _slot } = greeted;
    // Writer and reader are tasks of their own, so that a burst of one does not keep the other waiting.
    let writer = tokio::spawn(shared.tasks.guard("reply writer", {
        let replies = replies.clone();
        async move { write_queue(&mut send, &replies.0.queue).await }
    }));
    let error = tokio::select! {
        error = read(shared, &connection, &mut frames, session.as_mut()) => error,
        _ = connection.closed() => StreamError::Ended,
    };
    end(&shared.counters, &connection, &error);
    replies.0.queue.close();
    writer.abort();
}

async fn read(
    shared: &Shared,
    connection: &Connection,
    frames: &mut FrameReader,
    session: &mut dyn ClientSession,
) -> StreamError {
    let room = Arc::new(Semaphore::new(shared.limits.request_credit));
    let limits = &shared.limits;
    let pace =
        Pace { patience: limits.request_patience, bytes_a_second: limits.request_pace, small: SMALL_REQUEST };
    loop {
        let widen = |length| tls::widen_for_request(connection, length);
        match frames.next_at(pace, &shared.large_requests, widen).await {
            Ok(Frame { payload, .. }) => {
                let credit = Credit::take(&room, Some(&shared.requests_credit), payload.len()).await;
                session.request(payload, credit);
            }
            Err(error) => return error,
        }
    }
}

fn end(counters: &Counters, connection: &Connection, error: &StreamError) {
    match error {
        fault @ (StreamError::Frame(_) | StreamError::Content(_)) => {
            if counters.malformed.add_one_worth_a_line() {
                tracing::warn!(addr = %connection.remote_address(), %fault, "malformed frame from client");
            }
            stream::close(connection, CloseCode::Malformed, &fault.to_string());
        }
        StreamError::Slow(_) | StreamError::SlowHeader => {
            if counters.slow_senders.add_one_worth_a_line() {
                tracing::info!(addr = %connection.remote_address(), %error, "client sends too slowly");
            }
            stream::close(connection, CloseCode::SlowSender, &error.to_string());
        }
        StreamError::Ended | StreamError::Read(_) | StreamError::Write(_) => {
            stream::close(connection, CloseCode::Done, &error.to_string());
        }
    }
}
