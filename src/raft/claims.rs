//! Whether a message can be meant at all. What fails here comes from no member of ours in its right mind: it is
//! dropped and counted, and nothing behind this file needs to fear its numbers.

use raftmap_storage::types::{Entry, Index, NodeId, Position, Term};

use super::core::Core;
use super::entry::{self, Kind, VOTERS_MAX};
use super::message::{AppendOutcome, Body, INDEX_MAX, Message, TERM_JUMP_MAX, TERM_MAX};

/// Whether `message` from `from` is worth a look.
pub(super) fn is_plausible(core: &Core, from: NodeId, message: &Message) -> bool {
    let term = message.term;
    let highest = TERM_MAX.0.min(core.term().0.saturating_add(TERM_JUMP_MAX));
    // Only members are heard. (With a changing membership, a member may be asked by one it does not know yet.)
    if from == core.id() || !core.voters.contains(&from) || term.0 > highest {
        return false;
    }
    match &message.body {
        Body::PreVote { last } | Body::Vote { last, transfer: _ } => is_place(*last, term),
        Body::Append { number: _, prev, commit, entries } => {
            *commit <= INDEX_MAX
                && is_place(*prev, term)
                && are_entries(*prev, entries, term)
                && entries.iter().all(|entry| entry.payload.len() <= core.config.payload_max)
        }
        Body::AppendReply(AppendOutcome::Accepted { matched, full: _ }) => *matched <= INDEX_MAX,
        Body::AppendReply(AppendOutcome::Rejected { number: _, prev, last, conflict }) => {
            let before = |position: &Position| position.index <= *prev && is_place(*position, term);
            *prev <= INDEX_MAX && *last <= INDEX_MAX && conflict.as_ref().is_none_or(before)
        }
        Body::Heartbeat { commit, round: _ } => *commit <= INDEX_MAX,
        Body::InstallSnapshot { snapshot, membership } => {
            let voters = membership.voters.len();
            snapshot.position.index > Index(0)
                && is_place(snapshot.position, term)
                && (1..=VOTERS_MAX).contains(&voters)
                && membership.voters.contains(&core.id())
        }
        Body::PreVoteReply { granted: _ }
        | Body::VoteReply { granted: _ }
        | Body::HeartbeatReply { round: _, stuck: _ }
        | Body::TimeoutNow => true,
    }
}

/// Nobody's log holds an entry of a later term than its own.
fn is_place(position: Position, term: Term) -> bool {
    position.index <= INDEX_MAX && position.term <= term
}

/// Contiguous behind `prev`, of rising terms, whole, and of kinds that this version can act on.
fn are_entries(prev: Position, entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    for entry in entries {
        let position = entry.position;
        let follows = position.index == before.index.next() && position.term >= before.term;
        if !follows || !is_place(position, term) || !is_entry(entry) {
            return false;
        }
        before = position;
    }
    true
}

fn is_entry(entry: &Entry) -> bool {
    let known = match entry::kind(&entry.payload) {
        Ok(Kind::NoOp | Kind::Command) => true,
        Ok(Kind::Bootstrap) => entry.position.index == Index(1),
        Err(_) => false,
    };
    known && u32::try_from(entry.payload.len()).is_ok() && entry.is_intact()
}
