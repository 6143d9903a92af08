//! A log on a model disk together with its story, and the steps of which scripts are made.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use raftmap_storage::model::{Cut, ModelFs};
use raftmap_storage::snapshot::{Header, Writer};
use raftmap_storage::types::{
    Batch, ClusterId, Entry, HardState, Index, Membership, NodeId, Position, SnapshotId, SnapshotMark, Term,
};
use raftmap_storage::{Chore, ChoreDone, Identity, OpenError, Options, Recovered, Wal, find, open};

use crate::story::{Item, State, Story};

pub(crate) const DIR: &str = "/data";

pub(crate) fn dir() -> &'static Path {
    Path::new(DIR)
}

pub(crate) fn identity() -> Identity {
    Identity { cluster: ClusterId([7; 16]), node: NodeId(1) }
}

/// Segments of 8 KiB, half of it header: a few entries fill one.
pub(crate) fn options() -> Options {
    Options { segment_bytes: 8192, payload_max: 600, spares: 1, batch_bytes: 2048 }
}

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Queues so many entries of so many bytes, as one batch.
    Append(usize, usize),
    /// Queues a new term with a vote.
    Vote,
    /// Queues one batch with a new term, a truncation by so many entries, and one entry: what a new leader may ask.
    Overwrite(usize),
    /// Queues a truncation by so many entries, alone.
    Truncate(usize),
    /// Publishes a snapshot so many entries below the last one, and queues its record.
    Snapshot(usize),
    /// Publishes a leader's snapshot so many entries beyond the last one, and queues its record with a reset.
    Install(u64),
    /// Syncs until nothing is queued, chores in between.
    Sync,
    /// One call of sync, whatever is queued.
    SyncOnce,
    /// Does all chores.
    Chores,
    /// Takes the next chore, for a thread of its own that has not begun yet.
    TakeChore,
    /// That thread does the chore; the log has not heard of it yet.
    RunChore,
    /// The last witness is made durable.
    Idle,
    /// Clean stop, and opened again.
    Reopen,
    /// Killed, and opened again.
    Kill,
    /// The power is cut, and it is opened again.
    PowerCut(u64),
}

/// A disk as it was at some moment, and what may be found on it.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) disk: ModelFs,
    pub(crate) call: u64,
    pub(crate) story: Story,
    /// The step during which it was.
    pub(crate) act: Option<Act>,
}

/// A log and its story.
pub(crate) struct World {
    pub(crate) fs: ModelFs,
    pub(crate) options: Options,
    pub(crate) wal: Option<Wal<ModelFs>>,
    pub(crate) story: Story,
    next_number: u64,
    /// The story as it was known at certain calls of `fs`, oldest first.
    known: Vec<(u64, Story, Option<Act>)>,
    pub(crate) moments: Vec<Moment>,
    photos: bool,
    acting: Option<Act>,
    /// A chore in the hands of another thread, and one that it has done.
    chore: Option<Chore<ModelFs>>,
    done: Option<ChoreDone<ModelFs>>,
}

/// What is in the log that was opened, every entry read back.
pub(crate) fn read_state(recovered: &Recovered) -> Result<State, String> {
    let base = recovered.snapshot.map_or(Position::ZERO, |snapshot| snapshot.position);
    let mut items = Vec::new();
    for (at, meta) in recovered.log.iter().enumerate() {
        let index = Index(base.index.0 + 1 + at as u64);
        let entry = read_entry(recovered, index)?;
        let same = entry.position == Position { index, term: meta.term };
        if !same || entry.payload.len() != meta.payload_len as usize || !entry.is_intact() {
            return Err(format!("entry {index} is {entry:?}, expected {meta:?}"));
        }
        items.push(
            item(&entry.payload, meta.term).ok_or(format!("entry {index} has a payload never proposed"))?,
        );
    }
    let state = State { hard_state: recovered.hard_state, snapshot: recovered.snapshot, items };
    if state.last() != recovered.last {
        return Err(format!("last is {}, the entries end at {}", recovered.last, state.last()));
    }
    Ok(state)
}

fn read_entry(recovered: &Recovered, index: Index) -> Result<Entry, String> {
    if let Some(entry) = recovered.tail.iter().find(|entry| entry.position.index == index) {
        return Ok(entry.clone());
    }
    let segment = find(&recovered.sealed, index).ok_or(format!("entry {index} is nowhere"))?;
    segment.entry(index).map_err(|error| error.to_string())
}

fn item(payload: &Bytes, term: Term) -> Option<Item> {
    let serial = u64::from_le_bytes(*payload.first_chunk()?);
    let item = Item { term, serial, size: payload.len() };
    (item.payload() == payload).then_some(item)
}

/// Opens the log and reads all of it.
pub(crate) fn open_and_read(fs: &ModelFs) -> Result<(Wal<ModelFs>, State), String> {
    open_and_read_with(fs, options())
}

pub(crate) fn open_and_read_with(fs: &ModelFs, options: Options) -> Result<(Wal<ModelFs>, State), String> {
    let opened = open(fs.clone(), dir(), identity(), options);
    let (wal, recovered) = opened.map_err(|error| error.to_string())?;
    Ok((wal, read_state(&recovered)?))
}

pub(crate) fn try_open(fs: &ModelFs) -> Result<(Wal<ModelFs>, Recovered), OpenError> {
    open(fs.clone(), dir(), identity(), options())
}

/// Every file but the lock, with its bytes.
pub(crate) fn segments(fs: &ModelFs) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name != "LOCK");
    fs.files().into_iter().filter(ours).collect()
}

impl World {
    /// A log in a new directory. With `photos`, every moment is remembered from the first call on.
    pub(crate) fn new(seed: u64, photos: bool) -> Self {
        Self::on(ModelFs::new(seed), photos).expect("a sound disk")
    }

    /// A log in what `fs` holds, which is nothing yet or nothing acknowledged.
    pub(crate) fn on(fs: ModelFs, photos: bool) -> Result<Self, String> {
        Self::with(fs, options(), photos)
    }

    /// The same, with other options than the usual ones.
    pub(crate) fn with(fs: ModelFs, options: Options, photos: bool) -> Result<Self, String> {
        let mut world = Self { options, ..Self::closed(fs, photos) };
        world.open()?;
        Ok(world)
    }

    /// Goes on with what `fs` holds, which is `state`: a story that begins there.
    pub(crate) fn take_over(fs: ModelFs, state: &State) -> Result<Self, String> {
        let story = Story::beginning_with(state.clone());
        let mut world = Self { story, ..Self::closed(fs, false) };
        world.open()?;
        Ok(world)
    }

    fn closed(fs: ModelFs, photos: bool) -> Self {
        Self {
            fs,
            options: options(),
            wal: None,
            story: Story::default(),
            next_number: 1,
            known: Vec::new(),
            moments: Vec::new(),
            photos,
            acting: None,
            chore: None,
            done: None,
        }
    }

    /// Goes on with the same story on another disk: what a crash left of this one.
    pub(crate) fn recover_on(&mut self, fs: ModelFs) -> Result<(), String> {
        self.close();
        self.fs = fs;
        self.open()
    }

    /// Opens the log; from then on the story is what was found.
    fn open(&mut self) -> Result<(), String> {
        if self.photos {
            self.fs.keep_photos();
        }
        self.note();
        let (wal, state) = open_and_read_with(&self.fs, self.options)?;
        let at = self.story.place(&state)?;
        self.story.settle(at);
        self.note();
        self.wal = Some(wal);
        Ok(())
    }

    fn note(&mut self) {
        if self.photos {
            self.known.push((self.fs.calls(), self.story.clone(), self.acting));
        }
    }

    /// Lets go of the log, and puts the photos taken so far into their places in the story.
    fn close(&mut self) {
        (self.wal, self.chore, self.done) = (None, None, None);
        let known = std::mem::take(&mut self.known);
        for (call, disk) in self.fs.take_photos() {
            let last = known.iter().rev().find(|(at, ..)| *at <= call);
            let (_, story, act) = last.expect("noted before the first call").clone();
            self.moments.push(Moment { disk, call, story, act });
        }
    }

    /// Ends the script: all its moments.
    pub(crate) fn finish(mut self) -> (ModelFs, Story, Vec<Moment>) {
        self.close();
        (self.fs, self.story, self.moments)
    }

    /// Performs the steps; ends at the first that fails.
    pub(crate) fn run(&mut self, script: &[Act]) -> Result<(), String> {
        script.iter().try_for_each(|act| self.act(*act))
    }

    pub(crate) fn act(&mut self, act: Act) -> Result<(), String> {
        self.acting = Some(act);
        self.note();
        match act {
            Act::Append(count, size) => self.append(count, size),
            Act::Vote => self.batch(None, 0, 0, true),
            Act::Overwrite(back) => self.batch(Some(back), 1, 40, true),
            Act::Truncate(back) => self.batch(Some(back), 0, 0, false),
            Act::Snapshot(back) => self.snapshot(back),
            Act::Install(beyond) => self.install(beyond),
            Act::Sync => self.sync_all(),
            Act::SyncOnce => self.sync().map(|_| ()),
            Act::Chores => self.chores(),
            Act::TakeChore => {
                self.chore = self.chore.take().or_else(|| self.wal.as_mut()?.next_chore());
                Ok(())
            }
            Act::RunChore => self.run_chore(),
            Act::Idle => self.quiet(),
            Act::Reopen => self.wal().idle().map_err(text).and_then(|()| self.recover_on(self.fs.clone())),
            Act::Kill => self.recover_on(self.fs.kill()),
            Act::PowerCut(seed) => self.recover_on(self.fs.cut(Cut::Some(seed))),
        }
    }

    pub(crate) fn wal(&mut self) -> &mut Wal<ModelFs> {
        self.wal.as_mut().expect("open between steps")
    }

    fn append(&mut self, count: usize, size: usize) -> Result<(), String> {
        self.batch(None, count, size, self.story.now().hard_state.term.0 == 0)
    }

    /// One batch: a new term if `vote`, a truncation if `back`, and entries of that term.
    fn batch(&mut self, back: Option<usize>, count: usize, size: usize, vote: bool) -> Result<(), String> {
        let mut state = self.story.now().clone();
        let mut batch = Batch::default();
        if vote {
            state.hard_state =
                HardState { term: state.hard_state.term.next(), vote: Some(NodeId(count as u64 + 1)) };
            batch.hard_state = Some(state.hard_state);
        }
        let mut last = state.last();
        if let Some(back) = back {
            last = state.position(last.index.0.saturating_sub(back as u64).max(state.base().index.0));
            batch.truncate = Some(last);
        }
        let mut items = Vec::new();
        for _ in 0..count {
            let (entry, item) = self.story.propose(last, state.hard_state.term, size);
            last = entry.position;
            batch.entries.push(entry);
            items.push(item);
        }
        self.push(batch, &items)
    }

    fn push(&mut self, batch: Batch, items: &[Item]) -> Result<(), String> {
        let number = self.next_number;
        self.next_number += 1;
        self.story.push(number, &batch, items);
        self.note();
        self.wal().push(number, batch).map_err(text)
    }

    fn snapshot(&mut self, back: usize) -> Result<(), String> {
        let state = self.story.now();
        let index = state.last().index.0.saturating_sub(back as u64).max(state.base().index.0);
        let position = state.position(index);
        if position == state.base() {
            return Ok(());
        }
        let snapshot = self.publish(position)?;
        let mark = SnapshotMark { snapshot, reset: false };
        self.push(Batch { snapshot: Some(mark), ..Batch::default() }, &[])
    }

    fn install(&mut self, beyond: u64) -> Result<(), String> {
        let state = self.story.now();
        let term = state.hard_state.term.next();
        let position = Position { index: Index(state.last().index.0 + beyond), term };
        let snapshot = self.publish(position)?;
        let mark = SnapshotMark { snapshot, reset: true };
        let hard_state = HardState { term, vote: None };
        self.push(Batch { hard_state: Some(hard_state), snapshot: Some(mark), ..Batch::default() }, &[])
    }

    fn publish(&self, position: Position) -> Result<SnapshotId, String> {
        let membership = Membership { voters: [NodeId(1)].into() };
        let header = Header { position, cluster: identity().cluster, membership };
        let mut writer = Writer::create(self.fs.clone(), dir(), header).map_err(text)?;
        writer.write(position.to_string().as_bytes()).map_err(text)?;
        writer.publish().map_err(text)
    }

    /// One call of sync; says whether it got anywhere.
    fn sync(&mut self) -> Result<bool, String> {
        let synced = self.wal().sync().map_err(text)?;
        if let Some(through) = synced.through {
            self.story.acknowledge(through);
        }
        self.note();
        Ok(!synced.waiting_for_spare)
    }

    fn sync_all(&mut self) -> Result<(), String> {
        let mut stuck = 0;
        while self.wal().queued() {
            if self.sync()? {
                stuck = 0;
                continue;
            }
            self.wal().retry_spare();
            self.chores()?;
            stuck += 1;
            if stuck > 3 {
                return Err("no spare comes".to_owned());
            }
        }
        Ok(())
    }

    /// Nothing has come for a while.
    fn quiet(&mut self) -> Result<(), String> {
        self.wal().retry_spare();
        self.wal().idle().map_err(text)
    }

    fn run_chore(&mut self) -> Result<(), String> {
        let Some(chore) = self.chore.take() else { return Ok(()) };
        self.done = Some(chore.run().map_err(text)?);
        Ok(())
    }

    fn chores(&mut self) -> Result<(), String> {
        loop {
            self.run_chore()?;
            if let Some(done) = self.done.take() {
                self.wal().chore_done(done).map_err(text)?;
            }
            self.chore = self.wal().next_chore();
            if self.chore.is_none() || self.wal().no_space() {
                return Ok(());
            }
        }
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}
