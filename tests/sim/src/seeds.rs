//! Many seeds, one after another on two threads, and what they came to together; and how to see a failure again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::setup::Setup;
use crate::shrink::{Shrink, replay};
use crate::speed::cpu;
use crate::tally::Tally;
use crate::world::{Failure, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs seeds from 0 on until `count` of them count, or those that `SIM_SEED` or `SIM_SEEDS` ask for.
///
/// # Panics
/// When one fails, with everything that was drawn and the commands that show it again; with `SIM_SHRINK` set, also the
/// least of it that still fails. And when too many seeds show nothing.
pub fn seeds(test: &str, count: u64, setup: impl Fn(u64) -> Setup + Sync) -> Tally {
    let (first, end) = match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => (seed, seed + 1),
        (None, Some(seeds)) => (0, seeds),
        // One in ten may show nothing, as in a long run.
        (None, None) => (0, count * 10 / 9),
    };
    let fixed = number("SIM_SEED").or(number("SIM_SEEDS")).is_some();
    let (failed, tally) = (AtomicBool::new(false), Mutex::new(Tally { next: first, ..Tally::default() }));
    let next = || {
        let mut tally = hold(&tally);
        let enough = !fixed && tally.worlds >= count;
        (tally.next < end && !enough && !failed.load(Ordering::Relaxed)).then(|| tally.begin())
    };
    let work = || {
        while let Some(seed) = next() {
            let before = cpu();
            let ended = World::attempt(setup(seed));
            let ended = ended.map_err(|failure| {
                failed.store(true, Ordering::Relaxed);
                tell(test, setup(seed), &failure);
                failure.what
            });
            hold(&tally).end(seed, ended, cpu() - before);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
    assert_eq!(tally.unknown(), None);
    assert!(fixed || tally.worlds >= count, "only {} worlds of {end} count", tally.worlds);
    tally
}

/// Everything about a failure, and the commands for more.
fn tell(test: &str, setup: Setup, failure: &Failure) {
    eprintln!("{}{}", failure.story, failure.what);
    eprintln!("SIM_SEED={} cargo test --test sim {test}", setup.seed);
    // The command draws its world from the seed; where a test has changed that one, the line above alone shows it again.
    let drawn = Setup { sabotage: setup.sabotage, ..setup.less.clone().of(Setup::draw(setup.seed)) };
    if format!("{setup:?}") == format!("{drawn:?}") {
        eprintln!("{}", replay(&setup));
    }
    if std::env::var_os("SIM_SHRINK").is_some()
        && let Some(shrunk) = Shrink::run(setup)
    {
        shrunk.print();
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
