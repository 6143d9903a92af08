//! Everything that is counted while a run goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmap::check::{Checks, History, Outcome, Verdict};

use super::sorts::{Kind, Sort};

/// Problems kept in words.
const PROBLEMS_MAX: usize = 50;

/// Everything that is counted while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Cycles of faults, healing and check that came to their end.
    pub(crate) cycles: u64,
    /// Those of them with too little to check.
    pub(crate) idle_cycles: u64,
    /// Faults that were begun, as planned or as far as could be.
    pub(crate) begun: u64,
    /// Those that took hold, by sort: everybody was hit who was to be, what is for the leader hit a leader, nodes noticed
    /// that their disks are full, datagrams met the weather, a node died in its recovery.
    pub(crate) fired: BTreeMap<Sort, u64>,
    /// SIGKILLs.
    pub(crate) processes_killed: u64,
    /// Nodes started again.
    pub(crate) restarts: u64,
    /// Starts that a node refused because its disk was full, as it should.
    pub(crate) refused_starts: u64,
    /// How long processes were stopped.
    pub(crate) pauses: Vec<Duration>,
    /// From the end of a leader, with no other fault about, to the next acknowledged write.
    pub(crate) failovers: Vec<Duration>,
    /// From healing to equal replicas.
    pub(crate) converged: Vec<Duration>,
    /// Operations by their end.
    pub(crate) acknowledged_writes: u64,
    pub(crate) answered_reads: u64,
    pub(crate) unanswered_reads: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    /// Calls without an end although everything was healed.
    pub(crate) unresolved: u64,
    /// Of all histories.
    pub(crate) checks: Checks,
    pub(crate) found: BTreeMap<&'static str, u64>,
    /// Keys of older cycles that were read again, and those that had changed.
    pub(crate) read_again: u64,
    pub(crate) changed_later: u64,
    /// Operations in the ledger when all of it was checked at the end, as `raftmap check` does it, if it was.
    pub(crate) ledger_operations: Option<u64>,
    /// The auditor's own reads and removals, which are in the ledger too.
    pub(crate) audited: u64,
    /// Directories that were verified offline.
    pub(crate) verified: u64,
    /// Bytes of a node's log above its latest snapshot, of its directory, and of its memory.
    pub(crate) log: Most,
    pub(crate) disk: Most,
    pub(crate) memory: Most,
    /// What went wrong, in words; the first ones.
    pub(crate) problems: Vec<String>,
}

/// The most that a node was seen to take, and its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Most {
    pub(crate) bytes: u64,
    pub(crate) bound: u64,
}

impl Most {
    /// Takes in what a node takes, and says whether that is within the bound.
    pub(crate) fn holds(&mut self, bytes: u64, bound: u64) -> bool {
        *self = Self { bytes: self.bytes.max(bytes), bound: self.bound.max(bound) };
        bytes <= bound
    }
}

impl Tally {
    /// One more thing that is wrong.
    pub(crate) fn problem(&mut self, words: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(words);
        }
    }

    /// Counts what clients did.
    pub(crate) fn count(&mut self, history: &History) {
        for operation in history.operations() {
            match operation.outcome {
                Outcome::Done { .. } if operation.is_write() => self.acknowledged_writes += 1,
                Outcome::Done { .. } => self.answered_reads += 1,
                Outcome::Unknown if operation.is_write() => self.unknown += 1,
                Outcome::Unknown => self.unanswered_reads += 1,
                Outcome::Refused { .. } => self.refused += 1,
            }
        }
    }

    /// Takes in what a cycle's check found.
    pub(crate) fn judge(&mut self, verdict: &Verdict) {
        self.checks += verdict.checks;
        for (kind, count) in by_kind(verdict) {
            *self.found.entry(kind).or_default() += count;
        }
        for (checker, findings) in verdict.findings() {
            for example in &findings.examples {
                self.problem(format!("{example} (by {checker})"));
            }
        }
    }

    /// Takes in what the check of the whole ledger found. It has the operations of all cycles once more: only what it
    /// finds besides counts besides.
    pub(crate) fn judge_ledger(&mut self, verdict: &Verdict) {
        self.ledger_operations = Some(verdict.operations);
        for (kind, count) in by_kind(verdict) {
            let found = self.found.entry(kind).or_default();
            *found = count.max(*found);
        }
        for example in verdict.examples() {
            self.problem(format!("the ledger: {example}"));
        }
        let checks = verdict.checks;
        if checks.too_many_unknown() {
            let (unknown, checks) = (checks.unknown(), checks.all());
            self.problem(format!("the ledger: {unknown} of {checks} checks came to no end"));
        }
        let (held, done) = (verdict.operations, self.operations() + self.audited);
        if held != done {
            self.problem(format!("the ledger holds {held} operations, {done} were done"));
        }
    }

    /// Writes acknowledged and reads answered.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged_writes + self.answered_reads
    }

    /// All that clients did.
    pub(crate) fn operations(&self) -> u64 {
        self.acknowledged() + self.unanswered_reads + self.unknown + self.refused
    }

    /// How often a sort took hold.
    pub(crate) fn fired_by(&self, sort: Sort) -> u64 {
        self.fired.get(&sort).copied().unwrap_or(0)
    }

    /// ... and all sorts of a kind.
    pub(crate) fn fired_of(&self, kind: Kind) -> u64 {
        self.fired.iter().filter(|(sort, _)| sort.kind() == kind).map(|(_, count)| count).sum()
    }

    /// Findings of one kind.
    pub(crate) fn found_of(&self, name: &str) -> u64 {
        self.found.get(name).copied().unwrap_or(0)
    }
}

/// What all checkers found together.
fn by_kind(verdict: &Verdict) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    for (kind, count) in verdict.findings().into_iter().flat_map(|(_, findings)| findings.kinds()) {
        *found.entry(kind).or_default() += count;
    }
    found
}

#[cfg(test)]
mod tests {
    use raftmap::check::Kind as Found;

    use super::*;

    fn lost(count: u64) -> Verdict {
        let mut verdict = Verdict { operations: 10, ..Verdict::default() };
        (0..count).for_each(|number| verdict.order.note(Found::Lost, || number.to_string()));
        verdict
    }

    #[test]
    fn what_the_ledger_shows_once_more_counts_once() {
        let mut tally = Tally { acknowledged_writes: 7, audited: 3, ..Tally::default() };
        tally.judge(&lost(1));
        tally.judge(&lost(1));
        tally.judge_ledger(&lost(2));
        assert_eq!(tally.found_of("lost"), 2, "found before");
        tally.judge_ledger(&lost(3));
        assert_eq!(tally.found_of("lost"), 3, "one besides");
        assert!(tally.problems.iter().all(|words| words.contains("lost: ")), "{:?}", tally.problems);
    }

    #[test]
    fn a_ledger_has_every_operation_and_no_other() {
        for (held, words) in [(9, "holds 9 operations, 10 were done"), (10, ""), (11, "holds 11 operations")]
        {
            let mut tally = Tally { acknowledged_writes: 7, audited: 3, ..Tally::default() };
            tally.judge_ledger(&Verdict { operations: held, ..lost(0) });
            assert_eq!(tally.problems.len(), usize::from(held != 10), "{held}");
            assert!(tally.problems.iter().all(|problem| problem.contains(words)), "{:?}", tally.problems);
        }
    }

    #[test]
    fn the_most_is_held_against_its_bound() {
        let mut most = Most::default();
        assert!(most.holds(10, 10) && !most.holds(11, 10) && most.holds(1, 10));
        assert_eq!(most, Most { bytes: 11, bound: 10 });
    }

    #[test]
    fn words_are_bounded() {
        let mut tally = Tally::default();
        (0..1_000).for_each(|number| tally.problem(number.to_string()));
        assert_eq!(tally.problems.len(), PROBLEMS_MAX);
    }
}
