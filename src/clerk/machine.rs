//! The clerk's thinking, without sockets and clocks: numbering, retries under the same number, redirects, and what a
//! call may be told. Calls and network events go in with the time; [`Output`]s come out.
//!
//! A write keeps its (session, sequence) over all attempts, so the map executes it once however many of them arrive
//! (thesis 6.3). An attempt that was sent and got no definite answer leaves a call *doubtful*: from then on only a
//! reply under the same number, never a timeout, can say that it was not done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::session::{Number, Session};
use crate::kv::{Command, SessionId};
use crate::wire::client::{Answer, Ask, Query, Refusal, Request, Response};

/// How long a connection attempt may stay alone before the next server is tried beside it.
const STAGGER: Duration = Duration::from_millis(100);
/// How long a server with a request may say nothing at all before another one is asked.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a request may stay without an answer at a server that answers others.
const ATTEMPT: Duration = Duration::from_millis(1_000);
/// How long nobody's word that it leads brings a silent server back, unless it speaks.
const SUSPICION: Duration = Duration::from_millis(1_000);
/// Pause before asking again where nobody knows a leader.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(25);
/// Pauses before asking again where the leader is at a limit: doubled from the first to the last.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(160));
/// Calls under way in one clerk, those with an unknown outcome included. One more is `Busy`, without being sent.
const CALLS_MAX: usize = 65_536;
/// Pause before a server that could not be reached is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A server, by its place in the clerk's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(pub usize);

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What to do for the clerk.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to it and report by `link_up` or `link_down`.
    Connect(ServerId),
    /// Send on its connection.
    Send(ServerId, Request),
    /// The call has ended.
    Finish(CallId, Ending),
}

/// Why a request did not leave this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// Too much waits to be sent on its connection, which stands.
    NoRoom,
    /// Its connection is gone; `link_down` says so next.
    NoLink,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its answer.
    Done(Answer),
    /// Definitely not done.
    NotDone(Refusal),
    /// Definitely not done: no server answered before the deadline.
    NoAnswer,
    /// It may have been done. The call stays known until it is resumed or forgotten.
    Unknown,
    /// Its session has expired while it was doubtful: nobody can say any more.
    Expired,
}

#[derive(Debug)]
enum What {
    Write { number: Option<Number>, command: Command },
    Read(Query),
    Stale(Query),
    Close,
}

#[derive(Debug)]
enum State {
    /// In the `ready` queue.
    Ready,
    /// Will be ready at this time.
    Pausing(Duration),
    /// Waits for the session to be opened or its window to move.
    Blocked,
    /// Asked, waiting for the answer.
    Sent { server: ServerId, at: Duration, check: Duration },
    /// Ended as unknown, kept for `resume`.
    Parked,
}

#[derive(Debug)]
struct Call {
    what: What,
    deadline: Duration,
    state: State,
    /// An attempt may have been executed.
    doubtful: bool,
    /// Every attempt's request id: a late answer counts.
    attempts: Vec<u64>,
    busy: u32,
    last_refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Server {
    address: Option<SocketAddr>,
    link: Link,
    /// When it last answered anything.
    heard: Duration,
    /// It was silent; until then it is not believed to lead.
    suspect_until: Duration,
}

impl Server {
    fn new(address: Option<SocketAddr>) -> Self {
        let link = match address {
            Some(_) => Link::Down { retry_at: Duration::ZERO },
            None => Link::Up,
        };
        Self { address, link, heard: Duration::ZERO, suspect_until: Duration::ZERO }
    }

    fn is_silent(&self, now: Duration, since: Duration) -> bool {
        since.max(self.heard) + SILENCE <= now
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        retry_at: Duration,
    },
    Connecting {
        since: Duration,
    },
    Up,
    /// The node in this process has stopped: it does not come back.
    Gone,
}

/// See the module's description.
#[derive(Debug)]
pub struct Machine {
    servers: Vec<Server>,
    current: usize,
    session: Session,
    /// The request that opens the session, while one is under way, and where it was sent.
    opening: Option<(u64, ServerId, Duration)>,
    open_not_before: Duration,
    calls: BTreeMap<CallId, Call>,
    requests: BTreeMap<u64, CallId>,
    ready: VecDeque<CallId>,
    blocked: VecDeque<CallId>,
    timers: BTreeSet<(Duration, CallId)>,
    next_call: u64,
    next_request: u64,
    outputs: Vec<Output>,
    /// The time of the latest input.
    now: Duration,
}

impl Machine {
    /// Knows these servers. `None` is the node in this process, always connected.
    pub fn new(servers: Vec<Option<SocketAddr>>, window: u64) -> Self {
        let servers = servers.into_iter().map(Server::new).collect();
        Self {
            servers,
            current: 0,
            session: Session::new(window),
            opening: None,
            open_not_before: Duration::ZERO,
            calls: BTreeMap::new(),
            requests: BTreeMap::new(),
            ready: VecDeque::new(),
            blocked: VecDeque::new(),
            timers: BTreeSet::new(),
            next_call: 1,
            next_request: 1,
            outputs: Vec::new(),
            now: Duration::ZERO,
        }
    }

    /// What is to be done now. Call after every input.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When `tick` is due at the latest.
    pub fn wake_at(&self) -> Option<Duration> {
        let call = self.timers.first().map(|(at, _)| *at);
        // What could be done by now has been done: only times to come count.
        let to_come = |at: &Duration| *at > self.now;
        let unserved = !(self.ready.is_empty() && self.blocked.is_empty());
        let links = self.servers.iter().filter_map(|server| match server.link {
            Link::Connecting { since } => Some(since + STAGGER),
            Link::Down { retry_at } => Some(retry_at),
            Link::Up | Link::Gone => None,
        });
        let link = if unserved && !self.current_is_up() { links.filter(to_come).min() } else { None };
        let opening = match self.opening {
            Some((_, _, at)) => Some(at + SILENCE),
            None => Some(self.open_not_before).filter(to_come).filter(|_| !self.blocked.is_empty()),
        };
        [call, link, opening].into_iter().flatten().min()
    }

    /// The address of a server; `None` for the node in this process.
    pub fn address(&self, server: ServerId) -> Option<SocketAddr> {
        self.servers.get(server.0).and_then(|server| server.address)
    }

    // ---- Calls ----

    /// A write, until `deadline`.
    pub fn write(&mut self, now: Duration, deadline: Duration, command: Command) -> CallId {
        self.begin(now, deadline, What::Write { number: None, command })
    }

    /// A linearizable read, or one of whatever a node has applied.
    pub fn read(&mut self, now: Duration, deadline: Duration, query: Query, stale: bool) -> CallId {
        self.begin(now, deadline, if stale { What::Stale(query) } else { What::Read(query) })
    }

    /// Gives the session back, if there is one. Ends as `NoAnswer` at once where there is none.
    pub fn close_session(&mut self, now: Duration, deadline: Duration) -> CallId {
        self.begin(now, deadline, What::Close)
    }

    /// Asks again about a call that ended as `Unknown`, under the same number.
    pub fn resume(&mut self, now: Duration, call: CallId, deadline: Duration) {
        if let Some(parked) = self.calls.get_mut(&call) {
            parked.deadline = deadline;
            parked.state = State::Ready;
            self.arm(call);
            self.ready.push_back(call);
            self.pump(now);
        }
    }

    /// Nobody waits for the call any more. A write's number is given up: executed once or never.
    pub fn forget(&mut self, now: Duration, call: CallId) {
        self.remove(call);
        self.pump(now);
    }

    fn begin(&mut self, now: Duration, deadline: Duration, what: What) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        if self.calls.len() >= CALLS_MAX {
            self.outputs.push(Output::Finish(id, Ending::NotDone(Refusal::Busy)));
            return id;
        }
        let call = Call {
            what,
            deadline,
            state: State::Ready,
            doubtful: false,
            attempts: Vec::new(),
            busy: 0,
            last_refusal: None,
        };
        self.timers.insert((deadline, id));
        self.calls.insert(id, call);
        self.ready.push_back(id);
        self.pump(now);
        id
    }

    fn remove(&mut self, id: CallId) {
        let Some(call) = self.calls.remove(&id) else { return };
        self.timers.remove(&(call.timer(), id));
        for request in &call.attempts {
            self.requests.remove(request);
        }
        if let What::Write { number: Some(number), .. } = call.what {
            self.session.resolved(number);
            self.unblock();
        }
    }

    fn finish(&mut self, id: CallId, ending: Ending) {
        self.remove(id);
        self.outputs.push(Output::Finish(id, ending));
    }

    // ---- Time ----

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            self.timer(now, id);
        }
        if let Some((_, server, at)) = self.opening
            && at + SILENCE <= now
        {
            self.opening = None;
            self.suspect(now, server);
            self.leave(server);
        }
        self.drop_ended();
        self.pump(now);
    }

    fn timer(&mut self, now: Duration, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.deadline <= now {
            return self.give_up(id);
        }
        match call.state {
            State::Pausing(_) => self.make_ready(id),
            State::Sent { server, at, .. } => self.check_attempt(now, id, server, at),
            State::Ready | State::Blocked | State::Parked => self.arm(id),
        }
    }

    /// A server that answers others is given time; one that says nothing is left.
    fn check_attempt(&mut self, now: Duration, id: CallId, server: ServerId, at: Duration) {
        let Some(found) = self.servers.get(server.0) else { return };
        if found.is_silent(now, at) {
            self.suspect(now, server);
        } else if now < at + ATTEMPT {
            let check = (found.heard.max(at) + SILENCE).min(at + ATTEMPT);
            return self.set_state(id, State::Sent { server, at, check });
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.doubtful = true;
        }
        self.leave(server);
        self.make_ready(id);
    }

    fn give_up(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let sent = matches!(call.state, State::Sent { .. });
        let is_write = matches!(call.what, What::Write { number: Some(_), .. });
        if is_write && (call.doubtful || sent) {
            call.doubtful = true;
            call.state = State::Parked;
            return self.outputs.push(Output::Finish(id, Ending::Unknown));
        }
        let ending = call.last_refusal.take().map_or(Ending::NoAnswer, Ending::NotDone);
        self.finish(id, ending);
    }

    /// Sets the call's timer anew after its state or deadline changed.
    fn arm(&mut self, id: CallId) {
        if let Some(call) = self.calls.get(&id)
            && !matches!(call.state, State::Parked)
        {
            self.timers.insert((call.timer(), id));
        }
    }

    fn set_state(&mut self, id: CallId, state: State) {
        if let Some(call) = self.calls.get_mut(&id) {
            self.timers.remove(&(call.timer(), id));
            call.state = state;
            self.arm(id);
        }
    }

    fn make_ready(&mut self, id: CallId) {
        self.set_state(id, State::Ready);
        self.ready.push_back(id);
    }

    /// Each time longer, up to a bound.
    fn pause_busy(&mut self, now: Duration, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let pause = BUSY_PAUSES.0 * 2u32.saturating_pow(call.busy.min(5));
        call.busy = call.busy.saturating_add(1);
        self.pause(now, id, pause.min(BUSY_PAUSES.1));
    }

    fn pause(&mut self, now: Duration, id: CallId, pause: Duration) {
        self.set_state(id, State::Pausing(now + pause));
    }

    // ---- Links ----

    /// A connection stands.
    pub fn link_up(&mut self, now: Duration, server: ServerId) {
        let Some(found) = self.servers.get_mut(server.0) else { return };
        found.link = Link::Up;
        if !self.current_is_up() {
            self.current = server.0;
        }
        self.pump(now);
    }

    /// A connection ended, or could not be made.
    pub fn link_down(&mut self, now: Duration, server: ServerId) {
        let Some(found) = self.servers.get_mut(server.0) else { return };
        found.link = match found.address {
            Some(_) => Link::Down { retry_at: now + RECONNECT_PAUSE },
            None => Link::Gone,
        };
        if self.opening.is_some_and(|(_, at, _)| at == server) {
            self.opening = None;
        }
        let lost: Vec<CallId> = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.state, State::Sent { server: at, .. } if at == server))
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if let Some(call) = self.calls.get_mut(&id) {
                call.doubtful = true;
            }
            self.make_ready(id);
        }
        self.leave(server);
        self.pump(now);
    }

    fn suspect(&mut self, now: Duration, server: ServerId) {
        if let Some(server) = self.servers.get_mut(server.0) {
            server.suspect_until = now + SUSPICION;
        }
    }

    fn is_suspect(&self, server: usize) -> bool {
        self.servers.get(server).is_some_and(|server| server.suspect_until > self.now)
    }

    /// Turns to the next server, if this one is the current one; to one that was not silent, if there is one.
    fn leave(&mut self, server: ServerId) {
        if self.current == server.0 {
            let count = self.servers.len().max(1);
            let mut others = (1..=count).map(|step| (server.0 + step) % count);
            let next = (server.0 + 1) % count;
            self.current = others.find(|other| !self.is_suspect(*other)).unwrap_or(next);
        }
    }

    fn current_is_up(&self) -> bool {
        self.servers.get(self.current).is_some_and(|server| server.link == Link::Up)
    }

    /// Connects to the current server, and to the ones after it as long as none before them has answered.
    fn connect(&mut self, now: Duration) {
        for step in 0..self.servers.len() {
            let at = (self.current + step) % self.servers.len();
            let Some(server) = self.servers.get_mut(at) else { return };
            match server.link {
                Link::Up => {
                    self.current = at;
                    return;
                }
                Link::Connecting { since } if now < since + STAGGER => return,
                Link::Connecting { .. } | Link::Gone => {}
                Link::Down { retry_at } if now < retry_at => {}
                Link::Down { .. } => {
                    server.link = Link::Connecting { since: now };
                    self.outputs.push(Output::Connect(ServerId(at)));
                    return;
                }
            }
        }
    }

    // ---- Sending ----

    /// Sends whatever can be sent.
    fn pump(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.ready.is_empty() && self.blocked.is_empty() {
            return;
        }
        if !self.current_is_up() {
            self.connect(now);
        }
        if self.servers.iter().all(|server| server.link == Link::Gone) {
            return self.stop_all();
        }
        if !self.current_is_up() {
            return;
        }
        if self.session.is_open() {
            self.unblock();
        }
        while let Some(id) = self.ready.pop_front() {
            self.send(now, id);
        }
        self.open_session(now);
    }

    /// There is nobody left to ask.
    fn stop_all(&mut self) {
        let waiting: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| call.waits()).map(|(id, _)| *id).collect();
        for id in waiting {
            if let Some(call) = self.calls.get_mut(&id) {
                call.last_refusal = Some(Refusal::Stopping);
            }
            self.give_up(id);
        }
    }

    /// Calls that ended while they waited for a connection want none any more.
    fn drop_ended(&mut self) {
        if self.current_is_up() {
            return;
        }
        let waits = |id: &CallId| self.calls.get(id).is_some_and(Call::waits);
        self.ready.retain(waits);
        self.blocked.retain(waits);
    }

    fn unblock(&mut self) {
        while self.session.has_room() {
            let Some(id) = self.blocked.pop_front() else { return };
            if self.calls.get(&id).is_some_and(|call| matches!(call.state, State::Blocked)) {
                self.make_ready(id);
            }
        }
    }

    fn send(&mut self, now: Duration, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !matches!(call.state, State::Ready) {
            return;
        }
        let body = match &mut call.what {
            What::Write { number, command } => {
                let numbered = number.or_else(|| self.session.draw());
                let Some(drawn) = numbered else {
                    self.blocked.push_back(id);
                    return self.set_state(id, State::Blocked);
                };
                *number = Some(drawn);
                Ask::Write {
                    session: drawn.session,
                    sequence: drawn.sequence,
                    acked_below: self.session.acked_below(drawn),
                    command: command.clone(),
                }
            }
            What::Read(query) => Ask::Read(query.clone()),
            What::Stale(query) => Ask::Stale(query.clone()),
            What::Close => match self.session.id() {
                Some(session) => Ask::Close { session },
                None => return self.finish(id, Ending::NoAnswer),
            },
        };
        let request = self.next_request;
        self.next_request += 1;
        call.attempts.push(request);
        let server = ServerId(self.current);
        self.requests.insert(request, id);
        self.set_state(id, State::Sent { server, at: now, check: now + SILENCE });
        self.outputs.push(Output::Send(server, Request { id: request, body }));
    }

    /// The request with this id did not leave: nothing can have come of it, so it casts no doubt on its call.
    pub fn unsent(&mut self, now: Duration, request: u64, why: Unsent) {
        self.now = self.now.max(now);
        if self.opening.is_some_and(|(id, _, _)| id == request) {
            self.opening = None;
            self.open_not_before = now + BUSY_PAUSES.0;
        }
        let Some(id) = self.requests.remove(&request) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.attempts.retain(|attempt| *attempt != request);
        if !matches!(call.state, State::Sent { .. }) {
            return;
        }
        match why {
            Unsent::NoRoom => {
                call.last_refusal = Some(Refusal::Busy);
                self.pause_busy(now, id);
            }
            Unsent::NoLink => self.make_ready(id),
        }
    }

    /// Blocked writes want a session: opens one, through one request at a time.
    fn open_session(&mut self, now: Duration) {
        if self.session.is_open()
            || self.opening.is_some()
            || self.blocked.is_empty()
            || now < self.open_not_before
        {
            return;
        }
        let id = self.next_request;
        self.next_request += 1;
        let server = ServerId(self.current);
        self.opening = Some((id, server, now));
        self.outputs.push(Output::Send(server, Request { id, body: Ask::Open }));
    }

    // ---- Answers ----

    /// A server answered.
    pub fn response(&mut self, now: Duration, server: ServerId, response: Response) {
        self.now = self.now.max(now);
        if let Some(found) = self.servers.get_mut(server.0) {
            found.heard = now;
            found.suspect_until = Duration::ZERO;
        }
        if self.opening.is_some_and(|(id, _, _)| id == response.id) {
            self.opening = None;
            self.opened(now, server, response.body);
        } else if let Some(id) = self.requests.remove(&response.id)
            // Who resumes a parked call asks again under its number: the stored reply is still there.
            && self.calls.get(&id).is_some_and(|call| !matches!(call.state, State::Parked))
        {
            match response.body {
                Ok(answer) => self.answered(id, answer),
                Err(refusal) => self.refused(now, server, id, response.id, refusal),
            }
        }
        self.pump(now);
    }

    fn opened(&mut self, now: Duration, server: ServerId, body: Result<Answer, Refusal>) {
        match body {
            Ok(Answer::Opened { session }) => self.session.open(session),
            Ok(_) => self.leave(server),
            Err(refusal) => {
                let pause = self.redirect(server, &refusal).unwrap_or(Duration::ZERO);
                let pause = if refusal == Refusal::SessionTableFull { BUSY_PAUSES.1 } else { pause };
                self.open_not_before = now + pause;
                for id in &self.blocked {
                    if let Some(call) = self.calls.get_mut(id) {
                        call.last_refusal = Some(refusal.clone());
                    }
                }
            }
        }
    }

    fn answered(&mut self, id: CallId, answer: Answer) {
        if answer == Answer::Closed {
            self.session.end();
        }
        self.finish(id, Ending::Done(answer));
    }

    fn refused(&mut self, now: Duration, server: ServerId, id: CallId, request: u64, refusal: Refusal) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.attempts.retain(|attempt| *attempt != request);
        if refusal == Refusal::Lost {
            call.doubtful = true;
        }
        call.last_refusal = Some(refusal.clone());
        match refusal {
            Refusal::NotLeader { .. } | Refusal::Lost | Refusal::Stopping => {
                match self.redirect(server, &refusal) {
                    Some(pause) => self.pause(now, id, pause),
                    None => self.make_ready(id),
                }
            }
            Refusal::Busy | Refusal::SessionTableFull => self.pause_busy(now, id),
            Refusal::NoSpace if call.doubtful => self.pause(now, id, BUSY_PAUSES.1),
            Refusal::SessionExpired => self.session_expired(id),
            Refusal::NoSpace | Refusal::TooLarge { .. } | Refusal::BadRequest { .. } => {
                self.finish(id, Ending::NotDone(refusal));
            }
        }
    }

    /// Turns to where the refusal points. `None`: ask there at once; otherwise after a pause.
    fn redirect(&mut self, server: ServerId, refusal: &Refusal) -> Option<Duration> {
        if let Refusal::NotLeader { leader: Some((_, address)) } = refusal {
            let known = self.servers.iter().position(|server| server.address == Some(*address));
            let at = known.unwrap_or_else(|| {
                self.servers.push(Server::new(Some(*address)));
                self.servers.len() - 1
            });
            if at != server.0 && !self.is_suspect(at) {
                self.current = at;
                // A leader that cannot be reached right now is not asked in a circle.
                return matches!(self.servers.get(at)?.link, Link::Down { retry_at } if retry_at > Duration::ZERO)
                    .then_some(NO_LEADER_PAUSE);
            }
        }
        self.leave(server);
        Some(NO_LEADER_PAUSE)
    }

    /// The session is gone. A write that never can have been executed goes into a new one, silently; one that may
    /// have been is told so.
    fn session_expired(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let What::Write { number, .. } = &mut call.what else {
            return self.finish(id, Ending::NoAnswer);
        };
        if let Some(number) = number.take() {
            self.session.expired(number.session);
        }
        if call.doubtful {
            self.finish(id, Ending::Expired);
        } else {
            self.make_ready(id);
        }
    }

    /// The session that writes go into now.
    pub fn session(&self) -> Option<SessionId> {
        self.session.id()
    }

    /// Calls that have not ended.
    pub fn calls_under_way(&self) -> usize {
        self.calls.values().filter(|call| !matches!(call.state, State::Parked)).count()
    }
}

impl Call {
    fn waits(&self) -> bool {
        matches!(self.state, State::Ready | State::Blocked)
    }

    /// When something must happen to it.
    fn timer(&self) -> Duration {
        match self.state {
            State::Pausing(until) => until.min(self.deadline),
            State::Sent { check, .. } => check.min(self.deadline),
            State::Ready | State::Blocked | State::Parked => self.deadline,
        }
    }
}
