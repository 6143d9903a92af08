//! Clocks that leap: a node's monotonic clock goes on by seconds or an hour at once, as after a suspended machine. Many
//! timers are over at that moment; at most one campaign may come of it.

use std::time::Duration;

use raftmap::storage::types::Batch;

use crate::world::World;

/// A leap, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Leap {
    until: Duration,
    campaigns: u64,
}

impl World {
    pub fn leap_clock(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        let ahead = self.nemesis.time(Duration::from_millis(100), Duration::from_secs(3_600));
        let shortest = self.nodes[at].truly(self.setup.timing.election_min);
        let node = &mut self.nodes[at];
        node.ahead += ahead;
        node.leap = Some(Leap { until: self.now + shortest, campaigns: 0 });
        self.trace.note(self.now, at, "leaps", ahead.as_millis() as u64, 0);
        self.trace.sometimes("a clock leapt");
        // The tick that was to come is due; those that were swallowed are not made up for (`node::driver`).
        self.tick_early(at);
    }

    /// A node writes: it may be a vote for itself.
    pub fn campaigned(&mut self, at: usize, batch: &Batch) {
        let node = &mut self.nodes[at];
        let id = node.id();
        if batch.hard_state.is_some_and(|state| state.vote == Some(id))
            && let Some(leap) = node.leap.as_mut().filter(|leap| self.now < leap.until)
        {
            leap.campaigns += 1;
            let checked = once(*leap);
            self.must(checked);
        }
    }
}

fn once(leap: Leap) -> Result<(), String> {
    if leap.campaigns <= 1 {
        return Ok(());
    }
    Err(format!("{} campaigns at one leap of a clock", leap.campaigns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_campaign_is_one_too_many() {
        let leap = |campaigns| once(Leap { until: Duration::ZERO, campaigns });
        assert!(leap(1).is_ok() && leap(2).is_err());
    }
}
