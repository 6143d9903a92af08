//! Whoever is no member, or no client, and whoever is a client and misbehaves.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::Endpoint;
use raftmap::kv::{Command, Keys, Scan, SessionId};
use raftmap::net::frame::{Decoder, Frame};
use raftmap::net::{Authority, ClusterId, Limits, Role, identity};
use raftmap::wire::client::{Ask, Query, Request, Response, decode_response, encode_request};
use raftmap::{Clerk, ConnectOptions};

use crate::arena::{Arena, PATIENCE};
use crate::bare::{self, CLIENT, HELLO, PEER, REQUEST, Shown, dated, frame, says, shown};

/// The words with which node `to` sends away whoever shows this.
fn refused(arena: &Arena, to: u64, shown: Shown, alpn: &[u8]) -> String {
    let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), shown, alpn));
    arena.runtime.block_on(async {
        match bare::knock(config, arena.addresses[&to]).await {
            Err(error) => error.to_string(),
            Ok(connection) => {
                let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed()).await;
                closed.expect("it is closed").to_string()
            }
        }
    })
}

/// A certificate by another authority, which calls itself node 1 of the same cluster.
fn of_another_authority(arena: &Arena) -> Shown {
    let ours = Authority::load(&arena.dir.path().join("ca")).unwrap().cluster();
    let dir = arena.dir.path().join("forged");
    raftmap::net::new_cluster(&dir.join("ca")).unwrap();
    save(&dir.join("ca"), ours, &dir)
}

/// A certificate by our own authority for node 1 of another cluster.
fn of_another_cluster(arena: &Arena) -> Shown {
    save(&arena.dir.path().join("ca"), ClusterId([9; 16]), &arena.dir.path().join("astray"))
}

fn save(ca: &std::path::Path, cluster: ClusterId, out: &std::path::Path) -> Shown {
    let authority = Authority::load(ca).unwrap();
    authority.issue_for_to(cluster, &Role::Node(1), out).unwrap();
    shown(out)
}

#[test]
fn whoever_is_no_member_does_not_come_in() {
    let arena = Arena::new(&[1, 2, 3]);
    let who = |name: &str| shown(&arena.dir.path().join(name));
    let ca = arena.dir.path().join("ca");
    let cluster = Authority::load(&ca).unwrap().cluster();
    let aged = |role: &str, years| dated(&ca, &format!("raftmap://{cluster}/{role}"), years);
    arena.under(|| {
        // Alert 45 is "certificate expired", and stands for "not yet valid" as well; 48 is "unknown authority", 116
        // "certificate required".
        let cases = [
            (aged("node/1", (1990, 2000)), PEER, "error 45"),
            (aged("node/1", (2990, 3000)), PEER, "error 45"),
            (aged("client/eve", (1990, 2000)), CLIENT, "error 45"),
            (None, PEER, "error 116"),
            (None, CLIENT, "error 116"),
            (of_another_authority(&arena), PEER, "error 48"),
            (of_another_cluster(&arena), PEER, "it belongs to cluster 0909"),
            (who("eve"), PEER, "client/eve, a node is needed"),
            (who("n9"), PEER, "node 9 must not dial node 3"),
            (who("n3"), PEER, "node 3 must not dial node 3"),
        ];
        let before = arena.stats(3).refused;
        let count = cases.len() as u64;
        for (shown, alpn, words) in cases {
            let end = refused(&arena, 3, shown, alpn);
            assert!(says(&end, words), "{words}: {end}");
        }
        let after = arena.stats(3).refused;
        assert!(after >= before + count, "{before} refused before, {after} after {count} attempts");
    });
}

/// First packets that nobody follows up, from many addresses, as if they were forged: their keys fit nothing.
fn rubbish(target: SocketAddr) {
    let mut state = 7_u64;
    for _ in 0..200 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..50 {
            let mut packet = [0; 1200];
            packet.iter_mut().for_each(|byte| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            });
            let first = 0xc0 | packet[0] & 0x0f;
            packet[..6].copy_from_slice(&[first, 0, 0, 0, 1, 8]);
            packet[14] = 8;
            let _full_or_not = socket.send_to(&packet, target);
        }
    }
}

/// A road to `target` on which handshakes begin and never end: of what comes back it lets through only the demand to prove
/// that the address is one's own, which a server under load makes before it spends anything. One client's.
async fn dead_end(front: tokio::net::UdpSocket, target: SocketAddr) {
    let back = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    back.connect(target).await.unwrap();
    let (mut there, mut here, mut client) = ([0; 2_048], [0; 2_048], None);
    loop {
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                let _full_or_not = back.send(&there[..length]).await;
            }
            // A long header of type 3 (RFC 9000, 17.2.5).
            Ok(length) = back.recv(&mut here) => if let (0xb0, Some(client)) = (here[0] & 0xb0, client) {
                let _full_or_not = front.send_to(&here[..length], client).await;
            }
        }
    }
}

/// More handshakes at once than a node lets begin, none of which ends. It turns away what is too much and gives up the
/// others in their time, so that a new client gets through while all of them still try.
#[test]
fn a_flood_of_handshakes_is_turned_away() {
    let arena = Arena::new(&[1, 2, 3]);
    let leader = arena.leader();
    let target = arena.addresses[&leader];
    let eve = ConnectOptions { identity: Some(arena.dir.path().join("eve")) };
    let many = 2 * Limits::default().handshakes;
    arena.under(|| {
        rubbish(target);
        let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), None, PEER));
        arena.runtime.block_on(async {
            let front = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let road = front.local_addr().unwrap();
            let dead_end = tokio::spawn(dead_end(front, target));
            // One endpoint: each takes megabytes for its own buffers.
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            for round in 0..3 {
                let before = arena.stats(leader);
                let begun =
                    (0..many).map(|_| endpoint.connect_with(config.clone(), road, identity::SERVER_NAME));
                let begun: Vec<_> = begun.map(Result::unwrap).collect();
                let until = Instant::now() + PATIENCE;
                while arena.stats(leader).handshakes_turned_away == before.handshakes_turned_away {
                    assert!(Instant::now() < until, "round {round}: none of {many} was turned away");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let clerk = Clerk::connect(&[target], &eve).unwrap();
                let through = tokio::time::timeout(PATIENCE, clerk.put("through", "the flood")).await;
                through.expect("the bound is free again in its time").unwrap();
                assert!(arena.stats(leader).refused > before.refused, "round {round}: none was given up");
                drop(begun);
            }
            dead_end.abort();
        });
    });
}

/// Longest wait for a hello to be given up, on a machine under load too. A dead connection is given up later than a hello,
/// and with other words.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Opens all the streams that a client may have and leaves them silent, in the midst of a hello. The number of streams, how
/// long the node bore with them, and its words.
async fn silence(
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    target: SocketAddr,
) -> (usize, Duration, String) {
    let connection = bare::knock_from(&endpoint, config, target).await.expect("eve is a client");
    let began = Instant::now();
    let (patience, mut kept, mut one_way) = (Duration::from_millis(100), Vec::new(), 0);
    while let Ok(Ok((mut send, recv))) = tokio::time::timeout(patience, connection.open_bi()).await {
        // The first bytes of a hello, of which the rest never comes.
        let _closed_or_not = send.write_all(&frame(HELLO, b"hi")[..9]).await;
        kept.push((send, recv));
    }
    while let Ok(Ok(mut send)) = tokio::time::timeout(patience, connection.open_uni()).await {
        let _closed_or_not = send.write_all(&[0; 9]).await;
        one_way += 1;
    }
    let end = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("the node ends it");
    let took = began.elapsed();
    for (_, recv) in &mut kept {
        assert!(recv.read(&mut [0; 1]).await.is_err(), "a stream outlived its connection");
    }
    (kept.len() + one_way, took, end.to_string())
}

#[test]
fn silent_streams_hold_nothing_up() {
    let arena = Arena::new(&[1, 2, 3]);
    let leader = arena.leader();
    let target = arena.addresses[&leader];
    arena.under(|| {
        let shown = || shown(&arena.dir.path().join("eve"));
        let config = || bare::quic(bare::tls(&arena.dir.path().join("ca"), shown(), CLIENT));
        let before = arena.stats(leader).refused;
        let silent = arena.runtime.block_on(async {
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let mut silent = Vec::new();
            // Fewer at once than the bound of handshakes: all of them get in.
            for _ in 0..3 {
                let some: Vec<_> =
                    (0..20).map(|_| tokio::spawn(silence(endpoint.clone(), config(), target))).collect();
                for one in some {
                    silent.push(one.await.expect("it was closed"));
                }
            }
            silent
        });
        for (streams, took, end) in &silent {
            assert_eq!(*streams, 1, "all that a client may have");
            assert!(says(end, "no hello in time") && *took < GIVEN_UP, "{end:?} after {took:?}");
        }
        assert_eq!(arena.stats(leader).refused - before, 60, "each is counted");
    });
}

/// Sends as much of `request` as the node takes, and fills whatever other streams it may open. The words with which that
/// ends. What is sent is all clients' together: the heap is for what the node keeps.
async fn hoarding(
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    target: SocketAddr,
    request: Bytes,
) -> String {
    let connection = bare::knock_from(&endpoint, config, target).await.expect("eve is a client");
    let hello = raftmap::wire::client::ClientHello::OURS.encode().unwrap();
    let (mut send, _recv) = connection.open_bi().await.expect("the one it has");
    send.write_all(&frame(HELLO, &hello)).await.expect("heard");
    let begun = async {
        let _closed_or_not = send.write_chunk(request.clone()).await;
    };
    let others = async {
        for _ in 0..3 {
            let opened = async { tokio::join!(connection.open_bi(), connection.open_uni()) };
            let opened = tokio::time::timeout(Duration::from_millis(200), opened).await;
            let Ok((Ok((mut one, _)), Ok(mut other))) = opened else { return };
            let full =
                async { tokio::join!(one.write_chunk(request.clone()), other.write_chunk(request.clone())) };
            let _full = tokio::time::timeout(Duration::from_millis(500), full).await;
            std::mem::forget((one, other));
        }
    };
    let end = async { tokio::time::timeout(PATIENCE * 2, connection.closed()).await };
    tokio::join!(begun, others, end).2.expect("the node ends it").to_string()
}

/// Clients who were let in begin large requests that never end. What they may make the node keep is bounded for all of them
/// together, and they are given up one after the other.
#[test]
fn requests_that_never_end_hold_nothing_up() {
    const CLIENTS: u64 = 24;
    let arena = Arena::new(&[1, 2, 3]);
    let leader = arena.leader();
    let target = arena.addresses[&leader];
    arena.under(|| {
        let shown = || shown(&arena.dir.path().join("eve"));
        let config = || bare::quic(bare::tls(&arena.dir.path().join("ca"), shown(), CLIENT));
        let ends = arena.runtime.block_on(async {
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            // The largest that there is, but for its last byte.
            let request = Bytes::from(frame(REQUEST, &vec![7; Limits::default().request_frame]));
            let begun = request.slice(..request.len() - 1);
            let hoarding = |_| tokio::spawn(hoarding(endpoint.clone(), config(), target, begun.clone()));
            let hoarding: Vec<_> = (0..CLIENTS).map(hoarding).collect();
            let mut ends = Vec::new();
            for one in hoarding {
                ends.push(one.await.expect("it was closed"));
            }
            ends
        });
        for end in &ends {
            assert!(says(end, "came too slowly"), "{end}");
        }
        assert_eq!(arena.stats(leader).slow_senders, CLIENTS, "each is counted");
    });
}

/// Requests that are well formed, and in which every number is absurd.
fn absurd_requests() -> Vec<Ask> {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    let session = SessionId(u64::MAX);
    let write = |sequence, acked_below, command| Ask::Write { session, sequence, acked_below, command };
    let put = Command::Put { key: key.clone(), value: value.clone() };
    let compare = Command::CompareAndPut { key: key.clone(), version: u64::MAX, value };
    let scan = |keys, limit| Scan { keys, after: Some(key.clone()), limit };
    let backwards = Keys::Range { start: Bytes::from_static(b"z"), end: Some(Bytes::new()) };
    vec![
        write(u64::MAX, u64::MAX, put.clone()),
        write(0, 0, put.clone()),
        write(1, u64::MAX, put),
        write(u64::MAX, 0, compare),
        Ask::Close { session },
        Ask::Read(Query::Scan(scan(Keys::Prefix(Bytes::new()), u32::MAX))),
        Ask::Stale(Query::Scan(scan(backwards, 0))),
        Ask::Read(Query::Get { key: Bytes::new() }),
    ]
}

#[test]
fn absurd_requests_are_answered() {
    let arena = Arena::new(&[1, 2, 3]);
    let leader = arena.leader();
    let clerk = arena.nodes[&leader].clerk();
    arena.runtime.block_on(clerk.put("key", "before")).unwrap();
    arena.under(|| {
        let before = arena.stats(leader).malformed;
        let config =
            bare::quic(bare::tls(&arena.dir.path().join("ca"), shown(&arena.dir.path().join("eve")), CLIENT));
        arena.runtime.block_on(async {
            let connection = bare::knock(config, arena.addresses[&leader]).await.expect("eve is a client");
            let hello = raftmap::wire::client::ClientHello::OURS.encode().unwrap();
            let (mut send, recv) = connection.open_bi().await.unwrap();
            send.write_all(&frame(HELLO, &hello)).await.unwrap();
            for (id, body) in (u64::MAX - 100..).zip(absurd_requests()) {
                let request = encode_request(&Request { id, body }).unwrap();
                send.write_all(&frame(REQUEST, &request)).await.unwrap();
            }
            let answers = tokio::time::timeout(PATIENCE, answers(recv, absurd_requests().len())).await;
            for Response { id, body } in answers.expect("each is answered") {
                let place = (id - (u64::MAX - 100)) as usize;
                // Reads of what is there, or not, are answered; writes by numbers that nobody has are not done.
                assert_eq!(body.is_ok(), place >= 5, "{id}: {body:?}");
            }
            assert!(connection.close_reason().is_none(), "{:?}", connection.close_reason());
        });
        assert_eq!(arena.stats(leader).malformed, before);
    });
    let found = arena.runtime.block_on(clerk.get("key")).unwrap().expect("it is there");
    assert_eq!(found.value, "before");
}

/// So many answers, behind the hello's.
async fn answers(mut recv: quinn::RecvStream, count: usize) -> Vec<Response> {
    let (mut decoder, mut answers) = (Decoder::new(0..=u8::MAX, 4 << 20), Vec::new());
    while answers.len() < count {
        let chunk = recv.read_chunk(65_536, true).await.expect("readable").expect("not over");
        decoder.extend(&chunk.bytes);
        while let Some(Frame { kind, payload }) = decoder.next().expect("sound") {
            answers.extend((kind != HELLO).then(|| decode_response(&payload).expect("sound")));
        }
    }
    answers
}

/// What a client may send behind its hello, and the words that its connection ends with.
fn malformed_requests() -> Vec<(&'static str, Vec<u8>)> {
    let claim = |marker: u8, length: u64| {
        // A put whose key claims this length: id, write, session, numbers, put, then the length in a varint.
        let width = if marker == 252 { 4 } else { 8 };
        let numbers = [&[5, 2, 1, 1, 1, 0, marker][..], &length.to_le_bytes()[..width]].concat();
        frame(REQUEST, &[&numbers[..], b"key"].concat())
    };
    let sound = frame(REQUEST, &[5, 5]);
    let mut flipped = sound.clone();
    flipped[17] ^= 1;
    let mut huge = sound.clone();
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    vec![
        ("4294967295 bytes", huge),
        ("malformed request", claim(252, u64::from(u32::MAX))),
        ("malformed request", claim(253, 1 << 32)),
        ("malformed request", claim(253, 1 << 63)),
        ("malformed request", claim(253, u64::MAX)),
        ("malformed request", frame(REQUEST, &[5, 5, 0])),
        ("malformed request", frame(REQUEST, &[5])),
        ("malformed request", frame(REQUEST, &[7; 100_000])),
        ("checksum", flipped),
        ("kind", frame(HELLO, b"again")),
    ]
}

/// What the node says to a client who sends this behind its hello: the last answer before the connection's end, or the
/// words of that end.
async fn said(connection: &quinn::Connection, bytes: &[u8], words: &str) -> String {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let _closed_or_not = send.write_all(bytes).await;
    let mut heard = String::new();
    let listen = async {
        while let Ok(Some(chunk)) = recv.read_chunk(1000, true).await {
            heard += &String::from_utf8_lossy(&chunk.bytes);
            if heard.contains(words) {
                return;
            }
        }
        heard += &connection.closed().await.to_string();
    };
    let _patience = tokio::time::timeout(Duration::from_secs(10), listen).await;
    heard
}

/// A malformed frame costs the connection and is counted; a frame that is sound but no request is answered in words.
#[test]
fn malformed_requests_are_told_so_and_hurt_nobody_else() {
    let arena = Arena::new(&[1, 2, 3]);
    let leader = arena.leader();
    let hello = raftmap::wire::client::ClientHello::OURS.encode().unwrap();
    arena.under(|| {
        for (words, bytes) in malformed_requests() {
            let before = arena.stats(leader).malformed;
            let shown = shown(&arena.dir.path().join("eve"));
            let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), shown, CLIENT));
            let end = arena.runtime.block_on(async {
                let connection =
                    bare::knock(config, arena.addresses[&leader]).await.expect("eve is a client");
                said(&connection, &[frame(HELLO, &hello), bytes].concat(), words).await
            });
            assert!(end.contains(words) || end.ends_with("reset by peer"), "{words}: {end}");
            let after = arena.stats(leader).malformed;
            let costs_the_connection = words != "malformed request";
            assert_eq!(after - before, u64::from(costs_the_connection), "{words}: it is counted");
        }
    });
}
