//! A simulated node: a disk that outlives crashes, and the life that runs on it. Everything in here is what runs in
//! production; only time, the disk under it and the network around it are made up.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use raftmap::node::open::{self, Opened, Sizes};
use raftmap::node::replica::{ClientId, Host, Input, Job, Replica};
use raftmap::raft::{BatchNumber, Outbound, SoftState};
use raftmap::storage::model::ModelFs;
use raftmap::storage::snapshot::Receiver;
use raftmap::storage::types::{Batch, ClusterId, Index, NodeId};
use raftmap::storage::{Identity, Recovered};
use raftmap::wire::client::Response;
use raftmap::{NodeConfig, StartError};

use crate::shadow::Shadow;
use crate::writer::Writer;

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

/// See the module's description.
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) sizes: Sizes,
    pub(crate) disk: ModelFs,
    pub(crate) shadow: Shadow,
    pub(crate) life: Option<Life>,
    /// Lives so far; the running one's number.
    pub(crate) lives: u64,
    /// Thousandths of true time.
    pub(crate) clock: u64,
    /// Usual time of a sync.
    pub(crate) sync: Duration,
    /// Syncs take this many times as long at the moment.
    pub(crate) slowness: u32,
    /// It dies as soon as it has a chore or a snapshot in hand.
    pub(crate) doomed: bool,
    /// Faults were ordered for its disk: it may refuse.
    pub(crate) excused: bool,
}

/// One run of the process.
pub(crate) struct Life {
    pub(crate) born: Duration,
    pub(crate) replica: Replica,
    pub(crate) writer: Writer,
    pub(crate) inbox: Vec<Input>,
    pub(crate) tick_due: bool,
    /// The replica's thread was woken and has not run yet.
    pub(crate) woken: bool,
    pub(crate) jobs: VecDeque<Job>,
    /// A transfer of a snapshot that broke off.
    pub(crate) partial: Option<Receiver<ModelFs>>,
    /// What happened while the process was stopped, for when it goes on.
    pub(crate) paused: Option<Vec<crate::world::Event>>,
    /// Checked up to here.
    pub(crate) committed: Index,
    pub(crate) applied: Index,
}

/// What a replica wants done, in its order.
pub(crate) enum Effect {
    Send(Outbound),
    Submit(BatchNumber, Batch),
    Reply(ClientId, Response),
    Start(Job),
    Changed(SoftState),
}

/// Collects them.
#[derive(Default)]
pub(crate) struct Tray(pub(crate) Vec<Effect>);

impl Host for Tray {
    fn send(&mut self, outbound: Outbound) {
        self.0.push(Effect::Send(outbound));
    }

    fn submit(&mut self, number: BatchNumber, batch: Batch) {
        self.0.push(Effect::Submit(number, batch));
    }

    fn reply(&mut self, client: ClientId, response: Response) {
        self.0.push(Effect::Reply(client, response));
    }

    fn start(&mut self, job: Job) {
        self.0.push(Effect::Start(job));
    }

    fn changed(&mut self, state: SoftState) {
        self.0.push(Effect::Changed(state));
    }
}

impl Node {
    pub(crate) fn new(config: NodeConfig, sizes: Sizes, disk: ModelFs, clock: u64, sync: Duration) -> Self {
        Self {
            config,
            sizes,
            disk,
            shadow: Shadow::default(),
            life: None,
            lives: 0,
            clock,
            sync,
            slowness: 1,
            doomed: false,
            excused: false,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        NodeId(self.config.id)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// How long true time goes on while this node's clock moves by `time`.
    pub(crate) fn truly(&self, time: Duration) -> Duration {
        time * 1_000 / self.clock as u32
    }

    /// What the life's monotonic clock shows.
    pub(crate) fn clock(&self, now: Duration) -> Duration {
        let born = self.life.as_ref().map_or(now, |life| life.born);
        (now - born) * self.clock as u32 / 1_000
    }

    /// What another look at this disk finds; the disk itself is not touched.
    pub(crate) fn look(&self, disk: &ModelFs) -> Result<Recovered, String> {
        let identity = Identity { cluster: CLUSTER, node: self.id() };
        let opened = raftmap::storage::open(disk.kill(), self.dir(), identity, self.sizes.log);
        opened.map(|(_, recovered)| recovered).map_err(|error| error.to_string())
    }

    /// What a starting process does first.
    pub(crate) fn open_on(&self, disk: &ModelFs) -> Result<Opened<ModelFs>, StartError> {
        open::open_sized(disk, &self.config, CLUSTER, &self.sizes)
    }

    /// Opens the directory as a starting process does.
    pub(crate) fn open(&mut self, now: Duration) -> Result<(), String> {
        let opened = self.open_on(&self.disk);
        let opened = opened.map_err(|error| raftmap_error(&error))?;
        self.lives += 1;
        self.life = Some(Life {
            born: now,
            committed: opened.replica.raft().snapshot_index(),
            applied: opened.replica.map().applied_index(),
            replica: opened.replica,
            writer: Writer::new(opened.wal),
            inbox: Vec::new(),
            tick_due: false,
            woken: false,
            jobs: VecDeque::new(),
            partial: None,
            paused: None,
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
pub(crate) struct Connections {
    next: u64,
    pub(crate) open: BTreeMap<u64, Connection>,
}

/// A client's connection to one life of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) server: raftmap::clerk::machine::ServerId,
    pub(crate) node: usize,
    pub(crate) life: u64,
}

impl Connections {
    pub(crate) fn add(&mut self, connection: Connection) -> u64 {
        self.next += 1;
        self.open.insert(self.next, connection);
        self.next
    }
}
