//! `raftmap torture`: the user's own proof. Real nodes on real disks are killed, stopped, cut off and filled up under
//! load, healed and checked, over and over, and everything that clients did is in a ledger that anyone can check again.
//!
//! | file       | job                                                        |
//! |------------|------------------------------------------------------------|
//! | `play`     | the run from beginning to end                              |
//! | `sorts`    | the catalogue of faults (pure)                             |
//! | `plan`     | which of them hit whom, when and for how long (pure)       |
//! | `faults`   | doing it, and putting everything right                     |
//! | `network`  | a relay for each way from node to node                     |
//! | `clients`  | load, and what it saw                                      |
//! | `ledger`   | every operation on a disk, before it is sent               |
//! | `audit`    | what is asked of a healed cluster                          |
//! | `settings` | how the nodes are set up, and their bounds                 |
//! | `tally`    | everything that is counted (pure)                          |
//! | `report`   | what it came to (pure)                                     |
//! | `totals`   | what several runs came to: the file of `--tally`           |

mod audit;
mod clients;
mod faults;
mod ledger;
mod network;
mod plan;
mod play;
mod report;
mod settings;
mod sorts;
mod tally;
mod totals;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use self::play::Play;
use self::report::Report;
use self::sorts::Kind;
use self::totals::Totals;
use super::cluster::place::Place;
use super::exit::{Exit, Failure, Outcome, chain};
use super::output::{self, Style};
use super::random::fresh_seed;
use super::signals;

/// The ledger's name below the run's directory.
const HISTORY: &str = "history.jsonl";

const HELP: &str = "\
Cycles of 20 to 40 s: faults drawn from the seed, then everything is healed and checked: one leader, equal replicas,
every call resolved, memory and disk within bounds, and nothing that clients saw contradicts a map that does every
acknowledged write exactly once, in an order that respects real time. Needs no privileges: links are cut, slow,
lossy, one-way, doubling and reordering by UDP relays of its own, disks fill up by `serve --disk-quota`.

Every operation is in the ledger (--history): a write before it is sent, synced. `raftmap check FILE` checks it again.
Without --history it lies beside the nodes' directories, and goes with them where all is well and no --dir is given.

Several runs add up in the file of --tally: each writes the sums anew at its end, after an interrupt too, and takes the
seed after the highest so far.

Exit codes: 0 all is well, every kind of fault took hold, and in a run of some ten minutes or more every sort of each;
1 not, and the data is kept. SIGINT heals, checks and reports; a second one ends at once.

Examples:
  raftmap torture
  raftmap torture --nodes 5 --minutes 30 --clients 16 --history history.jsonl --json
  raftmap torture --faults kill,partition --seed 7
  for run in 1 2 3; do raftmap torture --minutes 30 --tally tally.json; done";

/// Run a cluster under every fault that needs no privileges, and check that nothing is lost, doubled or stale.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Nodes: 3 or 5
    #[arg(long, default_value_t = 3, value_parser = parse_nodes)]
    nodes: u64,
    /// How long; fractions are understood
    #[arg(long, value_name = "N", default_value = "2", value_parser = parse_minutes)]
    minutes: Duration,
    /// Clients, each with one operation under way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: u64,
    /// What is done to the nodes
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Kill, Kind::Stop, Kind::Partition, Kind::Disk])]
    faults: Vec<Kind>,
    /// The ledger, a new file outside of the nodes' directories; otherwise beside them, and kept only if they are
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Sums of several runs: this one adds to them; the file is made where there is none
    #[arg(long, value_name = "FILE")]
    tally: Option<PathBuf>,
    /// Decides which faults hit whom and what clients do; drawn and printed where neither it nor a tally gives it
    #[arg(long)]
    seed: Option<u64>,
    /// Where the nodes' data and logs go, an empty directory, kept; otherwise a temporary one, kept if something is wrong
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the data also where all is well
    #[arg(long)]
    keep: bool,
}

fn parse_nodes(text: &str) -> Result<u64, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(format!("`{text}` is neither 3 nor 5")),
    }
}

/// A week is longer than anybody waits; a quarter of a minute holds one fault of each kind.
const MINUTES: std::ops::RangeInclusive<f64> = 0.2..=10_080.0;

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let (least, most) = (MINUTES.start(), MINUTES.end());
    let minutes = text.parse::<f64>().ok().filter(|minutes| MINUTES.contains(minutes));
    minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0))
        .ok_or_else(|| format!("`{text}` is no number from {least} to {most}"))
}

impl Args {
    fn asked(&self) -> Result<BTreeSet<Kind>, Failure> {
        let asked: BTreeSet<Kind> = self.faults.iter().copied().collect();
        if asked.len() != self.faults.len() {
            return Err(Failure::usage("--faults names a kind twice: name each once"));
        }
        Ok(asked)
    }

    fn history(&self, place: &Place) -> Result<PathBuf, Failure> {
        let Some(path) = &self.history else { return Ok(place.path().join(HISTORY)) };
        if path.exists() {
            let words = format!(
                "--history {} exists: name a new file, a ledger is never written over",
                path.display()
            );
            return Err(Failure::usage(words));
        }
        Ok(path.clone())
    }

    /// The one asked for, the one that the runs before lead to, or any.
    fn seed(&self) -> Result<u64, Failure> {
        let Some(path) = &self.tally else { return Ok(self.seed.unwrap_or_else(fresh_seed)) };
        let totals = Totals::load(path).map_err(Failure::usage)?;
        // What cannot be written is better known now than after the run.
        totals.save(path).map_err(Failure::usage)?;
        Ok(self.seed.or(totals.next_seed()).unwrap_or_else(fresh_seed))
    }
}

/// Plays, reports, and keeps the data where something is wrong.
pub(crate) async fn run(args: Args, style: Style) -> Outcome {
    let asked = args.asked()?;
    let place = Place::new(args.dir.as_deref(), "raftmap-torture-")?;
    let (history, seed) = (args.history(&place)?, args.seed()?);
    let report = Report { seed, nodes: args.nodes, clients: args.clients, asked, ..Report::default() };
    let mut report = play(report, args.minutes, place.path(), &history).await?;
    if let Some(path) = &args.tally {
        match Totals::add_to(path, &report) {
            Ok(totals) => report.totals = Some(totals),
            Err(words) => report.tally.problem(words),
        }
    }
    report.kept = place.leave(report.passed() && !args.keep);
    report.history = (args.history.is_some() || report.kept.is_some()).then_some(history);
    style.print(|| report.to_string(), || report.json())?;
    Ok(if report.passed() { Exit::Done } else { Exit::No })
}

/// A run, until it is over, healed and checked, or somebody asks twice for its end.
async fn play(report: Report, load: Duration, dir: &Path, history: &Path) -> Result<Report, Failure> {
    let (stop, stopped) = watch::channel(None);
    let signal = signals::asked_to_stop().map_err(|error| Failure::not_done(chain(&error)))?;
    let mut play = Play::new(report, load, dir, history, stopped);
    let signals = async {
        let name = signal.await;
        let again = signals::asked_to_stop();
        output::note(&format!("raftmap: {name}: healing, checking and reporting; once more ends it at once"));
        stop.send_replace(Some(name));
        match again {
            Ok(again) => again.await,
            Err(_) => std::future::pending().await,
        }
    };
    let cut_off = tokio::select! {
        () = play.run() => None,
        name = signals => Some(format!("stopped by a second {name}: what it had left to check was not checked")),
    };
    let mut report = play.end().await;
    if let Some(words) = cut_off {
        report.tally.problem(words);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_may_be_parts_of_one() {
        assert_eq!(parse_minutes("0.25"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_minutes("30"), Ok(Duration::from_secs(1_800)));
        for text in ["0", "-1", "NaN", "inf", "x", "", "10081"] {
            let words = parse_minutes(text).expect_err(text);
            assert!(words.contains("from 0.2 to 10080"), "{words}");
        }
    }
}
