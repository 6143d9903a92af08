//! A snapshot's content: its bytes, its way back, and what is refused on that way.

use super::*;

/// A state with something of everything: pairs, an idle session, one with a gap in its replies, every kind of reply.
fn varied() -> Log {
    let mut log = Log::new(Limits { window: 16, ..SMALL });
    log.open(10, BOB);
    let session = log.open(20, ALICE);
    let (long, longer) = ("v".repeat(33), "k".repeat(9));
    let commands = [
        put("a", "x"),
        append("a", "yz"),
        delete("b"),
        delete("a"),
        compare_and_put("c", 0, "swapped"),
        compare_and_put("c", 1, "never"),
        put("", ""),
        put(&longer, ""),
        put("d", &long),
        put("empty", ""),
    ];
    for (sequence, command) in (2..).zip(commands) {
        log.run(500, session, (sequence, 1), command);
    }
    log.run(600, session, (14, 3), put("d", "late"));
    // The first look at the queue: Alice's session goes back in under its last use.
    log.apply(1_009, Request::Tick);
    log
}

fn damaged(result: Result<StateMachine, RestoreError>) -> &'static str {
    match result {
        Err(RestoreError::Damaged { what, .. }) => what,
        other => panic!("not found damaged: {other:?}"),
    }
}

#[test]
fn the_content_has_these_bytes() {
    let mut log = Log::new(SMALL);
    let session = log.open(256, ALICE);
    log.run(513, session, (2, 1), append("key", "v1"));
    #[rustfmt::skip]
    let expected: &[&[u8]] = &[
        &[1],                               // version
        &[1, 64, 0, 0, 0],                  // head of 64 bytes
        &[8, 0, 0, 0, 32, 0, 0, 0],         // key, value
        &[4, 0, 0, 0, 4, 0, 0, 0],          // sessions, window
        &[0xE8, 3, 0, 0, 0, 0, 0, 0],       // time to live
        &[1, 2, 0, 0, 0, 0, 0, 0],          // log time
        &[2, 0, 0, 0, 0, 0, 0, 0],          // applied index
        &[1, 0, 0, 0, 0, 0, 0, 0],          // and term
        &[1, 0, 0, 0, 0, 0, 0, 0],          // pairs
        &[1, 0, 0, 0, 0, 0, 0, 0],          // sessions
        &[2, 17, 0, 0, 0],                  // pair of 17 bytes
        &[2, 0, 0, 0, 0, 0, 0, 0],          // version
        &[3, 0, 0, 0], b"key", b"v1",
        &[3, 81, 0, 0, 0],                  // session of 81 bytes
        &[1, 0, 0, 0, 0, 0, 0, 0],          // id
        &[0xA1; 16],                        // owner
        &[1, 2, 0, 0, 0, 0, 0, 0],          // last used
        &[0, 1, 0, 0, 0, 0, 0, 0],          // queued
        &[1, 0, 0, 0, 0, 0, 0, 0],          // acknowledged below
        &[2, 0, 0, 0, 0, 0, 0, 0],          // sequence
        &[2, 0, 0, 0, 0, 0, 0, 0],          // executed by
        &[2],                               // an append
        &[2, 0, 0, 0, 0, 0, 0, 0],          // version
        &[2, 0, 0, 0, 0, 0, 0, 0],          // length
    ];
    assert_eq!(whole(&log.map.image()), expected.concat());
    let digest: String = log.map.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, blake3::hash(&expected.concat()).to_hex().as_str());
}

#[test]
fn the_same_state_comes_back_whatever_the_pieces() {
    let log = varied();
    let content = whole(&log.map.image());
    for piece in [1, 2, 3, 7, 64, content.len()] {
        let restored = restore(&content, piece).unwrap();
        assert_eq!(whole(&restored.image()), content, "{piece}");
        assert_eq!(restored.applied(), log.map.applied());
        assert_eq!(restored.log_time(), log.map.log_time());
        assert_eq!(restored.limits(), log.map.limits());
        assert_eq!(restored.data_bytes(), log.map.data_bytes());
        assert_eq!(restored.replies_len(), log.map.replies_len());
        assert_eq!(restored.next_expiry(), log.map.next_expiry());
    }
}

#[test]
fn an_empty_map_comes_back() {
    let map = StateMachine::new(Limits::default());
    let restored = restore(&whole(&map.image()), 9).unwrap();
    assert_eq!((restored.applied(), restored.digest()), (Position::ZERO, map.digest()));
}

#[test]
fn requests_in_flight_are_answered_after_a_restore_as_before() {
    let mut log = varied();
    let mut restored = Log { map: restore(&whole(&log.map.image()), 50).unwrap() };
    let session = SessionId(2);
    for sequence in 1..=20 {
        let command = || append("c", "!");
        let expected = log.run(1_100, session, (sequence, 3), command());
        assert_eq!(restored.run(1_100, session, (sequence, 3), command()), expected, "{sequence}");
    }
    assert_eq!(restored.map.digest(), log.map.digest());
}

/// The expiry queue is worked off lazily, so how far that has got must come along: otherwise the copy would look at
/// other sessions than the original in the same entry, and differ from then on.
#[test]
fn the_expiry_queue_comes_back_as_it_was() {
    let mut log = Log::new(Limits { sessions: 200, ..SMALL });
    let sessions: Vec<_> = (0..150).map(|_| log.open(0, ALICE)).collect();
    for session in &sessions[..100] {
        log.run(600, *session, (1, 1), put("a", "x"));
    }
    log.apply(1_000, Request::Tick);
    let mut restored = Log { map: restore(&whole(&log.map.image()), 1_000).unwrap() };
    for at in [1_000, 1_000, 1_000, 1_600, 1_600] {
        log.apply(at, Request::Tick);
        restored.apply(at, Request::Tick);
        assert_eq!(restored.map.sessions_len(), log.map.sessions_len());
        assert_eq!(restored.map.digest(), log.map.digest());
    }
    assert_eq!(log.map.sessions_len(), 0);
}

#[test]
fn the_digest_knows_the_state_and_not_the_way_to_it() {
    let mut one = Log::new(SMALL);
    let mut other = Log::new(SMALL);
    let (first, second) = (one.open(0, ALICE), other.open(0, ALICE));
    assert_eq!(one.map.digest(), other.map.digest());
    let keys: Vec<String> = (0..500).map(|number| format!("k{number}")).collect();
    for key in &keys {
        one.map.pairs.put(key.as_bytes(), bytes("v"), 1);
    }
    for key in keys.iter().rev() {
        other.map.pairs.put(key.as_bytes(), bytes("v"), 1);
        other.map.pairs.put(b"passing", bytes("v"), 1);
    }
    assert_ne!(one.map.digest(), other.map.digest());
    one.run(0, first, (1, 1), delete("passing"));
    other.run(0, second, (1, 1), delete("passing"));
    assert_ne!(one.map.digest(), other.map.digest()); // the replies differ: only one of them was there
    one.run(0, first, (2, 2), put("a", "x"));
    other.run(0, second, (2, 2), put("a", "x"));
    assert_eq!(one.map.digest(), other.map.digest());
}

#[test]
fn an_image_stands_still_while_the_map_goes_on() {
    let mut log = varied();
    let image = log.map.image();
    let (content, digest) = (whole(&image), image.digest());
    log.run(1_100, SessionId(2), (14, 14), delete("d"));
    log.run(1_100, SessionId(2), (15, 15), put("d", "newer"));
    log.close(1_100, ALICE, SessionId(2));
    assert_eq!((whole(&image), image.digest()), (content, digest));
    assert_ne!(log.map.digest(), digest);
    assert_eq!(image.applied().index.next().next().next(), log.map.applied().index);
}

#[test]
fn images_may_be_written_by_another_thread() {
    fn sendable<T: Send + Sync + 'static>() {}
    sendable::<Image>();
    sendable::<StateMachine>();
    sendable::<Restore>();
}

#[test]
fn chunks_are_bounded_and_made_one_at_a_time() {
    let mut log = Log::new(Limits::default());
    for number in 0..40_u8 {
        log.once(Command::Put { key: Bytes::from(vec![number]), value: Bytes::from(vec![number; 10_000]) });
    }
    log.once(Command::Put { key: bytes("big"), value: Bytes::from(vec![7; 1024 * 1024]) });
    let image = log.map.image();
    let lengths: Vec<usize> = image.chunks().map(|chunk| chunk.len()).collect();
    let (big, rest): (Vec<usize>, Vec<usize>) = lengths.iter().partition(|length| **length > 1024 * 1024);
    assert_eq!(big.len(), 1);
    assert!(big[0] < 64 * 1024 + 1024 * 1024 + 64);
    assert!(rest.iter().all(|length| *length < 64 * 1024 + 10_064), "{lengths:?}");
    assert!(lengths.len() >= 6, "{lengths:?}");
    assert_eq!(restore(&whole(&image), 4_096).unwrap().digest(), log.map.digest());
}

#[test]
fn a_content_cut_anywhere_is_incomplete() {
    let content = whole(&varied().map.image());
    for cut in 0..content.len() {
        let result = restore(&content[..cut], 64);
        assert_eq!(result.err(), Some(RestoreError::Incomplete { at: cut as u64 }));
    }
}

#[test]
fn nothing_may_follow_the_last_record() {
    let mut content = whole(&varied().map.image());
    content.push(0);
    for piece in [1, content.len()] {
        assert_eq!(damaged(restore(&content, piece)), "bytes behind the last record");
    }
}

/// Whether a flipped bit is found is the file's business. Here it must not panic, and must not be read as something
/// that would be written in other bytes.
#[test]
fn every_flipped_bit_is_refused_or_read_as_what_it_says() {
    let content = whole(&varied().map.image());
    let mut refused = 0;
    for bit in 0..content.len() * 8 {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match restore(&flipped, 100) {
            Ok(map) => assert!(whole(&map.image()) == flipped, "bit {bit} was overlooked"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > content.len(), "{refused}");
}

#[test]
fn another_version_is_named() {
    let error = restore(&[2, 0, 0], 1).unwrap_err();
    assert_eq!(error, RestoreError::Version { found: 2 });
    assert_eq!(
        error.to_string(),
        "snapshot content has version 2, this program reads 1: run the version that wrote it"
    );
}

#[test]
fn an_error_is_given_again_and_again() {
    let content = whole(&varied().map.image());
    let mut restore = Restore::new();
    assert_eq!(restore.feed(&[9]), Err(RestoreError::Version { found: 9 }));
    assert_eq!(restore.feed(&content), Err(RestoreError::Version { found: 9 }));
    assert_eq!(restore.finish().err(), Some(RestoreError::Version { found: 9 }));
}

/// The places below are those of `the_content_has_these_bytes`.
#[test]
fn what_breaks_a_rule_is_refused_by_its_name() {
    let mut log = Log::new(SMALL);
    let session = log.open(256, ALICE);
    log.run(513, session, (2, 1), append("key", "v1"));
    let content = whole(&log.map.image());
    let check = |place: usize, byte: u8, expected: &str| {
        let mut broken = content.clone();
        broken[place] = byte;
        assert_eq!(damaged(restore(&broken, 1_000)), expected, "byte {place}");
    };
    check(1, 2, "another kind of record stands here");
    check(1, 77, "another kind of record stands here");
    check(2, 63, "head of another length");
    check(2, 65, "length over the limits");
    check(6, 0, "limits out of range");
    check(14, 0, "limits out of range"); // no sessions at all
    check(38, 1, "more records than entries"); // applied index
    check(54, 2, "more records than entries"); // pairs
    check(62, 5, "more sessions than the limits allow");
    check(70, 3, "another kind of record stands here");
    check(71, 255, "length over the limits");
    check(71, 0, "empty body");
    check(71, 11, "pair shorter than its key");
    check(75, 0, "version of no entry");
    check(75, 3, "version of no entry");
    check(83, 0, "key outside the limits");
    check(83, 6, "pair shorter than its key");
    check(93, 200, "length over the limits");
    check(93, 80, "session of no possible shape");
    check(97, 0, "session of no entry");
    check(97, 3, "session of no entry");
    check(122, 3, "session used after the end"); // last used
    check(130, 3, "session queued after its last use");
    check(137, 0, "numbers begin at 1");
    check(137, 3, "reply outside the window");
    check(145, 5, "reply outside the window"); // sequence
    check(153, 1, "reply of no entry"); // the entry that opened the session
    check(153, 3, "reply of no entry");
    check(161, 9, "session of no possible shape"); // kind of reply
    check(161, 3, "session of no possible shape"); // a delete with two numbers
}

#[test]
fn records_out_of_order_are_refused() {
    let mut log = Log::new(SMALL);
    let (one, two) = (log.open(0, ALICE), log.open(0, ALICE));
    log.run(0, one, (1, 1), put("a", "x"));
    log.run(0, two, (1, 1), put("b", "x"));
    log.run(0, two, (2, 1), delete("c"));
    let content = whole(&log.map.image());
    let (head, pair, session, reply) = (70, 5 + 12 + 2, 5 + 48 + 33, 33);
    let swapped = |at: usize, first: usize, second: usize| {
        let (before, rest) = content.split_at(at);
        let (one, rest) = rest.split_at(first);
        let (two, rest) = rest.split_at(second);
        restore(&[before, two, one, rest].concat(), 1_000)
    };
    assert_eq!(damaged(swapped(head, pair, pair)), "keys do not rise");
    assert_eq!(damaged(swapped(head + 2 * pair, session, session + reply)), "sessions do not rise");
    let replies = content.len() - 2 * reply;
    assert_eq!(damaged(swapped(replies, reply, reply)), "replies do not rise");
    let twice = [&content[..head + pair], &content[head..head + pair], &content[head + 2 * pair..]].concat();
    assert_eq!(damaged(restore(&twice, 1_000)), "keys do not rise");
}

#[test]
fn a_length_is_refused_before_its_body_is_awaited() {
    let mut log = Log::new(SMALL);
    log.once(put("a", "x"));
    let content = whole(&log.map.image());
    let mut restore = Restore::new();
    restore.feed(&content[..71]).unwrap();
    let error = RestoreError::Damaged { at: 70, what: "length over the limits" };
    assert_eq!(restore.feed(&u32::MAX.to_le_bytes()), Err(error));
}
