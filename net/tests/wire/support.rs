//! Nodes and clients that write down what happens to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmap_net::*;
use tokio::runtime::Runtime;

/// Longer than anything here takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const KIND: u8 = frame::FIRST_USER_KIND;

pub(crate) type Start = Box<dyn Fn(SnapshotOffer) -> Result<SnapshotAccept, String> + Send + Sync>;

/// A peer handler that passes events on, and whose answers a test may choose.
pub(crate) struct Node {
    hello: Bytes,
    events: Mutex<Sender<Event>>,
    refuse_hello: Mutex<Option<String>>,
    snapshot: Start,
}

impl PeerHandler for Node {
    fn hello(&self, _: u64) -> Bytes {
        self.hello.clone()
    }

    fn check_hello(&self, _: u64, _: &[u8]) -> Result<(), String> {
        match &*self.refuse_hello.lock().unwrap() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    fn event(&self, event: Event) -> Result<(), String> {
        if let Event::Frame { payload, .. } = &event
            && &payload[..] == b"panic"
        {
            panic!("on purpose");
        }
        if let Event::Frame { payload, .. } = &event
            && &payload[..] == b"nonsense"
        {
            return Err("nonsense is no message".into());
        }
        // A test that is over hears no more.
        let _ = self.events.lock().unwrap().send(event);
        Ok(())
    }

    fn snapshot(&self, offer: SnapshotOffer) -> Result<SnapshotAccept, String> {
        (self.snapshot)(offer)
    }
}

/// Answers each request with itself, from the transport's own task.
pub(crate) struct Echo;

pub(crate) struct EchoSession {
    client: Certified,
    replies: ReplySender,
    held: Vec<Credit>,
}

impl ClientService for Echo {
    fn connected(
        &self,
        client: Certified,
        hello: Bytes,
        replies: ReplySender,
    ) -> Result<(Bytes, Box<dyn ClientSession>), String> {
        if &hello[..] == b"not you" {
            return Err("you said so yourself".into());
        }
        Ok((hello, Box::new(EchoSession { client, replies, held: Vec::new() })))
    }
}

impl ClientSession for EchoSession {
    fn request(&mut self, payload: Bytes, credit: Credit) {
        match &payload[..] {
            b"who am i" => self.replies.send(&[self.client.name.role.to_string().into()]),
            b"panic" => panic!("on purpose"),
            // A megabyte for each byte asked.
            [b'm', b'u', b'c', b'h'] => self.replies.send(&[Bytes::from(vec![7; 1 << 20])]),
            [b'h', b'o', b'l', b'd', ..] => {
                self.held.push(credit);
                true
            }
            _ => self.replies.send(&[payload]),
        };
    }
}

/// A running node under test.
pub(crate) struct Running {
    pub(crate) peers: Peers,
    pub(crate) addr: SocketAddr,
    pub(crate) events: Receiver<Event>,
    pub(crate) dead: Receiver<String>,
    pub(crate) node: Arc<Node>,
}

/// How a node is to be started; the defaults are a node that says its id and refuses snapshots.
pub(crate) struct Plan {
    pub(crate) identity: Identity,
    pub(crate) listen: SocketAddr,
    pub(crate) peers: BTreeMap<u64, SocketAddr>,
    pub(crate) limits: Limits,
    pub(crate) refuse_hello: Option<String>,
    pub(crate) snapshot: Start,
}

impl Plan {
    pub(crate) fn new(identity: Identity, listen: SocketAddr, peers: &[(u64, SocketAddr)]) -> Self {
        Plan {
            identity,
            listen,
            peers: peers.iter().copied().collect(),
            limits: Limits::default(),
            refuse_hello: None,
            snapshot: Box::new(|_| Err("no snapshots here".into())),
        }
    }

    pub(crate) fn start(self, runtime: &Runtime) -> Running {
        let (events_in, events) = channel();
        let (dead_in, dead) = channel();
        let node = Arc::new(Node {
            hello: format!("hello from {}", self.identity.role()).into(),
            events: Mutex::new(events_in),
            refuse_hello: Mutex::new(self.refuse_hello),
            snapshot: self.snapshot,
        });
        let on_dead = Box::new(move |reason| dead_in.send(reason).unwrap());
        let config = PeerConfig {
            listen: self.listen,
            identity: self.identity,
            peers: self.peers,
            limits: self.limits,
        };
        let peers = Peers::start(config, node.clone(), Arc::new(Echo), on_dead, runtime.handle()).unwrap();
        Running { addr: peers.local_addr().unwrap(), peers, events, dead, node }
    }
}

impl Running {
    pub(crate) fn allow_hello(&self) {
        *self.node.refuse_hello.lock().unwrap() = None;
    }

    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The next event, which must be a connection.
    pub(crate) fn connected(&self) -> (u64, Bytes) {
        match self.next() {
            Event::Connected { peer, hello } => (peer, hello),
            other => panic!("{other:?} instead of a connection"),
        }
    }

    /// The next event, which must be the end of a connection.
    pub(crate) fn disconnected(&self) -> u64 {
        match self.next() {
            Event::Disconnected { peer } => peer,
            other => panic!("{other:?} instead of a disconnection"),
        }
    }

    /// The next event, which must be a frame.
    pub(crate) fn frame(&self) -> (u64, Class, u8, Bytes) {
        match self.next() {
            Event::Frame { peer, class, kind, payload, credit: _ } => (peer, class, kind, payload),
            other => panic!("{other:?} instead of a frame"),
        }
    }

    pub(crate) fn nothing_for(&self, time: Duration) {
        match self.events.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("{other:?} instead of nothing"),
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// An address that is free at the moment, for nodes that must know each other's before they start.
pub(crate) fn free_addr() -> SocketAddr {
    std::net::UdpSocket::bind(any_port()).unwrap().local_addr().unwrap()
}

pub(crate) fn node(authority: &Authority, id: u64) -> Identity {
    authority.issue(&Role::Node(id)).unwrap()
}

pub(crate) fn client(authority: &Authority, name: &str) -> Identity {
    authority.issue(&Role::Client(name.into())).unwrap()
}

/// Nodes 1 and 2, connected.
pub(crate) fn pair(runtime: &Runtime, change: impl Fn(u64, &mut Plan)) -> (Running, Running) {
    let authority = Authority::new().unwrap();
    let (one, two) = (free_addr(), free_addr());
    let start = |id, addr, other| {
        let mut plan = Plan::new(node(&authority, id), addr, &[other]);
        change(id, &mut plan);
        plan.start(runtime)
    };
    let (one, two) = (start(1, one, (2, two)), start(2, two, (1, one)));
    assert_eq!(one.connected(), (2, "hello from node/2".into()));
    assert_eq!(two.connected(), (1, "hello from node/1".into()));
    (one, two)
}

pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a client hears.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Reply(Bytes),
    Closed(String),
}

pub(crate) struct Ear(pub(crate) Sender<Heard>);

impl ReplyHandler for Ear {
    fn reply(&mut self, payload: Bytes) {
        let _ = self.0.send(Heard::Reply(payload));
    }

    fn closed(&mut self, reason: String) {
        let _ = self.0.send(Heard::Closed(reason));
    }
}

/// Connects, and gives what the connection hears.
pub(crate) fn connect(
    runtime: &Runtime,
    identity: Identity,
    addr: SocketAddr,
) -> Result<(ClientConnection, Receiver<Heard>), ConnectError> {
    let endpoint = ClientEndpoint::new(identity, Limits::default(), runtime.handle()).unwrap();
    let (ear, heard) = channel();
    let connection =
        runtime.block_on(endpoint.connect(addr, "hi".into(), Ear(ear), Duration::from_secs(2)))?;
    // The endpoint lives as long as a test may need it; its sockets are closed with the runtime.
    std::mem::forget(endpoint);
    Ok((connection, heard))
}

/// An address behind which `to` is, over a link that carries so much towards it, and everything back.
pub(crate) fn slow_link(to: SocketAddr, bytes_per_second: u32) -> SocketAddr {
    let near = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    // A short queue at the link's entry, as a switch has: what does not fit is lost.
    near.set_recv_buffer_size(64 << 10).unwrap();
    near.bind(&any_port().into()).unwrap();
    let near = Arc::new(std::net::UdpSocket::from(near));
    let far = Arc::new(std::net::UdpSocket::bind(any_port()).unwrap());
    let addr = near.local_addr().unwrap();
    let dialler = Arc::new(Mutex::new(addr));
    let (back_near, back_far, back_dialler) = (near.clone(), far.clone(), dialler.clone());
    std::thread::spawn(move || {
        let mut packet = [0; 1 << 16];
        while let Ok((length, from)) = near.recv_from(&mut packet) {
            *dialler.lock().unwrap() = from;
            std::thread::sleep(Duration::from_secs(1) * length as u32 / bytes_per_second);
            let _ = far.send_to(&packet[..length], to);
        }
    });
    std::thread::spawn(move || {
        let mut packet = [0; 1 << 16];
        while let Ok((length, _)) = back_far.recv_from(&mut packet) {
            let to = *back_dialler.lock().unwrap();
            let _ = back_near.send_to(&packet[..length], to);
        }
    });
    addr
}
