//! Exactly once: numbers, acknowledgements, the window, and whose a session is.

use super::*;

#[test]
fn a_session_is_named_by_its_entry() {
    let mut log = Log::new(SMALL);
    log.map.skip(Position::new(1, 1));
    assert_eq!(log.open(0, ALICE), SessionId(2));
    assert_eq!(log.open(0, ALICE), SessionId(3));
    assert_eq!(log.map.sessions_len(), 2);
}

#[test]
fn a_request_that_arrives_twice_counts_once() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    let reply = Reply::Append { version: 2, length: 1 };
    assert_eq!(log.run(0, session, (1, 1), append("a", "x")), executed(2, reply));
    assert_eq!(log.run(0, session, (1, 1), append("a", "x")), duplicate(2, reply));
    // The number counts, not the words.
    assert_eq!(log.run(0, session, (1, 1), delete("a")), duplicate(2, reply));
    assert_eq!(log.value("a"), Some(b"x".to_vec()));
}

#[test]
fn requests_in_flight_may_arrive_in_any_order() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    for (sequence, text) in [(3, "c"), (1, "a"), (4, "d"), (2, "b")] {
        assert!(matches!(log.run(0, session, (sequence, 1), append("k", text)), Outcome::Executed { .. }));
    }
    assert_eq!(log.value("k"), Some(b"cadb".to_vec()));
    for (sequence, at, length) in [(1, 3, 2), (2, 5, 4), (3, 2, 1), (4, 4, 3)] {
        let reply = Reply::Append { version: at, length };
        assert_eq!(log.run(0, session, (sequence, 1), append("k", "!")), duplicate(at, reply));
    }
}

#[test]
fn a_settled_number_is_refused_and_never_run() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    log.run(0, session, (1, 1), append("k", "a"));
    log.run(0, session, (2, 2), append("k", "b"));
    let settled = refused(Refusal::BelowAcknowledged { acked_below: 2 });
    assert_eq!(log.run(0, session, (1, 1), append("k", "a")), settled);
    assert_eq!(log.value("k"), Some(b"ab".to_vec()));
    assert!(matches!(log.run(0, session, (2, 2), append("k", "b")), Outcome::Duplicate { .. }));
}

#[test]
fn a_number_that_was_skipped_is_settled_with_the_rest() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    log.run(0, session, (3, 3), append("k", "c"));
    let settled = refused(Refusal::BelowAcknowledged { acked_below: 3 });
    assert_eq!(log.run(0, session, (2, 1), append("k", "b")), settled);
    assert_eq!(log.value("k"), Some(b"c".to_vec()));
}

#[test]
fn numbers_begin_at_one() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    let settled = refused(Refusal::BelowAcknowledged { acked_below: 1 });
    assert_eq!(log.run(0, session, (0, 0), append("k", "a")), settled);
    assert!(matches!(log.run(0, session, (1, 0), append("k", "a")), Outcome::Executed { .. }));
}

#[test]
fn acknowledging_only_rises_and_frees_replies() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    (1..=4).for_each(|sequence| {
        log.run(0, session, (sequence, 1), append("k", "x"));
    });
    assert_eq!(log.map.replies_len(), 4);
    log.run(0, session, (5, 4), append("k", "x"));
    assert_eq!(log.map.replies_len(), 2);
    // An older message, late: it takes nothing back.
    assert!(matches!(log.run(0, session, (5, 1), append("k", "x")), Outcome::Duplicate { .. }));
    let settled = refused(Refusal::BelowAcknowledged { acked_below: 4 });
    assert_eq!(log.run(0, session, (3, 1), append("k", "x")), settled);
    log.close(0, ALICE, session);
    assert_eq!(log.map.replies_len(), 0);
}

#[test]
fn an_acknowledgement_counts_before_its_own_request() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    (1..=4).for_each(|sequence| {
        log.run(0, session, (sequence, 1), append("k", "x"));
    });
    // The window has moved with the acknowledgement that this very request carries.
    assert!(matches!(log.run(0, session, (5, 2), append("k", "x")), Outcome::Executed { .. }));
    // One that acknowledges itself is refused by its own word.
    let settled = refused(Refusal::BelowAcknowledged { acked_below: 10 });
    assert_eq!(log.run(0, session, (6, 10), append("k", "x")), settled);
    assert_eq!(log.map.replies_len(), 0);
}

#[test]
fn the_window_ends_where_it_says() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    assert!(matches!(log.run(0, session, (4, 1), put("a", "x")), Outcome::Executed { .. }));
    let over = refused(Refusal::WindowExceeded { below: 5 });
    assert_eq!(log.run(0, session, (5, 1), put("b", "x")), over);
    assert_eq!(log.value("b"), None);
    assert!(matches!(log.run(0, session, (5, 2), put("b", "x")), Outcome::Executed { .. }));
    let far = refused(Refusal::WindowExceeded { below: 6 });
    assert_eq!(log.run(0, session, (u64::MAX, 2), put("b", "x")), far);
}

#[test]
fn the_highest_numbers_do_not_overflow() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    let last = (u64::MAX, u64::MAX);
    assert_eq!(log.run(0, session, last, put("a", "x")), executed(2, Reply::Put { version: 2 }));
    assert_eq!(log.run(0, session, last, put("a", "x")), duplicate(2, Reply::Put { version: 2 }));
    let settled = refused(Refusal::BelowAcknowledged { acked_below: u64::MAX });
    assert_eq!(log.run(0, session, (u64::MAX - 1, 1), put("a", "x")), settled);
}

#[test]
fn a_session_is_its_owners() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, BOB);
    assert_eq!(log.run(500, session, (1, 1), put("a", "x")), refused(Refusal::NotOwner));
    assert_eq!(log.close(500, ALICE, session), refused(Refusal::NotOwner));
    assert_eq!(log.value("a"), None);
    // Nor does another's request keep it alive, or acknowledge anything in it.
    log.run(999, session, (9, 9), put("a", "x"));
    let command = put("a", "bob");
    let request = |sequence| Request::Execute {
        owner: BOB,
        session,
        sequence,
        acked_below: 1,
        command: command.clone(),
    };
    let mut twin = Log { map: log.map.clone() };
    assert!(matches!(log.apply(999, request(1)), Outcome::Executed { .. }));
    assert_eq!(twin.apply(1_000, request(1)), refused(Refusal::SessionExpired));
}

#[test]
fn what_is_not_there_is_refused() {
    let mut log = Log::new(SMALL);
    let gone = refused(Refusal::SessionExpired);
    assert_eq!(log.run(0, SessionId(0), (1, 1), put("a", "x")), gone);
    assert_eq!(log.run(0, SessionId(77), (1, 1), put("a", "x")), gone);
    let session = log.open(0, ALICE);
    assert_eq!(log.close(0, ALICE, session), Outcome::Closed);
    assert_eq!(log.close(0, ALICE, session), gone);
    assert_eq!(log.run(0, session, (1, 1), put("a", "x")), gone);
    assert!(log.map.is_empty());
}

#[test]
fn sessions_number_on_their_own() {
    let mut log = Log::new(SMALL);
    let (one, two) = (log.open(0, ALICE), log.open(0, ALICE));
    log.run(0, one, (1, 1), append("k", "a"));
    assert!(matches!(log.run(0, two, (1, 1), append("k", "b")), Outcome::Executed { .. }));
    assert_eq!(log.value("k"), Some(b"ab".to_vec()));
}

#[test]
fn a_full_table_refuses_and_evicts_nobody() {
    let mut log = Log::new(SMALL);
    let sessions: Vec<_> = (0..4).map(|_| log.open(0, ALICE)).collect();
    assert_eq!(log.apply(999, Request::Open { owner: BOB }), Outcome::TableFull);
    assert!(matches!(log.run(999, sessions[0], (1, 1), put("a", "x")), Outcome::Executed { .. }));
    log.close(999, ALICE, sessions[1]);
    log.open(999, BOB);
    assert_eq!(log.apply(999, Request::Open { owner: BOB }), Outcome::TableFull);
    // Two have gone by now; the one that was used, and Bob's, have not.
    log.open(1_000, BOB);
    log.open(1_000, BOB);
    assert_eq!(log.apply(1_000, Request::Open { owner: BOB }), Outcome::TableFull);
}

#[test]
fn a_burst_leaves_a_session_as_small_as_before() {
    let mut log = Log::new(Limits { window: 1_024, ..SMALL });
    let session = log.open(0, ALICE);
    (1..=1_024).for_each(|sequence| {
        log.run(0, session, (sequence, 1), put("a", "x"));
    });
    assert_eq!(log.map.replies_len(), 1_024);
    log.run(0, session, (1_025, 1_025), put("a", "x"));
    let session = log.map.sessions.table.get(&session).unwrap();
    assert_eq!((session.replies.len(), session.replies.spilled()), (1, false));
}
