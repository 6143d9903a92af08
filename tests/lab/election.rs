//! 2A: leaders are elected, stay, and do not come to be without a majority.

use crate::cluster::{ELECTION, Plan, millis};
use crate::seeds::each_seed;

#[test]
fn initial_election_2a() {
    each_seed("initial_election_2a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        let leader = lab.one_leader();
        lab.run(millis(50));
        let term = lab.one_term();
        assert!(term >= 1);
        lab.run(ELECTION * 2);
        // Nothing has gone wrong, so nobody has a reason to campaign.
        assert_eq!((lab.one_term(), lab.one_leader()), (term, leader), "the leader changed without a fault");
        lab.finish();
    });
}

#[test]
fn re_election_2a() {
    each_seed("re_election_2a", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        let first = lab.one_leader();
        lab.disconnect(first);
        let second = lab.one_leader();
        assert_ne!(second, first);
        let term = lab.status(second).expect("runs").term;

        lab.connect(first);
        assert_eq!(lab.one_leader(), second, "one who comes back disturbs nobody");
        assert_eq!(lab.status(second).expect("runs").term, term);

        let alone = lab.next(second, 2);
        lab.disconnect(second);
        lab.disconnect(lab.next(second, 1));
        lab.run(ELECTION * 2);
        assert!(lab.is_connected(alone));
        lab.no_leader();

        lab.connect(lab.next(second, 1));
        lab.one_leader();
        lab.connect(second);
        lab.one_leader();
        lab.finish();
    });
}

#[test]
fn many_elections_2a() {
    each_seed("many_elections_2a", |seed| {
        let mut lab = Plan::new(seed, 7).start();
        lab.one_leader();
        for _ in 0..9 {
            let away = [lab.dice.place(7), lab.dice.place(7), lab.dice.place(7)];
            away.into_iter().for_each(|at| lab.disconnect(at));
            // Four or more are left: a majority.
            lab.one_leader();
            lab.connect_all();
        }
        lab.one_leader();
        lab.finish();
    });
}
