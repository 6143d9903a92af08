//! What must hold after every event, whatever happened: seen from outside of all nodes, and from their disks.

use std::collections::BTreeMap;

use raftmap::raft::{AppendOutcome, Body, Outbound, RoleKind, SoftState};
use raftmap::storage::types::{Index, NodeId, SnapshotId, Term, frame_len};
use raftmap::wire::client::{Answer, Response};

use crate::node::Node;
use crate::shadow::Mark;

/// Frames that may come on top of a full log: no-ops of new leaders, one each.
const NO_OPS: u64 = 16;

/// See the module's description. A check that fails is an error in words.
#[derive(Debug, Default)]
pub struct Watch {
    leaders: BTreeMap<Term, NodeId>,
    /// All entries that were ever seen committed, from index 1.
    committed: Vec<Mark>,
    digests: BTreeMap<Index, [u8; 32]>,
    snapshots: BTreeMap<Index, SnapshotId>,
    looks: u64,
    /// Bytes of the largest entry so far.
    largest: u64,
    pub max_term: Term,
    pub elections: u64,
}

type Checked = Result<(), String>;

impl Watch {
    pub fn entry(&mut self, payload: usize) {
        self.largest = self.largest.max(frame_len(payload as u64));
    }

    /// All entries that were ever seen committed: the first one has index 1.
    pub fn committed(&self) -> &[Mark] {
        &self.committed
    }

    /// At most one leader a term (election safety, Raft paper Figure 3).
    pub fn changed(&mut self, id: NodeId, state: SoftState) -> Checked {
        self.max_term = self.max_term.max(state.term);
        if state.role != RoleKind::Leader {
            return Ok(());
        }
        let first = *self.leaders.entry(state.term).or_insert(id);
        self.elections = self.leaders.len() as u64;
        if first == id {
            return Ok(());
        }
        Err(format!("two leaders in term {}: {first} and {id}", state.term))
    }

    /// Nothing leaves that is not on the sender's disk.
    pub fn sent(node: &mut Node, outbound: &Outbound) -> Checked {
        let (id, term) = (node.id(), outbound.message.term);
        let named = |error| format!("{id} {error}");
        match &outbound.message.body {
            Body::Vote { .. } => node.shadow.speaks(term, id).map_err(named),
            Body::VoteReply { granted: true } => node.shadow.speaks(term, outbound.to).map_err(named),
            Body::AppendReply(AppendOutcome::Accepted { matched, .. }) => {
                let durable = &node.shadow.durable;
                if *matched <= durable.last() && term <= durable.hard_state.term {
                    return Ok(());
                }
                Err(format!(
                    "{id} acknowledges {matched} in term {term}, its disk holds {:?}",
                    durable.last()
                ))
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
    pub fn answered(&self, nodes: &[Node], response: &Response) -> Checked {
        let Ok(Answer::Written { index, .. }) = &response.body else { return Ok(()) };
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
        // The core's own check walks the whole log: a long one is looked at now and then.
        self.looks += 1;
        if status.last.index.0 - status.snapshot.0 < 16 || self.looks.is_multiple_of(256) {
            raft.check_invariants();
        }
        if status.committed < life.committed {
            return Err(format!("{id} committed {} and now says {}", life.committed, status.committed));
        }
        let mut index = life.committed.max(Index(node.shadow.log.base.index.0.min(status.committed.0)));
        while index < status.committed {
            index = index.next();
            let Some(mark) = node.shadow.log.entries.get(&index).copied() else {
                return Err(format!("{id} calls {index} committed and does not have it"));
            };
            self.commit(nodes, index, mark)?;
        }
        self.bytes(node, status.raft_state_bytes)?;
        Ok(status.committed)
    }

    fn commit(&mut self, nodes: &[Node], index: Index, mark: Mark) -> Checked {
        match self.committed.get(index.0 as usize - 1) {
            Some(first) if *first == mark => return Ok(()),
            Some(first) => {
                return Err(format!("entry {index} was committed as {first:?}, and now as {mark:?}"));
            }
            None if index.0 as usize == self.committed.len() + 1 => self.committed.push(mark),
            None => return Err(format!("entry {index} is committed, those before it never were")),
        }
        on_a_majority(nodes, index, mark)
    }

    fn bytes(&self, node: &Node, bytes: u64) -> Checked {
        let Some(bound) = node.config.max_raft_state else { return Ok(()) };
        let most = 2 * bound + self.largest + NO_OPS * frame_len(8);
        if bytes <= most {
            return Ok(());
        }
        Err(format!("{}: {bytes} bytes of Raft state, bound {bound}, at most {most}", node.id()))
    }

    /// Equal logs make equal maps and sessions.
    pub fn digest(&mut self, id: NodeId, applied: Index, digest: [u8; 32]) -> Checked {
        if *self.digests.entry(applied).or_insert(digest) == digest {
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

    /// All that was ever committed is on a majority of disks.
    pub fn whole(&self, nodes: &[Node]) -> Checked {
        let mut marks = self.committed.iter().enumerate();
        marks.try_for_each(|(at, mark)| on_a_majority(nodes, Index(at as u64 + 1), *mark))
    }
}

fn on_a_majority(nodes: &[Node], index: Index, mark: Mark) -> Checked {
    let holders = nodes.iter().filter(|node| node.shadow.durable.holds(index, mark)).count();
    if holders > nodes.len() / 2 {
        return Ok(());
    }
    Err(format!("entry {index} {mark:?} is on {holders} of {} disks", nodes.len()))
}
