//! Snapshots on their way from one node to another: pieces of a file over a link that may break, resumed where it
//! broke off. The bytes go through the code that production uses.

use std::time::Duration;

use bytes::Bytes;
use raftmap::node::arrivals::{Arriving, Refused};
use raftmap::node::replica::Input;
use raftmap::storage::model::ModelFs;
use raftmap::storage::snapshot::Reader;
use raftmap::storage::types::{Membership, NodeId, SnapshotId, Term};
use raftmap::wire::peer::Announcement;

use crate::net::End;
use crate::world::{Event, World};

/// See the module's description.
pub struct Transfer {
    from: usize,
    from_life: u64,
    to: usize,
    /// Of the leader that sends it.
    term: Term,
    /// The receiving life, once it has begun to receive.
    receiving: Option<(u64, Arriving<ModelFs>)>,
    snapshot: SnapshotId,
    announcement: Bytes,
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
        let announcement = Announcement { term, snapshot, membership }.encode();
        let announcement = self.must(announcement.map_err(|error| error.to_string()));
        let transfer = Transfer {
            from,
            from_life,
            to,
            term,
            receiving: None,
            snapshot,
            announcement,
            raw,
            piece,
            pause,
        };
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
        let (receiving, mut arriving) = match transfer.receiving.take() {
            Some(receiving) => {
                if self.watch.reigns_after(transfer.term) {
                    self.trace.sometimes("a snapshot went on arriving when another leader was elected");
                }
                receiving
            }
            None => self.accept(transfer)?,
        };
        if !self.alive(transfer.to, receiving) {
            return Err(());
        }
        let begin = arriving.offset() as usize;
        let end = (begin + transfer.piece).min(transfer.raw.len());
        let piece = &transfer.raw[begin..end];
        self.trace.bytes(piece);
        if let Some(tap) = &mut self.tap {
            tap.piece(piece.len());
        }
        arriving.chunk(piece).map_err(|refused| self.refused_snapshot(transfer.to, refused))?;
        if end < transfer.raw.len() {
            transfer.receiving = Some((receiving, arriving));
            return Ok(false);
        }
        let arrived = arriving.finish().map_err(|refused| self.refused_snapshot(transfer.to, refused))?;
        self.push(transfer.to, Input::SnapshotArrived(Box::new(arrived)));
        Ok(true)
    }

    fn accept(&mut self, transfer: &Transfer) -> Result<(u64, Arriving<ModelFs>), ()> {
        let node = &self.nodes[transfer.to];
        let life = node.life.as_ref().filter(|life| life.paused.is_none()).ok_or(())?;
        let from = NodeId(transfer.from as u64 + 1);
        let length = transfer.raw.len() as u64;
        let (number, arriving) = (node.lives, life.arrivals.accept(from, &transfer.announcement, length));
        let arriving = arriving.map_err(|refused| self.refused_snapshot(transfer.to, refused))?;
        if arriving.offset() > 0 {
            self.trace.sometimes("a snapshot transfer was resumed");
        }
        Ok((number, arriving))
    }

    fn refused_snapshot(&mut self, at: usize, refused: Refused) {
        self.trace.sometimes("a snapshot could not be received");
        refused.fault.into_iter().for_each(|fault| self.push(at, Input::Fault(fault)));
    }
}
