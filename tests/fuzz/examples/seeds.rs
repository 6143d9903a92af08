//! Writes the inputs to begin with, made by the real encoders: `cargo run -p raftmap-fuzz-targets --example seeds`. The
//! corpora hold besides what fuzzing has found.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use raftmap::kv::{
    Command, Keys, Limits, LogTime, Owner, Page, Pair, Proposal, Reply, Request, Scan, SessionId, Versioned,
};
use raftmap::raft::{AppendOutcome, Body, Message, entry};
use raftmap::wire::client::{
    Answer, Ask, ClientHello, Query, Refusal, Response, ServerHello, encode_request, encode_response,
};
use raftmap::wire::hello::Hello;
use raftmap::wire::peer::{self, Announcement};
use raftmap_net::frame::header;
use raftmap_storage::fs::Fs;
use raftmap_storage::model::ModelFs;
use raftmap_storage::snapshot::{Header, Writer, file_name};
use raftmap_storage::types::{
    ClusterId, DiskId, Entry, Index, Membership, NodeId, Position, SnapshotId, Term,
};

fn main() {
    frames();
    messages();
    answers();
    snapshots();
    config();
    certificates();
    ["wal_ops", "raft_step", "session_table"].into_iter().for_each(noise);
}

fn save(target: &str, name: &str, parts: &[&[u8]]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), parts.concat()).unwrap();
}

/// Targets that read any bytes as steps begin with bytes of no meaning.
fn noise(target: &str) {
    let mut state = 7_u64;
    for number in 0..12 {
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..20 << (number % 6)).map(|_| byte()).collect();
        save(target, &format!("noise_{number:02}"), &[&bytes]);
    }
}

fn framed(kind: u8, payload: &'static [u8]) -> Vec<u8> {
    let payload = Bytes::from_static(payload);
    [&header(kind, std::slice::from_ref(&payload)).unwrap()[..], &payload].concat()
}

/// Piece, limit (2), stream.
fn frames() {
    let (one, empty) = (framed(16, b"one"), framed(17, b""));
    let mut flipped = one.clone();
    flipped[17] ^= 4;
    let mut long = one.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let streams = [
        ("one", one.clone()),
        ("two", [&one[..], &empty].concat()),
        ("many", [one.clone(), empty.clone(), one.clone(), framed(19, &[7; 300])].concat()),
        ("cut", one[..17].to_vec()),
        ("half_header", one[..9].to_vec()),
        ("flipped", flipped),
        ("long", long),
        ("wrong_kind", framed(1, b"hello")),
        ("over_the_limit", framed(16, &[7; 2000])),
        ("behind", [&one[..], b"x"].concat()),
    ];
    streams.iter().for_each(|(name, stream)| save("frame", name, &[&[3, 0, 4], stream]));
}

/// Kind, then its bytes.
fn messages() {
    let entries = vec![
        Entry::new(Position::new(8, 2), entry::command(b"old")),
        Entry::new(Position::new(9, 3), entry::no_op()),
    ];
    let (matched, last) = (Index(9), Index(5));
    let rejected =
        AppendOutcome::Rejected { number: 1, prev: Index(7), last, conflict: Some(Position::new(4, 1)) };
    let bodies = [
        ("pre_vote", Body::PreVote { last: Position::new(9, 2) }),
        ("pre_vote_reply", Body::PreVoteReply { granted: true }),
        ("vote", Body::Vote { last: Position::new(900, 70_000), transfer: true }),
        ("vote_reply", Body::VoteReply { granted: false }),
        ("append", Body::Append { number: 1, prev: Position::new(7, 2), commit: Index(6), entries }),
        ("probe", Body::Append { number: 1, prev: Position::new(7, 2), commit: Index(6), entries: vec![] }),
        ("accepted", Body::AppendReply(AppendOutcome::Accepted { matched, full: true })),
        ("rejected", Body::AppendReply(rejected)),
        ("heartbeat", Body::Heartbeat { commit: Index(300), round: 70_000 }),
        ("heartbeat_reply", Body::HeartbeatReply { round: 1 << 40, stuck: true }),
        ("timeout_now", Body::TimeoutNow),
    ];
    for (name, body) in bodies {
        let bytes = peer::encode(&Message { term: Term(3), body }).unwrap().unwrap();
        save("message", name, &[&[0], &bytes]);
    }
    let membership = Membership { voters: (1..=3).map(NodeId).collect() };
    let snapshot = SnapshotId { position: Position::new(8, 2), length: 1000, digest: [9; 32] };
    let announcement = Announcement { term: Term(3), snapshot, membership: membership.clone() };
    save("message", "announcement", &[&[1], &announcement.encode().unwrap()]);
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: 0,
        cluster: ClusterId([1; 16]),
        node: NodeId(2),
        disk: DiskId([2; 16]),
        boot: 300,
        group: 0,
        bootstrap: [3; 32],
        terms: "nodes 1 2 3".into(),
    };
    save("message", "hello", &[&[2], &hello.encode().unwrap()]);
    save("message", "client_hello", &[&[3], &ClientHello::OURS.encode().unwrap()]);
    save("message", "server_hello", &[&[4], &ServerHello { protocol: 1, node: NodeId(7) }.encode().unwrap()]);
    save("message", "limits", &[&[7], &Limits::default().encode().unwrap()]);
    let limits = Bytes::from(Limits::default().encode().unwrap());
    let bootstrap = entry::Bootstrap { cluster: ClusterId([1; 16]), voters: membership.voters, limits };
    save("message", "bootstrap", &[&[8], &bootstrap.encode().unwrap()]);
    (0..8_u8).for_each(|seed| {
        save("message", &format!("made_{seed}"), &[&[200, seed * 30, seed * 31, 70, 90, 3, 200, 9]])
    });
}

fn answers() {
    let (key, value) = (Bytes::from_static(b"colour"), Bytes::from_static(b"green"));
    let (session, sequence, acked_below) = (SessionId(300), 7, 5);
    let command = Command::CompareAndPut { key: key.clone(), version: 70_000, value: value.clone() };
    let scan =
        Scan { keys: Keys::Range { start: key.clone(), end: Some(value.clone()) }, after: None, limit: 9 };
    let asks = [
        ("open", Ask::Open),
        ("write", Ask::Write { session, sequence, acked_below, command: command.clone() }),
        ("get", Ask::Read(Query::Get { key: key.clone() })),
        ("scan", Ask::Stale(Query::Scan(scan))),
        ("status", Ask::Status),
    ];
    for (name, body) in asks {
        let request = raftmap::wire::client::Request { id: 5, body };
        save("message", &format!("ask_{name}"), &[&[5], &encode_request(&request).unwrap()]);
    }
    let pairs = vec![Pair { key, value: value.clone(), version: 9 }; 3];
    let index = Index(70_000);
    let leader: SocketAddr = "127.0.0.1:7001".parse().unwrap();
    let answers = [
        ("written", Ok(Answer::Written { index, reply: Reply::Append { version: 9, length: 300 } })),
        ("got", Ok(Answer::Got { index, found: Some(Versioned { value, version: 9 }) })),
        ("page", Ok(Answer::Page { index, page: Page { pairs, more: true } })),
        ("digest", Ok(Answer::Digest { applied: index, digest: [7; 32] })),
        ("not_leader", Err(Refusal::NotLeader { leader: Some((NodeId(2), leader)) })),
        ("too_large", Err(Refusal::TooLarge { what: "key of 9 bytes".into() })),
    ];
    for (name, body) in answers {
        save(
            "message",
            &format!("answer_{name}"),
            &[&[6], &encode_response(&Response { id: 5, body }).unwrap()],
        );
    }
    let owner = Owner([3; 16]);
    let request = Request::Execute { owner, session, sequence, acked_below, command };
    let mut proposal = Vec::new();
    Proposal { at: LogTime(1000), request }.encode_into(&mut proposal, &Limits::default()).unwrap();
    save("message", "proposal", &[&[9], &proposal]);
}

fn snapshots() {
    let (fs, dir) = (ModelFs::new(1), Path::new("/data"));
    fs.create_dir_all(dir).unwrap();
    let membership = Membership { voters: (1..=3).map(NodeId).collect() };
    let header = Header { position: Position::new(8, 2), cluster: ClusterId([7; 16]), membership };
    let mut writer = Writer::create(fs.clone(), dir, header).unwrap();
    writer.write(b"some content").unwrap();
    let _id = writer.publish().unwrap();
    let file = fs.peek(&dir.join(file_name(Position::new(8, 2)))).unwrap();
    save("snapshot", "file", &[&[0], &file]);
    save("snapshot", "file_cut", &[&[0], &file[..file.len() - 9]]);
    for number in 0..8_u8 {
        save(
            "snapshot",
            &format!("edited_{number}"),
            &[&[1, number, number, 30 * number, 0, number, 1, 70, 0, 9, 2]],
        );
        save(
            "snapshot",
            &format!("received_{number}"),
            &[&[2, number, 9, 20 * number, 0, number % 3, 80, 0, 7, 0]],
        );
        save(
            "snapshot",
            &format!("content_{number}"),
            &[&[3, 10 * number, 0, number, 20 * number, 0, number, 1]],
        );
    }
}

/// What it is, then its bytes.
fn config() {
    for (number, text) in ["64MiB", "17179869183GiB", "never", "4096", "1.5GiB"].iter().enumerate() {
        save("config", &format!("size_{number}"), &[&[0], text.as_bytes()]);
    }
    for (number, text) in ["500ms", "8760h", "2s", "5"].iter().enumerate() {
        save("config", &format!("duration_{number}"), &[&[1], text.as_bytes()]);
    }
    let lists =
        ["1=127.0.0.1:7001", "1=127.0.0.1:7001,2=[::1]:7002", "1=127.0.0.1:1,1=127.0.0.1:2", "0=1.2.3.4:5"];
    for (number, text) in lists.iter().enumerate() {
        save("config", &format!("members_{number}"), &[&[2], text.as_bytes()]);
    }
    let names = ["node/1", "client/alice", "node/007"];
    for (number, role) in names.iter().enumerate() {
        let text = format!("raftmap://00112233445566778899aabbccddeeff/{role}");
        save("config", &format!("name_{number}"), &[&[4], text.as_bytes()]);
    }
    save(
        "config",
        "settings",
        &[
            &[3, 1, 248],
            &50_u64.to_be_bytes(),
            &[248],
            &250_u64.to_be_bytes(),
            &[248],
            &500_u64.to_be_bytes(),
        ],
    );
    (0..6_u8).for_each(|seed| {
        save(
            "config",
            &format!("hello_{seed}"),
            &[&[7, 1, 1, 0, 7, 2, 9, 1, 0, 3], &[b'n'; 20], &[2, 1, seed, 3]],
        )
    });
}

fn certificates() {
    let cluster = "00112233445566778899aabbccddeeff";
    let (node, client) = (format!("raftmap://{cluster}/node/1"), format!("raftmap://{cluster}/client/eve"));
    let other = "https://example.org/node/1".to_owned();
    let cases: [(&str, &[&String]); 5] = [
        ("node", &[&node]),
        ("client", &[&client]),
        ("two_names", &[&node, &client]),
        ("foreign", &[&other]),
        ("nameless", &[]),
    ];
    for (name, uris) in cases {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names =
            uris.iter().map(|uri| rcgen::SanType::URI(uri.as_str().try_into().unwrap())).collect();
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        save("config", &format!("certificate_{name}"), &[&[5], certificate.der()]);
    }
}
