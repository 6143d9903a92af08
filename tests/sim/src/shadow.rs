//! What a node's disk must hold: the batches it was given, and how many of them its log has called durable. Kept beside
//! the real log over all lives of the node, and compared with what recovery finds.

use std::collections::{BTreeMap, VecDeque};

use raftmap_storage::types::{Batch, Entry, HardState, Index, NodeId, Position, SnapshotMark, Term};
use raftmap_storage::{Recovered, find};

/// An entry's term and checksum: enough to tell it from any other.
pub type Mark = (Term, u32);

/// Marks of entries without a gap between them.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The index of the first of them.
    first: u64,
    marks: Vec<Mark>,
}

impl Marks {
    pub fn get(&self, index: Index) -> Option<Mark> {
        self.marks.get(index.0.checked_sub(self.first)? as usize).copied()
    }

    /// The index of the last one.
    pub fn last(&self) -> Option<Index> {
        (!self.marks.is_empty()).then(|| Index(self.behind() - 1))
    }

    /// Those from `from` on.
    pub fn from(&self, from: Index) -> impl Iterator<Item = (Index, Mark)> + '_ {
        let from = from.0.max(self.first);
        let marks = self.marks.get((from - self.first) as usize..).unwrap_or_default();
        (from..).map(Index).zip(marks.iter().copied())
    }

    fn put(&mut self, index: Index, mark: Mark) {
        match index.0.checked_sub(self.first).map(|place| place as usize) {
            Some(place) if place < self.marks.len() => self.marks[place] = mark,
            Some(place) if place == self.marks.len() && place > 0 => self.marks.push(mark),
            _ => *self = Self { first: index.0, marks: vec![mark] },
        }
    }

    fn cut_above(&mut self, last: Index) {
        self.marks.truncate((last.0 + 1).saturating_sub(self.first) as usize);
    }

    fn behind(&self) -> u64 {
        self.first + self.marks.len() as u64
    }
}

/// What a batch does to a log.
#[derive(Debug)]
struct Change {
    number: u64,
    hard_state: Option<HardState>,
    truncate: Option<Position>,
    entries: Vec<(Index, Mark)>,
    snapshot: Option<SnapshotMark>,
}

impl Change {
    fn of(number: u64, batch: &Batch) -> Self {
        let mark = |entry: &Entry| (entry.position.index, (entry.position.term, entry.payload_crc));
        Self {
            number,
            hard_state: batch.hard_state,
            truncate: batch.truncate,
            entries: batch.entries.iter().map(mark).collect(),
            snapshot: batch.snapshot,
        }
    }
}

/// A log by its entries' marks.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What the snapshot in force stands for.
    pub base: Position,
    /// Some at and below `base` may still be here.
    pub entries: Marks,
    pub hard_state: HardState,
}

impl Log {
    /// Whether it holds this entry, or a snapshot behind it.
    pub fn holds(&self, index: Index, mark: Mark) -> bool {
        self.base.index >= index || self.entries.get(index) == Some(mark)
    }

    pub fn last(&self) -> Index {
        self.entries.last().map_or(self.base.index, |last| last.max(self.base.index))
    }

    /// The term of the entry there, where it is known.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        match self.entries.get(index) {
            Some((term, _)) => Some(term),
            None if index == self.base.index => Some(self.base.term),
            None => None,
        }
    }

    fn follow(&mut self, change: &Change) {
        if let Some(hard_state) = change.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(to) = change.truncate {
            self.entries.cut_above(to.index);
        }
        for (index, mark) in &change.entries {
            self.entries.put(*index, *mark);
        }
        if let Some(mark) = change.snapshot {
            if mark.reset {
                self.entries = Marks::default();
            }
            self.base = mark.snapshot.position;
        }
    }

    /// What recovery found.
    pub fn of(recovered: &Recovered) -> Result<Self, String> {
        let base = recovered.snapshot.map_or(Position::ZERO, |snapshot| snapshot.position);
        let tail: BTreeMap<Index, u32> =
            recovered.tail.iter().map(|entry| (entry.position.index, entry.payload_crc)).collect();
        let mut entries = Marks::default();
        let mut index = base.index;
        for meta in &recovered.log {
            index = index.next();
            let crc = match tail.get(&index) {
                Some(crc) => *crc,
                None => {
                    let segment = find(&recovered.sealed, index)
                        .ok_or_else(|| format!("entry {index} is in no segment"))?;
                    segment.entry(index).map_err(|error| error.to_string())?.payload_crc
                }
            };
            entries.put(index, (meta.term, crc));
        }
        Ok(Self { base, entries, hard_state: recovered.hard_state })
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Shadow {
    /// With everything that was submitted.
    pub log: Log,
    /// With everything that was reported durable.
    pub durable: Log,
    pending: VecDeque<Change>,
    /// Votes that are durable or were spoken of, over all lives; but for those that an older directory has forgotten:
    /// another vote in their terms elects nobody, as the atlas says, or is found by what is wrong then.
    votes: BTreeMap<Term, NodeId>,
    /// The first entry of the last sync: nothing on the disk need bear witness to it, nor to those behind it.
    last_sync: Index,
    /// The hard state before the last sync: nothing need bear witness to a newer one.
    before_last_sync: HardState,
    /// How far the disk ever reached in each term: what is acknowledged in one may be cut in the next.
    reached: BTreeMap<Term, Index>,
}

impl Shadow {
    /// Terms do not go back, and a vote stays for its term.
    pub fn submit(&mut self, number: u64, batch: &Batch) -> Result<(), String> {
        let had = self.log.hard_state;
        if let Some(has) = batch.hard_state
            && (has.term < had.term || has.term == had.term && had.vote.is_some() && has.vote != had.vote)
        {
            return Err(format!("goes from {had:?} to {has:?}"));
        }
        let change = Change::of(number, batch);
        self.log.follow(&change);
        self.pending.push_back(change);
        Ok(())
    }

    /// Whom this node has voted for, in any of its lives.
    pub fn vote_in(&self, term: Term) -> Option<NodeId> {
        self.votes.get(&term).copied()
    }

    /// The directory is an older one now, or a new one: what it promised is in the others' hands, as the atlas says.
    pub fn set_back(&mut self, found: Log) {
        self.votes.retain(|term, _| *term > self.durable.hard_state.term);
        self.pending.clear();
        self.reached.clear();
        (self.log, self.durable) = (found.clone(), found);
        self.last_sync = self.durable.last().next();
        self.before_last_sync = self.durable.hard_state;
        self.reach(self.durable.hard_state.term, self.durable.last());
    }

    /// Everything up to this batch is on the disk.
    pub fn synced(&mut self, through: u64) -> Result<(), String> {
        let next = self.durable.last().next();
        let mut first = None;
        if self.pending.front().is_some_and(|change| change.number <= through) {
            self.before_last_sync = self.durable.hard_state;
        }
        while self.pending.front().is_some_and(|change| change.number <= through) {
            let Some(change) = self.pending.pop_front() else { break };
            let lowest = change.entries.first().map_or(next, |(index, _)| *index);
            first = Some(first.map_or(lowest, |first: Index| first.min(lowest)));
            let before = self.durable.hard_state.term;
            self.reach(before, self.durable.last());
            self.durable.follow(&change);
            // One batch may bring entries of the term before and the hard state of the next.
            let old = change.entries.iter().rev().find(|(_, mark)| mark.0 <= before);
            self.reach(before, old.map_or(Index(0), |(index, _)| *index));
            self.reach(self.durable.hard_state.term, self.durable.last());
            self.voted(self.durable.hard_state)?;
        }
        self.last_sync = first.unwrap_or(self.last_sync);
        Ok(())
    }

    /// Whether a log without this entry and those behind it may be taken for whole.
    pub fn may_miss(&self, index: Index) -> bool {
        index >= self.last_sync
    }

    /// Whether this may be taken for the newest hard state.
    pub fn may_forget(&self, found: HardState) -> bool {
        let before = self.before_last_sync;
        found.term > before.term
            || found.term == before.term && (before.vote.is_none() || found.vote == before.vote)
    }

    fn reach(&mut self, term: Term, last: Index) {
        let reached = self.reached.entry(term).or_default();
        *reached = (*reached).max(last);
    }

    /// An acknowledgement leaves in `term`: the disk holds what it speaks of, or did until a later term began. What that
    /// one's leader had cut, it does not have, so that a majority did not acknowledge it nor ever will.
    pub fn held(&self, matched: Index, term: Term) -> Result<(), String> {
        let durable = &self.durable;
        let (last, now) = (durable.last(), durable.hard_state.term);
        let holds = matched <= last && durable.term_at(matched).is_none_or(|of| of <= term);
        let held = self.reached.range(..=term).next_back().map(|(_, reached)| *reached);
        if now >= term && holds || now > term && held.is_some_and(|held| matched <= held) {
            return Ok(());
        }
        Err(format!(
            "acknowledges {matched} in term {term}, its disk holds {last} in term {now}, and held {held:?}"
        ))
    }

    fn voted(&mut self, hard_state: HardState) -> Result<(), String> {
        let Some(vote) = hard_state.vote else { return Ok(()) };
        let first = *self.votes.entry(hard_state.term).or_insert(vote);
        if first == vote {
            return Ok(());
        }
        Err(format!("voted twice in term {}: for {first} and for {vote}", hard_state.term))
    }

    /// A vote leaves: it must be the one for its term, and on the disk, or behind a later term that is.
    pub fn speaks(&mut self, term: Term, candidate: NodeId) -> Result<(), String> {
        self.voted(HardState { term, vote: Some(candidate) })?;
        let durable = self.durable.hard_state;
        if durable.term > term || durable == (HardState { term, vote: Some(candidate) }) {
            return Ok(());
        }
        Err(format!("speaks of its vote for {candidate} in term {term}, its disk says {durable:?}"))
    }

    /// A new life begins with what was recovered: everything durable, and of the rest what a crash may have kept.
    pub fn reborn(&mut self, recovered: &Recovered) -> Result<(), String> {
        let found = Log::of(recovered)?;
        self.keeps(&found)?;
        self.voted(found.hard_state)?;
        self.pending.clear();
        (self.log, self.durable) = (found.clone(), found);
        // Recovery adds no witness of its own.
        self.last_sync = self.last_sync.min(self.durable.last().next());
        self.reach(self.durable.hard_state.term, self.durable.last());
        Ok(())
    }

    /// Whether everything durable is still in `found`.
    pub fn keeps(&self, found: &Log) -> Result<(), String> {
        let (had, has) = (self.durable.hard_state, found.hard_state);
        if has.term < had.term || has.term == had.term && had.vote.is_some() && has.vote != had.vote {
            return Err(format!("recovered {has:?}, durable was {had:?}"));
        }
        // What was under way may have cut the log, or replaced it by a snapshot.
        let cut = self.pending.iter().filter_map(|change| change.truncate.map(|to| to.index)).min();
        let reset = self.pending.iter().any(|change| change.snapshot.is_some_and(|mark| mark.reset));
        if !reset {
            let kept = cut.unwrap_or(Index(u64::MAX));
            let durable = self.durable.entries.from(found.base.index.next());
            for (index, mark) in durable.take_while(|(index, _)| *index <= kept) {
                if !found.holds(index, mark) {
                    let found = found.entries.get(index);
                    return Err(format!(
                        "entry {index} was durable as {mark:?} and is {found:?} after recovery"
                    ));
                }
            }
        }
        if !reset && found.last() < self.durable.base.index {
            return Err(format!(
                "recovered {}, a snapshot stood for {}",
                found.last(),
                self.durable.base.index
            ));
        }
        Ok(())
    }
}
