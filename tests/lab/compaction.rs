//! 2D: the log is cut behind snapshots, stays within its bound, and members that missed what was cut are refilled.

use crate::cluster::{Lab, Plan, millis};
use crate::seeds::each_seed;

/// The bound of the log: about ten commands, which is the course's distance between snapshots.
const BOUND: u64 = 1_000;
/// Bytes of Raft state on any member.
const LOG_MAX: u64 = 2_000;
/// For a snapshot.
const SNAPSHOT_MAX: std::time::Duration = millis(100);
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
    /// As many commands as make a snapshot due, more or less.
    fn start_a_few(&mut self, at: usize) {
        let count = self.dice.between(5, 14);
        for _ in 0..count {
            self.start(at);
        }
    }

    /// A snapshot that is being written when a round ends has this long to come into force. Until then the world's own
    /// check allows one entry above the limit.
    #[track_caller]
    fn check_log(&mut self) {
        let small = self.within(SNAPSHOT_MAX, |lab| lab.raft_state_bytes() < LOG_MAX);
        assert!(small, "{} bytes of Raft state, less than {LOG_MAX} are allowed", self.raft_state_bytes());
    }

    fn snapshots_taken(&self) -> u64 {
        self.mark("a snapshot was marked")
    }

    fn snapshots_sent(&self) -> u64 {
        self.mark("a snapshot was delivered")
    }
}

/// Thirty rounds: a victim goes, commands come, the victim is back.
fn snapshots(plan: Plan, harm: Harm) {
    let mut lab = plan.start();
    lab.agree_at_last(3);
    let mut leader = lab.one_leader();
    for round in 0..ROUNDS {
        let next = lab.next(leader, 1);
        let (sender, victim) = if round % 3 == 1 { (next, leader) } else { (leader, next) };
        match harm {
            Harm::None => {}
            Harm::Disconnect => lab.disconnect(victim),
            Harm::Crash => lab.crash(victim),
        }
        let there = if harm == Harm::None { 3 } else { 2 };
        if harm != Harm::None {
            lab.agree_at_last(there);
        }
        lab.start_a_few(sender);
        lab.agree_at_last(there);
        lab.check_log();
        match harm {
            Harm::None => continue,
            Harm::Disconnect => lab.connect(victim),
            Harm::Crash => lab.restart(victim),
        }
        lab.agree_at_last(3);
        lab.check_log();
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
    each_seed("snapshot_basic_2d", |seed| snapshots(plan(seed), Harm::None));
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
            let before = lab.agree_at_last(3);
            lab.crash_all();
            lab.restart_all();
            let after = lab.agree_at_last(3);
            assert!(after > before, "place {after} after a crash, and {before} before it");
            lab.check_log();
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
