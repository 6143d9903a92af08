//! By witness: every answer names its place in the log. Places must agree with real time, and replaying the writes of a
//! key in their order must give what the answers say. It trusts the places; the other checkers do not.

use super::budget::Budget;
use super::findings::{Findings, Kind};
use super::floor::Floor;
use super::frontier::{Frontier, Pending, Taken};
use super::history::{Call, History, Operation, Outcome, Reply};
use super::lane::{Growth, Lane};
use super::model::{State, Version};

/// Unknown writes of one key that are told apart at most; their bits, and one for the answer looked at.
const UNKNOWN_MAX: u32 = 63;

/// What began after something had returned stands behind it; a read may stand at the same place. No two writes have the
/// same place, and a key's version is the place of its last change.
pub(super) fn check_places(history: &History, findings: &mut Findings) {
    let operations = history.operations();
    let steps = operations.iter().filter_map(|done| Some((done.returned_ns()?, done.index()?))).collect();
    let floor = Floor::new(steps);
    let mut writes = Vec::new();
    for operation in operations {
        let Some(index) = operation.index() else { continue };
        let least = floor.at(operation.invoked_ns) + u64::from(operation.is_write());
        if index < least {
            let kind = if operation.is_write() { Kind::Reordered } else { Kind::StaleRead };
            findings.note(kind, || format!("{operation} at place {index}, it cannot stand before {least}"));
        }
        if operation.is_write() {
            writes.push((index, operation));
        }
        check_version(operation, index, findings);
    }
    writes.sort_by_key(|(index, _)| *index);
    for pair in writes.windows(2) {
        if let [(index, one), (other, another)] = pair
            && index == other
        {
            findings.note(Kind::Reordered, || format!("{one} and {another} both at place {index}"));
        }
    }
}

fn check_version(operation: &Operation, index: u64, findings: &mut Findings) {
    match operation.reply() {
        Some(Reply::Stored { version }) if version != 0 && version != index => {
            findings.note(Kind::Reordered, || format!("{operation} at place {index} as version {version}"));
        }
        Some(Reply::Found { version, .. }) if version > index => {
            findings.note(Kind::NeverSent, || {
                format!("{operation} saw version {version} in the state at place {index}")
            });
        }
        Some(
            Reply::Stored { .. }
            | Reply::Mismatch { .. }
            | Reply::Deleted { .. }
            | Reply::Absent
            | Reply::Found { .. },
        )
        | None => {}
    }
}

/// Replays one key in the order of the log. Counts the answers that name a place.
pub(super) fn check(lane: &Lane<'_>, growth: Option<&Growth>, findings: &mut Findings) -> Budget {
    let mut placed: Vec<(u64, &Operation)> =
        lane.operations.iter().filter_map(|done| Some((done.index()?, *done))).collect();
    // A read of place n sees the write at n.
    placed.sort_by_key(|(index, operation)| (*index, !operation.is_write()));
    let checks = placed.len() as u64;
    let mut replay = Replay::new(lane, growth);
    for (before, (index, operation)) in (0..).zip(placed) {
        if !replay.answer(&placed_at(operation, index), index, findings) {
            replay.unknown_answers += checks - before;
            break;
        }
    }
    Budget { checks, unknown: replay.unknown_answers }
}

struct Replay<'a> {
    lane: &'a Lane<'a>,
    frontier: Frontier<'a>,
    /// Writes with an unknown end that have not begun yet, the next one last.
    to_come: Vec<Operation>,
    /// Those that may have happened by now.
    unknown: Vec<Pending>,
    free: u64,
    unknown_answers: u64,
}

impl<'a> Replay<'a> {
    fn new(lane: &'a Lane<'a>, growth: Option<&'a Growth>) -> Self {
        // An answer without a place tells as little as none.
        let unplaced = |operation: &Operation| {
            let may_be = !matches!(operation.outcome, Outcome::Refused { .. });
            (may_be && operation.is_write() && operation.index().is_none())
                .then_some(Operation { outcome: Outcome::Unknown, ..*operation })
        };
        let mut to_come: Vec<Operation> =
            lane.operations.iter().filter_map(|write| unplaced(write)).collect();
        to_come.sort_by_key(|operation| std::cmp::Reverse(operation.invoked_ns));
        let frontier = Frontier::new(State::NEW, growth);
        let free = u64::MAX >> (u64::BITS - UNKNOWN_MAX);
        Self { lane, frontier, to_come, unknown: Vec::new(), free, unknown_answers: 0 }
    }

    /// `false`: nothing further can be told.
    fn answer(&mut self, operation: &Operation, index: u64, findings: &mut Findings) -> bool {
        if !self.admit(operation.returned_ns().unwrap_or(u64::MAX)) {
            return false;
        }
        self.frontier.refill();
        let target = Pending { bit: 1 << UNKNOWN_MAX, operation: *operation };
        match self.frontier.take(target, &self.unknown) {
            Taken::Well => {
                let bits = self.unknown.iter().fold(0, |bits, pending| bits | pending.bit);
                let done = self.frontier.retire(bits);
                self.unknown.retain(|pending| pending.bit & done == 0);
                self.free |= done;
            }
            Taken::Impossible => {
                let state = self.frontier.example().unwrap_or(State::Any);
                findings.note(kind_of(state, operation), || self.words(index, operation, state));
                self.go_on_behind(operation);
            }
            Taken::OutOfBudget => {
                self.unknown_answers += 1;
                self.go_on_behind(operation);
            }
        }
        true
    }

    /// Those that had begun by then may have happened before. `false`: they are too many to be told apart.
    fn admit(&mut self, returned_ns: u64) -> bool {
        while let Some(next) = self.to_come.pop_if(|next| next.invoked_ns <= returned_ns) {
            let bit = self.free & self.free.wrapping_neg();
            if bit == 0 {
                return false;
            }
            self.free &= !bit;
            self.unknown.push(Pending { bit, operation: next });
        }
        true
    }

    /// With what the answer says, whatever was before.
    fn go_on_behind(&mut self, operation: &Operation) {
        self.frontier.restart(State::Any.step(operation).unwrap_or(State::Any));
    }

    fn words(&self, index: u64, operation: &Operation, state: State) -> String {
        let (name, reply) = (&self.lane.name, operation.reply());
        let told = reply.map_or(String::new(), |reply| format!("{reply:?}"));
        format!("{operation} at place {index} of {name} was told {told}, it was {state:?}")
    }
}

/// The same with the version that its place gives it.
fn placed_at(operation: &Operation, index: u64) -> Operation {
    match operation.outcome {
        Outcome::Done { returned_ns, index: told, reply: Reply::Stored { .. } } => Operation {
            outcome: Outcome::Done { returned_ns, index: told, reply: Reply::Stored { version: index } },
            ..*operation
        },
        Outcome::Done { .. } | Outcome::Unknown | Outcome::Refused { .. } => *operation,
    }
}

/// The best word for an answer that cannot be.
fn kind_of(state: State, operation: &Operation) -> Kind {
    match (operation.call, operation.reply(), state) {
        (Call::Put(_) | Call::Append(_), _, _) => Kind::Reordered,
        (Call::Compare { .. } | Call::Delete, _, _) => Kind::Miscompared,
        (Call::Get, Some(Reply::Found { version, .. }), _) if version < state.least_version() => {
            Kind::StaleRead
        }
        (Call::Get, Some(Reply::Absent), State::Present { version: Version::Known(_), .. }) => {
            Kind::StaleRead
        }
        (Call::Get, _, _) => Kind::TornRead,
    }
}
