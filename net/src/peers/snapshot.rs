//! One snapshot over one stream of its own, behind everything else on the connection.
//!
//! ```text
//! sender                                        receiver
//! OFFER    length of the body (u64), announcement ->
//!                                               <- ACCEPT  offset to go on from (u64), or REFUSE  reason
//! the body from that offset, bare               ->
//! end of the stream                             ->
//!                                               <- DONE, or REFUSE  reason
//! ```
//! Numbers are little-endian. The bare bytes need no checksum here: the receiver checks the file by its digest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::link::Link;
use crate::frame::{Frame, FrameError, SNAPSHOT_ACCEPT, SNAPSHOT_DONE, SNAPSHOT_OFFER, SNAPSHOT_REFUSE};
use crate::stream::{FrameReader, StreamError, write_frame};

const PRIORITY: i32 = -1;
/// Handed to the stream at a time: small enough that progress is seen, large enough to be cheap.
const SEND_CHUNK: usize = 64 * 1024;
/// Collected before the writer gets it.
const RECEIVE_CHUNK: usize = 256 * 1024;
/// Chunks that may wait for the writer.
const CHUNKS_WAITING: usize = 4;
/// Largest announcement or reason, in bytes.
const WORDS_MAX: usize = 64 * 1024;

/// A snapshot that a peer would like to send.
#[derive(Clone, Debug)]
pub struct SnapshotOffer {
    /// Who offers it.
    pub peer: u64,
    /// What it says about it; at most 64 KiB.
    pub announcement: Bytes,
    /// Length of the whole body in bytes, as the sender claims.
    pub length: u64,
}

/// The receiver's answer to a [`SnapshotOffer`].
pub struct SnapshotAccept {
    /// How many bytes of the body are here already: the sender leaves them out. At most the body's length.
    pub offset: u64,
    /// Takes the rest.
    pub writer: Box<dyn SnapshotWriter>,
}

/// Takes the body of a snapshot. Its calls come one after the other on a thread of its own, and may block. When it is
/// dropped without [`finish`](Self::finish), the transfer broke off; it may be offered again.
pub trait SnapshotWriter: Send {
    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// Why the transfer is to end, in words for the sender.
    fn chunk(&mut self, bytes: Bytes) -> Result<(), String>;

    /// The body is whole.
    ///
    /// # Errors
    /// Why it is not kept, in words for the sender.
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// How a transfer goes, for its sender.
#[derive(Debug)]
pub enum SnapshotReport {
    /// This many bytes of the body are on their way or were there before.
    Progress {
        /// Counted from the start of the body.
        sent: u64,
    },
    /// The transfer is over; nothing follows. `Ok` means that the receiver has all of it and has kept it.
    Ended(Result<(), SnapshotError>),
}

/// Why a snapshot was not transferred.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SnapshotError {
    /// Nothing connects to that node at the moment. Try again when it is connected.
    #[error("not connected")]
    NotConnected,
    /// Another transfer to the same node is under way. Wait for its end.
    #[error("another transfer to the same node is under way")]
    Busy,
    /// The receiver does not want it, or could not keep it.
    #[error("refused by the receiver: {0}")]
    Refused(String),
    /// Nothing moved for too long. Try again.
    #[error("nothing moved for {0:?}")]
    Stalled(Duration),
    /// The connection broke off. Try again when it is back.
    #[error("transfer broke off: {0}")]
    Lost(String),
}

impl From<StreamError> for SnapshotError {
    fn from(error: StreamError) -> Self {
        SnapshotError::Lost(error.to_string())
    }
}

type Report = Box<dyn FnMut(SnapshotReport) + Send>;

/// Starts a transfer, if none to the same peer is under way.
pub(super) fn send(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    announcement: Bytes,
    body: Bytes,
    mut report: Report,
) -> Result<(), SnapshotError> {
    let connection = link.connection().ok_or(SnapshotError::NotConnected)?;
    if link.sending_snapshot.swap(true, Ordering::SeqCst) {
        return Err(SnapshotError::Busy);
    }
    let (shared, link) = (shared.clone(), link.clone());
    shared.clone().tasks.spawn("snapshot sender", async move {
        let sent = offer(&shared, &connection, announcement, body, &mut report).await;
        if sent.is_ok() {
            shared.counters.snapshots_sent.add_one();
        }
        // Free before the report, so that its receiver may start the next one.
        link.sending_snapshot.store(false, Ordering::SeqCst);
        report(SnapshotReport::Ended(sent));
    });
    Ok(())
}

async fn offer(
    shared: &Shared,
    connection: &Connection,
    announcement: Bytes,
    body: Bytes,
    report: &mut Report,
) -> Result<(), SnapshotError> {
    let stall = shared.limits.snapshot_stall;
    let opened = timed(stall, connection.open_bi()).await?;
    let (mut send, recv) = opened.map_err(|error| SnapshotError::Lost(error.to_string()))?;
    // It fails on a closed stream only, and then the first write says why.
    let _ = send.set_priority(PRIORITY);
    let mut answers = FrameReader::new(recv, SNAPSHOT_ACCEPT..=SNAPSHOT_DONE, WORDS_MAX);

    let mut words = BytesMut::with_capacity(8 + announcement.len());
    words.put_u64_le(body.len() as u64);
    words.extend_from_slice(&announcement);
    timed(stall, write_frame(&mut send, SNAPSHOT_OFFER, words.freeze())).await??;
    let answer = timed(shared.limits.snapshot_verdict, answers.next()).await??;
    let offset = accepted_offset(answer, body.len())?;
    send_body(stall, &mut send, &mut answers, body, offset, report).await?;
    match timed(shared.limits.snapshot_verdict, answers.next()).await?? {
        Frame { kind: SNAPSHOT_DONE, .. } => Ok(()),
        other => Err(refusal(&other)),
    }
}

fn accepted_offset(answer: Frame, length: usize) -> Result<usize, SnapshotError> {
    if answer.kind != SNAPSHOT_ACCEPT {
        return Err(refusal(&answer));
    }
    let offset: Option<[u8; 8]> = answer.payload[..].try_into().ok();
    offset
        .and_then(|offset| usize::try_from(u64::from_le_bytes(offset)).ok())
        .filter(|offset| *offset <= length)
        .ok_or_else(|| SnapshotError::Lost("the receiver asks for an offset behind the end".into()))
}

async fn send_body(
    stall: Duration,
    send: &mut SendStream,
    answers: &mut FrameReader,
    mut body: Bytes,
    offset: usize,
    report: &mut Report,
) -> Result<(), SnapshotError> {
    let length = body.len();
    drop(body.split_to(offset));
    while !body.is_empty() {
        let chunk = body.split_to(body.len().min(SEND_CHUNK));
        tokio::select! {
            biased;
            // Before the end of the body any answer is a refusal: the rest need not be sent.
            answer = answers.next() => return Err(refusal(&answer?)),
            written = timed(stall, send.write_chunk(chunk)) => written?.map_err(StreamError::from)?,
        }
        report(SnapshotReport::Progress { sent: (length - body.len()) as u64 });
    }
    send.finish().map_err(|error| SnapshotError::Lost(error.to_string()))
}

fn refusal(answer: &Frame) -> SnapshotError {
    match answer.kind {
        SNAPSHOT_REFUSE => {
            SnapshotError::Refused(String::from_utf8_lossy(&answer.payload).escape_debug().to_string())
        }
        kind => SnapshotError::Lost(format!("answer of kind {kind} out of turn")),
    }
}

async fn timed<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, SnapshotError> {
    tokio::time::timeout(limit, future).await.map_err(|_| SnapshotError::Stalled(limit))
}

/// Receives what a peer sends, one snapshot after the other. Ends with the connection.
pub(super) async fn receive_all(
    shared: Arc<Shared>,
    peer: u64,
    connection: Connection,
) -> Result<(), StreamError> {
    loop {
        let (mut send, recv) = connection.accept_bi().await.map_err(|_| StreamError::Ended)?;
        let (offer, body) = match timed(shared.limits.snapshot_stall, offered(peer, recv)).await {
            Ok(Ok(offered)) => offered,
            Ok(Err(error)) if is_malformed(&error) => return Err(error),
            Ok(Err(error)) => {
                broke_off(&shared, peer, &error);
                continue;
            }
            Err(error) => {
                broke_off(&shared, peer, &error);
                continue;
            }
        };
        match receive(&shared, offer, &mut send, body).await {
            Ok(()) => shared.counters.snapshots_received.add_one(),
            Err(SnapshotError::Refused(reason)) => {
                if shared.counters.snapshots_refused.add_one_worth_a_line() {
                    tracing::warn!(peer, reason, "snapshot refused");
                }
                let mut words = Bytes::from(reason);
                words.truncate(WORDS_MAX);
                // The sender may be gone already: then it needs no answer.
                let _ = write_frame(&mut send, SNAPSHOT_REFUSE, words).await;
            }
            Err(error) => tracing::info!(peer, %error, "snapshot not received"),
        }
    }
}

/// Whether no member says this. One that is cut is the word of a sender who gave up.
fn is_malformed(error: &StreamError) -> bool {
    match error {
        StreamError::Frame(error) => !matches!(error, FrameError::Truncated(_)),
        StreamError::Content(_) => true,
        StreamError::Slow(_)
        | StreamError::SlowHeader
        | StreamError::Ended
        | StreamError::Read(_)
        | StreamError::Write(_) => false,
    }
}

/// The sender gave up in its midst, or is behind other traffic: it offers again. Counted, for it may do so for ever.
fn broke_off(shared: &Shared, peer: u64, error: &dyn std::fmt::Display) {
    if shared.counters.snapshots_refused.add_one_worth_a_line() {
        tracing::info!(peer, %error, "the offer of a snapshot broke off");
    }
}

/// What a peer offers, and the stream that the body comes on.
async fn offered(peer: u64, recv: RecvStream) -> Result<(SnapshotOffer, RecvStream), StreamError> {
    let mut frames = FrameReader::new(recv, SNAPSHOT_OFFER..=SNAPSHOT_OFFER, 8 + WORDS_MAX);
    let mut words = frames.next().await?.payload;
    let body = frames.into_stream()?;
    let length = words.split_to(8.min(words.len()));
    let length = length[..].try_into().map(u64::from_le_bytes);
    let length = length.map_err(|_| StreamError::Content("offer without a length".into()))?;
    Ok((SnapshotOffer { peer, announcement: words, length }, body))
}

async fn receive(
    shared: &Arc<Shared>,
    offer: SnapshotOffer,
    send: &mut SendStream,
    mut recv: RecvStream,
) -> Result<(), SnapshotError> {
    let (stall, length) = (shared.limits.snapshot_stall, offer.length);
    let mut writing = Writing::start(shared, offer);
    let offset = timed(shared.limits.snapshot_verdict, writing.accepted()).await??;
    if offset > length {
        return Err(SnapshotError::Refused(format!("offset {offset} of {length} bytes")));
    }
    write_frame(send, SNAPSHOT_ACCEPT, offset.to_le_bytes().to_vec().into()).await?;
    copy_body(stall, &mut recv, length - offset, &mut writing).await?;
    timed(shared.limits.snapshot_verdict, writing.finish()).await??;
    write_frame(send, SNAPSHOT_DONE, Bytes::new()).await?;
    // The answer is kept until the other side has it; a failure means that it is gone.
    let _ = send.finish();
    Ok(())
}

/// Exactly `left` bytes and then the end of the stream.
async fn copy_body(
    stall: Duration,
    recv: &mut RecvStream,
    mut left: u64,
    writing: &mut Writing,
) -> Result<(), SnapshotError> {
    let mut chunk = BytesMut::with_capacity(RECEIVE_CHUNK);
    loop {
        let part = timed(stall, recv.read_chunk(RECEIVE_CHUNK, true)).await?.map_err(StreamError::from)?;
        let Some(part) = part else { break };
        left = left
            .checked_sub(part.bytes.len() as u64)
            .ok_or_else(|| SnapshotError::Refused("more bytes than were announced".into()))?;
        chunk.extend_from_slice(&part.bytes);
        if chunk.len() >= RECEIVE_CHUNK {
            timed(stall, writing.chunk(chunk.split().freeze())).await??;
        }
    }
    if left > 0 {
        return Err(SnapshotError::Refused(format!("{left} bytes fewer than were announced")));
    }
    if !chunk.is_empty() {
        timed(stall, writing.chunk(chunk.freeze())).await??;
    }
    Ok(())
}

/// The writer on its thread, fed through a bounded queue. Dropped early, it makes the thread drop the writer.
struct Writing {
    chunks: Option<mpsc::Sender<Option<Bytes>>>,
    accepted: Option<oneshot::Receiver<u64>>,
    verdict: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Writing {
    fn start(shared: &Arc<Shared>, offer: SnapshotOffer) -> Self {
        let (chunks, inbox) = mpsc::channel(CHUNKS_WAITING);
        let (accept, accepted) = oneshot::channel();
        let (judge, verdict) = oneshot::channel();
        let alarm = shared.tasks.alarm("snapshot writer");
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || {
            let _alarm = alarm;
            let verdict = write_all(&shared, offer, accept, inbox);
            // Nobody may be waiting any more.
            let _ = judge.send(verdict);
        });
        Writing { chunks: Some(chunks), accepted: Some(accepted), verdict: Some(verdict) }
    }

    async fn accepted(&mut self) -> Result<u64, SnapshotError> {
        match self.accepted.take() {
            Some(accepted) => match accepted.await {
                Ok(offset) => Ok(offset),
                Err(_) => Err(self.refused().await),
            },
            None => Err(self.refused().await),
        }
    }

    async fn chunk(&mut self, bytes: Bytes) -> Result<(), SnapshotError> {
        self.give(Some(bytes)).await
    }

    async fn finish(&mut self) -> Result<(), SnapshotError> {
        self.give(None).await?;
        match self.verdict.take() {
            Some(verdict) => match verdict.await {
                Ok(verdict) => verdict.map_err(SnapshotError::Refused),
                Err(_) => Err(SnapshotError::Refused("the receiver failed".into())),
            },
            None => Err(SnapshotError::Refused("the receiver failed".into())),
        }
    }

    async fn give(&mut self, chunk: Option<Bytes>) -> Result<(), SnapshotError> {
        let given = match &self.chunks {
            Some(chunks) => chunks.send(chunk).await.is_ok(),
            None => false,
        };
        if given { Ok(()) } else { Err(self.refused().await) }
    }

    /// The thread ended by itself: what it said.
    async fn refused(&mut self) -> SnapshotError {
        self.chunks = None;
        let verdict = match self.verdict.take() {
            Some(verdict) => verdict.await.ok(),
            None => None,
        };
        SnapshotError::Refused(verdict.and_then(Result::err).unwrap_or_else(|| "the receiver failed".into()))
    }
}

/// Runs on the blocking thread: decides, takes every chunk, and finishes when told that the body is whole.
fn write_all(
    shared: &Shared,
    offer: SnapshotOffer,
    accept: oneshot::Sender<u64>,
    mut inbox: mpsc::Receiver<Option<Bytes>>,
) -> Result<(), String> {
    let SnapshotAccept { offset, mut writer } = shared.handler.snapshot(offer)?;
    if accept.send(offset).is_err() {
        return Err("the transfer broke off".into());
    }
    while let Some(given) = inbox.blocking_recv() {
        match given {
            // Broken off: what still waits would be written for nobody.
            _ if inbox.is_closed() => break,
            Some(chunk) => writer.chunk(chunk)?,
            None => return writer.finish(),
        }
    }
    Err("the transfer broke off".into())
}
