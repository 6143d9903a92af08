//! A follower: keeps a log equal to its leader's, and waits for the day it hears none (Raft paper 5.2, 5.3, 7).

use raftmap_storage::types::{Entry, Index, Membership, NodeId, Position, SnapshotId};

use super::Next;
use super::core::Core;
use super::entry::{self, Kind};
use super::message::{AppendOutcome, Body, TERM_MAX};
use super::timer::Timer;

#[derive(Debug)]
pub(super) struct Follower {
    /// The leader of our term, once heard.
    pub(super) leader: Option<NodeId>,
    timer: Timer,
    /// Our log is known to equal the leader's up to here.
    verified: Index,
    /// Entries of our leader were left out for want of room, and it waits until we have some.
    left_out: bool,
}

impl Follower {
    pub(super) fn new(core: &Core, leader: Option<NodeId>, timer: Timer) -> Self {
        // A term has one leader, so a log that ends in its term equals that leader's up to there (Log Matching).
        let last = core.log.last();
        let verified = if last.term == core.term() { last.index } else { core.committed };
        Self { leader, timer, verified, left_out: false }
    }

    pub(super) fn into_timer(self) -> Timer {
        self.timer
    }

    pub(super) fn restart_timer(&mut self, core: &mut Core) {
        self.timer = core.new_timer();
    }

    pub(super) fn tick(&mut self, core: &mut Core) -> Next {
        if !self.timer.tick() {
            return Next::Stay;
        }
        self.restart_timer(core);
        // A candidate must be able to make its vote durable, and a leader its log.
        if core.is_stuck() || !core.voters.contains(&core.id()) || core.term() >= TERM_MAX {
            return Next::Stay;
        }
        if bug!(33) { Next::Campaign } else { Next::PreCampaign }
    }

    /// Whether the leader was heard within the shortest election timeout: nobody else gets our vote then (thesis 4.2.3).
    pub(super) fn hears_leader(&self, core: &Core) -> bool {
        self.leader.is_some() && self.timer.elapsed() < core.config.election_ticks.0
    }

    pub(super) fn on_heartbeat(&mut self, core: &mut Core, from: NodeId, commit: Index, round: u64) {
        self.restart_timer(core);
        assert!(!bug!(31) || commit <= core.log.last().index, "told of commit {commit}, out of range");
        // Not beyond what is verified: after a damaged disk, what stands there may not be what the leader means.
        if commit > self.verified {
            sometimes!("a follower was told of a commit beyond what it had verified");
        }
        core.commit(commit.min(self.verified));
        let stuck = core.is_stuck();
        core.send(from, Body::HeartbeatReply { round, stuck });
    }

    pub(super) fn on_append(
        &mut self,
        core: &mut Core,
        from: NodeId,
        (number, prev): (u64, Position),
        commit: Index,
        entries: Vec<Entry>,
    ) {
        self.restart_timer(core);
        if core.disk.awaits_reset() {
            sometimes!("an append came while a log was being replaced");
            return; // the leader sends it again; in the batch of the reset there is no place behind the snapshot
        }
        let outcome = match self.accept(core, (number, prev), entries) {
            Some(outcome) => outcome,
            None => {
                core.dropped += 1;
                return;
            }
        };
        match outcome {
            AppendOutcome::Accepted { matched, full } => {
                self.left_out = full;
                self.verified = self.verified.max(matched);
                core.commit(commit.min(matched)); // Raft paper, Figure 2: the last *new* entry
            }
            AppendOutcome::Rejected { .. } => {}
        }
        if bug!(6) {
            return core.send_now(from, core.term(), Body::AppendReply(outcome));
        }
        core.send_after_sync(from, Body::AppendReply(outcome));
    }

    /// Takes in what is new. `None` where the append contradicts what is committed: no leader sends that.
    fn accept(
        &self,
        core: &mut Core,
        (number, prev): (u64, Position),
        entries: Vec<Entry>,
    ) -> Option<AppendOutcome> {
        // What is committed here is in every leader's log (Leader Completeness), also where we no longer have it.
        if contradicts_commit(core, prev) {
            return None;
        }
        if prev.index > core.committed && !core.log.holds(prev) {
            return Some(refuse(core, number, prev.index));
        }
        let mut matched = prev.index;
        for entry in entries {
            let position = entry.position;
            if contradicts_commit(core, position) {
                return None;
            }
            let known = position.index <= core.committed || core.log.holds(position);
            if !known {
                if core.log.last().index >= position.index {
                    // A real conflict, and the only reason to cut: a short or late append never is (Raft paper 5.3).
                    let last = core.log.position_at(position.index.prev())?;
                    core.truncate(last);
                }
                if !core.has_room() && entry::kind(&entry.payload) != Ok(Kind::NoOp) {
                    sometimes!("a full follower left entries out");
                    return Some(AppendOutcome::Accepted { matched, full: true });
                }
                core.log.append(entry);
            }
            matched = position.index;
        }
        // An append that ends below the commit says nothing new; what is committed is equal all the same.
        Some(AppendOutcome::Accepted { matched, full: false })
    }

    /// The log may have become shorter, or the disk larger: a leader that waits for it need not wait for its next heartbeat.
    pub(super) fn room_again(&mut self, core: &mut Core) {
        let Some(leader) = self.leader.filter(|_| self.left_out && core.has_room()) else { return };
        sometimes!("a follower said that it has room again");
        self.left_out = false;
        core.send_after_sync(
            leader,
            Body::AppendReply(AppendOutcome::Accepted { matched: self.verified, full: false }),
        );
    }

    /// The file of `snapshot` has arrived from the leader and is durable under its name (Raft paper 7).
    pub(super) fn on_install(
        &mut self,
        core: &mut Core,
        from: NodeId,
        snapshot: SnapshotId,
        membership: Membership,
    ) {
        self.restart_timer(core);
        if snapshot.position.index > core.committed {
            core.install(snapshot);
            core.voters = membership.voters;
            self.verified = self.verified.max(snapshot.position.index);
        }
        // Committed is equal everywhere, so this is true also of a snapshot that came too late to be of use.
        let matched = core.committed;
        core.send_after_sync(from, Body::AppendReply(AppendOutcome::Accepted { matched, full: false }));
    }
}

/// Whether another entry is committed in this one's place.
fn contradicts_commit(core: &Core, position: Position) -> bool {
    position.index <= core.committed
        && core.log.term_at(position.index).is_some_and(|term| term != position.term)
}

/// Why the append behind `prev` cannot be taken, with what the leader needs to go back a whole term at once
/// (Raft paper 5.3, last paragraph).
fn refuse(core: &Core, number: u64, prev: Index) -> AppendOutcome {
    let conflict = core.log.term_at(prev).and_then(|term| {
        let first = core.log.first_of_term(prev)?;
        Some(Position { index: first, term })
    });
    AppendOutcome::Rejected { number, prev, last: core.log.last().index, conflict }
}
