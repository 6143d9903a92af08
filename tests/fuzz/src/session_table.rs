//! Exactly once: any log of requests, with numbers that are mostly near the ones that count, gives what a naive model
//! gives, entry for entry; and so does a map that was restored from its own snapshot on the way.

use bytes::Bytes;
use raftmap::kv::{
    Command, Keys, LimitError, Limits, LogTime, Outcome, Owner, PAGE_PAIRS, Proposal, Refusal, Reply,
    Request, Restore, Scan, SessionId, StateMachine,
};
use raftmap_storage::types::{Index, Position};

use crate::input::Input;
use crate::memory;

#[path = "../../../src/kv/tests/naive.rs"]
mod naive;
use naive::Model;

const ENTRIES_MAX: usize = 400;
/// Both maps and the model, under the limits below.
const MEMORY: usize = 1024 * 1024;

/// Input: the limits, then some bytes for each entry.
pub(crate) fn session_table(data: &[u8]) {
    memory::within(MEMORY, "a map and its model", || play(Input::new(data)));
}

/// At most 64 sessions: then every due one is gone within one entry, and the model need not know the queue.
fn limits(input: &mut Input<'_>) -> Limits {
    Limits {
        key_bytes: 8,
        value_bytes: 32,
        sessions: 1 + input.below(8) as u32,
        session_ttl_ms: [1, 100, 1_000, u64::MAX][input.below(4)],
        window: 1 + input.below(6) as u32,
    }
}

fn play(mut input: Input<'_>) {
    let limits = limits(&mut input);
    let (mut model, mut map) = (Model::default(), StateMachine::new(limits));
    let mut clock = 0_u64;
    for entry in 0..ENTRIES_MAX {
        if input.is_empty() {
            break;
        }
        let (at, request) = (log_time(&mut input, &mut clock), request(&mut input, &model));
        let proposal = Proposal { at, request };
        let mut bytes = Vec::new();
        proposal.encode_into(&mut bytes, &limits).unwrap();
        assert_eq!(Proposal::decode(&bytes, &limits).as_ref(), Ok(&proposal));
        let expected = model.apply(&limits, &proposal);
        let position = Position::new(map.applied().index.0 + 1, 1);
        assert_eq!(map.apply(position, proposal.clone()), expected, "entry {entry}: {proposal:?}");
        if input.below(16) == 15 {
            model.check(&map);
            map = restored(&map, 1 + usize::from(input.byte()));
        }
    }
    model.check(&map);
    restored(&map, 4096);
}

/// Mostly forward, sometimes from a leader whose clock is behind, seldom to the end of time.
fn log_time(input: &mut Input<'_>, clock: &mut u64) -> LogTime {
    match input.byte() {
        255 => *clock = input.number(),
        step @ 224..255 => *clock = clock.saturating_add(u64::from(step - 223) * 50),
        step => *clock = clock.saturating_add(u64::from(step / 8)),
    }
    LogTime(clock.saturating_sub(input.below(4) as u64 * 20))
}

fn request(input: &mut Input<'_>, model: &Model) -> Request {
    let kind = input.byte();
    let owner = Owner([kind & 1; 16]);
    let session = match input.byte() {
        any @ 240.. => SessionId(u64::from(any - 240)),
        nth => {
            let nth = usize::from(nth) % model.sessions.len().max(1);
            SessionId(model.sessions.keys().nth(nth).copied().unwrap_or(1))
        }
    };
    match kind {
        0..=24 => Request::Open { owner },
        25..=34 => Request::Close { owner, session },
        35..=40 => Request::Tick,
        _ => {
            let (acked, owner) =
                model.sessions.get(&session.0).map_or((1, owner), |found| (found.acked_below, found.owner));
            // Somebody else's certificate, now and then.
            let owner = if kind >= 250 { Owner([9; 16]) } else { owner };
            let sequence = match input.byte() {
                250.. => input.number(),
                near => acked.saturating_add(u64::from(near % 10)).saturating_sub(1),
            };
            let acked_below = match input.byte() {
                250.. => input.number(),
                near @ 200.. => acked.saturating_add(u64::from(near % 4)),
                _ => acked,
            };
            Request::Execute { owner, session, sequence, acked_below, command: command(input, model) }
        }
    }
}

fn command(input: &mut Input<'_>, model: &Model) -> Command {
    let shape = input.byte();
    let key = match shape {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"ninebytes"),
        _ => Bytes::copy_from_slice(&[b'a' + shape % 7]),
    };
    let size = input.byte();
    let value =
        Bytes::copy_from_slice(&[size; 40][..usize::from(size % 12) * if size > 250 { 3 } else { 1 }]);
    match shape / 64 {
        0 => Command::Put { key, value },
        1 => Command::Append { key, value },
        2 => Command::Delete { key },
        _ => {
            let current = model.pairs.get(&key[..]).map_or(0, |(_, version)| *version);
            let version = if size >= 192 { input.number() } else { current };
            Command::CompareAndPut { key, version, value }
        }
    }
}

fn restored(map: &StateMachine, piece: usize) -> StateMachine {
    let mut restore = Restore::new();
    let content: Vec<u8> = map.image().chunks().flat_map(|chunk| chunk.to_vec()).collect();
    content.chunks(piece).for_each(|bytes| restore.feed(bytes).unwrap());
    let again = restore.finish().unwrap();
    assert_eq!(again.digest(), map.digest(), "the restored map differs");
    again
}

// What the model calls its outcomes.

fn refused(reason: Refusal) -> Outcome {
    Outcome::Refused { reason }
}

fn executed(at: u64, reply: Reply) -> Outcome {
    Outcome::Executed { at: Index(at), reply }
}

fn duplicate(at: u64, reply: Reply) -> Outcome {
    Outcome::Duplicate { at: Index(at), reply }
}
