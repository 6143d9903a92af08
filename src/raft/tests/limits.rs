//! Where a core says no because a number has its end.

use raftmap_storage::types::{Batch, Entry, Index, Membership, NodeId, Position, SnapshotId};

use super::cluster::config;
use super::units::{NoStore, follower_of_two, from_leader as from_peer, restored};
use crate::raft::entry::{self, VOTERS_MAX};
use crate::raft::message::TERM_MAX;
use crate::raft::reads::READS_MAX;
use crate::raft::{AppendOutcome, Body, Raft, ReadIndexError, RoleKind};

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

/// Who campaigns in the last term and does not win stops asking.
#[test]
fn a_candidate_of_the_last_term_gives_up() {
    let mut raft = Raft::new(config(NodeId(1)), restored(&[1], TERM_MAX.0 - 1)).unwrap();
    while raft.soft_state().role != RoleKind::PreCandidate {
        raft.tick();
    }
    from_peer(&mut raft, TERM_MAX.0, Body::PreVoteReply { granted: true });
    let number = raft.ready(&NoStore).unwrap().batch.unwrap().0;
    raft.on_durable(number);
    assert_eq!((raft.soft_state().role, raft.soft_state().term), (RoleKind::Candidate, TERM_MAX));
    (0..1_000).for_each(|_| raft.tick());
    raft.check_invariants();
    assert_eq!(raft.soft_state().role, RoleKind::Follower);
    assert_eq!(raft.ready(&NoStore).unwrap().messages, []);
}

/// A follower without space says so and leaves entries out; a leader's first one, which lets a term begin, it takes. The
/// leader hears, once, when there is space again.
#[test]
fn without_space_a_follower_takes_no_commands() {
    let mut raft = follower_of_two(&[1], 1000);
    let said = |raft: &mut Raft| {
        let said = raft.ready(&NoStore).unwrap().messages_after_sync;
        said.into_iter().map(|sent| sent.message.body).collect::<Vec<_>>()
    };
    let append = |raft: &mut Raft, index, payload| {
        let prev = Position::new(index - 1, if index == 2 { 1 } else { 2 });
        let entries = vec![Entry::new(Position::new(index, 2), payload)];
        from_peer(raft, 2, Body::Append { number: 1, prev, commit: Index(0), entries });
        said(raft)
    };
    let accepted = |matched, full| {
        [Body::AppendReply(AppendOutcome::Accepted { matched: Index(matched), full })].to_vec()
    };
    raft.no_space(true);
    assert_eq!(append(&mut raft, 2, entry::no_op()), accepted(2, false));
    assert_eq!(append(&mut raft, 3, entry::command(b"x")), accepted(2, true));
    assert_eq!(raft.status().last, Position::new(2, 2));
    raft.no_space(true);
    assert_eq!(said(&mut raft), []);
    raft.no_space(false);
    assert_eq!(said(&mut raft), accepted(2, false));
    raft.no_space(false);
    assert_eq!(said(&mut raft), []);
    assert_eq!(append(&mut raft, 3, entry::command(b"x")), accepted(3, false));
}

/// As many as a bootstrap entry can name, and at least somebody.
#[test]
fn a_snapshot_with_too_many_members_is_not_taken() {
    for (voters, taken) in [(VOTERS_MAX, true), (VOTERS_MAX + 1, false)] {
        let mut raft = follower_of_two(&[1], 1000);
        let snapshot = SnapshotId { position: Position::new(9, 2), length: 1, digest: [0; 32] };
        let membership = Membership { voters: (1..=voters as u64).map(NodeId).collect() };
        from_peer(&mut raft, 2, Body::InstallSnapshot { snapshot, membership });
        let status = raft.status();
        assert_eq!((status.committed == Index(9), status.dropped == 0), (taken, taken), "{voters} voters");
    }
}

/// The host may still be sending a file to somebody who is no follower any more.
#[test]
fn news_of_a_snapshot_for_a_stranger_change_nothing() {
    let mut raft = leader_of_two();
    let _ = raft.ready(&NoStore).unwrap();
    let before = raft.status();
    raft.snapshot_sent(NodeId(9), Err(()));
    raft.check_invariants();
    assert_eq!((raft.status(), raft.has_ready()), (before, false));
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

/// Nothing is written to a full disk, so nothing would show that it hangs: a leader asks it, and does not wait for ever.
#[test]
fn a_leader_without_space_asks_its_disk_and_makes_way_when_that_hangs() {
    let mut raft = leader_of_two();
    let mut asked = Vec::new();
    for (no_space, ends) in [(false, 0), (true, 1)] {
        raft.no_space(no_space);
        for _ in 0..10 {
            raft.tick();
            from_peer(&mut raft, 2, Body::HeartbeatReply { round: 0, stuck: false });
            asked.extend(raft.ready(&NoStore).unwrap().batch);
        }
        assert_eq!(asked.len(), ends, "{asked:?}");
    }
    let (number, batch) = asked.remove(0);
    assert_eq!(batch, Batch::default());
    raft.on_durable(number);
    for _ in 0..100 {
        raft.tick();
        from_peer(&mut raft, 2, Body::HeartbeatReply { round: 0, stuck: false });
        asked.extend(raft.ready(&NoStore).unwrap().batch);
    }
    assert_eq!(
        (asked.len(), raft.soft_state().role),
        (1, RoleKind::Follower),
        "its second question has no answer"
    );
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
