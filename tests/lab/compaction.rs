//! 2D: the log is cut behind snapshots, stays within its bound, and members that missed what was cut are refilled.

use raftmap::storage::types::frame_len;
use raftmap::wire::client::Refusal;

use crate::cluster::{ELECTION, Lab, Plan, millis};
use crate::seeds::each_seed;

/// The bound of the log: about ten commands, which is the course's distance between snapshots.
const BOUND: u64 = 1_000;
/// Bytes of Raft state on any member at which no command is taken any more.
const LOG_MAX: u64 = 2_000;
/// Bytes of one of our commands in the log, and of a new leader's no-op.
const COMMAND: u64 = frame_len(48);
const NO_OP: u64 = frame_len(1);
const ROUNDS: usize = 30;

/// What happens to the victim of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    Disconnect,
    Crash,
}

fn plan(seed: u64) -> Plan {
    Plan::new(seed, 3).max_raft_state(BOUND)
}

impl Lab {
    /// As many commands as make a snapshot due, more or less; how many of them were taken.
    fn start_a_few(&mut self, at: usize) -> (usize, usize) {
        let count = self.dice.between(5, 14) as usize;
        let taken = (0..count).filter(|_| {
            let taken = self.start(at).is_some();
            self.check_log();
            taken
        });
        (taken.count(), count)
    }

    /// Right now, on every member that runs. Below the limit a command is taken whole; at it none is, by a leader or by those
    /// who follow, and only the one no-op of each new leader is let in. A log loses its front and its end, and grows at its
    /// end alone: so above the limit there is less than one command, and the no-ops behind it.
    #[track_caller]
    fn check_log(&self) {
        for (at, status) in self.all().filter_map(|at| Some((at, self.status(at)?))) {
            let (bytes, no_ops) = (status.raft_state_bytes, self.no_ops_at_the_end(at));
            let most = LOG_MAX + COMMAND + no_ops * NO_OP;
            assert!(bytes < most, "{bytes} bytes of Raft state on {at}, less than {most} are allowed");
        }
    }

    /// When a round is over: soon every member that runs is below the limit, whatever a command or a no-op added.
    #[track_caller]
    fn check_log_at_the_end(&mut self) {
        let below = self.within(ELECTION, |lab| lab.raft_state_bytes() < LOG_MAX);
        let bytes = self.raft_state_bytes();
        assert!(below, "{bytes} bytes of Raft state {ELECTION:?} after the round, {LOG_MAX} are too many");
    }

    /// Of new leaders, behind the last command in this member's log: each is the first entry of its term.
    fn no_ops_at_the_end(&self, at: usize) -> u64 {
        let log = &self.world.nodes[at].shadow.log;
        let last = log.entries.last();
        let from_the_end = std::iter::successors(last, |index| (index.0 > 1).then(|| index.prev()));
        from_the_end.take_while(|index| log.term_at(*index) != log.term_at(index.prev())).count() as u64
    }

    fn snapshots_taken(&self) -> u64 {
        self.mark("a snapshot was marked")
    }

    fn snapshots_sent(&self) -> u64 {
        self.mark("a snapshot was delivered")
    }
}

/// Thirty rounds: a victim goes, every third time the leader; commands come, to whoever leads then; the victim is back.
fn snapshots(plan: Plan, harm: Harm) {
    let mut lab = plan.start();
    lab.agree_at_last(3);
    let mut leader = lab.one_leader();
    for round in 0..ROUNDS {
        let victim = if round % 3 == 1 { leader } else { lab.next(leader, 1) };
        match harm {
            Harm::None => {}
            Harm::Disconnect => lab.disconnect(victim),
            Harm::Crash => lab.crash(victim),
        }
        let there = if harm == Harm::None { 3 } else { 2 };
        if harm != Harm::None {
            lab.agree_at_last(there);
        }
        leader = lab.one_leader();
        let (taken, count) = lab.start_a_few(leader);
        assert_eq!(taken, count, "round {round}: of {count} commands {taken} were taken");
        lab.agree_at_last(there);
        match harm {
            Harm::None => {}
            Harm::Disconnect => lab.connect(victim),
            Harm::Crash => lab.restart(victim),
        }
        lab.agree_at_last(3);
        lab.check_log_at_the_end();
        leader = lab.one_leader();
    }
    assert!(lab.snapshots_taken() >= 3, "hardly anything was cut");
    match harm {
        Harm::None => assert_eq!(lab.world.transfers_begun, 0, "nobody was behind, and a snapshot was sent"),
        Harm::Disconnect | Harm::Crash => assert!(lab.snapshots_sent() > 0, "nobody was refilled"),
    }
    lab.finish();
}

#[test]
fn snapshot_basic_2d() {
    // A follower whose log is full, since its own snapshot takes longer, leaves entries out, and the leader has cut them
    // meanwhile: without a tail on the heap that is a snapshot to send, though nothing went wrong.
    each_seed("snapshot_basic_2d", |seed| snapshots(plan(seed).tail(), Harm::None));
}

#[test]
fn snapshot_install_2d() {
    each_seed("snapshot_install_2d", |seed| snapshots(plan(seed), Harm::Disconnect));
}

#[test]
fn snapshot_install_unreliable_2d() {
    each_seed("snapshot_install_unreliable_2d", |seed| snapshots(plan(seed).unreliable(), Harm::Disconnect));
}

#[test]
fn snapshot_install_crash_2d() {
    each_seed("snapshot_install_crash_2d", |seed| snapshots(plan(seed), Harm::Crash));
}

#[test]
fn snapshot_install_un_crash_2d() {
    each_seed("snapshot_install_un_crash_2d", |seed| snapshots(plan(seed).unreliable(), Harm::Crash));
}

#[test]
fn snapshot_all_crash_2d() {
    each_seed("snapshot_all_crash_2d", |seed| {
        // Half of the seeds on the bad network: both have been the course's.
        let plan = if seed % 2 == 0 { plan(seed) } else { plan(seed).unreliable() };
        let mut lab = plan.start();
        lab.agree_at_last(3);
        for _ in 0..5 {
            let count = lab.dice.between(5, 14) as usize;
            lab.agree_often(count, 3);
            lab.agree_at_last(3);
            let before = lab.executed_most();
            lab.crash_all();
            lab.restart_all();
            lab.agree_at_last(3);
            for (at, after) in lab.executed() {
                assert!(after.starts_with(&before), "{at} executed {after}, and before the crash {before}");
            }
            lab.check_log_at_the_end();
        }
        assert!(lab.snapshots_taken() >= 3, "hardly anything was cut");
        lab.finish();
    });
}

/// Whoever restarts from a snapshot still has it when it writes the next thing.
#[test]
fn snapshot_init_2d() {
    each_seed("snapshot_init_2d", |seed| {
        let mut lab = plan(seed).start();
        lab.agree_at_last(3);
        lab.agree_often(11, 3);
        assert!(lab.snapshots_taken() >= 3, "each member cut its log once");
        for _ in 0..2 {
            lab.crash_all();
            lab.restart_all();
            lab.agree_at_last(3);
        }
        assert_eq!(lab.agreed_len(), 14);
        lab.finish();
    });
}

/// Ours: commands come faster than a snapshot can be written. The log stops at its limit, not before, and goes on later.
#[test]
fn snapshot_rush_2d() {
    const RUSH: usize = 100;
    each_seed("snapshot_rush_2d", |seed| {
        let mut lab = plan(seed).start();
        lab.agree_at_last(3);
        let leader = lab.one_leader();
        let mut requests = Vec::new();
        for _ in 0..RUSH {
            let sequence = lab.number();
            requests.push(lab.put_in(leader, sequence, Lab::token(sequence)).request);
        }
        let mut most = 0;
        for _ in 0..RUSH {
            lab.run(millis(1) / 10);
            lab.check_log();
            most = most.max(lab.raft_state_bytes());
        }
        let busy = |request: &u64| {
            lab.world
                .tap
                .as_ref()
                .and_then(|tap| tap.answers.get(request))
                .is_some_and(|it| it.body == Err(Refusal::Busy))
        };
        let refused = requests.iter().filter(|request| busy(request)).count();
        assert!(most >= LOG_MAX && refused > 0, "{refused} commands were refused at {most} bytes");
        lab.agree_at_last(3);
        lab.finish();
    });
}
