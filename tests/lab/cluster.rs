//! A cluster that a test drives by hand: time, links, crashes, and what each member says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raftmap::kv::SessionId;
use raftmap::node::inbox::Bounds;
use raftmap::node::open::Sizes;
use raftmap::node::replica::Input;
use raftmap::raft::{RoleKind, Status};
use raftmap::storage::Options;
use raftmap::{Limits, Timing};
use raftmap_sim::dice::Dice;
use raftmap_sim::history;
use raftmap_sim::net::{End, Shape};
use raftmap_sim::setup::{Faults, Load, Net, Setup, WAKEUP};
use raftmap_sim::tap::{Tap, Traffic};
use raftmap_sim::world::World;

use crate::commands::Agreed;

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the course takes for an election timeout.
pub(crate) const ELECTION: Duration = millis(1_000);
/// Looks for a leader, about half a second apart.
const ROUNDS: u64 = 10;
/// What a whole test may take, in its own time.
const TEST_MAX: Duration = Duration::from_secs(120);

/// See the module's description.
pub(crate) struct Lab {
    pub(crate) world: World,
    connected: Vec<bool>,
    pub(crate) dice: Dice,
    /// The session that the script writes in, once it is open.
    pub(crate) session: Option<SessionId>,
    pub(crate) sequence: u64,
    pub(crate) requests: u64,
    /// The numbers of all commands, by their requests.
    pub(crate) asked: BTreeMap<u64, u64>,
    /// Those of them that append to the common key.
    pub(crate) tokens: BTreeSet<u64>,
    pub(crate) agreed: Agreed,
}

/// A cluster before it begins.
pub(crate) struct Plan {
    setup: Setup,
}

impl Plan {
    /// `nodes` with production's times and sizes, but small segments, on a network and disks that the seed draws.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut dice = Dice::new(seed, "lab");
        let mut setup = Setup::draw(seed);
        // A value holds the tokens of the longest story: three commands in 10 ms for 14 seconds, six bytes each.
        let limits = Limits { key_bytes: 64, value_bytes: 32 * 1_024, sessions: 1_024, ..Limits::default() };
        let payload_max = limits.proposal_bytes() as u32 + 1;
        let log = Options { segment_bytes: 64 * 1_024, payload_max, spares: 2, batch_bytes: 4 << 20 };
        setup.nodes = nodes;
        setup.timing = Timing::default();
        setup.max_raft_state = None;
        setup.limits = limits;
        setup.inbox = Bounds::default();
        setup.sizes = Sizes { log, ..Sizes::new(None, payload_max) };
        setup.load = Load { clients: 0, pipeline: 0, forget: 0, deadline: millis(5_000), ..setup.load };
        setup.faults = Faults { kill: true, power: true, torn: true, ..Faults::none() };
        setup.net = Net {
            delay: dice.time(millis(1) / 20, millis(1)),
            jitter: millis(1) / 10,
            loss: 0,
            doubled: 0,
            late: 0,
            broken: 0,
            uneven: false,
        };
        setup.clocks = vec![1_000; nodes];
        setup.offsets = vec![Duration::ZERO; nodes];
        setup.syncs = (0..nodes).map(|_| dice.time(millis(1) / 10, millis(3))).collect();
        setup.wakeup = WAKEUP;
        // Never by itself.
        setup.safety = TEST_MAX * 1_000;
        setup.sabotage = None;
        Self { setup }
    }

    /// Bounds the log. Nothing of what is cut stays on the heap: whoever missed it needs a snapshot.
    pub(crate) fn max_raft_state(mut self, bytes: u64) -> Self {
        self.setup.max_raft_state = Some(bytes);
        self.setup.sizes.tail_bytes = 0;
        self
    }

    /// But for production's tail, which stays on the heap.
    pub(crate) fn tail(mut self) -> Self {
        let Setup { max_raft_state, sizes, .. } = &mut self.setup;
        sizes.tail_bytes = Sizes::new(*max_raft_state, sizes.log.payload_max).tail_bytes;
        self
    }

    /// With as many clerks.
    pub(crate) fn clerks(mut self, clerks: usize) -> Self {
        self.setup.load.clients = clerks;
        self.setup.load.window = 1_024;
        self
    }

    /// The course's bad network: up to 26 ms each way, one message of ten lost, and one of ten that a clerk sends or is
    /// sent: with its connection, for a stream repeats what is lost as long as it stands.
    pub(crate) fn unreliable(mut self) -> Self {
        self.setup.net =
            Net { delay: Duration::ZERO, jitter: millis(26), loss: 100, broken: 100, ..self.setup.net };
        self
    }

    pub(crate) fn start(self) -> Lab {
        let Setup { seed, nodes, limits, .. } = self.setup;
        let mut world = World::new(self.setup);
        world.tap = Some(Tap::new(limits));
        world.clients.iter_mut().for_each(|client| client.stopped = true);
        let connected = vec![true; nodes];
        let dice = Dice::new(seed, "script");
        Lab {
            world,
            connected,
            dice,
            session: None,
            sequence: 0,
            requests: 0,
            asked: BTreeMap::new(),
            tokens: BTreeSet::new(),
            agreed: Agreed::default(),
        }
    }
}

impl Lab {
    // ---- Time ----

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.world.now + time;
        while self.world.step(until) {}
        assert!(self.world.now < TEST_MAX, "the test takes longer than {TEST_MAX:?} of its own time");
    }

    /// Whether it comes true in this time; looked at every 20 ms.
    pub(crate) fn within(&mut self, time: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let until = self.world.now + time;
        while !holds(self) {
            if self.world.now >= until {
                return false;
            }
            self.run(millis(20));
        }
        true
    }

    // ---- Members ----

    pub(crate) fn len(&self) -> usize {
        self.connected.len()
    }

    pub(crate) fn all(&self) -> std::ops::Range<usize> {
        0..self.len()
    }

    /// The member `steps` behind this one, around the circle.
    pub(crate) fn next(&self, at: usize, steps: usize) -> usize {
        (at + steps) % self.len()
    }

    pub(crate) fn runs(&self, at: usize) -> bool {
        self.world.nodes[at].life.is_some()
    }

    pub(crate) fn running(&self) -> usize {
        self.all().filter(|at| self.runs(*at)).count()
    }

    pub(crate) fn down(&self) -> Vec<usize> {
        self.all().filter(|at| !self.runs(*at)).collect()
    }

    pub(crate) fn status(&self, at: usize) -> Option<Status> {
        self.world.nodes[at].life.as_ref().map(|life| life.replica.raft().status())
    }

    /// Whether it takes itself for the leader.
    pub(crate) fn leads(&self, at: usize) -> bool {
        self.status(at).is_some_and(|status| status.role == RoleKind::Leader)
    }

    pub(crate) fn tap(&mut self) -> &mut Tap {
        self.world.tap.as_mut().expect("a lab has one")
    }

    pub(crate) fn traffic(&mut self) -> Traffic {
        self.tap().traffic
    }

    /// How often the world noted this.
    pub(crate) fn mark(&self, name: &str) -> u64 {
        self.world.trace.marks.get(name).copied().unwrap_or(0)
    }

    // ---- Links ----

    pub(crate) fn is_connected(&self, at: usize) -> bool {
        self.connected[at]
    }

    pub(crate) fn connected_len(&self) -> usize {
        self.connected.iter().filter(|it| **it).count()
    }

    pub(crate) fn disconnect(&mut self, at: usize) {
        self.connected[at] = false;
        self.relink();
    }

    pub(crate) fn connect(&mut self, at: usize) {
        self.connected[at] = true;
        self.relink();
    }

    pub(crate) fn connect_all(&mut self) {
        self.connected.fill(true);
        self.relink();
    }

    /// Members that are not connected hear nobody, and nobody hears them; clerks neither.
    fn relink(&mut self) {
        let mut cut = BTreeSet::new();
        let clients = 0..self.world.clients.len();
        for at in self.all().filter(|at| !self.connected[*at]) {
            let others = self.all().filter(|other| *other != at).map(End::Node);
            for other in others.chain(clients.clone().map(End::Client)) {
                cut.extend([(End::Node(at), other), (other, End::Node(at))]);
            }
        }
        self.cut_only(cut);
    }

    /// Exactly these links are cut: some may lose their leader by it, and some may find another one.
    pub(crate) fn cut_only(&mut self, cut: BTreeSet<(End, End)>) {
        self.world.upsets += 2;
        self.world.links.cut_only(cut);
    }

    /// Only those of equal part hear each other, clerks everybody.
    pub(crate) fn split(&mut self, part: &[bool]) {
        let pairs = self.all().flat_map(|from| self.all().map(move |to| (from, to)));
        let cut = pairs.filter(|(from, to)| part[*from] != part[*to]);
        let cut = cut.map(|(from, to)| (End::Node(from), End::Node(to))).collect();
        self.cut_only(cut);
    }

    /// Cuts links between members by this shape, often around the leader, and some of those between clerks and members.
    #[track_caller]
    pub(crate) fn cut(&mut self, shape: Shape) {
        let leader = self.world.leader().unwrap_or(0);
        let (nodes, clients) = (self.len(), self.world.clients.len());
        self.world.upsets += 2;
        self.world.links.heal();
        self.world.links.cut(shape, nodes, clients, leader, &mut self.dice);
        assert!(self.world.links.parts_nodes(), "{shape:?} cut nothing");
    }

    /// As the course's reliable network: nothing is lost or late from now on.
    pub(crate) fn calm_network(&mut self) {
        let calm = Net {
            delay: millis(1),
            jitter: millis(1),
            loss: 0,
            doubled: 0,
            late: 0,
            broken: 0,
            uneven: false,
        };
        self.world.links.become_like(calm);
        self.tap().late = None;
    }

    /// Two replies of three come 200 ms late and more.
    pub(crate) fn reorder_replies(&mut self) {
        let dice = Dice::new(self.world.setup.seed, "late replies");
        self.tap().late = Some(dice);
    }

    // ---- Processes ----

    /// Killed, or the power is cut.
    pub(crate) fn crash(&mut self, at: usize) {
        let crash = self.world.draw_crash();
        self.world.crash(at, crash);
    }

    /// Begins again, connected.
    pub(crate) fn restart(&mut self, at: usize) {
        self.world.start(at);
        self.connect(at);
    }

    pub(crate) fn crash_all(&mut self) {
        self.all().for_each(|at| self.crash(at));
    }

    pub(crate) fn restart_all(&mut self) {
        self.all().for_each(|at| self.restart(at));
    }

    /// All are told to stop, as by SIGTERM: whoever waits is answered. Then they are gone.
    pub(crate) fn stop_all(&mut self) {
        self.all().for_each(|at| self.world.push(at, Input::Stop));
        self.run(millis(1));
        self.crash_all();
    }

    // ---- What they say ----

    /// The one leader among those that are connected, who is the same for all terms but the latest.
    #[track_caller]
    pub(crate) fn one_leader(&mut self) -> usize {
        for _ in 0..ROUNDS {
            let pause = self.dice.between(450, 550);
            self.run(millis(pause));
            let mut leaders: BTreeMap<_, usize> = BTreeMap::new();
            for at in self.all().filter(|at| self.connected[*at]) {
                let Some(status) = self.status(at).filter(|status| status.role == RoleKind::Leader) else {
                    continue;
                };
                let other = leaders.insert(status.term, at);
                assert!(other.is_none(), "{} has two leaders, {other:?} and {at}", status.term);
            }
            if let Some((_, at)) = leaders.last_key_value() {
                return *at;
            }
        }
        panic!("no leader in {ROUNDS} looks");
    }

    #[track_caller]
    pub(crate) fn no_leader(&self) {
        for at in self.all().filter(|at| self.connected[*at]) {
            let leads = self.status(at).is_some_and(|status| status.role == RoleKind::Leader);
            assert!(!leads, "{at} leads without a majority");
        }
    }

    /// The term that all who are connected are in.
    #[track_caller]
    pub(crate) fn one_term(&self) -> u64 {
        let connected = self.all().filter(|at| self.connected[*at]);
        let terms: BTreeSet<u64> =
            connected.filter_map(|at| self.status(at)).map(|status| status.term.0).collect();
        assert_eq!(terms.len(), 1, "they are in terms {terms:?}");
        terms.into_iter().next().expect("one")
    }

    /// Bytes of the log that counts, on the member that has most.
    pub(crate) fn raft_state_bytes(&self) -> u64 {
        self.all()
            .filter_map(|at| self.status(at))
            .map(|status| status.raft_state_bytes)
            .max()
            .expect("one runs")
    }

    /// Bytes of the largest snapshot on a disk.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        let latest = |at: usize| {
            let disk = &self.world.nodes[at].disk;
            let files =
                disk.files().into_iter().filter(|path| path.extension().is_some_and(|it| it == "snap"));
            files.filter_map(|path| Some(disk.peek(&path)?.len() as u64)).max()
        };
        self.all().filter_map(latest).max().unwrap_or(0)
    }

    // ---- The end ----

    /// All run and hear each other, and within five seconds all are alike. Then everything is judged: logs, disks, maps,
    /// and what clerks were told.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.restart_all();
        self.calm_network();
        let alike = self.within(millis(5_000), |lab| lab.are_alike());
        assert!(alike, "five seconds of peace, and they differ");
        self.check_commands();
        self.check_outcomes();
        self.world.judge();
        let checks = history::checks(|name| self.world.checked.get(name).copied().unwrap_or(0));
        // A check that gave up has not passed.
        assert!(!checks.too_many_unknown(), "too many checks came to no end: {checks:?}");
        assert!(checks.all() > 0 || self.world.history.is_empty(), "clerks called, and nothing was checked");
    }

    fn are_alike(&self) -> bool {
        let states: Option<Vec<Status>> = self.all().map(|at| self.status(at)).collect();
        let alike = |it: &Status, first: &Status| {
            (it.last, it.committed, it.applied) == (first.last, first.last.index, first.last.index)
        };
        let Some(states) = states else { return false };
        let quiet = self.world.clients.iter().all(|client| client.is_quiet());
        quiet
            && states.iter().all(|it| alike(it, &states[0]))
            && states.iter().any(|it| it.role == RoleKind::Leader)
    }
}
