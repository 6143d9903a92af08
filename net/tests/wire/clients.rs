//! Clients and the node that serves them.

use std::time::Duration;

use bytes::Bytes;
use raftmap_net::*;

use crate::support::*;

fn alone(runtime: &tokio::runtime::Runtime, authority: &Authority, limits: Limits) -> Running {
    let mut plan = Plan::new(node(authority, 1), any_port(), &[]);
    plan.limits = limits;
    plan.start(runtime)
}

#[test]
fn requests_are_answered_and_the_certificate_says_who_asks() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let server = alone(&runtime, &authority, Limits::default());
    for (identity, name) in [(client(&authority, "alice"), "client/alice"), (node(&authority, 7), "node/7")] {
        let (connection, heard) = connect(&runtime, identity, server.addr).unwrap();
        assert_eq!((connection.node(), connection.hello()), (1, &Bytes::from_static(b"hi")));
        connection.send(&["who am i".into()]).unwrap();
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Heard::Reply(name.into()));
    }
}

#[test]
fn many_requests_are_in_flight_at_once() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let server = alone(&runtime, &authority, Limits::default());
    let (connection, heard) = connect(&runtime, client(&authority, "alice"), server.addr).unwrap();
    let request = |i: u32| Bytes::from(vec![(i % 251) as u8; (i % 700) as usize]);
    for i in 0..10_000 {
        connection.send(&[request(i)]).unwrap();
    }
    for i in 0..10_000 {
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Heard::Reply(request(i)), "request {i}");
    }
}

#[test]
fn closing_is_heard_on_both_sides() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let server = alone(&runtime, &authority, Limits { clients: 1, ..Limits::default() });
    let (connection, heard) = connect(&runtime, client(&authority, "alice"), server.addr).unwrap();
    let refused = connect(&runtime, client(&authority, "bob"), server.addr).unwrap_err();
    assert!(refused.to_string().contains("too many clients"), "{refused}");
    drop(connection);
    assert!(matches!(heard.recv_timeout(PATIENCE).unwrap(), Heard::Closed(_)));
    // The server hears it too: the only place is free again.
    let mut second = None;
    eventually("a place", || {
        second = connect(&runtime, client(&authority, "bob"), server.addr).ok();
        second.is_some()
    });
    let (connection, heard) = second.unwrap();
    runtime.block_on(server.peers.shutdown());
    let reason = match heard.recv_timeout(PATIENCE).unwrap() {
        Heard::Closed(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason.contains("stopping") || reason == "reset by peer", "{reason}");
    assert_eq!(connection.send(&[]), Err(SendError::Closed));
    assert!(!connection.is_open());
}

#[test]
fn a_refused_hello_is_told_in_words() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let server = alone(&runtime, &authority, Limits::default());
    let endpoint =
        ClientEndpoint::new(client(&authority, "alice"), Limits::default(), runtime.handle()).unwrap();
    let (ear, heard) = std::sync::mpsc::channel();
    // On a busy machine the server may have forgotten the connection before its words are read; then ask again.
    eventually("the words", || {
        let connecting = endpoint.connect(server.addr, "not you".into(), Ear(ear.clone()), PATIENCE);
        runtime.block_on(connecting).unwrap_err().to_string().contains("you said so yourself")
    });
    drop(ear);
    assert!(heard.recv().is_err(), "a connection that never was is never closed");
}

#[test]
fn nobody_there_is_a_timeout() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let endpoint =
        ClientEndpoint::new(client(&authority, "alice"), Limits::default(), runtime.handle()).unwrap();
    let (ear, _heard) = std::sync::mpsc::channel();
    let connecting = endpoint.connect(free_addr(), "hi".into(), Ear(ear), Duration::from_millis(200));
    assert!(matches!(runtime.block_on(connecting), Err(ConnectError::Timeout { .. })));
}

#[test]
fn a_request_too_large_or_too_many_is_busy() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let server = alone(&runtime, &authority, Limits::default());
    let (connection, heard) = connect(&runtime, client(&authority, "alice"), server.addr).unwrap();
    let limit = Limits::default().request_frame;
    assert_eq!(connection.send(&[vec![0; limit + 1].into()]), Err(SendError::Busy));
    // Held by the service, they use up the connection's credit, and then the client's queue.
    let mut held = vec![0; 256 << 10];
    held[..4].copy_from_slice(b"hold");
    let held = Bytes::from(held);
    let sent = (0..200).take_while(|_| connection.send(std::slice::from_ref(&held)).is_ok()).count();
    assert!(sent < 200, "50 MiB do not fit");
    assert!(heard.recv_timeout(Duration::from_millis(200)).is_err());
    assert!(connection.is_open());
    // Others do not wait for it.
    let (other, heard) = connect(&runtime, client(&authority, "bob"), server.addr).unwrap();
    other.send(&["quick".into()]).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Heard::Reply("quick".into()));
}

#[test]
fn a_panic_in_the_service_is_reported() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let server = alone(&runtime, &authority, Limits::default());
    let (connection, _heard) = connect(&runtime, client(&authority, "alice"), server.addr).unwrap();
    connection.send(&["panic".into()]).unwrap();
    assert!(server.dead.recv_timeout(PATIENCE).unwrap().contains("panicked"));
}

#[test]
fn a_restarted_node_is_noticed_by_its_clients() {
    let (home, doomed, reborn) = (runtime(), runtime(), runtime());
    let authority = Authority::new().unwrap();
    let (addr, identity) = (free_addr(), node(&authority, 1));
    let old = Plan::new(identity.clone(), addr, &[]).start(&doomed);
    let (connection, heard) = connect(&home, client(&authority, "alice"), addr).unwrap();
    doomed.shutdown_timeout(Duration::from_secs(1));
    drop(old);
    let _new = Plan::new(identity, addr, &[]).start(&reborn);
    let started = std::time::Instant::now();
    // Unless a sign of life was quicker, this is what the new life does not understand.
    let _ = connection.send(&[vec![0; 100].into()]);
    let end = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(end, Heard::Closed("reset by peer".into()), "the reset key outlives the process");
    assert!(started.elapsed() < Duration::from_millis(1000), "{:?}", started.elapsed());
}
