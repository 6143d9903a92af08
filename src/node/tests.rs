//! Replicas side by side in one thread: real cores, maps and waiting rooms; messages, syncs and snapshots pass through
//! this file's hands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use raftmap_storage::types::{
    Batch, ClusterId, EntryMeta, HardState, Index, Membership, NodeId, Position, SnapshotId, Term,
};

use super::driver;
use super::fault::Fault;
use super::inbox::{Inbox, Lane, Refused};
use super::replica::{Arrived, ClientId, Durable, Host, Input, Job, Replica, ReplicaConfig};
use crate::kv::{Command, Limits, Owner, Reply, SessionId, StateMachine};
use crate::raft::entry::Bootstrap;
use crate::raft::{BatchNumber, Body, Config, Message, Outbound, Raft, Restored, RoleKind, SoftState};
use crate::wire::client::{Answer, Ask, Query, Refusal, Request, Response};

const CLIENT: ClientId = ClientId(1);
const OWNER: Owner = Owner([1; 16]);
const TICK: Duration = Duration::from_millis(10);

/// What one replica did.
#[derive(Default)]
struct Tray {
    sent: VecDeque<Outbound>,
    /// Given to the disk and not durable yet.
    submitted: VecDeque<BatchNumber>,
    replies: Vec<Response>,
    jobs: Vec<Job>,
}

impl Host for Tray {
    fn send(&mut self, outbound: Outbound) {
        self.sent.push_back(outbound);
    }

    fn submit(&mut self, number: BatchNumber, _batch: Batch) {
        self.submitted.push_back(number);
    }

    fn reply(&mut self, _client: ClientId, response: Response) {
        self.replies.push(response);
    }

    fn start(&mut self, job: Job) {
        self.jobs.push(job);
    }

    fn changed(&mut self, _state: SoftState) {}
}

struct World {
    nodes: Vec<(Replica, Tray)>,
    now: Duration,
    /// Nodes whose messages are lost.
    cut: Vec<usize>,
    /// Nodes whose syncs do not finish.
    stuck: Vec<usize>,
    next: u64,
}

impl World {
    fn new(count: u64, limits: Limits, max_raft_state: Option<u64>) -> Self {
        let membership = Membership { voters: (1..=count).map(NodeId).collect() };
        let nodes = (1..=count).map(|id| (replica(id, &membership, limits, max_raft_state), Tray::default()));
        let mut world =
            Self { nodes: nodes.collect(), now: Duration::ZERO, cut: vec![], stuck: vec![], next: 1 };
        world.run(200);
        world
    }

    fn three() -> Self {
        Self::new(3, Limits::default(), None)
    }

    /// Lets `ticks` pass.
    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now += TICK;
            for at in 0..self.nodes.len() {
                self.step(at, Input::Tick);
            }
            self.settle();
        }
    }

    fn step(&mut self, at: usize, input: Input) {
        let (replica, tray) = &mut self.nodes[at];
        replica.step(self.now, input, tray);
        replica.advance(self.now, tray).expect("nothing is read from a disk here");
        replica.raft().check_invariants();
    }

    /// Syncs and messages, until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for at in 0..self.nodes.len() {
                moved |= self.sync(at) | self.deliver(at);
            }
            if !moved {
                return;
            }
        }
    }

    fn sync(&mut self, at: usize) -> bool {
        if self.stuck.contains(&at) {
            return false;
        }
        let Some(number) = self.nodes[at].1.submitted.pop_front() else { return false };
        self.step(at, Input::Durable(Durable { through: Some(number), ..Durable::default() }));
        true
    }

    fn deliver(&mut self, at: usize) -> bool {
        let Some(Outbound { to, message }) = self.nodes[at].1.sent.pop_front() else { return false };
        let target = usize::try_from(to.0).expect("small") - 1;
        if !self.cut.contains(&at) && !self.cut.contains(&target) {
            self.step(target, Input::Peer { from: NodeId(at as u64 + 1), message });
        }
        true
    }

    #[track_caller]
    fn leader(&self) -> usize {
        let leads =
            |at: &usize| !self.cut.contains(at) && self.nodes[*at].0.soft_state().role == RoleKind::Leader;
        (0..self.nodes.len()).find(leads).expect("somebody leads")
    }

    /// Sends a request to a node and returns its id; nothing moves yet.
    fn ask(&mut self, at: usize, body: Ask) -> u64 {
        let id = self.next;
        self.next += 1;
        let request = Request { id, body };
        self.step(at, Input::Client { client: CLIENT, owner: OWNER, request });
        id
    }

    fn answer(&mut self, at: usize, id: u64) -> Option<Result<Answer, Refusal>> {
        let replies = &mut self.nodes[at].1.replies;
        let found = replies.iter().position(|response| response.id == id)?;
        Some(replies.remove(found).body)
    }

    #[track_caller]
    fn call(&mut self, at: usize, body: Ask) -> Result<Answer, Refusal> {
        let id = self.ask(at, body);
        self.settle();
        self.answer(at, id).expect("it is answered")
    }

    #[track_caller]
    fn open(&mut self, at: usize) -> SessionId {
        match self.call(at, Ask::Open) {
            Ok(Answer::Opened { session }) => session,
            other => panic!("{other:?}"),
        }
    }
}

fn replica(id: u64, membership: &Membership, limits: Limits, max_raft_state: Option<u64>) -> Replica {
    let bootstrap = Bootstrap {
        cluster: ClusterId([9; 16]),
        voters: membership.voters.clone(),
        limits: limits.encode().expect("encodes").into(),
    };
    let entry = bootstrap.entry().expect("encodes");
    let config = Config {
        id: NodeId(id),
        election_ticks: (25, 50),
        heartbeat_ticks: 5,
        append_bytes_max: 1 << 20,
        append_entries_max: 100,
        inflight_appends_max: 8,
        inflight_bytes_max: 1 << 20,
        uncommitted_bytes_max: 1 << 20,
        log_bytes_max: max_raft_state.map(|bound| 2 * bound),
        payload_max: 1 << 20,
        tail_bytes: usize::MAX,
        seed: id,
    };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        snapshot: None,
        membership: membership.clone(),
        log: vec![EntryMeta { term: Term(1), payload_len: entry.payload.len() as u32 }],
        tail: vec![entry],
        sealed_through: Index(0),
    };
    let raft = Raft::new(config, restored).expect("valid");
    let address = |id: &NodeId| ([127, 0, 0, 1], 7000 + id.0 as u16).into();
    let config = ReplicaConfig {
        max_raft_state,
        log_bytes_max: 1 << 20,
        addresses: membership.voters.iter().map(|id| (*id, address(id))).collect::<BTreeMap<_, _>>(),
        waiting_max: 8,
        membership: membership.clone(),
    };
    Replica::new(raft, StateMachine::new(limits), vec![], None, config)
}

fn append(session: SessionId, sequence: u64, value: &'static str) -> Ask {
    let command =
        Command::Append { key: Bytes::from_static(b"k"), value: Bytes::from_static(value.as_bytes()) };
    Ask::Write { session, sequence, acked_below: 1, command }
}

fn get() -> Query {
    Query::Get { key: Bytes::from_static(b"k") }
}

#[track_caller]
fn value(answer: Result<Answer, Refusal>) -> String {
    match answer {
        Ok(Answer::Got { found, .. }) => {
            found.map_or(String::new(), |found| String::from_utf8_lossy(&found.value).into_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_answered_when_a_majority_has_it_and_not_before() {
    let mut world = World::three();
    let leader = world.leader();
    let session = world.open(leader);
    world.stuck = vec![0, 1, 2];
    let id = world.ask(leader, append(session, 1, "a"));
    world.settle();
    assert_eq!(world.answer(leader, id), None, "nobody has synced it");
    world.stuck = (0..3).filter(|at| *at != leader).collect();
    world.settle();
    assert_eq!(world.answer(leader, id), None, "one of three has synced it");
    world.stuck.pop();
    world.settle();
    assert!(matches!(world.answer(leader, id), Some(Ok(Answer::Written { .. }))));
}

#[test]
fn a_number_asked_twice_is_executed_once_also_under_the_next_leader() {
    let mut world = World::three();
    let first = world.leader();
    let session = world.open(first);
    let done = world.call(first, append(session, 1, "a"));
    assert_eq!(world.call(first, append(session, 1, "a")), done);
    world.cut = vec![first];
    world.run(200);
    let second = world.leader();
    assert_ne!(first, second);
    assert_eq!(world.call(second, append(session, 1, "a")), done, "the stored reply, with its first index");
    assert_eq!(value(world.call(second, Ask::Read(get()))), "a");
}

#[test]
fn a_leader_that_is_cut_off_gives_up_and_says_that_it_does_not_know() {
    let mut world = World::three();
    let first = world.leader();
    let session = world.open(first);
    world.cut = vec![first];
    let write = world.ask(first, append(session, 1, "lost"));
    let read = world.ask(first, Ask::Read(get()));
    world.settle();
    assert_eq!((world.answer(first, write), world.answer(first, read)), (None, None));
    world.run(200);
    assert_eq!(world.answer(first, write), Some(Err(Refusal::Lost)));
    assert_eq!(world.answer(first, read), Some(Err(Refusal::NotLeader { leader: None })));
    // Its entry is replaced by the others'; the retry under the same number counts once.
    let second = world.leader();
    assert!(world.call(second, append(session, 1, "lost")).is_ok());
    world.cut.clear();
    world.run(100);
    assert_eq!(value(world.call(second, Ask::Read(get()))), "lost");
    assert_eq!(value(world.call(first, Ask::Stale(get()))), "lost");
}

#[test]
fn a_read_waits_for_a_round_that_began_after_it() {
    let mut world = World::three();
    let leader = world.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    world.cut = others;
    let id = world.ask(leader, Ask::Read(get()));
    world.settle();
    assert_eq!(world.answer(leader, id), None, "nobody has confirmed the leader");
    world.cut.clear();
    world.run(10);
    assert_eq!(value(world.answer(leader, id).expect("confirmed by the next heartbeats")), "");
}

#[test]
fn a_follower_points_to_the_leader_and_reads_stale_by_name() {
    let mut world = World::three();
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    let hint = (NodeId(leader as u64 + 1), ([127, 0, 0, 1], 7001 + leader as u16).into());
    let expected = Err(Refusal::NotLeader { leader: Some(hint) });
    assert_eq!(world.call(follower, Ask::Open), expected);
    assert_eq!(world.call(follower, Ask::Read(get())), expected);
    assert_eq!(value(world.call(follower, Ask::Stale(get()))), "");
}

#[test]
fn without_space_writes_are_refused_and_reads_go_on() {
    let mut world = World::three();
    let leader = world.leader();
    let session = world.open(leader);
    world.call(leader, append(session, 1, "a")).expect("there is space");
    world.step(leader, Input::NoSpace(true));
    assert_eq!(world.call(leader, append(session, 2, "b")), Err(Refusal::NoSpace));
    assert_eq!(value(world.call(leader, Ask::Read(get()))), "a");
    world.step(leader, Input::NoSpace(false));
    world.call(leader, append(session, 2, "b")).expect("space is back");
    assert_eq!(value(world.call(leader, Ask::Read(get()))), "ab");
}

#[test]
fn the_waiting_room_is_bounded() {
    let mut world = World::three();
    let leader = world.leader();
    let session = world.open(leader);
    world.stuck = vec![0, 1, 2];
    for sequence in 1..=8 {
        world.ask(leader, append(session, sequence, "x"));
    }
    assert_eq!(world.call(leader, append(session, 9, "x")), Err(Refusal::Busy));
    assert_eq!(world.call(leader, Ask::Read(get())), Err(Refusal::Busy));
}

#[test]
fn stopping_answers_everyone() {
    let mut world = World::three();
    let leader = world.leader();
    let session = world.open(leader);
    world.stuck = vec![0, 1, 2];
    let write = world.ask(leader, append(session, 1, "x"));
    world.cut = vec![0, 1, 2];
    let read = world.ask(leader, Ask::Read(get()));
    world.settle();
    world.step(leader, Input::Stop);
    assert_eq!(world.answer(leader, write), Some(Err(Refusal::Lost)));
    assert_eq!(world.answer(leader, read), Some(Err(Refusal::Stopping)));
}

#[test]
fn idle_sessions_expire_by_log_time_without_any_write() {
    let limits = Limits { session_ttl_ms: 5_000, ..Limits::default() };
    let mut world = World::new(3, limits, None);
    let leader = world.leader();
    let session = world.open(leader);
    world.run(400);
    assert_eq!(world.nodes[leader].0.map().sessions_len(), 1, "4 s have passed");
    world.run(300);
    assert_eq!(world.nodes[leader].0.map().sessions_len(), 0, "7 s have passed");
    assert_eq!(world.call(leader, append(session, 1, "x")), Err(Refusal::SessionExpired));
}

#[test]
fn a_log_near_its_bound_is_snapshotted_and_at_it_writes_wait() {
    let mut world = World::new(1, Limits::default(), Some(1_000));
    let session = world.open(0);
    let mut sequence = 0;
    let refused = loop {
        sequence += 1;
        if let Err(refusal) = world.call(0, append(session, sequence, "0123456789")) {
            break refusal;
        }
        assert!(sequence < 100, "the bound holds");
    };
    assert_eq!(refused, Refusal::Busy);
    let status = world.nodes[0].0.status();
    assert!((1_900..2_300).contains(&status.raft_state_bytes), "{status:?}");
    let jobs = std::mem::take(&mut world.nodes[0].1.jobs);
    let [Job::WriteSnapshot { image, .. }] = jobs.as_slice() else { panic!("{jobs:?}") };
    let snapshot = SnapshotId { position: image.applied(), length: 1, digest: [0; 32] };
    world.step(0, Input::SnapshotWritten(Ok(snapshot)));
    world.settle();
    let status = world.nodes[0].0.status();
    assert_eq!(status.snapshot, snapshot.position.index);
    assert!(status.raft_state_bytes < 1_900, "the log below the snapshot is gone: {status:?}");
    world.call(0, append(session, sequence, "0123456789")).expect("there is room again");
}

#[test]
fn a_log_that_grows_by_other_frames_than_entries_is_snapshotted_too() {
    let mut world = World::new(1, Limits::default(), Some(1 << 20));
    world.open(0);
    let grown = Durable { log_bytes: 1 << 20, ..Durable::default() };
    world.step(0, Input::Durable(grown));
    assert!(matches!(world.nodes[0].1.jobs.as_slice(), [Job::WriteSnapshot { .. }]));
}

/// A leader's snapshot of everything up to `index`, read into a map.
fn arrived(from: usize, term: Term, index: u64, limits: Limits) -> Input {
    let mut map = StateMachine::new(limits);
    (1..=index).for_each(|at| map.skip(Position::new(at, 1)));
    Input::SnapshotArrived(Box::new(Arrived {
        from: NodeId(from as u64 + 1),
        term,
        snapshot: SnapshotId { position: map.applied(), length: 1, digest: [0; 32] },
        membership: Membership { voters: (1..=3).map(NodeId).collect() },
        map,
    }))
}

#[test]
fn of_two_snapshots_that_arrive_together_the_newer_counts() {
    let mut world = World::three();
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    let term = world.nodes[leader].0.soft_state().term;
    let now = world.now;
    let (replica, tray) = &mut world.nodes[follower];
    replica.step(now, arrived(leader, term, 120, Limits::default()), tray);
    replica.step(now, arrived(leader, term, 100, Limits::default()), tray);
    replica.advance(now, tray).expect("the older one is let go");
    assert_eq!(replica.map().applied().index, Index(120));
}

#[test]
fn a_snapshot_with_other_limits_is_not_taken() {
    let mut world = World::three();
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    let term = world.nodes[leader].0.soft_state().term;
    let limits = Limits { key_bytes: 1, ..Limits::default() };
    world.step(follower, arrived(leader, term, 120, limits));
    assert!(world.nodes[follower].0.map().applied().index < Index(120));
}

#[test]
fn a_follower_without_space_takes_no_entries_and_still_votes() {
    let mut world = World::three();
    let first = world.leader();
    let full = (first + 1) % 3;
    let session = world.open(first);
    world.run(10);
    world.step(full, Input::NoSpace(true));
    let before = world.nodes[full].0.status().last;
    for sequence in 1..=5 {
        world.call(first, append(session, sequence, "x")).expect("the other two have space");
        world.run(10);
    }
    assert_eq!(world.nodes[full].0.status().last, before);
    // A leader that has everything is elected with its vote.
    world.cut = vec![first];
    world.run(200);
    assert_ne!(world.leader(), first);
    world.cut.clear();
    world.step(full, Input::NoSpace(false));
    world.run(200);
    assert_eq!(world.nodes[full].0.map().digest(), world.nodes[world.leader()].0.map().digest());
}

#[test]
fn no_second_snapshot_begins_before_the_first_one_has_dropped_its_log() {
    let mut world = World::new(1, Limits::default(), Some(1_000));
    let session = world.open(0);
    let mut sequence = 1;
    while world.call(0, append(session, sequence, "0123456789")).is_ok() {
        sequence += 1;
    }
    let jobs = std::mem::take(&mut world.nodes[0].1.jobs);
    let [Job::WriteSnapshot { image, .. }] = jobs.as_slice() else { panic!("{jobs:?}") };
    let snapshot = SnapshotId { position: image.applied(), length: 1, digest: [0; 32] };
    world.step(0, Input::SnapshotWritten(Ok(snapshot)));
    assert!(world.nodes[0].1.jobs.is_empty(), "its mark is not durable yet");
}

#[test]
fn what_waits_for_a_hanging_disk_is_bounded() {
    let mut world = World::three();
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    world.stuck = vec![follower];
    let term = world.nodes[leader].0.soft_state().term.next();
    let heartbeat = |round| Input::Peer {
        from: NodeId(leader as u64 + 1),
        message: Message { term, body: Body::Heartbeat { commit: Index(0), round } },
    };
    (0..10_000).for_each(|round| world.step(follower, heartbeat(round)));
    world.nodes[follower].1.sent.clear();
    world.stuck.clear();
    while world.sync(follower) {}
    let sent = world.nodes[follower].1.sent.len();
    assert!((1..=4_100).contains(&sent), "{sent} answers were kept");
}

/// The transport says that it is dead, be it for a panic: the replica's thread ends with everybody answered.
#[test]
fn a_dead_network_ends_the_thread_too_and_is_why() {
    let mut world = World::new(1, Limits::default(), None);
    let session = world.open(0);
    let (replica, mut tray) = world.nodes.pop().expect("one node");
    let (inbox, fault) = (Inbox::default(), Mutex::new(None));
    let request = Request { id: 77, body: append(session, 1, "x") };
    inbox.push(Lane::Own, Input::Client { client: CLIENT, owner: OWNER, request }).expect("open");
    super::network_died(&fault, &inbox, "a task panicked".into());
    super::network_died(&fault, &inbox, "another one did, for that".into());
    driver::run(replica, &inbox, &AtomicBool::new(false), &mut tray).expect("it ends as if asked to");
    assert!(tray.replies.iter().any(|response| response.id == 77), "{:?}", tray.replies);
    let fault = fault.into_inner().expect("no poison").expect("it has a reason");
    assert!(matches!(&fault, Fault::Network(why) if why == "a task panicked"), "{fault}");
    assert_eq!(inbox.push(Lane::Own, Input::Tick), Err(Refused::Closed));
}

#[test]
fn a_fault_ends_the_thread_and_answers_everyone() {
    let mut world = World::new(1, Limits::default(), None);
    let session = world.open(0);
    let (replica, mut tray) = world.nodes.pop().expect("one node");
    let inbox = Inbox::default();
    let request = Request { id: 77, body: append(session, 1, "x") };
    let ask = Input::Client { client: CLIENT, owner: OWNER, request };
    inbox.push(Lane::Own, ask).expect("open");
    inbox.push(Lane::Own, Input::Fault(Fault::Log("broken".into()))).expect("open");
    let fault =
        driver::run(replica, &inbox, &AtomicBool::new(false), &mut tray).expect_err("it cannot go on");
    assert!(fault.to_string().contains("broken"));
    let answer = tray.replies.iter().find(|response| response.id == 77).expect("it is answered");
    assert_eq!(answer.body, Err(Refusal::Lost));
    assert_eq!(inbox.push(Lane::Own, Input::Tick), Err(Refused::Closed));
}

#[test]
fn a_snapshot_that_fails_is_tried_again_after_a_pause() {
    let mut world = World::new(1, Limits::default(), Some(1_000));
    let session = world.open(0);
    for sequence in 1..=12 {
        let _full = world.call(0, append(session, sequence, "0123456789"));
    }
    assert_eq!(world.nodes[0].1.jobs.len(), 1);
    world.step(0, Input::SnapshotWritten(Err("disk full".into())));
    assert_eq!(world.nodes[0].1.jobs.len(), 1, "not at once");
    world.run(110);
    assert_eq!(world.nodes[0].1.jobs.len(), 2);
}

#[test]
fn replies_name_the_command_they_answer() {
    let mut world = World::new(1, Limits::default(), None);
    let session = world.open(0);
    let key = Bytes::from_static(b"k");
    let mut sequence = 0;
    let mut write = |world: &mut World, command: Command| {
        sequence += 1;
        match world.call(0, Ask::Write { session, sequence, acked_below: 1, command }) {
            Ok(Answer::Written { index, reply }) => (index.0, reply),
            other => panic!("{other:?}"),
        }
    };
    let value = Bytes::from_static(b"v");
    let (index, reply) = write(&mut world, Command::Put { key: key.clone(), value: value.clone() });
    assert_eq!(reply, Reply::Put { version: index });
    let compare = Command::CompareAndPut { key: key.clone(), version: index + 1, value };
    assert_eq!(write(&mut world, compare).1, Reply::Mismatch { current: index });
    assert_eq!(write(&mut world, Command::Delete { key }).1, Reply::Delete { existed: true });
    assert_eq!(world.nodes[0].0.map().applied().index, Index(index + 2));
}

/// Whoever is further behind than some rounds of the log's bound gets a snapshot.
#[test]
fn what_is_kept_for_those_behind_is_bounded_by_the_logs_bound() {
    let tail = |bound| crate::node::open::Sizes::new(bound, 1_000).tail_bytes;
    assert_eq!(
        [Some(1_000), Some(1 << 30), Some(u64::MAX), None].map(tail),
        [64_000, 8 << 20, 8 << 20, 8 << 20]
    );
}
