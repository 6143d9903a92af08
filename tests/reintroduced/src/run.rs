//! One run of a suite, with a bug or without, and what came of it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crate::suites::{Suite, Suites};

/// A run that has not ended by then has found nothing: a test that hangs says nothing of what is wrong.
const TIME_LIMIT: Duration = Duration::from_secs(420);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Green,
    /// A check said what is wrong.
    Red {
        test: String,
        seed: Option<u64>,
        words: String,
    },
    /// The process asked for more memory than there is, in these words.
    NoMemory {
        words: String,
    },
    /// It died without a word of any test: of what, nobody knows.
    Died {
        status: String,
    },
    /// Killed at the time limit.
    Hung,
    /// No test ran: the filter names none.
    Empty,
}

impl Verdict {
    /// Whether this notices a bug.
    pub(crate) fn is_red(&self) -> bool {
        match self {
            Self::Red { .. } | Self::NoMemory { .. } => true,
            Self::Died { .. } | Self::Green | Self::Hung | Self::Empty => false,
        }
    }

    pub(crate) fn words(&self) -> String {
        match self {
            Self::Green => "green".into(),
            Self::Red { test, seed, words } => {
                let seed = seed.map(|seed| format!(" at seed {seed}")).unwrap_or_default();
                format!("red in {test}{seed}: {words}")
            }
            Self::NoMemory { words } => format!("died: {words}"),
            Self::Died { status } => format!("died: {status}"),
            Self::Hung => format!("did not end within {TIME_LIMIT:?}"),
            Self::Empty => "no test ran".into(),
        }
    }
}

/// Runs `suite` to its end or the time limit.
pub(crate) fn run(suites: &Suites, suite: &Suite, bug: Option<u32>) -> Result<Verdict, String> {
    let name = bug.map_or_else(|| suite.words().replace(':', "_"), |bug| format!("bug_{bug}"));
    let log = suites.logs.join(format!("{name}.txt"));
    let failed = |error: std::io::Error| format!("{}: {error}", log.display());
    let out = File::create(&log).map_err(failed)?;
    let mut command = suites.command(suite)?;
    command.env_remove("RAFTMAP_BUG").stdout(out.try_clone().map_err(failed)?).stderr(out);
    if let Some(bug) = bug {
        command.env("RAFTMAP_BUG", bug.to_string());
    }
    let child = command.spawn().map_err(|error| format!("cannot run {}: {error}", suite.words()))?;
    match wait(child).map_err(failed)? {
        None => Ok(Verdict::Hung),
        Some(status) => judge(status, &log).map_err(failed),
    }
}

/// `None` where it had to be killed.
fn wait(mut child: Child) -> std::io::Result<Option<ExitStatus>> {
    let until = Instant::now() + TIME_LIMIT;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait().map(|_| None)
}

fn judge(status: ExitStatus, log: &Path) -> std::io::Result<Verdict> {
    let text = std::fs::read(log)?;
    let text = String::from_utf8_lossy(&text);
    if status.success() {
        return Ok(if text.contains("\nrunning 0 tests") { Verdict::Empty } else { Verdict::Green });
    }
    let died = || Verdict::Died { status: status.to_string() };
    Ok(red(&text).or_else(|| no_memory(&text)).unwrap_or_else(died))
}

/// What the allocator says before it ends a process.
fn no_memory(text: &str) -> Option<Verdict> {
    let words = text.lines().find(|line| line.starts_with("memory allocation of "))?;
    Some(Verdict::NoMemory { words: words.into() })
}

/// The first test that failed, what its first panic said, and the seed it names.
fn red(text: &str) -> Option<Verdict> {
    let failed = text.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let section = format!("---- {} stdout ----", failed?);
    let told = text.split_once(&section).map_or(text, |(_, told)| told);
    let mut lines = told.lines().skip_while(|line| !line.contains("panicked at "));
    let place = lines.next().and_then(|line| line.split_once("panicked at ")).map_or("", |(_, place)| place);
    let words = lines.next().map_or(place, |words| if words.is_empty() { place } else { words });
    let test = failed?.trim_end_matches(" - should panic").into();
    Some(Verdict::Red { test, seed: seed(told), words: words.chars().take(160).collect() })
}

/// The number behind the first `_SEED=` or `seed `.
fn seed(told: &str) -> Option<u64> {
    let behind = ["_SEED=", "seed "].iter().find_map(|word| told.split_once(word))?.1;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "\nrunning 2 tests\ntest a::fine ... ok\ntest a::b ... FAILED\n\nfailures:\n\n\
        ---- a::b stdout ----\n\nthread '<unnamed>' (7) panicked at tests/x.rs:3:4:\nentry 5 is lost\n\
        SIM_SEED=12 cargo test --test sim b\n\nfailures:\n    a::b\n";

    #[test]
    fn a_failure_is_read() {
        let expected = Verdict::Red { test: "a::b".into(), seed: Some(12), words: "entry 5 is lost".into() };
        assert_eq!(red(FAILED), Some(expected));
    }

    #[test]
    fn a_process_that_died_has_no_failure() {
        assert_eq!(red("\nrunning 2 tests\nmemory allocation of 68719476736 bytes failed\n"), None);
    }
}
