//! The clerk's thinking, without sockets and clocks: numbering, retries under the same number, redirects, and what a
//! call may be told. Calls and network events go in with the time; [`Output`]s come out.
//!
//! A write keeps its (session, sequence) over all attempts, so the map executes it once however many of them arrive
//! (thesis 6.3). An attempt that was sent and got no definite answer leaves a call *doubtful*: from then on only a
//! reply under the same number, never a timeout, can say that it was not done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::servers::{SILENCE, Servers};
pub use super::servers::{ServerAddress, ServerId};
use super::session::{Number, Session};
use crate::kv::{Command, SessionId};
use crate::wire::client::{Answer, Ask, Query, Refusal, Request, Response};

/// Pauses before asking again where the leader is at a limit: doubled from the first to the last.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(160));
/// Calls under way in one clerk, those with an unknown outcome included. One more is `Busy`, without being sent.
const CALLS_MAX: usize = 65_536;
/// Openings that were given up and may still be answered. The oldest one is forgotten for one more.
const LATE_OPENINGS_MAX: usize = 64;

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
    /// Definitely not done: no server could be connected to, for this reason at last.
    Unreached(String),
    /// Definitely not done: calls that ended as unknown and were neither resumed nor forgotten fill the window.
    WindowFull,
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
    Close(Option<SessionId>),
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

/// A request for a session.
#[derive(Clone, Copy, Debug)]
struct Opening {
    request: u64,
    server: ServerId,
    at: Duration,
    check: Duration,
}

/// See the module's description.
#[derive(Debug)]
pub struct Machine {
    servers: Servers,
    /// Why the latest attempt to connect failed; nothing as soon as one succeeds.
    unreached: Option<String>,
    session: Session,
    /// While one is under way.
    opening: Option<Opening>,
    /// Requests for a session that another one has taken the place of, and where they were sent: the first session
    /// that any of them brings is used, the others are given back.
    late_openings: BTreeMap<u64, ServerId>,
    open_not_before: Duration,
    calls: BTreeMap<CallId, Call>,
    requests: BTreeMap<u64, CallId>,
    ready: VecDeque<CallId>,
    blocked: VecDeque<CallId>,
    timers: BTreeSet<(Duration, CallId)>,
    /// Calls that are kept for `resume`.
    parked: usize,
    next_call: u64,
    next_request: u64,
    outputs: Vec<Output>,
    /// The time of the latest input.
    now: Duration,
}

impl Machine {
    /// Knows these servers, at least one. At most `window` writes have a number and no answer.
    pub fn new(servers: Vec<ServerAddress>, window: u64) -> Self {
        Self {
            servers: Servers::new(servers),
            unreached: None,
            session: Session::new(window),
            opening: None,
            late_openings: BTreeMap::new(),
            open_not_before: Duration::ZERO,
            calls: BTreeMap::new(),
            requests: BTreeMap::new(),
            ready: VecDeque::new(),
            blocked: VecDeque::new(),
            timers: BTreeSet::new(),
            parked: 0,
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
        let unserved = !(self.ready.is_empty() && self.blocked.is_empty());
        let link = Some(()).filter(|()| unserved && !self.servers.current_is_up());
        let link = link.and_then(|()| self.servers.connect_at(self.now));
        let opening = match self.opening {
            Some(opening) => Some(opening.check),
            None => Some(self.open_not_before).filter(|at| *at > self.now && !self.blocked.is_empty()),
        };
        [call, link, opening].into_iter().flatten().min()
    }

    /// The address of a server; `None` for the node in this process.
    pub fn address(&self, server: ServerId) -> Option<SocketAddr> {
        self.servers.address(server)
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

    /// Gives the session back. Done at once where there is none.
    pub fn close_session(&mut self, now: Duration, deadline: Duration) -> CallId {
        let session = self.session.id();
        self.begin(now, deadline, What::Close(session))
    }

    /// Asks again about a call that ended as `Unknown`, under the same number.
    pub fn resume(&mut self, now: Duration, call: CallId, deadline: Duration) {
        if let Some(parked) = self.calls.get_mut(&call).filter(|call| call.is_parked()) {
            self.parked -= 1;
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
        self.parked -= usize::from(call.is_parked());
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
        self.check_opening(now);
        self.drop_ended();
        self.pump(now);
    }

    fn timer(&mut self, now: Duration, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.deadline <= now {
            if let State::Sent { server, .. } = call.state {
                self.servers.gave_up(now, server);
            }
            return self.give_up(id);
        }
        match call.state {
            State::Pausing(_) => self.make_ready(id),
            State::Sent { server, at, .. } => self.check_attempt(now, id, server, at),
            State::Ready | State::Blocked | State::Parked => self.arm(id),
        }
    }

    fn check_attempt(&mut self, now: Duration, id: CallId, server: ServerId, at: Duration) {
        if let Some(check) = self.servers.patience(now, server, at) {
            return self.set_state(id, State::Sent { server, at, check });
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.doubtful = true;
        }
        self.servers.leave(now, server);
        self.make_ready(id);
    }

    fn check_opening(&mut self, now: Duration) {
        let Some(opening) = self.opening.as_mut().filter(|opening| opening.check <= now) else { return };
        let server = opening.server;
        match self.servers.patience(now, server, opening.at) {
            Some(check) => opening.check = check,
            None => {
                self.set_opening_aside();
                self.servers.leave(now, server);
            }
        }
    }

    /// Its answer may still come.
    fn set_opening_aside(&mut self) {
        if let Some(opening) = self.opening.take() {
            sometimes!("a clerk opened a session twice, for the answer was late");
            self.late_openings.insert(opening.request, opening.server);
            if self.late_openings.len() > LATE_OPENINGS_MAX {
                self.late_openings.pop_first();
            }
        }
    }

    fn give_up(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let sent = matches!(call.state, State::Sent { .. });
        if call.is_numbered_write() && (call.doubtful || sent) {
            return self.park(id);
        }
        let blocked = matches!(call.state, State::Blocked);
        let refusal = call.last_refusal.take();
        let ending = if blocked && self.parked > 0 && self.session.is_open() && !self.session.has_room() {
            Ending::WindowFull
        } else if let Some(refusal) = refusal {
            Ending::NotDone(refusal)
        } else {
            let unreached = self.unreached.clone().filter(|_| !self.servers.any_is_up());
            unreached.map_or(Ending::NoAnswer, Ending::Unreached)
        };
        self.finish(id, ending);
    }

    /// Its outcome is unknown; its number is kept.
    fn park(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        self.timers.remove(&(call.timer(), id));
        call.doubtful = true;
        call.state = State::Parked;
        self.parked += 1;
        self.outputs.push(Output::Finish(id, Ending::Unknown));
    }

    /// Sets the call's timer anew after its state or deadline changed.
    fn arm(&mut self, id: CallId) {
        if let Some(call) = self.calls.get(&id)
            && !call.is_parked()
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
        self.servers.link_up(server);
        self.unreached = None;
        self.pump(now);
    }

    /// A connection could not be made.
    pub fn connect_failed(&mut self, now: Duration, server: ServerId, why: String) {
        self.unreached = Some(why);
        self.link_down(now, server);
    }

    /// A connection ended, or could not be made.
    pub fn link_down(&mut self, now: Duration, server: ServerId) {
        if self.opening.is_some_and(|opening| opening.server == server) {
            self.opening = None;
        }
        self.late_openings.retain(|_, at| *at != server);
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
        self.servers.link_down(now, server);
        self.pump(now);
    }

    // ---- Sending ----

    /// Sends whatever can be sent.
    fn pump(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.ready.is_empty() && self.blocked.is_empty() {
            return;
        }
        if !self.servers.current_is_up() {
            self.outputs.extend(self.servers.connect(now).map(Output::Connect));
        }
        if self.servers.all_gone() {
            return self.stop_all();
        }
        if !self.servers.current_is_up() {
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
        if self.servers.current_is_up() {
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
            What::Close(Some(session)) => Ask::Close { session: *session },
            What::Close(None) => return self.finish(id, Ending::Done(Answer::Closed)),
        };
        // Whatever a node has applied is good enough, so the nearest one is asked, once.
        let local = self.servers.local(now).filter(|_| call.attempts.is_empty());
        let server = match call.what {
            What::Stale(_) => local.unwrap_or(self.servers.current()),
            What::Write { .. } | What::Read(_) | What::Close(_) => self.servers.current(),
        };
        let request = self.next_request;
        self.next_request += 1;
        call.attempts.push(request);
        self.requests.insert(request, id);
        self.set_state(id, State::Sent { server, at: now, check: now + SILENCE });
        self.servers.asked(now, server);
        self.outputs.push(Output::Send(server, Request { id: request, body }));
    }

    /// The request with this id did not leave: nothing can have come of it, so it casts no doubt on its call.
    pub fn unsent(&mut self, now: Duration, request: u64, why: Unsent) {
        self.now = self.now.max(now);
        if self.opening.is_some_and(|opening| opening.request == request) {
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
        let (request, server) = (self.next_request, self.servers.current());
        self.next_request += 1;
        self.opening = Some(Opening { request, server, at: now, check: now + SILENCE });
        self.outputs.push(Output::Send(server, Request { id: request, body: Ask::Open }));
    }

    // ---- Answers ----

    /// A server answered.
    pub fn response(&mut self, now: Duration, server: ServerId, response: Response) {
        self.now = self.now.max(now);
        self.servers.heard(now, server);
        if self.opening.is_some_and(|opening| opening.request == response.id) {
            self.opening = None;
            self.opened(now, server, response.body);
        } else if self.late_openings.remove(&response.id).is_some() {
            if let Ok(Answer::Opened { session }) = response.body {
                self.opened_late(server, session);
            }
        } else if let Some(id) = self.requests.remove(&response.id)
            // Who resumes a parked call asks again under its number: the stored reply is still there.
            && self.calls.get(&id).is_some_and(|call| !call.is_parked())
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
            Ok(_) => self.servers.leave(now, server),
            Err(Refusal::NoSpace) => {
                self.open_not_before = now + BUSY_PAUSES.1;
                self.refuse_blocked();
            }
            Err(refusal) => {
                let pause = self.redirect(now, server, &refusal).unwrap_or(Duration::ZERO);
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

    /// The first session that comes is taken. One that came in vain is given back, whether or not that arrives: it
    /// would expire.
    fn opened_late(&mut self, server: ServerId, session: SessionId) {
        if self.session.is_open() {
            let id = self.next_request;
            self.next_request += 1;
            self.outputs.push(Output::Send(server, Request { id, body: Ask::Close { session } }));
        } else {
            self.session.open(session);
            self.set_opening_aside();
        }
    }

    /// Nothing is written for want of space: those that were never sent need not wait for it.
    fn refuse_blocked(&mut self) {
        for id in std::mem::take(&mut self.blocked) {
            if self.calls.get(&id).is_some_and(|call| matches!(call.state, State::Blocked)) {
                self.finish(id, Ending::NotDone(Refusal::NoSpace));
            }
        }
    }

    fn answered(&mut self, id: CallId, answer: Answer) {
        if answer == Answer::Closed
            && let Some(Call { what: What::Close(Some(session)), .. }) = self.calls.get(&id)
        {
            self.session.ended(*session);
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
                match self.redirect(now, server, &refusal) {
                    Some(pause) => self.pause(now, id, pause),
                    None => self.make_ready(id),
                }
            }
            Refusal::Busy | Refusal::SessionTableFull => self.pause_busy(now, id),
            Refusal::NoSpace if call.doubtful => self.pause(now, id, BUSY_PAUSES.1),
            // What an earlier attempt came to is not said by this one's refusal.
            Refusal::BadRequest { .. } if call.doubtful && call.is_numbered_write() => self.park(id),
            Refusal::SessionExpired => self.session_expired(id),
            Refusal::NoSpace | Refusal::TooLarge { .. } | Refusal::BadRequest { .. } => {
                self.finish(id, Ending::NotDone(refusal));
            }
        }
    }

    /// Turns to where the refusal points. `None`: ask there at once; otherwise after a pause.
    fn redirect(&mut self, now: Duration, server: ServerId, refusal: &Refusal) -> Option<Duration> {
        let leader = match refusal {
            Refusal::NotLeader { leader } => leader.map(|(_, address)| address),
            Refusal::Busy
            | Refusal::NoSpace
            | Refusal::TooLarge { .. }
            | Refusal::SessionExpired
            | Refusal::SessionTableFull
            | Refusal::BadRequest { .. }
            | Refusal::Lost
            | Refusal::Stopping => None,
        };
        self.servers.redirect(now, server, leader)
    }

    /// The session is gone. A write that never can have been executed goes into a new one, silently; one that may
    /// have been is told so.
    fn session_expired(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match &mut call.what {
            What::Write { number, .. } => {
                if let Some(number) = number.take() {
                    self.session.ended(number.session);
                }
                if call.doubtful { self.finish(id, Ending::Expired) } else { self.make_ready(id) }
            }
            What::Close(_) => self.answered(id, Answer::Closed),
            What::Read(_) | What::Stale(_) => self.finish(id, Ending::NotDone(Refusal::SessionExpired)),
        }
    }

    /// The session that writes go into now.
    pub fn session(&self) -> Option<SessionId> {
        self.session.id()
    }

    /// Calls that have not ended.
    pub fn calls_under_way(&self) -> usize {
        self.calls.len() - self.parked
    }
}

impl Call {
    fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked)
    }

    fn is_numbered_write(&self) -> bool {
        matches!(self.what, What::Write { number: Some(_), .. })
    }

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
