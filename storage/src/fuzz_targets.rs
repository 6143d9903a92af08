//! The bodies of the fuzz targets in `fuzz/`. They stand here so that `cargo test` runs the same code over the same
//! corpora, without nightly. Each takes any bytes, and panics where the code is wrong.

#![allow(clippy::panic, reason = "a fuzz target tells what is wrong by panicking")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;

use crate::lsn::Lsn;
use crate::model::{Cut, ModelFs};
use crate::node_file::Identity;
use crate::record::{self, Found, Seed};
use crate::recover::{Recovered, open};
use crate::segment::{self, Header};
use crate::snapshot;
use crate::types::{
    Batch, ClusterId, DiskId, Entry, FRAME_HEADER, HardState, Index, Membership, NodeId, Position,
    SnapshotMark, Term, frame_len, payload_crc,
};
use crate::verify::{DumpLine, dump, verify};
use crate::{Options, Wal};

/// The log decoder. Whatever the bytes are, reading them does not panic; what it takes for a frame is what the encoder
/// makes of it again, bit for bit.
///
/// Input: salt (8 bytes), segment id (4), offset (4), then the file.
pub fn record(data: &[u8]) {
    let Some((head, file)) = data.split_first_chunk::<16>() else { return };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let salt = u64::from(number(0)) | u64::from(number(4)) << 32;
    let header =
        Header { disk: DiskId::default(), id: u64::from(number(8)), salt, capacity: file.len() as u64 };
    let seed = Seed::new(&header);
    let offset = u64::from(number(12)) % (file.len() as u64 + 1) / 8 * 8;
    check_frame(&seed, file, offset);
    record::highest_promise(&seed, file, offset);
    // Few inputs have the right checksums; so also with them put right.
    let mut sealed = file.to_vec();
    if seal_frame(&seed, &mut sealed, offset) {
        assert!(
            matches!(record::read(&seed, &sealed, offset), Found::Valid(_)),
            "a sealed frame is not valid"
        );
        assert!(record::highest_promise(&seed, &sealed, offset).is_some(), "a valid frame is no witness");
        check_frame(&seed, &sealed, offset);
    }
}

fn check_frame(seed: &Seed, file: &[u8], offset: u64) {
    let Found::Valid(frame) = record::read(seed, file, offset) else { return };
    let Ok(said) = frame.record() else { return };
    let mut again = Vec::new();
    record::encode(&said, frame.durable, seed, offset, &mut again);
    let start = offset as usize;
    assert_eq!(file.get(start..start + again.len()), Some(&again[..]), "{said:?} is encoded otherwise");
}

/// Makes what stands at `offset` a frame with sound checksums: kind, place, term and payload stay what they are.
fn seal_frame(seed: &Seed, file: &mut [u8], offset: u64) -> bool {
    const HEADER: usize = FRAME_HEADER as usize;
    let Some(frame) = file.get_mut(offset as usize..).filter(|frame| frame.len() >= HEADER) else {
        return false;
    };
    if frame[0] == 0 {
        return false;
    }
    let (header, payload) = frame.split_at_mut(HEADER);
    let field = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let length = (field(0) >> 32) as usize % (payload.len() / 8 * 8 + 1);
    let (payload, rest) = payload.split_at_mut(length);
    let padding = rest.len().min(length.next_multiple_of(8) - length);
    rest[..padding].fill(0);
    let crc = payload_crc(Position::new(field(8), field(16)), payload);
    header[1..4].fill(0);
    header[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    header[32..36].copy_from_slice(&crc.to_le_bytes());
    let crc = seed.header_crc(offset, &header[..36]);
    header[36..40].copy_from_slice(&crc.to_le_bytes());
    true
}

/// Opening a directory that holds anything. It does not panic; it opens or says why not; opening again says the same;
/// and the offline check, before, says the same again. Where a log of ours was damaged and not forged, what opens holds
/// every entry that an intact frame behind it knows to be on the disk. Returns the bytes of the directory, for whoever watches memory.
///
/// Input: the number of the log to begin with, then edits of 8 bytes each, see `edit`. An odd number above 127 stands
/// for an empty directory and files given raw, see `raw`.
pub fn wal_open(data: &[u8]) -> u64 {
    let Some((&first, rest)) = data.split_first() else { return 0 };
    let (fs, damaged) = match first {
        128.. if first % 2 == 1 => (raw(rest), None),
        _ => {
            let templates = templates();
            let template = &templates[usize::from(first) % templates.len()];
            let (fs, steps) = (template.fs.kill(), rest.as_chunks::<8>().0);
            let steps = &steps[..steps.len().min(64)];
            steps.iter().for_each(|step| edit(&fs, step));
            let forged = steps.iter().any(|[what, ..]| FORGING.contains(&(what % EDITS)));
            (fs, (!forged).then_some(template))
        }
    };
    let size = fs.used();
    let proven = damaged.map(|template| template.proven(&fs)).unwrap_or_default();
    let checked = verify(fs.kill(), dir(), |_| ());
    let once = open_and_tell(&fs);
    let again = open_and_tell(&fs.kill());
    assert_eq!(once, again, "opened twice, told differently");
    assert_eq!(once.is_ok(), open_and_tell(&fs.cut(Cut::LoseAll)).is_ok(), "opened, and lost with the power");
    if let Ok((_, _, snapshot, entries)) = &once {
        let base = snapshot.map_or(Index(0), |snapshot| snapshot.position.index);
        let lost = proven.iter().find(|entry| entry.position.index > base && !entries.contains(entry));
        assert!(lost.is_none(), "{:?} is lost, and an intact frame knows that it was synced", lost);
    }
    match (checked, &once) {
        (Ok(sound), Ok(told)) => {
            assert_eq!(
                (sound.hard_state, sound.last, sound.snapshot),
                (told.0, told.1, told.2),
                "another log offline"
            );
        }
        // Whose log it is, only opening asks.
        (_, Err(refused)) if refused.contains(" belongs to node ") => {}
        (Err(error), Err(refused)) => {
            assert_eq!(&error.to_string(), refused, "the offline check says otherwise");
            assert!(refused.contains(&*dir().to_string_lossy()), "it does not say where: {refused}");
        }
        // Nothing in it, or only what is left of an unfinished making: opening makes it.
        (Err(_), Ok(told)) => assert_eq!(told.1, Position::ZERO, "refused offline, opened with entries"),
        (Ok(_), Err(refused)) => panic!("sound offline, and not opened: {refused}"),
    }
    size
}

/// Bytes of memory that [`wal_open`] may take for a directory of so many bytes: the disk's copies, and the log's own.
/// The fixed part covers the logs that are made once.
pub fn memory_bound(directory: u64) -> u64 {
    32 * directory + 8 * 1024 * 1024
}

type Told = (HardState, Position, Option<crate::types::SnapshotId>, Vec<Entry>);

fn open_and_tell(fs: &ModelFs) -> Result<Told, String> {
    let (wal, recovered) =
        open(fs.clone(), dir(), identity(), options()).map_err(|error| error.to_string())?;
    drop(wal);
    let entries = every_entry(&recovered);
    Ok((recovered.hard_state, recovered.last, recovered.snapshot, entries))
}

fn every_entry(recovered: &Recovered) -> Vec<Entry> {
    let base = recovered.snapshot.map_or(0, |snapshot| snapshot.position.index.0);
    let read = |index| {
        let in_tail = recovered.tail.iter().find(|entry| entry.position.index == index).cloned();
        in_tail.or_else(|| crate::find(&recovered.sealed, index)?.entry(index).ok())
    };
    let entries = (0..recovered.log.len()).map(|at| read(Index(base + 1 + at as u64)));
    entries.map(|entry| entry.unwrap_or_else(|| panic!("an entry of an opened log is not there"))).collect()
}

fn dir() -> &'static Path {
    Path::new("/data")
}

fn identity() -> Identity {
    Identity { cluster: ClusterId([7; 16]), node: NodeId(1) }
}

fn options() -> Options {
    Options { segment_bytes: 8192, payload_max: 600, spares: 1, batch_bytes: 2048 }
}

/// The names that files in a directory may have.
fn name(number: u8) -> PathBuf {
    dir().join(match number % 12 {
        0 => "NODE".to_owned(),
        1..=6 => segment::file_name(u64::from(number % 12)),
        7 => snapshot::file_name(Position::new(8, 1)),
        8 => snapshot::file_name(Position::new(3, 1)),
        9 => "tmp-000001".to_owned(),
        10 => "LOCK".to_owned(),
        _ => "seg-1.wal".to_owned(),
    })
}

/// An empty directory and files: name number, length (2 bytes), content; and so on.
fn raw(mut data: &[u8]) -> ModelFs {
    let fs = ModelFs::new(1);
    while let Some(([number, low, high], rest)) = data.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, later) = rest.split_at(length);
        fs.put(&name(*number), content.to_vec());
        data = later;
    }
    fs
}

/// Kinds of edits, and those that make checksums sound again: what they leave may be another log.
const EDITS: u8 = 10;
const FORGING: [u8; 2] = [8, 9];

/// One edit: what (1 byte), name number (1), value (2), offset (4).
fn edit(fs: &ModelFs, step: &[u8; 8]) {
    let [what, number, low, high, at @ ..] = *step;
    let (path, value) = (name(number), u16::from_le_bytes([low, high]));
    let offset = u32::from_le_bytes(at) as usize;
    let Some(bytes) = fs.peek(&path) else { return };
    let offset = offset % (bytes.len() + 1);
    match what % EDITS {
        0 => drop(fs.flip(&path, offset, low)),
        1 => change(fs, &path, |bytes| put(bytes, offset, &[low])),
        2 => change(fs, &path, |bytes| put(bytes, offset, &value.to_le_bytes())),
        3 => change(fs, &path, |bytes| bytes.truncate(offset)),
        4 => change(fs, &path, |bytes| bytes.resize(bytes.len() + usize::from(value), 0)),
        5 => fs.delete(&path),
        6 => fs.put(&name(low), bytes),
        7 => change(fs, &path, |bytes| put(bytes, offset, &vec![0; usize::from(value)])),
        8 => change(fs, &path, |bytes| seal_in_place(bytes, offset as u64 / 8 * 8)),
        _ => change(fs, &path, |bytes| {
            let crc = bytes.get(..60).map(crc32fast::hash).unwrap_or_default();
            put(bytes, 60, &crc.to_le_bytes());
        }),
    }
}

fn change(fs: &ModelFs, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    fs.damage(path, |bytes| {
        change(bytes);
        true
    });
}

fn put(bytes: &mut [u8], offset: usize, new: &[u8]) {
    let there = bytes.get_mut(offset..).unwrap_or_default();
    let length = there.len().min(new.len());
    there[..length].copy_from_slice(&new[..length]);
}

fn seal_in_place(bytes: &mut [u8], offset: u64) {
    if let Ok(header) = Header::decode(bytes.get(..segment::HEADER_LEN as usize).unwrap_or_default()) {
        seal_frame(&Seed::new(&header), bytes, offset);
    }
}

/// Logs to begin with: made, little in it, some segments with a snapshot, and one that was killed.
fn templates() -> &'static [Template] {
    static TEMPLATES: OnceLock<Vec<Template>> = OnceLock::new();
    let made = |number| Template::of(template(number).unwrap_or_else(|| ModelFs::new(1)));
    TEMPLATES.get_or_init(|| (0..4).map(made).collect())
}

/// A log, its entries, and where its frames stand.
struct Template {
    fs: ModelFs,
    entries: Vec<Entry>,
    frames: Vec<Stands>,
}

/// A frame in its place.
struct Stands {
    at: Lsn,
    bytes: Vec<u8>,
    /// The entry it speaks of.
    position: Position,
    durable: Lsn,
}

impl Template {
    fn of(fs: ModelFs) -> Self {
        let mut frames = Vec::new();
        let show = |line| {
            if let DumpLine::Frame { at, position, payload_len, durable, .. } = line {
                let bytes = bytes_at(&fs, at, frame_len(payload_len)).unwrap_or_default();
                frames.push(Stands { at, bytes, position, durable });
            }
        };
        assert!(dump(fs.kill(), dir(), show).is_ok(), "a log to begin with is sound");
        let entries = open_and_tell(&fs.kill()).map_or_else(|error| panic!("{error}"), |told| told.3);
        Self { fs, entries, frames }
    }

    /// The entries whose frames end where, by a frame that is still intact in `fs`, everything is on the disk.
    fn proven(&self, fs: &ModelFs) -> Vec<&Entry> {
        let intact = |frame: &&Stands| {
            bytes_at(fs, frame.at, frame.bytes.len() as u64).is_some_and(|bytes| bytes == frame.bytes)
        };
        let durable = self.frames.iter().filter(intact).map(|frame| frame.durable).max().unwrap_or_default();
        let on_disk = |entry: &&Entry| {
            let mut frames = self.frames.iter().filter(|frame| frame.position == entry.position);
            frames.any(|frame| frame.at.0 + frame.bytes.len() as u64 <= durable.0)
        };
        self.entries.iter().filter(on_disk).collect()
    }
}

fn bytes_at(fs: &ModelFs, at: Lsn, length: u64) -> Option<Vec<u8>> {
    let bytes = fs.peek(&dir().join(segment::file_name(at.segment())))?;
    let start = at.offset() as usize;
    bytes.get(start..start + length as usize).map(<[u8]>::to_vec)
}

fn template(number: u64) -> Option<ModelFs> {
    let fs = ModelFs::new(number);
    let (mut wal, _) = open(fs.clone(), dir(), identity(), options()).ok()?;
    let entries = [0, 3, 20, 9][number as usize % 4];
    for index in 1..=entries {
        append(&mut wal, index)?;
        if index == 8 {
            mark_snapshot(&fs, &mut wal, index)?;
        }
    }
    if number == 3 {
        wal.push(100, Batch { truncate: Some(Position::new(8, 1)), ..Batch::default() }).ok()?;
        let _ = wal.sync().ok()?;
        return Some(fs.kill());
    }
    wal.idle().ok()?;
    drop(wal);
    Some(fs.cut(Cut::LoseAll))
}

fn append(wal: &mut Wal<ModelFs>, index: u64) -> Option<()> {
    let hard_state = (index == 1).then_some(HardState { term: Term(1), vote: Some(NodeId(1)) });
    let payload = Bytes::from(vec![index as u8; 40 * (index as usize % 15)]);
    let entries = vec![Entry::new(Position::new(index, 1), payload)];
    wal.push(index, Batch { hard_state, entries, ..Batch::default() }).ok()?;
    sync(wal)
}

fn sync(wal: &mut Wal<ModelFs>) -> Option<()> {
    while wal.queued() {
        let _ = wal.sync().ok()?;
        while let Some(chore) = wal.next_chore() {
            wal.chore_done(chore.run().ok()?).ok()?;
        }
    }
    Some(())
}

fn mark_snapshot(fs: &ModelFs, wal: &mut Wal<ModelFs>, index: u64) -> Option<()> {
    let membership = Membership { voters: [NodeId(1)].into() };
    let header =
        snapshot::Header { position: Position::new(index, 1), cluster: identity().cluster, membership };
    let mut writer = snapshot::Writer::create(fs.clone(), dir(), header).ok()?;
    writer.write(b"content").ok()?;
    let mark = SnapshotMark { snapshot: writer.publish().ok()?, reset: false };
    wal.push(50 + index, Batch { snapshot: Some(mark), ..Batch::default() }).ok()?;
    sync(wal)
}
