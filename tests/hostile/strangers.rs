//! Whoever is no member, or no client, and whoever is a client and misbehaves.

use std::net::UdpSocket;
use std::time::Duration;

use quinn::Endpoint;
use raftmap::net::{Authority, ClusterId, Role, identity};

use crate::arena::Arena;
use crate::bare::{self, CLIENT, HELLO, PEER, REQUEST, Shown, frame, says, shown};

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
    arena.under(|| {
        let cases = [
            (None, PEER, "error 116"),
            (None, CLIENT, "error 116"),
            (of_another_authority(&arena), PEER, "error 4"),
            (of_another_cluster(&arena), PEER, "it belongs to cluster 0909"),
            (who("eve"), PEER, "client/eve, a node is needed"),
            (who("n9"), PEER, "node 9 must not dial node 3"),
            (who("n3"), PEER, "node 3 must not dial node 3"),
        ];
        let (before, _, _) = arena.counted(3);
        let count = cases.len() as u64;
        for (shown, alpn, words) in cases {
            let end = refused(&arena, 3, shown, alpn);
            assert!(says(&end, words), "{words}: {end}");
        }
        let (after, _, _) = arena.counted(3);
        assert!(after >= before + count, "{before} refused before, {after} after {count} attempts");
    });
}

#[test]
fn a_flood_of_handshakes_is_turned_away() {
    let arena = Arena::new(&[1, 2, 3]);
    let target = arena.addresses[&arena.leader()];
    arena.under(|| {
        // First packets that nobody follows up, from many addresses, as if they were forged; and rubbish.
        let mut state = 7_u64;
        for _ in 0..200 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..50 {
                let mut packet = [0; 1200];
                packet.iter_mut().for_each(|byte| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    *byte = (state >> 56) as u8;
                });
                let first = 0xc0 | packet[0] & 0x0f;
                packet[..6].copy_from_slice(&[first, 0, 0, 0, 1, 8]);
                packet[14] = 8;
                let _full_or_not = socket.send_to(&packet, target);
            }
        }
        // And real handshakes, many at once, whose client goes away in the middle.
        let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), None, PEER));
        arena.runtime.block_on(async {
            // One endpoint: each takes megabytes for its own buffers.
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            for _ in 0..20 {
                let begun: Vec<_> = (0..30)
                    .map(|_| endpoint.connect_with(config.clone(), target, identity::SERVER_NAME).unwrap())
                    .collect();
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(begun);
            }
        });
    });
}

#[test]
fn silent_streams_hold_nothing_up() {
    let arena = Arena::new(&[1, 2, 3]);
    let target = arena.addresses[&arena.leader()];
    arena.under(|| {
        let shown = || shown(&arena.dir.path().join("eve"));
        arena.runtime.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..60 {
                let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), shown(), CLIENT));
                let Ok(connection) = bare::knock(config, target).await else { continue };
                for _ in 0..4 {
                    let (Ok((mut send, recv)), Ok(mut one_way)) =
                        tokio::join!(connection.open_bi(), connection.open_uni())
                    else {
                        continue;
                    };
                    // The first bytes of a hello, of which the rest never comes.
                    let _ = send.write_all(&frame(HELLO, b"hi")[..9]).await;
                    let _ = one_way.write_all(&[0; 9]).await;
                    kept.push((send, recv, one_way));
                }
            }
            assert!(kept.len() >= 100, "only {} streams were opened", kept.len());
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
    });
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
            let (_, _, before) = arena.counted(leader);
            let shown = shown(&arena.dir.path().join("eve"));
            let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), shown, CLIENT));
            let end = arena.runtime.block_on(async {
                let connection =
                    bare::knock(config, arena.addresses[&leader]).await.expect("eve is a client");
                said(&connection, &[frame(HELLO, &hello), bytes].concat(), words).await
            });
            assert!(end.contains(words) || end.ends_with("reset by peer"), "{words}: {end}");
            let (_, _, after) = arena.counted(leader);
            let costs_the_connection = words != "malformed request";
            assert_eq!(after - before, u64::from(costs_the_connection), "{words}: it is counted");
        }
    });
}
