//! What happened: a hash of everything (each event, the bytes of each message, request and reply), the words of the
//! latest, and how often each rare thing was met.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use crate::marks;

/// Lines that are kept in words.
const KEPT: usize = 400;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Trace {
    hash: Hash,
    lines: VecDeque<Line>,
    pub events: u64,
    /// How often each rare thing happened.
    pub marks: Marks,
    /// All of them together.
    pub met: u64,
}

/// Counts by name.
pub type Marks = BTreeMap<&'static str, u64>;

#[derive(Debug)]
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
        self.numbers(at, [node as u64, a, b]);
        self.hash.bytes(what.as_bytes());
        self.events += 1;
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { at, node, what, a, b });
    }

    /// An event, for the hash alone.
    pub fn numbers(&mut self, at: Duration, numbers: [u64; 3]) {
        self.hash.word(at.as_nanos() as u64);
        numbers.into_iter().for_each(|number| self.hash.word(number));
    }

    /// What was said, for the hash alone.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hash.bytes(bytes);
    }

    /// Something rare happened: the table after many seeds shows what never did.
    ///
    /// # Panics
    /// When the list in [`marks`] does not name it.
    pub fn sometimes(&mut self, name: &'static str) {
        self.met += 1;
        if let Some(count) = self.marks.get_mut(name) {
            *count += 1;
            return;
        }
        assert!(marks::all().any(|listed| listed == name), "{name:?} is not in the list of marks");
        self.marks.insert(name, 1);
    }

    /// Equal for equal histories.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The latest events in words.
    pub fn story(&self) -> String {
        let mut story = String::new();
        for Line { at, node, what, a, b } in &self.lines {
            let _written = writeln!(story, "{:>12.6} {:>3} {what} {a} {b}", at.as_secs_f64(), node + 1);
        }
        story
    }
}

/// Eight bytes at a time: it takes in everything that is said, and need not withstand anybody.
#[derive(Clone, Copy, Debug, Default)]
struct Hash(u64);

impl Hash {
    fn word(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }
}
