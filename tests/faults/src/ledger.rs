//! What the cluster promised, and when: kept outside of its disk, with the block log's count as the clock. A cut behind
//! a promise must not take it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::block_log;

/// A count of block log entries.
pub(crate) type Moment = u64;

/// A write that was acknowledged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Acked {
    pub(crate) at: Moment,
    pub(crate) index: u64,
    pub(crate) key: String,
    pub(crate) token: String,
    /// It replaced the value; else it was put behind it.
    pub(crate) replaced: bool,
}

/// A member that began to lead: a majority had given it their votes, or moved on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Elected {
    pub(crate) at: Moment,
    pub(crate) term: u64,
    pub(crate) node: u64,
}

/// What a member said of itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) at: Moment,
    pub(crate) node: u64,
    /// Both committed and safe on its disk: never cut off again.
    pub(crate) safe: u64,
    /// Its last durable snapshot.
    pub(crate) snapshot: u64,
}

/// All promises of one recording.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) acked: Vec<Acked>,
    pub(crate) elected: Vec<Elected>,
    pub(crate) shown: Vec<Shown>,
    /// Tokens of calls without an outcome: executed once or never.
    pub(crate) unknown: BTreeSet<String>,
    /// Tokens of calls that were refused, and when: never executed.
    pub(crate) refused: BTreeMap<String, Moment>,
    pub(crate) crashes: u64,
    /// How many recordings came before this one on the same device.
    pub(crate) generation: u64,
    /// Entries of the block log when the load ended.
    pub(crate) end: Moment,
}

impl Ledger {
    /// What is promised still when the power comes back behind a cut at `at`: due from the first moment on. What
    /// was acknowledged later may be there or not.
    pub(crate) fn after(mut self, at: Moment) -> Self {
        let later = self.acked.iter().filter(|acked| acked.at > at).map(|acked| acked.token.clone());
        self.unknown.extend(later);
        self.acked.retain(|acked| acked.at <= at);
        self.elected.retain(|elected| elected.at <= at);
        self.shown.retain(|shown| shown.at <= at);
        self.refused.retain(|_, refused| *refused <= at);
        self.acked.iter_mut().for_each(|acked| acked.at = 0);
        self.elected.iter_mut().for_each(|elected| elected.at = 0);
        self.shown.iter_mut().for_each(|shown| shown.at = 0);
        self.refused.values_mut().for_each(|refused| *refused = 0);
        Self { crashes: 0, end: 0, generation: self.generation + 1, ..self }
    }

    /// Writes acknowledged in this recording.
    pub(crate) fn acked_here(&self) -> usize {
        self.acked.iter().filter(|acked| acked.at > 0).count()
    }

    /// Elections in this recording.
    pub(crate) fn elected_here(&self) -> usize {
        self.elected.iter().filter(|elected| elected.at > 0).count()
    }
}

/// A ledger that many write.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    ledger: Arc<Mutex<Ledger>>,
    log: Arc<File>,
}

impl Book {
    /// Goes on behind `ledger`.
    pub(crate) fn new(log: File, ledger: Ledger) -> Self {
        Self { ledger: Arc::new(Mutex::new(ledger)), log: Arc::new(log) }
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now. A log that cannot be read puts the promise behind every cut; a run of such does not count.
    pub(crate) fn now(&self) -> Moment {
        block_log::count(&self.log).unwrap_or(Moment::MAX)
    }

    pub(crate) fn close(&self) -> Ledger {
        let now = self.now();
        let mut ledger = self.open().clone();
        ledger.end = now;
        ledger
    }
}
