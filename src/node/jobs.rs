//! Work beside the replica: writing a snapshot file, reading one that arrived, hashing an image. One thread, one job
//! after another; what comes of it goes back through the inbox.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use raftmap_net::Peers;
use raftmap_storage::DirGuard;
use raftmap_storage::fs::Fs;
use raftmap_storage::snapshot::{Header, Reader, SnapshotError, Writer};
use raftmap_storage::types::{ClusterId, Membership, SnapshotId};

use super::clients::Clients;
use super::driver::CloseOnDrop;
use super::fault::{Fault, chain};
use super::inbox::{Inbox, Lane};
use super::links::{self, Sending};
use super::replica::{ClientId, Input};
use crate::kv::{Image, Restore, StateMachine};
use crate::wire::client::{Answer, Response};

/// Digests that may wait for the thread at once; one more is answered `Busy`.
pub const DIGESTS_MAX: usize = 16;

/// Work for the thread.
pub enum Task {
    /// Write a snapshot file.
    Write {
        /// What goes in.
        image: Image,
        /// Who counts.
        membership: Membership,
    },
    /// Send a snapshot to a member.
    Send(Sending),
    /// Let go of a map.
    Discard(StateMachine),
    /// Hash an image and answer the client.
    Digest {
        /// Where the answer goes.
        client: ClientId,
        /// The request's id.
        id: u64,
        /// What to hash.
        image: Image,
    },
}

/// What the thread works with.
pub struct Jobs<F: Fs> {
    /// The disk.
    pub fs: F,
    /// The node's directory.
    pub dir: PathBuf,
    /// Whose snapshots these are.
    pub cluster: ClusterId,
    /// Where results go.
    pub inbox: Arc<Inbox>,
    /// How members are reached.
    pub peers: Arc<Peers>,
    /// Where digests go.
    pub clients: Arc<Clients>,
    /// How many of them wait.
    pub digests: Arc<AtomicUsize>,
    /// Nobody else opens the directory while a snapshot is being written.
    pub guard: DirGuard<F>,
}

impl<F: Fs> Jobs<F> {
    /// Starts the thread. It ends when the sender is dropped.
    pub fn start(self) -> std::io::Result<(Sender<Task>, JoinHandle<()>)> {
        let (sender, tasks) = channel();
        let thread = std::thread::Builder::new().name("raftmap-jobs".into()).spawn(move || {
            let _close = CloseOnDrop(self.inbox.clone());
            self.run(&tasks);
        })?;
        Ok((sender, thread))
    }

    fn run(&self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            match task {
                Task::Write { image, membership } => {
                    let result = write(&self.fs, &self.dir, self.cluster, &image, membership);
                    let _stopping = self.inbox.push(Lane::Own, written(result));
                }
                Task::Send(sending) => {
                    links::send_snapshot(&self.fs, &self.dir, &self.peers, &self.inbox, sending);
                }
                Task::Discard(map) => drop(map),
                Task::Digest { client, id, image } => {
                    self.digests.fetch_sub(1, Ordering::Relaxed);
                    let answer = Answer::Digest { applied: image.applied().index, digest: image.digest() };
                    self.clients.reply(client, Response { id, body: Ok(answer) });
                }
            }
        }
    }
}

/// Writes and publishes a snapshot of `image`.
///
/// # Errors
/// See [`SnapshotError`]; nothing counts then.
pub fn write<F: Fs>(
    fs: &F,
    dir: &Path,
    cluster: ClusterId,
    image: &Image,
    membership: Membership,
) -> Result<SnapshotId, SnapshotError> {
    let header = Header { position: image.applied(), cluster, membership };
    let mut writer = Writer::create(fs.clone(), dir, header)?;
    for chunk in image.chunks() {
        writer.write(&chunk)?;
    }
    writer.publish()
}

/// What the replica hears of a snapshot that was written. Where the disk itself failed, what it holds is unknown, and
/// the node must stop.
pub fn written(result: Result<SnapshotId, SnapshotError>) -> Input {
    match result {
        Err(error) if error.is_final() => Input::Fault(Fault::Log(chain(&error))),
        result => Input::SnapshotWritten(result.map_err(|error| chain(&error))),
    }
}

/// Reads a published snapshot into a map.
///
/// # Errors
/// The file is damaged, its content was written by another version, or it is not what its name and header say.
pub fn load<F: Fs>(
    fs: &F,
    dir: &Path,
    snapshot: &SnapshotId,
    cluster: ClusterId,
) -> Result<(Header, StateMachine), String> {
    let reader = Reader::open(fs, dir, snapshot).map_err(|error| chain(&error))?;
    let mut restore = Restore::new();
    for slice in reader.content() {
        let slice = slice.map_err(|error| chain(&error))?;
        restore.feed(&slice).map_err(|error| chain(&error))?;
    }
    let map = restore.finish().map_err(|error| chain(&error))?;
    let header = reader.header().clone();
    if header.cluster != cluster {
        return Err(format!("it is of cluster {}, this node is of {cluster}", header.cluster));
    }
    if map.applied() != snapshot.position {
        return Err(format!("it is named {} and holds {}", snapshot.position, map.applied()));
    }
    Ok((header, map))
}
