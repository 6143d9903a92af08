//! The numbers of a clerk's writes: one session, sequences from 1, and which of them are still unresolved.

use std::collections::BTreeSet;

use crate::kv::SessionId;

/// A write's number: the same over all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The session it was drawn in.
    pub session: SessionId,
    /// Its place there, from 1.
    pub sequence: u64,
}

/// The clerk's session, open or not.
#[derive(Debug)]
pub struct Session {
    id: Option<SessionId>,
    next: u64,
    unresolved: BTreeSet<u64>,
    window: u64,
}

impl Session {
    /// None open yet. At most `window` numbers may be unresolved at once.
    pub fn new(window: u64) -> Self {
        Self { id: None, next: 1, unresolved: BTreeSet::new(), window }
    }

    /// The open session.
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Whether one is open.
    pub fn is_open(&self) -> bool {
        self.id.is_some()
    }

    /// A new session: numbers begin again.
    pub fn open(&mut self, id: SessionId) {
        *self = Self { id: Some(id), ..Self::new(self.window) };
    }

    /// This session has expired or was given back. Another one that is open by now stays open.
    pub fn ended(&mut self, id: SessionId) {
        if self.id == Some(id) {
            *self = Self::new(self.window);
        }
    }

    /// Whether another number could be drawn.
    pub fn has_room(&self) -> bool {
        self.id.is_some() && self.next < self.low() + self.window
    }

    /// The next number, if a session is open and its window has room.
    pub fn draw(&mut self) -> Option<Number> {
        let session = self.id.filter(|_| self.has_room())?;
        let sequence = self.next;
        self.next += 1;
        self.unresolved.insert(sequence);
        Some(Number { session, sequence })
    }

    /// Nobody will ask about this number again.
    pub fn resolved(&mut self, number: Number) {
        if self.id == Some(number.session) {
            self.unresolved.remove(&number.sequence);
        }
    }

    /// Every number of that session below this one is resolved. Of an earlier session nothing is known any more: 0.
    pub fn acked_below(&self, number: Number) -> u64 {
        if self.id == Some(number.session) { self.low() } else { 0 }
    }

    fn low(&self) -> u64 {
        self.unresolved.first().copied().unwrap_or(self.next)
    }
}
