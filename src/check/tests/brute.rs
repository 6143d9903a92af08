//! The search against all orders: small histories, true ones and tampered ones, about which both must say the same.

use std::collections::BTreeSet;

use super::deeds::{Ask, Deed, Told, history};
use super::world::{Dice, Shape, run};
use crate::check::{Findings, lane, search, witness};

const HISTORIES: u64 = 4_000;

/// Whether any order explains all answers. Knows nothing of the search: values are text, every version is tried.
struct Brute<'a> {
    deeds: Vec<&'a Deed>,
    /// Versions that anybody was told or asked for.
    told: BTreeSet<u64>,
}

/// Version and value; no value: absent, its last change had that version.
type Key = (u64, Option<String>);

impl<'a> Brute<'a> {
    fn new(deeds: &'a [Deed]) -> Self {
        let mut told = BTreeSet::new();
        for deed in deeds {
            if let Ask::Compare(version, _) = deed.ask {
                told.insert(version);
            }
            if let Told::Stored(version) | Told::Mismatch(version) | Told::Found(version, _) = deed.told {
                told.insert(version);
            }
        }
        Self { deeds: deeds.iter().filter(|deed| deed.told != Told::Refused).collect(), told }
    }

    fn explains(&self, done: &mut BTreeSet<usize>, key: &Key) -> bool {
        let left: Vec<usize> = (0..self.deeds.len()).filter(|at| !done.contains(at)).collect();
        if left.iter().all(|at| self.deeds[*at].told == Told::Unknown) {
            return true;
        }
        for at in &left {
            let had_returned = |other: &usize| {
                let other = self.deeds[*other];
                other.told != Told::Unknown && other.returned < self.deeds[*at].invoked
            };
            if left.iter().any(had_returned) {
                continue;
            }
            done.insert(*at);
            let explained = self.next(self.deeds[*at], key).iter().any(|next| self.explains(done, next));
            done.remove(at);
            if explained {
                return true;
            }
        }
        false
    }

    /// What the key may be behind this, if it may be at all.
    fn next(&self, deed: &Deed, key: &Key) -> Vec<Key> {
        let (version, value) = key;
        let current = if value.is_some() { *version } else { 0 };
        let old = value.clone().unwrap_or_default();
        let (fits, new) = match &deed.ask {
            Ask::Put(new) => (true, Some(Some(new.clone()))),
            Ask::Append(more) => (true, Some(Some(old + more))),
            Ask::Compare(wanted, new) if *wanted == current => (true, Some(Some(new.clone()))),
            Ask::Compare(..) => (deed.told == Told::Mismatch(current) || deed.told == Told::Unknown, None),
            Ask::Delete => {
                let fits = deed.told == Told::Deleted(value.is_some()) || deed.told == Told::Unknown;
                (fits, value.is_some().then_some(None))
            }
            Ask::Get => {
                let seen = value.clone().map_or(Told::Absent, |value| Told::Found(*version, value));
                (deed.told == seen || deed.told == Told::Unknown, None)
            }
        };
        match (fits, new) {
            (false, _) => Vec::new(),
            (true, None) => vec![key.clone()],
            // Nobody is told the version of a removal.
            (true, Some(None)) => vec![(*version, None)],
            (true, Some(new)) => match deed.told {
                Told::Stored(told) if told > *version => vec![(told, new)],
                Told::Unknown => {
                    let higher = self.told.iter().copied().filter(|told| told > version);
                    higher.chain([version + 1]).map(|version| (version, new.clone())).collect()
                }
                Told::Stored(_) | Told::Refused | Told::Mismatch(_) | Told::Deleted(_) => Vec::new(),
                Told::Absent | Told::Found(..) => Vec::new(),
            },
        }
    }
}

fn brute(deeds: &[Deed]) -> bool {
    Brute::new(deeds).explains(&mut BTreeSet::new(), &(0, None))
}

/// Changes something at random: what was told, or when.
fn tamper(deeds: &mut [Deed], dice: &mut Dice) {
    let at = dice.below(deeds.len() as u64) as usize;
    let other = deeds[dice.below(deeds.len() as u64) as usize].clone();
    let deed = &mut deeds[at];
    match (dice.below(5), &mut deed.told) {
        (0, _) => {
            let shift = dice.below(60);
            (deed.invoked, deed.returned) = (deed.invoked + shift, deed.returned + shift);
        }
        (1, Told::Found(version, _)) => *version = (dice.below(6) + 1) * 100,
        (2, Told::Found(_, value)) => *value = other.token().unwrap_or("z;").to_string(),
        (3, Told::Found(_, value)) => value.push_str(other.token().unwrap_or_default()),
        (_, Told::Found(..)) => deed.told = Told::Absent,
        (_, Told::Absent) => deed.told = Told::Found(other.index, other.token().unwrap_or("").to_string()),
        (_, Told::Deleted(existed)) => *existed = !*existed,
        (_, Told::Mismatch(current)) => *current = dice.below(6) * 100,
        (1, Told::Stored(_)) if matches!(deed.ask, Ask::Compare(..)) => {
            deed.told = Told::Mismatch(other.index)
        }
        (2, Told::Stored(_)) => deed.told = Told::Unknown,
        (_, Told::Stored(version)) => *version = (dice.below(6) + 1) * 100,
        (_, Told::Unknown) if deed.ask == Ask::Put(String::new()) => {}
        (_, Told::Unknown | Told::Refused) => deed.told = Told::Refused,
    }
}

#[test]
fn the_search_says_what_all_orders_say() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..HISTORIES {
        let mut dice = Dice::new(seed, 2);
        let keys = dice.pick(&[&["log-0"], &["reg-0"], &["mix-0"]]).expect("three");
        let (clients, operations) =
            dice.pick(&[(2, 2), (2, 3), (3, 2), (5, 1), (1, 5), (6, 1)]).expect("six");
        let last = clients * operations < 6;
        let shape = Shape { clients, operations, keys, unknown: dice.below(7), stride: 100, last };
        let mut deeds = run(shape, seed);
        for _ in 0..dice.below(3) {
            tamper(&mut deeds, &mut dice);
        }
        let expected = brute(&deeds);
        let history = history(&deeds);
        for lane in lane::lanes(&history) {
            let growth = lane.growth();
            for growth in [None, growth.as_ref()] {
                let mut findings = Findings::default();
                let windows = search::check(&lane, growth, &mut findings);
                assert_eq!(windows.unknown, 0, "seed {seed}");
                assert_eq!(findings.is_clean(), expected, "seed {seed}: {deeds:#?}\n{findings:?}");
            }
        }
        (good, bad) = (good + u64::from(expected), bad + u64::from(!expected));
    }
    assert!(good > HISTORIES / 5 && bad > HISTORIES / 5, "{good} can be, {bad} cannot");
}

/// Where real time leaves one order alone, the witness decides the same question.
#[test]
fn the_witness_says_what_all_orders_say_where_there_is_but_one() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..HISTORIES / 2 {
        let mut dice = Dice::new(seed, 3);
        let keys = dice.pick(&[&["log-0"], &["reg-0"], &["mix-0"]]).expect("three");
        let shape = Shape { clients: 1, operations: 5, keys, unknown: 0, stride: 100, last: true };
        let mut deeds = run(shape, seed);
        deeds.retain(|deed| deed.told != Told::Refused);
        deeds.windows(2).for_each(|pair| assert!(pair[0].returned <= pair[1].invoked, "seed {seed}"));
        let changed = deeds.len() - 1;
        if dice.below(2) == 0 {
            lie_about(&mut deeds, changed);
        }
        // Beside each other in time they might be swapped: pull them apart.
        for (at, deed) in deeds.iter_mut().enumerate() {
            (deed.invoked, deed.returned) = (at as u64 * 10, at as u64 * 10 + 5);
        }
        let expected = brute(&deeds);
        let history = history(&deeds);
        for lane in lane::lanes(&history) {
            let mut findings = Findings::default();
            witness::check(&lane, lane.growth().as_ref(), &mut findings);
            assert_eq!(findings.is_clean(), expected, "seed {seed}: {deeds:#?}\n{findings:?}");
        }
        (good, bad) = (good + u64::from(expected), bad + u64::from(!expected));
    }
    assert!(good > HISTORIES / 8 && bad > HISTORIES / 8, "{good} can be, {bad} cannot");
}

fn lie_about(deeds: &mut [Deed], at: usize) {
    deeds[at].told = match &deeds[at].told {
        Told::Absent => Told::Found(100, "z;".into()),
        Told::Found(version, value) if version % 200 == 0 => Told::Found(version - 100, value.clone()),
        _ => Told::Absent,
    };
}
