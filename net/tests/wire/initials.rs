//! First packets that nobody of sound mind sends, sealed with the keys that fit them (RFC 9001, 5.2: anybody can), so that what
//! is in them comes to the parsers of QUIC and TLS.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use raftmap_net::identity;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{ClientConnection, Suite, Version};

use crate::bare::CLIENT;
use crate::hostile::World;
use crate::support::{PATIENCE, eventually};

/// Least size of a datagram that begins a connection (RFC 9000, 14.1).
const DATAGRAM: usize = 1_200;
const PADDING: u8 = 0;

fn suite() -> Suite {
    TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite()).expect("it is one of QUIC's")
}

/// A number as QUIC spells it, in eight bytes.
fn varint(number: u64) -> [u8; 8] {
    (number | 3 << 62).to_be_bytes()
}

/// A first packet of a new client with these frames in it.
fn packet(frames: &[u8]) -> Vec<u8> {
    const NUMBER: [u8; 4] = [0; 4];
    static CLIENTS: AtomicU64 = AtomicU64::new(0);
    // The connection id that keys come from: to the server, each is somebody else.
    let id = CLIENTS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let keys = suite().keys(&id, Side::Client, Version::V1);
    let mut header = vec![0xc3, 0, 0, 0, 1, id.len() as u8];
    header.extend(id);
    // Our id and a token: none.
    header.extend([0, 0]);
    let tag = keys.local.packet.tag_len();
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(DATAGRAM - header.len() - 2 - NUMBER.len() - tag), PADDING);
    let length = (NUMBER.len() + payload.len() + tag) as u16;
    header.extend((length | 1 << 14).to_be_bytes());
    let number = header.len();
    header.extend(NUMBER);
    let sealed = keys.local.packet.encrypt_in_place(0, &header, &mut payload).expect("short enough");
    let mut packet = [header, payload, sealed.as_ref().to_vec()].concat();
    let (front, sample) = packet.split_at_mut(number + NUMBER.len());
    let (first, rest) = front.split_first_mut().expect("a header");
    let sample = &sample[..keys.local.header.sample_len()];
    keys.local.header.encrypt_in_place(sample, first, &mut rest[number - 1..]).expect("long enough");
    packet
}

/// A CRYPTO frame.
fn crypto(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&[6], &varint(offset)[..], &varint(bytes.len() as u64), bytes].concat()
}

/// One transport parameter.
fn parameter(id: u64, value: &[u8]) -> Vec<u8> {
    [&varint(id)[..], &varint(value.len() as u64), value].concat()
}

/// What a client must say: the id that it chose, which is empty.
fn parameters() -> Vec<u8> {
    parameter(0x0f, &[])
}

/// A client's first words, with these transport parameters.
fn client_hello(world: &World, parameters: Vec<u8>) -> Vec<u8> {
    let config = Arc::new(world.tls(Some("eve"), CLIENT));
    let name = identity::SERVER_NAME.try_into().expect("a name");
    let mut client = ClientConnection::new(config, Version::V1, name, parameters).expect("sound");
    let mut hello = Vec::new();
    client.write_hs(&mut hello);
    hello
}

/// Sends it from an address of its own; whether anything comes back within a second.
fn is_answered(target: SocketAddr, packet: &[u8]) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("an address");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("settable");
    socket.send_to(packet, target).expect("sent");
    socket.recv(&mut [0; 2_048]).is_ok()
}

fn send(target: SocketAddr, packets: &[Vec<u8>]) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("an address");
    for packet in packets {
        let _full_or_not = socket.send_to(packet, target);
    }
}

/// Transport parameters that contradict RFC 9000, section 18.
fn malformed_parameters() -> Vec<Vec<u8>> {
    let with = |more: Vec<u8>| [parameters(), more].concat();
    vec![
        with(parameter(0x0f, &[])),                    // twice
        parameter(0x0f, &[7; 21]),                     // longer than an id can be
        parameter(0x0f, b"another"),                   // not the one in the packet
        with(parameter(0x03, &varint(1_199))),         // payloads below the least
        with(parameter(0x0a, &varint(21))),            // an exponent too large
        with(parameter(0x0b, &varint(1 << 14))),       // a delay too long
        with(parameter(0x0e, &varint(1))),             // fewer than two ids
        with(parameter(0x08, &varint((1 << 60) + 1))), // more streams than there are
        with(parameter(0x01, &[0x80, 1])),             // half a number
        with(parameter(0x04, &[])),                    // no number
        with(parameter(0x00, b"whatever")),            // what only a server says
        with(parameter(0x02, &[0; 16])),
        with(parameter(0x0d, &[1; 8])),
        with(varint(0x05).to_vec()),                          // cut
        with([&varint(0x05)[..], &varint(1 << 61)].concat()), // longer than all there is
    ]
}

/// Whoever sends under somebody else's address has the answer sent there, so there must be little of it: three times as much as
/// came (RFC 9000, 8.1), repeated or not, and the goodbye, which quinn does not count.
#[test]
fn first_packets_are_answered_with_little() {
    const GOODBYE: usize = 64;
    let world = World::new(|plan| plan.limits.handshakes = 4_096);
    let hello = client_hello(&world, parameters());
    // All at once, each from an address that never says anything again.
    let sockets: Vec<UdpSocket> = (0..40)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("an address");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("settable");
            socket.send_to(&packet(&crypto(0, &hello)), world.server.addr).expect("sent");
            socket
        })
        .collect();
    eventually("they are given up", || world.server.peers.stats().refused >= sockets.len() as u64);
    let mut answer = [0; 2_048];
    let answers =
        sockets.iter().map(|socket| std::iter::from_fn(|| socket.recv(&mut answer).ok()).sum::<usize>());
    let answers: Vec<usize> = answers.collect();
    assert!(answers.iter().all(|bytes| (1..=3 * DATAGRAM + GOODBYE).contains(bytes)), "{answers:?}");
}

#[test]
fn malformed_transport_parameters_are_refused() {
    // Longer than it takes to be counted for one's words: what is only given up in its time is not counted here.
    let world = World::new(|plan| (plan.limits.handshakes, plan.limits.handshake) = (4_096, PATIENCE * 3));
    let target = world.server.addr;
    let hello = |parameters| packet(&crypto(0, &client_hello(&world, parameters)));
    assert!(is_answered(target, &hello(parameters())), "a sound one is heard");
    let refused = || world.server.peers.stats().refused;
    assert_eq!(refused(), 0, "nobody goes on with the sound one, and it has its time");
    for (number, parameters) in (1..).zip(malformed_parameters()) {
        assert!(is_answered(target, &hello(parameters.clone())), "{parameters:02x?} is not answered");
        eventually("it is counted", || refused() == number);
    }
    assert!(world.knock(Some("eve"), CLIENT).is_ok());
    assert!(world.server.dead.try_recv().is_err(), "a panic");
}

/// Frames that have no place in a first packet, or contradict themselves.
fn malformed_frames(hello: &[u8]) -> Vec<Vec<u8>> {
    let most = (1 << 62) - 1;
    let (front, back) = hello.split_at(hello.len() / 2);
    let acknowledge = |largest, delay, ranges, first| {
        [&[2][..], &varint(largest), &varint(delay), &varint(ranges), &varint(first)].concat()
    };
    let mut frames = vec![
        Vec::new(), // padding alone
        vec![1],    // a ping
        crypto(0, b""),
        crypto(1, hello), // behind a gap
        crypto(most, b"x"),
        crypto(most - 16, &[7; 32]),
        crypto(16 * 1_024, b"x"),                          // beyond what is kept
        [crypto(0, hello), crypto(10, &[9; 64])].concat(), // twice, and not the same
        [crypto(front.len() as u64, back), crypto(0, front)].concat(),
        [&[6][..], &varint(0), &varint(most), b"x"].concat(), // longer than the packet
        vec![6, 0],                                           // cut
        acknowledge(most, 0, 0, 0),                           // of what was never sent
        acknowledge(5, most, most, 6),
        [&[8][..], &varint(0), b"a stream's"].concat(),
        [&[0x1c][..], &varint(1), &varint(0), &varint(most)].concat(), // an end with a long reason
        vec![0x1e],                                                    // the handshake is done
        vec![0x3f, 0xff, 0xff, 0xff],
        vec![0xff; 1_000],
    ];
    // Pieces with gaps between them, the last one first, each a byte.
    frames.push((0..90).rev().flat_map(|at| crypto(at * 170, &[at as u8])).collect());
    frames
}

#[test]
fn malformed_first_packets_change_nothing() {
    let world = World::new(|plan| plan.limits.handshakes = 4_096);
    let target = world.server.addr;
    let hello = client_hello(&world, parameters());
    assert!(is_answered(target, &packet(&crypto(0, &hello))), "a sound one is heard");
    let sound = packet(&crypto(0, &hello));
    let mut packets: Vec<Vec<u8>> = malformed_frames(&hello).iter().map(|frames| packet(frames)).collect();
    // Each byte of a client's first words, wrong in its turn, and each shorter word.
    for at in 0..hello.len() {
        let mut wrong = hello.clone();
        wrong[at] ^= 1 << (at % 8);
        packets.push(packet(&crypto(0, &wrong)));
        packets.push(packet(&crypto(0, &hello[..at])));
    }
    // Lengths in the header that are not so, which is seen before anything is opened.
    for at in [5, 14, 15, 16, 17] {
        for byte in [0, 1, 20, 21, 0x3f, 0x7f, 0xff] {
            let mut wrong = sound.clone();
            wrong[at] = byte;
            packets.push(wrong);
        }
    }
    let refused = || world.server.peers.stats().refused;
    let before = refused();
    for some in packets.chunks(50) {
        send(target, some);
        std::thread::sleep(Duration::from_millis(20));
    }
    // Words that are wrong are refused; words that are cut are waited for, and given up. A full socket may lose some.
    let least = before + 2 * hello.len() as u64 * 19 / 20;
    eventually("they are heard, and counted", || refused() >= least);
    assert!(world.knock(Some("eve"), CLIENT).is_ok());
    assert!(world.server.dead.try_recv().is_err(), "a panic");
}
