//! The run's clients: each a clerk of its own with one operation under way, writing down what it did and saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftmap::{Clerk, Error, Pending};

use super::history::{History, Key, Moment, Outcome, PART_BYTES, Read, Seen, Token, Write};
use crate::cli::random::Random;

/// Logs that clients append to.
const LOGS: u16 = 3;
/// Registers that clients put to.
const REGISTERS: u16 = 5;
/// Operations a client writes down at most; then it stops. Bounds memory, at some 60 bytes each.
const OPERATIONS_MAX: usize = 2_000_000;
/// How long a call may take before it is unknown and has to be asked about.
const DEADLINE: Duration = Duration::from_secs(3);
/// After a refusal a client waits this long.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What clients share.
pub(super) struct Board {
    /// The run's clock begins here.
    started: Instant,
    /// Clients begin nothing after this.
    stop: AtomicBool,
    /// Bytes sent to each log so far: they say which part of it is in use.
    logs: [AtomicU64; LOGS as usize],
    /// For the eye, while it runs.
    pub(super) acked: AtomicU64,
    /// Reads answered, for the eye.
    pub(super) reads: AtomicU64,
}

impl Board {
    /// An empty board; its clock begins now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            logs: Default::default(),
            acked: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    /// Now, by the run's clock.
    pub(super) fn now(&self) -> Moment {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(Moment::MAX)
    }

    /// Lets clients begin nothing more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The part of a log to append `bytes` to.
    fn append_to(&self, log: u16, bytes: u64) -> Key {
        let before =
            self.logs.get(usize::from(log)).map_or(0, |sent| sent.fetch_add(bytes, Ordering::Relaxed));
        part_at(log, before)
    }

    /// The part of a log that was last appended to.
    fn current(&self, log: u16) -> Key {
        part_at(log, self.logs.get(usize::from(log)).map_or(0, |sent| sent.load(Ordering::Relaxed)))
    }
}

fn part_at(log: u16, bytes: u64) -> Key {
    Key::Log { log, part: u32::try_from(bytes / PART_BYTES).unwrap_or(u32::MAX) }
}

/// One client.
pub(super) struct Client {
    id: u16,
    clerk: Clerk,
    random: Random,
    board: Arc<Board>,
    /// Unknown outcomes are asked about until then.
    end: Instant,
    last_number: u32,
    history: History,
}

impl Client {
    /// Client `id` of the run with this seed. It asks about unknown outcomes until `end`.
    pub(super) fn new(id: u16, seed: u64, clerk: Clerk, board: Arc<Board>, end: Instant) -> Self {
        let random = Random::branch(seed, id.into());
        let clerk = clerk.with_deadline(DEADLINE);
        Self { id, clerk, random, board, end, last_number: 0, history: History::default() }
    }

    /// Works until the board says stop; returns what it did and saw.
    pub(super) async fn run(mut self) -> History {
        while !self.board.stopped() && self.history.writes.len() + self.history.reads.len() < OPERATIONS_MAX {
            match self.random.below(100) {
                0..50 => self.append().await,
                50..65 => self.put().await,
                65..85 => self.read_log().await,
                _ => self.read_register().await,
            }
        }
        // A session that cannot be given back in time expires by itself.
        let _expires = self.clerk.with_deadline(Duration::from_millis(500)).close().await;
        self.history
    }

    async fn append(&mut self) {
        let (log, token) = (self.random.below(LOGS.into()) as u16, self.token());
        let text = token.to_string();
        let key = self.board.append_to(log, text.len() as u64);
        let invoked = self.board.now();
        let result = self.clerk.append(key.to_string(), &text).await;
        self.wrote(token, key, invoked, result).await;
    }

    async fn put(&mut self) {
        let (key, token) = (self.register(), self.token());
        let invoked = self.board.now();
        let result = self.clerk.put(key.to_string(), token.to_string()).await;
        self.wrote(token, key, invoked, result).await;
    }

    async fn read_log(&mut self) {
        let log = self.random.below(LOGS.into()) as u16;
        self.read(self.board.current(log)).await;
    }

    async fn read_register(&mut self) {
        let key = self.register();
        self.read(key).await;
    }

    async fn read(&mut self, key: Key) {
        let invoked = self.board.now();
        let result = self.clerk.get(key.to_string()).await;
        let returned = self.board.now();
        let Ok(found) = result else { return tokio::time::sleep(AFTER_REFUSAL).await };
        let seen = found.map_or(Seen::ABSENT, |found| Seen::of(found.version, &found.value));
        self.history.reads.push(Read { key, invoked, returned, seen });
        self.board.reads.fetch_add(1, Ordering::Relaxed);
    }

    fn token(&mut self) -> Token {
        self.last_number += 1;
        Token { client: self.id, number: self.last_number }
    }

    fn register(&mut self) -> Key {
        Key::Register { number: self.random.below(REGISTERS.into()) as u16 }
    }

    /// Writes down how a write ended, after having found out.
    async fn wrote(&mut self, token: Token, key: Key, invoked: Moment, result: raftmap::Result<u64>) {
        let outcome = match result {
            Ok(version) => Outcome::Acked { version },
            Err(Error::Unknown(pending)) => resolve(pending, self.end).await,
            Err(Error::SessionExpired) => Outcome::Unknown,
            // Every other error promises that it was not done, and the check holds it to that.
            Err(_) => Outcome::NotDone,
        };
        let returned = self.board.now();
        self.history.writes.push(Write { token, key, invoked, returned, outcome });
        match outcome {
            Outcome::Acked { .. } => drop(self.board.acked.fetch_add(1, Ordering::Relaxed)),
            Outcome::Unknown | Outcome::NotDone => tokio::time::sleep(AFTER_REFUSAL).await,
        }
    }
}

/// Asks about a write under its own number, until somebody knows or the time is over.
async fn resolve(mut pending: Pending, end: Instant) -> Outcome {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Outcome::Unknown;
        }
        match pending.resolve(left.min(DEADLINE)).await {
            Ok(written) => {
                let stored = written.version().map(|version| Outcome::Acked { version });
                return stored.unwrap_or(Outcome::NotDone);
            }
            Err(Error::Unknown(again)) => pending = again,
            // Whatever it was, it does not undo that the write had been sent.
            Err(_) => return Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_in_its_next_part() {
        let board = Board::new();
        assert_eq!(board.append_to(1, PART_BYTES - 1), Key::Log { log: 1, part: 0 });
        assert_eq!(board.append_to(1, 10), Key::Log { log: 1, part: 0 });
        assert_eq!(board.append_to(1, 10), Key::Log { log: 1, part: 1 });
        assert_eq!(board.current(1), Key::Log { log: 1, part: 1 });
        assert_eq!(board.current(0), Key::Log { log: 0, part: 0 });
    }

    #[test]
    fn clients_stop_when_they_are_told() {
        let board = Board::new();
        assert!(!board.stopped());
        board.stop();
        assert!(board.stopped());
    }
}
