//! The simulated world by hand: long runs, one seed again, one seed with less and less in it, and how fast it all is.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use raftmap_sim::history::{Call, json_lines};
use raftmap_sim::less::{Less, items};
use raftmap_sim::setup::{Sabotage, Setup};
use raftmap_sim::shrink::Shrink;
use raftmap_sim::world::World;
use raftmap_sim::{soak, speed};

#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
raftmap-sim soak --tally FILE [--hours H] [--from SEED] [--threads N]
    worlds of random seeds, added to the tally in FILE; 1 hour, from seed 1000000, on 2 threads
raftmap-sim replay --seed N [--without KIND,...] [--skip NUMBER,...]
                   [--nodes N] [--clients N] [--keys N] [--until MS] [--sabotage NAME] [--history FILE]
    the world of one seed, all of it or with less in it; FILE has what clients saw, for `raftmap check`
raftmap-sim shrink --seed N [as replay, without a history]
    leaves out more and more, as long as it fails for the same reason
raftmap-sim speed [--seed N] [--hours H]
    simulated hours per CPU-hour, of a quiet cluster of three at 200 writes a second";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    run(&words).unwrap_or_else(|wrong| {
        eprintln!("{wrong}\n\n{USAGE}");
        ExitCode::from(2)
    })
}

fn run(words: &[String]) -> Result<ExitCode, String> {
    let (command, words) = words.split_first().ok_or("what shall be done?")?;
    let mut options = Options::new(words)?;
    match command.as_str() {
        "soak" => soak(options),
        "replay" => {
            let (history, setup) = (options.text("--history"), setup(&mut options)?);
            options.end()?;
            replay(setup, history)
        }
        "shrink" => Ok(shrink(setup(&mut options).and_then(|setup| options.end().map(|()| setup))?)),
        "speed" => {
            let (seed, hours) = (options.value("--seed")?.unwrap_or(1), options.hours(0.05)?);
            options.end()?;
            speed::measure(seed, hours).print();
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("there is no command {other:?}")),
    }
}

fn soak(mut options: Options<'_>) -> Result<ExitCode, String> {
    let file = PathBuf::from(options.text("--tally").ok_or("a run needs --tally FILE")?);
    let from = options.value("--from")?.unwrap_or(1_000_000);
    let threads = options.value("--threads")?.unwrap_or(2);
    let hours = options.hours(1.0)?;
    options.end()?;
    // Failures are in the tally; each would be printed as it happens otherwise.
    std::panic::set_hook(Box::new(|_| ()));
    let tally = soak::run(&file, from, hours, threads)?;
    tally.print();
    let red = tally.faults_found();
    red.iter().for_each(|why| println!("RED: {why}"));
    Ok(if red.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(setup: Setup, history: Option<&str>) -> Result<ExitCode, String> {
    let cannot = |error| format!("{}: {error}", history.unwrap_or_default());
    let file = history.map(File::create_new).transpose().map_err(cannot)?;
    let mut world = World::new(setup);
    let lived = world.lived();
    file.map(|file| write(file, &world.history)).transpose().map_err(cannot)?;
    Ok(match lived {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}{}", failure.story, failure.what);
            ExitCode::FAILURE
        }
    })
}

fn write(file: File, calls: &[Call]) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    json_lines(calls).try_for_each(|line| writeln!(file, "{line}"))?;
    file.flush()
}

fn shrink(setup: Setup) -> ExitCode {
    std::panic::set_hook(Box::new(|_| ()));
    match Shrink::run(setup) {
        Some(shrunk) => {
            shrunk.print();
            ExitCode::FAILURE
        }
        None => {
            println!("it does not fail");
            ExitCode::SUCCESS
        }
    }
}

/// A seed's setup, with less in it.
fn setup(options: &mut Options<'_>) -> Result<Setup, String> {
    let seed = options.value("--seed")?.ok_or("which --seed?")?;
    let less = Less {
        without: options.list("--without")?,
        skip: options.list("--skip")?,
        nodes: options.value("--nodes")?,
        clients: options.value("--clients")?,
        keys: options.value("--keys")?,
        until: options.value("--until")?,
    };
    let mut setup = less.of(Setup::draw(seed));
    if let Some(name) = options.text("--sabotage") {
        let named = Sabotage::ALL.into_iter().find(|sabotage| format!("{sabotage:?}") == name);
        setup.sabotage = Some(named.ok_or_else(|| format!("--sabotage is one of {:?}", Sabotage::ALL))?);
    }
    Ok(setup)
}

/// What follows the command: pairs of a name and a value, in any order.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn new(words: &'a [String]) -> Result<Self, String> {
        let pair = |pair: &'a [String]| match pair {
            [name, value] if name.starts_with("--") => Ok((name.as_str(), value.as_str())),
            _ => Err(format!("{pair:?} is not an option and its value")),
        };
        words.chunks(2).map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.remove(at).1)
    }

    /// The option's number, if it is given.
    fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let wrong = |text| format!("{name} is a number, not {text:?}");
        self.text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    /// Items between commas; none where it is not given.
    fn list<T: FromStr + Ord>(&mut self, name: &str) -> Result<BTreeSet<T>, String> {
        let Some(text) = self.text(name) else { return Ok(BTreeSet::new()) };
        items(text).ok_or_else(|| format!("{name} is a list with commas, not {text:?}"))
    }

    fn hours(&mut self, usual: f64) -> Result<Duration, String> {
        let hours: f64 = self.value("--hours")?.unwrap_or(usual);
        Duration::try_from_secs_f64(hours * 3_600.0).map_err(|error| format!("--hours {hours}: {error}"))
    }

    fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("there is no option {name} here")),
        }
    }
}
