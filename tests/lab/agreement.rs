//! 2B: commands are agreed on by a majority, never by less, cheaply, and members that were away catch up.

use bytes::Bytes;
use raftmap::Timing;
use raftmap::kv::Command;
use raftmap_sim::tap::Traffic;

use crate::cluster::{ELECTION, Lab, Plan, millis};
use crate::seeds::each_seed;

/// For a command that cannot be agreed on to be agreed on nevertheless.
const NEVER: std::time::Duration = millis(2_000);
/// For commands to stand in the log of the leader that is given them.
const TAKEN: std::time::Duration = millis(20);
/// Bytes of a message, without the commands in it. A heartbeat has 8 and an append 18, while indexes are small.
const MESSAGE: u64 = 16;
/// Bytes of an entry on the way, besides what its command writes: place, checksum, time, session, number, kinds, lengths.
const ENTRY: u64 = 36;
/// Bytes that a command of ours writes, and where: `12;` to `commands`.
const TOKEN: u64 = 8 + 3;

/// What was said between two moments.
fn since(before: Traffic, now: Traffic) -> Traffic {
    Traffic {
        requests: now.requests - before.requests,
        replies: now.replies - before.replies,
        refusals: now.refusals - before.refusals,
        bytes: now.bytes - before.bytes,
    }
}

fn messages(said: Traffic) -> u64 {
    said.requests + said.replies
}

impl Lab {
    /// A leader takes a command that nobody may agree on.
    #[track_caller]
    fn start_in_vain(&mut self, leader: usize, place: u64) {
        let ticket = self.start(leader).expect("it still takes itself for the leader");
        let at = self.place_in_log(leader, ticket.sequence);
        assert_eq!(at, Some(place), "the command's place in the leader's log");
        self.run(NEVER);
        assert_eq!(self.place(ticket.sequence), None, "agreed on without a majority");
    }

    /// Nobody answers what was not asked. Since the beginning: an answer may come a moment after what it is the answer to.
    #[track_caller]
    fn check_answers(&mut self) {
        let all = self.traffic();
        assert!(all.replies <= all.requests, "answers nobody asked for: {all:?}");
    }

    /// These members, and nobody else, hold the commands, right behind as many others.
    #[track_caller]
    fn held_in_vain(&mut self, commands: &[u64], behind: u64, holders: [usize; 2]) {
        for (command, expected) in commands.iter().zip(behind + 1..) {
            for at in self.all() {
                let place = self.place_in_log(at, *command);
                let expected = holders.contains(&at).then_some(expected);
                assert_eq!(place, expected, "command {command}'s place in {at}'s log, {holders:?} have it");
            }
            assert_eq!(self.place(*command), None, "agreed on without a majority");
        }
    }

    /// So many commands for this member, one right behind the other.
    fn start_many(&mut self, at: usize, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| {
                let sequence = self.number();
                self.put_in(at, sequence, Self::token(sequence));
                sequence
            })
            .collect()
    }
}

#[test]
fn basic_agree_2b() {
    each_seed("basic_agree_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        for place in 1..=3 {
            assert_eq!(lab.agreed_len(), place - 1, "agreed on before anybody asked");
            assert_eq!(lab.agree(3), place);
        }
        assert_eq!(lab.agreed_len(), 3);
        lab.finish();
    });
}

#[test]
fn rpc_bytes_2b() {
    const SIZE: usize = 5_000;
    const COUNT: u64 = 10;
    each_seed("rpc_bytes_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree(3);
        let (before, begun) = (lab.traffic(), lab.world.now);
        for at in 0..COUNT {
            let value = Bytes::from(vec![b'a' + at as u8; SIZE]);
            let sequence = lab.number();
            lab.agree_on(sequence, Command::Put { key: "large".into(), value }, 3, false);
        }
        let said = since(before, lab.traffic());
        // Each command to each of the two others; the course allows for three, and 50,000 bytes beside.
        let payload = COUNT * SIZE as u64;
        assert!(said.bytes <= 3 * payload + 50_000, "{said:?}");
        assert!(said.bytes >= 2 * payload, "{said:?} cannot have carried it");
        // Ours: it crosses once to each, and the rest is small.
        let once = 2 * COUNT * (SIZE as u64 + ENTRY);
        assert!(said.bytes <= once + messages(said) * MESSAGE, "{said:?} for {payload} bytes to two members");
        // To each of the two, the command, and the word that it is committed; and heartbeats meanwhile.
        let heartbeats = (lab.world.now - begun).div_duration_f64(Timing::default().heartbeat) as u64 + 1;
        assert!(said.requests <= 2 * (2 * COUNT + heartbeats), "{said:?} for {COUNT} commands");
        lab.check_answers();
        lab.finish();
    });
}

#[test]
fn follower_failure_2b() {
    each_seed("follower_failure_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree(3);
        let leader = lab.one_leader();
        lab.disconnect(lab.next(leader, 1));
        assert_eq!(lab.agree(2), 2);
        lab.run(ELECTION);
        assert_eq!(lab.agree(2), 3);

        let leader = lab.one_leader();
        lab.disconnect(lab.next(leader, 1));
        lab.disconnect(lab.next(leader, 2));
        lab.start_in_vain(leader, 4);
        lab.finish();
    });
}

#[test]
fn leader_failure_2b() {
    each_seed("leader_failure_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree(3);
        let first = lab.one_leader();
        lab.disconnect(first);
        assert_eq!(lab.agree(2), 2);
        lab.run(ELECTION);
        assert_eq!(lab.agree(2), 3);

        let second = lab.one_leader();
        lab.disconnect(second);
        let sequences: Vec<u64> = lab.all().flat_map(|at| lab.start_many(at, 1)).collect();
        lab.run(TAKEN);
        assert_eq!(
            lab.place_in_log(second, sequences[second]),
            Some(4),
            "who was cut off still takes commands"
        );
        lab.run(NEVER);
        for sequence in sequences {
            assert_eq!(lab.place(sequence), None, "agreed on without a majority");
        }
        lab.finish();
    });
}

#[test]
fn fail_agree_2b() {
    each_seed("fail_agree_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree(3);
        let leader = lab.one_leader();
        lab.disconnect(lab.next(leader, 1));
        lab.agree(2);
        lab.agree(2);
        lab.run(ELECTION);
        lab.agree(2);
        lab.agree(2);

        lab.connect_all();
        lab.agree_at_last(3);
        lab.run(ELECTION);
        lab.agree_at_last(3);
        assert_eq!(lab.agreed_len(), 7);
        lab.finish();
    });
}

#[test]
fn fail_no_agree_2b() {
    each_seed("fail_no_agree_2b", |seed| {
        let mut lab = Plan::new(seed, 5).start();
        lab.agree(5);
        let leader = lab.one_leader();
        (1..=3).for_each(|steps| lab.disconnect(lab.next(leader, steps)));
        lab.start_in_vain(leader, 2);

        lab.connect_all();
        // The majority may have chosen a leader of its own meanwhile, and that one may have dropped the command.
        let leader = lab.one_leader();
        let ticket = lab.start(leader).expect("it leads");
        let place = lab.place_in_log(leader, ticket.sequence);
        assert!(matches!(place, Some(2 | 3)), "at {place:?}");
        lab.agree_at_last(5);
        lab.finish();
    });
}

#[test]
fn concurrent_starts_2b() {
    const COUNT: usize = 5;
    each_seed("concurrent_starts_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.open_session();
        for _ in 0..5 {
            let leader = lab.one_leader();
            let term = lab.one_term();
            let sequences = lab.start_many(leader, COUNT);
            let all =
                lab.within(NEVER, |lab| sequences.iter().all(|sequence| lab.executed_on(*sequence) == 3));
            if lab.one_term() != term {
                lab.run(ELECTION * 3);
                continue;
            }
            assert!(all, "one term, and not all are agreed on");
            assert_eq!(lab.agreed_len(), COUNT as u64, "each has a place of its own");
            return lab.finish();
        }
        panic!("the term changed in five tries of five");
    });
}

#[test]
fn rejoin_2b() {
    each_seed("rejoin_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        lab.agree(3);
        let first = lab.one_leader();
        lab.disconnect(first);
        let dropped = lab.start_many(first, 3);
        lab.run(TAKEN);
        assert_eq!(
            lab.place_in_log(first, dropped[2]),
            Some(4),
            "the old leader holds what nobody else will have"
        );
        lab.agree(2);

        let second = lab.one_leader();
        lab.disconnect(second);
        lab.connect(first);
        lab.agree_at_last(2);

        lab.connect_all();
        lab.agree_at_last(3);
        assert!(dropped.into_iter().all(|sequence| lab.place(sequence).is_none()), "dropped, and agreed on");
        assert_eq!(lab.agreed_len(), 4);
        lab.finish();
    });
}

#[test]
fn backup_2b() {
    const COUNT: usize = 50;
    /// Of appends, by four members who share few terms with the leader, and miss fifty entries and more.
    const REFUSALS_MAX: u64 = 20;
    each_seed("backup_2b", |seed| {
        let mut lab = Plan::new(seed, 5).start();
        lab.agree(5);
        // The leader and one more collect what cannot be agreed on.
        let first = lab.one_leader();
        (2..=4).for_each(|steps| lab.disconnect(lab.next(first, steps)));
        let mut vain = lab.start_many(first, COUNT);
        lab.run(ELECTION / 2);
        lab.held_in_vain(&vain, 1, [first, lab.next(first, 1)]);
        lab.disconnect(first);
        lab.disconnect(lab.next(first, 1));

        // The other three agree on as much.
        (2..=4).for_each(|steps| lab.connect(lab.next(first, steps)));
        lab.agree_often(COUNT, 3);

        // Of those, the leader and one more collect in vain.
        let second = lab.one_leader();
        let other = (2..=4).map(|steps| lab.next(first, steps)).find(|at| *at != second).expect("three");
        lab.disconnect(other);
        let more = lab.start_many(second, COUNT);
        lab.run(ELECTION / 2);
        let follower = (2..=4).map(|steps| lab.next(first, steps)).find(|at| ![second, other].contains(at));
        lab.held_in_vain(&more, 1 + COUNT as u64, [second, follower.expect("three")]);
        vain.extend(more);

        // The first leader, its companion and the third one agree on as much again.
        lab.all().for_each(|at| lab.disconnect(at));
        [first, lab.next(first, 1), other].into_iter().for_each(|at| lab.connect(at));
        lab.agree_often(COUNT, 3);

        lab.connect_all();
        let rejoined = lab.world.now;
        lab.agree_at_last(5);
        // By terms, not by entries. The leader knows the members that miss most from its election on, so all of it counts.
        let (took, refusals) = (lab.world.now - rejoined, lab.traffic().refusals);
        assert!(took < ELECTION, "{took:?} to catch up");
        assert!((1..REFUSALS_MAX).contains(&refusals), "{refusals} refusals to catch up");
        assert_eq!(lab.agreed_len(), 2 * COUNT as u64 + 2);
        assert!(vain.into_iter().all(|sequence| lab.place(sequence).is_none()), "dropped, and agreed on");
        lab.finish();
    });
}

#[test]
fn count_2b() {
    const COMMANDS: usize = 10;
    each_seed("count_2b", |seed| {
        let mut lab = Plan::new(seed, 3).start();
        let elected = lab.within(ELECTION * 5, |lab| lab.all().any(|at| lab.leads(at)));
        assert!(elected);
        let first = lab.traffic();
        assert!((1..=30).contains(&first.requests), "{first:?} for a first election");
        lab.check_answers();
        assert!(first.bytes <= messages(first) * MESSAGE, "{first:?} for a first election");

        lab.open_session();
        let leader = lab.one_leader();
        let before = lab.traffic();
        let sequences = lab.start_many(leader, COMMANDS + 2);
        let agreed =
            lab.within(NEVER, |lab| sequences.iter().all(|sequence| lab.executed_on(*sequence) == 3));
        let said = since(before, lab.traffic());
        assert!(agreed && lab.leads(leader), "not agreed on in one term");
        assert!(said.requests <= (COMMANDS as u64 + 1 + 3) * 3, "{said:?} for {COMMANDS} commands and two");
        lab.check_answers();
        let once = 2 * (COMMANDS as u64 + 2) * (TOKEN + ENTRY);
        assert!(said.bytes <= once + messages(said) * MESSAGE, "{said:?} for {COMMANDS} commands and two");

        let before = lab.traffic();
        lab.run(millis(1_000));
        let said = since(before, lab.traffic());
        assert!(said.requests <= 60, "{said:?} in an idle second");
        lab.check_answers();
        assert!(said.bytes <= messages(said) * MESSAGE, "{said:?} in an idle second");
        lab.finish();
    });
}
