//! A history as JSON lines: one operation a line, with the fields `client`, `operation`, `key`, `value`, `invoked_ns`,
//! `returned_ns`, `result` and `index`. The README's reference describes them.
//!
//! Bytes that are not UTF-8 are given as everywhere: as base64, under a name with `_base64` behind it. A recorder that
//! must not lose an operation writes its line twice, before it is sent and when its end is known: client and
//! `invoked_ns` say which is which.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::check::{Call, Content, History, KeyId, Operation, Outcome, Reply};

/// Bytes of the longest line: a largest value, each byte escaped as six, and some.
const LINE_MAX: usize = 8 * 1024 * 1024;
/// Operations that are taken from one file, at about 100 bytes of memory each.
const OPERATIONS_MAX: usize = 20_000_000;

/// An operation's line, without its end. `value` is what was to be written, or what a get found.
pub fn line(operation: &Operation, key: &[u8], value: Option<&[u8]>) -> String {
    let mut object = Map::new();
    object.insert("client".into(), operation.client.into());
    object.insert("operation".into(), name(operation.call).into());
    insert_bytes(&mut object, "key", key);
    match operation.call {
        Call::Put(_) | Call::Append(_) => insert_bytes(&mut object, "value", value.unwrap_or_default()),
        Call::Compare { version, .. } => {
            drop(object.insert("value".into(), versioned(version, value.unwrap_or_default())));
        }
        Call::Delete | Call::Get => drop(object.insert("value".into(), Value::Null)),
    }
    object.insert("invoked_ns".into(), operation.invoked_ns.into());
    object.insert("returned_ns".into(), json!(operation.returned_ns()));
    object.insert("result".into(), result(operation.outcome, value.unwrap_or_default()));
    object.insert("index".into(), json!(operation.index()));
    Value::from(object).to_string()
}

fn name(call: Call) -> &'static str {
    match call {
        Call::Put(_) => "put",
        Call::Append(_) => "append",
        Call::Compare { .. } => "compare",
        Call::Delete => "delete",
        Call::Get => "get",
    }
}

fn versioned(version: u64, value: &[u8]) -> Value {
    let mut object = Map::new();
    object.insert("version".into(), version.into());
    insert_bytes(&mut object, "value", value);
    object.into()
}

fn result(outcome: Outcome, value: &[u8]) -> Value {
    match outcome {
        Outcome::Unknown => Value::Null,
        Outcome::Refused { .. } => "refused".into(),
        Outcome::Done { reply, .. } => match reply {
            Reply::Stored { version } => json!({ "version": version }),
            Reply::Mismatch { current } => json!({ "mismatch": current }),
            Reply::Deleted { existed } => json!({ "existed": existed }),
            Reply::Absent => json!({ "version": 0, "value": null }),
            Reply::Found { version, .. } => versioned(version, value),
        },
    }
}

/// Bytes as a member of a JSON object, under `name` or `name_base64`.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => object.insert(format!("{name}_base64"), Value::from(STANDARD.encode(bytes))),
    };
}

/// Why a file is no history.
#[derive(Debug)]
pub struct LineError {
    line: usize,
    what: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads a history. Of each key the newest get is its last.
///
/// # Errors
/// The first line that is no operation, and what is wrong with it.
pub fn read(mut input: impl BufRead) -> Result<History, LineError> {
    let mut reader = Reader::default();
    let mut bytes = Vec::new();
    for line in 1.. {
        let error = |what: String| LineError { line, what };
        if !next_line(&mut input, &mut bytes).map_err(error)? {
            break;
        }
        if !bytes.trim_ascii().is_empty() {
            reader.take(line, &bytes).map_err(error)?;
        }
    }
    Ok(reader.finish())
}

/// `false`: there is none.
fn next_line(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> Result<bool, String> {
    bytes.clear();
    let mut limited = std::io::Read::take(input, LINE_MAX as u64 + 1);
    limited.read_until(b'\n', bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > LINE_MAX {
        return Err(format!("is longer than {LINE_MAX} bytes"));
    }
    Ok(!bytes.is_empty())
}

/// A line, as it is spelled.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    client: u32,
    operation: String,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<Value>,
    value_base64: Option<String>,
    invoked_ns: u64,
    returned_ns: Option<u64>,
    result: Option<Value>,
    index: Option<u64>,
}

/// How new what a get saw is.
type Age = (u64, u64, u64);

#[derive(Default)]
struct Reader {
    history: History,
    /// Of each key: how new the newest get is, where it stands, what it found.
    newest: BTreeMap<KeyId, (Age, usize, Vec<u8>)>,
    /// Operations without an end so far, by client and begin.
    open: BTreeMap<(u32, u64), usize>,
}

impl Reader {
    fn take(&mut self, line: usize, bytes: &[u8]) -> Result<(), String> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let key = text_or_base64("key", raw.key.as_deref(), raw.key_base64.as_deref())?;
        if self.history.len() >= OPERATIONS_MAX {
            return Err(format!("is beyond the {OPERATIONS_MAX} operations that can be checked at once"));
        }
        let number = u32::try_from(line).map_err(|_| "has too high a number".to_owned())?;
        let (outcome, seen) = outcome(&raw)?;
        let operation = Operation {
            client: raw.client,
            number,
            key: self.history.key(&key),
            call: call(&raw)?,
            invoked_ns: raw.invoked_ns,
            outcome,
        };
        fits(&operation)?;
        let place = self.place(operation);
        if operation.call == Call::Get && operation.reply().is_some() {
            self.note_newest(place, operation, seen);
        }
        Ok(())
    }

    /// Its own, or that of the line with which it began.
    fn place(&mut self, operation: Operation) -> usize {
        let name = (operation.client, operation.invoked_ns);
        let is_its_begin = |place: &usize| {
            let begun = self.history.operations().get(*place);
            begun.is_some_and(|begun| (begun.key, begun.call) == (operation.key, operation.call))
        };
        let Some(begun) = self.open.get(&name).copied().filter(is_its_begin) else {
            let place = self.history.push(operation);
            if operation.outcome == Outcome::Unknown {
                self.open.insert(name, place);
            }
            return place;
        };
        if operation.outcome != Outcome::Unknown {
            self.open.remove(&name);
        }
        self.history.end(begun, operation.outcome);
        begun
    }

    fn note_newest(&mut self, place: usize, operation: Operation, seen: Vec<u8>) {
        let version = match operation.reply() {
            Some(Reply::Found { version, .. }) => version,
            _ => 0,
        };
        let age = (operation.index().unwrap_or(0), version, operation.invoked_ns);
        if self.newest.get(&operation.key).is_none_or(|(newest, _, _)| *newest <= age) {
            self.newest.insert(operation.key, (age, place, seen));
        }
    }

    fn finish(mut self) -> History {
        for (_, place, value) in self.newest.into_values() {
            self.history.set_last(place, value);
        }
        self.history
    }
}

fn text_or_base64(name: &str, text: Option<&str>, base64: Option<&str>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map_err(|error| format!("`{name}_base64` is no base64: {error}"))
        }
        (None, None) => Err(format!("has no `{name}`")),
        (Some(_), Some(_)) => Err(format!("has both `{name}` and `{name}_base64`")),
    }
}

fn call(raw: &Raw) -> Result<Call, String> {
    let value = || {
        let text = raw.value.as_ref().and_then(Value::as_str);
        text_or_base64("value", text, raw.value_base64.as_deref()).map(|bytes| Content::of(&bytes))
    };
    match raw.operation.as_str() {
        "put" => Ok(Call::Put(value()?)),
        "append" => Ok(Call::Append(value()?)),
        "compare" => {
            let pair = raw
                .value
                .as_ref()
                .and_then(Value::as_object)
                .ok_or("compares, so its `value` is an object")?;
            let version = version_of(pair)?;
            Ok(Call::Compare { version, value: Content::of(&value_of(pair)?) })
        }
        "delete" => Ok(Call::Delete),
        "get" => Ok(Call::Get),
        other => Err(format!("`{other}` is no operation: put, append, compare, delete or get")),
    }
}

fn version_of(object: &Map<String, Value>) -> Result<u64, String> {
    object.get("version").and_then(Value::as_u64).ok_or_else(|| "has no `version` where one belongs".into())
}

fn value_of(object: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let text = |name| object.get(name).and_then(Value::as_str);
    text_or_base64("value", text("value"), text("value_base64"))
}

/// With the bytes that a get found.
fn outcome(raw: &Raw) -> Result<(Outcome, Vec<u8>), String> {
    let (result, returned_ns) = match (&raw.result, raw.returned_ns) {
        (None, None) => return Ok((Outcome::Unknown, Vec::new())),
        (Some(result), Some(returned_ns)) if returned_ns >= raw.invoked_ns => (result, returned_ns),
        (Some(_), Some(_)) => return Err("returned before it was invoked".into()),
        (Some(_), None) | (None, Some(_)) => {
            return Err("has one of `returned_ns` and `result` and not the other".into());
        }
    };
    if result == "refused" {
        return Ok((Outcome::Refused { returned_ns }, Vec::new()));
    }
    let object = result.as_object().ok_or_else(|| format!("`{result}` is no result"))?;
    let (reply, seen) = reply(&raw.operation, object)?;
    Ok((Outcome::Done { returned_ns, index: raw.index.unwrap_or(0), reply }, seen))
}

fn reply(operation: &str, object: &Map<String, Value>) -> Result<(Reply, Vec<u8>), String> {
    let nothing = |reply| Ok((reply, Vec::new()));
    if let Some(current) = object.get("mismatch").and_then(Value::as_u64) {
        return nothing(Reply::Mismatch { current });
    }
    if let Some(existed) = object.get("existed").and_then(Value::as_bool) {
        return nothing(Reply::Deleted { existed });
    }
    let version = version_of(object)?;
    if operation != "get" {
        return nothing(Reply::Stored { version });
    }
    if object.get("value").is_some_and(Value::is_null) {
        return nothing(Reply::Absent);
    }
    let value = value_of(object)?;
    Ok((Reply::Found { version, value: Content::of(&value) }, value))
}

/// Whether the result is one of the operation's kind.
fn fits(operation: &Operation) -> Result<(), String> {
    let fits = match (operation.call, operation.reply()) {
        (_, None) => true,
        (Call::Put(_) | Call::Append(_) | Call::Compare { .. }, Some(Reply::Stored { .. })) => true,
        (Call::Compare { .. }, Some(Reply::Mismatch { .. })) => true,
        (Call::Delete, Some(Reply::Deleted { .. })) => true,
        (Call::Get, Some(Reply::Absent | Reply::Found { .. })) => true,
        (_, Some(_)) => false,
    };
    fits.then_some(()).ok_or_else(|| format!("has a result that is none of a {}", name(operation.call)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(call: Call, outcome: Outcome) -> Operation {
        Operation { client: 3, number: 1, key: KeyId(0), call, invoked_ns: 10, outcome }
    }

    fn done(reply: Reply) -> Outcome {
        Outcome::Done { returned_ns: 20, index: 7, reply }
    }

    #[test]
    fn every_operation_comes_back_as_it_was() {
        let strange: &[u8] = &[0xff, 0, b'"'];
        for value in [b"text\n\"".as_slice(), strange, b""] {
            let content = Content::of(value);
            let compare = Call::Compare { version: 5, value: content };
            let found = Reply::Found { version: 6, value: content };
            for (call, outcome, bytes) in [
                (Call::Put(content), done(Reply::Stored { version: 7 }), Some(value)),
                (Call::Append(content), Outcome::Unknown, Some(value)),
                (Call::Append(content), Outcome::Refused { returned_ns: 11 }, Some(value)),
                (compare, done(Reply::Stored { version: 7 }), Some(value)),
                (compare, done(Reply::Mismatch { current: 0 }), Some(value)),
                (Call::Delete, done(Reply::Deleted { existed: true }), None),
                (Call::Delete, done(Reply::Deleted { existed: false }), None),
                (Call::Get, done(Reply::Absent), None),
                (Call::Get, done(found), Some(value)),
                (Call::Get, Outcome::Unknown, None),
            ] {
                let written = operation(call, outcome);
                let text = line(&written, strange, bytes);
                let history = read(text.as_bytes()).expect("our own line");
                assert_eq!(history.operations(), [written], "{text}");
                assert_eq!(history.name(KeyId(0)), strange);
                if outcome == done(found) {
                    assert_eq!(history.last(KeyId(0)).map(|last| &last.value[..]), Some(value));
                }
            }
        }
    }

    #[test]
    fn a_line_has_the_fields_that_the_reference_names() {
        let put = operation(Call::Put(Content::of(b"x")), done(Reply::Stored { version: 7 }));
        let expected = r#"{"client":3,"index":7,"invoked_ns":10,"key":"k","operation":"put","result":{"version":7},"returned_ns":20,"value":"x"}"#;
        assert_eq!(line(&put, b"k", Some(b"x")), expected);
    }

    #[test]
    fn an_operation_may_have_a_line_for_its_begin_and_one_for_its_end() {
        let begun = operation(Call::Put(Content::of(b"x")), Outcome::Unknown);
        let ended = Operation { outcome: done(Reply::Stored { version: 7 }), ..begun };
        let text = [begun, ended].map(|operation| line(&operation, b"k", Some(b"x"))).join("\n");
        assert_eq!(read(text.as_bytes()).expect("a history").operations(), [ended]);
        let removal = Operation { call: Call::Delete, outcome: Outcome::Unknown, ..ended };
        let mixed = format!("{}\n{}", line(&begun, b"k", Some(b"x")), line(&removal, b"k", None));
        assert_eq!(read(mixed.as_bytes()).expect("a history").len(), 2, "another one of that moment");
    }

    #[test]
    fn the_newest_get_of_a_key_is_its_last() {
        let get = |index, value: &str| {
            let reply = Reply::Found { version: 2, value: Content::of(value.as_bytes()) };
            let outcome = Outcome::Done { returned_ns: 20, index, reply };
            line(&operation(Call::Get, outcome), b"k", Some(value.as_bytes()))
        };
        let text = [get(4, "ab"), get(9, "abc"), get(5, "ab")].join("\n");
        let history = read(text.as_bytes()).expect("a history");
        let last = history.last(KeyId(0)).expect("a last get");
        assert_eq!((last.place, &last.value[..]), (1, b"abc".as_slice()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let good = line(&operation(Call::Delete, Outcome::Unknown), b"k", None);
        for (bad, words) in [
            ("{", "EOF"),
            ("[]", "invalid"),
            (&good.replace("\"client\":3,", ""), "missing field `client`"),
            (&good.replace("client\":3", "client\":3,\"more\":1"), "unknown field `more`"),
            (&good.replace("\"key\":\"k\",", ""), "has no `key`"),
            (&good.replace("delete", "remove"), "`remove` is no operation"),
            (&good.replace("\"result\":null", "\"result\":\"refused\""), "and not the other"),
            (
                &good.replace("null,\"value\"", "5,\"value\"").replace("\"result\":null", "\"result\":{}"),
                "before it was",
            ),
            (
                &good
                    .replace("null,\"value\"", "25,\"value\"")
                    .replace("\"result\":null", "\"result\":{\"mismatch\":1}"),
                "none of a delete",
            ),
            (&good.replace("\"delete\"", "\"compare\""), "is an object"),
            (&good.replace("\"delete\"", "\"put\""), "has no `value`"),
        ] {
            let error = read(format!("{good}\n\n{bad}\n").as_bytes()).map(|history| history.len());
            let error = error.expect_err(bad).to_string();
            assert!(error.starts_with("line 3: ") && error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn a_line_has_a_longest() {
        let error = read(std::io::Cursor::new(vec![b' '; LINE_MAX + 1])).map(|_| ()).expect_err("too long");
        assert!(error.to_string().contains("is longer than"), "{error}");
    }
}
