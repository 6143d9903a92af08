//! The bytes of a snapshot's content. Equal states give equal bytes; integers are little-endian.
//!
//! ```text
//! content := version (1) head pair* session*
//! record  := kind (1) body length (4) body            head is kind 1, pair 2, session 3
//! ```
//!
//! | body    | fields and their bytes                                                                   |
//! |---------|------------------------------------------------------------------------------------------|
//! | head    | limits: key 4, value 4, sessions 4, window 4, time to live 8;                            |
//! |         | log time 8, applied index 8, its term 8, number of pairs 8, number of sessions 8         |
//! | pair    | version 8, key length 4, key, value                                                      |
//! | session | id 8, owner 16, last used 8, queued 8, acknowledged below 8, replies                     |
//! | reply   | sequence 8, index of the entry that executed it 8, kind 1, two numbers of 8 each         |
//!
//! Pairs rise by key, sessions by id, replies by sequence; a number that a kind of reply does not use is 0. There is no
//! checksum: the file around it has them.

use bytes::BufMut;
use raftmap_storage::types::{Index, Position};
use smallvec::SmallVec;

use super::command::{LogTime, Owner, Reply, SessionId};
use super::limits::{LimitError, Limits};
use super::machine::StateMachine;
use super::pairs::Versioned;
use super::session::{Executed, Session};

/// The first byte of every content.
pub(super) const VERSION: u8 = 1;
/// Bytes before a record's body.
pub(super) const RECORD_HEADER: usize = 5;
const HEAD_BODY: usize = 64;
const PAIR_FIXED: usize = 12;
const SESSION_FIXED: usize = 48;
const REPLY: usize = 33;

/// Kinds of records, in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Pair = 2,
    Session = 3,
}

/// What stands before everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) limits: Limits,
    pub(super) log_time: LogTime,
    pub(super) applied: Position,
    pub(super) pairs: u64,
    pub(super) sessions: u64,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Head, Self::Pair, Self::Session].into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Bytes that a body of this kind can have, at most: checked before any is taken in.
    pub(super) fn body_max(self, limits: &Limits) -> usize {
        match self {
            Self::Head => HEAD_BODY,
            Self::Pair => PAIR_FIXED + limits.key_bytes as usize + limits.value_bytes as usize,
            Self::Session => SESSION_FIXED + limits.window as usize * REPLY,
        }
    }
}

impl Head {
    pub(super) fn of(machine: &StateMachine) -> Self {
        Self {
            limits: machine.limits,
            log_time: machine.log_time,
            applied: machine.applied,
            pairs: machine.pairs.len() as u64,
            sessions: machine.sessions.len() as u64,
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_header(out, Kind::Head, HEAD_BODY);
        let Limits { key_bytes, value_bytes, sessions, session_ttl_ms, window } = self.limits;
        [key_bytes, value_bytes, sessions, window].into_iter().for_each(|word| out.put_u32_le(word));
        let Position { index, term } = self.applied;
        [session_ttl_ms, self.log_time.0, index.0, term.0, self.pairs, self.sessions]
            .into_iter()
            .for_each(|word| out.put_u64_le(word));
    }

    pub(super) fn take(mut body: Body<'_>) -> Option<Self> {
        let (key_bytes, value_bytes) = (body.u32()?, body.u32()?);
        let (sessions, window) = (body.u32()?, body.u32()?);
        let limits = Limits { key_bytes, value_bytes, sessions, session_ttl_ms: body.u64()?, window };
        let log_time = LogTime(body.u64()?);
        let applied = Position::new(body.u64()?, body.u64()?);
        let (pairs, sessions) = (body.u64()?, body.u64()?);
        body.is_empty().then_some(Self { limits, log_time, applied, pairs, sessions })
    }
}

pub(super) fn put_pair(out: &mut Vec<u8>, key: &[u8], found: &Versioned) {
    put_header(out, Kind::Pair, PAIR_FIXED + key.len() + found.value.len());
    out.put_u64_le(found.version);
    out.put_u32_le(length(key.len()));
    out.put_slice(key);
    out.put_slice(&found.value);
}

/// Key, value and version.
pub(super) fn take_pair(mut body: Body<'_>) -> Option<(&[u8], &[u8], u64)> {
    let version = body.u64()?;
    let key_length = body.u32()?;
    let (key, value) = body.0.split_at_checked(key_length as usize)?;
    Some((key, value, version))
}

pub(super) fn put_session(out: &mut Vec<u8>, id: SessionId, session: &Session) {
    put_header(out, Kind::Session, SESSION_FIXED + session.replies.len() * REPLY);
    out.put_u64_le(id.0);
    out.put_slice(&session.owner.0);
    [session.last_used.0, session.queued.0, session.acked_below]
        .into_iter()
        .for_each(|word| out.put_u64_le(word));
    for executed in &session.replies {
        let (kind, first, second) = reply_parts(&executed.reply);
        out.put_u64_le(executed.sequence);
        out.put_u64_le(executed.at.0);
        out.put_u8(kind);
        out.put_u64_le(first);
        out.put_u64_le(second);
    }
}

pub(super) fn take_session(mut body: Body<'_>) -> Option<(SessionId, Session)> {
    let id = SessionId(body.u64()?);
    let owner = Owner(body.array()?);
    let (last_used, queued) = (LogTime(body.u64()?), LogTime(body.u64()?));
    let acked_below = body.u64()?;
    let mut replies = SmallVec::new();
    while !body.is_empty() {
        let (sequence, at) = (body.u64()?, Index(body.u64()?));
        let [kind] = body.array()?;
        let reply = reply_of(kind, body.u64()?, body.u64()?)?;
        replies.push(Executed { sequence, at, reply });
    }
    Some((id, Session { owner, last_used, queued, acked_below, replies }))
}

fn reply_parts(reply: &Reply) -> (u8, u64, u64) {
    match *reply {
        Reply::Put { version } => (1, version, 0),
        Reply::Append { version, length } => (2, version, length),
        Reply::Delete { existed } => (3, u64::from(existed), 0),
        Reply::Swapped { version } => (4, version, 0),
        Reply::Mismatch { current } => (5, current, 0),
        Reply::OutsideLimits(LimitError::KeyEmpty) => (6, 0, 0),
        Reply::OutsideLimits(LimitError::KeyTooLong { length, limit }) => (7, length, u64::from(limit)),
        Reply::OutsideLimits(LimitError::ValueTooLong { length, limit }) => (8, length, u64::from(limit)),
    }
}

fn reply_of(kind: u8, first: u64, second: u64) -> Option<Reply> {
    Some(match (kind, first, second) {
        (1, version, 0) => Reply::Put { version },
        (2, version, length) => Reply::Append { version, length },
        (3, existed @ 0..=1, 0) => Reply::Delete { existed: existed == 1 },
        (4, version, 0) => Reply::Swapped { version },
        (5, current, 0) => Reply::Mismatch { current },
        (6, 0, 0) => Reply::OutsideLimits(LimitError::KeyEmpty),
        (7, length, limit) => {
            Reply::OutsideLimits(LimitError::KeyTooLong { length, limit: u32::try_from(limit).ok()? })
        }
        (8, length, limit) => {
            Reply::OutsideLimits(LimitError::ValueTooLong { length, limit: u32::try_from(limit).ok()? })
        }
        _ => return None,
    })
}

fn put_header(out: &mut Vec<u8>, kind: Kind, body: usize) {
    out.put_u8(kind as u8);
    out.put_u32_le(length(body));
}

/// Lengths here are sums of limits of at most 16 MiB each, so they fit; a length that did not would be read back as
/// damage.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What is left to read of a record.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl Body<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
