//! `raftmap demo`: the main job, seen. Real nodes on real disks are killed and restarted under load; then everything the
//! clients did is checked against everything the map has.
//!
//! | file      | job                                                        |
//! |-----------|------------------------------------------------------------|
//! | `play`    | the run from beginning to end, each phase with its bound   |
//! | `nodes`   | child processes                                            |
//! | `killer`  | SIGKILL and restart                                        |
//! | `plan`    | who is killed next (pure)                                  |
//! | `clients` | load, and what it saw                                      |
//! | `tokens`  | what clients write, and where (pure)                       |
//! | `record`  | the file of `--history`                                    |
//! | `report`  | what it came to (pure)                                     |
//! | `view`    | the screen                                                 |

mod clients;
mod killer;
mod nodes;
mod plan;
mod play;
mod record;
mod report;
mod tokens;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::play::Play;
use self::record::Record;
use self::report::Report;
use super::exit::{Exit, Failure, Outcome, chain};
use super::output::Style;
use super::random::fresh_seed;
use super::{duration, signals};

/// Whatever happens, a run ends this long after its seconds; the promise is 30 s.
const OVERTIME: Duration = Duration::from_secs(28);

const HELP: &str = "\
Clients append unique tokens to shared keys, and put and get others. Every interval a random node gets SIGKILL,
the leader at least every other time, and is restarted; never two are down at once. Then it is checked: every
acknowledged write is there exactly once, in an order that respects real time; nothing that was never sent; every
read saw what had been acknowledged before it began, and never less than another one; all replicas are equal.

It ends within --seconds + 30 s. Exit codes: 0 all is well and a leader was killed, 1 not, and the data is kept.

Examples:
  raftmap demo
  raftmap demo --seconds 60 --clients 16 --kill-every 1s --json";

/// Run three nodes, kill them under load, and check that nothing is lost or counted twice.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// How long the load runs
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Clients, each with one operation under way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Time from one kill to the next; a node that is not back yet is waited for
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse_positive)]
    kill_every: Duration,
    /// Where the nodes' data and logs go, an empty directory, kept; otherwise a temporary one, kept if something is wrong
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Decides who is killed when and what clients do; drawn and printed where it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Write every operation as a line of JSON into this file, for `raftmap check` or another tool
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

impl Args {
    fn validate(&self) -> Result<(), Failure> {
        let load = Duration::from_secs(self.seconds);
        if self.kill_every >= load {
            return Err(Failure::usage(format!(
                "--kill-every {:?} leaves no time for a kill within --seconds {}: choose a shorter interval",
                self.kill_every, self.seconds
            )));
        }
        Ok(())
    }
}

/// Plays, reports, and keeps the data where something is wrong.
pub(crate) async fn run(args: Args, style: Style) -> Outcome {
    args.validate()?;
    let asked = signals::asked_to_stop().map_err(|error| Failure::not_done(chain(&error)))?;
    let place = Place::new(args.dir.as_deref())?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let limit = Duration::from_secs(args.seconds) + OVERTIME;
    let mut play = Play::new(&args, seed, place.path(), record(args.history.as_deref())?);
    let cut_off = tokio::select! {
        done = tokio::time::timeout(limit, play.run()) => done.is_err().then(|| format!("cut off after {limit:?}")),
        signal = asked => Some(format!("stopped by {signal}")),
    };
    let mut report = play.end().await;
    report.problems.extend(cut_off);
    place.leave(&mut report);
    style.print(|| report.to_string(), || report.json())?;
    Ok(if report.passed() { Exit::Done } else { Exit::No })
}

fn record(path: Option<&Path>) -> Result<Record, Failure> {
    let Some(path) = path else { return Ok(Record::default()) };
    Record::create(path)
        .map_err(|error| Failure::usage(format!("cannot write the history to {}: {error}", path.display())))
}

/// Where the nodes' data is.
enum Place {
    /// The caller's.
    Given(PathBuf),
    /// Ours, unless there is something to look at.
    Temporary(tempfile::TempDir),
}

impl Place {
    fn new(given: Option<&Path>) -> Result<Self, Failure> {
        let Some(dir) = given else {
            let temporary = tempfile::Builder::new().prefix("raftmap-demo-").tempdir();
            return temporary.map(Self::Temporary).map_err(|error| {
                Failure::not_done(format!("cannot make a temporary directory: {error}; name one with --dir"))
            });
        };
        // Tokens of an older run would be taken for ones that nobody sent.
        match is_empty(dir) {
            Ok(true) => Ok(Self::Given(dir.to_owned())),
            Ok(false) => {
                Err(Failure::usage(format!("{} is not empty: name an empty directory", dir.display())))
            }
            Err(error) => Err(Failure::not_done(format!("cannot use {}: {error}", dir.display()))),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }

    fn leave(self, report: &mut Report) {
        match self {
            Self::Given(dir) => report.kept = Some(dir),
            Self::Temporary(dir) if report.passed() => drop(dir),
            Self::Temporary(dir) => report.kept = Some(dir.keep()),
        }
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    std::fs::create_dir_all(dir)?;
    Ok(std::fs::read_dir(dir)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(seconds: u64, kill_every: Duration) -> Args {
        Args { nodes: 3, seconds, clients: 8, kill_every, dir: None, seed: None, history: None }
    }

    #[test]
    fn an_interval_without_a_kill_is_refused_with_both_numbers() {
        assert!(args(4, Duration::from_secs(2)).validate().is_ok());
        let failure = args(2, Duration::from_secs(2)).validate().expect_err("no kill");
        let words = format!("{failure:?}");
        assert!(words.contains("--kill-every 2s") && words.contains("--seconds 2"), "{words}");
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let fresh = dir.path().join("run");
        assert!(Place::new(Some(&fresh)).is_ok(), "it is made");
        assert!(Place::new(Some(&fresh)).is_ok(), "it is still empty");
        std::fs::write(fresh.join("node-1.log"), b"").expect("written");
        assert!(Place::new(Some(&fresh)).is_err());
    }

    #[test]
    fn data_is_kept_where_there_is_something_to_look_at() {
        let place = Place::new(None).expect("temporary directory");
        let path = place.path().to_owned();
        let mut report = Report::default();
        place.leave(&mut report);
        assert_eq!(report.kept.as_deref(), Some(path.as_path()));
        assert!(path.exists() && report.to_string().contains(&path.display().to_string()));
        std::fs::remove_dir(path).expect("removed");
    }
}
