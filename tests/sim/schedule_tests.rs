//! Worlds in which one thing goes wrong by a schedule, again and again, where a draw of everything would show it too
//! seldom to hold it to its rule.

use std::time::Duration;

use raftmap::raft::{AppendOutcome, Body, Message, RoleKind, Status};
use raftmap::wire::peer;
use raftmap_sim::history::{End, What};
use raftmap_sim::life::Crash;
use raftmap_sim::net::End as NetEnd;
use raftmap_sim::seeds::seeds;
use raftmap_sim::setup::{Faults, Setup, WAKEUP};
use raftmap_sim::world::{Event, World};

const SEEDS: std::ops::Range<u64> = 0..3;
/// Longer than any test here drives a world.
const LONG: Duration = Duration::from_secs(1_000);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three nodes to which nothing happens but what a test does to them, and clients who wait long.
fn three(seed: u64) -> Setup {
    let mut setup = Setup::draw(seed);
    (setup.nodes, setup.faults) = (3, Faults::none());
    (setup.clocks, setup.syncs, setup.offsets) = (vec![1_000; 3], vec![millis(2); 3], vec![millis(0); 3]);
    (setup.net.delay, setup.net.jitter) = (millis(1), millis(2));
    (setup.net.loss, setup.net.doubled, setup.net.late) = (0, 0, 0);
    setup.timing.heartbeat = millis(50);
    (setup.timing.election_min, setup.timing.election_max) = (millis(300), millis(600));
    (setup.load.deadline, setup.load.window, setup.load.forget) = (Duration::from_secs(60), 1_024, 0);
    (setup.load.clients, setup.load.pipeline) = (3, 1);
    (setup.load.think, setup.load.lazy) = (millis(40), 1);
    (setup.limits.sessions, setup.limits.session_ttl_ms) = (1_024, 3_600_000);
    setup.wakeup = WAKEUP;
    setup
}

/// A world of them that ends where its test does.
fn open_ended(seed: u64) -> World {
    World::new(Setup { safety: LONG, ..three(seed) })
}

fn run(world: &mut World, until: Duration) {
    while world.step(until) {}
}

/// Case P2. From the leader's death to the next one.
#[test]
fn a_dead_leader_is_replaced_within_two_election_timeouts() {
    for seed in 0..20 {
        let mut world = open_ended(seed);
        run(&mut world, Duration::from_secs(2));
        let leader = world.leader().expect("a leader");
        world.crash(leader, Crash::Kill);
        let died = world.now;
        while world.leader().is_none() {
            assert!(world.step(died + Duration::from_secs(10)), "seed {seed}: nobody leads");
        }
        let (took, most) = (world.now - died, world.setup.timing.election_max * 2);
        assert!(took <= most, "seed {seed}: {took:?}, two election timeouts are {most:?}");
    }
}

/// Case P10. Two of three stand still; one of them goes on and has a majority with the third; then the other one, which
/// may still take itself for the leader.
#[test]
fn majorities_that_stand_still_by_turns() {
    for seed in SEEDS {
        let mut setup = three(seed);
        setup.safety = Duration::from_secs(40);
        let turn = setup.timing.election_max * 2;
        let mut world = World::new(setup);
        run(&mut world, turn);
        for pair in 0..12 {
            for (nth, at) in [(1, pair % 3), (2, (pair + 1) % 3)] {
                let lives = world.nodes[at].lives;
                let life = world.nodes[at].life.as_mut().expect("it runs");
                assert!(life.paused.replace(Vec::new()).is_none(), "seed {seed}: it stands still already");
                world.after(turn * nth, Event::Resume(at, lives));
            }
            let until = world.now + turn * 2 + turn / 4;
            run(&mut world, until);
        }
        let (elections, done) = (world.watch.elections, world.done);
        assert!(elections >= 5 && done >= 50, "seed {seed}: {elections} elections, {done} calls");
        world.to_the_end();
    }
}

/// Case P16. Whoever is restarted comes back before the next one goes.
#[test]
fn one_after_the_other_is_restarted_and_no_call_fails() {
    for seed in SEEDS {
        let mut world = open_ended(seed);
        run(&mut world, Duration::from_secs(2));
        for round in 0..12 {
            let (at, done) = (round % 3, world.done);
            world.crash(at, Crash::Kill);
            world.after(millis(100), Event::Start(at));
            let most = world.now + Duration::from_secs(10);
            while world.done < done + 20 && world.now < most {
                let until = world.now + millis(100);
                run(&mut world, until);
            }
            assert!(world.done >= done + 20, "seed {seed}, round {round}: {} calls since", world.done - done);
            let until = world.now + millis(1_000);
            run(&mut world, until);
        }
        let failed = world.history.iter().filter(|call| call.end == End::NotDone).count();
        assert_eq!(failed, 0, "seed {seed}: calls that failed for good");
        assert_eq!(world.trace.marks.get("a call ended as unknown"), None, "seed {seed}");
        assert_eq!(world.trace.marks["a node was killed"], 12);
    }
}

/// Calls within ten seconds, the disk of one follower being so many times as slow.
fn calls_with_a_follower(seed: u64, slowness: u32) -> u64 {
    let mut setup = three(seed);
    setup.safety = LONG;
    (setup.max_raft_state, setup.load.filler) = (None, 0);
    let mut world = World::new(setup);
    run(&mut world, Duration::from_secs(3));
    let leads = |node: &raftmap_sim::node::Node| {
        node.life.as_ref().is_some_and(|life| life.replica.soft_state().role == RoleKind::Leader)
    };
    let leader = world.nodes.iter().position(leads).expect("a leader");
    world.nodes[(leader + 1) % 3].slowness = slowness;
    let done = world.done;
    run(&mut world, Duration::from_secs(13));
    assert!(leads(&world.nodes[leader]), "seed {seed}: it leads no more");
    world.done - done
}

/// Case D33. The other follower and the leader are a majority: nobody waits for the slow one.
#[test]
fn a_follower_with_a_slow_disk_slows_nobody() {
    for seed in SEEDS {
        let (quick, slow) = (calls_with_a_follower(seed, 1), calls_with_a_follower(seed, 1_000));
        assert!(quick >= 300 && slow >= quick * 9 / 10, "seed {seed}: {slow} calls, {quick} without it");
    }
}

/// Case N4. Messages take long, overtake each other, and every second are slower or faster on the whole.
#[test]
fn delays_below_the_election_timeout_depose_nobody() {
    for seed in SEEDS {
        let mut setup = three(seed);
        (setup.net.delay, setup.net.jitter) = (millis(20), millis(60));
        setup.safety = LONG;
        let mut net = setup.net.clone();
        let mut world = World::new(setup);
        run(&mut world, Duration::from_secs(5));
        let (first, done) = (world.watch.max_term, world.done);
        for second in 6..36 {
            net.delay = millis(20 + 30 * (second % 4));
            world.links.become_like(net.clone());
            run(&mut world, Duration::from_secs(second));
        }
        assert_eq!(world.watch.max_term, first, "seed {seed}: somebody was elected");
        assert!(world.done >= done + 50, "seed {seed}: {} calls", world.done - done);
    }
}

/// Case N9. Another cut before the one before it has healed, or right after; the world holds terms to a bound for each,
/// and at its end everybody must be served.
#[test]
fn a_partition_that_comes_and_goes() {
    let flapping = |seed| {
        let mut setup = three(seed);
        setup.faults = Faults { every: Some(millis(400)), partition: true, ..Faults::none() };
        setup.load.deadline = Duration::from_secs(2);
        setup.safety = Duration::from_secs(20);
        setup
    };
    let tally = seeds("a_partition_that_comes_and_goes", 6, flapping);
    tally.print();
    assert!(tally.marks["the network was cut"] >= 50 * tally.worlds, "{:?}", tally.marks);
}

const BOTH_WAYS: fn(usize, usize) -> [(NetEnd, NetEnd); 2] =
    |a, b| [(NetEnd::Node(a), NetEnd::Node(b)), (NetEnd::Node(b), NetEnd::Node(a))];

/// What a node knows of itself as a member.
fn raft(world: &World, at: usize) -> Status {
    world.nodes[at].life.as_ref().expect("it runs").replica.raft().status()
}

/// Case N7. Leader and follower do not see each other, the third sees both: nobody is elected, and calls go on.
#[test]
fn a_follower_that_sees_the_leader_through_another_one_disturbs_nobody() {
    for seed in SEEDS {
        let mut world = open_ended(seed);
        run(&mut world, Duration::from_secs(3));
        let leader = world.leader().expect("a leader");
        world.links.cut_only(BOTH_WAYS(leader, (leader + 1) % 3).into());
        let (first, done) = (world.watch.max_term, world.done);
        run(&mut world, Duration::from_secs(23));
        assert_eq!(world.watch.max_term, first, "seed {seed}: the leader was disturbed");
        assert!(world.done >= done + 300, "seed {seed}: {} calls", world.done - done);
    }
}

/// Case S7. Each write makes a snapshot and purges the log to its end; then nobody writes any more. A follower that was away
/// finds no entry at all, and still gets everything.
#[test]
fn a_follower_behind_an_empty_log_gets_a_snapshot() {
    for seed in SEEDS {
        let mut setup = three(seed);
        (setup.max_raft_state, setup.load.clients, setup.load.reads) = (Some(1_000), 1, 0);
        setup.sizes.tail_bytes = 0;
        setup.safety = LONG;
        let mut world = World::new(setup);
        run(&mut world, Duration::from_secs(3));
        let leader = world.leader().expect("a leader");
        let away = (leader + 1) % 3;
        let others = (0..3).filter(|at| *at != away);
        world.links.cut_only(others.flat_map(|at| BOTH_WAYS(at, away)).collect());
        run(&mut world, Duration::from_secs(5));
        world.clients[0].stopped = true;
        // One large write at a time, until the last of them has left nothing behind.
        let mut until = world.now;
        while raft(&world, leader).snapshot < raft(&world, leader).last.index {
            assert!(until < Duration::from_secs(60), "seed {seed}: the log is never empty");
            world.call(0, "large", What::Put { value: "v".repeat(1_500) });
            until += Duration::from_secs(1);
            run(&mut world, until);
        }
        world.links.heal();
        let last = raft(&world, leader).last.index;
        run(&mut world, until + Duration::from_secs(10));
        assert_eq!(raft(&world, leader).last.index, last, "seed {seed}: something was written");
        assert_eq!(raft(&world, away).applied, last, "seed {seed}: it never catches up");
    }
}

/// Case N17. A leader of a term in which it has sent hardly anything to a follower hears that it holds everything: an
/// answer to its life before, when its log was another one. Nothing may commit by it: the entries are on one disk.
#[test]
fn an_acknowledgement_of_what_was_never_sent_commits_nothing() {
    for seed in SEEDS {
        let mut setup = three(seed);
        setup.safety = Duration::from_secs(6);
        let mut world = World::new(setup);
        let away = 2;
        let apart: Vec<_> = (0..2).flat_map(|at| BOTH_WAYS(at, away)).collect();
        world.links.cut_only(apart.iter().copied().collect());
        run(&mut world, Duration::from_secs(3));
        let leader = world.leader().expect("a leader");
        world.links.cut_only(apart.into_iter().chain(BOTH_WAYS(0, 1)).collect());
        run(&mut world, Duration::from_secs(3) + millis(150));
        let Status { term, last, committed, .. } = raft(&world, leader);
        assert!(last.index > committed, "seed {seed}: nothing waits for a majority");
        let body = Body::AppendReply(AppendOutcome::Accepted { matched: last.index, full: false });
        let bytes = peer::encode(&Message { term, body }).unwrap().unwrap();
        world.after(millis(1), Event::Peer { from: away, to: leader, bytes });
        run(&mut world, Duration::from_secs(3) + millis(160));
        assert_eq!(raft(&world, leader).committed, committed, "seed {seed}: committed on one disk of three");
        assert_eq!(raft(&world, leader).term, term, "seed {seed}: it was heard by another leader");
        world.links.heal();
        world.to_the_end();
    }
}

/// Case P15. A follower dies again and again, right behind its start or when it could have asked for votes.
#[test]
fn a_follower_that_dies_at_each_start_disturbs_nobody() {
    const DEATHS: u64 = 50;
    for seed in SEEDS {
        let mut world = open_ended(seed);
        run(&mut world, Duration::from_secs(3));
        let leader = world.leader().expect("a leader");
        let (follower, victim) = ((leader + 1) % 3, (leader + 2) % 3);
        let terms = |world: &World| [leader, follower].map(|at| raft(world, at).term);
        let (begin, first) = (world.done, terms(&world));
        let down = millis(50);
        let lives = (0..DEATHS).map(|death| millis(1 + 100 * (death % 8)));
        let span: Duration = lives.clone().map(|life| down + life).sum();
        let until = world.now + span;
        run(&mut world, until);
        let before = world.done - begin;
        for life in lives {
            let crash = world.draw_crash();
            world.crash(victim, crash);
            world.after(down, Event::Start(victim));
            let until = world.now + down + life;
            run(&mut world, until);
            assert!(world.nodes[victim].life.is_some(), "seed {seed}: it has not started");
            assert_eq!(terms(&world), first, "seed {seed}: another term");
        }
        let during = world.done - begin - before;
        assert_eq!(world.nodes[victim].lives, DEATHS + 1, "seed {seed}: lives");
        assert_eq!(world.leader(), Some(leader), "seed {seed}: it leads no more");
        assert!(
            before >= 300 && during >= before * 9 / 10,
            "seed {seed}: {during} calls, {before} before it"
        );
    }
}

/// Case N6. A leader is heard by everybody and hears no member: it makes room for another one, and has no part in further
/// elections, neither as long as it is deaf nor when it hears again.
#[test]
fn a_leader_that_hears_nobody_steps_down_without_a_storm() {
    for seed in SEEDS {
        let mut world = open_ended(seed);
        let soon = world.setup.timing.election_max * 4;
        run(&mut world, Duration::from_secs(3));
        let leader = world.leader().expect("a leader");
        let first = world.watch.max_term;
        let others = [1, 2].map(|steps| (leader + steps) % 3);
        world.links.cut_only(others.map(|at| (NetEnd::Node(at), NetEnd::Node(leader))).into());
        run(&mut world, Duration::from_secs(3) + soon);
        assert_ne!(raft(&world, leader).role, RoleKind::Leader, "seed {seed}: it hears nobody and leads");
        let next = world.leader();
        assert!(next.is_some(), "seed {seed}: nobody else leads");
        let (second, done) = (world.watch.max_term, world.done);
        assert!(second.0 <= first.0 + 2, "seed {seed}: term {second} after {first}");
        run(&mut world, Duration::from_secs(23));
        assert!(world.done >= done + 300, "seed {seed}: {} calls", world.done - done);
        world.links.heal();
        run(&mut world, Duration::from_secs(28));
        assert_eq!((world.watch.max_term, world.leader()), (second, next), "seed {seed}: it was disturbed");
        assert_eq!(raft(&world, leader).term, second, "seed {seed}: it does not follow");
    }
}
