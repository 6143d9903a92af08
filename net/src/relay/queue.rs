//! Datagrams that are under way for a while, in the order in which they are due.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::way::Way;

/// Bytes under way in one relay; a datagram above that is lost.
const BYTES_MAX: usize = 16 << 20;

/// Datagrams under way. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    waiting: Arc<Mutex<Waiting>>,
    /// One came that is due before all others.
    sooner: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    datagrams: BinaryHeap<Delayed>,
    bytes: usize,
    number: u64,
}

struct Delayed {
    due: Instant,
    /// Those due at one time leave in the order in which they came.
    number: u64,
    way: Arc<Way>,
    through: Arc<UdpSocket>,
    to: SocketAddr,
    datagram: Vec<u8>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { waiting: Arc::default(), sooner: Arc::new(Notify::new()) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Pushes and pops are whole also after a panic elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a datagram for a while; `false`: there is no room for it.
    pub(super) fn push(
        &self,
        after: Duration,
        way: &Arc<Way>,
        through: &Arc<UdpSocket>,
        to: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        let due = Instant::now() + after;
        let mut waiting = self.waiting();
        if waiting.bytes + datagram.len() > BYTES_MAX {
            return false;
        }
        let sooner = waiting.datagrams.peek().is_none_or(|next| due < next.due);
        waiting.bytes += datagram.len();
        waiting.number += 1;
        let number = waiting.number;
        let (way, through, datagram) = (way.clone(), through.clone(), datagram.to_vec());
        waiting.datagrams.push(Delayed { due, number, way, through, to, datagram });
        drop(waiting);
        if sooner {
            self.sooner.notify_one();
        }
        true
    }

    /// Sends each when it is due, without end.
    pub(super) async fn run(self) {
        loop {
            match self.send_due() {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    /// Sends what is due, and says when the next one is.
    fn send_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        loop {
            let next = waiting.datagrams.peek()?.due;
            if next > now {
                return Some(next);
            }
            let sent = waiting.datagrams.pop()?;
            waiting.bytes -= sent.datagram.len();
            sent.way.sent(sent.through.try_send_to(&sent.datagram, sent.to).is_ok());
        }
    }
}

/// The soonest is the greatest: a [`BinaryHeap`] gives its greatest first.
impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Delayed {}
