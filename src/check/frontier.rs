//! All that one key can be, given what has been answered so far: every state, with the operations under way that have
//! taken effect in it. One answer at a time narrows it down; nothing left means that no order explains the answers.
//!
//! This is Wing and Gong's search in the breadth-first form that Lowe gave it ("Testing for linearizability", 2017):
//! an operation takes effect no earlier than somebody's answer needs it, and what leads to the same state with the same
//! operations done is looked at once. An operation that nobody heard of need never be done, so that of two ways to the
//! same state the one with fewer of those is enough.

use std::collections::{BTreeMap, VecDeque};

use super::history::{Call, Operation, Reply};
use super::lane::Growth;
use super::model::{State, Version};

/// Steps of the model that one stretch of a history may cost; memory is bounded by the same number.
pub(super) const STEPS_MAX: u64 = 300_000;

/// An operation under way.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    /// One bit of its own among those under way.
    pub(super) bit: u64,
    /// What it is.
    pub(super) operation: Operation,
}

/// How an answer was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It can be.
    Well,
    /// It cannot be, whatever happened. The frontier is as before.
    Impossible,
    /// It would have cost too much to tell. The frontier is as before.
    OutOfBudget,
}

/// The known operations under way that are done and the state they left, with the sets of unknown ones that lead there:
/// none of these holds another. In this order, those that may stand for each other are neighbours.
type Configurations = BTreeMap<(u64, State), Vec<u64>>;

/// See the module's description.
pub(super) struct Frontier<'a> {
    configurations: Configurations,
    /// Of a log: what it can have been.
    growth: Option<&'a Growth>,
    steps_left: u64,
}

impl<'a> Frontier<'a> {
    /// Where everything is `state`.
    pub(super) fn new(state: State, growth: Option<&'a Growth>) -> Self {
        Self { configurations: Self::only(state), growth, steps_left: STEPS_MAX }
    }

    /// Goes on with nothing but `state`, and none of the operations under way done in it.
    pub(super) fn restart(&mut self, state: State) {
        self.configurations = Self::only(state);
    }

    /// The budget of another stretch.
    pub(super) fn refill(&mut self) {
        self.steps_left = STEPS_MAX;
    }

    /// One of the states, for words.
    pub(super) fn example(&self) -> Option<State> {
        self.configurations.keys().next().map(|(_, state)| *state)
    }

    /// Unknown operations of `bits` that are done in every case; from here on the frontier knows them no more.
    pub(super) fn retire(&mut self, bits: u64) -> u64 {
        let done = self.configurations.values().flatten().fold(bits, |done, unknown| done & unknown);
        for unknown in self.configurations.values_mut().flatten() {
            *unknown &= !done;
        }
        done
    }

    /// The answer of `target`, which may have taken effect after any of the `others` under way, those with a known end
    /// and those without.
    pub(super) fn take(&mut self, target: Pending, others: &[Pending]) -> Taken {
        let mut search = Search {
            target,
            others,
            alone: others.iter().all(|other| other.operation.reply().is_none()),
            growth: self.growth,
            longest: longest(&target.operation),
            seen: BTreeMap::new(),
            queue: VecDeque::new(),
            result: BTreeMap::new(),
        };
        for ((known, state), unknowns) in &self.configurations {
            for unknown in unknowns {
                if known & target.bit != 0 {
                    insert(&mut search.result, (known & !target.bit, *state), *unknown);
                } else {
                    search.visit((*known, *state), *unknown);
                }
            }
        }
        if !search.run(&mut self.steps_left) {
            return Taken::OutOfBudget;
        }
        if search.result.is_empty() {
            return Taken::Impossible;
        }
        self.configurations = search.result;
        Taken::Well
    }

    fn only(state: State) -> Configurations {
        BTreeMap::from([((0, state), vec![0])])
    }
}

/// One answer's search.
struct Search<'a> {
    target: Pending,
    others: &'a [Pending],
    /// No other operation with a known end is under way.
    alone: bool,
    growth: Option<&'a Growth>,
    /// A log that is longer will not be as the target found it.
    longest: u32,
    seen: Configurations,
    queue: VecDeque<((u64, State), u64)>,
    result: Configurations,
}

impl Search<'_> {
    /// `false`: out of budget.
    fn run(&mut self, steps_left: &mut u64) -> bool {
        while let Some(((known, state), unknown)) = self.queue.pop_front() {
            let Some(left) = steps_left.checked_sub(1 + self.others.len() as u64) else { return false };
            *steps_left = left;
            if let Some(next) = self.step(state, &self.target.operation) {
                insert(&mut self.result, (known, next), unknown);
                if self.is_settled(state) {
                    continue;
                }
            }
            for other in self.others.iter().filter(|other| (known | unknown) & other.bit == 0) {
                let Some(next) = self.step(state, &other.operation) else { continue };
                match other.operation.reply() {
                    Some(_) => self.visit((known | other.bit, next), unknown),
                    None => self.visit((known, next), unknown | other.bit),
                }
            }
        }
        true
    }

    fn visit(&mut self, at: (u64, State), unknown: u64) {
        if insert(&mut self.seen, at, unknown) {
            self.queue.push_back((at, unknown));
        }
    }

    fn step(&self, state: State, operation: &Operation) -> Option<State> {
        state.step(operation).filter(|next| match (next, self.growth) {
            (State::Present { value, .. }, Some(growth)) => {
                value.length() <= self.longest && growth.allows(*value)
            }
            (State::Any | State::Absent(_) | State::Present { .. }, _) => true,
        })
    }

    /// Whether the target, possible in this state, need not be tried behind others. A get of a known version: nothing
    /// can be written before it, and what writes nothing may as well follow. A put, with nobody beside it who must have
    /// seen what it covers: it leaves the same behind.
    fn is_settled(&self, state: State) -> bool {
        match (self.target.operation.call, self.target.operation.reply()) {
            (Call::Get, Some(Reply::Found { version: told, .. })) => {
                matches!(state, State::Present { version: Version::Known(version), .. } if version == told)
            }
            (Call::Put(_), Some(Reply::Stored { version })) => self.alone && version != 0,
            _ => false,
        }
    }
}

/// Bytes that a log has at most when it answers this.
fn longest(target: &Operation) -> u32 {
    match target.reply() {
        Some(Reply::Found { value, .. }) => value.length(),
        Some(Reply::Absent) => 0,
        Some(Reply::Stored { .. } | Reply::Mismatch { .. } | Reply::Deleted { .. }) | None => u32::MAX,
    }
}

/// Whether it was worth it: no other way to this state, or to one that allows as much, does without more.
fn insert(configurations: &mut Configurations, at: (u64, State), unknown: u64) -> bool {
    let (known, state) = at;
    let mut ways = configurations.range((known, state.freest())..=at).flat_map(|(_, ways)| ways);
    if ways.any(|way| way & !unknown == 0) {
        return false;
    }
    let ways = configurations.entry(at).or_default();
    ways.retain(|way| unknown & !way != 0);
    ways.push(unknown);
    true
}
