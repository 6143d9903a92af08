//! The members' side of the network: messages in and out of the replica, and snapshots on streams of their own.

use std::sync::Arc;

use bytes::Bytes;
use raftmap_net::{
    Class, Event, PeerHandler, Peers, SnapshotAccept, SnapshotOffer, SnapshotReport, SnapshotWriter,
};
use raftmap_storage::DirGuard;
use raftmap_storage::fs::Fs;
use raftmap_storage::snapshot::Reader;
use raftmap_storage::types::{Membership, NodeId, SnapshotId, Term};

use super::arrivals::{Arrivals, Arriving, Refused};
use super::fault::chain;
use super::inbox::{Inbox, Lane};
use super::replica::Input;
use crate::raft::{Body, Message, Outbound};
use crate::wire::KIND_RAFT;
use crate::wire::hello::Hello;
use crate::wire::peer::{self, Announcement};

/// Hears what members say.
pub struct Ears<F: Fs> {
    /// Where messages go.
    pub inbox: Arc<Inbox>,
    /// What this node says first.
    pub hello: Hello,
    /// Where snapshots come in.
    pub arrivals: Arrivals<F>,
    /// The directory's lock.
    pub guard: DirGuard<F>,
}

impl<F: Fs> PeerHandler for Ears<F> {
    fn hello(&self, _peer: u64) -> Bytes {
        // A hello is far below its limit; an empty one is refused by the other side, and said so there.
        self.hello.encode().unwrap_or_default()
    }

    fn check_hello(&self, peer: u64, hello: &[u8]) -> Result<(), String> {
        let theirs = Hello::decode(hello).map_err(|error| error.to_string())?;
        self.hello.check(&theirs, NodeId(peer))
    }

    fn event(&self, event: Event) -> Result<(), String> {
        match event {
            Event::Connected { peer, hello } => {
                let boot = Hello::decode(&hello).map_or(0, |hello| hello.boot);
                tracing::info!(peer, boot, "connected");
            }
            Event::Disconnected { peer } => tracing::info!(peer, "disconnected"),
            Event::Frame { peer, kind: KIND_RAFT, payload, .. } => return self.message(peer, &payload),
            Event::Frame { peer, kind, .. } => {
                tracing::warn!(peer, kind, "a message of an unknown kind was ignored: the sender is newer");
            }
        }
        Ok(())
    }

    fn snapshot(&self, offer: SnapshotOffer) -> Result<SnapshotAccept, String> {
        let from = NodeId(offer.peer);
        let arriving = self.arrivals.accept(from, &offer.announcement, offer.length);
        let arriving = arriving.map_err(|refused| report(&self.inbox, refused))?;
        let offset = arriving.offset();
        let writer = Landing { arriving, inbox: self.inbox.clone(), _guard: self.guard.clone() };
        Ok(SnapshotAccept { offset, writer: Box::new(writer) })
    }
}

impl<F: Fs> Ears<F> {
    fn message(&self, peer: u64, payload: &Bytes) -> Result<(), String> {
        let message = peer::decode(payload).map_err(|error| error.to_string())?;
        let lane = Lane::of(&message, payload.len());
        if self.inbox.push(lane, Input::Peer { from: NodeId(peer), message }).is_err() {
            tracing::debug!(peer, "the inbox is full: a message was dropped");
        }
        Ok(())
    }
}

/// A snapshot on its way in.
struct Landing<F: Fs> {
    arriving: Arriving<F>,
    inbox: Arc<Inbox>,
    /// Nobody else opens the directory while a snapshot comes in.
    _guard: DirGuard<F>,
}

impl<F: Fs> SnapshotWriter for Landing<F> {
    fn chunk(&mut self, bytes: Bytes) -> Result<(), String> {
        self.arriving.chunk(&bytes).map_err(|refused| report(&self.inbox, refused))
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        let Self { arriving, inbox, _guard } = *self;
        let arrived = arriving.finish().map_err(|refused| report(&inbox, refused))?;
        let input = Input::SnapshotArrived(Box::new(arrived));
        inbox.push(Lane::Own, input).map_err(|_| "the node is stopping".into())
    }
}

/// To the node what concerns it; the words are for the sender.
fn report(inbox: &Inbox, refused: Refused) -> String {
    if let Some(fault) = refused.fault {
        let _stopping = inbox.push(Lane::Own, Input::Fault(fault));
    }
    refused.why
}

/// Speaks to members.
#[derive(Clone)]
pub struct Mouth {
    /// The network.
    pub peers: Arc<Peers>,
}

impl Mouth {
    /// Sends a message, or drops it: Raft sends again what matters.
    pub fn send(&self, outbound: &Outbound) {
        match peer::encode(&outbound.message) {
            Ok(Some(bytes)) => {
                self.peers.send(outbound.to.0, class(&outbound.message), KIND_RAFT, &[bytes]);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(to = %outbound.to, %error, "a message could not be sent"),
        }
    }
}

/// Entries and their acknowledgements are bulk; whatever keeps a leader in office must never wait behind them.
fn class(message: &Message) -> Class {
    match message.body {
        Body::Append { .. } | Body::AppendReply(_) => Class::Log,
        Body::PreVote { .. }
        | Body::PreVoteReply { .. }
        | Body::Vote { .. }
        | Body::VoteReply { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatReply { .. }
        | Body::InstallSnapshot { .. }
        | Body::TimeoutNow => Class::Urgent,
    }
}

/// A snapshot to be sent.
pub struct Sending {
    /// To whom.
    pub peer: NodeId,
    /// In which term.
    pub term: Term,
    /// Which.
    pub snapshot: SnapshotId,
    /// Who counts at that point.
    pub membership: Membership,
}

/// Starts a transfer; its end goes to the inbox. Reading begins here, so call it where waiting for a disk is allowed.
pub fn send_snapshot<F: Fs>(
    fs: &F,
    dir: &std::path::Path,
    peers: &Peers,
    inbox: &Arc<Inbox>,
    sending: Sending,
) {
    let Sending { peer, term, snapshot, membership } = sending;
    let done = {
        let inbox = inbox.clone();
        move |result: Result<SnapshotId, ()>| {
            let _stopping = inbox.push(Lane::Own, Input::SnapshotSent { peer, result });
        }
    };
    let failed = done.clone();
    let started = Reader::open(fs, dir, &snapshot).map_err(|error| chain(&error)).and_then(|reader| {
        let announcement =
            Announcement { term, snapshot, membership }.encode().map_err(|error| error.to_string())?;
        let report = Box::new(move |report| match report {
            SnapshotReport::Progress { .. } => {}
            SnapshotReport::Ended(Ok(())) => done(Ok(snapshot)),
            SnapshotReport::Ended(Err(error)) => {
                tracing::info!(%peer, %error, "a snapshot was not delivered; trying again later");
                done(Err(()));
            }
        });
        peers.send_snapshot(peer.0, announcement, reader.raw(), report).map_err(|error| error.to_string())
    });
    if let Err(error) = started {
        tracing::info!(%peer, error, "a snapshot could not be sent; trying again later");
        failed(Err(()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use raftmap_storage::model::{self, ModelFs};
    use raftmap_storage::snapshot::{Header, Writer};
    use raftmap_storage::types::{ClusterId, Entry, Position};

    use super::*;
    use crate::kv::{Command, KEY_BYTES_MAX, Limits, Page, Pair, SessionId, StateMachine, VALUE_BYTES_MAX};
    use crate::node::fault::Fault;
    use crate::wire::client::{Answer, Ask, Request, Response, encode_request, encode_response};

    const CLUSTER: ClusterId = ClusterId([1; 16]);

    /// A snapshot file of node 2, and what node 1 hears about it.
    fn offered() -> (SnapshotOffer, Bytes) {
        let (fs, dir) = (ModelFs::new(2), Path::new("/theirs"));
        fs.create_dir_all(dir).unwrap();
        let mut map = StateMachine::new(Limits::default());
        (1..=5).for_each(|at| map.skip(Position::new(at, 1)));
        let membership = Membership { voters: [NodeId(1), NodeId(2)].into() };
        let header = Header { position: map.applied(), cluster: CLUSTER, membership: membership.clone() };
        let mut writer = Writer::create(fs.clone(), dir, header).unwrap();
        map.image().chunks().for_each(|chunk| writer.write(&chunk).unwrap());
        let snapshot = writer.publish().unwrap();
        let announcement = Announcement { term: Term(2), snapshot, membership }.encode().unwrap();
        let body = Reader::open(&fs, dir, &snapshot).unwrap().raw();
        (SnapshotOffer { peer: 2, announcement, length: snapshot.length }, body)
    }

    fn ears(fs: &ModelFs) -> Ears<ModelFs> {
        let dir = PathBuf::from("/ours");
        let identity = raftmap_storage::Identity { cluster: CLUSTER, node: NodeId(1) };
        let options = raftmap_storage::Options::new(Some(1_000), 512);
        let (wal, recovered) = raftmap_storage::open(fs.clone(), &dir, identity, options).unwrap();
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            features: 0,
            cluster: CLUSTER,
            node: NodeId(1),
            disk: recovered.disk_id,
            boot: 1,
            group: 0,
            bootstrap: [0; 32],
            terms: String::new(),
        };
        let arrivals = Arrivals::new(fs.clone(), dir, CLUSTER);
        Ears { inbox: Arc::default(), hello, arrivals, guard: wal.guard() }
    }

    fn receive(ears: &Ears<ModelFs>, offer: &SnapshotOffer, body: &Bytes) -> Result<(), String> {
        let accept = ears.snapshot(offer.clone())?;
        let mut writer = accept.writer;
        writer.chunk(body.slice(usize::try_from(accept.offset).unwrap()..))?;
        writer.finish()
    }

    #[test]
    fn a_transfer_that_ran_out_of_space_begins_anew() {
        let (offer, body) = offered();
        let fs = ModelFs::new(3);
        let ears = ears(&fs);
        fs.set_quota(Some(fs.used() + 10));
        assert!(receive(&ears, &offer, &body).is_err());
        fs.set_quota(None);
        receive(&ears, &offer, &body).unwrap();
        let inputs = ears.inbox.drain(std::time::Duration::ZERO).unwrap();
        assert!(
            matches!(inputs.front(), Some(Input::SnapshotArrived(arrived)) if arrived.map.applied().index.0 == 5)
        );
    }

    #[test]
    fn a_transfer_that_broke_off_goes_on_where_it_stopped() {
        let (offer, body) = offered();
        let temporary =
            |fs: &ModelFs| fs.files().iter().filter(|path| path.to_string_lossy().contains("tmp-")).count();
        for at in 0..=body.len() {
            let fs = ModelFs::new(4);
            let ears = ears(&fs);
            let accept = ears.snapshot(offer.clone()).unwrap();
            let mut writer = accept.writer;
            writer.chunk(body.slice(..at)).unwrap();
            drop(writer);
            assert_eq!(temporary(&fs), 1, "cut at {at}: what came is kept");
            assert_eq!(ears.snapshot(offer.clone()).unwrap().offset, at as u64);
            receive(&ears, &offer, &body).unwrap();
            assert_eq!(temporary(&fs), 0, "cut at {at}: a file is left");
        }
    }

    #[test]
    fn a_disk_that_fails_under_a_transfer_stops_the_node() {
        let (offer, body) = offered();
        // Before a byte has come, among the bytes, and when all are there.
        for (on, effect) in [
            (model::Op::Temp, model::Effect::Eio),
            (model::Op::WriteAt, model::Effect::Eio),
            (model::Op::SyncData, model::Effect::SyncDropped),
            (model::Op::Persist, model::Effect::Eio),
            (model::Op::SyncDir, model::Effect::SyncDropped),
        ] {
            let fs = ModelFs::new(5);
            let ears = ears(&fs);
            fs.fail(model::Fault { on: Some(on), after: 0, effect, lasting: false });
            assert!(receive(&ears, &offer, &body).is_err(), "{on:?}");
            let inputs = ears.inbox.drain(std::time::Duration::ZERO).unwrap();
            assert!(matches!(inputs.front(), Some(Input::Fault(Fault::Log(_)))), "{on:?}: {inputs:?}");
        }
    }

    #[test]
    fn a_snapshot_of_another_cluster_is_not_read() {
        let (offer, body) = offered();
        let fs = ModelFs::new(6);
        let mut ears = ears(&fs);
        ears.arrivals = Arrivals::new(fs, PathBuf::from("/ours"), ClusterId([2; 16]));
        let error = receive(&ears, &offer, &body).unwrap_err();
        assert!(error.contains("is of cluster 0101"), "{error}");
    }

    /// One frame that could never be sent would stop a leader for good.
    #[test]
    fn the_largest_of_everything_fits_its_frame() {
        let frames = raftmap_net::Limits::default();
        let limits = Limits { key_bytes: KEY_BYTES_MAX, value_bytes: VALUE_BYTES_MAX, ..Limits::default() };
        limits.validate().unwrap();
        let (key, value) = (vec![1; KEY_BYTES_MAX as usize], vec![2; VALUE_BYTES_MAX as usize]);
        let (key, value) = (Bytes::from(key), Bytes::from(value));

        let command = Command::CompareAndPut { key: key.clone(), version: u64::MAX, value: value.clone() };
        let (session, last) = (SessionId(u64::MAX), u64::MAX);
        let body = Ask::Write { session, sequence: last, acked_below: last, command };
        let request = encode_request(&Request { id: last, body }).unwrap();
        assert!(request.len() <= frames.request_frame, "{} bytes", request.len());

        let page = Page { pairs: vec![Pair { key, value, version: last }], more: true };
        assert!(limits.page_bytes() + 64 <= frames.reply_frame);
        let body = Ok(Answer::Page { index: raftmap_storage::types::Index(last), page });
        assert!(encode_response(&Response { id: last, body }).unwrap().len() <= frames.reply_frame);

        let entry = Entry::new(Position::new(2, 1), vec![0; limits.proposal_bytes() + 1].into());
        let append = Body::Append {
            number: 1,
            prev: Position::new(1, 1),
            entries: vec![entry],
            commit: Position::ZERO.index,
        };
        let frame = peer::encode(&Message { term: Term(1), body: append }).unwrap().unwrap();
        assert!(frame.len() <= frames.log_frame);
    }
}
