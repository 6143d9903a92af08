//! Messages between members with any numbers in them.

use raftmap::raft::{AppendOutcome, Body, Message, entry};
use raftmap_storage::types::{Entry, Index, Membership, NodeId, Position, SnapshotId, Term};

use crate::input::Input;

/// A message of `term`, or of any term.
pub(crate) fn message(input: &mut Input<'_>, term: Term) -> Message {
    let term = match input.below(8) {
        0 => Term(input.number()),
        1 => term.next(),
        _ => term,
    };
    Message { term, body: body(input, term) }
}

fn body(input: &mut Input<'_>, term: Term) -> Body {
    match input.below(13) {
        0 => Body::PreVote { last: position(input) },
        1 => Body::PreVoteReply { granted: input.yes() },
        2 => Body::Vote { last: position(input), transfer: input.yes() },
        3 => Body::VoteReply { granted: input.yes() },
        4..=6 => {
            let prev = position(input);
            Body::Append {
                number: 1,
                prev,
                commit: Index(input.number()),
                entries: entries(input, prev, term),
            }
        }
        7 => Body::AppendReply(AppendOutcome::Accepted { matched: Index(input.number()), full: input.yes() }),
        8 => Body::AppendReply(AppendOutcome::Rejected {
            prev: Index(input.number()),
            last: Index(input.number()),
            conflict: input.yes().then(|| position(input)),
            number: input.number(),
        }),
        9 => Body::Heartbeat { commit: Index(input.number()), round: input.number() },
        10 => Body::HeartbeatReply { round: input.number(), stuck: input.yes() },
        11 => installed(input),
        _ => Body::TimeoutNow,
    }
}

fn installed(input: &mut Input<'_>) -> Body {
    let snapshot = SnapshotId { position: position(input), length: input.number(), digest: [0; 32] };
    let voters = (0..input.below(4)).map(|_| NodeId(input.number())).chain([NodeId(1)]).collect();
    Body::InstallSnapshot { snapshot, membership: Membership { voters } }
}

pub(crate) fn position(input: &mut Input<'_>) -> Position {
    Position::new(input.number(), input.number())
}

/// Contiguous more often than not, and of terms that rise more often than not.
fn entries(input: &mut Input<'_>, prev: Position, term: Term) -> Vec<Entry> {
    let mut at = prev;
    (0..input.below(5))
        .map(|_| {
            let shape = input.byte();
            at = match shape {
                0..=15 => position(input),
                16..=63 => Position { index: at.index.next(), term: at.term.next() },
                64..=127 => Position { index: at.index.next(), term: term.max(at.term) },
                128.. => Position { index: at.index.next(), ..at },
            };
            let payload = match shape % 8 {
                0 => entry::no_op(),
                1 => bytes::Bytes::copy_from_slice(input.take(usize::from(shape / 8))),
                _ => entry::command(&[shape; 40][..usize::from(shape % 41)]),
            };
            Entry::new(at, payload)
        })
        .collect()
}
