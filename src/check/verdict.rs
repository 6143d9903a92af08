//! What all checkers make of one history, and when that is good enough.

use std::fmt;

use super::findings::Findings;
use super::history::History;
use super::witness::Replayed;
use super::{lane, order, search, witness};

/// Of so many checks one may have come to no end.
const UNKNOWN_MAX: u64 = 1_000;

/// What the checkers found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Operations in the history.
    pub operations: u64,
    /// Keys in it.
    pub keys: u64,
    /// Found by the order that values show.
    pub order: Findings,
    /// Keys that show one.
    pub ordered: u64,
    /// Found by the places that answers name.
    pub witness: Findings,
    /// Keys about which answers name places.
    pub witnessed: u64,
    /// Found by search.
    pub search: Findings,
    /// Windows of time that were searched, key by key.
    pub windows: u64,
    /// Checks that ran out of budget: windows of the search, and keys of the witness.
    pub unknown: u64,
}

/// All checkers over one history. Time and memory that an operation can cost are bounded.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict { operations: history.len() as u64, ..Verdict::default() };
    witness::check_places(history, &mut verdict.witness);
    for lane in lane::lanes(history) {
        verdict.keys += 1;
        verdict.ordered += u64::from(order::check(&lane, &mut verdict.order));
        let growth = lane.growth();
        let replayed = witness::check(&lane, growth.as_ref(), &mut verdict.witness);
        verdict.witnessed += u64::from(replayed != Replayed::Nothing);
        let windows = search::check(&lane, growth.as_ref(), &mut verdict.search);
        verdict.windows += windows.all;
        verdict.unknown += windows.unknown + u64::from(replayed == Replayed::Unknown);
    }
    verdict
}

impl Verdict {
    /// Whether nothing is wrong, and nearly every check came to an end.
    pub fn passed(&self) -> bool {
        self.is_clean() && !self.too_many_unknown()
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings().iter().all(|(_, findings)| findings.is_clean())
    }

    /// Whether more than one check in a thousand came to no end.
    pub fn too_many_unknown(&self) -> bool {
        self.unknown.saturating_mul(UNKNOWN_MAX) > self.checks()
    }

    /// How many checks there were, all checkers together.
    pub fn checks(&self) -> u64 {
        self.ordered + self.witnessed + self.windows
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
        let Self { operations, keys, ordered, witnessed, windows, unknown, .. } = self;
        writeln!(f, "history     {operations} operations on {keys} keys")?;
        writeln!(
            f,
            "checked     {ordered} keys by order, {witnessed} by witness, {windows} windows by search"
        )?;
        writeln!(f, "unknown     {unknown} of {} checks ran out of budget", self.checks())?;
        for (name, findings) in self.findings() {
            for (kind, count) in findings.kinds() {
                writeln!(f, "found       {count} {kind}, by {name}")?;
            }
        }
        for example in self.examples() {
            writeln!(f, "  {example}")?;
        }
        f.write_str(match (self.is_clean(), self.too_many_unknown()) {
            (true, false) => "nothing is wrong",
            (true, true) => "NOT PASSED: more than one check in a thousand is unknown",
            (false, _) => "NOT PASSED",
        })
    }
}
