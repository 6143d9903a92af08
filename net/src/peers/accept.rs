//! Whoever knocks: handshakes bounded in number and time, then each to where its protocol belongs.

use std::sync::Arc;

use quinn::{Connection, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::link::{self, GreetError};
use crate::identity::Certified;
use crate::server;
use crate::stream::{self, CloseCode, StreamError};
use crate::tls::{self, Alpn};

/// Accepts until the transport stops. An endpoint that ends before that is dead.
pub(super) async fn run(shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(shared.limits.handshakes));
    while let Some(incoming) = shared.endpoint.accept().await {
        let Some((incoming, slot)) = admit_handshake(&shared, &slots, incoming) else { continue };
        shared.tasks.spawn("handshake", handshake(shared.clone(), incoming, slot));
    }
    if !shared.tasks.is_stopping() {
        shared.tasks.report("the transport's socket is dead".into());
    }
}

/// Under load an address must first prove that it can hear us; at the bound nobody is let in.
fn admit_handshake(
    shared: &Shared,
    slots: &Arc<Semaphore>,
    incoming: Incoming,
) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let Ok(slot) = slots.clone().try_acquire_owned() else {
        shared.counters.handshakes_turned_away.add_one();
        incoming.ignore();
        return None;
    };
    let loaded = slots.available_permits() < shared.limits.handshakes * 3 / 4;
    if loaded && !incoming.remote_address_validated() && incoming.may_retry() {
        // It says no only when a retry is not allowed, which was just asked.
        let _ = incoming.retry();
        return None;
    }
    Some((incoming, slot))
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming, slot: OwnedSemaphorePermit) {
    let addr = incoming.remote_address();
    // Its first packet alone may be one that no client sends.
    let shaken = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(shared.limits.handshake, shaken).await {
        Ok(Ok(connection)) => connection,
        // Anybody may knock: no more than a trace of those who cannot come in.
        Ok(Err(error)) => {
            shared.counters.refused.add_one();
            return tracing::debug!(%addr, %error, "handshake failed");
        }
        Err(_) => {
            shared.counters.refused.add_one();
            return tracing::debug!(%addr, "handshake took too long");
        }
    };
    match tls::admit(&connection, &shared.identity) {
        Ok((Alpn::Peer, certified)) => welcome_peer(&shared, connection, &certified).await,
        Ok((Alpn::Client, certified)) => {
            let greeted = server::greet(&shared, connection, certified).await;
            drop(slot);
            if let Some(greeted) = greeted {
                server::serve(&shared, greeted).await;
            }
        }
        Err(refusal) => refuse(&shared, &connection, &refusal.to_string()),
    }
}

/// A node that may dial us: a known one, with a smaller id than ours.
async fn welcome_peer(shared: &Arc<Shared>, connection: Connection, certified: &Certified) {
    let node = match tls::require_node(certified, None) {
        Ok(node) => node,
        Err(refusal) => return refuse(shared, &connection, &refusal.to_string()),
    };
    if node >= shared.node {
        return refuse(shared, &connection, &format!("node {node} must not dial node {}", shared.node));
    }
    let Some(link) = shared.links.get(&node) else {
        return refuse(shared, &connection, &format!("node {node} is no peer of node {}", shared.node));
    };
    tls::widen_for_peer(&connection);
    let greeting = link::greet_second(shared, node, connection.clone());
    match link::within(shared.limits.handshake, connection.clone(), greeting).await {
        Ok(established) => {
            if link.accepted.try_send(established).is_err() {
                stream::close(&connection, CloseCode::Refused, "too many connections at once");
            }
        }
        Err(error) => {
            count(shared, &error);
            link.note_trouble(error.to_string());
        }
    }
}

/// What a hello said that was refused is counted where it was looked at.
fn count(shared: &Shared, error: &GreetError) {
    match error {
        GreetError::Silent(_) => shared.counters.refused.add_one(),
        GreetError::Stream(StreamError::Frame(_)) => shared.counters.malformed.add_one(),
        GreetError::Refused(_) | GreetError::Connection(_) | GreetError::Stream(_) => {}
    }
}

fn refuse(shared: &Shared, connection: &Connection, reason: &str) {
    shared.counters.refused.add_one();
    tracing::debug!(addr = %connection.remote_address(), reason, "connection refused");
    stream::close(connection, CloseCode::Refused, reason);
}
