//! The log writer: one thread owns the log and makes batches durable. Whatever arrives while a sync runs joins the
//! next one. A second thread does the log's chores (spare segments, purging), so that they never stand in a batch's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftmap_storage::fs::Fs;
use raftmap_storage::types::Batch;
use raftmap_storage::{Chore, ChoreDone, StoreError, Wal};

use super::driver::CloseOnDrop;
use super::fault::Fault;
use super::inbox::{Inbox, Lane};
use super::replica::{Durable, Input};
use crate::raft::BatchNumber;

/// Without a batch for this long, the witness of the last one is synced too.
const IDLE: Duration = Duration::from_millis(50);
/// How long to wait before asking a full disk for space again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

/// What the writer is told.
enum Order<F: Fs> {
    Write(BatchNumber, Batch),
    Chore(Result<ChoreDone<F>, StoreError>),
    Stop,
}

/// Hands batches to the writer, in order.
pub struct WriterHandle<F: Fs> {
    orders: Sender<Order<F>>,
}

impl<F: Fs> WriterHandle<F> {
    /// Queues a batch. A writer that has stopped takes none; the node is stopping then.
    pub fn submit(&self, number: BatchNumber, batch: Batch) {
        let _stopped = self.orders.send(Order::Write(number, batch));
    }

    /// The writer finishes what is queued, syncs the last witness and ends.
    pub fn stop(&self) {
        let _stopped = self.orders.send(Order::Stop);
    }
}

impl<F: Fs> Clone for WriterHandle<F> {
    fn clone(&self) -> Self {
        Self { orders: self.orders.clone() }
    }
}

/// The two threads.
pub struct WriterThreads {
    /// Ends with the fault that stopped the log, if one did.
    pub writer: JoinHandle<Option<Fault>>,
    /// Ends after the writer.
    pub chores: JoinHandle<()>,
}

/// Starts both threads. `crashed` makes them end at once, without a last sync.
pub fn start<F: Fs>(
    wal: Wal<F>,
    inbox: Arc<Inbox>,
    crashed: Arc<AtomicBool>,
) -> std::io::Result<(WriterHandle<F>, WriterThreads)> {
    let (orders, received) = channel();
    let (chores, to_do) = channel::<Chore<F>>();
    let done = orders.clone();
    // Whatever ends one of these threads ends the node: a leader without a disk must not stay one.
    let close = CloseOnDrop(inbox.clone());
    let chores_thread = std::thread::Builder::new().name("raftmap-chores".into()).spawn(move || {
        let _close = close;
        while let Ok(chore) = to_do.recv() {
            if done.send(Order::Chore(chore.run())).is_err() {
                return;
            }
        }
    })?;
    let writer = Writer { wal, inbox, crashed, orders: received, chores, no_space: false, retry_at: None };
    let writer_thread = std::thread::Builder::new().name("raftmap-log".into()).spawn(move || {
        let _close = CloseOnDrop(writer.inbox.clone());
        writer.run()
    })?;
    Ok((WriterHandle { orders }, WriterThreads { writer: writer_thread, chores: chores_thread }))
}

struct Writer<F: Fs> {
    wal: Wal<F>,
    inbox: Arc<Inbox>,
    crashed: Arc<AtomicBool>,
    orders: Receiver<Order<F>>,
    chores: Sender<Chore<F>>,
    no_space: bool,
    /// When to ask a full disk again.
    retry_at: Option<Instant>,
}

/// Whether the writer goes on.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

impl<F: Fs> Writer<F> {
    fn run(mut self) -> Option<Fault> {
        match self.work() {
            Ok(()) => None,
            Err(error) => Some(Fault::Log(super::fault::chain(&error))),
        }
    }

    fn work(&mut self) -> Result<(), StoreError> {
        let mut waiting = false;
        loop {
            self.hand_out_chores();
            let go = if self.wal.queued() && !waiting { Go::On } else { self.wait()? };
            if self.crashed.load(Ordering::Acquire) {
                return Ok(());
            }
            let go = if go == Go::On { self.take_all()? } else { go };
            waiting = self.sync()?;
            if go == Go::Stop {
                return self.wal.idle();
            }
        }
    }

    /// One write and one sync of what is queued. Says whether the rest waits for a spare segment.
    fn sync(&mut self) -> Result<bool, StoreError> {
        if !self.wal.queued() {
            return Ok(false);
        }
        let started = Instant::now();
        let synced = self.wal.sync()?;
        if synced.through.is_some() || synced.sealed.is_some() {
            let durable = Durable {
                through: synced.through.map(BatchNumber),
                sealed: synced.sealed,
                took: started.elapsed(),
                disk_bytes: self.wal.disk_bytes(),
                log_bytes: self.wal.log_bytes(),
            };
            self.tell(Input::Durable(durable));
        }
        self.watch_space();
        Ok(synced.waiting_for_spare)
    }

    /// Sleeps until there is an order; after a while without one, makes the last witness durable.
    fn wait(&mut self) -> Result<Go, StoreError> {
        match self.orders.recv_timeout(IDLE) {
            Ok(order) => self.take(order),
            Err(RecvTimeoutError::Timeout) => {
                self.wal.idle()?;
                self.watch_space();
                // Idle for good: sleeps until something comes, unless a full disk is to be asked again.
                if self.retry_at.is_some() || self.wal.queued() {
                    return Ok(Go::On);
                }
                match self.orders.recv() {
                    Ok(order) => self.take(order),
                    Err(_) => Ok(Go::Stop),
                }
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Go::Stop),
        }
    }

    fn take_all(&mut self) -> Result<Go, StoreError> {
        loop {
            match self.orders.try_recv() {
                Ok(order) => {
                    if self.take(order)? == Go::Stop {
                        return Ok(Go::Stop);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(Go::On),
                Err(TryRecvError::Disconnected) => return Ok(Go::Stop),
            }
        }
    }

    fn take(&mut self, order: Order<F>) -> Result<Go, StoreError> {
        match order {
            Order::Write(number, batch) => self.wal.push(number.0, batch)?,
            Order::Chore(done) => {
                self.wal.chore_done(done?)?;
                self.watch_space();
            }
            Order::Stop => return Ok(Go::Stop),
        }
        Ok(Go::On)
    }

    fn hand_out_chores(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        while let Some(chore) = self.wal.next_chore() {
            let _stopped = self.chores.send(chore);
        }
    }

    /// Tells the replica when the disk fills up or has room again.
    fn watch_space(&mut self) {
        let no_space = self.wal.no_space();
        if no_space && self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + NO_SPACE_PAUSE);
        }
        if no_space != self.no_space {
            self.no_space = no_space;
            self.tell(Input::NoSpace(no_space));
        }
    }

    fn tell(&self, input: Input) {
        // Refused only when the node is stopping: nobody waits for it then.
        let _stopping = self.inbox.push(Lane::Own, input);
    }
}
