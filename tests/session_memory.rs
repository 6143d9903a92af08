//! What sessions and images cost in memory, counted by the allocator. One test: another one beside it would be counted
//! along.

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use raftmap::kv::{Command, Limits, LogTime, Outcome, Owner, Proposal, Request, SessionId, StateMachine};
use raftmap_storage::types::Position;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const SESSIONS: u64 = 100_000;
const BYTES_PER_SESSION: usize = 200;

fn apply(map: &mut StateMachine, at: u64, request: Request) -> Outcome {
    let position = Position::new(map.applied().index.0 + 1, 1);
    map.apply(position, Proposal { at: LogTime(at), request })
}

fn run(map: &mut StateMachine, at: u64, session: u64, numbers: (u64, u64)) {
    let (sequence, acked_below) = numbers;
    let (owner, session) = (Owner([3; 16]), SessionId(session));
    let command = Command::Delete { key: Bytes::from_static(b"k") };
    let outcome = apply(map, at, Request::Execute { owner, session, sequence, acked_below, command });
    assert!(matches!(outcome, Outcome::Executed { .. }), "{outcome:?}");
}

#[test]
fn idle_sessions_are_small_and_images_are_free() {
    let mut map = StateMachine::new(Limits::default());
    let empty = HEAP.current_usage();
    let each = || (HEAP.current_usage() - empty) / SESSIONS as usize;

    for session in 1..=SESSIONS {
        assert!(matches!(
            apply(&mut map, 0, Request::Open { owner: Owner([3; 16]) }),
            Outcome::Opened { .. }
        ));
        assert_eq!(map.applied().index.0, session);
    }
    let opened = each();

    // Each has done something and keeps its last reply; then each has had a burst that is over.
    (1..=SESSIONS).for_each(|session| run(&mut map, 1_000, session, (1, 1)));
    let used = each();
    for session in 1..=SESSIONS {
        (2..=9).for_each(|sequence| run(&mut map, 2_000, session, (sequence, 1)));
        run(&mut map, 2_000, session, (10, 10));
    }
    let rested = each();

    // All have been through the expiry queue, and stand in it in another order of use.
    while map.next_expiry() < Some(LogTime(3_602_000)) {
        apply(&mut map, 3_601_999, Request::Tick);
    }
    let queued = each();
    println!("bytes a session: opened {opened}, used {used}, after a burst {rested}, queued again {queued}");
    assert_eq!(map.sessions_len() as u64, SESSIONS);
    for bytes in [opened, used, rested, queued] {
        assert!(bytes <= BYTES_PER_SESSION, "{bytes} bytes a session, {BYTES_PER_SESSION} allowed");
    }

    let before = HEAP.current_usage();
    let image = map.image();
    assert_eq!(HEAP.current_usage(), before, "an image allocates");
    run(&mut map, 3_601_999, 1, (11, 11));
    let copied = HEAP.current_usage() - before;
    assert!(copied < 16 * 1024, "one change beside an image copied {copied} bytes");

    // Streaming holds one chunk at a time.
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let length: usize = image.chunks().map(|chunk| chunk.len()).sum();
    let peak = HEAP.peak_usage() - before;
    assert!(length > 8_000_000 && peak < 512 * 1024, "{peak} bytes held to stream {length}");

    drop(image);
    while map.sessions_len() > 0 {
        apply(&mut map, 10_000_000, Request::Tick);
    }
    assert!(HEAP.current_usage() - empty < 16 * 1024, "expired sessions leave memory behind");
}
