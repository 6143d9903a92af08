//! The checker against histories that are true by construction, and against the same ones with one lie in them. The
//! seed is in every message.

use std::collections::BTreeMap;

use super::super::history::{Fingerprint, History, Key, Moment, Outcome, Read, Seen, Token, Write};
use super::{Findings, Last, check};
use crate::cli::random::Random;

const LOG: Key = Key::Log { log: 0, part: 0 };
const REGISTER: Key = Key::Register { number: 0 };

/// A run of a map that does everything right, and the values after it.
#[derive(Clone, Default)]
struct Run {
    history: History,
    last: BTreeMap<Key, Last>,
}

impl Run {
    fn check(&self) -> Findings {
        check(&self.history, &self.last)
    }

    fn write(&mut self, key: Key, number: u32, times: [Moment; 2], outcome: Outcome) {
        let token = Token { client: 1, number };
        self.history.writes.push(Write { token, key, invoked: times[0], returned: times[1], outcome });
    }

    fn read(&mut self, key: Key, times: [Moment; 2], seen: Seen) {
        self.history.reads.push(Read { key, invoked: times[0], returned: times[1], seen });
    }
}

fn acked(version: u64) -> Outcome {
    Outcome::Acked { version }
}

/// The tokens of client 1 with these numbers, one behind the other.
fn text(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| Token { client: 1, number: *number }.to_string().into_bytes()).collect()
}

fn seen(version: u64, numbers: &[u32]) -> Seen {
    Seen::of(version, &text(numbers))
}

/// Three appends one after the other, then a fourth that is unknown, and reads in between.
fn log_run() -> Run {
    let mut run = Run::default();
    run.write(LOG, 1, [0, 10], acked(5));
    run.write(LOG, 2, [20, 30], acked(6));
    run.write(LOG, 3, [40, 50], acked(9));
    run.write(LOG, 4, [45, 90], Outcome::Unknown);
    run.write(LOG, 5, [60, 70], Outcome::NotDone);
    run.read(LOG, [1, 2], Seen::ABSENT);
    run.read(LOG, [12, 13], seen(5, &[1]));
    run.read(LOG, [35, 60], seen(6, &[1, 2]));
    run.read(LOG, [61, 62], seen(9, &[1, 2, 3]));
    run.last.insert(LOG, Some((9, text(&[1, 2, 3]))));
    run
}

fn set_log(run: &mut Run, numbers: &[u32]) {
    run.last.insert(LOG, Some((9, text(numbers))));
    run.history.reads.clear();
}

/// Two puts one after the other, a third unknown, a fourth refused.
fn register_run() -> Run {
    let mut run = Run::default();
    run.write(REGISTER, 1, [0, 10], acked(3));
    run.write(REGISTER, 2, [20, 30], acked(4));
    run.write(REGISTER, 3, [25, 90], Outcome::Unknown);
    run.write(REGISTER, 4, [25, 26], Outcome::NotDone);
    run.read(REGISTER, [11, 12], seen(3, &[1]));
    run.read(REGISTER, [21, 22], seen(3, &[1]));
    run.read(REGISTER, [31, 32], seen(4, &[2]));
    run.last.insert(REGISTER, Some((4, text(&[2]))));
    run
}

#[track_caller]
fn count(run: &Run, lost: u64, doubled: u64, reordered: u64, never_sent: u64, stale: u64, torn: u64) {
    let found = run.check();
    let counts =
        [found.lost, found.doubled, found.reordered, found.never_sent, found.stale_reads, found.torn_reads];
    assert_eq!(counts, [lost, doubled, reordered, never_sent, stale, torn], "{:?}", found.examples);
    assert_eq!(found.is_clean(), counts == [0; 6]);
    assert_eq!(found.examples.len() as u64, counts.iter().sum::<u64>());
}

#[test]
fn what_is_right_is_not_flagged() {
    count(&log_run(), 0, 0, 0, 0, 0, 0);
    count(&register_run(), 0, 0, 0, 0, 0, 0);
}

#[test]
fn an_unknown_write_may_be_there_once() {
    let mut run = log_run();
    run.last.insert(LOG, Some((12, text(&[1, 2, 3, 4]))));
    count(&run, 0, 0, 0, 0, 0, 0);
    let mut run = register_run();
    run.last.insert(REGISTER, Some((7, text(&[3]))));
    count(&run, 0, 0, 0, 0, 0, 0);
}

#[test]
fn a_dropped_token_is_lost() {
    let mut run = log_run();
    set_log(&mut run, &[1, 3]);
    count(&run, 1, 0, 0, 0, 0, 0);
    run.last.insert(LOG, None);
    count(&run, 3, 0, 0, 0, 0, 0);
}

#[test]
fn a_token_that_a_read_saw_and_that_is_gone_tears_the_read() {
    let mut run = log_run();
    run.last.insert(LOG, Some((9, text(&[1, 3]))));
    let found = run.check();
    assert_eq!((found.lost, found.torn_reads), (1, 2), "{:?}", found.examples);
}

#[test]
fn a_doubled_token_is_flagged() {
    for numbers in [&[1, 2, 2, 3][..], &[1, 2, 3, 1], &[1, 2, 3, 4, 4]] {
        let mut run = log_run();
        set_log(&mut run, numbers);
        count(&run, 0, 1, 0, 0, 0, 0);
    }
}

#[test]
fn swapped_tokens_are_flagged_unless_they_were_concurrent() {
    let mut run = log_run();
    set_log(&mut run, &[1, 3, 2]);
    count(&run, 0, 0, 1, 0, 0, 0);
    let mut run = log_run();
    set_log(&mut run, &[4, 1, 2, 3]);
    // The fourth was sent after two others had been acknowledged, and beside the third.
    count(&run, 0, 0, 2, 0, 0, 0);
    let mut run = log_run();
    set_log(&mut run, &[1, 2, 4, 3]);
    count(&run, 0, 0, 0, 0, 0, 0);
}

#[test]
fn versions_against_the_order_are_flagged() {
    let mut run = log_run();
    run.history.reads.clear();
    run.history.writes[1].outcome = acked(10);
    count(&run, 0, 0, 1, 0, 0, 0);
}

#[test]
fn tokens_that_nobody_sent_or_that_were_refused_are_flagged() {
    for number in [77, 5] {
        let mut run = log_run();
        set_log(&mut run, &[1, 2, 3, number]);
        count(&run, 0, 0, 0, 1, 0, 0);
    }
    let mut run = log_run();
    run.last.insert(LOG, Some((9, [text(&[1, 2, 3]), b"c1-00".to_vec()].concat())));
    count(&run, 0, 0, 0, 1, 0, 0);
}

#[test]
fn a_read_that_misses_what_was_acknowledged_is_stale() {
    let mut run = log_run();
    run.read(LOG, [31, 32], seen(5, &[1]));
    count(&run, 0, 0, 0, 0, 1, 0);
    let mut run = log_run();
    run.read(LOG, [31, 32], Seen::ABSENT);
    count(&run, 0, 0, 0, 0, 1, 0);
    let mut run = log_run();
    run.read(LOG, [29, 32], seen(5, &[1]));
    count(&run, 0, 0, 0, 0, 0, 0);
}

#[test]
fn a_log_that_shrinks_from_one_read_to_the_next_is_stale() {
    let mut run = log_run();
    // While the second append was under way one read saw it, and a later one did not.
    run.read(LOG, [21, 22], seen(6, &[1, 2]));
    run.read(LOG, [23, 24], seen(5, &[1]));
    count(&run, 0, 0, 0, 0, 1, 0);
}

#[test]
fn a_read_of_what_never_was_is_torn() {
    for strange in [seen(9, &[1, 3]), seen(9, &[3, 2, 1]), Seen { length: 15, ..seen(6, &[1, 2]) }] {
        let mut run = log_run();
        run.read(LOG, [61, 62], strange);
        count(&run, 0, 0, 0, 0, 0, 1);
    }
    let mut run = log_run();
    run.read(LOG, [61, 62], seen(8, &[1, 2, 3]));
    count(&run, 0, 0, 0, 0, 0, 1);
}

#[test]
fn a_read_before_the_write_was_sent_is_flagged() {
    let mut run = log_run();
    run.read(LOG, [15, 19], seen(6, &[1, 2]));
    count(&run, 0, 0, 0, 1, 0, 0);
    let mut run = register_run();
    run.read(REGISTER, [15, 19], seen(4, &[2]));
    // It also puts the second write, sent later, behind a version that was seen.
    count(&run, 0, 0, 1, 1, 1, 0);
}

#[test]
fn a_register_that_lost_its_last_put_is_flagged() {
    let mut run = register_run();
    run.last.insert(REGISTER, Some((3, text(&[1]))));
    count(&run, 1, 0, 0, 0, 0, 0);
    run.last.insert(REGISTER, None);
    count(&run, 1, 0, 0, 0, 0, 0);
}

#[test]
fn a_put_that_counts_twice_has_two_versions() {
    let mut run = register_run();
    run.last.insert(REGISTER, Some((6, text(&[1]))));
    count(&run, 0, 1, 0, 0, 0, 0);
    let mut run = register_run();
    run.read(REGISTER, [50, 51], seen(8, &[2]));
    run.read(REGISTER, [52, 53], seen(8, &[2]));
    run.last.insert(REGISTER, Some((9, text(&[3]))));
    count(&run, 0, 1, 0, 0, 0, 0);
}

#[test]
fn stale_and_foreign_register_values_are_flagged() {
    let mut run = register_run();
    run.read(REGISTER, [31, 32], seen(3, &[1]));
    count(&run, 0, 0, 0, 0, 1, 0);
    for number in [77, 4] {
        let mut run = register_run();
        run.read(REGISTER, [31, 32], seen(4, &[number]));
        count(&run, 0, 0, 0, 1, 0, 0);
    }
    let mut run = register_run();
    run.read(REGISTER, [31, 32], seen(4, &[3]));
    count(&run, 0, 0, 0, 0, 0, 1);
}

#[test]
fn puts_against_real_time_are_flagged() {
    let mut run = register_run();
    run.history.reads.clear();
    run.history.writes[1].outcome = acked(2);
    run.last.insert(REGISTER, Some((3, text(&[1]))));
    count(&run, 0, 0, 1, 0, 0, 0);
}

#[test]
fn what_was_not_read_afterwards_is_not_judged() {
    let mut run = log_run();
    run.last.clear();
    count(&run, 0, 0, 0, 0, 0, 0);
}

/// A made-up operation: it takes effect at `point`, between its two other times.
struct Deed {
    key: Key,
    is_write: bool,
    times: [Moment; 3],
    token: Token,
}

fn deeds(random: &mut Random) -> Vec<Deed> {
    let keys = [LOG, Key::Log { log: 0, part: 1 }, REGISTER, Key::Register { number: 1 }];
    let mut deeds = Vec::new();
    for client in 0..1 + random.below(6) as u16 {
        let mut now = random.below(20);
        for number in 1..=60 {
            let point = now + random.below(40);
            let returned = point + random.below(40);
            let key = *random.pick(&keys).expect("there are four");
            let is_write = random.below(5) < 3;
            deeds.push(Deed {
                key,
                is_write,
                times: [now, point, returned],
                token: Token { client, number },
            });
            now = returned + random.below(10);
        }
    }
    deeds.sort_by_key(|deed| deed.times[1]);
    deeds
}

/// Executes the operations at their points on a map that does everything right.
fn random_run(seed: u64) -> Run {
    let mut random = Random::new(seed);
    let mut run = Run::default();
    let mut map: BTreeMap<Key, (u64, Vec<u8>)> = BTreeMap::new();
    for (version, deed) in (1..).zip(deeds(&mut random)) {
        let [invoked, _, returned] = deed.times;
        let key = deed.key;
        run.last.entry(key).or_default();
        if !deed.is_write {
            let seen = map.get(&key).map_or(Seen::ABSENT, |(version, value)| Seen::of(*version, value));
            run.history.reads.push(Read { key, invoked, returned, seen });
            continue;
        }
        let (outcome, executed) = match random.below(10) {
            0 => (Outcome::Unknown, true),
            1 => (Outcome::Unknown, false),
            2 => (Outcome::NotDone, false),
            _ => (acked(version), true),
        };
        run.history.writes.push(Write { token: deed.token, key, invoked, returned, outcome });
        if executed {
            let (last, value) = map.entry(key).or_default();
            *last = version;
            if matches!(key, Key::Register { .. }) {
                value.clear();
            }
            value.extend(deed.token.to_string().into_bytes());
        }
    }
    for (key, value) in map {
        run.last.insert(key, Some(value));
    }
    run
}

#[test]
fn true_histories_are_never_flagged() {
    for seed in 0..500 {
        let run = random_run(seed);
        let found = run.check();
        assert!(found.is_clean(), "seed {seed}: {:?}", found.examples);
    }
}

/// One of the acknowledged appends of the first log: which write it is, and where it stands in the value.
fn acked_place(run: &Run, random: &mut Random) -> Option<(usize, usize, usize)> {
    let value = run.last.get(&LOG)?.as_ref().map(|(_, value)| value.clone())?;
    let mut places = Vec::new();
    let mut start = 0;
    while let Some((token, length)) = Token::parse(value.get(start..)?) {
        let write = run.history.writes.iter().position(|write| write.token == token)?;
        if matches!(run.history.writes[write].outcome, Outcome::Acked { .. }) {
            places.push((write, start, start + length));
        }
        start += length;
    }
    random.pick(&places).copied()
}

fn log_value(run: &mut Run) -> &mut Vec<u8> {
    let last = run.last.get_mut(&LOG).and_then(Option::as_mut);
    &mut last.expect("the log was written").1
}

#[test]
fn one_lie_in_a_true_history_is_always_found() {
    let mut told = 0;
    for seed in 0..300 {
        let run = random_run(seed);
        let mut random = Random::branch(seed, 99);
        let Some((write, start, end)) = acked_place(&run, &mut random) else { continue };
        told += 1;

        let mut dropped = run.clone();
        log_value(&mut dropped).drain(start..end);
        assert!(dropped.check().lost == 1, "seed {seed}: dropped");

        let mut doubled = run.clone();
        let token = log_value(&mut doubled)[start..end].to_vec();
        log_value(&mut doubled).extend(token);
        assert!(doubled.check().doubled == 1, "seed {seed}: doubled");

        let mut refused = run.clone();
        refused.history.writes[write].outcome = Outcome::NotDone;
        assert!(refused.check().never_sent > 0, "seed {seed}: refused and there");

        let mut unsent = run.clone();
        unsent.history.writes.remove(write);
        assert!(unsent.check().never_sent > 0, "seed {seed}: never sent");

        let mut moved = run.clone();
        let token: Vec<u8> = log_value(&mut moved).drain(start..end).collect();
        let front = start == 0;
        if front {
            log_value(&mut moved).extend(token);
        } else {
            log_value(&mut moved).splice(0..0, token);
        }
        let alone = log_value(&mut moved).len() == end - start;
        // Moved past unknown tokens alone it may still be true: versions are then the only witness.
        let found = moved.check();
        assert!(alone || found.reordered + found.torn_reads > 0 || only_unknown(&run), "seed {seed}: moved");
    }
    assert!(told > 250, "{told} histories had an acknowledged append");
}

/// Whether at most one append of the log was acknowledged.
fn only_unknown(run: &Run) -> bool {
    let acked = |write: &&Write| write.key == LOG && matches!(write.outcome, Outcome::Acked { .. });
    run.history.writes.iter().filter(acked).count() < 2
}

#[test]
fn one_stale_read_in_a_true_history_is_always_found() {
    let mut told = 0;
    for seed in 0..300 {
        let mut run = random_run(seed);
        let mut random = Random::branch(seed, 7);
        let reads: Vec<usize> = (0..run.history.reads.len()).collect();
        let Some(chosen) = random.pick(&reads).copied() else { continue };
        let read = run.history.reads[chosen];
        let acked_before = run.history.writes.iter().any(|write| {
            write.key == read.key
                && write.returned < read.invoked
                && matches!(write.outcome, Outcome::Acked { .. })
        });
        if acked_before {
            told += 1;
            run.history.reads[chosen].seen = Seen::ABSENT;
            assert!(run.check().stale_reads > 0, "seed {seed}");
        }
    }
    assert!(told > 200, "{told} reads began after a write had been acknowledged");
}

#[test]
fn examples_are_bounded_and_counts_are_not() {
    let mut run = Run::default();
    for number in 1..=100 {
        run.write(LOG, number, [0, 1], acked(u64::from(number)));
    }
    run.last.insert(LOG, None);
    let found = run.check();
    assert_eq!((found.lost, found.examples.len()), (100, super::EXAMPLES_MAX));
    assert_eq!(Fingerprint::EMPTY, Seen::ABSENT.fingerprint);
}
