//! Linearizable reads, seen from the server: who answers one still leads, has heard from a majority since it was asked,
//! and shows everything that anybody was told of before.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmap::storage::types::{Index, NodeId, Term};

/// A read at a server.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Duration,
    /// Writes up to here had been acknowledged.
    acknowledged: Index,
}

/// What the answer is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    pub id: NodeId,
    pub term: Term,
    /// The state it was read from.
    pub index: Index,
    /// When the newest round began in which each member confirmed that it follows, and in which term.
    pub confirmed: &'a BTreeMap<usize, (Term, Duration)>,
    /// How many members, itself among them, are a majority.
    pub majority: usize,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Reads {
    /// By connection and the request's id.
    asked: BTreeMap<(u64, u64), Asked>,
    acknowledged: Index,
    /// The newest term that has a leader, and since when.
    leads: (Term, Duration),
}

impl Reads {
    pub fn acknowledged(&mut self, index: Index) {
        self.acknowledged = self.acknowledged.max(index);
    }

    pub fn elected(&mut self, now: Duration, term: Term) {
        if term > self.leads.0 {
            self.leads = (term, now);
        }
    }

    pub fn asked(&mut self, now: Duration, connection: u64, id: u64) {
        let asked = Asked { at: now, acknowledged: self.acknowledged };
        self.asked.insert((connection, id), asked);
    }

    /// The connection is gone, and with it its questions.
    pub fn forget(&mut self, connection: u64) {
        self.asked.retain(|(of, _), _| *of != connection);
    }

    /// A read gets its answer.
    pub fn answered(&mut self, connection: u64, request: u64, answer: Answering<'_>) -> Result<(), String> {
        let Some(asked) = self.asked.remove(&(connection, request)) else { return Ok(()) };
        let Answering { id, term, index, confirmed, majority } = answer;
        if index < asked.acknowledged {
            let acknowledged = asked.acknowledged;
            return Err(format!(
                "{id} reads at {index}, {acknowledged} was acknowledged before it was asked"
            ));
        }
        let (newest, since) = self.leads;
        if newest > term && since < asked.at {
            return Err(format!(
                "{id} answers a read in term {term}, term {newest} had a leader before it was asked"
            ));
        }
        let since = confirmed.values().filter(|(of, at)| *of == term && *at >= asked.at).count();
        if since + 1 < majority {
            return Err(format!(
                "{id} answers a read that {since} others have confirmed, of a majority of {majority}"
            ));
        }
        Ok(())
    }
}
