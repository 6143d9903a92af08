//! Everyone who waits for the log: writes by the place of their entry, reads by their round of confirmations and then
//! by the index they must see applied. Each gets exactly one answer, also when leadership or the node ends.

use std::collections::{BTreeMap, VecDeque};

use raftmap_storage::types::{Index, Position, Term};

use super::replica::{ClientId, Host};
use crate::raft::ReadId;
use crate::wire::client::{Query, Refusal, Response};

/// A read and where its answer goes.
#[derive(Debug)]
pub struct ReadWaiter {
    /// The connection.
    pub client: ClientId,
    /// The request's id.
    pub id: u64,
    /// The question.
    pub query: Query,
}

#[derive(Debug)]
struct WriteWaiter {
    term: Term,
    client: ClientId,
    id: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Waiting {
    writes: BTreeMap<Index, WriteWaiter>,
    /// Reads for which no round has begun.
    queued: Vec<ReadWaiter>,
    /// Reads by the round that confirms them, oldest first.
    rounds: VecDeque<(ReadId, Vec<ReadWaiter>)>,
    /// Confirmed reads by the index they wait for.
    confirmed: BTreeMap<Index, Vec<ReadWaiter>>,
    reads: usize,
    max: usize,
}

impl Waiting {
    /// Nobody waits; at most `max` may.
    pub fn new(max: usize) -> Self {
        Self {
            writes: BTreeMap::new(),
            queued: Vec::new(),
            rounds: VecDeque::new(),
            confirmed: BTreeMap::new(),
            reads: 0,
            max,
        }
    }

    /// Whether one more would be too many.
    pub fn is_full(&self) -> bool {
        self.count() >= self.max
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.writes.len() + self.reads
    }

    /// A write waits for its entry.
    pub fn write(&mut self, position: Position, client: ClientId, id: u64) {
        self.writes.insert(position.index, WriteWaiter { term: position.term, client, id });
    }

    /// Who waits for the entry applied at `position`. Someone who waited there for another term's entry has lost it.
    pub fn take_write(&mut self, position: Position, host: &mut impl Host) -> Option<(ClientId, u64)> {
        let waiter = self.writes.remove(&position.index)?;
        if waiter.term == position.term {
            return Some((waiter.client, waiter.id));
        }
        refuse(waiter.client, waiter.id, &Refusal::Lost, host);
        None
    }

    /// Entries from `from` on were replaced.
    pub fn lost_from(&mut self, from: Index, host: &mut impl Host) {
        let lost = self.writes.split_off(&from);
        refuse_writes(lost, &Refusal::Lost, host);
    }

    /// A snapshot took the place of everything up to `through`: what became of the entries there is not known.
    pub fn lost_through(&mut self, through: Index, host: &mut impl Host) {
        let kept = self.writes.split_off(&through.next());
        let lost = std::mem::replace(&mut self.writes, kept);
        refuse_writes(lost, &Refusal::Lost, host);
    }

    /// A read waits for the next round.
    pub fn queue_read(&mut self, read: ReadWaiter) {
        self.reads += 1;
        self.queued.push(read);
    }

    /// Whether a round is wanted.
    pub fn has_queued_reads(&self) -> bool {
        !self.queued.is_empty()
    }

    /// The queued reads wait for this round from now on.
    pub fn start_round(&mut self, id: ReadId) {
        self.rounds.push_back((id, std::mem::take(&mut self.queued)));
    }

    /// The round is confirmed: its reads wait for `index` to be applied.
    pub fn read_confirmed(&mut self, id: ReadId, index: Index) {
        if let Some(at) = self.rounds.iter().position(|(round, _)| *round == id)
            && let Some((_, reads)) = self.rounds.remove(at)
        {
            self.confirmed.entry(index).or_default().extend(reads);
        }
    }

    /// Reads whose index is applied.
    pub fn readable(&mut self, applied: Index) -> Vec<ReadWaiter> {
        let mut readable = Vec::new();
        while let Some(first) = self.confirmed.first_entry().filter(|first| *first.key() <= applied) {
            readable.extend(first.remove());
        }
        self.reads -= readable.len();
        readable
    }

    /// These rounds will never be confirmed here.
    pub fn reads_failed(&mut self, ids: &[ReadId], refusal: &Refusal, host: &mut impl Host) {
        for id in ids {
            if let Some(at) = self.rounds.iter().position(|(round, _)| round == id)
                && let Some((_, reads)) = self.rounds.remove(at)
            {
                self.refuse_reads(reads, refusal, host);
            }
        }
    }

    /// No round can begin here.
    pub fn fail_queued_reads(&mut self, refusal: &Refusal, host: &mut impl Host) {
        let reads = std::mem::take(&mut self.queued);
        self.refuse_reads(reads, refusal, host);
    }

    /// Leadership or the node ends: nobody waits any longer.
    pub fn fail_all(&mut self, writes: &Refusal, reads: &Refusal, host: &mut impl Host) {
        refuse_writes(std::mem::take(&mut self.writes), writes, host);
        let mut all = std::mem::take(&mut self.queued);
        all.extend(std::mem::take(&mut self.rounds).into_iter().flat_map(|(_, reads)| reads));
        all.extend(std::mem::take(&mut self.confirmed).into_values().flatten());
        self.refuse_reads(all, reads, host);
    }

    fn refuse_reads(&mut self, reads: Vec<ReadWaiter>, refusal: &Refusal, host: &mut impl Host) {
        self.reads -= reads.len();
        reads.into_iter().for_each(|read| refuse(read.client, read.id, refusal, host));
    }
}

fn refuse_writes(writes: BTreeMap<Index, WriteWaiter>, refusal: &Refusal, host: &mut impl Host) {
    if bug!(22) {
        return;
    }
    writes.into_values().for_each(|waiter| refuse(waiter.client, waiter.id, refusal, host));
}

fn refuse(client: ClientId, id: u64, refusal: &Refusal, host: &mut impl Host) {
    host.reply(client, Response { id, body: Err(refusal.clone()) });
}

#[cfg(test)]
mod tests {
    use raftmap_storage::types::Batch;

    use super::super::replica::Job;
    use super::*;
    use crate::raft::{BatchNumber, Outbound, SoftState};

    #[derive(Default)]
    struct Replies(Vec<Response>);

    impl Host for Replies {
        fn send(&mut self, _: Outbound) {}
        fn submit(&mut self, _: BatchNumber, _: Batch) {}
        fn reply(&mut self, _: ClientId, response: Response) {
            self.0.push(response);
        }
        fn start(&mut self, _: Job) {}
        fn changed(&mut self, _: SoftState) {}
    }

    #[test]
    fn another_terms_entry_at_the_place_answers_nobody_but_says_lost() {
        let (mut waiting, mut replies) = (Waiting::new(2), Replies::default());
        waiting.write(Position::new(5, 2), ClientId(1), 10);
        assert_eq!(waiting.take_write(Position::new(5, 3), &mut replies), None);
        assert_eq!(replies.0, vec![Response { id: 10, body: Err(Refusal::Lost) }]);
        waiting.write(Position::new(6, 3), ClientId(1), 11);
        assert_eq!(waiting.take_write(Position::new(6, 3), &mut replies), Some((ClientId(1), 11)));
        assert_eq!(replies.0.len(), 1);
    }

    #[test]
    fn whoever_waits_below_a_snapshot_or_above_a_cut_has_lost_its_place() {
        let (mut waiting, mut replies) = (Waiting::new(9), Replies::default());
        (1..=6).for_each(|index| waiting.write(Position::new(index, 1), ClientId(1), index));
        waiting.lost_through(Index(2), &mut replies);
        waiting.lost_from(Index(5), &mut replies);
        let lost: Vec<u64> = replies.0.iter().map(|response| response.id).collect();
        assert_eq!(lost, vec![1, 2, 5, 6]);
        assert_eq!(waiting.take_write(Position::new(3, 1), &mut replies), Some((ClientId(1), 3)));
    }
}
