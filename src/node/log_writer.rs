//! The log writer without its threads: what is to be done with the log next, by what was handed in and by the host's
//! clock. Whatever is handed in while a sync runs joins the next one. The log's chores (spare segments, purging) are
//! given out, so that they never stand in a batch's way.
//!
//! A host goes round and round: it [takes](LogWriter::take) every order that waits, takes a [turn](LogWriter::turn),
//! passes on what comes of it and does its [`Step`]. The node's threads do so over a real disk, a simulated world over
//! a made-up one.

use std::time::Duration;

use raftmap_storage::fs::Fs;
use raftmap_storage::types::Batch;
use raftmap_storage::{Chore, ChoreDone, StoreError, Synced, Wal};

use super::host::{Durable, Input};
use crate::raft::BatchNumber;

/// Without a batch for this long, the witness of the last one is synced too.
const QUIET: Duration = Duration::from_millis(50);
/// How long to wait before asking a full disk for space again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

/// What the writer is told, in order.
pub enum Order<F: Fs> {
    /// A batch to be made durable.
    Write(BatchNumber, Batch),
    /// What came of the chore that was given out.
    ChoreDone(Result<ChoreDone<F>, StoreError>),
    /// No more orders follow: finish what is queued.
    Stop,
}

/// What a turn comes to.
pub struct Turn<F: Fs> {
    /// For the replica.
    pub tell: Option<Input>,
    /// To be run beside the writer; it ends as an [`Order::ChoreDone`].
    pub chore: Option<Chore<F>>,
    /// What the writer itself goes on with.
    pub step: Step,
}

/// What the writer goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`LogWriter::sync`], and [`LogWriter::synced`] when that has ended.
    Sync,
    /// [`LogWriter::sync_witness`].
    SyncWitness,
    /// Nothing until an order comes or the clock shows this.
    Wait(Option<Duration>),
    /// Nothing any more: it was stopped, and what could be written is durable.
    End,
}

/// See the module's description. Times are those of the host's monotonic clock.
pub struct LogWriter<F: Fs> {
    wal: Wal<F>,
    /// The queue's front fits nowhere before a chore has made room.
    waiting_for_spare: bool,
    /// As the replica was told last.
    no_space: bool,
    /// When a full disk is asked again.
    retry_at: Option<Duration>,
    /// When the last witness is synced; `None` once it is.
    quiet_at: Option<Duration>,
    /// When the latest sync began.
    began: Duration,
    stopping: bool,
}

impl<F: Fs> LogWriter<F> {
    /// Goes on with an open log.
    pub fn new(wal: Wal<F>) -> Self {
        Self {
            wal,
            waiting_for_spare: false,
            no_space: false,
            retry_at: None,
            quiet_at: None,
            began: Duration::ZERO,
            stopping: false,
        }
    }

    /// Takes an order. Not while a sync runs.
    ///
    /// # Errors
    /// A chore or the log itself has failed, for good.
    pub fn take(&mut self, order: Order<F>, now: Duration) -> Result<(), StoreError> {
        match order {
            Order::Write(number, batch) => self.wal.push(number.0, batch),
            Order::ChoreDone(done) => self.chore_done(done?, now),
            Order::Stop => {
                self.stopping = true;
                Ok(())
            }
        }
    }

    fn chore_done(&mut self, done: ChoreDone<F>, now: Duration) -> Result<(), StoreError> {
        self.retry_at = done.no_space().then_some(now + NO_SPACE_PAUSE);
        self.waiting_for_spare = false;
        self.wal.chore_done(done)
    }

    /// What comes next, once every order that waits was taken.
    pub fn turn(&mut self, now: Duration) -> Turn<F> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.wal.retry_spare();
        }
        let chore = if self.stopping { None } else { self.wal.next_chore() };
        Turn { tell: self.news_of_space(), chore, step: self.next(now) }
    }

    /// Whether the disk has filled up, or has room again.
    fn news_of_space(&mut self) -> Option<Input> {
        let before = std::mem::replace(&mut self.no_space, self.wal.no_space());
        (before != self.no_space).then_some(Input::NoSpace(self.no_space))
    }

    fn next(&mut self, now: Duration) -> Step {
        if self.wal.queued() && !self.waiting_for_spare {
            self.began = now;
            return Step::Sync;
        }
        match self.quiet_at {
            Some(at) if at <= now || self.stopping => Step::SyncWitness,
            _ if self.stopping => Step::End,
            quiet_at => Step::Wait(quiet_at.into_iter().chain(self.retry_at).min()),
        }
    }

    /// One write and one sync of what is queued. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The first failure is final: what reached the disk is unknown.
    pub fn sync(&mut self) -> Result<Synced, StoreError> {
        self.wal.sync()
    }

    /// The sync has ended. Returns the replica's news of it.
    #[must_use]
    pub fn synced(&mut self, synced: Synced, now: Duration) -> Option<Input> {
        self.waiting_for_spare = synced.waiting_for_spare;
        self.quiet_at = Some(now + QUIET);
        let moved = synced.through.is_some() || synced.sealed.is_some();
        moved.then(|| {
            Input::Durable(Durable {
                through: synced.through.map(BatchNumber),
                sealed: synced.sealed,
                took: now.saturating_sub(self.began),
                disk_bytes: self.wal.disk_bytes(),
                log_bytes: self.wal.log_bytes(),
            })
        })
    }

    /// Makes the last witness durable. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_witness(&mut self) -> Result<(), StoreError> {
        self.quiet_at = None;
        self.wal.idle()
    }
}

#[cfg(test)]
mod tests;
