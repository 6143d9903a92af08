//! Snapshots on their way in, whatever carries them: where a transfer goes on that broke off, what becomes of its bytes,
//! and what a failure means to the node.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raftmap_storage::fs::Fs;
use raftmap_storage::snapshot::{Receiver, SnapshotError};
use raftmap_storage::types::{ClusterId, NodeId};

use super::fault::{Fault, chain};
use super::host::Arrived;
use super::jobs;
use crate::wire::peer::Announcement;

/// Most bytes of a snapshot that a leader may send.
const SNAPSHOT_MAX: u64 = 1 << 40;

/// Where a node takes snapshots in.
pub struct Arrivals<F: Fs> {
    fs: F,
    dir: PathBuf,
    cluster: ClusterId,
    /// A snapshot whose transfer broke off: another one of the same digest goes on where it stopped.
    broken_off: Arc<Mutex<Option<Receiver<F>>>>,
}

/// Why a snapshot is not taken.
#[derive(Debug)]
pub struct Refused {
    /// In words for the sender.
    pub why: String,
    /// The disk itself has failed, what it holds is unknown, and the node must stop.
    pub fault: Option<Fault>,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, fault: None }
    }
}

impl From<SnapshotError> for Refused {
    fn from(error: SnapshotError) -> Self {
        let why = chain(&error);
        let fault = error.is_final().then(|| Fault::Log(why.clone()));
        Self { why, fault }
    }
}

impl<F: Fs> Clone for Arrivals<F> {
    fn clone(&self) -> Self {
        let Self { fs, dir, cluster, broken_off } = self;
        Self { fs: fs.clone(), dir: dir.clone(), cluster: *cluster, broken_off: broken_off.clone() }
    }
}

impl<F: Fs> Arrivals<F> {
    /// Into this directory, of this cluster.
    pub fn new(fs: F, dir: PathBuf, cluster: ClusterId) -> Self {
        Self { fs, dir, cluster, broken_off: Arc::default() }
    }

    /// Takes an announced snapshot of `length` bytes up, where its last transfer broke off or anew.
    ///
    /// # Errors
    /// The announcement is none, or the snapshot cannot be taken.
    pub fn accept(&self, from: NodeId, announcement: &[u8], length: u64) -> Result<Arriving<F>, Refused> {
        let announcement = Announcement::decode(announcement).map_err(|error| error.to_string())?;
        let snapshot = announcement.snapshot;
        if snapshot.length != length {
            return Err(
                format!("the announcement says {} bytes, the stream {length}", snapshot.length).into()
            );
        }
        let kept = self.broken_off().take().filter(|kept| *kept.id() == snapshot);
        let receiver = match kept {
            Some(receiver) => receiver,
            None => Receiver::create(self.fs.clone(), &self.dir, snapshot, SNAPSHOT_MAX)?,
        };
        Ok(Arriving { arrivals: self.clone(), from, announcement, receiver: Some(receiver) })
    }

    /// A thread that panicked left it whole: each change is one step.
    fn broken_off(&self) -> MutexGuard<'_, Option<Receiver<F>>> {
        self.broken_off.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One on its way. Dropped before its end, it has broken off, and is kept for a next transfer.
pub struct Arriving<F: Fs> {
    arrivals: Arrivals<F>,
    from: NodeId,
    announcement: Announcement,
    /// `None` once it has ended, or failed: a receiver that failed once takes nothing more.
    receiver: Option<Receiver<F>>,
}

impl<F: Fs> Arriving<F> {
    /// How many of its bytes are here.
    pub fn offset(&self) -> u64 {
        self.receiver.as_ref().map_or(0, Receiver::offset)
    }

    /// Takes its next bytes.
    ///
    /// # Errors
    /// The transfer is over.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut receiver = self.take_receiver()?;
        receiver.write(bytes)?;
        self.receiver = Some(receiver);
        Ok(())
    }

    /// Publishes the file and reads it into a map, so that the replica only has to exchange its own.
    ///
    /// # Errors
    /// It is not what was announced, or cannot be kept.
    pub fn finish(mut self) -> Result<Arrived, Refused> {
        self.take_receiver()?.publish()?;
        let Arrivals { fs, dir, cluster, .. } = &self.arrivals;
        let Announcement { term, snapshot, membership } = self.announcement.clone();
        let (header, map) = jobs::load(fs, dir, &snapshot, *cluster)?;
        if header.membership != membership {
            return Err("the snapshot and its announcement name other members".to_owned().into());
        }
        Ok(Arrived { from: self.from, term, snapshot, membership, map })
    }

    fn take_receiver(&mut self) -> Result<Receiver<F>, Refused> {
        self.receiver.take().ok_or_else(|| "the transfer has ended".to_owned().into())
    }
}

impl<F: Fs> Drop for Arriving<F> {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            *self.arrivals.broken_off() = Some(receiver);
        }
    }
}
