//! The log's two threads: one owns the log writer and waits for orders and for the disk, the other one does its chores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftmap_storage::fs::Fs;
use raftmap_storage::types::Batch;
use raftmap_storage::{Chore, StoreError, Wal};

use super::driver::CloseOnDrop;
use super::fault::Fault;
use super::inbox::{Inbox, Lane};
use super::log_writer::{LogWriter, Order, Step, Turn};
use super::replica::Input;
use crate::raft::BatchNumber;

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
            if done.send(Order::ChoreDone(chore.run())).is_err() {
                return;
            }
        }
    })?;
    let log = LogWriter::new(wal);
    let writer = Writer { log, inbox, crashed, orders: received, chores, started: Instant::now() };
    let writer_thread = std::thread::Builder::new().name("raftmap-log".into()).spawn(move || {
        let _close = CloseOnDrop(writer.inbox.clone());
        writer.run()
    })?;
    Ok((WriterHandle { orders }, WriterThreads { writer: writer_thread, chores: chores_thread }))
}

struct Writer<F: Fs> {
    log: LogWriter<F>,
    inbox: Arc<Inbox>,
    crashed: Arc<AtomicBool>,
    orders: Receiver<Order<F>>,
    chores: Sender<Chore<F>>,
    started: Instant,
}

impl<F: Fs> Writer<F> {
    fn run(mut self) -> Option<Fault> {
        match self.work() {
            Ok(()) => None,
            Err(error) => Some(Fault::Log(super::fault::chain(&error))),
        }
    }

    fn work(&mut self) -> Result<(), StoreError> {
        loop {
            self.take_all()?;
            if self.crashed.load(Ordering::Acquire) {
                return Ok(());
            }
            let Turn { tell, chore, step } = self.log.turn(self.now());
            tell.into_iter().for_each(|input| self.tell(input));
            chore.into_iter().for_each(|chore| self.hand_out(chore));
            match step {
                Step::Sync => self.sync()?,
                Step::SyncWitness => self.log.sync_witness()?,
                Step::Wait(until) => self.wait(until)?,
                Step::End => return Ok(()),
            }
        }
    }

    /// Everything that came while the disk was at work.
    fn take_all(&mut self) -> Result<(), StoreError> {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.take(order)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return self.take(Order::Stop),
            }
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.log.sync()?;
        let news = self.log.synced(synced, self.now());
        news.into_iter().for_each(|input| self.tell(input));
        Ok(())
    }

    /// Sleeps until there is an order.
    fn wait(&mut self, until: Option<Duration>) -> Result<(), StoreError> {
        let order = match until {
            None => self.orders.recv().map_err(RecvTimeoutError::from),
            Some(until) => self.orders.recv_timeout(until.saturating_sub(self.now())),
        };
        match order {
            Ok(order) => self.take(order),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => self.take(Order::Stop),
        }
    }

    fn take(&mut self, order: Order<F>) -> Result<(), StoreError> {
        self.log.take(order, self.now())
    }

    fn hand_out(&self, chore: Chore<F>) {
        let _stopped = self.chores.send(chore);
    }

    fn tell(&self, input: Input) {
        // Refused only when the node is stopping: nobody waits for it then.
        let _stopping = self.inbox.push(Lane::Own, input);
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}
