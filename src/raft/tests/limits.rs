//! Where a core says no because a number has its end.

use raftmap_storage::types::NodeId;

use super::cluster::config;
use super::units::{NoStore, follower_of_two, from_leader as from_peer, restored};
use crate::raft::message::TERM_MAX;
use crate::raft::reads::READS_MAX;
use crate::raft::{AppendOutcome, Body, Raft, ReadIndexError};

/// Behind the last term there is no election: nobody could say by which term it was won.
#[test]
fn nobody_campaigns_beyond_the_last_term() {
    let at = |term| {
        let mut raft = Raft::new(config(NodeId(1)), restored(&[1], term)).unwrap();
        (0..1_000).for_each(|_| raft.tick());
        raft.check_invariants();
        raft.ready(&NoStore).unwrap().messages.len()
    };
    assert!(at(TERM_MAX.0 - 1) > 0);
    assert_eq!(at(TERM_MAX.0), 0);
}

#[test]
fn reads_that_wait_have_a_bound() {
    let (mut raft, mut taken) = (leader_of_two(), 1);
    let refusal = loop {
        match raft.read_index() {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(taken <= READS_MAX, "no bound");
    };
    assert_eq!((taken, refusal), (READS_MAX, ReadIndexError::Busy { max: READS_MAX }));
}

/// A leader whose first entry is committed, and of whom one read was asked.
fn leader_of_two() -> Raft {
    let mut raft = follower_of_two(&[1], 1000);
    for _ in 0..100 {
        raft.tick();
        let ready = raft.ready(&NoStore).unwrap();
        if let Some((number, _)) = &ready.batch {
            raft.on_durable(*number);
        }
        for sent in ready.messages.iter().chain(&ready.messages_after_sync) {
            let body = match &sent.message.body {
                Body::PreVote { .. } => Body::PreVoteReply { granted: true },
                Body::Vote { .. } => Body::VoteReply { granted: true },
                Body::Append { prev, entries, .. } => {
                    let matched = entries.last().map_or(prev.index, |entry| entry.position.index);
                    Body::AppendReply(AppendOutcome::Accepted { matched, full: false })
                }
                _ => continue,
            };
            from_peer(&mut raft, sent.message.term.0, body);
        }
        if raft.read_index().is_ok() {
            return raft;
        }
    }
    panic!("it does not lead");
}
