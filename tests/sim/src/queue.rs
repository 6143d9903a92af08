//! What happens next: events by their time, those of one time in the order in which they were put there.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// See the module's description.
#[derive(Debug)]
pub struct Queue<E> {
    /// The next one first: its time in nanoseconds and its number in one word, and its place in `events`. What is moved
    /// about is small.
    heap: BinaryHeap<Reverse<(u128, usize)>>,
    events: Vec<Option<E>>,
    /// Places in `events` that nothing has.
    free: Vec<usize>,
    put: u64,
}

impl<E> Queue<E> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), put: 0 }
    }

    pub fn put(&mut self, at: Duration, event: E) {
        self.put += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.heap.push(Reverse((at.as_nanos() << 64 | u128::from(self.put), place)));
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((key, _))| time_of(*key))
    }

    pub fn pop(&mut self) -> Option<(Duration, E)> {
        let Reverse((key, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place].take().map(|event| (time_of(key), event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

fn time_of(key: u128) -> Duration {
    Duration::from_nanos((key >> 64) as u64)
}
