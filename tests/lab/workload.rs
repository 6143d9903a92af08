//! The one workload that most service tests are runs of: clients that append to their keys and read them back for three
//! times five seconds, while the network is bad, parts come and go, and at the end of each time everybody crashes.
//!
//! The course's only partition is one of two random sides, both ways. It is one of six here: the others are the shapes of
//! the simulated world, often around the leader, in which a client also sees some of the members alone. The six come by
//! turns, in a new order each time, so each run has them all.
//!
//! Under every tenth seed, 9 and 19 and so on, an iteration takes 20 seconds, so that the history is a minute long: with
//! `LAB_SEEDS=10` and more, not in an ordinary run.

use std::collections::BTreeSet;
use std::time::Duration;

use raftmap_sim::history::{End, What};
use raftmap_sim::net::{SHAPES, Shape};

use crate::cluster::{ELECTION, Lab, Plan, millis};

const ITERATIONS: usize = 3;
const ITERATION: Duration = millis(5_000);
/// Between two calls of all clients together, on average. The course has none; ours bounds what there is to simulate.
const PACE: Duration = millis(5);
/// For a client's last call to end when everything is whole again.
const LAST_CALL: Duration = millis(20_000);
/// Calls in five seconds, of all clients together, or they showed nothing: about half of what the slowest of hundreds of
/// runs did. First without partitions; with them there is less, least of all where the only client is kept from the leader
/// again and again. On a network that loses messages a call takes two heartbeats and more.
const CALLS_LEAST: [u64; 2] = [400, 90];
const CALLS_LEAST_UNRELIABLE: [u64; 2] = [120, 35];
/// Of each client in three times five seconds, without loss and with it. Who is kept from the leader in one of them may do
/// hardly anything there.
const CALLS_LEAST_EACH: [u64; 2] = [60, 8];

/// How many times as long a seed's iterations are.
fn times(seed: u64) -> u64 {
    if seed % 10 == 9 { 4 } else { 1 }
}

/// The seven parameters.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) clients: usize,
    pub(crate) servers: usize,
    pub(crate) unreliable: bool,
    pub(crate) crash: bool,
    pub(crate) partitions: bool,
    pub(crate) max_raft_state: Option<u64>,
    /// All clients use all keys, instead of each its own.
    pub(crate) random_keys: bool,
}

/// Five clients and five servers, and nothing goes wrong.
pub(crate) const CALM: Workload = Workload {
    clients: 5,
    servers: 5,
    unreliable: false,
    crash: false,
    partitions: false,
    max_raft_state: None,
    random_keys: false,
};

/// One client and what it knows.
struct User {
    /// What its own key must hold; nobody else writes it.
    value: String,
    tokens: u64,
    /// It has begun this iteration by emptying its key.
    begun: bool,
    /// Its call under way.
    call: Option<usize>,
    done: u64,
}

struct Run {
    workload: Workload,
    lab: Lab,
    users: Vec<User>,
    /// As often as the course's time an iteration takes.
    times: u64,
    /// Calls done in this iteration.
    done: u64,
    /// Who calls next, and when.
    due: BTreeSet<(Duration, usize)>,
    /// Whether a client whose call has ended makes another one.
    open: bool,
    /// Of the next partitions; `None` is the course's: each member on one of two sides.
    shapes: Vec<Option<Shape>>,
    parted: usize,
}

impl Workload {
    /// See [`CALLS_LEAST`].
    fn calls_least(self) -> u64 {
        let of = if self.unreliable { CALLS_LEAST_UNRELIABLE } else { CALLS_LEAST };
        of[usize::from(self.partitions)]
    }

    /// See [`CALLS_LEAST_EACH`].
    fn calls_least_each(self) -> u64 {
        CALLS_LEAST_EACH[usize::from(self.unreliable)]
    }

    pub(crate) fn run(self, seed: u64) {
        let mut plan = Plan::new(seed, self.servers).clerks(self.clients);
        if self.unreliable {
            plan = plan.unreliable();
        }
        if let Some(bytes) = self.max_raft_state {
            plan = plan.max_raft_state(bytes);
        }
        let user = |_| User { value: String::new(), tokens: 0, begun: false, call: None, done: 0 };
        let users = (0..self.clients).map(user).collect();
        let mut run = Run {
            workload: self,
            lab: plan.start(),
            users,
            due: BTreeSet::new(),
            open: true,
            times: times(seed),
            done: 0,
            shapes: Vec::new(),
            parted: 0,
        };
        for _ in 0..ITERATIONS {
            run.iteration();
        }
        run.check_all();
        if self.unreliable {
            // Else nobody would notice if writes were not told from each other.
            assert!(run.lab.mark("a write came twice and was answered from its session") > 0);
        }
        run.lab.finish();
    }
}

impl Run {
    fn iteration(&mut self) {
        let begin = self.lab.world.now;
        let end = begin + ITERATION * self.times as u32;
        self.open = true;
        self.done = 0;
        for (at, user) in self.users.iter_mut().enumerate() {
            user.begun = false;
            self.due.insert((begin, at));
        }
        let mut split = begin + ELECTION;
        while split < end {
            self.until(split);
            if self.workload.partitions {
                self.part();
            }
            split += millis(self.lab.dice.between(1_000, 1_200));
        }
        self.until(end);
        // From here on the calls under way end, and no others begin.
        self.open = false;
        self.due.clear();
        if self.workload.partitions {
            self.lab.connect_all();
            self.until(self.lab.world.now + ELECTION);
        }
        if self.workload.crash {
            self.lab.crash_all();
            self.until(self.lab.world.now + ELECTION);
            self.lab.restart_all();
        }
        self.last_calls();
        self.check();
    }

    /// When all iterations are over.
    #[track_caller]
    fn check_all(&self) {
        let least = self.workload.calls_least_each() * self.times;
        for (at, user) in self.users.iter().enumerate() {
            assert!(
                user.done >= least,
                "client {at} did {} calls, at least {least} were expected",
                user.done
            );
        }
        if self.workload.partitions {
            assert!(self.parted > SHAPES.len(), "{} partitions: not each shape", self.parted);
        }
    }

    /// The next shape: each comes as often as any other.
    fn part(&mut self) {
        if self.shapes.is_empty() {
            let order = self.lab.dice.shuffled(SHAPES.len() + 1);
            self.shapes = order.into_iter().map(|at| SHAPES.get(at).copied()).collect();
        }
        match self.shapes.pop().expect("just filled") {
            Some(shape) => self.lab.cut(shape),
            None => {
                let part: Vec<bool> = self.lab.all().map(|_| self.lab.dice.below(2) == 0).collect();
                self.lab.split(&part);
            }
        }
        self.parted += 1;
    }

    /// Lets clients go on until then.
    fn until(&mut self, time: Duration) {
        loop {
            let next = self.due.first().map_or(time, |(at, _)| (*at).min(time));
            if self.lab.world.step(next) {
                self.ended();
                continue;
            }
            match self.due.first().copied().filter(|(at, _)| *at <= next) {
                Some((at, user)) => {
                    self.due.remove(&(at, user));
                    self.call(user);
                }
                None => return,
            }
        }
    }

    /// Waits for the calls under way.
    fn last_calls(&mut self) {
        let until = self.lab.world.now + LAST_CALL;
        while let Some(at) = self.users.iter().position(|user| user.call.is_some()) {
            assert!(self.lab.world.step(until), "client {at} still waits, {LAST_CALL:?} after the last harm");
            self.ended();
        }
    }

    fn call(&mut self, at: usize) {
        assert!(self.open, "client {at} begins a call after the iteration's end");
        let Self { workload, lab, users, .. } = self;
        let user = &mut users[at];
        let key = if workload.random_keys { lab.dice.place(workload.clients) } else { at };
        let what = if !workload.random_keys && !user.begun {
            What::Put { value: String::new() }
        } else if lab.dice.permille(500) {
            user.tokens += 1;
            What::Append { token: format!("{at}.{};", user.tokens) }
        } else if workload.random_keys && lab.dice.permille(100) {
            user.tokens += 1;
            What::Put { value: format!("{at}.{};", user.tokens) }
        } else {
            What::Read
        };
        user.call = Some(lab.world.call(at, &format!("key-{key}"), what));
        self.ended();
    }

    /// Takes in what has ended.
    fn ended(&mut self) {
        for (at, number) in std::mem::take(&mut self.lab.tap().ended) {
            assert_eq!(self.users[at].call.take(), Some(number), "one call at a time");
            let call = self.lab.world.history[number].clone();
            assert_ne!(
                call.end,
                End::Unknown,
                "a clerk that asks again and again knows in the end: {call:?}"
            );
            if call.end == End::NotDone {
                // Nobody was reached before the deadline, and nothing was done: the same once more.
                self.users[at].call = Some(self.lab.world.call(at, &call.key, call.what));
                continue;
            }
            self.users[at].done += 1;
            self.done += 1;
            if !self.workload.random_keys {
                self.users[at].learn(&call.what, &call.end);
            }
            if !self.open {
                continue;
            }
            let most = 2 * PACE * self.users.len() as u32;
            let think = Duration::from_micros(self.lab.dice.below(most.as_micros() as u64));
            self.due.insert((self.lab.world.now + think, at));
        }
    }

    #[track_caller]
    fn check(&mut self) {
        let least = self.workload.calls_least() * self.times;
        assert!(self.done >= least, "{} calls, at least {least} were expected", self.done);
        if !self.workload.random_keys {
            for at in 0..self.users.len() {
                self.users[at].call = Some(self.lab.world.call(at, &format!("key-{at}"), What::Read));
            }
            // Each compares what it reads with what it wrote.
            self.last_calls();
        }
        match self.workload.max_raft_state {
            Some(bound) => {
                let bytes = self.lab.raft_state_bytes();
                assert!(bytes <= 8 * bound, "{bytes} bytes of Raft state, bound {bound}");
                assert!(self.lab.snapshot_bytes() > 0, "nothing was cut");
            }
            None => assert_eq!(self.lab.snapshot_bytes(), 0, "a snapshot, and nobody asked for any"),
        }
    }
}

impl User {
    /// A call on its own key has ended.
    #[track_caller]
    fn learn(&mut self, what: &What, end: &End) {
        match (what, end) {
            (What::Put { value }, End::Written { .. }) => {
                self.value.clone_from(value);
                self.begun = true;
            }
            (What::Append { token }, End::Written { .. }) => self.value.push_str(token),
            (What::Read, End::Read { found, .. }) => {
                let found = found.as_ref().map_or("", |(_, value)| value.as_str());
                assert_eq!(found, self.value, "it reads something else than it wrote");
            }
            (what, end) => panic!("{what:?} ended as {end:?}"),
        }
    }
}
