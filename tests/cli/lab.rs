//! Some of the course's service tests, by their names there, on real processes: real disks, real QUIC, SIGKILL, and for
//! the bad network relays in front of every node and between each two. What clients saw is judged by the checkers that
//! `raftmap demo` uses. All of them, with all their numbers, are in `tests/lab.rs`; the times here are short, and the
//! course's where `LAB_SEEDS` is set.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raftmap::check::{Call, Content, History, KeyId, Operation, Outcome, Reply};
use raftmap::net::relay::{Relay, Weather};
use raftmap::{Clerk, Error, Pending};

use super::cluster::{Cluster, PATIENCE};

/// An iteration is over when clients have done so many more operations: a busy machine takes its time.
const OPERATIONS: u64 = 60;
/// It takes at most this long.
const ITERATION_MAX: Duration = Duration::from_secs(120);
/// All are dead for as long, and after a partition has ended all hear each other for as long.
const PAUSE: Duration = Duration::from_secs(1);
/// Times for many processes on few processors: longer than those by default, so that nobody is deposed for want of one.
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
    crash: bool,
    /// The network is bad, and parts come and go.
    bad_network: bool,
    bounded: bool,
}

const CALM: Workload = Workload { clients: 5, servers: 5, crash: false, bad_network: false, bounded: false };

/// How long it goes on.
#[derive(Clone, Copy)]
struct Length {
    iterations: u32,
    /// One takes at least this long.
    iteration: Duration,
    /// The first partition comes so late in it.
    whole: Duration,
}

impl Length {
    /// The course's.
    const FULL: Self =
        Self { iterations: 3, iteration: Duration::from_secs(5), whole: Duration::from_secs(1) };

    /// What there is time for, or all of it where `LAB_SEEDS` asks for a long run.
    fn of(workload: Workload) -> Self {
        if std::env::var_os("LAB_SEEDS").is_some() {
            return Self::FULL;
        }
        // The second iteration begins with what the crash left. Partitions take a second each.
        let iterations = if workload.crash { 2 } else { 1 };
        let iteration = Duration::from_secs(if workload.bad_network { 2 } else { 1 });
        Self { iterations, iteration, whole: Duration::ZERO }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_3a() {
    Workload { clients: 1, ..CALM }.run("basic_3a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_3a() {
    CALM.run("concurrent_3a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn persist_concurrent_3a() {
    Workload { crash: true, ..CALM }.run("persist_concurrent_3a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_recover_many_clients_3b() {
    let workload = Workload { clients: 20, crash: true, bounded: true, ..CALM };
    workload.run("snapshot_recover_many_clients_3b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_unreliable_recover_concurrent_partition_linearizable_3b() {
    let workload = Workload { clients: 15, servers: 7, crash: true, bad_network: true, bounded: true };
    workload.run("snapshot_unreliable_recover_concurrent_partition_linearizable_3b").await;
}

/// A thousand operations, one after the other, within the course's mean. Its limit is a third of its heartbeat, so that
/// whoever commits by heartbeats alone is three times too slow; here such a one is thirty times too slow, and a busy machine
/// is no excuse.
#[tokio::test(flavor = "multi_thread")]
async fn speed_3a() {
    const COUNT: u32 = 1_000;
    const MEAN_MAX: Duration = Duration::from_micros(33_300);
    let _alone = ALONE.lock().await;
    let cluster =
        Cluster::start(&["--heartbeat", "1s", "--election-min", "4s", "--election-max", "5s"]).await;
    let clerk = cluster.clerk();
    assert_eq!(clerk.get("key").await.unwrap(), None);
    let (begun, mut value) = (Instant::now(), String::new());
    for at in 0..COUNT {
        let token = format!("{at};");
        clerk.append("key", &token).await.unwrap();
        value.push_str(&token);
        let took = begun.elapsed();
        assert!(took <= MEAN_MAX * COUNT, "{at} operations took {took:?}, all may take {MEAN_MAX:?} each");
    }
    println!("{:?} an operation", begun.elapsed() / COUNT);
    let found = clerk.get("key").await.unwrap().unwrap();
    assert_eq!(found.value, value.as_bytes(), "each once, in order");
}

/// One cluster at a time: seven processes on a small machine are enough.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Workload {
    async fn run(self, name: &str) {
        let _alone = ALONE.lock().await;
        let mut dice = Dice::new();
        println!("LAB_SEED={} cargo test --test cli lab::{name}", dice.0);
        let bound = BOUND.to_string();
        let mut more = PATIENT.to_vec();
        more.extend(self.bounded.then_some(["--max-raft-state", &bound]).into_iter().flatten());
        let mut cluster = Cluster::prepare(self.servers, &more);
        let network = if self.bad_network { Some(Network::lay(&mut cluster).await) } else { None };
        cluster.spawn_all().await;
        let (started, board) = (Instant::now(), Arc::new(Board::default()));
        let mut client = |id| {
            let servers = network
                .as_ref()
                .map_or_else(|| cluster.addresses.values().copied().collect(), Network::front);
            let clerk = Clerk::connect(&servers, &cluster.options()).unwrap().with_deadline(DEADLINE);
            let dice = Dice(dice.draw(1 << 31));
            Client { id, clerk, started, keys: self.clients, dice, history: History::default(), number: 0 }
        };
        let clients: Vec<Client> = (1..=self.clients).map(&mut client).collect();
        let clients: Vec<_> =
            clients.into_iter().map(|client| tokio::spawn(client.work(board.clone()))).collect();
        let length = Length::of(self);
        for _ in 0..length.iterations {
            match &network {
                Some(network) => network.torn(&board, length, &mut dice).await,
                None => board.wait_for(OPERATIONS, length.iteration).await,
            }
            if self.crash {
                cluster.kill_all();
                tokio::time::sleep(PAUSE).await;
                let ids: Vec<u64> = cluster.addresses.keys().copied().collect();
                ids.into_iter().for_each(|id| cluster.spawn(id));
                board.wait_for(1, Duration::ZERO).await;
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
            dice: Dice(0),
            history: History::default(),
            number: 0,
        };
        history.extend(last.last_gets(&history).await);
        let verdict = raftmap::check::check(&history);
        assert!(verdict.passed(), "{verdict}\n{}", cluster.logs());
        let done = history.operations().iter().filter(|operation| operation.reply().is_some()).count();
        assert!(done >= 50 && verdict.checks.all() > 0, "{done} operations show nothing: {verdict}");
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

    /// One iteration: another partition every second, and at its end all hear each other again.
    async fn torn(&self, board: &Board, length: Length, dice: &mut Dice) {
        let (begun, before) = (Instant::now(), board.done());
        self.heal();
        tokio::time::sleep(length.whole).await;
        while begun.elapsed() < length.iteration || board.done() - before < OPERATIONS {
            board.not_for_ever(begun, before);
            self.split(dice);
            tokio::time::sleep(Duration::from_millis(1_000 + dice.draw(200))).await;
        }
        self.heal();
        tokio::time::sleep(PAUSE).await;
    }

    /// Two parts at random, none of them empty.
    fn split(&self, dice: &mut Dice) {
        let parts = dice.draw((1 << self.front.len()) - 2) + 1;
        let part = |id: u64| parts >> (id - 1) & 1;
        for ((a, b), relay) in &self.between {
            become_like(relay, if part(*a) == part(*b) { BAD } else { Weather::CUT });
        }
        self.front.values().for_each(|relay| become_like(relay, BAD));
    }

    /// All hear each other, badly.
    fn heal(&self) {
        self.relays().for_each(|relay| become_like(relay, BAD));
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
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Until so many more operations are done, and at least so long.
    async fn wait_for(&self, operations: u64, least: Duration) {
        let (begun, before) = (Instant::now(), self.done());
        while self.done() - before < operations || begun.elapsed() < least {
            self.not_for_ever(begun, before);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[track_caller]
    fn not_for_ever(&self, begun: Instant, before: u64) {
        let (done, took) = (self.done() - before, begun.elapsed());
        assert!(took < ITERATION_MAX, "{done} operations in {took:?}");
    }
}

/// Chance: another one in each run, or `LAB_SEED`'s. Processes are not repeated by it, but what is done to them is.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("LAB_SEED").ok().map(|seed| seed.parse().expect("LAB_SEED is a number"));
        let any =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::from(time.subsec_nanos()));
        Self(seed.unwrap_or_else(any))
    }

    fn draw(&mut self, below: u64) -> u64 {
        // Knuth's; the high bits are the random ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// One client with a session of its own.
struct Client {
    id: u32,
    clerk: Clerk,
    started: Instant,
    keys: u32,
    dice: Dice,
    history: History,
    number: u32,
}

impl Client {
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Calls until it is told to stop: half of them append, as in the course, to keys that all share.
    async fn work(mut self, board: Arc<Board>) -> History {
        while !board.stop.load(Ordering::Relaxed) {
            self.number += 1;
            let key = self.dice.draw(self.keys.into());
            let token = format!("{}.{};", self.id, self.number);
            match self.dice.draw(10) {
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
        let (index, found) = self.clerk.get_with_index(name).await.ok()?;
        let reply = found.as_ref().map_or(Reply::Absent, |found| Reply::Found {
            version: found.version,
            value: Content::of(&found.value),
        });
        let outcome = Outcome::Done { returned_ns: self.now(), index, reply };
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
