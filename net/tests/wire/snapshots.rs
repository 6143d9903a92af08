//! Snapshots beside everything else.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmap_net::*;

use crate::support::*;

/// What a receiver kept, and whether it was told that it is whole.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    finished: u32,
    dropped: u32,
}

struct Store {
    kept: Arc<Mutex<Kept>>,
    pause: Duration,
    refuse_after: usize,
}

impl SnapshotWriter for Store {
    fn chunk(&mut self, bytes: Bytes) -> Result<(), String> {
        std::thread::sleep(self.pause);
        let mut kept = self.kept.lock().unwrap();
        kept.bytes.extend_from_slice(&bytes);
        if kept.bytes.len() > self.refuse_after { Err("disk full".into()) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        self.kept.lock().unwrap().finished += 1;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kept.lock().unwrap().dropped += 1;
    }
}

/// Accepts whatever is offered, going on from what it has.
fn keep(kept: &Arc<Mutex<Kept>>, pause: Duration, refuse_after: usize) -> Start {
    let kept = kept.clone();
    Box::new(move |offer| {
        assert_eq!((offer.peer, &offer.announcement[..]), (1, &b"index 7"[..]));
        let offset = kept.lock().unwrap().bytes.len() as u64;
        Ok(SnapshotAccept { offset, writer: Box::new(Store { kept: kept.clone(), pause, refuse_after }) })
    })
}

fn receiver(
    runtime: &tokio::runtime::Runtime,
    pause: Duration,
    refuse_after: usize,
) -> (Running, Running, Arc<Mutex<Kept>>) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let (one, two) = pair(runtime, |id, plan| {
        plan.limits.snapshot_stall = Duration::from_millis(1000);
        if id == 2 {
            plan.snapshot = keep(&kept, pause, refuse_after);
        }
    });
    (one, two, kept)
}

fn body(length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// The sender's reports; a test may end before them.
fn send(one: &Running, body: &Bytes) -> Result<Receiver<SnapshotReport>, SnapshotError> {
    let (report, reports) = channel();
    let report = Box::new(move |said| drop(report.send(said)));
    one.peers.send_snapshot(2, "index 7".into(), body.clone(), report).map(|()| reports)
}

/// The last report, and the one before it if there is one.
fn end(reports: &Receiver<SnapshotReport>) -> (Option<u64>, Result<(), SnapshotError>) {
    let mut progress = None;
    loop {
        match reports.recv_timeout(PATIENCE).unwrap() {
            SnapshotReport::Progress { sent } => {
                assert!(progress < Some(sent), "progress goes forward");
                progress = Some(sent);
            }
            SnapshotReport::Ended(result) => {
                assert!(reports.recv().is_err(), "nothing follows the end");
                return (progress, result);
            }
        }
    }
}

#[test]
fn a_snapshot_arrives_whole() {
    let runtime = runtime();
    for length in [0, 1, 64 * 1024, 5_000_001] {
        let (one, two, kept) = receiver(&runtime, Duration::ZERO, usize::MAX);
        let body = body(length);
        let progress = (length > 0).then_some(length as u64);
        assert_eq!(end(&send(&one, &body).unwrap()), (progress, Ok(())));
        let kept = kept.lock().unwrap();
        assert!(kept.bytes == body, "{length} bytes");
        assert_eq!(kept.finished, 1);
        eventually("both are counted", || {
            (one.peers.stats().snapshots_sent, two.peers.stats().snapshots_received) == (1, 1)
        });
    }
}

#[test]
fn what_is_there_is_not_sent_again() {
    let runtime = runtime();
    let (one, _two, kept) = receiver(&runtime, Duration::ZERO, usize::MAX);
    let body = body(300_000);
    kept.lock().unwrap().bytes = body[..250_000].to_vec();
    assert_eq!(end(&send(&one, &body).unwrap()), (Some(300_000), Ok(())));
    assert!(kept.lock().unwrap().bytes == body);
    // More than there is, is a mistake that must not pass for a whole body.
    kept.lock().unwrap().bytes.push(0);
    let refused = end(&send(&one, &body).unwrap()).1.unwrap_err();
    assert!(matches!(&refused, SnapshotError::Refused(why) if why.contains("offset 300001")), "{refused}");
}

#[test]
fn a_refusal_is_told_in_words_at_every_step() {
    let runtime = runtime();
    let (one, _two) = pair(&runtime, |_, _| {});
    let refused = end(&send(&one, &body(1000)).unwrap()).1;
    assert_eq!(refused, Err(SnapshotError::Refused("no snapshots here".into())));

    let (one, two, kept) = receiver(&runtime, Duration::ZERO, 1_000_000);
    let refused = end(&send(&one, &body(20_000_000)).unwrap()).1;
    assert_eq!(refused, Err(SnapshotError::Refused("disk full".into())));
    assert_eq!(kept.lock().unwrap().finished, 0);
    // The connection lives on.
    one.peers.send(2, Class::Urgent, KIND, &["still here".into()]);
    assert_eq!(two.frame().3, "still here");
}

#[test]
fn one_transfer_to_a_peer_at_a_time() {
    let runtime = runtime();
    let (one, _two, kept) = receiver(&runtime, Duration::from_millis(20), usize::MAX);
    let body = body(3_000_000);
    let first = send(&one, &body).unwrap();
    assert_eq!(send(&one, &body).unwrap_err(), SnapshotError::Busy);
    assert_eq!(end(&first).1, Ok(()));
    kept.lock().unwrap().bytes.clear();
    assert_eq!(end(&send(&one, &body).unwrap()).1, Ok(()));
    assert_eq!(kept.lock().unwrap().finished, 2);
    let alone =
        Plan::new(node(&Authority::new().unwrap(), 1), any_port(), &[(2, free_addr())]).start(&runtime);
    assert_eq!(send(&alone, &body).unwrap_err(), SnapshotError::NotConnected);
}

#[test]
fn a_stuck_receiver_ends_the_transfer() {
    let runtime = runtime();
    let (one, _two, kept) = receiver(&runtime, Duration::from_millis(2500), usize::MAX);
    let started = Instant::now();
    let ended = end(&send(&one, &body(20_000_000)).unwrap()).1.unwrap_err();
    assert!(!matches!(ended, SnapshotError::NotConnected | SnapshotError::Busy), "{ended}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    eventually("the writer is dropped", || kept.lock().unwrap().dropped == 1);
    assert_eq!(kept.lock().unwrap().finished, 0, "broken off is not whole");
}

#[test]
fn a_lost_connection_ends_the_transfer() {
    let runtime = runtime();
    let (one, two, kept) = receiver(&runtime, Duration::from_millis(5), usize::MAX);
    let body = body(30_000_000);
    let reports = send(&one, &body).unwrap();
    eventually("some of it is there", || kept.lock().unwrap().bytes.len() > 1_000_000);
    runtime.block_on(two.peers.shutdown());
    assert!(matches!(end(&reports).1, Err(SnapshotError::Lost(_))));
    assert_eq!(one.disconnected(), 2);
    eventually("the writer is dropped", || kept.lock().unwrap().dropped == 1);
    let kept = kept.lock().unwrap();
    assert_eq!((kept.finished, &kept.bytes[..]), (0, &body[..kept.bytes.len()]));
}

#[test]
fn urgent_frames_pass_a_snapshot_and_a_full_log() {
    let runtime = runtime();
    let (one, two, kept) = receiver(&runtime, Duration::ZERO, usize::MAX);
    let body = body(100_000_000);
    let reports = send(&one, &body).unwrap();
    let mut slowest = Duration::ZERO;
    let mut during = 0;
    for _ in 0..100 {
        one.peers.send(2, Class::Log, KIND, &[Bytes::from(vec![0; 100_000])]);
        let sent = Instant::now();
        one.peers.send(2, Class::Urgent, KIND, &["heartbeat".into()]);
        while two.frame().1 != Class::Urgent {}
        slowest = slowest.max(sent.elapsed());
        during += u32::from(kept.lock().unwrap().finished == 0);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(during > 10, "only {during} heartbeats went beside the snapshot");
    assert!(slowest < Duration::from_millis(250), "a heartbeat took {slowest:?}");
    assert_eq!(end(&reports).1, Ok(()));
}

#[test]
fn urgent_frames_pass_a_snapshot_on_a_slow_link() {
    let runtime = runtime();
    let authority = Authority::new().unwrap();
    let (kept, addr) = (Arc::new(Mutex::new(Kept::default())), free_addr());
    let mut plan = Plan::new(node(&authority, 2), addr, &[(1, free_addr())]);
    plan.snapshot = keep(&kept, Duration::ZERO, usize::MAX);
    let two = plan.start(&runtime);
    let one = Plan::new(node(&authority, 1), any_port(), &[(2, slow_link(addr, 4_000_000))]).start(&runtime);
    one.connected();
    two.connected();
    let reports = send(&one, &body(40_000_000)).unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..30 {
        let sent = Instant::now();
        one.peers.send(2, Class::Urgent, KIND, &["heartbeat".into()]);
        assert_eq!(two.frame().1, Class::Urgent);
        slowest = slowest.max(sent.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(kept.lock().unwrap().bytes.len() > 1_000_000, "the snapshot moves too");
    assert_eq!(kept.lock().unwrap().finished, 0, "the snapshot is still under way");
    assert!(slowest < Duration::from_millis(500), "a heartbeat took {slowest:?}");
    drop((one, reports));
}

#[test]
fn a_panicking_writer_is_reported() {
    let runtime = runtime();
    let (one, two) = pair(&runtime, |_, plan| plan.snapshot = Box::new(|_| panic!("on purpose")));
    let ended = end(&send(&one, &body(1000)).unwrap()).1;
    assert!(matches!(ended, Err(SnapshotError::Refused(_) | SnapshotError::Lost(_))), "{ended:?}");
    assert!(two.dead.recv_timeout(PATIENCE).unwrap().contains("snapshot writer"));
}
