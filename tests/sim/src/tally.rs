//! What many worlds came to together, in memory and as the lines of a file: a long run goes on where it stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::history;
use crate::marks;
use crate::world::Report;

/// From so many counted worlds on, each mark must have been met.
const LONG: u64 = 2_000;

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seeds below it have been begun.
    pub next: u64,
    /// Those of them that have not ended.
    pub open: BTreeSet<u64>,
    /// Worlds that count.
    pub worlds: u64,
    /// Worlds that do not, in no figure below but `idle` and `never`: hardly anything was done, or something that was
    /// drawn never went wrong.
    pub vacuous: u64,
    /// Of these: fewer than fifty answers.
    pub idle: u64,
    /// In the worlds.
    pub time: Duration,
    /// Of the processors.
    pub cpu: Duration,
    pub done: u64,
    pub events: u64,
    pub checked: BTreeMap<String, u64>,
    pub faults: BTreeMap<String, u64>,
    /// In how many worlds a fault was drawn and never went wrong.
    pub never: BTreeMap<String, u64>,
    pub marks: BTreeMap<String, u64>,
    /// Worlds by the program that ran them, which its file's hash names: what several found is not what one did.
    pub builds: BTreeMap<String, u64>,
    /// Why, by seed.
    pub violations: BTreeMap<u64, String>,
}

impl Tally {
    /// A seed that nobody has begun.
    pub fn begin(&mut self) -> u64 {
        let seed = self.next;
        self.next += 1;
        self.open.insert(seed);
        seed
    }

    pub fn end(&mut self, seed: u64, ended: Result<Report, String>, cpu: Duration) {
        self.open.remove(&seed);
        self.cpu += cpu;
        match ended {
            Ok(report) => self.add(&report),
            Err(what) => {
                self.violations.insert(seed, what.replace('\n', " "));
            }
        }
    }

    fn add(&mut self, report: &Report) {
        let never = report.faults.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| (kind.clone(), 1));
        sum(&mut self.never, &never.collect::<BTreeMap<String, u64>>());
        if !report.counts() {
            self.vacuous += 1;
            self.idle += u64::from(report.is_idle());
            return;
        }
        self.worlds += 1;
        self.time += report.time;
        self.done += report.done;
        self.events += report.popped;
        sum(&mut self.checked, &report.checked);
        sum(&mut self.faults, &report.faults);
        sum(&mut self.marks, &report.marks);
    }

    /// Another world was run by this program.
    pub fn ran_by(&mut self, build: &str) {
        *self.builds.entry(build.to_owned()).or_default() += 1;
    }

    /// Why the run is red, if it is.
    pub fn faults_found(&self) -> Vec<String> {
        let mut red = Vec::new();
        if !self.violations.is_empty() {
            red.push(format!("{} worlds failed", self.violations.len()));
        }
        if self.vacuous * 10 > self.worlds + self.vacuous {
            red.push(format!("{} of {} worlds show nothing", self.vacuous, self.worlds + self.vacuous));
        }
        red.extend(self.unknown());
        let missed: Vec<_> = self.missed(marks::all()).collect();
        if self.worlds >= LONG && !missed.is_empty() {
            red.push(format!("never met: {missed:?}"));
        }
        red
    }

    /// Those of these marks that no world met.
    pub fn missed(&self, names: impl Iterator<Item = &'static str>) -> impl Iterator<Item = &'static str> {
        names.filter(|name| !self.marks.contains_key(*name))
    }

    /// Checks that came to no end, where they are more than one in a thousand of a kind.
    pub fn unknown(&self) -> Option<String> {
        let checks = history::checks(|name| self.checked.get(name).copied().unwrap_or(0));
        checks.too_many_unknown().then(|| format!("too many checks came to no end: {checks:?}"))
    }

    /// The table at a run's end.
    pub fn print(&self) {
        let Self { worlds, vacuous, idle, time, cpu, done, events, .. } = self;
        let hours = |time: &Duration| time.as_secs_f64() / 3_600.0;
        println!("{worlds} worlds count, {vacuous} do not ({idle} of them hardly did anything)");
        println!(
            "{:.3} simulated hours in {:.4} CPU-hours, {done} calls answered, {events} events",
            hours(time),
            hours(cpu)
        );
        let tables = [
            ("checked by", &self.checked),
            ("fault", &self.faults),
            ("worlds without", &self.never),
            ("mark", &self.marks),
            ("worlds by build", &self.builds),
        ];
        for (title, counts) in tables {
            counts.iter().for_each(|(name, count)| println!("{count:>12} {title}: {name}"));
        }
        for name in self.missed(marks::all()) {
            println!("{:>12} mark: {name}", 0);
        }
        println!("{} violations", self.violations.len());
        for (seed, what) in &self.violations {
            println!("{what}\n    cargo run --profile soak -p raftmap-sim -- shrink --seed {seed}");
        }
    }

    /// As lines of a file: a name and its value.
    pub fn write(&self) -> String {
        let mut text = String::new();
        let numbers = [
            ("next", self.next),
            ("worlds", self.worlds),
            ("vacuous", self.vacuous),
            ("idle", self.idle),
            ("time_us", self.time.as_micros() as u64),
            ("cpu_us", self.cpu.as_micros() as u64),
            ("done", self.done),
            ("events", self.events),
        ];
        let mut line = |words: std::fmt::Arguments<'_>| text.extend([words.to_string(), "\n".into()]);
        numbers.iter().for_each(|(name, number)| line(format_args!("{name} {number}")));
        self.open.iter().for_each(|seed| line(format_args!("open {seed}")));
        let tables = [
            ("checked", &self.checked),
            ("fault", &self.faults),
            ("never", &self.never),
            ("mark", &self.marks),
            ("build", &self.builds),
        ];
        for (kind, counts) in tables {
            counts.iter().for_each(|(name, count)| line(format_args!("{kind} {count} {name}")));
        }
        self.violations.iter().for_each(|(seed, what)| line(format_args!("violation {seed} {what}")));
        text
    }

    /// The other way round.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut tally = Self::default();
        for line in text.lines() {
            tally.take(line).ok_or_else(|| format!("a tally has no line {line:?}"))?;
        }
        Ok(tally)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (name, rest) = line.split_once(' ')?;
        let (number, words) = rest.split_once(' ').unwrap_or((rest, ""));
        let number: u64 = number.parse().ok()?;
        match name {
            "next" => self.next = number,
            "worlds" => self.worlds = number,
            "vacuous" => self.vacuous = number,
            "idle" => self.idle = number,
            "time_us" => self.time = Duration::from_micros(number),
            "cpu_us" => self.cpu = Duration::from_micros(number),
            "done" => self.done = number,
            "events" => self.events = number,
            "open" => {
                self.open.insert(number);
            }
            "checked" => {
                self.checked.insert(words.to_owned(), number);
            }
            "fault" => {
                self.faults.insert(words.to_owned(), number);
            }
            "never" => {
                self.never.insert(words.to_owned(), number);
            }
            "mark" => {
                self.marks.insert(words.to_owned(), number);
            }
            "build" => {
                self.builds.insert(words.to_owned(), number);
            }
            "violation" => drop(self.violations.insert(number, words.to_owned())),
            _ => return None,
        }
        Some(())
    }

    /// Of an earlier run, or a new one that begins at `from`.
    pub fn load(file: &Path, from: u64) -> Result<Self, String> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::read(&text).map_err(|error| format!("{}: {error}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { next: from, ..Self::default() })
            }
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }

    /// The file is the old one or the new one, never half of it.
    pub fn save(&self, file: &Path) -> Result<(), String> {
        let fresh = file.with_extension("new");
        let saved = std::fs::write(&fresh, self.write()).and_then(|()| std::fs::rename(&fresh, file));
        saved.map_err(|error| format!("{}: {error}", file.display()))
    }
}

fn sum<K: AsRef<str>>(all: &mut BTreeMap<String, u64>, more: &BTreeMap<K, u64>) {
    for (name, count) in more {
        *all.entry(name.as_ref().to_owned()).or_default() += count;
    }
}
