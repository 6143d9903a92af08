//! A member gone mad: node 1's certificate is sound and its hello is, too, but what it says next no member could mean.
//! Nodes 2 and 3 go on without it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use raftmap::raft::{AppendOutcome, Body, Message};
use raftmap::wire::hello::Hello;
use raftmap::wire::{KIND_RAFT, peer};
use raftmap_storage::snapshot::file_name;
use raftmap_storage::types::{ClusterId, Entry, Index, Membership, NodeId, Position, SnapshotId, Term};

use crate::arena::{Arena, PATIENCE};
use crate::bare::{self, HELLO, PEER, frame, says, shown};

const SNAPSHOT_OFFER: u8 = 4;
const SNAPSHOT_ACCEPT: u8 = 5;
const SNAPSHOT_REFUSE: u8 = 6;

/// A connection of node 1 to node `to`, and its first stream.
struct Mad {
    connection: Connection,
    send: SendStream,
    _recv: RecvStream,
    /// The stream of the log, once the node has opened it.
    log: Option<RecvStream>,
}

/// The next frame's kind and payload; `None` where the stream has ended.
async fn read_frame(recv: &mut RecvStream) -> Option<(u8, Vec<u8>)> {
    let frame = async {
        let mut header = [0; 16];
        recv.read_exact(&mut header).await.ok()?;
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let mut payload = vec![0; length as usize];
        recv.read_exact(&mut payload).await.ok()?;
        Some((header[5], payload))
    };
    tokio::time::timeout(PATIENCE, frame).await.expect("a frame, or the stream's end")
}

/// A connection whose hello nobody has heard yet.
async fn knock(arena: &Arena, to: u64) -> Connection {
    let shown = shown(&arena.dir.path().join("n1"));
    let config = bare::quic(bare::tls(&arena.dir.path().join("ca"), shown, PEER));
    bare::knock(config, arena.addresses[&to]).await.expect("node 1 is a member")
}

/// What node 1 would say first: what the others say, under its own name.
fn hello(arena: &Arena) -> Hello {
    let cluster = raftmap::net::Identity::load(&arena.dir.path().join("n1")).unwrap().cluster();
    let members = (1..=3).map(NodeId).collect();
    let limits = Bytes::from(raftmap::Limits::default().encode().unwrap());
    let bootstrap =
        raftmap::raft::entry::Bootstrap { cluster: ClusterId(cluster.0), voters: members, limits };
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: 0,
        cluster: ClusterId(cluster.0),
        node: NodeId(1),
        disk: Default::default(),
        boot: 1,
        group: 0,
        bootstrap: *blake3::hash(&bootstrap.encode().unwrap()).as_bytes(),
        terms: "members 1, 2, 3".into(),
    }
}

impl Mad {
    async fn new(arena: &Arena, to: u64) -> Self {
        let connection = knock(arena, to).await;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame(HELLO, &hello(arena).encode().unwrap())).await.unwrap();
        let mut header = [0; 16];
        let heard = recv.read_exact(&mut header).await;
        assert!(heard.is_ok(), "node {to} does not answer: {:?}", connection.closed().await);
        send.write_all(&frame(HELLO, b"")).await.unwrap();
        Self { connection, send, _recv: recv, log: None }
    }

    /// Whether the node has heard all that was said to it: it answers a question behind that, on the same stream. `false`
    /// where it has ended the connection. A leader that is over asks whether an entry is there; the answer names the entry,
    /// so `question` must be one that nobody has asked.
    async fn was_heard(&mut self, question: u64) -> bool {
        let prev = Position::new(question, 0);
        let body = Body::Append { number: 1, prev, commit: Index(0), entries: vec![] };
        let bytes = peer::encode(&Message { term: Term(0), body }).unwrap().unwrap();
        let _closed_or_not = self.send.write_all(&frame(KIND_RAFT, &bytes)).await;
        let answered = async {
            loop {
                match self.hears().await?.body {
                    Body::AppendReply(AppendOutcome::Rejected { prev, .. }) if prev.0 == question => break,
                    _ => {}
                }
            }
            Some(())
        };
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        answered.expect("an answer, or the end of the connection").is_some()
    }

    /// The next message on the stream of the log; `None` where the connection has ended.
    async fn hears(&mut self) -> Option<Message> {
        if self.log.is_none() {
            self.log = Some(self.connection.accept_uni().await.ok()?);
        }
        let (_, payload) = read_frame(self.log.as_mut()?).await?;
        Some(peer::decode(&payload.into()).expect("a node says what can be read"))
    }

    async fn end(&self) -> String {
        let end = tokio::time::timeout(PATIENCE, self.connection.closed()).await;
        end.expect("the connection is closed").to_string()
    }
}

#[test]
fn a_hello_that_does_not_fit_is_refused_in_words() {
    let arena = Arena::new(&[2, 3]);
    arena.under(|| {
        let sound = hello(&arena);
        let cases = [
            ("certificate of node 1, hello of node 2", Hello { node: NodeId(2), ..sound.clone() }),
            ("node 1 is of 0909", Hello { cluster: ClusterId([9; 16]), ..sound.clone() }),
            ("different terms", Hello { bootstrap: [9; 32], ..sound.clone() }),
            ("upgrade the older one", Hello { protocol_min: 7, protocol_max: u32::MAX, ..sound.clone() }),
            ("we are group 0", Hello { group: u64::MAX, ..sound }),
        ];
        for (words, hello) in cases {
            let before = arena.stats(2).refused;
            let end = arena.runtime.block_on(async {
                let connection = knock(&arena, 2).await;
                let (mut send, _recv) = connection.open_bi().await.unwrap();
                send.write_all(&frame(HELLO, &hello.encode().unwrap())).await.unwrap();
                tokio::time::timeout(PATIENCE, connection.closed()).await.expect(words).to_string()
            });
            assert!(says(&end, words), "{words}: {end}");
            assert!(arena.stats(2).refused > before, "{words}: it is counted");
        }
    });
}

/// All streams that a member may have, each with a first byte or the first bytes of a frame, and nothing more.
async fn fall_silent(mad: &Mad) -> (usize, usize) {
    let (patience, mut two_way, mut one_way) = (Duration::from_millis(100), 0, 0);
    while let Ok(Ok((mut send, recv))) = tokio::time::timeout(patience, mad.connection.open_bi()).await {
        let _closed_or_not = send.write_all(&frame(SNAPSHOT_OFFER, b"hi")[..9]).await;
        std::mem::forget((send, recv));
        two_way += 1;
    }
    while let Ok(Ok(mut send)) = tokio::time::timeout(patience, mad.connection.open_uni()).await {
        let _closed_or_not = send.write_all(&frame(KIND_RAFT, b"hi")[..9]).await;
        std::mem::forget(send);
        one_way += 1;
    }
    (two_way, one_way)
}

/// A member may keep its connection for ever, and its streams: what they hold is bounded by their number.
#[test]
fn a_member_with_all_streams_silent_holds_nothing_up() {
    let arena = Arena::new(&[2, 3]);
    arena.under(|| {
        let mads = arena.runtime.block_on(async {
            let mut mads = Vec::new();
            for to in [2, 3] {
                let mad = Mad::new(&arena, to).await;
                assert_eq!(fall_silent(&mad).await, (3, 4), "all that node {to} lets it have");
                mads.push(mad);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            mads
        });
        // What it says on its first stream is heard nevertheless.
        for mut mad in mads {
            assert!(mad.connection.close_reason().is_none(), "{:?}", mad.connection.close_reason());
            assert!(arena.runtime.block_on(mad.was_heard(1)), "nobody listens any more");
        }
    });
}

/// Numbers that no member gets to, in every kind of message.
fn absurd() -> Vec<Message> {
    let far = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 62) + 1, 1 << 62, 1 << 61, 1 << 40];
    let mut messages = Vec::new();
    for number in far {
        let (term, last) = (Term(number), Position::new(number, number));
        let entries = vec![Entry::new(
            Position::new(number.wrapping_add(1).max(1), number),
            Bytes::from_static(&[1, 2]),
        )];
        let outcome = AppendOutcome::Accepted { matched: Index(number), full: false };
        let conflict = Some(Position::new(number, number));
        let rejected =
            AppendOutcome::Rejected { number: 1, prev: Index(number), last: Index(number), conflict };
        let bodies = [
            Body::PreVote { last },
            Body::PreVoteReply { granted: true },
            Body::PreVoteReply { granted: false },
            Body::Vote { last, transfer: true },
            Body::Vote { last, transfer: false },
            Body::VoteReply { granted: true },
            Body::Append { number: 1, prev: last, commit: Index(number), entries: vec![] },
            Body::Append {
                number: 1,
                prev: Position::new(number.saturating_sub(1), 1),
                commit: Index(number),
                entries,
            },
            Body::AppendReply(outcome),
            Body::AppendReply(rejected),
            Body::Heartbeat { commit: Index(number), round: number },
            Body::HeartbeatReply { round: number, stuck: true },
            Body::TimeoutNow,
        ];
        messages.extend(bodies.map(|body| Message { term, body }));
    }
    // Of term 1, which is over or is the leader's own: gaps in the log.
    for index in [1_000_000, 1 << 40, 1 << 62, u64::MAX] {
        let body =
            Body::Append { number: 1, prev: Position::new(index, 1), commit: Index(index), entries: vec![] };
        messages.push(Message { term: Term(0), body });
        messages.push(Message {
            term: Term(0),
            body: Body::Vote { last: Position::new(index, 0), transfer: false },
        });
    }
    messages
}

/// What a term may be is bounded, and so is how far one message may move it: a cluster that was led to the last term could
/// never elect anybody again.
#[test]
fn absurd_numbers_move_nobody() {
    let arena = Arena::new(&[2, 3]);
    arena.under(|| {
        for to in [2, 3] {
            let before = arena.stats(to).malformed;
            let (mut heard, mut ended) = (0, 0);
            arena.runtime.block_on(async {
                let mut mad = Mad::new(&arena, to).await;
                for (message, question) in absurd().iter().zip(1..) {
                    let bytes = peer::encode(message).unwrap().unwrap();
                    let _closed_or_not = mad.send.write_all(&frame(KIND_RAFT, &bytes)).await;
                    if mad.was_heard(question).await {
                        heard += 1;
                    } else {
                        ended += 1;
                        mad = Mad::new(&arena, to).await;
                    }
                }
            });
            assert!(heard >= 90, "node {to} heard {heard} of them to the end");
            assert_eq!(
                arena.stats(to).malformed,
                before + ended,
                "node {to}: whatever is no message is counted"
            );
        }
    });
}

/// A head that no encoder of ours writes.
fn message_of(head: &[u8]) -> Vec<u8> {
    [&(head.len() as u32).to_le_bytes()[..], head].concat()
}

#[test]
fn messages_that_lie_about_lengths_end_their_connection() {
    let arena = Arena::new(&[2, 3]);
    // Term 1, append, prev 1@1, commit 1, and then the number of entries.
    let append = |entries: &[u8]| [&[1, 4, 1, 1, 1][..], entries].concat();
    let million = 1_000_000_u32.to_le_bytes();
    let entries = [&[252][..], &million, &[1, 7, 0].repeat(1_000_000)].concat();
    let cut = message_of(&append(&[1, 1, 7, 9]));
    let cases = [
        message_of(&append(&entries)),
        message_of(&append(&[&[252][..], &million, &[1, 7, 0].repeat(80_000)].concat())),
        message_of(&append(&[&[253][..], &(1_u64 << 32).to_le_bytes()].concat())),
        message_of(&append(&[&[253][..], &(1_u64 << 63).to_le_bytes()].concat())),
        // One entry that says it has 2^32 - 1 bytes, and one whose checksum is another's.
        message_of(&append(&[1, 1, 7, 252, 255, 255, 255, 255])),
        [message_of(&append(&[1, 1, 7, 3])), vec![1, 2, 3]].concat(),
        u32::MAX.to_le_bytes().to_vec(),
        [message_of(&[1, 9]), vec![0]].concat(),
        message_of(&[1, 200]),
        cut[..cut.len() - 1].to_vec(),
    ];
    arena.under(|| {
        for (number, bytes) in cases.iter().enumerate() {
            let before = arena.stats(2).malformed;
            let end = arena.runtime.block_on(async {
                let mad = Mad::new(&arena, 2).await;
                // The stream of the log takes the largest frames.
                let mut log = mad.connection.open_uni().await.unwrap();
                let _closed_or_not = log.write_all(&frame(KIND_RAFT, bytes)).await;
                mad.end().await
            });
            let named = ["malformed message", "arrived damaged"].iter().any(|words| end.contains(words));
            assert!(named || end == "reset by peer", "case {number}: {end}");
            assert_eq!(arena.stats(2).malformed, before + 1, "case {number}: it is counted");
        }
    });
}

/// Snapshots of absurd lengths, and offers that break off: none is taken, and none leaves anything behind.
#[test]
fn absurd_snapshots_are_not_taken() {
    let arena = Arena::new(&[2, 3]);
    let membership = Membership { voters: (1..=3).map(NodeId).collect() };
    // Length by the stream and by the announcement, what is sent of it, and the words of the refusal.
    let cases = [
        (u64::MAX, u64::MAX, 100_000, "18446744073709551615 bytes"),
        (1 << 63, 1 << 63, 100_000, "9223372036854775808 bytes"),
        (200, 300, 200, "says 300 bytes, the stream 200"),
        (5_000, 5_000, 5_000, "the trailer is not there"),
        (5_000, 5_000, 5_001, "more bytes than were announced"),
        (1 << 32, 1 << 32, 100_000, "4294867296 bytes fewer than were announced"),
        (0, 0, 0, "no snapshot is that short"),
    ];
    arena.under(|| {
        for (length, announced, sent, words) in cases {
            let position = Position::new(u64::MAX, u64::MAX);
            let snapshot = SnapshotId { position, length: announced, digest: [7; 32] };
            let offer = peer::Announcement { term: Term(u64::MAX), snapshot, membership: membership.clone() };
            let offer = [&length.to_le_bytes()[..], &offer.encode().unwrap()].concat();
            let (kind, said) = arena.runtime.block_on(async {
                let mad = Mad::new(&arena, 2).await;
                let (mut send, mut recv) = mad.connection.open_bi().await.unwrap();
                send.write_all(&frame(SNAPSHOT_OFFER, &offer)).await.unwrap();
                let (kind, said) = read_frame(&mut recv).await.expect(words);
                if kind != SNAPSHOT_ACCEPT {
                    return (kind, said);
                }
                let _refused_in_the_middle = send.write_all(&vec![7; sent]).await;
                let _refused_in_the_middle = send.finish();
                read_frame(&mut recv).await.expect(words)
            });
            let said = String::from_utf8_lossy(&said);
            assert!(kind == SNAPSHOT_REFUSE && said.contains(words), "{words}: kind {kind}, {said}");
        }
        // What one transfer left is dropped with the next offer: at most one unfinished file, and none in the end.
        let until = Instant::now() + PATIENCE;
        while !leavings(&arena, 2).is_empty() {
            assert!(Instant::now() < until, "{:?}", leavings(&arena, 2));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(arena.stats(2).snapshots_received, 0);
    });
}

/// What a snapshot that nobody made could leave in a node's directory, whole or unfinished.
fn leavings(arena: &Arena, id: u64) -> Vec<PathBuf> {
    let absurd = file_name(Position::new(u64::MAX, u64::MAX));
    let mut files = arena.disks[&id].files();
    files.retain(|path| {
        let name = path.file_name().expect("a file").to_string_lossy();
        name.starts_with("tmp-") || name == absurd
    });
    files
}
