//! Snapshots that anybody could have written: a file under a snapshot's name, a file that arrives from a peer in pieces,
//! and the content that becomes a map. Nothing panics, memory stays bounded, and what is not the snapshot it claims to be
//! is refused.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use raftmap::kv::{Command, Limits, LogTime, Owner, Proposal, Request, Restore, SessionId, StateMachine};
use raftmap_storage::fs::Fs;
use raftmap_storage::model::{ModelFs, SECTOR};
use raftmap_storage::snapshot::{CHUNK, Header, Reader, Receiver, Writer, file_name, verify_file};
use raftmap_storage::types::{ClusterId, Membership, NodeId, Position, SnapshotId};

use crate::input::Input;
use crate::memory;

/// A file is read a chunk at a time: some buffers of that size, and the model disk's own copies of the file.
const BUFFERS: usize = 8 * CHUNK;
const TRAILER: usize = 64;

/// Input: what it is, and then see there.
pub(crate) fn snapshot(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => check_file(input.rest()),
        1 => check_file(&edited(&sound(&mut input).1, &mut input)),
        2 => receive(input),
        _ => restore(input),
    }
}

fn empty_disk() -> ModelFs {
    let fs = ModelFs::new(1);
    fs.create_dir_all(dir()).expect("a sound disk");
    fs
}

fn dir() -> &'static Path {
    Path::new("/data")
}

fn position() -> Position {
    Position::new(8, 2)
}

fn path() -> PathBuf {
    dir().join(file_name(position()))
}

/// The file is sound or it is not, and that twice; a sound one can be read whole, and its content makes the same file
/// again.
fn check_file(file: &[u8]) {
    let fs = ModelFs::new(1);
    fs.put(&path(), file.to_vec());
    let bound = 4 * file.len() + BUFFERS;
    let once = memory::within(bound, "a snapshot file", || verify_file(&fs, &path()));
    let again = verify_file(&fs, &path());
    assert_eq!(format!("{once:?}"), format!("{again:?}"), "looked at twice, told differently");
    let Ok((id, header)) = once else { return };
    assert!(
        id.position == position() && header.position == position(),
        "another snapshot than its name says"
    );
    assert_eq!(id.length, file.len() as u64);
    let reader = Reader::open(&fs, dir(), &id).expect("it was found sound");
    let mut writer = Writer::create(empty_disk(), dir(), header).expect("its header was sound");
    let mut content = 0;
    for chunk in reader.content() {
        let chunk = chunk.expect("it was found sound");
        content += chunk.len() as u64;
        writer.write(&chunk).expect("a sound disk");
    }
    assert_eq!(content, reader.content_len());
    assert_eq!(writer.publish().expect("a sound disk"), id, "its content makes another file");
}

/// A file that was announced arrives in pieces, is it or is it not. Input: which, what is changed in the announcement,
/// the sizes of the pieces, and edits.
fn receive(mut input: Input<'_>) {
    let (real, file) = sound(&mut input);
    let mut announced = *real;
    match input.byte() {
        0 => announced.length = input.number(),
        1 => announced.digest[input.below(32)] ^= 1,
        2 => announced.position = crate::messages::position(&mut input),
        _ => {}
    }
    let piece = SECTOR + usize::from(input.u16());
    let sent = edited(file, &mut input);
    let fs = empty_disk();
    // The model disk keeps every version of a sector that is not synced.
    let bound = 8 * sent.len() + BUFFERS;
    let taken = memory::within(bound, "a snapshot that arrives", || take(&fs, announced, &sent, piece));
    let right = announced == *real && sent == *file;
    assert_eq!(taken.is_ok(), right, "{taken:?}");
    let standing =
        fs.files().iter().filter(|path| path.extension().is_some_and(|word| word == "snap")).count();
    assert_eq!(standing, usize::from(right), "{:?}", fs.files());
}

fn take(fs: &ModelFs, announced: SnapshotId, sent: &[u8], piece: usize) -> Result<Header, String> {
    let text = |error: raftmap_storage::snapshot::SnapshotError| error.to_string();
    let mut receiver = Receiver::create(fs.clone(), dir(), announced, 1 << 20).map_err(text)?;
    for bytes in sent.chunks(piece) {
        receiver.write(bytes).map_err(text)?;
    }
    receiver.publish().map_err(text)
}

/// A content becomes a map or is refused, the same in pieces of any size; a map it becomes has this content again.
fn restore(mut input: Input<'_>) {
    let piece = 1 + usize::from(input.byte());
    let content = match input.yes() {
        true => input.rest().to_vec(),
        false => bent(&contents()[input.below(contents().len())], &mut input),
    };
    // A session takes 48 bytes here and 200 in a map, and trees are built in nodes.
    let bound = 16 * content.len() + memory::SLACK;
    let whole = memory::within(bound, "a content", || fed(&content, content.len().max(1)));
    let pieces = memory::within(bound, "a content in pieces", || fed(&content, piece));
    match (whole, pieces) {
        (Ok(map), Ok(same)) => {
            assert_eq!(map.digest(), same.digest());
            let again: Vec<u8> = map.image().chunks().flat_map(|chunk| chunk.to_vec()).collect();
            assert!(again == content, "the map has another content");
        }
        (Err(error), Err(same)) => assert_eq!(error, same),
        (whole, pieces) => panic!("at once {whole:?}, in pieces {pieces:?}"),
    }
}

fn fed(content: &[u8], piece: usize) -> Result<StateMachine, raftmap::kv::RestoreError> {
    let mut restore = Restore::new();
    content.chunks(piece).try_for_each(|bytes| restore.feed(bytes))?;
    restore.finish()
}

/// Bytes with some of them changed: where (2 bytes), what (1), how (1); 16 changes at most.
fn bent(bytes: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..16 {
        if input.is_empty() || bytes.is_empty() {
            break;
        }
        let (at, value) = (usize::from(input.u16()) % bytes.len(), input.byte());
        match input.byte() % 6 {
            0 => bytes[at] ^= 1 << (value % 8),
            1 | 2 => bytes[at] = value,
            3 => bytes.truncate(at),
            4 => bytes.extend(vec![value; at.min(200)]),
            _ => drop(bytes.drain(at..(at + usize::from(value)).min(bytes.len()))),
        }
    }
    bytes
}

/// The file as it is, with changes, or with changes and every checksum put right again.
fn edited(file: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    match input.byte() % 4 {
        0 => file.to_vec(),
        1 => bent(file, input),
        _ => {
            let mut file = bent(file, input);
            seal(&mut file);
            file
        }
    }
}

/// Puts right every checksum of what may be a snapshot's file: header, chunks, trailer. See FORMAT.md.
fn seal(file: &mut [u8]) {
    let length = file.len() as u64;
    let Some(header) =
        file.get(12..16).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    else {
        return;
    };
    let header = header as usize;
    if header < 72 || file.len() < header + TRAILER {
        return;
    }
    let (front, trailer) = file.split_at_mut(length as usize - TRAILER);
    let (header, body) = front.split_at_mut(header);
    put_crc(header);
    for (number, chunk) in body.chunks_mut(4 + CHUNK).enumerate() {
        let Some((crc, content)) = chunk.split_first_chunk_mut::<4>() else { continue };
        *crc = crc32fast::hash(&[&(number as u64).to_le_bytes()[..], content].concat()).to_le_bytes();
    }
    trailer[16..24].copy_from_slice(&length.to_le_bytes());
    trailer[24..56].copy_from_slice(blake3::hash(front).as_bytes());
    put_crc(trailer);
}

/// The last four bytes are the checksum of those before.
fn put_crc(bytes: &mut [u8]) {
    let Some((bytes, crc)) = bytes.split_last_chunk_mut::<4>() else { return };
    *crc = crc32fast::hash(bytes).to_le_bytes();
}

/// One of some sound files, and its id.
fn sound(input: &mut Input<'_>) -> &'static (SnapshotId, Vec<u8>) {
    static FILES: OnceLock<Vec<(SnapshotId, Vec<u8>)>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let long = vec![7; CHUNK + 10];
        [(&b""[..], 1), (b"content", 3), (&contents()[1], 3), (&long, 5)]
            .map(|(content, voters)| file(content, voters))
            .into()
    });
    // The long one costs most and has least to tell.
    &files[[0, 1, 1, 2, 2, 2, 2, 3][input.below(8)]]
}

fn file(content: &[u8], voters: u64) -> (SnapshotId, Vec<u8>) {
    let fs = empty_disk();
    let membership = Membership { voters: (1..=voters).map(NodeId).collect() };
    let header = Header { position: position(), cluster: ClusterId([7; 16]), membership };
    let mut writer = Writer::create(fs.clone(), dir(), header).expect("a sound disk");
    writer.write(content).expect("a sound disk");
    let id = writer.publish().expect("a sound disk");
    (id, fs.peek(&path()).expect("it was published"))
}

/// Contents of small maps: an empty one, and one with pairs, sessions and replies.
fn contents() -> &'static [Vec<u8>] {
    static CONTENTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    CONTENTS.get_or_init(|| {
        let mut map = StateMachine::new(Limits {
            key_bytes: 8,
            value_bytes: 64,
            sessions: 8,
            window: 8,
            session_ttl_ms: 1_000,
        });
        let empty = content(&map);
        let owner = Owner([3; 16]);
        for index in 1..=20 {
            let request = match index {
                1..=3 => Request::Open { owner },
                _ => Request::Execute {
                    owner,
                    session: SessionId(1 + index % 3),
                    sequence: index / 3,
                    acked_below: 1,
                    command: Command::Put {
                        key: vec![index as u8; 3].into(),
                        value: vec![index as u8; 9].into(),
                    },
                },
            };
            map.apply(Position::new(index, 1), Proposal { at: LogTime(index), request });
        }
        vec![empty, content(&map)]
    })
}

fn content(map: &StateMachine) -> Vec<u8> {
    map.image().chunks().flat_map(|chunk| chunk.to_vec()).collect()
}
