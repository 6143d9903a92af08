//! The replica's inbox: whatever may happen to it, in order of arrival, from any thread. Each kind has a bound, and
//! says what happens there, so that no sender can fill the node's memory or hold another one up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::replica::Input;

/// Most bytes of entries from members waiting here. One more message is dropped: the leader sends it again.
pub const PEER_BYTES_MAX: usize = 32 << 20;
/// Most bytes of other messages from members waiting here. One more is dropped, as any message may be lost.
pub const URGENT_BYTES_MAX: usize = 4 << 20;
/// Most requests of clients waiting here, and most bytes of them. One more is answered `Busy`.
pub const CLIENTS_MAX: usize = 16_384;
/// See [`CLIENTS_MAX`].
pub const CLIENT_BYTES_MAX: usize = 64 << 20;

/// Where an input comes from, and so what bounds it.
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
                let fits = self.urgent_bytes + bytes <= URGENT_BYTES_MAX;
                self.urgent_bytes += if fits { bytes } else { 0 };
                fits
            }
            Lane::Peer(bytes) => {
                let fits = self.peer_bytes + bytes <= PEER_BYTES_MAX || self.peer_bytes == 0;
                self.peer_bytes += if fits { bytes } else { 0 };
                fits
            }
            Lane::Client(bytes) => {
                let fits = self.clients < CLIENTS_MAX && self.client_bytes + bytes <= CLIENT_BYTES_MAX;
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
        let inbox = Inbox::default();
        assert!(inbox.push(Lane::Peer(PEER_BYTES_MAX), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Peer(1), Input::Tick), Err(Refused::Full));
        assert!(inbox.push(Lane::Urgent(URGENT_BYTES_MAX), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Urgent(1), Input::Tick), Err(Refused::Full));
        assert!(inbox.push(Lane::Client(CLIENT_BYTES_MAX), Input::Tick).is_ok());
        assert_eq!(inbox.push(Lane::Client(1), Input::Tick), Err(Refused::Full));
        assert!(inbox.push(Lane::Own, Input::Tick).is_ok());
        assert_eq!(inbox.drain(Duration::ZERO).map(|inputs| inputs.len()), Some(4));
        assert!(inbox.push(Lane::Peer(1), Input::Tick).is_ok());
        assert!(inbox.push(Lane::Client(1), Input::Tick).is_ok());
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
