//! `raftmap serve`: a node in this process, until it is told to stop or must.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raftmap::storage::os::OsFs;
use raftmap::storage::quota::Quota;
use raftmap::{Fault, Node, NodeConfig, StartError};

use super::calls::parse_address;
use super::cluster::nodes::LISTENS;
use super::exit::{Exit, Failure, Outcome, chain};
use super::size::{self, Bound};
use super::{duration, members, output, signals};

/// An orderly stop takes at most this long: SIGTERM promises two seconds.
const STOP_MAX: Duration = Duration::from_millis(1_800);
/// How long to wait for a leader before saying so; there is no end to it.
const READY_WAIT: Duration = Duration::from_secs(10);
/// Between two such waits: a node that is stopping answers at once, for as long as its disk takes.
const READY_PAUSE: Duration = Duration::from_secs(1);

const HELP: &str = "\
Exit codes: 0 stopped by SIGTERM or SIGINT (within 2 s, every pending call answered), 2 the configuration is
wrong, 4 the network refuses, 5 the storage refuses or is in use.

Example:
  raftmap serve --id 1 --dir data/1 --listen 127.0.0.1:7001 \\
      --peers 1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003";

/// Run a node.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// This member's id, never given to another machine or directory
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Where its log and snapshots live: a local disk, one directory a node; made where it is missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where it listens (UDP), for members and clients
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    listen: SocketAddr,
    /// All members, this one included; none: this node alone
    #[arg(long, value_name = "ID=IP:PORT,…", value_delimiter = ',', value_parser = members::parse)]
    peers: Vec<(u64, SocketAddr)>,
    /// Bound of the log in bytes, at which the map is snapshotted; `never` keeps the whole log
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::parse_or_never)]
    max_raft_state: Bound,
    /// Directory with ca.pem, cert.pem and key.pem; needed outside of loopback
    #[arg(long, env = "RAFTMAP_IDENTITY", value_name = "DIR")]
    identity: Option<PathBuf>,
    /// A leader says this often that it lives
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive)]
    heartbeat: Option<Duration>,
    /// A follower waits at least this long for a leader
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive)]
    election_min: Option<Duration>,
    /// ... and at most this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive)]
    election_max: Option<Duration>,
    /// Longest key; must be equal on all members, and is fixed when the cluster is made
    #[arg(long, value_name = "SIZE", value_parser = parse_u32_size)]
    limit_key: Option<u32>,
    /// Longest value; must be equal on all members, and is fixed when the cluster is made
    #[arg(long, value_name = "SIZE", value_parser = parse_u32_size)]
    limit_value: Option<u32>,
    /// A session unused for this long expires; must be equal on all members, and is fixed when the cluster is made
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive)]
    session_ttl: Option<Duration>,
    /// Most that the directory may take, files of others in it included; at it the node behaves as on a full disk
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    disk_quota: Option<u64>,
    /// Stop when standard input ends: a parent that holds the pipe takes its nodes with it, however it goes
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

fn parse_u32_size(text: &str) -> Result<u32, String> {
    let bytes = size::parse(text)?;
    u32::try_from(bytes).map_err(|_| format!("`{text}` is {bytes} bytes, more than {}", u32::MAX))
}

impl Args {
    fn config(self) -> Result<NodeConfig, Failure> {
        let mut config = NodeConfig::new(self.id, self.dir, self.listen);
        config.peers = members::collect(self.peers).map_err(Failure::usage)?;
        config.max_raft_state = self.max_raft_state.0;
        config.identity = self.identity;
        config.timing.heartbeat = self.heartbeat.unwrap_or(config.timing.heartbeat);
        config.timing.election_min = self.election_min.unwrap_or(config.timing.election_min);
        config.timing.election_max = self.election_max.unwrap_or(config.timing.election_max);
        config.limits.key_bytes = self.limit_key.unwrap_or(config.limits.key_bytes);
        config.limits.value_bytes = self.limit_value.unwrap_or(config.limits.value_bytes);
        if let Some(ttl) = self.session_ttl {
            config.limits.session_ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        }
        config.validate().map_err(|error| Failure::usage(chain(&error)))?;
        Ok(config)
    }
}

/// Runs a node until it is asked to stop, or stops by itself.
pub(crate) async fn run(args: Args) -> Outcome {
    let (exit_with_stdin, disk_quota) = (args.exit_with_stdin, args.disk_quota);
    let config = args.config()?;
    let (id, listen) = (config.id, config.listen);
    // Before anything is opened, so that an early signal is not missed.
    let asked = signals::asked_to_stop().map_err(|error| Failure::not_done(chain(&error)))?;
    let node = match disk_quota {
        Some(bytes) => Node::start_on(Quota::new(OsFs, bytes), config).await,
        None => Node::start(config).await,
    };
    let node = node.map_err(refused)?;
    output::note(&format!("raftmap: node {id} {LISTENS} {listen}"));

    let why = tokio::select! {
        fault = node.stopped() => return Err(stopped(fault)),
        signal = asked => signal,
        () = signals::stdin_ended(), if exit_with_stdin => "the end of its parent",
        never = tell_when_ready(id, async || node.wait_ready(READY_WAIT).await) => match never {},
    };
    output::note(&format!("raftmap: node {id} stops at {why}"));
    match tokio::time::timeout(STOP_MAX, node.shutdown()).await {
        Ok(Ok(())) => Ok(Exit::Done),
        Ok(Err(fault)) => Err(stopped(Some(fault))),
        Err(_) => {
            // What is acknowledged is on disk; ending here is what SIGKILL would do.
            output::note(&format!(
                "raftmap: node {id} does not come to an end within {STOP_MAX:?} and is cut off"
            ));
            Ok(Exit::Done)
        }
    }
}

/// Says once that the node serves, then waits for ever.
async fn tell_when_ready(id: u64, ready: impl AsyncFn() -> raftmap::Result<()>) -> std::convert::Infallible {
    while let Err(error) = ready().await {
        tracing::warn!(node = id, %error, "not ready yet");
        tokio::time::sleep(READY_PAUSE).await;
    }
    output::note(&format!("raftmap: node {id} is ready"));
    std::future::pending().await
}

fn refused(error: StartError) -> Failure {
    let words = chain(&error);
    match error {
        error if error.is_storage() => Failure::new(Exit::Storage, words),
        StartError::Network(_) | StartError::NotReady(_) => Failure::not_done(words),
        _ => Failure::usage(words),
    }
}

fn stopped(fault: Option<Fault>) -> Failure {
    match fault {
        Some(fault @ (Fault::Log(_) | Fault::Entry { .. })) => {
            Failure::new(Exit::Storage, format!("the node stopped: {fault}"))
        }
        Some(fault @ (Fault::Thread(_) | Fault::Network(_))) => {
            Failure::not_done(format!("the node stopped: {fault}"))
        }
        None => Failure::not_done("the node stopped without being asked to"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn config(more: &str) -> Result<NodeConfig, String> {
        let line = format!("serve --id 1 --dir d --listen 127.0.0.1:7001 {more}");
        let parsed = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        parsed.args.config().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn arguments_become_the_configuration() {
        let config = config(
            "--peers 1=127.0.0.1:7001,2=127.0.0.1:7002 --max-raft-state 1KiB --heartbeat 20ms --election-min 100ms \
             --election-max 200ms --limit-key 1KiB --limit-value 512KiB --session-ttl 10m",
        )
        .expect("sound");
        assert_eq!(config.peers.len(), 2);
        assert_eq!(config.max_raft_state, Some(1_024));
        assert_eq!(config.timing.heartbeat, Duration::from_millis(20));
        assert_eq!(config.timing.election_max, Duration::from_millis(200));
        assert_eq!((config.limits.key_bytes, config.limits.value_bytes), (1_024, 512 << 10));
        assert_eq!(config.limits.session_ttl_ms, 600_000);
    }

    #[test]
    fn what_is_not_said_has_the_library_s_default() {
        let (said, default) =
            (config("").expect("sound"), NodeConfig::new(1, "d", ([127, 0, 0, 1], 7001).into()));
        assert_eq!(
            (said.max_raft_state, said.timing, said.limits),
            (default.max_raft_state, default.timing, default.limits)
        );
        assert_eq!(config("--max-raft-state never").expect("sound").max_raft_state, None);
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_refused_with_both_numbers() {
        for (more, words) in [
            ("--max-raft-state 999", "999 bytes is below the least, 1000"),
            ("--election-min 100ms", "100ms is below four heartbeats, 200ms"),
            ("--peers 2=127.0.0.1:7002", "not among its own peers"),
            ("--peers 1=127.0.0.1:7001,1=127.0.0.1:7002", "node 1 is listed twice"),
            ("--limit-value 5GiB", "5368709120 bytes, more than 4294967295"),
            ("--limit-value 1025KiB", "value_bytes"),
        ] {
            let message = config(more).expect_err(more);
            assert!(message.contains(words), "{more}: {message}");
        }
    }

    #[tokio::test]
    async fn a_node_that_is_stopping_is_not_asked_on_and_on() {
        let asked = Cell::new(0);
        let stopping = async || {
            asked.set(asked.get() + 1);
            assert!(asked.get() < 100, "it is asked without a pause");
            Err(raftmap::Error::Stopped)
        };
        assert!(tokio::time::timeout(READY_PAUSE / 10, tell_when_ready(1, stopping)).await.is_err());
        assert_eq!(asked.get(), 1);
    }
}
