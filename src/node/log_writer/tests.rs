//! The log writer by hand: one order, one turn and one sync at a time, on a model disk.

use std::path::Path;

use bytes::Bytes;
use raftmap_storage::model::{self, Effect, ModelFs, Op};
use raftmap_storage::types::{ClusterId, Entry, HardState, NodeId, Position, SnapshotMark, Term};
use raftmap_storage::{Identity, Options, Recovered, snapshot};

use super::*;

const DIR: &str = "/log";
const CLUSTER: ClusterId = ClusterId([1; 16]);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn open(fs: &ModelFs) -> (Wal<ModelFs>, Recovered) {
    let identity = Identity { cluster: CLUSTER, node: NodeId(1) };
    let options = Options { segment_bytes: 12_288, payload_max: 2_000, spares: 1, batch_bytes: 2_500 };
    raftmap_storage::open(fs.clone(), Path::new(DIR), identity, options).unwrap()
}

/// A writer, its disk and the clock.
struct Bench {
    fs: ModelFs,
    writer: LogWriter<ModelFs>,
    now: Duration,
    /// Batches and entries so far.
    batches: u64,
    entries: u64,
}

impl Bench {
    /// The next such sync fails, and what it should have written is gone.
    fn drop_next(&self, op: Op) {
        self.fs.fail(model::Fault { on: Some(op), after: 0, effect: Effect::SyncDropped, lasting: false });
    }

    fn new() -> Self {
        let fs = ModelFs::new(1);
        let (wal, _) = open(&fs);
        Self { fs, writer: LogWriter::new(wal), now: Duration::ZERO, batches: 0, entries: 0 }
    }

    /// One whose spare is made and whose witness is synced.
    fn quiet() -> Self {
        let mut bench = Self::new();
        bench.vote(1);
        bench.settle();
        bench.now = ms(100);
        assert_eq!(bench.turn().step, Step::SyncWitness);
        bench.writer.sync_witness().unwrap();
        bench
    }

    fn take(&mut self, order: Order<ModelFs>) {
        self.writer.take(order, self.now).unwrap();
    }

    fn turn(&mut self) -> Turn<ModelFs> {
        self.writer.turn(self.now)
    }

    fn submit(&mut self, batch: Batch) {
        self.batches += 1;
        self.take(Order::Write(BatchNumber(self.batches), batch));
    }

    fn vote(&mut self, term: u64) {
        let hard_state = HardState { term: Term(term), vote: None };
        self.submit(Batch { hard_state: Some(hard_state), ..Batch::default() });
    }

    fn entry(&mut self, bytes: usize) {
        self.entries += 1;
        let entry = Entry::new(Position::new(self.entries, 1), Bytes::from(vec![7; bytes]));
        self.submit(Batch { entries: vec![entry], ..Batch::default() });
    }

    fn mark_snapshot(&mut self) {
        let header = snapshot::Header {
            position: Position::new(self.entries, 1),
            cluster: CLUSTER,
            membership: raftmap_storage::types::Membership { voters: [NodeId(1)].into() },
        };
        let writer = snapshot::Writer::create(self.fs.clone(), Path::new(DIR), header).unwrap();
        let mark = SnapshotMark { snapshot: writer.publish().unwrap(), reset: false };
        self.submit(Batch { snapshot: Some(mark), ..Batch::default() });
    }

    fn sync(&mut self) -> Option<Durable> {
        let synced = self.writer.sync().unwrap();
        match self.writer.synced(synced, self.now) {
            Some(Input::Durable(durable)) => Some(durable),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    fn run(&mut self, chore: Chore<ModelFs>) {
        self.take(Order::ChoreDone(chore.run()));
    }

    /// Turns until there is nothing to be done at this time.
    fn settle(&mut self) {
        loop {
            let Turn { chore, step, .. } = self.turn();
            let worked = chore.is_some();
            chore.into_iter().for_each(|chore| self.run(chore));
            match step {
                Step::Sync => drop(self.sync()),
                Step::SyncWitness | Step::Wait(_) | Step::End if !worked => return,
                Step::SyncWitness | Step::Wait(_) | Step::End => {}
            }
        }
    }

    /// Its spare is in use and there is room for no other one. The chore that found that is taken.
    fn full(mut self) -> Self {
        self.fs.set_quota(Some(self.fs.used() + 500));
        while self.writer.wal.stats().rotations == 0 {
            self.entry(600);
            assert_eq!(self.turn().step, Step::Sync);
            self.sync();
        }
        let chore = self.turn().chore.expect("another spare is wanted");
        self.run(chore);
        self
    }

    fn segments(&self) -> usize {
        self.fs.list(Path::new(DIR)).unwrap().iter().filter(|name| name.starts_with("seg-")).count()
    }
}

#[test]
fn whatever_waits_goes_into_one_sync() {
    let mut bench = Bench::quiet();
    let before = bench.writer.wal.stats().syncs;
    (0..3).for_each(|_| bench.entry(100));
    assert_eq!(bench.turn().step, Step::Sync);
    bench.now += ms(7);
    let durable = bench.sync().unwrap();
    assert_eq!((durable.through, durable.took), (Some(BatchNumber(bench.batches)), ms(7)));
    assert_eq!(bench.writer.wal.stats().syncs, before + 1);
    assert_eq!(bench.turn().step, Step::Wait(Some(bench.now + QUIET)));
}

#[test]
fn a_chore_goes_out_before_the_sync_and_may_end_in_its_midst() {
    let mut bench = Bench::new();
    bench.vote(1);
    let Turn { chore, step, .. } = bench.turn();
    assert_eq!(step, Step::Sync);
    // Its end is an order like any other: taken behind the sync.
    let done = chore.expect("a spare").run();
    assert_eq!(bench.sync().unwrap().through, Some(BatchNumber(1)));
    bench.take(Order::ChoreDone(done));
    assert!(bench.turn().chore.is_none(), "one spare is enough");
}

#[test]
fn what_does_not_fit_waits_for_a_spare_and_for_nothing_else() {
    let mut bench = Bench::new();
    bench.vote(1);
    let spare = bench.turn().chore.expect("a spare");
    (0..9).for_each(|_| bench.entry(1_000));
    let waits = loop {
        match bench.turn().step {
            Step::Sync => drop(bench.sync()),
            step => break step,
        }
    };
    assert_eq!(waits, Step::Wait(Some(QUIET)));
    bench.entry(1_000);
    assert_eq!(bench.turn().step, waits, "more of what does not fit");
    bench.run(spare);
    assert_eq!(bench.turn().step, Step::Sync);
    assert!(bench.sync().unwrap().sealed.is_some());
    bench.settle();
    assert!(!bench.writer.wal.queued());
}

#[test]
fn a_full_disk_is_told_once_asked_again_after_a_pause_and_may_have_room_then() {
    let mut bench = Bench::quiet().full();
    let Turn { tell, chore, .. } = bench.turn();
    assert!(matches!(tell, Some(Input::NoSpace(true))) && chore.is_none(), "{tell:?}");
    bench.writer.sync_witness().unwrap();
    let due = bench.now + NO_SPACE_PAUSE;
    for free in [false, true] {
        let Turn { tell, chore, step } = bench.turn();
        assert!(tell.is_none() && chore.is_none(), "nothing is new");
        let Step::Wait(Some(until)) = step else { panic!("{step:?}") };
        assert_eq!(until, if free { due + NO_SPACE_PAUSE } else { due });
        bench.now = until;
        bench.fs.set_quota(if free { None } else { Some(bench.fs.used()) });
        let chore = bench.turn().chore.expect("asked again");
        bench.run(chore);
    }
    let Turn { tell, step, .. } = bench.turn();
    assert!(matches!(tell, Some(Input::NoSpace(false))), "{tell:?}");
    assert_eq!(step, Step::Wait(None));
}

#[test]
fn a_full_disk_is_asked_again_although_batches_keep_coming() {
    let mut bench = Bench::quiet().full();
    bench.fs.set_quota(None);
    let end = bench.now + NO_SPACE_PAUSE;
    while bench.now < end {
        assert!(bench.turn().chore.is_none(), "before its time");
        bench.now += QUIET / 5;
        bench.vote(bench.batches);
        bench.sync();
    }
    assert!(bench.turn().chore.is_some(), "never quiet, and never asked");
}

#[test]
fn a_full_disk_puts_no_purge_off() {
    let mut bench = Bench::quiet().full();
    let before = bench.segments();
    bench.mark_snapshot();
    assert_eq!(bench.turn().step, Step::Sync);
    bench.sync();
    let purge = bench.turn().chore.expect("what the snapshot replaced can go");
    bench.run(purge);
    assert_eq!(bench.segments(), before - 1);
    let spare = bench.turn().chore.expect("there is room again");
    bench.run(spare);
    assert!(matches!(bench.turn().tell, None | Some(Input::NoSpace(false))));
    assert!(!bench.writer.wal.no_space());
}

#[test]
fn a_failed_sync_is_final() {
    let mut bench = Bench::quiet();
    bench.drop_next(Op::SyncData);
    bench.entry(100);
    assert_eq!(bench.turn().step, Step::Sync);
    assert!(matches!(bench.writer.sync(), Err(StoreError::Io { op: "sync", .. })));
    assert!(matches!(bench.writer.sync(), Err(StoreError::Failed { .. })));
    assert!(matches!(bench.writer.sync_witness(), Err(StoreError::Failed { .. })));
    let order = Order::Write(BatchNumber(9), Batch::default());
    assert!(matches!(bench.writer.take(order, bench.now), Err(StoreError::Failed { .. })));
    assert!(bench.turn().chore.is_none());
}

#[test]
fn a_failed_chore_is_final() {
    let mut bench = Bench::new();
    bench.drop_next(Op::SyncDir);
    let done = bench.turn().chore.expect("a spare").run();
    assert!(matches!(bench.writer.take(Order::ChoreDone(done), bench.now), Err(StoreError::Io { .. })));
    assert!(matches!(bench.writer.sync(), Err(StoreError::Failed { .. })));
    assert!(bench.turn().chore.is_none());
}

#[test]
fn a_quiet_log_syncs_its_witness_once_and_sleeps() {
    let mut bench = Bench::new();
    bench.vote(1);
    bench.settle();
    bench.now = ms(49);
    assert_eq!(bench.turn().step, Step::Wait(Some(QUIET)));
    bench.vote(2);
    assert_eq!(bench.turn().step, Step::Sync);
    bench.sync();
    bench.now = QUIET;
    assert_eq!(bench.turn().step, Step::Wait(Some(ms(49) + QUIET)), "put off by the batch");
    bench.now = ms(99);
    assert_eq!(bench.turn().step, Step::SyncWitness);
    let before = bench.writer.wal.stats().idle_syncs;
    bench.writer.sync_witness().unwrap();
    assert_eq!(bench.writer.wal.stats().idle_syncs, before + 1);
    assert_eq!(bench.turn().step, Step::Wait(None));
}

#[test]
fn a_quiet_log_lets_go_what_its_last_witness_made_superfluous() {
    let mut bench = Bench::quiet();
    while bench.writer.wal.stats().rotations == 0 {
        bench.entry(600);
        bench.mark_snapshot();
        bench.settle();
    }
    let before = bench.segments();
    bench.now += QUIET;
    assert_eq!(bench.turn().step, Step::SyncWitness);
    bench.writer.sync_witness().unwrap();
    let purge = bench.turn().chore.expect("the OPEN is durable now");
    bench.run(purge);
    assert!(bench.segments() < before);
}

#[test]
fn an_orderly_stop_writes_everything_that_is_queued() {
    // Its spare is still to be made.
    let mut bench = Bench::new();
    bench.vote(1);
    // More than one write takes.
    (0..3).for_each(|_| bench.entry(1_500));
    bench.take(Order::Stop);
    let mut steps = Vec::new();
    while steps.last() != Some(&Step::End) {
        let Turn { chore, step, .. } = bench.turn();
        assert!(chore.is_none(), "nobody waits for its end");
        match step {
            Step::Sync => drop(bench.sync()),
            Step::SyncWitness => bench.writer.sync_witness().unwrap(),
            Step::Wait(_) | Step::End => {}
        }
        steps.push(step);
    }
    assert_eq!(steps, [Step::Sync, Step::Sync, Step::Sync, Step::SyncWitness, Step::End]);
    let disk = bench.fs.cut(model::Cut::LoseAll);
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.last.index.0, bench.entries);
}
