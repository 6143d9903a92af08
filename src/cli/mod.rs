//! The command line: what can be asked for, and how a command ends.
//!
//! Each command has a file with its arguments and one function that carries it out. It returns how it ended as an
//! [`Exit`], or a [`Failure`] with words. Only this file prints failures and sets the exit code.

mod bench;
mod calls;
mod cert;
mod check;
mod cluster;
mod demo;
mod duration;
mod exit;
mod log;
mod members;
mod output;
mod random;
mod serve;
mod signals;
mod size;
mod status;
mod torture;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::exit::{Failure, Outcome};
use self::output::Style;

/// After a command has ended its tasks get this long to notice.
const LINGER: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  raftmap demo                                   three nodes, killed and restarted under load, then checked
  raftmap serve --id 1 --dir data/1 --listen 127.0.0.1:7001 \\
      --peers 1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003
  export RAFTMAP_SERVERS=127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003
  raftmap put color green
  raftmap get color
  raftmap status

Exit codes:
  0  done
  1  no: the key is absent, the version is another one, damage was found
  2  usage: arguments or configuration
  3  unknown outcome: the write may have happened or may still happen
  4  definitely not done
  5  the storage refuses, or is in use

Sizes: 4096, 64KiB, 64MiB, 1GiB. Durations: 500ms, 2s, 5m.
Logs go to standard error; RAFTMAP_LOG sets their level, for example `debug` or `warn,raftmap=debug`.";

/// A replicated map: what it has acknowledged is on the disks of a majority, and counts exactly once.
#[derive(Debug, Parser)]
#[command(name = "raftmap", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Print one JSON object on one line, last on standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Args),
    /// Store a value under a key
    Put(calls::Put),
    /// Append a value to what a key holds, creating it
    Append(calls::Append),
    /// Print the value of a key, byte for byte
    Get(calls::Get),
    /// Remove a key
    Delete(calls::Delete),
    /// Store a value if the key has this version
    Cas(calls::Cas),
    /// Print the keys that begin with a prefix, with their values
    Scan(calls::Scan),
    /// Show how the nodes are
    Status(status::Args),
    /// Look at a node's log, offline
    #[command(subcommand)]
    Log(log::Command),
    /// Make certificates
    #[command(subcommand)]
    Cert(cert::Command),
    /// Measure a cluster under load
    Bench(bench::Args),
    /// Run three nodes, kill them under load, and check that nothing is lost or counted twice
    Demo(demo::Args),
    /// Run a cluster under every fault that needs no privileges, and check that nothing is lost, doubled or stale
    Torture(torture::Args),
    /// Check a recorded history: nothing lost, doubled, stale, or out of order
    Check(check::Args),
}

/// Half the processors serve the network: each node has a replica's and a log writer's thread besides, and threads that
/// pass one request from hand to hand cost more than they carry. At least one, at most eight.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads =
        std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, 8));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Parses the command line, carries the command out, and gives the exit code.
pub(crate) fn main() -> ExitCode {
    // clap prints its own errors and ends with code 2.
    let cli = Cli::parse();
    start_log(&cli.command);
    let style = if cli.json { Style::Json } else { Style::Human };
    let outcome = match runtime() {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli.command, style));
            runtime.shutdown_timeout(LINGER);
            outcome
        }
        Err(error) => Err(Failure::not_done(format!("cannot start: {error}"))),
    };
    outcome.unwrap_or_else(|failure| failure.print(style)).into()
}

async fn dispatch(command: Command, style: Style) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Put(args) => args.run(style).await,
        Command::Append(args) => args.run(style).await,
        Command::Get(args) => args.run(style).await,
        Command::Delete(args) => args.run(style).await,
        Command::Cas(args) => args.run(style).await,
        Command::Scan(args) => args.run(style).await,
        Command::Status(args) => status::run(args, style).await,
        Command::Log(command) => log::run(command, style),
        Command::Cert(command) => cert::run(command, style),
        Command::Bench(args) => bench::run(args, style).await,
        Command::Demo(args) => demo::run(args, style).await,
        Command::Torture(args) => torture::run(args, style).await,
        Command::Check(args) => check::run(&args, style),
    }
}

/// A node tells what it does; a command only what went wrong.
fn start_log(command: &Command) {
    let usual = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    let asked = std::env::var("RAFTMAP_LOG").ok();
    let targets: Result<Targets, _> = asked.as_deref().unwrap_or(usual).parse();
    let failed = targets.as_ref().err().map(ToString::to_string);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let usual = Targets::new().with_default(tracing::Level::INFO);
    tracing_subscriber::registry().with(layer).with(targets.unwrap_or(usual)).init();
    if let Some(error) = failed {
        tracing::warn!(%error, "RAFTMAP_LOG is not understood and is ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[track_caller]
    fn refused(line: &str) -> String {
        let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    }

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_help_are_understood() {
        for line in [
            "raftmap serve --id 1 --dir d --listen 127.0.0.1:7001 --peers 1=127.0.0.1:7001,2=127.0.0.1:7002",
            "raftmap serve --id 1 --dir d --listen 127.0.0.1:7001 --max-raft-state never",
            "raftmap put k v --servers 127.0.0.1:1,127.0.0.1:2 --timeout 5s --json",
            "raftmap --json append k -- -v",
            "raftmap put k - --servers 127.0.0.1:1",
            "raftmap get k --stale --servers 127.0.0.1:1",
            "raftmap delete k --servers 127.0.0.1:1",
            "raftmap cas k 0 v --servers 127.0.0.1:1",
            "raftmap scan p --limit 10 --after p5 --servers 127.0.0.1:1",
            "raftmap status --servers 127.0.0.1:1",
            "raftmap log verify --dir d",
            "raftmap log dump --dir d",
            "raftmap cert new-cluster --out d",
            "raftmap cert node --cluster d --id 1 --out e",
            "raftmap cert client --cluster d --name alice --out e",
            "raftmap bench --servers 127.0.0.1:1 --op append --clients 256 --seconds 10 --value-bytes 256",
            "raftmap demo --nodes 3 --seconds 20 --clients 8 --kill-every 2s --dir d --seed 7 --json",
            "raftmap demo",
            "raftmap torture --nodes 5 --minutes 30 --clients 16 --history h.jsonl --json",
            "raftmap torture --faults kill,stop,partition,disk --seed 7 --dir d --keep",
            "raftmap demo --history h.jsonl",
            "raftmap check h.jsonl --json",
        ] {
            // `append` without servers is understood only where the environment names them.
            if line.contains("append k") && std::env::var_os("RAFTMAP_SERVERS").is_none() {
                refused(line);
                continue;
            }
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_refused_argument_is_named_with_what_would_do() {
        for (line, words) in [
            ("raftmap put k --servers 127.0.0.1:1", "<VALUE>"),
            ("raftmap get k --servers localhost", "`localhost` is no address"),
            ("raftmap get k --servers 127.0.0.1:1 --timeout 5", "`5` has no unit"),
            ("raftmap get k --servers 127.0.0.1:1 --timeout 0s", "at least 1ms"),
            ("raftmap cas k x v --servers 127.0.0.1:1", "invalid digit"),
            ("raftmap scan p --servers 127.0.0.1:1 --limit 0", "0 is not in 1..=1000000"),
            ("raftmap serve --id 0 --dir d --listen 127.0.0.1:1", "0 is not in 1.."),
            ("raftmap serve --id 1 --dir d --listen 127.0.0.1:1 --peers 1:7", "`1:7` is no member"),
            ("raftmap serve --id 1 --dir d --listen 127.0.0.1:1 --max-raft-state 1MB", "`1MB` is no size"),
            ("raftmap bench --servers 127.0.0.1:1 --op scan", "[possible values: put, append, get]"),
            ("raftmap demo --nodes 0", "0 is not in 1..=9"),
            ("raftmap demo --clients 257", "257 is not in 1..=256"),
            ("raftmap log", "verify"),
            ("raftmap nonsense", "nonsense"),
        ] {
            let message = refused(line);
            assert!(message.contains(words), "{line}: {message}");
        }
    }
}
