//! What reads and writes leave behind in a server's memory, counted by the allocator: the memory tests of the course's
//! single-node key-value lab, by their names there. Values are at most 1 MiB here, so ten of them stand for one of its
//! 10 MiB. What sessions cost by themselves is in `session_memory`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use raftmap::kv::{Command, Limits, LogTime, Outcome, Owner, Proposal, Request, SessionId, StateMachine};
use raftmap::node::inbox::Bounds;
use raftmap::node::open::Sizes;
use raftmap::node::replica::{ClientId, Input};
use raftmap::raft::RoleKind;
use raftmap::storage::Options;
use raftmap::storage::types::Position;
use raftmap::wire::client::{Answer, Ask, Query, Request as Asked};
use raftmap_sim::client::OWNER;
use raftmap_sim::setup::{Faults, Setup};
use raftmap_sim::tap::{SCRIPT, Tap};
use raftmap_sim::world::World;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
const MANY: u64 = 100_000;
/// Whatever is not per client or value.
const SLACK: usize = 256 * 1_024;

/// One test at a time: the heap is everybody's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn heap_since(before: usize) -> usize {
    HEAP.current_usage().saturating_sub(before)
}

fn value(byte: u8, length: usize) -> Bytes {
    Bytes::from(vec![byte; length])
}

// ---- Writes: the map and its sessions ----

fn apply(map: &mut StateMachine, request: Request) -> Outcome {
    let position = Position::new(map.applied().index.0 + 1, 1);
    map.apply(position, Proposal { at: LogTime(0), request })
}

fn open(map: &mut StateMachine) -> SessionId {
    match apply(map, Request::Open { owner: OWNER }) {
        Outcome::Opened { session } => session,
        other => panic!("{other:?}"),
    }
}

/// The first request of its session, which nobody acknowledges: its reply is kept.
fn execute(map: &mut StateMachine, session: SessionId, sequence: u64, command: Command) {
    let owner: Owner = OWNER;
    let outcome = apply(map, Request::Execute { owner, session, sequence, acked_below: 1, command });
    assert!(matches!(outcome, Outcome::Executed { .. }), "{outcome:?}");
}

/// Of all values that were put, the last one is there.
#[test]
fn mem_put_2() {
    let _alone = alone();
    let mut map = StateMachine::new(Limits::default());
    let sessions: Vec<SessionId> = (0..10).map(|_| open(&mut map)).collect();
    let before = HEAP.current_usage();
    for sequence in 1..=10 {
        for session in &sessions {
            let (key, value) = (Bytes::from_static(b"key"), value(sequence as u8, MIB));
            execute(&mut map, *session, sequence, Command::Put { key, value });
        }
    }
    let held = heap_since(before);
    assert!((MIB..=MIB + SLACK).contains(&held), "{held} bytes after 100 MiB of puts to one key");
}

/// Of what an append replaced nothing is there; the course allows one old value for each client.
#[test]
fn mem_append_2() {
    const CLIENTS: usize = 10;
    const APPENDS: usize = 8;
    let _alone = alone();
    let mut map = StateMachine::new(Limits::default());
    let sessions: Vec<SessionId> = (0..CLIENTS).map(|_| open(&mut map)).collect();
    let part = MIB / CLIENTS / APPENDS;
    let before = HEAP.current_usage();
    for sequence in 1..=APPENDS as u64 {
        for session in &sessions {
            let (key, value) = (Bytes::from_static(b"key"), value(b'x', part));
            execute(&mut map, *session, sequence, Command::Append { key, value });
        }
    }
    let (held, there) = (heap_since(before), map.get(b"key").expect("appended").value.len());
    assert_eq!(there, part * CLIENTS * APPENDS);
    assert!((there..=2 * there + SLACK).contains(&held), "{held} bytes for a value of {there}");
}

/// A client that has put something costs at most 200 bytes, whatever it put.
#[test]
fn mem_put_many_clients() {
    let _alone = alone();
    let mut map = StateMachine::new(Limits::default());
    let before = HEAP.current_usage();
    for _ in 0..MANY {
        let session = open(&mut map);
        let (key, value) = (Bytes::from_static(b"key"), value(b'x', 1_000));
        execute(&mut map, session, 1, Command::Put { key, value });
    }
    assert_eq!((map.sessions_len() as u64, map.replies_len() as u64), (MANY, MANY));
    let each = heap_since(before) / MANY as usize;
    println!("{each} bytes a client that has put something");
    assert!((1..=200).contains(&each), "{each} bytes a client");
}

// ---- Reads: a whole node ----

/// A cluster of one, which leads, with ten values of 1 MiB.
fn server() -> World {
    let mut setup = Setup::draw(1);
    let limits = Limits::default();
    let payload_max = limits.proposal_bytes() as u32 + 1;
    let log = Options { segment_bytes: 4 * MIB as u64, payload_max, spares: 1, batch_bytes: 4 * MIB };
    setup.nodes = 1;
    (setup.limits, setup.max_raft_state, setup.inbox) = (limits, None, Bounds::default());
    setup.sizes = Sizes { log, tail_bytes: 0, ..Sizes::new(None, payload_max) };
    (setup.clocks, setup.syncs) = (vec![1_000], vec![Duration::from_millis(1)]);
    setup.offsets = vec![Duration::ZERO];
    setup.faults = Faults::none();
    setup.load.clients = 0;
    setup.safety = Duration::from_secs(100_000);
    setup.sabotage = None;
    let mut world = World::new(setup);
    world.tap = Some(Tap::new(limits));
    run(&mut world, 5_000);
    let role = world.nodes[0].life.as_ref().map(|life| life.replica.soft_state().role);
    assert_eq!(role, Some(RoleKind::Leader));
    ask(&mut world, SCRIPT, 1, Ask::Open);
    run(&mut world, 100);
    let Some(Ok(Answer::Opened { session })) = answer(&world, 1) else { panic!("no session") };
    for at in 0..10 {
        let command = Command::Put { key: key(at), value: value(at as u8, MIB) };
        ask(&mut world, SCRIPT, at + 2, Ask::Write { session, sequence: at + 1, acked_below: 1, command });
        run(&mut world, 100);
        assert!(matches!(answer(&world, at + 2), Some(Ok(Answer::Written { .. }))), "put {at}");
    }
    world
}

fn run(world: &mut World, millis: u64) {
    let until = world.now + Duration::from_millis(millis);
    while world.step(until) {}
}

fn key(at: u64) -> Bytes {
    Bytes::from(format!("key-{at}"))
}

fn ask(world: &mut World, client: ClientId, id: u64, body: Ask) {
    let request = Asked { id, body };
    world.push(0, Input::Client { client, owner: OWNER, request });
}

fn answer(world: &World, id: u64) -> Option<Result<Answer, String>> {
    let response = world.tap.as_ref().and_then(|tap| tap.answers.get(&id))?;
    Some(response.body.clone().map_err(|refusal| format!("{refusal:?}")))
}

/// So many clients read one of the ten values each; the last one's answer is looked at.
fn read(world: &mut World, clients: u64) {
    for client in 0..clients {
        ask(world, ClientId(client), client, Ask::Read(Query::Get { key: key(client % 10) }));
        if client % 100 == 99 {
            run(world, 20);
        }
    }
    ask(world, SCRIPT, 100, Ask::Read(Query::Get { key: key(0) }));
    run(world, 1_000);
    let answered = world.tap.as_mut().and_then(|tap| tap.answers.remove(&100)).expect("answered");
    let Ok(Answer::Got { found: Some(found), .. }) = answered.body else { panic!("{answered:?}") };
    assert_eq!(found.value.len(), MIB);
}

/// What was read is not kept for those who may ask again.
#[test]
fn mem_get_2() {
    let _alone = alone();
    let mut world = server();
    read(&mut world, 100);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    read(&mut world, 100);
    let (held, peak) = (heap_since(before), HEAP.peak_usage().saturating_sub(before));
    // Answers share the bytes of the value.
    assert!(held <= SLACK && peak <= MIB, "{held} bytes held, {peak} at a time, for 100 reads of 1 MiB");
}

/// A client that only reads leaves nothing at all.
#[test]
fn mem_get_many_clients() {
    let _alone = alone();
    let mut world = server();
    read(&mut world, 1_000);
    let before = HEAP.current_usage();
    read(&mut world, MANY);
    let held = heap_since(before);
    println!("{held} bytes after {MANY} clients have read");
    assert!(held < 10 * MANY as usize, "{held} bytes for {MANY} clients");
}
