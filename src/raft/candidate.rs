//! Asking for votes: first whether there would be any (PreVote, thesis 9.6), then for real (Raft paper 5.2).
//!
//! Both rounds are one struct. Nothing of the first is durable and nobody's term changes by it, so a member that was cut
//! off comes back without disturbing the leader it could not hear.

use std::collections::BTreeMap;

use raftmap_storage::types::NodeId;

use super::Next;
use super::core::Core;
use super::message::{Body, TERM_MAX};
use super::timer::Timer;

#[derive(Debug)]
pub(super) struct Campaign {
    timer: Timer,
    /// Who answered, and whether with a vote; our own is among them.
    votes: BTreeMap<NodeId, bool>,
}

impl Campaign {
    /// Asks everybody whether they would vote for us in the next term.
    pub(super) fn ask(core: &mut Core) -> Self {
        let (last, term) = (core.log.last(), core.term().next());
        for other in core.others() {
            core.send_now(other, term, Body::PreVote { last });
        }
        Self::begin(core)
    }

    /// Enters the next term, votes for ourselves and asks for votes. The requests leave after our own vote is durable,
    /// so it is counted here already.
    pub(super) fn run(core: &mut Core) -> Self {
        core.set_hard_state(core.term().next(), Some(core.id()));
        let last = core.log.last();
        for other in core.others() {
            core.send_after_sync(other, Body::Vote { last, transfer: false });
        }
        Self::begin(core)
    }

    fn begin(core: &mut Core) -> Self {
        Self { timer: core.new_timer(), votes: BTreeMap::from([(core.id(), true)]) }
    }

    /// When the time is up: begin again, asking first.
    pub(super) fn tick(&mut self, core: &Core) -> Next {
        if !self.timer.tick() {
            return Next::Stay;
        }
        if core.is_stuck() || core.term() >= TERM_MAX {
            return Next::Follow { term: core.term(), leader: None };
        }
        if bug!(33) { Next::Campaign } else { Next::PreCampaign }
    }

    /// Counts an answer; the first one of each voter stands.
    pub(super) fn on_answer(&mut self, core: &Core, from: NodeId, granted: bool, won: Next) -> Next {
        self.votes.entry(from).or_insert(granted);
        self.outcome(core, won)
    }

    /// `won` where a majority agrees; back to waiting where it can no longer come about.
    pub(super) fn outcome(&self, core: &Core, won: Next) -> Next {
        let granted = self.votes.values().filter(|granted| **granted).count();
        let refused = self.votes.len() - granted;
        if granted >= core.majority() {
            won
        } else if refused > core.voters.len() - core.majority() {
            Next::Follow { term: core.term(), leader: None }
        } else {
            Next::Stay
        }
    }
}
