//! The state machine: one entry in, one outcome out.

use std::fmt;

use raftmap_storage::types::{Index, Position};

use super::command::{Command, LogTime, Outcome, Owner, Proposal, Request, SessionId};
use super::image::Image;
use super::limits::Limits;
use super::pairs::{Pairs, Versioned};
use super::scan::{Page, Scan};
use super::session::{Executed, Sessions};

/// The map and its sessions at one place in the log. A clone is one pointer for each tree and shares everything that
/// neither side changes afterwards.
///
/// ```
/// use bytes::Bytes;
/// use raftmap::kv::{Command, Limits, LogTime, Outcome, Owner, Proposal, Request, SessionId, StateMachine};
/// use raftmap_storage::types::Position;
///
/// let mut map = StateMachine::new(Limits::default());
/// let owner = Owner([7; 16]);
/// map.skip(Position::new(1, 1)); // the bootstrap entry
/// map.apply(Position::new(2, 1), Proposal { at: LogTime(0), request: Request::Open { owner } });
/// let put = Request::Execute {
///     owner,
///     session: SessionId(2),
///     sequence: 1,
///     acked_below: 1,
///     command: Command::Put { key: Bytes::from("colour"), value: Bytes::from("green") },
/// };
/// map.apply(Position::new(3, 1), Proposal { at: LogTime(5), request: put.clone() });
/// let again = map.apply(Position::new(4, 1), Proposal { at: LogTime(9), request: put });
/// assert!(matches!(again, Outcome::Duplicate { .. }));
/// assert_eq!(map.get(b"colour").map(|found| found.version), Some(3));
/// ```
#[derive(Clone)]
pub struct StateMachine {
    pub(super) limits: Limits,
    pub(super) log_time: LogTime,
    pub(super) applied: Position,
    pub(super) pairs: Pairs,
    pub(super) sessions: Sessions,
}

impl StateMachine {
    /// An empty map, before the first entry of the log. `limits` should be [valid](Limits::validate).
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            log_time: LogTime::default(),
            applied: Position::ZERO,
            pairs: Pairs::default(),
            sessions: Sessions::default(),
        }
    }

    /// Applies the committed entry at `position`. No proposal makes it panic.
    ///
    /// # Panics
    /// Where `position` is not the one behind [`StateMachine::applied`]: an entry left out or applied twice would make
    /// this replica differ from the others.
    pub fn apply(&mut self, position: Position, proposal: Proposal) -> Outcome {
        self.move_to(position);
        self.log_time = self.log_time.max(proposal.at);
        self.sessions.expire(self.log_time, &self.limits);
        match proposal.request {
            Request::Open { owner } => self.open(owner),
            Request::Close { owner, session } => self.close(owner, session),
            Request::Execute { owner, session, sequence, acked_below, command } => {
                self.execute(owner, session, (sequence, acked_below), &command)
            }
            Request::Tick => Outcome::Ticked,
        }
    }

    /// Passes over a committed entry that carries no proposal: a leader's first, the bootstrap entry.
    ///
    /// # Panics
    /// As [`StateMachine::apply`].
    pub fn skip(&mut self, position: Position) {
        self.move_to(position);
    }

    fn move_to(&mut self, position: Position) {
        let applied = self.applied;
        assert!(position.index == applied.index.next(), "entry {position} does not follow {applied}");
        assert!(position.term >= applied.term, "entry {position} is older than {applied}");
        self.applied = position;
    }

    fn open(&mut self, owner: Owner) -> Outcome {
        let session = SessionId(self.applied.index.0);
        match self.sessions.open(session, owner, self.log_time, &self.limits) {
            true => Outcome::Opened { session },
            false => Outcome::TableFull,
        }
    }

    fn close(&mut self, owner: Owner, session: SessionId) -> Outcome {
        match self.sessions.close(session, owner, self.log_time, &self.limits) {
            Ok(()) => Outcome::Closed,
            Err(reason) => Outcome::Refused { reason },
        }
    }

    fn execute(
        &mut self,
        owner: Owner,
        session: SessionId,
        numbers: (u64, u64),
        command: &Command,
    ) -> Outcome {
        let at = self.applied.index;
        match self.sessions.begin(session, owner, self.log_time, numbers, &self.limits) {
            Err(reason) => Outcome::Refused { reason },
            Ok(Some(Executed { at, reply, .. })) if !bug!(8) => {
                sometimes!("a write came twice and was answered from its session");
                Outcome::Duplicate { at, reply }
            }
            Ok(_) => {
                let reply = self.pairs.execute(command, at.0, &self.limits);
                let (sequence, _) = numbers;
                self.sessions.record(session, Executed { sequence, at, reply });
                Outcome::Executed { at, reply }
            }
        }
    }

    /// The last entry applied; [`Position::ZERO`] before the first.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// The last entry's index: what a read has to wait for.
    pub fn applied_index(&self) -> Index {
        self.applied.index
    }

    /// The highest log time that an entry carried. A new leader goes on from here.
    pub fn log_time(&self) -> LogTime {
        self.log_time
    }

    /// The limits it decides by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The value under `key` and its version. A clone of the value shares its bytes.
    pub fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.pairs.get(key)
    }

    /// The next page of `scan`.
    pub fn scan(&self, scan: &Scan) -> Page {
        self.pairs.scan(scan)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all keys and values.
    pub fn data_bytes(&self) -> u64 {
        self.pairs.bytes()
    }

    /// Sessions in the table, expired ones that were not cleared away yet included.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// Replies that clients have not acknowledged, in all sessions.
    pub fn replies_len(&self) -> usize {
        self.sessions.replies_len()
    }

    /// The earliest log time at which a [`Request::Tick`] may clear a session away; `None` where there is no session.
    pub fn next_expiry(&self) -> Option<LogTime> {
        self.sessions.next_expiry(&self.limits)
    }

    /// For bug 32: a restore that does not begin with an empty map.
    #[cfg(raftmap_bugs)]
    pub fn keep_pairs_of(&mut self, old: &Self) {
        for (key, found) in old.pairs.map.iter() {
            if self.get(key).is_none() {
                self.pairs.put(key, found.value.clone(), found.version);
            }
        }
    }

    /// This state, held still while the map goes on: for a snapshot, or for a digest taken elsewhere.
    pub fn image(&self) -> Image {
        Image::new(self.clone())
    }

    /// BLAKE3 of the whole state: equal on all replicas that have applied the same entries. Reads everything; a large
    /// map is better digested from an [`Image`] in another thread.
    pub fn digest(&self) -> [u8; 32] {
        self.image().digest()
    }
}

/// Its numbers, not its content: that may be a gibibyte.
impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine")
            .field("applied", &self.applied)
            .field("log_time", &self.log_time)
            .field("keys", &self.len())
            .field("sessions", &self.sessions_len())
            .finish_non_exhaustive()
    }
}
