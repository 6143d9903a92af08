//! One lie in a true history, and who must find it. Every lie is told in hundreds of histories; the seed is in every
//! message.

use super::deeds::{Ask, Deed, Told, history};
use super::world::{Dice, SHAPE, Shape, run};
use crate::check::{Checks, check};

const SEEDS: u64 = 120;

/// Who must see it: by order, by witness, by search.
const ALL: [bool; 3] = [true, true, true];
const NOT_ORDER: [bool; 3] = [false, true, true];
const WITNESS: [bool; 3] = [false, true, false];

#[test]
fn true_histories_are_never_flagged() {
    let shapes = [
        SHAPE,
        Shape { unknown: 0, ..SHAPE },
        Shape { unknown: 4, clients: 4, ..SHAPE },
        Shape { clients: 8, operations: 100, unknown: 0, ..SHAPE },
        Shape { last: false, clients: 3, ..SHAPE },
    ];
    for (number, shape) in shapes.into_iter().enumerate() {
        let mut checks = Checks::default();
        for seed in 0..40 {
            let verdict = check(&history(&run(shape, seed)));
            assert!(verdict.is_clean(), "shape {number}, seed {seed}:\n{verdict}");
            checks += verdict.checks;
        }
        // Without the last value of a log, unknown appends can hide at too many places.
        assert!(!checks.too_many_unknown() || !shape.last, "shape {number}: {checks:?}");
    }
}

/// Tells the lie in many histories: everybody who must see it does, each time.
#[track_caller]
fn told(shape: Shape, [order, witness, search]: [bool; 3], lie: impl Fn(&mut Vec<Deed>, &mut Dice) -> bool) {
    let mut count = 0;
    for seed in 0..SEEDS {
        let mut deeds = run(shape, seed);
        if !lie(&mut deeds, &mut Dice::new(seed, 1)) {
            continue;
        }
        count += 1;
        let verdict = check(&history(&deeds));
        assert!(!order || !verdict.order.is_clean(), "seed {seed}: not seen by order\n{verdict}");
        assert!(!witness || !verdict.witness.is_clean(), "seed {seed}: not seen by witness\n{verdict}");
        assert!(!search || !verdict.search.is_clean(), "seed {seed}: not seen by search\n{verdict}");
        assert!(!verdict.passed(), "seed {seed}");
    }
    assert!(count > SEEDS / 3, "it could be told {count} times");
}

fn places(deeds: &[Deed], wanted: impl Fn(&Deed) -> bool) -> Vec<usize> {
    (0..deeds.len()).filter(|at| wanted(&deeds[*at])).collect()
}

fn is_log(deed: &Deed) -> bool {
    deed.key.starts_with("log")
}

fn is_register(deed: &Deed) -> bool {
    deed.key.starts_with("reg")
}

/// (first, second) of one key where the second began after the first had returned.
fn pairs(
    deeds: &[Deed],
    first: impl Fn(&Deed) -> bool,
    second: impl Fn(&Deed, &Deed) -> bool,
) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for one in places(deeds, first) {
        let follows = |deed: &Deed| deed.key == deeds[one].key && deed.invoked > deeds[one].returned;
        pairs.extend(
            places(deeds, |deed| follows(deed) && second(&deeds[one], deed))
                .into_iter()
                .map(|other| (one, other)),
        );
    }
    pairs
}

/// What every get of `key` found, changed.
fn reword(deeds: &mut [Deed], key: &str, change: impl Fn(&str) -> String) {
    for deed in deeds.iter_mut().filter(|deed| deed.key == key) {
        if let Told::Found(_, value) = &mut deed.told {
            *value = change(value);
        }
    }
}

/// What the key was just before the write at `place`, as far as reads can tell: the get that would have seen it.
fn before(deeds: &[Deed], place: usize) -> Option<Told> {
    let key = deeds[place].key;
    let version = deeds[place].stored()?;
    let mut older =
        deeds.iter().filter(|deed| deed.key == key && deed.found().is_some_and(|(found, _)| found < version));
    Some(older.next_back().map_or(Told::Absent, |deed| deed.told.clone()))
}

#[test]
fn a_stale_read() {
    for kind in [is_log as fn(&Deed) -> bool, is_register] {
        told(SHAPE, ALL, |deeds, dice| {
            let write = |deed: &Deed| kind(deed) && deed.stored().is_some();
            let pairs = pairs(deeds, write, |_, deed| !deed.is_last && deed.found().is_some());
            let Some((write, read)) = dice.pick(&pairs) else { return false };
            deeds[read].told = before(deeds, write).expect("it was stored");
            true
        });
    }
}

#[test]
fn a_dropped_append() {
    told(SHAPE, ALL, |deeds, dice| {
        let Some(append) = dice.pick(&places(deeds, |deed| is_log(deed) && deed.is_acked_write())) else {
            return false;
        };
        let (key, token) = (deeds[append].key, deeds[append].token().expect("an append").to_string());
        reword(deeds, key, |value| value.replace(&token, ""));
        true
    });
}

#[test]
fn a_lost_put() {
    told(SHAPE, ALL, |deeds, dice| {
        let is_put = |deed: &Deed| is_register(deed) && deed.stored().is_some();
        let pairs = pairs(deeds, is_put, |_, deed| deed.is_last);
        let Some((write, last)) = dice.pick(&pairs) else { return false };
        deeds[last].told = before(deeds, write).expect("it was stored");
        true
    });
}

#[test]
fn swapped_appends() {
    told(SHAPE, ALL, |deeds, dice| {
        let acked = |deed: &Deed| is_log(deed) && deed.is_acked_write();
        let Some((one, other)) = dice.pick(&pairs(deeds, acked, |_, deed| acked(deed))) else { return false };
        let token = |at: usize| deeds[at].token().expect("an append").to_string();
        let (key, a, b) = (deeds[one].key, token(one), token(other));
        reword(deeds, key, |value| value.replace(&a, "#").replace(&b, &a).replace('#', &b));
        true
    });
}

#[test]
fn a_doubled_append_known_or_unknown() {
    for unknown in [false, true] {
        told(SHAPE, ALL, |deeds, dice| {
            let Some(last) = dice.pick(&places(deeds, |deed| deed.is_last && is_log(deed))) else {
                return false;
            };
            let Some((version, value)) = deeds[last].found() else { return false };
            let value = value.to_string();
            let there = |deed: &Deed| {
                deed.key == deeds[last].key
                    && (deed.told == Told::Unknown) == unknown
                    && deed.token().is_some_and(|token| value.contains(token))
            };
            let Some(append) = dice.pick(&places(deeds, there)) else { return false };
            let token = deeds[append].token().expect("an append");
            deeds[last].told = Told::Found(version, format!("{value}{token}"));
            true
        });
    }
}

#[test]
fn an_unknown_put_that_shows_up_twice() {
    let shape = Shape { clients: 3, keys: &["reg-0"], ..SHAPE };
    told(shape, ALL, |deeds, dice| {
        let unknown = places(deeds, |deed| deed.told == Told::Unknown && deed.token().is_some());
        let seen = |token: &str| {
            let read = deeds.iter().find(|deed| deed.found().is_some_and(|(_, value)| value == token))?;
            let over = deeds.iter().find(|deed| deed.stored().is_some() && deed.invoked > read.returned)?;
            Some((token.to_string(), over.index))
        };
        let twice: Vec<_> = unknown.iter().filter_map(|at| seen(deeds[*at].token()?)).collect();
        let Some((token, _)) = dice.pick(&twice) else { return false };
        let Some(last) = deeds.iter_mut().find(|deed| deed.is_last) else { return false };
        last.index += 1_000;
        last.told = Told::Found(last.index, token);
        true
    });
}

#[test]
fn a_value_from_nowhere() {
    told(SHAPE, ALL, |deeds, dice| {
        let found = |deed: &Deed| {
            deed.found().is_some() && !deed.key.starts_with("mix") && (deed.is_last || is_register(deed))
        };
        let Some(read) = dice.pick(&places(deeds, found)) else { return false };
        if let Told::Found(_, value) = &mut deeds[read].told {
            *value = if value.len() > 20 { format!("{value}zzz;") } else { "zzz;".into() };
        }
        true
    });
}

#[test]
fn a_refused_write_that_is_there() {
    told(SHAPE, ALL, |deeds, dice| {
        let Some(write) = dice.pick(&visible(deeds)) else { return false };
        deeds[write].told = Told::Refused;
        true
    });
}

#[test]
fn a_write_that_nobody_sent() {
    told(SHAPE, ALL, |deeds, dice| {
        let Some(write) = dice.pick(&visible(deeds)) else { return false };
        deeds.remove(write);
        true
    });
}

#[test]
fn a_write_that_was_seen_before_it_was_sent() {
    told(SHAPE, ALL, |deeds, dice| {
        let Some(write) = dice.pick(&visible(deeds)) else { return false };
        let token = deeds[write].token().expect("a write");
        let sees = |deed: &&Deed| {
            deed.key == deeds[write].key && deed.found().is_some_and(|(_, value)| value.contains(token))
        };
        let seen = deeds.iter().find(sees).expect("it is visible").returned;
        (deeds[write].invoked, deeds[write].returned) = (seen + 1, seen + 2);
        true
    });
}

/// Acknowledged writes whose token some get found, but for keys of all kinds of writes.
fn visible(deeds: &[Deed]) -> Vec<usize> {
    places(deeds, |write| {
        let token = write.token().filter(|_| write.stored().is_some() && !write.key.starts_with("mix"));
        token.is_some_and(|token| {
            deeds.iter().any(|deed| {
                deed.key == write.key && deed.found().is_some_and(|(_, value)| value.contains(token))
            })
        })
    })
}

/// No unknown write explains what comes out wrong.
const KNOWN: Shape = Shape { unknown: 0, ..SHAPE };

#[test]
fn a_comparison_with_another_version() {
    told(SHAPE, NOT_ORDER, |deeds, dice| {
        let swapped = |deed: &Deed| matches!(deed.ask, Ask::Compare(..)) && deed.stored().is_some();
        let Some(at) = dice.pick(&places(deeds, swapped)) else { return false };
        if let Ask::Compare(version, _) = &mut deeds[at].ask {
            *version += 1_000;
        }
        true
    });
}

#[test]
fn a_comparison_that_should_not_have_matched() {
    told(KNOWN, NOT_ORDER, |deeds, dice| {
        let Some(at) = dice.pick(&places(deeds, |deed| matches!(deed.told, Told::Mismatch(_)))) else {
            return false;
        };
        deeds[at].told = Told::Stored(deeds[at].index);
        true
    });
}

#[test]
fn a_comparison_that_should_have_matched() {
    told(KNOWN, NOT_ORDER, |deeds, dice| {
        let swapped = |deed: &Deed| matches!(deed.ask, Ask::Compare(..)) && deed.stored().is_some();
        let Some(at) = dice.pick(&places(deeds, swapped)) else { return false };
        let Ask::Compare(version, _) = deeds[at].ask else { return false };
        deeds[at].told = Told::Mismatch(version + 1);
        true
    });
}

#[test]
fn a_removal_of_nothing_or_not() {
    let lie = |deeds: &mut Vec<Deed>, dice: &mut Dice| {
        let removals = places(deeds, |deed| matches!(deed.told, Told::Deleted(_)));
        let Some(at) = dice.pick(&removals) else { return false };
        if let Told::Deleted(existed) = &mut deeds[at].told {
            *existed = !*existed;
        }
        true
    };
    // Beside other writes it may have stood elsewhere, but for the witness.
    let mixed = Shape { keys: &["mix-0"], ..KNOWN };
    told(mixed, WITNESS, lie);
    told(Shape { clients: 1, operations: 60, ..mixed }, NOT_ORDER, |deeds, dice| {
        for (at, deed) in (1..).zip(deeds.iter_mut()) {
            (deed.invoked, deed.returned) = (10 * at, 10 * at + 5);
        }
        lie(deeds, dice)
    });
}

#[test]
fn writes_whose_versions_contradict_real_time() {
    told(SHAPE, ALL, |deeds, dice| {
        let stored = |deed: &Deed| (is_log(deed) || is_register(deed)) && deed.stored().is_some();
        let Some((one, other)) = dice.pick(&pairs(deeds, stored, |_, deed| stored(deed))) else {
            return false;
        };
        let (low, high) = (deeds[one].index, deeds[other].index);
        (deeds[one].index, deeds[one].told) = (high, Told::Stored(high));
        (deeds[other].index, deeds[other].told) = (low, Told::Stored(low));
        true
    });
}

#[test]
fn places_that_contradict_real_time() {
    told(SHAPE, WITNESS, |deeds, dice| {
        let acked = Deed::is_acked_write;
        let Some((one, other)) = dice.pick(&pairs(deeds, acked, |_, deed| deed.is_acked_write())) else {
            return false;
        };
        let (low, high) = (deeds[one].index, deeds[other].index);
        (deeds[one].index, deeds[other].index) = (high, low);
        true
    });
    told(SHAPE, WITNESS, |deeds, dice| {
        let got = |write: &Deed, deed: &Deed| {
            deed.ask == Ask::Get && deed.index > 0 && write.index > 1 && told_place(deed)
        };
        let Some((write, read)) = dice.pick(&pairs(deeds, Deed::is_acked_write, got)) else { return false };
        deeds[read].index = deeds[write].index - 1;
        true
    });
}

fn told_place(deed: &Deed) -> bool {
    matches!(deed.told, Told::Absent | Told::Found(..))
}

#[test]
fn two_writes_at_one_place() {
    told(SHAPE, WITNESS, |deeds, dice| {
        let acked = places(deeds, Deed::is_acked_write);
        let (Some(one), Some(other)) = (dice.pick(&acked), dice.pick(&acked)) else { return false };
        deeds[one].index = deeds[other].index;
        one != other
    });
}
