//! The way back from a snapshot's content to a state machine: bytes in, in pieces of any size, each record checked as
//! if anyone could have written it.

use bytes::Bytes;
use thiserror::Error;

use super::command::SessionId;
use super::content::{Body, Head, Kind, RECORD_HEADER, VERSION, take_pair, take_session};
use super::machine::StateMachine;
use super::session::Session;

/// Why a content is not restored. Nothing of it is used then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Written by a later version of this program.
    #[error(
        "snapshot content has version {found}, this program reads {VERSION}: run the version that wrote it"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// Not what an [`Image`](super::Image) writes: take another copy of the snapshot.
    #[error("snapshot content is damaged in the record at byte {at}: {what}")]
    Damaged {
        /// Where the record begins, counted from the first byte of the content.
        at: u64,
        /// Which rule it breaks.
        what: &'static str,
    },
    /// Ends too early: feed the rest, or take another copy of the snapshot.
    #[error("snapshot content ends after {at} bytes, before its last record is complete")]
    Incomplete {
        /// Bytes fed.
        at: u64,
    },
}

/// Takes the content of a snapshot in. Holds the state so far and at most one record beside it.
///
/// ```
/// use raftmap::kv::{Limits, Restore, StateMachine};
///
/// let map = StateMachine::new(Limits::default());
/// let mut restore = Restore::new();
/// for chunk in map.image().chunks() {
///     restore.feed(&chunk)?;
/// }
/// assert_eq!(restore.finish()?.digest(), map.digest());
/// # Ok::<(), raftmap::kv::RestoreError>(())
/// ```
#[derive(Debug)]
pub struct Restore {
    machine: StateMachine,
    head: Head,
    next: Expected,
    /// The part of the next header or body that is here already.
    pending: Vec<u8>,
    /// Bytes taken in.
    fed: u64,
    /// Where the current record begins.
    record: u64,
    /// The first error, given again ever after.
    failed: Option<RestoreError>,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Version,
    /// Of a record of this kind.
    Header(Kind),
    Body(Kind, usize),
    End,
}

impl Expected {
    /// Bytes that it takes.
    fn length(self) -> usize {
        match self {
            Self::Version => 1,
            Self::Header(_) => RECORD_HEADER,
            Self::Body(_, length) => length,
            Self::End => 0,
        }
    }
}

impl Default for Restore {
    fn default() -> Self {
        Self::new()
    }
}

impl Restore {
    /// Ready for the first byte.
    pub fn new() -> Self {
        let head = Head::default();
        Self {
            machine: StateMachine::new(head.limits),
            head,
            next: Expected::Version,
            pending: Vec::new(),
            fed: 0,
            record: 0,
            failed: None,
        }
    }

    /// Takes the next bytes in, however many.
    ///
    /// # Errors
    /// [`RestoreError`], and the same again from then on.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        if self.failed.is_none() {
            self.failed = self.take(bytes).err();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The state machine, once the whole content is in.
    ///
    /// # Errors
    /// [`RestoreError::Incomplete`] where something is missing, and whatever [`Restore::feed`] gave.
    pub fn finish(self) -> Result<StateMachine, RestoreError> {
        match (self.failed, self.next) {
            (Some(error), _) => Err(error),
            (None, Expected::End) => Ok(self.machine),
            (None, Expected::Version | Expected::Header(_) | Expected::Body(..)) => {
                Err(RestoreError::Incomplete { at: self.fed })
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), RestoreError> {
        while !bytes.is_empty() {
            let wanted = self.next.length().saturating_sub(self.pending.len());
            if wanted == 0 {
                return Err(self.damaged("bytes behind the last record"));
            }
            let (here, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.pending.extend_from_slice(here);
            self.fed += here.len() as u64;
            bytes = rest;
            if here.len() == wanted {
                let whole = std::mem::take(&mut self.pending);
                self.advance(&whole)?;
                self.pending = whole;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// What was expected is here, whole.
    fn advance(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        match self.next {
            Expected::Version => self.version(bytes),
            Expected::Header(kind) => self.header(kind, bytes),
            Expected::Body(kind, _) => {
                match kind {
                    Kind::Head => self.head(bytes)?,
                    Kind::Pair => self.pair(bytes)?,
                    Kind::Session => self.session(bytes)?,
                }
                self.next = self.following();
                self.record = self.fed;
                Ok(())
            }
            Expected::End => Ok(()),
        }
    }

    /// The head has told how many records of each kind there are.
    fn following(&self) -> Expected {
        if (self.machine.pairs.len() as u64) < self.head.pairs {
            Expected::Header(Kind::Pair)
        } else if (self.machine.sessions.len() as u64) < self.head.sessions {
            Expected::Header(Kind::Session)
        } else {
            Expected::End
        }
    }

    fn version(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        match bytes {
            [VERSION] => {
                self.next = Expected::Header(Kind::Head);
                self.record = self.fed;
                Ok(())
            }
            [found, ..] => Err(RestoreError::Version { found: *found }),
            [] => Err(self.damaged("no version")),
        }
    }

    fn header(&mut self, expected: Kind, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut header = Body(bytes);
        let kind = header.array().and_then(|[byte]| Kind::from_byte(byte));
        self.check(kind == Some(expected), "another kind of record stands here")?;
        let length = header.u32().map_or(usize::MAX, |length| length as usize);
        self.check(length <= expected.body_max(&self.head.limits), "length over the limits")?;
        // No body is empty, and an empty one would never be complete.
        self.check(length > 0, "empty body")?;
        self.next = Expected::Body(expected, length);
        Ok(())
    }

    fn head(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let head = Head::take(Body(bytes)).ok_or_else(|| self.damaged("head of another length"))?;
        self.check(head.limits.check_workable().is_ok(), "limits out of range")?;
        self.check(head.sessions <= u64::from(head.limits.sessions), "more sessions than the limits allow")?;
        // Every pair and every session was made by an entry of its own.
        let made = head.pairs.saturating_add(head.sessions);
        self.check(made <= head.applied.index.0, "more records than entries")?;
        self.machine = StateMachine::new(head.limits);
        self.machine.log_time = head.log_time;
        self.machine.applied = head.applied;
        self.head = head;
        Ok(())
    }

    fn pair(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let (key, value, version) =
            take_pair(Body(bytes)).ok_or_else(|| self.damaged("pair shorter than its key"))?;
        let limits = &self.head.limits;
        self.check(limits.check_key(key).is_ok(), "key outside the limits")?;
        self.check(limits.check_value(value.len() as u64).is_ok(), "value outside the limits")?;
        let rises = self.machine.pairs.map.get_max().is_none_or(|(last, _)| last < key);
        self.check(rises, "keys do not rise")?;
        self.check((1..=self.head.applied.index.0).contains(&version), "version of no entry")?;
        self.machine.pairs.put(key, Bytes::copy_from_slice(value), version);
        Ok(())
    }

    fn session(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let (id, session) =
            take_session(Body(bytes)).ok_or_else(|| self.damaged("session of no possible shape"))?;
        let rises = self.machine.sessions.table.get_max().is_none_or(|(last, _)| *last < id);
        self.check(rises, "sessions do not rise")?;
        self.check((1..=self.head.applied.index.0).contains(&id.0), "session of no entry")?;
        self.check(session.queued <= session.last_used, "session queued after its last use")?;
        self.check(session.last_used <= self.head.log_time, "session used after the end")?;
        self.check_replies(id, &session)?;
        self.machine.sessions.insert(id, session);
        Ok(())
    }

    fn check_replies(&self, id: SessionId, session: &Session) -> Result<(), RestoreError> {
        self.check(session.acked_below > 0, "numbers begin at 1")?;
        let rising = session.replies.is_sorted_by(|one, next| one.sequence < next.sequence);
        self.check(rising, "replies do not rise")?;
        let window = u64::from(self.head.limits.window);
        let entries = id.0.saturating_add(1)..=self.head.applied.index.0;
        for executed in &session.replies {
            let distance = executed.sequence.checked_sub(session.acked_below);
            self.check(distance.is_some_and(|distance| distance < window), "reply outside the window")?;
            self.check(entries.contains(&executed.at.0), "reply of no entry")?;
        }
        Ok(())
    }

    fn check(&self, holds: bool, what: &'static str) -> Result<(), RestoreError> {
        if holds { Ok(()) } else { Err(self.damaged(what)) }
    }

    fn damaged(&self, what: &'static str) -> RestoreError {
        RestoreError::Damaged { at: self.record, what }
    }
}
