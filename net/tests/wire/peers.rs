//! Nodes among themselves.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmap_net::*;

use crate::support::*;

#[test]
fn frames_go_both_ways_in_order_and_by_class() {
    let runtime = runtime();
    let (one, two) = pair(&runtime, |_, _| {});
    for i in 0..100_u8 {
        assert!(one.peers.send(2, Class::Log, KIND + i, &[vec![i].into(), vec![i; 5000].into()]));
    }
    for i in 0..100_u8 {
        let (peer, class, kind, payload) = two.frame();
        assert_eq!((peer, class, kind, payload.len()), (1, Class::Log, KIND + i, 5001));
        assert!(payload.iter().all(|byte| *byte == i));
    }
    assert!(two.peers.send(1, Class::Urgent, 255, &[]));
    assert_eq!(one.frame(), (2, Class::Urgent, 255, Bytes::new()));
    assert!(!one.peers.send(9, Class::Urgent, KIND, &[]), "node 9 is nobody");
    assert_eq!(one.peers.stats().dropped_unconnected, 1);
}

#[test]
fn three_nodes_find_each_other_whoever_starts_first() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let addrs: Vec<_> = (1..=3).map(|id| (id, free_addr())).collect();
    let mut nodes = Vec::new();
    for (id, addr) in addrs.iter().rev() {
        nodes.push(Plan::new(node(&authority, *id), *addr, &addrs).start(&runtime));
        std::thread::sleep(Duration::from_millis(30));
    }
    for node in &nodes {
        node.connected();
        node.connected();
    }
}

#[test]
fn a_restarted_peer_is_noticed_and_reconnected_within_a_second() {
    let authority = Authority::new().unwrap();
    let identities = [node(&authority, 1), node(&authority, 2)];
    let addrs = [free_addr(), free_addr()];
    let plan = |i: usize| Plan::new(identities[i].clone(), addrs[i], &[(2 - i as u64, addrs[1 - i])]);
    // Whichever side is lost: the one that dials, and the one that is dialled.
    for lost in [0, 1] {
        let (home, doomed, reborn) = (runtime(), runtime(), runtime());
        let stays = plan(1 - lost).start(&home);
        let goes = plan(lost).start(&doomed);
        stays.connected();
        goes.connected();
        // As SIGKILL would: the socket is gone, and nobody says goodbye.
        doomed.shutdown_timeout(Duration::from_secs(1));
        drop(goes);
        let started = Instant::now();
        let back = plan(lost).start(&reborn);
        let peer = stays.disconnected_while_sending(lost as u64 + 1);
        assert_eq!(peer, lost as u64 + 1);
        stays.connected();
        back.connected();
        let took = started.elapsed();
        assert!(took < Duration::from_secs(1), "reconnecting took {took:?} after node {} was lost", lost + 1);
    }
}

impl Running {
    /// A leader's heartbeats go on until it hears that nobody is there.
    fn disconnected_while_sending(&self, to: u64) -> u64 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.peers.send(to, Class::Urgent, KIND, &[Bytes::from_static(&[0; 64])]);
            if let Ok(event) = self.events.recv_timeout(Duration::from_millis(50)) {
                match event {
                    Event::Disconnected { peer } => return peer,
                    other => panic!("{other:?} instead of a disconnection"),
                }
            }
        }
        panic!("nobody noticed");
    }
}

#[test]
fn a_silent_peer_is_given_up_after_the_idle_time() {
    let authority = Authority::new().unwrap();
    let (home, doomed) = (runtime(), runtime());
    let addrs = [free_addr(), free_addr()];
    let one = Plan::new(node(&authority, 1), addrs[0], &[(2, addrs[1])]).start(&home);
    let two = Plan::new(node(&authority, 2), addrs[1], &[(1, addrs[0])]).start(&doomed);
    one.connected();
    two.connected();
    doomed.shutdown_timeout(Duration::from_secs(1));
    let started = Instant::now();
    assert_eq!(one.disconnected(), 2);
    let took = started.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_quiet_connection_lives_on() {
    let runtime = runtime();
    let (one, two) = pair(&runtime, |_, _| {});
    one.nothing_for(Duration::from_secs(3));
    two.nothing_for(Duration::from_millis(1));
}

#[test]
fn a_newer_connection_replaces_the_older_one_at_once() {
    let authority = Authority::new().unwrap();
    let (home, elsewhere) = (runtime(), runtime());
    let (first, second, addr) = (free_addr(), free_addr(), free_addr());
    let two = Plan::new(node(&authority, 2), addr, &[(1, first)]).start(&home);
    let old = Plan::new(node(&authority, 1), first, &[(2, addr)]).start(&elsewhere);
    assert_eq!(two.connected().0, 1);
    old.connected();
    // Another process with the same identity, as after a restart elsewhere.
    let started = Instant::now();
    let new = Plan::new(node(&authority, 1), second, &[(2, addr)]).start(&elsewhere);
    assert_eq!(two.disconnected(), 1);
    assert_eq!(two.connected().0, 1);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    new.connected();
    assert!(new.peers.send(2, Class::Urgent, KIND, &["new".into()]));
    assert_eq!(two.frame().3, "new");
    eventually("it is counted", || two.peers.stats().peer_replaced == 1);
    assert_eq!(old.disconnected(), 2);
}

#[test]
fn a_refused_hello_is_tried_again() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    for refusing in [1, 2] {
        let addrs = [free_addr(), free_addr()];
        let mut plans = [1, 2].map(|id| {
            Plan::new(node(&authority, id), addrs[id as usize - 1], &[(3 - id, addrs[2 - id as usize])])
        });
        plans[refusing - 1].refuse_hello = Some("another bootstrap".into());
        let [one, two] = plans.map(|plan| plan.start(&runtime));
        one.nothing_for(Duration::from_millis(300));
        two.nothing_for(Duration::from_millis(1));
        [&one, &two][refusing - 1].allow_hello();
        one.connected();
        two.connected();
        assert!([&one, &two][refusing - 1].peers.stats().refused > 0);
    }
}

/// What was on its way when the credit ran out may still make room; then nothing does.
fn stays_full(send: impl Fn() -> bool) {
    let started = Instant::now();
    let mut full_since = Instant::now();
    while full_since.elapsed() < Duration::from_millis(300) {
        assert!(started.elapsed() < Duration::from_secs(20), "there is always room");
        if send() {
            full_since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_queue_drops_and_never_blocks() {
    let runtime = runtime();
    let (one, two) = pair(&runtime, |_, plan| {
        plan.limits.log_queue = 4 << 20;
        plan.limits.log_frame = 1 << 20;
    });
    // Nobody releases credit: the events wait in the channel, and their credit with them.
    let payload = Bytes::from(vec![1; 256 << 10]);
    let started = Instant::now();
    let queued =
        (0..400).filter(|_| one.peers.send(2, Class::Log, KIND, std::slice::from_ref(&payload))).count();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(queued < 400, "100 MiB do not fit");
    assert_eq!(one.peers.stats().dropped_full, 400 - queued as u64);
    // While the log is stuck for want of credit, votes and heartbeats go on.
    stays_full(|| one.peers.send(2, Class::Log, KIND, std::slice::from_ref(&payload)));
    assert!(one.peers.send(2, Class::Urgent, KIND, &["vote".into()]));
    let mut log_frames = Vec::new();
    loop {
        match two.next() {
            Event::Frame { class: Class::Urgent, .. } => break,
            frame => log_frames.push(frame),
        }
    }
    assert!(log_frames.len() <= 16, "{} frames of 256 KiB handed over, 4 MiB are allowed", log_frames.len());
    // Released, the rest comes.
    let held = log_frames.len();
    drop(log_frames);
    for _ in held..queued {
        assert_eq!(two.frame().1, Class::Log);
    }
}

#[test]
fn a_frame_over_its_class_limit_is_dropped() {
    let runtime = runtime();
    let (one, _two) = pair(&runtime, |_, _| {});
    let limit = Limits::default().urgent_frame;
    assert!(one.peers.send(2, Class::Urgent, KIND, &[Bytes::from(vec![0; limit])]));
    assert!(!one.peers.send(2, Class::Urgent, KIND, &[Bytes::from(vec![0; limit]), "1".into()]));
    assert_eq!(one.peers.stats().dropped_full, 1);
}

#[test]
fn a_panic_in_the_handler_is_reported() {
    let runtime = runtime();
    let (one, two) = pair(&runtime, |_, _| {});
    one.peers.send(2, Class::Log, KIND, &["panic".into()]);
    let reason = two.dead.recv_timeout(PATIENCE).unwrap();
    assert!(reason.contains("log reader"), "{reason}");
    assert!(one.dead.try_recv().is_err());
}

#[test]
fn shutdown_says_goodbye_and_frees_the_port() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let addrs = [free_addr(), free_addr()];
    let one = Plan::new(node(&authority, 1), addrs[0], &[(2, addrs[1])]).start(&runtime);
    let two = Plan::new(node(&authority, 2), addrs[1], &[(1, addrs[0])]).start(&runtime);
    one.connected();
    two.connected();
    let started = Instant::now();
    runtime.block_on(two.peers.shutdown());
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(one.disconnected(), 2);
    assert!(started.elapsed() < Duration::from_millis(1100), "{:?}", started.elapsed());
    assert_eq!(two.disconnected(), 1);
    drop(two);
    let again = Plan::new(node(&authority, 2), addrs[1], &[(1, addrs[0])]).start(&runtime);
    again.connected();
    assert!(again.dead.try_recv().is_err(), "a wanted end is no death");
}

#[test]
fn contradictory_limits_and_foreign_roles_do_not_start() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let mut config = PeerConfig {
        listen: any_port(),
        identity: client(&authority, "alice"),
        peers: [].into(),
        limits: Limits::default(),
    };
    let node_handler = Plan::new(node(&authority, 1), any_port(), &[]).start(&runtime).node.clone();
    let start = |config: PeerConfig| {
        Peers::start(
            config,
            node_handler.clone(),
            std::sync::Arc::new(Echo),
            Box::new(|_| {}),
            runtime.handle(),
        )
    };
    assert!(matches!(start(config.clone()), Err(StartError::NotANode(Role::Client(_)))));
    config.identity = node(&authority, 1);
    config.limits.keep_alive = Duration::from_secs(60);
    assert!(matches!(start(config.clone()), Err(StartError::Limits(_))));
    config.limits = Limits::default();
    let taken = std::net::UdpSocket::bind(any_port()).unwrap();
    config.listen = taken.local_addr().unwrap();
    assert!(matches!(start(config), Err(StartError::Bind { .. })));
}
