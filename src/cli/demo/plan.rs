//! Which node is killed next: a random one, the leader at least every other time. From a seed, so that a run can be
//! asked for again.

use std::time::Duration;

use crate::cli::random::Random;

/// A node stays down at most this long, whatever the interval.
const DOWN_MAX: Duration = Duration::from_secs(3);

/// The plan of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    random: Random,
    nodes: Vec<u64>,
    every: Duration,
    /// The last kill hit a follower, so the next one has to hit the leader. Also before the first kill.
    leader_is_due: bool,
}

/// The next kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    /// The node.
    pub(crate) node: u64,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// How long it stays down.
    pub(crate) down: Duration,
}

impl Plan {
    /// The plan of `seed` for these nodes, with a kill `every` so often.
    pub(crate) fn new(seed: u64, nodes: Vec<u64>, every: Duration) -> Self {
        Self { random: Random::branch(seed, u64::MAX), nodes, every, leader_is_due: true }
    }

    /// The next victim, all nodes being up and `leader` leading. `None`: the leader is due and nobody leads, so wait.
    pub(crate) fn next(&mut self, leader: Option<u64>) -> Option<Victim> {
        let node = match (self.leader_is_due, leader) {
            (true, Some(leader)) => leader,
            (true, None) => return None,
            (false, _) => *self.random.pick(&self.nodes)?,
        };
        let leads = leader == Some(node);
        self.leader_is_due = !leads;
        Some(Victim { node, leads, down: self.down() })
    }

    /// Between a tenth and half of the interval: shorter than an election now and then, longer most of the time.
    fn down(&mut self) -> Duration {
        let tenth = self.every.min(DOWN_MAX * 2) / 10;
        tenth + Duration::from_micros(self.random.below(tenth.as_micros() as u64 * 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(2);

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, vec![1, 2, 3], EVERY)
    }

    #[test]
    fn the_first_kill_hits_the_leader() {
        for seed in 0..50 {
            let victim = plan(seed).next(Some(2)).expect("a leader is there");
            assert_eq!((victim.node, victim.leads), (2, true));
        }
    }

    #[test]
    fn the_leader_is_hit_at_least_every_other_time() {
        for seed in 0..50 {
            let mut plan = plan(seed);
            let leads: Vec<bool> = (0..100)
                .filter_map(|round| plan.next(Some(round % 3 + 1)))
                .map(|victim| victim.leads)
                .collect();
            assert!(leads.windows(2).all(|pair| pair[0] || pair[1]), "seed {seed}: {leads:?}");
            assert!(!leads.iter().all(|leads| *leads), "seed {seed}: followers are killed too");
        }
    }

    #[test]
    fn a_due_leader_is_waited_for() {
        let mut plan = plan(1);
        assert_eq!(plan.next(None), None);
        assert!(plan.next(Some(3)).is_some_and(|victim| victim.node == 3));
    }

    #[test]
    fn without_a_leader_due_an_unknown_leader_does_not_hold_up_a_kill() {
        let mut plan = plan(1);
        plan.next(Some(1));
        let victim = plan.next(None).expect("any node will do");
        assert!(!victim.leads);
        // It may have been the leader, but nobody saw it lead: the next one must be.
        assert_eq!(plan.next(None), None);
    }

    #[test]
    fn every_node_has_its_turn_and_stays_down_for_a_part_of_the_interval() {
        let mut plan = plan(9);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let victim = plan.next(Some(1)).expect("a leader is there");
            assert!(victim.down >= EVERY / 10 && victim.down <= EVERY / 2, "{:?}", victim.down);
            seen.insert(victim.node);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_long_interval_does_not_mean_a_long_absence() {
        let mut plan = Plan::new(1, vec![1, 2, 3], Duration::from_secs(600));
        assert!((0..100).filter_map(|_| plan.next(Some(1))).all(|victim| victim.down <= DOWN_MAX));
    }

    #[test]
    fn a_seed_says_it_all() {
        let victims = |seed| -> Vec<_> {
            let mut plan = plan(seed);
            (0..20).filter_map(|_| plan.next(Some(1))).collect()
        };
        assert_eq!(victims(5), victims(5));
        assert_ne!(victims(5), victims(6));
    }
}
