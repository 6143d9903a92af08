//! Whoever asks a node is answered, be it with a refusal, unless the connection or the node's life ends first: a clerk
//! that asks elsewhere after a while would hide a node that forgets whom it owes an answer.

use std::collections::BTreeSet;

use crate::node::{Connections, Node};

/// Requests without an answer: connection and the request's id.
#[derive(Debug, Default)]
pub struct Promises(BTreeSet<(u64, u64)>);

impl Promises {
    pub fn asked(&mut self, connection: u64, id: u64) {
        self.0.insert((connection, id));
    }

    pub fn answered(&mut self, connection: u64, id: u64) {
        self.0.remove(&(connection, id));
    }

    /// Whether `node` owes nobody an answer who still waits for one.
    pub fn kept(&self, connections: &Connections, node: &Node) -> Result<(), String> {
        let waits = |(connection, _): &&(u64, u64)| {
            let found = connections.open.get(connection);
            found.is_some_and(|found| found.node + 1 == node.id().0 as usize && found.life == node.lives)
        };
        match self.0.iter().find(waits) {
            None => Ok(()),
            Some((connection, id)) => {
                Err(format!("node {} never answered request {id} of connection {connection}", node.id()))
            }
        }
    }
}
