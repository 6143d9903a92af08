//! One frame of the log on disk: its bytes, and how they are checked on the way back in.
//!
//! | offset | bytes | field       | note                                                                  |
//! |--------|-------|-------------|-----------------------------------------------------------------------|
//! | 0      | 1     | kind        | see [`Record`]; 0 where nothing was written                           |
//! | 1      | 3     | reserved    | 0                                                                     |
//! | 4      | 4     | payload_len | bytes of payload; checked against the file before use                 |
//! | 8      | 8     | index       | of the entry the frame speaks of, else 0                              |
//! | 16     | 8     | term        | likewise                                                              |
//! | 24     | 8     | durable_lsn | everything before it was on the disk when the frame was built         |
//! | 32     | 4     | payload_crc | CRC-32 of index, term, payload; an entry's is the leader's own        |
//! | 36     | 4     | header_crc  | CRC-32 of salt, segment id, offset, bytes 0..36: bound to its place   |
//! | 40     | n     | payload     | then zeros up to a multiple of 8                                      |
//!
//! Little-endian throughout. Because salt, segment and offset are in the checksum, a frame copied, misdirected or left
//! over from another file or place does not pass.

use crate::lsn::Lsn;
use crate::segment::Header;
use crate::types::{
    FRAME_ALIGN, FRAME_HEADER, HardState, Index, NodeId, Position, SnapshotId, SnapshotMark, Term, frame_len,
    payload_crc,
};

const HEADER: usize = FRAME_HEADER as usize;
const OPEN_PAYLOAD: usize = 96;
const HARD_STATE_PAYLOAD: usize = 16;
const SNAPSHOT_PAYLOAD: usize = 48;
const SEAL_PAYLOAD: usize = 8;
/// Bytes of an OPEN frame.
pub(crate) const OPEN_LEN: u64 = frame_len(OPEN_PAYLOAD as u64);
/// Bytes of a HARDSTATE frame.
pub(crate) const HARD_STATE_LEN: u64 = frame_len(HARD_STATE_PAYLOAD as u64);
/// Bytes of a TRUNCATE frame.
pub(crate) const TRUNCATE_LEN: u64 = frame_len(0);
/// Bytes of a SNAPSHOT frame.
pub(crate) const SNAPSHOT_LEN: u64 = frame_len(SNAPSHOT_PAYLOAD as u64);
/// Bytes of a SYNCED frame.
pub(crate) const SYNCED_LEN: u64 = frame_len(0);
/// Bytes of a SEAL frame.
pub(crate) const SEAL_LEN: u64 = frame_len(SEAL_PAYLOAD as u64);
/// Kept free behind every other frame, so that what was synced can be attested and the segment sealed.
pub(crate) const RESERVE: u64 = SYNCED_LEN + SEAL_LEN;

/// The first frame of a segment: the log's state where the segment begins, so that nothing older is needed to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Where the segment before this one ends, behind its SEAL; 0:0 for the first.
    pub(crate) previous: Lsn,
    /// The log's last entry.
    pub(crate) last: Position,
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotId>,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// 1. First in its segment, and only there.
    Open(Open),
    /// 2. New term or vote. The commit index is not kept: Raft does not need it, and a torn batch could contradict it.
    HardState(HardState),
    /// 3. The log's new last entry: the only way back.
    Truncate(Position),
    /// 4. The next entry.
    Entry { position: Position, payload: &'a [u8], payload_crc: u32 },
    /// 5. A snapshot stands for everything up to its position.
    Snapshot(SnapshotMark),
    /// 6. Nothing but its durable_lsn.
    Synced,
    /// 7. Last in its segment; the next one exists, durably.
    Seal { next: u64 },
}

impl Record<'_> {
    /// The kind's number and name.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Record::Open(_) => 1,
            Record::HardState(_) => 2,
            Record::Truncate(_) => 3,
            Record::Entry { .. } => 4,
            Record::Snapshot(_) => 5,
            Record::Synced => 6,
            Record::Seal { .. } => 7,
        }
    }
}

/// A kind's name, as in FORMAT.md.
pub(crate) fn kind_name(kind: u8) -> &'static str {
    match kind {
        1 => "OPEN",
        2 => "HARDSTATE",
        3 => "TRUNCATE",
        4 => "ENTRY",
        5 => "SNAPSHOT",
        6 => "SYNCED",
        7 => "SEAL",
        _ => "unknown kind",
    }
}

/// The part of a frame's checksum that its file gives. Made once per segment, copied for each frame.
#[derive(Clone, Debug)]
pub(crate) struct Seed(crc32fast::Hasher);

impl Seed {
    pub(crate) fn new(header: &Header) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header.salt.to_le_bytes());
        hasher.update(&header.id.to_le_bytes());
        Self(hasher)
    }

    pub(crate) fn header_crc(&self, offset: u64, fields: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&offset.to_le_bytes());
        hasher.update(fields);
        hasher.finalize()
    }
}

/// Appends `record` to `out` as the frame that stands at `offset` of the file.
pub(crate) fn encode(record: &Record<'_>, durable: Lsn, seed: &Seed, offset: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    let (position, crc) = encode_payload(record, out);
    let payload_len = out.len() - start - HEADER;
    let crc = crc.unwrap_or_else(|| payload_crc(position, &out[start + HEADER..]));
    out.resize(start + frame_len(payload_len as u64) as usize, 0);

    let header = &mut out[start..start + HEADER];
    header[0] = record.kind();
    header[4..8].copy_from_slice(&(payload_len as u32).to_le_bytes());
    header[8..16].copy_from_slice(&position.index.0.to_le_bytes());
    header[16..24].copy_from_slice(&position.term.0.to_le_bytes());
    header[24..32].copy_from_slice(&durable.0.to_le_bytes());
    header[32..36].copy_from_slice(&crc.to_le_bytes());
    let header_crc = seed.header_crc(offset, &header[..36]);
    header[36..40].copy_from_slice(&header_crc.to_le_bytes());
}

/// The payload's bytes; the header's index and term; the checksum where it comes with the record.
fn encode_payload(record: &Record<'_>, out: &mut Vec<u8>) -> (Position, Option<u32>) {
    match record {
        Record::Open(open) => {
            let snapshot = open.snapshot.unwrap_or(NO_SNAPSHOT);
            put(out, open.previous.0);
            put_hard_state(out, &open.hard_state, open.snapshot.is_some());
            put(out, open.hard_state.term.0);
            put(out, snapshot.position.index.0);
            put(out, snapshot.position.term.0);
            put(out, snapshot.length);
            out.extend_from_slice(&snapshot.digest);
            put(out, 0);
            (open.last, None)
        }
        Record::HardState(hard_state) => {
            put_hard_state(out, hard_state, false);
            (Position { index: Index(0), term: hard_state.term }, None)
        }
        Record::Truncate(to) => (*to, None),
        Record::Entry { position, payload, payload_crc } => {
            out.extend_from_slice(payload);
            (*position, Some(*payload_crc))
        }
        Record::Snapshot(mark) => {
            put(out, mark.snapshot.length);
            out.extend_from_slice(&mark.snapshot.digest);
            put(out, u64::from(mark.reset));
            (mark.snapshot.position, None)
        }
        Record::Synced => (Position::ZERO, None),
        Record::Seal { next } => {
            put(out, *next);
            (Position::ZERO, None)
        }
    }
}

const NO_SNAPSHOT: SnapshotId = SnapshotId { position: Position::ZERO, length: 0, digest: [0; 32] };
const HAS_VOTE: u64 = 1;
const HAS_SNAPSHOT: u64 = 2;

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_hard_state(out: &mut Vec<u8>, hard_state: &HardState, snapshot: bool) {
    put(out, hard_state.vote.map_or(0, |node| node.0));
    put(out, u64::from(hard_state.vote.is_some()) * HAS_VOTE + u64::from(snapshot) * HAS_SNAPSHOT);
}

/// A frame whose header and payload match their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) position: Position,
    pub(crate) durable: Lsn,
    pub(crate) payload: &'a [u8],
    pub(crate) payload_crc: u32,
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A frame that checks out.
    Valid(Frame<'a>),
    /// Never written: zeros for a header.
    Zero,
    /// Neither. With an intact header the frame still tells what it was.
    Bad { kind: Option<u8>, position: Option<Position>, what: &'static str },
}

/// Reads what stands at `offset` of `file`, a whole segment from its header on.
pub(crate) fn read<'a>(seed: &Seed, file: &'a [u8], offset: u64) -> Found<'a> {
    let rest = usize::try_from(offset).ok().and_then(|at| file.get(at..)).unwrap_or_default();
    let Some(header) = rest.first_chunk::<HEADER>() else {
        return match rest.iter().all(|&byte| byte == 0) {
            true => Found::Zero,
            false => Found::Bad { kind: None, position: None, what: "bytes behind the last frame" },
        };
    };
    if header.iter().all(|&byte| byte == 0) {
        return Found::Zero;
    }
    let Some(fields) = fields(seed, header, offset) else {
        return Found::Bad {
            kind: None,
            position: None,
            what: "the frame header does not match its checksum",
        };
    };
    let bad = |what| Found::Bad { kind: Some(fields.kind), position: Some(fields.position), what };
    let whole = fields.payload_len.next_multiple_of(FRAME_ALIGN as usize);
    let Some(padded) = rest.get(HEADER..).and_then(|behind| behind.get(..whole)) else {
        return bad("the frame reaches beyond the end of the file");
    };
    let (payload, padding) = padded.split_at(fields.payload_len);
    if payload_crc(fields.position, payload) != fields.payload_crc {
        return bad("the payload does not match its checksum");
    }
    if padding.iter().any(|&byte| byte != 0) {
        return bad("the padding behind the payload is not zero");
    }
    let Fields { kind, position, durable, payload_crc, .. } = fields;
    Found::Valid(Frame { kind, position, durable, payload, payload_crc })
}

struct Fields {
    kind: u8,
    payload_len: usize,
    position: Position,
    durable: Lsn,
    payload_crc: u32,
}

fn fields(seed: &Seed, header: &[u8; HEADER], offset: u64) -> Option<Fields> {
    // Cheap tests first: recovery tries this at every eighth byte.
    if header[0] == 0 || header[1..4] != [0; 3] {
        return None;
    }
    if seed.header_crc(offset, &header[..36]) != le32(header, 36) {
        return None;
    }
    Some(Fields {
        kind: header[0],
        payload_len: le32(header, 4) as usize,
        position: Position::new(le64(header, 8), le64(header, 16)),
        durable: Lsn(le64(header, 24)),
        payload_crc: le32(header, 32),
    })
}

fn le32(bytes: &[u8; HEADER], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn le64(bytes: &[u8; HEADER], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// The highest durable_lsn in any frame header of `file` from `offset` on, and where it stands. A header alone is
/// witness enough: whoever built it knew what was synced, whether or not its payload made it to the disk.
pub(crate) fn highest_promise(seed: &Seed, file: &[u8], offset: u64) -> Option<(Lsn, u64)> {
    let step = FRAME_ALIGN as usize;
    let mut highest: Option<(Lsn, u64)> = None;
    let mut at = offset.next_multiple_of(FRAME_ALIGN) as usize;
    while let Some(header) = file.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) {
        // Nearly all of a file is zeros: many at a time.
        if file[at..].starts_with(&[0; 256]) {
            at += 256;
            continue;
        }
        if header[0] != 0
            && let Some(fields) = fields(seed, header, at as u64)
            && highest.is_none_or(|(durable, _)| durable < fields.durable)
        {
            highest = Some((fields.durable, at as u64));
        }
        at += step;
    }
    highest
}

impl<'a> Frame<'a> {
    /// Bytes of the frame, padding included.
    pub(crate) fn len(&self) -> u64 {
        frame_len(self.payload.len() as u64)
    }

    /// What the frame says. An error is a frame that checks out and yet makes no sense: damage, or a later format.
    pub(crate) fn record(&self) -> Result<Record<'a>, String> {
        let wrong = || {
            format!(
                "{} frame with fields that are never written, {} bytes of payload",
                kind_name(self.kind),
                self.payload.len()
            )
        };
        match self.kind {
            1 => decode_open(self.position, self.payload).map(Record::Open).ok_or_else(wrong),
            2 if self.position.index == Index(0) => {
                decode_hard_state(self.position.term, self.payload).map(Record::HardState).ok_or_else(wrong)
            }
            3 if self.payload.is_empty() => Ok(Record::Truncate(self.position)),
            4 => Ok(Record::Entry {
                position: self.position,
                payload: self.payload,
                payload_crc: self.payload_crc,
            }),
            5 => decode_snapshot(self.position, self.payload).map(Record::Snapshot).ok_or_else(wrong),
            6 if self.payload.is_empty() && self.position == Position::ZERO => Ok(Record::Synced),
            7 if self.position == Position::ZERO => decode_seal(self.payload).ok_or_else(wrong),
            2 | 3 | 6 | 7 => Err(wrong()),
            kind => Err(format!("frame of unknown kind {kind}")),
        }
    }
}

/// Takes fixed fields off the front of a payload.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// The vote, and whether a snapshot is named.
    fn vote(&mut self) -> Option<(Option<NodeId>, bool)> {
        let (vote, flags) = (self.number()?, self.number()?);
        let known = flags & !(HAS_VOTE | HAS_SNAPSHOT) == 0 && (flags & HAS_VOTE != 0 || vote == 0);
        known.then_some(((flags & HAS_VOTE != 0).then_some(NodeId(vote)), flags & HAS_SNAPSHOT != 0))
    }
}

fn decode_open(last: Position, payload: &[u8]) -> Option<Open> {
    let mut take = Take(payload);
    let previous = Lsn(take.number()?);
    let (vote, has_snapshot) = take.vote()?;
    let hard_state = HardState { term: Term(take.number()?), vote };
    let position = Position::new(take.number()?, take.number()?);
    let snapshot = SnapshotId { position, length: take.number()?, digest: take.bytes()? };
    let reserved = take.number()?;
    let sound = take.0.is_empty() && reserved == 0 && (has_snapshot || snapshot == NO_SNAPSHOT);
    sound.then_some(Open { previous, last, hard_state, snapshot: has_snapshot.then_some(snapshot) })
}

fn decode_hard_state(term: Term, payload: &[u8]) -> Option<HardState> {
    let mut take = Take(payload);
    let (vote, has_snapshot) = take.vote()?;
    (take.0.is_empty() && !has_snapshot).then_some(HardState { term, vote })
}

fn decode_snapshot(position: Position, payload: &[u8]) -> Option<SnapshotMark> {
    let mut take = Take(payload);
    let snapshot = SnapshotId { position, length: take.number()?, digest: take.bytes()? };
    let flags = take.number()?;
    (take.0.is_empty() && flags <= 1).then_some(SnapshotMark { snapshot, reset: flags == 1 })
}

fn decode_seal(payload: &[u8]) -> Option<Record<'static>> {
    let mut take = Take(payload);
    let next = take.number()?;
    take.0.is_empty().then_some(Record::Seal { next })
}

#[cfg(test)]
mod tests;
