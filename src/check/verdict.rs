//! What all checkers make of one history, and when that is good enough.

use std::fmt;

use super::findings::Findings;
use super::history::History;
use super::order;

/// Of so many checks one may have come to no end.
const UNKNOWN_MAX: u64 = 1_000;

/// What the checkers found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Operations in the history.
    pub operations: u64,
    /// Keys in it.
    pub keys: u64,
    /// By the order that values show.
    pub order: Findings,
    /// Keys that show one.
    pub ordered: u64,
    /// Checks that could have found something.
    pub checks: u64,
    /// Those of them that ran out of budget.
    pub unknown: u64,
}

/// All checkers over one history. Their time and memory are bounded.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict { operations: history.len() as u64, ..Verdict::default() };
    for lane in order::lanes(history) {
        verdict.keys += 1;
        verdict.ordered += u64::from(order::check(&lane, &mut verdict.order));
    }
    verdict.checks = verdict.ordered;
    verdict
}

impl Verdict {
    /// Whether nothing is wrong, and nearly every check came to an end.
    pub fn passed(&self) -> bool {
        self.findings().all(Findings::is_clean) && !self.too_many_unknown()
    }

    /// What each checker found.
    pub fn findings(&self) -> impl Iterator<Item = &Findings> {
        [&self.order].into_iter()
    }

    /// The first findings of each checker in words.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        self.findings().flat_map(|findings| findings.examples.iter().map(String::as_str))
    }

    /// Whether more than one check in a thousand came to no end.
    pub fn too_many_unknown(&self) -> bool {
        self.unknown.saturating_mul(UNKNOWN_MAX) > self.checks
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, keys, checks, unknown, .. } = self;
        writeln!(f, "{operations} operations on {keys} keys, {checks} checks, {unknown} of them unknown")?;
        for example in self.examples() {
            writeln!(f, "  {example}")?;
        }
        f.write_str(if self.passed() { "nothing is wrong" } else { "NOT PASSED" })
    }
}
