//! What clients ask and what they are told. One request or response is one frame; many are under way at once, told
//! apart by `id`. A response never says more than the node knows: `Refusal::Lost` is the only one after which the
//! request may still take effect.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use raftmap_storage::types::{Index, NodeId, Term};

use super::WireError;
use super::hello::PROTOCOL;
use crate::codec::{self, octets, text};
use crate::kv::{self, Command, Keys, Outcome, Page, Reply, Scan, SessionId, Versioned};

/// Most bytes of a request: the largest key and value any limits allow, and some words.
pub const REQUEST_MAX: usize = 2 << 20;
/// Most bytes of a response: a page of a scan with one largest pair.
pub const RESPONSE_MAX: usize = 4 << 20;

/// Most bytes of either hello.
const HELLO_MAX: usize = 16 * 1024;

/// A client's first words on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The oldest protocol it understands.
    pub protocol_min: u32,
    /// The newest protocol it understands.
    pub protocol_max: u32,
}

/// A node's answer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// The protocol that this connection speaks.
    pub protocol: u32,
    /// The node.
    pub node: NodeId,
}

impl ClientHello {
    /// What this version says.
    pub const OURS: Self = Self { protocol_min: PROTOCOL, protocol_max: PROTOCOL };

    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        super::encode("client hello", self, HELLO_MAX)
    }

    /// Reads one back.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        codec::decode(bytes, HELLO_MAX)
            .map_err(|_| WireError::Malformed { what: "client hello", length: bytes.len() })
    }

    /// Whether this node speaks what the client understands.
    pub fn check(&self) -> Result<(), String> {
        if (self.protocol_min..=self.protocol_max).contains(&PROTOCOL) {
            return Ok(());
        }
        Err(format!(
            "the node speaks protocol {PROTOCOL}, the client {} to {}: upgrade the older one",
            self.protocol_min, self.protocol_max
        ))
    }
}

impl ServerHello {
    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        super::encode("server hello", self, HELLO_MAX)
    }

    /// Reads one back.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        codec::decode(bytes, HELLO_MAX)
            .map_err(|_| WireError::Malformed { what: "server hello", length: bytes.len() })
    }
}

/// A client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; comes back with the response.
    pub id: u64,
    /// What it wants.
    pub body: Ask,
}

impl Request {
    /// Bytes of memory it holds, about.
    pub fn approximate_len(&self) -> usize {
        64 + match &self.body {
            Ask::Write { command, .. } => command.key().len() + command.value_len(),
            Ask::Read(query) | Ask::Stale(query) => match query {
                Query::Get { key } => key.len(),
                Query::Scan(_) | Query::Len => 0,
            },
            Ask::Open | Ask::Close { .. } | Ask::Status | Ask::Digest => 0,
        }
    }
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A session to write in (thesis 6.3).
    Open,
    /// Its session is no longer needed.
    Close {
        /// The session.
        session: SessionId,
    },
    /// A write, executed once however often it is asked.
    Write {
        /// The session it belongs to.
        session: SessionId,
        /// Its number in the session, from 1.
        sequence: u64,
        /// Every number below this one has been answered: its reply may be forgotten.
        acked_below: u64,
        /// What to do.
        command: Command,
    },
    /// A read of the newest state, confirmed by a majority (thesis 6.4).
    Read(Query),
    /// A read of whatever this node has applied.
    Stale(Query),
    /// How this node is.
    Status,
    /// BLAKE3 of this node's map and sessions at its applied index.
    Digest,
}

/// A question to the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The value of a key.
    Get {
        /// The key.
        #[serde(with = "octets")]
        key: Bytes,
    },
    /// Pairs in key order.
    Scan(Scan),
    /// How many pairs there are.
    Len,
}

impl Query {
    /// Bytes of the longest key it names.
    pub fn longest_key(&self) -> usize {
        match self {
            Self::Get { key } => key.len(),
            Self::Scan(Scan { keys, after, .. }) => {
                let after = after.as_ref().map_or(0, Bytes::len);
                let bounds = match keys {
                    Keys::Prefix(prefix) => prefix.len(),
                    Keys::Range { start, end } => start.len().max(end.as_ref().map_or(0, Bytes::len)),
                };
                bounds.max(after)
            }
            Self::Len => 0,
        }
    }
}

/// A node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// The answer, or why there is none.
    pub body: Result<Answer, Refusal>,
}

/// The answer to an [`Ask`], in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A new session.
    Opened {
        /// Its id.
        session: SessionId,
    },
    /// The session is gone.
    Closed,
    /// The write has been executed, now or when it was asked before.
    Written {
        /// Where in the log.
        index: Index,
        /// What came of it.
        reply: Reply,
    },
    /// The value, if the key is there.
    Got {
        /// The state that was read: everything up to here is in it.
        index: Index,
        /// The value and its version.
        found: Option<Versioned>,
    },
    /// A page of pairs.
    Page {
        /// The state that was read.
        index: Index,
        /// The pairs.
        page: Page,
    },
    /// The number of pairs.
    Len {
        /// The state that was read.
        index: Index,
        /// Pairs in the map.
        pairs: u64,
    },
    /// How the node is.
    Status(Box<NodeStatus>),
    /// Equal on any two nodes that have applied the same entries.
    Digest {
        /// What had been applied.
        applied: Index,
        /// BLAKE3 of map and sessions.
        digest: [u8; 32],
    },
}

/// Why there is no answer. All but `Lost` mean that this attempt did nothing and never will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Ask the leader.
    NotLeader {
        /// Who that is, where known.
        leader: Option<(NodeId, SocketAddr)>,
    },
    /// At a limit; try again a little later.
    Busy,
    /// The leader's disk has no room for more log.
    NoSpace,
    /// The key or value is over its limit.
    TooLarge {
        /// In words, with both numbers.
        #[serde(with = "text")]
        what: String,
    },
    /// No such session (any more).
    SessionExpired,
    /// The session table is full.
    SessionTableFull,
    /// The request contradicts the session: an acknowledged number, one beyond the window, somebody else's session.
    BadRequest {
        /// In words.
        #[serde(with = "text")]
        what: String,
    },
    /// The request reached the log but this node cannot say whether it stays there.
    Lost,
    /// The node is stopping.
    Stopping,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which node.
    pub id: NodeId,
    /// `leader`, `follower`, `candidate` or `pre-candidate`.
    #[serde(with = "text")]
    pub role: String,
    /// Its term.
    pub term: Term,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// Last entry of its log.
    pub last: Index,
    /// Known to be committed.
    pub committed: Index,
    /// Executed on its map.
    pub applied: Index,
    /// Safe on its disk.
    pub durable: Index,
    /// Bytes of log above the last durable snapshot, and one hard state: what `max_raft_state` bounds.
    pub raft_state_bytes: u64,
    /// Its bound; `None` is none.
    pub max_raft_state: Option<u64>,
    /// Bytes of all its segments and snapshots.
    pub disk_bytes: u64,
    /// The last durable snapshot holds everything up to here; 0 is none.
    pub snapshot: Index,
    /// Median of its latest syncs.
    pub fsync_p50_us: u64,
    /// 99th percentile of its latest syncs.
    pub fsync_p99_us: u64,
    /// Syncs since it started.
    pub syncs: u64,
    /// Pairs in its map.
    pub pairs: u64,
    /// Sessions in its table.
    pub sessions: u64,
    /// Its disk has no room for more log.
    pub no_space: bool,
}

/// What a client is told of what the map made of its request.
pub fn answer_to(outcome: Outcome) -> Result<Answer, Refusal> {
    match outcome {
        Outcome::Opened { session } => Ok(Answer::Opened { session }),
        Outcome::TableFull => Err(Refusal::SessionTableFull),
        Outcome::Closed | Outcome::Ticked => Ok(Answer::Closed),
        Outcome::Executed { at, reply } | Outcome::Duplicate { at, reply } => {
            Ok(Answer::Written { index: at, reply })
        }
        Outcome::Refused { reason: kv::Refusal::SessionExpired } => Err(Refusal::SessionExpired),
        Outcome::Refused { reason } => Err(Refusal::BadRequest { what: reason.to_string() }),
    }
}

/// The bytes of a request.
pub fn encode_request(request: &Request) -> Result<Bytes, WireError> {
    super::encode("request", request, REQUEST_MAX)
}

/// Reads a request back.
pub fn decode_request(bytes: &[u8]) -> Result<Request, WireError> {
    codec::decode(bytes, REQUEST_MAX)
        .map_err(|_| WireError::Malformed { what: "request", length: bytes.len() })
}

/// The bytes of a response.
pub fn encode_response(response: &Response) -> Result<Bytes, WireError> {
    super::encode("response", response, RESPONSE_MAX)
}

/// Reads a response back.
pub fn decode_response(bytes: &[u8]) -> Result<Response, WireError> {
    codec::decode(bytes, RESPONSE_MAX)
        .map_err(|_| WireError::Malformed { what: "response", length: bytes.len() })
}
