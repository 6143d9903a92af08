//! What each command does to the map, and the limits it keeps to.

use super::*;

#[test]
fn a_put_is_versioned_by_its_entry() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    assert_eq!(log.run(0, session, (1, 1), put("a", "x")), executed(2, Reply::Put { version: 2 }));
    assert_eq!(log.run(0, session, (2, 2), put("a", "")), executed(3, Reply::Put { version: 3 }));
    assert_eq!((log.value("a"), log.version("a")), (Some(vec![]), 3));
}

#[test]
fn append_creates_and_tells_the_whole_length() {
    let mut log = Log::new(SMALL);
    assert_eq!(log.once(append("a", "one")), Reply::Append { version: 2, length: 3 });
    assert_eq!(log.once(append("a", ",two")), Reply::Append { version: 5, length: 7 });
    assert_eq!(log.value("a"), Some(b"one,two".to_vec()));
    assert_eq!(log.once(append("empty", "")), Reply::Append { version: 8, length: 0 });
    assert_eq!(log.value("empty"), Some(vec![]));
}

#[test]
fn delete_tells_whether_the_key_was_there() {
    let mut log = Log::new(SMALL);
    log.once(put("a", "x"));
    assert_eq!(log.once(delete("a")), Reply::Delete { existed: true });
    assert_eq!(log.once(delete("a")), Reply::Delete { existed: false });
    assert_eq!((log.value("a"), log.map.len(), log.map.is_empty()), (None, 0, true));
}

#[test]
fn compare_and_put_needs_the_very_version() {
    let mut log = Log::new(SMALL);
    assert_eq!(log.once(compare_and_put("a", 1, "x")), Reply::Mismatch { current: 0 });
    assert_eq!(log.once(compare_and_put("a", 0, "x")), Reply::Swapped { version: 5 });
    assert_eq!(log.once(compare_and_put("a", 0, "y")), Reply::Mismatch { current: 5 });
    assert_eq!(log.once(compare_and_put("a", 4, "y")), Reply::Mismatch { current: 5 });
    assert_eq!(log.once(compare_and_put("a", 5, "y")), Reply::Swapped { version: 14 });
    assert_eq!(log.value("a"), Some(b"y".to_vec()));
}

#[test]
fn a_key_that_came_back_has_a_higher_version_than_ever() {
    let mut log = Log::new(SMALL);
    log.once(put("a", "x"));
    let before = log.version("a");
    log.once(delete("a"));
    log.once(put("a", "x"));
    assert!(log.version("a") > before);
    assert_eq!(log.once(compare_and_put("a", before, "y")), Reply::Mismatch { current: log.version("a") });
}

#[test]
fn commands_keep_to_the_limits() {
    let check = |command: Command, expected: Result<(), LimitError>| {
        assert_eq!(command.check(&SMALL), expected, "{command:?}");
        let mut log = Log::new(SMALL);
        let reply = log.once(command);
        match expected {
            Ok(()) => assert!(!matches!(reply, Reply::OutsideLimits(_)), "{reply:?}"),
            Err(error) => {
                assert_eq!(reply, Reply::OutsideLimits(error));
                assert!(log.map.is_empty());
            }
        }
    };
    let (key, value) = ("k".repeat(8), "v".repeat(32));
    let (long_key, long_value) = ("k".repeat(9), "v".repeat(33));
    let key_long = LimitError::KeyTooLong { length: 9, limit: 8 };
    let value_long = LimitError::ValueTooLong { length: 33, limit: 32 };
    check(put(&key, &value), Ok(()));
    check(append(&key, &value), Ok(()));
    check(delete(&key), Ok(()));
    check(compare_and_put(&key, 0, &value), Ok(()));
    check(put(&key, &long_value), Err(value_long));
    check(append(&key, &long_value), Err(value_long));
    check(compare_and_put(&key, 0, &long_value), Err(value_long));
    check(put(&long_key, ""), Err(key_long));
    check(append(&long_key, ""), Err(key_long));
    check(delete(&long_key), Err(key_long));
    check(compare_and_put(&long_key, 0, ""), Err(key_long));
    check(put("", "v"), Err(LimitError::KeyEmpty));
    check(delete(""), Err(LimitError::KeyEmpty));
}

#[test]
fn what_an_append_makes_keeps_to_the_limit_and_the_refusal_is_remembered() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    log.run(0, session, (1, 1), put("a", &"v".repeat(30)));
    assert_eq!(
        log.run(0, session, (2, 2), append("a", "xx")),
        executed(3, Reply::Append { version: 3, length: 32 })
    );
    let over = Reply::OutsideLimits(LimitError::ValueTooLong { length: 33, limit: 32 });
    assert_eq!(log.run(0, session, (3, 3), append("a", "y")), executed(4, over));
    log.run(0, session, (4, 3), delete("a"));
    // It would fit by now, but the same number is the same request.
    assert_eq!(log.run(0, session, (3, 3), append("a", "y")), duplicate(4, over));
    assert_eq!(log.value("a"), None);
}

#[test]
fn what_is_stored_shares_no_memory_with_what_was_sent() {
    let mut log = Log::new(SMALL);
    let buffer = Bytes::from(vec![b'z'; 4096]);
    log.once(Command::Put { key: buffer.slice(0..4), value: buffer.slice(8..16) });
    log.once(Command::CompareAndPut { key: buffer.slice(0..5), version: 0, value: buffer.slice(8..9) });
    log.once(Command::Append { key: buffer.slice(0..6), value: buffer.slice(8..9) });
    assert_eq!(log.map.len(), 3);
    // The last handle to a buffer may have it back; one that is pinned stays shared.
    assert!(buffer.try_into_mut().is_ok());
}

#[test]
fn data_bytes_follow_every_change() {
    let mut log = Log::new(SMALL);
    let mut check = |command: Command, expected: u64| {
        log.once(command);
        assert_eq!(log.map.data_bytes(), expected);
    };
    check(put("ab", "123"), 5);
    check(put("ab", "1"), 3);
    check(append("ab", "2345"), 7);
    check(append("c", ""), 8);
    check(compare_and_put("c", 0, "zz"), 8);
    check(delete("ab"), 1);
    check(delete("ab"), 1);
    check(delete("c"), 0);
}

#[test]
fn limits_are_checked_at_the_door() {
    assert_eq!(Limits::default().validate(), Ok(()));
    const WIDE: Limits = Limits { window: 1_024, ..SMALL };
    assert_eq!(WIDE.validate(), Ok(()));
    let check = |limits: Limits, limit: &str| {
        assert_eq!(limits.validate().map_err(|error| error.limit), Err(limit));
    };
    check(Limits { key_bytes: 0, ..WIDE }, "key_bytes");
    check(Limits { key_bytes: 64 * 1024 + 1, ..WIDE }, "key_bytes");
    check(Limits { value_bytes: 0, ..WIDE }, "value_bytes");
    check(Limits { value_bytes: 1024 * 1024 + 1, ..WIDE }, "value_bytes");
    check(Limits { sessions: 0, ..WIDE }, "sessions");
    check(Limits { sessions: 1024 * 1024 + 1, ..WIDE }, "sessions");
    check(Limits { session_ttl_ms: 0, ..WIDE }, "session_ttl_ms");
    check(Limits { window: 1_023, ..WIDE }, "window");
    check(Limits { window: 16 * 1024 + 1, ..WIDE }, "window");
    let error = Limits { window: 1_023, ..WIDE }.validate().unwrap_err();
    assert_eq!(error.to_string(), "limit window is 1023, choose one from 1024 to 16384");
}

#[test]
#[should_panic(expected = "entry 3@1 does not follow 1@1")]
fn an_entry_left_out_is_not_passed_over() {
    let mut map = StateMachine::new(SMALL);
    map.skip(Position::new(1, 1));
    map.skip(Position::new(3, 1));
}

#[test]
#[should_panic(expected = "entry 1@1 does not follow 1@1")]
fn an_entry_is_not_applied_twice() {
    let mut map = StateMachine::new(SMALL);
    map.skip(Position::new(1, 1));
    map.skip(Position::new(1, 1));
}

#[test]
fn skipping_moves_only_the_position() {
    let mut log = Log::new(SMALL);
    log.once(put("a", "x"));
    let (before, digest) = (log.map.clone(), log.map.digest());
    log.map.skip(Position::new(4, 2));
    assert_eq!(log.map.applied(), Position::new(4, 2));
    assert_eq!(log.map.log_time(), before.log_time());
    assert_eq!(log.map.get(b"a"), before.get(b"a"));
    assert_ne!(log.map.digest(), digest);
}
