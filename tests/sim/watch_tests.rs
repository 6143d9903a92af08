//! Each check of the watcher that needs no running node, made to fail once. Those of running nodes are seen red in worlds
//! that are broken on purpose: by `Sabotage`, and by the bugs of `tests/reintroduced`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raftmap::raft::{AppendOutcome, Body, Message, Outbound, RoleKind, SoftState};
use raftmap::storage::model::ModelFs;
use raftmap::storage::types::{Batch, Entry, HardState, Index, NodeId, Position, SnapshotId, Term};
use raftmap::wire::client::{Answer, Response};

use raftmap_sim::atlas::{Verdict, permits};
use raftmap_sim::entries::{Entries, complete};
use raftmap_sim::node::Node;
use raftmap_sim::reads::{Answering, Reads};
use raftmap_sim::setup::Setup;
use raftmap_sim::shadow::{Log, Mark};
use raftmap_sim::watch::Watch;

fn nodes() -> Vec<Node> {
    let setup = Setup { nodes: 3, ..Setup::draw(0) };
    let node = |at| Node::new(setup.node(at), setup.sizes, ModelFs::new(0), 1_000, Duration::from_millis(1));
    (0..3).map(node).collect()
}

fn entry(index: u64, term: u64, text: &'static str) -> Entry {
    Entry::new(Position::new(index, term), text.into())
}

fn mark(index: u64, term: u64, text: &'static str) -> Mark {
    (Term(term), entry(index, term, text).payload_crc)
}

fn state(term: u64, vote: Option<u64>) -> HardState {
    HardState { term: Term(term), vote: vote.map(NodeId) }
}

/// The node writes this, and its disk takes it.
fn write(node: &mut Node, hard_state: HardState, entries: Vec<Entry>) {
    let batch = Batch { hard_state: Some(hard_state), entries, ..Batch::default() };
    assert_eq!(node.shadow.submit(1, &batch), Ok(()));
    assert_eq!(node.shadow.synced(1), Ok(()));
}

fn says(to: u64, term: u64, body: Body) -> Outbound {
    Outbound { to: NodeId(to), message: Message { term: Term(term), body } }
}

#[test]
fn two_leaders_in_a_term() {
    let (nodes, mut watch) = (nodes(), Watch::default());
    let leads = |node: &Node| SoftState { term: Term(2), leader: Some(node.id()), role: RoleKind::Leader };
    assert_eq!(watch.changed(Duration::ZERO, &nodes[0], leads(&nodes[0])), Ok(()));
    assert_eq!(watch.changed(Duration::ZERO, &nodes[0], leads(&nodes[0])), Ok(()));
    assert!(watch.changed(Duration::ZERO, &nodes[1], leads(&nodes[1])).is_err());
}

#[test]
fn logs_that_do_not_match() {
    let (mut entries, log) = (Entries::default(), Log::default());
    let behind = |index: u64, term: u64| Log { base: Position::new(index, term), ..Log::default() };
    let id = NodeId(1);
    assert_eq!(entries.written(id, &log, &[entry(1, 1, "a")]), Ok(()));
    assert_eq!(entries.written(id, &log, &[entry(1, 1, "a"), entry(1, 2, "b")]), Ok(()));
    assert!(entries.written(id, &log, &[entry(1, 1, "b")]).is_err(), "other bytes");
    assert_eq!(entries.written(id, &behind(1, 1), &[entry(2, 2, "c")]), Ok(()));
    assert!(entries.written(id, &behind(1, 2), &[entry(2, 2, "c")]).is_err(), "behind another entry");
}

#[test]
fn a_leader_without_what_was_committed() {
    let mut node = nodes().remove(0);
    write(&mut node, state(1, None), vec![entry(1, 1, "a")]);
    let committed = [mark(1, 1, "a"), mark(2, 1, "b")];
    let check = |term, upto: usize| {
        complete(NodeId(1), Term(term), &node.shadow.log, &committed[..upto], &[Term(1), Term(3)][..upto])
    };
    assert_eq!(check(3, 1), Ok(()));
    assert_eq!(check(3, 2), Ok(()), "committed in its own term or later: not its business");
    assert!(check(4, 2).is_err());
}

#[test]
fn terms_and_votes_that_change() {
    let mut node = nodes().remove(0);
    write(&mut node, state(3, Some(2)), vec![]);
    for wrong in [state(2, None), state(3, Some(1)), state(3, None)] {
        let batch = Batch { hard_state: Some(wrong), ..Batch::default() };
        assert!(node.shadow.submit(2, &batch).is_err(), "{wrong:?}");
    }
    assert!(node.shadow.speaks(Term(3), NodeId(1)).is_err(), "over all lives");
}

#[test]
fn what_is_said_before_it_is_durable() {
    let (mut nodes, watch) = (nodes(), Watch::default());
    write(&mut nodes[0], state(3, Some(1)), vec![entry(1, 1, "a")]);
    let mut sent = |body, term| watch.sent(&mut nodes, 0, &says(2, term, body));
    let accepted =
        |matched| Body::AppendReply(AppendOutcome::Accepted { matched: Index(matched), full: false });
    assert_eq!(sent(accepted(1), 3), Ok(()));
    assert!(sent(accepted(2), 3).is_err(), "an entry");
    assert!(sent(accepted(1), 4).is_err(), "a term");
    let last = Position::new(1, 1);
    assert_eq!(sent(Body::Vote { last, transfer: false }, 3), Ok(()));
    assert!(sent(Body::Vote { last, transfer: false }, 4).is_err(), "a vote for itself");
    assert!(sent(Body::VoteReply { granted: true }, 3).is_err(), "a second vote");
    assert_eq!(sent(Body::PreVote { last }, 4), Ok(()), "which promises nothing");
    assert!(sent(Body::HeartbeatReply { round: 1, stuck: false }, 4).is_err(), "that it follows in a term");
    assert!(sent(Body::Heartbeat { commit: Index(1), round: 1 }, 3).is_err(), "a commit that was not one");
}

/// What the next leader cut after it was on the disk may still be acknowledged to the leader before.
#[test]
fn an_acknowledgement_of_what_was_cut_since() {
    let mut nodes = nodes();
    let watch = Watch::default();
    write(&mut nodes[0], state(3, None), vec![entry(1, 1, "a"), entry(2, 3, "b")]);
    let truncate = Some(Position::new(1, 1));
    let batch = Batch { hard_state: Some(state(4, None)), truncate, ..Batch::default() };
    assert_eq!(nodes[0].shadow.submit(2, &batch), Ok(()));
    assert_eq!(nodes[0].shadow.synced(2), Ok(()));
    let mut acknowledges = |matched, term| {
        let body = Body::AppendReply(AppendOutcome::Accepted { matched: Index(matched), full: false });
        watch.sent(&mut nodes, 0, &says(2, term, body))
    };
    assert_eq!(acknowledges(2, 3), Ok(()));
    assert!(acknowledges(3, 3).is_err(), "it never had that");
    assert!(acknowledges(2, 4).is_err(), "in term 4 it does not have it");
    assert!(acknowledges(2, 2).is_err(), "in term 2 it did not have it");
}

#[test]
fn an_answer_before_a_majority_has_it() {
    let (mut nodes, mut watch) = (nodes(), Watch::default());
    let reply = raftmap::kv::Reply::Delete { existed: true };
    let response = Response { id: 1, body: Ok(Answer::Written { index: Index(1), reply }) };
    assert!(watch.answered(&nodes, &response).is_err(), "never seen committed");
    let committed = mark(1, 1, "a");
    for node in &mut nodes[..2] {
        write(node, state(1, None), vec![entry(1, 1, "a")]);
    }
    assert_eq!(watch.commit(&nodes, Index(1), committed, Term(1)), Ok(()));
    assert_eq!(watch.answered(&nodes, &response), Ok(()));
    nodes[1].shadow.set_back(Log::default());
    assert!(watch.answered(&nodes, &response).is_err(), "one disk has it");
}

#[test]
fn commits_that_are_none() {
    let (mut nodes, mut watch) = (nodes(), Watch::default());
    write(&mut nodes[0], state(1, None), vec![entry(1, 1, "a")]);
    assert!(watch.commit(&nodes, Index(1), mark(1, 1, "a"), Term(1)).is_err(), "one disk has it");
    write(&mut nodes[1], state(1, None), vec![entry(1, 1, "a")]);
    let mut watch = Watch::default();
    assert_eq!(watch.commit(&nodes, Index(1), mark(1, 1, "a"), Term(1)), Ok(()));
    assert_eq!(watch.whole(&nodes), Ok(()));
    assert!(watch.commit(&nodes, Index(1), mark(1, 2, "a"), Term(2)).is_err(), "another entry in its place");
    assert!(watch.commit(&nodes, Index(3), mark(3, 2, "c"), Term(2)).is_err(), "the one before it never was");
    nodes[1].harm = raftmap_sim::atlas::Harm::Spoiled(ModelFs::new(0));
    assert!(watch.whole(&nodes).is_err(), "one sound disk has it");
}

#[test]
fn snapshots_and_bytes_that_should_not_be() {
    let (mut nodes, mut watch) = (nodes(), Watch::default());
    let snapshot = |digest| SnapshotId { position: Position::new(5, 1), length: 9, digest: [digest; 32] };
    assert_eq!(watch.snapshot(NodeId(1), snapshot(1)), Ok(()));
    assert_eq!(watch.snapshot(NodeId(2), snapshot(1)), Ok(()));
    assert!(watch.snapshot(NodeId(3), snapshot(2)).is_err());
    nodes[0].config.max_raft_state = Some(1_000);
    assert_eq!(watch.bytes(&nodes[0], 2_000), Ok(()));
    assert!(watch.bytes(&nodes[0], 3_000).is_err());
}

#[test]
fn states_and_terms_that_should_not_be() {
    let mut watch = Watch::default();
    assert_eq!(watch.digest(NodeId(1), Index(5), [1; 32]), Ok(()));
    assert_eq!(watch.digest(NodeId(2), Index(5), [1; 32]), Ok(()));
    assert!(watch.digest(NodeId(3), Index(5), [2; 32]).is_err());
    watch.max_term = Term(9);
    assert!(watch.terms(8).is_err() && watch.terms(9).is_ok());
}

/// Node 1 holds entries 1 and 2 and voted for itself in term 3.
fn to_be_harmed(others: [(HardState, usize); 2]) -> Vec<Node> {
    let mut nodes = nodes();
    let all = || vec![entry(1, 1, "a"), entry(2, 3, "b")];
    write(&mut nodes[0], state(3, Some(1)), all());
    for (node, (hard_state, count)) in nodes[1..].iter_mut().zip(others) {
        write(node, hard_state, all().into_iter().take(count).collect());
    }
    nodes
}

fn may_be_emptied(others: [(HardState, usize); 2]) -> bool {
    let committed = [mark(1, 1, "a"), mark(2, 3, "b")];
    permits(&to_be_harmed(others), 0, &committed, &Verdict::Less(Log::default()))
}

#[test]
fn the_atlas_gives_nothing_away_that_a_cluster_needs() {
    let voted = state(3, Some(1));
    assert!(may_be_emptied([(voted, 2), (voted, 2)]));
    assert!(!may_be_emptied([(voted, 2), (voted, 1)]), "an entry would have one copy left");
    assert!(!may_be_emptied([(voted, 2), (state(2, None), 2)]), "a leader of term 2 could find a majority");
    assert!(!may_be_emptied([(voted, 2), (state(3, None), 2)]), "another could be elected in term 3");
    assert!(may_be_emptied([(state(4, None), 2), (state(4, None), 2)]), "nobody asks about term 3 any more");
    let mut nodes = to_be_harmed([(voted, 1), (voted, 1)]);
    let emptied = Verdict::Less(Log::default());
    assert!(permits(&nodes, 0, &[mark(1, 1, "a")], &emptied), "entry 2 is nobody else's");
    let on_its_way = Batch { entries: vec![entry(2, 3, "b")], ..Batch::default() };
    assert_eq!(nodes[1].shadow.submit(2, &on_its_way), Ok(()));
    assert!(!permits(&nodes, 0, &[mark(1, 1, "a")], &emptied), "another counts on entry 2");
    let refused = Verdict::Refused("damaged".into());
    let mut nodes = to_be_harmed([(voted, 2), (voted, 2)]);
    assert!(permits(&nodes, 0, &[], &refused));
    nodes[1].harm = raftmap_sim::atlas::Harm::Spoiled(ModelFs::new(0));
    assert!(!permits(&nodes, 0, &[], &refused), "one of three is enough");
}

/// What is behind the last sync may go unnoticed; what was synced before, entries, term or vote, has a witness.
#[test]
fn damage_that_cannot_go_unnoticed() {
    let mut node = nodes().remove(0);
    let unnoticed = |node: &Node, hard_state| {
        let found = Log { hard_state, ..Log::default() };
        catch_unwind(AssertUnwindSafe(|| node.could_not_know(&found))).is_ok()
    };
    write(&mut node, state(5, Some(1)), vec![]);
    assert!(unnoticed(&node, state(0, None)), "all that there is is the last sync's");
    write(&mut node, state(6, None), vec![]);
    assert!(unnoticed(&node, state(5, Some(1))) && unnoticed(&node, state(6, None)));
    assert!(!unnoticed(&node, state(5, None)), "its vote in term 5 was synced before");
    assert!(!unnoticed(&node, state(4, Some(1))), "so was the term");
    write(&mut node, state(6, None), vec![entry(1, 6, "a")]);
    assert!(unnoticed(&node, state(6, None)));
    write(&mut node, state(6, None), vec![entry(2, 6, "b")]);
    assert!(!unnoticed(&node, state(6, None)), "entry 1 was synced before");
}

/// Asked at 20 ms, when entry 5 was acknowledged; term 3 leads since 10 ms.
fn read(term: u64, index: u64, confirmed: &[(u64, u64)]) -> Result<(), String> {
    let (mut reads, at) = (Reads::default(), Duration::from_millis);
    reads.elected(at(10), Term(3));
    reads.acknowledged(Index(5));
    reads.asked(at(20), 1, 1);
    let confirmed = confirmed.iter().enumerate().map(|(from, (term, time))| (from, (Term(*term), at(*time))));
    let confirmed: BTreeMap<usize, (Term, Duration)> = confirmed.collect();
    let (term, index) = (Term(term), Index(index));
    reads.answered(1, 1, Answering { id: NodeId(1), term, index, confirmed: &confirmed, majority: 2 })
}

#[test]
fn a_read_without_a_round_since_it_was_asked() {
    assert_eq!(read(3, 5, &[(3, 20)]), Ok(()));
    assert!(read(3, 4, &[(3, 25)]).is_err(), "behind what was acknowledged");
    assert!(read(2, 5, &[(2, 25)]).is_err(), "deposed before it was asked");
    assert!(read(3, 5, &[(3, 19)]).is_err(), "a round from before");
    assert!(read(3, 5, &[(2, 25)]).is_err(), "a round of another term");
    assert!(read(3, 5, &[]).is_err(), "no round");
}
