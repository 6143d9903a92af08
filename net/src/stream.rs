//! Frames out of and into one QUIC stream, and the words with which a connection is closed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::frame::{self, Decoder, Frame, FrameError};
use crate::queue::SendQueue;

/// Why a connection was closed, as a number that the other side sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    Stopping = 1,
    Replaced = 2,
    Refused = 3,
    Malformed = 4,
    SlowReader = 5,
    Done = 6,
    SlowSender = 7,
}

/// More than any reason that is sent, so that a peer cannot fill the log.
const REASON_MAX: usize = 300;

/// Closes a connection, unless it is closed already: the first reason is the one to tell.
pub(crate) fn close(connection: &quinn::Connection, code: CloseCode, reason: &str) {
    if connection.close_reason().is_some() {
        return;
    }
    connection.close(VarInt::from_u32(code as u32), reason.get(..REASON_MAX).unwrap_or(reason).as_bytes());
}

/// The other side's reason in words, without what would disturb a log.
pub(crate) fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason);
            format!("closed by the other side: {}", text.escape_debug().take(REASON_MAX).collect::<String>())
        }
        other => other.to_string(),
    }
}

/// Why no more frames come out of a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A sound frame whose content was refused by whom it was for.
    #[error("{0}")]
    Content(String),
    /// A frame that was begun does not go on, or not as fast as it must.
    #[error("a frame of {0} bytes came too slowly")]
    Slow(usize),
    /// The same of a header.
    #[error("a frame's header came too slowly")]
    SlowHeader,
    #[error("stream ended")]
    Ended,
    #[error("reading failed: {0}")]
    Read(#[from] ReadError),
    #[error("writing failed: {0}")]
    Write(#[from] WriteError),
}

/// How fast a frame must come once it has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Longest silence, and what every frame has.
    pub(crate) patience: Duration,
    /// What comes on top: a second for so many bytes.
    pub(crate) bytes_a_second: usize,
    /// Frames of up to so many payload bytes take up no room.
    pub(crate) small: usize,
}

/// Reads frames. Its futures may be dropped and made again without loss.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    decoder: Decoder,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, kinds: RangeInclusive<u8>, limit: usize) -> Self {
        FrameReader { stream, decoder: Decoder::new(kinds, limit) }
    }

    /// Changes what is accepted from the next frame on.
    pub(crate) fn accept(&mut self, kinds: RangeInclusive<u8>, limit: usize) {
        self.decoder.accept(kinds, limit);
    }

    pub(crate) async fn next(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            self.more().await?;
        }
    }

    /// As [`FrameReader::next`] from somebody who may begin frames that never end: a frame must come at its pace, and
    /// while a large one comes it takes up room in `large`, and `widen` lets that much more come.
    pub(crate) async fn next_at(
        &mut self,
        pace: Pace,
        large: &Arc<Semaphore>,
        widen: impl Fn(usize),
    ) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            match self.decoder.begun()? {
                None if self.decoder.finish().is_ok() => self.more().await?,
                None => {
                    let more = tokio::time::timeout(pace.patience, self.more());
                    more.await.map_err(|_| StreamError::SlowHeader)??;
                }
                Some(length) if length <= pace.small => return self.rest(length, pace).await,
                Some(length) => {
                    // Until there is room, what comes waits in the usual window.
                    let _room = Credit::take(large, None, length).await;
                    widen(length);
                    return self.rest(length, pace).await;
                }
            }
        }
    }

    async fn rest(&mut self, length: usize, pace: Pace) -> Result<Frame, StreamError> {
        let seconds = length.div_ceil(pace.bytes_a_second) as u64;
        let until = Instant::now() + pace.patience + Duration::from_secs(seconds);
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            let silent = Instant::now() + pace.patience;
            let more = tokio::time::timeout_at(until.min(silent), self.more());
            more.await.map_err(|_| StreamError::Slow(length))??;
        }
    }

    async fn more(&mut self) -> Result<(), StreamError> {
        const EMPTY: Bytes = Bytes::new();
        // Many small chunks are one visit to the connection's lock.
        let mut chunks = [EMPTY; 16];
        let Some(count) = self.stream.read_chunks(&mut chunks).await? else {
            self.decoder.finish()?;
            return Err(StreamError::Ended);
        };
        chunks.iter().take(count).for_each(|chunk| self.decoder.extend(chunk));
        Ok(())
    }

    /// The stream itself, for what comes behind the frames.
    ///
    /// # Errors
    /// When more than the frames came already.
    pub(crate) fn into_stream(self) -> Result<RecvStream, StreamError> {
        self.decoder.finish()?;
        Ok(self.stream)
    }
}

/// Writes one frame at once.
pub(crate) async fn write_frame(
    stream: &mut SendStream,
    kind: u8,
    payload: Bytes,
) -> Result<(), StreamError> {
    let parts = [payload];
    let length = parts.iter().map(Bytes::len).sum::<usize>();
    let too_long = FrameError::Length { kind, length: u32::MAX, limit: length };
    let header = frame::header(kind, &parts).ok_or(too_long)?;
    stream.write_all(&header).await?;
    stream.write_all_chunks(&mut { parts }).await?;
    Ok(())
}

/// Writes what the queue has, for as long as the stream lives.
pub(crate) async fn write_queue(stream: &mut SendStream, queue: &SendQueue) -> Result<(), StreamError> {
    loop {
        stream.write_all_chunks(&mut queue.take().await).await?;
    }
}

/// Room that a received frame takes up until this is dropped; while too much is taken up, its stream is not read.
///
/// Keep it with the frame for as long as the frame waits, and drop it when the frame is done with.
#[derive(Debug, Default)]
pub struct Credit {
    _room: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

impl Credit {
    /// Waits for room for `bytes` (and a header) in `own`, then in `shared`.
    pub(crate) async fn take(own: &Arc<Semaphore>, shared: Option<&Arc<Semaphore>>, bytes: usize) -> Self {
        // Limits are checked to fit a u32, and a frame to fit its credit.
        let bytes = u32::try_from(bytes + frame::HEADER_LEN).unwrap_or(u32::MAX);
        let Ok(own) = own.clone().acquire_many_owned(bytes).await else { return Credit::default() };
        let shared = match shared {
            Some(shared) => shared.clone().acquire_many_owned(bytes).await.ok(),
            None => None,
        };
        Credit { _room: Some((own, shared)) }
    }
}
