//! Known bugs of others, put into this code one at a time, and the suite that must go red with each.
//!
//! ```sh
//! cargo run -p raftmap-reintroduced                 # all of bugs.tsv, as a table
//! cargo run -p raftmap-reintroduced -- 15 20        # these alone
//! cargo run -p raftmap-reintroduced -- --markdown
//! cargo run -p raftmap-reintroduced -- --suite sim:random_worlds --seeds 500 15     # would another suite find it?
//! ```
//!
//! The suites are built once, with `--cfg raftmap_bugs` in a target folder of their own; each is run without a bug first
//! and must be green, then with each bug that names it. What a run printed is kept beside the build. It ends with 1
//! if a suite is red without a bug, or stays green with one.

#![allow(clippy::print_stdout, reason = "it prints a table")]

mod report;
mod run;
mod suites;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use run::Verdict;
use suites::{Suite, Suites};
use table::Bug;

/// What the command line asks for.
struct Asked {
    numbers: Vec<u32>,
    markdown: bool,
    suite: Option<String>,
    seeds: Option<u64>,
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { numbers: Vec::new(), markdown: false, suite: None, seeds: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--markdown" => asked.markdown = true,
            "--suite" => asked.suite = Some(value()?),
            "--seeds" => asked.seeds = Some(number(&value()?)?),
            _ => asked.numbers.push(number(&word)?),
        }
    }
    Ok(asked)
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is no number of a bug, nor --markdown, --suite or --seeds"))
}

/// The rows asked for; with another suite or budget where that is asked for.
fn chosen(asked: &Asked) -> Result<Vec<Bug>, String> {
    let mut bugs = table::bugs()?;
    if let Some(unknown) = asked.numbers.iter().find(|number| bugs.iter().all(|bug| bug.number != **number)) {
        return Err(format!("there is no bug {unknown} in bugs.tsv"));
    }
    bugs.retain(|bug| asked.numbers.is_empty() || asked.numbers.contains(&bug.number));
    for suite in bugs.iter_mut().filter_map(|bug| bug.suite.as_mut()) {
        if let Some(other) = &asked.suite {
            *suite = Suite::parse(other, "-")?;
        }
        suite.seeds = asked.seeds.or(suite.seeds);
    }
    Ok(bugs)
}

/// Runs everything; whether all of it went as the table says.
fn run(root: &Path, asked: &Asked) -> Result<bool, String> {
    let bugs = chosen(asked)?;
    let wanted: Vec<&Suite> = bugs.iter().filter_map(|bug| bug.suite.as_ref()).collect();
    let suites = Suites::build(root, &wanted)?;
    for suite in suites::largest(&wanted) {
        let verdict = run::run(&suites, &suite, None)?;
        println!("without a bug: {} {}", suite.words(), verdict.words());
        if verdict != Verdict::Green {
            return Err(format!("{} must be green without a bug", suite.words()));
        }
    }
    let mut verdicts = BTreeMap::new();
    for bug in &bugs {
        if let Some(suite) = &bug.suite {
            let verdict = run::run(&suites, suite, Some(bug.number))?;
            println!("bug {}: {}", bug.number, verdict.words());
            verdicts.insert(bug.number, verdict);
        }
    }
    println!("\n{}", report::table(&bugs, &verdicts, asked.markdown));
    Ok(verdicts.values().all(Verdict::is_red))
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let done = root
        .canonicalize()
        .map_err(|error| error.to_string())
        .and_then(|root| run(&root, &asked(std::env::args().skip(1))?));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
