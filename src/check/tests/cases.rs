//! Cases by hand: what is right is not flagged; what is wrong is counted once, under its kind, by each checker that can
//! see it.

use super::deeds::{Ask, Deed, Told, history};
use crate::check::Kind::{
    self, Doubled, Lost, Miscompared, NeverSent, NoOrder, Reordered, StaleRead, TornRead,
};
use crate::check::{Budget, Checks, Findings, check};

const LOG: &str = "log";
const REGISTER: &str = "register";

fn deed(
    key: &'static str,
    number: u32,
    ask: Ask,
    (invoked, returned): (u64, u64),
    index: u64,
    told: Told,
) -> Deed {
    Deed { client: 1, number, key, ask, invoked, returned, index, told, is_last: false }
}

fn token(number: u32) -> String {
    format!("c1-{number:06};")
}

fn text(numbers: &[u32]) -> String {
    numbers.iter().map(|number| token(*number)).collect()
}

fn append(number: u32, times: (u64, u64), index: u64) -> Deed {
    deed(LOG, number, Ask::Append(token(number)), times, index, Told::Stored(index))
}

fn put(number: u32, times: (u64, u64), index: u64) -> Deed {
    deed(REGISTER, number, Ask::Put(token(number)), times, index, Told::Stored(index))
}

/// A read of these tokens at this version, from the state at `index`.
fn get(key: &'static str, times: (u64, u64), index: u64, (version, numbers): (u64, &[u32])) -> Deed {
    let told = if numbers.is_empty() { Told::Absent } else { Told::Found(version, text(numbers)) };
    deed(key, 90 + times.0 as u32, Ask::Get, times, index, told)
}

fn last(key: &'static str, seen: (u64, &[u32])) -> Deed {
    Deed { is_last: true, ..get(key, (1_000, 1_001), 20, seen) }
}

/// Three appends one after the other, a fourth unknown, a fifth refused, and reads in between.
fn log() -> Vec<Deed> {
    vec![
        append(1, (0, 10), 5),
        append(2, (20, 30), 6),
        append(3, (40, 50), 9),
        Deed { told: Told::Unknown, ..append(4, (45, 90), 0) },
        Deed { told: Told::Refused, ..append(5, (60, 70), 0) },
        get(LOG, (1, 2), 4, (0, &[])),
        get(LOG, (12, 13), 5, (5, &[1])),
        get(LOG, (35, 60), 7, (6, &[1, 2])),
        get(LOG, (61, 62), 9, (9, &[1, 2, 3])),
        last(LOG, (9, &[1, 2, 3])),
    ]
}

/// Two puts one after the other, a third unknown, a fourth refused.
fn register() -> Vec<Deed> {
    vec![
        put(1, (0, 10), 3),
        put(2, (20, 30), 4),
        Deed { told: Told::Unknown, ..put(3, (25, 90), 0) },
        Deed { told: Told::Refused, ..put(4, (25, 26), 0) },
        get(REGISTER, (11, 12), 3, (3, &[1])),
        get(REGISTER, (21, 22), 3, (3, &[1])),
        get(REGISTER, (31, 32), 4, (4, &[2])),
        last(REGISTER, (4, &[2])),
    ]
}

/// The log without its reads, and with another end.
fn log_that_ends_as(numbers: &[u32]) -> Vec<Deed> {
    let mut deeds = log();
    deeds.retain(|deed| deed.ask != Ask::Get);
    deeds.push(last(LOG, (9, numbers)));
    deeds
}

fn with(mut deeds: Vec<Deed>, more: Deed) -> Vec<Deed> {
    deeds.push(more);
    deeds
}

fn kinds(findings: &Findings) -> Vec<(&'static str, u64)> {
    findings.kinds().collect()
}

fn counts(expected: &[(Kind, u64)]) -> Vec<(&'static str, u64)> {
    let mut findings = Findings::default();
    for (kind, count) in expected {
        (0..*count).for_each(|_| findings.note(*kind, String::new));
    }
    findings.kinds().collect()
}

/// What order finds, and whether witness and search find something.
#[track_caller]
fn found(deeds: &[Deed], order: &[(Kind, u64)], witness: bool, search: bool) {
    let verdict = check(&history(deeds));
    assert_eq!(kinds(&verdict.order), counts(order), "{verdict}");
    assert_eq!(!verdict.witness.is_clean(), witness, "{verdict}");
    assert_eq!(kinds(&verdict.search), counts(if search { &[(NoOrder, 1)] } else { &[] }), "{verdict}");
    assert_eq!((verdict.checks.unknown(), verdict.checks.ordered), (0, 1), "{verdict}");
}

#[test]
fn what_is_right_is_not_flagged() {
    found(&log(), &[], false, false);
    found(&register(), &[], false, false);
}

#[test]
fn an_unknown_write_may_be_there_once() {
    let mut deeds = log();
    deeds.pop();
    found(&with(deeds, last(LOG, (12, &[1, 2, 3, 4]))), &[], false, false);
    let mut deeds = register();
    deeds.pop();
    found(&with(deeds, last(REGISTER, (7, &[3]))), &[], false, false);
}

#[test]
fn a_dropped_token_is_lost() {
    found(&log_that_ends_as(&[1, 3]), &[(Lost, 1)], true, true);
    found(&log_that_ends_as(&[]), &[(Lost, 3)], true, true);
    let mut deeds = log();
    deeds.pop();
    // Reads had seen it.
    found(&with(deeds, last(LOG, (9, &[1, 3]))), &[(Lost, 1), (TornRead, 2)], true, true);
}

#[test]
fn a_doubled_token_is_flagged() {
    for numbers in [&[1, 2, 2, 3][..], &[1, 2, 3, 1], &[1, 2, 3, 4, 4]] {
        found(&log_that_ends_as(numbers), &[(Doubled, 1)], true, true);
    }
}

#[test]
fn swapped_tokens_are_flagged_unless_they_were_concurrent() {
    found(&log_that_ends_as(&[1, 3, 2]), &[(Reordered, 1)], true, true);
    // The fourth was sent after two others had been acknowledged, and beside the third.
    found(&log_that_ends_as(&[4, 1, 2, 3]), &[(Reordered, 2)], true, true);
    found(&log_that_ends_as(&[1, 2, 4, 3]), &[], false, false);
}

#[test]
fn versions_against_the_order_are_flagged() {
    let mut deeds = log_that_ends_as(&[1, 2, 3]);
    deeds[1].told = Told::Stored(10);
    found(&deeds, &[(Reordered, 1)], true, true);
}

#[test]
fn what_nobody_sent_or_what_was_refused_is_flagged() {
    found(&log_that_ends_as(&[1, 2, 3, 77]), &[(NeverSent, 1)], true, true);
    found(&log_that_ends_as(&[1, 2, 3, 5]), &[(NeverSent, 1)], true, true);
    let mut deeds = log_that_ends_as(&[]);
    let end = deeds.last_mut().expect("a last get");
    end.told = Told::Found(9, text(&[1, 2, 3]) + "c1-00");
    found(&deeds, &[(NeverSent, 1)], true, true);
}

#[test]
fn a_read_that_misses_what_was_acknowledged_is_stale() {
    found(&with(log(), get(LOG, (31, 32), 6, (5, &[1]))), &[(StaleRead, 1)], true, true);
    found(&with(log(), get(LOG, (31, 32), 6, (0, &[]))), &[(StaleRead, 1)], true, true);
    found(&with(log(), get(LOG, (29, 32), 5, (5, &[1]))), &[], false, false);
}

#[test]
fn a_log_that_shrinks_from_one_read_to_the_next_is_stale() {
    // While the second append was under way one read saw it, and a later one did not.
    let deeds = with(log(), get(LOG, (21, 22), 6, (6, &[1, 2])));
    found(&with(deeds, get(LOG, (23, 24), 6, (5, &[1]))), &[(StaleRead, 1)], true, true);
}

#[test]
fn a_read_of_what_never_was_is_torn() {
    for numbers in [&[1, 3][..], &[3, 2, 1]] {
        found(&with(log(), get(LOG, (61, 62), 9, (9, numbers))), &[(TornRead, 1)], true, true);
    }
    found(&with(log(), get(LOG, (61, 62), 9, (8, &[1, 2, 3]))), &[(TornRead, 1)], true, true);
}

#[test]
fn a_read_before_the_write_was_sent_is_flagged() {
    found(&with(log(), get(LOG, (15, 19), 6, (6, &[1, 2]))), &[(NeverSent, 1)], true, true);
    // It also puts the second write, sent later, behind a version that was seen.
    let expected = [(Reordered, 1), (NeverSent, 1), (StaleRead, 1)];
    found(&with(register(), get(REGISTER, (15, 19), 4, (4, &[2]))), &expected, true, true);
}

#[test]
fn a_register_that_lost_its_last_put_is_flagged() {
    for end in [(3, &[1][..]), (0, &[])] {
        let mut deeds = register();
        deeds.pop();
        found(&with(deeds, last(REGISTER, end)), &[(Lost, 1)], true, true);
    }
}

#[test]
fn a_put_that_counts_twice_has_two_versions() {
    let mut deeds = register();
    deeds.pop();
    found(&with(deeds, last(REGISTER, (6, &[1]))), &[(Doubled, 1)], true, true);
    let mut deeds = register();
    deeds.pop();
    for times in [(50, 51), (52, 53)] {
        deeds.push(get(REGISTER, times, 8, (8, &[2])));
    }
    found(&with(deeds, last(REGISTER, (9, &[3]))), &[(Doubled, 1)], true, true);
}

#[test]
fn stale_and_foreign_values_of_a_register_are_flagged() {
    found(&with(register(), get(REGISTER, (31, 32), 4, (3, &[1]))), &[(StaleRead, 1)], true, true);
    for number in [77, 4] {
        found(&with(register(), get(REGISTER, (33, 34), 4, (4, &[number]))), &[(NeverSent, 1)], true, true);
    }
    found(&with(register(), get(REGISTER, (33, 34), 4, (4, &[3]))), &[(TornRead, 1)], true, true);
}

#[test]
fn puts_against_real_time_are_flagged() {
    let deeds = vec![put(1, (0, 10), 3), put(2, (20, 30), 2), last(REGISTER, (3, &[1]))];
    found(&deeds, &[(Reordered, 1)], true, true);
}

#[test]
fn without_a_last_get_a_log_shows_no_order_and_its_reads_are_judged_all_the_same() {
    let mut deeds = log();
    deeds.pop();
    let verdict = check(&history(&deeds));
    assert!(verdict.is_clean() && verdict.checks.ordered == 0, "{verdict}");
    deeds.push(get(LOG, (63, 64), 9, (6, &[1, 2])));
    let verdict = check(&history(&deeds));
    assert_eq!((verdict.witness.count(StaleRead), verdict.search.count(NoOrder)), (1, 1), "{verdict}");
}

#[test]
fn comparisons_and_removals_that_cannot_be_are_flagged() {
    let swap = |version, number, times, index, told| {
        deed(REGISTER, number, Ask::Compare(version, token(number)), times, index, told)
    };
    let remove = |times, existed| deed(REGISTER, 80, Ask::Delete, times, 9, Told::Deleted(existed));
    for (more, right) in [
        (swap(4, 9, (40, 50), 9, Told::Stored(9)), true),
        (swap(3, 9, (40, 50), 9, Told::Stored(9)), false),
        (swap(0, 9, (40, 50), 9, Told::Stored(9)), false),
        (swap(3, 9, (40, 50), 9, Told::Mismatch(4)), true),
        (swap(3, 9, (40, 50), 9, Told::Mismatch(3)), false),
        (swap(3, 9, (40, 50), 9, Told::Mismatch(0)), false),
        (remove((40, 50), true), true),
        (remove((40, 50), false), false),
    ] {
        let verdict = check(&history(&[put(1, (0, 10), 3), put(2, (20, 30), 4), more.clone()]));
        let expected = if right { vec![] } else { counts(&[(Miscompared, 1)]) };
        assert_eq!(kinds(&verdict.witness), expected, "{more:?}\n{verdict}");
        assert_eq!(verdict.search.is_clean(), right, "{more:?}\n{verdict}");
    }
}

#[test]
fn a_log_that_got_a_token_twice_is_left_to_the_others() {
    let deeds = [append(1, (0, 10), 5), append(1, (20, 30), 6), last(LOG, (6, &[1, 1]))];
    let verdict = check(&history(&deeds));
    assert!(
        verdict.is_clean() && (verdict.checks.ordered, verdict.checks.answers.checks) == (0, 3),
        "{verdict}"
    );
    let deeds = [append(1, (0, 10), 5), append(1, (20, 30), 6), last(LOG, (6, &[1]))];
    let verdict = check(&history(&deeds));
    assert!(!verdict.witness.is_clean() && !verdict.search.is_clean(), "{verdict}");
}

/// Forty appends that nobody heard of, without versions and places, and a value that none of them made: there are too
/// many ways to try.
#[test]
fn what_cannot_be_tried_is_unknown_and_one_in_a_thousand_is_too_much() {
    let mut deeds: Vec<Deed> =
        (1..=40).map(|number| Deed { told: Told::Unknown, ..append(number, (0, 1), 0) }).collect();
    let strange = deed(LOG, 99, Ask::Get, (10, 11), 0, Told::Found(0, "z".repeat(4_000)));
    deeds.push(strange);
    let verdict = check(&history(&deeds));
    assert_eq!(verdict.checks.windows, Budget { checks: 1, unknown: 1 }, "{verdict}");
    assert!(
        verdict.is_clean() && !verdict.passed() && verdict.to_string().contains("of a kind is unknown"),
        "{verdict}"
    );
}

/// Between two answers with a place are more unknown appends than are told apart: from there on no answer of that key is
/// judged by its place, and each counts.
#[test]
fn every_answer_that_is_not_judged_counts() {
    let mut deeds = vec![append(1, (0, 10), 5)];
    deeds.extend((1..=64).map(|number| Deed { told: Told::Unknown, ..append(100 + number, (20, 21), 0) }));
    deeds.extend((2..=4).map(|number| {
        append(number, (20 * u64::from(number), 20 * u64::from(number) + 10), 100 + u64::from(number))
    }));
    let verdict = check(&history(&deeds));
    assert_eq!(verdict.checks.answers, Budget { checks: 4, unknown: 3 }, "{verdict}");
}

#[test]
fn many_checks_of_one_kind_do_not_hide_what_another_does_not_know() {
    let budget = |checks, unknown| Budget { checks, unknown };
    for (answers, windows, too_many) in [
        (budget(1_000, 1), budget(1_000, 1), false),
        (budget(999, 1), budget(1_000_000, 0), true),
        (budget(1_000_000, 0), budget(999, 1), true),
        (budget(0, 0), budget(0, 0), false),
    ] {
        let checks = Checks { ordered: 1_000_000, answers, windows };
        assert_eq!(checks.too_many_unknown(), too_many, "{checks:?}");
    }
}
