//! Three members, of which all or two are real nodes, and what must hold of them under attack.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use raftmap::net::{issue_client, issue_node, new_cluster};
use raftmap::storage::model::ModelFs;
use raftmap::{Clerk, Node, NodeConfig, free_addresses};
use tokio::runtime::Runtime;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The heap is one for all: one attack at a time.
static ONE: Mutex<()> = Mutex::new(());

const EXTRA_BYTES: usize = 64 * 1024 * 1024;
const MAX_RAFT_STATE: u64 = 4 * 1024 * 1024;
/// A write takes longer than this only where somebody was elected or the leader was held up. Machines under load are slow.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// Twice what it is where nobody says otherwise.
const ELECTION_MAX: Duration = Duration::from_secs(1);
/// What a follower waits for a leader where nobody says otherwise.
const HEARING: Duration = Duration::from_millis(250);
/// Of all such times of all nodes, so many per hundred may pass without a word, and a few more where the machine itself
/// halts.
const DEAF_PERCENT: usize = 5;
const DEAF_MORE: usize = 2;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Arena {
    pub(crate) runtime: Runtime,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) nodes: BTreeMap<u64, Arc<Node>>,
    /// The attacks are what may hold these nodes up, not the machine's disk.
    pub(crate) disks: BTreeMap<u64, ModelFs>,
    pub(crate) addresses: BTreeMap<u64, SocketAddr>,
    _one: MutexGuard<'static, ()>,
}

impl Arena {
    /// Three members, of whom these run.
    pub(crate) fn new(running: &[u64]) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3).unwrap());
        let runtime = Runtime::new().unwrap();
        let ca = dir.path().join("ca");
        new_cluster(&ca).unwrap();
        issue_client(&ca, "eve", &dir.path().join("eve")).unwrap();
        for id in [1, 2, 3, 9] {
            issue_node(&ca, id, &dir.path().join(format!("n{id}"))).unwrap();
        }
        let disks: BTreeMap<_, _> = running.iter().map(|id| (*id, ModelFs::new(*id))).collect();
        let start = |id: &u64| {
            let mut config = NodeConfig::new(*id, "/model", addresses[id]);
            config.peers = addresses.clone();
            config.identity = Some(dir.path().join(format!("n{id}")));
            // So that a machine under load is not taken for a leader that is gone.
            config.timing.election_min = ELECTION_MAX / 2;
            config.timing.election_max = ELECTION_MAX;
            // Small segments: they are part of the heap here.
            config.max_raft_state = Some(MAX_RAFT_STATE);
            let node = Node::start_on(disks[id].clone(), config);
            (*id, Arc::new(runtime.block_on(node).unwrap()))
        };
        let nodes: BTreeMap<_, _> = running.iter().map(start).collect();
        for node in nodes.values() {
            runtime.block_on(node.wait_ready(PATIENCE)).unwrap();
        }
        Self { runtime, dir, nodes, disks, addresses, _one: one }
    }

    pub(crate) fn leader(&self) -> u64 {
        self.nodes.values().next().unwrap().leader().expect("there is one")
    }

    /// What a node's transport has counted.
    pub(crate) fn stats(&self, id: u64) -> raftmap::net::Stats {
        self.nodes[&id].net_stats().expect("it runs")
    }

    /// Term and role of each node.
    fn reigns(&self) -> Vec<(u64, String)> {
        let status = |node: &Arc<Node>| self.runtime.block_on(node.node_status()).expect("it runs");
        self.nodes.values().map(status).map(|status| (status.term.0, status.role)).collect()
    }

    /// Attacks, and holds the nodes to what must hold meanwhile and for a while after.
    #[track_caller]
    pub(crate) fn under(&self, attack: impl FnOnce()) {
        let clerk = self.nodes[&self.leader()].clerk();
        let writer = Writer::start(&self.runtime, clerk);
        writer.wait_for(20);
        let before = self.reigns();
        let panicked = panics();
        let pulses: Vec<_> = self.nodes.values().map(|node| Pulse::start(&self.runtime, node)).collect();
        HEAP.reset_peak_usage();
        let heap = HEAP.current_usage();

        attack();
        writer.wait_for(writer.done() + 20);
        std::thread::sleep(ELECTION_MAX + HEARING);
        writer.wait_for(writer.done() + 20);

        let extra = HEAP.peak_usage().saturating_sub(heap);
        assert!(extra < EXTRA_BYTES, "{extra} bytes of heap more than before");
        assert_eq!(self.reigns(), before, "somebody was elected");
        assert_eq!(panics(), panicked, "something panicked");
        let heard: Vec<_> = pulses.into_iter().map(|pulse| pulse.stop(&self.runtime)).collect();
        let (deaf, all) = heard.iter().fold((0, 0), |(deaf, all), one| (deaf + one.0, all + one.1));
        let most = all * DEAF_PERCENT / 100 + DEAF_MORE;
        assert!(
            deaf <= most,
            "{deaf} of {all} times of {HEARING:?} in which a node heard of nothing: {heard:?}"
        );
        let longest = writer.stop(&self.runtime);
        assert!(longest < WRITE_MAX, "a write took {longest:?}");
    }
}

/// Panics of all threads and tasks of this process, also of those that nobody waits for.
fn panics() -> u64 {
    static PANICS: AtomicU64 = AtomicU64::new(0);
    static COUNTED: Once = Once::new();
    COUNTED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
    PANICS.load(Ordering::SeqCst)
}

/// Whether a node hears of the writes that go on: a follower does by what its leader says.
struct Pulse {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(usize, usize)>,
}

impl Pulse {
    fn start(runtime: &Runtime, node: &Arc<Node>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, stopped) = (node.clone(), stop.clone());
        let task = runtime.spawn(async move {
            let (mut deaf, mut all, mut heard) = (0, 0, None);
            while !stopped.load(Ordering::SeqCst) {
                let committed = node.node_status().await.expect("it runs").committed;
                all += 1;
                deaf += usize::from(heard.replace(committed) == Some(committed));
                tokio::time::sleep(HEARING).await;
            }
            (deaf, all)
        });
        Self { stop, task }
    }

    /// Times without a word, of so many.
    fn stop(self, runtime: &Runtime) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        runtime.block_on(self.task).expect("its node ran")
    }
}

/// Writes one key after the other; every write must be acknowledged.
struct Writer {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Writer {
    fn start(runtime: &Runtime, clerk: Clerk) -> Self {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (done.clone(), stop.clone());
        let task = runtime.spawn(async move {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::SeqCst) {
                let number = counter.load(Ordering::SeqCst);
                let began = Instant::now();
                clerk.put(format!("key {}", number % 50), number.to_string()).await.expect("acknowledged");
                longest = longest.max(began.elapsed());
                counter.fetch_add(1, Ordering::SeqCst);
            }
            longest
        });
        Self { done, stop, task }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_for(&self, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.done() < count {
            assert!(Instant::now() < until && !self.task.is_finished(), "writes do not go on");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The longest write.
    fn stop(self, runtime: &Runtime) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        runtime.block_on(self.task).expect("no write failed")
    }
}
