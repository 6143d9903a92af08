//! What happens next: events by their time, those of one time in the order in which they were put there.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// See the module's description.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Timed<E>>,
    put: u64,
}

#[derive(Debug)]
struct Timed<E> {
    at: Duration,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), put: 0 }
    }

    pub fn put(&mut self, at: Duration, event: E) {
        self.put += 1;
        self.heap.push(Timed { at, number: self.put, event });
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Duration> {
        self.heap.peek().map(|timed| timed.at)
    }

    pub fn pop(&mut self) -> Option<(Duration, E)> {
        self.heap.pop().map(|timed| (timed.at, timed.event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// The heap gives its greatest first: what comes earlier is greater.
impl<E> Ord for Timed<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Timed<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Timed<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Timed<E> {}
