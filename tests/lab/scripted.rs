//! 3A and 3B: those that are stories of their own.

use std::time::Duration;

use raftmap_sim::history::{End, What};

use crate::cluster::{ELECTION, Lab, Plan, millis};
use crate::seeds::each_seed;

/// The course's bound, and our least one.
const BOUND: u64 = 1_000;
/// The course's for the mean of an operation: a third of its heartbeat. Ours are 50 ms apart, so whoever commits by
/// heartbeats alone is too slow here as well.
const OPERATION_MAX: Duration = Duration::from_micros(33_300);
/// For a snapshot of one small pair and one client.
const SNAPSHOT_MAX: u64 = 500;

impl Lab {
    #[track_caller]
    fn check_bound(&self) {
        let bytes = self.raft_state_bytes();
        assert!(bytes <= 8 * BOUND, "{bytes} bytes of Raft state, bound {BOUND}");
    }
}

fn speed(plan: Plan) {
    const COUNT: u32 = 1_000;
    let mut lab = plan.clerks(1).start();
    let key = "key";
    lab.clerk_does(0, key, What::Read);
    let begun = lab.world.now;
    let mut value = String::new();
    for at in 0..COUNT {
        let token = format!("{at};");
        value.push_str(&token);
        let end = lab.clerk_does(0, key, What::Append { token });
        assert!(matches!(end, End::Written { .. }), "{end:?}");
    }
    let each = (lab.world.now - begun) / COUNT;
    lab.clerk_finds(0, key, &value);
    assert!(each <= OPERATION_MAX, "{each:?} an operation");
    // Ours: two trips and two syncs, none of them above 4 ms here, and nothing that waits for a tick.
    assert!(each <= millis(10), "{each:?} an operation");
    lab.finish();
}

#[test]
fn speed_3a() {
    each_seed("speed_3a", |seed| speed(Plan::new(seed, 3)));
}

#[test]
fn speed_3b() {
    each_seed("speed_3b", |seed| speed(Plan::new(seed, 3).max_raft_state(BOUND)));
}

#[test]
fn unreliable_one_key_3a() {
    const CLERKS: usize = 5;
    const APPENDS: usize = 10;
    each_seed("unreliable_one_key_3a", |seed| {
        let mut lab = Plan::new(seed, 3).unreliable().clerks(CLERKS).start();
        let mut calls: Vec<Vec<usize>> = vec![Vec::new(); CLERKS];
        // All at once, each clerk one after the other.
        let done = lab.within(millis(60_000), |lab| {
            for (clerk, calls) in calls.iter_mut().enumerate() {
                let idle = calls.last().is_none_or(|call| lab.end(*call) != End::Unknown);
                if idle && calls.len() < APPENDS {
                    let token = format!("{clerk}.{};", calls.len());
                    calls.push(lab.world.call(clerk, "key", What::Append { token }));
                }
            }
            let ended = |call: &usize| matches!(lab.end(*call), End::Written { .. });
            calls.iter().all(|calls| calls.len() == APPENDS && calls.iter().all(ended))
        });
        assert!(done, "appends are missing");
        let End::Read { found: Some((_, value)), .. } = lab.clerk_does(0, "key", What::Read) else {
            panic!("nothing is there");
        };
        assert_eq!(value.split_inclusive(';').count(), CLERKS * APPENDS, "each once: {value}");
        for clerk in 0..CLERKS {
            let prefix = format!("{clerk}.");
            let own: Vec<&str> = value.split_inclusive(';').filter(|it| it.starts_with(&prefix)).collect();
            let expected: Vec<String> = (0..APPENDS).map(|at| format!("{clerk}.{at};")).collect();
            assert_eq!(own, expected, "in its order");
        }
        lab.finish();
    });
}

/// A majority goes on; a minority does nothing at all, and what it was asked is done when all are one again.
#[test]
fn one_partition_3a() {
    each_seed("one_partition_3a", |seed| {
        // Half of the seeds on the bad network: both have been the course's.
        let plan = Plan::new(seed, 5).clerks(4);
        let plan = if seed % 2 == 0 { plan } else { plan.unreliable() };
        let mut lab = plan.start();
        lab.clerk_puts(0, "1", "13");
        let leader = lab.one_leader();
        let minority = [leader, lab.next(leader, 1)];
        let majority: Vec<usize> = lab.all().filter(|at| !minority.contains(at)).collect();
        lab.part(&minority, &[&majority, &majority, &minority, &minority]);

        lab.clerk_puts(1, "1", "14");
        lab.clerk_finds(1, "1", "14");

        let put = lab.world.call(2, "1", What::Put { value: "15".into() });
        let get = lab.world.call(3, "1", What::Read);
        lab.run(millis(1_000));
        assert_eq!((lab.end(put), lab.end(get)), (End::Unknown, End::Unknown), "answered without a majority");

        lab.clerk_finds(1, "1", "14");
        lab.clerk_puts(1, "1", "16");
        lab.clerk_finds(1, "1", "16");
        assert_eq!((lab.end(put), lab.end(get)), (End::Unknown, End::Unknown), "answered without a majority");

        lab.connect_all();
        lab.run(ELECTION);
        let both =
            lab.within(millis(3_000), |lab| [put, get].iter().all(|call| lab.end(*call) != End::Unknown));
        assert!(both, "the put ended as {:?}, the get as {:?}", lab.end(put), lab.end(get));
        assert!(matches!(lab.end(put), End::Written { .. }), "{:?}", lab.end(put));
        let End::Read { found: Some((_, value)), .. } = lab.end(get) else { panic!("{:?}", lab.end(get)) };
        assert!(["15", "16"].contains(&value.as_str()), "read {value} when 16 had been written");
        lab.clerk_finds(0, "1", "15");
        lab.finish();
    });
}

/// Whoever missed what was cut is refilled, and serves.
#[test]
fn snapshot_rpc_3b() {
    each_seed("snapshot_rpc_3b", |seed| {
        let mut lab = Plan::new(seed, 3).max_raft_state(BOUND).clerks(1).start();
        lab.clerk_puts(0, "a", "A");
        lab.clerk_finds(0, "a", "A");

        lab.part(&[2], &[&[0, 1]]);
        for at in 0..50 {
            lab.clerk_puts(0, &at.to_string(), &at.to_string());
        }
        lab.run(ELECTION);
        lab.clerk_puts(0, "b", "B");
        lab.check_bound();

        lab.part(&[1], &[&[0, 2]]);
        lab.clerk_puts(0, "c", "C");
        lab.clerk_puts(0, "d", "D");
        for (key, value) in [("a", "A"), ("b", "B"), ("1", "1"), ("49", "49")] {
            lab.clerk_finds(0, key, value);
        }
        assert!(lab.mark("a snapshot was delivered") > 0, "the third one needs a snapshot");

        lab.connect_all();
        lab.clerk_puts(0, "e", "E");
        for (key, value) in [("c", "C"), ("e", "E"), ("1", "1")] {
            lab.clerk_finds(0, key, value);
        }
        lab.finish();
    });
}

/// A snapshot holds what is there, not what was.
#[test]
fn snapshot_size_3b() {
    each_seed("snapshot_size_3b", |seed| {
        let mut lab = Plan::new(seed, 3).max_raft_state(BOUND).clerks(1).start();
        for _ in 0..200 {
            for value in ["0", "1"] {
                lab.clerk_puts(0, "x", value);
                lab.clerk_finds(0, "x", value);
            }
        }
        lab.check_bound();
        let bytes = lab.snapshot_bytes();
        assert!((1..=SNAPSHOT_MAX).contains(&bytes), "a snapshot of {bytes} bytes for one pair");
        lab.finish();
    });
}
