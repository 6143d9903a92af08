//! `raftmap bench`: a closed loop of clients, each with one operation under way, and what that comes to.
//!
//! Eight clients share a clerk, which is one connection to each server and one session. In the loop nothing is shared:
//! each client keeps its own times, and they are put together at the end.

use std::time::{Duration, Instant};

use raftmap::{Clerk, Error};
use serde_json::{Value, json};

use super::calls::Cluster;
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Style};
use super::random::Random;

/// Keys in use, `key-000000000000` and on.
const KEYS: u64 = 100_000;
/// Clients that share a clerk.
const CLIENTS_PER_CLERK: usize = 8;
/// How long to wait for a leader before the load begins.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// Before counting starts connections are made and sessions opened.
const WARM_UP: Duration = Duration::from_secs(1);
/// After an error a client waits this long, so that errors are counted and not multiplied.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Op {
    /// Store a value
    Put,
    /// Append a value
    Append,
    /// Read a value; a missing key is an answer too, so run `put` first to have values
    Get,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Append => "append",
            Self::Get => "get",
        }
    }
}

const HELP: &str = "\
Keys are `key-%012d` of 100,000, drawn at random by each client. Up to 10 s are spent waiting for a leader, and a
second on warming up, before counting starts. More than 1 % errors end with exit code 4.

Example: raftmap bench --op put --clients 256 --seconds 10 --value-bytes 256";

/// Measure a cluster under load.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// What the clients do
    #[arg(long, value_enum, default_value = "put")]
    op: Op,
    /// Operations under way at one time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// How long to count
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Bytes of each value that is put or appended
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
}

/// Loads the cluster and prints what it did.
pub(crate) async fn run(args: Args, style: Style) -> Outcome {
    let clerks = connect(&args)?;
    wait_for_leader(&clerks).await?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(args.seconds);
    let value = vec![b'x'; args.value_bytes as usize];
    let mut tasks = Vec::new();
    let shared = clerks.iter().flat_map(|clerk| std::iter::repeat_n(clerk, CLIENTS_PER_CLERK));
    for (number, clerk) in (0..args.clients.into()).zip(shared) {
        let (clerk, value, random) = (clerk.clone(), value.clone(), Random::branch(1, number));
        let client = Client { clerk, op: args.op, value, random };
        tasks.push(tokio::spawn(client.run(begin, end)));
    }
    let mut tally = Tally::default();
    for task in tasks {
        tally.add(task.await.map_err(|error| Failure::not_done(format!("a client ended early: {error}")))?);
    }
    close_all(clerks).await;
    let summary = Summary::new(&args, tally);
    style.print(|| summary.words(), || summary.json())?;
    for error in &summary.first_errors {
        output::note(&format!("raftmap: {error}"));
    }
    Ok(if summary.too_many_errors() { Exit::NotDone } else { Exit::Done })
}

fn connect(args: &Args) -> Result<Vec<Clerk>, Failure> {
    (0..args.clients as usize).step_by(CLIENTS_PER_CLERK).map(|_| args.cluster.connect()).collect()
}

/// A read that a majority confirms is the proof of a leader.
async fn wait_for_leader(clerks: &[Clerk]) -> Result<(), Failure> {
    let Some(clerk) = clerks.first() else { return Ok(()) };
    let end = Instant::now() + LEADER_WAIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match clerk.with_deadline(left).len().await {
            Ok(_) => return Ok(()),
            Err(error) if left.is_zero() => return Err(error.into()),
            Err(_) => tokio::time::sleep(AFTER_ERROR).await,
        }
    }
}

async fn close_all(clerks: Vec<Clerk>) {
    let closing: Vec<_> = clerks
        .into_iter()
        .map(|clerk| {
            tokio::spawn(async move { clerk.with_deadline(Duration::from_millis(500)).close().await })
        })
        .collect();
    for close in closing {
        // A session that could not be given back expires.
        let _expires = close.await;
    }
}

struct Client {
    clerk: Clerk,
    op: Op,
    value: Vec<u8>,
    random: Random,
}

/// What one or more clients saw while it counted.
#[derive(Debug, Default)]
struct Tally {
    microseconds: Vec<u32>,
    errors: u64,
    first_errors: Vec<String>,
}

impl Client {
    async fn run(mut self, begin: Instant, end: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut key = Vec::with_capacity(16);
        loop {
            write_key(&mut key, self.random.below(KEYS));
            let started = Instant::now();
            if started >= end {
                return tally;
            }
            let result = self.call(&key).await;
            let ended = Instant::now();
            let counts = ended >= begin && ended < end;
            match result {
                Ok(()) if counts => tally.microseconds.push(microseconds(ended - started)),
                Ok(()) => {}
                Err(error) => {
                    if ended >= begin {
                        tally.note(error);
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn call(&self, key: &[u8]) -> Result<(), Error> {
        match self.op {
            Op::Put => self.clerk.put(key, &self.value).await.map(drop),
            Op::Append => self.clerk.append(key, &self.value).await.map(drop),
            Op::Get => self.clerk.get(key).await.map(drop),
        }
    }
}

/// `key-%012d`, without a formatter's detours.
fn write_key(key: &mut Vec<u8>, mut number: u64) {
    key.clear();
    key.extend_from_slice(b"key-000000000000");
    for digit in key.iter_mut().skip(4).rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn microseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl Tally {
    fn note(&mut self, error: Error) {
        self.errors += 1;
        if self.first_errors.is_empty() {
            self.first_errors.push(error.to_string());
        }
    }

    fn add(&mut self, other: Self) {
        self.microseconds.extend(other.microseconds);
        self.errors += other.errors;
        self.first_errors.extend(other.first_errors);
        self.first_errors.sort();
        self.first_errors.dedup();
    }
}

/// The result.
#[derive(Debug, PartialEq)]
struct Summary {
    op: Op,
    clients: u32,
    value_bytes: u32,
    operations: u64,
    seconds: u64,
    p50: u32,
    p99: u32,
    max: u32,
    errors: u64,
    first_errors: Vec<String>,
}

impl Summary {
    fn new(args: &Args, mut tally: Tally) -> Self {
        tally.microseconds.sort_unstable();
        let times = &tally.microseconds;
        Self {
            op: args.op,
            clients: args.clients,
            value_bytes: args.value_bytes,
            operations: times.len() as u64,
            seconds: args.seconds,
            p50: per_mille(times, 500),
            p99: per_mille(times, 990),
            max: per_mille(times, 1_000),
            errors: tally.errors,
            first_errors: tally.first_errors,
        }
    }

    /// More than one in a hundred; also when nothing at all was done.
    fn too_many_errors(&self) -> bool {
        self.operations == 0 || self.errors * 100 > self.operations + self.errors
    }

    fn rate(&self) -> u64 {
        self.operations / self.seconds.max(1)
    }

    fn words(&self) -> String {
        format!(
            "{} with {} clients and {}-byte values: {} ops/s, p50 {} us, p99 {} us, max {} us, {} errors",
            self.op.name(),
            self.clients,
            self.value_bytes,
            self.rate(),
            self.p50,
            self.p99,
            self.max,
            self.errors
        )
    }

    fn json(&self) -> Value {
        json!({
            "op": self.op.name(),
            "clients": self.clients,
            "value_bytes": self.value_bytes,
            "seconds": self.seconds,
            "ops_per_s": self.rate(),
            "p50_us": self.p50,
            "p99_us": self.p99,
            "max_us": self.max,
            "errors": self.errors,
        })
    }
}

/// The time below which `per_mille` thousandths of `sorted` lie; 0 of nothing.
fn per_mille(sorted: &[u32], per_mille: usize) -> u32 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * per_mille / 1_000).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(operations: u64, errors: u64) -> Summary {
        let (op, clients, value_bytes, seconds) = (Op::Put, 4, 256, 2);
        let (p50, p99, max, first_errors) = (1, 2, 3, Vec::new());
        Summary { op, clients, value_bytes, operations, seconds, p50, p99, max, errors, first_errors }
    }

    #[test]
    fn keys_are_written_as_they_are_known() {
        let mut key = Vec::new();
        for number in [0, 7, 99_999, 123_456_789_012] {
            write_key(&mut key, number);
            assert_eq!(key, format!("key-{number:012}").into_bytes());
        }
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_times() {
        let times: Vec<u32> = (1..=1_000).collect();
        assert_eq!([500, 990, 1_000].map(|mille| per_mille(&times, mille)), [500, 990, 1_000]);
        assert_eq!(per_mille(&[], 990), 0);
        assert_eq!(per_mille(&[7], 990), 7);
    }

    #[test]
    fn more_than_one_in_a_hundred_is_too_many() {
        assert!(!summary(99, 1).too_many_errors());
        assert!(summary(98, 2).too_many_errors());
        assert!(summary(0, 0).too_many_errors());
    }

    #[test]
    fn the_json_has_what_was_promised() {
        let json = summary(1_000, 0).json();
        for name in ["op", "clients", "value_bytes", "ops_per_s", "p50_us", "p99_us", "max_us", "errors"] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!((&json["ops_per_s"], &json["op"]), (&json!(500), &json!("put")));
    }

    #[test]
    fn tallies_are_put_together() {
        let mut tally = Tally::default();
        tally.note(Error::NoLeader);
        let mut other = Tally { microseconds: vec![5, 6], ..Tally::default() };
        other.note(Error::NoLeader);
        tally.add(other);
        assert_eq!((tally.microseconds.len(), tally.errors, tally.first_errors.len()), (2, 2, 1));
    }
}
