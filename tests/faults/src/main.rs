//! Scripts that need root: a real cluster on real file systems and networks that fail. Each is a subcommand; README.md
//! beside the sources says what each shows and what it needs.

mod block_log;
mod check;
mod cluster;
mod device;
mod disk;
mod error;
mod host;
mod image;
mod ledger;
mod liar;
mod load;
mod net;
mod power_cut;
mod process;
mod random;
mod restart;
mod sweep;
mod tools;
mod witness;
mod work;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;

use crate::error::{Result, Scenery};

#[derive(Debug, Parser)]
#[command(
    about = "raftmap on failing disks and networks; needs root. Exit codes: 0 green, 1 red, 3 no verdict, 77 skipped"
)]
enum Script {
    /// Cut the power of a cluster on a real file system, again and again
    PowerCut(power_cut::Asked),
    /// Make the red cuts of kept evidence again
    Replay {
        /// What `power-cut` kept
        dir: PathBuf,
    },
    /// Kill and fail at the n-th system call, for every n
    Sweep(sweep::Asked),
    /// One member's disk fails while it runs
    Disk {
        #[arg(value_enum)]
        failure: disk::Failure,
    },
    /// Each member in a network namespace of its own, and the network between them fails
    Net {
        /// One scenario alone
        #[arg(long)]
        only: Option<String>,
        /// Seconds that each fault lasts
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// One member's machine is unkind
    Host {
        #[arg(value_enum)]
        trouble: host::Trouble,
    },
}

/// Set in the process that has mounts of its own.
const INSIDE: &str = "RAFTMAP_FAULTS_INSIDE";

fn main() -> ExitCode {
    let script = Script::parse();
    let ended = match std::env::var_os(INSIDE) {
        None => return alone(&script),
        Some(_) => run(&script),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            println!("{stop}");
            ExitCode::from(stop.exit_code())
        }
    }
}

fn run(script: &Script) -> Result<()> {
    match script {
        Script::PowerCut(asked) => power_cut::run(asked),
        Script::Replay { dir } => power_cut::replay(dir),
        Script::Sweep(asked) => sweep::run(asked),
        Script::Disk { failure } => disk::run(*failure),
        Script::Net { only, seconds } => net::run(only.as_deref(), *seconds),
        Script::Host { trouble } => host::run(*trouble),
    }
}

/// Runs this program again where mounts, and for some the network, are private: however it ends, nothing of them stays.
fn alone(script: &Script) -> ExitCode {
    let network = matches!(script, Script::Net { .. }).then_some("--net");
    let again = || -> Result<u8> {
        tools::need(&[("unshare", "util-linux")])?;
        let program = std::env::current_exe().or_broken("finding this program")?;
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(network)
            .arg("--")
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()
            .or_broken("starting unshare")?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(3))
    };
    again().map_or_else(
        |stop| {
            println!("{stop}");
            ExitCode::from(stop.exit_code())
        },
        ExitCode::from,
    )
}
