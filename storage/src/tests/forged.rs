//! Files that check out, sum by sum, and say what can never be: damage or another hand, and refused by name.

use super::*;
use crate::lsn::Lsn;
use crate::node_file::NodeFile;
use crate::record::{self, Open, Record, Seed};
use crate::segment::{HEADER_LEN, Header};
use crate::types::DiskId;

const DISK: DiskId = DiskId([7; 16]);
const CAPACITY: u64 = 8192;

/// A segment written by hand, frame by frame.
struct Forged {
    header: Header,
    bytes: Vec<u8>,
}

impl Forged {
    fn new(id: u64) -> Self {
        let header = Header { disk: DISK, id, salt: 99 + id, capacity: CAPACITY };
        let mut bytes = header.encode().to_vec();
        bytes.resize(HEADER_LEN as usize, 0);
        Self { header, bytes }
    }

    /// The first segment of a directory, begun as it is.
    fn first() -> Self {
        Self::new(1).frame(&Record::Open(opening(Lsn(0), Position::ZERO)), Lsn(0))
    }

    fn end(&self) -> Lsn {
        Lsn::new(self.header.id, self.bytes.len() as u64)
    }

    fn frame(mut self, record: &Record<'_>, durable: Lsn) -> Self {
        let offset = self.bytes.len() as u64;
        record::encode(record, durable, &Seed::new(&self.header), offset, &mut self.bytes);
        self
    }

    /// A frame that promises nothing new.
    fn then(self, record: &Record<'_>) -> Self {
        self.frame(record, Lsn(0))
    }

    fn synced(self) -> Self {
        let end = self.end();
        self.frame(&Record::Synced, end)
    }

    fn entries(mut self, range: std::ops::RangeInclusive<u64>, len: usize) -> Self {
        for made in entries(range, 1, len) {
            let record = Record::Entry {
                position: made.position,
                payload: &made.payload,
                payload_crc: made.payload_crc,
            };
            self = self.then(&record);
        }
        self
    }
}

fn opening(previous: Lsn, last: Position) -> Open {
    Open { previous, last, hard_state: HardState::default(), snapshot: None }
}

const fn state(term: u64, vote: Option<NodeId>) -> Record<'static> {
    Record::HardState(HardState { term: Term(term), vote })
}

const fn snapshot_at(index: u64, term: u64) -> SnapshotId {
    SnapshotId { position: Position::new(index, term), length: 1, digest: [1; 32] }
}

const fn mark(index: u64, term: u64, reset: bool) -> Record<'static> {
    Record::Snapshot(SnapshotMark { snapshot: snapshot_at(index, term), reset })
}

fn directory(segments: &[Forged]) -> ModelFs {
    let fs = ModelFs::new(1);
    fs.create_dir_all(Path::new(DIR)).unwrap();
    crate::node_file::write(&fs, Path::new(DIR), &NodeFile { disk: DISK, identity: IDENTITY }).unwrap();
    for Forged { header, bytes } in segments {
        let mut bytes = bytes.clone();
        bytes.resize(CAPACITY as usize, 0);
        fs.put(&segment(header.id), bytes);
    }
    fs
}

/// Opening and looking offline say the same, and the file stays as it is.
fn refused(segments: &[Forged], words: &str) {
    let fs = directory(segments);
    let bytes =
        |fs: &ModelFs| segments.iter().map(|forged| fs.peek(&segment(forged.header.id))).collect::<Vec<_>>();
    let before = bytes(&fs);
    let offline = crate::verify(fs.kill(), Path::new(DIR), |_| {}).map(|summary| summary.last);
    match (open_model(&fs).map(|log| log.recovered.last), offline) {
        (Err(OpenError::Damaged(online)), Err(offline)) => {
            assert!(online.what.contains(words), "{words}: {online}");
            assert_eq!(offline.to_string(), OpenError::Damaged(online).to_string());
        }
        other => panic!("{words}: {other:?}"),
    }
    assert!(bytes(&fs) == before, "{words}: left as it is");
}

#[test]
fn what_is_forged_well_is_opened() {
    let all = Forged::first().then(&state(1, Some(NodeId(1)))).entries(1..=3, 60).synced();
    assert_eq!(open_model(&directory(&[all])).unwrap().recovered.last, Position::new(3, 1));
}

#[test]
fn segments_begin_with_open_and_lead_to_the_next() {
    let open = Record::Open(opening(Lsn(0), Position::ZERO));
    refused(&[Forged::first().then(&open)], "OPEN is the first frame of a segment");
    refused(&[Forged::first().then(&Record::Seal { next: 3 })], "SEAL leads from segment 1 to 3");
    refused(&[Forged::first().then(&Record::Seal { next: 2 }), Forged::new(2).synced()], "OPEN is the first");
}

#[test]
fn promises_concern_the_past_and_grow() {
    let ahead = Lsn::new(1, CAPACITY);
    refused(&[Forged::first().frame(&state(1, None), ahead)], "durable_lsn 1:8192 at");
    refused(&[Forged::first().then(&state(1, None)).synced().then(&state(2, None))], "durable_lsn 0:0 at");
    let begun = Forged::first();
    let before = Lsn::new(1, HEADER_LEN);
    refused(&[begun.frame(&Record::Synced, before)], "speaks of 1:4096");
}

#[test]
fn room_is_kept_for_synced_and_seal() {
    let begun = Forged::first().then(&state(1, None));
    let room = (CAPACITY - begun.bytes.len() as u64 - record::RESERVE) as usize;
    let frame = crate::types::frame_len(0) as usize;
    let payload = vec![b'x'; room - frame + 8];
    let position = Position::new(1, 1);
    let made = Entry::new(position, Bytes::from(payload.clone()));
    let entry = Record::Entry { position, payload: &payload, payload_crc: made.payload_crc };
    refused(&[begun.then(&entry)], "a frame where room is kept");
}

#[test]
fn an_open_says_what_the_log_before_it_says() {
    let sealed = || Forged::first().then(&state(1, None)).entries(1..=2, 60).then(&Record::Seal { next: 2 });
    let end = sealed().end();
    let told =
        Open { hard_state: HardState { term: Term(1), vote: None }, ..opening(end, Position::new(2, 1)) };
    let next = |open: Open, durable| [sealed(), Forged::new(2).frame(&Record::Open(open), durable)];
    assert!(open_model(&directory(&next(told, end))).is_ok(), "as it should be");

    let other_vote = HardState { vote: Some(NodeId(3)), ..told.hard_state };
    refused(&next(Open { hard_state: other_vote, ..told }, end), "OPEN differs from the log before it");
    refused(&next(Open { last: Position::new(1, 1), ..told }, end), "OPEN differs from the log before it");
    let earlier = Lsn(end.0 - 8);
    refused(&next(Open { previous: earlier, ..told }, earlier), "OPEN differs from the log before it");
    refused(&next(Open { previous: earlier, ..told }, end), "OPEN vouches for");
}

/// A segment is begun only behind a SEAL that was synced. Here the OPEN is all that tells so: it vouches for less than stands
/// before it.
#[test]
fn a_segment_that_was_begun_convicts_the_one_before_it() {
    let cut = || Forged::first().then(&state(1, None)).entries(1..=3, 60);
    let early = Lsn::new(1, HEADER_LEN);
    let hard_state = HardState { term: Term(1), vote: None };
    let open = Record::Open(Open { hard_state, ..opening(early, Position::new(3, 1)) });
    refused(&[cut(), Forged::new(2).frame(&open, early)], "(segment 2 was begun behind it)");
    assert!(open_model(&directory(&[cut(), Forged::new(2)])).is_ok(), "one that was not does not");
}

/// The power may go between the making of the first spare and the first frame. Such a directory is made once more, under
/// the id that it has.
#[test]
fn a_directory_with_a_spare_and_no_frame_is_as_good_as_new() {
    let salt =
        |fs: &ModelFs| Header::decode(&fs.peek(&segment(1)).unwrap()[..HEADER_LEN as usize]).unwrap().salt;
    let fs = directory(&[Forged::first(), Forged::new(2)]);
    let log = open_model(&fs).unwrap();
    assert_eq!((log.recovered.last, log.wal.disk_id()), (Position::ZERO, DISK));
    assert_ne!(salt(&fs), Forged::first().header.salt, "made once more");

    // Whatever was written into the second says that the first was in use.
    let promise = Lsn::new(1, HEADER_LEN + record::OPEN_LEN);
    let mut torn = Forged::new(2).frame(&Record::Open(opening(promise, Position::ZERO)), promise);
    torn.bytes[(HEADER_LEN + record::OPEN_LEN) as usize - 16] ^= 1;
    for second in [torn, Forged::new(2).then(&Record::Synced)] {
        let used = directory(&[Forged::first(), second]);
        let _ = open_model(&used);
        assert_eq!(salt(&used), Forged::first().header.salt, "left alone");
    }
}

#[test]
fn a_log_has_no_gap_behind_its_snapshot() {
    let begins = |last, snapshot| {
        let open = Open {
            hard_state: HardState { term: Term(1), vote: None },
            snapshot,
            ..opening(Lsn(0), Position::new(last, 1))
        };
        [Forged::new(1).then(&Record::Open(open)).synced()]
    };
    refused(&begins(10, None), "covers entries up to 0 only");
    refused(&begins(10, Some(snapshot_at(4, 1))), "covers entries up to 4 only");
    refused(&begins(3, Some(snapshot_at(4, 1))), "are missing");
}

#[test]
fn terms_and_votes_do_not_go_back() {
    let voted = || Forged::first().then(&state(2, Some(NodeId(1))));
    refused(&[voted().then(&state(1, None))], "term 1 behind term 2");
    refused(&[voted().then(&state(2, Some(NodeId(2))))], "another vote in term 2");
    refused(&[voted().then(&state(2, None))], "another vote in term 2");
    assert!(open_model(&directory(&[voted().then(&state(2, Some(NodeId(1)))).synced()])).is_ok());
}

#[test]
fn entries_follow_one_another() {
    let three = || Forged::first().then(&state(1, None)).entries(1..=3, 60);
    refused(&[three().entries(5..=5, 60)], "entry");
    refused(&[three().entries(3..=3, 60)], "entry");
    refused(&[three().then(&Record::Truncate(Position::new(4, 1)))], "truncation to");
    refused(&[three().then(&Record::Truncate(Position::new(2, 0)))], "where the log has term 1");
    refused(&[three().then(&Record::Truncate(Position::new(3, 2)))], "where the log has term 1");
    let above = Forged::first().then(&state(1, None)).entries(1..=1, 60);
    refused(&[above.then(&state(3, None)).then(&Record::Truncate(Position::new(0, 1)))], "truncation to");
}

#[test]
fn a_snapshot_stands_for_what_the_log_holds() {
    let three = || Forged::first().then(&state(2, None)).entries(1..=3, 60);
    refused(&[three().then(&mark(2, 2, false))], "where the log has term 1");
    refused(&[three().then(&mark(4, 1, false))], "which is not in the log");
    refused(&[three().then(&mark(4, 3, true))], "in term 2");
    refused(&[three().then(&mark(0, 0, false))], "snapshot of");
    refused(&[three().then(&mark(2, 1, false)).then(&mark(1, 1, false))], "behind the snapshot of");
    refused(&[three().then(&mark(9, 2, true)).then(&mark(10, 1, true))], "behind the snapshot of");
    refused(
        &[three().then(&mark(2, 1, false)).then(&Record::Truncate(Position::new(1, 1)))],
        "below the snapshot",
    );
    // The entry is not known behind a reset, its place is.
    refused(&[three().then(&mark(9, 2, true)).then(&mark(9, 1, false))], "snapshot of");
}

/// A table of ours that leads astray never makes one entry pass for another, nor another frame for an entry.
#[test]
fn a_sealed_segment_gives_nothing_under_another_number() {
    let begun = Forged::first();
    let voted = begun.end().offset();
    let forged = begun.then(&state(1, None));
    let first = forged.end().offset();
    let Forged { header, bytes } = forged.entries(1..=2, 60);
    let sealed = |index, offset| {
        let mut table = crate::sealed::Table::default();
        table.push(index, offset);
        SealedSegment::new(segment(1), 1, Seed::new(&header), table, Bytes::from(bytes.clone())).entry(index)
    };
    assert_eq!(sealed(Index(1), first).unwrap().position, Position::new(1, 1));
    for astray in [sealed(Index(2), first), sealed(Index(1), voted)] {
        let error = astray.unwrap_err().to_string();
        assert!(error.contains("another frame instead of entry"), "{error}");
    }
}

/// The same directory, with one file of it sealed anew by `change`.
fn header_refused(at: usize, value: &[u8], words: &str) {
    let mut forged = Forged::first();
    forged.bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32fast::hash(&forged.bytes[..60]);
    forged.bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    refused(&[forged], words);
}

#[test]
fn a_sealed_segment_header_has_only_values_that_are_written() {
    header_refused(0, b"OTHERMAP", "wrong magic");
    header_refused(12, &1u32.to_le_bytes(), "never written");
    header_refused(56, &1u32.to_le_bytes(), "never written");
    header_refused(48, &12u64.to_le_bytes(), "never written");
    header_refused(48, &((1u64 << 30) + 8).to_le_bytes(), "never written");
    header_refused(48, &8193u64.to_le_bytes(), "never written");
    header_refused(32, &0u64.to_le_bytes(), "never written");
    header_refused(32, &(1u64 << 32).to_le_bytes(), "never written");
    header_refused(16, &[8; 16], "made for directory");
    let mut behind = Forged::first();
    behind.bytes[100] = 1;
    refused(&[behind], "not followed by zeros");
}

#[test]
fn a_sealed_node_file_of_another_kind_or_version_is_told_apart() {
    let change = |at: usize, value: &[u8]| {
        let fs = directory(&[Forged::first()]);
        let path = Path::new(DIR).join(crate::node_file::NAME);
        let mut bytes = fs.peek(&path).unwrap();
        bytes[at..at + value.len()].copy_from_slice(value);
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        fs.put(&path, bytes);
        open_model(&fs).map(|log| log.recovered.last)
    };
    assert!(matches!(change(0, b"RAFTNODF"), Err(OpenError::Damaged(_))));
    assert!(matches!(change(8, &2u32.to_le_bytes()), Err(OpenError::Version { found: 2, supported: 1, .. })));
}

#[test]
fn a_directory_without_node_in_which_there_is_more_than_a_beginning_is_in_use() {
    let missing = |change: &dyn Fn(&ModelFs)| {
        let fs = directory(&[Forged::first()]);
        fs.delete(&Path::new(DIR).join(crate::node_file::NAME));
        change(&fs);
        open_model(&fs).map(|log| log.recovered.last)
    };
    assert!(missing(&|_| {}).is_ok(), "its making was interrupted");
    let snapshot = |fs: &ModelFs| {
        publish(fs, Path::new(DIR), 3, 1);
    };
    assert!(matches!(missing(&snapshot), Err(OpenError::Damaged(_))));
    let second = |fs: &ModelFs| {
        let mut bytes = Forged::new(2).bytes;
        bytes.resize(CAPACITY as usize, 0);
        fs.put(&segment(2), bytes);
    };
    assert!(matches!(missing(&second), Err(OpenError::Damaged(_))));
}

/// Frames of which the sums are right and the payloads are not as any version writes them.
#[test]
fn a_payload_has_exactly_its_fields() {
    let frame = |kind, position, payload: &[u8]| {
        let frame = record::Frame { kind, position, durable: Lsn(0), payload, payload_crc: 0 };
        frame
            .record()
            .map(|_| ())
            .map_err(|error| error.contains("never written") || error.contains("unknown"))
    };
    let zeros = [0; 200];
    let open = record::OPEN_LEN as usize - crate::types::frame_len(0) as usize;
    for (kind, payload) in [(1, open), (2, 16), (5, 48), (7, 8)] {
        assert_eq!(frame(kind, Position::ZERO, &zeros[..payload]), Ok(()), "kind {kind}");
        assert_eq!(frame(kind, Position::ZERO, &zeros[..payload + 8]), Err(true), "kind {kind}, too long");
        assert_eq!(frame(kind, Position::ZERO, &zeros[..payload - 8]), Err(true), "kind {kind}, too short");
    }
    let mut reserved = zeros;
    reserved[open - 8] = 1;
    assert_eq!(frame(1, Position::ZERO, &reserved[..open]), Err(true), "OPEN's reserved bytes");
    let mut unnamed = zeros;
    unnamed[24] = 1;
    unnamed[32] = 1;
    assert_eq!(frame(1, Position::ZERO, &unnamed[..open]), Err(true), "a snapshot without its flag");
    let mut flags = zeros;
    flags[40] = 2;
    assert_eq!(frame(5, Position::ZERO, &flags[..48]), Err(true), "SNAPSHOT's flags");
    let mut vote = zeros;
    vote[0] = 1;
    assert_eq!(frame(2, Position::ZERO, &vote[..16]), Err(true), "a vote without its flag");
    vote[8] = 2;
    assert_eq!(frame(2, Position::ZERO, &vote[..16]), Err(true), "HARDSTATE names a snapshot");
    assert_eq!(frame(2, Position::new(1, 1), &zeros[..16]), Err(true), "HARDSTATE with an index");
    assert_eq!(frame(3, Position::ZERO, &zeros[..8]), Err(true));
    assert_eq!(frame(6, Position::ZERO, &zeros[..8]), Err(true));
    assert_eq!(frame(6, Position::new(0, 1), &[]), Err(true));
    assert_eq!(frame(7, Position::new(0, 1), &zeros[..8]), Err(true));
    assert_eq!(frame(8, Position::ZERO, &[]), Err(true));
}
