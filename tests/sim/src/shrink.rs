//! From a seed that fails to the least that fails in the same way: less is left in the world, as long as what remains
//! goes wrong for the same reason.

use crate::faults;
use crate::less::{HARMS, Less};
use crate::setup::Setup;
use crate::world::{Failure, World};

/// Worlds that are tried, at most.
const TRIES: u64 = 600;

/// See the module's description.
pub struct Shrink {
    setup: Setup,
    reason: String,
    tries: u64,
    /// The least so far, and how it failed.
    pub less: Less,
    pub failure: Failure,
}

impl Shrink {
    /// `None` where the world of `setup` does not fail.
    pub fn run(setup: Setup) -> Option<Self> {
        let less = setup.less.clone();
        let failure = World::attempt(setup.clone()).err()?;
        let mut shrink = Self { reason: reason(&failure.what), setup, tries: 1, less, failure };
        loop {
            let before = shrink.less.clone();
            shrink.pass();
            if shrink.less == before || shrink.tries >= TRIES {
                return Some(shrink);
            }
        }
    }

    fn pass(&mut self) {
        let kinds = faults::names(&self.setup.faults, self.setup.nodes);
        for name in kinds.into_iter().chain(HARMS.map(str::to_owned)) {
            self.attempt(|less| less.without.insert(name));
        }
        self.fewer();
        self.shorter();
        self.fewer_faults();
    }

    fn fewer(&mut self) {
        let (nodes, load) = (self.setup.nodes, self.setup.load.clone());
        let _found = (1..self.less.nodes.unwrap_or(nodes))
            .any(|nodes| self.attempt(|less| less.nodes.replace(nodes).is_none()));
        let _found = (1..self.less.clients.unwrap_or(load.clients))
            .any(|clients| self.attempt(|less| less.clients.replace(clients).is_none()));
        let _found = (1..self.less.keys.unwrap_or(load.keys))
            .any(|keys| self.attempt(|less| less.keys.replace(keys).is_none()));
    }

    /// Faults end earlier.
    fn shorter(&mut self) {
        for parts in [1, 2, 4, 6, 7] {
            let until = self.less.until.unwrap_or(self.setup.safety.as_millis() as u64);
            self.attempt(|less| less.until.replace(until * parts / 8).is_none());
        }
    }

    /// All at once, then halves, down to single ones.
    fn fewer_faults(&mut self) {
        let mut size = self.failure.struck.len();
        while size > 0 {
            let numbers: Vec<u64> = self.failure.struck.iter().map(|struck| struck.number).collect();
            for chunk in numbers.chunks(size) {
                self.attempt(|less| {
                    less.skip.extend(chunk);
                    true
                });
            }
            size /= 2;
        }
    }

    /// Leaves more out, and keeps to that if the world fails for the same reason.
    fn attempt<T>(&mut self, change: impl FnOnce(&mut Less) -> T) -> bool {
        let mut less = self.less.clone();
        let _changed = change(&mut less);
        if less == self.less || self.tries >= TRIES {
            return false;
        }
        self.tries += 1;
        let found = World::attempt(less.clone().of(self.setup.clone())).err();
        let Some(failure) = found.filter(|failure| reason(&failure.what) == self.reason) else {
            return false;
        };
        (self.less, self.failure) = (less, failure);
        // Numbers of what is not on the schedule any more say nothing.
        let without = &self.less.without;
        if without.is_superset(&faults::names(&self.setup.faults, self.setup.nodes).into_iter().collect()) {
            self.less.skip.clear();
        }
        true
    }

    pub fn seed(&self) -> u64 {
        self.setup.seed
    }

    pub fn print(&self) {
        let Self { setup, less, failure, tries, .. } = self;
        println!(
            "seed {} after {tries} worlds still fails at {:?}: {}",
            setup.seed, failure.at, failure.what
        );
        println!("{} faults are left:", failure.struck.len());
        for struck in &failure.struck {
            println!("{:>12.6} {:>4} {}", struck.at.as_secs_f64(), struck.number, struck.kind);
        }
        println!("{}", replay(&less.clone().of(setup.clone())));
    }
}

/// The command that runs exactly this world again.
pub fn replay(setup: &Setup) -> String {
    let sabotage = setup.sabotage.map_or(String::new(), |sabotage| format!(" --sabotage {sabotage:?}"));
    format!("cargo run --profile soak -p raftmap-sim -- replay --seed {}{sabotage}{}", setup.seed, setup.less)
}

/// The words of a failure without its numbers, up to the particulars: equal for failures of one invariant.
pub fn reason(what: &str) -> String {
    let end = what.find([':', '{', '[']).unwrap_or(what.len());
    what[..end].chars().filter(|character| !character.is_ascii_digit()).collect()
}
