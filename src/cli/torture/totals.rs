//! What several runs came to together: the file of `--tally`, to which each run adds.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use raftmap::storage::fs::{File, Fs, write_all_at};
use raftmap::storage::os::OsFs;
use serde::{Deserialize, Serialize};

use super::report::Report;
use super::sorts::Kind;

/// Runs that did not pass are named up to this many.
const NAMED_MAX: usize = 100;

/// Sums of all runs so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Totals {
    /// The next run's, where none is asked for.
    next_seed: u64,
    runs: u64,
    passed: u64,
    seconds: u64,
    cycles: u64,
    processes_killed: u64,
    /// Faults that took hold, by kind and name.
    faults: BTreeMap<String, BTreeMap<String, u64>>,
    operations: u64,
    acknowledged: u64,
    reads: u64,
    unknown: u64,
    unresolved: u64,
    checks: u64,
    checks_unknown: u64,
    lost: u64,
    doubled: u64,
    stale: u64,
    /// Findings of other kinds.
    others: u64,
    changed_later: u64,
    problems: u64,
    /// The first runs that did not pass, by seed, and why.
    not_passed: BTreeMap<u64, String>,
}

impl Totals {
    /// What stands in the file; nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read or understood, in words.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| format!("{} is no tally: {error}; name another file", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("cannot read the tally {}: {error}", path.display())),
        }
    }

    /// Writes the file: it is the old one or the new one, whatever happens meanwhile.
    ///
    /// # Errors
    /// It cannot be written, in words.
    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        let saved = serde_json::to_string_pretty(self).map_err(io::Error::other);
        let saved = saved.and_then(|text| replace(path, format!("{text}\n").as_bytes()));
        saved.map_err(|error| format!("cannot write the tally {}: {error}", path.display()))
    }

    /// Adds a run to what stands in the file now.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`save`](Self::save).
    pub(crate) fn add_to(path: &Path, report: &Report) -> Result<Self, String> {
        let mut totals = Self::load(path)?;
        totals.add(report);
        totals.save(path)?;
        Ok(totals)
    }

    /// The seed to go on with; none before the first run.
    pub(crate) fn next_seed(&self) -> Option<u64> {
        (self.runs > 0).then_some(self.next_seed)
    }

    fn add(&mut self, report: &Report) {
        let tally = &report.tally;
        self.next_seed = self.next_seed.max(report.seed.saturating_add(1));
        self.runs += 1;
        self.seconds += report.ran.as_secs();
        self.cycles += tally.cycles;
        self.processes_killed += tally.processes_killed;
        for (sort, count) in &tally.fired {
            let (kind, name) = sort.name();
            *self.faults.entry(kind.to_string()).or_default().entry(name.to_owned()).or_default() += count;
        }
        self.operations += tally.operations();
        self.acknowledged += tally.acknowledged_writes;
        self.reads += tally.answered_reads;
        self.unknown += tally.unknown;
        self.unresolved += tally.unresolved;
        self.checks += tally.checks.all();
        self.checks_unknown += tally.checks.unknown();
        let of = |kind| tally.found_of(kind);
        let (lost, doubled, stale) = (of("lost"), of("doubled"), of("stale read"));
        self.lost += lost;
        self.doubled += doubled;
        self.stale += stale;
        self.others += tally.found.values().sum::<u64>() - lost - doubled - stale;
        self.changed_later += tally.changed_later;
        self.problems += tally.problems.len() as u64;
        match report.why_not_passed() {
            None => self.passed += 1,
            Some(why) if self.not_passed.len() < NAMED_MAX => drop(self.not_passed.insert(report.seed, why)),
            Some(_) => {}
        }
    }

    fn fired(&self, kind: Kind) -> u64 {
        self.faults.get(&kind.to_string()).map_or(0, |sorts| sorts.values().sum())
    }
}

/// Two lines.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, passed, acknowledged, lost, doubled, stale, problems, .. } = self;
        let minutes = self.seconds as f64 / 60.0;
        let [kills, pauses, partitions, full] = Kind::ALL.map(|kind| self.fired(kind));
        writeln!(
            f,
            "all runs    {passed} of {runs} passed, {minutes:.1} minutes; {kills} kills, {pauses} pauses, {partitions} \
             partitions and bad links, {full} full disks"
        )?;
        write!(
            f,
            "            {acknowledged} writes acknowledged: {lost} lost, {doubled} doubled; {stale} stale reads, \
             {problems} problems"
        )
    }
}

/// Synced under a temporary name first.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fresh = OsFs.temp(dir)?;
    write_all_at(&fresh, text, 0)?;
    fresh.sync_data()?;
    OsFs.persist(fresh, path)?;
    OsFs.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::torture::sorts::Sort;
    use crate::cli::torture::tally::Tally;

    fn report(seed: u64) -> Report {
        let fired = [(Sort::KillLeader, 2), (Sort::Lossy, 1), (Sort::FullOne, 1)].into();
        let tally = Tally {
            cycles: 3,
            processes_killed: 2,
            fired,
            acknowledged_writes: 500,
            answered_reads: 100,
            ..Tally::default()
        };
        let asked = [Kind::Kill].into();
        Report {
            seed,
            nodes: 3,
            asked,
            ran: Duration::from_secs(90),
            tally,
            complete: true,
            ..Report::default()
        }
    }

    #[test]
    fn runs_add_up_in_the_file_and_go_on_with_the_next_seed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("tally.json");
        assert_eq!(Totals::load(&path).expect("none yet").next_seed(), None);
        Totals::add_to(&path, &report(7)).expect("added");
        let mut lossy = report(5);
        lossy.tally.found.insert("lost", 4);
        lossy.tally.found.insert("torn read", 1);
        lossy.tally.problem("lost: x".into());
        let totals = Totals::add_to(&path, &lossy).expect("added");
        assert_eq!(Totals::load(&path), Ok(totals.clone()));
        assert_eq!(totals.next_seed(), Some(8), "of the highest so far");
        assert_eq!((totals.runs, totals.passed, totals.seconds, totals.cycles), (2, 1, 180, 6));
        assert_eq!((totals.faults["kill"]["leader"], totals.faults["partition"]["lossy"]), (4, 2));
        assert_eq!(
            (totals.operations, totals.acknowledged, totals.lost, totals.others),
            (1_200, 1_000, 4, 1)
        );
        assert_eq!(totals.not_passed, [(5, "lost: x".to_owned())].into());
        let text = totals.to_string();
        assert!(text.contains("1 of 2 passed, 3.0 minutes; 4 kills, 0 pauses, 2 partitions"), "{text}");
        assert!(text.contains("1000 writes acknowledged: 4 lost"), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing stays beside it");
    }

    #[test]
    fn a_file_that_is_no_tally_is_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "mine").expect("written");
        let refused = Totals::add_to(&path, &report(1)).expect_err("no tally");
        assert!(
            refused.contains("notes.txt is no tally") && refused.contains("name another file"),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).expect("readable"), b"mine");
    }

    #[test]
    fn failures_are_named_up_to_a_number() {
        let mut totals = Totals::default();
        (0..1_000).for_each(|seed| totals.add(&Report { complete: false, ..report(seed) }));
        assert_eq!((totals.runs, totals.passed, totals.not_passed.len()), (1_000, 0, NAMED_MAX));
    }
}
