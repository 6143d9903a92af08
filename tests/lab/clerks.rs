//! Clerks that a test lets call by hand, and which servers they reach.

use std::collections::BTreeSet;
use std::time::Duration;

use raftmap_sim::history::{End, What};
use raftmap_sim::net::End as NetEnd;

use crate::cluster::{Lab, millis};

/// For one call with a majority there.
const CALL_MAX: Duration = millis(10_000);

/// Both directions.
fn link(a: NetEnd, b: NetEnd) -> [(NetEnd, NetEnd); 2] {
    [(a, b), (b, a)]
}

impl Lab {
    /// How the call in this place of the history ended; `Unknown` before that.
    pub(crate) fn end(&self, call: usize) -> End {
        self.world.history[call].end.clone()
    }

    /// One call to its end.
    #[track_caller]
    pub(crate) fn clerk_does(&mut self, clerk: usize, key: &str, what: What) -> End {
        let until = self.world.now + CALL_MAX;
        let mut call = self.world.call(clerk, key, what.clone());
        while self.world.step(until) {
            match self.end(call) {
                End::Unknown => {}
                // Nobody could be asked.
                End::NotDone => call = self.world.call(clerk, key, what.clone()),
                end => return end,
            }
        }
        panic!("clerk {clerk} waits {CALL_MAX:?} for {what:?} of {key}");
    }

    pub(crate) fn clerk_puts(&mut self, clerk: usize, key: &str, value: &str) {
        let end = self.clerk_does(clerk, key, What::Put { value: value.into() });
        assert!(matches!(end, End::Written { .. }), "{end:?}");
    }

    /// It reads this value.
    #[track_caller]
    pub(crate) fn clerk_finds(&mut self, clerk: usize, key: &str, value: &str) {
        let End::Read { found, .. } = self.clerk_does(clerk, key, What::Read) else {
            panic!("{key} was not read")
        };
        assert_eq!(found.map(|(_, value)| value).as_deref(), Some(value), "{key}");
    }

    /// Two parts, `one` and the rest, and for each clerk the members it reaches.
    pub(crate) fn part(&mut self, one: &[usize], reach: &[&[usize]]) {
        let mut cut: BTreeSet<(NetEnd, NetEnd)> = BTreeSet::new();
        for at in self.all().filter(|at| one.contains(at)) {
            let others = self.all().filter(|other| !one.contains(other));
            others.for_each(|other| cut.extend(link(NetEnd::Node(at), NetEnd::Node(other))));
        }
        for (clerk, members) in reach.iter().enumerate() {
            let hidden = self.all().filter(|at| !members.contains(at));
            hidden.for_each(|at| cut.extend(link(NetEnd::Client(clerk), NetEnd::Node(at))));
        }
        self.world.links.cut_only(cut);
    }
}
