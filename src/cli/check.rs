//! `raftmap check`: whether a recorded history can be true, by the checkers that `demo` and `torture` use.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use raftmap::check::{self, Verdict};
use raftmap::lines;
use serde_json::{Map, Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::output::Style;

const HELP: &str = "\
FILE holds one operation a line, as `raftmap demo` and `raftmap torture` write it with --history; the README
says what is in a line. The history begins with an empty map, and its times are of one monotonic clock.

Exit codes: 0 it can be true, 1 it cannot, or more than one check in a thousand ran out of budget, 2 it is no history.

Examples:
  raftmap check history.jsonl
  raftmap check - --json < history.jsonl";

/// Check a recorded history: nothing lost, doubled, stale, or out of order
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The history; `-` is standard input
    file: PathBuf,
}

/// Reads, checks, says.
pub(crate) fn run(args: &Args, style: Style) -> Outcome {
    let input = open(&args.file)
        .map_err(|error| Failure::usage(format!("cannot open {}: {error}", args.file.display())))?;
    let history = lines::read(input)
        .map_err(|error| Failure::usage(format!("{} is no history: {error}", args.file.display())))?;
    if history.is_empty() {
        return Err(Failure::usage(format!("{} holds no operation", args.file.display())));
    }
    let verdict = check::check(&history);
    style.print(|| verdict.to_string(), || json(&verdict))?;
    Ok(if verdict.passed() { Exit::Done } else { Exit::No })
}

fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    Ok(Box::new(BufReader::new(File::open(file)?)))
}

fn json(verdict: &Verdict) -> Value {
    let mut found = Map::new();
    for (name, findings) in verdict.findings() {
        let kinds: Map<String, Value> =
            findings.kinds().map(|(kind, count)| (kind.replace(' ', "_"), count.into())).collect();
        found.insert(name.into(), kinds.into());
    }
    json!({
        "passed": verdict.passed(),
        "operations": verdict.operations,
        "keys": verdict.keys,
        "checks": verdict.checks.all(),
        "unknown": verdict.checks.unknown(),
        "found": found,
        "examples": verdict.examples().collect::<Vec<_>>(),
    })
}
