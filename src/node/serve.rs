//! The clients' side of the network: requests in, answers out, each client under the identity of its certificate.

use std::sync::Arc;

use bytes::Bytes;
use raftmap_net::{Certified, ClientService, ClientSession, Credit, Name, ReplySender, SendError};

use super::clients::{Clients, ReplyTo};
use super::inbox::{Inbox, Lane, Refused};
use super::replica::{ClientId, Input};
use crate::kv::Owner;
use crate::wire::client::{
    Answer, ClientHello, Refusal, Request, Response, ServerHello, decode_request, encode_response,
};

/// Whose sessions a certificate may use: its cluster and role, so that a renewed certificate keeps them.
pub fn owner(name: &Name) -> Owner {
    let digest = blake3::hash(name.to_string().as_bytes());
    let mut owner = Owner::default();
    owner.0.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    owner
}

/// Takes clients in.
pub struct Service {
    /// Where requests go.
    pub inbox: Arc<Inbox>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// What this node says first.
    pub hello: ServerHello,
}

impl ClientService for Service {
    fn connected(
        &self,
        client: Certified,
        hello: Bytes,
        replies: ReplySender,
    ) -> Result<(Bytes, Box<dyn ClientSession>), String> {
        ClientHello::decode(&hello).map_err(|error| error.to_string())?.check()?;
        let answer = self.hello.encode().map_err(|error| error.to_string())?;
        let replies = Arc::new(Remote { replies });
        let session = Session {
            client: self.clients.add(replies.clone()),
            owner: owner(&client.name),
            replies,
            inbox: self.inbox.clone(),
            clients: self.clients.clone(),
        };
        Ok((answer, Box::new(session)))
    }
}

struct Remote {
    replies: ReplySender,
}

impl ReplyTo for Remote {
    fn reply(&self, response: Response) {
        let id = response.id;
        let bytes = encode_response(&response).or_else(|error| {
            let body = Err(Refusal::TooLarge { what: error.to_string() });
            encode_response(&Response { id, body })
        });
        let Ok(bytes) = bytes else { return };
        if !may_be_asked_again(&response) {
            self.replies.send(&[bytes]);
        } else if self.replies.try_send(&[bytes]) == Err(SendError::Busy) {
            // One who asked for much at once is no slow reader: what does not fit is asked for again.
            if let Ok(busy) = encode_response(&Response { id, body: Err(Refusal::Busy) }) {
                self.replies.send(&[busy]);
            }
        }
    }
}

/// Whether this answers a read: the only answers that are large, and that can be given another time.
fn may_be_asked_again(response: &Response) -> bool {
    match &response.body {
        Ok(Answer::Got { .. } | Answer::Page { .. } | Answer::Len { .. }) => true,
        Ok(
            Answer::Opened { .. }
            | Answer::Closed
            | Answer::Written { .. }
            | Answer::Status(_)
            | Answer::Digest { .. },
        )
        | Err(_) => false,
    }
}

/// One client's connection.
struct Session {
    client: ClientId,
    owner: Owner,
    replies: Arc<Remote>,
    inbox: Arc<Inbox>,
    clients: Arc<Clients>,
}

impl ClientSession for Session {
    fn request(&mut self, payload: Bytes, _credit: Credit) {
        match decode_request(&payload) {
            Ok(request) => {
                let length = payload.len();
                if let Err(response) = submit(&self.inbox, self.client, self.owner, request, length) {
                    self.replies.reply(response);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a request was refused");
                let body = Err(Refusal::BadRequest { what: error.to_string() });
                self.replies.reply(Response { id: 0, body });
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.clients.remove(self.client);
    }
}

/// Puts a request into the inbox, or says at once why not.
pub fn submit(
    inbox: &Inbox,
    client: ClientId,
    owner: Owner,
    request: Request,
    length: usize,
) -> Result<(), Response> {
    let id = request.id;
    inbox.push(Lane::Client(length), Input::Client { client, owner, request }).map_err(|refused| {
        let body = Err(match refused {
            Refused::Full => Refusal::Busy,
            Refused::Closed => Refusal::Stopping,
        });
        Response { id, body }
    })
}
