//! One world: nodes, clients and the network between them, and the one queue of what happens next. Nothing runs but
//! what the queue says; equal seeds give equal worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use raftmap::clerk::machine::ServerId;
use raftmap::storage::model::ModelFs;
use raftmap::wire::client::Response;

use crate::check::history::Call;
use crate::client::Client;
use crate::damage::Directory;
use crate::dice::Dice;
use crate::net::Links;
use crate::node::{Connections, Node};
use crate::promises::Promises;
use crate::setup::Setup;
use crate::tap::Tap;
use crate::trace::{Marks, Trace};
use crate::transfer::Transfer;
use crate::watch::Watch;

/// Something that happens at its time.
#[derive(Debug)]
pub enum Event {
    /// To the node in this place, in this life of it.
    Node(usize, u64, Inner),
    /// A message from a member, to whatever life is there.
    Peer {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    Request {
        connection: u64,
        bytes: Bytes,
    },
    Response {
        connection: u64,
        response: Box<Response>,
    },
    Connected {
        client: usize,
        server: ServerId,
        node: usize,
        ok: bool,
    },
    Disconnect {
        connection: u64,
    },
    Transfer(u64),
    Issue(usize),
    ClientTick(usize),
    Start(usize),
    Resume(usize, u64),
    Fault,
    /// A node in a crash loop dies again, if it is still this life.
    Relapse(usize, u64),
    /// Somebody works on a directory, for the nth time.
    Directory(usize, Directory, u32),
    HealLinks,
    HealDisk(usize),
    Calm,
    StopClients,
    Look,
}

/// Something inside a node.
#[derive(Clone, Copy, Debug)]
pub enum Inner {
    Tick,
    Wake,
    Sync { took: Duration },
    Chore,
    Quiet { turns: u64 },
    LookAgain,
    Job,
}

/// See the module's description.
pub struct World {
    pub setup: Setup,
    pub now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    events: u64,
    popped: u64,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub connections: Connections,
    pub promises: Promises,
    pub links: Links,
    pub transfers: BTreeMap<u64, Transfer>,
    pub transfers_begun: u64,
    pub watch: Watch,
    pub trace: Trace,
    /// Present where a script drives the world.
    pub tap: Option<Tap>,
    pub history: Vec<Call>,
    /// Versions that clients have heard of.
    pub versions: BTreeMap<String, u64>,
    /// Calls that ended with an answer.
    pub done: u64,
    /// By client: when the latest of them began.
    pub last_done: Vec<Duration>,
    pub schedule: Dice,
    pub disks: Dice,
    pub nemesis: Dice,
    pub calm: Option<Duration>,
    /// Those that stay broken to the end: a minority.
    pub broken: BTreeSet<usize>,
    /// When the latest write was acknowledged to a client.
    pub last_write: Duration,
    /// What may have cost an election: faults, their ends, crashes.
    pub upsets: u64,
    pub over: bool,
}

/// What a world came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub hash: u64,
    /// Notes in the trace.
    pub events: u64,
    /// Events of the queue.
    pub popped: u64,
    pub time: Duration,
    pub done: u64,
    pub marks: Marks,
}

impl World {
    /// Runs the world of `setup` to its end.
    ///
    /// # Panics
    /// When anything is not as it must be; the setup, the latest events and the reason are printed.
    pub fn run(setup: Setup) -> Report {
        let mut world = Self::new(setup);
        while !world.over {
            let Some(((at, _), event)) = world.queue.pop_first() else { break };
            world.now = at;
            world.popped += 1;
            world.handle(event);
        }
        world.judge();
        Report {
            hash: world.trace.hash(),
            events: world.trace.events,
            popped: world.popped,
            time: world.now,
            done: world.done,
            marks: world.trace.marks.clone(),
        }
    }

    pub fn new(setup: Setup) -> Self {
        let seed = setup.seed;
        let nodes = (0..setup.nodes).map(|at| {
            let disk = ModelFs::new(Dice::new(seed, &format!("disk {at}")).number());
            let mut node = Node::new(setup.node(at), setup.sizes, disk, setup.clocks[at], setup.syncs[at]);
            node.ahead = setup.offsets[at];
            node
        });
        let client =
            |at| Client::new(setup.nodes, setup.load.window, Dice::new(seed, &format!("client {at}")));
        let mut world = Self {
            nodes: nodes.collect(),
            clients: (0..setup.load.clients).map(client).collect(),
            connections: Connections::default(),
            promises: Promises::default(),
            links: Links::new(setup.net.clone(), Dice::new(seed, "net")),
            transfers: BTreeMap::new(),
            transfers_begun: 0,
            watch: Watch::default(),
            trace: Trace::default(),
            tap: None,
            history: Vec::new(),
            versions: BTreeMap::new(),
            done: 0,
            last_done: vec![Duration::ZERO; setup.load.clients],
            schedule: Dice::new(seed, "schedule"),
            disks: Dice::new(seed, "disks"),
            nemesis: Dice::new(seed, "nemesis"),
            calm: None,
            broken: BTreeSet::new(),
            last_write: Duration::ZERO,
            upsets: 0,
            over: false,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            events: 0,
            popped: 0,
            setup,
        };
        world.begin();
        world
    }

    /// The next event, if it is due by then.
    pub fn step(&mut self, until: Duration) -> bool {
        if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > until) {
            self.now = until;
            return false;
        }
        if let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.handle(event);
        }
        true
    }

    fn begin(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.at(Duration::ZERO, Event::Start(at)));
        for client in 0..self.clients.len() {
            (0..self.setup.load.pipeline).for_each(|_| self.at(Duration::ZERO, Event::Issue(client)));
        }
        if self.setup.faults.every.is_some() {
            self.next_fault();
        }
        self.at(self.setup.safety, Event::Calm);
    }

    pub fn at(&mut self, time: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((time, self.events), event);
    }

    pub fn after(&mut self, time: Duration, event: Event) {
        self.at(self.now + time, event);
    }

    /// A check that must hold.
    #[track_caller]
    pub fn must<T>(&self, checked: Result<T, String>) -> T {
        checked.unwrap_or_else(|error| panic!("{error}"))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Node(at, life, inner) => {
                let event = Event::Node(at, life, inner);
                if self.nodes[at].lives == life && self.nodes[at].life.is_some() {
                    self.in_node(at, event, |world| world.inner(at, inner));
                }
            }
            Event::Peer { from, to, bytes } => {
                let event = Event::Peer { from, to, bytes: bytes.clone() };
                self.in_node(to, event, |world| world.heard(from, to, &bytes));
            }
            Event::Request { connection, bytes } => {
                let Some(found) = self.connections.open.get(&connection).copied() else { return };
                if self.nodes[found.node].lives == found.life {
                    let event = Event::Request { connection, bytes: bytes.clone() };
                    self.in_node(found.node, event, |world| world.asked(connection, found.node, &bytes));
                }
            }
            Event::Response { connection, response } => self.responded(connection, *response),
            Event::Connected { client, server, node, ok } => self.connected(client, server, node, ok),
            Event::Disconnect { connection } => self.disconnect(connection),
            Event::Transfer(number) => self.transfer(number),
            Event::Issue(client) => self.issue(client),
            Event::ClientTick(client) => self.client_tick(client),
            Event::Start(at) => self.start(at),
            Event::Resume(at, life) => self.resume(at, life),
            Event::Fault => self.fault(),
            Event::Relapse(at, life) => self.relapsed(at, life),
            Event::Directory(at, what, tries) => self.directory(at, what, tries),
            Event::HealLinks => self.links.heal(),
            Event::HealDisk(at) => self.heal_disk(at),
            Event::Calm => self.calm_down(),
            Event::StopClients => self.clients.iter_mut().for_each(|client| client.stopped = true),
            Event::Look => self.look(),
        }
    }

    /// Lets it happen, now or when the process runs again.
    fn in_node(&mut self, at: usize, event: Event, act: impl FnOnce(&mut Self)) {
        match self.nodes[at].life.as_mut().map(|life| life.paused.as_mut()) {
            None => {}
            Some(Some(paused)) => paused.push(event),
            Some(None) => act(self),
        }
    }

    fn resume(&mut self, at: usize, number: u64) {
        if self.nodes[at].lives != number {
            return;
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        self.upsets += 1;
        let mut missed = life.paused.take().unwrap_or_default();
        // A socket's buffer is not endless.
        if self.nemesis.below(2) == 0 {
            missed.retain(|event| !matches!(event, Event::Peer { .. }));
        }
        self.trace.note(self.now, at, "goes on", missed.len() as u64, 0);
        missed.into_iter().for_each(|event| self.at(self.now, event));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.print();
            for node in &self.nodes {
                let life = node.life.as_ref();
                eprintln!("{:#?}", life.map(|life| (life.replica.raft().status(), life.replica.status())));
            }
            eprintln!("{:#?}", self.setup);
            eprintln!("at {:?}, the world of seed {}", self.now, self.setup.seed);
        }
    }
}
