//! Sessions: why a request that arrives twice counts once (thesis 6.3).
//!
//! A client numbers its requests in a session. The session keeps the reply to each executed number until the client
//! acknowledges it, so a number is in one of four states:
//!
//! | number                         | state                                          |
//! |--------------------------------|------------------------------------------------|
//! | below `acked_below`            | settled; the reply is forgotten, refused       |
//! | with a reply                   | executed; answered from the reply              |
//! | below `acked_below + window`   | open; executed when it comes, in any order     |
//! | above                          | refused until the client acknowledges          |
//!
//! Everything here is replicated state and decided by the log alone. That includes the expiry queue: it holds each
//! session once, under the last use that was known when it was put in, and is worked off lazily, a bounded number an
//! entry. How far a replica has got with that shows in its table, so a snapshot carries the queue as well.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use raftmap_storage::types::Index;
use smallvec::SmallVec;

use super::command::{LogTime, Owner, Refusal, Reply, SessionId};
use super::limits::Limits;

/// Sessions that one entry takes from the expiry queue, at most: the rest waits for the next entry, so that no entry
/// takes long. More than the one session that an entry can open, so the queue is always worked off.
const EXPIRED_PER_ENTRY: usize = 64;

/// A command that was executed, as its session remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Executed {
    pub(super) sequence: u64,
    /// The entry that executed it.
    pub(super) at: Index,
    pub(super) reply: Reply,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) owner: Owner,
    /// Log time of its last request.
    pub(super) last_used: LogTime,
    /// Its place in the expiry queue; at most `last_used`.
    pub(super) queued: LogTime,
    /// At least 1. Only rises.
    pub(super) acked_below: u64,
    /// Sequences rising, each in `acked_below..acked_below + window`. One lies in the session itself, so that a client
    /// with one request at a time costs no further memory. Windows are short: moving the rest up is cheap.
    pub(super) replies: SmallVec<[Executed; 1]>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    pub(super) table: OrdMap<SessionId, Arc<Session>>,
    /// `(session.queued, id)` of every session in the table.
    queue: OrdSet<(LogTime, SessionId)>,
    /// Replies in all sessions.
    replies: usize,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn replies_len(&self) -> usize {
        self.replies
    }

    /// The earliest log time at which an entry may find a session to expire.
    pub(super) fn next_expiry(&self, limits: &Limits) -> Option<LogTime> {
        let (queued, _) = self.queue.get_min()?;
        Some(LogTime(queued.0.saturating_add(limits.session_ttl_ms)))
    }

    /// Opens a session, unless the table is full.
    pub(super) fn open(&mut self, id: SessionId, owner: Owner, now: LogTime, limits: &Limits) -> bool {
        if self.len() as u64 >= u64::from(limits.sessions) {
            sometimes!("there were too many sessions for one more");
            return false;
        }
        let (last_used, queued) = (now, now);
        self.insert(id, Session { owner, last_used, queued, acked_below: 1, replies: SmallVec::new() });
        true
    }

    /// Adds a session that is not in the table.
    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        self.replies += session.replies.len();
        self.queue.insert((session.queued, id));
        self.table.insert(id, Arc::new(session));
    }

    pub(super) fn close(
        &mut self,
        id: SessionId,
        owner: Owner,
        now: LogTime,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        self.live(id, owner, now, limits)?;
        self.remove(id);
        Ok(())
    }

    /// Takes in what a request says about its session, and tells whether its number was executed before. `Ok(None)`: it
    /// is to be executed now, and to be recorded.
    pub(super) fn begin(
        &mut self,
        id: SessionId,
        owner: Owner,
        now: LogTime,
        (sequence, acked_below): (u64, u64),
        limits: &Limits,
    ) -> Result<Option<Executed>, Refusal> {
        let session = self.live(id, owner, now, limits)?;
        let before = session.replies.len();
        session.last_used = now;
        session.acknowledge(acked_below);
        let found = session.look_up(sequence, limits.window);
        let forgotten = before - session.replies.len();
        self.replies -= forgotten;
        found
    }

    /// Keeps the reply to a number that [`Sessions::begin`] found open.
    pub(super) fn record(&mut self, id: SessionId, executed: Executed) {
        if let Some(session) = self.table.get_mut(&id) {
            Arc::make_mut(session).record(executed);
            self.replies += 1;
        }
    }

    /// The session, if there still is one and it is the caller's. One that is due but still waits in the queue has
    /// expired like any other.
    fn live(
        &mut self,
        id: SessionId,
        owner: Owner,
        now: LogTime,
        limits: &Limits,
    ) -> Result<&mut Session, Refusal> {
        let session = self.table.get_mut(&id).ok_or(Refusal::SessionExpired)?;
        if session.last_used.is_over(limits.session_ttl_ms, now) {
            return Err(Refusal::SessionExpired);
        }
        if session.owner != owner {
            return Err(Refusal::NotOwner);
        }
        Ok(Arc::make_mut(session))
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.table.remove(&id) {
            self.queue.remove(&(session.queued, id));
            self.replies -= session.replies.len();
        }
    }

    /// Works off the head of the expiry queue: a session that was used since it was queued goes back in, another goes.
    pub(super) fn expire(&mut self, now: LogTime, limits: &Limits) {
        for _ in 0..EXPIRED_PER_ENTRY {
            match self.queue.get_min().copied() {
                Some((queued, id)) if queued.is_over(limits.session_ttl_ms, now) => {
                    self.expire_or_requeue(id, now, limits);
                }
                Some(_) | None => return,
            }
        }
    }

    fn expire_or_requeue(&mut self, id: SessionId, now: LogTime, limits: &Limits) {
        match self.table.get_mut(&id) {
            Some(session) if !session.last_used.is_over(limits.session_ttl_ms, now) => {
                sometimes!("a session that was due had been used since");
                let session = Arc::make_mut(session);
                self.queue.remove(&(session.queued, id));
                session.queued = session.last_used;
                self.queue.insert((session.queued, id));
            }
            Some(_) | None => {
                sometimes!("a session expired");
                self.remove(id);
            }
        }
    }
}

impl Session {
    fn acknowledge(&mut self, acked_below: u64) {
        self.acked_below = self.acked_below.max(acked_below);
        let kept_from = self.replies.partition_point(|kept| kept.sequence < self.acked_below);
        self.replies.drain(..kept_from);
        // A burst is over: give its memory back, so that an idle session is small whatever it did before.
        if self.replies.spilled() && self.replies.len() * 4 <= self.replies.capacity() {
            self.replies.shrink_to_fit();
        }
    }

    fn look_up(&self, sequence: u64, window: u32) -> Result<Option<Executed>, Refusal> {
        let acked_below = self.acked_below;
        let Some(distance) = sequence.checked_sub(acked_below) else {
            sometimes!("a write came again after its client had its answer");
            return Err(Refusal::BelowAcknowledged { acked_below });
        };
        if distance >= u64::from(window) {
            return Err(Refusal::WindowExceeded { below: acked_below.saturating_add(u64::from(window)) });
        }
        let place = self.replies.binary_search_by_key(&sequence, |kept| kept.sequence);
        Ok(place.ok().and_then(|place| self.replies.get(place).copied()))
    }

    fn record(&mut self, executed: Executed) {
        let place = self.replies.partition_point(|kept| kept.sequence < executed.sequence);
        self.replies.insert(place, executed);
    }
}
