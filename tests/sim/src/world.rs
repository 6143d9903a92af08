//! One world: nodes, clients and the network between them, and the one queue of what happens next. Nothing runs but
//! what the queue says; equal seeds give equal worlds.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use raftmap::clerk::machine::ServerId;
use raftmap::storage::marks::take as take_marks;
use raftmap::storage::model::{Effect, Fault, ModelFs, Op};
use raftmap::wire::client::Response;

use crate::client::Client;
use crate::damage::Directory;
use crate::dice::Dice;
use crate::end::PATIENCE;
use crate::faults;
use crate::history::Call;
use crate::nemesis::{Schedule, Struck};
use crate::net::{End, Links};
use crate::node::{Connections, Node, Tray};
use crate::promises::Promises;
use crate::queue::Queue;
use crate::setup::{Sabotage, Setup};
use crate::tap::Tap;
use crate::trace::{Marks, Trace};
use crate::transfer::Transfer;
use crate::watch::Watch;

/// A world of more events than this has hung. The busiest have a tenth of it.
const EVENTS_PER_SECOND: u64 = 200_000;

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
        life: u64,
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
    /// A clock that stood still goes on, if it is still this life.
    ClockGoesOn(usize, u64),
    /// Somebody works on a directory, for the nth time.
    Directory(usize, Directory, u32),
    /// A partition ends.
    HealLinks,
    /// One direction between two nodes is no longer slow.
    MendLink(usize, usize),
    HealDisk(usize),
    EndExcuse(usize),
    Calm,
    StopClients,
    Look,
    /// Nobody serves: answers so far, once that was looked at.
    Silent(Option<u64>),
}

impl Event {
    /// What tells it from its like. Bytes are in the trace since they were sent.
    fn numbers(&self) -> [u64; 3] {
        let pair = |kind: u64, a: usize, b: usize| [kind, a as u64, b as u64];
        match self {
            Self::Node(at, life, inner) => [inner.number(), *at as u64, *life],
            Self::Peer { from, to, .. } => pair(20, *from, *to),
            Self::Request { connection, .. } => [21, *connection, 0],
            Self::Response { connection, response } => [22, *connection, response.id],
            Self::Connected { client, node, ok, .. } => pair(23 + u64::from(*ok), *client, *node),
            Self::Disconnect { connection } => [25, *connection, 0],
            Self::Transfer(number) => [26, *number, 0],
            Self::Issue(client) => pair(27, *client, 0),
            Self::ClientTick(client) => pair(28, *client, 0),
            Self::Start(at) => pair(29, *at, 0),
            Self::Resume(at, life) => [30, *at as u64, *life],
            Self::Fault => [31, 0, 0],
            Self::HealLinks => [32, 0, 0],
            Self::HealDisk(at) => pair(33, *at, 0),
            Self::Calm => [34, 0, 0],
            Self::StopClients => [35, 0, 0],
            Self::Look => [36, 0, 0],
            Self::EndExcuse(at) => pair(39, *at, 0),
            Self::MendLink(from, to) => pair(40, *from, *to),
            Self::Silent(before) => [41, before.unwrap_or(0), 0],
            Self::Relapse(at, life) => [37, *at as u64, *life],
            Self::ClockGoesOn(at, life) => [42, *at as u64, *life],
            Self::Directory(at, what, tries) => [38, *at as u64, (*what as u64) << 32 | u64::from(*tries)],
        }
    }
}

impl Inner {
    fn number(self) -> u64 {
        match self {
            Self::Tick => 1,
            Self::Wake => 2,
            Self::Sync => 3,
            Self::Chore => 4,
            Self::Alarm => 5,
            Self::Job => 6,
        }
    }
}

/// Something inside a node.
#[derive(Clone, Copy, Debug)]
pub enum Inner {
    Tick,
    Wake,
    Sync,
    Chore,
    Alarm,
    Job,
}

/// See the module's description.
pub struct World {
    pub setup: Setup,
    pub now: Duration,
    queue: Queue<Event>,
    /// Events that have happened.
    popped: u64,
    pub nodes: Vec<Node>,
    /// Empty, but for its room.
    pub tray: Tray,
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
    pub checked: BTreeMap<&'static str, u64>,
    /// By client: when the latest of them began.
    pub last_done: Vec<Duration>,
    pub schedule: Dice,
    /// What crashes leave, and what copies are.
    pub disks: Dice,
    /// How long disks take.
    pub latencies: Dice,
    /// Belongs to the fault that strikes.
    pub nemesis: Dice,
    /// What comes of faults later: restarts, relapses, repairs.
    pub aftermath: Dice,
    pub plan: Schedule,
    pub calm: Option<Duration>,
    /// Those that stay broken to the end: a minority.
    pub broken: BTreeSet<usize>,
    /// When the latest write began that was acknowledged to a client.
    pub last_write: Duration,
    /// What may have cost an election: faults, their ends, crashes.
    pub upsets: u64,
    pub over: bool,
    /// Before total damage all came to rest.
    pub rested: bool,
    /// It ended in total damage: there is nothing to judge.
    pub halted: bool,
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
    /// Operations that each checker looked at.
    pub checked: BTreeMap<&'static str, u64>,
    /// How often each kind of fault that was drawn struck.
    pub faults: BTreeMap<String, u64>,
}

impl Report {
    /// Whether it shows anything: something was done, and everything that was drawn went wrong.
    pub fn counts(&self) -> bool {
        !self.is_idle() && self.faults.values().all(|count| *count > 0)
    }

    /// Hardly anything was done.
    pub fn is_idle(&self) -> bool {
        self.done < 50
    }
}

/// Why a world ended before its time.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The reason, in words.
    pub what: String,
    /// The latest events, the nodes and the setup, in words.
    pub story: String,
    pub at: Duration,
    /// The faults until then.
    pub struck: Vec<Struck>,
}

impl World {
    /// Runs the world of `setup` to its end.
    ///
    /// # Panics
    /// When anything is not as it must be; the setup, the latest events and the reason are printed.
    pub fn run(setup: Setup) -> Report {
        Self::new(setup).to_the_end()
    }

    /// As [`World::run`], and a failure is a result.
    ///
    /// # Errors
    /// When anything is not as it must be.
    pub fn attempt(setup: Setup) -> Result<Report, Failure> {
        Self::new(setup).lived()
    }

    /// Goes on to the end.
    ///
    /// # Panics
    /// As [`World::run`].
    pub fn to_the_end(mut self) -> Report {
        self.lived().unwrap_or_else(|failure| {
            eprintln!("{}", failure.story);
            panic!("{}", failure.what)
        })
    }

    /// As [`World::to_the_end`], and a failure is a result.
    ///
    /// # Errors
    /// When anything is not as it must be.
    pub fn lived(&mut self) -> Result<Report, Failure> {
        let lived = catch_unwind(AssertUnwindSafe(|| {
            self.live();
            if self.setup.watched && !self.halted {
                self.judge();
            }
        }));
        lived.map(|()| self.report()).map_err(|payload| Failure {
            what: words_of(&*payload),
            story: self.story(),
            at: self.now,
            struck: self.plan.struck.clone(),
        })
    }

    fn live(&mut self) {
        // In events, not by a clock: a world that hangs does so again.
        let most = (self.setup.safety * 3 + PATIENCE).as_secs().saturating_mul(EVENTS_PER_SECOND);
        while !self.over {
            self.next();
            assert!(self.popped <= most, "hung: {most} events and no end");
        }
    }

    /// The next event, if it is due by then.
    pub fn step(&mut self, until: Duration) -> bool {
        let due = self.queue.due().is_some_and(|due| due <= until);
        if due {
            self.next()
        } else {
            self.now = until
        }
        due
    }

    fn next(&mut self) {
        if let Some((at, event)) = self.queue.pop() {
            self.now = at;
            self.popped += 1;
            self.trace.numbers(at, event.numbers());
            self.handle(event);
            take_marks(|name| self.trace.sometimes(name));
        }
    }

    fn report(&self) -> Report {
        Report {
            hash: self.trace.hash(),
            events: self.trace.events,
            popped: self.popped,
            time: self.now,
            done: self.done,
            marks: self.trace.marks.clone(),
            checked: self.checked.clone(),
            faults: self.faults_by_kind(),
        }
    }

    /// All that is drawn, and how often it struck.
    fn faults_by_kind(&self) -> BTreeMap<String, u64> {
        let setup = &self.setup;
        let kinds = faults::names(&setup.faults, setup.nodes).into_iter();
        let drawn = kinds.filter(|kind| setup.faults.every.is_some() && !setup.less.without.contains(kind));
        let manners = faults::manners(&setup.faults, setup.nodes).filter(|_| setup.faults.every.is_some());
        let mut faults: BTreeMap<String, u64> =
            drawn.chain(manners.map(str::to_owned)).map(|kind| (kind, 0)).collect();
        for struck in self.plan.struck.iter().filter(|struck| struck.fired) {
            *faults.entry(struck.kind.clone()).or_default() += 1;
        }
        for (kind, marks) in faults::LATER {
            if let Some(count) = faults.get_mut(kind) {
                *count = marks.iter().filter_map(|mark| self.trace.marks.get(mark)).sum();
            }
        }
        let net = &setup.net;
        let links = [
            ("loss", net.loss, self.links.lost),
            ("doubled", net.doubled, self.links.doubled),
            ("late", net.late, self.links.late),
        ];
        faults.extend(
            links
                .into_iter()
                .filter(|(_, parts, _)| *parts > 0)
                .map(|(kind, _, count)| (kind.to_owned(), count)),
        );
        faults
    }

    pub fn new(setup: Setup) -> Self {
        let seed = setup.seed;
        let nodes = (0..setup.nodes).map(|at| {
            let disk = ModelFs::new(Dice::new(seed, &format!("disk {at}")).number());
            let mut node = Node::new(setup.node(at), setup.sizes, disk, setup.clocks[at], setup.syncs[at]);
            node.inbox = setup.inbox;
            node.ahead = setup.offsets.get(at).copied().unwrap_or_default();
            if setup.sabotage == Some(Sabotage::LyingDisks) {
                let effect = Effect::SyncLied(seed);
                node.disk.fail(Fault { on: Some(Op::SyncData), after: 40, effect, lasting: true });
            }
            node
        });
        let client =
            |at| Client::new(setup.nodes, setup.load.window, Dice::new(seed, &format!("client {at}")));
        let mut world = Self {
            nodes: nodes.collect(),
            tray: Tray::default(),
            clients: (0..setup.load.clients).map(client).collect(),
            connections: Connections::default(),
            promises: Promises::default(),
            links: Links::new(setup.net.clone(), Dice::new(seed, "net"), Dice::new(seed, "each link")),
            transfers: BTreeMap::new(),
            transfers_begun: 0,
            watch: Watch::default(),
            trace: Trace::default(),
            tap: None,
            history: Vec::new(),
            versions: BTreeMap::new(),
            done: 0,
            checked: BTreeMap::new(),
            last_done: vec![Duration::ZERO; setup.load.clients],
            schedule: Dice::new(seed, "schedule"),
            disks: Dice::new(seed, "disks"),
            latencies: Dice::new(seed, "disk times"),
            nemesis: Dice::new(seed, "nemesis"),
            aftermath: Dice::new(seed, "aftermath"),
            plan: Schedule::new(seed),
            calm: None,
            broken: BTreeSet::new(),
            last_write: Duration::ZERO,
            upsets: 0,
            over: false,
            rested: false,
            halted: false,
            now: Duration::ZERO,
            queue: Queue::new(),
            popped: 0,
            setup,
        };
        // What a world before this one left on this thread.
        take_marks(|_| {});
        world.begin();
        world
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
        self.queue.put(time, event);
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
            Event::Connected { client, life, server, node, ok } => {
                self.connected(client, life, server, node, ok);
            }
            Event::Disconnect { connection } => self.disconnect(connection),
            Event::Transfer(number) => self.transfer(number),
            Event::Issue(client) => self.issue(client),
            Event::ClientTick(client) => self.client_tick(client),
            Event::Start(at) => self.start(at),
            Event::Resume(at, life) => self.resume(at, life),
            Event::Fault => self.fault(),
            Event::Relapse(at, life) => self.relapsed(at, life),
            Event::ClockGoesOn(at, life) => self.clock_goes_on(at, life),
            Event::Directory(at, what, tries) => self.directory(at, what, tries),
            Event::HealLinks => self.links.heal(),
            Event::MendLink(from, to) => self.links.mend(End::Node(from), End::Node(to)),
            Event::HealDisk(at) => self.heal_disk(at),
            Event::EndExcuse(at) => self.end_excuse(at),
            Event::Calm if self.waits_for_a_fault() => self.after(Duration::from_secs(1), Event::Calm),
            Event::Calm => self.calm_down(),
            Event::StopClients => self.clients.iter_mut().for_each(|client| client.stopped = true),
            Event::Look => self.look(),
            Event::Silent(before) => self.silent(before),
        }
    }

    /// What was drawn shall have its turn, if it takes three times as long: a world in which it never struck shows nothing.
    fn waits_for_a_fault(&self) -> bool {
        let Setup { safety, less, .. } = &self.setup;
        less.until.is_none()
            && self.now < *safety * 3
            && self
                .faults_by_kind()
                .iter()
                .any(|(kind, count)| *count == 0 && !faults::AT_THE_END.contains(&kind.as_str()))
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
        if self.nodes[at].lives != number || self.broken.contains(&at) {
            return;
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        self.upsets += 1;
        let mut missed = life.paused.take().unwrap_or_default();
        // A socket's buffer is not endless.
        if self.aftermath.below(2) == 0 {
            missed.retain(|event| !matches!(event, Event::Peer { .. }));
        }
        self.trace.note(self.now, at, "goes on", missed.len() as u64, 0);
        missed.into_iter().for_each(|event| self.at(self.now, event));
    }
}

impl World {
    /// The latest events, the nodes, and everything that was drawn.
    fn story(&self) -> String {
        let mut story = self.trace.story();
        for node in &self.nodes {
            let life = node.life.as_ref();
            let status = life.map(|life| (life.replica.raft().status(), life.replica.status()));
            story.push_str(&format!("{status:#?}\n"));
        }
        let Self { setup, now, .. } = self;
        story + &format!("{setup:#?}\nat {now:?}, the world of seed {}\n", setup.seed)
    }
}

/// A world that is driven from outside tells its story where it fails; [`World::attempt`] keeps it.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
    }
}

fn words_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
