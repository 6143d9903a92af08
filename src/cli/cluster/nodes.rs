//! A run's nodes: child processes of this one, each a `raftmap serve` on loopback with a directory of its own.
//!
//! They end when this process does, however it ends: each holds a pipe to it as standard input and stops when that
//! closes. On the way down in good order they are killed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use raftmap::storage::os::lock_holder;
use raftmap::{ConnectOptions, NodeStatus};
use tokio::process::{Child, Command};

use crate::cli::random::{Random, fresh_seed};
use crate::cli::status;

/// Ports are taken from here: below those that systems give to sockets that name none. A node that is down for a moment
/// would otherwise lose its port to some client's.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Ports tried before giving up.
const PORT_TRIES: usize = 1_000;
/// A node that does not tell its status within this is counted as silent.
const STATUS_WAIT: Duration = Duration::from_millis(500);
/// Digests of a large map take their time.
const DIGEST_WAIT: Duration = Duration::from_secs(3);
/// A killed process is usually gone within milliseconds.
const KILL_WAIT: Duration = Duration::from_millis(300);
/// What `serve` says once the log is open.
pub(crate) const LISTENS: &str = "listens on";
/// Lines of a node's log that are quoted when it ended by itself.
const LAST_LINES: usize = 3;

/// All nodes of a run.
pub(crate) struct Nodes {
    dir: PathBuf,
    /// What all of them are told besides.
    settings: Vec<String>,
    members: BTreeMap<u64, Member>,
    /// Holding a TCP port of the same number keeps other runs from choosing it.
    _reserved: Vec<TcpListener>,
}

struct Member {
    address: SocketAddr,
    /// Where it is told that all are.
    peers: BTreeMap<u64, SocketAddr>,
    child: Option<Child>,
    /// Bytes of its log from before its latest start.
    said_before: u64,
}

/// A node that ended although nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which.
    pub(crate) node: u64,
    /// Its exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// All of it in words, its own last ones included.
    pub(crate) words: String,
}

impl Nodes {
    /// Nodes 1 to `count`, none of them running yet, with their directories below `dir`.
    pub(crate) fn new(dir: &Path, count: u64) -> io::Result<Self> {
        let (mut addresses, mut reserved) = (BTreeMap::new(), Vec::new());
        for id in 1..=count {
            let (address, held) = free_address()?;
            addresses.insert(id, address);
            reserved.push(held);
        }
        let member = |address: &SocketAddr| Member {
            address: *address,
            peers: addresses.clone(),
            child: None,
            said_before: 0,
        };
        let members = addresses.iter().map(|(id, address)| (*id, member(address))).collect();
        Ok(Self { dir: dir.to_owned(), settings: Vec::new(), members, _reserved: reserved })
    }

    /// Lets all of them be started with these arguments besides.
    pub(crate) fn with_settings(self, settings: &[&str]) -> Self {
        Self { settings: settings.iter().map(|setting| (*setting).to_owned()).collect(), ..self }
    }

    /// Tells a node that another one is at `address`, from its next start on.
    pub(crate) fn place(&mut self, node: u64, peer: u64, address: SocketAddr) {
        if let Some(member) = self.members.get_mut(&node) {
            member.peers.insert(peer, address);
        }
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// How many of them run, as far as is known.
    pub(crate) fn running(&self) -> usize {
        self.members.values().filter(|member| member.child.is_some()).count()
    }

    /// Whether a node runs, as far as is known.
    pub(crate) fn runs(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.child.is_some())
    }

    /// Their addresses.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.values().map(|member| member.address).collect()
    }

    /// The address of one.
    pub(crate) fn address(&self, id: u64) -> Option<SocketAddr> {
        self.members.get(&id).map(|member| member.address)
    }

    /// The directory of one.
    pub(crate) fn directory(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// The process of one that runs.
    pub(crate) fn process(&self, id: u64) -> Option<u32> {
        self.members.get(&id)?.child.as_ref()?.id()
    }

    /// Starts a node, for the first time or again. Its words go to `node-<id>.log`.
    pub(crate) fn start(&mut self, id: u64) -> io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(id))?;
        let dir = self.directory(id);
        let Some(member) = self.members.get_mut(&id) else { return Err(io::ErrorKind::NotFound.into()) };
        member.said_before = log.metadata()?.len();
        let peers: Vec<String> =
            member.peers.iter().map(|(peer, address)| format!("{peer}={address}")).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .args(["--id", &id.to_string()])
            .arg("--dir")
            .arg(dir)
            .args(["--listen", &member.address.to_string()])
            .args(["--peers", &peers.join(",")])
            .args(&self.settings)
            .arg("--exit-with-stdin")
            // Loopback: the development identity, whatever the caller uses elsewhere.
            .env_remove("RAFTMAP_IDENTITY")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // An interrupt from the terminal is for this process, which then ends the run in good order.
            .process_group(0)
            .kill_on_drop(true);
        member.child = Some(command.spawn()?);
        Ok(())
    }

    /// Whether a node that runs has its directory, by the lock that it took.
    pub(crate) fn has_opened(&self, id: u64) -> bool {
        self.process(id).is_some_and(|process| lock_holder(&self.directory(id)) == Some(process))
    }

    /// Whether a node has opened its log since its latest start, by its own words.
    pub(crate) fn has_recovered(&self, id: u64) -> bool {
        let said = fs::read(self.log_path(id)).unwrap_or_default();
        let before = self.members.get(&id).map_or(0, |member| member.said_before as usize);
        let said = String::from_utf8_lossy(said.get(before..).unwrap_or_default()).into_owned();
        said.contains(LISTENS)
    }

    /// Sends SIGKILL to a node and waits until it is gone.
    pub(crate) async fn kill(&mut self, id: u64) -> io::Result<()> {
        match self.members.get_mut(&id).and_then(|member| member.child.take()) {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Kills all that run.
    pub(crate) async fn kill_all(&mut self) {
        for id in self.ids() {
            // One that is gone already is what was wanted; one that hangs in its disk goes when the disk lets it.
            let _gone = tokio::time::timeout(KILL_WAIT, self.kill(id)).await;
        }
    }

    /// Sends a running node a signal by its name, `STOP` or `CONT`; `false`: it does not run.
    pub(crate) async fn signal(&self, id: u64, signal: &str) -> io::Result<bool> {
        let Some(process) = self.process(id) else { return Ok(false) };
        // The shell's own `kill`: two signals are not worth a dependency.
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -s \"$0\" \"$1\"", signal, &process.to_string()]);
        let sent = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await?;
        Ok(sent.success())
    }

    /// A node that should run and has ended, with its last words.
    pub(crate) fn ended_by_itself(&mut self) -> Option<Ended> {
        let ended = self.members.iter_mut().find_map(|(id, member)| {
            let status = member.child.as_mut()?.try_wait().ok()??;
            member.child = None;
            Some((*id, status))
        });
        ended.map(|(id, status)| self.describe_end(id, status))
    }

    fn describe_end(&self, id: u64, status: ExitStatus) -> Ended {
        let log = fs::read(self.log_path(id)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join(" | ");
        let words = format!("node {id} ended by itself ({status}): {last}");
        Ended { node: id, code: status.code(), words }
    }

    fn log_path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}.log"))
    }

    /// What each running node says about itself; silent ones are left out.
    pub(crate) async fn statuses(&self) -> BTreeMap<u64, NodeStatus> {
        let ask = |address| async move {
            raftmap::admin::status(address, &ConnectOptions::default(), STATUS_WAIT).await.ok()
        };
        self.ask_all(ask).await
    }

    /// The running nodes' applied indices, and their digests there; silent ones are left out.
    pub(crate) async fn digests(&self) -> BTreeMap<u64, (u64, [u8; 32])> {
        let ask = |address| async move {
            raftmap::admin::digest(address, &ConnectOptions::default(), DIGEST_WAIT).await.ok()
        };
        self.ask_all(ask).await
    }

    async fn ask_all<T, F>(&self, ask: impl Fn(SocketAddr) -> F) -> BTreeMap<u64, T>
    where
        T: Send + 'static,
        F: Future<Output = Option<T>> + Send + 'static,
    {
        let running = self.members.iter().filter(|(_, member)| member.child.is_some());
        let asked: Vec<_> = running.map(|(id, member)| (*id, tokio::spawn(ask(member.address)))).collect();
        let mut answers = BTreeMap::new();
        for (id, answer) in asked {
            if let Ok(Some(answer)) = answer.await {
                answers.insert(id, answer);
            }
        }
        answers
    }
}

/// Who leads, by the nodes' own words.
pub(crate) fn leader_of(statuses: &BTreeMap<u64, NodeStatus>) -> Option<u64> {
    status::leader(statuses.values()).map(|leader| leader.id.0)
}

/// A loopback address that nobody uses, and what keeps other runs from it.
fn free_address() -> io::Result<(SocketAddr, TcpListener)> {
    // Not the run's seed: two runs of one seed may stand side by side.
    let mut random = Random::new(fresh_seed());
    for _ in 0..PORT_TRIES {
        let port = PORTS.start + random.below(PORTS.len() as u64) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Ok(held) = TcpListener::bind(address) else { continue };
        if UdpSocket::bind(address).is_ok() {
            return Ok((address, held));
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port among {PORT_TRIES} of {PORTS:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_stay_reserved() {
        let nodes = Nodes::new(Path::new("unused"), 9).expect("ports");
        let addresses: std::collections::BTreeSet<_> = nodes.addresses().into_iter().collect();
        assert_eq!(addresses.len(), 9);
        for address in addresses {
            assert!(PORTS.contains(&address.port()) && TcpListener::bind(address).is_err());
        }
    }

    #[test]
    fn what_a_node_said_in_an_earlier_life_is_not_taken_for_its_latest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut nodes = Nodes::new(dir.path(), 3).expect("ports");
        assert!(!nodes.has_recovered(1), "it never ran");
        let words = "raftmap: node 1 listens on 127.0.0.1:1\n";
        fs::write(nodes.log_path(1), words).expect("written");
        assert!(nodes.has_recovered(1));
        nodes.members.get_mut(&1).expect("a member").said_before = words.len() as u64;
        assert!(!nodes.has_recovered(1));
    }

    #[test]
    fn a_node_is_told_where_the_others_are_and_may_be_told_otherwise() {
        let mut nodes = Nodes::new(Path::new("unused"), 3).expect("ports");
        let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        nodes.place(1, 2, other);
        let (one, two) = (&nodes.members[&1], &nodes.members[&2]);
        assert_eq!((one.peers[&2], one.peers[&3]), (other, nodes.members[&3].address));
        assert_eq!(two.peers.values().copied().collect::<Vec<_>>(), nodes.addresses());
    }
}
