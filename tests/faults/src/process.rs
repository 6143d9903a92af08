//! A member as a process of its own: the `raftmap` command, built beside this program, behind whatever else it is to run under.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use raftmap::{Clerk, ConnectOptions, NodeConfig};

use crate::cluster::VALUE_BYTES;
use crate::error::{Result, Scenery, Stop};

/// The log's bound of these members: with it, segments take 72 KiB, and some fifteen large values bring a snapshot.
pub(crate) const LOG_BYTES: u64 = 64 * 1024;
/// What the command ends with when the storage refuses.
pub(crate) const STORAGE: i32 = 5;

/// Members, where they are and what they run under.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    pub(crate) dirs: BTreeMap<u64, PathBuf>,
    pub(crate) addresses: BTreeMap<u64, SocketAddr>,
    /// Below it `node-1`, … and `client`; `None` on loopback.
    pub(crate) identities: Option<PathBuf>,
}

impl Members {
    /// `count` members on loopback, with directories below `dir`.
    pub(crate) fn below(dir: &Path, count: u64) -> Result<Self> {
        let addresses = raftmap::free_addresses(count).or_broken("finding free ports")?;
        let dirs = addresses.keys().map(|id| (*id, dir.join(id.to_string()))).collect();
        Ok(Self { dirs, addresses, identities: None })
    }

    /// For a member in this process, on the same terms.
    pub(crate) fn config(&self, id: u64) -> NodeConfig {
        let mut config = NodeConfig::new(id, &self.dirs[&id], self.addresses[&id]);
        config.peers = self.addresses.clone();
        config.max_raft_state = Some(LOG_BYTES);
        config.limits.value_bytes = VALUE_BYTES;
        config
    }

    /// Starts member `id` under `prefix`, which must become the command itself in the end.
    pub(crate) fn start(&self, id: u64, prefix: &[String]) -> Result<Process> {
        let peers: Vec<String> =
            self.addresses.iter().map(|(id, address)| format!("{id}={address}")).collect();
        let program = program()?.display().to_string();
        let mut words = prefix.to_vec();
        words.extend([program, "serve".into(), "--exit-with-stdin".into()]);
        words.extend(["--id".into(), id.to_string(), "--dir".into(), self.dirs[&id].display().to_string()]);
        words.extend(["--listen".into(), self.addresses[&id].to_string(), "--peers".into(), peers.join(",")]);
        words.extend(["--max-raft-state".into(), LOG_BYTES.to_string()]);
        words.extend(["--limit-value".into(), VALUE_BYTES.to_string()]);
        if let Some(dir) = &self.identities {
            words.extend(["--identity".into(), dir.join(format!("node-{id}")).display().to_string()]);
        }
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .or_broken(&format!("starting {}", words[0]))?;
        Ok(Process(child))
    }

    pub(crate) fn start_all(&self) -> Result<BTreeMap<u64, Process>> {
        self.addresses.keys().map(|id| Ok((*id, self.start(*id, &[])?))).collect()
    }

    pub(crate) fn clerk(&self, deadline: Duration) -> Result<Clerk> {
        let servers: Vec<_> = self.addresses.values().copied().collect();
        let clerk = Clerk::connect(&servers, &self.options()).or_broken("making a clerk")?;
        Ok(clerk.with_deadline(deadline))
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions { identity: self.identities.as_ref().map(|dir| dir.join("client")) }
    }

    /// The member that says it leads, in the latest term.
    pub(crate) async fn leader(&self) -> Result<u64> {
        let mut leaders = BTreeMap::new();
        for address in self.addresses.values() {
            let status = raftmap::admin::status(*address, &self.options(), Duration::from_secs(2)).await;
            if let Ok(status) = status.as_ref()
                && status.role == "leader"
            {
                leaders.insert(status.term, status.id.0);
            }
        }
        leaders.pop_last().map(|(_, id)| id).ok_or(Stop::Broken("nobody leads".into()))
    }
}

pub(crate) fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().or_broken("finding this program")?;
    let program = own.with_file_name("raftmap");
    match program.is_file() {
        true => Ok(program),
        false => Err(Stop::Skipped(format!(
            "needs {}: `cargo build --bin raftmap`, with --release where this was built so",
            program.display()
        ))),
    }
}

/// A running member. It goes with this value.
#[derive(Debug)]
pub(crate) struct Process(Child);

/// How a member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Killed,
    Code(i32),
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, _) => Self::Killed,
        }
    }
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn ended(&mut self) -> Option<Ended> {
        self.0.try_wait().ok().flatten().map(Ended::of)
    }

    pub(crate) fn wait(&mut self, patience: Duration) -> Option<Ended> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }

    /// The thread of that name.
    pub(crate) fn thread(&self, name: &str) -> Option<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        tasks.flatten().find_map(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            (comm.trim() == name).then(|| task.file_name().to_string_lossy().parse().ok())?
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
