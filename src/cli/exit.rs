//! How a command ends: a code that a script can act on, and words.

use std::io;
use std::process::ExitCode;

pub(crate) use raftmap::chain;
use serde_json::{Map, Value};

use super::output::{self, Style};

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// No: the key is absent, the version is another one, damage was found.
    No = 1,
    /// The arguments or the configuration are wrong. (clap uses the same code.)
    Usage = 2,
    /// A write may have happened or may still happen.
    Unknown = 3,
    /// It was definitely not done, and never will be.
    NotDone = 4,
    /// The storage refuses, or is in use.
    Storage = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How a command ended, if it came to an end of its own.
pub(crate) type Outcome = Result<Exit, Failure>;

/// An end with an error.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    words: String,
    /// Fields of its own that the object has besides.
    details: Map<String, Value>,
}

impl Failure {
    /// With a code of its own.
    pub(crate) fn new(exit: Exit, words: impl ToString) -> Self {
        Self { exit, words: words.to_string(), details: Map::new() }
    }

    /// The same, with more in its object.
    pub(crate) fn with_details(self, details: Map<String, Value>) -> Self {
        Self { details, ..self }
    }

    /// What was asked for cannot be asked for.
    pub(crate) fn usage(words: impl ToString) -> Self {
        Self::new(Exit::Usage, words)
    }

    /// Nothing happened.
    pub(crate) fn not_done(words: impl ToString) -> Self {
        Self::new(Exit::NotDone, words)
    }

    /// Says so, on standard error and, where an object is expected, as one.
    pub(crate) fn print(self, style: Style) -> Exit {
        output::note(&format!("raftmap: {}", self.words));
        if style == Style::Json {
            let mut object = self.details;
            object.insert("error".into(), self.words.into());
            object.insert("exit_code".into(), (self.exit as u8).into());
            // The exit code still tells, where nobody reads any more.
            let _gone = output::line(&Value::from(object).to_string());
        }
        self.exit
    }
}

impl From<raftmap::Error> for Failure {
    fn from(error: raftmap::Error) -> Self {
        match error {
            // Its number ends with this process: who types has only the data to ask.
            raftmap::Error::Unknown(_) => Self::new(
                Exit::Unknown,
                "the outcome is unknown: the write was sent, and no answer came in time; read the key to see \
                 whether it happened, now or a little later, before writing again",
            ),
            raftmap::Error::SessionExpired => Self::new(Exit::Unknown, chain(&error)),
            raftmap::Error::Connect(error) => Self::usage(chain(&error)),
            // Every other one means that it was not done; that is the promise of the type.
            _ => Self::not_done(chain(&error)),
        }
    }
}

/// The result of a call is in hand but cannot be printed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::not_done(format!("cannot print the result: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_the_help_says() {
        let codes = [Exit::Done, Exit::No, Exit::Usage, Exit::Unknown, Exit::NotDone, Exit::Storage];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn errors_of_calls_have_their_code() {
        assert_eq!(Failure::from(raftmap::Error::SessionExpired).exit, Exit::Unknown);
        assert_eq!(Failure::from(raftmap::Error::NoLeader).exit, Exit::NotDone);
        assert_eq!(Failure::from(raftmap::Error::NoSpace).exit, Exit::NotDone);
    }
}
