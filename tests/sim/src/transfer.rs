//! Snapshots on their way from one node to another: pieces of a file over a link that may break, resumed where it
//! broke off. The bytes go through the code that production uses.

use std::time::Duration;

use bytes::Bytes;
use raftmap::node::jobs;
use raftmap::node::replica::{Arrived, Input};
use raftmap::storage::model::ModelFs;
use raftmap::storage::snapshot::{Reader, Receiver, SnapshotError};
use raftmap::storage::types::{Membership, NodeId, SnapshotId, Term};

use crate::net::End;
use crate::node::CLUSTER;
use crate::process::failed;
use crate::world::{Event, World};

/// Most bytes of a snapshot in these worlds.
const SNAPSHOT_MAX: u64 = 1 << 24;

/// See the module's description.
pub struct Transfer {
    from: usize,
    from_life: u64,
    to: usize,
    /// The receiving life, once it has begun to receive.
    receiving: Option<(u64, Receiver<ModelFs>)>,
    term: Term,
    snapshot: SnapshotId,
    membership: Membership,
    raw: Bytes,
    piece: usize,
    /// Between two pieces: bulk gives way to everything else.
    pause: Duration,
}

impl Transfer {
    /// The places of sender and receiver.
    pub fn ends(&self) -> [usize; 2] {
        [self.from, self.to]
    }
}

impl World {
    pub fn send_snapshot(
        &mut self,
        from: usize,
        peer: NodeId,
        term: Term,
        snapshot: SnapshotId,
        membership: Membership,
    ) {
        let node = &self.nodes[from];
        let raw = match Reader::open(&node.disk, node.dir(), &snapshot) {
            Ok(reader) => reader.raw(),
            Err(_) => {
                // A purge may have come first; the leader tries again with its newest one.
                self.trace.sometimes("a snapshot to be sent was gone");
                return self.push(from, Input::SnapshotSent { peer, result: Err(()) });
            }
        };
        self.transfers_begun += 1;
        let number = self.transfers_begun;
        // At most 64 pieces: a transfer ends, however slow.
        let piece = (self.schedule.between(50, 2_000) as usize).max(raw.len() / 64);
        let pause = Duration::from_millis(self.schedule.pick(&[0, 0, 5, 50]));
        let (from_life, to) = (node.lives, peer.0 as usize - 1);
        let transfer =
            Transfer { from, from_life, to, receiving: None, term, snapshot, membership, raw, piece, pause };
        self.transfers.insert(number, transfer);
        self.next_piece(number);
    }

    /// The next piece arrives, or the link is noticed to be broken.
    fn next_piece(&mut self, number: u64) {
        let Some(transfer) = self.transfers.get(&number) else { return };
        let carried = self.links.carry(End::Node(transfer.from), End::Node(transfer.to));
        let time = carried.map_or(Duration::from_millis(1_500), |time| time + transfer.pause);
        self.after(time, Event::Transfer(number));
    }

    pub fn transfer(&mut self, number: u64) {
        let Some(mut transfer) = self.transfers.remove(&number) else { return };
        let cut = self.links.is_cut(End::Node(transfer.from), End::Node(transfer.to))
            || self.links.is_cut(End::Node(transfer.to), End::Node(transfer.from));
        let sender = self.alive(transfer.from, transfer.from_life);
        match if cut || !sender { Err(()) } else { self.receive(&mut transfer) } {
            Ok(true) => {
                self.trace.sometimes("a snapshot was delivered");
                self.sent(&transfer, Ok(transfer.snapshot));
            }
            Ok(false) => {
                self.transfers.insert(number, transfer);
                self.next_piece(number);
            }
            Err(()) => {
                self.trace.sometimes("a snapshot transfer broke off");
                self.sent(&transfer, Err(()));
                self.keep(transfer);
            }
        }
    }

    fn alive(&self, at: usize, number: u64) -> bool {
        let node = &self.nodes[at];
        node.lives == number && node.life.as_ref().is_some_and(|life| life.paused.is_none())
    }

    fn sent(&mut self, transfer: &Transfer, result: Result<SnapshotId, ()>) {
        if self.nodes[transfer.from].lives == transfer.from_life {
            let peer = NodeId(transfer.to as u64 + 1);
            self.push(transfer.from, Input::SnapshotSent { peer, result });
        }
    }

    /// One piece; true when it was the last one.
    fn receive(&mut self, transfer: &mut Transfer) -> Result<bool, ()> {
        let node = &mut self.nodes[transfer.to];
        let number = node.lives;
        let (fs, dir) = (node.disk.clone(), node.config.dir.clone());
        let life = node.life.as_mut().filter(|life| life.paused.is_none()).ok_or(())?;
        let (receiving, mut receiver) = match transfer.receiving.take() {
            Some(receiving) => receiving,
            None => {
                let kept = life.partial.take().filter(|partial| *partial.id() == transfer.snapshot);
                if kept.as_ref().is_some_and(|kept| kept.offset() > 0) {
                    self.trace.sometimes("a snapshot transfer was resumed");
                }
                let fresh = || Receiver::create(fs.clone(), &dir, transfer.snapshot, SNAPSHOT_MAX).ok();
                (number, kept.or_else(fresh).ok_or(())?)
            }
        };
        if receiving != number {
            return Err(());
        }
        let begin = receiver.offset() as usize;
        let end = (begin + transfer.piece).min(transfer.raw.len());
        self.trace.bytes(&transfer.raw[begin..end]);
        if let Some(tap) = &mut self.tap {
            tap.piece(end - begin);
        }
        receiver.write(&transfer.raw[begin..end]).map_err(|error| self.give_up(transfer.to, &error))?;
        if end < transfer.raw.len() {
            transfer.receiving = Some((receiving, receiver));
            return Ok(false);
        }
        receiver.publish().map_err(|error| self.give_up(transfer.to, &error))?;
        let (header, map) = jobs::load(&fs, &dir, &transfer.snapshot, CLUSTER).map_err(|_| ())?;
        assert_eq!(header.membership, transfer.membership, "a snapshot and its announcement");
        let arrived = Arrived {
            from: NodeId(transfer.from as u64 + 1),
            term: transfer.term,
            snapshot: transfer.snapshot,
            membership: header.membership,
            map,
        };
        self.push(transfer.to, Input::SnapshotArrived(Box::new(arrived)));
        Ok(true)
    }

    fn give_up(&mut self, at: usize, error: &SnapshotError) {
        self.trace.sometimes("a snapshot could not be received");
        failed(error).into_iter().for_each(|input| self.push(at, input));
    }

    fn keep(&mut self, transfer: Transfer) {
        let node = &mut self.nodes[transfer.to];
        if let Some((number, receiver)) = transfer.receiving
            && number == node.lives
            && let Some(life) = &mut node.life
        {
            life.partial = Some(receiver);
        }
    }
}
