//! What must hold after every event, whatever happened: seen from outside of all nodes, and from their disks. What a disk
//! holds is what its log said it had synced; that this is so is looked up on the disk itself at each start, each purge and
//! every so many batches.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmap::raft::{AppendOutcome, Body, Outbound, RoleKind, SoftState};
use raftmap::storage::types::{Batch, Index, NodeId, SnapshotId, Term, frame_len};
use raftmap::wire::client::{Answer, Response};

use crate::atlas::{Harm, majority};
use crate::entries::{self, Entries};
use crate::node::Node;
use crate::reads::Reads;
use crate::shadow::Mark;

/// Frames that may come on top of a full log: no-ops of new leaders, one each.
const NO_OPS: u64 = 16;
/// Lists of messages that a replica keeps for a slow disk.
const AFTER_SYNC_MAX: usize = 4_096;

/// See the module's description. A check that fails is an error in words.
#[derive(Debug, Default)]
pub struct Watch {
    leaders: BTreeMap<Term, NodeId>,
    /// All entries that were ever seen committed, from index 1.
    committed: Vec<Mark>,
    /// The term in which each was.
    committed_in: Vec<Term>,
    entries: Entries,
    pub reads: Reads,
    digests: BTreeMap<Index, [u8; 32]>,
    /// Maps that were compared with another node's at the same index.
    pub compared: u64,
    snapshots: BTreeMap<Index, SnapshotId>,
    /// By node: events since its whole log was looked at.
    unseen: Vec<u64>,
    /// Bytes of the largest entry so far.
    largest: u64,
    pub max_term: Term,
    pub elections: u64,
}

type Checked = Result<(), String>;

impl Watch {
    /// A node writes this.
    pub fn submitted(&mut self, node: &mut Node, number: u64, batch: &Batch) -> Checked {
        let id = node.id();
        let largest = batch.entries.iter().map(|entry| frame_len(entry.payload.len() as u64)).max();
        self.largest = self.largest.max(largest.unwrap_or(0));
        node.shadow.submit(number, batch).map_err(|error| format!("{id} {error}"))?;
        self.entries.written(id, &node.shadow.log, &batch.entries)
    }

    /// A world of one node begins a new life in this term.
    pub fn reborn_alone(&mut self, term: Term) {
        self.entries.forget_above(term);
    }

    /// All entries that were ever seen committed: the first one has index 1.
    pub fn committed(&self) -> &[Mark] {
        &self.committed
    }

    /// Whether anybody was elected in a later term.
    pub fn reigns_after(&self, term: Term) -> bool {
        self.leaders.last_key_value().is_some_and(|(latest, _)| *latest > term)
    }

    /// At most one leader a term (election safety, Raft paper Figure 3), and it has everything that was committed.
    pub fn changed(&mut self, now: Duration, node: &Node, state: SoftState) -> Checked {
        let id = node.id();
        self.max_term = self.max_term.max(state.term);
        if state.role != RoleKind::Leader {
            return Ok(());
        }
        let first = *self.leaders.entry(state.term).or_insert(id);
        self.elections = self.leaders.len() as u64;
        if first != id {
            return Err(format!("two leaders in term {}: {first} and {id}", state.term));
        }
        self.reads.elected(now, state.term);
        entries::complete(id, state.term, &node.shadow.log, &self.committed, &self.committed_in)
    }

    /// Nothing leaves that is not on the sender's disk, nor tells of a commit that was not one.
    pub fn sent(&self, nodes: &mut [Node], at: usize, outbound: &Outbound) -> Checked {
        acknowledges_what_the_leader_has(nodes, at, outbound)?;
        let node = &mut nodes[at];
        let (id, term) = (node.id(), outbound.message.term);
        let named = |error| format!("{id} {error}");
        let asks_ahead = matches!(outbound.message.body, Body::PreVote { .. } | Body::PreVoteReply { .. });
        if term > node.shadow.durable.hard_state.term && !asks_ahead {
            return Err(format!(
                "{id} speaks in term {term}, its disk says {:?}",
                node.shadow.durable.hard_state
            ));
        }
        if let Body::Append { commit, .. } | Body::Heartbeat { commit, .. } = &outbound.message.body
            && commit.0 as usize > self.committed.len()
        {
            return Err(format!(
                "{id} tells of a commit at {commit}, {} are committed",
                self.committed.len()
            ));
        }
        match &outbound.message.body {
            Body::Vote { .. } => node.shadow.speaks(term, id).map_err(named),
            Body::VoteReply { granted: true } => node.shadow.speaks(term, outbound.to).map_err(named),
            Body::AppendReply(AppendOutcome::Accepted { matched, .. }) => {
                node.shadow.held(*matched, term).map_err(named)
            }
            Body::VoteReply { granted: false }
            | Body::AppendReply(AppendOutcome::Rejected { .. })
            | Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::InstallSnapshot { .. }
            | Body::TimeoutNow => Ok(()),
        }
    }

    /// A client may be told of a write when it is committed and a majority of disks has it.
    pub fn answered(&mut self, nodes: &[Node], response: &Response) -> Checked {
        let Ok(Answer::Written { index, .. }) = &response.body else { return Ok(()) };
        self.reads.acknowledged(*index);
        match self.committed.get(index.0 as usize - 1) {
            Some(mark) => on_a_majority(nodes, *index, *mark),
            None => Err(format!("entry {index} is acknowledged and was never seen committed")),
        }
    }

    /// A node has moved on: what it calls committed is what everybody calls committed, and a majority's disks hold it.
    pub fn moved(&mut self, nodes: &[Node], at: usize) -> Result<Index, String> {
        let node = &nodes[at];
        let Some(life) = &node.life else { return Ok(Index(0)) };
        let (id, raft) = (node.id(), life.replica.raft());
        let status = raft.status();
        raft.check_ends();
        if self.looks_within(at, raft.log_length()) {
            raft.check_invariants();
        }
        if status.committed < life.committed {
            return Err(format!("{id} committed {} and now says {}", life.committed, status.committed));
        }
        let (snapshot, applied) = (status.snapshot, life.replica.map().applied_index());
        if !(snapshot <= applied && applied <= status.committed && status.committed <= status.last.index) {
            let (committed, last) = (status.committed, status.last);
            return Err(format!(
                "{id}: snapshot {snapshot}, applied {applied}, committed {committed}, last {last}"
            ));
        }
        let leads = status.role == RoleKind::Leader && status.committed > life.committed;
        if leads && node.shadow.log.term_at(status.committed) != Some(status.term) {
            // Thesis 3.6.2, Figure 8: copies of an old entry commit nothing.
            let found = node.shadow.log.term_at(status.committed);
            return Err(format!(
                "{id} leads in term {} and commits {} of {found:?}",
                status.term, status.committed
            ));
        }
        // A node that cannot read its log ends halfway: what it has not handed out is nobody's.
        let committed = match raft.has_ready() {
            true => status.committed.min(node.shadow.log.last()),
            false => status.committed,
        };
        let mut index = life.committed.max(Index(node.shadow.log.base.index.0.min(status.committed.0)));
        while index < committed {
            index = index.next();
            let Some(mark) = node.shadow.log.entries.get(index) else {
                return Err(format!("{id} calls {index} committed and does not have it"));
            };
            self.commit(nodes, index, mark, status.term)?;
        }
        self.bytes(node, status.raft_state_bytes)?;
        held(node)?;
        Ok(committed)
    }

    /// A look at a whole log costs as much as it is long: over so many events that is one entry for each.
    fn looks_within(&mut self, at: usize, length: u64) -> bool {
        self.unseen.resize(self.unseen.len().max(at + 1), 0);
        self.unseen[at] += 1;
        let due = self.unseen[at] >= length.max(8);
        if due {
            self.unseen[at] = 0;
        }
        due
    }

    /// A node calls this entry committed, in this term.
    pub fn commit(&mut self, nodes: &[Node], index: Index, mark: Mark, term: Term) -> Checked {
        match self.committed.get(index.0 as usize - 1) {
            Some(first) if *first == mark => return Ok(()),
            Some(first) => {
                return Err(format!("entry {index} was committed as {first:?}, and now as {mark:?}"));
            }
            None if index.0 as usize == self.committed.len() + 1 => {
                self.committed.push(mark);
                self.committed_in.push(term);
            }
            None => return Err(format!("entry {index} is committed, those before it never were")),
        }
        on_a_majority(nodes, index, mark)
    }

    /// The log keeps to its bound, but for the last entry and the no-ops of new leaders.
    pub fn bytes(&self, node: &Node, bytes: u64) -> Checked {
        let Some(bound) = node.config.max_raft_state else { return Ok(()) };
        let most = 2 * bound + self.largest + NO_OPS * frame_len(8);
        if bytes <= most {
            return Ok(());
        }
        Err(format!("{}: {bytes} bytes of Raft state, bound {bound}, at most {most}", node.id()))
    }

    /// Equal logs make equal maps and sessions.
    pub fn digest(&mut self, id: NodeId, applied: Index, digest: [u8; 32]) -> Checked {
        let Some(first) = self.digests.insert(applied, digest) else { return Ok(()) };
        self.compared += 1;
        if first == digest {
            return Ok(());
        }
        Err(format!("{id} has another map at {applied} than a node before it"))
    }

    /// Equal maps make equal files.
    pub fn snapshot(&mut self, id: NodeId, snapshot: SnapshotId) -> Checked {
        let index = snapshot.position.index;
        if *self.snapshots.entry(index).or_insert(snapshot) == snapshot {
            return Ok(());
        }
        Err(format!("{id} wrote another snapshot of {index} than a node before it"))
    }

    /// Terms rise by elections, and elections take time.
    pub fn terms(&self, most: u64) -> Checked {
        if self.max_term.0 <= most {
            return Ok(());
        }
        Err(format!("term {} after {} elections, at most {most} expected", self.max_term, self.elections))
    }

    /// All that was ever committed is on a majority of disks, those not counted whose directories do not open.
    pub fn whole(&self, nodes: &[Node]) -> Checked {
        self.committed.iter().enumerate().try_for_each(|(at, mark)| {
            let index = Index(at as u64 + 1);
            let sound = nodes.iter().filter(|node| !matches!(node.harm, Harm::Spoiled(_)));
            let holders = sound.filter(|node| node.shadow.durable.holds(index, *mark)).count();
            if holders >= majority(nodes.len()) {
                return Ok(());
            }
            Err(format!("entry {index} {mark:?} is on {holders} sound disks at the end"))
        })
    }
}

/// What a node holds for others is bounded.
fn held(node: &Node) -> Checked {
    let Some(life) = &node.life else { return Ok(()) };
    let held = life.replica.held();
    if held.waiting <= node.sizes.waiting && held.after_sync <= AFTER_SYNC_MAX {
        return Ok(());
    }
    Err(format!("{} holds {held:?}, at most {} may wait", node.id(), node.sizes.waiting))
}

/// Of what a follower acknowledges, the last entry is the one that the leader has there.
fn acknowledges_what_the_leader_has(nodes: &[Node], at: usize, outbound: &Outbound) -> Checked {
    let Body::AppendReply(AppendOutcome::Accepted { matched, .. }) = &outbound.message.body else {
        return Ok(());
    };
    let leader = &nodes[outbound.to.0 as usize - 1];
    let state = leader.life.as_ref().map(|life| life.replica.soft_state());
    let leads = |state: SoftState| state.role == RoleKind::Leader && state.term == outbound.message.term;
    let Some(mark) = nodes[at].shadow.durable.entries.get(*matched).filter(|_| state.is_some_and(leads))
    else {
        return Ok(());
    };
    if leader.shadow.log.holds(*matched, mark) {
        return Ok(());
    }
    Err(format!("{} acknowledges {matched} as {mark:?}, which is not {}'s", nodes[at].id(), leader.id()))
}

fn on_a_majority(nodes: &[Node], index: Index, mark: Mark) -> Checked {
    let holders = nodes.iter().filter(|node| node.shadow.durable.holds(index, mark)).count();
    if holders >= majority(nodes.len()) {
        return Ok(());
    }
    Err(format!("entry {index} {mark:?} is on {holders} of {} disks", nodes.len()))
}
