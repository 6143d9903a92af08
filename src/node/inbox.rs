//! The replica's inbox: whatever may happen to it, in order of arrival, from any thread. Each kind has a bound, and
//! says what happens there, so that no sender can fill the node's memory or hold another one up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::replica::Input;
use crate::raft::{Body, Message};

/// What may wait here at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of entries from members, or one message. One more is dropped: the leader sends it again.
    pub peer_bytes: usize,
    /// Bytes of other messages from members. One more is dropped, as any message may be lost.
    pub urgent_bytes: usize,
    /// Requests of clients. One more is answered `Busy`.
    pub clients: usize,
    /// Bytes of them.
    pub client_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { peer_bytes: 32 << 20, urgent_bytes: 4 << 20, clients: 16_384, client_bytes: 64 << 20 }
    }
}

/// Where an input comes from, and so which of the [`Bounds`] is for it.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// The node's own threads; bounded by what they were given to do.
    Own,
    /// Members' votes, heartbeats and acknowledgements, with the bytes of the message.
    Urgent(usize),
    /// Members' entries, with the bytes of the message.
    Peer(usize),
    /// Clients, with the bytes of the request.
    Client(usize),
}

impl Lane {
    /// That of a member's message of so many bytes.
    pub fn of(message: &Message, bytes: usize) -> Self {
        match message.body {
            Body::Append { .. } => Self::Peer(bytes),
            _ => Self::Urgent(bytes),
        }
    }
}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its lane is at its bound. Later.
    Full,
    /// Nobody reads it any more.
    Closed,
}

#[derive(Default)]
struct State {
    bounds: Bounds,
    inputs: VecDeque<Input>,
    urgent_bytes: usize,
    peer_bytes: usize,
    clients: usize,
    client_bytes: usize,
    closed: bool,
    sleeping: bool,
}

/// See the module's description.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.lock().inputs.len()).finish()
    }
}

impl Inbox {
    /// An inbox for as much; production's is the default.
    pub fn new(bounds: Bounds) -> Self {
        Self { state: Mutex::new(State { bounds, ..State::default() }), filled: Condvar::new() }
    }

    /// Puts an input in; never blocks.
    pub fn push(&self, lane: Lane, input: Input) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if !state.admit(lane) {
            return Err(Refused::Full);
        }
        state.inputs.push_back(input);
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes everything that waits, at most after `timeout`. `None` once closed and empty.
    pub fn drain(&self, timeout: Duration) -> Option<VecDeque<Input>> {
        let mut state = self.lock();
        if state.inputs.is_empty() && !state.closed && !timeout.is_zero() {
            state.sleeping = true;
            state = self.filled.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
            state.sleeping = false;
        }
        if state.closed && state.inputs.is_empty() {
            return None;
        }
        state.urgent_bytes = 0;
        state.peer_bytes = 0;
        state.clients = 0;
        state.client_bytes = 0;
        Some(std::mem::take(&mut state.inputs))
    }

    /// Nothing comes in any more; what is in can still be drained.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// A thread that panicked while pushing left the queue whole: each change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admit(&mut self, lane: Lane) -> bool {
        match lane {
            Lane::Own => true,
            Lane::Urgent(bytes) => {
                let fits = self.urgent_bytes + bytes <= self.bounds.urgent_bytes;
                self.urgent_bytes += if fits { bytes } else { 0 };
                fits
            }
            Lane::Peer(bytes) => {
                let fits = self.peer_bytes + bytes <= self.bounds.peer_bytes || self.peer_bytes == 0;
                self.peer_bytes += if fits { bytes } else { 0 };
                fits
            }
            Lane::Client(bytes) => {
                let Bounds { clients, client_bytes, .. } = self.bounds;
                let fits = self.clients < clients && self.client_bytes + bytes <= client_bytes;
                if fits {
                    self.clients += 1;
                    self.client_bytes += bytes;
                }
                fits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_bound_and_a_drain_makes_room() {
        let (inbox, bounds) = (Inbox::default(), Bounds::default());
        assert!(inbox.push(Lane::Peer(bounds.peer_bytes), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Peer(1), Input::Tick), Err(Refused::Full));
        assert!(inbox.push(Lane::Urgent(bounds.urgent_bytes), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Urgent(1), Input::Tick), Err(Refused::Full));
        assert!(inbox.push(Lane::Client(bounds.client_bytes), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Client(1), Input::Tick), Err(Refused::Full));
        assert!(inbox.push(Lane::Own, Input::Tick).is_ok());
        assert_eq!(inbox.drain(Duration::ZERO).map(|inputs| inputs.len()), Some(4));
        assert!(inbox.push(Lane::Peer(1), Input::Tick).is_ok());
        assert!(inbox.push(Lane::Client(1), Input::Tick).is_ok());
    }

    #[test]
    fn one_large_append_always_has_its_place_and_requests_are_counted_too() {
        let inbox = Inbox::new(Bounds { peer_bytes: 10, urgent_bytes: 10, clients: 2, client_bytes: 100 });
        assert!(inbox.push(Lane::Peer(11), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Peer(1), Input::Tick), Err(Refused::Full));
        assert_eq!(inbox.push(Lane::Urgent(11), Input::Tick), Err(Refused::Full));
        for taken in [Ok(()), Ok(()), Err(Refused::Full)] {
            assert_eq!(inbox.push(Lane::Client(1), Input::Tick), taken);
        }
    }

    #[test]
    fn closed_means_no_more_in_but_all_out() {
        let inbox = Inbox::default();
        assert!(inbox.push(Lane::Own, Input::Tick).is_ok());
        inbox.close();
        assert_eq!(inbox.push(Lane::Own, Input::Tick), Err(Refused::Closed));
        assert_eq!(inbox.drain(Duration::from_secs(60)).map(|inputs| inputs.len()), Some(1));
        assert!(inbox.drain(Duration::from_secs(60)).is_none());
    }
}
