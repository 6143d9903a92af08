//! What happened, as a hash of everything and the words of the latest.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Lines that are kept in words.
const KEPT: usize = 400;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Trace {
    hasher: DefaultHasher,
    lines: VecDeque<Line>,
    pub events: u64,
    /// How often each rare thing happened.
    pub marks: Marks,
}

/// Counts by name.
pub type Marks = BTreeMap<&'static str, u64>;

#[derive(Debug, Hash)]
struct Line {
    at: Duration,
    node: usize,
    what: &'static str,
    a: u64,
    b: u64,
}

impl Trace {
    /// One event at a node (or client), with two numbers that tell it from its like.
    pub fn note(&mut self, at: Duration, node: usize, what: &'static str, a: u64, b: u64) {
        let line = Line { at, node, what, a, b };
        line.hash(&mut self.hasher);
        self.events += 1;
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Something rare happened: the table after many seeds shows what never did.
    pub fn sometimes(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// So much of something, for the table after many seeds.
    pub fn count(&mut self, name: &'static str, more: u64) {
        *self.marks.entry(name).or_default() += more;
    }

    /// Equal for equal histories.
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn print(&self) {
        for Line { at, node, what, a, b } in &self.lines {
            eprintln!("{:>12.6} {:>3} {what} {a} {b}", at.as_secs_f64(), node + 1);
        }
    }
}
