//! A frame that was cut off once and comes back later, behind a new frame of the old one's length. It takes a power
//! cut that keeps the back of a batch and loses its front, a recovery whose sync fails after the zeros were seen, a
//! second one that sees zeros where the disk holds the frame, and a page boundary right between the two frames: behind
//! it nothing is written again that the page cache takes for clean.

use raftmap_storage::model::{Effect, Fault, ModelFs, Op};
use raftmap_storage::types::{Batch, Entry, FRAME_HEADER, HardState, Position, Term};
use raftmap_storage::{OpenError, Options, Recovered, Wal, open};

use crate::sample;
use crate::story::{Item, State};
use crate::world::{dir, identity, read_state};

const PAGE: u64 = 4096;

fn open_wide(fs: &ModelFs) -> Result<(Wal<ModelFs>, Recovered), OpenError> {
    let options = Options { segment_bytes: 4 * PAGE, payload_max: 5000, spares: 1, batch_bytes: 16384 };
    open(fs.clone(), dir(), identity(), options)
}

fn open_and_read(fs: &ModelFs) -> (Wal<ModelFs>, State) {
    let (wal, recovered) = open_wide(fs).unwrap();
    (wal, read_state(&recovered).unwrap())
}

fn item(serial: u64, size: usize) -> Item {
    Item { term: Term(1), serial, size }
}

fn write(wal: &mut Wal<ModelFs>, first: u64, items: &[Item]) {
    let numbered = items.iter().zip(first..);
    let entries = numbered.map(|(item, index)| Entry::new(Position::new(index, 1), item.payload())).collect();
    let hard_state = (first == 1).then_some(HardState { term: Term(1), vote: None });
    wal.push(first, Batch { hard_state, entries, ..Batch::default() }).unwrap();
    while wal.queued() {
        assert!(!wal.sync().unwrap().waiting_for_spare);
    }
}

/// The disk while a batch is written whose second frame begins a page; and the sizes of the two.
fn front_and_back() -> (ModelFs, usize) {
    let fs = ModelFs::new(31);
    let (mut wal, _) = open_and_read(&fs);
    write(&mut wal, 1, &[item(1, 100)]);
    wal.idle().unwrap();
    let front = (2 * PAGE - wal.durable().offset() - FRAME_HEADER) as usize;
    fs.keep_photos();
    write(&mut wal, 2, &[item(2, front), item(3, 100)]);
    let photos = fs.take_photos();
    (photos[1].1.clone(), front)
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let (written, front) = front_and_back();
    let mut cut_off = 0;
    for torn in written.cuts(sample(60, 1 << 12), 1) {
        for nth in 0.. {
            let failing = torn.kill();
            let sync =
                Fault { on: Some(Op::SyncData), after: nth, effect: Effect::SyncDropped, lasting: false };
            failing.fail(sync);
            if open_wide(&failing).is_ok() {
                break;
            }
            let fs = failing.kill();
            let (mut wal, mut state) = open_and_read(&fs);
            cut_off += u64::from(state.items.len() == 1);
            let new = item(100, front);
            write(&mut wal, state.last().index.0 + 1, &[new]);
            drop(wal);
            state.items.push(new);
            for after in fs.cuts(sample(8, 256), nth) {
                assert_eq!(open_and_read(&after).1, state, "sync {nth} of the first recovery failed");
            }
        }
    }
    assert!(cut_off > 20, "the front was lost {cut_off} times only");
}
