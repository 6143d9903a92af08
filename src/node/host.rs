//! What goes into a replica, and what it acts through.

use std::sync::Arc;
use std::time::Duration;

use raftmap_storage::SealedSegment;
use raftmap_storage::types::{Batch, Membership, NodeId, SnapshotId, Term};

use super::fault::Fault;
use crate::kv::{Image, Owner, StateMachine};
use crate::raft::{BatchNumber, Message, Outbound, SoftState};
use crate::wire::client::{Request, Response};

/// A client's connection, numbered by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// One tick of the clock has passed.
    Tick,
    /// A member says something; its identity comes from its certificate.
    Peer {
        /// The member.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A client asks something.
    Client {
        /// Where the answer goes.
        client: ClientId,
        /// Whose sessions it may use.
        owner: Owner,
        /// What it asks.
        request: Request,
    },
    /// The log writer made everything up to this batch durable.
    Durable(Durable),
    /// Our own snapshot is published, or could not be written.
    SnapshotWritten(Result<SnapshotId, String>),
    /// A leader's snapshot has arrived, is published under its name and has been read into a map.
    SnapshotArrived(Box<Arrived>),
    /// The transfer of a snapshot to a member ended.
    SnapshotSent {
        /// The member.
        peer: NodeId,
        /// The snapshot, where it has arrived.
        result: Result<SnapshotId, ()>,
    },
    /// Whether the disk has room for more log.
    NoSpace(bool),
    /// Something beside the replica has failed for good: the node must stop.
    Fault(Fault),
    /// The node stops: everyone who waits gets an answer.
    Stop,
}

/// What the log writer reports after a sync.
#[derive(Debug, Default)]
pub struct Durable {
    /// The newest batch that is wholly durable, where that moved.
    pub through: Option<BatchNumber>,
    /// A segment that was sealed by it.
    pub sealed: Option<Arc<SealedSegment>>,
    /// How long the sync took.
    pub took: Duration,
    /// Bytes of the directory.
    pub disk_bytes: u64,
    /// Bytes of the frames that recovery would read, hard states and truncations among them.
    pub log_bytes: u64,
}

/// A snapshot from a leader, ready to take the map's place.
#[derive(Debug)]
pub struct Arrived {
    /// The leader that sent it.
    pub from: NodeId,
    /// Its term.
    pub term: Term,
    /// The published file.
    pub snapshot: SnapshotId,
    /// Who counts at that point.
    pub membership: Membership,
    /// Its content.
    pub map: StateMachine,
}

/// Work that takes long and runs beside the replica.
#[derive(Debug)]
pub enum Job {
    /// Write a snapshot file and answer by [`Input::SnapshotWritten`].
    WriteSnapshot {
        /// What goes in.
        image: Image,
        /// Who counts.
        membership: Membership,
    },
    /// Send the snapshot to a member and answer by [`Input::SnapshotSent`].
    SendSnapshot {
        /// The member.
        peer: NodeId,
        /// Our term.
        term: Term,
        /// The file.
        snapshot: SnapshotId,
        /// Who counts at that point.
        membership: Membership,
    },
    /// Let go of a map: a large one takes its time.
    Discard {
        /// The map that was replaced.
        map: StateMachine,
    },
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

/// What a replica acts through. None of these may block.
pub trait Host {
    /// To a member, now. May be lost.
    fn send(&mut self, outbound: Outbound);
    /// To the log writer, in order; answered by [`Input::Durable`].
    fn submit(&mut self, number: BatchNumber, batch: Batch);
    /// To a client. Lost if it has gone.
    fn reply(&mut self, client: ClientId, response: Response);
    /// Beside the replica.
    fn start(&mut self, job: Job);
    /// Role, term or leader changed.
    fn changed(&mut self, state: SoftState);
}
