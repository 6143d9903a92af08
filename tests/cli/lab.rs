//! Some of the course's service tests, by their names there, on real processes: real disks, real QUIC, SIGKILL, and for
//! the bad network relays in front of every node and between each two. What clients saw is judged by the checkers that
//! `raftmap demo` uses. All of them, with all their numbers, are in `tests/lab.rs`; the times here are short.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftmap::check::{Call, Content, History, KeyId, Operation, Outcome, Reply};
use raftmap::net::relay::{Relay, Weather};
use raftmap::{Clerk, Error, Pending};

use super::cluster::{Cluster, PATIENCE};

/// An iteration is over when clients have done so many more operations: a busy machine takes its time.
const OPERATIONS: u64 = 60;
/// It takes at least this long, and at most that long.
const ITERATION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// Times with which seven processes and a compiler share two cores.
const PATIENT: [&str; 6] = ["--heartbeat", "100ms", "--election-min", "800ms", "--election-max", "1600ms"];
/// The course's bound of the log, and our least one.
const BOUND: u64 = 1_000;
/// The course's bad network, each way: up to 26 ms, and one message of ten lost. A message of ours is at least a datagram
/// and its acknowledgement, so it loses one datagram of twenty.
const BAD: Weather = Weather {
    cut: false,
    delay: Duration::ZERO,
    jitter: Duration::from_millis(26),
    lost_per_mille: 50,
    doubled_per_mille: 0,
    held_per_mille: 0,
};
/// For an outcome that is unknown to be known.
const DEADLINE: Duration = Duration::from_secs(2);

/// The parameters that the course's workload has.
#[derive(Clone, Copy)]
struct Workload {
    clients: u32,
    servers: u64,
    iterations: u32,
    crash: bool,
    /// The network is bad, and parts come and go.
    bad_network: bool,
    bounded: bool,
}

const CALM: Workload =
    Workload { clients: 5, servers: 5, iterations: 1, crash: false, bad_network: false, bounded: false };

#[tokio::test(flavor = "multi_thread")]
async fn basic_3a() {
    Workload { clients: 1, ..CALM }.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_3a() {
    CALM.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn persist_concurrent_3a() {
    Workload { crash: true, iterations: 2, ..CALM }.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_recover_many_clients_3b() {
    Workload { clients: 20, crash: true, iterations: 2, bounded: true, ..CALM }.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_unreliable_recover_concurrent_partition_linearizable_3b() {
    let workload =
        Workload { clients: 15, servers: 7, iterations: 2, crash: true, bad_network: true, bounded: true };
    workload.run().await;
}

/// One operation after the other, each far quicker than the next heartbeat: whoever commits by heartbeats alone needs one
/// for each. The heartbeat is long, so that a busy machine is no excuse; the times in themselves are the simulator's.
#[tokio::test(flavor = "multi_thread")]
async fn speed_3a() {
    const COUNT: u32 = 50;
    const HEARTBEAT: Duration = Duration::from_secs(1);
    let cluster =
        Cluster::start(&["--heartbeat", "1s", "--election-min", "4s", "--election-max", "5s"]).await;
    let clerk = cluster.clerk();
    assert_eq!(clerk.get("key").await.unwrap(), None);
    let (begun, mut value) = (Instant::now(), String::new());
    for at in 0..COUNT {
        let token = format!("{at};");
        clerk.append("key", &token).await.unwrap();
        value.push_str(&token);
    }
    let mean = begun.elapsed() / COUNT;
    let found = clerk.get("key").await.unwrap().unwrap();
    assert_eq!(found.value, value.as_bytes(), "each once, in order");
    assert!(mean < HEARTBEAT / 3, "an operation takes {mean:?}, and heartbeats are {HEARTBEAT:?} apart");
}

impl Workload {
    async fn run(self) {
        // One cluster of so many processes at a time.
        static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _alone = ALONE.lock().await;
        let bound = BOUND.to_string();
        let mut more = PATIENT.to_vec();
        more.extend(self.bounded.then_some(["--max-raft-state", &bound]).into_iter().flatten());
        let mut cluster = Cluster::prepare(self.servers, &more);
        let network = if self.bad_network { Some(Network::lay(&mut cluster).await) } else { None };
        cluster.spawn_all().await;
        let (started, board) = (Instant::now(), Arc::new(Board::default()));
        let client = |id| {
            let servers = network
                .as_ref()
                .map_or_else(|| cluster.addresses.values().copied().collect(), Network::front);
            let clerk = Clerk::connect(&servers, &cluster.options()).unwrap().with_deadline(DEADLINE);
            Client {
                id,
                clerk,
                started,
                keys: self.clients,
                dice: u64::from(id),
                history: History::default(),
                number: 0,
            }
        };
        let clients: Vec<Client> = (1..=self.clients).map(client).collect();
        let clients: Vec<_> =
            clients.into_iter().map(|client| tokio::spawn(client.work(board.clone()))).collect();
        for iteration in 0..self.iterations {
            if let Some(network) = &network {
                network.split(&cluster, iteration);
            }
            board.wait_for(OPERATIONS).await;
            if let Some(network) = &network {
                network.heal();
            }
            if self.crash {
                cluster.kill_all();
                cluster
                    .addresses
                    .keys()
                    .copied()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|id| cluster.spawn(id));
                board.wait_for(1).await;
            }
        }
        board.stop.store(true, Ordering::Relaxed);
        if let Some(network) = &network {
            network.relays().for_each(|relay| become_like(relay, Weather::default()));
        }
        let mut history = History::default();
        for client in clients {
            history.extend(client.await.unwrap());
        }
        self.judge(&cluster, history, started).await;
        if let Some(network) = network {
            assert!(network.harmed(), "nothing was lost or cut");
        }
    }

    async fn judge(self, cluster: &Cluster, mut history: History, started: Instant) {
        let last = Client {
            id: 0,
            clerk: cluster.clerk(),
            started,
            keys: self.clients,
            dice: 0,
            history: History::default(),
            number: 0,
        };
        history.extend(last.last_gets(&history).await);
        let verdict = raftmap::check::check(&history);
        assert!(verdict.passed(), "{verdict}\n{}", cluster.logs());
        let done = history.operations().iter().filter(|operation| operation.reply().is_some()).count();
        assert!(done >= 50 && verdict.checks() > 0, "{done} operations show nothing: {verdict}");
        cluster.wait_all_applied().await;
        cluster.wait_equal().await;
        for id in cluster.addresses.keys() {
            let status = raftmap::admin::status(cluster.addresses[id], &cluster.options(), PATIENCE).await;
            let status = status.expect("it runs");
            if self.bounded {
                assert!(status.raft_state_bytes <= 8 * BOUND && status.snapshot.0 > 0, "{status:?}");
            } else {
                assert_eq!(status.snapshot.0, 0, "a snapshot long before any is due: {status:?}");
            }
        }
    }
}

/// Relays: one before each node, for clients, and one between each two.
struct Network {
    front: BTreeMap<u64, Relay>,
    /// By the node that dials, which is the one of the smaller id, and the other one.
    between: BTreeMap<(u64, u64), Relay>,
}

impl Network {
    /// Lays bad roads to all nodes of a cluster that does not run yet.
    async fn lay(cluster: &mut Cluster) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut network = Self { front: BTreeMap::new(), between: BTreeMap::new() };
        for (to, address) in cluster.addresses.clone() {
            network.front.insert(to, Relay::bind(any, address, to).await.unwrap());
            for from in 1..to {
                let relay = Relay::bind(any, address, from * 100 + to).await.unwrap();
                cluster.roads.insert((from, to), relay.address());
                network.between.insert((from, to), relay);
            }
        }
        network
    }

    fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.front.values().chain(self.between.values())
    }

    /// Where clients find the nodes.
    fn front(&self) -> Vec<SocketAddr> {
        self.front.values().map(Relay::address).collect()
    }

    /// Two parts: those whose ids share a bit, and the others.
    fn split(&self, cluster: &Cluster, bit: u32) {
        let part = |id: u64| id >> (bit % 3) & 1;
        assert!(cluster.addresses.keys().any(|id| part(*id) == 0));
        for ((a, b), relay) in &self.between {
            become_like(relay, if part(*a) == part(*b) { BAD } else { Weather::CUT });
        }
        self.front.values().for_each(|relay| become_like(relay, BAD));
    }

    /// All hear each other, badly.
    fn heal(&self) {
        self.between.values().for_each(|relay| become_like(relay, BAD));
    }

    fn harmed(&self) -> bool {
        let counts: Vec<_> = self.relays().flat_map(|relay| [relay.counts().0, relay.counts().1]).collect();
        counts.iter().any(|counts| counts.lost > 0) && counts.iter().any(|counts| counts.cut > 0)
    }
}

fn become_like(relay: &Relay, weather: Weather) {
    relay.set_there(weather);
    relay.set_back(weather);
}

/// What clients and the test share.
#[derive(Default)]
struct Board {
    stop: AtomicBool,
    /// Operations with an answer.
    done: AtomicU64,
}

impl Board {
    async fn wait_for(&self, operations: u64) {
        let (begun, before) = (Instant::now(), self.done.load(Ordering::Relaxed));
        let done = || self.done.load(Ordering::Relaxed) - before;
        while done() < operations || begun.elapsed() < ITERATION.0 {
            assert!(begun.elapsed() < ITERATION.1, "{} operations in {:?}", done(), begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One client with a session of its own.
struct Client {
    id: u32,
    clerk: Clerk,
    started: Instant,
    keys: u32,
    dice: u64,
    history: History,
    number: u32,
}

impl Client {
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn draw(&mut self, below: u64) -> u64 {
        // Knuth's; the high bits are the random ones.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    /// Calls until it is told to stop: half of them append, as in the course, to keys that all share.
    async fn work(mut self, board: Arc<Board>) -> History {
        while !board.stop.load(Ordering::Relaxed) {
            self.number += 1;
            let key = self.draw(self.keys.into());
            let token = format!("{}.{};", self.id, self.number);
            match self.draw(10) {
                0..5 => {
                    let name = format!("log-{key}");
                    let begun = self.now();
                    let result = self.clerk.append(&name, &token).await;
                    self.wrote(&name, Call::Append(Content::of(token.as_bytes())), begun, result).await;
                }
                5 => {
                    let name = format!("register-{key}");
                    let begun = self.now();
                    let result = self.clerk.put(&name, &token).await;
                    self.wrote(&name, Call::Put(Content::of(token.as_bytes())), begun, result).await;
                }
                6 => drop(self.get(&format!("register-{key}")).await),
                _ => drop(self.get(&format!("log-{key}")).await),
            }
            let answered = self.history.operations().last().is_some_and(|last| last.reply().is_some());
            board.done.fetch_add(answered.into(), Ordering::Relaxed);
        }
        self.history
    }

    async fn wrote(&mut self, name: &str, call: Call, invoked_ns: u64, result: raftmap::Result<u64>) {
        let version = match result {
            Ok(version) => Ok(version),
            Err(Error::Unknown(pending)) => resolve(pending).await.ok_or(Outcome::Unknown),
            Err(Error::SessionExpired) => Err(Outcome::Unknown),
            // Every other error promises that it was not done.
            Err(_) => Err(Outcome::Refused { returned_ns: self.now() }),
        };
        let done = |version| Outcome::Done {
            returned_ns: self.now(),
            index: version,
            reply: Reply::Stored { version },
        };
        self.note(name, call, invoked_ns, version.map_or_else(|outcome| outcome, done));
    }

    /// One get; its place in the history, and the value, where there was an answer.
    async fn get(&mut self, name: &str) -> Option<(usize, Vec<u8>)> {
        let invoked_ns = self.now();
        let found = self.clerk.get(name).await.ok()?;
        let reply = found.as_ref().map_or(Reply::Absent, |found| Reply::Found {
            version: found.version,
            value: Content::of(&found.value),
        });
        let outcome = Outcome::Done { returned_ns: self.now(), index: 0, reply };
        let place = self.note(name, Call::Get, invoked_ns, outcome);
        Some((place, found.map_or_else(Vec::new, |found| found.value.to_vec())))
    }

    fn note(&mut self, name: &str, call: Call, invoked_ns: u64, outcome: Outcome) -> usize {
        let key = self.history.key(name.as_bytes());
        self.history.push(Operation { client: self.id, number: self.number, key, call, invoked_ns, outcome })
    }

    /// Gets every key that anybody used, for the last time.
    async fn last_gets(mut self, history: &History) -> History {
        let names: Vec<String> =
            history.keys().map(|key: KeyId| String::from_utf8_lossy(history.name(key)).into()).collect();
        for name in names {
            self.number += 1;
            let (place, value) = self.get(&name).await.expect("all is well");
            self.history.set_last(place, value);
        }
        self.history
    }
}

/// Asks under the same number until somebody knows; `None`: nobody will.
async fn resolve(mut pending: Pending) -> Option<u64> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match pending.resolve(DEADLINE).await {
            Ok(written) => return written.version(),
            Err(Error::Unknown(again)) => pending = again,
            Err(_) => return None,
        }
    }
    None
}
