//! Operations between three languages: the map's, the checkers' and the ledger's.

use bytes::Bytes;
use raftmap::check::{Call, Content, Operation, Outcome, Reply};
use raftmap::{Command, Reply as Answer, Versioned};
use serde_json::{Map, Value, json};

use crate::cli::output::insert_bytes;

/// What a command writes.
pub(crate) fn written(command: &Command) -> Option<Bytes> {
    match command {
        Command::Put { value, .. } | Command::Append { value, .. } | Command::CompareAndPut { value, .. } => {
            Some(value.clone())
        }
        Command::Delete { .. } => None,
    }
}

/// What came of a write; [`None`]: it is over a limit, and was not done.
pub(crate) fn stored(answer: &Answer) -> Option<Reply> {
    match answer {
        Answer::Put { version } | Answer::Append { version, .. } | Answer::Swapped { version } => {
            Some(Reply::Stored { version: *version })
        }
        Answer::Mismatch { current } => Some(Reply::Mismatch { current: *current }),
        Answer::Delete { existed } => Some(Reply::Deleted { existed: *existed }),
        Answer::OutsideLimits(_) => None,
    }
}

/// What a read saw.
pub(crate) fn found(found: &Option<Versioned>) -> Reply {
    match found {
        Some(found) => Reply::Found { version: found.version, value: Content::of(&found.value) },
        None => Reply::Absent,
    }
}

/// An operation's line: `value` is what was to be written, or what a read saw.
pub(crate) fn of(operation: &Operation, key: &str, value: Option<&[u8]>) -> String {
    let mut line = Map::new();
    line.insert("client".into(), operation.client.into());
    line.insert("number".into(), operation.number.into());
    let (name, expected) = match operation.call {
        Call::Put(_) => ("put", None),
        Call::Append(_) => ("append", None),
        Call::Compare { version, .. } => ("cas", Some(version)),
        Call::Delete => ("delete", None),
        Call::Get => ("get", None),
    };
    line.insert("operation".into(), name.into());
    line.insert("key".into(), key.into());
    if let Some(value) = value {
        insert_bytes(&mut line, "value", value);
    }
    if let Some(expected) = expected {
        line.insert("expected".into(), expected.into());
    }
    line.insert("invoked_ns".into(), operation.invoked_ns.into());
    line.insert("returned_ns".into(), json!(operation.returned_ns()));
    let (result, version) = result(operation.outcome);
    line.insert("result".into(), json!(result));
    line.insert("version".into(), json!(version));
    line.insert("index".into(), json!(operation.index()));
    Value::from(line).to_string()
}

fn result(outcome: Outcome) -> (Option<&'static str>, Option<u64>) {
    match outcome {
        Outcome::Unknown => (None, None),
        Outcome::Refused { .. } => (Some("refused"), None),
        Outcome::Done { reply, .. } => match reply {
            Reply::Stored { version } => (Some("stored"), Some(version)),
            Reply::Mismatch { current } => (Some("mismatch"), Some(current)),
            Reply::Deleted { existed: true } => (Some("deleted"), None),
            Reply::Deleted { existed: false } => (Some("absent"), None),
            Reply::Absent => (Some("absent"), None),
            Reply::Found { version, .. } => (Some("found"), Some(version)),
        },
    }
}
