//! The log's frames told over again: what they add up to, and whether each may follow the one before.

use crate::lsn::Lsn;
use crate::record::{Frame, Open, Record};
use crate::sealed::Table;
use crate::segment::Header;
use crate::state::LogState;
use crate::types::{EntryMeta, Index, Position, SnapshotMark};

/// Everything replayed so far.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) state: LogState,
    /// The segments walked, oldest first.
    pub(crate) segments: Vec<Replayed>,
    /// Highest durable_lsn seen: everything before it was synced.
    pub(crate) durable: Lsn,
    /// End of the last frame that is not SYNCED.
    pub(crate) said: Lsn,
    /// A SNAPSHOT record stands in the last segment.
    pub(crate) holds_snapshot: bool,
    pub(crate) frames: u64,
    /// The entries known, without gaps from `first` on. Those older than the first segment are not.
    metas: Vec<EntryMeta>,
    first: Index,
}

/// One segment, replayed.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) id: u64,
    /// The log's last index where the segment begins.
    pub(crate) before: Index,
    pub(crate) table: Table,
}

/// What comes after a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The frame behind it.
    Frame,
    /// The segment of this id.
    Segment(u64),
}

impl Replay {
    /// Takes in the frame at `offset` of the segment with `header`. An error says what does not follow: frames that
    /// check out and contradict each other are damage, not a torn write.
    pub(crate) fn apply(&mut self, header: &Header, offset: u64, frame: &Frame<'_>) -> Result<Next, String> {
        let at = Lsn::new(header.id, offset);
        let record = frame.record()?;
        self.check_place(header, at, frame, &record)?;
        let mut next = Next::Frame;
        match record {
            Record::Open(open) => self.open(at, &open, frame.durable)?,
            Record::HardState(hard_state) => self.state.set_hard_state(hard_state)?,
            Record::Truncate(to) => self.truncate(to)?,
            Record::Entry { position, payload, .. } => self.append(position, payload.len() as u32, offset)?,
            Record::Snapshot(mark) => self.mark(&mark)?,
            Record::Synced => {}
            Record::Seal { next: id } => {
                if id != header.id + 1 {
                    return Err(format!("SEAL leads from segment {} to {id}", header.id));
                }
                next = Next::Segment(id);
            }
        }
        self.durable = frame.durable;
        self.frames += 1;
        match record {
            Record::Synced => {}
            Record::Open(_)
            | Record::HardState(_)
            | Record::Truncate(_)
            | Record::Entry { .. }
            | Record::Snapshot(_)
            | Record::Seal { .. } => self.said = Lsn(at.0 + frame.len()),
        }
        Ok(next)
    }

    /// What holds for every frame: OPEN comes first and only first, promises concern the past and grow, and the room
    /// that is kept free is.
    fn check_place(
        &self,
        header: &Header,
        at: Lsn,
        frame: &Frame<'_>,
        record: &Record<'_>,
    ) -> Result<(), String> {
        let first = self.segments.last().is_none_or(|segment| segment.id != header.id);
        if first != matches!(record, Record::Open(_)) {
            return Err("OPEN is the first frame of a segment, and no other is".to_owned());
        }
        if frame.durable < self.durable || frame.durable > at {
            return Err(format!("durable_lsn {} at {at}, after {}", frame.durable, self.durable));
        }
        let reserve = match record {
            Record::Seal { .. } => 0,
            Record::Synced => crate::record::SEAL_LEN,
            Record::Open(_)
            | Record::HardState(_)
            | Record::Truncate(_)
            | Record::Entry { .. }
            | Record::Snapshot(_) => crate::record::RESERVE,
        };
        if at.offset() + frame.len() + reserve > header.capacity {
            return Err("a frame where room is kept for SYNCED and SEAL".to_owned());
        }
        if matches!(record, Record::Synced) && frame.durable != at {
            return Err(format!("SYNCED at {at} speaks of {}", frame.durable));
        }
        Ok(())
    }

    fn open(&mut self, at: Lsn, open: &Open, durable: Lsn) -> Result<(), String> {
        if durable != open.previous {
            return Err(format!("OPEN vouches for {durable}, the segment before ends at {}", open.previous));
        }
        let told = LogState { last: open.last, hard_state: open.hard_state, snapshot: open.snapshot };
        if self.segments.is_empty() {
            // The log begins here: there is nothing to compare with.
            self.state = told;
            self.first = open.last.index.next();
        } else if told != self.state || open.previous != self.said {
            return Err("OPEN differs from the log before it".to_owned());
        }
        self.holds_snapshot = false;
        let before = open.last.index;
        self.segments.push(Replayed { id: at.segment(), before, table: Table::default() });
        Ok(())
    }

    fn append(&mut self, position: Position, payload_len: u32, offset: u64) -> Result<(), String> {
        self.state.append(position)?;
        self.metas.push(EntryMeta { term: position.term, payload_len });
        self.table()?.push(position.index, offset);
        Ok(())
    }

    fn truncate(&mut self, to: Position) -> Result<(), String> {
        self.agrees(to)?;
        self.state.truncate(to)?;
        self.metas.truncate(to.index.next().0.saturating_sub(self.first.0) as usize);
        // Back beyond the first segment's beginning: what comes next is the first that is known.
        self.first = self.first.min(to.index.next());
        self.table()?.truncate(to.index);
        Ok(())
    }

    fn mark(&mut self, mark: &SnapshotMark) -> Result<(), String> {
        if !mark.reset {
            self.agrees(mark.snapshot.position)?;
        }
        self.state.mark(mark)?;
        self.holds_snapshot = true;
        if mark.reset {
            self.metas.clear();
            self.first = self.state.last.index.next();
            self.table()?.clear();
        }
        Ok(())
    }

    /// The entries of the segment that is being read: its OPEN came first, see [`Replay::check_place`].
    fn table(&mut self) -> Result<&mut Table, String> {
        let segment = self.segments.last_mut().ok_or("no OPEN before it")?;
        Ok(&mut segment.table)
    }

    /// Where the entry at a position's index is known, it has that position's term.
    fn agrees(&self, position: Position) -> Result<(), String> {
        let at = position.index.0.checked_sub(self.first.0).and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.metas.get(at)) {
            Some(meta) if meta.term != position.term => {
                Err(format!("{position} where the log has term {}", meta.term))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// At the end: every entry above the snapshot is known.
    pub(crate) fn check_whole(&self) -> Result<(), String> {
        let (base, last) = (self.state.base().index, self.state.last.index);
        match last.0.checked_sub(base.0) == Some(self.live().len() as u64) {
            true => Ok(()),
            false => Err(format!("of the entries above {base} up to {last} some are missing")),
        }
    }

    /// The entries above the snapshot.
    pub(crate) fn live(&self) -> &[EntryMeta] {
        let skip = self.state.base().index.next().0.saturating_sub(self.first.0) as usize;
        self.metas.get(skip..).unwrap_or_default()
    }
}
