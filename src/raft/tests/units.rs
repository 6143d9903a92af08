//! The parts by themselves, at their edges.

use bytes::Bytes;
use raftmap_storage::types::{
    Entry, EntryMeta, HardState, Index, Membership, NodeId, Position, SnapshotId, SnapshotMark, Term,
    frame_len,
};

use super::cluster::config;
use crate::raft::config::{ConfigError, Restored};
use crate::raft::disk::Disk;
use crate::raft::entry::VOTERS_MAX;
use crate::raft::log::Log;
use crate::raft::progress::{Progress, Refusal, Sending};
use crate::raft::reads::Reads;
use crate::raft::{
    AppendOutcome, BatchNumber, Body, Config, Message, OlderEntries, Raft, ReadError, ReadId, entry,
};

fn filled(index: u64, term: u64, size: usize) -> Entry {
    Entry::new(Position::new(index, term), Bytes::from(vec![1; size]))
}

/// A log of these terms from index 1 on, ten bytes each, with a heap of `tail` bytes.
fn log(terms: &[u64], tail: usize) -> Log {
    let mut log = Log::new(Position::ZERO, Vec::new(), Vec::new(), Index(0), tail);
    terms.iter().zip(1..).for_each(|(term, index)| log.append(filled(index, *term, 10)));
    log
}

/// Gives what it is told to give.
struct Store(Vec<Entry>);

impl OlderEntries for Store {
    fn read(&self, from: Index, _: Index, _: usize) -> Result<Vec<Entry>, ReadError> {
        Ok(self.0.iter().filter(|entry| entry.position.index >= from).cloned().collect())
    }
}

pub(super) struct NoStore;

impl OlderEntries for NoStore {
    fn read(&self, _: Index, _: Index, _: usize) -> Result<Vec<Entry>, ReadError> {
        Err(ReadError::store("no such segment"))
    }
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position.index.0).collect()
}

#[test]
fn log_knows_its_terms() {
    let log = log(&[1, 1, 4, 4, 5], 1000);
    let check = |index, first, term| {
        assert_eq!(log.term_at(Index(index)), Some(Term(term)));
        assert_eq!(log.first_of_term(Index(index)), Some(Index(first)));
    };
    check(1, 1, 1);
    check(2, 1, 1);
    check(3, 3, 4);
    check(4, 3, 4);
    check(5, 5, 5);
    assert_eq!(log.term_at(Index(6)), None);
    let check = |term, last| assert_eq!(log.last_not_above(Term(term)), Index(last), "term {term}");
    check(0, 0);
    check(1, 2);
    check(3, 2);
    check(4, 4);
    check(9, 5);
}

#[test]
fn log_counts_its_bytes_through_every_change() {
    let mut log = log(&[1, 1, 2, 2, 2], 1000);
    let frame = frame_len(10);
    assert_eq!(log.bytes(), 5 * frame);
    log.truncate(Index(4));
    assert_eq!(log.bytes(), 4 * frame);
    log.compact(Index(3));
    assert_eq!(log.bytes(), frame);
    log.check_invariants();
    log.compact(Index(2)); // late news of an older one
    assert_eq!(log.bytes(), frame);
    assert_eq!(log.payload_bytes(Index(1), Index(9)), 40);
    log.reset(Position::new(9, 3));
    assert_eq!((log.bytes(), log.last()), (0, Position::new(9, 3)));
    log.append(filled(10, 3, 10));
    log.check_invariants();
}

#[test]
fn log_gives_up_only_what_can_be_read_elsewhere() {
    let mut log = log(&[1, 1, 1, 1, 1], 25);
    let store = Store((1..=5).map(|index| filled(index, 1, 10)).collect());
    let limits = (9, 1000);
    assert_eq!(indexes(&log.read(Index(1), Index(5), limits, &NoStore).unwrap()), [1, 2, 3, 4, 5]);
    log.seal(Index(2));
    log.check_invariants();
    assert!(log.read(Index(2), Index(5), limits, &NoStore).is_err());
    assert_eq!(indexes(&log.read(Index(3), Index(5), limits, &NoStore).unwrap()), [3, 4, 5]);
    // Older and newer entries never share an answer.
    assert_eq!(indexes(&log.read(Index(1), Index(5), limits, &store).unwrap()), [1, 2]);
    // What is below the snapshot leaves for good.
    log.compact(Index(4));
    log.check_invariants();
    assert_eq!(log.base(), Position::new(3, 1));
    assert_eq!(log.term_at(Index(2)), None);
}

#[test]
fn log_reads_within_limits_and_at_least_one() {
    let log = log(&[1, 1, 1, 1, 1], 1000);
    let check = |from, through, limits, expected: &[u64]| {
        let read = log.read(Index(from), Index(through), limits, &NoStore).unwrap();
        assert_eq!(indexes(&read), expected, "{from}..={through} within {limits:?}");
    };
    check(1, 5, (3, 1000), &[1, 2, 3]);
    check(1, 5, (9, 20), &[1, 2]);
    check(1, 5, (9, 29), &[1, 2]);
    check(1, 5, (9, 1), &[1]);
    check(4, 5, (9, 1000), &[4, 5]);
    check(2, 3, (9, 1000), &[2, 3]);
}

#[test]
fn log_refuses_what_the_store_should_not_have_given() {
    let mut log = log(&[1, 1, 1, 1, 1], 0);
    log.seal(Index(5));
    let read = |store: &dyn OlderEntries| log.read(Index(1), Index(5), (9, 1000), store);
    assert!(matches!(read(&Store(Vec::new())), Err(ReadError::Missing { from: Index(1) })));
    assert!(matches!(read(&Store(vec![filled(2, 1, 10)])), Err(ReadError::Mismatch { .. })));
    assert!(matches!(read(&Store(vec![filled(1, 2, 10)])), Err(ReadError::Mismatch { .. })));
    let gap = Store(vec![filled(1, 1, 10), filled(3, 1, 10)]);
    assert!(matches!(read(&gap), Err(ReadError::Mismatch { wanted: Index(2), .. })));
}

#[test]
fn disk_counts_only_what_is_synced_and_still_stands() {
    let mut log = log(&[1, 1, 1], 1000);
    let mut disk = Disk::new(Term(1), Index(0), Index(0));
    let hard_state = HardState { term: Term(1), vote: None };
    let (first, batch) = disk.take_batch(hard_state, &log, 0).unwrap();
    assert_eq!((first, indexes(&batch.entries)), (BatchNumber(1), vec![1, 2, 3]));
    assert!(disk.take_batch(hard_state, &log, 0).is_none(), "nothing new");
    // While that is on its way, its last two entries are replaced.
    log.truncate(Index(1));
    disk.truncated(Position::new(1, 1));
    log.append(filled(2, 2, 10));
    disk.hard_state_changed();
    let (second, batch) = disk.take_batch(hard_state, &log, 0).unwrap();
    assert_eq!((batch.truncate, indexes(&batch.entries)), (Some(Position::new(1, 1)), vec![2]));
    disk.synced(first);
    assert_eq!(disk.durable(), Index(1));
    disk.check_invariants(&log, Term(2));
    disk.synced(second);
    assert_eq!(disk.durable(), Index(2));
}

#[test]
fn disk_truncates_to_the_lowest_end_and_not_what_it_never_had() {
    let mut log = log(&[1, 1, 1, 1], 1000);
    let mut disk = Disk::new(Term(1), Index(0), Index(3));
    let hard_state = HardState::default();
    log.truncate(Index(3)); // entry 4 was never handed out
    disk.truncated(Position::new(3, 1));
    assert!(!disk.has_batch(&log));
    log.truncate(Index(1));
    disk.truncated(Position::new(1, 1));
    log.append(filled(2, 2, 10));
    log.truncate(Index(1));
    disk.truncated(Position::new(1, 1));
    log.append(filled(2, 3, 10));
    let (_, batch) = disk.take_batch(hard_state, &log, 0).unwrap();
    assert_eq!(batch.truncate, Some(Position::new(1, 1)));
    assert_eq!(batch.entries.len(), 1);
    assert_eq!(batch.entries[0].position, Position::new(2, 3));
}

#[test]
fn disk_is_stuck_after_its_time_and_not_before() {
    let log = log(&[1], 1000);
    let mut disk = Disk::new(Term(1), Index(0), Index(0));
    assert!(!disk.is_stuck(1000, 10), "nothing is on its way");
    let (number, _) = disk.take_batch(HardState::default(), &log, 5).unwrap();
    assert!(!disk.is_stuck(15, 10));
    assert!(disk.is_stuck(16, 10));
    disk.synced(number);
    assert!(!disk.is_stuck(1000, 10));
}

#[test]
fn disk_marks_the_newest_snapshot_only() {
    let log = log(&[1, 1, 1], 1000);
    let mut disk = Disk::new(Term(1), Index(0), Index(3));
    let snapshot = |index| SnapshotId { position: Position::new(index, 1), length: 0, digest: [0; 32] };
    let mark = |index| SnapshotMark { snapshot: snapshot(index), reset: false };
    assert!(disk.mark(mark(2)));
    assert!(!disk.mark(mark(2)));
    assert!(!disk.mark(mark(1)));
    let (number, batch) = disk.take_batch(HardState::default(), &log, 0).unwrap();
    assert_eq!(batch.snapshot, Some(mark(2)));
    assert_eq!(disk.synced(number), Some(snapshot(2)));
}

fn replicating(matched: u64) -> Progress {
    let mut progress = Progress::new(Index(matched), (2, 100));
    progress.sent(Index(matched), 0, Index(0));
    assert!(progress.accepted(Index(matched), false, Index(0), Index(0)));
    assert_eq!(progress.sending(), Sending::Replicate);
    progress
}

#[test]
fn progress_keeps_to_its_window() {
    let mut progress = replicating(5);
    let last = Index(20);
    progress.sent(Index(6), 10, Index(0));
    assert!(progress.may_send(last));
    progress.sent(Index(7), 10, Index(0));
    assert!(!progress.may_send(last), "two are on their way");
    assert!(progress.accepted(Index(6), false, Index(0), Index(0)));
    assert!(progress.may_send(last));
    progress.sent(Index(8), 100, Index(0));
    assert!(progress.accepted(Index(7), false, Index(0), Index(0)));
    assert!(!progress.may_send(last), "a hundred bytes are on their way");
    assert!(progress.accepted(Index(8), false, Index(0), Index(0)));
    assert!(!progress.may_send(Index(8)), "nothing is left to send");
}

#[test]
fn progress_believes_no_claim_beyond_what_was_sent() {
    let mut progress = replicating(5);
    assert!(!progress.accepted(Index(6), false, Index(0), Index(0)));
    assert_eq!(progress.matched(), Index(5));
    assert!(progress.accepted(Index(3), false, Index(0), Index(0)), "late, and of no use");
    assert_eq!(progress.matched(), Index(5));
}

#[test]
fn progress_goes_back_by_one_at_least() {
    let mut progress = Progress::new(Index(9), (2, 100));
    let mut number = progress.sent(Index(9), 0, Index(0));
    // A hint that leads nowhere: the follower claims an end at or above what was probed.
    for prev in (0..=9).rev() {
        let refusal = progress.rejected(number, Index(prev), Index(9), None, Index(10));
        assert_eq!(refusal, Refusal::BackUp);
        assert_eq!(progress.next(), Index(prev).max(Index(1)));
        number = progress.sent(Index(prev), 0, Index(0));
    }
}

#[test]
fn progress_names_a_regression_by_what_was_asked_after_the_first_sign() {
    let mut progress = replicating(5);
    let reject =
        |progress: &mut Progress, number| progress.rejected(number, Index(5), Index(2), None, Index(3));
    let before = progress.sent(Index(5), 0, Index(0));
    assert_eq!(reject(&mut progress, before), Refusal::BackUp);
    assert_eq!(progress.counted(), Index(0));
    let after = progress.sent(Index(5), 0, Index(0));
    assert_eq!(reject(&mut progress, before), Refusal::Late, "as late as the first one, for all we know");
    assert_eq!(reject(&mut progress, after + 1), Refusal::Late, "no answer to anything");
    let expected = Refusal::Regressed { acknowledged: Index(5), shown: Index(2) };
    assert_eq!(reject(&mut progress, after), expected);
    assert_eq!(progress.next(), Index(3));
    progress.sent(Index(4), 0, Index(0));
    assert!(!progress.accepted(Index(5), false, Index(0), Index(0)), "an answer from before its loss");
    assert!(progress.accepted(Index(4), false, Index(0), Index(0)));
    assert_eq!(progress.counted(), Index(0));
    progress.sent(Index(6), 0, Index(0));
    for number in [before, after] {
        assert_eq!(reject(&mut progress, number), Refusal::Late, "the loss it shows has its name");
    }
    assert_eq!((progress.matched(), progress.next()), (Index(4), Index(7)), "nothing was thrown back");
    let reject_behind =
        |progress: &mut Progress, number| progress.rejected(number, Index(4), Index(3), None, Index(4));
    // Overtaken by what came behind it, as it may be from anybody.
    let overtaken = progress.sent(Index(6), 0, Index(0));
    assert_eq!(reject_behind(&mut progress, overtaken), Refusal::BackUp, "another doubt");
    assert_eq!(reject_behind(&mut progress, overtaken), Refusal::Late);
    assert!(progress.accepted(Index(6), false, Index(0), Index(0)));
    assert_eq!(progress.counted(), Index(6));
}

/// Before it holds again what it acknowledged it loses more: that is named too, as the first loss was.
#[test]
fn progress_names_a_second_loss_before_the_first_is_made_up_for() {
    let mut progress = replicating(5);
    let lose = |progress: &mut Progress, prev, last| {
        let number = progress.sent(Index(prev), 0, Index(0));
        progress.rejected(number, Index(prev), Index(last), None, Index(last + 1))
    };
    let named = |last| Refusal::Regressed { acknowledged: Index(5), shown: Index(last) };
    assert_eq!(lose(&mut progress, 5, 2), Refusal::BackUp);
    assert_eq!(lose(&mut progress, 5, 2), named(2));
    progress.sent(Index(4), 0, Index(0));
    assert!(progress.accepted(Index(4), false, Index(0), Index(0)));
    assert_eq!(lose(&mut progress, 4, 1), Refusal::BackUp, "it may be a late one");
    assert_eq!(lose(&mut progress, 4, 1), named(1));
    assert_eq!((progress.counted(), progress.next()), (Index(0), Index(2)));
}

/// The follower's log is long enough, and another entry stands where it acknowledged one.
#[test]
fn progress_takes_another_entry_in_an_acknowledged_place_for_a_loss() {
    let mut progress = replicating(5);
    let mut reject = || {
        let number = progress.sent(Index(5), 0, Index(0));
        progress.rejected(number, Index(5), Index(9), Some(Position::new(4, 1)), Index(4))
    };
    assert_eq!(reject(), Refusal::BackUp);
    assert_eq!(reject(), Refusal::Regressed { acknowledged: Index(5), shown: Index(3) });
    assert_eq!(progress.counted(), Index(0));
}

/// Several appends were on their way when one was lost: each is refused, and each refusal may be overtaken by the
/// acknowledgement of what was sent again, by any time.
#[test]
fn late_refusals_one_behind_the_other_are_no_regression() {
    let mut progress = replicating(5);
    let reject =
        |progress: &mut Progress, number| progress.rejected(number, Index(5), Index(3), None, Index(4));
    let refused: Vec<u64> = (0..10).map(|_| progress.sent(Index(5), 0, Index(0))).collect();
    assert_eq!(reject(&mut progress, refused[0]), Refusal::BackUp);
    for (now, number) in (1..).zip(&refused[1..]) {
        progress.heartbeat_due();
        progress.alive(now, 10);
        assert!(progress.may_send(Index(5)), "asked again");
        progress.sent(Index(5), 0, Index(0));
        assert_eq!(reject(&mut progress, *number), Refusal::Late);
    }
    assert!(progress.accepted(Index(5), false, Index(0), Index(0)));
    assert_eq!((progress.counted(), progress.sending()), (Index(5), Sending::Replicate));
    assert_eq!(reject(&mut progress, refused[9]), Refusal::BackUp, "a new doubt, from the beginning");
}

#[test]
fn reads_share_rounds_and_are_confirmed_once() {
    let mut reads = Reads::default();
    assert!(!reads.begin(Index(1)), "nobody waits");
    reads.add(ReadId(1));
    reads.add(ReadId(2));
    assert!(reads.begin(Index(7)));
    reads.add(ReadId(3));
    assert!(!reads.begin(Index(8)), "one round at a time");
    assert_eq!(reads.confirm(0), []);
    assert_eq!(reads.confirm(1), [(ReadId(1), Index(7)), (ReadId(2), Index(7))]);
    assert_eq!(reads.confirm(1), []);
    assert!(reads.begin(Index(9)));
    reads.add(ReadId(4));
    assert_eq!(reads.abandon().collect::<Vec<_>>(), [ReadId(3), ReadId(4)]);
}

#[test]
fn config_is_checked_at_the_door() {
    let good = config(NodeId(1));
    assert_eq!(good.validate(), Ok(()));
    let check = |change: &dyn Fn(&mut crate::raft::Config), expected: ConfigError| {
        let mut config = good.clone();
        change(&mut config);
        assert_eq!(config.validate(), Err(expected));
    };
    check(&|config| config.id = NodeId(0), ConfigError::NodeIdZero);
    check(&|config| config.append_bytes_max = 0, ConfigError::Zero { field: "append_bytes_max" });
    check(&|config| config.log_bytes_max = Some(0), ConfigError::Zero { field: "log_bytes_max" });
    check(&|config| config.election_ticks = (9, 8), ConfigError::ElectionRange { min: 9, max: 8 });
    check(
        &|config| config.election_ticks = (3, 8),
        ConfigError::ElectionTooShort { heartbeat: 3, election: 3 },
    );
}

pub(super) fn restored(terms: &[u64], term: u64) -> Restored {
    let log = terms.iter().map(|term| EntryMeta { term: Term(*term), payload_len: 10 }).collect();
    let tail = terms.iter().zip(1..).map(|(term, index)| filled(index, *term, 10)).collect();
    Restored {
        hard_state: HardState { term: Term(term), vote: None },
        membership: Membership { voters: [NodeId(1), NodeId(2)].into() },
        log,
        tail,
        ..Restored::default()
    }
}

#[test]
fn what_the_disk_gave_back_is_checked() {
    let start = |restored| Raft::new(config(NodeId(1)), restored);
    let refused = |restored| match start(restored) {
        Ok(_) => panic!("started"),
        Err(ConfigError::Restored { at, what }) => (at.index.0, what),
        Err(other) => panic!("{other}"),
    };
    assert!(start(restored(&[1, 2, 2], 2)).is_ok());
    assert_eq!(refused(restored(&[1, 2, 1], 2)), (3, "the term goes back"));
    assert_eq!(refused(restored(&[1, 2, 3], 2)), (3, "its term is above the node's"));
    let mut short = restored(&[1, 1, 1], 1);
    short.tail.remove(0);
    assert_eq!(refused(short.clone()), (1, "neither sealed nor on the heap"));
    short.sealed_through = Index(1);
    assert!(start(short.clone()).is_ok());
    short.tail[1] = filled(3, 1, 11);
    assert_eq!(refused(short), (3, "the whole entry differs from its record"));
    let mut long = restored(&[1, 1], 1);
    long.log.pop();
    assert_eq!(refused(long), (1, "more whole entries than live ones"));
    let mut moved = restored(&[1, 1], 1);
    moved.tail[0] = filled(7, 1, 10);
    assert_eq!(refused(moved), (1, "the whole entry differs from its record"));
    let mut crowd = restored(&[1], 1);
    crowd.membership.voters = (1..=VOTERS_MAX as u64 + 1).map(NodeId).collect();
    assert!(matches!(start(crowd), Err(ConfigError::TooManyVoters { count: 65 })));
    let mut stranger = restored(&[1], 1);
    stranger.membership.voters = [NodeId(2)].into();
    assert!(matches!(start(stranger), Err(ConfigError::NotAVoter { .. })));
}

#[test]
fn a_failed_read_loses_nothing() {
    let mut restored = restored(&[1, 1, 1], 1);
    restored.membership.voters = [NodeId(1)].into();
    restored.tail.clear();
    restored.sealed_through = Index(3);
    let mut raft = Raft::new(config(NodeId(1)), restored).unwrap();
    raft.tick(); // alone, it leads at once
    let store = Store((1..=3).map(|index| filled(index, 1, 10)).collect());
    let number = raft.ready(&store).unwrap().batch.unwrap().0;
    raft.on_durable(number);
    assert!(raft.ready(&NoStore).is_err());
    assert!(raft.has_ready());
    assert_eq!(indexes(&raft.ready(&store).unwrap().committed), [1, 2, 3]);
    assert_eq!(indexes(&raft.ready(&NoStore).unwrap().committed), [4], "its own is on the heap");
    assert!(!raft.has_ready());
}

pub(super) fn follower_of_two(terms: &[u64], tail_bytes: usize) -> Raft {
    let restored = restored(terms, *terms.last().unwrap());
    Raft::new(Config { tail_bytes, ..config(NodeId(1)) }, restored).unwrap()
}

pub(super) fn from_leader(raft: &mut Raft, term: u64, body: Body) {
    raft.step(NodeId(2), Message { term: Term(term), body });
    raft.check_invariants();
}

#[test]
fn late_news_of_a_sealed_segment_is_not_about_the_entries_that_replaced_it() {
    let mut raft = follower_of_two(&[1, 1, 1], 0);
    let entries = vec![Entry::new(Position::new(2, 2), entry::command(b"new"))];
    let prev = Position::new(1, 1);
    from_leader(&mut raft, 2, Body::Append { number: 1, prev, commit: Index(0), entries: entries.clone() });
    raft.sealed(Index(3));
    let (number, batch) = raft.ready(&NoStore).unwrap().batch.unwrap();
    assert_eq!(batch.entries, entries);
    raft.sealed(Index(3));
    raft.on_durable(number);
    raft.check_invariants();
}

/// What was taken from one leader and cut by the next before the disk had it was never on the disk: nobody is told of it.
#[test]
fn what_is_cut_before_it_is_written_is_not_acknowledged() {
    let mut raft = follower_of_two(&[1], 1000);
    let entry = |term, index| Entry::new(Position::new(index, term), entry::command(b"x"));
    let append = |entries| Body::Append { number: 1, prev: Position::new(1, 1), commit: Index(0), entries };
    from_leader(&mut raft, 2, append(Vec::new()));
    from_leader(&mut raft, 2, append(vec![entry(2, 2), entry(2, 3)]));
    from_leader(&mut raft, 3, append(vec![entry(3, 2)]));
    let ready = raft.ready(&NoStore).unwrap();
    assert_eq!(ready.batch.unwrap().1.entries, [entry(3, 2)]);
    let said: Vec<_> =
        ready.messages_after_sync.iter().map(|sent| (sent.message.term.0, &sent.message.body)).collect();
    let accepted =
        |matched| Body::AppendReply(AppendOutcome::Accepted { matched: Index(matched), full: false });
    assert_eq!(said, [(2, &accepted(1)), (3, &accepted(2))], "what was not cut stays said");
}

#[test]
fn an_append_does_not_join_the_batch_that_drops_the_log() {
    let mut raft = follower_of_two(&[1, 1, 1], 1000);
    let snapshot = SnapshotId { position: Position::new(9, 2), length: 1, digest: [0; 32] };
    let membership = Membership { voters: [NodeId(1), NodeId(2)].into() };
    from_leader(&mut raft, 2, Body::InstallSnapshot { snapshot, membership });
    let append = Body::Append {
        number: 1,
        prev: snapshot.position,
        commit: Index(9),
        entries: vec![Entry::new(Position::new(10, 2), entry::command(b"next"))],
    };
    from_leader(&mut raft, 2, append.clone());
    let ready = raft.ready(&NoStore).unwrap();
    let (_, batch) = ready.batch.unwrap();
    assert_eq!(batch.snapshot, Some(SnapshotMark { snapshot, reset: true }));
    assert_eq!(batch.entries, []);
    assert_eq!(ready.messages_after_sync.len(), 1, "the append is not acknowledged: it was not taken");
    // Sent again, it has its place.
    from_leader(&mut raft, 2, append);
    assert_eq!(indexes(&raft.ready(&NoStore).unwrap().batch.unwrap().1.entries), [10]);
}

#[test]
fn own_snapshots_give_way_to_newer_ones() {
    let mut raft = follower_of_two(&[1, 1, 1], 1000);
    let snapshot = |index| SnapshotId { position: Position::new(index, 1), length: 1, digest: [0; 32] };
    from_leader(
        &mut raft,
        1,
        Body::Append { number: 1, prev: Position::new(3, 1), commit: Index(3), entries: Vec::new() },
    );
    assert_eq!(raft.ready(&NoStore).unwrap().committed.len(), 3);
    raft.applied(Index(3));
    raft.snapshot_published(snapshot(3));
    raft.snapshot_published(snapshot(2));
    let (number, batch) = raft.ready(&NoStore).unwrap().batch.unwrap();
    assert_eq!(batch.snapshot, Some(SnapshotMark { snapshot: snapshot(3), reset: false }));
    assert!(!raft.has_ready());
    raft.on_durable(number);
    assert_eq!(raft.status().snapshot, Index(3));
    assert_eq!(raft.raft_state_bytes(), frame_len(16));
    raft.snapshot_published(snapshot(2));
    assert!(!raft.has_ready());
}

#[test]
fn an_own_snapshot_that_a_reset_overtook_is_ignored() {
    let mut raft = follower_of_two(&[1, 1, 1], 1000);
    let newer = SnapshotId { position: Position::new(9, 2), length: 1, digest: [0; 32] };
    let membership = Membership { voters: [NodeId(1), NodeId(2)].into() };
    from_leader(&mut raft, 2, Body::InstallSnapshot { snapshot: newer, membership });
    // It was being written when the other arrived, and is of a log that is gone.
    raft.snapshot_published(SnapshotId { position: Position::new(3, 1), length: 1, digest: [0; 32] });
    let (_, batch) = raft.ready(&NoStore).unwrap().batch.unwrap();
    assert_eq!(batch.snapshot, Some(SnapshotMark { snapshot: newer, reset: true }));
}

#[test]
#[should_panic(expected = "snapshot at 3@1, applied 0")]
fn a_snapshot_of_what_is_not_applied_is_a_bug_of_the_host() {
    let mut raft = follower_of_two(&[1, 1, 1], 1000);
    raft.snapshot_published(SnapshotId { position: Position::new(3, 1), length: 1, digest: [0; 32] });
}

#[test]
fn an_entry_that_no_disk_takes_is_nobodys() {
    let mut raft = follower_of_two(&[1], usize::MAX);
    let max = raft.core.config.payload_max;
    let append = |size| Body::Append {
        number: 1,
        prev: Position::new(1, 1),
        commit: Index(0),
        entries: vec![filled(2, 2, size)],
    };
    from_leader(&mut raft, 2, append(max + 1));
    assert_eq!((raft.status().last, raft.status().dropped), (Position::new(1, 1), 1));
    from_leader(&mut raft, 2, append(max));
    assert_eq!((raft.status().last, raft.status().dropped), (Position::new(2, 2), 1));
}
