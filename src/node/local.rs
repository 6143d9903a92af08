//! The short cut from a clerk to the node of its own process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::clients::{Clients, ReplyTo};
use super::inbox::Inbox;
use super::replica::ClientId;
use super::serve;
use crate::clerk::LinkEvents;
use crate::clerk::door::{Door, Handed};
use crate::error::{Error, Result};
use crate::kv::Owner;
use crate::wire::client::{Answer, Ask, Refusal, Request, Response};

/// Ways into the node.
#[derive(Clone, Debug)]
pub(super) struct LocalDoor {
    inbox: Arc<Inbox>,
    clients: Arc<Clients>,
    owner: Owner,
    own: Arc<Asked>,
    own_client: ClientId,
}

/// Questions of the node's own handle that wait for an answer.
#[derive(Debug, Default)]
struct Asked {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Response>>>,
}

impl ReplyTo for Asked {
    fn reply(&self, response: Response) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&response.id);
        if let Some(waiting) = waiting {
            let _gone = waiting.send(response);
        }
    }
}

impl LocalDoor {
    pub(super) fn new(inbox: Arc<Inbox>, clients: Arc<Clients>, owner: Owner) -> Self {
        let own = Arc::new(Asked::default());
        let own_client = clients.add(own.clone());
        Self { inbox, clients, owner, own, own_client }
    }

    /// Asks the node itself.
    pub(super) async fn ask(&self, body: Ask) -> Result<Answer> {
        let id = self.own.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.own.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let request = Request { id, body };
        if let Err(refused) = serve::submit(&self.inbox, self.own_client, self.owner, request, 0) {
            self.own.reply(refused);
        }
        let response = receiver.await.map_err(|_| Error::Stopped)?;
        response.body.map_err(Error::from)
    }

    /// A clerk's connection.
    pub(super) fn link(&self, events: LinkEvents) -> Arc<dyn Door> {
        let replies = Arc::new(ToClerk { events });
        let client = self.clients.add(replies.clone());
        let (inbox, clients, owner) = (self.inbox.clone(), self.clients.clone(), self.owner);
        Arc::new(ClerkDoor { inbox, clients, owner, client, replies })
    }
}

struct ToClerk {
    events: LinkEvents,
}

impl ReplyTo for ToClerk {
    fn reply(&self, response: Response) {
        self.events.response(response);
    }
}

struct ClerkDoor {
    inbox: Arc<Inbox>,
    clients: Arc<Clients>,
    owner: Owner,
    client: ClientId,
    replies: Arc<ToClerk>,
}

impl Door for ClerkDoor {
    fn send(&self, request: Request) -> Handed {
        let length = request.approximate_len();
        match serve::submit(&self.inbox, self.client, self.owner, request, length) {
            Ok(()) => Handed::Sent,
            Err(Response { body: Err(Refusal::Stopping), .. }) => Handed::Gone,
            Err(response) => {
                self.replies.reply(response);
                Handed::Sent
            }
        }
    }
}

impl Drop for ClerkDoor {
    fn drop(&mut self) {
        self.clients.remove(self.client);
    }
}
