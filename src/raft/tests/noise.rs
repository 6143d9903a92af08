//! Messages with any numbers in them, to cores in every role: nothing panics, and no invariant breaks.

use raftmap_storage::types::{Entry, Index, Membership, NodeId, Position, SnapshotId, Term};

use super::cluster::config;
use super::dice::Dice;
use crate::raft::message::AppendOutcome;
use crate::raft::{BatchNumber, Body, Message, OlderEntries, Raft, ReadError, Restored, entry};

const MESSAGES: usize = 30_000;

impl Dice {
    /// Mostly small, sometimes at the edges of what a number can be.
    fn number(&mut self) -> u64 {
        match self.below(12) {
            0 => u64::MAX - self.below(3) as u64,
            1 => (1 << 62) - 1 + self.below(3) as u64,
            2 => 0,
            _ => self.below(12) as u64,
        }
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 0
    }

    fn position(&mut self) -> Position {
        Position::new(self.number(), self.number())
    }

    /// Contiguous more often than not.
    fn entries(&mut self, prev: Position) -> Vec<Entry> {
        let mut position = prev;
        let mut entries = Vec::new();
        for _ in 0..self.below(4) {
            position.index = position.index.next();
            position.term = Term(position.term.0.saturating_add(self.below(2) as u64));
            if self.below(10) == 0 {
                position = self.position();
            }
            entries.push(Entry::new(position, entry::command(&[7; 9])));
        }
        entries
    }

    fn body(&mut self) -> Body {
        match self.below(11) {
            0 => Body::PreVote { last: self.position() },
            1 => Body::PreVoteReply { granted: self.yes() },
            2 => Body::Vote { last: self.position(), transfer: self.yes() },
            3 => Body::VoteReply { granted: self.yes() },
            4 | 5 => {
                let prev = self.position();
                Body::Append {
                    number: self.number(),
                    prev,
                    commit: Index(self.number()),
                    entries: self.entries(prev),
                }
            }
            6 => {
                Body::AppendReply(AppendOutcome::Accepted { matched: Index(self.number()), full: self.yes() })
            }
            7 => Body::AppendReply(AppendOutcome::Rejected {
                number: self.number(),
                prev: Index(self.number()),
                last: Index(self.number()),
                conflict: self.yes().then(|| self.position()),
            }),
            8 => Body::Heartbeat { commit: Index(self.number()), round: self.number() },
            9 => Body::HeartbeatReply { round: self.number(), stuck: self.yes() },
            _ => self.snapshot(),
        }
    }

    fn snapshot(&mut self) -> Body {
        let snapshot = SnapshotId { position: self.position(), length: self.number(), digest: [0; 32] };
        let voters = (0..self.below(4)).map(|_| NodeId(self.number())).chain([NodeId(1)]).collect();
        Body::InstallSnapshot { snapshot, membership: Membership { voters } }
    }
}

struct NoStore;

impl OlderEntries for NoStore {
    fn read(&self, from: Index, _: Index, _: usize) -> Result<Vec<Entry>, ReadError> {
        Err(ReadError::Missing { from })
    }
}

fn core() -> Raft {
    let membership = Membership { voters: (1..=3).map(NodeId).collect() };
    Raft::new(config(NodeId(1)), Restored { membership, ..Restored::default() }).unwrap()
}

/// One random call, then everything that is ready, synced at once more often than not.
fn one_step(raft: &mut Raft, dice: &mut Dice, term: u64) {
    for _ in 0..dice.below(4) {
        raft.tick();
    }
    let from = NodeId(1 + dice.below(4) as u64);
    let term = if dice.below(8) == 0 { dice.number() } else { term + dice.below(2) as u64 };
    raft.step(from, Message { term: Term(term), body: dice.body() });
    raft.check_invariants();
    if dice.below(4) == 0 {
        let _follower_or_full = raft.propose(entry::command(&[1; 30]));
        let _follower_or_early = raft.read_index();
    }
    while raft.has_ready() {
        let ready = raft.ready(&NoStore).unwrap();
        raft.check_invariants();
        if let Some((number, _)) = ready.batch.filter(|_| dice.below(4) > 0) {
            raft.on_durable(number);
            raft.check_invariants();
        }
    }
}

#[test]
fn noise_never_breaks_a_core() {
    let mut dice = Dice(1);
    let mut raft = core();
    let mut roles = std::collections::BTreeSet::new();
    for message in 0..MESSAGES {
        // Terms at the edge end the story; begin another.
        let term = raft.status().term.0;
        if term > 1_000 || message % 500 == 0 {
            raft = core();
        }
        let term = raft.status().term.0;
        one_step(&mut raft, &mut dice, term);
        roles.insert(format!("{:?}", raft.status().role));
        raft.on_durable(BatchNumber(dice.number()));
    }
    assert_eq!(roles.len(), 4, "only {roles:?} were shaken");
}
