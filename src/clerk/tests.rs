//! The clerk's machine against scripted servers: what it sends, where, under which number, and how each call ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftmap_storage::types::{Index, NodeId};

use super::door::{Door, Handed, Link};
use super::driver::{Standing, State};
use super::machine::{CallId, Ending, Machine, Output, ServerAddress, ServerId, Unsent};
use crate::kv::{Command, Reply, SessionId};
use crate::wire::client::{Answer, Ask, Query, Refusal, Request, Response};

const A: ServerId = ServerId(0);
const B: ServerId = ServerId(1);
/// The node of this process, that others know by address 1.
const LOCAL: ServerAddress =
    ServerAddress::Local { alias: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1)) };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn remote(port: u16) -> ServerAddress {
    ServerAddress::Remote(address(port))
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn put(value: &str) -> Command {
    Command::Put { key: Bytes::from_static(b"k"), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// Three servers; the first is connected and has opened session 7.
fn connected() -> Machine {
    let mut machine = Machine::new(vec![remote(1), remote(2), remote(3)], 4);
    let call = machine.write(ms(0), ms(1_000), put("first"));
    assert_eq!(machine.outputs(), vec![Output::Connect(A)]);
    machine.link_up(ms(1), A);
    let open = sent(&mut machine, A);
    assert_eq!(open.body, Ask::Open);
    respond(&mut machine, 2, A, open.id, Ok(Answer::Opened { session: SessionId(7) }));
    let first = sent(&mut machine, A);
    done(&mut machine, 3, A, first.id);
    assert_eq!(machine.outputs(), vec![Output::Finish(call, Ending::Done(written()))]);
    machine
}

fn written() -> Answer {
    Answer::Written { index: Index(9), reply: Reply::Put { version: 9 } }
}

fn respond(machine: &mut Machine, at: u64, server: ServerId, id: u64, body: Result<Answer, Refusal>) {
    machine.response(ms(at), server, Response { id, body });
}

fn done(machine: &mut Machine, at: u64, server: ServerId, id: u64) {
    respond(machine, at, server, id, Ok(written()));
}

/// The one request sent now, to `server`.
#[track_caller]
fn sent(machine: &mut Machine, server: ServerId) -> Request {
    let mut outputs = machine.outputs();
    match (outputs.pop(), outputs.is_empty()) {
        (Some(Output::Send(to, request)), true) if to == server => request,
        (last, _) => panic!("{outputs:?} {last:?}"),
    }
}

#[track_caller]
fn number(request: &Request) -> (u64, u64, u64) {
    match &request.body {
        Ask::Write { session, sequence, acked_below, .. } => (session.0, *sequence, *acked_below),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn ended(machine: &mut Machine, call: CallId) -> Ending {
    let outputs = machine.outputs();
    let mut endings = outputs.into_iter().filter_map(|output| match output {
        Output::Finish(id, ending) if id == call => Some(ending),
        _ => None,
    });
    let ending = endings.next().expect("the call has ended");
    assert_eq!(endings.next(), None, "a call ends once");
    ending
}

#[test]
fn a_write_opens_a_session_and_numbers_follow() {
    let mut machine = connected();
    machine.write(ms(10), ms(1_000), put("second"));
    let second = sent(&mut machine, A);
    assert_eq!(number(&second), (7, 2, 2));
    machine.write(ms(11), ms(1_000), put("third"));
    // The second is unresolved: its reply must be kept.
    assert_eq!(number(&sent(&mut machine, A)), (7, 3, 2));
}

#[test]
fn a_redirect_is_followed_under_the_same_number() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(1_000), put("x"));
    let first = sent(&mut machine, A);
    let leader = Some((NodeId(2), address(2)));
    respond(&mut machine, 11, A, first.id, Err(Refusal::NotLeader { leader }));
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
    machine.link_up(ms(12), B);
    let second = sent(&mut machine, B);
    assert_eq!(number(&second), number(&first));
    assert_ne!(second.id, first.id);
    done(&mut machine, 13, B, second.id);
    assert_eq!(ended(&mut machine, call), Ending::Done(written()));
    // The leader is remembered.
    machine.write(ms(14), ms(1_000), put("y"));
    sent(&mut machine, B);
}

#[test]
fn a_lost_connection_asks_the_next_server_under_the_same_number() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(1_000), put("x"));
    let first = sent(&mut machine, A);
    machine.link_down(ms(20), A);
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
    machine.link_up(ms(21), B);
    let again = sent(&mut machine, B);
    assert_eq!(number(&again), number(&first));
    done(&mut machine, 22, B, again.id);
    assert_eq!(ended(&mut machine, call), Ending::Done(written()));
}

#[test]
fn silence_leaves_a_leader_that_is_cut_off_and_a_late_answer_still_counts() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(5_000), put("x"));
    let first = sent(&mut machine, A);
    let wake = machine.wake_at().expect("an attempt is timed");
    machine.tick(wake);
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
    done(&mut machine, 2_000, A, first.id);
    assert_eq!(ended(&mut machine, call), Ending::Done(written()));
}

#[test]
fn a_silent_leader_is_not_returned_to_on_the_word_of_others() {
    let mut machine = connected();
    machine.link_up(ms(5), B);
    machine.write(ms(10), ms(5_000), put("x"));
    sent(&mut machine, A);
    machine.tick(ms(310));
    let second = sent(&mut machine, B);
    let old = Some((NodeId(1), address(1)));
    respond(&mut machine, 311, B, second.id, Err(Refusal::NotLeader { leader: old }));
    machine.tick(ms(340));
    assert_eq!(machine.outputs(), vec![Output::Connect(ServerId(2))], "A was silent, B does not lead");
}

#[test]
fn a_slow_leader_that_answers_others_is_given_time() {
    let mut machine = connected();
    machine.write(ms(10), ms(5_000), put("slow"));
    sent(&mut machine, A);
    machine.write(ms(200), ms(5_000), put("quick"));
    let quick = sent(&mut machine, A);
    done(&mut machine, 300, A, quick.id);
    machine.outputs();
    machine.tick(ms(310));
    assert!(machine.outputs().is_empty(), "A has answered within the last 300 ms");
    machine.tick(ms(600));
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
}

#[test]
fn a_deadline_before_anything_was_sent_is_definite() {
    let mut machine = Machine::new(vec![remote(1)], 4);
    let call = machine.write(ms(0), ms(100), put("x"));
    machine.outputs();
    machine.link_down(ms(50), A);
    machine.tick(ms(100));
    assert_eq!(ended(&mut machine, call), Ending::NoAnswer);
    assert_eq!(machine.wake_at(), None, "nothing is left to do");
}

#[test]
fn a_deadline_after_a_refusal_says_what_was_refused() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(100), put("x"));
    let request = sent(&mut machine, A);
    respond(&mut machine, 11, A, request.id, Err(Refusal::Busy));
    machine.tick(ms(12));
    assert!(machine.outputs().is_empty(), "a busy server is given a pause");
    machine.tick(ms(16));
    let request = sent(&mut machine, A);
    respond(&mut machine, 17, A, request.id, Err(Refusal::Busy));
    machine.tick(ms(20));
    assert!(machine.outputs().is_empty());
    machine.tick(ms(100));
    assert_eq!(ended(&mut machine, call), Ending::NotDone(Refusal::Busy));
}

#[test]
fn a_deadline_after_a_send_is_unknown_and_resumes_under_the_same_number() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(100), put("x"));
    let first = sent(&mut machine, A);
    machine.tick(ms(100));
    assert_eq!(ended(&mut machine, call), Ending::Unknown);
    // Others go on meanwhile, and do not acknowledge it.
    machine.write(ms(110), ms(1_000), put("y"));
    assert_eq!(number(&sent(&mut machine, A)), (7, 3, 2));
    // A late answer is not taken for the one that will be asked for.
    done(&mut machine, 120, A, first.id);
    assert!(machine.outputs().is_empty());
    machine.resume(ms(130), call, ms(500));
    let again = sent(&mut machine, A);
    assert_eq!(number(&again), number(&first));
    done(&mut machine, 131, A, again.id);
    assert_eq!(ended(&mut machine, call), Ending::Done(written()));
}

#[test]
fn a_refusal_after_a_doubtful_attempt_is_not_definite() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(400), put("x"));
    let first = sent(&mut machine, A);
    respond(&mut machine, 20, A, first.id, Err(Refusal::Lost));
    machine.link_up(ms(21), B);
    machine.tick(ms(100));
    let second = sent(&mut machine, B);
    respond(&mut machine, 101, B, second.id, Err(Refusal::NoSpace));
    machine.tick(ms(400));
    assert_eq!(ended(&mut machine, call), Ending::Unknown);
}

#[test]
fn no_space_is_told_at_once_where_nothing_is_in_doubt() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(400), put("x"));
    let first = sent(&mut machine, A);
    respond(&mut machine, 20, A, first.id, Err(Refusal::NoSpace));
    assert_eq!(ended(&mut machine, call), Ending::NotDone(Refusal::NoSpace));
}

#[test]
fn a_full_window_waits_for_the_lowest_number() {
    let mut machine = connected();
    let calls: Vec<CallId> = (0..5).map(|_| machine.write(ms(10), ms(1_000), put("x"))).collect();
    let requests: Vec<u64> = machine
        .outputs()
        .into_iter()
        .map(|output| match output {
            Output::Send(_, request) => request.id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(requests.len(), 4, "the window is 4");
    done(&mut machine, 20, A, requests[1]);
    assert_eq!(ended(&mut machine, calls[1]), Ending::Done(written()));
    done(&mut machine, 21, A, requests[0]);
    let outputs = machine.outputs();
    assert!(
        matches!(outputs.as_slice(), [Output::Finish(..), Output::Send(_, request)] if number(request) == (7, 6, 4)),
        "{outputs:?}"
    );
}

#[test]
fn an_expired_session_is_replaced_silently_where_nothing_is_in_doubt() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(1_000), put("x"));
    let first = sent(&mut machine, A);
    respond(&mut machine, 11, A, first.id, Err(Refusal::SessionExpired));
    let open = sent(&mut machine, A);
    respond(&mut machine, 12, A, open.id, Ok(Answer::Opened { session: SessionId(40) }));
    let again = sent(&mut machine, A);
    assert_eq!(number(&again), (40, 1, 1));
    done(&mut machine, 13, A, again.id);
    assert_eq!(ended(&mut machine, call), Ending::Done(written()));
}

#[test]
fn an_expired_session_is_told_where_a_write_is_in_doubt() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(1_000), put("x"));
    sent(&mut machine, A);
    machine.link_down(ms(20), A);
    machine.link_up(ms(21), B);
    machine.outputs();
    let again = machine.outputs();
    assert!(again.is_empty());
    machine.tick(ms(25));
    // Asked again at B under the old number, which is gone by then.
    respond(&mut machine, 30, B, 4, Err(Refusal::SessionExpired));
    assert_eq!(ended(&mut machine, call), Ending::Expired);
}

#[test]
fn forgetting_a_call_gives_its_number_up() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(1_000), put("x"));
    sent(&mut machine, A);
    machine.forget(ms(11), call);
    machine.write(ms(12), ms(1_000), put("y"));
    assert_eq!(number(&sent(&mut machine, A)), (7, 3, 3));
}

#[test]
fn reads_need_no_session_and_follow_the_leader() {
    let mut machine = Machine::new(vec![LOCAL, remote(2)], 4);
    let call = machine.read(ms(0), ms(1_000), Query::Len, false);
    let request = sent(&mut machine, A);
    assert_eq!(request.body, Ask::Read(Query::Len));
    respond(&mut machine, 1, A, request.id, Err(Refusal::NotLeader { leader: None }));
    // Nobody knows a leader: the next server is tried after a pause.
    assert!(machine.outputs().is_empty());
    machine.tick(ms(30));
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
    machine.link_up(ms(31), B);
    let request = sent(&mut machine, B);
    respond(&mut machine, 32, B, request.id, Ok(Answer::Len { index: Index(1), pairs: 3 }));
    assert_eq!(ended(&mut machine, call), Ending::Done(Answer::Len { index: Index(1), pairs: 3 }));
}

#[test]
fn calls_under_way_are_bounded() {
    let mut machine = Machine::new(vec![remote(1)], 4);
    for _ in 0..65_536 {
        machine.read(ms(0), ms(1_000), Query::Len, false);
    }
    machine.outputs();
    let call = machine.read(ms(0), ms(1_000), Query::Len, false);
    assert_eq!(ended(&mut machine, call), Ending::NotDone(Refusal::Busy));
}

#[test]
fn connecting_is_staggered() {
    let mut machine = Machine::new(vec![remote(1), remote(2), remote(3)], 4);
    machine.read(ms(0), ms(1_000), Query::Len, false);
    assert_eq!(machine.outputs(), vec![Output::Connect(A)]);
    machine.tick(ms(99));
    assert!(machine.outputs().is_empty());
    assert_eq!(machine.wake_at(), Some(ms(100)));
    machine.tick(ms(100));
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
    machine.link_up(ms(110), B);
    sent(&mut machine, B);
}

#[test]
fn every_call_ends_by_its_deadline() {
    let mut machine = connected();
    let calls: Vec<CallId> = (0..40).map(|call| machine.write(ms(10), ms(50 + call), put("x"))).collect();
    let mut ended = std::collections::BTreeSet::new();
    let mut now = ms(10);
    while let Some(wake) = machine.wake_at().filter(|at| *at < ms(5_000)) {
        now = now.max(wake);
        machine.tick(now);
        for output in machine.outputs() {
            if let Output::Finish(call, _) = output {
                assert!(ended.insert(call), "{call:?} ended twice");
            }
        }
    }
    assert!(calls.iter().all(|call| ended.contains(call)));
    assert!(now < ms(1_000), "the last deadline was 89 ms, woke until {now:?}");
}

#[test]
fn a_request_that_found_no_room_is_sent_later_and_casts_no_doubt() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(100), put("x"));
    let first = sent(&mut machine, A);
    machine.unsent(ms(10), first.id, Unsent::NoRoom);
    assert!(machine.outputs().is_empty(), "the connection is given time");
    machine.tick(ms(15));
    let again = sent(&mut machine, A);
    assert_eq!(number(&again), number(&first));
    machine.unsent(ms(15), again.id, Unsent::NoRoom);
    machine.tick(ms(16));
    assert!(machine.outputs().is_empty(), "each pause is longer");
    machine.tick(ms(100));
    assert_eq!(ended(&mut machine, call), Ending::NotDone(Refusal::Busy));
}

#[test]
fn a_request_that_found_no_connection_casts_no_doubt() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(100), put("x"));
    let first = sent(&mut machine, A);
    machine.unsent(ms(10), first.id, Unsent::NoLink);
    machine.link_down(ms(10), A);
    machine.tick(ms(100));
    assert_eq!(ended(&mut machine, call), Ending::NoAnswer);
}

#[test]
fn a_slow_answer_to_an_opening_is_taken_and_a_second_session_given_back() {
    let mut machine = Machine::new(vec![remote(1)], 4);
    machine.write(ms(0), ms(20_000), put("first"));
    machine.outputs();
    machine.link_up(ms(1), A);
    let first = sent(&mut machine, A);
    machine.tick(ms(301));
    let second = sent(&mut machine, A);
    assert_eq!((&first.body, &second.body), (&Ask::Open, &Ask::Open));
    respond(&mut machine, 401, A, first.id, Ok(Answer::Opened { session: SessionId(7) }));
    assert_eq!(number(&sent(&mut machine, A)), (7, 1, 1));
    respond(&mut machine, 402, A, second.id, Ok(Answer::Opened { session: SessionId(8) }));
    assert_eq!(sent(&mut machine, A).body, Ask::Close { session: SessionId(8) });
}

#[test]
fn a_leader_that_answers_others_is_given_time_to_open() {
    let mut machine = Machine::new(vec![remote(1), remote(2)], 4);
    machine.write(ms(0), ms(20_000), put("first"));
    machine.read(ms(0), ms(20_000), Query::Len, false);
    machine.outputs();
    machine.link_up(ms(1), A);
    let requests = machine.outputs();
    let [Output::Send(A, read), Output::Send(A, open)] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(open.body, Ask::Open);
    respond(&mut machine, 250, A, read.id, Ok(Answer::Len { index: Index(1), pairs: 3 }));
    machine.outputs();
    machine.tick(ms(301));
    assert!(machine.outputs().is_empty(), "A has answered within the last 300 ms");
    assert_eq!(machine.wake_at(), Some(ms(550)));
    machine.tick(ms(550));
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
}

#[test]
fn no_space_for_a_session_is_told_at_once() {
    let mut machine = Machine::new(vec![remote(1)], 4);
    let call = machine.write(ms(0), ms(20_000), put("first"));
    machine.outputs();
    machine.link_up(ms(1), A);
    let open = sent(&mut machine, A);
    respond(&mut machine, 2, A, open.id, Err(Refusal::NoSpace));
    assert_eq!(ended(&mut machine, call), Ending::NotDone(Refusal::NoSpace));
}

#[test]
fn a_redirect_to_the_own_node_stays_in_the_process() {
    let mut machine = Machine::new(vec![LOCAL, remote(2)], 4);
    machine.link_up(ms(0), B);
    machine.read(ms(0), ms(1_000), Query::Len, false);
    let request = sent(&mut machine, A);
    let leader = Some((NodeId(2), address(2)));
    respond(&mut machine, 1, A, request.id, Err(Refusal::NotLeader { leader }));
    let request = sent(&mut machine, B);
    let leader = Some((NodeId(1), address(1)));
    respond(&mut machine, 2, B, request.id, Err(Refusal::NotLeader { leader }));
    sent(&mut machine, A);
}

#[test]
fn a_stale_read_asks_the_own_node_whoever_leads() {
    let mut machine = Machine::new(vec![LOCAL, remote(2)], 4);
    machine.link_up(ms(0), B);
    machine.read(ms(0), ms(1_000), Query::Len, false);
    let request = sent(&mut machine, A);
    let leader = Some((NodeId(2), address(2)));
    respond(&mut machine, 1, A, request.id, Err(Refusal::NotLeader { leader }));
    sent(&mut machine, B);
    machine.read(ms(3), ms(2_000), Query::Len, true);
    assert_eq!(sent(&mut machine, A).body, Ask::Stale(Query::Len));
    // One that does not answer is not asked twice.
    machine.link_up(ms(4), B);
    machine.tick(ms(304));
    let outputs = machine.outputs();
    assert!(outputs.iter().all(|output| matches!(output, Output::Send(B, _))), "{outputs:?}");
}

/// Each call ends before the silence is long enough to speak against the server; a second one does not wait there again.
#[test]
fn calls_with_short_deadlines_leave_a_silent_server_too() {
    let mut machine = Machine::new(vec![remote(1), remote(2)], 4);
    machine.read(ms(0), ms(200), Query::Len, false);
    assert_eq!(machine.outputs(), vec![Output::Connect(A)]);
    machine.link_up(ms(0), A);
    machine.link_up(ms(0), B);
    sent(&mut machine, A);
    machine.tick(ms(200));
    let short = machine.read(ms(200), ms(400), Query::Len, false);
    let outputs = machine.outputs();
    assert!(matches!(outputs.as_slice(), [Output::Finish(..), Output::Send(A, _)]), "{outputs:?}");
    machine.tick(ms(400));
    assert_eq!(ended(&mut machine, short), Ending::NoAnswer);
    machine.read(ms(400), ms(600), Query::Len, false);
    sent(&mut machine, B);
}

#[test]
fn silence_is_not_counted_from_one_connection_to_the_next() {
    let mut machine = Machine::new(vec![remote(1), remote(2)], 4);
    let first = machine.read(ms(0), ms(200), Query::Len, false);
    assert_eq!(machine.outputs(), vec![Output::Connect(A)]);
    machine.link_up(ms(0), A);
    sent(&mut machine, A);
    machine.link_down(ms(10), A);
    assert_eq!(machine.outputs(), vec![Output::Connect(B)]);
    machine.connect_failed(ms(20), B, "refused".into());
    machine.tick(ms(200));
    ended(&mut machine, first);
    machine.link_up(ms(60_000), A);
    machine.read(ms(60_000), ms(60_020), Query::Len, false);
    sent(&mut machine, A);
    machine.tick(ms(60_020));
    machine.outputs();
    machine.read(ms(60_030), ms(60_050), Query::Len, false);
    sent(&mut machine, A);
}

#[test]
fn unresolved_writes_that_fill_the_window_are_named() {
    let mut machine = connected();
    let held = machine.write(ms(10), ms(20), put("x"));
    machine.outputs();
    machine.tick(ms(20));
    assert_eq!(ended(&mut machine, held), Ending::Unknown);
    for at in 30..33 {
        machine.write(ms(at), ms(1_000), put("y"));
        let request = sent(&mut machine, A);
        done(&mut machine, at, A, request.id);
        machine.outputs();
    }
    let blocked = machine.write(ms(40), ms(500), put("z"));
    assert!(machine.outputs().is_empty(), "four numbers from the held one on are drawn");
    machine.tick(ms(500));
    assert_eq!(ended(&mut machine, blocked), Ending::WindowFull);
    machine.forget(ms(501), held);
    machine.write(ms(502), ms(1_000), put("z"));
    sent(&mut machine, A);
}

#[test]
fn a_bad_request_after_a_doubtful_attempt_is_not_definite() {
    let mut machine = connected();
    let call = machine.write(ms(10), ms(400), put("x"));
    let first = sent(&mut machine, A);
    respond(&mut machine, 20, A, first.id, Err(Refusal::Lost));
    machine.link_up(ms(21), B);
    machine.tick(ms(100));
    let second = sent(&mut machine, B);
    respond(&mut machine, 101, B, second.id, Err(Refusal::BadRequest { what: "acknowledged".into() }));
    assert_eq!(ended(&mut machine, call), Ending::Unknown);
}

#[test]
fn a_session_given_back_late_does_not_end_the_next_one() {
    let mut machine = connected();
    machine.close_session(ms(10), ms(1_000));
    let close = sent(&mut machine, A);
    assert_eq!(close.body, Ask::Close { session: SessionId(7) });
    machine.write(ms(11), ms(1_000), put("x"));
    let write = sent(&mut machine, A);
    respond(&mut machine, 12, A, write.id, Err(Refusal::SessionExpired));
    let open = sent(&mut machine, A);
    respond(&mut machine, 13, A, open.id, Ok(Answer::Opened { session: SessionId(8) }));
    sent(&mut machine, A);
    respond(&mut machine, 14, A, close.id, Ok(Answer::Closed));
    assert_eq!(machine.session(), Some(SessionId(8)));
}

#[test]
fn who_could_not_connect_is_told_why() {
    let mut machine = Machine::new(vec![remote(1)], 4);
    let call = machine.read(ms(0), ms(100), Query::Len, false);
    machine.outputs();
    machine.connect_failed(ms(5), A, "unknown authority".into());
    machine.tick(ms(100));
    assert_eq!(ended(&mut machine, call), Ending::Unreached("unknown authority".into()));
}

#[test]
fn deadlines_beyond_all_time_are_deadlines() {
    let mut machine = connected();
    let call = machine.write(ms(10), Duration::MAX, put("x"));
    let request = sent(&mut machine, A);
    done(&mut machine, 20, A, request.id);
    assert_eq!(ended(&mut machine, call), Ending::Done(written()));
}

struct Nowhere;

impl Door for Nowhere {
    fn send(&self, _request: Request) -> Handed {
        Handed::Sent
    }
}

#[test]
fn the_end_of_an_older_connection_leaves_the_new_one_alone() {
    let (machine, callers) = (Machine::new(vec![remote(1)], 4), std::collections::HashMap::new());
    let mut state = State { machine, callers, links: vec![None], next_generation: 2, armed: None };
    state.link_up(ms(1), A, Standing { link: Link::Local(Arc::new(Nowhere)), generation: 2 });
    state.link_lost(ms(2), A, Some(1));
    state.machine.read(ms(3), ms(1_000), Query::Len, false);
    assert!(state.links[0].is_some());
    sent(&mut state.machine, A);
    state.link_lost(ms(4), A, Some(2));
    assert!(state.links[0].is_none());
    state.machine.tick(ms(104));
    assert_eq!(state.machine.outputs(), vec![Output::Connect(A)]);
}
