//! A long run: seed after seed on some threads, for hours, in as many runs as it takes.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::setup::Setup;
use crate::speed::cpu;
use crate::tally::Tally;
use crate::world::World;

/// How often the tally is saved.
const SAVE: Duration = Duration::from_secs(60);

/// Runs worlds until `length` has passed, adding to the tally in `file`; a new one begins at seed `from`.
///
/// # Errors
/// The file cannot be read, written or understood.
pub fn run(file: &Path, from: u64, length: Duration, threads: usize) -> Result<Tally, String> {
    let mut tally = Tally::load(file, from)?;
    let build = build()?;
    // What was under way when the run before stopped.
    let again = std::mem::take(&mut tally.open);
    tally.open.clone_from(&again);
    let (begun, again, tally) = (Instant::now(), Mutex::new(again), Mutex::new(tally));
    let work = || {
        while begun.elapsed() < length {
            let left = hold(&again).pop_first();
            let seed = left.unwrap_or_else(|| hold(&tally).begin());
            let before = cpu();
            let ended = World::attempt(Setup::draw(seed)).map_err(|failure| failure.what);
            let mut tally = hold(&tally);
            tally.end(seed, ended, cpu() - before);
            tally.ran_by(&build);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut saved = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            if saved.elapsed() >= SAVE {
                saved = Instant::now();
                hold(&tally).save(file)?;
            }
        }
        Ok::<(), String>(())
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.save(file)?;
    Ok(tally)
}

/// The name of this program: the first digits of its file's hash.
fn build() -> Result<String, String> {
    let bytes = std::env::current_exe().and_then(std::fs::read).map_err(|error| error.to_string())?;
    Ok(blake3::hash(&bytes).to_hex().chars().take(12).collect())
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
