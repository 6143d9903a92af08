//! The one workload that most service tests are runs of: clients that append to their keys and read them back for three
//! times five seconds, while the network is bad, parts come and go, and at the end of each time everybody crashes.

use std::collections::BTreeSet;
use std::time::Duration;

use raftmap_sim::history::{End, What};

use crate::cluster::{ELECTION, Lab, Plan, millis};

const ITERATIONS: usize = 3;
const ITERATION: Duration = millis(5_000);
/// Between two calls of all clients together, on average. The course has none; ours bounds what there is to simulate.
const PACE: Duration = millis(5);
/// For a client's last call to end when everything is whole again.
const LAST_CALL: Duration = millis(20_000);
/// Calls that each client must have done in each iteration, and all together, or they showed nothing. About half of what
/// the slowest ones do: on a network that loses messages a call takes two heartbeats and more.
const CALLS_LEAST: (u64, u64) = (20, 400);
const CALLS_LEAST_UNRELIABLE: (u64, u64) = (1, 40);

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
    /// Who calls next, and when.
    due: BTreeSet<(Duration, usize)>,
    /// Whether a client whose call has ended makes another one.
    open: bool,
}

impl Workload {
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
        let mut run = Run { workload: self, lab: plan.start(), users, due: BTreeSet::new(), open: true };
        for _ in 0..ITERATIONS {
            run.iteration();
        }
        run.lab.finish();
    }
}

impl Run {
    fn iteration(&mut self) {
        let begin = self.lab.world.now;
        self.open = true;
        for (at, user) in self.users.iter_mut().enumerate() {
            (user.begun, user.done) = (false, 0);
            self.due.insert((begin, at));
        }
        let mut split = begin + ELECTION;
        while split < begin + ITERATION {
            self.until(split);
            if self.workload.partitions {
                let part: Vec<bool> = self.lab.all().map(|_| self.lab.dice.below(2) == 0).collect();
                self.lab.split(&part);
            }
            split += millis(self.lab.dice.between(1_000, 1_200));
        }
        self.until(begin + ITERATION);
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
        let (each, all) = if self.workload.unreliable { CALLS_LEAST_UNRELIABLE } else { CALLS_LEAST };
        for (at, user) in self.users.iter().enumerate() {
            assert!(user.done >= each, "client {at} did {} calls, which shows nothing", user.done);
        }
        let done: u64 = self.users.iter().map(|user| user.done).sum();
        assert!(done >= all, "{done} calls, which show nothing");
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
