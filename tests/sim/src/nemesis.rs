//! The schedule of what goes wrong. Faults are numbered; each draws from a generator of its own, and their times from
//! another, so that one can be left out and the others stay as they were. Kinds come like cards from a deck: none that
//! the seed allows waits for ever.

use std::fmt::Debug;
use std::time::Duration;

use crate::dice::Dice;
use crate::world::{Event, World};

/// One fault of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    pub number: u64,
    pub at: Duration,
    pub kind: String,
    /// It found somebody to strike.
    pub fired: bool,
}

/// What was scheduled so far.
#[derive(Debug)]
pub struct Schedule {
    seed: u64,
    times: Dice,
    next: u64,
    pub struck: Vec<Struck>,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        Self { seed, times: Dice::new(seed, "fault times"), next: 0, struck: Vec::new() }
    }

    fn deal<K: Copy>(&mut self, kinds: &[K]) -> (u64, K) {
        let number = self.next;
        self.next += 1;
        let (round, card) = (number / kinds.len() as u64, number as usize % kinds.len());
        let deck = Dice::new(self.seed, &format!("deck {round}")).shuffled(kinds.len());
        (number, kinds[deck[card]])
    }
}

impl World {
    pub fn next_fault(&mut self) {
        if let Some(every) = self.setup.faults.every {
            let time = self.plan.times.time(every / 8, every);
            self.after(time, Event::Fault);
        }
    }

    /// The next one of these strikes by `strike`, unless it is left out.
    pub fn strike<K: Copy + Debug>(&mut self, kinds: &[K], strike: impl FnOnce(&mut Self, K)) {
        if kinds.is_empty() {
            return;
        }
        let (number, kind) = self.plan.deal(kinds);
        self.nemesis = Dice::new(self.setup.seed, &format!("fault {number}"));
        let name = format!("{kind:?}");
        if self.setup.less.leaves_out(number, &name) {
            return;
        }
        self.trace.note(self.now, 0, "fault", number, 0);
        let before = self.trace.met;
        strike(self, kind);
        // Whoever is struck is marked.
        let fired = self.trace.met > before;
        self.plan.struck.push(Struck { number, at: self.now, kind: name, fired });
    }
}
