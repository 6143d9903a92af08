//! The checkers against histories that cannot be: a good one passes, and each way to falsify it is flagged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::history::{Call, End, What};
use super::{order, witness};

const LOG: &str = "log";
const REGISTER: &str = "reg";

fn call(key: &str, what: What, (invoked, returned): (u64, u64), end: End) -> Call {
    let returned = Some(Duration::from_millis(returned));
    Call { key: key.into(), what, invoked: Duration::from_millis(invoked), returned, end }
}

fn append(token: &str, times: (u64, u64), index: u64) -> Call {
    call(LOG, What::Append { token: token.into() }, times, End::Written { index })
}

fn read(key: &str, times: (u64, u64), index: u64, version: u64, value: &str) -> Call {
    call(key, What::Read, times, End::Read { index, found: Some((version, value.into())) })
}

/// Two clients append and read; one append has no known end.
fn log() -> Vec<Call> {
    let mut unknown = append("u;", (1, 2), 0);
    (unknown.end, unknown.returned) = (End::Unknown, None);
    vec![
        append("a;", (1, 3), 2),
        append("b;", (2, 6), 4),
        unknown,
        read(LOG, (4, 5), 2, 2, "a;"),
        read(LOG, (7, 9), 4, 4, "a;u;b;"),
        append("c;", (8, 12), 5),
        read(LOG, (13, 14), 5, 5, "a;u;b;c;"),
    ]
}

fn register() -> Vec<Call> {
    let put = |value: &str, times, index| {
        call(REGISTER, What::Put { value: value.into() }, times, End::Written { index })
    };
    let swap = |version, value: &str, times, end| {
        call(REGISTER, What::Compare { version, value: value.into() }, times, end)
    };
    vec![
        put("1;", (1, 2), 2),
        read(REGISTER, (3, 4), 2, 2, "1;"),
        swap(2, "2;", (5, 6), End::Written { index: 3 }),
        swap(2, "3;", (7, 8), End::Mismatch { index: 4, current: 3 }),
        call(REGISTER, What::Delete, (9, 10), End::Written { index: 5 }),
        call(REGISTER, What::Read, (11, 12), End::Read { index: 5, found: None }),
        swap(0, "4;", (13, 14), End::Written { index: 6 }),
    ]
}

fn last(value: &str) -> BTreeMap<String, String> {
    [(LOG.to_string(), value.to_string())].into()
}

const LAST: &str = "a;u;b;c;";

#[track_caller]
fn unwitnessed(mut calls: Vec<Call>, change: impl FnOnce(&mut Vec<Call>), words: &str) {
    change(&mut calls);
    let error = witness::check(&calls).expect_err(words);
    assert!(error.contains(words), "{error}");
}

#[track_caller]
fn disordered(change: impl FnOnce(&mut Vec<Call>), value: &str, words: &str) {
    let mut calls = log();
    change(&mut calls);
    let error = order::check(&calls, &last(value)).expect_err(words);
    assert!(error.contains(words), "{error}");
}

fn sees(call: &mut Call, at: u64, value: Option<(u64, &str)>) {
    call.end = End::Read { index: at, found: value.map(|(version, value)| (version, value.into())) };
}

#[test]
fn what_can_be_passes() {
    assert_eq!(witness::check(&log()), Ok(()));
    assert_eq!(witness::check(&register()), Ok(()));
    assert_eq!(order::check(&log(), &last(LAST)), Ok(()));
    let mut without: Vec<Call> = log();
    without.retain(|call| call.is_write());
    assert_eq!(order::check(&without, &last("a;b;c;")), Ok(()), "what is unknown may have happened never");
}

#[test]
fn the_witness_sees_stale_dropped_swapped_and_doubled() {
    unwitnessed(log(), |calls| sees(&mut calls[6], 5, Some((4, "a;u;b;"))), "stale");
    unwitnessed(log(), |calls| sees(&mut calls[6], 4, Some((4, "a;u;b;"))), "had been reached");
    unwitnessed(log(), |calls| sees(&mut calls[6], 5, Some((5, "a;u;c;"))), "should not be");
    unwitnessed(log(), |calls| sees(&mut calls[6], 5, Some((5, "a;u;b;c;c;"))), "c; is there");
    unwitnessed(log(), |calls| sees(&mut calls[6], 5, Some((5, "b;a;u;c;"))), "should not be");
    unwitnessed(log(), |calls| sees(&mut calls[6], 6, Some((6, "a;u;b;"))), "c; is missing");
    unwitnessed(log(), |calls| sees(&mut calls[6], 5, None), "absent");
    unwitnessed(log(), |calls| sees(&mut calls[4], 4, Some((5, "a;u;b;"))), "newer than the state");
    unwitnessed(log(), |calls| calls[5].end = End::Written { index: 4 }, "two writes at place 4");
    unwitnessed(log(), |calls| calls[5].end = End::Written { index: 3 }, "had been reached");
    unwitnessed(log(), |calls| calls[2].end = End::NotDone, "u; is there");
}

#[test]
fn the_witness_sees_false_comparisons() {
    let mismatch = |current| End::Mismatch { index: 4, current };
    unwitnessed(register(), |calls| calls[3].end = mismatch(2), "compared with 2, it was 3");
    unwitnessed(register(), |calls| calls[3].end = mismatch(4), "compared with 4, it was 3");
    unwitnessed(register(), |calls| calls[3].end = End::Written { index: 4 }, "swapped 2, it was 3");
    unwitnessed(register(), |calls| sees(&mut calls[5], 5, Some((3, "2;"))), "stale");
    unwitnessed(register(), |calls| sees(&mut calls[1], 2, Some((2, "9;"))), "9; is there");
}

#[test]
fn the_order_sees_lost_doubled_invented_and_refused() {
    disordered(|_| {}, "a;u;c;", "lost");
    disordered(|_| {}, "a;u;b;c;a;", "twice");
    disordered(|_| {}, "a;u;b;c;z;", "never sent");
    disordered(|calls| calls[2].end = End::NotDone, LAST, "refused, and there");
}

#[test]
fn the_order_sees_swapped_and_stale() {
    disordered(|calls| calls.retain(Call::is_write), "c;a;u;b;", "stands before");
    disordered(|calls| sees(&mut calls[6], 5, Some((4, "a;u;b;"))), LAST, "stale");
    disordered(|calls| sees(&mut calls[6], 5, None), LAST, "stale");
    disordered(|calls| sees(&mut calls[6], 5, Some((5, "a;b;u;c;"))), LAST, "never had");
    disordered(|calls| sees(&mut calls[3], 5, Some((5, "a;u;b;c;"))), LAST, "before it was sent");
}
