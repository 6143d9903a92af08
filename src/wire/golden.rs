//! Bytes that this version writes and that every later one must still read. A change here is a change of the protocol.

use bytes::Bytes;
use raftmap_storage::types::{
    ClusterId, DiskId, Entry, Index, Membership, NodeId, Position, SnapshotId, Term,
};

use super::WireError;
use super::client::{
    Answer, Ask, NodeStatus, Query, Refusal, Request, Response, decode_request, decode_response,
    encode_request, encode_response,
};
use super::hello::Hello;
use super::peer::{self, Announcement};
use crate::kv::{Command, Keys, Page, Pair, Reply, Scan, SessionId, Versioned};
use crate::raft::{AppendOutcome, Body, Message};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn check_message(body: Body, golden: &str) {
    let message = Message { term: Term(3), body };
    let bytes = peer::encode(&message).expect("encodes").expect("is sent between members");
    assert_eq!(hex(&bytes), golden);
    assert_eq!(peer::decode(&bytes), Ok(message));
    for cut in 0..bytes.len() {
        assert!(peer::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(peer::decode(&longer.into()).is_err(), "a byte too many");
}

#[track_caller]
fn check_request(body: Ask, golden: &str) {
    let request = Request { id: 5, body };
    let bytes = encode_request(&request).expect("encodes");
    assert_eq!(hex(&bytes), golden);
    assert_eq!(decode_request(&bytes), Ok(request));
    for cut in 0..bytes.len() {
        assert!(decode_request(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[track_caller]
fn check_response(body: Result<Answer, Refusal>, golden: &str) {
    let response = Response { id: 5, body };
    let bytes = encode_response(&response).expect("encodes");
    assert_eq!(hex(&bytes), golden);
    assert_eq!(decode_response(&bytes), Ok(response));
    for cut in 0..bytes.len() {
        assert!(decode_response(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

fn append() -> Body {
    let entries = vec![
        Entry::new(Position::new(8, 2), Bytes::from_static(b"old")),
        Entry::new(Position::new(9, 3), Bytes::from_static(b"")),
    ];
    Body::Append { number: 4, prev: Position::new(7, 2), commit: Index(6), entries }
}

#[test]
fn messages() {
    check_message(Body::PreVote { last: Position::new(9, 2) }, "0400000003000902");
    check_message(Body::PreVoteReply { granted: true }, "03000000030101");
    check_message(Body::Vote { last: Position::new(9, 2), transfer: false }, "050000000302090200");
    check_message(Body::VoteReply { granted: false }, "03000000030300");
    check_message(append(), "150000000304040702060202fcdc60d94b0303fc68424fbf006f6c64");
    check_message(
        Body::AppendReply(AppendOutcome::Accepted { matched: Index(9), full: false }),
        "0400000003050900",
    );
    let conflict = Some(Position::new(4, 1));
    let rejected = AppendOutcome::Rejected { number: 4, prev: Index(7), last: Index(5), conflict };
    check_message(Body::AppendReply(rejected), "080000000306040705010401");
    check_message(Body::Heartbeat { commit: Index(300), round: 70_000 }, "0a0000000307fb2c01fc70110100");
    check_message(Body::HeartbeatReply { round: 70_000, stuck: true }, "080000000308fc7011010001");
    check_message(Body::TimeoutNow, "020000000309");
}

#[test]
fn an_entry_that_was_damaged_on_the_way_is_refused() {
    let bytes = peer::encode(&Message { term: Term(3), body: append() }).expect("encodes").expect("is sent");
    let mut damaged = bytes.to_vec();
    let at = damaged.len() - 1;
    damaged[at] ^= 1;
    assert_eq!(peer::decode(&damaged.into()), Err(WireError::DamagedEntry { index: 8 }));
}

#[test]
fn what_stays_in_a_node_is_not_sent() {
    let snapshot = SnapshotId { position: Position::new(1, 1), length: 1, digest: [0; 32] };
    let body = Body::InstallSnapshot { snapshot, membership: Membership::default() };
    assert_eq!(peer::encode(&Message { term: Term(1), body }), Ok(None));
}

#[test]
fn hello_and_announcement() {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: 0,
        cluster: ClusterId([1; 16]),
        node: NodeId(2),
        disk: DiskId([3; 16]),
        boot: 4,
        group: 0,
        bootstrap: [5; 32],
        terms: "nodes 1".into(),
    };
    let bytes = hello.encode().expect("encodes");
    assert_eq!(
        hex(&bytes),
        "01010001010101010101010101010101010101020303030303030303030303030303030304000505050505050505050505050505050505050505050505050505050505050505076e6f6465732031"
    );
    assert_eq!(Hello::decode(&bytes), Ok(hello));
    let announcement = Announcement {
        term: Term(3),
        snapshot: SnapshotId { position: Position::new(9, 2), length: 1_000, digest: [6; 32] },
        membership: Membership { voters: [NodeId(1), NodeId(2)].into() },
    };
    let bytes = announcement.encode().expect("encodes");
    assert_eq!(
        hex(&bytes),
        "030902fbe8030606060606060606060606060606060606060606060606060606060606060606020102"
    );
    assert_eq!(Announcement::decode(&bytes), Ok(announcement));
}

#[test]
fn requests() {
    check_request(Ask::Open, "0500");
    check_request(Ask::Close { session: SessionId(7) }, "050107");
    let command = Command::Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
    let write = Ask::Write { session: SessionId(7), sequence: 2, acked_below: 1, command };
    check_request(write, "050207020100016b0176");
    check_request(Ask::Read(Query::Get { key: Bytes::from_static(b"k") }), "050300016b");
    let scan = Scan { keys: Keys::Prefix(Bytes::from_static(b"k")), after: None, limit: 10 };
    check_request(Ask::Stale(Query::Scan(scan)), "05040100016b000a");
    check_request(Ask::Read(Query::Len), "050302");
    check_request(Ask::Status, "0505");
    check_request(Ask::Digest, "0506");
}

#[test]
fn responses() {
    let index = Index(9);
    check_response(Ok(Answer::Opened { session: SessionId(7) }), "05000007");
    check_response(Ok(Answer::Closed), "050001");
    check_response(Ok(Answer::Written { index, reply: Reply::Put { version: 9 } }), "050002090009");
    let found = Some(Versioned { value: Bytes::from_static(b"v"), version: 8 });
    check_response(Ok(Answer::Got { index, found }), "0500030901017608");
    let pair = Pair { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v"), version: 8 };
    check_response(
        Ok(Answer::Page { index, page: Page { pairs: vec![pair], more: true } }),
        "0500040901016b01760801",
    );
    check_response(Ok(Answer::Len { index, pairs: 3 }), "0500050903");
    check_response(
        Ok(Answer::Status(Box::new(status()))),
        "05000601066c656164657202010103040506070108090a0b0c0d0e0f01",
    );
    check_response(
        Ok(Answer::Digest { applied: index, digest: [7; 32] }),
        "050007090707070707070707070707070707070707070707070707070707070707070707",
    );
    let leader = Some((NodeId(2), ([127, 0, 0, 1], 7002).into()));
    check_response(Err(Refusal::NotLeader { leader }), "0501000102007f000001fb5a1b");
    check_response(Err(Refusal::NotLeader { leader: None }), "05010000");
    check_response(Err(Refusal::Busy), "050101");
    check_response(Err(Refusal::NoSpace), "050102");
    check_response(Err(Refusal::TooLarge { what: "w".into() }), "0501030177");
    check_response(Err(Refusal::SessionExpired), "050104");
    check_response(Err(Refusal::SessionTableFull), "050105");
    check_response(Err(Refusal::BadRequest { what: "w".into() }), "0501060177");
    check_response(Err(Refusal::Lost), "050107");
    check_response(Err(Refusal::Stopping), "050108");
}

fn status() -> NodeStatus {
    NodeStatus {
        id: NodeId(1),
        role: "leader".into(),
        term: Term(2),
        leader: Some(NodeId(1)),
        last: Index(3),
        committed: Index(4),
        applied: Index(5),
        durable: Index(6),
        raft_state_bytes: 7,
        max_raft_state: Some(8),
        disk_bytes: 9,
        snapshot: Index(10),
        fsync_p50_us: 11,
        fsync_p99_us: 12,
        syncs: 13,
        pairs: 14,
        sessions: 15,
        no_space: true,
    }
}
