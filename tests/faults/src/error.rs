//! How a script here can end other than well: a tool is missing, the machine refuses, or raftmap broke a promise.

use std::fmt;

/// Why a script stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something that it needs is not here: no verdict.
    Skipped(String),
    /// The scenery failed: no verdict either, and worth a look.
    Broken(String),
    /// The check is red.
    Red(String),
}

pub(crate) type Result<T> = std::result::Result<T, Stop>;

impl Stop {
    /// 1: red. 3: no verdict. 77: skipped, as automake has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Red(_) => 1,
            Self::Broken(_) => 3,
            Self::Skipped(_) => 77,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped(what) => write!(f, "skipped: {what}"),
            Self::Broken(what) => write!(f, "no verdict: {what}"),
            Self::Red(what) => write!(f, "RED: {what}"),
        }
    }
}

/// Turns any error into "the scenery failed", with the words of what was tried.
pub(crate) trait Scenery<T> {
    fn or_broken(self, doing: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Scenery<T> for std::result::Result<T, E> {
    fn or_broken(self, doing: &str) -> Result<T> {
        self.map_err(|error| Stop::Broken(format!("{doing}: {error}")))
    }
}
