//! Who is connected, and where each one's answers go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::replica::ClientId;
use crate::wire::client::Response;

/// Where a client's answers go. Never blocks.
pub trait ReplyTo: Send + Sync {
    /// Gives an answer; lost if the client has gone.
    fn reply(&self, response: Response);
}

/// The connected clients. Bounded by the connections that the network layer accepts.
#[derive(Default)]
pub struct Clients {
    next: AtomicU64,
    connected: RwLock<HashMap<ClientId, Arc<dyn ReplyTo>>>,
}

impl Clients {
    /// A client has connected.
    pub fn add(&self, reply_to: Arc<dyn ReplyTo>) -> ClientId {
        let id = ClientId(self.next.fetch_add(1, Ordering::Relaxed));
        self.connected.write().unwrap_or_else(PoisonError::into_inner).insert(id, reply_to);
        id
    }

    /// A client has gone.
    pub fn remove(&self, id: ClientId) {
        self.connected.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Answers a client, if it is still there.
    pub fn reply(&self, id: ClientId, response: Response) {
        let found = self.connected.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(reply_to) = found {
            reply_to.reply(response);
        }
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}
