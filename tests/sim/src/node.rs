//! A simulated node: a disk that outlives crashes, and the life that runs on it. Everything in here is what runs in
//! production; only time, the disk under it and the network around it are made up.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use raftmap::node::arrivals::Arrivals;
use raftmap::node::inbox::{Bounds, Inbox};
use raftmap::node::open::{self, Opened, Sizes};
use raftmap::node::replica::{ClientId, Host, Job, Replica};
use raftmap::raft::{BatchNumber, Outbound, SoftState};
use raftmap::storage::model::ModelFs;
use raftmap::storage::types::{Batch, ClusterId, Index, NodeId, Term};
use raftmap::storage::{Identity, Recovered};
use raftmap::wire::client::Response;
use raftmap::{NodeConfig, StartError};

use crate::atlas::Harm;
use crate::clocks::Leap;
use crate::excuse::Excuse;
use crate::shadow::{Log, Shadow};
use crate::writer::Writer;

pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// See the module's description.
pub struct Node {
    pub config: NodeConfig,
    pub sizes: Sizes,
    pub disk: ModelFs,
    pub shadow: Shadow,
    pub life: Option<Life>,
    /// Lives so far; the running one's number.
    pub lives: u64,
    /// What may wait for its replica.
    pub inbox: Bounds,
    /// Thousandths of true time.
    pub clock: u64,
    /// Usual time of a sync.
    pub sync: Duration,
    /// Syncs take this many times as long at the moment.
    pub slowness: u32,
    /// It dies as soon as it has a chore or a snapshot in hand.
    pub doomed: bool,
    pub excuse: Excuse,
    pub harm: Harm,
    /// The latest term at each time that it held less than it had acknowledged: a leader of that term may say so.
    pub losses: Vec<Term>,
    /// A call on its disk fails until it is healed, and has failed so often.
    pub failing: Option<u64>,
    /// Somebody works on its directory: it does not start meanwhile.
    pub locked_out: bool,
    /// Copies of its directory, as they were once.
    pub backups: Vec<ModelFs>,
    /// It dies soon after each of so many starts to come.
    pub relapses: u64,
    /// What its clock shows beyond the time that went by: where it began, and leaps since.
    pub ahead: Duration,
    /// How it campaigns after a leap of its clock.
    pub leap: Option<Leap>,
}

/// One run of the process.
pub struct Life {
    pub born: Duration,
    /// Its clock stands still since then.
    pub still_since: Option<Duration>,
    /// How long it has stood still before.
    pub missed: Duration,
    pub replica: Replica,
    pub writer: Writer,
    pub inbox: Inbox,
    pub tick_due: bool,
    /// The replica's thread was woken and has not run yet.
    pub woken: bool,
    pub jobs: VecDeque<Job>,
    pub arrivals: Arrivals<ModelFs>,
    /// What happened while the process was stopped, for when it goes on.
    pub paused: Option<Vec<crate::world::Event>>,
    /// When the newest round began that each member has answered, and in which term.
    pub confirmed: BTreeMap<usize, (Term, Duration)>,
    /// When each round of confirmations began that it asked for, the newest of them.
    pub rounds: BTreeMap<(Term, u64), Duration>,
    /// The latest batch after which the disk was looked at.
    pub looked: u64,
    /// The latest term that it led.
    pub led: Term,
    /// Regressions named so far, and of each member in each term.
    pub named: u64,
    pub named_of: BTreeMap<(Term, NodeId), u64>,
    /// Checked up to here.
    pub committed: Index,
    pub applied: Index,
}

/// What a replica wants done beyond writing.
pub enum Effect {
    Send(Outbound),
    Reply(ClientId, Response),
    Start(Job),
    Changed(SoftState),
}

/// What a replica wants done, of each kind in its order.
#[derive(Default)]
pub struct Tray {
    pub batches: Vec<(BatchNumber, Batch)>,
    pub others: Vec<Effect>,
}

impl Host for Tray {
    fn send(&mut self, outbound: Outbound) {
        self.others.push(Effect::Send(outbound));
    }

    fn submit(&mut self, number: BatchNumber, batch: Batch) {
        self.batches.push((number, batch));
    }

    fn reply(&mut self, client: ClientId, response: Response) {
        self.others.push(Effect::Reply(client, response));
    }

    fn start(&mut self, job: Job) {
        self.others.push(Effect::Start(job));
    }

    fn changed(&mut self, state: SoftState) {
        self.others.push(Effect::Changed(state));
    }
}

impl Node {
    pub fn new(config: NodeConfig, sizes: Sizes, disk: ModelFs, clock: u64, sync: Duration) -> Self {
        Self {
            config,
            sizes,
            disk,
            shadow: Shadow::default(),
            life: None,
            lives: 0,
            inbox: Bounds::default(),
            clock,
            sync,
            slowness: 1,
            doomed: false,
            excuse: Excuse::default(),
            harm: Harm::None,
            losses: Vec::new(),
            failing: None,
            locked_out: false,
            backups: Vec::new(),
            relapses: 0,
            ahead: Duration::ZERO,
            leap: None,
        }
    }

    pub fn id(&self) -> NodeId {
        NodeId(self.config.id)
    }

    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// How long true time goes on while this node's clock moves by `time`.
    pub fn truly(&self, time: Duration) -> Duration {
        time * 1_000 / self.clock as u32
    }

    /// What the life's monotonic clock shows.
    pub fn clock(&self, now: Duration) -> Duration {
        let Some(life) = &self.life else { return self.ahead };
        let seen = life.still_since.unwrap_or(now) - life.born - life.missed;
        self.ahead + seen * self.clock as u32 / 1_000
    }

    /// What another look at this disk finds; the disk itself is not touched.
    pub fn look(&self, disk: &ModelFs) -> Result<Recovered, String> {
        let identity = Identity { cluster: CLUSTER, node: self.id() };
        let opened = raftmap::storage::open(disk.kill(), self.dir(), identity, self.sizes.log);
        opened.map(|(_, recovered)| recovered).map_err(|error| error.to_string())
    }

    /// Damage has taken what is missing in `found`, entries or a promise, and nothing on the disk says so.
    ///
    /// # Panics
    /// When something there bears witness to it.
    pub fn could_not_know(&self, found: &Log) {
        let (shadow, index) = (&self.shadow, found.last().next());
        assert!(
            shadow.may_miss(index) && shadow.may_forget(found.hard_state),
            "{}: entry {index} or what is newer than {:?} is damaged, and nobody notices: {shadow:?}",
            self.id(),
            found.hard_state
        );
    }

    /// What a starting process does first.
    pub fn open_on(&self, disk: &ModelFs) -> Result<Opened<ModelFs>, StartError> {
        open::open_sized(disk, &self.config, CLUSTER, &self.sizes)
    }

    /// Opens the directory as a starting process does.
    pub fn open(&mut self, now: Duration) -> Result<(), String> {
        let opened = self.open_on(&self.disk);
        let opened = opened.map_err(|error| raftmap_error(&error))?;
        self.lives += 1;
        self.life = Some(Life {
            born: now,
            still_since: None,
            missed: Duration::ZERO,
            committed: opened.replica.raft().snapshot_index(),
            looked: 0,
            applied: opened.replica.map().applied_index(),
            replica: opened.replica,
            writer: Writer::new(opened.wal),
            inbox: Inbox::new(self.inbox),
            tick_due: false,
            woken: false,
            jobs: VecDeque::new(),
            arrivals: Arrivals::new(self.disk.clone(), self.config.dir.clone(), CLUSTER),
            paused: None,
            confirmed: BTreeMap::new(),
            rounds: BTreeMap::new(),
            led: Term(0),
            named: 0,
            named_of: BTreeMap::new(),
        });
        Ok(())
    }
}

fn raftmap_error(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words.push_str(": ");
        words.push_str(&error.to_string());
        source = error.source();
    }
    words
}

/// Who is connected, numbered as a node numbers its clients.
#[derive(Debug, Default)]
pub struct Connections {
    next: u64,
    pub open: BTreeMap<u64, Connection>,
}

/// A client's connection to one life of a node.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub client: usize,
    pub server: raftmap::clerk::machine::ServerId,
    pub node: usize,
    pub life: u64,
}

impl Connections {
    pub fn add(&mut self, connection: Connection) -> u64 {
        self.next += 1;
        self.open.insert(self.next, connection);
        self.next
    }
}
