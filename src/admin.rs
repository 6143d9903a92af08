//! Looking at one server, whoever leads: its status, and the digest of its map.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use raftmap_net::ReplyHandler;
use tokio::sync::oneshot;

use crate::clerk::ConnectOptions;
use crate::error::{Error, Result};
use crate::wire::client::{Answer, Ask, ClientHello, NodeStatus, Request, decode_response, encode_request};

/// How the node at `server` is.
///
/// # Errors
/// It did not answer within `timeout`, or there is no identity to show it.
pub async fn status(server: SocketAddr, options: &ConnectOptions, timeout: Duration) -> Result<NodeStatus> {
    match ask(server, options, timeout, Ask::Status).await? {
        Answer::Status(status) => Ok(*status),
        other => Err(Error::Protocol(format!("a status was asked for: {other:?}"))),
    }
}

/// The applied index of the node at `server`, and the BLAKE3 of its map and sessions there: equal on all nodes that
/// have applied the same entries.
///
/// # Errors
/// As [`status`].
pub async fn digest(
    server: SocketAddr,
    options: &ConnectOptions,
    timeout: Duration,
) -> Result<(u64, [u8; 32])> {
    match ask(server, options, timeout, Ask::Digest).await? {
        Answer::Digest { applied, digest } => Ok((applied.0, digest)),
        other => Err(Error::Protocol(format!("a digest was asked for: {other:?}"))),
    }
}

async fn ask(server: SocketAddr, options: &ConnectOptions, timeout: Duration, body: Ask) -> Result<Answer> {
    let endpoint = options.endpoint(&[server])?;
    let conversation = async {
        let (sender, receiver) = oneshot::channel();
        let hello = ClientHello::OURS.encode().map_err(protocol)?;
        let handler = One { answer: Some(sender) };
        let connection = endpoint
            .connect(server, hello, handler, timeout)
            .await
            .map_err(|error| Error::Unreachable { server, why: crate::error::chain(&error) })?;
        let request = encode_request(&Request { id: 1, body }).map_err(protocol)?;
        connection.send(&[request]).map_err(protocol)?;
        let payload = receiver.await.map_err(|_| Error::Unreachable { server, why: "it hung up".into() })?;
        decode_response(&payload).map_err(protocol)?.body.map_err(Error::from)
    };
    tokio::time::timeout(timeout, conversation).await.unwrap_or(Err(Error::NoAnswer { deadline: timeout }))
}

fn protocol(error: impl std::fmt::Display) -> Error {
    Error::Protocol(error.to_string())
}

/// Waits for one answer.
struct One {
    answer: Option<oneshot::Sender<Bytes>>,
}

impl ReplyHandler for One {
    fn reply(&mut self, payload: Bytes) {
        if let Some(answer) = self.answer.take() {
            let _gone = answer.send(payload);
        }
    }

    fn closed(&mut self, _reason: String) {
        self.answer = None;
    }
}
