//! The parts of the world by themselves: its queue, its trace, its list of marks, its tally.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use raftmap_sim::clocks::{Leap, once};
use raftmap_sim::dice::Dice;
use raftmap_sim::less::{HARMS, Less};
use raftmap_sim::marks;
use raftmap_sim::net::{End, Links};
use raftmap_sim::queue::Queue;
use raftmap_sim::setup::{Net, Setup};
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

/// Of so many messages on each of six directed links: how many were lost, and the mean delay of the others.
fn roads(links: &mut Links) -> BTreeSet<(u32, Duration)> {
    let ends = [End::Node(0), End::Node(1), End::Client(0)];
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to)));
    let road = |(from, to)| {
        let taken: Vec<_> = (0..1_000).filter_map(|_| links.travel(Duration::ZERO, from, to)[0]).collect();
        let count = taken.len() as u32;
        (1_000 - count, taken.iter().sum::<Duration>() / count)
    };
    pairs.filter(|(from, to)| from != to).map(road).collect()
}

#[test]
fn each_direction_of_an_uneven_link_has_its_own_delay_and_loss_until_all_is_calm() {
    let millis = Duration::from_millis;
    let net = |uneven| Net {
        delay: millis(5),
        jitter: millis(0),
        loss: 100,
        doubled: 0,
        late: 0,
        broken: 0,
        uneven,
    };
    let links = |uneven| Links::new(net(uneven), Dice::new(1, "net"), Dice::new(1, "each link"));
    let even = roads(&mut links(false));
    assert!(even.iter().all(|(lost, delay)| (50..150).contains(lost) && *delay == millis(5)), "{even:?}");
    let mut links = links(true);
    let uneven = roads(&mut links);
    let delays: BTreeSet<_> = uneven.iter().map(|(_, delay)| *delay).collect();
    assert!(delays.len() == 6 && delays.iter().all(|delay| (millis(2)..=millis(10)).contains(delay)));
    let few_or_many = |lost: &u32| *lost < 50 || *lost > 150;
    assert!(uneven.iter().filter(|(lost, _)| few_or_many(lost)).count() >= 2, "{uneven:?}");
    links.calm();
    assert_eq!(roads(&mut links), BTreeSet::from([(0, millis(5))]));
}

#[test]
fn each_harm_can_be_left_out() {
    let text = |setup: &Setup| format!("{:?}", Setup { less: Less::default(), ..setup.clone() });
    for harm in HARMS {
        let less = Less { without: [harm.to_owned()].into(), ..Less::default() };
        let changed =
            (0..400).map(Setup::draw).any(|setup| text(&less.clone().of(setup.clone())) != text(&setup));
        assert!(changed, "{harm} is in no setup, or is not left out");
    }
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
    before.ran_by("a1b2c3");
    before.ran_by("a1b2c3");
    assert!(before.write().contains("build 2 a1b2c3\n"));
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
