//! One member's protocol core, told anything by anyone: proposals, reads, ticks, syncs, snapshots, crashes, and messages
//! with any numbers in them. It does not panic and keeps its invariants; term and vote hold over all its lives; nothing
//! that speaks of durable things leaves before they are durable; and its memory is bounded, whatever it is told.

use std::collections::{BTreeMap, BTreeSet};

use raftmap::raft::message::{INDEX_MAX, TERM_JUMP_MAX, TERM_MAX};
use raftmap::raft::{
    AppendOutcome, BatchNumber, Body, Config, Message, Outbound, Raft, ReadId, Ready, Restored, entry,
};
use raftmap_storage::types::{HardState, Index, Membership, NodeId, Position, SnapshotId, Term};

use crate::input::Input;
use crate::{memory, messages};

#[path = "../../../src/raft/tests/files.rs"]
#[allow(dead_code, reason = "the core's own tests use the rest")]
mod files;
use files::{Disk, Pending, Queue, frames};

const ME: NodeId = NodeId(1);
/// Calls of one input.
const CALLS_MAX: usize = 500;
/// The core under these limits, this host, and what the calls of one input leave with both.
const MEMORY: usize = 512 * 1024;
/// Bound of the log, which members pass by less than one entry and the no-ops of new leaders.
const LOG_BYTES: u64 = 4000;

/// Input: the limits, then a byte for each call and some for its numbers.
pub(crate) fn raft_step(data: &[u8]) {
    memory::within(MEMORY, "a core and its host", || live(Input::new(data)));
}

fn live(mut input: Input<'_>) {
    let mut member = Member::new(config(&mut input));
    let mut calls = 0;
    while !input.is_empty() && calls < CALLS_MAX {
        calls += 1;
        member.one_call(&mut input);
        member.raft.check_invariants();
        member.check_steady();
        member.take_all_ready();
    }
}

fn config(input: &mut Input<'_>) -> Config {
    Config {
        id: ME,
        election_ticks: (10, 20),
        heartbeat_ticks: 3,
        append_bytes_max: 100 << input.below(4),
        append_entries_max: 1 + input.below(8),
        inflight_appends_max: 1 + input.below(4),
        inflight_bytes_max: 400,
        uncommitted_bytes_max: 1_000,
        log_bytes_max: Some(LOG_BYTES),
        payload_max: 200,
        tail_bytes: [0, 60, 500, 100_000][input.below(4)],
        seed: u64::from(input.byte()),
    }
}

struct Member {
    config: Config,
    raft: Raft,
    disk: Disk,
    queue: Queue,
    /// What the core has ever said about itself; terms do not go back, and a vote stays in its term.
    state: HardState,
    /// Votes that left, by term: one each, over all lives.
    votes: BTreeMap<Term, NodeId>,
    /// The last entry handed out in this life.
    delivered: Position,
    applied: Index,
    commit: Index,
    reads: BTreeMap<ReadId, Index>,
    wanted: BTreeSet<NodeId>,
}

/// Three voters who have never said anything.
fn start(config: &Config, disk: &Disk) -> Raft {
    let membership = Membership { voters: (1..=3).map(NodeId).collect() };
    let restored = Restored {
        hard_state: disk.hard_state,
        snapshot: disk.snapshot,
        membership,
        log: disk.metas(),
        tail: disk.log.clone(),
        sealed_through: disk.base().index,
    };
    Raft::new(config.clone(), restored).expect("what a core wrote, a core takes back")
}

impl Member {
    fn new(config: Config) -> Self {
        let disk = Disk::default();
        let raft = start(&config, &disk);
        Self {
            config,
            raft,
            disk,
            queue: Queue::new(),
            state: HardState::default(),
            votes: BTreeMap::new(),
            delivered: Position::ZERO,
            applied: Index(0),
            commit: Index(0),
            reads: BTreeMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    fn one_call(&mut self, input: &mut Input<'_>) {
        match input.byte() % 32 {
            0..=3 => (0..input.below(24)).for_each(|_| self.raft.tick()),
            4..=15 => {
                let from = NodeId(1 + input.below(5) as u64);
                let term = self.raft.status().term;
                self.raft.step(from, messages::message(input, term));
            }
            16..=17 => {
                let from = NodeId(2 + input.below(2) as u64);
                let message = self.sensible(input);
                self.raft.step(from, message);
            }
            18..=19 => self.propose(input),
            20 => self.read(),
            21..=24 => (0..=input.below(4)).for_each(|_| self.sync()),
            25 => self.raft.on_durable(BatchNumber(0)),
            26 => {
                self.applied = self.delivered.index;
                self.raft.applied(self.applied);
            }
            27 => self.raft.sealed(self.disk.last().index),
            28 => self.publish(input),
            29 => self.report_snapshot(input),
            30 => self.raft.no_space(input.yes()),
            _ => self.crash(input.below(8)),
        }
    }

    /// What another member might well say now: arbitrary numbers seldom get a candidate elected.
    fn sensible(&self, input: &mut Input<'_>) -> Message {
        let status = self.raft.status();
        let body = match input.below(6) {
            0 => Body::PreVoteReply { granted: true },
            1 => Body::VoteReply { granted: true },
            2 => {
                let behind = Index(status.last.index.0.saturating_sub(input.below(3) as u64));
                Body::AppendReply(AppendOutcome::Accepted { matched: behind, full: input.yes() })
            }
            3 => Body::HeartbeatReply { round: input.number(), stuck: false },
            4 => Body::Heartbeat { commit: status.last.index, round: 1 },
            _ => {
                let position = Position { index: status.last.index.next(), term: status.term };
                let entries = vec![raftmap_storage::types::Entry::new(position, entry::command(&[7; 50]))];
                Body::Append { number: 1, prev: status.last, commit: status.last.index, entries }
            }
        };
        let asked = matches!(body, Body::PreVoteReply { .. });
        Message { term: if asked { status.term.next() } else { status.term }, body }
    }

    fn propose(&mut self, input: &mut Input<'_>) {
        let payload = match input.byte() {
            0..=31 => bytes::Bytes::copy_from_slice(input.take(3)),
            size => entry::command(&[size; 190][..usize::from(size) % 190]),
        };
        let _position_or_why_not = self.raft.propose(payload);
    }

    fn read(&mut self) {
        if let Ok(id) = self.raft.read_index() {
            assert!(self.reads.insert(id, self.raft.status().committed).is_none(), "{id:?} drawn twice");
        }
    }

    /// The oldest batch becomes durable, and what waited for it leaves.
    fn sync(&mut self) {
        let Some(Pending { batch, messages }) = self.queue.pop_front() else { return };
        if let Some((number, batch)) = batch {
            frames(&batch).into_iter().for_each(|frame| self.disk.write(frame));
            self.raft.on_durable(number);
        }
        messages.iter().for_each(|outbound| self.check_kept(outbound));
    }

    /// A snapshot of what is applied and durable.
    fn publish(&mut self, input: &mut Input<'_>) {
        let index = self.applied.min(self.raft.status().durable).min(self.disk.last().index);
        let index = Index(index.0.saturating_sub(input.below(4) as u64));
        let position =
            self.disk.position_at(index).filter(|position| position.index > self.disk.base().index);
        if let Some(position) = position {
            self.raft.snapshot_published(SnapshotId { position, length: 100, digest: [1; 32] });
        }
    }

    fn report_snapshot(&mut self, input: &mut Input<'_>) {
        let result = if input.yes() { self.disk.snapshot.ok_or(()) } else { Err(()) };
        let to = self.wanted.pop_first().unwrap_or(NodeId(input.number()));
        self.raft.snapshot_sent(to, result);
    }

    /// Some frames of what was on its way are on the disk; everything else is forgotten.
    fn crash(&mut self, kept: usize) {
        let all = self.queue.iter().filter_map(|pending| pending.batch.as_ref());
        let all: Vec<_> = all.flat_map(|(_, batch)| frames(batch)).take(kept).collect();
        all.into_iter().for_each(|frame| self.disk.write(frame));
        self.raft = start(&self.config, &self.disk);
        self.queue.clear();
        self.reads.clear();
        self.wanted.clear();
        self.state = self.disk.hard_state;
        self.delivered = self.disk.base();
        (self.applied, self.commit) = (self.delivered.index, self.delivered.index);
        self.raft.applied(self.applied);
    }

    fn take_all_ready(&mut self) {
        let mut rounds = 0;
        while self.raft.has_ready() {
            let ready = self.raft.ready(&self.disk).expect("what was sealed can be read");
            self.raft.check_invariants();
            self.take(ready);
            rounds += 1;
            assert!(rounds < 1_000, "there is always something ready");
        }
    }

    fn take(&mut self, ready: Ready) {
        let durable = self.disk.hard_state.term;
        ready.messages.iter().for_each(|outbound| check_needs_no_sync(&outbound.message, durable));
        self.queue.push_back(Pending { batch: ready.batch, messages: ready.messages_after_sync });
        while self.queue.front().is_some_and(|pending| pending.batch.is_none()) {
            self.sync();
        }
        if let Some(snapshot) = ready.restore {
            assert!(snapshot.position.index > self.delivered.index, "the map goes back");
            self.delivered = snapshot.position;
            self.applied = snapshot.position.index;
            self.raft.applied(self.applied);
        }
        for entry in &ready.committed {
            assert_eq!(entry.position.index, self.delivered.index.next(), "handed out twice, or left out");
            assert!(entry.position.term >= self.delivered.term && entry.is_intact());
            self.delivered = entry.position;
        }
        for (id, index) in ready.reads {
            let asked = self.reads.remove(&id).expect("asked for, and not answered yet");
            assert!(index >= asked, "read at {index}, {asked} was committed before");
        }
        for id in ready.reads_failed {
            self.reads.remove(&id).expect("asked for, and not answered yet");
        }
        self.wanted.extend(ready.snapshots_wanted);
    }

    /// The term and the commit index; for votes see `check_kept`.
    fn check_steady(&mut self) {
        let status = self.raft.status();
        assert!(status.term >= self.state.term, "the term goes back to {}", status.term);
        assert!(status.term <= TERM_MAX.next(), "term {} is none", status.term);
        // No message takes a log further than that; what a leader adds itself is one entry a call.
        let most = Index(INDEX_MAX.0 + CALLS_MAX as u64);
        assert!(status.last.index <= most && status.committed <= most, "{status:?} is beyond a log");
        // Of one input: a message raises it by so much at most, a campaign of ours by one.
        let risen = status.term.0 - self.state.term.0;
        assert!(risen <= TERM_JUMP_MAX + 1, "the term rises by {risen} to {}", status.term);
        assert!(status.committed >= self.commit, "the commit index goes back to {}", status.committed);
        (self.state.term, self.commit) = (status.term, status.committed);
    }

    /// What leaves after a sync speaks of what is on the disk now.
    fn check_kept(&mut self, Outbound { to, message }: &Outbound) {
        let HardState { term, vote } = self.disk.hard_state;
        assert!(message.term <= term, "{message:?} in term {}, {term} is durable", message.term);
        match &message.body {
            Body::Vote { .. } if message.term == term => assert_eq!(vote, Some(ME), "{message:?}"),
            Body::VoteReply { granted: true } => {
                if message.term == term {
                    assert_eq!(vote, Some(*to), "{message:?}");
                }
                let before = *self.votes.entry(message.term).or_insert(*to);
                assert_eq!(before, *to, "two votes in term {}", message.term);
            }
            Body::AppendReply(AppendOutcome::Accepted { matched, .. }) if message.term == term => {
                assert!(*matched <= self.disk.last().index, "{matched} is not on the disk");
            }
            _ => {}
        }
    }
}

/// Only what does not speak of the disk may leave before it has caught up.
fn check_needs_no_sync(message: &Message, durable: Term) {
    let asks = matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { granted: true });
    assert!(asks || message.term <= durable, "{message:?} leaves, but only term {durable} is durable");
    let early = matches!(
        message.body,
        Body::Vote { .. }
            | Body::VoteReply { granted: true }
            | Body::AppendReply(AppendOutcome::Accepted { .. })
    );
    assert!(!early, "{message:?} leaves before anything is durable");
}
