//! The first failure is final, for the writer and for the chores alike: what a failed write or sync left on the disk
//! is unknown, and a second try may report a success that is not one.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::StoreError;

/// Shared between a log and its chores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latch(Arc<OnceLock<String>>);

impl Latch {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.0.get() {
            Some(first) => Err(StoreError::Failed { first: first.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// Closes the latch, and says why to whoever made the call.
    pub(crate) fn fail(&self, op: &'static str, path: &Path, offset: u64, source: io::Error) -> StoreError {
        let first = format!("{op} {} at offset {offset}: {source}", path.display());
        self.0.get_or_init(|| first);
        StoreError::Io { op, path: path.to_owned(), offset, source }
    }
}
