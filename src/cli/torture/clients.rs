//! The run's clients: each a clerk of its own with one operation under way. What each does and sees goes into the ledger
//! as it happens, and into a history that is checked at the end of each cycle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftmap::check::{Call, Content, History, Operation, Outcome};
use raftmap::lines;
use raftmap::{Clerk, Command, Error, Written};

use super::ledger::{Ledger, Unwritable};
use crate::cli::cluster::answers;
use crate::cli::random::Random;

/// Keys that clients append to at a time.
const LOGS: u64 = 3;
/// Keys that clients put to, compare and read in a cycle.
const REGISTERS: u64 = 4;
/// Keys that are removed too.
const SLOTS: u64 = 2;
/// A log goes on in its next part from about this many bytes on, so that reading it stays cheap.
const PART_BYTES: u64 = 2 * 1024;
/// Bytes of a value that is put, usually, and while logs are to grow fast.
const PUT_BYTES: (usize, usize) = (512, 6 * 1024);
/// Operations a client writes down in a cycle at most; then it rests. Bounds memory, at some 100 bytes each.
const OPERATIONS_MAX: usize = 200_000;
/// How long a call may take before it is unknown and has to be asked about.
const DEADLINE: Duration = Duration::from_secs(3);
/// After a refusal a client waits this long.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// What clients and faults share.
pub(crate) struct Shared {
    started: Instant,
    /// Clients begin nothing after this, until they are asked again.
    stop: AtomicBool,
    /// Logs are to grow fast.
    large: AtomicBool,
    /// Bytes sent to each log of this cycle: they say which part of it is in use.
    logs: [AtomicU64; LOGS as usize],
    /// Writes acknowledged and reads answered so far.
    pub(crate) acknowledged: AtomicU64,
    /// When the latest of the acknowledged writes was sent.
    pub(crate) sent_ns: AtomicU64,
    /// Calls that found no end although everything was healed.
    pub(crate) unresolved: AtomicU64,
    /// What the auditor read and removed so far.
    pub(crate) audited: AtomicU64,
}

impl Shared {
    /// Its clock begins now.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            stop: AtomicBool::new(true),
            large: AtomicBool::new(false),
            logs: Default::default(),
            acknowledged: AtomicU64::new(0),
            sent_ns: AtomicU64::new(0),
            unresolved: AtomicU64::new(0),
            audited: AtomicU64::new(0),
        })
    }

    /// Now, by the run's clock.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets clients begin nothing more.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Lets a new cycle begin, with keys of its own.
    pub(crate) fn begin(&self) {
        for log in &self.logs {
            log.store(0, Ordering::Relaxed);
        }
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Lets values be large from now on, or not.
    pub(crate) fn ask_for_large(&self, large: bool) {
        self.large.store(large, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn sent(&self, log: u64, bytes: u64) -> u64 {
        self.logs.get(log as usize).map_or(0, |sent| sent.fetch_add(bytes, Ordering::Relaxed))
    }
}

/// One client.
pub(crate) struct Client {
    id: u32,
    clerk: Clerk,
    random: Random,
    shared: Arc<Shared>,
    ledger: Ledger,
    /// Operations so far, in all cycles.
    number: u32,
}

/// What a client did in a cycle.
pub(crate) struct Work {
    /// To go on with.
    pub(crate) client: Client,
    /// Everything it did.
    pub(crate) history: History,
    /// Whether the ledger took all of it.
    pub(crate) written: Result<(), Unwritable>,
}

impl Client {
    /// Client `id` of the run with this seed.
    pub(crate) fn new(id: u32, seed: u64, clerk: Clerk, shared: Arc<Shared>, ledger: Ledger) -> Self {
        let clerk = clerk.with_deadline(DEADLINE);
        Self { id, clerk, random: Random::branch(seed, id.into()), shared, ledger, number: 0 }
    }

    /// Works on the keys of a cycle until it is told to stop, and asks about unknown outcomes until `patience` after
    /// that.
    pub(crate) async fn work(mut self, cycle: u64, patience: Duration) -> Work {
        let mut history = History::default();
        let mut written = Ok(());
        while !self.shared.stopped() && history.len() < OPERATIONS_MAX && written.is_ok() {
            let (key, command, call) = self.choose(cycle);
            written = match command {
                Some(command) => self.write(&mut history, key, command, call, patience).await,
                None => self.read(&mut history, key).await,
            };
        }
        Work { client: self, history, written }
    }

    /// Gives its session back, as far as somebody takes it.
    pub(crate) async fn close(self) {
        // A session that cannot be given back in time expires by itself.
        let _expires = self.clerk.with_deadline(Duration::from_millis(500)).close().await;
    }

    fn choose(&mut self, cycle: u64) -> (String, Option<Command>, Call) {
        self.number += 1;
        let token = format!("c{}-{:06};", self.id, self.number);
        match self.random.below(100) {
            0..40 => {
                let (log, bytes) = (self.random.below(LOGS), token.len() as u64);
                let key = log_key(cycle, log, self.shared.sent(log, bytes));
                let call = Call::Append(Content::of(token.as_bytes()));
                (key.clone(), Some(Command::Append { key: key.into(), value: token.into() }), call)
            }
            40..55 => {
                let log = self.random.below(LOGS);
                (log_key(cycle, log, self.shared.sent(log, 0)), None, Call::Get)
            }
            55..85 => {
                let key = register_key(cycle, self.random.below(REGISTERS));
                self.at_register(key, token)
            }
            _ => {
                let key = slot_key(cycle, self.random.below(SLOTS));
                self.at_slot(key, token)
            }
        }
    }

    fn at_register(&mut self, key: String, token: String) -> (String, Option<Command>, Call) {
        let large = self.shared.large.load(Ordering::Relaxed);
        let (bytes, puts) = if large { (PUT_BYTES.1, 8) } else { (PUT_BYTES.0, 5) };
        let value = format!("{token:.<bytes$}");
        match self.random.below(10) {
            chance if chance < puts => put(key, value),
            _ => (key, None, Call::Get),
        }
    }

    fn at_slot(&mut self, key: String, token: String) -> (String, Option<Command>, Call) {
        match self.random.below(10) {
            0..3 => put(key, token),
            3..5 => (key.clone(), Some(Command::Delete { key: key.into() }), Call::Delete),
            5..7 => {
                // Only where it is absent: whether somebody else was first is told.
                let call = Call::Compare { version: 0, value: Content::of(token.as_bytes()) };
                let command =
                    Command::CompareAndPut { key: key.clone().into(), version: 0, value: token.into() };
                (key, Some(command), call)
            }
            _ => (key, None, Call::Get),
        }
    }

    async fn write(
        &mut self,
        history: &mut History,
        key: String,
        command: Command,
        call: Call,
        patience: Duration,
    ) -> Result<(), Unwritable> {
        let mut operation = self.operation(history, &key, call);
        let value = answers::written(&command);
        self.ledger.synced(lines::line(&operation, key.as_bytes(), value.as_deref())).await?;
        let result = self.clerk.write(command).await;
        operation.outcome = self.outcome(result, patience).await;
        history.push(operation);
        if operation.reply().is_some() {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.shared.sent_ns.fetch_max(operation.invoked_ns, Ordering::Relaxed);
        }
        self.ledger.written(lines::line(&operation, key.as_bytes(), value.as_deref())).await?;
        self.rest(&operation).await;
        Ok(())
    }

    async fn read(&mut self, history: &mut History, key: String) -> Result<(), Unwritable> {
        let mut operation = self.operation(history, &key, Call::Get);
        let Ok((index, found)) = self.clerk.get_with_index(&key).await else {
            history.push(operation);
            tokio::time::sleep(AFTER_REFUSAL).await;
            return self.ledger.written(lines::line(&operation, key.as_bytes(), None)).await;
        };
        operation.outcome =
            Outcome::Done { returned_ns: self.shared.now(), index, reply: answers::found(found.as_ref()) };
        history.push(operation);
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        let value = found.map(|found| found.value);
        self.ledger.written(lines::line(&operation, key.as_bytes(), value.as_deref())).await
    }

    fn operation(&self, history: &mut History, key: &str, call: Call) -> Operation {
        let (key, invoked_ns) = (history.key(key.as_bytes()), self.shared.now());
        Operation { client: self.id, number: self.number, key, call, invoked_ns, outcome: Outcome::Unknown }
    }

    async fn rest(&self, operation: &Operation) {
        if operation.reply().is_none() {
            tokio::time::sleep(AFTER_REFUSAL).await;
        }
    }

    /// How a write ended, after having found out: until long after it was told to stop.
    async fn outcome(&self, result: raftmap::Result<Written>, patience: Duration) -> Outcome {
        let mut stopped = None;
        let more = || {
            let over = self.shared.stopped() && stopped.get_or_insert_with(Instant::now).elapsed() > patience;
            (!over).then_some(DEADLINE)
        };
        let known = match result {
            Err(Error::Unknown(pending)) => answers::resolve(pending, more).await,
            known => known,
        };
        if matches!(known, Err(Error::Unknown(_))) {
            self.shared.unresolved.fetch_add(1, Ordering::Relaxed);
        }
        answers::outcome(&known, self.shared.now())
    }
}

fn put(key: String, value: String) -> (String, Option<Command>, Call) {
    let call = Call::Put(Content::of(value.as_bytes()));
    (key.clone(), Some(Command::Put { key: key.into(), value: value.into() }), call)
}

/// All keys of a cycle begin with this.
pub(crate) fn prefix(cycle: u64) -> String {
    format!("cycle-{cycle:05}/")
}

fn log_key(cycle: u64, log: u64, bytes: u64) -> String {
    format!("{}log-{log}/{:05}", prefix(cycle), bytes / PART_BYTES)
}

fn register_key(cycle: u64, number: u64) -> String {
    format!("{}register-{number}", prefix(cycle))
}

fn slot_key(cycle: u64, number: u64) -> String {
    format!("{}slot-{number}", prefix(cycle))
}
