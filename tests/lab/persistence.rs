//! 2C: what was promised survives crashes, of one and of all, on good networks and on bad ones. A crash is a kill, or a
//! power cut that keeps what it likes of all that was not synced.

use std::cell::RefCell;
use std::collections::BTreeMap;

use raftmap_sim::net::End;

use crate::cluster::{ELECTION, Lab, Plan, millis};
use crate::commands::Ticket;
use crate::seeds::each_seed;

/// Steps of the long stories.
const ITERATIONS: usize = 1_000;

/// What went on in one of the long stories.
#[derive(Clone, Copy, Debug)]
struct Churned {
    elections: u64,
    /// Logs whose end was cut off for another leader's entries.
    truncated: u64,
    /// Commands, those that opened and ended the story not counted.
    agreed: u64,
    /// Messages by a later one.
    overtaken: u64,
}

impl Churned {
    fn reaches(self, least: Self) -> bool {
        self.elections >= least.elections
            && self.truncated >= least.truncated
            && self.agreed >= least.agreed
            && self.overtaken >= least.overtaken
    }
}

/// What went on under all seeds. One of them may be a quiet one; four are not.
#[derive(Default)]
struct AllChurned(RefCell<Vec<Churned>>);

impl AllChurned {
    /// In one more seed.
    #[track_caller]
    fn add(&self, churned: Churned, least: Churned) {
        assert!(churned.reaches(least), "{churned:?} shows nothing");
        self.0.borrow_mut().push(churned);
    }

    /// So much under each seed on average.
    #[track_caller]
    fn mean_is(self, least: Churned) {
        let all = self.0.into_inner();
        let mean = |of: fn(&Churned) -> u64| all.iter().map(of).sum::<u64>() / all.len() as u64;
        let mean = Churned {
            elections: mean(|it| it.elections),
            truncated: mean(|it| it.truncated),
            agreed: mean(|it| it.agreed),
            overtaken: mean(|it| it.overtaken),
        };
        assert!(
            all.len() < 4 || mean.reaches(least),
            "{mean:?} under each of {} seeds shows too little",
            all.len()
        );
    }
}

impl Lab {
    /// Half a second now and then, mostly hardly anything.
    fn run_a_little(&mut self) {
        let most = if self.dice.below(10) == 0 { 500_000 } else { 12_000 };
        let time = self.dice.below(most);
        self.run(millis(time) / 1_000);
    }

    fn churned(&mut self) -> Churned {
        // The opening command came before all of it.
        let agreed = self.agreed_len() - 1;
        let overtaken = self.mark("a message overtook another");
        Churned {
            elections: self.world.watch.elections,
            truncated: self.mark("a log was truncated"),
            agreed,
            overtaken,
        }
    }

    /// Whoever leads is not heard by two of three others any more.
    fn narrow_leader(&mut self) {
        let Some(leader) = self.all().find(|at| self.leads(*at)) else { return };
        let others: Vec<usize> = self.all().filter(|at| *at != leader && self.dice.below(3) > 0).collect();
        self.cut_only(others.into_iter().map(|at| (End::Node(leader), End::Node(at))).collect());
    }

    /// Gives one command to everybody who runs; its number.
    fn start_everywhere(&mut self) -> u64 {
        let sequence = self.number();
        let members: Vec<usize> = self.all().collect();
        for at in members {
            let _taken_or_not = self.propose(at, sequence, Self::token(sequence));
        }
        sequence
    }

    /// Gives a command to everybody who runs; the last one that took it.
    fn start_somewhere(&mut self) -> Option<(usize, Ticket)> {
        let members: Vec<usize> = self.all().collect();
        members.into_iter().filter_map(|at| Some((at, self.start(at)?))).last()
    }
}

#[test]
fn persist1_2c() {
    each_seed("persist1_2c", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree_at_last(3);
        lab.crash_all();
        lab.restart_all();
        lab.agree_at_last(3);

        let leader = lab.one_leader();
        lab.crash(leader);
        lab.restart(leader);
        lab.agree_at_last(3);

        let leader = lab.one_leader();
        lab.crash(leader);
        lab.agree_at_last(2);
        lab.restart(leader);
        let caught_up = lab.within(ELECTION * 5, |lab| lab.executed_on(4) == 3);
        assert!(caught_up, "the fourth command is not everywhere");

        let follower = lab.one_leader();
        let follower = lab.next(follower, 1);
        lab.crash(follower);
        lab.agree_at_last(2);
        lab.restart(follower);
        lab.agree_at_last(3);
        assert_eq!(lab.agreed_len(), 6);
        lab.finish();
    });
}

#[test]
fn persist2_2c() {
    each_seed("persist2_2c", |seed| {
        let mut lab = Plan::new(seed, 5).start();
        for _ in 0..5 {
            lab.agree_at_last(5);
            let leader = lab.one_leader();
            let around: Vec<usize> = (0..5).map(|steps| lab.next(leader, steps)).collect();
            around[1..=2].iter().for_each(|at| lab.crash(*at));
            lab.agree_at_last(3);
            [0, 3, 4].into_iter().for_each(|steps| lab.crash(around[steps]));

            around[1..=2].iter().for_each(|at| lab.restart(*at));
            lab.run(ELECTION);
            lab.no_leader();
            lab.restart(around[3]);
            lab.agree_at_last(3);
            [0, 4].into_iter().for_each(|steps| lab.restart(around[steps]));
        }
        lab.agree_at_last(5);
        lab.finish();
    });
}

#[test]
fn persist3_2c() {
    each_seed("persist3_2c", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree_at_last(3);
        let leader = lab.one_leader();
        let (follower, away) = (lab.next(leader, 1), lab.next(leader, 2));
        lab.disconnect(away);
        lab.agree_at_last(2);

        lab.crash(leader);
        lab.crash(follower);
        lab.connect(away);
        lab.restart(leader);
        lab.agree_at_last(2);
        lab.restart(follower);
        lab.agree_at_last(3);
        assert_eq!(lab.agreed_len(), 4);
        lab.finish();
    });
}

/// Entries of an earlier term that lie on a majority are not agreed on for that alone (Raft paper, Figure 8).
///
/// In ours a leader does not reach everybody: if it did, each command would be with a majority before its leader can die,
/// and there would be nothing to see.
#[test]
fn figure_8_2c() {
    let all = AllChurned::default();
    each_seed("figure_8_2c", |seed| {
        let mut lab = Plan::new(seed, 5).start();
        lab.agree_at_last(1);
        for _ in 0..ITERATIONS {
            lab.narrow_leader();
            let leader = lab.start_somewhere();
            lab.run_a_little();
            if let Some((leader, _)) = leader {
                lab.crash(leader);
            }
            lab.connect_all();
            let at = lab.dice.place(5);
            if lab.running() < 3 && !lab.runs(at) {
                lab.restart(at);
            }
        }
        all.add(lab.churned(), Churned { elections: 30, truncated: 1, agreed: 15, overtaken: 0 });
        lab.down().into_iter().for_each(|at| lab.restart(at));
        lab.agree_at_last(5);
        lab.finish();
    });
    all.mean_is(Churned { elections: 45, truncated: 10, agreed: 30, overtaken: 0 });
}

/// Four of each round's commands are given to all members and not waited for: what the network took of them is asked for
/// again at the end, under the same numbers.
#[test]
fn unreliable_agree_2c() {
    const ROUNDS: usize = 49;
    each_seed("unreliable_agree_2c", |seed| {
        let mut lab = Plan::new(seed, 5).unreliable().start();
        let mut sequences = Vec::new();
        for _ in 0..ROUNDS {
            lab.open_session();
            for _ in 0..4 {
                sequences.push(lab.start_everywhere());
            }
            lab.agree_at_last(1);
        }
        lab.calm_network();
        for sequence in sequences {
            if lab.executed_on(sequence) < 5 {
                lab.agree_on(sequence, Lab::token(sequence), 5, true);
            }
        }
        lab.agree_at_last(5);
        assert_eq!(lab.executed_most().split_terminator(';').count(), 5 * ROUNDS + 1, "commands");
        lab.finish();
    });
}

/// As Figure 8 with links that are cut, messages that are lost, and, later on, replies that come seconds late.
#[test]
fn figure_8_unreliable_2c() {
    let all = AllChurned::default();
    each_seed("figure_8_unreliable_2c", |seed| {
        let mut lab = Plan::new(seed, 5).unreliable().start();
        lab.agree_at_last(1);
        for iteration in 0..ITERATIONS {
            if iteration == 200 {
                lab.reorder_replies();
            }
            let leader = lab.start_somewhere();
            lab.run_a_little();
            if let Some((leader, _)) = leader
                && lab.dice.below(2) == 0
            {
                lab.disconnect(leader);
            }
            let at = lab.dice.place(5);
            if lab.connected_len() < 3 && !lab.is_connected(at) {
                lab.connect(at);
            }
        }
        all.add(lab.churned(), Churned { elections: 3, truncated: 0, agreed: 1, overtaken: 10 });
        lab.connect_all();
        lab.agree_at_last(5);
        lab.finish();
    });
    all.mean_is(Churned { elections: 6, truncated: 3, agreed: 6, overtaken: 20 });
}

/// What a client of the churn knows of one of its commands.
struct Noted {
    sequence: u64,
    /// Looks that are left, at these times.
    looks: Vec<std::time::Duration>,
}

/// Three clients put in what they like and note what they see agreed on, while members come and go.
fn churn(seed: u64, plan: Plan) {
    let mut lab = plan.start();
    lab.open_session();
    let (mut waiting, mut noted): (Vec<Noted>, Vec<u64>) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        if lab.dice.permille(200) {
            let at = lab.dice.place(5);
            lab.disconnect(at);
        }
        if lab.dice.permille(500) {
            let at = lab.dice.place(5);
            if lab.runs(at) {
                lab.connect(at);
            } else {
                lab.restart(at);
            }
        }
        if lab.dice.permille(200) {
            let at = lab.dice.place(5);
            lab.crash(at);
        }
        let until = lab.world.now + millis(700);
        while lab.world.now < until {
            // Three clients, each with one command at a time.
            while waiting.len() < 3 {
                let sequence = lab.start_somewhere().map(|(_, ticket)| ticket.sequence);
                let now = lab.world.now;
                // Without a leader they look all the same, and pause by that.
                let sequence = sequence.unwrap_or(0);
                let looks =
                    [10, 30, 80, 180, 380].into_iter().rev().map(|after| now + millis(after)).collect();
                waiting.push(Noted { sequence, looks });
            }
            lab.run(millis(5));
            waiting.retain_mut(|command| {
                if command.looks.last().is_none_or(|at| *at > lab.world.now) {
                    return !command.looks.is_empty();
                }
                command.looks.pop();
                let seen = lab.executed_on(command.sequence) > 0;
                noted.extend(seen.then_some(command.sequence));
                !seen && !command.looks.is_empty()
            });
        }
    }
    lab.run(ELECTION);
    lab.calm_network();
    lab.down().into_iter().for_each(|at| lab.restart(at));
    lab.connect_all();
    lab.agree_at_last(5);
    assert!(noted.len() > 50, "seed {seed}: {} commands were seen, which shows nothing", noted.len());
    for (at, value) in lab.executed() {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        value.split_terminator(';').for_each(|token| *times.entry(token).or_default() += 1);
        for sequence in &noted {
            let times = times.get(sequence.to_string().as_str()).copied().unwrap_or(0);
            assert_eq!(times, 1, "command {sequence} was seen agreed on; so often {at} executed it");
        }
    }
    lab.finish();
}

#[test]
fn reliable_churn_2c() {
    each_seed("reliable_churn_2c", |seed| churn(seed, Plan::new(seed, 5)));
}

#[test]
fn unreliable_churn_2c() {
    each_seed("unreliable_churn_2c", |seed| churn(seed, Plan::new(seed, 5).unreliable()));
}
