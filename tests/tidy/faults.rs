//! The catalogue of faults names tests: each must be there.

use std::collections::BTreeSet;

/// Cases in the catalogue.
const CASES: usize = 150;
/// Of these so many must be automated.
pub(crate) const AUTOMATED_MIN: usize = 100;

/// A row of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    case: &'a str,
    tests: Vec<&'a str>,
    status: &'a str,
}

/// One command runs it and can fail, but needs root.
const BY_ROOT: &str = "automated (root)";
const STATUSES: [&str; 7] =
    ["automated", BY_ROOT, "partly", "by hand", "waits for membership", "waits for quarantine", "open"];

/// Rows begin with a case: a capital letter and a number.
pub(crate) fn rows(catalogue: &str) -> Vec<Row<'_>> {
    catalogue.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row<'_>> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
    let case = cells.next()?;
    let (letter, number) = case.split_at_checked(1)?;
    if !letter.chars().all(|letter| letter.is_ascii_uppercase()) || number.parse::<u8>().is_err() {
        return None;
    }
    let _words = cells.next()?;
    let tests = cells.next()?.split('`').skip(1).step_by(2).collect();
    Some(Row { case, tests, status: cells.next()? })
}

/// What is wrong with a catalogue. `text` gives the content of a file, if it is there.
pub(crate) fn wrong(catalogue: &str, text: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let rows = rows(catalogue);
    let cases: BTreeSet<&str> = rows.iter().map(|row| row.case).collect();
    let mut wrong = Vec::new();
    if (rows.len(), cases.len()) != (CASES, CASES) {
        wrong.push(format!("{} rows with {} cases, {CASES} wanted", rows.len(), cases.len()));
    }
    let with = |status: &str| rows.iter().filter(|row| row.status == status).count();
    let (by_root, automated) = (with(BY_ROOT), with("automated") + with(BY_ROOT));
    if !catalogue.contains(&format!(" {automated} of them automated, {by_root} of these for root")) {
        wrong.push(format!("{automated} automated, {by_root} for root: the first lines say otherwise"));
    }
    if automated < AUTOMATED_MIN {
        wrong.push(format!("{automated} cases are automated, {AUTOMATED_MIN} wanted"));
    }
    for row in &rows {
        if !STATUSES.contains(&row.status) {
            wrong.push(format!("{}: `{}` is no status", row.case, row.status));
        }
        if row.status == "automated"
            && !row.tests.iter().any(|test| test.contains("::") || test.ends_with(".txt"))
        {
            wrong.push(format!("{}: automated by no test", row.case));
        }
        if row.status == BY_ROOT && !row.tests.iter().any(|test| test.starts_with("tests/faults/src/")) {
            wrong.push(format!("{}: no script of root's", row.case));
        }
        let missing = row.tests.iter().filter(|test| !is_there(test, &text));
        wrong.extend(missing.map(|test| format!("{}: there is no {test}", row.case)));
    }
    wrong
}

/// `file::test`, a test in that file; or a file.
fn is_there(test: &str, text: impl Fn(&str) -> Option<String>) -> bool {
    let Some((file, name)) = test.split_once("::") else { return text(test).is_some() };
    text(file).is_some_and(|content| is_test(&content, name))
}

/// Whether the function of this name has a test's attribute above it, or stands in a list that makes tests.
fn is_test(content: &str, name: &str) -> bool {
    let lines: Vec<&str> = content.lines().map(str::trim).collect();
    let wanted = [format!("fn {name}("), format!("async fn {name}(")];
    let found = lines.iter().position(|line| wanted.iter().any(|wanted| line.starts_with(wanted)));
    let above = found.map_or(&[][..], |at| &lines[..at]);
    let attributes = above.iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "#[test]\nfn one() {}\n\n#[tokio::test(start_paused = true)]\n// Why.\nasync fn two() {}\n\nfn three() {}\n";

    fn text(file: &str) -> Option<String> {
        (file == "a.rs").then(|| FILE.to_owned())
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        for (test, there) in [
            ("a.rs::one", true),
            ("a.rs::two", true),
            ("a.rs::three", false),
            ("a.rs::four", false),
            ("b.rs::one", false),
            ("a.rs", true),
            ("b.rs", false),
        ] {
            assert_eq!(is_there(test, text), there, "{test}");
        }
    }

    #[test]
    fn planted_rows_are_found() {
        let good = "| P1 | Words | `a.rs::one`, `a.rs` | automated |";
        assert_eq!(rows(good), [Row { case: "P1", tests: vec!["a.rs::one", "a.rs"], status: "automated" }]);
        assert_eq!(rows("| case | what must hold | tests | status |\n|---|---|---|---|\ntext"), []);
        for (row, words) in [
            ("| P2 | Words | `a.rs::three` | partly |", "there is no a.rs::three"),
            ("| P2 | Words | `a.rs` | automated |", "automated by no test"),
            ("| P2 | Words |  | done |", "is no status"),
            ("| P2 | Words | `a.rs::one` | automated (root) |", "no script of root's"),
            (good, "1 rows with 1 cases"),
            (good, "the first lines say otherwise"),
        ] {
            let wrong = wrong(row, text);
            assert!(wrong.iter().any(|wrong| wrong.contains(words)), "{row}: {wrong:?}");
        }
    }
}
