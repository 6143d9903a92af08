//! How many checks there were and how many of them came to no end, checker by checker: one that gives up has not passed,
//! and the many checks of another do not hide it.

use std::ops::AddAssign;

/// Of so many checks of a kind one may have come to no end.
const UNKNOWN_MAX: u64 = 1_000;

/// Checks of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// All of them.
    pub checks: u64,
    /// Those that would have cost too much.
    pub unknown: u64,
}

impl Budget {
    /// Whether more than one in a thousand is unknown.
    pub fn is_exceeded(&self) -> bool {
        self.unknown.saturating_mul(UNKNOWN_MAX) > self.checks
    }
}

impl AddAssign for Budget {
    fn add_assign(&mut self, more: Self) {
        self.checks += more.checks;
        self.unknown += more.unknown;
    }
}

/// The checks of all checkers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Keys whose values show an order; this one always comes to an end.
    pub ordered: u64,
    /// Answers that name a place in the log, by witness.
    pub answers: Budget,
    /// Windows of time, by search.
    pub windows: Budget,
}

impl Checks {
    /// How many there were.
    pub fn all(&self) -> u64 {
        self.ordered + self.answers.checks + self.windows.checks
    }

    /// How many came to no end.
    pub fn unknown(&self) -> u64 {
        self.answers.unknown + self.windows.unknown
    }

    /// Whether of any kind more than one in a thousand came to no end.
    pub fn too_many_unknown(&self) -> bool {
        self.answers.is_exceeded() || self.windows.is_exceeded()
    }
}

impl AddAssign for Checks {
    fn add_assign(&mut self, more: Self) {
        self.ordered += more.ordered;
        self.answers += more.answers;
        self.windows += more.windows;
    }
}
