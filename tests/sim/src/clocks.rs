//! Clocks that leap: a node's monotonic clock goes on by seconds or an hour at once, as after a suspended machine. Many
//! timers are over at that moment; at most one campaign may come of it. And clocks that stand still for a while, in a
//! process that runs.

use std::time::Duration;

use raftmap::storage::types::Batch;

use crate::process::TICK;
use crate::world::{Event, World};

/// A leap, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Leap {
    /// It began in this life: the next one has timers of its own.
    pub life: u64,
    pub until: Duration,
    pub campaigns: u64,
}

impl World {
    /// One leaps, or stands still.
    pub fn upset_clock(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        if self.nodes[at].life.is_none() {
            return;
        }
        match self.nemesis.below(4) {
            0 => self.stop_clock(at),
            _ => self.leap_clock(at),
        }
    }

    fn stop_clock(&mut self, at: usize) {
        let time = self.nemesis.time(Duration::from_millis(20), Duration::from_secs(3));
        let (now, number) = (self.now, self.nodes[at].lives);
        let Some(life) = self.nodes[at].life.as_mut().filter(|life| life.still_since.is_none()) else {
            return;
        };
        life.still_since = Some(now);
        self.trace.sometimes("a clock stood still");
        self.after(time, Event::ClockGoesOn(at, number));
    }

    /// From where it stood.
    pub fn clock_goes_on(&mut self, at: usize, number: u64) {
        let node = &mut self.nodes[at];
        if let Some(life) = node.life.as_mut().filter(|_| node.lives == number)
            && let Some(since) = life.still_since.take()
        {
            life.missed += self.now - since;
        }
    }

    fn leap_clock(&mut self, at: usize) {
        let ahead = self.nemesis.time(Duration::from_millis(100), Duration::from_secs(3_600));
        // The tick of the leap itself is one of those that a timer counts, and the one after it may come at once.
        let shortest = self.nodes[at].truly(self.setup.timing.election_min.saturating_sub(TICK * 2));
        let node = &mut self.nodes[at];
        node.ahead += ahead;
        node.leap = Some(Leap { life: node.lives, until: self.now + shortest, campaigns: 0 });
        self.trace.note(self.now, at, "leaps", ahead.as_millis() as u64, 0);
        self.trace.sometimes("a clock leapt");
        // The tick that was to come is due; those that were swallowed are not made up for (`node::driver`).
        self.tick_early(at);
    }

    /// A node is about to write: it may be a vote for itself that its log does not have yet.
    pub fn campaigned(&mut self, at: usize, batch: &Batch) {
        let node = &mut self.nodes[at];
        let (id, before) = (node.id(), node.shadow.log.hard_state);
        if batch.hard_state.is_some_and(|state| state.vote == Some(id) && state != before)
            && let Some(leap) = node.leap.as_mut()
            && (leap.life == node.lives && self.now < leap.until)
        {
            leap.campaigns += 1;
            let checked = once(*leap);
            self.must(checked);
        }
    }
}

/// At most one campaign may come of a leap.
pub fn once(leap: Leap) -> Result<(), String> {
    if leap.campaigns <= 1 {
        return Ok(());
    }
    Err(format!("{} campaigns at one leap of a clock", leap.campaigns))
}
