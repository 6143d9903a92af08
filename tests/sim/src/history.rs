//! What clients did and what they were told, with its text; and what the checkers make of that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raftmap::check::{
    Budget, Call as Ask, Checks, Content, History, KeyId, Operation, Outcome, Reply, Verdict, check,
};
use raftmap::lines;

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
    pub client: u32,
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

/// Whose reads are the last.
const THE_MAP: u32 = u32::MAX;

/// The map itself is the last to answer: a read of each key, by `last`, what it held when it had applied so much.
pub fn closing(calls: &[Call], last: &BTreeMap<String, (u64, String)>, applied: u64) -> Vec<Call> {
    let ends = calls.iter().map(|call| call.returned.unwrap_or(call.invoked));
    let now = ends.max().unwrap_or_default() + Duration::from_nanos(1);
    let keys: BTreeSet<&String> = calls.iter().map(|call| &call.key).collect();
    let read = |key: &String| Call {
        client: THE_MAP,
        key: key.clone(),
        what: What::Read,
        invoked: now,
        returned: Some(now),
        end: End::Read { index: applied, found: last.get(key).cloned() },
    };
    keys.into_iter().map(read).collect()
}

/// What the checkers make of it, [`closing`] reads and all.
pub fn judge(calls: &[Call]) -> Verdict {
    let mut history = History::default();
    for (number, call) in (1..).zip(calls) {
        let operation = operation(number, call, history.key(call.key.as_bytes()));
        let place = history.push(operation);
        if call.client == THE_MAP {
            history.set_last(place, seen(call).unwrap_or_default().as_bytes().to_vec());
        }
    }
    check(&history)
}

/// As `raftmap check` reads it.
pub fn json_lines(calls: &[Call]) -> impl Iterator<Item = String> {
    let line = |(number, call): (u32, &Call)| {
        let value = match &call.what {
            What::Append { token: text } | What::Put { value: text } | What::Compare { value: text, .. } => {
                Some(text.as_str())
            }
            What::Delete => None,
            What::Read => seen(call),
        };
        // Its key's number stands in no line.
        lines::line(&operation(number, call, KeyId(0)), call.key.as_bytes(), value.map(str::as_bytes))
    };
    (1..).zip(calls).map(line)
}

/// What a read found.
fn seen(call: &Call) -> Option<&str> {
    match &call.end {
        End::Read { found, .. } => found.as_ref().map(|(_, text)| text.as_str()),
        _ => None,
    }
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
    Operation { client: call.client, number, key, call: asked, invoked_ns, outcome }
}
