//! What goes to standard output: words for people, or with `--json` one object on one line, the last thing printed.
//! Everything else goes to standard error.
//!
//! Keys and values are bytes. In JSON, bytes that are UTF-8 stand under their name (`"value"`), others as base64 under
//! the name with `_base64` behind it (`"value_base64"`). In tables for people, what would break a line is escaped.

use std::io::{self, Write};

pub(crate) use raftmap::lines::insert_bytes;
use serde_json::{Map, Value};

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people.
    Human,
    /// One object on one line.
    Json,
}

impl Style {
    /// Prints a result in this style. Only the chosen one is made.
    pub(crate) fn print(
        self,
        human: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        match self {
            Self::Human => line(&human()),
            Self::Json => line(&json().to_string()),
        }
    }
}

/// Prints a line; an empty text prints nothing.
pub(crate) fn line(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints to standard error.
pub(crate) fn note(text: &str) {
    // With standard error gone there is nobody left to tell.
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// A JSON object that begins with a key.
pub(crate) fn keyed(key: &[u8]) -> Map<String, Value> {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", key);
    object
}

/// Bytes on one line of a terminal: text as it is, control characters and what is not UTF-8 escaped.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                printable if !printable.is_control() => text.push(printable),
                control => text.extend(control.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Rows under a heading, columns aligned; the first `left` columns to the left, the others to the right.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let widths: Vec<usize> = heading
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let heading: Vec<String> = heading.iter().map(|title| (*title).to_owned()).collect();
    let lines: Vec<String> =
        [&heading].into_iter().chain(rows).map(|row| align(row, &widths, left)).collect();
    lines.join("\n")
}

fn align(row: &[String], widths: &[usize], left: usize) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        let width = *width;
        if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_given_as_base64() {
        let mut object = keyed(b"color");
        insert_bytes(&mut object, "value", &[0xff, 0x00, b'a']);
        assert_eq!(Value::from(object).to_string(), r#"{"key":"color","value_base64":"/wBh"}"#);
    }

    #[test]
    fn what_would_break_a_line_is_escaped() {
        assert_eq!(escape("grün".as_bytes()), "grün");
        assert_eq!(escape(b"a\tb\nc\\d\x1b[1m"), "a\\tb\\nc\\\\d\\u{1b}[1m");
        assert_eq!(escape(b"\xff\xfeok"), "\\xff\\xfeok");
    }

    #[test]
    fn columns_are_aligned() {
        let rows =
            vec![vec!["1".into(), "leader".into(), "1200".into()], vec!["2".into(), "-".into(), "7".into()]];
        let expected = "id  role    last\n1   leader  1200\n2   -          7";
        assert_eq!(table(&["id", "role", "last"], &rows, 2), expected);
    }
}
