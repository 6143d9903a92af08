//! Many seeds, one after another on two threads, and what they came to together.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::trace::Marks;
use crate::world::Report;

/// What many worlds came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub worlds: u64,
    pub time: Duration,
    pub done: u64,
    pub events: u64,
    pub marks: Marks,
    /// Worlds with fewer than fifty answers.
    pub idle: u64,
    took: Duration,
}

impl Tally {
    fn add(&mut self, report: &Report) {
        self.worlds += 1;
        self.time += report.time;
        self.done += report.done;
        self.events += report.events;
        self.idle += u64::from(report.done < 50);
        for (name, count) in &report.marks {
            *self.marks.entry(name).or_default() += count;
        }
    }

    pub fn print(&self) {
        let Self { worlds, time, done, events, marks, idle: _, took } = self;
        println!("{worlds} worlds, {time:.0?} in them, {done} calls, {events} events, {took:.1?}");
        marks.iter().for_each(|(name, count)| println!("{count:>8} {name}"));
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs seeds 0 to `count`, or those that `SIM_SEED` or `SIM_SEEDS` ask for.
pub fn seeds(test: &str, count: u64, run: impl Fn(u64) -> Report + Sync) -> Tally {
    let began = Instant::now();
    let (first, end) = match number("SIM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SIM_SEEDS").unwrap_or(count)),
    };
    let (next, failed, tally) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Tally::default()));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let replay = Replay { test, seed, failed: &failed };
            let report = run(seed);
            drop(replay);
            tally.lock().expect("no world holds it").add(&report);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut tally = tally.into_inner().expect("no world holds it");
    tally.took = began.elapsed();
    tally
}

/// Says how to see a failure again.
struct Replay<'a> {
    test: &'a str,
    seed: u64,
    failed: &'a AtomicBool,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed.store(true, Ordering::Relaxed);
            eprintln!("SIM_SEED={} cargo test --test sim {}", self.seed, self.test);
        }
    }
}
