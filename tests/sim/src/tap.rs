//! What a script learns of the world it drives: the answers to what it proposed itself, every entry that was ever
//! submitted to a disk, and how much was said between members. It also holds back replies, where a script wants them late.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmap::kv::{Limits, Proposal, Request, SessionId};
use raftmap::node::replica::ClientId;
use raftmap::raft::entry::command_body;
use raftmap::raft::{AppendOutcome, Body, Message};
use raftmap::storage::types::{Batch, Entry, Index, Term};
use raftmap::wire::client::Response;

use crate::dice::Dice;

/// The client that a script proposes as. No connection has this number.
pub const SCRIPT: ClientId = ClientId(u64::MAX);

/// A write's number: its session, and its place in it.
pub type Number = (SessionId, u64);

/// See the module's description.
#[derive(Debug)]
pub struct Tap {
    limits: Limits,
    /// By the request's id. Each request is answered at most once.
    pub answers: BTreeMap<u64, Response>,
    /// Writes of clients among all entries ever submitted; others are there as `None`.
    entries: BTreeMap<(Index, Term), (u32, Option<Number>)>,
    pub traffic: Traffic,
    /// Calls of clients that have ended since somebody looked, by client and place in the history.
    pub ended: Vec<(usize, usize)>,
    /// Holds back two replies of three.
    pub late: Option<Dice>,
}

/// What members said to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that ask for a reply, and pieces of snapshots.
    pub requests: u64,
    pub replies: u64,
    /// Replies that refuse an append: the logs agree further back.
    pub refusals: u64,
    /// Of all messages and pieces.
    pub bytes: u64,
}

impl Tap {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            answers: BTreeMap::new(),
            entries: BTreeMap::new(),
            traffic: Traffic::default(),
            ended: Vec::new(),
            late: None,
        }
    }

    pub fn answered(&mut self, response: Response) {
        let id = response.id;
        let earlier = self.answers.insert(id, response);
        assert!(earlier.is_none(), "request {id} was answered twice: {earlier:?}");
    }

    /// Entries go to a disk. One index and term never stand for two entries (Raft paper, Figure 3, log matching).
    pub fn submitted(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            let place = (entry.position.index, entry.position.term);
            let number = self.number(entry);
            let (crc, _) = *self.entries.entry(place).or_insert((entry.payload_crc, number));
            assert_eq!(crc, entry.payload_crc, "two entries at {}", entry.position);
        }
    }

    fn number(&self, entry: &Entry) -> Option<Number> {
        let body = command_body(&entry.payload)?;
        match Proposal::decode(&body, &self.limits).expect("it was proposed").request {
            Request::Execute { session, sequence, .. } => Some((session, sequence)),
            Request::Open { .. } | Request::Close { .. } | Request::Tick => None,
        }
    }

    /// The write at this place, if a client's write stands there.
    pub fn write_at(&self, index: Index, term: Term) -> Option<Number> {
        self.entries.get(&(index, term)).and_then(|(_, number)| *number)
    }

    /// A message leaves; how long it is held back.
    pub fn sent(&mut self, message: &Message, bytes: usize) -> Duration {
        self.traffic.bytes += bytes as u64;
        if is_reply(&message.body) {
            self.traffic.replies += 1;
            let refuses = matches!(message.body, Body::AppendReply(AppendOutcome::Rejected { .. }));
            self.traffic.refusals += u64::from(refuses);
            return self.late.as_mut().map_or(Duration::ZERO, held_back);
        }
        self.traffic.requests += 1;
        Duration::ZERO
    }

    /// A piece of a snapshot has arrived.
    pub fn piece(&mut self, bytes: usize) {
        self.traffic.requests += 1;
        self.traffic.bytes += bytes as u64;
    }
}

fn is_reply(body: &Body) -> bool {
    match body {
        Body::PreVoteReply { .. }
        | Body::VoteReply { .. }
        | Body::AppendReply(_)
        | Body::HeartbeatReply { .. } => true,
        Body::PreVote { .. }
        | Body::Vote { .. }
        | Body::Append { .. }
        | Body::Heartbeat { .. }
        | Body::InstallSnapshot { .. }
        | Body::TimeoutNow => false,
    }
}

/// Two of three by 200 ms, and by up to two seconds more.
fn held_back(dice: &mut Dice) -> Duration {
    if dice.below(3) == 0 {
        return Duration::ZERO;
    }
    let most = dice.between(1, 2_000);
    Duration::from_millis(200 + dice.below(most))
}
