//! `bugs.tsv`, read: one bug a line.

use crate::suites::Suite;

const TABLE: &str = include_str!("../bugs.tsv");

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Bug {
    /// What `RAFTMAP_BUG` and `bug!(…)` call it.
    pub(crate) number: u32,
    /// The suite that must go red; none where the bug cannot be put in, or nothing finds it yet.
    pub(crate) suite: Option<Suite>,
    /// How the suite works: `random` (worlds or steps drawn from seeds), `all cases` (each place in its turn), `schedule` (a
    /// world in which one thing goes wrong by hand, held to what must hold), `script` (a golden trace) or `unit`.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Who shipped it.
    pub(crate) source: String,
    /// Where the switch is, or why there is none.
    pub(crate) place: String,
}

pub(crate) fn bugs() -> Result<Vec<Bug>, String> {
    TABLE.lines().skip(1).map(bug).collect()
}

fn bug(line: &str) -> Result<Bug, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [number, suite, seeds, kind, name, source, place] = fields[..] else {
        return Err(format!("bugs.tsv: {} fields instead of 7: {line}", fields.len()));
    };
    Ok(Bug {
        number: number.parse().map_err(|_| format!("bugs.tsv: {number:?} is no number"))?,
        suite: if suite == "-" { None } else { Some(Suite::parse(suite, seeds)?) },
        kind: kind.into(),
        name: name.into(),
        source: source.into(),
        place: place.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_without_a_gap() {
        let numbers: Vec<u32> =
            bugs().map(|bugs| bugs.iter().map(|bug| bug.number).collect()).unwrap_or_default();
        assert_eq!(numbers, (1..=37).collect::<Vec<u32>>());
    }

    #[test]
    fn a_line_of_another_shape_is_refused() {
        assert!(bug("1\tsim:random_worlds\t9").is_err());
        assert!(bug("1\tsim:random_worlds\tmany\trandom\ta\tb\tc").is_err());
        assert!(bug("1\tnowhere:x\t9\trandom\ta\tb\tc").is_err());
    }
}
