//! Messages between members.
//!
//! ```text
//! u32 LE  length of the head
//! head    bincode of `Head`: term and body; entries as (term, checksum, length) alone
//! rest    the entries' payloads, one after another
//! ```
//! Payloads stay outside the head so that decoding slices them from the received buffer without copying.

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use raftmap_storage::types::{Entry, Index, Membership, Position, SnapshotId, Term};

use super::WireError;
use crate::codec;
use crate::raft::{AppendOutcome, Body, Message};

/// Most bytes of a head. That of [`ENTRIES_MAX`] entries takes less than a tenth.
const HEAD_MAX: usize = 1 << 20;
/// Room for a head's length and the head, but for its entries, as most are. A message may stay as long as its entries do.
const HEAD_ROOM: usize = 32;
/// Room for an entry's term, checksum and length, as most are.
const ENTRY_HEAD: usize = 12;
/// Most entries in one message: an empty one takes 3 bytes here, and some 70 in memory.
pub const ENTRIES_MAX: usize = 4096;
/// Most bytes of an announcement. One with as many members as a snapshot's header holds takes about half.
const ANNOUNCEMENT_MAX: usize = 8 * 1024;

#[derive(Serialize, Deserialize)]
struct Head {
    term: Term,
    body: WireBody,
}

#[derive(Serialize, Deserialize)]
enum WireBody {
    PreVote {
        last: Position,
    },
    PreVoteReply {
        granted: bool,
    },
    Vote {
        last: Position,
        transfer: bool,
    },
    VoteReply {
        granted: bool,
    },
    Append {
        number: u64,
        prev: Position,
        commit: Index,
        #[serde(deserialize_with = "codec::at_most::<ENTRIES_MAX, _, _>")]
        entries: Vec<EntryHead>,
    },
    Accepted {
        matched: Index,
        full: bool,
    },
    Rejected {
        number: u64,
        prev: Index,
        last: Index,
        conflict: Option<Position>,
    },
    Heartbeat {
        commit: Index,
        round: u64,
    },
    HeartbeatReply {
        round: u64,
        stuck: bool,
    },
    TimeoutNow,
}

#[derive(Serialize, Deserialize)]
struct EntryHead {
    term: Term,
    payload_crc: u32,
    payload_len: u32,
}

/// What a snapshot stream opens with: whose it is and what follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The sending leader's term.
    pub term: Term,
    /// The file that follows, byte for byte.
    pub snapshot: SnapshotId,
    /// Who counts at that point of the log.
    pub membership: Membership,
}

impl Announcement {
    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        super::encode("snapshot announcement", self, ANNOUNCEMENT_MAX)
    }

    /// Reads one back.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        codec::decode(bytes, ANNOUNCEMENT_MAX)
            .map_err(|_| WireError::Malformed { what: "snapshot announcement", length: bytes.len() })
    }
}

/// The bytes of a message. `None` for what members never send to each other.
pub fn encode(message: &Message) -> Result<Option<Bytes>, WireError> {
    let body = match &message.body {
        Body::PreVote { last } => WireBody::PreVote { last: *last },
        Body::PreVoteReply { granted } => WireBody::PreVoteReply { granted: *granted },
        Body::Vote { last, transfer } => WireBody::Vote { last: *last, transfer: *transfer },
        Body::VoteReply { granted } => WireBody::VoteReply { granted: *granted },
        Body::Append { number, prev, commit, entries } => WireBody::Append {
            number: *number,
            prev: *prev,
            commit: *commit,
            entries: entries.iter().map(entry_head).collect(),
        },
        Body::AppendReply(AppendOutcome::Accepted { matched, full }) => {
            WireBody::Accepted { matched: *matched, full: *full }
        }
        Body::AppendReply(AppendOutcome::Rejected { number, prev, last, conflict }) => {
            WireBody::Rejected { number: *number, prev: *prev, last: *last, conflict: *conflict }
        }
        Body::Heartbeat { commit, round } => WireBody::Heartbeat { commit: *commit, round: *round },
        Body::HeartbeatReply { round, stuck } => WireBody::HeartbeatReply { round: *round, stuck: *stuck },
        Body::InstallSnapshot { .. } => return Ok(None),
        Body::TimeoutNow => WireBody::TimeoutNow,
    };
    let payloads = match &message.body {
        Body::Append { entries, .. } => entries.as_slice(),
        _ => &[],
    };
    let payload_bytes: usize = payloads.iter().map(|entry| entry.payload.len()).sum();
    let mut bytes = Vec::with_capacity(HEAD_ROOM + payloads.len() * ENTRY_HEAD + payload_bytes);
    bytes.put_u32_le(0);
    codec::encode_into(&Head { term: message.term, body }, &mut bytes, HEAD_MAX)
        .map_err(|error| WireError::Unencodable { what: "message", error })?;
    let head_len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&head_len.to_le_bytes());
    payloads.iter().for_each(|entry| bytes.put_slice(&entry.payload));
    Ok(Some(bytes.into()))
}

fn entry_head(entry: &Entry) -> EntryHead {
    // The log refuses a payload over its limit, far below 4 GiB, before it gets here.
    let payload_len = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
    EntryHead { term: entry.position.term, payload_crc: entry.payload_crc, payload_len }
}

/// Reads a message back. Entries are slices of `bytes`, each checked against the checksum its leader made.
pub fn decode(bytes: &Bytes) -> Result<Message, WireError> {
    let malformed = || WireError::Malformed { what: "message", length: bytes.len() };
    let (prefix, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    let head_len = u32::from_le_bytes(*prefix) as usize;
    let head = rest.get(..head_len).ok_or_else(malformed)?;
    let head: Head = codec::decode(head, HEAD_MAX).map_err(|_| malformed())?;
    let mut payloads = bytes.slice(4 + head_len..);
    let body = match head.body {
        WireBody::PreVote { last } => Body::PreVote { last },
        WireBody::PreVoteReply { granted } => Body::PreVoteReply { granted },
        WireBody::Vote { last, transfer } => Body::Vote { last, transfer },
        WireBody::VoteReply { granted } => Body::VoteReply { granted },
        WireBody::Append { number, prev, commit, entries } => Body::Append {
            number,
            prev,
            commit,
            entries: take_entries(prev.index, entries, &mut payloads, bytes.len())?,
        },
        WireBody::Accepted { matched, full } => Body::AppendReply(AppendOutcome::Accepted { matched, full }),
        WireBody::Rejected { number, prev, last, conflict } => {
            Body::AppendReply(AppendOutcome::Rejected { number, prev, last, conflict })
        }
        WireBody::Heartbeat { commit, round } => Body::Heartbeat { commit, round },
        WireBody::HeartbeatReply { round, stuck } => Body::HeartbeatReply { round, stuck },
        WireBody::TimeoutNow => Body::TimeoutNow,
    };
    if !payloads.is_empty() {
        return Err(malformed());
    }
    Ok(Message { term: head.term, body })
}

fn take_entries(
    prev: Index,
    heads: Vec<EntryHead>,
    payloads: &mut Bytes,
    length: usize,
) -> Result<Vec<Entry>, WireError> {
    let mut index = prev;
    let mut entries = Vec::with_capacity(heads.len());
    for head in heads {
        index = index.next();
        let payload_len = head.payload_len as usize;
        if payload_len > payloads.len() {
            return Err(WireError::Malformed { what: "message", length });
        }
        let payload = payloads.split_to(payload_len);
        let entry =
            Entry { position: Position { index, term: head.term }, payload, payload_crc: head.payload_crc };
        if !entry.is_intact() {
            return Err(WireError::DamagedEntry { index: index.0 });
        }
        entries.push(entry);
    }
    Ok(entries)
}
