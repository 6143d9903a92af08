//! What clients did and what they were told, with its text; and what the checkers make of that.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmap::check::{
    Budget, Call as Ask, Checks, Content, History, KeyId, Operation, Outcome, Reply, Verdict, check,
};

/// Under these names the table after many seeds has the calls and what was checked, and how many checks had no end.
pub const CALLS: &str = "calls";
pub const ORDERED: &str = "keys by order";
pub const WITNESSED: &str = "answers by witness";
pub const SEARCHED: &str = "windows by search";
pub const STATES: &str = "states by digest";
pub const UNWITNESSED: &str = "answers without an end";
pub const UNSEARCHED: &str = "windows without an end";

/// Those checks that may have no end, of one world or of many by these counts.
pub fn checks(count: impl Fn(&str) -> u64) -> Checks {
    let budget = |checks, unknown| Budget { checks: count(checks), unknown: count(unknown) };
    let (answers, windows) = (budget(WITNESSED, UNWITNESSED), budget(SEARCHED, UNSEARCHED));
    Checks { ordered: count(ORDERED), answers, windows }
}

/// A call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    pub key: String,
    pub what: What,
    pub invoked: Duration,
    /// When its end was told; `None`: never.
    pub returned: Option<Duration>,
    pub end: End,
}

/// What was asked. Tokens are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Append { token: String },
    Put { value: String },
    Compare { version: u64, value: String },
    Delete,
    Read,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody knows.
    Unknown,
    /// Definitely nothing, ever.
    NotDone,
    /// It took effect here.
    Written { index: u64 },
    /// From here on the key is absent.
    Removed { index: u64, existed: bool },
    /// It was compared here with this version, and changed nothing.
    Mismatch { index: u64, current: u64 },
    /// The state here had this value and version; `None`: absent.
    Read { index: u64, found: Option<(u64, String)> },
}

/// What the checkers make of it. `last` is what the map held of a key when all was over, with its version.
pub fn judge(calls: &[Call], last: &BTreeMap<String, (u64, String)>, applied: u64) -> Verdict {
    let mut history = History::default();
    let mut end = 0;
    for (number, call) in (1..).zip(calls) {
        let operation = operation(number, call, history.key(call.key.as_bytes()));
        end = end.max(operation.invoked_ns).max(operation.returned_ns().unwrap_or(0));
        history.push(operation);
    }
    // The map itself is the last to answer.
    let all: Vec<KeyId> = history.keys().collect();
    for key in all {
        let name = String::from_utf8_lossy(history.name(key)).into_owned();
        let found = last.get(&name);
        let value = |text: &String| Content::of(text.as_bytes());
        let reply = found
            .map_or(Reply::Absent, |(version, text)| Reply::Found { version: *version, value: value(text) });
        let outcome = Outcome::Done { returned_ns: end + 1, index: applied, reply };
        let (client, number) = (u32::MAX, history.len() as u32 + 1);
        let last = Operation { client, number, key, call: Ask::Get, invoked_ns: end + 1, outcome };
        let place = history.push(last);
        history.set_last(place, found.map_or(Vec::new(), |(_, text)| text.clone().into_bytes()));
    }
    check(&history)
}

fn operation(number: u32, call: &Call, key: KeyId) -> Operation {
    let value = |text: &String| Content::of(text.as_bytes());
    let asked = match &call.what {
        What::Append { token } => Ask::Append(value(token)),
        What::Put { value: text } => Ask::Put(value(text)),
        What::Compare { version, value: text } => Ask::Compare { version: *version, value: value(text) },
        What::Delete => Ask::Delete,
        What::Read => Ask::Get,
    };
    let returned_ns = call.returned.unwrap_or(Duration::MAX).as_nanos() as u64;
    let done = |index: &u64, reply| Outcome::Done { returned_ns, index: *index, reply };
    let outcome = match &call.end {
        End::Unknown => Outcome::Unknown,
        End::NotDone => Outcome::Refused { returned_ns },
        End::Written { index } => done(index, Reply::Stored { version: *index }),
        End::Removed { index, existed } => done(index, Reply::Deleted { existed: *existed }),
        End::Mismatch { index, current } => done(index, Reply::Mismatch { current: *current }),
        End::Read { index, found: None } => done(index, Reply::Absent),
        End::Read { index, found: Some((version, text)) } => {
            done(index, Reply::Found { version: *version, value: value(text) })
        }
    };
    let invoked_ns = call.invoked.as_nanos() as u64;
    Operation { client: 0, number, key, call: asked, invoked_ns, outcome }
}
