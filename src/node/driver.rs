//! The replica's thread: inputs from the inbox, the clock's ticks, and everything that comes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::inbox::Inbox;
use super::replica::{Host, Input, Replica};
use crate::config::TICK;
use crate::wire::client::{Refusal, Response};

/// Runs until the inbox is closed, a crash is asked for, or the replica cannot go on. Unless it was a crash, everyone who
/// waits has been answered then.
pub fn run(
    mut replica: Replica,
    inbox: &Inbox,
    crashed: &AtomicBool,
    host: &mut impl Host,
) -> Result<(), Fault> {
    let started = Instant::now();
    let result = work(&mut replica, started, inbox, crashed, host);
    if !crashed.load(Ordering::Acquire) {
        inbox.close();
        let unread = inbox.drain(Duration::ZERO).unwrap_or_default();
        unread.into_iter().for_each(|input| refuse(input, host));
        replica.step(started.elapsed(), Input::Stop, host);
    }
    result
}

fn work(
    replica: &mut Replica,
    started: Instant,
    inbox: &Inbox,
    crashed: &AtomicBool,
    host: &mut impl Host,
) -> Result<(), Fault> {
    let mut next_tick = TICK;
    loop {
        let wait = next_tick.saturating_sub(started.elapsed());
        let inputs = inbox.drain(wait);
        if crashed.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(inputs) = inputs else { return Ok(()) };
        let now = started.elapsed();
        // What has arrived comes before the tick: after a pause a leader's words are heard before patience runs out.
        for input in inputs {
            replica.step(now, input, host);
        }
        if now >= next_tick {
            replica.step(now, Input::Tick, host);
            next_tick = after(next_tick, now);
        }
        replica.advance(now, host)?;
    }
}

/// Came too late to be heard.
fn refuse(input: Input, host: &mut impl Host) {
    if let Input::Client { client, request, .. } = input {
        host.reply(client, Response { id: request.id, body: Err(Refusal::Stopping) });
    }
}

/// The next tick. Ticks that a pause of the process swallowed are not made up for: time in which nothing could be
/// heard is no reason to lose patience.
fn after(tick: Duration, now: Duration) -> Duration {
    let next = tick + TICK;
    if next > now { next } else { now + TICK }
}

/// Ends the node's threads when its own ends, however it ends: a panic must not leave a leader that cannot hear.
pub struct CloseOnDrop(pub Arc<Inbox>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_pace_and_a_pause_swallows_them() {
        assert_eq!(after(TICK, TICK + TICK / 2), TICK * 2);
        assert_eq!(after(TICK, TICK * 100), TICK * 101);
    }
}
