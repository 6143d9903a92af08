//! Measures the wire alone: requests of 256 bytes from many clients to one node that answers them from a thread of its
//! own, and log frames between two nodes. Everything runs in this process, over loopback.
//!
//! ```text
//! cargo run --release -p raftmap-net --example load -- [connections] [in flight on each] [seconds]
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for a person at a terminal")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmap_net::*;
use tokio::runtime::Runtime;

const REQUEST: usize = 256;
const REPLY: usize = 32;
const KIND: u8 = frame::FIRST_USER_KIND;

type Work = (ReplySender, Bytes, Credit);

struct Service(Mutex<Sender<Work>>);

struct Session {
    replies: ReplySender,
    work: Sender<Work>,
}

impl ClientService for Service {
    fn connected(
        &self,
        _: Certified,
        _: Bytes,
        replies: ReplySender,
    ) -> Result<(Bytes, Box<dyn ClientSession>), String> {
        let work = self.0.lock().unwrap().clone();
        Ok((Bytes::new(), Box::new(Session { replies, work })))
    }
}

impl ClientSession for Session {
    fn request(&mut self, payload: Bytes, credit: Credit) {
        self.work.send((self.replies.clone(), payload, credit)).unwrap();
    }
}

/// Counts what comes; the other node sends it back, as a follower acknowledges.
struct Node {
    received: AtomicU64,
    connected: AtomicBool,
    acks: Mutex<Sender<Instant>>,
}

impl PeerHandler for Node {
    fn hello(&self, _: u64) -> Bytes {
        Bytes::new()
    }

    fn check_hello(&self, _: u64, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn event(&self, event: Event) -> Result<(), String> {
        match event {
            Event::Connected { .. } => self.connected.store(true, Ordering::SeqCst),
            Event::Disconnected { .. } => self.connected.store(false, Ordering::SeqCst),
            Event::Frame { payload, .. } => {
                self.received.fetch_add(payload.len() as u64, Ordering::Relaxed);
                let _ = self.acks.lock().unwrap().send(Instant::now());
            }
        }
        Ok(())
    }

    fn snapshot(&self, _: SnapshotOffer) -> Result<SnapshotAccept, String> {
        Err("none".into())
    }
}

struct Waiter {
    back: Sender<Bytes>,
}

impl ReplyHandler for Waiter {
    fn reply(&mut self, payload: Bytes) {
        let _ = self.back.send(payload);
    }

    fn closed(&mut self, reason: String) {
        // At the end of a measurement every connection is closed on purpose.
        let _ = reason;
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn replica(inbox: &Receiver<Work>) {
    let reply = Bytes::from(vec![1; REPLY]);
    while let Ok((replies, request, _credit)) = inbox.recv() {
        replies.send(&[request.slice(..8), reply.clone()]);
    }
}

fn start(
    runtime: &Runtime,
    id: u64,
    identity: Identity,
    listen: &str,
    other: (u64, &str),
) -> (Peers, Arc<Node>, Receiver<Instant>) {
    let (work, inbox) = channel();
    std::thread::spawn(move || replica(&inbox));
    let (acks, acked) = channel();
    let node = Arc::new(Node {
        received: AtomicU64::new(0),
        connected: AtomicBool::new(false),
        acks: Mutex::new(acks),
    });
    let config = PeerConfig {
        listen: listen.parse().unwrap(),
        identity,
        peers: [(other.0, other.1.parse().unwrap())].into(),
        limits: Limits::default(),
    };
    let on_dead = Box::new(move |reason| println!("node {id} is dead: {reason}"));
    let clients = Arc::new(Service(Mutex::new(work)));
    let peers = Peers::start(config, node.clone(), clients, on_dead, runtime.handle()).unwrap();
    (peers, node, acked)
}

/// One connection: `window` requests in flight, each answered by the next. Gives latencies in microseconds.
fn drive(connection: &ClientConnection, replies: &Receiver<Bytes>, window: u64, until: Instant) -> Vec<u32> {
    let origin = Instant::now();
    let filler = Bytes::from(vec![7; REQUEST - 8]);
    let now = || u64::try_from(origin.elapsed().as_nanos()).unwrap();
    let send = || connection.send(&[now().to_le_bytes().to_vec().into(), filler.clone()]).unwrap();
    (0..window).for_each(|_| send());
    let mut latencies = Vec::new();
    while let Ok(reply) = replies.recv_timeout(Duration::from_secs(5)) {
        let sent = u64::from_le_bytes(reply[..8].try_into().unwrap());
        latencies.push(u32::try_from((now() - sent) / 1000).unwrap());
        if Instant::now() > until {
            break;
        }
        send();
    }
    latencies
}

fn clients(authority: &Authority, addr: &str, connections: u64, window: u64, seconds: u64) {
    let runtime = runtime();
    let identity = authority.issue(&Role::Client("load".into())).unwrap();
    let endpoint = ClientEndpoint::new(identity, Limits::default(), runtime.handle()).unwrap();
    let connect = |_| {
        let (back, replies) = channel();
        let connecting =
            endpoint.connect(addr.parse().unwrap(), Bytes::new(), Waiter { back }, Duration::from_secs(2));
        (runtime.block_on(connecting).unwrap(), replies)
    };
    let all: Vec<_> = (0..connections).map(connect).collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let started = (Instant::now(), cpu_seconds());
    let drive_one =
        |(connection, replies)| std::thread::spawn(move || drive(&connection, &replies, window, until));
    let driven: Vec<_> = all.into_iter().map(drive_one).collect();
    let mut latencies: Vec<u32> = driven.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let (took, used) = (started.0.elapsed().as_secs_f64(), cpu_seconds() - started.1);
    latencies.sort_unstable();
    let count = latencies.len();
    println!(
        "{connections} connections x {window}: {:.0} requests/s, p50 {} us, p99 {} us, max {} us, {:.1} us of CPU each",
        count as f64 / took,
        latencies[count / 2],
        latencies[count * 99 / 100],
        latencies[count - 1],
        used * 1e6 / count as f64,
    );
}

/// Frames of `size` bytes one way, at most `window` of them unacknowledged.
fn log(
    leader: &Peers,
    acked: &Receiver<Instant>,
    follower: &Peers,
    received: &mut Receiver<Instant>,
    size: usize,
    window: u64,
) {
    let (payload, ack) = (Bytes::from(vec![3; size]), Bytes::from_static(&[4; 24]));
    let (started, used) = (Instant::now(), cpu_seconds());
    let mut frames = 0_u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let received = received;
            while received.recv_timeout(Duration::from_millis(500)).is_ok() {
                follower.send(1, Class::Log, KIND, std::slice::from_ref(&ack));
            }
        });
        let send =
            || assert!(leader.send(2, Class::Log, KIND, std::slice::from_ref(&payload)), "the queue is full");
        (0..window).for_each(|_| send());
        while started.elapsed() < Duration::from_secs(3) {
            acked.recv_timeout(Duration::from_secs(5)).unwrap();
            frames += 1;
            send();
        }
        (0..window).for_each(|_| assert!(acked.recv_timeout(Duration::from_secs(5)).is_ok()));
    });
    let took = started.elapsed().as_secs_f64() - 0.5;
    println!(
        "log frames of {size} bytes, {window} under way: {:.0}/s, {:.0} MB/s, {:.1} us of CPU each",
        frames as f64 / took,
        (frames as usize * size) as f64 / took / 1e6,
        (cpu_seconds() - used) * 1e6 / frames as f64,
    );
}

/// User and system time of this process, in hundredths that the kernel counts.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().unwrap());
    let (connections, window, seconds) =
        (args.next().unwrap_or(32), args.next().unwrap_or(8), args.next().unwrap_or(4));
    let authority = Authority::new().unwrap();
    let (first, second) = (runtime(), runtime());
    let (addr1, addr2) = ("127.0.0.1:47001", "127.0.0.1:47002");
    let node = |id| authority.issue(&Role::Node(id)).unwrap();
    let (leader, node1, acked) = start(&first, 1, node(1), addr1, (2, addr2));
    let (follower, node2, mut received) = start(&second, 2, node(2), addr2, (1, addr1));
    while !node1.connected.load(Ordering::SeqCst) || !node2.connected.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
    clients(&authority, addr1, 1, 1, seconds.min(2));
    clients(&authority, addr1, connections, window, seconds);
    for (size, window) in [(300, 1), (300, 256), (30_000, 16), (1_000_000, 4)] {
        log(&leader, &acked, &follower, &mut received, size, window);
    }
    println!("{:?}", leader.stats());
}
