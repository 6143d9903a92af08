//! The log's two threads of a simulated node: the log writer and the log are the real ones, and what `node::log_threads`
//! waits for in the real world takes simulated time.

use std::collections::VecDeque;
use std::time::Duration;

use raftmap::node::log_writer::{LogWriter, Order, Step, Turn};
use raftmap::node::replica::Input;
use raftmap::raft::BatchNumber;
use raftmap::storage::model::ModelFs;
use raftmap::storage::types::Batch;
use raftmap::storage::{Chore, StoreError, Wal};

/// See the module's description.
pub struct Writer {
    log: LogWriter<ModelFs>,
    orders: VecDeque<Order<ModelFs>>,
    /// A sync was begun and has not ended.
    syncing: Option<Syncing>,
    /// What a crash in its midst may half have done.
    pub chore: Option<Chore<ModelFs>>,
    /// When the thread is to be woken, in the world's time.
    pub alarm: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Syncing {
    Batches,
    Witness,
}

/// What came of a turn.
#[derive(Default)]
pub struct Done {
    pub tell: Option<Input>,
    /// A chore was handed out.
    pub chore: bool,
    /// A sync was begun.
    pub syncs: bool,
    /// If nothing comes before that, the next turn is due, by the node's clock.
    pub until: Option<Duration>,
}

impl Writer {
    pub fn new(wal: Wal<ModelFs>) -> Self {
        Self { log: LogWriter::new(wal), orders: VecDeque::new(), syncing: None, chore: None, alarm: None }
    }

    pub fn submit(&mut self, number: BatchNumber, batch: Batch) {
        self.orders.push_back(Order::Write(number, batch));
    }

    /// Whether the thread would be woken.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// A chore has failed, and the thread does not know it yet: it waits for a sync that was begun before.
    pub fn will_fail(&self) -> bool {
        self.orders.iter().any(|order| matches!(order, Order::ChoreDone(Err(_))))
    }

    pub fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// Once round. Nothing while a sync runs: the thread waits for the disk.
    pub fn turn(&mut self, clock: Duration) -> Result<Done, StoreError> {
        if self.is_syncing() {
            return Ok(Done::default());
        }
        while let Some(order) = self.orders.pop_front() {
            self.log.take(order, clock)?;
        }
        let Turn { tell, chore, step } = self.log.turn(clock);
        let mut done = Done { tell, chore: chore.is_some(), ..Done::default() };
        self.chore = chore.or(self.chore.take());
        match step {
            Step::Sync => self.syncing = Some(Syncing::Batches),
            Step::SyncWitness => self.syncing = Some(Syncing::Witness),
            Step::Wait(until) => done.until = until,
            Step::End => unreachable!("simulated processes are killed, not stopped"),
        }
        done.syncs = self.is_syncing();
        Ok(done)
    }

    /// The sync that was begun ends.
    pub fn sync(&mut self, clock: Duration) -> Result<Option<Input>, StoreError> {
        match self.syncing.take() {
            Some(Syncing::Batches) => self.log.sync().map(|synced| self.log.synced(synced, clock)),
            Some(Syncing::Witness) => self.log.sync_witness().map(|()| None),
            None => Ok(None),
        }
    }

    /// The chore that was handed out is done.
    pub fn run_chore(&mut self) {
        if let Some(chore) = self.chore.take() {
            self.orders.push_back(Order::ChoreDone(chore.run()));
        }
    }
}
