//! Which faults hit whom, when and for how long. From a seed, so that a run can be asked for again; only who leads is
//! found out when the time has come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use raftmap::net::relay::Weather;

use super::sorts::{Kind, Sort};
use crate::cli::random::Random;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    /// What.
    pub(crate) sort: Sort,
    /// All nodes in an order drawn for it: whom it hits first.
    pub(crate) order: Vec<u64>,
    /// When it begins, counted from its cycle's beginning.
    pub(crate) at: Duration,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Of all links, where that is the fault.
    pub(crate) weather: Weather,
    /// Kills in recovery: how long each life goes on once it has its directory.
    pub(crate) lives: Vec<Duration>,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} ms, order {:?}", self.sort, self.lasts.as_millis(), self.order)
    }
}

impl Act {
    /// The nodes that it hits, where `leader` leads. Where nobody does, the first one stands for the leader.
    pub(crate) fn victims(&self, leader: Option<u64>) -> Vec<u64> {
        let leads = leader.or(self.order.first().copied());
        let (order, majority) = (self.order.iter().copied(), self.order.len() / 2 + 1);
        match self.sort {
            sort if sort.is_for_leader() => leads.into_iter().collect(),
            Sort::KillMajority | Sort::StopMajority => order.take(majority).collect(),
            // A leader that is full takes no more writes, and the others' disks would never fill.
            Sort::FullMajority => order.filter(|node| Some(*node) != leads).take(majority).collect(),
            Sort::KillAll => order.collect(),
            _ => order.take(1).collect(),
        }
    }

    /// The links that it cuts, each from a node to another.
    pub(crate) fn cuts(&self, leader: Option<u64>) -> BTreeSet<(u64, u64)> {
        let (order, victims) = (&self.order, self.victims(leader));
        let victim = |node: &u64| victims.contains(node);
        let place = |node: &u64| order.iter().position(|other| other == node).unwrap_or(0);
        let half = order.len() / 2;
        // The first one is the bridge; the others are two sides.
        let side = |node: &u64| (place(node) > 0).then(|| place(node) > half);
        let cut = |from: &u64, to: &u64| match self.sort {
            Sort::Isolate | Sort::IsolateLeader => victim(from) || victim(to),
            Sort::Mute => victim(from),
            Sort::Deaf => victim(to),
            Sort::Halves => (place(from) < half) != (place(to) < half),
            Sort::Bridge => side(from).zip(side(to)).is_some_and(|(one, other)| one != other),
            Sort::Ring => {
                let apart = place(from).abs_diff(place(to));
                apart != 1 && apart != order.len() - 1
            }
            _ => false,
        };
        let pairs = order.iter().flat_map(|from| order.iter().map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to && cut(from, to)).map(|(from, to)| (*from, *to)).collect()
    }
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    random: Random,
    nodes: Vec<u64>,
    sorts: Vec<Sort>,
    /// What is to come before any sort comes again. The last is next.
    bag: Vec<Sort>,
}

/// Longest time that a process is stopped, or anything else lasts.
const LASTS_MAX: Duration = Duration::from_secs(10);
/// Faults go on for about this long before everything is healed and checked.
const CYCLE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(40));

impl Plan {
    /// The plan of `seed` for these nodes and kinds.
    pub(crate) fn new(seed: u64, nodes: Vec<u64>, kinds: &BTreeSet<Kind>) -> Self {
        let sorts = Sort::of(kinds, nodes.len() as u64);
        let mut plan = Self { random: Random::branch(seed, u64::MAX), nodes, sorts, bag: Vec::new() };
        plan.refill();
        // A short run, too, begins with one of each kind.
        let mut first = BTreeMap::new();
        plan.bag.retain(|sort| match first.contains_key(&sort.kind()) {
            true => true,
            false => first.insert(sort.kind(), *sort).is_some(),
        });
        plan.bag.extend(first.into_values());
        plan
    }

    /// The acts of the next cycle, of which at most `left` is to come, and how long the cycle takes.
    pub(crate) fn cycle(&mut self, left: Duration) -> (Vec<Act>, Duration) {
        let length = self.between(CYCLE.0, CYCLE.1);
        // A rest that is too short for a cycle of its own belongs to this one.
        let length = if left < length + CYCLE.0 / 2 { left } else { length };
        let (mut acts, mut free) = (Vec::new(), BTreeMap::new());
        let mut clock = self.between(Duration::ZERO, length / 40);
        while clock + length / 20 < length {
            let Some(sort) = self.sort() else { break };
            let at = clock.max(free.get(&sort.kind()).copied().unwrap_or_default());
            if at + length / 20 >= length {
                self.bag.push(sort);
                break;
            }
            let lasts = self.lasts(sort, length).min(length - at);
            free.insert(sort.kind(), at + lasts);
            acts.push(self.act(sort, at, lasts));
            // One in three meets the next one while it lasts.
            clock = match self.random.below(3) {
                0 => at + lasts / 2,
                _ => at + lasts + self.between(length / 100, length / 30),
            };
        }
        (acts, length)
    }

    fn act(&mut self, sort: Sort, at: Duration, lasts: Duration) -> Act {
        let mut order = self.nodes.clone();
        self.shuffle(&mut order);
        let weather = self.weather(sort);
        let lives = match sort {
            Sort::KillInRecovery => {
                (0..3 + self.random.below(6)).map(|_| self.between(Duration::ZERO, RECOVERY)).collect()
            }
            _ => Vec::new(),
        };
        Act { sort, order, at, lasts, weather, lives }
    }

    /// A fifth of the cycle at most; a stopped process may sleep for a third of it.
    fn lasts(&mut self, sort: Sort, length: Duration) -> Duration {
        let (least, most) = match sort.kind() {
            Kind::Kill => (length / 200, length / 10),
            Kind::Stop if self.random.below(4) == 0 => (length / 5, length / 3),
            Kind::Stop => (length / 100, length / 6),
            Kind::Partition => (length / 20, length / 5),
            Kind::Disk => (length / 6, length / 4),
        };
        self.between(least.min(LASTS_MAX), most.min(LASTS_MAX))
    }

    fn weather(&mut self, sort: Sort) -> Weather {
        let millis = |random: &mut Random, most| Duration::from_millis(1 + random.below(most));
        let mut per_mille = |least: u64, most: u64| (least + self.random.below(most - least)) as u16;
        let (lost, doubled, held) = (per_mille(20, 300), per_mille(50, 500), per_mille(50, 500));
        let (delay, jitter) = (millis(&mut self.random, 60), millis(&mut self.random, 30));
        // From hardly anything to more than an election timeout, each order of magnitude as likely.
        let most = [10, 100, 1_000][self.random.below(3) as usize];
        let slow = millis(&mut self.random, most);
        let calm = Weather::default();
        match sort {
            Sort::Slow => Weather { delay: slow, ..calm },
            Sort::Lossy => Weather { lost_per_mille: lost, ..calm },
            Sort::Doubling => Weather { doubled_per_mille: doubled, ..calm },
            Sort::Reordering => Weather { held_per_mille: held, jitter, ..calm },
            Sort::Storm => Weather {
                delay: delay / 4,
                jitter,
                lost_per_mille: lost / 3,
                doubled_per_mille: doubled / 3,
                held_per_mille: held / 3,
                ..calm
            },
            _ => calm,
        }
    }

    fn sort(&mut self) -> Option<Sort> {
        if self.bag.is_empty() {
            self.refill();
        }
        self.bag.pop()
    }

    fn refill(&mut self) {
        let mut sorts = self.sorts.clone();
        self.shuffle(&mut sorts);
        self.bag = sorts;
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.random.below(last as u64 + 1) as usize);
        }
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = most.saturating_sub(least).as_micros() as u64;
        least + Duration::from_micros(self.random.below(range + 1))
    }
}

/// A node that is killed in recovery has its directory for this long at most.
const RECOVERY: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::torture::report::ROUNDS_ENOUGH;

    const LONG: Duration = Duration::from_secs(1_800);

    fn kinds() -> BTreeSet<Kind> {
        [Kind::Kill, Kind::Stop, Kind::Partition, Kind::Disk].into()
    }

    fn plan(seed: u64, nodes: u64) -> Plan {
        Plan::new(seed, (1..=nodes).collect(), &kinds())
    }

    fn act(sort: Sort, nodes: u64) -> Act {
        let order = (1..=nodes).collect();
        let (at, lasts) = (Duration::ZERO, Duration::from_secs(1));
        Act { sort, order, at, lasts, weather: Weather::default(), lives: Vec::new() }
    }

    #[test]
    fn a_seed_says_it_all() {
        let cycles = |seed| {
            let mut plan = plan(seed, 3);
            (0..20).map(|_| plan.cycle(LONG)).collect::<Vec<_>>()
        };
        assert_eq!(cycles(5), cycles(5));
        assert_ne!(cycles(5), cycles(6));
    }

    #[test]
    fn a_short_run_has_a_fault_of_each_kind() {
        for seed in 0..200 {
            let short = Duration::from_secs(12);
            let (acts, length) = plan(seed, 3).cycle(short);
            assert_eq!(length, short);
            let seen: BTreeSet<Kind> = acts.iter().map(|act| act.sort.kind()).collect();
            assert_eq!(seen, kinds(), "seed {seed}: {acts:?}");
        }
    }

    /// A test of the whole command takes away what all nodes have while they are down, and needs a seed for that.
    #[test]
    fn a_seed_is_known_that_kills_all_for_long_and_early() {
        let mut plan = Plan::new(923, vec![1, 2, 3], &[Kind::Kill].into());
        let (acts, _) = plan.cycle(Duration::from_secs(15));
        assert_eq!(acts[1].sort, Sort::KillAll, "{acts:?}");
        assert!(acts[1].lasts > Duration::from_secs(1) && acts[1].at < Duration::from_secs(3), "{acts:?}");
    }

    /// Others look at what became of the leader: stopped, and later killed, with nothing before that deposes it; and at
    /// five nodes in a ring, and then under faults that leave them time for their clients.
    #[test]
    fn seeds_are_known_for_leaders_and_for_five() {
        let short = Duration::from_secs(12);
        let (acts, _) = plan(9623, 3).cycle(short);
        let first: Vec<Sort> = acts.iter().take(4).map(|act| act.sort).collect();
        assert_eq!(first, [Sort::FullOne, Sort::Doubling, Sort::StopLeader, Sort::KillLeader], "{acts:?}");
        assert!(acts[2].at + acts[2].lasts < acts[3].at, "{acts:?}");

        let kinds = [Kind::Kill, Kind::Partition].into();
        let (acts, _) = Plan::new(66_522, (1..=5).collect(), &kinds).cycle(short);
        let first: Vec<Sort> = acts.iter().take(4).map(|act| act.sort).collect();
        assert_eq!(first, [Sort::Ring, Sort::KillOne, Sort::Lossy, Sort::KillLeader], "{acts:?}");
    }

    #[test]
    fn every_sort_comes_and_only_what_was_asked_for() {
        let mut plan = plan(1, 5);
        let seen: BTreeSet<Sort> = (0..8).flat_map(|_| plan.cycle(LONG).0).map(|act| act.sort).collect();
        assert_eq!(seen.len(), Sort::ALL.len(), "{seen:?}");
        let mut stops = Plan::new(1, vec![1, 2, 3], &[Kind::Stop].into());
        assert!(stops.cycle(LONG).0.iter().all(|act| act.sort.kind() == Kind::Stop));
        let mut three = self::plan(1, 3);
        assert!((0..20).flat_map(|_| three.cycle(LONG).0).all(|act| act.sort != Sort::Ring));
    }

    /// What the report asks for before it calls a sort missing, half an hour has.
    #[test]
    fn half_an_hour_has_every_sort_often_enough() {
        for (seed, nodes) in (0..20).flat_map(|seed| [(seed, 3), (seed, 5)]) {
            let (mut plan, mut left) = (plan(seed, nodes), LONG);
            let (mut acts, mut seen) = (0, BTreeMap::new());
            while !left.is_zero() {
                let (more, length) = plan.cycle(left);
                acts += more.len() as u64;
                more.iter().for_each(|act| *seen.entry(act.sort).or_insert(0_u64) += 1);
                left -= length;
            }
            let sorts = Sort::of(&kinds(), nodes);
            assert!(acts >= ROUNDS_ENOUGH * sorts.len() as u64 * 3 / 2, "seed {seed}: {acts} acts");
            assert!(sorts.iter().all(|sort| seen[sort] >= ROUNDS_ENOUGH), "seed {seed}: {seen:?}");
        }
    }

    #[test]
    fn acts_stay_within_their_cycle_and_those_of_a_kind_do_not_meet() {
        for seed in 0..100 {
            let (acts, length) = plan(seed, 5).cycle(LONG);
            assert!(length >= CYCLE.0 && length <= CYCLE.1);
            let mut free = BTreeMap::new();
            for act in &acts {
                assert!(act.at + act.lasts <= length && act.lasts <= LASTS_MAX, "seed {seed}: {act:?}");
                let before = free.insert(act.sort.kind(), act.at + act.lasts);
                assert!(before.is_none_or(|before| before <= act.at), "seed {seed}: {act:?}");
                assert_eq!(act.lives.is_empty(), act.sort != Sort::KillInRecovery);
                assert!(act.lives.iter().all(|life| *life <= RECOVERY));
            }
        }
    }

    #[test]
    fn victims_are_whom_the_name_says() {
        for (sort, victims) in [
            (Sort::KillOne, vec![1]),
            (Sort::KillLeader, vec![4]),
            (Sort::KillMajority, vec![1, 2, 3]),
            (Sort::KillAll, vec![1, 2, 3, 4, 5]),
            (Sort::KillInRecovery, vec![1]),
            (Sort::FullMajority, vec![1, 2, 3]),
        ] {
            assert_eq!(act(sort, 5).victims(Some(4)), victims, "{sort:?}");
        }
        assert_eq!(act(Sort::FullMajority, 3).victims(Some(1)), [2, 3], "never with the leader");
        assert_eq!(act(Sort::StopLeader, 3).victims(None), [1]);
        assert!(Sort::StopLeader.hits(Some(1)) && !Sort::StopLeader.hits(None) && Sort::StopOne.hits(None));
    }

    #[test]
    fn cuts_are_what_the_name_says() {
        let cuts = |sort, nodes| act(sort, nodes).cuts(Some(2)).into_iter().collect::<Vec<_>>();
        assert_eq!(cuts(Sort::Isolate, 3), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(cuts(Sort::IsolateLeader, 3), [(1, 2), (2, 1), (2, 3), (3, 2)]);
        assert_eq!(cuts(Sort::Mute, 3), [(2, 1), (2, 3)]);
        assert_eq!(cuts(Sort::Deaf, 3), [(1, 2), (3, 2)]);
        assert_eq!(cuts(Sort::Bridge, 3), [(2, 3), (3, 2)]);
        assert_eq!(cuts(Sort::Halves, 3), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(cuts(Sort::Bridge, 5).len(), 8, "two and two, which only the first one joins");
        assert_eq!(cuts(Sort::Ring, 5).len(), 10, "each sees two of four");
        assert_eq!(cuts(Sort::Ring, 3), []);
        assert_eq!(cuts(Sort::Lossy, 3), []);
    }

    #[test]
    fn weather_is_bad_where_it_is_the_fault_and_only_there() {
        let mut plan = plan(3, 3);
        for act in (0..20).flat_map(|_| plan.cycle(LONG).0) {
            let bad = [Sort::Slow, Sort::Lossy, Sort::Doubling, Sort::Reordering, Sort::Storm];
            assert_eq!(act.weather != Weather::default(), bad.contains(&act.sort), "{act:?}");
        }
    }
}
