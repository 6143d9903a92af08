//! How a clerk reaches a server: over QUIC, or straight into a node of the same process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftmap_net::{ClientConnection, ClientEndpoint, ReplyHandler};

use super::LinkEvents;
use crate::wire::client::{ClientHello, Request, ServerHello, decode_response, encode_request};

/// A server that has not answered a handshake by then is left alone for a while.
const HANDSHAKE: Duration = Duration::from_millis(500);

/// A node in this process.
pub(crate) trait Door: Send + Sync {
    /// Hands a request over; `false` when the node is gone.
    fn send(&self, request: Request) -> bool;
}

/// A connection that stands.
#[derive(Clone)]
pub(crate) enum Link {
    Local(Arc<dyn Door>),
    Remote(Arc<ClientConnection>),
}

impl Link {
    /// Sends a request; `false` when the connection is gone or takes no more.
    pub(crate) fn send(&self, request: Request) -> bool {
        match self {
            Self::Local(door) => door.send(request),
            Self::Remote(connection) => {
                encode_request(&request).is_ok_and(|bytes| connection.send(&[bytes]).is_ok())
            }
        }
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
