//! A leader: makes entries, sends them, counts copies, proves that it still leads (Raft paper 5.3, 5.4; thesis 6.4).

use std::collections::BTreeMap;

use bytes::Bytes;
use raftmap_storage::types::{Entry, Index, NodeId, Position, SnapshotId};

use super::core::Core;
use super::entry::{self, Kind};
use super::message::{AppendOutcome, Body};
use super::progress::{Progress, Refusal};
use super::quorum;
use super::reads::{READS_MAX, Reads};
use super::ready::{ReadId, Regression};
use super::{Next, OlderEntries, ProposeError, ReadError, ReadIndexError};

#[derive(Debug)]
pub(super) struct Leader {
    peers: BTreeMap<NodeId, Progress>,
    reads: Reads,
    /// The no-op that began this reign: what counts as "committed in this term".
    first: Index,
    /// Payload bytes above the commit index.
    uncommitted_bytes: u64,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
}

impl Leader {
    /// Begins the reign with a no-op: with it, entries of earlier terms can commit (thesis 3.6.2), and reads know the
    /// commit index (thesis 6.4). It is exempt from every bound, or a full log could never commit and shrink again.
    pub(super) fn new(core: &mut Core) -> Self {
        let last = core.log.last().index;
        let window = (core.config.inflight_appends_max, core.config.inflight_bytes_max);
        let peers = core.others().into_iter().map(|peer| (peer, Progress::new(last, window))).collect();
        let mut leader = Self {
            peers,
            reads: Reads::default(),
            first: last.next(),
            uncommitted_bytes: core.log.payload_bytes(core.committed.next(), last),
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
        };
        leader.append(core, entry::no_op());
        leader
    }

    fn append(&mut self, core: &mut Core, payload: Bytes) -> Position {
        let position = Position { index: core.log.last().index.next(), term: core.term() };
        self.uncommitted_bytes += payload.len() as u64;
        core.log.append(Entry::new(position, payload));
        position
    }

    pub(super) fn propose(&mut self, core: &mut Core, payload: Bytes) -> Result<Position, ProposeError> {
        match entry::kind(&payload)? {
            Kind::Command => {}
            Kind::NoOp | Kind::Bootstrap => return Err(ProposeError::OwnKind),
        }
        if let Some(max) = core.log_bound_reached() {
            sometimes!("a proposal was refused for a full log");
            return Err(ProposeError::LogFull { bytes: core.raft_state_bytes(), max });
        }
        let (bytes, max) = (self.uncommitted_bytes, core.config.uncommitted_bytes_max);
        if bytes > 0 && bytes.saturating_add(payload.len() as u64) > max {
            sometimes!("a proposal was refused for what is not committed");
            return Err(ProposeError::Busy { bytes, max });
        }
        let position = self.append(core, payload);
        if bug!(24) {
            self.advance_commit(core);
        }
        Ok(position)
    }

    pub(super) fn read_index(&mut self, core: &mut Core) -> Result<ReadId, ReadIndexError> {
        // Before that, the commit index may be behind what the leader before us acknowledged (thesis 6.4).
        let too_early = core.committed < self.first && !bug!(21);
        if too_early && !bug!(9) {
            sometimes!("a read waited for its leader's first entry");
            return Err(ReadIndexError::NotReady);
        }
        if self.reads.len() >= READS_MAX {
            return Err(ReadIndexError::Busy { max: READS_MAX });
        }
        let id = core.next_read();
        self.reads.add(id);
        Ok(id)
    }

    pub(super) fn tick(&mut self, core: &mut Core) -> Next {
        // Its copies do not count and its entries do not become durable: somebody else can do better.
        if core.is_stuck() {
            sometimes!("a leader with a stuck disk made way");
            return Next::Follow { term: core.term(), leader: None };
        }
        self.quorum_elapsed = self.quorum_elapsed.saturating_add(1);
        if self.quorum_elapsed >= core.config.election_ticks.0 {
            self.quorum_elapsed = 0;
            if !self.check_quorum(core) {
                sometimes!("a leader without its majority made way");
                return Next::Follow { term: core.term(), leader: None };
            }
            // Without room nothing is written until a snapshot is on the disk, or space: if it hangs, no write would show it.
            if !core.has_room() {
                core.ask_disk();
            }
        }
        self.retry_snapshots(core);
        self.heartbeat_elapsed = self.heartbeat_elapsed.saturating_add(1);
        if self.heartbeat_elapsed >= core.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.peers.values_mut().for_each(Progress::heartbeat_due);
            self.send_heartbeats(core, |_| true);
        } else {
            let committed = core.committed;
            self.send_heartbeats(core, |peer| peer.untold(committed));
        }
        Next::Stay
    }

    /// Whether a majority, ourselves included, was heard since the last look (thesis 6.2). Followers whose disk is
    /// stuck are not: a leader that only has those cannot commit, and another could.
    fn check_quorum(&mut self, core: &Core) -> bool {
        let active = self.peers.values().filter(|peer| peer.recent_active).count() + 1;
        self.peers.values_mut().for_each(|peer| peer.recent_active = false);
        active >= core.majority()
    }

    fn retry_snapshots(&mut self, core: &mut Core) {
        let (now, rest) = (core.now, core.config.election_ticks.0);
        for (id, peer) in &mut self.peers {
            if peer.wants_snapshot_again(now, rest) {
                peer.snapshot_asked();
                core.ready.snapshots_wanted.push(*id);
            }
        }
    }

    fn send_heartbeats(&mut self, core: &mut Core, which: impl Fn(&Progress) -> bool) {
        let round = self.reads.round();
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| which(peer)) {
            let commit = peer.commit_for(core.committed);
            peer.heartbeat_sent(commit);
            core.send(*id, Body::Heartbeat { commit, round });
        }
    }

    pub(super) fn on_heartbeat_reply(&mut self, core: &mut Core, from: NodeId, round: u64, stuck: bool) {
        let Some(peer) = self.peers.get_mut(&from).filter(|_| round <= self.reads.round()) else {
            core.dropped += 1;
            return;
        };
        peer.recent_active |= !stuck;
        // A stuck disk does not keep a follower from knowing its term, which is all that a read asks about.
        peer.round = peer.round.max(round);
        peer.alive(core.now, core.config.election_ticks.1);
        self.confirm_reads(core);
    }

    fn confirm_reads(&mut self, core: &mut Core) {
        if !self.reads.is_running() {
            return;
        }
        let rounds = self.peers.values().map(Progress::counted_round);
        let confirmed = quorum::reached(rounds.chain([self.reads.round()]).collect());
        let confirmed = if bug!(25) { self.reads.round() } else { confirmed };
        core.ready.reads.extend(self.reads.confirm(confirmed));
    }

    pub(super) fn on_append_reply(&mut self, core: &mut Core, from: NodeId, outcome: AppendOutcome) {
        let Some(peer) = self.peers.get_mut(&from) else {
            core.dropped += 1;
            return;
        };
        match outcome {
            AppendOutcome::Accepted { matched, full } => {
                if !peer.accepted(matched, full, core.log.base().index, core.committed) {
                    core.dropped += 1;
                    return;
                }
                self.advance_commit(core);
            }
            AppendOutcome::Rejected { number, prev, last, conflict } => {
                let hint = next_to_try(core, last, conflict);
                match peer.rejected(number, prev, last, conflict, hint) {
                    Refusal::Late | Refusal::BackUp => {}
                    Refusal::Regressed { acknowledged, shown } => {
                        if bug!(31) {
                            unreachable!("{from} shows {shown} and acknowledged {acknowledged}");
                        }
                        core.ready.regressions.push(Regression { peer: from, acknowledged, shown });
                    }
                }
            }
        }
    }

    /// Commits what a majority has on disk, ourselves up to what is durable here.
    pub(super) fn advance_commit(&mut self, core: &mut Core) {
        let copies = self.peers.values().map(Progress::counted);
        let own = if bug!(24) && self.peers.is_empty() { core.log.last().index } else { core.disk.durable() };
        let index = quorum::reached(copies.chain([own]).collect());
        // Copies alone do not commit an entry of an older term: a later leader may still overwrite it. It commits
        // together with the first entry of our own term above it (thesis 3.6.2; Raft paper, Figure 8).
        if index <= core.committed {
            return;
        }
        if core.log.term_at(index) != Some(core.term()) {
            sometimes!("copies of an old term's entry committed nothing");
            return;
        }
        let committed = core.log.payload_bytes(core.committed.next(), index);
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(committed);
        core.commit(index);
    }

    pub(super) fn snapshot_sent(&mut self, core: &Core, peer: NodeId, result: Result<SnapshotId, ()>) {
        let last = core.log.last().index;
        let result = result.map(|snapshot| snapshot.position.index.min(last));
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.snapshot_reported(result, core.now);
        }
    }

    /// Whether `prepare` has something to send.
    pub(super) fn has_work(&self, core: &Core) -> bool {
        let last = core.log.last().index;
        self.reads.can_begin() || self.peers.values().any(|peer| peer.may_send(last))
    }

    /// Builds what is to be sent. This is done as late as possible, so that what arrived in between shares a message.
    pub(super) fn prepare(&mut self, core: &mut Core, older: &dyn OlderEntries) -> Result<(), ReadError> {
        if self.reads.begin(core.committed) {
            self.send_heartbeats(core, |_| true);
            self.confirm_reads(core); // where we are our own majority
        }
        for (id, peer) in &mut self.peers {
            while peer.may_send(core.log.last().index) {
                if !send_append(core, *id, peer, older)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Every read that was not confirmed.
    pub(super) fn abandon_reads(self) -> impl Iterator<Item = ReadId> {
        self.reads.abandon()
    }

    pub(super) fn peers(&self) -> &BTreeMap<NodeId, Progress> {
        &self.peers
    }

    /// Panics when a rule of a leader is broken.
    pub(super) fn check_invariants(&self, core: &Core) {
        let last = core.log.last().index;
        let bytes = core.log.payload_bytes(core.committed.next(), last);
        assert_eq!(self.uncommitted_bytes, bytes, "6: uncommitted bytes");
        assert!(self.first <= last, "6: our no-op at {} is gone", self.first);
        if self.first > core.log.base().index {
            assert_eq!(core.log.term_at(self.first), Some(core.term()), "6: our no-op at {}", self.first);
        }
        self.peers.values().for_each(|peer| peer.check_invariants(last));
    }
}

/// Sends the next append. `false` where the peer needs a snapshot instead.
fn send_append(
    core: &mut Core,
    to: NodeId,
    peer: &mut Progress,
    older: &dyn OlderEntries,
) -> Result<bool, ReadError> {
    let Some(prev) = core.log.position_at(peer.next().prev()) else {
        sometimes!("a follower's next entry was gone");
        peer.snapshot_asked();
        if bug!(18) && core.log.base() == core.log.last() {
            return Ok(false);
        }
        core.ready.snapshots_wanted.push(to);
        return Ok(false);
    };
    let last = core.log.last().index;
    if peer.must_be_empty() {
        sometimes!("an append only asked, for its window was full");
    }
    let entries = if peer.must_be_empty() || peer.next() > last {
        Vec::new()
    } else {
        let limits = (core.config.append_entries_max, core.config.append_bytes_max);
        core.log.read(peer.next(), last, limits, older)?
    };
    let through = entries.last().map_or(prev.index, |entry| entry.position.index);
    let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
    let commit = core.committed;
    let number = peer.sent(through, bytes, commit);
    core.send(to, Body::Append { number, prev, commit, entries });
    Ok(true)
}

/// Where to try next after a refusal: behind the follower's end, or before the whole term that we do not share
/// (Raft paper 5.3, last paragraph).
fn next_to_try(core: &Core, last: Index, conflict: Option<Position>) -> Index {
    let Some(conflict) = conflict else { return last.next() };
    let ours = core.log.last_not_above(conflict.term);
    if core.log.term_at(ours) == Some(conflict.term) {
        return ours.next();
    }
    sometimes!("a whole term was skipped on the way back");
    conflict.index
}
