//! What a run came to: counted, judged, and said in a few lines or in one JSON object.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use raftmap::check::{History, Kind, Operation, Outcome, Verdict};
use serde_json::{Value, json};

/// A SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// Of which node.
    pub(crate) node: u64,
    /// Whether it led.
    pub(crate) led: bool,
    /// Just before the signal was sent, in nanoseconds of the run.
    pub(crate) before: u64,
    /// The process was gone then.
    pub(crate) after: u64,
}

/// Everything that is known at the end of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Asks for the same run again.
    pub(crate) seed: u64,
    /// Nodes, clients.
    pub(crate) nodes: u64,
    pub(crate) clients: u64,
    /// How long clients ran.
    pub(crate) ran: Duration,
    /// Writes that were acknowledged.
    pub(crate) acked: u64,
    /// Writes whose outcome nobody knows.
    pub(crate) unknown: u64,
    /// Writes that were refused.
    pub(crate) not_done: u64,
    /// Reads that were answered.
    pub(crate) reads: u64,
    /// Every SIGKILL.
    pub(crate) kills: Vec<Kill>,
    /// Nodes started again after one.
    pub(crate) restarts: u64,
    /// From a leader's SIGKILL to the next acknowledged write, each.
    pub(crate) failovers: Vec<Duration>,
    /// What the checkers found; `None`: the run did not get that far.
    pub(crate) verdict: Option<Verdict>,
    /// Whether all replicas had one digest at one applied index; `None`: not compared.
    pub(crate) digests_equal: Option<bool>,
    /// What else went wrong, in words.
    pub(crate) problems: Vec<String>,
    /// The data, where it was kept.
    pub(crate) kept: Option<PathBuf>,
}

impl Report {
    /// Counts what the clients did.
    pub(crate) fn count(&mut self, history: &History) {
        (self.acked, self.unknown, self.not_done, self.reads) = (0, 0, 0, 0);
        for operation in history.operations() {
            match operation.outcome {
                Outcome::Done { .. } if !operation.is_write() => self.reads += 1,
                Outcome::Done { .. } => self.acked += 1,
                Outcome::Unknown => self.unknown += 1,
                Outcome::Refused { .. } => self.not_done += 1,
            }
        }
        self.failovers = failovers(&self.kills, history);
    }

    /// Kills that hit the leader.
    pub(crate) fn leader_kills(&self) -> u64 {
        self.kills.iter().filter(|kill| kill.led).count() as u64
    }

    /// Whether everything was checked, nothing is wrong, and there was something to check.
    pub(crate) fn passed(&self) -> bool {
        self.verdict.as_ref().is_some_and(Verdict::passed)
            && self.digests_equal == Some(true)
            && self.problems.is_empty()
            && self.says_nothing().is_none()
    }

    /// Why this run would prove nothing even if nothing is wrong: what did not happen cannot have failed.
    fn says_nothing(&self) -> Option<&'static str> {
        if self.leader_kills() == 0 {
            Some("no leader was killed")
        } else if self.acked == 0 {
            Some("no write was acknowledged")
        } else if self.reads == 0 {
            Some("no read was answered")
        } else if self.failovers.is_empty() {
            Some("no write was acknowledged after a leader's end")
        } else if self.not_done > self.acked + self.unknown {
            Some("most writes were refused")
        } else {
            None
        }
    }

    fn operations_per_second(&self) -> u64 {
        let operations = self.acked + self.unknown + self.not_done + self.reads;
        (operations as f64 / self.ran.as_secs_f64().max(0.001)).round() as u64
    }

    /// One object. Figures that were not measured are `null`.
    pub(crate) fn json(&self) -> Value {
        let counted = |kind| self.verdict.as_ref().map(|verdict| count(verdict, kind));
        let examples: Vec<&str> = self.verdict.iter().flat_map(Verdict::examples).collect();
        json!({
            "passed": self.passed(),
            "seed": self.seed,
            "nodes": self.nodes,
            "clients": self.clients,
            "seconds": self.ran.as_secs(),
            "ops_per_s": self.operations_per_second(),
            "acked": self.acked,
            "unknown": self.unknown,
            "not_done": self.not_done,
            "reads": self.reads,
            "lost": counted(Kind::Lost),
            "doubled": counted(Kind::Doubled),
            "reordered": counted(Kind::Reordered),
            "never_sent": counted(Kind::NeverSent),
            "stale_reads": counted(Kind::StaleRead),
            "torn_reads": counted(Kind::TornRead),
            "digests_equal": self.digests_equal,
            "kills": self.kills.len(),
            "leader_kills": self.leader_kills(),
            "restarts": self.restarts,
            "failovers": self.failovers.len(),
            "failover_p50_ms": median(&self.failovers).map(milliseconds),
            "failover_max_ms": self.failovers.iter().max().copied().map(milliseconds),
            "problems": self.problems,
            "examples": examples,
            "dir": self.kept,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_figures(&mut text)?;
        self.write_verdict(&mut text)?;
        f.write_str(text.trim_end())
    }
}

impl Report {
    fn write_figures(&self, text: &mut String) -> fmt::Result {
        let (acked, unknown, reads) = (self.acked, self.unknown, self.reads);
        writeln!(text, "writes      {acked} acknowledged, {unknown} unknown, {} refused", self.not_done)?;
        writeln!(text, "reads       {reads}; {} operations/s in all", self.operations_per_second())?;
        let (kills, leaders) = (self.kills.len(), self.leader_kills());
        writeln!(text, "kills       {kills}, {leaders} of them leaders; {} restarts", self.restarts)?;
        match (median(&self.failovers), self.failovers.iter().max()) {
            (Some(median), Some(most)) => {
                let (median, most) = (milliseconds(median), milliseconds(*most));
                writeln!(
                    text,
                    "failover    median {median} ms, longest {most} ms, to the next acknowledged write"
                )?;
            }
            _ => writeln!(text, "failover    none was seen")?,
        }
        match &self.verdict {
            Some(verdict) => {
                let [lost, doubled, reordered, never_sent, stale, torn] = [
                    Kind::Lost,
                    Kind::Doubled,
                    Kind::Reordered,
                    Kind::NeverSent,
                    Kind::StaleRead,
                    Kind::TornRead,
                ]
                .map(|kind| count(verdict, kind));
                writeln!(
                    text,
                    "checked     {lost} lost, {doubled} doubled, {reordered} reordered, {never_sent} never sent, \
                     {stale} stale reads, {torn} torn reads"
                )
            }
            None => writeln!(text, "checked     no: the run did not get that far"),
        }?;
        let digests = match self.digests_equal {
            Some(true) => "equal on all nodes",
            Some(false) => "NOT equal",
            None => "not compared",
        };
        writeln!(text, "replicas    {digests}")
    }

    fn write_verdict(&self, text: &mut String) -> fmt::Result {
        for example in self.verdict.iter().flat_map(Verdict::examples) {
            writeln!(text, "  {example}")?;
        }
        if self.verdict.as_ref().is_some_and(|verdict| verdict.checks.too_many_unknown()) {
            writeln!(text, "  more than one check in a thousand came to no end")?;
        }
        for problem in &self.problems {
            writeln!(text, "  {problem}")?;
        }
        match (self.passed(), self.says_nothing()) {
            (true, _) => writeln!(text, "all is well (seed {})", self.seed),
            (false, Some(why)) => writeln!(text, "NOT PASSED: {why} (seed {})", self.seed),
            (false, None) => writeln!(text, "NOT PASSED (seed {})", self.seed),
        }?;
        match &self.kept {
            Some(dir) => writeln!(text, "the nodes' data and logs are in {}", dir.display()),
            None => Ok(()),
        }
    }
}

/// How often the checker that found most of this kind found it: all of them look at the same operations.
fn count(verdict: &Verdict, kind: Kind) -> u64 {
    verdict.findings().iter().map(|(_, findings)| findings.count(kind)).max().unwrap_or(0)
}

/// From each SIGKILL of a leader to the first acknowledgement of a write that was sent after the leader was gone.
fn failovers(kills: &[Kill], history: &History) -> Vec<Duration> {
    let acked = |write: &&Operation| write.is_write() && write.reply().is_some();
    let next = |kill: &Kill| {
        let writes = history.operations().iter().filter(acked);
        writes.filter(|write| write.invoked_ns >= kill.after).filter_map(Operation::returned_ns).min()
    };
    let leaders = kills.iter().filter(|kill| kill.led);
    leaders
        .filter_map(|kill| next(kill).map(|at| Duration::from_nanos(at.saturating_sub(kill.before))))
        .collect()
}

/// The middle one; of an even number the later of the two.
fn median(durations: &[Duration]) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmap::check::{Budget, Call, Checks, Content, KeyId, Reply};

    const MS: u64 = 1_000_000;

    fn write(invoked: u64, outcome: Outcome) -> Operation {
        let call = Call::Put(Content::of(b"x"));
        Operation { client: 0, number: 1, key: KeyId(0), call, invoked_ns: invoked * MS, outcome }
    }

    fn acked(returned: u64, version: u64) -> Outcome {
        Outcome::Done { returned_ns: returned * MS, index: version, reply: Reply::Stored { version } }
    }

    fn history(operations: &[Operation]) -> History {
        let mut history = History::default();
        history.key(b"k");
        for operation in operations {
            history.push(*operation);
        }
        history
    }

    fn wrong(kind: Kind) -> Option<Verdict> {
        let mut verdict = Verdict::default();
        verdict.order.note(kind, String::new);
        Some(verdict)
    }

    fn unknown(unknown: u64, checks: u64) -> Option<Verdict> {
        let checks = Checks { windows: Budget { checks, unknown }, ..Checks::default() };
        Some(Verdict { checks, ..Verdict::default() })
    }

    fn kill(before: u64, after: u64, led: bool) -> Kill {
        Kill { node: 1, led, before: before * MS, after: after * MS }
    }

    fn sound() -> Report {
        Report {
            acked: 3,
            unknown: 1,
            not_done: 4,
            reads: 5,
            kills: vec![kill(0, 1, true)],
            failovers: vec![Duration::from_millis(400)],
            verdict: Some(Verdict::default()),
            digests_equal: Some(true),
            ..Report::default()
        }
    }

    #[test]
    fn failover_runs_to_the_next_acknowledged_write() {
        let history = history(&[
            write(90, acked(101, 1)),  // may have been the dead leader's last word
            write(101, acked(140, 2)), // sent before it was gone
            write(103, Outcome::Unknown),
            write(104, acked(510, 3)),
            write(511, acked(520, 4)),
        ]);
        let kills = [kill(100, 102, true), kill(505, 506, false), kill(515, 516, true), kill(512, 512, true)];
        assert_eq!(failovers(&kills[..3], &history), [Duration::from_millis(410)]);
        assert!(failovers(&kills[3..], &history).is_empty(), "nothing was acknowledged after it");
        assert!(failovers(&kills[1..2], &history).is_empty(), "it did not lead");
    }

    #[test]
    fn the_median_is_one_of_the_figures() {
        let ms = Duration::from_millis;
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[ms(9), ms(4), ms(7)]), Some(ms(7)));
        assert_eq!(median(&[ms(9), ms(4)]), Some(ms(9)));
    }

    #[test]
    fn one_thing_wrong_is_enough_to_fail() {
        assert!(sound().passed());
        let failing: [fn(&mut Report); 17] = [
            |report| report.kills.clear(),
            |report| report.kills = vec![kill(0, 1, false)],
            |report| report.acked = 0,
            |report| report.reads = 0,
            |report| report.failovers.clear(),
            |report| report.not_done = 5,
            |report| report.verdict = None,
            |report| report.digests_equal = Some(false),
            |report| report.digests_equal = None,
            |report| report.problems.push("node 2 crashed".into()),
            |report| report.verdict = wrong(Kind::Lost),
            |report| report.verdict = wrong(Kind::Doubled),
            |report| report.verdict = wrong(Kind::Reordered),
            |report| report.verdict = wrong(Kind::StaleRead),
            |report| report.verdict = wrong(Kind::TornRead),
            |report| report.verdict = wrong(Kind::NoOrder),
            |report| report.verdict = unknown(2, 1_999),
        ];
        for (number, break_it) in failing.into_iter().enumerate() {
            let mut report = sound();
            break_it(&mut report);
            assert!(!report.passed(), "{number}");
            assert!(report.to_string().contains("NOT PASSED"), "{number}");
        }
    }

    #[test]
    fn the_json_has_what_was_promised() {
        let json = sound().json();
        for name in [
            "acked",
            "unknown",
            "lost",
            "doubled",
            "stale_reads",
            "kills",
            "leader_kills",
            "restarts",
            "failover_p50_ms",
            "failover_max_ms",
            "seed",
            "reordered",
            "never_sent",
            "digests_equal",
            "ops_per_s",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!(json["lost"], 0);
        assert_eq!(json["failover_p50_ms"], 400);
        let unseen = Report { failovers: Vec::new(), ..sound() };
        assert_eq!(
            unseen.json()["failover_p50_ms"],
            Value::Null,
            "what was not measured is not said to be 0"
        );
        let unchecked = Report { verdict: None, ..sound() };
        assert_eq!(unchecked.json()["lost"], Value::Null, "what was not checked is not said to be 0");
    }

    #[test]
    fn counts_come_from_the_history() {
        let mut report = sound();
        let get = Operation { call: Call::Get, ..write(1, acked(2, 1)) };
        report.count(&history(&[
            write(2, acked(3, 1)),
            write(2, Outcome::Unknown),
            write(2, Outcome::Refused { returned_ns: 3 * MS }),
            write(5, acked(9, 2)),
            get,
        ]));
        assert_eq!((report.acked, report.unknown, report.not_done, report.reads), (2, 1, 1, 1));
        assert_eq!(report.failovers, [Duration::from_millis(3)]);
        assert!(
            report.to_string().starts_with("writes      2 acknowledged, 1 unknown, 1 refused\n"),
            "{report}"
        );
    }
}
