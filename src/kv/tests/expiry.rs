//! Expiry: by log time alone, at the very millisecond, and never much work in one entry.

use super::*;

#[test]
fn a_session_lives_to_the_last_millisecond_and_no_longer() {
    for (at, lives) in [(0, true), (999, true), (1_000, false), (u64::MAX, false)] {
        let mut log = Log::new(SMALL);
        let session = log.open(0, ALICE);
        let outcome = log.run(at, session, (1, 1), put("a", "x"));
        assert_eq!(matches!(outcome, Outcome::Executed { .. }), lives, "{at}");
        assert_eq!(outcome == refused(Refusal::SessionExpired), !lives, "{at}");
        assert_eq!(log.map.sessions_len(), usize::from(lives), "{at}");
    }
}

#[test]
fn every_request_of_its_owner_keeps_a_session_alive() {
    let mut log = Log::new(SMALL);
    let session = log.open(0, ALICE);
    log.run(900, session, (1, 1), put("a", "x"));
    log.run(1_800, session, (1, 1), put("a", "x")); // a duplicate
    log.run(2_700, session, (99, 1), put("a", "x")); // refused by the window
    log.run(3_600, session, (0, 1), put("a", "x")); // refused as settled
    assert!(matches!(log.run(4_599, session, (2, 1), put("a", "y")), Outcome::Executed { .. }));
    assert_eq!(log.apply(5_598, Request::Tick), Outcome::Ticked);
    assert_eq!(log.map.sessions_len(), 1);
    log.apply(5_599, Request::Tick);
    assert_eq!(log.map.sessions_len(), 0);
}

#[test]
fn log_time_never_goes_back() {
    let mut log = Log::new(SMALL);
    log.apply(1_000, Request::Tick);
    let session = log.open(3, ALICE); // a leader that began again: counts as 1,000
    assert_eq!(log.map.log_time(), LogTime(1_000));
    assert!(matches!(log.run(1_999, session, (1, 1), put("a", "x")), Outcome::Executed { .. }));
    assert_eq!(log.run(2_999, session, (1, 1), put("a", "x")), refused(Refusal::SessionExpired));
}

#[test]
fn a_session_due_but_still_queued_has_expired() {
    let mut log = Log::new(Limits { sessions: 200, ..SMALL });
    let sessions: Vec<_> = (0..130).map(|_| log.open(0, ALICE)).collect();
    // The first entry clears 64 away, the second 64 more; the last two are refused all the same.
    let last = sessions[129];
    assert_eq!(log.run(1_000, last, (1, 1), put("a", "x")), refused(Refusal::SessionExpired));
    assert_eq!(log.map.sessions_len(), 66);
    assert_eq!(log.close(1_000, ALICE, last), refused(Refusal::SessionExpired));
    assert_eq!(log.map.sessions_len(), 2);
    assert_eq!(log.apply(1_000, Request::Tick), Outcome::Ticked);
    assert_eq!((log.map.sessions_len(), log.map.next_expiry()), (0, None));
    assert!(log.map.is_empty());
}

#[test]
fn sessions_in_use_are_queued_again_and_hide_none_behind_them() {
    let mut log = Log::new(Limits { sessions: 200, ..SMALL });
    let sessions: Vec<_> = (0..130).map(|_| log.open(0, ALICE)).collect();
    for session in &sessions[..100] {
        log.run(600, *session, (1, 1), put("a", "x"));
    }
    log.apply(1_000, Request::Tick); // 64 of the used ones go back into the queue
    assert_eq!(log.map.sessions_len(), 130);
    log.apply(1_000, Request::Tick); // 36 more, and 28 of the idle 30 go
    assert_eq!(log.map.sessions_len(), 102);
    log.apply(1_000, Request::Tick);
    assert_eq!(log.map.sessions_len(), 100);
    assert_eq!(log.map.next_expiry(), Some(LogTime(1_600)));
}

#[test]
fn next_expiry_is_the_head_of_the_queue() {
    let mut log = Log::new(SMALL);
    assert_eq!(log.map.next_expiry(), None);
    let session = log.open(5, ALICE);
    log.open(7, ALICE);
    assert_eq!(log.map.next_expiry(), Some(LogTime(1_005)));
    log.close(8, ALICE, session);
    assert_eq!(log.map.next_expiry(), Some(LogTime(1_007)));
}

#[test]
fn closed_sessions_leave_nothing_in_the_queue() {
    let mut log = Log::new(SMALL);
    for _ in 0..1_000 {
        let session = log.open(0, ALICE);
        log.run(1, session, (1, 1), put("a", "x"));
        log.close(2, ALICE, session);
    }
    assert_eq!((log.map.sessions_len(), log.map.replies_len(), log.map.next_expiry()), (0, 0, None));
}

#[test]
fn a_time_to_live_beyond_all_time_expires_only_at_its_end() {
    let mut log = Log::new(Limits { session_ttl_ms: u64::MAX, ..SMALL });
    let session = log.open(10, ALICE);
    assert!(matches!(log.run(u64::MAX - 1, session, (1, 1), put("a", "x")), Outcome::Executed { .. }));
    assert_eq!(log.run(u64::MAX, session, (2, 1), put("a", "x")), refused(Refusal::SessionExpired));
    // Time stands still from here on, and nothing breaks.
    log.open(u64::MAX, ALICE);
    log.apply(u64::MAX, Request::Tick);
    assert_eq!(log.map.sessions_len(), 0);
}
