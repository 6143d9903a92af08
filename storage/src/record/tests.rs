//! The bytes of every kind of frame, and what does not pass for one.

use super::*;
use crate::types::DiskId;

fn header() -> Header {
    Header { disk: DiskId([0xAB; 16]), id: 3, salt: 0x1122_3344_5566_7788, capacity: 65536 }
}

fn snapshot() -> SnapshotId {
    SnapshotId { position: Position::new(40, 2), length: 999, digest: [0x5D; 32] }
}

fn records() -> [Record<'static>; 7] {
    let hard_state = HardState { term: Term(7), vote: Some(NodeId(2)) };
    let entry = Position::new(41, 7);
    [
        Record::Open(Open {
            previous: Lsn::new(2, 65000),
            last: Position::new(40, 6),
            hard_state,
            snapshot: Some(snapshot()),
        }),
        Record::HardState(hard_state),
        Record::Truncate(Position::new(40, 6)),
        Record::Entry { position: entry, payload: b"payload", payload_crc: payload_crc(entry, b"payload") },
        Record::Snapshot(SnapshotMark { snapshot: snapshot(), reset: true }),
        Record::Synced,
        Record::Seal { next: 4 },
    ]
}

fn encoded(record: &Record<'_>, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, Lsn::new(2, 65008), &Seed::new(&header()), offset, &mut bytes);
    bytes
}

/// A file with `frame` at `offset` and zeros around it.
fn file_with(frame: &[u8], offset: usize) -> Vec<u8> {
    let mut file = vec![0; 8192];
    file[offset..offset + frame.len()].copy_from_slice(frame);
    file
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn frames_have_these_bytes() {
    let golden = [
        "010000006000000028000000000000000600000000000000f0fd000002000000cdcf0f891a210c16\
         e8fd0000020000000200000000000000030000000000000007000000000000002800000000000000\
         0200000000000000e7030000000000005d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d\
         5d5d5d5d5d5d5d5d0000000000000000",
        "020000001000000000000000000000000700000000000000f0fd00000200000027471863e146ad6d\
         02000000000000000100000000000000",
        "030000000000000028000000000000000600000000000000f0fd000002000000e0a6f84e224fe8e3",
        "040000000700000029000000000000000700000000000000f0fd0000020000005f3bceaf718ed48d\
         7061796c6f616400",
        "050000003000000028000000000000000200000000000000f0fd000002000000dcc747c2ce7b9537\
         e7030000000000005d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d\
         0100000000000000",
        "060000000000000000000000000000000000000000000000f0fd000002000000554bbbece436e199",
        "070000000800000000000000000000000000000000000000f0fd000002000000dac48b273e012663\
         0400000000000000",
    ];
    for (record, golden) in records().iter().zip(golden) {
        assert_eq!(hex(&encoded(record, 4096)), golden, "{record:?}");
    }
}

#[test]
fn frames_come_back_as_they_were() {
    for record in records() {
        let frame = encoded(&record, 4096);
        assert_eq!(frame.len() % 8, 0);
        let file = file_with(&frame, 4096);
        let Found::Valid(found) = read(&Seed::new(&header()), &file, 4096) else { panic!("{record:?}") };
        assert_eq!(found.record(), Ok(record));
        assert_eq!(found.len(), frame.len() as u64);
        assert_eq!(found.durable, Lsn::new(2, 65008));
    }
    let without = Record::Open(Open {
        previous: Lsn(0),
        last: Position::ZERO,
        hard_state: HardState::default(),
        snapshot: None,
    });
    let file = file_with(&encoded(&without, 4096), 4096);
    let Found::Valid(found) = read(&Seed::new(&header()), &file, 4096) else { panic!() };
    assert_eq!(found.record(), Ok(without));
}

#[test]
fn lengths_are_what_is_reserved_for_them() {
    let len = |at: usize| encoded(&records()[at], 4096).len() as u64;
    assert_eq!([len(0), len(1), len(2)], [OPEN_LEN, HARD_STATE_LEN, TRUNCATE_LEN]);
    assert_eq!([len(4), len(5), len(6)], [SNAPSHOT_LEN, SYNCED_LEN, SEAL_LEN]);
}

#[test]
fn no_flipped_bit_passes() {
    for record in records() {
        let frame = encoded(&record, 4096);
        for bit in 0..frame.len() * 8 {
            let mut file = file_with(&frame, 4096);
            file[4096 + bit / 8] ^= 1 << (bit % 8);
            let found = read(&Seed::new(&header()), &file, 4096);
            assert!(matches!(found, Found::Bad { .. }), "bit {bit} of {record:?}");
        }
    }
}

#[test]
fn a_frame_passes_in_its_place_only() {
    for record in records() {
        let frame = encoded(&record, 4096);
        let moved = file_with(&frame, 4104);
        assert!(matches!(read(&Seed::new(&header()), &moved, 4104), Found::Bad { .. }));
        let file = file_with(&frame, 4096);
        for other in [Header { id: 4, ..header() }, Header { salt: 1, ..header() }] {
            assert!(matches!(read(&Seed::new(&other), &file, 4096), Found::Bad { .. }));
        }
    }
}

#[test]
fn a_cut_frame_is_never_valid() {
    for record in records() {
        let frame = encoded(&record, 4096);
        for cut in 0..frame.len() {
            let mut file = file_with(&frame, 4096);
            file.truncate(4096 + cut);
            assert!(
                !matches!(read(&Seed::new(&header()), &file, 4096), Found::Valid(_)),
                "{cut} of {record:?}"
            );
        }
    }
}

#[test]
fn a_length_beyond_the_file_is_bad_and_tells_its_entry() {
    let mut frame = encoded(&records()[3], 4096);
    frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = Seed::new(&header()).header_crc(4096, &frame[..36]);
    frame[36..40].copy_from_slice(&crc.to_le_bytes());
    let file = file_with(&frame, 4096);
    let found = read(&Seed::new(&header()), &file, 4096);
    let what = "the frame reaches beyond the end of the file";
    assert_eq!(found, Found::Bad { kind: Some(4), position: Some(Position::new(41, 7)), what });
    assert!(matches!(read(&Seed::new(&header()), &file, u64::MAX), Found::Zero));
}

#[test]
fn a_sound_frame_that_makes_no_sense_is_an_error() {
    let frame = |kind, payload: &'static [u8]| Frame {
        kind,
        position: Position::ZERO,
        durable: Lsn(0),
        payload,
        payload_crc: 0,
    };
    for (kind, payload) in [
        (0, &[][..]),
        (1, &[0; 95]),
        (1, &[0xFF; 96]),
        (2, &[0; 17]),
        (2, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (3, &[0]),
        (5, &[0; 47]),
        (5, &[0xFF; 48]),
        (6, &[0; 8]),
        (7, &[]),
        (8, &[]),
        (255, &[0; 8]),
    ] {
        assert!(frame(kind, payload).record().is_err(), "kind {kind}, {} bytes", payload.len());
    }
    for (kind, payload) in [(2, &[0; 16][..]), (6, &[]), (7, &[0; 8])] {
        assert!(frame(kind, payload).record().is_ok(), "kind {kind}");
        let elsewhere = Frame { position: Position::new(1, 1), ..frame(kind, payload) };
        assert!(elsewhere.record().is_err(), "kind {kind} that speaks of an entry");
    }
}

#[test]
fn the_highest_promise_is_found_at_any_place() {
    let seed = Seed::new(&header());
    let mut file = vec![0x11; 8192];
    assert_eq!(highest_promise(&seed, &file, 4096), None);
    for (offset, durable) in [(4800, Lsn(5)), (5000, Lsn(9)), (6000, Lsn(7))] {
        let mut frame = Vec::new();
        encode(&Record::Synced, durable, &seed, offset, &mut frame);
        file[offset as usize..offset as usize + 40].copy_from_slice(&frame);
    }
    assert_eq!(highest_promise(&seed, &file, 4096), Some((Lsn(9), 5000)));
    assert_eq!(highest_promise(&seed, &file, 5001), Some((Lsn(7), 6000)));
    assert_eq!(highest_promise(&seed, &file, 8192), None);
}
