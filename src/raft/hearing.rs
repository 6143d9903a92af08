//! Who hears what: the terms of messages (Raft paper 5.1), one table from message to role, and the giving of votes.

use raftmap_storage::types::{NodeId, Position, Term};

use super::core::Core;
use super::follower::Follower;
use super::message::{AppendOutcome, Body};
use super::{Next, Raft, Role};

/// Terms.
impl Raft {
    /// Whether a message of a higher term makes it ours. Questions about a term that may never be do not, nor does a
    /// vote for somebody else while we hear a leader or are one (thesis 4.2.3).
    pub(super) fn adopts(&self, term: Term, body: &Body) -> bool {
        match body {
            Body::PreVote { .. } | Body::PreVoteReply { granted: true } => false,
            Body::Vote { transfer, .. } => *transfer || !self.hears_leader() || bug!(33),
            Body::PreVoteReply { granted: false }
            | Body::VoteReply { .. }
            | Body::Append { .. }
            | Body::AppendReply(_)
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::InstallSnapshot { .. }
            | Body::TimeoutNow => term > self.core.term(),
        }
    }

    fn hears_leader(&self) -> bool {
        match &self.role {
            Role::Follower(follower) => follower.hears_leader(&self.core),
            Role::PreCandidate(_) | Role::Candidate(_) => false,
            Role::Leader(_) => true, // its quorum is checked; once lost, it is no leader
        }
    }

    /// A message of a term that is over. Its sender learns our term from the answer, or a leader that everybody has left,
    /// and a member whose term nobody shares, would never find back.
    pub(super) fn answer_the_past(&mut self, from: NodeId, body: &Body) {
        let core = &mut self.core;
        match body {
            Body::PreVote { .. } => core.send(from, Body::PreVoteReply { granted: false }),
            Body::Vote { .. } => core.send(from, Body::VoteReply { granted: false }),
            Body::Append { number, prev, .. } => {
                let (number, prev, last) = (*number, prev.index, core.log.last().index);
                let outcome = AppendOutcome::Rejected { number, prev, last, conflict: None };
                core.send(from, Body::AppendReply(outcome));
            }
            Body::Heartbeat { .. } => {
                let stuck = core.is_stuck();
                core.send(from, Body::HeartbeatReply { round: 0, stuck });
            }
            Body::PreVoteReply { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply(_)
            | Body::HeartbeatReply { .. }
            | Body::InstallSnapshot { .. }
            | Body::TimeoutNow => {}
        }
    }
}

/// Who hears what. All that arrives here is of our term, except for votes that we would not move for.
impl Raft {
    pub(super) fn hear(&mut self, from: NodeId, term: Term, body: Body) -> Next {
        if bug!(20)
            && matches!(body, Body::AppendReply(_) | Body::HeartbeatReply { .. } | Body::VoteReply { .. })
        {
            let voted_for_ourselves = self.core.hard_state.vote == Some(self.core.id());
            if voted_for_ourselves
                && matches!(&self.role, Role::Follower(follower) if follower.leader.is_none())
            {
                return Next::Lead;
            }
        }
        match body {
            Body::PreVote { last } => self.on_pre_vote(from, term, last),
            Body::PreVoteReply { granted } => self.on_pre_vote_reply(from, term, granted),
            Body::Vote { last, transfer: _ } => self.on_vote(from, term, last),
            Body::VoteReply { granted } => match &mut self.role {
                Role::Candidate(campaign) => campaign.on_answer(&self.core, from, granted, Next::Lead),
                Role::Follower(_) | Role::PreCandidate(_) | Role::Leader(_) => Next::Stay,
            },
            Body::Append { number, prev, commit, entries } => {
                if let Some((follower, core)) = self.heard_leader(from) {
                    follower.on_append(core, from, (number, prev), commit, entries);
                }
                Next::Stay
            }
            Body::Heartbeat { commit, round } => {
                if let Some((follower, core)) = self.heard_leader(from) {
                    follower.on_heartbeat(core, from, commit, round);
                }
                Next::Stay
            }
            Body::InstallSnapshot { snapshot, membership } => {
                if let Some((follower, core)) = self.heard_leader(from) {
                    follower.on_install(core, from, snapshot, membership);
                }
                Next::Stay
            }
            Body::AppendReply(outcome) => self.on_append_reply(from, outcome),
            Body::HeartbeatReply { round, stuck } => self.on_heartbeat_reply(from, round, stuck),
            // Nobody hands over leadership yet. To campaign unasked would only disturb (thesis 3.10).
            Body::TimeoutNow => Next::Stay,
        }
    }

    /// A leader of our term speaks: we are its follower. `None` where we follow another or lead ourselves, which a term's
    /// majority excludes.
    fn heard_leader(&mut self, from: NodeId) -> Option<(&mut Follower, &mut Core)> {
        if matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_)) {
            sometimes!("a candidate found that another leads");
            self.become_next(Next::Follow { term: self.core.term(), leader: Some(from) });
        }
        match &mut self.role {
            Role::Follower(follower) if follower.leader.is_none_or(|leader| leader == from) => {
                follower.leader = Some(from);
                Some((follower, &mut self.core))
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                self.core.dropped += 1;
                None
            }
        }
    }

    /// Whether a log that ends in `last` holds all that ours may have seen committed (Raft paper 5.4.1): first the term,
    /// then the length.
    fn is_up_to_date(&self, last: Position) -> bool {
        let ours = self.core.log.last();
        (last.term, last.index) >= (ours.term, ours.index) || bug!(7)
    }

    fn on_pre_vote(&mut self, from: NodeId, term: Term, last: Position) -> Next {
        // With a stuck disk there would be no vote either.
        let willing = !self.hears_leader() && !self.core.is_stuck();
        if !willing {
            sometimes!("a pre-vote was refused near a leader or by a stuck disk");
        }
        let granted = willing && term > self.core.term() && self.is_up_to_date(last);
        if granted {
            // The answer is about the asker's next term; ours stays.
            self.core.send_now(from, term, Body::PreVoteReply { granted });
        } else {
            self.core.send(from, Body::PreVoteReply { granted });
        }
        Next::Stay
    }

    fn on_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) -> Next {
        match &mut self.role {
            Role::PreCandidate(campaign) if !granted || term == self.core.term().next() => {
                campaign.on_answer(&self.core, from, granted, Next::Campaign)
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => Next::Stay,
        }
    }

    fn on_vote(&mut self, from: NodeId, term: Term, last: Position) -> Next {
        if term > self.core.term() {
            return Next::Stay; // not adopted: we hear a leader
        }
        // A repeated request is granted again: the first answer may be lost.
        let free = match self.core.hard_state.vote {
            Some(vote) => vote == from,
            None => self.leader().is_none(),
        };
        let granted = free && self.is_up_to_date(last);
        if free && !granted {
            sometimes!("a vote was refused for an older log");
        }
        if granted {
            self.core.set_hard_state(term, Some(from));
            self.wait_for_the_elected();
        }
        if bug!(2) {
            self.core.send_now(from, term, Body::VoteReply { granted });
            return Next::Stay;
        }
        self.core.send_after_sync(from, Body::VoteReply { granted });
        Next::Stay
    }

    /// Who gave its vote away waits for its winner, from now on.
    fn wait_for_the_elected(&mut self) {
        match &mut self.role {
            Role::Follower(follower) => follower.restart_timer(&mut self.core),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                self.become_next(Next::Follow { term: self.core.term(), leader: None });
            }
        }
    }

    fn on_append_reply(&mut self, from: NodeId, outcome: AppendOutcome) -> Next {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_append_reply(&mut self.core, from, outcome);
        }
        Next::Stay
    }

    fn on_heartbeat_reply(&mut self, from: NodeId, round: u64, stuck: bool) -> Next {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_heartbeat_reply(&mut self.core, from, round, stuck);
        }
        Next::Stay
    }
}
