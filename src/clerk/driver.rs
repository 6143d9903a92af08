//! What lends the clerk's machine a clock, connections and callers: inputs go in under one lock, and what comes of them
//! is carried out without it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::door::{Door, Doors, Handed, Link};
use super::machine::{CallId, Ending, Machine, Output, ServerId, Unsent};
use crate::wire::client::{Request, Response};

/// What all clones of a clerk share.
pub(super) struct Shared {
    state: Mutex<State>,
    doors: Doors,
    started: Instant,
    timer: Arc<Notify>,
    /// Answers of a node in this process arrive on its thread, outside the runtime.
    runtime: Handle,
}

/// The machine and whom it serves.
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) callers: HashMap<CallId, oneshot::Sender<Ending>>,
    pub(super) links: Vec<Option<Standing>>,
    pub(super) next_generation: u64,
    /// When the timer task wakes.
    pub(super) armed: Option<Duration>,
}

/// A connection, and which one it is: what is heard of an older one does not concern it.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) link: Link,
    pub(super) generation: u64,
}

impl Shared {
    /// A machine with its clock running. Needs a tokio runtime.
    pub(super) fn start(machine: Machine, doors: Doors) -> Arc<Self> {
        let state =
            State { machine, callers: HashMap::new(), links: Vec::new(), next_generation: 0, armed: None };
        let timer = Arc::new(Notify::new());
        let (started, runtime) = (Instant::now(), Handle::current());
        let shared =
            Arc::new(Self { state: Mutex::new(state), doors, started, timer: timer.clone(), runtime });
        tokio::spawn(run_timer(Arc::downgrade(&shared), timer));
        shared
    }

    /// Lends the clerk a node in this process, as its first server.
    pub(super) fn attach(self: &Arc<Self>, door: impl FnOnce(LinkEvents) -> Arc<dyn Door>) {
        let (shared, server, generation) = (Arc::downgrade(self), ServerId(0), 0);
        let link = Link::Local(door(LinkEvents { shared, server, generation }));
        self.act(|state, now| state.link_up(now, server, Standing { link, generation }));
    }

    /// One input to the machine, and everything that comes of it.
    pub(super) fn act<T>(self: &Arc<Self>, input: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.lock();
        let result = input(&mut state, self.started.elapsed());
        let work = state.collect();
        drop(state);
        self.carry_out(work);
        result
    }

    fn carry_out(self: &Arc<Self>, work: Work) {
        if work.rearm {
            self.timer.notify_one();
        }
        for Connecting { server, address, generation } in work.connects {
            self.connect(server, address, generation);
        }
        // Outside the lock: a node in this process may answer on the spot.
        for Sending { server, to, request } in work.sends {
            let id = request.id;
            let (handed, generation) = match to {
                Some(Standing { link, generation }) => (link.send(request), Some(generation)),
                None => (Handed::Gone, None),
            };
            match handed {
                Handed::Sent => {}
                Handed::Busy => self.act(|state, now| state.machine.unsent(now, id, Unsent::NoRoom)),
                Handed::Gone => self.act(|state, now| {
                    state.machine.unsent(now, id, Unsent::NoLink);
                    state.link_lost(now, server, generation);
                }),
            }
        }
    }

    fn connect(self: &Arc<Self>, server: ServerId, address: SocketAddr, generation: u64) {
        let weak = Arc::downgrade(self);
        let doors = self.doors.clone();
        self.runtime.spawn(async move {
            let events = LinkEvents { shared: weak.clone(), server, generation };
            let link = doors.connect(address, events).await;
            let Some(shared) = weak.upgrade() else { return };
            match link {
                Ok(link) => {
                    shared.act(|state, now| state.link_up(now, server, Standing { link, generation }))
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "cannot connect");
                    shared.act(|state, now| state.machine.connect_failed(now, server, error));
                }
            }
        });
    }

    pub(super) fn forget(self: &Arc<Self>, id: CallId) {
        self.act(|state, now| {
            state.callers.remove(&id);
            state.machine.forget(now, id);
        });
    }

    /// The machine changes in whole steps, so a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of an input, to be done without the lock.
struct Work {
    connects: Vec<Connecting>,
    sends: Vec<Sending>,
    rearm: bool,
}

struct Connecting {
    server: ServerId,
    address: SocketAddr,
    generation: u64,
}

struct Sending {
    server: ServerId,
    to: Option<Standing>,
    request: Request,
}

impl State {
    fn collect(&mut self) -> Work {
        let mut work = Work { connects: Vec::new(), sends: Vec::new(), rearm: false };
        for output in self.machine.outputs() {
            match output {
                Output::Connect(server) => {
                    let generation = self.draw_generation();
                    let address = self.machine.address(server);
                    work.connects.extend(address.map(|address| Connecting { server, address, generation }));
                }
                Output::Send(server, request) => {
                    let to = self.links.get(server.0).cloned().flatten();
                    work.sends.push(Sending { server, to, request });
                }
                Output::Finish(id, ending) => {
                    if let Some(caller) = self.callers.remove(&id) {
                        // A caller that has gone away forgets the call itself.
                        let _gone = caller.send(ending);
                    }
                }
            }
        }
        let wake = self.machine.wake_at();
        work.rearm = match (wake, self.armed) {
            (Some(wake), Some(armed)) => wake < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if work.rearm {
            self.armed = wake;
        }
        work
    }

    fn draw_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }

    pub(super) fn link_up(&mut self, now: Duration, server: ServerId, standing: Standing) {
        if self.links.len() <= server.0 {
            self.links.resize_with(server.0 + 1, || None);
        }
        if let Some(slot) = self.links.get_mut(server.0) {
            *slot = Some(standing);
        }
        self.machine.link_up(now, server);
    }

    /// The connection of this generation is gone, or there was none: nothing new if another stands by now.
    pub(super) fn link_lost(&mut self, now: Duration, server: ServerId, generation: Option<u64>) {
        let Some(slot) = self.links.get_mut(server.0) else { return };
        if slot.as_ref().map(|standing| standing.generation) == generation {
            *slot = None;
            self.machine.link_down(now, server);
        }
    }
}

/// Where a connection reports what happens on it.
#[derive(Clone)]
pub(crate) struct LinkEvents {
    shared: Weak<Shared>,
    server: ServerId,
    generation: u64,
}

impl LinkEvents {
    /// A response came.
    pub(crate) fn response(&self, response: Response) {
        if let Some(shared) = self.shared.upgrade() {
            shared.act(|state, now| state.machine.response(now, self.server, response));
        }
    }

    /// The connection ended.
    pub(crate) fn closed(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.act(|state, now| state.link_lost(now, self.server, Some(self.generation)));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.timer.notify_one();
    }
}

/// Ticks the machine whenever it asks for it, as long as the clerk lives. Asleep it holds no clerk.
async fn run_timer(shared: Weak<Shared>, timer: Arc<Notify>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let wait = {
            let mut state = strong.lock();
            state.armed = state.machine.wake_at();
            state.armed.map(|at| at.saturating_sub(strong.started.elapsed()))
        };
        if wait == Some(Duration::ZERO) {
            strong.act(|state, now| state.machine.tick(now));
            continue;
        }
        drop(strong);
        match wait {
            // One that passed means the same as one that was cut short: look again.
            Some(wait) => drop(tokio::time::timeout(wait, timer.notified()).await),
            None => timer.notified().await,
        }
    }
}
