//! Tests of the log as its owner sees it, on the model disk and on real files.

mod counting;
mod damage;
mod forged;
mod os;
mod recovery;
mod threads;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::fs::Fs;
use crate::model::ModelFs;
use crate::snapshot;
use crate::types::{
    Batch, ClusterId, Entry, HardState, Index, Membership, NodeId, Position, SnapshotId, SnapshotMark, Term,
};
use crate::{Identity, OpenError, Options, Recovered, SealedSegment, StoreError, Synced, Wal, find, open};

const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
const IDENTITY: Identity = Identity { cluster: CLUSTER, node: NodeId(1) };
const DIR: &str = "/data/1";
const PAYLOAD_MAX: u32 = 1024;

/// Segments of 8 KiB: 4 KiB of header, and a few dozen small entries.
fn options() -> Options {
    Options { segment_bytes: 8192, payload_max: PAYLOAD_MAX, spares: 1, batch_bytes: 1 << 20 }
}

/// A log and what a node would keep beside it.
struct Log<F: Fs> {
    fs: F,
    dir: PathBuf,
    wal: Wal<F>,
    recovered: Recovered,
    sealed: Vec<Arc<SealedSegment>>,
    last: Position,
    number: u64,
}

fn open_model(fs: &ModelFs) -> Result<Log<ModelFs>, OpenError> {
    Log::open(fs, Path::new(DIR), options())
}

impl<F: Fs> Log<F> {
    fn open(fs: &F, dir: &Path, options: Options) -> Result<Self, OpenError> {
        let (wal, recovered) = open(fs.clone(), dir, IDENTITY, options)?;
        let sealed = recovered.sealed.clone();
        let last = recovered.last;
        Ok(Self { fs: fs.clone(), dir: dir.to_owned(), wal, recovered, sealed, last, number: 0 })
    }

    /// Queues a batch.
    fn push(&mut self, batch: Batch) -> u64 {
        self.number += 1;
        self.wal.push(self.number, batch).unwrap();
        self.number
    }

    /// Syncs once, and notes what was sealed.
    fn sync(&mut self) -> Result<Synced, StoreError> {
        let synced = self.wal.sync()?;
        self.sealed.extend(synced.sealed.clone());
        Ok(synced)
    }

    fn chores(&mut self) {
        while let Some(chore) = self.wal.next_chore() {
            let done = chore.run().unwrap();
            let stop = done.no_space();
            self.wal.chore_done(done).unwrap();
            if stop {
                break;
            }
        }
    }

    /// Syncs, with chores as needed, until nothing is queued.
    fn settle(&mut self) {
        while self.wal.queued() {
            let _ = self.sync().unwrap();
            self.chores();
        }
    }

    fn hard_state(&mut self, term: u64, vote: Option<u64>) {
        let hard_state = HardState { term: Term(term), vote: vote.map(NodeId) };
        self.push(Batch { hard_state: Some(hard_state), ..Batch::default() });
    }

    /// Queues entries of the log's term, each with its index in its payload.
    fn entries(&mut self, count: u64, term: u64, len: usize) {
        let entries: Vec<Entry> = (1..=count).map(|at| entry(self.last.index.0 + at, term, len)).collect();
        self.last = entries.last().map_or(self.last, |entry| entry.position);
        self.push(Batch { entries, ..Batch::default() });
    }

    fn truncate(&mut self, index: u64, term: u64) {
        self.last = Position::new(index, term);
        self.push(Batch { truncate: Some(self.last), ..Batch::default() });
    }

    /// Publishes a snapshot file and queues its record.
    fn snapshot(&mut self, index: u64, term: u64, reset: bool) -> SnapshotId {
        let snapshot = publish(&self.fs, &self.dir, index, term);
        if reset {
            self.last = snapshot.position;
        }
        self.push(Batch { snapshot: Some(SnapshotMark { snapshot, reset }), ..Batch::default() });
        snapshot
    }

    /// An entry from a sealed segment.
    fn older(&self, index: u64) -> Entry {
        find(&self.sealed, Index(index)).unwrap().entry(Index(index)).unwrap()
    }

    /// Every entry that recovery found, from the sealed segments and the tail.
    fn all(&self) -> Vec<Entry> {
        let base = self.recovered.snapshot.map_or(0, |snapshot| snapshot.position.index.0);
        let tail_from = self.recovered.tail.first().map_or(u64::MAX, |entry| entry.position.index.0);
        (base + 1..=self.recovered.last.index.0)
            .map(|index| match index.checked_sub(tail_from) {
                Some(at) => self.recovered.tail[at as usize].clone(),
                None => self.older(index),
            })
            .collect()
    }
}

fn publish<F: Fs>(fs: &F, dir: &Path, index: u64, term: u64) -> SnapshotId {
    let membership = Membership { voters: [NodeId(1)].into() };
    let header = snapshot::Header { position: Position::new(index, term), cluster: CLUSTER, membership };
    let mut writer = snapshot::Writer::create(fs.clone(), dir, header).unwrap();
    writer.write(format!("everything up to {index}").as_bytes()).unwrap();
    writer.publish().unwrap()
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    let mut payload = format!("{index}@{term} ").into_bytes();
    payload.resize(len.max(payload.len()), b'.');
    Entry::new(Position::new(index, term), Bytes::from(payload))
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64, len: usize) -> Vec<Entry> {
    range.map(|index| entry(index, term, len)).collect()
}

fn segment(id: u64) -> PathBuf {
    Path::new(DIR).join(crate::segment::file_name(id))
}

/// The segments there are.
fn segments(fs: &ModelFs) -> Vec<u64> {
    let names = fs.list(Path::new(DIR)).unwrap();
    names.iter().filter_map(|name| crate::segment::parse_file_name(name)).collect()
}

/// Segment, offset, kind, and what was known durable, of each frame.
fn frames(fs: &ModelFs) -> Vec<(u64, u64, &'static str, crate::Lsn)> {
    let mut frames = Vec::new();
    crate::dump(fs.kill(), Path::new(DIR), |line| {
        if let crate::DumpLine::Frame { at, kind, durable, .. } = line {
            frames.push((at.segment(), at.offset(), kind, durable));
        }
    })
    .unwrap();
    frames
}
