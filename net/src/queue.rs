//! Frames that wait for a stream: bounded in bytes, never blocking the sender, handed over many at a time.
//!
//! Small parts are copied behind one another as they come, so that a hundred small frames cost one write; large parts
//! go as they are.

use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::frame::{self, HEADER_LEN};
use crate::supervise::lock;

/// Parts up to this size are copied: the copy costs less than a chunk of their own would.
const COPY_MAX: usize = 4 * 1024;

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Nothing is sent at the moment.
    Closed,
    /// It would exceed the queue's bytes, or its own limit.
    Full,
}

/// Encoded frames in the order in which they came.
#[derive(Debug)]
pub(crate) struct SendQueue {
    limit: usize,
    frame_limit: usize,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// Of `chunks` and `tail`.
    queued: usize,
    /// Taken by the writer and perhaps not yet written: still counts.
    taken: usize,
    chunks: Vec<Bytes>,
    tail: BytesMut,
}

impl SendQueue {
    /// Closed, with room for `limit` bytes of frames of at most `frame_limit` payload bytes.
    pub(crate) fn new(limit: usize, frame_limit: usize) -> Self {
        SendQueue { limit, frame_limit, state: Mutex::default(), ready: Notify::new() }
    }

    /// Takes frames from now on, for a new stream: whatever was left for an older one is gone.
    pub(crate) fn open(&self) {
        *lock(&self.state) = State { open: true, ..State::default() };
    }

    /// Takes no frames from now on, and forgets those it has.
    pub(crate) fn close(&self) {
        *lock(&self.state) = State::default();
    }

    /// Bytes that there is room for in all.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Adds one frame whose payload is `parts`, one behind the other.
    pub(crate) fn push(&self, kind: u8, parts: &[Bytes]) -> Result<(), Rejected> {
        self.push_leaving(0, kind, parts)
    }

    /// As `push`, if `spare` bytes stay free behind it; an empty queue takes it in any case.
    pub(crate) fn push_leaving(&self, spare: usize, kind: u8, parts: &[Bytes]) -> Result<(), Rejected> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        if length > self.frame_limit {
            return Err(Rejected::Full);
        }
        let header = frame::header(kind, parts).ok_or(Rejected::Full)?;
        let mut state = lock(&self.state);
        if !state.open {
            return Err(Rejected::Closed);
        }
        let waiting = state.queued + state.taken;
        let spare = if waiting == 0 { 0 } else { spare };
        if waiting + HEADER_LEN + length > self.limit.saturating_sub(spare) {
            return Err(Rejected::Full);
        }
        let was_empty = state.queued == 0;
        state.queued += HEADER_LEN + length;
        state.add(&header, parts);
        drop(state);
        if was_empty {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for frames and takes all there are. What was taken before counts as written.
    pub(crate) async fn take(&self) -> Vec<Bytes> {
        loop {
            if let Some(chunks) = lock(&self.state).take() {
                return chunks;
            }
            self.ready.notified().await;
        }
    }
}

impl State {
    fn add(&mut self, header: &[u8], parts: &[Bytes]) {
        self.tail.extend_from_slice(header);
        for part in parts {
            if part.len() <= COPY_MAX {
                self.tail.extend_from_slice(part);
            } else {
                self.flush_tail();
                self.chunks.push(part.clone());
            }
        }
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }

    fn take(&mut self) -> Option<Vec<Bytes>> {
        self.taken = 0;
        if self.queued == 0 {
            return None;
        }
        self.flush_tail();
        self.taken = std::mem::take(&mut self.queued);
        Some(std::mem::take(&mut self.chunks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, Frame};

    fn open(limit: usize) -> SendQueue {
        let queue = SendQueue::new(limit, 1 << 20);
        queue.open();
        queue
    }

    fn frames(chunks: &[Bytes]) -> Vec<Frame> {
        let mut decoder = Decoder::new(16..=255, 1 << 20);
        chunks.iter().for_each(|chunk| decoder.extend(chunk));
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[tokio::test]
    async fn small_frames_leave_together_and_large_parts_uncopied() {
        let queue = open(1 << 20);
        let large = Bytes::from(vec![9; COPY_MAX + 1]);
        queue.push(16, &[Bytes::from_static(b"a"), Bytes::from_static(b"b")]).unwrap();
        queue.push(17, &[Bytes::from_static(b"c")]).unwrap();
        queue.push(18, &[Bytes::from_static(b"d"), large.clone()]).unwrap();
        queue.push(19, &[]).unwrap();
        let chunks = queue.take().await;
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr(), "large parts are not copied");
        let seen: Vec<_> = frames(&chunks).iter().map(|frame| (frame.kind, frame.payload.len())).collect();
        assert_eq!(seen, [(16, 2), (17, 1), (18, COPY_MAX + 2), (19, 0)]);
    }

    #[tokio::test]
    async fn what_the_writer_holds_still_counts() {
        let queue = open(100);
        let payload = [Bytes::from_static(&[0; 34])];
        assert_eq!(queue.push(16, &payload), Ok(()));
        assert_eq!(queue.push(16, &payload), Ok(()));
        assert_eq!(queue.push(16, &payload), Err(Rejected::Full));
        queue.take().await;
        assert_eq!(queue.push(16, &payload), Err(Rejected::Full), "the writer may still hold them");
        assert!(lock(&queue.state).take().is_none());
        assert_eq!(queue.push(16, &payload), Ok(()), "the writer came back, so they are written");
    }

    #[test]
    fn what_leaves_room_is_refused_before_what_need_not() {
        let queue = open(100);
        let payload = [Bytes::from_static(&[0; 34])];
        assert_eq!(queue.push_leaving(99, 16, &payload), Ok(()), "the queue was empty");
        assert_eq!(queue.push_leaving(25, 16, &payload), Err(Rejected::Full));
        assert_eq!(queue.push(16, &payload), Ok(()));
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_forgets() {
        let queue = open(1000);
        queue.push(16, &[Bytes::from_static(b"old")]).unwrap();
        queue.close();
        assert_eq!(queue.push(16, &[]), Err(Rejected::Closed));
        queue.open();
        assert!(lock(&queue.state).take().is_none(), "a new stream starts with nothing of the old one");
    }

    #[test]
    fn a_frame_over_its_own_limit_is_refused() {
        let queue = SendQueue::new(1000, 3);
        queue.open();
        assert_eq!(queue.push(16, &[Bytes::from_static(b"1234")]), Err(Rejected::Full));
        assert_eq!(queue.push(16, &[Bytes::from_static(b"123")]), Ok(()));
    }
}
