//! The table: a line for each bug, what was to find it and what came of that.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::run::Verdict;
use crate::table::Bug;

/// All of it, as text or as Markdown.
pub(crate) fn table(bugs: &[Bug], verdicts: &BTreeMap<u32, Verdict>, markdown: bool) -> String {
    let mut out = String::new();
    if markdown {
        out.push_str("| # | bug | shipped by | suite | kind | found by |\n|--:|---|---|---|---|---|\n");
    }
    for bug in bugs {
        let suite = bug.suite.as_ref().map_or("-".into(), |suite| suite.words());
        let found = verdicts.get(&bug.number).map_or_else(|| bug.place.clone(), Verdict::words);
        let Bug { number, name, source, kind, .. } = bug;
        let _infallible = match markdown {
            true => writeln!(
                out,
                "| {number} | {name} | {source} | {suite} | {kind} | {} |",
                found.replace('|', "\\|")
            ),
            false => writeln!(out, "{number:>3}  {name}\n     {suite}; {kind}\n     {found}"),
        };
    }
    let red = verdicts.values().filter(|verdict| verdict.is_red()).count();
    let kinds = kinds(bugs, verdicts);
    let _infallible = writeln!(out, "\n{red} of {} caught: {kinds}", bugs.len());
    out
}

/// How many each kind of suite caught.
fn kinds(bugs: &[Bug], verdicts: &BTreeMap<u32, Verdict>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for bug in bugs.iter().filter(|bug| verdicts.get(&bug.number).is_some_and(Verdict::is_red)) {
        *counts.entry(&bug.kind).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} by {kind}")).collect();
    words.join(", ")
}
