//! By search: is there any order, within real time, in which the map would have given these answers? Key by key, and
//! along time, in windows: one ends where nothing with a known end is under way, or after [`WINDOW_MAX`] operations. A
//! window that costs too much is unknown, and counted; the search goes on behind it, knowing nothing at first.
//!
//! It trusts no place in the log, and of versions only that they rise. It is meant for few clients at once on each key:
//! with eight and unknown writes now and then it does not run out of budget.

use super::budget::Budget;
use super::findings::{Findings, Kind};
use super::frontier::{Frontier, Pending, Taken};
use super::history::{Call, Operation, Outcome};
use super::lane::{Growth, Lane};
use super::model::State;

/// Answers that one window has at most.
const WINDOW_MAX: u64 = 200;
/// Operations under way on one key at most, those included that will never be heard of.
const PENDING_MAX: usize = 64;
/// Operations that a finding names at most.
const NAMES_MAX: usize = 10;

/// Checks one key, up to the first answer that fits into no order.
pub(super) fn check(lane: &Lane<'_>, growth: Option<&Growth>, findings: &mut Findings) -> Budget {
    let mut search = Search {
        lane,
        frontier: Frontier::new(State::NEW, growth),
        pending: Vec::new(),
        free: u64::MAX,
        lost: false,
        hopeless: false,
        answers: 0,
        windows: Budget::default(),
    };
    for (_, is_end, operation) in events(lane) {
        match is_end {
            false => search.begins(operation),
            true if search.ends(operation, findings) => {}
            true => break,
        }
    }
    search.close_window();
    search.windows
}

/// (when, whether it is the end, of what). What ends as another begins is beside it.
fn events<'a>(lane: &Lane<'a>) -> Vec<(u64, bool, &'a Operation)> {
    let mut events = Vec::with_capacity(lane.operations.len() * 2);
    for operation in &lane.operations {
        match operation.outcome {
            Outcome::Refused { .. } => {}
            Outcome::Unknown if operation.call == Call::Get => {}
            Outcome::Unknown => events.push((operation.invoked_ns, false, *operation)),
            Outcome::Done { returned_ns, .. } => {
                events.push((operation.invoked_ns, false, *operation));
                events.push((returned_ns.max(operation.invoked_ns), true, *operation));
            }
        }
    }
    events.sort_by_key(|(time, is_end, _)| (*time, *is_end));
    events
}

struct Search<'a> {
    lane: &'a Lane<'a>,
    frontier: Frontier<'a>,
    pending: Vec<Pending>,
    /// Bits that no operation under way has.
    free: u64,
    /// This window came to no end: nothing is judged until nothing is under way.
    lost: bool,
    /// More is under way than can be told apart: the rest of the key is unknown.
    hopeless: bool,
    /// In this window, so far.
    answers: u64,
    windows: Budget,
}

impl Search<'_> {
    fn begins(&mut self, operation: &Operation) {
        if self.pending.len() == PENDING_MAX {
            (self.lost, self.hopeless) = (true, true);
        }
        if !self.hopeless {
            let bit = 1 << self.free.trailing_zeros();
            self.free &= !bit;
            self.pending.push(Pending { bit, operation: *operation });
        }
    }

    /// `false`: it fits into no order.
    fn ends(&mut self, operation: &Operation, findings: &mut Findings) -> bool {
        self.answers += 1;
        let at = self.pending.iter().position(|pending| pending.operation == *operation);
        let Some(target) = at.map(|at| self.pending.swap_remove(at)) else { return true };
        self.free |= target.bit;
        if !self.lost {
            match self.frontier.take(target, &self.pending) {
                Taken::Well => self.retire(),
                Taken::Impossible => {
                    findings.note(Kind::NoOrder, || self.words(operation));
                    return false;
                }
                Taken::OutOfBudget => self.lost = true,
            }
        }
        let is_quiet = self.pending.iter().all(|pending| pending.operation.reply().is_none());
        let is_full = self.answers >= WINDOW_MAX && !self.lost;
        if (is_quiet || is_full) && !self.hopeless {
            self.close_window();
        }
        true
    }

    fn retire(&mut self) {
        let unknown = self.pending.iter().filter(|pending| pending.operation.reply().is_none());
        let done = self.frontier.retire(unknown.fold(0, |bits, pending| bits | pending.bit));
        if done != 0 {
            self.pending.retain(|pending| pending.bit & done == 0);
            self.free |= done;
        }
    }

    fn close_window(&mut self) {
        if self.answers == 0 {
            return;
        }
        // A window that was lost lasts until all is quiet: it stands for all those it covers.
        let covered = self.answers.div_ceil(WINDOW_MAX);
        self.windows.checks += covered;
        if self.lost {
            self.windows.unknown += covered;
            self.frontier.restart(State::Any);
        }
        (self.answers, self.lost) = (0, false);
        self.frontier.refill();
    }

    fn words(&self, operation: &Operation) -> String {
        let beside: Vec<String> =
            self.pending.iter().take(NAMES_MAX).map(|pending| pending.operation.to_string()).collect();
        format!(
            "the answer to {operation} about {} fits into no order; under way beside it: [{}]; it was {:?}",
            self.lane.name,
            beside.join(", "),
            self.frontier.example()
        )
    }
}
