//! The parts of the world by themselves: its queue, its trace, its list of marks, its tally.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use raftmap_sim::clocks::{Leap, once};
use raftmap_sim::marks;
use raftmap_sim::queue::Queue;
use raftmap_sim::shrink::reason;
use raftmap_sim::tally::Tally;
use raftmap_sim::trace::Trace;

#[test]
fn events_come_by_time_and_then_in_the_order_they_were_put() {
    let mut queue = Queue::new();
    for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (0, 'd'), (3, 'e'), (5, 'f')] {
        queue.put(Duration::from_secs(at), event);
    }
    assert_eq!(queue.due(), Some(Duration::ZERO));
    let popped: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
    assert_eq!(popped, "dbeacf");
}

#[test]
fn a_second_campaign_at_one_leap_is_one_too_many() {
    let leap = |campaigns| once(Leap { life: 1, until: Duration::ZERO, campaigns });
    assert!(leap(1).is_ok() && leap(2).is_err());
}

#[test]
fn one_invariant_has_one_reason_whatever_the_numbers() {
    assert_eq!(reason("two leaders in term 7: 1 and 2"), reason("two leaders in term 12: 3 and 1"));
    assert_ne!(reason("voted twice in term 7: for 1 and for 2"), reason("two leaders in term 7: 1 and 2"));
}

#[test]
fn everything_that_is_noted_is_in_the_hash() {
    let hash = |note: &dyn Fn(&mut Trace)| {
        let mut trace = Trace::default();
        trace.note(Duration::from_secs(1), 1, "first", 2, 3);
        note(&mut trace);
        trace.hash()
    };
    let second = Duration::from_secs(2);
    let hashes: Vec<u64> = vec![
        hash(&|_| {}),
        hash(&|trace| trace.note(second, 0, "a", 0, 0)),
        hash(&|trace| trace.note(second, 0, "b", 0, 0)),
        hash(&|trace| trace.note(second, 0, "a", 1, 0)),
        hash(&|trace| trace.note(second, 0, "a", 0, 1)),
        hash(&|trace| trace.note(second, 1, "a", 0, 0)),
        hash(&|trace| trace.bytes(b"12345678")),
        hash(&|trace| trace.bytes(b"12345678\0")),
        hash(&|trace| trace.bytes(b"1234567")),
    ];
    let different: BTreeSet<u64> = hashes.iter().copied().collect();
    assert_eq!(different.len(), hashes.len(), "{hashes:?}");
}

/// All sources of the world and of what runs in it, but the list itself.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["tests/sim/src", "src", "storage/src"].iter().map(|dir| texts(&root.join(dir))).collect()
}

fn texts(dir: &Path) -> String {
    let mut texts = String::new();
    for entry in std::fs::read_dir(dir).expect("sources") {
        let path = entry.expect("one").path();
        if path.is_dir() {
            texts += &self::texts(&path);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("marks.rs") {
            texts += &std::fs::read_to_string(path).expect("text");
        }
    }
    texts
}

#[test]
fn all_that_is_marked_is_in_the_list_and_the_other_way_round() {
    for list in [marks::USUAL, marks::RARE] {
        assert!(list.is_sorted_by(|one, next| one < next), "not sorted: {list:?}");
    }
    let listed: BTreeSet<&str> = marks::all().collect();
    assert_eq!(listed.len(), marks::USUAL.len() + marks::RARE.len(), "in both lists");
    let sources = sources();
    let calls = ["sometimes(\"", "sometimes!(\""].into_iter().flat_map(|call| sources.split(call).skip(1));
    let calls = calls.filter_map(|rest| rest.split('"').next());
    let unlisted: BTreeSet<&str> = calls.filter(|name| !listed.contains(name)).collect();
    assert!(unlisted.is_empty(), "not in the list: {unlisted:?}");
    let unused: Vec<_> = listed.iter().filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
    assert!(unused.is_empty(), "nobody marks these: {unused:?}");
}

#[test]
#[should_panic(expected = "is not in the list of marks")]
fn what_is_not_in_the_list_cannot_be_marked() {
    Trace::default().sometimes("nobody knows this");
}

fn tally() -> Tally {
    let mut tally = Tally { next: 9, worlds: 5, time: Duration::from_secs(3), ..Tally::default() };
    tally.marks.insert("a leader was elected".into(), 4);
    tally.faults.insert("Crash".into(), 7);
    tally.never.insert("loss".into(), 2);
    tally
}

#[test]
fn a_tally_goes_on_from_its_file() {
    let mut before = tally();
    assert_eq!(before.begin(), 9);
    before.violations.insert(3, "two leaders in term 4".into());
    assert_eq!(Tally::read(&before.write()), Ok(before));
    assert!(Tally::read("next").is_err());
    assert!(Tally::read("worlds many").is_err());
}

#[test]
fn a_tally_is_red_for_a_failure_for_idleness_and_for_a_mark_that_was_never_met() {
    let found = |change: fn(&mut Tally)| {
        let mut tally = tally();
        tally.marks.extend(marks::all().map(|name| (name.to_owned(), 1)));
        (tally.worlds, tally.vacuous) = (2_000, 200);
        change(&mut tally);
        tally.faults_found().len()
    };
    assert_eq!(found(|_| {}), 0);
    assert_eq!(found(|tally| drop(tally.violations.insert(1, "two leaders".into()))), 1);
    assert_eq!(found(|tally| tally.vacuous = 300), 1);
    assert_eq!(found(|tally| tally.marks.retain(|name, _| name != "a leader was elected")), 1);
    assert_eq!(found(|tally| (tally.worlds, tally.vacuous, tally.marks) = (1_999, 0, BTreeMap::new())), 0);
}
