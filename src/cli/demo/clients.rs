//! The run's clients: each a clerk of its own with one operation under way, writing down what it did and saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftmap::check::{Call, Content, History, Operation, Outcome};
use raftmap::{Clerk, Command, Error};

use super::record::Record;
use super::tokens::{Key, PART_BYTES, RECORDED_PART_BYTES, token};
use crate::cli::cluster::answers;
use crate::cli::random::Random;

/// Logs that clients append to.
const LOGS: u16 = 3;
/// Registers that clients put to.
const REGISTERS: u16 = 5;
/// Operations a client writes down at most; then it stops. Bounds memory, at some 100 bytes each.
const OPERATIONS_MAX: usize = 2_000_000;
/// How long a call may take before it is unknown and has to be asked about.
const DEADLINE: Duration = Duration::from_secs(3);
/// After a refusal a client waits this long.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What clients share.
pub(super) struct Shared {
    /// The run's clock begins here.
    started: Instant,
    /// Clients begin nothing after this.
    stop: AtomicBool,
    /// Bytes sent to each log so far: they say which part of it is in use.
    logs: [AtomicU64; LOGS as usize],
    /// Where operations are written down besides.
    pub(super) record: Record,
    /// For the eye, while it runs.
    pub(super) acked: AtomicU64,
    /// Reads answered, for the eye.
    pub(super) reads: AtomicU64,
}

impl Shared {
    /// Its clock begins now.
    pub(super) fn new(record: Record) -> Arc<Self> {
        Arc::new(Self {
            record,
            started: Instant::now(),
            stop: AtomicBool::new(false),
            logs: Default::default(),
            acked: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    /// Now, by the run's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
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
        self.part_at(log, before)
    }

    /// The part of a log that was last appended to.
    fn current(&self, log: u16) -> Key {
        self.part_at(log, self.logs.get(usize::from(log)).map_or(0, |sent| sent.load(Ordering::Relaxed)))
    }

    fn part_at(&self, log: u16, bytes: u64) -> Key {
        let part_bytes = if self.record.is_on() { RECORDED_PART_BYTES } else { PART_BYTES };
        Key::Log { log, part: u32::try_from(bytes / part_bytes).unwrap_or(u32::MAX) }
    }
}

/// One client.
pub(super) struct Client {
    id: u32,
    clerk: Clerk,
    random: Random,
    shared: Arc<Shared>,
    /// Unknown outcomes are asked about until then.
    end: Instant,
    last_number: u32,
    history: History,
}

impl Client {
    /// Client `id` of the run with this seed. It asks about unknown outcomes until `end`.
    pub(super) fn new(id: u32, seed: u64, clerk: Clerk, shared: Arc<Shared>, end: Instant) -> Self {
        let random = Random::branch(seed, id.into());
        let clerk = clerk.with_deadline(DEADLINE);
        Self { id, clerk, random, shared, end, last_number: 0, history: History::default() }
    }

    /// Works until it is told to stop; returns what it did and saw.
    pub(super) async fn run(mut self) -> History {
        while !self.shared.stopped() && self.history.len() < OPERATIONS_MAX {
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
        let key = self.shared.append_to(log, token.len() as u64).to_string();
        let command = Command::Append { key: key.clone().into(), value: token.clone().into() };
        self.write(key, Call::Append(Content::of(token.as_bytes())), &token, command).await;
    }

    async fn put(&mut self) {
        let (key, token) = (self.register().to_string(), self.token());
        let command = Command::Put { key: key.clone().into(), value: token.clone().into() };
        self.write(key, Call::Put(Content::of(token.as_bytes())), &token, command).await;
    }

    async fn read_log(&mut self) {
        let log = self.random.below(LOGS.into()) as u16;
        self.read(self.shared.current(log)).await;
    }

    async fn read_register(&mut self) {
        let key = self.register();
        self.read(key).await;
    }

    async fn read(&mut self, key: Key) {
        self.last_number += 1;
        let key = key.to_string();
        let begun = self.operation(&key, Call::Get);
        let result = self.clerk.get_with_index(&key).await;
        let returned_ns = self.shared.now();
        let Ok((index, seen)) = result else { return tokio::time::sleep(AFTER_REFUSAL).await };
        let outcome = Outcome::Done { returned_ns, index, reply: answers::found(seen.as_ref()) };
        self.ended(Operation { outcome, ..begun }, &key, seen.as_ref().map(|seen| &seen.value[..]));
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Its next operation's.
    fn token(&mut self) -> String {
        self.last_number += 1;
        token(self.id, self.last_number)
    }

    fn register(&mut self) -> Key {
        Key::Register { number: self.random.below(REGISTERS.into()) as u16 }
    }

    fn operation(&mut self, key: &str, call: Call) -> Operation {
        let (client, number, key) = (self.id, self.last_number, self.history.key(key.as_bytes()));
        Operation { client, number, key, call, invoked_ns: self.shared.now(), outcome: Outcome::Unknown }
    }

    /// Writes, finds out what came of it, and writes that down.
    async fn write(&mut self, key: String, call: Call, token: &str, command: Command) {
        let begun = self.operation(&key, call);
        let more = || {
            let left = self.end.saturating_duration_since(Instant::now());
            (!left.is_zero()).then(|| left.min(DEADLINE))
        };
        let known = match self.clerk.write(command).await {
            Err(Error::Unknown(pending)) => answers::resolve(pending, more).await,
            known => known,
        };
        let outcome = answers::outcome(&known, self.shared.now());
        self.ended(Operation { outcome, ..begun }, &key, Some(token.as_bytes()));
        match outcome {
            Outcome::Done { .. } => drop(self.shared.acked.fetch_add(1, Ordering::Relaxed)),
            Outcome::Unknown | Outcome::Refused { .. } => tokio::time::sleep(AFTER_REFUSAL).await,
        }
    }

    fn ended(&mut self, operation: Operation, key: &str, value: Option<&[u8]>) {
        self.shared.record.note(&operation, key, value);
        self.history.push(operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_in_its_next_part() {
        let shared = Shared::new(Record::default());
        assert_eq!(shared.append_to(1, PART_BYTES - 1), Key::Log { log: 1, part: 0 });
        assert_eq!(shared.append_to(1, 10), Key::Log { log: 1, part: 0 });
        assert_eq!(shared.append_to(1, 10), Key::Log { log: 1, part: 1 });
        assert_eq!(shared.current(1), Key::Log { log: 1, part: 1 });
        assert_eq!(shared.current(0), Key::Log { log: 0, part: 0 });
    }

    #[test]
    fn clients_stop_when_they_are_told() {
        let shared = Shared::new(Record::default());
        assert!(!shared.stopped());
        shared.stop();
        assert!(shared.stopped());
    }
}
