//! The log writer of a simulated node: the real log, driven as `node::writer` drives it on its two threads, with time
//! between what is asked for and what is done.

use std::collections::VecDeque;
use std::time::Duration;

use raftmap::node::replica::{Durable, Input};
use raftmap::raft::BatchNumber;
use raftmap::storage::model::ModelFs;
use raftmap::storage::types::Batch;
use raftmap::storage::{Chore, ChoreDone, StoreError, Wal};

/// As in `node::writer`.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

enum Order {
    Write(BatchNumber, Batch),
    Chore(Result<ChoreDone<ModelFs>, StoreError>),
}

/// See the module's description.
pub struct Writer {
    wal: Wal<ModelFs>,
    orders: VecDeque<Order>,
    /// A sync was begun and has not ended.
    pub syncing: bool,
    /// What a crash in its midst may half have done.
    pub chore: Option<Chore<ModelFs>>,
    waiting_for_spare: bool,
    no_space: bool,
    retry_at: Option<Duration>,
    /// Something will look whether the log is quiet by now: one is enough, however much is done meanwhile.
    pub watched: bool,
    /// When something was done last.
    turned: Duration,
}

/// What the writer goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Sync,
    Quiet,
}

/// What a turn came to.
pub struct Turn {
    pub next: Option<Next>,
    /// A chore was handed out.
    pub chore: bool,
    pub tell: Vec<Input>,
}

impl Writer {
    pub fn new(wal: Wal<ModelFs>) -> Self {
        Self {
            wal,
            orders: VecDeque::new(),
            syncing: false,
            chore: None,
            waiting_for_spare: false,
            no_space: false,
            retry_at: None,
            watched: false,
            turned: Duration::ZERO,
        }
    }

    pub fn submit(&mut self, number: BatchNumber, batch: Batch) {
        self.orders.push_back(Order::Write(number, batch));
    }

    /// Whether the thread would be woken.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Takes what is waiting and says what is next. Nothing while a sync runs.
    pub fn turn(&mut self, now: Duration) -> Result<Turn, StoreError> {
        let mut turn = Turn { next: None, chore: false, tell: Vec::new() };
        if self.syncing {
            return Ok(turn);
        }
        self.turned = now;
        while let Some(order) = self.orders.pop_front() {
            self.waiting_for_spare = false;
            match order {
                Order::Write(number, batch) => self.wal.push(number.0, batch)?,
                Order::Chore(done) => {
                    self.wal.chore_done(done?)?;
                    self.watch_space(now, &mut turn.tell);
                }
            }
        }
        if self.retry_at.is_none_or(|at| now >= at) {
            self.retry_at = None;
            if self.chore.is_none()
                && let Some(chore) = self.wal.next_chore()
            {
                self.chore = Some(chore);
                turn.chore = true;
            }
        }
        self.syncing = self.wal.queued() && !self.waiting_for_spare;
        turn.next = Some(if self.syncing { Next::Sync } else { Next::Quiet });
        Ok(turn)
    }

    /// The sync that was begun ends.
    pub fn sync(&mut self, now: Duration, took: Duration) -> Result<Vec<Input>, StoreError> {
        self.syncing = false;
        let synced = self.wal.sync()?;
        self.waiting_for_spare = synced.waiting_for_spare;
        let mut tell = Vec::new();
        if synced.through.is_some() || synced.sealed.is_some() {
            tell.push(Input::Durable(Durable {
                through: synced.through.map(BatchNumber),
                sealed: synced.sealed,
                took,
                disk_bytes: self.wal.disk_bytes(),
                log_bytes: self.wal.log_bytes(),
            }));
        }
        self.watch_space(now, &mut tell);
        Ok(tell)
    }

    /// What a crash in the midst of a sync may leave behind: the write, and whatever of it the disk took.
    pub fn die_syncing(&mut self) {
        // Nobody hears of it.
        let _unheard = self.wal.sync();
    }

    /// When the log, if nothing more is done to it, has been quiet for `idle`; `None` where a sync runs.
    pub fn quiet_at(&self, idle: Duration) -> Option<Duration> {
        (!self.syncing).then_some(self.turned + idle)
    }

    /// The log has been quiet for a while.
    pub fn idle(&mut self, now: Duration) -> Result<Vec<Input>, StoreError> {
        self.wal.idle()?;
        let mut tell = Vec::new();
        self.watch_space(now, &mut tell);
        self.waiting_for_spare = false;
        Ok(tell)
    }

    /// The chore that was handed out is done.
    pub fn run_chore(&mut self) {
        if let Some(chore) = self.chore.take() {
            self.orders.push_back(Order::Chore(chore.run()));
        }
    }

    /// Whether a quiet log must be looked at again: a full disk is asked anew.
    pub fn looks_again(&self) -> bool {
        self.retry_at.is_some() || self.wal.queued()
    }

    fn watch_space(&mut self, now: Duration, tell: &mut Vec<Input>) {
        let no_space = self.wal.no_space();
        if no_space && self.retry_at.is_none() {
            self.retry_at = Some(now + NO_SPACE_PAUSE);
        }
        if no_space != self.no_space {
            self.no_space = no_space;
            tell.push(Input::NoSpace(no_space));
        }
    }
}
