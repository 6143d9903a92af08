//! The simulated world by hand: `raftmap-sim speed` says how fast it runs.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use raftmap_sim::speed;

const USAGE: &str = "\
raftmap-sim speed [--seed N] [--hours H]   simulated hours per CPU-hour, of a quiet cluster at 200 writes a second";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode, String> {
    let (command, words) = words.split_first().ok_or("what shall be done?")?;
    let mut options = Options::new(words)?;
    match command.as_str() {
        "speed" => {
            let seed = options.value("--seed", 1)?;
            let hours: f64 = options.value("--hours", 0.05)?;
            options.end()?;
            speed::measure(seed, Duration::from_secs_f64(hours * 3_600.0)).print();
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("there is no command {other:?}")),
    }
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

    /// The option's value, or `usual` where it is not given.
    fn value<T: FromStr>(&mut self, name: &str, usual: T) -> Result<T, String> {
        let Some(text) = self.text(name) else { return Ok(usual) };
        text.parse().map_err(|_| format!("{name} is a number, not {text:?}"))
    }

    fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("there is no option {name} here")),
        }
    }
}
