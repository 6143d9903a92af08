//! `raftmap serve` processes, three where nothing else is said, with certificates of their own, and ways to be unkind to them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use raftmap::{Clerk, ConnectOptions, NodeStatus};
use serde_json::Value;
use tempfile::TempDir;

/// What a node is given to find its feet, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// SIGTERM promises this.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(2);

/// The command, on its own: no environment of the caller's in it.
pub(crate) fn raftmap(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftmap"));
    command.args(args).env_remove("RAFTMAP_SERVERS").env_remove("RAFTMAP_IDENTITY").env_remove("RAFTMAP_LOG");
    command.env("RAFTMAP_DEV_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/development"));
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Ended::of(raftmap(args).output().unwrap())
}

/// A command's end.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// With this exit code, or the test fails with all that was said.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The object that `--json` promises: one, on one line, the last.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
        serde_json::from_str(text).unwrap()
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(f, "code {:?}\nstdout: {stdout}\nstderr: {}", self.code, self.stderr)
    }
}

/// A loopback port that nobody has: below those that sockets get that ask for none, and no two the same.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + (step % 20_000) as u16));
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) addresses: BTreeMap<u64, SocketAddr>,
    /// Where a node is to look for another one, where that is not its address.
    pub(crate) roads: BTreeMap<(u64, u64), SocketAddr>,
    /// Passed to each `serve`.
    more: Vec<String>,
    children: BTreeMap<u64, Child>,
}

impl Cluster {
    /// Three nodes that serve, with these arguments besides the usual ones.
    pub(crate) async fn start(more: &[&str]) -> Self {
        let mut cluster = Self::prepare(3, more);
        cluster.spawn_all().await;
        cluster
    }

    /// So many nodes that do not run yet.
    pub(crate) fn prepare(nodes: u64, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        run(&["cert", "new-cluster", "--out", &path("authority")]).code(0);
        for id in 1..=nodes {
            let (id, out) = (id.to_string(), path(&format!("identity-{id}")));
            run(&["cert", "node", "--cluster", &path("authority"), "--id", &id, "--out", &out]).code(0);
        }
        run(&["cert", "client", "--cluster", &path("authority"), "--name", "test", "--out", &path("client")])
            .code(0);
        let addresses = (1..=nodes).map(|id| (id, free_address())).collect();
        let more = more.iter().map(|argument| (*argument).to_owned()).collect();
        Self { dir, addresses, roads: BTreeMap::new(), more, children: BTreeMap::new() }
    }

    /// Starts all of them and waits until they serve.
    pub(crate) async fn spawn_all(&mut self) {
        for id in self.addresses.keys().copied().collect::<Vec<_>>() {
            self.spawn(id);
        }
        self.wait_all_applied().await;
    }

    fn road(&self, from: u64, to: u64) -> SocketAddr {
        self.roads.get(&(from, to)).copied().unwrap_or(self.addresses[&to])
    }

    pub(crate) fn node_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// `serve` for a node, not yet running.
    pub(crate) fn serve(&self, id: u64) -> Command {
        let peers: Vec<String> =
            self.addresses.keys().map(|other| format!("{other}={}", self.road(id, *other))).collect();
        let mut command = raftmap(&["serve", "--exit-with-stdin", "--id", &id.to_string()]);
        command.arg("--dir").arg(self.node_dir(id)).args(["--listen", &self.addresses[&id].to_string()]);
        command.args(["--peers", &peers.join(",")]).args(&self.more);
        command.arg("--identity").arg(self.dir.path().join(format!("identity-{id}")));
        command.stdin(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&mut self, id: u64) {
        let log = self.dir.path().join(format!("node-{id}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = self.serve(id).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        assert!(self.children.insert(id, child).is_none(), "node {id} runs already");
    }

    pub(crate) fn pid(&self, id: u64) -> u32 {
        self.children[&id].id()
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self, id: u64) {
        let mut child = self.children.remove(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL for all before any is waited for.
    pub(crate) fn kill_all(&mut self) {
        for child in self.children.values_mut() {
            child.kill().unwrap();
        }
        for (_, mut child) in std::mem::take(&mut self.children) {
            child.wait().unwrap();
        }
    }

    /// A signal by name, to a node that runs.
    pub(crate) fn signal(&self, id: u64, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid(id).to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM; the time it took, and how it ended.
    pub(crate) async fn terminate(&mut self, id: u64) -> (Duration, ExitStatus) {
        let begun = Instant::now();
        self.signal(id, "TERM");
        let mut child = self.children.remove(&id).unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (begun.elapsed(), status);
            }
            assert!(begun.elapsed() < PATIENCE, "node {id} does not stop");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions { identity: Some(self.dir.path().join("client")) }
    }

    pub(crate) fn clerk(&self) -> Clerk {
        let addresses: Vec<SocketAddr> = self.addresses.values().copied().collect();
        Clerk::connect(&addresses, &self.options()).unwrap().with_deadline(PATIENCE)
    }

    /// The arguments that reach it.
    pub(crate) fn reach(&self) -> [String; 4] {
        let servers: Vec<String> = self.addresses.values().map(ToString::to_string).collect();
        let identity = self.dir.path().join("client").display().to_string();
        ["--servers".into(), servers.join(","), "--identity".into(), identity]
    }

    /// A client's command on this cluster, to its end.
    pub(crate) fn call(&self, args: &[&str]) -> Ended {
        Ended::of(raftmap(args).args(self.reach()).output().unwrap())
    }

    pub(crate) async fn status(&self, id: u64) -> Option<NodeStatus> {
        raftmap::admin::status(self.addresses[&id], &self.options(), Duration::from_secs(1)).await.ok()
    }

    pub(crate) async fn leader(&self) -> u64 {
        let begun = Instant::now();
        loop {
            for id in self.children.keys() {
                if self.status(*id).await.is_some_and(|status| status.role == "leader") {
                    return *id;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all that run have applied what is committed now.
    pub(crate) async fn wait_all_applied(&self) {
        let begun = Instant::now();
        let mut wanted = None;
        loop {
            let mut statuses = Vec::new();
            for id in self.children.keys() {
                statuses.extend(self.status(*id).await);
            }
            let leads = statuses.iter().find(|status| status.role == "leader");
            wanted = wanted.or(leads.map(|leader| leader.committed));
            if let Some(wanted) = wanted
                && statuses.len() == self.children.len()
                && statuses.iter().all(|status| status.applied >= wanted)
            {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not ready: {statuses:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all that run have one digest at one index.
    pub(crate) async fn wait_equal(&self) {
        let begun = Instant::now();
        loop {
            let mut digests = Vec::new();
            for id in self.children.keys() {
                let digest = raftmap::admin::digest(self.addresses[id], &self.options(), PATIENCE).await;
                digests.push(digest.unwrap());
            }
            if digests.windows(2).all(|pair| pair[0].0 == pair[1].0) {
                assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{digests:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn logs(&self) -> String {
        (1..=self.addresses.len())
            .map(|id| fs::read_to_string(self.dir.path().join(format!("node-{id}.log"))).unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Copies a directory of files.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
