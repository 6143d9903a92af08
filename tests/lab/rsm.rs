//! 4A and 4C: the layer between Raft and the service. Whoever submits a command gets one answer: its own result, or
//! that the command was lost on the way. The service is a counter, the length of a value that every increment appends
//! one byte to.

use std::time::Duration;

use bytes::Bytes;
use raftmap::kv::{Command, Reply};
use raftmap::wire::client::{Answer, Refusal};
use raftmap_sim::history::{End, What};

use crate::cluster::{ELECTION, Lab, Plan, millis};
use crate::commands::Ticket;
use crate::seeds::each_seed;

const COUNTER: &[u8] = b"counter";
/// For an increment to be done, and for all counters to show it.
const DONE_MAX: Duration = millis(10_000);

/// What somebody who submitted was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// Done; the counter's value right after.
    Count(u64),
    /// It may be done or not.
    Lost,
    /// It is not done.
    Refused,
}

/// Adds one.
fn increment() -> Command {
    Command::Append { key: Bytes::from_static(COUNTER), value: Bytes::from_static(b"+") }
}

/// Changes nothing.
fn no_op() -> Command {
    Command::Append { key: Bytes::from_static(b"no-op"), value: Bytes::new() }
}

impl Lab {
    fn told(&mut self, ticket: Ticket) -> Told {
        match self.tap().answers.get(&ticket.request).map(|response| &response.body) {
            None => Told::Nothing,
            Some(Ok(Answer::Written { reply: Reply::Append { length, .. }, .. })) => Told::Count(*length),
            Some(Ok(other)) => panic!("an answer to something else: {other:?}"),
            Some(Err(Refusal::Lost)) => Told::Lost,
            Some(Err(Refusal::NotLeader { .. } | Refusal::Busy | Refusal::Stopping)) => Told::Refused,
            Some(Err(other)) => panic!("refused: {other:?}"),
        }
    }

    /// The counters of the members that run.
    fn counters(&self) -> Vec<u64> {
        let lives = self.world.nodes.iter().filter_map(|node| node.life.as_ref());
        lives
            .map(|life| life.replica.map().get(COUNTER).map_or(0, |found| found.value.len() as u64))
            .collect()
    }

    /// So many show it, within the usual time.
    #[track_caller]
    fn show(&mut self, count: u64, members: usize) {
        let showing = |lab: &Self| lab.counters().into_iter().filter(|it| *it == count).count();
        let all = self.within(DONE_MAX, |lab| showing(lab) == members);
        assert!(all, "the counters are {:?}, {members} should show {count}", self.counters());
        assert!(self.counters().iter().all(|it| *it <= count), "{:?}, the count is {count}", self.counters());
    }

    /// Asks until it is done, under one number; the value it made.
    #[track_caller]
    fn increment(&mut self) -> u64 {
        self.open_session();
        let sequence = self.number();
        let until = self.world.now + DONE_MAX;
        while self.world.now < until {
            let members: Vec<usize> = self.all().filter(|at| self.is_connected(*at)).collect();
            let taken = members.into_iter().find_map(|at| self.propose(at, sequence, increment()));
            let Some(ticket) = taken else {
                self.run(millis(20));
                continue;
            };
            self.within(ELECTION * 2, |lab| lab.told(ticket) != Told::Nothing);
            if let Told::Count(count) = self.told(ticket) {
                return count;
            }
        }
        panic!("an increment is not done after {DONE_MAX:?}");
    }

    /// Increments one after the other, each of which makes one more than the last.
    #[track_caller]
    fn increment_to(&mut self, count: u64) {
        for expected in 1..=count {
            assert_eq!(self.increment(), expected, "the running count");
        }
    }

    /// So many at once.
    fn submit(&mut self, at: usize, count: usize, command: &Command) -> Vec<Ticket> {
        (0..count)
            .map(|_| {
                let sequence = self.number();
                self.put_in(at, sequence, command.clone())
            })
            .collect()
    }

    /// Stops everybody while a hundred commands are on their way: each is told something, within the millisecond between
    /// the word to stop and the end of the process. The course allows for eleven seconds.
    #[track_caller]
    fn stop_all_under_load(&mut self, leader: usize) -> Vec<Ticket> {
        let mut waiting = self.submit(leader, 50, &no_op());
        self.run(millis(1));
        waiting.extend(self.submit(leader, 50, &no_op()));
        self.stop_all();
        let told: Vec<Told> = waiting.iter().map(|ticket| self.told(*ticket)).collect();
        assert!(!told.contains(&Told::Nothing), "somebody waits for ever: {told:?}");
        assert!(told.contains(&Told::Lost), "nothing was on its way: {told:?}");
        waiting
    }
}

#[test]
fn basic_4a() {
    each_seed("basic_4a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        for count in 1..=10 {
            assert_eq!(lab.increment(), count);
            lab.show(count, 3);
        }
        lab.finish();
    });
}

#[test]
fn concurrent_4a() {
    const COUNT: usize = 50;
    each_seed("concurrent_4a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.open_session();
        let leader = lab.one_leader();
        let tickets = lab.submit(leader, COUNT, &increment());
        lab.show(COUNT as u64, 3);
        let mut told: Vec<Told> = tickets.into_iter().map(|ticket| lab.told(ticket)).collect();
        let expected: Vec<Told> = (1..=COUNT as u64).map(Told::Count).collect();
        told.sort_by_key(|told| if let Told::Count(count) = told { *count } else { 0 });
        assert_eq!(told, expected, "each its own");
        lab.finish();
    });
}

#[test]
fn leader_failure_4a() {
    each_seed("leader_failure_4a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        assert_eq!(lab.increment(), 1);
        lab.show(1, 3);
        let leader = lab.one_leader();
        lab.disconnect(leader);
        assert_eq!(lab.increment(), 2);
        lab.show(2, 2);
        lab.connect(leader);
        lab.show(2, 3);
        lab.finish();
    });
}

/// What a leader without a majority is asked is not done, and everybody hears so when it is no leader any more.
#[test]
fn leader_partition_4a() {
    const COUNT: usize = 100;
    each_seed("leader_partition_4a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        assert_eq!(lab.increment(), 1);
        lab.show(1, 3);
        let leader = lab.one_leader();
        lab.disconnect(leader);
        let asked = lab.submit(leader, COUNT, &increment());
        lab.run(millis(20));
        for (ticket, place) in asked.iter().zip(2..) {
            let found = lab.place_in_log(leader, ticket.sequence);
            assert_eq!(found, Some(place), "taken by a leader that nobody hears");
        }
        lab.run(ELECTION);
        for ticket in &asked {
            let told = lab.told(*ticket);
            // Ours knows after an election timeout that it leads nobody: that is no success.
            assert!(matches!(told, Told::Nothing | Told::Lost), "{told:?} without a majority");
        }
        assert_eq!(lab.increment(), 2);
        lab.connect(leader);
        lab.run(ELECTION);
        for ticket in asked {
            // It stood in a log, so nobody may say that it is not done.
            assert_eq!(lab.told(ticket), Told::Lost, "a second after the network was whole");
        }
        lab.show(2, 3);
        lab.finish();
    });
}

/// The same through a clerk: as long as only that leader can be reached no call ends, and then all do.
#[test]
fn leader_partition_clerk_4a() {
    const COUNT: usize = 100;
    each_seed("leader_partition_clerk_4a", |seed| {
        let mut lab = Plan::new(seed, 3).clerks(1).start();
        let append = |at: usize| What::Append { token: format!("{at};") };
        lab.clerk_does(0, "log", append(0));
        let leader = lab.one_leader();
        lab.part(&[leader], &[&[leader]]);
        // To many keys: the search by all orders has no end for a hundred appends at once to one.
        let key = |at: usize| format!("log-{}", at % 25);
        let calls: Vec<usize> = (1..=COUNT).map(|at| lab.world.call(0, &key(at), append(at))).collect();
        lab.run(ELECTION);
        assert!(calls.iter().all(|call| lab.end(*call) == End::Unknown), "a call ended without a majority");
        lab.connect_all();
        let ended = lab.within(ELECTION, |lab| calls.iter().all(|call| lab.end(*call) != End::Unknown));
        assert!(ended, "a call has not ended");
        assert!(calls.iter().all(|call| matches!(lab.end(*call), End::Written { .. })));
        lab.finish();
    });
}

/// Three nodes that have counted to `count` and, after all of them were restarted, one further.
fn counted_and_restarted(seed: u64, count: u64) -> Lab {
    let mut lab = Plan::new(seed, 3).start();
    lab.increment_to(count);
    lab.show(count, 3);
    lab.crash_all();
    lab.run(ELECTION);
    lab.restart_all();
    assert_eq!(lab.increment(), count + 1);
    lab.show(count + 1, 3);
    lab
}

#[test]
fn restart_replay_4a() {
    each_seed("restart_replay_4a", |seed| {
        counted_and_restarted(seed, 100).finish();
    });
}

#[test]
fn shutdown_4a() {
    each_seed("shutdown_4a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.open_session();
        let leader = lab.one_leader();
        lab.stop_all_under_load(leader);
        lab.finish();
    });
}

/// Those who waited before a restart are not taken for those who wait after it, though entries stand at the same places.
#[test]
fn restart_submit_4a() {
    const COUNT: u64 = 100;
    each_seed("restart_submit_4a", |seed| {
        let mut lab = counted_and_restarted(seed, COUNT);

        let leader = lab.one_leader();
        let waiting = lab.stop_all_under_load(leader);
        let told: Vec<Told> = waiting.iter().map(|ticket| lab.told(*ticket)).collect();
        lab.restart_all();
        assert_eq!(lab.increment(), COUNT + 2);
        lab.show(COUNT + 2, 3);
        let later: Vec<Told> = waiting.iter().map(|ticket| lab.told(*ticket)).collect();
        assert_eq!(told, later, "told once");
        lab.finish();
    });
}

#[test]
fn snapshot_4c() {
    const COUNT: u64 = 100;
    const BOUND: u64 = 1_000;
    each_seed("snapshot_4c", |seed| {
        let mut lab = Plan::new(seed, 3).max_raft_state(BOUND).start();
        lab.increment_to(COUNT);
        lab.show(COUNT, 3);
        let bytes = lab.raft_state_bytes();
        assert!(bytes <= 2 * BOUND, "{bytes} bytes of Raft state, bound {BOUND}");
        lab.crash_all();
        lab.restart_all();
        for at in lab.all() {
            let status = lab.status(at).expect("runs");
            assert!(status.snapshot.0 > 0, "{at} did not begin with a snapshot");
        }
        assert_eq!(lab.increment(), COUNT + 1);
        lab.show(COUNT + 1, 3);
        lab.finish();
    });
}
