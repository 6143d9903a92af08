//! What a run came to: counted, judged, and said in a few lines or in one JSON object.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use raftmap::net::relay::Counts;
use serde_json::{Map, Value, json};

use super::sorts::{Kind, Sort};
use super::tally::{Most, Tally};
use super::totals::Totals;

/// A cycle that acknowledged less than this proves little; more than one in ten of them, and the run does not count.
pub(crate) const ACKNOWLEDGED_MIN: u64 = 50;
/// After so many faults for each sort there is, a sort that never took hold is missing, and the run does not count.
pub(crate) const ROUNDS_ENOUGH: u64 = 6;
/// A run and what it came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) nodes: u64,
    pub(crate) clients: u64,
    pub(crate) asked: BTreeSet<Kind>,
    pub(crate) ran: Duration,
    pub(crate) tally: Tally,
    pub(crate) datagrams: Counts,
    /// Whether it came to its end: everything asked for was done and looked at.
    pub(crate) complete: bool,
    /// The ledger, where it was kept.
    pub(crate) history: Option<PathBuf>,
    /// The data, where it was kept.
    pub(crate) kept: Option<PathBuf>,
    /// This run and those before it, where they are added up.
    pub(crate) totals: Option<Totals>,
}

impl Report {
    /// Whether everything was done and checked, nothing is wrong, and there was something to check.
    pub(crate) fn passed(&self) -> bool {
        let tally = &self.tally;
        self.complete
            && tally.problems.is_empty()
            && tally.found.is_empty()
            && tally.unresolved == 0
            && tally.changed_later == 0
            && self.says_nothing().is_none()
    }

    /// Why it did not pass, in a few words.
    pub(crate) fn why_not_passed(&self) -> Option<String> {
        if self.passed() {
            return None;
        }
        let problem = self.tally.problems.first().cloned();
        Some(problem.or_else(|| self.says_nothing()).unwrap_or_else(|| "see its report".into()))
    }

    /// Why this run would prove nothing even if nothing is wrong: what did not happen cannot have failed.
    pub(crate) fn says_nothing(&self) -> Option<String> {
        let tally = &self.tally;
        if let Some(kind) = self.asked.iter().find(|kind| tally.fired_of(**kind) == 0) {
            return Some(format!("no fault of the kind `{}` took hold", kind));
        }
        if let Some(sort) = self.never_fired().first().filter(|_| self.had_its_rounds()) {
            return Some(format!("`{sort}` never took hold in {} faults", tally.begun));
        }
        if tally.cycles == 0 {
            return Some("no cycle came to its check".into());
        }
        if tally.idle_cycles * 10 > tally.cycles {
            let (idle, cycles) = (tally.idle_cycles, tally.cycles);
            return Some(format!(
                "{idle} of {cycles} cycles acknowledged fewer than {ACKNOWLEDGED_MIN} operations"
            ));
        }
        if tally.checks.too_many_unknown() {
            let (unknown, checks) = (tally.checks.unknown(), tally.checks.all());
            return Some(format!(
                "{unknown} of {checks} checks came to no end, more than one in a thousand of a kind"
            ));
        }
        None
    }

    /// Every sort that can be, and never was.
    fn never_fired(&self) -> Vec<Sort> {
        let mut sorts = Sort::of(&self.asked, self.nodes);
        sorts.retain(|sort| self.tally.fired_by(*sort) == 0);
        sorts
    }

    /// Whether there were faults enough for every sort.
    fn had_its_rounds(&self) -> bool {
        self.tally.begun >= ROUNDS_ENOUGH * Sort::of(&self.asked, self.nodes).len() as u64
    }

    /// Each sort of a kind that can be, and how often it was.
    fn fired(&self, kind: Kind) -> Vec<(&'static str, u64)> {
        let sorts = Sort::of(&[kind].into(), self.nodes).into_iter();
        let sorts = sorts.filter(|_| self.asked.contains(&kind));
        sorts.map(|sort| (sort.name().1, self.tally.fired_by(sort))).collect()
    }

    fn per_second(&self) -> u64 {
        (self.tally.operations() as f64 / self.ran.as_secs_f64().max(0.001)).round() as u64
    }

    /// One object.
    pub(crate) fn json(&self) -> Value {
        let parts = [self.run_json(), self.faults_json(), self.operations_json(), self.findings_json()];
        let members = parts.into_iter().filter_map(|part| match part {
            Value::Object(members) => Some(members),
            _ => None,
        });
        Value::Object(members.flatten().collect())
    }

    fn run_json(&self) -> Value {
        let tally = &self.tally;
        json!({
            "passed": self.passed(),
            "complete": self.complete,
            "says_nothing": self.says_nothing(),
            "seed": self.seed,
            "nodes": self.nodes,
            "clients": self.clients,
            "faults": self.asked.iter().map(Kind::to_string).collect::<Vec<_>>(),
            "seconds": self.ran.as_secs(),
            "cycles": tally.cycles,
            "idle_cycles": tally.idle_cycles,
            "history": self.history,
            "dir": self.kept,
            "tally": self.totals,
        })
    }

    fn faults_json(&self) -> Value {
        let (tally, datagrams) = (&self.tally, &self.datagrams);
        let by_sort = |kind| {
            let sorts = self.fired(kind).into_iter().map(|(name, count)| (name.to_owned(), json!(count)));
            Value::from(sorts.collect::<Map<_, _>>())
        };
        json!({
            "faults_begun": tally.begun,
            "never_fired": self.never_fired().iter().map(Sort::to_string).collect::<Vec<_>>(),
            "kills": by_sort(Kind::Kill),
            "processes_killed": tally.processes_killed,
            "restarts": tally.restarts,
            "pauses": by_sort(Kind::Stop),
            "pause_max_ms": longest(&tally.pauses),
            "partitions": by_sort(Kind::Partition),
            "disk_full": by_sort(Kind::Disk),
            "refused_starts": tally.refused_starts,
            "datagrams": {
                "sent": datagrams.came,
                "cut": datagrams.cut,
                "lost": datagrams.lost,
                "doubled": datagrams.doubled,
                "delayed": datagrams.delayed,
                "held_back": datagrams.held,
                "overflowed": datagrams.overflowed,
            },
        })
    }

    fn operations_json(&self) -> Value {
        let tally = &self.tally;
        json!({
            "operations": tally.operations(),
            "ops_per_s": self.per_second(),
            "acknowledged": tally.acknowledged_writes,
            "reads": tally.answered_reads,
            "reads_unanswered": tally.unanswered_reads,
            "unknown": tally.unknown,
            "refused": tally.refused,
            "unresolved": tally.unresolved,
            "failovers": tally.failovers.len(),
            "failover_max_ms": longest(&tally.failovers),
            "converged_max_ms": longest(&tally.converged),
            "log_bytes_max": tally.log.bytes,
            "log_bytes_bound": tally.log.bound,
            "disk_bytes_max": tally.disk.bytes,
            "disk_bytes_bound": tally.disk.bound,
            "memory_bytes_max": tally.memory.bytes,
            "memory_bytes_bound": tally.memory.bound,
        })
    }

    fn findings_json(&self) -> Value {
        let tally = &self.tally;
        json!({
            "lost": tally.found_of("lost"),
            "doubled": tally.found_of("doubled"),
            "stale": tally.found_of("stale read"),
            "findings": tally.found,
            "checks": tally.checks.all(),
            "checks_unknown": tally.checks.unknown(),
            "read_again": tally.read_again,
            "changed_later": tally.changed_later,
            "audited": tally.audited,
            "ledger_operations": tally.ledger_operations,
            "directories_verified": tally.verified,
            "problems": tally.problems,
        })
    }

    fn write_faults(&self, text: &mut String) -> fmt::Result {
        let tally = &self.tally;
        for kind in &self.asked {
            let sorts = self.fired(*kind).into_iter();
            let sorts: Vec<String> =
                sorts.map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
            let kind_name = kind.to_string();
            writeln!(text, "{kind_name:<12}{}: {}", tally.fired_of(*kind), sorts.join(", "))?;
        }
        let Counts { came, cut, lost, doubled, held, .. } = self.datagrams;
        writeln!(
            text,
            "datagrams   {came}: {cut} cut off, {lost} lost, {doubled} doubled, {held} held back"
        )?;
        let (kills, restarts, refused) = (tally.processes_killed, tally.restarts, tally.refused_starts);
        writeln!(text, "processes   {kills} killed, {restarts} restarts, {refused} refused on a full disk")
    }

    fn write_figures(&self, text: &mut String) -> fmt::Result {
        let tally = &self.tally;
        let (cycles, operations, rate) = (tally.cycles, tally.operations(), self.per_second());
        writeln!(text, "operations  {operations} in {} s and {cycles} cycles, {rate}/s", self.ran.as_secs())?;
        let (acked, reads) = (tally.acknowledged_writes, tally.answered_reads);
        let (unknown, refused, unanswered) = (tally.unknown, tally.refused, tally.unanswered_reads);
        writeln!(
            text,
            "            {acked} writes acknowledged, {unknown} unknown, {refused} refused; {reads} reads, \
             {unanswered} more without an answer"
        )?;
        let most = |times: &[Duration]| {
            longest(times).map_or("none was seen".into(), |millis| format!("at most {millis} ms"))
        };
        let count = tally.failovers.len();
        writeln!(text, "failovers   {count}, {} to the next acknowledged write", most(&tally.failovers))?;
        writeln!(text, "pauses      {}", most(&tally.pauses))?;
        writeln!(text, "healed      {} to equal replicas", most(&tally.converged))?;
        let taken = |most: Most| {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            format!("{:.1} of {:.1} MiB", mib(most.bytes), mib(most.bound))
        };
        let (log, disk, memory) = (taken(tally.log), taken(tally.disk), taken(tally.memory));
        writeln!(text, "a node      at most {log} of log, {disk} of disk, {memory} of memory")
    }

    fn write_findings(&self, text: &mut String) -> fmt::Result {
        let tally = &self.tally;
        let of = |kind| tally.found_of(kind);
        let (lost, doubled, stale) = (of("lost"), of("doubled"), of("stale read"));
        let others = tally.found.values().sum::<u64>() - lost - doubled - stale;
        writeln!(text, "checked     {lost} lost, {doubled} doubled, {stale} stale, {others} other findings")?;
        let (checks, unknown, again) = (tally.checks.all(), tally.checks.unknown(), tally.read_again);
        let (changed, verified) = (tally.changed_later, tally.verified);
        writeln!(
            text,
            "            {checks} checks, {unknown} without end; {again} older keys read again, {changed} changed"
        )?;
        let unresolved = tally.unresolved;
        writeln!(text, "            {verified} logs verified offline, {unresolved} calls without an end")?;
        match tally.ledger_operations {
            Some(count) => writeln!(text, "            the ledger as a whole, {count} operations"),
            None => writeln!(text, "            not the ledger as a whole"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_faults(&mut text)?;
        self.write_figures(&mut text)?;
        self.write_findings(&mut text)?;
        for problem in &self.tally.problems {
            writeln!(text, "  {problem}")?;
        }
        if let Some(totals) = &self.totals {
            writeln!(text, "{totals}")?;
        }
        match (self.passed(), self.says_nothing()) {
            (true, _) => writeln!(text, "all is well (seed {})", self.seed),
            (false, Some(why)) => writeln!(text, "NOT PASSED: {why} (seed {})", self.seed),
            (false, None) => writeln!(text, "NOT PASSED (seed {})", self.seed),
        }?;
        if let Some(history) = &self.history {
            writeln!(text, "the ledger is {}", history.display())?;
        }
        if let Some(dir) = &self.kept {
            writeln!(text, "the nodes' data and logs are in {}", dir.display())?;
        }
        f.write_str(text.trim_end())
    }
}

fn longest(times: &[Duration]) -> Option<u64> {
    times.iter().max().map(|time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use raftmap::check::{Budget, Checks, Kind as Found, Verdict};

    use super::*;

    /// A run that is well.
    fn well() -> Report {
        let fired =
            [Sort::KillLeader, Sort::StopOne, Sort::Storm, Sort::FullOne].map(|sort| (sort, 1)).into();
        let tally = Tally {
            cycles: 20,
            fired,
            acknowledged_writes: 1_000,
            audited: 10,
            checks: Checks { answers: Budget { checks: 5_000, unknown: 0 }, ..Checks::default() },
            ..Tally::default()
        };
        let asked = [Kind::Kill, Kind::Stop, Kind::Partition, Kind::Disk].into();
        Report { seed: 7, nodes: 3, asked, tally, complete: true, ..Report::default() }
    }

    #[track_caller]
    fn not_passed(change: impl FnOnce(&mut Report), words: &str) {
        let mut report = well();
        change(&mut report);
        assert!(!report.passed() && report.json()["passed"] == false);
        let text = report.to_string();
        assert!(text.contains("NOT PASSED") && text.contains(words), "{text}");
    }

    #[test]
    fn a_run_that_is_well_passes() {
        let report = well();
        assert!(report.passed(), "{report}");
        let json = report.json();
        assert_eq!(
            (&json["passed"], &json["lost"], &json["kills"]["leader"]),
            (&true.into(), &0.into(), &1.into())
        );
        assert!(report.to_string().contains("all is well (seed 7)"), "{report}");
    }

    #[test]
    fn what_is_wrong_does_not_pass() {
        not_passed(|report| _ = report.tally.found.insert("lost", 1), "1 lost");
        not_passed(|report| _ = report.tally.found.insert("torn read", 2), "2 other findings");
        not_passed(|report| report.tally.problem("replicas differ".into()), "replicas differ");
        not_passed(|report| report.tally.unresolved = 1, "1 calls without an end");
        not_passed(|report| report.tally.changed_later = 1, "1 changed");
        not_passed(|report| report.complete = false, "");
    }

    #[test]
    fn what_proves_nothing_does_not_pass() {
        for (sort, kind) in [
            (Sort::KillLeader, "kill"),
            (Sort::StopOne, "stop"),
            (Sort::Storm, "partition"),
            (Sort::FullOne, "disk"),
        ] {
            let words = format!("no fault of the kind `{kind}` took hold");
            not_passed(|report| _ = report.tally.fired.remove(&sort), &words);
        }
        not_passed(|report| report.tally.cycles = 0, "no cycle came to its check");
        not_passed(|report| report.tally.idle_cycles = 3, "3 of 20 cycles acknowledged fewer than 50");
        not_passed(|report| report.tally.checks.answers.unknown = 6, "6 of 5000 checks came to no end");
    }

    #[test]
    fn a_sort_that_never_took_hold_is_missing_in_a_long_run() {
        let all = Sort::of(&well().asked, 3);
        for missing in &all {
            let fired = all.iter().filter(|sort| *sort != missing).map(|sort| (*sort, 1)).collect();
            let enough = ROUNDS_ENOUGH * all.len() as u64;
            let tally = Tally { begun: enough, fired, ..well().tally };
            let words = format!("`{missing}` never took hold in {enough} faults");
            not_passed(|report| report.tally = tally.clone(), &words);
            let short = Report { tally: Tally { begun: enough - 1, ..tally }, ..well() };
            assert!(short.passed(), "{missing} was not to be expected yet");
            assert_eq!(short.json()["never_fired"], json!([missing.to_string()]));
        }
        assert_eq!(well().json()["kills"]["all"], 0, "told as well");
        assert_eq!(well().json()["partitions"]["ring"], Value::Null, "three make no ring");
    }

    #[test]
    fn what_is_wrong_with_the_whole_ledger_does_not_pass() {
        let verdict = Verdict { operations: 1_010, ..Verdict::default() };
        let mut fine = well();
        fine.tally.judge_ledger(&verdict);
        assert!(fine.passed(), "{fine}");
        let short = Verdict { operations: 1_009, ..verdict.clone() };
        not_passed(|report| report.tally.judge_ledger(&short), "holds 1009 operations, 1010 were done");
        let mut unknown = verdict.clone();
        unknown.checks.windows = Budget { checks: 9, unknown: 1 };
        not_passed(|report| report.tally.judge_ledger(&unknown), "1 of 9 checks");
        let mut stale = verdict;
        stale.search.note(Found::StaleRead, || "at 7".into());
        not_passed(|report| report.tally.judge_ledger(&stale), "the ledger: stale read: at 7");
        not_passed(|report| report.tally.judge_ledger(&stale), "0 lost, 0 doubled, 1 stale");
    }

    #[test]
    fn a_ledger_is_named_where_it_was_kept() {
        let mut report = well();
        assert!(report.json()["history"].is_null() && !report.to_string().contains("the ledger is"));
        report.history = Some("h.jsonl".into());
        assert!(
            report.json()["history"] == "h.jsonl" && report.to_string().contains("the ledger is h.jsonl")
        );
    }
}
