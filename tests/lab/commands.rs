//! Commands that a test puts into a member by hand, as if a client of that process had asked, and what became of them.
//! All are writes of one session; most append their own token to one key, so each member's value is the order in which
//! it executed them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raftmap::kv::{Command, Reply};
use raftmap::node::replica::Input;
use raftmap::storage::types::Index;
use raftmap::wire::client::{Answer, Ask, Refusal, Request};
use raftmap_sim::client::OWNER;
use raftmap_sim::tap::SCRIPT;

use crate::cluster::{Lab, millis};

/// What all commands are appended to.
pub(crate) const KEY: &[u8] = b"commands";
/// For a command to be taken and agreed on.
const AGREE_MAX: std::time::Duration = millis(10_000);
/// For a command that was taken to be agreed on.
const COMMIT_MAX: std::time::Duration = millis(2_000);
/// Numbers that may be without an answer: older ones count as answered.
const WINDOW: u64 = 1_000;

/// A command on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) request: u64,
    /// Its number in the session.
    pub(crate) sequence: u64,
}

/// The commands that are agreed on, as far as somebody looked.
#[derive(Default)]
pub(crate) struct Agreed {
    /// Entries looked at.
    looked: u64,
    /// Commands among them. One that was asked again may be there twice.
    count: u64,
    /// By number: where it first stands in the log, and among the commands.
    places: BTreeMap<u64, (Index, u64)>,
}

impl Lab {
    /// A new command's number.
    pub(crate) fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The command of this number.
    pub(crate) fn token(sequence: u64) -> Command {
        let value = Bytes::from(format!("{sequence};"));
        Command::Append { key: Bytes::from_static(KEY), value }
    }

    /// Asks the member for something, right there.
    pub(crate) fn ask(&mut self, at: usize, body: Ask) -> u64 {
        self.requests += 1;
        let request = Request { id: self.requests, body };
        self.world.push(at, Input::Client { client: SCRIPT, owner: OWNER, request });
        self.requests
    }

    /// Gives the member the command of this number, and does not wait.
    pub(crate) fn put_in(&mut self, at: usize, sequence: u64, command: Command) -> Ticket {
        let session = self.session.expect("open_session came first");
        let acked_below = (sequence + 1).saturating_sub(WINDOW).max(1);
        if command.key() == KEY {
            self.tokens.insert(sequence);
        }
        let request = self.ask(at, Ask::Write { session, sequence, acked_below, command });
        self.asked.insert(request, sequence);
        Ticket { request, sequence }
    }

    /// As [`Lab::put_in`]; `None` where the member did not take it.
    pub(crate) fn propose(&mut self, at: usize, sequence: u64, command: Command) -> Option<Ticket> {
        if !self.runs(at) {
            return None;
        }
        let ticket = self.put_in(at, sequence, command);
        // The inbox is emptied within 0.2 ms.
        self.run(millis(1) / 4);
        match self.tap().answers.get(&ticket.request).map(|response| &response.body) {
            Some(Err(Refusal::NotLeader { .. } | Refusal::Busy | Refusal::Stopping)) => None,
            Some(Err(Refusal::Lost)) | Some(Ok(_)) | None => Some(ticket),
            Some(Err(other)) => panic!("refused: {other:?}"),
        }
    }

    /// A new command for this member.
    pub(crate) fn start(&mut self, at: usize) -> Option<Ticket> {
        let sequence = self.number();
        self.propose(at, sequence, Self::token(sequence))
    }

    /// Before the first command: a session, which is an entry too, but nobody's command.
    pub(crate) fn open_session(&mut self) {
        if self.session.is_some() {
            return;
        }
        let opened = self.within(AGREE_MAX, |lab| {
            let asked: Vec<u64> = lab
                .all()
                .filter(|at| lab.runs(*at))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|at| lab.ask(at, Ask::Open))
                .collect();
            lab.run(millis(300));
            lab.session = asked.iter().find_map(|request| match lab.tap().answers.get(request)?.body {
                Ok(Answer::Opened { session }) => Some(session),
                _ => None,
            });
            lab.session.is_some()
        });
        assert!(opened, "no session in {AGREE_MAX:?}");
    }

    // ---- What was agreed on ----

    /// Takes in what was agreed on since the last look.
    fn learn(&mut self) {
        let tap = self.world.tap.as_ref().expect("a lab has one");
        for (term, _) in self.world.watch.committed().iter().skip(self.agreed.looked as usize) {
            self.agreed.looked += 1;
            let index = Index(self.agreed.looked);
            let Some((session, sequence)) = tap.write_at(index, *term) else { continue };
            if Some(session) == self.session {
                self.agreed.count += 1;
                self.agreed.places.entry(sequence).or_insert((index, self.agreed.count));
            }
        }
    }

    /// How many commands are agreed on.
    pub(crate) fn agreed_len(&mut self) -> u64 {
        self.learn();
        self.agreed.count
    }

    /// How many members have executed it.
    pub(crate) fn executed_on(&mut self, sequence: u64) -> usize {
        self.learn();
        let Some((index, _)) = self.agreed.places.get(&sequence) else { return 0 };
        let lives = self.world.nodes.iter().filter_map(|node| node.life.as_ref());
        lives.filter(|life| life.replica.map().applied_index() >= *index).count()
    }

    /// Its place among the commands agreed on, from 1.
    pub(crate) fn place(&mut self, sequence: u64) -> Option<u64> {
        self.learn();
        self.agreed.places.get(&sequence).map(|(_, place)| *place)
    }

    /// The place it would have among the commands of this member's log.
    pub(crate) fn place_in_log(&self, at: usize, sequence: u64) -> Option<u64> {
        let tap = self.world.tap.as_ref().expect("a lab has one");
        let entries = self.world.nodes[at].shadow.log.entries.from(Index(0));
        let mut writes = entries.filter_map(|(index, (term, _))| tap.write_at(index, term));
        writes.position(|(_, found)| found == sequence).map(|at| at as u64 + 1)
    }

    /// A new command is agreed on by `members` at least; its place. Not asked again.
    #[track_caller]
    pub(crate) fn agree(&mut self, members: usize) -> u64 {
        let sequence = self.number();
        self.agree_on(sequence, Self::token(sequence), members, false)
    }

    /// As [`Lab::agree`], but asked again, under the same number, until it is.
    #[track_caller]
    pub(crate) fn agree_at_last(&mut self, members: usize) -> u64 {
        let sequence = self.number();
        self.agree_on(sequence, Self::token(sequence), members, true)
    }

    /// So many commands, one after the other.
    #[track_caller]
    pub(crate) fn agree_often(&mut self, count: usize, members: usize) {
        for _ in 0..count {
            self.agree_at_last(members);
        }
    }

    #[track_caller]
    pub(crate) fn agree_on(&mut self, sequence: u64, command: Command, members: usize, again: bool) -> u64 {
        self.open_session();
        let until = self.world.now + AGREE_MAX;
        while self.world.now < until {
            let order = self.dice.shuffled(self.len());
            let taken = order
                .into_iter()
                .filter(|at| self.is_connected(*at))
                .collect::<Vec<_>>()
                .into_iter()
                .find_map(|at| self.propose(at, sequence, command.clone()));
            if taken.is_none() {
                self.run(millis(50));
                continue;
            }
            if self.within(COMMIT_MAX, |lab| lab.executed_on(sequence) >= members) {
                return self.place(sequence).expect("it was executed");
            }
            assert!(again, "command {sequence} was taken, and {members} members have not executed it");
        }
        panic!("command {sequence} is not agreed on by {members} members after {AGREE_MAX:?}");
    }

    /// What each member that runs has executed, in its order: the tokens in its map.
    pub(crate) fn executed(&self) -> BTreeMap<usize, String> {
        let value = |at: usize| {
            let life = self.world.nodes[at].life.as_ref()?;
            let found = life.replica.map().get(KEY);
            Some(found.map(|found| String::from_utf8_lossy(&found.value).into_owned()).unwrap_or_default())
        };
        self.all().filter_map(|at| Some((at, value(at)?))).collect()
    }

    /// The same of the member that is furthest.
    pub(crate) fn executed_most(&self) -> String {
        self.executed().into_values().max_by_key(String::len).unwrap_or_default()
    }

    /// Of members that run, each executed a front part of what the furthest one did, each command once; and whoever was
    /// told that its command was done finds it there.
    #[track_caller]
    pub(crate) fn check_commands(&self) {
        let longest = self.executed_most();
        for (at, value) in self.executed() {
            assert!(longest.starts_with(&value), "{at} executed {value}, another one {longest}");
        }
        let tokens: Vec<&str> = longest.split_inclusive(';').collect();
        let once: BTreeSet<&str> = tokens.iter().copied().collect();
        assert_eq!(once.len(), tokens.len(), "a command was executed twice: {longest}");
        let tap = self.world.tap.as_ref().expect("a lab has one");
        let tokens = self.asked.iter().filter(|(_, sequence)| self.tokens.contains(sequence));
        let done = tokens.filter_map(|(request, sequence)| match &tap.answers.get(request)?.body {
            Ok(Answer::Written { reply: Reply::Append { length, .. }, .. }) => Some((*sequence, *length)),
            _ => None,
        });
        for (sequence, length) in done {
            let front = longest.get(..length as usize);
            let there = front.and_then(|front| front.strip_suffix(&format!("{sequence};")));
            let there = there.is_some_and(|before| before.is_empty() || before.ends_with(';'));
            assert!(there, "command {sequence} was said to make {length} bytes of {longest}");
        }
    }

    /// What was said to be done is in the log; a command that was refused each time it was asked for is not.
    #[track_caller]
    pub(crate) fn check_outcomes(&mut self) {
        self.learn();
        let tap = self.world.tap.as_ref().expect("a lab has one");
        let mut refused: BTreeMap<u64, bool> = BTreeMap::new();
        for (request, sequence) in &self.asked {
            let told = tap.answers.get(request).map(|response| &response.body);
            let done = matches!(told, Some(Ok(Answer::Written { .. })));
            assert!(
                !done || self.agreed.places.contains_key(sequence),
                "{sequence} was done, and is nowhere"
            );
            let not_done =
                matches!(told, Some(Err(Refusal::NotLeader { .. } | Refusal::Busy | Refusal::Stopping)));
            *refused.entry(*sequence).or_insert(true) &= not_done;
        }
        for sequence in refused.into_iter().filter_map(|(sequence, refused)| refused.then_some(sequence)) {
            let place = self.agreed.places.get(&sequence);
            assert!(place.is_none(), "{sequence} was refused each time, and stands at {place:?}");
        }
    }
}
