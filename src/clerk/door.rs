//! How a clerk reaches a server: over QUIC, or straight into a node of the same process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftmap_net::{ClientConnection, ClientEndpoint, ReplyHandler, SendError};

use super::LinkEvents;
use crate::wire::client::{ClientHello, Request, ServerHello, decode_response, encode_request};

/// A server that has not answered a handshake by then is left alone for a while.
const HANDSHAKE: Duration = Duration::from_millis(500);

/// What became of a request that was handed to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// It is on its way, and may be lost with the connection.
    Sent,
    /// It was not sent: too much waits to leave. Later there is room again.
    Busy,
    /// It was not sent: the connection, or the node, is gone.
    Gone,
}

/// A node in this process.
pub(crate) trait Door: Send + Sync {
    /// Hands a request over.
    fn send(&self, request: Request) -> Handed;
}

/// A connection that stands.
#[derive(Clone)]
pub(crate) enum Link {
    Local(Arc<dyn Door>),
    Remote(Arc<ClientConnection>),
}

impl Link {
    /// Sends a request.
    pub(crate) fn send(&self, request: Request) -> Handed {
        match self {
            Self::Local(door) => door.send(request),
            Self::Remote(connection) => send_remote(connection, &request),
        }
    }
}

fn send_remote(connection: &ClientConnection, request: &Request) -> Handed {
    let bytes = match encode_request(request) {
        Ok(bytes) => bytes,
        Err(error) => {
            // Calls are checked before they are sent. Should one slip through, the connection is not to blame.
            tracing::warn!(%error, "a request cannot be sent");
            return Handed::Busy;
        }
    };
    match connection.send(&[bytes]) {
        Ok(()) => Handed::Sent,
        Err(SendError::Busy) => Handed::Busy,
        Err(SendError::Closed) => Handed::Gone,
    }
}

/// Opens connections, all under one certificate.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    endpoint: ClientEndpoint,
}

impl Doors {
    pub(crate) fn new(endpoint: ClientEndpoint) -> Self {
        Self { endpoint }
    }

    /// Connects to `address`. What comes on the connection goes to `events`.
    pub(crate) async fn connect(&self, address: SocketAddr, events: LinkEvents) -> Result<Link, String> {
        let hello = ClientHello::OURS.encode().map_err(|error| error.to_string())?;
        let handler = Replies { events };
        let connection = self
            .endpoint
            .connect(address, hello, handler, HANDSHAKE)
            .await
            .map_err(|error| crate::error::chain(&error))?;
        ServerHello::decode(connection.hello()).map_err(|error| error.to_string())?;
        Ok(Link::Remote(Arc::new(connection)))
    }
}

struct Replies {
    events: LinkEvents,
}

impl ReplyHandler for Replies {
    fn reply(&mut self, payload: Bytes) {
        match decode_response(&payload) {
            Ok(response) => self.events.response(response),
            Err(error) => tracing::warn!(%error, "an answer was not understood"),
        }
    }

    fn closed(&mut self, reason: String) {
        tracing::debug!(reason, "connection closed");
        self.events.closed();
    }
}
