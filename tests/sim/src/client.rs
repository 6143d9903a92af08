//! Simulated clients: the real clerk, with calls drawn for it and its connections made up.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raftmap::clerk::machine::{CallId, Ending, Machine, Output, ServerAddress, ServerId};
use raftmap::kv::{Command, Owner, Reply};
use raftmap::wire::client::{Answer, Ask, Query, Request, Response, decode_request, encode_request};

use crate::dice::Dice;
use crate::history::{Call, End, What};
use crate::net::End as NetEnd;
use crate::node::Connection;
use crate::setup::{Sabotage, address, place};
use crate::world::{Event, World};

/// What a server that cannot be reached costs before a client gives the connection up.
const HANDSHAKE: Duration = Duration::from_millis(500);
/// A connection on which nothing arrives any more is noticed after this.
const IDLE: Duration = Duration::from_millis(1_500);
/// Calls that a client has under way at most which does not wait for their ends.
const OPEN_CALLS: usize = 8;
/// Appends to a log before clients turn to the next one.
const LOG_LENGTH: u64 = 150;

/// See the module's description.
pub struct Client {
    machine: Machine,
    dice: Dice,
    /// The connection to each server.
    links: BTreeMap<ServerId, u64>,
    /// Calls under way, by their place in the history.
    calls: BTreeMap<CallId, usize>,
    tokens: u64,
    wake: Option<Duration>,
    /// How often it was restarted.
    lives: u64,
    pub stopped: bool,
}

fn machine(nodes: usize, window: u64, dice: &mut Dice) -> Machine {
    let servers = dice.shuffled(nodes).into_iter().map(|at| ServerAddress::Remote(address(at))).collect();
    Machine::new(servers, window)
}

impl Client {
    pub fn new(nodes: usize, window: u64, mut dice: Dice) -> Self {
        Self {
            machine: machine(nodes, window, &mut dice),
            dice,
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            tokens: 0,
            wake: None,
            lives: 0,
            stopped: false,
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.stopped && self.calls.is_empty()
    }
}

impl World {
    /// One call more.
    pub fn issue(&mut self, at: usize) {
        if self.clients[at].stopped {
            return;
        }
        if self.setup.load.open {
            self.issue_later(at);
            if self.clients[at].calls.len() >= OPEN_CALLS {
                return;
            }
            if !self.clients[at].calls.is_empty() {
                self.trace.sometimes("a client called by the clock and waited for nobody");
            }
        }
        let (now, load) = (self.now, self.setup.load.clone());
        let round = self.history.len() as u64 / LOG_LENGTH;
        let client = &mut self.clients[at];
        client.tokens += 1;
        let token = format!("{at}.{};", client.tokens);
        let is_log = client.dice.below(3) > 0;
        let key = client.dice.below(load.keys);
        let key = if is_log { format!("log-{round}-{key}") } else { format!("reg-{key}") };
        let name = Bytes::from(key.clone());
        let deadline = now + load.deadline;
        let (what, call) = if client.dice.permille(load.reads) {
            (What::Read, client.machine.read(now, deadline, Query::Get { key: name }, false))
        } else {
            let version = self.versions.get(&key).copied().unwrap_or(0);
            let (what, command) = draw_write(client, is_log, name, token, version, load.filler);
            (what, client.machine.write(now, deadline, command))
        };
        self.called(at, call, key, what);
    }

    /// A call that a script wants, until it has an end; its place in the history.
    pub fn call(&mut self, at: usize, key: &str, what: What) -> usize {
        let (now, deadline) = (self.now, self.now + self.setup.load.deadline);
        let name = Bytes::copy_from_slice(key.as_bytes());
        let machine = &mut self.clients[at].machine;
        let call = match command(name.clone(), &what) {
            Some(command) => machine.write(now, deadline, command),
            None => machine.read(now, deadline, Query::Get { key: name }, false),
        };
        self.called(at, call, key.to_owned(), what);
        self.history.len() - 1
    }

    fn called(&mut self, at: usize, call: CallId, key: String, what: What) {
        let is_read = u64::from(what == What::Read);
        self.trace.note(self.now, at, "call", call.0, is_read);
        self.clients[at].calls.insert(call, self.history.len());
        let (client, invoked) = (at as u32, self.now);
        self.history.push(Call { client, key, what, invoked, returned: None, end: End::Unknown });
        self.client_acts(at);
    }

    pub fn client_tick(&mut self, at: usize) {
        if self.clients[at].wake.is_none_or(|wake| wake > self.now) {
            return;
        }
        self.clients[at].wake = None;
        self.clients[at].machine.tick(self.now);
        self.client_acts(at);
    }

    /// Does what the clerk wants done.
    fn client_acts(&mut self, at: usize) {
        loop {
            let outputs = self.clients[at].machine.outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                match output {
                    Output::Connect(server) => self.connect(at, server),
                    Output::Send(server, request) => self.send_request(at, server, &request),
                    Output::Finish(call, ending) => self.finish(at, call, ending),
                }
            }
        }
        let client = &mut self.clients[at];
        if let Some(wake) = client.machine.wake_at()
            && client.wake.is_none_or(|earlier| wake < earlier || earlier < self.now)
        {
            let wake = wake.max(self.now + Duration::from_micros(1));
            client.wake = Some(wake);
            self.at(wake, Event::ClientTick(at));
        }
    }

    fn connect(&mut self, client: usize, server: ServerId) {
        let Some(address) = self.clients[client].machine.address(server) else { return };
        let node = place(address);
        let there = self.links.carry(NetEnd::Client(client), NetEnd::Node(node));
        let back = self.links.carry(NetEnd::Node(node), NetEnd::Client(client));
        let up = there.zip(back).map(|(there, back)| there + back).filter(|time| *time < HANDSHAKE);
        let life = self.clients[client].lives;
        let connected = Event::Connected { client, life, server, node, ok: up.is_some() };
        self.after(up.unwrap_or(HANDSHAKE), connected);
    }

    pub fn connected(&mut self, client: usize, life: u64, server: ServerId, node: usize, ok: bool) {
        if self.clients[client].lives != life {
            return;
        }
        let running = self.nodes[node].life.as_ref().is_some_and(|life| life.paused.is_none());
        if !ok || !running {
            self.clients[client].machine.connect_failed(self.now, server, "nobody answers".into());
            return self.client_acts(client);
        }
        let life = self.nodes[node].lives;
        let connection = self.connections.add(Connection { client, server, node, life });
        self.clients[client].links.insert(server, connection);
        self.clients[client].machine.link_up(self.now, server);
        self.client_acts(client);
    }

    fn send_request(&mut self, client: usize, server: ServerId, request: &Request) {
        let Some(number) = self.clients[client].links.get(&server).copied() else { return };
        let Some(connection) = self.connections.open.get(&number) else { return };
        let bytes = encode_request(request).expect("within its limit");
        self.trace.bytes(&bytes);
        match self.links.carry(NetEnd::Client(client), NetEnd::Node(connection.node)) {
            Some(time) if self.links.breaks() => {
                self.trace.sometimes("a connection broke with what a client asked");
                self.after(time, Event::Disconnect { connection: number });
            }
            Some(time) => self.after(time, Event::Request { connection: number, bytes }),
            None => self.after(IDLE, Event::Disconnect { connection: number }),
        }
    }

    /// A request as the node's network hands it in.
    pub fn requested(&mut self, bytes: &Bytes) -> Request {
        let mut request = decode_request(bytes).expect("it was encoded");
        if self.setup.sabotage == Some(Sabotage::StaleReads)
            && let Ask::Read(query) = request.body
        {
            request.body = Ask::Stale(query);
        }
        request
    }

    pub fn responded(&mut self, number: u64, response: Response) {
        let Some(connection) = self.connections.open.get(&number).copied() else { return };
        self.clients[connection.client].machine.response(self.now, connection.server, response);
        self.client_acts(connection.client);
    }

    /// A client's process dies and begins anew: nobody asks again for what it called, and its session stays behind.
    pub fn restart_client(&mut self) {
        let at = self.nemesis.place(self.clients.len());
        self.trace.sometimes("a client began anew");
        let client = &mut self.clients[at];
        let calls: Vec<CallId> = client.calls.keys().copied().collect();
        client.lives += 1;
        client.machine = machine(self.setup.nodes, self.setup.load.window, &mut client.dice);
        for connection in std::mem::take(&mut client.links).into_values() {
            self.connections.open.remove(&connection);
            self.watch.reads.forget(connection);
        }
        calls.into_iter().for_each(|call| self.end(at, call, End::Unknown));
    }

    pub fn disconnect(&mut self, number: u64) {
        let Some(connection) = self.connections.open.remove(&number) else { return };
        self.watch.reads.forget(number);
        let client = &mut self.clients[connection.client];
        if client.links.get(&connection.server) == Some(&number) {
            client.links.remove(&connection.server);
            client.machine.link_down(self.now, connection.server);
            self.client_acts(connection.client);
        }
    }

    fn finish(&mut self, at: usize, call: CallId, ending: Ending) {
        let Some(number) = self.clients[at].calls.get(&call).copied() else { return };
        let end = match ending {
            Ending::Done(answer) => self.end_of(number, answer),
            Ending::NotDone(_) | Ending::NoAnswer | Ending::Unreached(_) | Ending::WindowFull => End::NotDone,
            Ending::Expired => {
                self.trace.sometimes("a session expired under a doubtful write");
                End::Unknown
            }
            Ending::Unknown => return self.unknown(at, call),
        };
        self.end(at, call, end);
    }

    fn end(&mut self, at: usize, call: CallId, end: End) {
        let Some(number) = self.clients[at].calls.remove(&call) else { return };
        self.trace.note(self.now, at, "end", call.0, matches!(end, End::Unknown).into());
        let done = &mut self.history[number];
        done.returned = (end != End::Unknown).then_some(self.now);
        if !matches!(end, End::Unknown | End::NotDone) {
            self.done += 1;
            self.last_done[at] = done.invoked;
        }
        if matches!(end, End::Written { .. } | End::Removed { .. }) {
            self.last_write = self.last_write.max(done.invoked);
        }
        done.end = end;
        if let Some(tap) = &mut self.tap {
            tap.ended.push((at, number));
        }
        if !self.setup.load.open {
            self.issue_later(at);
        }
    }

    fn issue_later(&mut self, at: usize) {
        let lazy = if at % 2 == 1 { self.setup.load.lazy } else { 1 };
        let think = (self.setup.load.think * lazy).as_micros() as u64;
        let think = Duration::from_micros(self.clients[at].dice.below(think));
        self.after(think, Event::Issue(at));
    }

    /// Asks again under the same number, or never knows.
    fn unknown(&mut self, at: usize, call: CallId) {
        self.trace.sometimes("a call ended as unknown");
        let client = &mut self.clients[at];
        if client.dice.permille(self.setup.load.forget) {
            client.machine.forget(self.now, call);
            return self.end(at, call, End::Unknown);
        }
        client.machine.resume(self.now, call, self.now + self.setup.load.deadline);
    }

    fn end_of(&mut self, number: usize, answer: Answer) -> End {
        let key = &self.history[number].key;
        match answer {
            Answer::Written { index, reply: Reply::Mismatch { current } } => {
                self.versions.insert(key.clone(), current);
                End::Mismatch { index: index.0, current }
            }
            Answer::Written { index, reply: Reply::OutsideLimits(_) } => {
                panic!("the calls of this world are within its limits, entry {index} is not")
            }
            Answer::Written { index, reply: Reply::Delete { existed } } => {
                self.versions.insert(key.clone(), index.0);
                End::Removed { index: index.0, existed }
            }
            Answer::Written { index, reply: _ } => {
                self.versions.insert(key.clone(), index.0);
                End::Written { index: index.0 }
            }
            Answer::Got { index, found } => {
                let found = found.map(|found| {
                    (found.version, String::from_utf8(found.value.to_vec()).expect("clients write text"))
                });
                self.versions.insert(key.clone(), found.as_ref().map_or(0, |(version, _)| *version));
                End::Read { index: index.0, found }
            }
            other => panic!("an answer to another question: {other:?}"),
        }
    }
}

/// What it asks of the map; `None` for a read.
fn command(key: Bytes, what: &What) -> Option<Command> {
    let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    match what {
        What::Append { token } => Some(Command::Append { key, value: bytes(token) }),
        What::Put { value } => Some(Command::Put { key, value: bytes(value) }),
        What::Compare { version, value } => {
            Some(Command::CompareAndPut { key, version: *version, value: bytes(value) })
        }
        What::Delete => Some(Command::Delete { key }),
        What::Read => None,
    }
}

fn draw_write(
    client: &mut Client,
    is_log: bool,
    key: Bytes,
    token: String,
    version: u64,
    filler: u64,
) -> (What, Command) {
    if is_log {
        return (What::Append { token: token.clone() }, Command::Append { key, value: token.into() });
    }
    let filler = client.dice.below(filler + 1) as usize;
    let text = format!("{}{token}", "x".repeat(filler));
    let value = Bytes::from(text.clone());
    match client.dice.below(4) {
        0 => (What::Delete, Command::Delete { key }),
        1 => (What::Compare { version, value: text }, Command::CompareAndPut { key, version, value }),
        _ => (What::Put { value: text }, Command::Put { key, value }),
    }
}

/// Whose sessions all simulated clients use.
pub const OWNER: Owner = Owner([3; 16]);
