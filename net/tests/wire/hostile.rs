//! What a bare QUIC client may do to a transport that no client of ours would.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, SendStream};
use raftmap_net::relay::{Relay, Weather};
use raftmap_net::*;
use tokio::runtime::Runtime;

use crate::bare::{self, CLIENT, HELLO, PEER, REPLY, REQUEST, frame, says, shown};
use crate::support::*;

const SNAPSHOT_OFFER: u8 = 4;
const SNAPSHOT_ACCEPT: u8 = 5;

/// An authority on disk, so that a bare client can show its certificates.
pub(crate) struct World {
    runtime: Runtime,
    dir: tempfile::TempDir,
    pub(crate) server: Running,
}

impl World {
    pub(crate) fn new(change: impl FnOnce(&mut Plan)) -> Self {
        let (runtime, dir) = (runtime(), tempfile::tempdir().unwrap());
        let ca = dir.path().join("ca");
        new_cluster(&ca).unwrap();
        issue_client(&ca, "eve", &dir.path().join("eve")).unwrap();
        issue_node(&ca, 1, &dir.path().join("n1")).unwrap();
        issue_node(&ca, 2, &dir.path().join("n2")).unwrap();
        let identity = Identity::load(&dir.path().join("n2")).unwrap();
        let mut plan = Plan::new(identity, any_port(), &[(1, free_addr())]);
        // What is tested is the words of an end: a busy machine's silence must not come before them.
        plan.limits.idle = PATIENCE / 2;
        change(&mut plan);
        let server = plan.start(&runtime);
        World { runtime, dir, server }
    }

    pub(crate) fn tls(&self, who: Option<&str>, alpn: &[u8]) -> rustls::ClientConfig {
        let shown = who.and_then(|who| shown(&self.dir.path().join(who)));
        bare::tls(&self.dir.path().join("ca"), shown, alpn)
    }

    pub(crate) fn knock(&self, who: Option<&str>, alpn: &[u8]) -> Result<Connection, ConnectionError> {
        let config = bare::quic(self.tls(who, alpn));
        self.runtime.block_on(bare::knock(config, self.server.addr))
    }

    /// The words with which whoever knocks is sent away, in the handshake or after it.
    fn refused(&self, who: Option<&str>, alpn: &[u8]) -> String {
        self.knock(who, alpn).map_or_else(|error| error.to_string(), |connection| self.end(&connection))
    }

    /// Opens a stream and writes these bytes. The stream stays open: its end would be another story.
    fn say(&self, connection: &Connection, bytes: &[u8]) {
        self.runtime.block_on(async {
            let (mut send, recv) = connection.open_bi().await.unwrap();
            let _ = send.write_all(bytes).await;
            std::mem::forget((send, recv));
        });
    }

    /// The same, and the stream ends behind them.
    fn say_all(&self, connection: &Connection, bytes: &[u8]) {
        self.runtime.block_on(async {
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            send.finish().unwrap();
            let _stopped = send.stopped().await;
        });
    }

    /// The words with which the connection is closed.
    fn end(&self, connection: &Connection) -> String {
        let end = async { tokio::time::timeout(PATIENCE, connection.closed()).await };
        self.runtime.block_on(end).expect("the connection is closed").to_string()
    }
}

#[test]
fn no_certificate_no_connection() {
    let world = World::new(|_| {});
    for alpn in [PEER, CLIENT] {
        let end = world.refused(None, alpn);
        // TLS itself says no, before any check of ours: alert 116 is "certificate required".
        assert!(says(&end, "error 116"), "{end}");
    }
}

#[test]
fn an_unknown_protocol_is_refused() {
    let world = World::new(|_| {});
    assert!(world.knock(Some("eve"), b"h3").is_err());
}

#[test]
fn a_client_is_no_peer_and_a_node_may_be_a_client() {
    let world = World::new(|_| {});
    let end = world.refused(Some("eve"), PEER);
    assert!(says(&end, "client/eve, a node is needed"), "{end}");
    assert!(world.knock(Some("n1"), CLIENT).is_ok());
    eventually("it is counted", || world.server.peers.stats().refused == 1);
}

#[test]
fn a_nodes_double_is_refused() {
    let world = World::new(|_| {});
    let end = world.refused(Some("n2"), PEER);
    assert!(says(&end, "node 2 must not dial node 2"), "{end}");
}

#[test]
fn malformed_frames_close_the_connection_and_are_counted() {
    let world = World::new(|_| {});
    let hello = frame(HELLO, b"hi");
    let with = |at: usize, byte: u8| {
        let mut bytes = frame(REQUEST, b"some request");
        bytes[at] ^= byte;
        [hello.clone(), bytes].concat()
    };
    let mut huge = frame(REQUEST, b"");
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases = [
        ("magic", with(0, 1)),
        ("version", with(4, 2)),
        ("kind", with(5, 64)),
        ("reserved", with(6, 1)),
        ("checksum", with(12, 1)),
        ("checksum", with(20, 128)),
        ("4294967295 bytes", [hello.clone(), huge].concat()),
        ("kind", [hello.clone(), hello.clone()].concat()),
        ("stream ended 20 bytes into a frame", [&hello[..], &frame(REQUEST, b"some request")[..20]].concat()),
        ("stream ended 5 bytes into a frame", [&hello[..], &frame(REQUEST, b"some request")[..5]].concat()),
    ];
    for (i, (what, bytes)) in cases.iter().enumerate() {
        let connection = world.knock(Some("eve"), CLIENT).unwrap();
        if what.contains("ended") {
            world.say_all(&connection, bytes);
        } else {
            world.say(&connection, bytes);
        }
        let end = world.end(&connection);
        assert!(says(&end, what), "{what}: {end}");
        eventually(what, || world.server.peers.stats().malformed == i as u64 + 1);
    }
    assert!(world.server.dead.try_recv().is_err());
}

#[test]
fn a_malformed_frame_from_a_peer_costs_it_the_connection() {
    let world = World::new(|_| {});
    let connection = world.knock(Some("n1"), PEER).unwrap();
    let mut bad = frame(KIND, b"vote");
    bad[17] ^= 1;
    world.say(&connection, &[frame(HELLO, b"hi"), frame(HELLO, b""), frame(KIND, b"fine"), bad].concat());
    let end = world.end(&connection);
    assert!(says(&end, "checksum"), "{end}");
    assert_eq!(world.server.connected(), (1, "hi".into()));
    assert_eq!(world.server.frame().3, "fine");
    assert_eq!(world.server.disconnected(), 1);
}

#[test]
fn a_frame_without_sense_costs_a_peer_the_connection() {
    let world = World::new(|_| {});
    let connection = world.knock(Some("n1"), PEER).unwrap();
    let frames = [frame(HELLO, b"hi"), frame(HELLO, b""), frame(KIND, b"nonsense"), frame(KIND, b"unheard")];
    world.say(&connection, &frames.concat());
    let end = world.end(&connection);
    assert!(says(&end, "nonsense is no message"), "{end}");
    assert_eq!(world.server.connected(), (1, "hi".into()));
    assert_eq!(world.server.disconnected(), 1);
    eventually("it is counted", || world.server.peers.stats().malformed == 1);
}

/// Remembers only whether it was told that the body is whole.
struct Finished(Arc<AtomicBool>);

impl SnapshotWriter for Finished {
    fn chunk(&mut self, _: Bytes) -> Result<(), String> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_snapshot_of_another_length_than_announced_is_not_kept() {
    for (sent, expected) in [(99, "1 bytes fewer"), (101, "more bytes"), (100, "")] {
        let finished = Arc::new(AtomicBool::new(false));
        let writer = finished.clone();
        let world = World::new(|plan| {
            plan.snapshot = Box::new(move |offer| {
                assert_eq!((offer.length, &offer.announcement[..]), (100, &b"index 7"[..]));
                Ok(SnapshotAccept { offset: 0, writer: Box::new(Finished(writer.clone())) })
            });
        });
        let connection = world.knock(Some("n1"), PEER).unwrap();
        world.say(&connection, &[frame(HELLO, b"hi"), frame(HELLO, b"")].concat());
        world.server.connected();
        let answer = world.runtime.block_on(async {
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            let offer = [&100_u64.to_le_bytes()[..], b"index 7"].concat();
            send.write_all(&frame(SNAPSHOT_OFFER, &offer)).await.unwrap();
            let mut accepted = [0; 24];
            recv.read_exact(&mut accepted).await.unwrap();
            assert_eq!(accepted[..], frame(SNAPSHOT_ACCEPT, &0_u64.to_le_bytes()));
            send.write_all(&vec![0; sent]).await.unwrap();
            send.finish().unwrap();
            recv.read_to_end(1000).await.unwrap()
        });
        assert!(String::from_utf8_lossy(&answer).contains(expected), "{sent}: {answer:?}");
        assert_eq!(finished.load(Ordering::SeqCst), sent == 100, "{sent} of 100 bytes");
    }
}

#[test]
fn whoever_says_nothing_is_closed_and_leaves_its_place() {
    let world = World::new(|plan| plan.limits.handshakes = 8);
    let started = Instant::now();
    let idle: Vec<_> = (0..8).map(|_| world.knock(Some("eve"), CLIENT).unwrap()).collect();
    for connection in &idle {
        let end = world.end(connection);
        assert!(says(&end, "no hello in time"), "{end}");
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(world.knock(Some("eve"), CLIENT).is_ok());
}

#[test]
fn over_the_bound_of_handshakes_one_waits_and_then_comes_in() {
    let world = World::new(|plan| plan.limits.handshakes = 2);
    let _idle: Vec<_> = (0..2).map(|_| world.knock(Some("eve"), CLIENT).unwrap()).collect();
    assert!(world.knock(Some("eve"), CLIENT).is_ok());
    eventually("it is counted", || world.server.peers.stats().handshakes_turned_away > 0);
}

#[test]
fn half_a_hello_and_a_dribbled_one_are_closed() {
    let world = World::new(|_| {});
    let connection = world.knock(Some("n1"), PEER).unwrap();
    world.say(&connection, &frame(HELLO, b"hi")[..10]);
    let end = world.end(&connection);
    assert!(says(&end, "no hello within"), "{end}");
    world.server.nothing_for(Duration::from_millis(1));
}

#[test]
fn a_slow_reader_of_replies_is_closed_and_others_are_not() {
    let world = World::new(|_| {});
    let connection = world.knock(Some("eve"), CLIENT).unwrap();
    let other = Identity::load(&world.dir.path().join("n1")).unwrap();
    let (other, heard) = connect(&world.runtime, other, world.server.addr).unwrap();
    // Each request asks for a megabyte, and nobody reads. Ours to hold: one stream window, then the reply queue.
    let requests: Vec<u8> = (0..64).flat_map(|_| frame(REQUEST, b"much")).collect();
    world.say(&connection, &[frame(HELLO, b"hi"), requests].concat());
    eventually("it is counted", || world.server.peers.stats().slow_readers == 1);
    let end = world.end(&connection);
    assert!(says(&end, "read too slowly"), "{end}");
    other.send(&["quick".into()]).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Heard::Reply("quick".into()));
}

#[test]
fn a_client_has_one_stream_and_a_peer_a_few() {
    let world = World::new(|_| {});
    let open = |connection: &Connection| {
        world.runtime.block_on(async {
            let (patience, mut two_way, mut one_way) = (Duration::from_millis(200), Vec::new(), Vec::new());
            while let Ok(Ok((mut send, recv))) = tokio::time::timeout(patience, connection.open_bi()).await {
                send.write_all(b"r").await.unwrap();
                two_way.push((send, recv));
            }
            while let Ok(Ok(mut send)) = tokio::time::timeout(patience, connection.open_uni()).await {
                send.write_all(b"r").await.unwrap();
                one_way.push(send);
            }
            assert!(connection.close_reason().is_none());
            (two_way.len(), one_way.len())
        })
    };
    let client = world.knock(Some("eve"), CLIENT).unwrap();
    world.say(&client, &frame(HELLO, b"hi"));
    assert_eq!(open(&client), (0, 0), "besides its own");
    let peer = world.knock(Some("n1"), PEER).unwrap();
    world.say(&peer, &[frame(HELLO, b"hi"), frame(HELLO, b"")].concat());
    world.server.connected();
    assert_eq!(open(&peer), (3, 4), "besides its first");
}

/// A request that was begun and does not go on costs the connection, a slow one that goes on does not.
#[test]
fn a_request_that_was_begun_must_go_on() {
    let world = World::new(|plan| {
        plan.limits.request_patience = Duration::from_millis(500);
        plan.limits.request_pace = 1_000;
    });
    let request = frame(REQUEST, &[b'x'; 3_000]);
    let slow = || world.server.peers.stats().slow_senders;
    // A whole one, one without its end, and a header without its end.
    for (length, count) in [(request.len(), 0), (request.len() - 1, 1), (15, 2)] {
        let connection = world.knock(Some("eve"), CLIENT).unwrap();
        world.runtime.block_on(async {
            let (mut send, recv) = connection.open_bi().await.unwrap();
            send.write_all(&frame(HELLO, b"hi")).await.unwrap();
            for part in request[..length].chunks(700) {
                send.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
            std::mem::forget((send, recv));
        });
        eventually("it is counted", || slow() == count);
        assert_eq!(connection.close_reason().is_some(), count > 0, "{length} bytes");
    }
}

/// A large request gets a window of its length: 64 KiB a round trip would take half as long again as it has.
#[test]
fn a_large_request_crosses_a_long_road_in_time() {
    let world = World::new(|plan| {
        plan.limits.request_patience = Duration::from_secs(4);
        plan.limits.request_pace = plan.limits.request_frame;
    });
    let request = [b"hold".as_slice(), &vec![b'x'; Limits::default().request_frame - 4]].concat();
    let asked = [frame(HELLO, b"hi"), frame(REQUEST, &request), frame(REQUEST, b"who am i")].concat();
    let config = bare::quic(world.tls(Some("eve"), CLIENT));
    let answer = world.runtime.block_on(async {
        let road = Relay::bind(any_port(), world.server.addr, 1).await.unwrap();
        let connection = bare::knock(config, road.address()).await.unwrap();
        let long = Weather { delay: Duration::from_millis(120), ..Weather::default() };
        road.set_there(long);
        road.set_back(long);
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let mut answers = vec![0; frame(HELLO, b"hi").len() + frame(REPLY, b"client/eve").len()];
        let sent = async { send.write_all(&asked).await.map_err(|error| error.to_string()) };
        let read = async { recv.read_exact(&mut answers).await.map_err(|error| error.to_string()) };
        tokio::try_join!(sent, read).map(|_| answers)
    });
    let answer =
        answer.unwrap_or_else(|end| panic!("{end}; slow: {}", world.server.peers.stats().slow_senders));
    assert!(answer.ends_with(&frame(REPLY, b"client/eve")), "{answer:?}");
}

/// How many of these bytes the other side lets be sent within a moment.
async fn taken(send: &mut SendStream, bytes: &[u8]) -> usize {
    let mut count = 0;
    let patience = Duration::from_millis(500);
    while let Ok(Ok(more)) = tokio::time::timeout(patience, send.write(&bytes[count..])).await {
        count += more;
        if count == bytes.len() {
            break;
        }
    }
    count
}

/// A window that was given to one large request is no room for the next, which waits for its own with little on the way.
#[test]
fn a_large_request_leaves_no_window_behind() {
    let world = World::new(|plan| {
        plan.limits.request_patience = Duration::from_secs(60);
        plan.limits.large_requests = plan.limits.request_frame + frame(REQUEST, b"").len();
    });
    let large = frame(REQUEST, &[b"hold".as_slice(), &vec![b'x'; 1_500_000]].concat());
    let (hello, question) = (frame(HELLO, b"hi"), frame(REQUEST, b"who am i"));
    let answer = frame(REPLY, b"client/eve");
    let (greedy, other) =
        (world.knock(Some("eve"), CLIENT).unwrap(), world.knock(Some("eve"), CLIENT).unwrap());
    world.runtime.block_on(async {
        let (mut send, mut recv) = greedy.open_bi().await.unwrap();
        send.write_all(&[&hello[..], &large, &question].concat()).await.unwrap();
        let mut answers = vec![0; hello.len() + answer.len()];
        recv.read_exact(&mut answers).await.unwrap();
        assert!(answers.ends_with(&answer));

        let (mut begun, mut heard) = other.open_bi().await.unwrap();
        begun.write_all(&[&hello[..], &large[..large.len() - 1]].concat()).await.unwrap();
        let taken = taken(&mut send, &large).await;
        assert!((50_000..200_000).contains(&taken), "{taken} bytes of a request that has no room");

        // Once there is room it goes on to its end.
        begun.write_all(&large[large.len() - 1..]).await.unwrap();
        send.write_all(&[&large[taken..], &question].concat()).await.unwrap();
        recv.read_exact(&mut answers[hello.len()..]).await.unwrap();
        assert!(answers.ends_with(&answer));
        assert!(heard.read(&mut [0; 64]).await.unwrap().is_some());
    });
}

/// A byte now and then is not enough, though it is never silent for long.
#[test]
fn a_dribbled_request_costs_the_connection() {
    let world = World::new(|plan| {
        plan.limits.request_patience = Duration::from_millis(500);
        plan.limits.request_pace = 10_000;
    });
    let connection = world.knock(Some("eve"), CLIENT).unwrap();
    let end = world.runtime.block_on(async {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame(HELLO, b"hi")).await.unwrap();
        let dribble = async {
            for byte in frame(REQUEST, &[b'x'; 9_000]).chunks(1) {
                if send.write_all(byte).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::join!(dribble, tokio::time::timeout(PATIENCE, connection.closed())).1
    });
    let end = end.expect("it is closed").to_string();
    assert!(says(&end, "9000 bytes came too slowly"), "{end}");
}

/// A sender may give up, so an offer that is cut or stalls costs no connection; but it is counted, however often.
#[test]
fn an_offer_that_breaks_off_is_counted() {
    let world = World::new(|plan| plan.limits.snapshot_stall = Duration::from_millis(300));
    let connection = world.knock(Some("n1"), PEER).unwrap();
    world.say(&connection, &[frame(HELLO, b"hi"), frame(HELLO, b"")].concat());
    world.server.connected();
    let offer = frame(SNAPSHOT_OFFER, &[&100_u64.to_le_bytes()[..], b"index 7"].concat());
    let refused = || world.server.peers.stats().snapshots_refused;
    world.say_all(&connection, &offer[..20]);
    eventually("one that is cut", || refused() == 1);
    world.say(&connection, &offer[..20]);
    eventually("one that stalls", || refused() == 2);
    world.say_all(&connection, b"");
    eventually("one that never began", || refused() == 3);
    assert!(connection.close_reason().is_none(), "{:?}", connection.close_reason());
    assert_eq!(world.server.peers.stats().malformed, 0);
}

/// What a member says where a snapshot's offer belongs.
#[test]
fn a_malformed_offer_costs_a_peer_the_connection() {
    let offer = frame(SNAPSHOT_OFFER, &[&100_u64.to_le_bytes()[..], b"index 7"].concat());
    let mut flipped = offer.clone();
    flipped[20] ^= 1;
    let mut huge = offer.clone();
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases = [
        ("checksum", flipped),
        ("4294967295 bytes", huge),
        ("offer without a length", frame(SNAPSHOT_OFFER, b"short")),
        ("kind", frame(KIND, b"vote")),
    ];
    for (words, bytes) in cases {
        let world = World::new(|_| {});
        let connection = world.knock(Some("n1"), PEER).unwrap();
        world.say(&connection, &[frame(HELLO, b"hi"), frame(HELLO, b"")].concat());
        world.server.connected();
        world.say_all(&connection, &bytes);
        let end = world.end(&connection);
        assert!(says(&end, words), "{words}: {end}");
        eventually("it is counted", || world.server.peers.stats().malformed == 1);
    }
}

#[test]
fn noise_on_the_port_changes_nothing() {
    let world = World::new(|_| {});
    let socket = std::net::UdpSocket::bind(any_port()).unwrap();
    // Bytes without a pattern, some shaped like first packets of QUIC, of every length.
    let mut state = 7_u64;
    for length in 0..1300_usize {
        let mut packet: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        if let Some(first) = packet.get_mut(..5) {
            first.copy_from_slice(&[0xc0 | (length as u8 & 0x3f), 0, 0, 0, 1]);
        }
        socket.send_to(&packet, world.server.addr).unwrap();
    }
    assert!(world.knock(Some("eve"), CLIENT).is_ok());
    assert!(world.server.dead.try_recv().is_err());
}

#[test]
fn a_certificate_counts_in_its_time_only() {
    let world = World::new(|_| {});
    let cluster = Identity::load(&world.dir.path().join("n1")).unwrap().cluster();
    let dated = |from, to| {
        bare::dated(&world.dir.path().join("ca"), &format!("raftmap://{cluster}/client/eve"), (from, to))
    };
    let knock = |from, to| {
        let config = bare::quic(bare::tls(&world.dir.path().join("ca"), dated(from, to), CLIENT));
        world.runtime.block_on(bare::knock(config, world.server.addr))
    };
    // Alert 45 is "certificate expired", and stands for "not yet valid" as well.
    for (count, (from, to)) in (1..).zip([(1990, 2000), (2990, 3000)]) {
        let end = knock(from, to).map_or_else(|error| error.to_string(), |connection| world.end(&connection));
        assert!(says(&end, "error 45"), "{from} to {to}: {end}");
        eventually("it is counted", || world.server.peers.stats().refused == count);
    }
    let sound = knock(1990, 3000);
    assert!(sound.is_ok(), "{sound:?}");
}

/// With a ticket of an earlier connection a client could send requests before the handshake, and whoever records its
/// first packets could send them again.
#[test]
fn nothing_is_said_before_the_handshake_is_over() {
    let world = World::new(|_| {});
    let config = bare::quic(world.tls(Some("eve"), CLIENT));
    let endpoint = world.runtime.block_on(async { Endpoint::client(any_port()).unwrap() });
    for _ in 0..2 {
        let early = world.runtime.block_on(async {
            let connecting =
                endpoint.connect_with(config.clone(), world.server.addr, identity::SERVER_NAME).unwrap();
            match connecting.into_0rtt() {
                Ok(_) => true,
                Err(connecting) => {
                    let connection = connecting.await.unwrap();
                    // Long enough for a ticket to arrive, if one were sent.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    connection.close(0_u32.into(), b"");
                    false
                }
            }
        });
        assert!(!early, "the server handed out a ticket and takes early data");
    }
}

/// A connection stays where it was made: whoever shows up from another address with its packets is not answered there.
#[test]
fn a_connection_does_not_move() {
    let world = World::new(|plan| plan.limits.idle = 2 * plan.limits.keep_alive);
    let config = bare::quic(world.tls(Some("eve"), CLIENT));
    let closed = world.runtime.block_on(async {
        let endpoint = Endpoint::client(any_port()).unwrap();
        let connection = endpoint.connect_with(config, world.server.addr, identity::SERVER_NAME).unwrap();
        let connection = connection.await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame(HELLO, b"hi")).await.unwrap();
        let mut answer = [0; 16];
        recv.read_exact(&mut answer).await.unwrap();
        endpoint.rebind(UdpSocket::bind(any_port()).unwrap()).unwrap();
        send.write_all(&frame(REQUEST, b"from elsewhere")).await.unwrap();
        tokio::time::timeout(PATIENCE, connection.closed()).await
    });
    let end = closed.expect("the server hears nothing more of it").to_string();
    assert!(end == "timed out" || end == "reset by peer", "{end}");
}

/// A middleman in front of the server, who sends every packet of the client twice: once more at the end, all together,
/// from an address of his own too.
#[test]
fn packets_that_are_played_again_do_nothing() {
    let world = World::new(|_| {});
    let server = world.server.addr;
    let (front, back) = (UdpSocket::bind(any_port()).unwrap(), UdpSocket::bind(any_port()).unwrap());
    let middle = front.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    for socket in [&front, &back] {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    }
    let middleman = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let (mut kept, mut client, mut buffer) = (Vec::new(), None, vec![0; 65_536]);
            while !stop.load(Ordering::SeqCst) {
                if let Ok((length, from)) = front.recv_from(&mut buffer) {
                    client = Some(from);
                    kept.push(buffer[..length].to_vec());
                    back.send_to(&buffer[..length], server).unwrap();
                    back.send_to(&buffer[..length], server).unwrap();
                }
                if let (Ok(length), Some(client)) = (back.recv(&mut buffer), client) {
                    let _ = front.send_to(&buffer[..length], client);
                }
            }
            let elsewhere = UdpSocket::bind(any_port()).unwrap();
            for packet in &kept {
                back.send_to(packet, server).unwrap();
                elsewhere.send_to(packet, server).unwrap();
            }
            kept.len()
        }
    });
    let eve = Identity::load(&world.dir.path().join("eve")).unwrap();
    let (connection, heard) = connect(&world.runtime, eve, middle).unwrap();
    for number in 0..50 {
        let words = Bytes::from(format!("request {number}"));
        connection.send(std::slice::from_ref(&words)).unwrap();
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Heard::Reply(words), "once, in order");
    }
    stop.store(true, Ordering::SeqCst);
    let packets = middleman.join().unwrap();
    assert!(packets >= 50, "only {packets} packets went through the middle");
    assert!(heard.recv_timeout(Duration::from_millis(300)).is_err(), "a packet counted twice");
    assert_eq!(world.server.peers.stats().client_connections, 1);
    assert!(world.knock(Some("eve"), CLIENT).is_ok());
    assert!(world.server.dead.try_recv().is_err());
}
