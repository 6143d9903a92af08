//! What all checkers make of one history, and when that is good enough.

use std::fmt;

use super::budget::Checks;
use super::findings::Findings;
use super::history::History;
use super::{lane, order, search, witness};

/// What the checkers found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Operations in the history.
    pub operations: u64,
    /// Keys in it.
    pub keys: u64,
    /// Found by the order that values show.
    pub order: Findings,
    /// Found by the places that answers name.
    pub witness: Findings,
    /// Found by search.
    pub search: Findings,
    /// How much each of them looked at.
    pub checks: Checks,
}

/// All checkers over one history. Time and memory that an operation can cost are bounded.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict { operations: history.len() as u64, ..Verdict::default() };
    witness::check_places(history, &mut verdict.witness);
    for lane in lane::lanes(history) {
        verdict.keys += 1;
        verdict.checks.ordered += u64::from(order::check(&lane, &mut verdict.order));
        let growth = lane.growth();
        verdict.checks.answers += witness::check(&lane, growth.as_ref(), &mut verdict.witness);
        verdict.checks.windows += search::check(&lane, growth.as_ref(), &mut verdict.search);
    }
    verdict
}

impl Verdict {
    /// Whether nothing is wrong, and nearly every check came to an end.
    pub fn passed(&self) -> bool {
        self.is_clean() && !self.checks.too_many_unknown()
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings().iter().all(|(_, findings)| findings.is_clean())
    }

    /// What each checker found, under its name.
    pub fn findings(&self) -> [(&'static str, &Findings); 3] {
        [("order", &self.order), ("witness", &self.witness), ("search", &self.search)]
    }

    /// The first findings of each checker in words.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        self.findings().into_iter().flat_map(|(_, findings)| &findings.examples).map(String::as_str)
    }
}

/// Figures, findings, and in the last line what they come to.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, keys, checks, .. } = self;
        let Checks { ordered, answers, windows } = checks;
        writeln!(f, "history     {operations} operations on {keys} keys")?;
        writeln!(
            f,
            "checked     {ordered} keys by order, {} answers by witness, {} windows by search",
            answers.checks, windows.checks
        )?;
        writeln!(
            f,
            "unknown     {} answers and {} windows ran out of budget",
            answers.unknown, windows.unknown
        )?;
        for (name, findings) in self.findings() {
            for (kind, count) in findings.kinds() {
                writeln!(f, "found       {count} {kind}, by {name}")?;
            }
        }
        for example in self.examples() {
            writeln!(f, "  {example}")?;
        }
        f.write_str(match (self.is_clean(), checks.too_many_unknown()) {
            (true, false) => "nothing is wrong",
            (true, true) => "NOT PASSED: more than one check in a thousand of a kind is unknown",
            (false, _) => "NOT PASSED",
        })
    }
}
